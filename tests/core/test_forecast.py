# SPDX-License-Identifier: GPL-2.0-or-later
"""Forecast rasters: bands, times and areas survive the file, whatever program opens it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from synthetic import WEST, make_axis, make_grid

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.forecast import Forecast
from gridcast_qgis.core.grid import Grid


def make_forecast(steps: int = 3, step: str = "day", seed: int = 0) -> Forecast:
    grid = make_grid()
    expected = np.random.default_rng(seed).gamma(1, 0.3, (steps, *grid.shape)).astype(np.float32)
    expected[:, ~grid.valid] = np.nan
    return Forecast(grid, make_axis(30 + steps, step).slice(30, 30 + steps), expected, "ConvLSTM")


def test_intervals_are_local_and_follow_one_another():
    forecast = make_forecast(10)
    intervals = forecast.intervals
    assert intervals[0] == ("2024-03-02T00:00:00-05:00", "2024-03-03T00:00:00-05:00")
    # The clocks change on 10 March.
    assert intervals[8] == ("2024-03-10T00:00:00-05:00", "2024-03-11T00:00:00-04:00")
    assert [end for _, end in intervals[:-1]] == [start for start, _ in intervals[1:]]


def test_the_ramp_leaves_the_extreme_cells_out():
    forecast = make_forecast()
    forecast.expected[0, 3, 3] = 1000
    values = forecast.expected[np.isfinite(forecast.expected)]
    assert forecast.ramp_maximum == pytest.approx(np.percentile(values, 99))
    assert forecast.ramp_maximum < 1000
    nothing = Forecast(forecast.grid, forecast.axis, forecast.expected * 0, "x")
    assert nothing.ramp_maximum > 0


@pytest.fixture
def written(tmp_path):
    forecast, path = make_forecast(), tmp_path / "förecast file.tif"
    forecast.write(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    return forecast, path


def test_the_file_is_a_geotiff_with_a_band_a_step(written):
    forecast, path = written
    with rasterio.open(path) as raster:
        assert raster.count == 3
        assert raster.dtypes == ("float32",) * 3
        assert raster.crs.to_epsg() == 32617
        assert raster.transform == forecast.grid.transform
        assert raster.descriptions[0] == "2024-03-02T00:00:00-05:00/2024-03-03T00:00:00-05:00"
        assert raster.descriptions == tuple("/".join(interval) for interval in forecast.intervals)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        bands = raster.read(masked=True)
        assert (bands.mask == ~forecast.grid.valid).all()
        assert (bands.filled(0)[:, forecast.grid.valid] == forecast.expected[:, forecast.grid.valid]).all()


def test_the_tags_say_what_it_is(written):
    forecast, path = written
    with rasterio.open(path) as raster:
        tags = raster.tags()
    assert tags["GRIDCAST_SCHEMA"] == "forecast/2"
    assert json.loads(tags["GRIDCAST_INTERVALS"]) == [
        ["2024-03-02T05:00:00Z", "2024-03-03T05:00:00Z"],
        ["2024-03-03T05:00:00Z", "2024-03-04T05:00:00Z"],
        ["2024-03-04T05:00:00Z", "2024-03-05T05:00:00Z"],
    ]
    assert tags["GRIDCAST_TIME_ZONE"] == "America/Toronto"
    assert tags["GRIDCAST_STEP"] == "day"
    assert tags["GRIDCAST_MODEL"] == "ConvLSTM"
    assert tags["GRIDCAST_ORIGIN"] == "2024-03-02T05:00:00Z"
    assert tags["GRIDCAST_GRID"] == forecast.grid.fingerprint
    assert float(tags["GRIDCAST_RAMP_MAX"]) == forecast.ramp_maximum


@pytest.mark.parametrize("step", ["15min", "day", "month"])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_a_written_forecast_is_read_back_equal(tmp_path, step, rotation):
    forecast = make_forecast(2, step)
    turned = Affine.rotation(rotation, pivot=(WEST, 4_839_000.0)) @ forecast.grid.transform
    grid = Grid(forecast.grid.crs, turned if rotation else forecast.grid.transform, forecast.grid.inside)
    Forecast(grid, forecast.axis, forecast.expected, forecast.model).write(tmp_path / "forecast.tif")
    again = Forecast.read(tmp_path / "forecast.tif")
    assert np.array_equal(again.expected, forecast.expected, equal_nan=True)
    assert again.grid.fingerprint == grid.fingerprint
    # Shares of the cells inside, which bands alone could not tell.
    assert (again.grid.inside == grid.inside).all()
    assert (again.axis.edges == forecast.axis.edges).all()
    assert (again.axis.step, again.axis.time_zone) == (step, "America/Toronto")
    assert again.model == "ConvLSTM"
    assert again.intervals == forecast.intervals


def test_a_missing_forecast_is_named(tmp_path):
    path = tmp_path / "none.tif"
    with pytest.raises(InputError) as caught:
        Forecast.read(path)
    assert caught.value.text() == (
        f"INPUT = {path}: The file does not exist. Choose a raster that 'Forecast Heatmap' has made."
    )


def test_a_grid_is_no_forecast(tmp_path):
    path = tmp_path / "grid.tif"
    make_grid().write(path)
    with pytest.raises(InputError) as caught:
        Forecast.read(path)
    assert caught.value.text() == (
        f"INPUT = {path}: The file is not a Gridcast forecast file. Choose a file that 'Forecast Heatmap' "
        "has made."
    )


CHANGES = {
    "GRIDCAST_INTERVALS": [
        "",
        "[]",
        "{}",
        "[[1, 2]]",
        '[["2024-03-02T05:00:00Z", "2024-03-03T05:00:00Z"]]',
        "soon",
    ],
    "GRIDCAST_STEP": [None],
    "GRIDCAST_TIME_ZONE": [None],
    "GRIDCAST_INSIDE": [None, "", "!!", "eJw="],
}


@pytest.mark.parametrize(
    ("tag", "value"), [(tag, value) for tag, values in CHANGES.items() for value in values]
)
def test_a_forecast_that_lost_its_tags_is_refused(written, tag, value):
    _, path = written
    with rasterio.open(path) as raster:
        tags, profile, bands = raster.tags(), raster.profile, raster.read()
    tags[tag] = value
    profile.update(driver="GTiff")
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(bands)
        raster.update_tags(**{key: text for key, text in tags.items() if text is not None})
    with pytest.raises(InputError) as caught:
        Forecast.read(path)
    text = caught.value.text()
    assert text.startswith(f"INPUT = {path}: The forecast has lost its description (")
    assert text.endswith(
        "Make it again with 'Forecast Heatmap'; a copy saved by another program may lack the tags."
    )


def test_another_version_is_refused(written):
    _, path = written
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.update_tags(GRIDCAST_SCHEMA="forecast/3")
    with pytest.raises(InputError) as caught:
        Forecast.read(path)
    assert caught.value.text() == (
        f"INPUT = {path}: The forecast file has version 3, this Gridcast reads version 2. Make it again with "
        "'Forecast Heatmap', or install the Gridcast that made it."
    )


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_forecast_is_refused(written, part):
    _, path = written
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(
        InputError, match=r"^INPUT = .*(damaged or not a raster|not a Gridcast forecast|lost its)"
    ):
        Forecast.read(path)
