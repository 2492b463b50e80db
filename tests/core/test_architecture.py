# SPDX-License-Identifier: GPL-2.0-or-later
"""What core may import and do; and the small modules that everything else stands on."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridcast_qgis.core.errors import EnvironmentFault, GridcastError, InputError, JobCancelled
from gridcast_qgis.core.protocol import Event, Exit
from gridcast_qgis.core.reporter import Reporter, StreamReporter

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core"
SOURCES = sorted(CORE.rglob("*.py"))
#: What QGIS itself imports: nothing but the standard library.
LIGHT = [
    CORE / "__init__.py",
    CORE / "protocol.py",
    CORE / "errors.py",
    CORE / "localcrs.py",
    CORE / "presets.py",
    CORE / "schemas.py",
    ROOT / "gridcast_qgis" / "__init__.py",
]
QT = {"qgis", "processing", "sip", "PyQt5", "PyQt6", "PySide2", "PySide6"}
NETWORKS = {"tensorflow", "keras", "jax", "torch"}


def imports(path: Path, *, top_level: bool = False) -> list[tuple[int, str]]:
    """Return level and name of all imports; relative ones have a level above 0."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.iter_child_nodes(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_core_knows_no_qgis_and_stays_inside_itself(path):
    depth = len(path.relative_to(CORE).parts)
    for level, module in imports(path):
        first = module.partition(".")[0]
        assert first not in QT
        assert level <= depth
        # From above it takes the version only.
        assert first != "gridcast_qgis" or module == "gridcast_qgis"


@pytest.mark.parametrize("path", LIGHT, ids=name)
def test_what_qgis_imports_needs_the_standard_library_only(path):
    for level, module in imports(path, top_level=True):
        if level:
            assert (CORE / f"{module}.py") in LIGHT
        else:
            assert module.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_networks_and_their_training_load_keras(path):
    loads = any(
        not level and module.partition(".")[0] in NETWORKS for level, module in imports(path, top_level=True)
    )
    assert loads == (
        name(path)
        in {
            str(Path("core", *parts))
            for parts in (
                ("models", "cellwise.py"),
                ("models", "convlstm.py"),
                ("models", "crimepredict.py"),
                ("models", "gridcast.py"),
                ("models", "layers.py"),
                ("models", "losses.py"),
                ("models", "shotspotter.py"),
                ("models", "spatiolstm.py"),
                ("training", "fit.py"),
            )
        }
    )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_runs_code_from_files(path):
    forbidden = {"eval", "exec", "compile", "__import__"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            assert not (isinstance(called, ast.Name) and called.id in forbidden)
            for keyword in node.keywords:
                told = isinstance(keyword.value, ast.Constant) and keyword.value.value
                assert not (keyword.arg in ("shell", "allow_pickle") and told)
                assert keyword.arg != "safe_mode" or told is True
    assert not {module.partition(".")[0] for _, module in imports(path)} & {
        "pickle",
        "dill",
        "marshal",
        "shelve",
    }


def test_start_up_loads_next_to_nothing():
    code = (
        "import json, sys; before = set(sys.modules)\n"
        "import gridcast_qgis, gridcast_qgis.core.errors, gridcast_qgis.core.protocol\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in json.loads(done.stdout)}
    assert loaded <= {"gridcast_qgis", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("Wrong."), "Wrong."),
        (InputError("Wrong.", hint="Mend it."), "Wrong. Mend it."),
        (InputError("Wrong.", hint="Mend it.", parameter="SIZE"), "SIZE: Wrong. Mend it."),
        (InputError("Wrong.", parameter="SIZE", value=0), "SIZE = 0: Wrong."),
        (JobCancelled(), "The job was cancelled."),
    ],
)
def test_an_error_is_a_sentence(error, text):
    assert error.text() == text
    assert str(error) == text
    assert all(isinstance(value, str) for value in error.as_event().values())


def test_each_error_has_its_code_and_exit_status():
    kinds = {GridcastError: 1, InputError: 2, JobCancelled: 3, EnvironmentFault: 4}
    assert {kind: int(kind.exit_status) for kind in kinds} == kinds
    assert len({kind.code for kind in kinds}) == 4
    assert [int(status) for status in Exit] == [0, 1, 2, 3, 4]


def test_a_silent_reporter_can_be_cancelled():
    reporter = Reporter()
    reporter.stage("Counting", 0, 50)
    reporter.progress(0.5)
    reporter.message("x")
    reporter.cancel()
    for act in (reporter.check, lambda: reporter.progress(0.6), lambda: reporter.stage("Next", 50, 100)):
        with pytest.raises(JobCancelled):
            act()


def test_the_stream_has_one_object_a_line():
    stream = io.StringIO()
    reporter = StreamReporter(stream)
    reporter.stage("Zählen\n時", 20, 60)
    for fraction in (0.0, 0.25, 0.2501, 1.0, 7.0):
        reporter.progress(fraction)
    reporter.warning("look")
    reporter.metric("loss", float("nan"), 3)
    lines = stream.getvalue().splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0] == {"event": Event.STAGE, "name": "Zählen\n時"}
    assert [event["value"] for event in events if event["event"] == Event.PROGRESS] == [20.0, 30.0, 60.0]
    assert events[-2] == {"event": Event.MESSAGE, "level": "warning", "text": "look"}
    assert events[-1]["step"] == 3


def test_a_stream_that_nobody_reads_cancels_the_job():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    reporter = StreamReporter(Closed())
    reporter.message("hello?")
    with pytest.raises(JobCancelled):
        reporter.check()
