# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input ends with exit status 1 and a message with parameter, value and fix, and leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import SOUTH, WEST, point, polygon, write_features

CRS84 = "urn:ogc:def:crs:OGC:1.3:CRS84"


@pytest.fixture
def refused(call, chain, tmp_path):
    """Run an algorithm that has to fail and return what it says."""

    def run(algorithm: str, *, environment: dict[str, str] | None = None, **values: Any) -> str:
        out = tmp_path / "out"
        out.mkdir()
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        inputs = {key: values[key] for key in values}
        for key, value in inputs.items():
            if key in ("OUTPUT", "CELLS") and "/" not in value:
                inputs[key] = str(out / value)
        answer = call.json(
            f"gridcast:{algorithm}", inputs, **{"TMPDIR": str(temporary)} | (environment or {})
        )
        assert answer.status == 1, answer.text
        assert answer.results == {}
        assert list(out.iterdir()) == []
        assert [path for path in temporary.rglob("*") if path.name.startswith("gridcast-")] == []
        return " ".join(answer.text.split())

    return run


def cut(source: str, target: Path) -> str:
    """Copy the first half of a file."""
    data = Path(source).read_bytes()
    target.write_bytes(data[: len(data) // 2])
    return str(target)


# -- layers --------------------------------------------------------------------------------------


def rasterized(chain, **values: Any) -> dict[str, Any]:
    """Return good values for a cube, with some replaced."""
    return {
        "INPUT": chain.events,
        "GRID": chain["grid.tif"],
        "TIME_FIELD": "when",
        "OUTPUT": "cube.nc",
    } | values


def test_an_empty_layer(refused, chain):
    events = f"{chain.events}|subset=\"kind\" = 'Arson'"
    said = refused("rasterizeeventstocube", **rasterized(chain, INPUT=events))
    assert "INPUT: The layer has no events. Check its filter, its selection and" in said


def test_no_date_can_be_read(refused, chain):
    said = refused("rasterizeeventstocube", **rasterized(chain, TIME_FIELD="kind"))
    assert "TIME_FIELD = 'Robbery': " in said or "TIME_FIELD = 'Assault': " in said
    assert "Not one date of the field can be read. Choose the field that holds the date" in said


def test_all_events_outside_the_grid(refused, chain, tmp_path):
    events = [point(WEST + 900000, SOUTH, "2024-01-05 12:00")]
    far = write_features(tmp_path / "far.geojson", events)
    said = refused("rasterizeeventstocube", **rasterized(chain, INPUT=far))
    assert "INPUT" in said and "grid" in said


def test_metric_cells_in_degrees(refused, tmp_path):
    layer = write_features(
        tmp_path / "degrees.geojson", [point(-79.4, 43.7, ""), point(-79.3, 43.8, "")], CRS84
    )
    said = refused("buildgridfromlayer", INPUT=layer, OUTPUT="grid.tif")
    assert "TARGET_CRS" in said and "EPSG:32617" in said


def test_a_layer_without_crs(refused, tmp_path):
    from osgeo import ogr

    source = ogr.GetDriverByName("ESRI Shapefile").CreateDataSource(str(tmp_path / "nowhere.shp"))
    layer = source.CreateLayer("nowhere", None, ogr.wkbPoint)
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (1 2)"))
    layer.CreateFeature(feature)
    layer = source = None
    said = refused("buildgridfromlayer", INPUT=str(tmp_path / "nowhere.shp"), OUTPUT="grid.tif")
    assert (
        "INPUT = nowhere: The layer has no coordinate reference system. Assign the right one: Layer > Set"
        in said
    )


def test_a_polygon_without_area(refused, chain, tmp_path):
    flat = polygon((WEST, SOUTH), (WEST + 1000, SOUTH), (WEST + 2000, SOUTH))
    area = write_features(tmp_path / "flat.geojson", [flat])
    said = refused("buildgridfromlayer", INPUT=chain.events, STUDY_AREA=area, OUTPUT="grid.tif")
    assert "STUDY_AREA" in said and "area" in said


def test_too_many_cells(refused, chain):
    said = refused(
        "buildgridfromlayer", INPUT=chain.events, CELL_SIZE=0.1, OUTPUT="grid.tif", CELLS="cells.gpkg"
    )
    assert "CELL_SIZE = 0.1" in said and "cells" in said and ("GB" in said or "MB" in said)


# -- files of Gridcast ---------------------------------------------------------------------------


def test_a_cube_of_another_version(refused, chain, tmp_path):
    data = Path(chain["cube.nc"]).read_bytes()
    assert data.count(b"cube/2") == 1
    other = tmp_path / "other.nc"
    other.write_bytes(data.replace(b"cube/2", b"cube/9"))
    said = refused("trainconvlstm", CUBE=str(other), OUTPUT="m.gridcast")
    assert (
        f"CUBE = {other}: The cube file has version 9, this Gridcast reads version 2. Make it again" in said
    )


def test_a_cut_off_cube(refused, chain, tmp_path):
    cube = cut(chain["cube.nc"], tmp_path / "cut.nc")
    said = refused("trainconvlstm", CUBE=cube, OUTPUT="m.gridcast")
    assert f"CUBE = {cube}: The cube is damaged or no netCDF file" in said


def test_a_cut_off_model(refused, chain, tmp_path):
    model = cut(chain["model.gridcast"], tmp_path / "cut.gridcast")
    said = refused("forecastheatmap", CUBE=chain["cube.nc"], MODEL=model, OUTPUT="f.tif")
    assert f"MODEL = {model}: " in said and "Train ConvLSTM" in said


def test_a_cut_off_grid(refused, chain, tmp_path):
    grid = cut(chain["grid.tif"], tmp_path / "cut.tif")
    said = refused("rasterizeeventstocube", **rasterized(chain, GRID=grid))
    assert f"GRID = {grid}: " in said


def test_a_raster_that_is_no_grid(refused, chain):
    said = refused("rasterizeeventstocube", **rasterized(chain, GRID=chain["forecast.tif"]))
    assert f"GRID = {chain['forecast.tif']}: " in said and "Build Grid from Layer" in said


def test_a_raster_that_is_no_forecast(refused, chain):
    said = refused("hotspotclassify", INPUT=chain["grid.tif"], OUTPUT="h.gpkg")
    assert f"{chain['grid.tif']}: " in said and "Forecast Heatmap" in said


@pytest.mark.parametrize("difference", ["grid", "step"])
def test_a_model_of_another_cube(call, refused, chain, tmp_path, difference):
    grid, cube = chain["grid.tif"], str(tmp_path / "other.nc")
    step = "12h" if difference == "step" else "day"
    if difference == "grid":
        grid = str(tmp_path / "other.tif")
        assert (
            call.json(
                "gridcast:buildgridfromlayer", {"INPUT": chain.city, "CELL_SIZE": 800, "OUTPUT": grid}
            ).status
            == 0
        )
    values = {"INPUT": chain.events, "GRID": grid, "TIME_FIELD": "when", "STEP": step, "OUTPUT": cube}
    assert call.json("gridcast:rasterizeeventstocube", values | {"TIME_ZONE": "America/Toronto"}).status == 0
    said = refused("forecastheatmap", CUBE=cube, MODEL=chain["model.gridcast"], OUTPUT="f.tif")
    assert f"MODEL = {chain['model.gridcast']}: " in said and difference in said


def test_a_lookback_longer_than_the_cube(refused, chain):
    said = refused("trainconvlstm", CUBE=chain["cube.nc"], LOOKBACK=100, OUTPUT="m.gridcast")
    assert "LOOKBACK = 100: " in said


# -- the world around ----------------------------------------------------------------------------


def test_no_environment(refused, chain, tmp_path):
    missing = str(tmp_path / "no" / "python")
    said = refused(
        "trainconvlstm", environment={"GRIDCAST_PYTHON": missing}, CUBE=chain["cube.nc"], OUTPUT="m.gridcast"
    )
    assert f"GRIDCAST_PYTHON = {missing}: There is no Python interpreter at this place." in said
    assert "Set Up Environment" in said


def test_an_environment_without_packages(refused, chain):
    bare = shutil.which("python3", path="/usr/bin") or "/usr/bin/python3"
    said = refused(
        "trainconvlstm", environment={"GRIDCAST_PYTHON": bare}, CUBE=chain["cube.nc"], OUTPUT="m.gridcast"
    )
    assert "Set Up Environment" in said and "lacks a package" in said


def test_an_output_folder_that_is_missing(refused, chain, tmp_path):
    missing = str(tmp_path / "nowhere" / "cube.nc")
    said = refused("rasterizeeventstocube", **rasterized(chain, OUTPUT=missing))
    assert f"OUTPUT = {missing}: The folder '{tmp_path / 'nowhere'}' does not exist. Create it first" in said


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write to")
def test_an_output_folder_that_is_closed(refused, chain):
    said = refused("rasterizeeventstocube", **rasterized(chain, OUTPUT="/proc/cube.nc"))
    assert "OUTPUT = /proc/cube.nc: The folder '/proc' cannot be written" in said


def test_a_cluster_that_is_not_there(refused, chain):
    address = "http://127.0.0.1:1"
    said = refused(
        "trainheteroensemble",
        CUBE=chain["cube.nc"],
        LOOKBACK=3,
        SPLIT="walk-forward",
        FOLDS=2,
        SCHEDULER=address,
        OUTPUT="m.gridcast",
    )
    assert f"SCHEDULER = {address}: The scheduler of the cluster cannot be reached (" in said
    assert "leave all three empty to compute on this computer" in said
