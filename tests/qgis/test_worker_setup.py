# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithms of the group "Set up": the managed environment and the sample."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsVectorLayer,
)

from gridcast_qgis import paths
from gridcast_qgis.algorithms import setupenvironment
from gridcast_qgis.algorithms.loadsample import LoadSample
from gridcast_qgis.algorithms.setupenvironment import SetUpEnvironment
from gridcast_qgis.core.errors import EnvironmentFault, JobCancelled
from gridcast_qgis.worker.interpreter import python_of

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "fakes" / "fake_worker.py"


class Notes(QgsProcessingFeedback):
    def __init__(self):
        super().__init__(False)
        self.lines: list[str] = []

    def pushInfo(self, text):
        self.lines.append(text)

    def pushWarning(self, text):
        self.lines.append(text)

    def pushConsoleInfo(self, text):
        self.lines.append(text)


@pytest.fixture
def feedback():
    return Notes()


@pytest.fixture
def context(qgis_app, qgis_new_project):
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    return context


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    """Let the worker be a fake whose next result the test chooses."""
    python = tmp_path / "fake python"
    python.write_bytes(FAKE.read_bytes())
    python.chmod(0o755)
    monkeypatch.setenv("GRIDCAST_PYTHON", str(python))
    return python


# -- the environment ----------------------------------------------------------------------------


@pytest.fixture
def managed(tmp_path, monkeypatch):
    """Let the managed environment be in the test's own folder, and no other Python be named."""
    folder = tmp_path / "profil zoë" / "env"
    monkeypatch.setattr(paths, "managed_environment", lambda: folder)
    monkeypatch.delenv("GRIDCAST_PYTHON", raising=False)
    monkeypatch.setenv("FAKE_WORKER_OUTPUTS", '{"python": "3.12.1", "packages": {"keras": "3.15"}}')
    return folder


def place(python: Path) -> None:
    """Put the fake worker where an environment has its interpreter."""
    python.parent.mkdir(parents=True)
    python.write_bytes(FAKE.read_bytes())
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def creation(managed, monkeypatch):
    """Replace the long part, the installation, by a quick one; return the calls."""
    calls = []

    def create(folder, lock, base, *, environment, verify, on_line, is_cancelled):
        calls.append((folder, lock, base))
        assert environment["PYTHONPATH"] == str(ROOT)
        on_line("Collecting keras==3.15")
        on_line("Installing collected packages: keras")
        on_line("Successfully installed keras-3.15")
        place(python_of(folder))
        verify(python_of(folder))

    monkeypatch.setattr(setupenvironment, "create_managed", create)
    monkeypatch.setattr(setupenvironment, "is_current", lambda folder, lock: python_of(folder).is_file())
    return calls


posix = pytest.mark.skipif(sys.platform == "win32", reason="the fake worker is started by its #! line")


def run(algorithm, parameters, context, feedback):
    outputs, ok = algorithm.create().run(parameters, context, feedback, catchExceptions=False)
    assert ok
    return outputs


@posix
def test_a_missing_environment_is_made_and_checked(managed, creation, context, feedback):
    outputs = run(SetUpEnvironment(), {}, context, feedback)
    assert outputs == {"PYTHON": str(python_of(managed))}
    ((folder, lock, base),) = creation
    assert folder == managed
    assert lock == paths.resource("worker", "worker.lock")
    assert base.is_file()
    assert f"Python: {base}" in feedback.lines
    assert "Successfully installed keras-3.15" in feedback.lines
    assert "Python 3.12.1: keras 3.15" in feedback.lines
    assert feedback.progress() == 100


@posix
def test_a_working_environment_is_left_alone(managed, creation, context, feedback):
    place(python_of(managed))
    assert run(SetUpEnvironment(), {}, context, feedback) == {"PYTHON": str(python_of(managed))}
    assert creation == []
    assert "The environment is there and works." in feedback.lines


@posix
def test_a_broken_environment_is_made_anew(managed, creation, context, feedback, monkeypatch):
    place(python_of(managed))
    python_of(managed).write_text("#!/bin/false\n")

    def create(folder, *_, verify, **__):
        creation.append(folder)
        python_of(folder).write_bytes(FAKE.read_bytes())
        verify(python_of(folder))

    monkeypatch.setattr(setupenvironment, "create_managed", create)
    run(SetUpEnvironment(), {}, context, feedback)
    assert creation == [managed]
    assert "The environment is made anew." in feedback.lines
    assert any("ended with status 1 before it answered" in line for line in feedback.lines)


@posix
def test_a_working_environment_is_made_anew_on_demand(managed, creation, context, feedback, monkeypatch):
    monkeypatch.setattr(setupenvironment, "is_current", lambda *_: pytest.fail("no need to look"))
    run(SetUpEnvironment(), {"RECREATE": True}, context, feedback)
    assert len(creation) == 1


@posix
def test_a_python_that_goes_first_is_mentioned(managed, creation, context, feedback, fake_worker):
    run(SetUpEnvironment(), {}, context, feedback)
    assert any("does not use this environment yet" in line for line in feedback.lines)


def test_failure_raises(managed, creation, context, feedback, monkeypatch):
    def find(*_):
        raise EnvironmentFault("No Python was found.", hint="Install one.")

    monkeypatch.setattr(setupenvironment, "find_base_python", find)
    with pytest.raises(QgsProcessingException, match="No Python was found. Install one."):
        run(SetUpEnvironment(), {}, context, feedback)
    assert not managed.exists()


