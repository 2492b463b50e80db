# SPDX-License-Identifier: GPL-2.0-or-later
"""Cubes: every event is counted once or left out for a reason, and the file is a standard one."""

from __future__ import annotations

import json
from dataclasses import replace

import h5netcdf
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CELL, DEGREES, NORTH, UTM, WEST, Recorder, changed, events_of, make_cube, make_grid

from gridcast_qgis.core import binning, cubefile
from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import OTHER, Cube
from gridcast_qgis.core.cubefile import export_bands
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.severity import Severity
from gridcast_qgis.core.timesteps import STEPS, parse_local

TORONTO = "America/Toronto"


def place(row: float, column: float) -> tuple[float, float]:
    """Return the map coordinates of a place in cells from the north-western corner."""
    return WEST + column * CELL, NORTH - row * CELL


def table(places, times, types=None, **options) -> EventTable:
    x, y = np.array([place(*p) for p in places]).T
    return EventTable.from_arrays(x, y, times, types, **options)


def test_counts_fall_into_their_cell_step_and_type():
    grid = make_grid(3, 4, holes=False)
    events = table(
        [(0.5, 0.5), (0.5, 0.5), (2.5, 3.5), (1, 1), (1.5, 1.5)],
        [
            "2024-01-01T05:00Z",
            "2024-01-02T04:59:59Z",
            "2024-01-03T05:00Z",
            "2024-01-02T12:00",
            "2024-01-02T12:00",
        ],
        ["b", "a", "a", "b", "b"],
    )
    cube = Cube.from_events(events, grid, "day", TORONTO)
    assert cube.types == ("a", "b")
    assert cube.events.shape == (3, 2, 3, 4)
    assert cube.events.dtype == np.float32
    found = {tuple(i.tolist()): cube.events[tuple(i)] for i in np.argwhere(cube.events)}
    assert found == {(0, 1, 0, 0): 1, (0, 0, 0, 0): 1, (2, 0, 2, 3): 1, (1, 1, 1, 1): 2}
    assert cube.axis.isoformat(0)[0] == "2024-01-01T00:00:00-05:00"
    assert cube.total.sum() == 5


coordinate = st.floats(-1.5, 8.5)
hour = st.integers(-24 * 20, 24 * 20)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(coordinate, coordinate, hour, st.sampled_from("abcde")), max_size=40),
    step=st.sampled_from(["1h", "6h", "day", "week", "month"]),
    max_types=st.integers(1, 6),
    period=st.sampled_from(
        [(None, None), ("2024-03-05", None), (None, "2024-03-15T06:00"), ("2024-03-05", "2024-03-15")]
    ),
)
def test_no_event_is_lost_or_counted_twice(rows, step, max_types, period):
    # One event in the middle makes sure that there is a cube.
    rows = [*rows, (3.2, 3.2, 24 * 9, "a")]
    grid = make_grid()
    times = np.datetime64("2024-03-01T05:00:00") + np.array([r[2] for r in rows]).astype("timedelta64[h]")
    before = {"reprojection": 2, "outside_grid": 1}
    events = table(
        [(r[0], r[1]) for r in rows], times, [r[3] for r in rows], time_zone="UTC", dropped_before=before
    )
    cube = Cube.from_events(events, grid, step, TORONTO, start=period[0], end=period[1], max_types=max_types)
    facts = cube.attributes
    assert facts["events_read"] == len(rows) + 3
    assert facts["events_used"] + sum(facts["dropped"].values()) == facts["events_read"]
    assert cube.events.sum() == facts["events_used"]
    assert (cube.events[:, :, ~grid.valid] == 0).all()
    assert len(cube.types) <= max_types
    assert cube.total.sum() == cube.events.sum()
    # Each row by itself, as it was meant.
    row, column = grid.locate(events.x, events.y)
    step_of = cube.axis.locate(events.time)
    if period[1]:
        # An end within a step ends the period there.
        step_of[events.time >= parse_local(period[1], TORONTO, "END")] = -1
    expected = dict(facts["dropped"], outside_period=0, outside_grid=1, outside_area=0)
    for r, c, t in zip(row, column, step_of):
        if r < 0:
            expected["outside_grid"] += 1
        elif not grid.valid[r, c]:
            expected["outside_area"] += 1
        elif t < 0:
            expected["outside_period"] += 1
    assert facts["dropped"] == expected


