# SPDX-License-Identifier: GPL-2.0-or-later
"""Results in the project: styles, legends, times, and what is left of them after reopening."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import INTERVALS, make_layer, make_polygons, make_raster
from qgis.core import (
    Qgis,
    QgsDateTimeRange,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDateTime, Qt

from gridcast_qgis import compat
from gridcast_qgis.layers import results, styling, temporal

band_times = pytest.mark.skipif(not compat.HAS_BAND_TIMES, reason="QGIS has a time for each band since 3.38")


def utc(text: str) -> QDateTime:
    return QDateTime.fromString(text, Qt.DateFormat.ISODate).toUTC()


RANGES = [QgsDateTimeRange(utc(start), utc(end), True, False) for start, end in INTERVALS]


@pytest.fixture
def forecast(worker, run, cube_file, model_file, tmp_path):
    """Forecast three steps, load them and return the layers of the project."""

    def call(name: str = "a forecast.tif", **answers) -> list[QgsRasterLayer]:
        worker.answers["forecast"] = answers
        run(
            "forecastheatmap",
            {"CUBE": cube_file, "MODEL": model_file, "HORIZON": 3, "OUTPUT": str(tmp_path / name)},
            load=True,
        )
        return list(QgsProject.instance().mapLayers().values())

    return call


@pytest.fixture
def hot_spots(worker, run, forecast_file, tmp_path):
    """Classify hot spots, load them and return the layer."""

    def call(output: str = "spots.gpkg") -> QgsVectorLayer:
        where = output if output == "TEMPORARY_OUTPUT" else str(tmp_path / output)
        run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": where}, load=True)
        (layer,) = QgsProject.instance().mapLayers().values()
        return layer

    return call


@pytest.fixture
def user_styles(plugin):
    """The styles that a user has set for outputs."""
    from processing.gui.RenderingStyles import RenderingStyles

    before = dict(RenderingStyles.styles)
    yield RenderingStyles.styles
    RenderingStyles.styles.clear()
    RenderingStyles.styles.update(before)


def ramp(layer: QgsRasterLayer) -> list[tuple[float, str, int]]:
    items = layer.renderer().shader().rasterShaderFunction().colorRampItemList()
    return [(round(item.value, 6), item.label, item.color.alpha()) for item in items]


# -- the style of a forecast ---------------------------------------------------------------------

RAMP = [
    (0.0, "none", 0),
    (0.02, "very few (0.02)", 110),
    (0.1, "few (0.1)", 190),
    (0.2, "some (0.2)", 215),
    (0.3, "many (0.3)", 235),
    (0.4, "most (0.4 or more events per cell and day)", 245),
]


def test_a_forecast_is_coloured_by_its_own_values(forecast):
    layer = forecast()[0]
    assert layer.renderer().type() == "singlebandpseudocolor"
    assert ramp(layer) == RAMP
    legend = [label for label, _ in layer.renderer().legendSymbologyItems()]
    assert legend == [label for _, label, _ in RAMP]


@pytest.mark.parametrize(
    ("maximum", "last"),
    [
        (0.0, "most (1 or more x)"),
        (0.000123, "most (0.00012 or more x)"),
        (7.0, "most (7 or more x)"),
        (12345.0, "most (12,000 or more x)"),
    ],
)
def test_a_legend_has_short_numbers(forecast, maximum, last):
    assert ramp(forecast(ramp_maximum=maximum, unit_text="x")[0])[-1][1] == last


def test_the_style_of_a_forecast_survives_reopening(forecast, tmp_path):
    forecast()
    assert (tmp_path / "a forecast.qml").is_file()
    assert ramp(QgsRasterLayer(str(tmp_path / "a forecast.tif"), "again")) == RAMP


def test_a_forecast_has_its_style_without_being_loaded(worker, run, cube_file, model_file, tmp_path):
    run("forecastheatmap", {"CUBE": cube_file, "MODEL": model_file, "OUTPUT": str(tmp_path / "f.tif")})
    assert ramp(QgsRasterLayer(str(tmp_path / "f.tif"), "later")) == RAMP


def test_a_style_of_the_users_own_wins(forecast, user_styles, tmp_path):
    own = QgsRasterLayer(make_raster(tmp_path / "own.tif", [[1.0] * 5] * 4), "own")
    own.setOpacity(0.3)
    own.saveNamedStyle(str(tmp_path / "own.qml"))
    user_styles["gridcast:forecastheatmap"] = {"OUTPUT": str(tmp_path / "own.qml")}
    layer = forecast()[0]
    assert layer.opacity() == pytest.approx(0.3)
    assert layer.renderer().type() != "singlebandpseudocolor"


def test_a_missing_style_is_a_warning(worker, run, cube_file, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(styling, "save_beside", lambda *_: "the disk is full")
    done = run("forecastheatmap", {"CUBE": cube_file, "MODEL": model_file, "OUTPUT": str(tmp_path / "f.tif")})
    assert done.feedback.warnings == ["The style could not be saved next to the raster: the disk is full"]


def test_a_layer_that_cannot_be_finished_is_a_warning(
    worker, run, cube_file, model_file, tmp_path, monkeypatch
):
    def fail(*_):
        raise ValueError("no ISO time: soon")

    monkeypatch.setattr(results, "offer_period", fail)
    done = run(
        "forecastheatmap",
        {"CUBE": cube_file, "MODEL": model_file, "OUTPUT": str(tmp_path / "f.tif")},
        load=True,
    )
    assert done.feedback.warnings == ["The layer 'Forecast' could not be styled: no ISO time: soon"]


# -- time ----------------------------------------------------------------------------------------


@band_times
def test_each_band_has_its_time(forecast):
    (layer,) = forecast()
    properties = layer.temporalProperties()
    assert properties.isActive()
    assert properties.mode() == Qgis.RasterTemporalMode.FixedRangePerBand
    assert properties.fixedRangePerBand() == dict(enumerate(RANGES, start=1))


@band_times
def test_the_times_survive_in_the_project(forecast, tmp_path):
    forecast()
    assert QgsProject.instance().write(str(tmp_path / "p.qgz"))
    again = QgsProject()
    assert again.read(str(tmp_path / "p.qgz"))
    (layer,) = again.mapLayers().values()
    assert layer.temporalProperties().isActive()
    assert layer.temporalProperties().fixedRangePerBand() == dict(enumerate(RANGES, start=1))
    assert ramp(layer) == RAMP
    period = again.timeSettings().temporalRange()
    assert (period.begin(), period.end()) == (RANGES[0].begin(), RANGES[-1].end())


@pytest.mark.parametrize("can", [True, False])
def test_without_times_of_bands_each_step_is_a_layer(forecast, monkeypatch, can):
    if can and not compat.HAS_BAND_TIMES:
        pytest.skip("QGIS has a time for each band since 3.38")
    monkeypatch.setattr(compat, "HAS_BAND_TIMES", can)
    layers = forecast()
    assert len(layers) == (1 if can else 3)
    if can:
        return
    by_band = {layer.renderer().usesBands()[0]: layer for layer in layers}
    assert sorted(by_band) == [1, 2, 3]
    for band, layer in by_band.items():
        properties = layer.temporalProperties()
        assert properties.isActive()
        assert properties.mode() == Qgis.RasterTemporalMode.FixedTemporalRange
        assert properties.fixedTemporalRange() == RANGES[band - 1]
        assert layer.name() == f"Forecast (2024-03-{6 + band:02} 05:00 UTC)"
        assert ramp(layer) == RAMP


def test_the_project_gets_the_period_of_the_forecast(forecast):
    settings = QgsProject.instance().timeSettings()
    assert settings.temporalRange().isInfinite()
    forecast()
    assert settings.temporalRange() == QgsDateTimeRange(RANGES[0].begin(), RANGES[-1].end(), True, False)
    assert settings.timeStep() == 1


def test_a_period_of_the_users_own_stays(forecast):
    settings = QgsProject.instance().timeSettings()
    own = QgsDateTimeRange(utc("2020-01-01T00:00:00Z"), utc("2021-01-01T00:00:00Z"))
    settings.setTemporalRange(own)
    forecast()
    assert settings.temporalRange() == own


@pytest.mark.parametrize(
    ("end", "count"),
    [("2024-03-07T00:15:00-05:00", 15), ("2024-03-07T06:00:00-05:00", 360), ("2024-03-14T00:00:00-05:00", 7)],
)
def test_steps_of_the_controller(project, end, count):
    temporal.offer_period(project, temporal.time_ranges([["2024-03-07T00:00:00-05:00", end]]))
    assert project.timeSettings().timeStep() == count


def test_the_controller_is_made_ready(project, monkeypatch):
    from qgis.core import QgsTemporalNavigationObject

    controller = QgsTemporalNavigationObject()
    monkeypatch.setattr(temporal, "_controller", lambda: controller)
    temporal.offer_period(project, RANGES)
    assert controller.temporalExtents() == QgsDateTimeRange(RANGES[0].begin(), RANGES[-1].end(), True, False)
    assert controller.frameDuration().days() == 1
    assert controller.totalFrameCount() >= 3


@pytest.mark.parametrize(
    ("quantity", "name"),
    [("probability", "Probability of an event"), ("hot", "Probability of a hot cell")],
)
def test_probabilities_are_named_and_labelled_as_such(forecast, quantity, name):
    layers = forecast(quantity=quantity, unit_text="chance per cell and day")
    assert {layer.name().split(" (")[0] for layer in layers} == {name}
    assert [label for _, label, _ in ramp(layers[0])] == [
        "none",
        "very low (0.02)",
        "low (0.1)",
        "medium (0.2)",
        "high (0.3)",
        "highest (0.4 or more; chance per cell and day)",
    ]


# -- maps of classes -----------------------------------------------------------------------------


def painted(layer: QgsRasterLayer) -> tuple[int, list[tuple[float, str]]]:
    """Return the band that is shown, and its classes."""
    assert layer.renderer().type() == "paletted"
    return layer.renderer().usesBands()[0], [(each.value, each.label) for each in layer.renderer().classes()]


@pytest.mark.parametrize(
    ("key", "name", "labels", "horizon"),
    [
        ("TYPES_OUTPUT", "Most likely type", ("single shot", "several shots"), 1),
        ("TYPES_OUTPUT", "Most likely type", ("single shot", "several shots"), 3),
        ("PARTS_OUTPUT", "Why here?", ("long-run level", "calendar"), 3),
    ],
)
def test_the_most_likely_type_and_the_main_reason_are_shown(
    worker, run, project, cube_file, model_file, tmp_path, key, name, labels, horizon
):
    files = {"CUBE": cube_file, "MODEL": model_file, key: str(tmp_path / "types.tif")}
    run("forecastheatmap", files | {"HORIZON": horizon, "OUTPUT": str(tmp_path / "f.tif")}, load=True)
    (layer,) = project.mapLayersByName(name)
    classes = list(enumerate(labels, start=1))
    assert painted(layer) == (3, classes)
    assert layer.temporalProperties().isActive()
    if compat.HAS_BAND_TIMES:
        bands = layer.temporalProperties().fixedRangePerBand()
        assert bands == {3 * (step + 1): RANGES[step] for step in range(horizon)}
    assert painted(QgsRasterLayer(str(tmp_path / "types.tif"), "again")) == (3, classes)


@pytest.mark.parametrize("horizon", [1, 3])
def test_how_sure_a_forecast_is(worker, run, project, cube_file, model_file, tmp_path, horizon):
    files = {"CUBE": cube_file, "MODEL": model_file, "UNCERTAINTY_OUTPUT": str(tmp_path / "u.tif")}
    run("forecastheatmap", files | {"HORIZON": horizon, "OUTPUT": str(tmp_path / "f.tif")}, load=True)
    (layer,) = project.mapLayersByName("How sure?")
    assert layer.renderer().usesBands() == [1]
    assert layer.renderer().classificationMax() == pytest.approx(0.25)
    if compat.HAS_BAND_TIMES:
        bands = layer.temporalProperties().fixedRangePerBand()
        assert bands == {3 * step + 1: RANGES[step] for step in range(horizon)}


def classified(run, project, tmp_path, **parameters) -> QgsRasterLayer:
    files = {"OUTPUT": str(tmp_path / "spots.gpkg"), "CLASSES": str(tmp_path / "classes.tif")}
    run("hotspotclassify", parameters | files, load=True)
    (layer,) = project.mapLayersByName("Hot and cold cells")
    return layer


def test_hot_and_cold_cells(worker, run, project, forecast_file, tmp_path):
    layer = classified(run, project, tmp_path, INPUT=forecast_file)
    assert painted(layer) == (1, [(0, "cold"), (1, "hot")])
    period = layer.temporalProperties().fixedTemporalRange()
    assert (period.begin(), period.end()) == (RANGES[0].begin(), RANGES[-1].end())


def test_hot_cells_are_compared_with_what_happened(worker, run, project, model_file, cube_file, tmp_path):
    layer = classified(run, project, tmp_path, MODEL=model_file, CUBE=cube_file)
    band, classes = painted(layer)
    assert band == 3
    assert [label.split(":")[0] for _, label in classes] == ["rightly cold", "hit", "false alarm", "missed"]
    assert [value for value, _ in classes] == [0, 1, 2, 3]
    assert painted(QgsRasterLayer(str(tmp_path / "classes.tif"), "again")) == (band, classes)
    period = layer.temporalProperties().fixedTemporalRange()
    assert (period.begin(), period.end()) == (RANGES[0].begin(), RANGES[0].end())


def test_the_probability_of_hot_cells_is_coloured_by_its_own_values(
    worker, run, project, forecast_file, tmp_path
):
    files = {"OUTPUT": str(tmp_path / "spots.gpkg"), "PROBABILITY": str(tmp_path / "hot.tif")}
    run("hotspotclassify", {"INPUT": forecast_file} | files, load=True)
    (layer,) = project.mapLayersByName("Probability of a hot cell")
    assert ramp(layer)[-1][:2] == (0.06, "highest (0.06 or more; probability of a hot cell)")
    assert ramp(QgsRasterLayer(str(tmp_path / "hot.tif"), "again")) == ramp(layer)


def test_a_map_without_any_probability_still_has_a_ramp(tmp_path):
    layer = QgsRasterLayer(make_raster(tmp_path / "nothing.tif", [[-9999.0] * 5] * 4), "nothing")
    styling.style_hot_probability(layer)
    assert ramp(layer)[-1][0] == 1.0


# -- hot spots -----------------------------------------------------------------------------------


def check_hot_spot_style(layer: QgsVectorLayer) -> None:
    renderer = layer.renderer()
    assert renderer.type() == "graduatedSymbol"
    assert renderer.classAttribute() == "rank"
    assert [item.label() for item in renderer.ranges()] == [
        "Rank 1",
        "Rank 2 and 3",
        "Rank 4 to 10",
        "Rank 11 and below",
    ]
    assert layer.labelsEnabled() and layer.labeling().settings().fieldName == "rank"
    assert layer.labeling().settings().format().buffer().enabled()


@pytest.mark.parametrize("output", ["spots.gpkg", "spots.shp", "spots.geojson", "TEMPORARY_OUTPUT"])
def test_hot_spots_are_ranked_and_labelled(hot_spots, output):
    layer = hot_spots(output)
    check_hot_spot_style(layer)
    # Not after reopening: QGIS forgets the time of a layer when it opens it from its file.
    properties = layer.temporalProperties()
    assert properties.isActive()
    assert properties.mode() == Qgis.VectorTemporalMode.FixedTemporalRange
    period = properties.fixedTemporalRange()
    assert (period.begin(), period.end()) == (RANGES[0].begin(), RANGES[-1].end())
    assert sorted(feature["rank"] for feature in layer.getFeatures()) == [1, 2, 5]


@pytest.mark.parametrize("output", ["spots.gpkg", "spots.shp"])
def test_the_style_of_hot_spots_survives_reopening(hot_spots, tmp_path, output):
    hot_spots(output)
    check_hot_spot_style(QgsVectorLayer(str(tmp_path / output), "again", "ogr"))


def test_the_style_is_inside_the_geopackage(hot_spots, tmp_path):
    hot_spots("spots.gpkg")
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "spots.gpkg").rename(tmp_path / "moved" / "spots.gpkg")
    assert not list(tmp_path.glob("**/*.qml"))
    check_hot_spot_style(QgsVectorLayer(str(moved), "again", "ogr"))


def test_hot_spots_of_some_steps_have_the_time_of_these(worker, run, project, forecast_file):
    steps = {"FIRST_STEP": 2, "LAST_STEP": 2}
    run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": "TEMPORARY_OUTPUT"} | steps, load=True)
    (layer,) = project.mapLayers().values()
    period = layer.temporalProperties().fixedTemporalRange()
    assert (period.begin(), period.end()) == (RANGES[1].begin(), RANGES[1].end())


def test_no_hot_spot_at_all(worker, run, forecast_file, tmp_path, monkeypatch):
    make = type(worker)._classify_hotspots

    def empty(self, request):
        answer = make(self, request)
        Path(request["output"]).unlink()
        make_polygons(request["output"], {"rank": "integer", "start": "string", "end": "string"}, [])
        return answer | {"hot_spots": 0}

    monkeypatch.setattr(type(worker), "_classify_hotspots", empty)
    done = run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": str(tmp_path / "none.gpkg")}, load=True)
    assert done.feedback.warnings == []
    assert QgsVectorLayer(str(tmp_path / "none.gpkg"), "", "ogr").featureCount() == 0


def test_map_tips_speak_plainly(hot_spots):
    assert "events expected" in hot_spots().mapTipTemplate()


# -- grids ---------------------------------------------------------------------------------------


def test_a_grid_shows_what_is_inside(project, worker, run, tmp_path):
    corners = [("Point (625100 4843100)", None, "a"), ("Point (627000 4844500)", None, "a")]
    layer = make_layer(project, corners, crs="EPSG:26917")
    run("buildgridfromlayer", {"INPUT": layer, "OUTPUT": str(tmp_path / "grid.tif")}, load=True)
    (grid,) = project.mapLayersByName("Grid")
    labels = [label for _, label, _ in ramp(grid)]
    assert labels == ["cell outside the study area", "cell half inside", "cell wholly inside the study area"]
    assert [label for _, label, _ in ramp(QgsRasterLayer(str(tmp_path / "grid.tif"), "again"))] == labels


# -- the templates -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forecast", "probability", "grid", "hotspots", "cube_mesh"])
def test_templates_are_well_formed(name):
    import xml.etree.ElementTree as ElementTree

    from gridcast_qgis.paths import resource

    path = resource("styles", f"{name}.qml")
    assert ElementTree.parse(path).getroot().tag == "qgis"
    assert "SPDX-License-Identifier" in path.read_text(encoding="utf-8")
