# SPDX-License-Identifier: GPL-2.0-or-later
"""Score Forecast: what reaches the worker, what is refused, and the same score in every coordinate system."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import CELL, NORTH, UTM, WEST, Notes, make_layer
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProject,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QDate, QDateTime, QTime

#: Flagged cells by row and column, with their rank, risk (as text) and whether an NIJ entry flags them.
CELLS = [(0, 0, 2, "0.5", 1), (1, 3, 1, "0.9", 1), (2, 2, 3, "0.1", 0)]
#: Places of events, in cells: two in the first flagged cell, one in the second, two elsewhere.
PLACES = [(0.5, 0.5), (0.2, 0.7), (3.5, 1.5), (4.5, 0.5), (1.5, 3.5)]
PERIOD = {"START": "2024-03-07T00:00:00", "END": "2024-03-10T00:00:00"}
# Rows of the table for one budget, which are outputs too.
_MEASURES = ("HITS", "EVENTS", "HIT_RATE", "AREA_KM2", "AREA_SHARE", "PAI", "BEST_HITS", "PEI", "RRI")
# What the worker gets besides the events.
USUAL = {
    "cube": None,
    "types": None,
    "time_zone": "UTC",
    "start": None,
    "end": None,
    "budgets": [],
    "budget_unit": "percent",
    "cell_size": None,
    "each_step": True,
    "preset": "none",
    "points_output": None,
}


def moved(geometry: QgsGeometry, crs: str) -> QgsGeometry:
    systems = (QgsCoordinateReferenceSystem(name) for name in (UTM, crs))
    geometry.transform(QgsCoordinateTransform(*systems, QgsProject.instance().transformContext()))
    return geometry


def square(row: float, column: float, height: float = 1, width: float = 1) -> QgsGeometry:
    x, y = WEST + column * CELL, NORTH - row * CELL
    right, bottom = x + width * CELL, y - height * CELL
    return QgsGeometry.fromWkt(f"Polygon (({x} {y}, {right} {y}, {right} {bottom}, {x} {bottom}, {x} {y}))")


def flagged_layer(project: QgsProject, crs: str = UTM, *, hotspot: bool = False) -> QgsVectorLayer:
    entry = "&field=HotSpot:integer" if hotspot else ""
    definition = f"Polygon?crs={crs}&field=rank:integer&field=risk:string&field=note:date{entry}"
    layer = QgsVectorLayer(definition, "flagged", "memory")
    for row, column, rank, risk, hot in CELLS:
        feature = QgsFeature(layer.fields())
        feature.setAttributes([rank, risk, None, *([hot] if hotspot else [])])
        feature.setGeometry(moved(square(row, column), crs))
        assert layer.dataProvider().addFeature(feature)
    layer.updateExtents()
    project.addMapLayer(layer)
    return layer


def event_layer(project: QgsProject, crs: str = UTM) -> QgsVectorLayer:
    when = QDateTime(QDate(2024, 3, 8), QTime(12, 0))
    places = [
        moved(QgsGeometry.fromWkt(f"Point ({WEST + x * CELL} {NORTH - y * CELL})"), crs) for x, y in PLACES
    ]
    rows = [(place.asWkt(12), when, "theft") for place in places]
    rows += [(rows[0][0], QDateTime(QDate(2024, 3, 6), QTime(12, 0)), "theft")]
    rows += [(rows[0][0], QDateTime(QDate(2024, 3, 11), QTime(12, 0)), "arson")]
    return make_layer(project, rows, crs=crs)


def city_layer(project: QgsProject, crs: str = UTM) -> QgsVectorLayer:
    outline = moved(square(0, 0, 4, 5), crs)
    return make_layer(project, [(outline.asWkt(12), None, "city")], geometry="Polygon", crs=crs, name="city")


@pytest.fixture
def polygons(project) -> dict:
    return {
        "FLAGGED": flagged_layer(project),
        "INPUT": event_layer(project),
        "TIME_FIELD": "occurred",
        "STUDY_AREA": city_layer(project),
        **PERIOD,
    }


# -- the request ---------------------------------------------------------------------------------


def test_a_forecast_and_a_cube(worker, run, forecast_file, cube_file, tmp_path, no_leftovers):
    output = str(tmp_path / "measures.gpkg")
    done = run("scoreforecast", {"FORECAST": forecast_file, "CUBE": cube_file, "OUTPUT": output})
    ((job, request),) = worker.calls
    assert job == "score_forecast"
    assert Path(request.pop("output")).name == "measures.gpkg"
    assert request == USUAL | {"forecast": forecast_file, "cube": cube_file}
    assert done.outputs == {
        "OUTPUT": output,
        "HITS": 12,
        "EVENTS": 40,
        "HIT_RATE": 30,
        "AREA_KM2": 1.5,
        "AREA_SHARE": 5,
        "PAI": 6,
        "BEST_HITS": 24,
        "PEI": 0.5,
        "RRI": None,
        "VIOLATIONS": 1,
    }
    table = QgsVectorLayer(output, "", "ogr")
    assert table.wkbType() == QgsWkbTypes.Type.NoGeometry
    rows = [[feature[name] for name in ("measure", "value")] for feature in table.getFeatures()]
    assert rows == [["pai", 4.5], ["mse", 0.25]]
    assert table.fields().names()[-4:] == ["measure", "budget", "value", "meaning"]


def test_no_table_is_made_that_nobody_wants(worker, run, forecast_file, cube_file):
    done = run("scoreforecast", {"FORECAST": forecast_file, "CUBE": cube_file})
    assert "OUTPUT" not in done.outputs and done.outputs["PAI"] == 6


def test_everything_reaches_the_worker(worker, run, polygons, tmp_path):
    seen = {}

    def look(_job, request, _folder):
        for key in ("flagged", "study_area"):
            layer = QgsVectorLayer(request[key], "", "ogr")
            seen[key] = (layer.crs().authid(), layer.fields().names(), layer.featureCount())

    worker.on_job = look
    run(
        "scoreforecast",
        polygons
        | {
            "TYPE_FIELD": "kind",
            "TYPES": ' theft, "a, b"',
            "TIME_ZONE": "America/Toronto",
            "ORDER_FIELD": "RISK",
            "ORDER": "highest-first",
            "EXPECTED_FIELD": "rank",
            "BUDGETS": "0.5; 1, 2.25",
            "BUDGET_UNIT": "square-mile",
            "CELL_SIZE": 76.2,
            "PRESET": "nij-2017",
            "EACH_STEP": False,
            "TIMES_ARE_LOCAL": True,
            "DAY_FIRST": True,
            "OUTPUT": str(tmp_path / "measures.csv"),
        },
    )
    request = worker.request
    assert seen["flagged"] == (UTM, ["fid", "value_1", "value_2"], 3)
    assert seen["study_area"][::2] == (UTM, 1)
    assert UTM.split(":")[1] in request.pop("crs")
    for key in ("events", "flagged", "study_area", "output"):
        assert Path(request.pop(key)).parent == worker.folders[-1]
    for key in ("layer", "operation", "dropped_before"):
        request.pop(key)
    assert request == USUAL | {
        "fields": {"time": "time", "type": "type"},
        "times_are_local": True,
        "day_first": True,
        "order_field": "value_1",
        "expected_field": "value_2",
        "highest_first": True,
        "types": ["theft", "a, b"],
        "time_zone": "America/Toronto",
        "start": PERIOD["START"],
        "end": PERIOD["END"],
        "budgets": [0.5, 1.0, 2.25],
        "budget_unit": "square-mile",
        "cell_size": 76.2,
        "each_step": False,
        "preset": "nij-2017",
    }
    assert (tmp_path / "measures.csv").read_text().startswith("measure,budget,value,meaning")


def test_entries_to_the_challenge_say_what_is_hot(worker, run, polygons, project):
    entry = flagged_layer(project, hotspot=True)
    run("scoreforecast", polygons | {"FLAGGED": entry, "PRESET": "nij-2017", "STUDY_AREA": None})
    assert worker.request["hotspot_field"] == "value_1"
    assert "study_area" not in worker.request
    # Without the preset it is a field like any other.
    run("scoreforecast", polygons | {"FLAGGED": entry})
    assert "hotspot_field" not in worker.request


@pytest.mark.parametrize(
    ("crs", "expected"), [("EPSG:4326", "32617"), ("EPSG:3857", "3857"), ("EPSG:2952", "2952")]
)
def test_polygons_stay_in_their_system_unless_it_counts_in_degrees(
    worker, run, polygons, project, crs, expected
):
    systems = {}

    def look(_job, request, _folder):
        for key in ("flagged", "study_area", "events"):
            systems[key] = QgsVectorLayer(request[key], "", "ogr").crs().authid()

    worker.on_job = look
    run("scoreforecast", polygons | {"FLAGGED": flagged_layer(project, crs)})
    assert set(systems.values()) == {f"EPSG:{expected}"}
    assert expected in worker.request["crs"]


def test_with_a_cube_polygons_are_brought_to_its_grid(worker, run, polygons, project, cube_file):
    seen = []

    def look(job, request, _folder):
        if job == "score_forecast":
            extent = QgsVectorLayer(request["flagged"], "", "ogr").extent()
            seen.append((extent.xMinimum(), extent.yMaximum(), extent.width(), extent.height()))

    worker.on_job = look
    given = {"FLAGGED": flagged_layer(project, "EPSG:4326"), "CUBE": cube_file, **PERIOD}
    run("scoreforecast", given)
    assert [job for job, _ in worker.calls] == ["describe_cube", "score_forecast"]
    assert seen == [pytest.approx((WEST, NORTH, 4 * CELL, 3 * CELL), abs=0.01)]
    assert "events" not in worker.request


def test_only_selected_polygons_are_flagged(worker, run, polygons):
    counts = []
    worker.on_job = lambda _job, request, _folder: counts.append(
        QgsVectorLayer(request["flagged"], "", "ogr").featureCount()
    )
    layer = polygons["FLAGGED"]
    layer.selectByIds([2])
    run("scoreforecast", polygons | {"FLAGGED": QgsProcessingFeatureSourceDefinition(layer.id(), True)})
    assert counts == [1]


def test_points_are_styled_by_hit(worker, run, polygons, project, tmp_path):
    path = str(tmp_path / "points.gpkg")
    run("scoreforecast", polygons | {"POINTS": path}, load=True)
    assert Path(worker.request["points_output"]).parent == worker.folders[-1]
    (layer,) = project.mapLayersByName("Events, hit or missed")
    assert layer.featureCount() == 3
    renderer = layer.renderer()
    assert renderer.type() == "categorizedSymbol" and renderer.classAttribute() == "hit"
    assert [category.value() for category in renderer.categories()] == [1, 0]
    # The style is found again with the file.
    again = QgsVectorLayer(path, "", "ogr")
    assert again.renderer().type() == "categorizedSymbol"


def test_hot_spots_of_one_step_of_a_model_are_scored_by_the_next(
    worker, run, project, forecast_file, polygons
):
    import processing

    source = QgsProcessingModelChildParameterSource
    model = QgsProcessingModelAlgorithm("own", "own", "own")
    spots = QgsProcessingModelChildAlgorithm("gridcast:hotspotclassify")
    spots.setChildId("spots")
    spots.addParameterSources("INPUT", [source.fromStaticValue(forecast_file)])
    model.addChildAlgorithm(spots)
    score = QgsProcessingModelChildAlgorithm("gridcast:scoreforecast")
    score.setChildId("score")
    score.addParameterSources("FLAGGED", [source.fromChildOutput("spots", "OUTPUT")])
    score.addParameterSources("EXPECTED_FIELD", [source.fromStaticValue("expected")])
    for key in ("INPUT", "STUDY_AREA"):
        score.addParameterSources(key, [source.fromStaticValue(polygons[key].id())])
    for key in ("TIME_FIELD", "START", "END"):
        score.addParameterSources(key, [source.fromStaticValue(polygons[key])])
    model.addChildAlgorithm(score)
    processing.run(model, {})
    assert [job for job, _ in worker.calls] == ["classify_hotspots", "score_forecast"]
    assert worker.request["expected_field"] == "value_1"


# -- what is refused -----------------------------------------------------------------------------


@pytest.fixture
def refused(worker, run, polygons, forecast_file, cube_file, tmp_path, no_leftovers):
    """Run with one thing wrong and return the message; the worker is not asked and nothing is left."""
    bases = {
        "polygons": polygons,
        "map": {"FORECAST": forecast_file, "CUBE": cube_file},
        "cells": {"FLAGGED": polygons["FLAGGED"], "CUBE": cube_file, **PERIOD},
    }
    before = {path.name for path in tmp_path.iterdir()}

    def call(base: str, **parameters) -> str:
        values = bases[base] | {"OUTPUT": str(tmp_path / "measures.gpkg")} | parameters
        feedback = Notes()
        with pytest.raises(QgsProcessingException) as caught:
            run("scoreforecast", values, feedback=feedback)
        assert "score_forecast" not in [job for job, _ in worker.calls]
        assert {path.name for path in tmp_path.iterdir() if not path.name.endswith(".aux.xml")} == before
        return str(caught.value)

    return call


NEITHER = "A forecast or flagged areas are scored, and here is neither. Choose FORECAST or FLAGGED."


@pytest.mark.parametrize(
    ("base", "parameters", "complaint"),
    [
        ("map", {"FORECAST": None}, f"FORECAST = not set: {NEITHER}"),
        (
            "map",
            {"CUBE": None},
            "INPUT = not set: Events come from a layer or from a cube, and here is neither. Choose INPUT or",
        ),
        ("map", {"CUBE": "/none.nc"}, "CUBE = /none.nc: The file does not exist."),
        ("map", {"FORECAST": "/none.tif"}, "FORECAST = /none.tif: The raster cannot be opened"),
        (
            "polygons",
            {"START": None},
            "START = not set: The period that the areas were flagged for is needed.",
        ),
        (
            "polygons",
            {"END": None},
            "END = not set: The period that the areas were flagged for is needed. Set",
        ),
        (
            "polygons",
            {"END": "2024-03-07T00:00:00"},
            "END = 2024-03-07T00:00:00: The period ends before it begins. Set END after START "
            "(2024-03-07T00:00:00).",
        ),
        ("polygons", {"START": "tomorrow"}, "START = tomorrow: This is no date and time."),
        (
            "polygons",
            {"STUDY_AREA": None},
            "STUDY_AREA = not set: A study area is needed: measures compare the flagged area with it. Choose",
        ),
        (
            "polygons",
            {"BUDGETS": "1"},
            "ORDER_FIELD = not set: With budgets, polygons are searched in an order.",
        ),
        (
            "polygons",
            {"BUDGETS": "some", "ORDER_FIELD": "rank"},
            "BUDGETS = some: These are not numbers. Write them with a point for decimals and commas between "
            "them: 0.5, 1, 5.",
        ),
        (
            "polygons",
            {"ORDER_FIELD": "note"},
            "ORDER_FIELD = note: The field does not hold numbers. Choose a field with numbers; there are: "
            "rank, risk, note.",
        ),
        (
            "polygons",
            {"EXPECTED_FIELD": "mean"},
            "EXPECTED_FIELD = mean: The layer 'flagged' has no such field.",
        ),
        ("polygons", {"ORDER": "upwards"}, "ORDER = upwards: This is not one of the choices."),
        ("polygons", {"CELL_SIZE": 0}, "CELL_SIZE = 0: A cell needs a size. Set a size above 0, or leave it"),
        (
            "polygons",
            {"PRESET": "nij"},
            "PRESET = nij: This is not one of the choices. Choose one of: none, nij",
        ),
        ("map", {"ORDER_FIELD": "rank"}, "ORDER_FIELD = rank: It is used with FLAGGED only. Leave it empty."),
        ("map", {"CELL_SIZE": 250}, "CELL_SIZE = 250: A forecast has cells of its own. Leave it empty."),
        ("cells", {"CELL_SIZE": 250}, "CELL_SIZE = 250: A cube has cells of its own. Leave it empty."),
        ("map", {"POINTS": "{tmp}/p.gpkg"}, "p.gpkg: A cube holds counts and no points. Leave it empty."),
        (
            "polygons",
            {"POINTS": "{tmp}/measures.gpkg"},
            "measures.gpkg: This is the same file as OUTPUT.",
        ),
        ("polygons", {"POINTS": "/none/p.gpkg"}, "POINTS = /none/p.gpkg: "),
        ("polygons", {"TIME_FIELD": "when"}, "TIME_FIELD = when: The layer 'events' has no such field."),
    ],
)
def test_values_that_are_refused(refused, tmp_path, base, parameters, complaint):
    parameters = {
        key: value.replace("{tmp}", str(tmp_path)) if isinstance(value, str) else value
        for key, value in parameters.items()
    }
    assert complaint in refused(base, **parameters)


def test_both_sources_at_once_are_refused(refused, polygons, forecast_file, cube_file):
    assert "A forecast or flagged areas are scored, and here are both." in refused(
        "polygons", FORECAST=forecast_file
    )
    assert "INPUT = events: Events come from a layer or from a cube, and here are both." in refused(
        "polygons", CUBE=cube_file
    )
    area = polygons["STUDY_AREA"]
    assert "STUDY_AREA = city: A forecast has a study area of its own." in refused("map", STUDY_AREA=area)
    assert "STUDY_AREA = city: A cube has a study area of its own." in refused("cells", STUDY_AREA=area)


def test_layers_that_are_refused(refused, project, tmp_path):
    nowhere = make_layer(project, [], geometry="Polygon", crs="", name="nowhere")
    for key in ("FLAGGED", "STUDY_AREA"):
        message = refused("polygons", **{key: nowhere})
        assert f"{key} = nowhere: The layer has no coordinate reference system. Assign the right" in message
    empty = make_layer(project, [], geometry="Polygon", crs=UTM, name="empty")
    assert "STUDY_AREA = empty: The layer has no polygon that can be used." in refused(
        "polygons", STUDY_AREA=empty
    )
    degrees = make_layer(project, [], geometry="Polygon", name="empty")
    assert "FLAGGED = empty: The layer has no features with a place." in refused("polygons", FLAGGED=degrees)
    lost = str(tmp_path.parent / "bare.tif")
    gdal.GetDriverByName("GTiff").Create(lost, 2, 2).FlushCache()
    message = refused("map", FORECAST=lost)
    assert f"FORECAST = {lost}: The forecast has lost its coordinate reference system. Make it" in message
    events = make_layer(project, [], name="quiet")
    assert "INPUT: The layer has no events. Check its filter" in refused("polygons", INPUT=events)


# -- with the real worker ------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch, worker_python, run):
    """Run with the real worker."""
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    return run


SYSTEMS = [
    (UTM, "EPSG:4326", "EPSG:3347"),
    ("EPSG:4326", UTM, "EPSG:4269"),
    ("EPSG:3857", "EPSG:4326", UTM),
    ("EPSG:2952", "EPSG:3857", "EPSG:4326"),
    ("EPSG:2019", UTM, "EPSG:3857"),
]


@pytest.mark.worker
@pytest.mark.parametrize(("flagged", "events", "area"), SYSTEMS)
def test_the_score_is_the_same_in_every_system(real, project, tmp_path, flagged, events, area):
    done = real(
        "scoreforecast",
        {
            "FLAGGED": flagged_layer(project, flagged),
            "INPUT": event_layer(project, events),
            "TIME_FIELD": "occurred",
            "TYPE_FIELD": "kind",
            "STUDY_AREA": city_layer(project, area),
            "OUTPUT": str(tmp_path / "measures.csv"),
            "POINTS": "TEMPORARY_OUTPUT",
            **PERIOD,
        },
    )
    found = done.outputs
    assert (found["HITS"], found["EVENTS"]) == (3, 5)
    assert found["AREA_SHARE"] == pytest.approx(100 * 3 / 20, rel=5e-3)
    assert found["AREA_KM2"] == pytest.approx(0.75, rel=5e-3)
    assert found["PAI"] == pytest.approx((3 / 5) / (3 / 20), rel=5e-3)
    # Three cells of the lattice of the flagged ones could have held four of the events.
    assert (found["BEST_HITS"], found["PEI"]) == (4, 3 / 4)
    assert sorted(feature["hit"] for feature in found["POINTS"].getFeatures()) == [0, 0, 1, 1, 1]
    assert {feature["type"] for feature in found["POINTS"].getFeatures()} == {"theft"}
    assert done.feedback.warnings == []
    assert "Of 5 events 3 (60.0 %) fell into the flagged" in " ".join(done.feedback.infos)
    with open(tmp_path / "measures.csv", newline="") as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    assert float(rows["pai"]["value"]) == pytest.approx(found["PAI"]) and rows["pai"]["budget"] == ""
    assert list(rows) == [key.lower() for key in _MEASURES]


@pytest.mark.worker
def test_budgets_and_ranks(real, polygons):
    given = {"BUDGETS": "5, 10", "ORDER_FIELD": "rank", "OUTPUT": "TEMPORARY_OUTPUT"}
    found = real("scoreforecast", polygons | given).outputs
    # The cell of rank 1 holds one event.
    assert (found["HITS"], found["AREA_SHARE"]) == (1, pytest.approx(5))
    rows = {(row["measure"], row["budget"]): row["value"] for row in found["OUTPUT"].getFeatures()}
    assert rows["hits", 5.0] == 1 and rows["hits", 10.0] == 3
    risk = {"ORDER_FIELD": "risk", "ORDER": "highest-first", "EXPECTED_FIELD": "risk", "BUDGETS": "10"}
    found = real("scoreforecast", polygons | risk).outputs
    assert found["HITS"] == 3 and found["RRI"] == pytest.approx((0.9 + 0.5) / 3)


@pytest.mark.worker
def test_the_rules_of_the_challenge_are_checked(real, polygons, project):
    entry = flagged_layer(project, hotspot=True)
    done = real("scoreforecast", polygons | {"FLAGGED": entry, "STUDY_AREA": None, "PRESET": "nij-2017"})
    # Two of the three cells are hot; they are too large and hold too little in all.
    assert (done.outputs["HITS"], done.outputs["EVENTS"], done.outputs["VIOLATIONS"]) == (3, 5, 2)
    assert "2 flagged cells are too large, the largest with 2,69" in done.feedback.warnings[0]
    assert "Too little is flagged, 0.193 square miles" in done.feedback.warnings[1]
    assert done.outputs["AREA_SHARE"] == pytest.approx(100 * 0.5 / 382.57, rel=1e-3)


@pytest.mark.worker
def test_what_the_worker_refuses_leaves_nothing(real, polygons, tmp_path):
    output = tmp_path / "measures.gpkg"
    with pytest.raises(QgsProcessingException) as caught:
        real("scoreforecast", polygons | {"TYPES": "murder", "OUTPUT": str(output)})
    assert "TYPES = murder: No event is of the type 'murder'." in str(caught.value)
    assert not output.exists()