def test_an_event_table_made_from_a_cube_gives_the_cube_back():
    cube = make_cube(40)
    again = Cube.from_events(events_of(cube), cube.grid, "day", TORONTO, start="2024-02-01", end="2024-03-12")
    assert again.fingerprint == cube.fingerprint


def test_start_is_part_of_the_period_and_end_is_not():
    grid = make_grid(2, 2, holes=False)
    times = ["2024-01-04T23:59:59", "2024-01-05", "2024-01-07T23:59:59", "2024-01-08"]
    events = table([(0.5, 0.5)] * 4, times)
    cube = Cube.from_events(events, grid, "day", "UTC", start="2024-01-05", end="2024-01-08")
    assert len(cube) == 3
    assert cube.total.sum(axis=(1, 2)).tolist() == [1, 0, 1]
    assert cube.attributes["dropped"]["outside_period"] == 2


def test_the_period_begins_with_a_whole_step_and_ends_where_it_is_to_end():
    grid = make_grid(2, 2, holes=False)
    events = table([(0.5, 0.5)] * 3, ["2024-01-03", "2024-01-15", "2024-01-20"])
    reporter = Recorder()
    period = {"start": "2024-01-05T10:00", "end": "2024-01-15T00:01"}
    cube = Cube.from_events(events, grid, "week", "UTC", **period, reporter=reporter)
    assert reporter.texts() == [
        "END lies within a step: the last one, from 2024-01-15T00:00:00+00:00 on, is not complete."
    ]
    assert cube.attributes["counted_until"] == "2024-01-15T00:01:00"
    assert cube.axis.isoformat(0)[0] == "2024-01-01T00:00:00+00:00"
    assert cube.axis.isoformat(len(cube) - 1)[1] == "2024-01-22T00:00:00+00:00"
    assert cube.total.sum() == 2


def test_empty_steps_at_both_ends_are_kept():
    grid = make_grid(2, 2, holes=False)
    events = table([(0.5, 0.5)], ["2024-01-15"])
    cube = Cube.from_events(events, grid, "day", "UTC", start="2024-01-01", end="2024-02-01")
    assert len(cube) == 31
    assert np.flatnonzero(cube.total.sum(axis=(1, 2))).tolist() == [14]


def test_rare_types_become_one():
    grid = make_grid(2, 2, holes=False)
    kinds = ["a"] * 5 + ["b"] * 1 + ["c"] * 3 + ["d"] * 1 + ["e"] * 4
    events = table([(0.5, 0.5)] * len(kinds), ["2024-01-01"] * len(kinds), kinds)
    all_of_them = Cube.from_events(events, grid, "day", "UTC", max_types=5)
    assert all_of_them.types == ("a", "b", "c", "d", "e")
    some = Cube.from_events(events, grid, "day", "UTC", max_types=4)
    assert some.types == ("a", "c", "e", OTHER)
    assert some.events.sum(axis=(0, 2, 3)).tolist() == [5, 3, 4, 2]
    one = Cube.from_events(events, grid, "day", "UTC", max_types=1)
    assert one.types == (OTHER,)
    assert one.events.sum() == 14


def test_types_are_named_once_even_if_one_is_called_other():
    grid = make_grid(2, 2, holes=False)
    kinds = [OTHER] * 5 + ["a"] * 4 + ["b", "c"]
    events = table([(0.5, 0.5)] * len(kinds), ["2024-01-01"] * len(kinds), kinds)
    cube = Cube.from_events(events, grid, "day", "UTC", max_types=3)
    assert len(set(cube.types)) == len(cube.types)
    assert cube.events.sum() == 11


