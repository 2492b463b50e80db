# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs as the plugin calls them: outputs, warnings, and every bad input named with its fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from synthetic import (
    CELL,
    DEGREES,
    NORTH,
    UTM,
    WEST,
    Recorder,
    changed,
    events_of,
    files_in,
    make_cube,
    make_grid,
    write_events,
    write_points,
)

from gridcast_qgis.core import jobs
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import GridcastError, InputError
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.modelfile import load_model

STEPS = 50
UTM_WKT, DEGREES_WKT = UTM.to_wkt(), DEGREES.to_wkt()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Files that jobs take, in a folder with spaces and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("in") / "Ördner mit Leerzeichen 時"
    folder.mkdir()
    cube = make_cube(STEPS, mean=1.0)
    cube.grid.write(folder / "grid.tif")
    write_events(folder / "events.fgb", events_of(cube))
    run(
        "rasterize_events",
        events=folder / "events.fgb",
        grid=folder / "grid.tif",
        output=folder / "cube.nc",
        time_zone="America/Toronto",
        start="2024-02-01",
        end="2024-03-22",
    )
    run("train", cube=folder / "cube.nc", model="historical_average", output=folder / "model.gridcast")
    run(
        "forecast",
        cube=folder / "cube.nc",
        model=folder / "model.gridcast",
        horizon=3,
        origin="2024-03-19",
        output=folder / "forecast.tif",
    )
    return folder


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "Äusgabe folder"
    folder.mkdir()
    return folder


def run(name: str, reporter: Recorder | None = None, **request) -> dict:
    """Run a job with values as they come out of the request file."""
    if name in ("rasterize_events", "append_events") and Path(request["events"]).is_file():
        columns = pyogrio.read_info(request["events"])["fields"]
        request.setdefault("fields", {role: role for role in ("time", "type") if role in columns})
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in request.items()}
    return jobs.run_job(name, json.loads(json.dumps(plain)), reporter or Recorder())


def progress_of(reporter: Recorder) -> list[float]:
    return [event["value"] for event in reporter.events if event["event"] == "progress"]


def area_layer(path: Path, *polygons: shapely.Geometry | None) -> Path:
    return write_points(
        path, list(polygons), {"name": [str(i) for i in range(len(polygons))]}, kind="Unknown"
    )


def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """Return a rectangle, in cells from the north-western corner."""
    return shapely.box(WEST + left * CELL, NORTH - bottom * CELL, WEST + right * CELL, NORTH - top * CELL)


# build_grid --------------------------------------------------------------------------------------------


def test_build_grid_from_a_study_area(out):
    area = area_layer(out / "city.gpkg", box(0, 0, 3, 2), None, box(2, 1, 4.5, 4))
    reporter = Recorder()
    outputs = run(
        "build_grid",
        reporter,
        crs=UTM_WKT,
        study_area=area,
        cell_size=0.5,
        cell_unit="kilometre",
        output=out / "grid.tif",
        cells_output=out / "cells.gpkg",
    )
    # Two rectangles that overlap in one cell.
    square_km = (3 * 2 + 2.5 * 3 - 1) * CELL**2 / 1e6
    assert outputs["output"] == str(out / "grid.tif")
    assert outputs["cells_output"] == str(out / "cells.gpkg")
    assert (outputs["rows"], outputs["columns"]) == (4, 5)
    assert outputs["cells_inside"] == 6 + 9 - 1
    assert outputs["cell_width"] == pytest.approx(CELL, rel=1e-3)
    assert outputs["cell_height"] == pytest.approx(CELL, rel=1e-3)
    assert outputs["area_km2"] == pytest.approx(square_km, rel=1e-3)
    assert reporter.texts() == []
    assert progress_of(reporter) == sorted(progress_of(reporter))
    grid = Grid.read(out / "grid.tif")
    meta, _, geometry, (row, column, share) = pyogrio.raw.read(out / "cells.gpkg", layer="cells")
    assert list(meta["fields"]) == ["row", "column", "share"]
    assert list(zip(row, column)) == list(zip(*np.nonzero(grid.valid)))
    assert share == pytest.approx(grid.inside[row, column])
    cells = shapely.from_wkb(geometry)
    assert shapely.area(cells) == pytest.approx(CELL**2)
    x, y = grid.centres()
    assert shapely.contains_xy(cells, x[row, column], y[row, column]).all()
    assert files_in(out) == ["cells.gpkg", "city.gpkg", "grid.tif"]


def test_build_grid_from_an_extent_alone(out):
    outputs = run(
        "build_grid",
        crs=UTM_WKT,
        extent=[0, 0, 700, 600],
        rows=6,
        columns=7,
        rotation=10,
        output=out / "grid.tif",
    )
    assert outputs["cells_inside"] == 42
    assert outputs["cells_output"] is None
    assert files_in(out) == ["grid.tif"]


