# SPDX-License-Identifier: GPL-2.0-or-later
"""Files appear whole or not at all, and a place that cannot be written to is explained."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import files_in, make_cube

from gridcast_qgis.core import atomic
from gridcast_qgis.core.atomic import atomic_path
from gridcast_qgis.core.errors import InputError, JobCancelled

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    target = tmp_path / "Ünïcode and späces.txt"
    with atomic_path(target) as part:
        part.write_text("new")
        assert part.parent == target.parent
        assert part.suffix == target.suffix
        assert part.name.startswith(".")
        assert not target.exists()
    assert target.read_text() == "new"
    assert files_in(tmp_path) == [target.name]


@pytest.mark.parametrize("error", [ValueError("x"), JobCancelled(), KeyboardInterrupt()], ids=repr)
def test_after_an_error_the_old_file_stays_and_no_new_one(tmp_path, error):
    target = tmp_path / "file.gpkg"
    target.write_text("old")
    with pytest.raises(type(error)):
        with atomic_path(target) as part:
            part.write_text("half")
            # Databases keep companions beside their file.
            part.with_name(part.name + "-journal").write_text("j")
            part.with_name(part.name + ".aux").mkdir()
            raise error
    assert target.read_text() == "old"
    assert files_in(tmp_path) == ["file.gpkg"]
    assert list(tmp_path.iterdir()) == [target]


def test_other_files_with_like_names_are_left_alone(tmp_path):
    other = tmp_path / "a[1]*.txt.part"
    other.write_text("mine")
    with pytest.raises(ValueError, match="stop"):
        with atomic_path(tmp_path / "a[1]*.txt") as part:
            part.write_text("half")
            raise ValueError("stop")
    assert files_in(tmp_path) == [other.name]


CANNOT = "OUTPUT = {}: The file cannot be written: {}. Choose a folder that exists and that you may write to."


def explain(target: Path) -> str:
    with pytest.raises(InputError) as caught:
        with atomic_path(target) as part:
            part.write_text("x")
    return caught.value.text()


def test_a_missing_folder_is_explained(tmp_path):
    target = tmp_path / "none" / "file.tif"
    assert explain(target) == CANNOT.format(target, "No such file or directory")


def test_a_folder_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "file.tif"
    assert explain(target) == CANNOT.format(target, "Not a directory")


def test_a_folder_in_place_of_the_file_is_explained(tmp_path):
    target = tmp_path / "file.tif"
    target.mkdir()
    assert explain(target) == CANNOT.format(target, "Is a directory")
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_too_long_is_explained(tmp_path):
    target = tmp_path / ("x" * 300 + ".tif")
    assert explain(target) == CANNOT.format(target, "File name too long")


@pytest.fixture
def someone():
    """Lose the rights of the superuser, for whom no folder is read-only."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("deep", [False, True], ids=["the folder", "a folder above"])
def test_a_folder_without_permission_is_explained(tmp_path, someone, deep):
    folder = tmp_path
    if os.getuid() != 0:
        folder = tmp_path / "closed"
        (folder / "inner").mkdir(parents=True)
        folder.chmod(0o500 if not deep else 0o000)
    target = folder / "inner" / "file.tif" if deep else folder / "file.tif"
    try:
        assert explain(target) == CANNOT.format(target, "Permission denied")
    finally:
        if os.getuid() != 0:
            folder.chmod(0o700)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(tmp_path, number):
    target = tmp_path / "file.tif"
    with pytest.raises(InputError) as caught:
        with atomic_path(target, "CELLS") as part:
            part.write_text("half")
            raise OSError(number, os.strerror(number))
    assert caught.value.text() == (
        f"CELLS = {target}: The disk is full: {os.strerror(number)}. Free some space or choose a folder on "
        "another disk."
    )
    assert files_in(tmp_path) == []


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="odd"):
        with atomic_path(tmp_path / "file.tif"):
            raise OSError(errno.ENOTTY, "odd")