def test_types_that_occur_only_outside_are_no_types():
    grid = make_grid(2, 2, holes=False)
    events = table([(0.5, 0.5), (9.5, 0.5)], ["2024-01-01", "2024-01-01"], ["inside", "outside"])
    assert Cube.from_events(events, grid, "day", "UTC").types == ("inside",)


def test_selecting_types_steps_and_cells():
    cube = make_cube(20, types=("a", "b", "c"))
    assert cube.select_types(None) is cube
    some = cube.select_types(["c", "a"])
    assert some.types == ("c", "a")
    assert (some.events == cube.events[:, [2, 0]]).all()
    assert (some.total == cube.events[:, 2] + cube.events[:, 0]).all()
    part = cube.steps(5, 12)
    assert len(part) == 7
    assert (part.axis.edges == cube.axis.edges[5:13]).all()
    assert (part.events == cube.events[5:12]).all()
    corner = cube.crop(slice(2, 4), slice(1, 5))
    assert corner.grid.shape == (2, 4)
    assert (corner.events == cube.events[:, :, 2:4, 1:5]).all()


@pytest.mark.parametrize("text", ["theft ", "x"])
def test_an_unknown_type_is_refused(text):
    with pytest.raises(InputError) as caught:
        make_cube(5).select_types(["theft", text])
    assert caught.value.text() == (
        f"TYPES = theft, {text}: The cube has no type {text!r}. It has: assault, theft."
    )


def test_times_are_found_on_the_local_clock():
    cube = make_cube(10)
    assert cube.index_of("2024-02-01", "ORIGIN") == 0
    assert cube.index_of("2024-02-03T23:59:59", "ORIGIN") == 2
    assert cube.index_of("2024-02-04T04:59:59Z", "ORIGIN") == 2
    assert cube.index_of("2024-02-04T05:00Z", "ORIGIN") == 3
    assert cube.index_of("2024-02-11", "ORIGIN") == 10


@pytest.mark.parametrize("text", ["2024-01-31T23:59", "2024-02-11T00:01"])
def test_a_time_outside_the_cube_is_refused(text):
    with pytest.raises(InputError) as caught:
        make_cube(10).index_of(text, "ORIGIN")
    assert caught.value.text() == (
        f"ORIGIN = {text}: The time lies outside the cube. The cube runs from 2024-02-01T00:00:00-05:00 to "
        "2024-02-11T00:00:00-05:00."
    )