def test_build_grid_warns_where_metres_are_no_metres(out):
    reporter = Recorder()
    run(
        "build_grid",
        reporter,
        crs=pyproj.CRS("EPSG:3857").to_wkt(),
        extent=[-8_840_000, 5_410_000, -8_830_000, 5_420_000],
        cell_size=500,
        output=out / "grid.tif",
    )
    (warning,) = reporter.texts()
    assert warning == (
        "In WGS 84 / Pseudo-Mercator a cell of 500 m is 362 m wide on the ground, because the projection "
        "stretches distances here. A local projection (UTM, State Plane) avoids this."
    )


def test_if_the_grid_cannot_be_written_there_are_no_cells_either(out):
    old = out / "cells.gpkg"
    old.write_text("old")
    with pytest.raises(InputError, match=r"^OUTPUT = .*grid\.tif: The file cannot be written: No such file"):
        run(
            "build_grid",
            crs=UTM_WKT,
            extent=[0, 0, 700, 600],
            rows=6,
            columns=7,
            output=out / "none" / "grid.tif",
            cells_output=old,
        )
    assert old.read_text() == "old"
    assert files_in(out) == ["cells.gpkg"]


# rasterize_events --------------------------------------------------------------------------------------


def test_rasterize_counts_every_row(out, inputs):
    grid = Grid.read(inputs / "grid.tif")
    places = [
        box(c, r, c + 1, r + 1).centroid for r, c in ((2, 2), (2, 2), (3, 3), (0, 0), (50, 0), (4, 4), (4, 4))
    ]
    layer = write_points(
        out / "events.fgb",
        [*places, None],
        {
            "time": [
                "2024-02-01",
                "2024-02-02 10:00",
                "2024-02-05",
                "2024-02-03",
                "2024-02-03",
                None,
                "?",
                "2024-02-03",
            ],
            "type": ["a", "b", "a", "a", "a", "a", "a", "a"],
        },
        SPATIAL_INDEX="NO",
    )
    reporter = Recorder()
    outputs = run(
        "rasterize_events",
        reporter,
        events=layer,
        grid=inputs / "grid.tif",
        step="day",
        end="2024-02-05",
        time_zone="UTC",
        dropped_before={"reprojection": 3},
        output=out / "cube.nc",
    )
    assert outputs == {
        "output": str(out / "cube.nc"),
        "events_read": 11,
        "events_used": 2,
        "dropped": {
            "reprojection": 3,
            "null_geometry": 1,
            "null_time": 1,
            "bad_time": 1,
            "duplicate": 0,
            "outside_grid": 1,
            "outside_area": 1,
            "outside_period": 1,
        },
        "notes": {"ambiguous_time": 0, "skipped_time": 0, "no_clock": 0, "end_before_start": 0},
        "steps": 4,
        "types": ["a", "b"],
        "first": "2024-02-01T00:00:00+00:00",
        "last": "2024-02-05T00:00:00+00:00",
    }
    assert reporter.texts() == [
        "1 rows have a date that cannot be read, such as '?'. If the day comes before the month, set "
        "DAY_FIRST.",
        "2 of 11 events are counted; left out: 3 reprojection, 1 null geometry, 1 null time, 1 bad time, "
        "1 outside grid, 1 outside area, 1 outside period.",
    ]
    cube = Cube.read(out / "cube.nc")
    assert cube.grid.fingerprint == grid.fingerprint
    assert cube.attributes == {
        "events_read": 11,
        "events_used": 2,
        "dropped": outputs["dropped"],
        "notes": outputs["notes"],
        "type_counts": {"a": 1, "b": 1},
        "counted_until": "2024-02-05T00:00:00",
        "counting": {"max_types": 12, "spread": False, "severity": None, "drop_duplicates": False},
    }
    assert files_in(out) == ["cube.nc", "events.fgb"]


def test_an_interval_and_a_severity_for_each_event(out, inputs):
    layer = write_points(
        out / "events.gpkg",
        [box(c, r, c + 1, r + 1).centroid for r, c in ((2, 2), (3, 3))],
        {
            "time": ["2024-02-01 18:00", "2024-02-02 10:00"],
            "until": ["2024-02-02 06:00", None],
            "type": ["THEFT", "GAMBLING"],
            "grave": [3.0, 1.0],
        },
    )
    request = {"events": layer, "grid": inputs / "grid.tif", "output": out / "cube.nc"}
    fields = {"time": "time", "type": "type", "end": "until", "severity": "grave"}
    run("rasterize_events", **request, fields=fields, spread=True, severity="chicago")
    cube = Cube.read(out / "cube.nc")
    assert cube.total[:, 2, 2].tolist() == [0.5, 0.5]
    assert (cube.severity.sum.sum(), cube.severity.weight.sum()) == (1.0, 2.0)
    run("rasterize_events", **request, fields=fields, severity="field", step="shifts 7 19")
    cube = Cube.read(out / "cube.nc")
    assert cube.severity.sum.sum() == 4 and cube.axis.step == "shifts 07:00 19:00"
    table = out / "table.csv"
    table.write_text("kind,score\ntheft,7\n")
    run("rasterize_events", **request, fields=fields, severity="table", severity_table=table)
    assert Cube.read(out / "cube.nc").severity.sum.sum() == 7