def test_abandoned_files_are_removed_and_no_later_one_appears(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_abandoned", False)
    with pytest.raises(JobCancelled):
        with atomic_path(tmp_path / "one.txt") as one:
            one.write_text("half")
            atomic.abandon()
            assert files_in(tmp_path) == []
            one.write_text("again")
    with pytest.raises(JobCancelled):
        with atomic_path(tmp_path / "two.txt") as two:
            two.write_text("late")
    assert files_in(tmp_path) == []


# Jobs on a disk with little room. The limit on the size of a file makes every write beyond it fail, in
# whatever library it happens; it holds for a process, so each attempt gets one of its own.
FULL_DISK = """
import json, os, resource, sys
from pathlib import Path

sys.path[:0] = [{tests!r}]
from synthetic import files_in
from gridcast_qgis.core import jobs
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.reporter import Reporter

name, request, folder, limits = json.loads(sys.argv[1])
if name == "train" and request["model"] == "convlstm":
    import test_modelfile
    from gridcast_qgis.core.modelfile import save_model
    model, manifest = test_modelfile.network_model(), {{"types": None}}
    run = lambda: save_model(model, request["output"], manifest)
else:
    run = lambda: jobs.run_job(name, request, Reporter())
outcome = {{}}
for limit in limits:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        run()
        outcome[limit] = "done"
    except InputError as error:
        outcome[limit] = error.text()
    outcome[limit] = [outcome[limit], files_in(Path(folder))]
print(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Everything that a job may take as input."""
    from synthetic import UTM, events_of, write_events

    from gridcast_qgis.core import jobs
    from gridcast_qgis.core.reporter import Reporter

    folder = tmp_path_factory.mktemp("ready")
    cube = make_cube(60, 20, 20, mean=1.0)
    paths = {name: str(folder / name) for name in ("cube.nc", "grid.tif", "model.gridcast", "forecast.tif")}
    cube.write(paths["cube.nc"])
    cube.grid.write(paths["grid.tif"])
    paths["events.fgb"] = str(write_events(folder / "events.fgb", events_of(cube)))
    run = lambda name, **request: jobs.run_job(name, request, Reporter())  # noqa: E731
    run("train", cube=paths["cube.nc"], model="historical_average", output=paths["model.gridcast"])
    run(
        "forecast",
        cube=paths["cube.nc"],
        model=paths["model.gridcast"],
        horizon=5,
        output=paths["forecast.tif"],
    )
    paths["crs"] = UTM.to_wkt()
    return paths


def full_disk_jobs(ready: dict[str, str], folder: Path) -> dict[str, tuple[str, dict]]:
    out = lambda name: str(folder / name)  # noqa: E731
    extent = [600_000, 4_800_000, 615_000, 4_818_000]
    grid = {"crs": ready["crs"], "extent": extent, "cell_size": 500}
    return {
        "grid": ("build_grid", {**grid, "output": out("grid.tif")}),
        "cells": ("build_grid", {**grid, "output": out("grid.tif"), "cells_output": out("cells.gpkg")}),
        "cube": (
            "rasterize_events",
            {"events": ready["events.fgb"], "grid": ready["grid.tif"], "output": out("cube.nc")},
        ),
        "model": (
            "train",
            {"cube": ready["cube.nc"], "model": "historical_average", "output": out("model.gridcast")},
        ),
        "network": ("train", {"model": "convlstm", "output": out("model.gridcast")}),
        "forecast": (
            "forecast",
            {
                "cube": ready["cube.nc"],
                "model": ready["model.gridcast"],
                "horizon": 9,
                "output": out("forecast.tif"),
            },
        ),
        "polygons": ("classify_hotspots", {"forecast": ready["forecast.tif"], "output": out("spots.gpkg")}),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("kind", ["grid", "cells", "cube", "model", "network", "forecast", "polygons"])
def test_a_full_disk_gives_a_clear_word_and_leaves_nothing(ready, tmp_path, kind):
    folder = tmp_path / "Ördner mit Leerzeichen"
    folder.mkdir()
    name, request = full_disk_jobs(ready, folder)[kind]
    limits = [0, 1, 700, 20_000] if kind in ("cells", "cube", "network", "polygons") else [0, 1, 700]
    script = FULL_DISK.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([name, request, str(folder), limits])],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parameter, file = ("CELLS", request["cells_output"]) if kind == "cells" else ("OUTPUT", request["output"])
    expected = (
        f"{parameter} = {file}: The disk is full: File too large. Free some space or choose a folder on "
        "another disk."
    )
    assert json.loads(done.stdout) == {str(limit): [expected, []] for limit in limits}
