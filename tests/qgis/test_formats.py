# SPDX-License-Identifier: GPL-2.0-or-later
"""One set of events in many formats, systems and parts of layers: one cube (with the real worker)."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from conftest import NORTH, UTM, WEST, make_layer
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsProcessingFeatureSourceDefinition,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

pytestmark = pytest.mark.worker

CHECKOUT = Path(__file__).resolve().parents[2]
COUNT = 120
FORMATS = {
    "events.gpkg": "GPKG",
    "events.fgb": "FlatGeobuf",
    "events.shp": "ESRI Shapefile",
    "events.geojson": "GeoJSON",
}


@pytest.fixture
def events(project) -> QgsVectorLayer:
    """Events over nine days with the time as text, in degrees."""
    dice = random.Random(3)
    to_degrees = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem(UTM),
        QgsCoordinateReferenceSystem("EPSG:4326"),
        QgsCoordinateTransformContext(),
    )
    rows = []
    for number in range(COUNT):
        place = to_degrees.transform(WEST + dice.uniform(20, 1900), NORTH - dice.uniform(20, 1400))
        when = f"2024-03-{dice.randint(1, 9):02} {dice.randint(0, 23):02}:{dice.randint(0, 59):02}:00"
        rows.append((f"Point ({place.x():.9f} {place.y():.9f})", when, "ab"[number % 2]))
    rows.append((None, "2024-03-05 12:00:00", "a"))
    rows.append(("Point (2.35 48.86)", "2024-03-05 12:00:00", "a"))
    return make_layer(project, rows, time_type="string")


@pytest.fixture
def save(events, tmp_path):
    """Write the events as another format, perhaps in another system, and open them."""

    def call(name: str, driver: str, crs: str = "EPSG:4326", layer_options=()) -> QgsVectorLayer:
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName = driver
        options.fileEncoding = "UTF-8"
        options.layerOptions = list(layer_options)
        context = QgsCoordinateTransformContext()
        options.ct = QgsCoordinateTransform(events.crs(), QgsCoordinateReferenceSystem(crs), context)
        path = str(tmp_path / name)
        code, message = QgsVectorFileWriter.writeAsVectorFormatV3(events, path, context, options)[:2]
        assert code == QgsVectorFileWriter.WriterError.NoError, message
        layer = QgsVectorLayer(path, name, "ogr")
        assert layer.isValid()
        return layer

    return call


@pytest.fixture
def cubes(monkeypatch, worker_python, run, project, tmp_path):
    """Make cubes of several sources; return for each its fingerprint and what it says of lost rows."""
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    extent = f"{WEST},{WEST + 2000},{NORTH - 1500},{NORTH} [{UTM}]"
    grid = str(tmp_path / "real grid.tif")
    layer = make_layer(project, [("Point (-79.4 43.7)", None, "x")], name="anywhere")
    run(
        "buildgridfromlayer",
        {"INPUT": layer, "TARGET_CRS": UTM, "EXTENT": extent, "CELL_SIZE": 500, "OUTPUT": grid},
    )

    def call(**sources) -> dict[str, tuple[str, dict]]:
        paths = {}
        for name, source in sources.items():
            paths[name] = str(tmp_path / f"{name}.nc")
            values = {"INPUT": source, "GRID": grid, "TIME_FIELD": "occurred", "TYPE_FIELD": "kind"}
            run(
                "rasterizeeventstocube",
                values | {"TIME_ZONE": "America/Toronto", "LOAD": False, "OUTPUT": paths[name]},
            )
        return _look(worker_python, paths)

    return call


def _look(python: Path, paths: dict[str, str]) -> dict[str, tuple[str, dict]]:
    code = (
        "import json, sys\nfrom gridcast_qgis.core.cube import Cube\n"
        "cubes = {k: Cube.read(v) for k, v in json.loads(sys.argv[1]).items()}\n"
        "print(json.dumps({k: (c.fingerprint, c.attributes['dropped']) for k, c in cubes.items()}))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ", "GDAL"))}
    done = subprocess.run(
        [str(python), "-c", code, json.dumps(paths)],
        env=environment | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_format_and_the_system_of_the_layer_do_not_matter(events, save, cubes, tmp_path):
    sources = {"memory": events}
    sources |= {driver.replace(" ", ""): save(name, driver) for name, driver in FORMATS.items()}
    save("events.csv", "CSV", layer_options=["GEOMETRY=AS_WKT"])
    uri = f"{(tmp_path / 'events.csv').as_uri()}?type=csv&wktField=WKT&crs=EPSG:4326&detectTypes=no"
    sources["wkt"] = QgsVectorLayer(uri, "wkt", "delimitedtext")
    assert sources["wkt"].isValid()
    # State Plane, in feet.
    sources["feet"] = save("feet.gpkg", "GPKG", crs="EPSG:2262")
    made = cubes(**sources)
    for name, (fingerprint, dropped) in made.items():
        assert fingerprint == made["memory"][0], name
        # FlatGeobuf before GDAL 3.6.4 writes no rows without geometry, and delimited text reads none.
        if name not in ("FlatGeobuf", "wkt"):
            assert dropped == made["memory"][1], name
    assert made["memory"][1]["null_geometry"] == 1 and made["memory"][1]["outside_grid"] == 1


def test_a_part_of_the_layer_is_the_same_part_however_it_is_chosen(events, save, cubes, project):
    file = save("events.gpkg", "GPKG")
    filtered = save("filtered.gpkg", "GPKG")
    filtered.setSubsetString("kind = 'a'")
    selected = save("selected.shp", "ESRI Shapefile")
    project.addMapLayer(selected)
    selected.selectByExpression("kind = 'a'")
    only_a = make_layer(
        project,
        [(f.geometry().asWkt(9) or None, f["occurred"], "a") for f in events.getFeatures("kind = 'a'")],
        time_type="string",
    )
    sources = {
        "memory": only_a,
        "filtered": filtered,
        "selected": QgsProcessingFeatureSourceDefinition(selected.id(), True),
    }
    if Qgis.QGIS_VERSION_INT >= 33200:
        definition = QgsProcessingFeatureSourceDefinition(file.source())
        definition.filterExpression = "kind = 'a'"
        sources["expression"] = definition
    made = cubes(**sources, whole=file)
    assert len({fingerprint for name, (fingerprint, _) in made.items() if name != "whole"}) == 1
    assert made["whole"][0] != made["memory"][0]


def test_edits_that_are_not_saved_count(save, cubes):
    saved, edited = save("saved.gpkg", "GPKG"), save("edited.gpkg", "GPKG")
    for layer in (saved, edited):
        assert layer.startEditing()
        layer.deleteFeatures([f.id() for f in layer.getFeatures("kind = 'b'")])
    assert saved.commitChanges()
    made = cubes(saved=saved, edited=edited)
    assert made["edited"] == made["saved"]


def test_a_joined_field_is_read_through_qgis(save, cubes, project):
    from qgis.core import QgsVectorLayerJoinInfo

    layer, other = save("events.gpkg", "GPKG"), save("other.gpkg", "GPKG")
    project.addMapLayers([layer, other])
    join = QgsVectorLayerJoinInfo()
    join.setJoinLayer(other)
    join.setJoinFieldName("id")
    join.setTargetFieldName("id")
    join.setPrefix("j_")
    assert layer.addJoin(join)
    from gridcast_qgis.layers.sources import plain_file

    assert plain_file(layer, ["occurred"]) is not None
    assert plain_file(layer, ["j_occurred"]) is None
    assert plain_file(layer, ["fid"]) is None
