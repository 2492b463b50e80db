# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths, settings and the feedback bridge: the parts between QGIS and the worker that need QGIS."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from qgis.core import QgsApplication, QgsProcessingFeedback, QgsProcessingUtils, QgsSettings
from qgis.PyQt.QtGui import QIcon

from gridcast_qgis import paths, settings
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.worker.feedback import FeedbackBridge

# -- paths --------------------------------------------------------------------------------------


def test_shipped_files_are_found():
    assert paths.resource("icons", "gridcast.svg").is_file()
    assert paths.resource("worker", "worker.lock").is_file()
    assert paths.resource("sample", "SOURCE.md").is_file()
    assert paths.resource("help", "index.html").is_file()


def test_folders_lie_in_the_profile(qgis_app):
    profile = Path(QgsApplication.qgisSettingsDirPath())
    assert paths.logs_folder() == profile / "gridcast" / "logs"
    assert paths.managed_environment() == profile / "gridcast" / "env"


def test_the_environment_stays_out_of_windows_roaming_profile(qgis_app, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert paths.managed_environment() == tmp_path / "gridcast" / "env"


def test_job_folders_are_private_and_lie_where_the_user_wants_temporary_files(qgis_app):
    first, second = paths.new_job_dir(), paths.new_job_dir()
    try:
        assert first != second
        assert first.parent == Path(QgsProcessingUtils.tempFolder())
        if os.name == "posix":
            assert first.stat().st_mode & 0o077 == 0
    finally:
        first.rmdir()
        second.rmdir()


def test_a_good_destination_is_made_absolute(tmp_path, monkeypatch):
    folder = tmp_path / "mit Ümlaut"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert paths.check_destination("grid.tif", "OUTPUT") == folder / "grid.tif"
    (folder / "grid.tif").write_text("an older one may be replaced")
    assert paths.check_destination(str(folder / "grid.tif"), "OUTPUT") == folder / "grid.tif"
    assert [path.name for path in folder.iterdir()] == ["grid.tif"]


def test_a_bad_destination_names_parameter_value_and_fix(tmp_path):
    def text(path) -> str:
        with pytest.raises(InputError) as caught:
            paths.check_destination(str(path), "OUTPUT")
        return caught.value.text()

    missing = tmp_path / "missing" / "grid.tif"
    assert text("") == "OUTPUT = : No output file is given. Name the file to be written."
    assert text(tmp_path) == f"OUTPUT = {tmp_path}: This is a folder, not a file. Add a file name to it."
    assert text(missing) == (
        f"OUTPUT = {missing}: The folder '{missing.parent}' does not exist. "
        "Create it first or choose another one."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write to")
def test_a_read_only_folder_is_refused():
    with pytest.raises(
        InputError, match=r"^OUTPUT = /proc/grid.tif: The folder '/proc' cannot be written: .*"
    ):
        paths.check_destination("/proc/grid.tif", "OUTPUT")


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    target = tmp_path / "grid.tif"
    target.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(
        InputError, match="The file is write-protected. Choose another name or remove the protec"
    ):
        paths.check_destination(str(target), "OUTPUT")


# -- settings -----------------------------------------------------------------------------------

KEYS = [f"Processing/Configuration/{name}" for name in ("GRIDCAST_PYTHON", "GRIDCAST_SCHEDULER")]


@pytest.fixture
def clean_settings(qgis_app):
    for key in KEYS:
        QgsSettings().remove(key)
    yield
    for key in KEYS:
        QgsSettings().remove(key)


def test_settings_are_read_without_the_panel(clean_settings):
    assert (settings.interpreter(), settings.scheduler()) == ("", "")
    QgsSettings().setValue(KEYS[0], " /opt/python ")
    QgsSettings().setValue(KEYS[1], " tcp://far.example:8786 ")
    assert (settings.interpreter(), settings.scheduler()) == ("/opt/python", "tcp://far.example:8786")


def test_the_panel_writes_what_is_read(clean_settings, qgis_processing, tmp_path):
    from processing.core.ProcessingConfig import ProcessingConfig

    python = tmp_path / "python3"
    python.touch()
    settings.add_panel()
    try:
        setting, scheduler = ProcessingConfig.getSettings()["Gridcast"]
        assert isinstance(ProcessingConfig.getGroupIcon("Gridcast"), QIcon)
        ProcessingConfig.setSettingValue(setting.name, str(python))
        assert settings.interpreter() == str(python)
        ProcessingConfig.setSettingValue(scheduler.name, "tcp://far.example:8786")
        assert settings.scheduler() == "tcp://far.example:8786"
        with pytest.raises(ValueError, match="path does not exist"):
            ProcessingConfig.setSettingValue(setting.name, str(tmp_path / "missing"))
        settings.add_panel()
        again = ProcessingConfig.getSettings()["Gridcast"]
        assert [each.value for each in again] == [str(python), "tcp://far.example:8786"]
    finally:
        settings.remove_panel()
    assert "Gridcast" not in ProcessingConfig.getSettings()
    assert "Gridcast" not in ProcessingConfig.settingIcons
    settings.remove_panel()  # may be called twice


# -- feedback -----------------------------------------------------------------------------------


class Notes(QgsProcessingFeedback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__(False)
        self.notes: list[tuple[str, object]] = []

    def setProgressText(self, text):
        self.notes.append(("stage", text))

    def pushInfo(self, text):
        self.notes.append(("info", text))

    def pushWarning(self, text):
        self.notes.append(("warning", text))

    def pushDebugInfo(self, text):
        self.notes.append(("debug", text))


def test_events_reach_the_user():
    feedback = Notes()
    bridge = FeedbackBridge(feedback)
    bridge({"event": "hello", "version": "1.0", "python": "3.12", "pid": 7})
    bridge({"event": "stage", "name": "Training"})
    bridge({"event": "message", "level": "info", "text": "239 events"})
    bridge({"event": "message", "level": "warning", "text": "7 dropped"})
    bridge({"event": "metric", "name": "validation loss", "value": 0.123456789, "step": 3})
    assert feedback.notes == [
        ("debug", "Gridcast 1.0, Python 3.12, process 7"),
        ("stage", "Training"),
        ("info", "239 events"),
        ("warning", "7 dropped"),
        ("info", "validation loss (step 3): 0.123457"),
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (42.5, 42.5), (120, 100), (-1, 0), ("soon", 33), (None, 33)]
)
def test_progress_stays_within_its_bar(value, shown):
    feedback = Notes()
    feedback.setProgress(33)
    FeedbackBridge(feedback)({"event": "progress", "value": value})
    assert feedback.progress() == shown


def test_events_of_a_newer_worker_are_ignored():
    feedback = Notes()
    FeedbackBridge(feedback)({"event": "picture", "data": "…"})
    assert feedback.notes == []


def test_cancel_is_seen():
    feedback = Notes()
    bridge = FeedbackBridge(feedback)
    assert not bridge.is_cancelled()
    feedback.cancel()
    assert bridge.is_cancelled()