def test_the_clock_is_explained(out, inputs):
    layer = write_points(
        out / "events.gpkg",
        [box(2, 2, 3, 3).centroid] * 3,
        {"time": ["2024-11-03 01:30", "2024-03-10 02:30", "2024-03-11"], "at": ["01:30", "02:30", "?"]},
    )
    reporter = Recorder()
    request = {"events": layer, "grid": inputs / "grid.tif", "output": out / "cube.nc"}
    outputs = run(
        "rasterize_events",
        reporter,
        **request,
        fields={"time": "time", "clock": "at"},
        time_zone="America/Toronto",
    )
    assert outputs["notes"] == {"ambiguous_time": 1, "skipped_time": 1, "no_clock": 1, "end_before_start": 0}
    assert reporter.texts("info") == [
        "1 times fall into the hour that the clock shows twice: its first pass is taken.",
        "1 times fall into the hour that the clock skips: the first moment after it is taken.",
        "1 dates have no time of day that can be read: midnight is taken.",
    ]


# check_events ------------------------------------------------------------------------------------------


def test_events_are_checked(out, inputs):
    reporter = Recorder()
    outputs = run(
        "check_events",
        reporter,
        events=inputs / "events.fgb",
        crs=UTM_WKT,
        fields={"time": "time", "type": "type"},
        time_zone="America/Toronto",
        output=out / "report.html",
    )
    events = events_of(make_cube(STEPS, mean=1.0))
    assert outputs["events"] == outputs["rows"] == len(events)
    assert outputs["types"] == 2 and outputs["days"] == STEPS
    assert outputs["median_lag_hours"] is None  # nothing to measure
    page = (out / "report.html").read_text(encoding="utf-8")
    assert outputs["verdict"] in page
    # What the page finds wrong is said in the log as well.
    assert len(reporter.texts()) == outputs["serious"] + outputs["cautions"]


# append_events and export_cube -------------------------------------------------------------------------


def test_a_cube_is_extended_by_what_is_new(out, inputs):
    cube = Cube.read(inputs / "cube.nc")
    events = events_of(cube)
    write_events(out / "all.fgb", events)
    early = events.time < cube.axis.edges[30]
    write_events(out / "early.fgb", events.selected(early))
    write_events(out / "late.fgb", events.selected(~early))
    request = {"grid": inputs / "grid.tif", "time_zone": "America/Toronto", "start": "2024-02-01"}
    run("rasterize_events", events=out / "early.fgb", output=out / "old.nc", end="2024-03-02", **request)
    reporter = Recorder()
    # All events, of which those that the cube has are left out; or the new ones only.
    first = run(
        "append_events",
        reporter,
        cube=out / "old.nc",
        events=out / "all.fgb",
        output=out / "one.nc",
        end="2024-03-22",
    )
    second = run(
        "append_events",
        cube=out / "old.nc",
        events=out / "late.fgb",
        output=out / "two.nc",
        only_later=False,
        end="2024-03-22",
    )
    assert first["events_used"] == second["events_used"] == int((~early).sum())
    assert (first["events_left_aside"], second["events_left_aside"]) == (int(early.sum()), 0)
    assert first["steps_new"] == STEPS - 30
    assert reporter.texts("info")[-1] == f"{first['events_used']:,} events and 20 steps are new."
    for name in ("one.nc", "two.nc"):
        again = Cube.read(out / name)
        assert again.fingerprint == cube.fingerprint
        assert again.attributes == cube.attributes


def test_the_extension_needs_the_types_of_the_cube(out, inputs):
    with pytest.raises(InputError, match="TYPE_FIELD = not set: The cube was made with such a field"):
        run(
            "append_events",
            cube=inputs / "cube.nc",
            events=inputs / "events.fgb",
            fields={"time": "time"},
            output=out / "b.nc",
        )
    assert files_in(out) == []


def test_the_extension_needs_the_fields_of_the_cube(out, inputs):
    layer = write_points(
        out / "events.gpkg", [box(2, 2, 3, 3).centroid], {"time": ["2024-02-01"], "until": ["2024-02-03"]}
    )
    fields = {"time": "time", "end": "until"}
    run(
        "rasterize_events",
        events=layer,
        grid=inputs / "grid.tif",
        fields=fields,
        spread=True,
        output=out / "a.nc",
    )
    with pytest.raises(InputError) as caught:
        run("append_events", cube=out / "a.nc", events=layer, output=out / "b.nc")
    assert caught.value.text() == (
        "END_TIME_FIELD = not set: The cube was made with such a field. Choose the field that holds the same "
        "in the new events."
    )
    assert files_in(out) == ["a.nc", "events.gpkg"]