GOOD = ([(0.5, 0.5)], ["2024-01-15"])
REFUSED = {
    "outside the grid": (
        ([(100.5, 0.5)] * 3, ["2024-01-15"] * 3),
        {},
        "INPUT: All 3 events lie outside the study area of the grid. The events lie around x 630250, "
        "y 4.78975e+06, the grid around x 630500, y 4.8395e+06 (WGS 84 / UTM zone 17N). Check the coordinate "
        "system of the layer and that grid and events belong together.",
    ),
    "no place": (
        ([(np.nan, np.nan)], ["2024-01-15"]),
        {},
        "INPUT: No event has both a place and a date that can be read. Lost: 1 null geometry.",
    ),
    "start after the last event": (
        GOOD,
        {"start": "2024-02-01"},
        "START = 2024-02-01: The last event lies before it. Set END after START, or leave both empty.",
    ),
    "end before start": (
        GOOD,
        {"start": "2024-02-01", "end": "2024-01-01"},
        "END = 2024-01-01: The period ends before it begins. Set END after START, or leave both empty.",
    ),
    "empty period": (
        GOOD,
        {"start": "2024-02-01", "end": "2024-02-01"},
        "END = 2024-02-01: The period ends before it begins. Set END after START, or leave both empty.",
    ),
    "no event in the period": (
        GOOD,
        {"start": "2024-03-01", "end": "2024-03-03"},
        "START = 2024-03-01T00:00:00+00:00 … 2024-03-03T00:00:00+00:00: No event lies in the period. Check "
        "START, END and TIME_FIELD.",
    ),
    "end that is no date": (
        GOOD,
        {"end": "soon"},
        "END = soon: This is not a date and time. Write it as 2024-01-31 or 2024-01-31T18:00.",
    ),
    "no types": (
        GOOD,
        {"max_types": 0},
        "MAX_TYPES = 0: At least one type is needed. Give 1 or more.",
    ),
    "step": (
        GOOD,
        {"step": "daily"},
        f"STEP = daily: Unknown time step. Choose one of {', '.join(STEPS)}.",
    ),
    "zone": (
        GOOD,
        {"time_zone": "Toronto"},
        "TIME_ZONE = Toronto: There is no such time zone. Did you mean America/Toronto?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_cube_is_refused_with_the_fix(case):
    (places, times), options, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        Cube.from_events(
            table(places, times),
            make_grid(2, 2, holes=False),
            **{"step": "day", "time_zone": "UTC", **options},
        )
    assert caught.value.text() == text


def test_a_cube_beyond_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(binning, "MAX_VALUES", 1000)
    events = table([(0.5, 0.5), (1.5, 1.5)], ["2024-01-01", "2024-02-20"], ["a", "b"])
    with pytest.raises(InputError) as caught:
        Cube.from_events(events, make_grid(3, 4, holes=False), "day", "UTC")
    assert caught.value.text() == (
        "STEP = day: The cube would have 51 steps x 2 types x 3 x 4 cells and take 0 GB of memory. Choose "
        "longer steps, larger cells, fewer types (MAX_TYPES) or a shorter period."
    )


def test_counting_can_be_cancelled():
    reporter = Recorder()
    reporter.cancel()
    with pytest.raises(JobCancelled):
        Cube.from_events(table(*GOOD), make_grid(2, 2, holes=False), "day", "UTC", reporter=reporter)


CUBES = {
    "two types": {},
    "one type": {"types": ("events",)},
    "names": {"types": ("Überfall / vol à l'étalage", "強盗", "(no type)")},
    "hourly": {"step": "1h", "steps": 100},
    "months": {"step": "month", "steps": 14, "time_zone": "Asia/Kolkata"},
    "one cell": {"rows": 1, "columns": 1, "holes": False},
    "one step": {"steps": 1},
}


@pytest.mark.parametrize("case", CUBES)
def test_a_written_cube_is_read_back_equal(tmp_path, case):
    cube = make_cube(**{"steps": 30, **CUBES[case]})
    cube.attributes.update(events_read=5, dropped={"bad_time": 2})
    path = tmp_path / "cübe file.nc"
    cube.write(path)
    again = Cube.read(path)
    assert (again.events == cube.events).all()
    assert again.events.dtype == np.float32
    assert again.types == cube.types
    assert (again.axis.edges == cube.axis.edges).all()
    assert (again.axis.step, again.axis.time_zone) == (cube.axis.step, cube.axis.time_zone)
    assert again.grid.fingerprint == cube.grid.fingerprint
    assert again.fingerprint == cube.fingerprint
    assert again.attributes == cube.attributes
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("rotation", [0.0, 25.0])
@pytest.mark.parametrize("crs", [UTM, DEGREES, pyproj.CRS("EPSG:3435")], ids=["utm", "degrees", "feet"])
def test_the_grid_of_a_cube_keeps_its_place(tmp_path, crs, rotation):
    extent = (-79.6, 43.5, -79.1, 43.9) if crs.is_geographic else (600_000.3, 500_000.7, 604_321.1, 503_777.9)
    grid = Grid.from_extent(crs, extent, rows=5, columns=7, rotation=rotation)
    x, y = grid.centres()
    events = EventTable.from_arrays(x.ravel(), y.ravel(), np.repeat(np.datetime64("2024-01-01"), x.size))
    cube = Cube.from_events(events, grid, "day", "UTC")
    assert (cube.events == 1).all()
    cube.write(tmp_path / "cube.nc")
    assert Cube.read(tmp_path / "cube.nc").fingerprint == cube.fingerprint


def test_the_fingerprint_tells_cubes_apart():
    cube = make_cube(12)
    events = cube.events.copy()
    events[3, 0, 4, 4] += 1
    renamed = Cube(cube.grid, cube.axis, ("theft", "robbery"), cube.events)
    prints = {
        c.fingerprint
        for c in (cube, changed(cube, events), cube.steps(0, 11), renamed, make_cube(12, seed=1))
    }
    assert len(prints) == 5
    assert make_cube(12).fingerprint == cube.fingerprint


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("cube") / "cube.nc"
    cube = make_cube(20)
    cube.write(path)
    return cube, path


def test_xarray_opens_it_in_one_line(written):
    cube, path = written
    with xr.open_dataset(path) as dataset:
        assert dataset["events"].dims == ("time", "type", "y", "x")
        assert (dataset["events"].to_numpy() == cube.events).all()
        assert (dataset["total"].to_numpy() == cube.total).all()
        assert (dataset["time"].to_numpy() == cube.axis.starts).all()
        assert dataset["type_name"].to_numpy().tolist() == list(cube.types)
        one_day = dataset["events"].set_xindex("type_name").sel(type_name="theft", time="2024-02-03")
        assert one_day.sum() == cube.events[2, 1].sum()


def test_it_follows_the_cf_conventions(written):
    cube, path = written
    with xr.open_dataset(path, decode_cf=False) as raw:
        assert raw.attrs["Conventions"] == "CF-1.8"
        assert raw.attrs["gridcast_schema"] == "cube/2"
        assert (raw.attrs["step"], raw.attrs["time_zone"]) == ("day", TORONTO)
        assert raw["time"].attrs["units"].startswith("seconds since 1970-01-01")
        assert raw["time"].attrs["bounds"] == "time_bnds"
        assert raw["time"].attrs["standard_name"] == "time"
        assert raw["x"].attrs["standard_name"] == "projection_x_coordinate"
        assert raw["y"].attrs == {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}
        for name in ("events", "total", "inside"):
            assert raw[name].attrs["grid_mapping"] == "spatial_ref"
            assert raw[name].attrs["units"] == "1"
        assert raw["events"].attrs["cell_methods"] == "time: sum area: sum"
        assert raw["spatial_ref"].attrs["grid_mapping_name"] == "transverse_mercator"
        assert raw["time_bnds"].shape == (20, 2)
        assert (raw["time_bnds"][1:, 0].to_numpy() == raw["time_bnds"][:-1, 1].to_numpy()).all()
        assert (raw["inside"].to_numpy() == cube.grid.inside).all()
    assert pyproj.CRS.from_cf(raw["spatial_ref"].attrs).equals(UTM, ignore_axis_order=True)


def test_coordinates_are_the_centres_of_the_cells(written):
    cube, path = written
    x, y = cube.grid.centres()
    with xr.open_dataset(path) as dataset:
        assert (dataset["x"].to_numpy() == x[0]).all()
        assert (dataset["y"].to_numpy() == y[:, 0]).all()
        assert dataset["y"][0] > dataset["y"][1]


def test_degrees_and_turned_grids_name_their_coordinates(tmp_path):
    for rotation, names in ((0.0, ("longitude", "latitude")), (25.0, (None, None))):
        grid = Grid.from_extent(DEGREES, (-79.6, 43.5, -79.1, 43.9), rows=4, columns=5, rotation=rotation)
        cube = Cube(grid, make_cube(3).axis, ("events",), np.ones((3, 1, 4, 5), np.float32))
        dataset = cube.to_dataset()
        assert (dataset["x"].attrs.get("standard_name"), dataset["y"].attrs.get("standard_name")) == names
        assert ("lon" in dataset.coords) == bool(rotation)
        if rotation:
            x, y = grid.centres()
            assert dataset["lon"].to_numpy() == pytest.approx(x)
            assert dataset["lat"].to_numpy() == pytest.approx(y)


def test_gdal_reads_place_and_counts(written):
    cube, path = written
    with rasterio.open(f"netcdf:{path}:total") as raster:
        assert raster.crs.to_epsg() == 32617
        assert raster.transform.almost_equals(cube.grid.transform, precision=1e-6)
        assert raster.shape == cube.grid.shape
        assert raster.count == len(cube)
        assert (raster.read() == cube.total).all()


def test_the_same_cube_gives_the_same_bytes(tmp_path):
    def are_equal() -> bool:
        for name in ("one.nc", "two.nc"):
            make_cube(15).write(tmp_path / name)
        return (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()

    # HDF5 notes the second in which a file is made: try again if a new one began between the two.
    assert any(are_equal() for _ in range(5))


def test_a_missing_cube_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        Cube.read(tmp_path / "none.nc")
    assert caught.value.text() == (
        f"CUBE = {tmp_path / 'none.nc'}: The file does not exist. "
        "Choose a file that 'Rasterize Events to Cube' has made."
    )


def rewrite(path, change):
    with xr.open_dataset(path, decode_cf=False) as raw:
        dataset = raw.load()
    dataset = change(dataset)
    # Old versions of xarray name other engines first.
    dataset.to_netcdf(path, engine="h5netcdf")


def with_attribute(**attributes):
    return lambda dataset: dataset.assign_attrs(**attributes)


OTHERS = {
    "version": (
        with_attribute(gridcast_schema="cube/3"),
        "The cube file has version 3, this Gridcast reads version 2. Make it again with 'Rasterize Events to "
        "Cube', or install the Gridcast that made it.",
    ),
    "model": (
        with_attribute(gridcast_schema="model/1"),
        "The file is not a Gridcast cube file. Choose a file that 'Rasterize Events to Cube' has made.",
    ),
    "any netcdf": (
        lambda dataset: dataset.drop_attrs(),
        "The file is not a Gridcast cube file. Choose a file that 'Rasterize Events to Cube' has made.",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_file_is_refused(tmp_path, case):
    change, text = OTHERS[case]
    path = tmp_path / "cube.nc"
    make_cube(5).write(path)
    rewrite(path, change)
    with pytest.raises(InputError) as caught:
        Cube.read(path)
    assert caught.value.text() == f"CUBE = {path}: {text}"


def with_dates_of_another_calendar(dataset):
    dataset["time"].attrs["calendar"] = "360_day"
    return dataset


def without_attribute(dataset, name):
    del dataset.attrs[name]
    return dataset


def with_fewer_columns(dataset):
    events = dataset["events"][..., :3].drop_vars("x")
    return dataset.assign(events=events.rename(x="fewer"))


DAMAGES = {
    "step": with_attribute(step="fortnight"),
    "no step": lambda dataset: without_attribute(dataset, "step"),
    "provenance": with_attribute(provenance="{"),
    "no mask": lambda dataset: dataset.drop_vars("inside"),
    "no place": lambda dataset: dataset.drop_vars("spatial_ref"),
    "no bounds": lambda dataset: dataset.drop_vars("time_bnds"),
    "shape": with_fewer_columns,
    "calendar": with_dates_of_another_calendar,
}


@pytest.mark.filterwarnings("ignore:Variable:UserWarning")
@pytest.mark.parametrize("case", DAMAGES)
def test_a_cube_that_lacks_something_is_refused(tmp_path, case):
    path = tmp_path / "cube.nc"
    make_cube(5).write(path)
    rewrite(path, DAMAGES[case])
    with pytest.raises(
        InputError, match=r"^CUBE = .*cube\.nc: The cube is damaged or no netCDF file"
    ) as caught:
        Cube.read(path)
    assert caught.value.hint == (
        "It may have been cut off while it was copied. Choose a file that 'Rasterize Events to Cube' has "
        "made."
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.8, 0.999])
def test_a_truncated_cube_is_refused(written, tmp_path, part):
    data = written[1].read_bytes()
    path = tmp_path / "cube.nc"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"^CUBE = .*The cube is damaged or no netCDF file"):
        Cube.read(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wrong_bytes_never_surprise(written, tmp_path):
    data = written[1].read_bytes()
    path = tmp_path / "cube.nc"
    for position in range(0, len(data), 1301):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            Cube.read(path)
        except InputError as error:
            assert error.parameter == "CUBE"


def test_a_table_is_no_cube(tmp_path):
    path = tmp_path / "cube.nc"
    pd.DataFrame({"a": [1]}).to_csv(path)
    with pytest.raises(InputError, match=r"^CUBE = .*The cube is damaged or no netCDF file"):
        Cube.read(path)


def test_provenance_is_readable_text(written):
    with xr.open_dataset(written[1]) as dataset:
        assert json.loads(dataset.attrs["provenance"]) == {}


# -- what else is in the file --------------------------------------------------------------------


def rich_cube() -> Cube:
    """Return a cube with severity and covariates of every shape."""
    cube = make_cube(30)
    rows, columns = cube.grid.shape
    return replace(
        cube.with_covariates(
            [
                Covariate(
                    "rain", np.r_[np.nan, np.arange(29)].astype("f4"), ("time",), "mm", "rain in a day"
                ),
                Covariate("income", np.arange(rows * columns, dtype="f4").reshape(rows, columns), ("y", "x")),
                Covariate("crowd", cube.total * 2, ("time", "y", "x"), "1", "people"),
            ]
        ),
        severity=Severity(cube.total.astype(float) * 0.5, cube.total),
    )


def test_severity_and_covariates_come_back(tmp_path):
    cube = rich_cube()
    cube.write(tmp_path / "cube.nc")
    again = Cube.read(tmp_path / "cube.nc")
    assert list(again.covariates) == list(cube.covariates)
    for name, covariate in cube.covariates.items():
        found = again.covariates[name]
        np.testing.assert_array_equal(found.values, covariate.values)
        assert found.values.dtype == np.float32
        assert (found.dimensions, found.units) == (covariate.dimensions, covariate.units)
    assert again.covariates["rain"].description == "rain in a day"
    np.testing.assert_array_equal(again.severity.sum, cube.severity.sum)
    np.testing.assert_array_equal(again.severity.weight, cube.severity.weight)
    assert again.severity.sum.dtype == np.float64


@pytest.mark.parametrize("made", ["plain", "rich", "degrees", "rotated", "shifts"])
def test_a_cf_checker_finds_no_error(tmp_path, made):
    """The checker of the Integrated Ocean Observing System knows the conventions' text."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    path = tmp_path / "cube.nc"
    cube = (
        rich_cube()
        if made == "rich"
        else make_cube(20, step="shifts 07:00 19:00" if made == "shifts" else "day")
    )
    if made == "degrees":
        grid = Grid.from_extent(pyproj.CRS("EPSG:4326"), (-80, 43, -79, 44), rows=6, columns=7)
        cube = replace(cube, grid=grid)
    if made == "rotated":
        grid = replace(cube.grid, transform=cube.grid.transform @ Affine.rotation(20))
        cube = replace(cube, grid=grid)
    cube.write(path)
    CheckSuite.load_all_available_checkers()
    report = tmp_path / "report.json"
    ComplianceChecker.run_checker(
        str(path), ["cf:1.8"], 0, "normal", output_filename=str(report), output_format="json"
    )
    found = json.loads(report.read_text())["cf:1.8"]
    assert found["high_count"] == 0, [item for item in found["high_priorities"] if item["msgs"]]
    # The order T, type, Y, X is allowed; the conventions would like the type before the time.
    advice = [text for item in found["medium_priorities"] for text in item["msgs"]]
    assert advice and all("not in the recommended order T, Z, Y, X" in text for text in advice), advice


def test_the_netcdf_library_reads_it(tmp_path):
    netCDF4 = pytest.importorskip("netCDF4", reason="the reference library of netCDF is not installed")
    cube = rich_cube()
    cube.write(tmp_path / "cube.nc")
    with netCDF4.Dataset(tmp_path / "cube.nc") as file:
        assert file["events"].dimensions == ("time", "type", "y", "x")
        np.testing.assert_array_equal(file["events"][:], cube.events)
        assert file["type_name"][:].tolist() == list(cube.types)
        times = netCDF4.num2date(file["time"][:], file["time"].units)
        assert [str(t) for t in times] == [str(s).replace("T", " ") for s in cube.axis.starts]


def test_a_step_and_a_history_are_read_without_the_rest(tmp_path):
    cube = make_cube(200, 60, 70, types=("a",))
    cube.write(tmp_path / "cube.nc")
    with h5netcdf.File(tmp_path / "cube.nc") as file:
        chunk = file["events"].chunks
    assert chunk == (50, 1, 30, 24)
    whole = cube.events.size
    per_step = chunk[0] * 60 * 70
    per_cell = 200 * chunk[2] * chunk[3]
    assert per_step <= whole / 4 and per_cell <= whole / 5


def test_steps_become_bands(tmp_path):
    cube = rich_cube()
    top = export_bands(cube, tmp_path / "all.tif")
    assert top == np.percentile(cube.total[cube.total > 0], 99)
    with rasterio.open(tmp_path / "all.tif") as raster:
        bands = raster.read(masked=True)
        assert raster.count == 30 and raster.transform == cube.grid.transform
        assert raster.descriptions[0] == "2024-02-01T00:00:00-05:00/2024-02-02T00:00:00-05:00"
    np.testing.assert_array_equal(bands.filled(0), cube.total * cube.grid.valid)
    assert (bands.mask == ~cube.grid.valid).all()
    for variable, values in {
        "theft": cube.events[:, 1],
        "severity_mean": cube.severity.mean,
        "crowd": cube.covariates["crowd"].values,
    }.items():
        export_bands(cube, tmp_path / "one.tif", variable)
        with rasterio.open(tmp_path / "one.tif") as raster:
            np.testing.assert_array_equal(raster.read(masked=True).filled(0), values * cube.grid.valid)


def test_many_bands_of_a_small_grid_are_not_padded(tmp_path):
    export_bands(make_cube(100), tmp_path / "many.tif")
    with rasterio.open(tmp_path / "many.tif") as raster:
        assert raster.block_shapes == [(16, 16)] * 100


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError) as caught:
        export_bands(rich_cube(), tmp_path / "all.tif", "income")
    assert caught.value.text() == (
        "VARIABLE = income: This covariate does not change from cell to cell and in time. Choose one of: "
        "assault, theft, severity_mean, severity_sum, crowd; leave it empty for all events."
    )
    with pytest.raises(InputError, match="VARIABLE = nothing: The cube has no such variable"):
        export_bands(rich_cube(), tmp_path / "all.tif", "nothing")
    monkeypatch.setattr(cubefile, "MAX_BANDS", 10)
    with pytest.raises(InputError) as caught:
        export_bands(rich_cube(), tmp_path / "all.tif")
    assert caught.value.text() == (
        "START = 2024-02-01T00:00:00-05:00: The raster would have 30 bands, more than the 10 that a GeoTIFF "
        "has. Set START and END to a shorter period."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cube_is_described_without_reading_it(tmp_path):
    make_cube(5).write(tmp_path / "cube.nc")
    found = cubefile.describe(tmp_path / "cube.nc")
    assert pyproj.CRS.from_wkt(found["crs"]) == UTM
    assert (found["step"], found["time_zone"]) == ("day", TORONTO)
    with pytest.raises(InputError, match="The file does not exist"):
        cubefile.describe(tmp_path / "other.nc")
