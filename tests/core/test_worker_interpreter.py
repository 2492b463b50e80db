# SPDX-License-Identifier: GPL-2.0-or-later
"""Which Python runs the worker, and what the user is told when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gridcast_qgis.core.errors import EnvironmentFault
from gridcast_qgis.worker.interpreter import REMEDY, find_interpreter, python_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes executables by permission bits")


def make_python(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def places(tmp_path):
    """All four places hold a Python, under a folder with a space and letters beyond ASCII."""
    root = tmp_path / "my Földer"
    return {
        "setting": str(make_python(root / "setting" / "python3")),
        "environ": {"GRIDCAST_PYTHON": str(make_python(root / "variable" / "python3"))},
        "managed": make_python(python_of(root / "managed")).parents[1],
        "checkout": make_python(python_of(root / "checkout" / ".venv")).parents[2],
    }


def test_the_first_place_named_wins(places):
    assert find_interpreter(**places) == Path(places["setting"])
    places["setting"] = ""
    assert find_interpreter(**places) == Path(places["environ"]["GRIDCAST_PYTHON"])
    places["environ"] = {"GRIDCAST_PYTHON": "  "}
    assert find_interpreter(**places) == python_of(places["managed"])
    places["managed"] = places["managed"].with_name("none")
    assert find_interpreter(**places) == python_of(places["checkout"] / ".venv")


def test_the_link_of_a_virtual_environment_is_not_followed(places, tmp_path):
    """Following it would lead to the Python underneath, which lacks the packages."""
    link = tmp_path / "env" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(places["setting"])
    places["setting"] = str(link)
    assert find_interpreter(**places) == link


def test_the_folder_of_an_environment_will_do(places):
    places["setting"] = str(places["managed"])
    assert find_interpreter(**places) == python_of(places["managed"])


def test_quotes_and_tilde_are_understood(places, monkeypatch, tmp_path):
    places["setting"] = f'"{places["setting"]}"'
    assert find_interpreter(**places) == Path(places["setting"].strip('"'))
    monkeypatch.setenv("HOME", str(tmp_path))
    places["setting"] = "~/my Földer/setting/python3"
    assert find_interpreter(**places) == tmp_path / "my Földer" / "setting" / "python3"


def test_none_anywhere_names_the_remedies(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        find_interpreter(None, {}, tmp_path / "managed", tmp_path)
    assert caught.value.text() == f"Gridcast has no Python environment for its worker yet. {REMEDY}"
    for remedy in ("'Set Up Environment'", "GRIDCAST_PYTHON", "Settings > Options > Processing > Providers"):
        assert remedy in REMEDY


@pytest.mark.parametrize("place", ["setting", "environ"])
def test_a_named_one_that_is_missing_is_an_error_and_is_not_skipped(places, place):
    missing = "/nowhere/python3"
    if place == "environ":
        places["setting"] = None
        places["environ"] = {"GRIDCAST_PYTHON": missing}
        where = "Correct or clear the environment variable GRIDCAST_PYTHON."
    else:
        places["setting"] = missing
        where = "Correct or clear the setting 'Python interpreter of the worker' under Options > Processing"
    with pytest.raises(EnvironmentFault) as caught:
        find_interpreter(**places)
    text = caught.value.text()
    assert text.startswith(
        f"GRIDCAST_PYTHON = {missing}: There is no Python interpreter at this place. {where}"
    )


def test_qgis_itself_is_refused(places, tmp_path):
    places["setting"] = str(make_python(tmp_path / "qgis-bin.exe"))
    with pytest.raises(EnvironmentFault, match="This is QGIS, not a Python interpreter"):
        find_interpreter(**places)


def test_a_file_that_is_no_program_is_refused(places, tmp_path):
    text = tmp_path / "python3"
    text.write_text("no program")
    places["setting"] = str(text)
    with pytest.raises(EnvironmentFault, match="This file cannot be executed"):
        find_interpreter(**places)


def test_an_environment_whose_python_was_removed_is_called_broken(places, tmp_path):
    places.update(setting=None, environ={})
    python = python_of(places["managed"])
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled")
    with pytest.raises(
        EnvironmentFault, match="managed' is broken: the Python it was made with is gone"
    ) as caught:
        find_interpreter(**places)
    assert REMEDY in caught.value.text()