def test_steps_of_a_cube_become_bands(out, inputs):
    request = {"cube": inputs / "cube.nc", "output": out / "bands.tif"}
    outputs = run("export_cube", **request, start="2024-02-03", end="2024-02-06", variable="theft")
    assert (outputs["bands"], outputs["unit_text"]) == (3, "theft per cell and day")
    assert outputs["intervals"][0] == ["2024-02-03T00:00:00-05:00", "2024-02-04T00:00:00-05:00"]
    with pytest.raises(InputError, match="END = 2024-02-03: The period ends before it begins"):
        run("export_cube", **request, start="2024-02-03", end="2024-02-03")
    assert run("export_cube", **request)["bands"] == STEPS


def test_what_qgis_needs_to_know_of_a_cube(inputs):
    found = run("describe_cube", cube=inputs / "cube.nc")
    assert (found["step"], found["time_zone"]) == ("day", "America/Toronto")
    assert found["crs"].startswith("PROJCRS[")


def test_rasterize_takes_the_clock_and_the_order_of_days_and_months(out, inputs):
    place = box(2, 2, 3, 3).centroid
    layer = write_points(
        out / "events.fgb", [place] * 2, {"time": ["03/04/2024 23:30", "2024-04-03T23:30:00Z"]}
    )
    request = {
        "events": layer,
        "grid": inputs / "grid.tif",
        "output": out / "cube.nc",
        "time_zone": "America/Toronto",
    }
    outputs = run("rasterize_events", **request, day_first=True, times_are_local=True)
    assert (outputs["first"], outputs["steps"]) == ("2024-04-03T00:00:00-04:00", 1)
    outputs = run("rasterize_events", **request)
    assert (outputs["first"], outputs["steps"]) == ("2024-03-04T00:00:00-05:00", 31)


def test_few_lost_rows_are_a_message_and_many_a_warning(out, inputs):
    place = box(2, 2, 3, 3).centroid
    for lost, level in ((1, "info"), (3, "warning")):
        layer = write_points(
            out / "events.fgb", [place] * 20, {"time": ["2024-02-01"] * (20 - lost) + [None] * lost}
        )
        reporter = Recorder()
        run("rasterize_events", reporter, events=layer, grid=inputs / "grid.tif", output=out / "cube.nc")
        text = f"{20 - lost} of 20 events are counted; left out: {lost} null time."
        assert reporter.texts(level) == [text]


# train -------------------------------------------------------------------------------------------------


def test_train_scores_the_validation_period(out, inputs):
    reporter = Recorder()
    outputs = run(
        "train",
        reporter,
        cube=inputs / "cube.nc",
        model="weekday_average",
        validation_share=20,
        output=out / "model.gridcast",
    )
    cube = Cube.read(inputs / "cube.nc")
    # History of 1 step, gap of 1 step.
    assert (outputs["train_steps"], outputs["validation_steps"]) == (STEPS - 1 - 10 - 1, 10)
    from gridcast_qgis.core.features import historical_average, weekday_average

    valid = cube.grid.valid
    for key, function in (("validation_mse", weekday_average), ("baseline_mse", historical_average)):
        expected = function(cube.total, cube.axis)[STEPS - 10 : STEPS]
        squared = ((cube.total[-10:] - expected)[:, valid].astype(float) ** 2).mean()
        assert outputs[key] == pytest.approx(squared, rel=1e-6)
    assert outputs["skill"] == pytest.approx(100 * (1 - outputs["validation_mse"] / outputs["baseline_mse"]))
    assert outputs["pai"] > 0
    assert outputs["pai_baseline"] > 0
    assert (outputs["epochs_run"], outputs["parameters"]) == (0, 0)
    assert set(outputs) == {
        *("output", "validation_loss", "validation_mse", "baseline_mse", "skill", "pai", "pai_baseline"),
        *("auc", "auc_baseline", "average_precision", "f1", "threshold"),
        *("epochs_run", "parameters", "train_steps", "validation_steps", "seconds"),
    }
    manifest = load_model(out / "model.gridcast").manifest
    assert manifest["scores"]["model"]["mse"] == outputs["validation_mse"]
    assert manifest["cube"]["grid_fingerprint"] == cube.grid.fingerprint
    assert manifest["cube"]["data_fingerprint"] == cube.fingerprint
    assert manifest["split"] == {
        "train_start": 1,
        "train_stop": 39,
        "validation_start": 40,
        "validation_stop": 50,
        "test_start": 0,
        "test_stop": 0,
    }
    assert "numpy" in manifest["versions"]
    assert progress_of(reporter) == sorted(progress_of(reporter))
    assert any("On the 10 validation steps: mean squared error" in text for text in reporter.texts("info"))


