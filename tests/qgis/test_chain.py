# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole chain inside QGIS with the real worker, on events whose pattern is known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import UTM, make_layer
from qgis.core import (
    QgsDateTimeRange,
    QgsFeature,
    QgsGeometry,
    QgsMeshDatasetIndex,
    QgsMeshLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDateTime, Qt

pytestmark = pytest.mark.worker

CITY = "Polygon ((0 0, 4000 0, 4000 3000, 2000 4000, 0 3000, 0 0))"
#: Where most events happen: the cell with this centre.
BUSY = (632250.0, 4841250.0)
DAYS = 40


@pytest.fixture
def events(project) -> QgsVectorLayer:
    """Three events a day in one place, two elsewhere; three that cannot be used for one reason each."""
    dice = random.Random(1)
    layer = make_layer(project, [], crs=UTM)
    features = []

    def add(place: tuple[float, float] | None, when: str | None, kind: str) -> None:
        feature = QgsFeature(layer.fields())
        feature["occurred"] = QDateTime.fromString(when, Qt.DateFormat.ISODate) if when else None
        feature["kind"] = kind
        if place:
            feature.setGeometry(QgsGeometry.fromWkt(f"Point ({place[0]} {place[1]})"))
        features.append(feature)

    for day in range(DAYS):
        date = QDateTime.fromString("2024-01-01T00:00:00", Qt.DateFormat.ISODate).addDays(day)
        for number in range(5):
            when = date.addSecs(3600 * (4 * number + 1)).toString(Qt.DateFormat.ISODate)
            spread = (dice.uniform(630010, 633990), dice.uniform(4840010, 4842990))
            add(BUSY if number < 3 else spread, when, "Robbery" if number % 2 else "Assault")
    add(None, "2024-01-02T12:00:00", "Assault")
    add(BUSY, None, "Assault")
    add((700000.0, 4841250.0), "2024-01-02T12:00:00", "Assault")
    assert layer.dataProvider().addFeatures(features)[0]
    layer.updateExtents()
    return layer


@pytest.fixture
def real(monkeypatch, worker_python, run):
    """Run with the real worker."""
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder whose name is as awkward as users' folders are."""
    path = tmp_path / "Ergebnisse für Zoë"
    path.mkdir()
    return path


@pytest.fixture
def cube(project, real, events, folder):
    """Make grid and cube, loaded into the project."""
    outline = QgsGeometry.fromWkt(CITY)
    outline.translate(630000, 4840000)
    area = make_layer(project, [(outline.asWkt(), None, "city")], geometry="Polygon", crs=UTM, name="city")
    grid = real(
        "buildgridfromlayer",
        {
            "INPUT": events,
            "STUDY_AREA": area,
            "OUTPUT": str(folder / "grid.tif"),
            "CELLS": str(folder / "cells.gpkg"),
        },
        load=True,
    )
    made = real(
        "rasterizeeventstocube",
        {
            "INPUT": events,
            "GRID": str(folder / "grid.tif"),
            "TIME_FIELD": "occurred",
            "TYPE_FIELD": "kind",
            "TIME_ZONE": "America/Toronto",
            "OUTPUT": str(folder / "cube.nc"),
        },
        load=True,
    )
    return grid.outputs, made.outputs


def test_a_cube_with_severity_shows_the_events_first(cube, events, real, project, folder):
    table = folder / "severity.csv"
    table.write_text("kind,score\nRobbery,5\nAssault,2\n")
    real(
        "rasterizeeventstocube",
        {
            "INPUT": events,
            "GRID": str(folder / "grid.tif"),
            "TIME_FIELD": "occurred",
            "TYPE_FIELD": "kind",
            "TIME_ZONE": "America/Toronto",
            "SEVERITY": "table",
            "SEVERITY_TABLE": str(table),
            "OUTPUT": str(folder / "severe.nc"),
        },
        load=True,
    )
    (layer,) = (each for each in project.mapLayers().values() if "severe.nc" in each.source())
    assert isinstance(layer, QgsMeshLayer)
    names = {
        layer.datasetGroupMetadata(QgsMeshDatasetIndex(group, 0)).name(): group
        for group in layer.datasetGroupsIndexes()
    }
    assert "mean severity of the events, 0 without events" in names
    assert layer.rendererSettings().activeScalarDatasetGroup() == names["events of all types"]


def test_grid_and_cube(cube, project, folder):
    grid, made = cube
    assert (grid["ROW_COUNT"], grid["COLUMN_COUNT"], grid["CELLS_INSIDE"]) == (8, 8, 60)
    assert QgsVectorLayer(str(folder / "cells.gpkg"), "", "ogr").featureCount() == 60
    assert made["EVENTS_READ"] == 5 * DAYS + 3
    assert made["EVENTS_USED"] == 5 * DAYS
    assert (made["DROPPED_NULL_GEOMETRY"], made["DROPPED_NULL_TIME"], made["DROPPED_OUTSIDE_GRID"]) == (
        1,
        1,
        1,
    )
    assert (made["STEPS"], made["TYPE_COUNT"]) == (DAYS, 2)


def test_the_cube_is_an_animated_layer(cube, project):
    (layer,) = (layer for layer in project.mapLayers().values() if isinstance(layer, QgsMeshLayer))
    assert layer.isValid()
    assert layer.name() == "Events per cell and step"
    properties = layer.temporalProperties()
    assert properties.isActive()
    start = QDateTime.fromString("2024-01-01T05:00:00Z", Qt.DateFormat.ISODate)
    assert properties.timeExtent().begin() == start
    assert properties.timeExtent().end() == start.addDays(DAYS - 1)
    third = QgsDateTimeRange(start.addDays(2), start.addDays(3), True, False)
    assert layer.activeScalarDatasetAtTime(third).dataset() == 2  # -1: nothing is drawn
    settings = layer.rendererSettings()
    active = settings.activeScalarDatasetGroup()
    metadata = layer.datasetGroupMetadata(QgsMeshDatasetIndex(active, 0))
    assert metadata.name() == "events of all types"
    items = settings.scalarSettings(active).colorRampShader().colorRampItemList()
    assert items[0].label == "no event" and items[0].color.alpha() == 0
    assert items[-1].value == metadata.maximum() >= 3
    assert items[-1].label == f"{metadata.maximum():g} events in a cell"


@pytest.mark.slow
def test_from_points_to_hot_spots(cube, project, real, folder):
    model = real(
        "trainconvlstm",
        {
            "CUBE": str(folder / "cube.nc"),
            "EPOCHS": 2,
            "SIZE": "fast",
            "OUTPUT": str(folder / "model.gridcast"),
        },
    )
    assert model.outputs["TRAIN_STEPS"] + model.outputs["VALIDATION_STEPS"] < DAYS
    assert model.outputs["PAI"] > 1
    assert any("skill" in text or "better" in text for text in model.feedback.infos)

    forecast = real(
        "forecastheatmap",
        {
            "CUBE": str(folder / "cube.nc"),
            "MODEL": str(folder / "model.gridcast"),
            "HORIZON": 2,
            "OUTPUT": str(folder / "forecast.tif"),
        },
        load=True,
    )
    assert forecast.outputs["FIRST_STEP"].startswith("2024-02-10T00:00:00-05:00/")
    assert forecast.feedback.warnings == []
    (layer,) = project.mapLayersByName("Forecast") or project.mapLayersByName(
        "Forecast (2024-02-10 05:00 UTC)"
    )
    assert isinstance(layer, QgsRasterLayer) and layer.bandCount() == 2
    items = layer.renderer().shader().rasterShaderFunction().colorRampItemList()
    assert items[-1].label.endswith(" or more events per cell and day)")

    spots = real(
        "hotspotclassify",
        {"INPUT": str(folder / "forecast.tif"), "AREA_SHARE": 2, "OUTPUT": str(folder / "spots.gpkg")},
        load=True,
    )
    assert spots.feedback.warnings == []
    best = next(QgsVectorLayer(str(folder / "spots.gpkg"), "", "ogr").getFeatures())
    assert best["rank"] == 1
    assert best.geometry().contains(QgsGeometry.fromWkt(f"Point ({BUSY[0]} {BUSY[1]})"))
    (loaded,) = project.mapLayersByName("Hot spots")
    assert loaded.temporalProperties().isActive()

    assert project.write(str(folder / "project.qgz"))
    again = QgsProject()
    assert again.read(str(folder / "project.qgz"))
    assert len(again.mapLayers()) == len(project.mapLayers())
    for saved in again.mapLayers().values():
        assert saved.isValid() or saved.providerType() == "memory"


TWO_WINDOWS = {"SUBGRID_ROWS": 2, "SUBGRID_COLUMNS": 1, "WINDOW_COLUMNS": 1, "WINDOW_ROWS": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short_id", "settings", "quantity"),
    [
        ("trainconvlstm", {"ARCHITECTURE": "convlstm", "FILTERS": 2}, ""),
        ("trainconvlstm", {"ARCHITECTURE": "shotspotter", "WIDTH": 0.1, "TYPE_HEAD": True}, "an event"),
        (
            "trainheteroensemble",
            {"ARCHITECTURE": "hetero", "FILTERS": 2} | TWO_WINDOWS,
            "",
        ),
        ("trainheteroensemble", {"SIZE": "fast"} | TWO_WINDOWS, ""),
        ("trainhotspotclassifier", {"UNITS": 4, "DENSE": 4}, "a hot cell"),
        ("trainhotspotclassifier", {"ARCHITECTURE": "cell_lstm", "UNITS": 4, "DENSE": 4}, "a hot cell"),
        ("trainhotspotclassifier", {"ARCHITECTURE": "cnn3d", "FILTERS": 1}, "a hot cell"),
        ("trainhotspotclassifier", {"ARCHITECTURE": "cnn_rnn", "FILTERS": 1}, "a hot cell"),
    ],
    ids=[
        "convlstm",
        "shotspotter",
        "hetero",
        "hetero_gridcast",
        "spatiolstm",
        "cell_lstm",
        "cnn3d",
        "cnn_rnn",
    ],
)
def test_each_model_forecasts_and_classifies(cube, project, real, folder, short_id, settings, quantity):
    files = {"CUBE": str(folder / "cube.nc"), "MODEL": str(folder / "model.gridcast")}
    checkpoint = folder / "state"
    labels = {"LABEL_VALUE": 3} if quantity == "a hot cell" else {}
    trained = real(
        short_id,
        settings
        | labels
        | {"CUBE": files["CUBE"], "EPOCHS": 1, "CHECKPOINT": str(checkpoint), "OUTPUT": files["MODEL"]},
    )
    assert trained.outputs["EPOCHS_RUN"] == 1 and not checkpoint.exists()
    assert 0 < trained.outputs["AUC"] <= 1 and 0 < trained.outputs["AUC_BASELINE"] <= 1
    assert not [text for text in trained.feedback.warnings if "ignored" in text]

    types = {"TYPES_OUTPUT": str(folder / "types.tif")} if "TYPE_HEAD" in settings else {}
    forecast = real("forecastheatmap", files | types | {"OUTPUT": str(folder / "forecast.tif")}, load=True)
    assert forecast.feedback.warnings == []
    assert forecast.outputs["MAXIMUM"] > 0
    assert project.mapLayersByName(f"Probability of {quantity}" if quantity else "Forecast")
    if types:
        (layer,) = project.mapLayersByName("Most likely type")
        assert layer.bandCount() == 3
        assert [each.label for each in layer.renderer().classes()] == ["Assault", "Robbery"]

    spots = real(
        "hotspotclassify",
        files
        | {
            "ORIGIN": "2024-02-08T00:00:00",
            "RULE": "cells",
            "TOP_CELLS": 4,
            "OUTPUT": str(folder / "spots.gpkg"),
            "PROBABILITY": str(folder / "probability.tif"),
            "CLASSES": str(folder / "classes.tif"),
        },
        load=True,
    )
    assert spots.feedback.warnings == []
    assert 0 <= spots.outputs["F1"] <= 1 and 0 < spots.outputs["ACCURACY"] <= 1
    assert spots.outputs["EVENTS_OBSERVED"] == 5
    (layer,) = project.mapLayersByName("Hot and cold cells")
    assert layer.bandCount() == 3 and layer.renderer().usesBands() == [3]
    assert project.mapLayersByName("Probability of a hot cell")


@pytest.mark.slow
def test_a_model_is_continued_with_newer_steps(cube, real, folder):
    """The old settings hold, also the lookback, and the steps of the first training are left aside."""
    small = {"CUBE": str(folder / "cube.nc"), "EPOCHS": 1}
    first = real(
        "trainconvlstm",
        small
        | {
            "UNTIL": "2024-01-25T00:00:00",
            "LOOKBACK": 2,
            "SIZE": "fast",
            "OUTPUT": str(folder / "1.gridcast"),
        },
    )
    second = real(
        "trainconvlstm",
        small | {"CONTINUE_FROM": str(folder / "1.gridcast"), "OUTPUT": str(folder / "2.gridcast")},
    )
    assert second.outputs["PARAMETERS"] == first.outputs["PARAMETERS"]
    assert first.outputs["TRAIN_STEPS"] + second.outputs["TRAIN_STEPS"] < DAYS
    # A month of one epoch need not be better than simple methods; nothing else is wrong.
    known = ("Training did not improve", "On the validation steps")
    assert all(text.startswith(known) for text in second.feedback.warnings)


def test_what_the_worker_refuses_reaches_the_user(project, real, events, folder):
    from qgis.core import QgsProcessingException

    with pytest.raises(QgsProcessingException) as caught:
        real(
            "buildgridfromlayer",
            {"INPUT": events, "CELL_SIZE": 0.5, "OUTPUT": str(folder / "grid.tif")},
        )
    assert "CELL_SIZE" in str(caught.value)
    assert list(folder.iterdir()) == []