@posix
def test_cancel_during_the_check_does_not_make_it_anew(managed, creation, context, feedback, monkeypatch):
    place(python_of(managed))

    def run_job(*_, **__):
        raise JobCancelled()

    monkeypatch.setattr(setupenvironment.client, "run_job", run_job)
    with pytest.raises(QgsProcessingException, match="cancelled"):
        run(SetUpEnvironment(), {}, context, feedback)
    assert creation == []


def test_progress_follows_pip(tmp_path, feedback):
    lock = tmp_path / "worker.lock"
    lock.write_text("a==1 \\\n    --hash=sha256:0\nb==2 ; python_version < '3.11'\n")
    log = setupenvironment._InstallLog(lock, feedback)
    seen = []
    for line in (
        "Collecting a==1",
        "  Downloading a-1.whl",
        "Collecting b==2",
        "Collecting c",
        "Installing collected packages: a, b",
        "Successfully installed a-1 b-2",
    ):
        log(line)
        seen.append(feedback.progress())
    assert seen == [30, 30, 60, 60, 60, 90]
    assert len(feedback.lines) == 6


# -- the sample ---------------------------------------------------------------------------------


@pytest.fixture
def real_worker(monkeypatch):
    python = os.environ.get("GRIDCAST_PYTHON") or str(python_of(ROOT / ".venv"))
    if not Path(python).is_file():
        pytest.skip("the worker's environment is not set up")
    monkeypatch.setenv("GRIDCAST_PYTHON", python)


@pytest.mark.worker
def test_the_sample_becomes_two_layers(real_worker, context, feedback, tmp_path):
    output = tmp_path / "Törönto sample.gpkg"
    outputs = run(LoadSample(), {"OUTPUT": str(output)}, context, feedback)
    assert outputs == {
        "OUTPUT": str(output),
        "EVENTS": f"{output}|layername=events",
        "BOUNDARY": f"{output}|layername=boundary",
        "TIME_ZONE": "America/Toronto",
    }
    events = QgsVectorLayer(outputs["EVENTS"], "events", "ogr")
    assert events.featureCount() == 239_935
    assert events.crs().authid() == "EPSG:4326"
    first = next(events.getFeatures())
    assert first["time"].toUTC().toString("yyyy-MM-dd HH:mm") == "2014-01-01 05:00"
    boundary = QgsVectorLayer(outputs["BOUNDARY"], "boundary", "ogr")
    assert boundary.featureCount() == 1
    assert "Contains information licensed under the Open Government Licence – Toronto." in feedback.lines
    assert context.layersToLoadOnCompletion() == {}
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".gpkg"] == []


@posix
def test_both_layers_are_opened_under_their_names(fake_worker, context, feedback, tmp_path, monkeypatch):
    output = tmp_path / "sample.gpkg"
    monkeypatch.setenv("FAKE_WORKER_OUTPUTS", '{"attribution": "thanks", "time_zone": "America/Toronto"}')
    destination = QgsProcessingOutputLayerDefinition(str(output), QgsProject.instance())
    run(LoadSample(), {"OUTPUT": destination}, context, feedback)
    waiting = context.layersToLoadOnCompletion()
    assert {key: (details.name, details.forceName) for key, details in waiting.items()} == {
        f"{output}|layername=events": ("Toronto events", True),
        f"{output}|layername=boundary": ("Toronto boundary", True),
    }
    assert all(details.project == QgsProject.instance() for details in waiting.values())


@posix
def test_a_temporary_sample_is_a_geopackage_too(fake_worker, context, feedback, monkeypatch):
    monkeypatch.setenv("FAKE_WORKER_OUTPUTS", '{"attribution": "thanks", "time_zone": "America/Toronto"}')
    outputs = run(LoadSample(), {"OUTPUT": "TEMPORARY_OUTPUT"}, context, feedback)
    assert outputs["OUTPUT"].endswith(".gpkg")
    assert Path(outputs["OUTPUT"]).is_file()


def test_another_format_is_refused(fake_worker, context, feedback, tmp_path):
    output = tmp_path / "sample.shp"
    ok, text = LoadSample().create().checkParameterValues({"OUTPUT": str(output)}, context)
    assert not ok
    assert text.startswith(f"OUTPUT = {output}:")
    assert ".gpkg" in text
    with pytest.raises(QgsProcessingException, match="OUTPUT = .*sample.shp"):
        LoadSample().create().run({"OUTPUT": str(output)}, context, feedback, catchExceptions=False)
    assert not output.exists()


def test_a_missing_folder_is_refused(fake_worker, context, feedback, tmp_path):
    output = tmp_path / "missing" / "sample.gpkg"
    with pytest.raises(
        QgsProcessingException, match="OUTPUT = .*The folder '.*missing' does not exist. Create it"
    ):
        LoadSample().create().run({"OUTPUT": str(output)}, context, feedback, catchExceptions=False)


@pytest.mark.parametrize("kind", [LoadSample, SetUpEnvironment])
def test_descriptions_are_complete(qgis_app, kind):
    algorithm = kind().create()
    assert "<" not in algorithm.shortHelpString()  # qgis_process prints it as it is
    assert Path(algorithm.svgIconPath()).is_file()
    assert algorithm.groupId() == "setup"
    assert all(definition.help() for definition in algorithm.parameterDefinitions())