def test_train_can_be_held_to_a_date_and_to_types(out, inputs):
    run(
        "train",
        cube=inputs / "cube.nc",
        model="historical_average",
        until="2024-03-02",
        types=["theft"],
        output=out / "model.gridcast",
    )
    manifest = load_model(out / "model.gridcast").manifest
    assert manifest["types"] == ["theft"]
    assert manifest["split"]["validation_stop"] == 30
    assert manifest["cube"]["last"] == "2024-03-02T00:00:00-05:00"
    assert manifest["cube"]["types"] == ["theft"]


def test_a_period_without_events_has_no_pai_and_no_skill(out):
    cube = make_cube(STEPS)
    changed(cube, cube.events * 0).write(out / "cube.nc")
    outputs = run("train", cube=out / "cube.nc", model="historical_average", output=out / "model.gridcast")
    assert outputs["skill"] == 0
    assert np.isnan(outputs["pai"])


# forecast ----------------------------------------------------------------------------------------------


def test_forecast_from_the_end_of_the_cube(out, inputs):
    reporter = Recorder()
    outputs = run(
        "forecast",
        reporter,
        cube=inputs / "cube.nc",
        model=inputs / "model.gridcast",
        horizon=2,
        output=out / "forecast.tif",
    )
    cube = Cube.read(inputs / "cube.nc")
    mean = cube.total.mean(axis=0)[cube.grid.valid]
    assert outputs["origin"] == "2024-03-22T00:00:00-04:00"
    assert outputs["intervals"] == [
        ["2024-03-22T00:00:00-04:00", "2024-03-23T00:00:00-04:00"],
        ["2024-03-23T00:00:00-04:00", "2024-03-24T00:00:00-04:00"],
    ]
    assert (outputs["time_zone"], outputs["step"]) == ("America/Toronto", "day")
    assert outputs["unit_text"] == "events per cell and day"
    assert outputs["maximum"] == pytest.approx(mean.max(), rel=1e-5)
    assert outputs["expected_events"] == pytest.approx(2 * mean.sum(), rel=1e-5)
    assert 0 < outputs["ramp_maximum"] <= outputs["maximum"] * (1 + 1e-6)
    with rasterio.open(out / "forecast.tif") as raster:
        assert raster.count == 2
        assert raster.read(1)[cube.grid.valid] == pytest.approx(mean, rel=1e-5)
    assert progress_of(reporter) == sorted(progress_of(reporter))
    assert files_in(out) == ["forecast.tif"]


def test_forecast_from_an_earlier_origin_knows_nothing_later(out, inputs):
    outputs = run(
        "forecast",
        cube=inputs / "cube.nc",
        model=inputs / "model.gridcast",
        origin="2024-02-11T07:00",
        output=out / "forecast.tif",
    )
    assert outputs["intervals"] == [["2024-02-11T00:00:00-05:00", "2024-02-12T00:00:00-05:00"]]
    cube = Cube.read(inputs / "cube.nc")
    with rasterio.open(out / "forecast.tif") as raster:
        expected = cube.total[:10].mean(axis=0)[cube.grid.valid]
        assert raster.read(1)[cube.grid.valid] == pytest.approx(expected, rel=1e-5)


def test_forecast_uses_the_types_of_the_training(out, inputs):
    run(
        "train",
        cube=inputs / "cube.nc",
        model="historical_average",
        types=["theft"],
        output=out / "model.gridcast",
    )
    outputs = run(
        "forecast", cube=inputs / "cube.nc", model=out / "model.gridcast", output=out / "forecast.tif"
    )
    cube = Cube.read(inputs / "cube.nc").select_types(["theft"])
    assert outputs["expected_events"] == pytest.approx(cube.total.mean(axis=0).sum(), rel=1e-5)


# classify_hotspots -------------------------------------------------------------------------------------


def test_classify_without_a_cube(out, inputs):
    outputs = run(
        "classify_hotspots", forecast=inputs / "forecast.tif", area_share=20, output=out / "spots.gpkg"
    )
    _, _, geometry, _ = pyogrio.raw.read(out / "spots.gpkg")
    assert outputs["hot_spots"] == len(geometry)
    assert 0 < outputs["cells"] <= 0.2 * 42
    assert 0 < outputs["area_share"] <= 20 * (1 + 1e-6)
    assert 0 < outputs["expected_share"] < 100
    assert outputs["area_km2"] > 0
    for name in ("events_observed", "events_hit", "pai", "baseline_hit", "baseline_pai"):
        assert outputs[name] is None


