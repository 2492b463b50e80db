# SPDX-License-Identifier: GPL-2.0-or-later
"""Grids of published studies: their cells, their masks, what contradicts them."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyproj
import pytest
import shapely
from synthetic import DEGREES, UTM, Recorder, files_in, write_points

from gridcast_qgis.core import jobs
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.presets import PRESETS, Preset, preset_for

CHICAGO = ("chicago-55x50", "chicago-55x50-authors-mask")


def data(*names: str) -> Path:
    """Return a file of the data folder, or skip the test."""
    if "GRIDCAST_DATA" not in os.environ:
        pytest.skip("GRIDCAST_DATA is not set: it names the folder with the public data")
    path = Path(os.environ["GRIDCAST_DATA"], *names)
    if not path.is_file():
        pytest.skip(f"GRIDCAST_DATA has no {Path(*names)}")
    return path


def build(preset: str, out: Path, **request) -> tuple[dict, Grid, Recorder]:
    reporter = Recorder()
    request = {"crs": DEGREES.to_wkt(), "preset": preset, "output": str(out / "grid.tif")} | request
    return jobs.run_job("build_grid", request, reporter), Grid.read(out / "grid.tif"), reporter


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_a_grid(name, tmp_path):
    preset = PRESETS[name]
    outputs, grid, _ = build(name, tmp_path)
    assert grid.shape == (outputs["rows"], outputs["columns"]) == (preset.rows, preset.columns)
    assert grid.crs == pyproj.CRS(preset.crs)
    west, south, east, north = preset.extent
    assert grid.transform @ (0, 0) == pytest.approx((west, north), abs=1e-12)
    assert grid.transform @ grid.shape[::-1] == pytest.approx((east, south), abs=1e-12)
    assert grid.valid.sum() == preset.rows * (preset.columns - preset.mask_shift)


def test_the_cells_of_chicago(tmp_path):
    outputs, *_ = build("chicago-55x50", tmp_path)
    assert (outputs["cell_width"], outputs["cell_height"]) == pytest.approx((691, 764), abs=1)


def test_the_cells_of_washington(tmp_path):
    outputs, *_ = build("dc-36x36", tmp_path)
    assert (outputs["cell_width"], outputs["cell_height"]) == pytest.approx((446, 582), abs=0.5)
    assert outputs["cell_width"] * outputs["cell_height"] / 1e6 == pytest.approx(0.26, abs=0.005)


def test_the_authors_mask_is_the_mask_moved_to_the_east(tmp_path):
    # Cells near two places stand in for a city that reaches the eastern edge.

    events = write_points(
        tmp_path / "events.fgb",
        shapely.points([(-87.7, 41.9), (-87.525, 41.65)]),
        {"name": ["a", "b"]},
        crs="EPSG:4326",
    )
    given = {"events": str(events), "area_from": "near-events", "distance": 3000.0}
    _, right, _ = build(CHICAGO[0], tmp_path, **given)
    _, moved, _ = build(CHICAGO[1], tmp_path, **given)
    assert right.valid[:, -1].any()
    assert (moved.inside[:, 1:] == right.inside[:, :-1]).all()
    assert not moved.valid[:, 0].any()
    assert moved.transform == right.transform


@pytest.mark.parametrize(
    ("area", "repaired"), [("chicago_boundary_wgs84.geojson", 0), ("chicago_neighborhoods.geojson", 4)]
)
def test_chicago_has_1281_cells(area, repaired, tmp_path):
    file = str(data("chicago", area))
    outputs, right, reporter = build(CHICAGO[0], tmp_path, study_area=file)
    assert outputs["cells_inside"] == right.valid.sum() == 1281
    assert outputs["repaired"] == repaired
    assert len(reporter.texts()) == bool(repaired)
    outputs, moved, _ = build(CHICAGO[1], tmp_path, study_area=file)
    lost, kept = right.valid & ~moved.valid, moved.valid & ~right.valid
    assert (lost.sum(), kept.sum(), outputs["cells_inside"]) == (72, 56, 1265)


def test_the_grid_of_washington_holds_all_public_alerts(tmp_path):
    alerts = pd.read_csv(data("dc_shotspotter", "dc_shotspotter_2006_201906.csv.gz"))
    _, grid, _ = build("dc-36x36", tmp_path)
    row, _ = grid.locate(alerts["longitude"], alerts["latitude"])
    assert len(alerts) > 80_000 and (row >= 0).all()


GIVEN = {"TARGET_CRS": "EPSG:4326", "ROWS": 55, "COLUMNS": 50, "ROTATION": 0.0, "SNAP": "multiples"}


def test_what_says_the_same_is_accepted():
    assert preset_for("chicago-55x50", GIVEN | {"LOCAL_CRS": False, "EXTENT": None}) == PRESETS[CHICAGO[0]]
    assert preset_for("none", GIVEN | {"EXTENT": "1,2,3,4"}) is None
    assert isinstance(PRESETS["dc-36x36"], Preset)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TARGET_CRS", "EPSG:32616"),
        ("LOCAL_CRS", True),
        ("EXTENT", "1,2,3,4"),
        ("CELL_SIZE", 250.0),
        ("CELL_HEIGHT", 250.0),
        ("ROWS", 36),
        ("COLUMNS", 51),
        ("ROTATION", 5.0),
        ("SNAP", "raster"),
    ],
)
def test_what_contradicts_a_preset_is_refused(key, value):
    with pytest.raises(InputError) as caught:
        preset_for("chicago-55x50", GIVEN | {key: value})
    assert caught.value.text() == (
        f"{key} = {value}: The preset 'chicago-55x50' fixes this: 55 rows and 50 columns over -87.940101, "
        f"41.644531, -87.524081, 42.02304 in EPSG:4326. Leave {key} at its default, or set PRESET to 'none'."
    )


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError) as caught:
        preset_for("chicago", {})
    assert caught.value.text() == (
        "PRESET = chicago: Unknown preset. Choose one of none, chicago-55x50, chicago-55x50-authors-mask, "
        "dc-36x36."
    )


def test_the_job_refuses_another_system(tmp_path):
    with pytest.raises(InputError, match=r"^TARGET_CRS = EPSG:32617: The preset 'dc-36x36' fixes this: "):
        build("dc-36x36", tmp_path, crs=UTM.to_wkt())
    assert files_in(tmp_path) == []