def test_classify_with_what_happened(out, inputs):
    reporter = Recorder()
    outputs = run(
        "classify_hotspots",
        reporter,
        forecast=inputs / "forecast.tif",
        area_share=20,
        cube=inputs / "cube.nc",
        output=out / "spots.gpkg",
    )
    cube = Cube.read(inputs / "cube.nc")
    assert outputs["events_observed"] == cube.total[47:50].sum()
    # The forecast is the historical average.
    assert outputs["events_hit"] == outputs["baseline_hit"]
    assert outputs["pai"] == outputs["baseline_pai"]
    _, _, _, (observed,) = pyogrio.raw.read(out / "spots.gpkg", columns=["observed"])
    assert observed.sum() == outputs["events_hit"]
    (text,) = reporter.texts("info")
    assert text.startswith(f"Of {outputs['events_observed']:.0f} events that happened, ")


# Bad input ---------------------------------------------------------------------------------------------


def events_file(folder: Path, times: list, places: list | None = None) -> Path:
    places = places or [box(2, 2, 3, 3).centroid] * len(times)
    return write_points(folder / "events.gpkg", places, {"time": np.array(times, dtype=object)})


def other_schema(source: Path, target: Path) -> Path:
    with xr.open_dataset(source, decode_cf=False) as raw:
        dataset = raw.load()
    dataset.assign_attrs(gridcast_schema="cube/7").to_netcdf(target, engine="h5netcdf")
    return target


def cut(source: Path, target: Path) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    return target


def written(thing, path: Path) -> Path:
    thing.write(path)
    return path


#: Job, request made from (folder for further input, ready input), text of the error.
BAD = {
    "empty layer": (
        "rasterize_events",
        lambda new, ready: {"events": events_file(new, []), "grid": ready / "grid.tif"},
        "INPUT: The layer has no events. Check its filter, its selection and 'Selected features only'.",
    ),
    "no dates parse": (
        "rasterize_events",
        lambda new, ready: {"events": events_file(new, ["soon", "later"]), "grid": ready / "grid.tif"},
        "TIME_FIELD = 'soon': Not one date of the field can be read. Choose the field that holds the date "
        "and time of the event. Understood are date fields, ISO dates (2024-01-31 18:05), 01/31/2024 6:05 "
        "PM, 31.01.2024, and epoch seconds or milliseconds.",
    ),
    "all events outside the grid": (
        "rasterize_events",
        lambda new, ready: {
            "events": events_file(new, ["2024-02-01"] * 2, [shapely.Point(5, 5)] * 2),
            "grid": ready / "grid.tif",
        },
        "INPUT: All 2 events lie outside the study area of the grid. The events lie around x 5, y 5, the "
        "grid around x 631750, y 4.8385e+06 (WGS 84 / UTM zone 17N). Check the coordinate system of the "
        "layer and that grid and events belong together.",
    ),
    "geographic system with metric cells": (
        "build_grid",
        lambda new, ready: {"crs": DEGREES_WKT, "extent": [-79.6, 43.5, -79.1, 43.9], "cell_size": 500},
        "CELL_SIZE = 500 metre: A cell size in metres cannot be used in the coordinate system 'WGS 84', "
        "which counts in degrees or is not projected. Set TARGET_CRS to a projected system, here EPSG:32617, "
        "or give ROWS and COLUMNS.",
    ),
    "coordinate system that is none": (
        "build_grid",
        lambda new, ready: {"crs": "", "extent": [0, 0, 10, 10], "cell_size": 5},
        "TARGET_CRS = : The coordinate system cannot be read. Choose another TARGET_CRS, or set that of the "
        "layer.",
    ),
    "polygon without area": (
        "build_grid",
        lambda new, ready: {
            "crs": UTM_WKT,
            "cell_size": 500,
            "study_area": area_layer(new / "area.gpkg", shapely.Polygon([(0, 0), (9, 9), (5, 5), (0, 0)])),
        },
        "STUDY_AREA: The study area has no polygon with an area. Choose a polygon layer with at least one "
        "non-empty polygon (check its selection and filter).",
    ),
    "area layer without polygons": (
        "build_grid",
        lambda new, ready: {
            "crs": UTM_WKT,
            "cell_size": 500,
            "study_area": area_layer(new / "area.gpkg", None, shapely.LineString([(0, 0), (5, 5)])),
        },
        "STUDY_AREA: The study area has no polygon with an area. Choose a polygon layer with at least one "
        "non-empty polygon (check its selection and filter).",
    ),
    "empty area layer": (
        "build_grid",
        lambda new, ready: {"crs": UTM_WKT, "cell_size": 500, "study_area": area_layer(new / "area.gpkg")},
        "STUDY_AREA: The study area has no polygon with an area. Choose a polygon layer with at least one "
        "non-empty polygon (check its selection and filter).",
    ),
    "too many cells": (
        "build_grid",
        lambda new, ready: {"crs": UTM_WKT, "extent": [0, 0, 50_000, 40_000], "cell_size": 10},
        "CELL_SIZE = 10 metre: The grid would have 4,000 x 5,000 = 20,000,000 cells, more than the 4,000,000 "
        "allowed; one year of days on it would take 29 GB of memory. Choose larger cells or a smaller study "
        "area.",
    ),
    "cube of another schema version": (
        "train",
        lambda new, ready: {
            "cube": other_schema(ready / "cube.nc", new / "cube.nc"),
            "model": "historical_average",
        },
        "CUBE = {new}/cube.nc: The cube file has version 7, this Gridcast reads version 2. Make it again "
        "with 'Rasterize Events to Cube', or install the Gridcast that made it.",
    ),
    "model of another grid": (
        "forecast",
        lambda new, ready: {
            "cube": written(make_cube(STEPS, 4, 5), new / "cube.nc"),
            "model": ready / "model.gridcast",
        },
        "MODEL = {ready}/model.gridcast: The model was trained on another grid (6 x 7 cells in WGS 84 / UTM "
        "zone 17N) than that of CUBE (4 x 5 cells in WGS 84 / UTM zone 17N). Choose the cube that the model "
        "was trained on, or train a model on this cube.",
    ),
    "model of another step": (
        "forecast",
        lambda new, ready: {
            "cube": written(make_cube(STEPS, step="week"), new / "cube.nc"),
            "model": ready / "model.gridcast",
        },
        "MODEL = {ready}/model.gridcast: The model was trained on steps of 'day' in America/Toronto, CUBE "
        "has steps of 'week' in America/Toronto. Choose the cube that the model was trained on, or train a "
        "model on this cube.",
    ),
    "truncated model": (
        "forecast",
        lambda new, ready: {
            "cube": ready / "cube.nc",
            "model": cut(ready / "model.gridcast", new / "model.gridcast"),
        },
        "MODEL = {new}/model.gridcast: The model file is damaged or no model file (BadZipFile: File is not a "
        "zip file). It may have been cut off while it was copied. Choose a file that 'Train ConvLSTM' or "
        "'Train Hetero Ensemble' has made.",
    ),
    "truncated cube": (
        "train",
        lambda new, ready: {"cube": cut(ready / "cube.nc", new / "cube.nc"), "model": "historical_average"},
        "CUBE = {new}/cube.nc: The cube is damaged or no netCDF file (…). It may have been cut off while it "
        "was copied. Choose a file that 'Rasterize Events to Cube' has made.",
    ),
    "truncated grid": (
        "rasterize_events",
        lambda new, ready: {
            "events": ready / "events.fgb",
            "grid": cut(ready / "grid.tif", new / "grid.tif"),
        },
        "GRID = {new}/grid.tif: The file is damaged or not a raster (…). Choose a raster that 'Build Grid "
        "from Layer' has made.",
    ),
    "truncated forecast": (
        "classify_hotspots",
        lambda new, ready: {"forecast": cut(ready / "forecast.tif", new / "forecast.tif")},
        "INPUT = {new}/forecast.tif: The file is damaged or not a raster (…). Choose a raster that 'Forecast "
        "Heatmap' has made.",
    ),
    "lookback longer than the cube": (
        "train",
        lambda new, ready: {"cube": ready / "cube.nc", "model": "convlstm", "lookback": 60},
        "LOOKBACK = 60: The cube (or its part before UNTIL) has 50 steps, no more than the lookback of 60. "
        "Choose a shorter lookback, shorter steps or a longer period.",
    ),
    "lookback longer than the history of the origin": (
        "forecast",
        lambda new, ready: {
            "cube": ready / "cube.nc",
            "model": ready / "model.gridcast",
            "origin": "2024-02-01",
        },
        "LOOKBACK = 1: The cube has 0 steps before the forecast, the model looks back 1. Use a cube with a "
        "longer history, or a model with a shorter lookback.",
    ),
    "no horizon": (
        "forecast",
        lambda new, ready: {"cube": ready / "cube.nc", "model": ready / "model.gridcast", "horizon": 0},
        "HORIZON = 0: The horizon must be at least one step. Give a whole number such as 7.",
    ),
    "origin outside the cube": (
        "forecast",
        lambda new, ready: {
            "cube": ready / "cube.nc",
            "model": ready / "model.gridcast",
            "origin": "2025-02-01",
        },
        "ORIGIN = 2025-02-01: The time lies outside the cube. The cube runs from 2024-02-01T00:00:00-05:00 "
        "to 2024-03-22T00:00:00-04:00.",
    ),
    "training until before the cube": (
        "train",
        lambda new, ready: {"cube": ready / "cube.nc", "model": "historical_average", "until": "2023-01-01"},
        "UNTIL = 2023-01-01: The time lies outside the cube. The cube runs from 2024-02-01T00:00:00-05:00 to "
        "2024-03-22T00:00:00-04:00.",
    ),
    "unknown type": (
        "train",
        lambda new, ready: {"cube": ready / "cube.nc", "model": "historical_average", "types": ["arson"]},
        "TYPES = arson: The cube has no type 'arson'. It has: assault, theft.",
    ),
    "cube that does not hold the period": (
        "classify_hotspots",
        lambda new, ready: {
            "forecast": ready / "forecast.tif",
            "cube": written(make_cube(48), new / "cube.nc"),
        },
        "CUBE: The cube does not hold the forecast's period 2024-03-19T00:00:00-04:00 to "
        "2024-03-22T00:00:00-04:00 with some steps before it. Leave CUBE empty, or rasterize the events that "
        "have happened since.",
    ),
    "grid in place of a cube": (
        "train",
        lambda new, ready: {"cube": ready / "grid.tif", "model": "historical_average"},
        "CUBE = {ready}/grid.tif: The cube is damaged or no netCDF file (…). It may have been cut off while "
        "it was copied. Choose a file that 'Rasterize Events to Cube' has made.",
    ),
    "cube in place of a model": (
        "forecast",
        lambda new, ready: {"cube": ready / "cube.nc", "model": ready / "cube.nc"},
        "MODEL = {ready}/cube.nc: The model file is damaged or no model file (BadZipFile: File is not a zip "
        "file). It may have been cut off while it was copied. Choose a file that 'Train ConvLSTM' or 'Train "
        "Hetero Ensemble' has made.",
    ),
    "forecast in place of a grid": (
        "rasterize_events",
        lambda new, ready: {"events": ready / "events.fgb", "grid": ready / "forecast.tif"},
        "GRID = {ready}/forecast.tif: The file is not a Gridcast grid file. Choose a file that 'Build Grid "
        "from Layer' has made.",
    ),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_explained_and_leaves_nothing(case, inputs, out, tmp_path):
    name, make, text = BAD[case]
    new = tmp_path / "new"
    new.mkdir()
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    request = make(new, inputs)
    given = files_in(new)
    with pytest.raises(InputError) as caught:
        run(name, output=out / "output.file", **request)
    found = caught.value.text()
    expected = text.replace("{new}", str(new)).replace("{ready}", str(inputs))
    # What a library says about a damaged file is its own affair.
    start, _, end = expected.partition("…")
    assert found.startswith(start)
    assert found.endswith(end)
    assert "…" in expected or found == expected
    assert files_in(out) == []
    assert files_in(new) == given
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before


@pytest.mark.parametrize("name", ["build_grid", "rasterize_events", "train", "forecast", "classify_hotspots"])
def test_an_output_that_cannot_be_written_is_explained(name, inputs, tmp_path):
    request = {
        "build_grid": {"crs": UTM_WKT, "extent": [0, 0, 70, 60], "rows": 6, "columns": 7},
        "rasterize_events": {"events": inputs / "events.fgb", "grid": inputs / "grid.tif"},
        "train": {"cube": inputs / "cube.nc", "model": "historical_average"},
        "forecast": {"cube": inputs / "cube.nc", "model": inputs / "model.gridcast"},
        "classify_hotspots": {"forecast": inputs / "forecast.tif"},
    }[name]
    output = tmp_path / "none" / "output.file"
    with pytest.raises(InputError) as caught:
        run(name, output=output, **request)
    assert caught.value.text() == (
        f"OUTPUT = {output}: The file cannot be written: No such file or directory. Choose a folder that "
        "exists and that you may write to."
    )
    assert files_in(tmp_path) == []


# Requests that the plugin never makes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "request_fields", "text"),
    [
        ("conquer", {}, "There is no job 'conquer'. Install the plugin again."),
        ("build_grid", {"crs": "x"}, "The request of the job 'build_grid' does not fit: "),
        (
            "build_grid",
            {"crs": "x", "output": "y", "colour": 1},
            "The request of the job 'build_grid' does not fit: ",
        ),
        (
            "train",
            {"cube": "x", "output": "y", "model": "convlstm", "layers": 3},
            "The settings of the model do not fit: ",
        ),
    ],
    ids=["job", "missing field", "unknown field", "unknown setting"],
)
def test_halves_that_do_not_belong_together_are_noticed(name, request_fields, text):
    with pytest.raises(GridcastError) as caught:
        run(name, **request_fields)
    assert not isinstance(caught.value, InputError)
    assert caught.value.text().startswith(text)
    assert caught.value.hint == "Install the plugin again."


def test_the_events_of_a_cube_survive_the_way_through_the_files(inputs):
    assert Cube.read(inputs / "cube.nc").fingerprint == make_cube(STEPS, mean=1.0).fingerprint
    assert make_grid().fingerprint == Grid.read(inputs / "grid.tif").fingerprint
    assert pyproj.CRS(Grid.read(inputs / "grid.tif").crs).to_epsg() == 32617
