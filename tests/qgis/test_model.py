# SPDX-License-Identifier: GPL-2.0-or-later
"""The shipped model, and the algorithms as steps of a user's own models."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import UTM, Notes, make_layer
from qgis.core import (
    QgsApplication,
    QgsProcessingException,
    QgsProcessingModelAlgorithm,
    QgsProcessingParameterDefinition,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDate, QDateTime, QTime

from gridcast_qgis.paths import resource
from gridcast_qgis.provider import GridcastProvider

SQUARE = "Polygon ((625000 4843000, 627500 4843000, 627500 4845000, 625000 4845000, 625000 4843000))"
NOON = QDateTime(QDate(2024, 3, 7), QTime(12, 0))


@pytest.fixture
def inputs(project, tmp_path):
    events = make_layer(project, [("Point (-79.45 43.72)", NOON, "a")])
    city = make_layer(project, [(SQUARE, None, "city")], geometry="Polygon", crs=UTM, name="city")
    return {
        "INPUT": events,
        "TIME_FIELD": "occurred",
        "STUDY_AREA": city,
        "TARGET_CRS": UTM,
        "CELL_SIZE": 250,
        "STEP": "12h",
        "TIME_ZONE": "America/Toronto",
        "EPOCHS": 3,
        "HORIZON": 2,
        "AREA_SHARE": 4,
        "FORECAST:OUTPUT": str(tmp_path / "forecast.tif"),
        "HOTSPOTS:OUTPUT": str(tmp_path / "spots.gpkg"),
    }


def test_the_model_hands_each_value_to_its_step(worker, run, inputs, tmp_path, no_leftovers):
    done = run("forecastfrompoints", dict(inputs))
    jobs = [job for job, _ in worker.calls]
    assert jobs == ["build_grid", "rasterize_events", "train", "forecast", "classify_hotspots"]
    grid, cube, train, forecast, spots = (request for _, request in worker.calls)
    assert grid["cell_size"] == 250 and grid["study_area"] and UTM.split(":")[1] in grid["crs"]
    assert (cube["grid"], cube["step"], cube["time_zone"]) == (grid["output"], "12h", "America/Toronto")
    assert (train["cube"], train["epochs"], train["model"]) == (cube["output"], 3, "gridcast")
    assert (forecast["cube"], forecast["model"]) == (cube["output"], train["output"])
    assert forecast["horizon"] == 2 and forecast["output"] == inputs["FORECAST:OUTPUT"]
    assert (spots["forecast"], spots["area_share"]) == (forecast["output"], 4)
    assert done.outputs["FORECAST:OUTPUT"] == inputs["FORECAST:OUTPUT"]
    assert done.outputs["HOTSPOTS:OUTPUT"] == inputs["HOTSPOTS:OUTPUT"]
    assert QgsVectorLayer(inputs["HOTSPOTS:OUTPUT"], "", "ogr").featureCount() == 3


def test_its_results_are_loaded_with_styles_and_the_cube_is_not(worker, run, inputs, project):
    run("forecastfrompoints", dict(inputs), load=True)
    by_type = {}
    for layer in project.mapLayers().values():
        by_type.setdefault(type(layer).__name__, []).append(layer)
    assert "QgsMeshLayer" not in by_type
    assert all(layer.renderer().type() == "singlebandpseudocolor" for layer in by_type["QgsRasterLayer"])
    assert all(layer.temporalProperties().isActive() for layer in by_type["QgsRasterLayer"])
    (spots,) = project.mapLayersByName("Hot spots")
    assert project.mapLayersByName("Forecast") or project.mapLayersByName("Forecast (2024-03-07 05:00 UTC)")
    assert spots.renderer().type() == "graduatedSymbol"
    assert project.timeSettings().temporalRange().begin().isValid()


def test_a_style_of_the_users_own_for_the_model_wins(worker, run, inputs, project, monkeypatch):
    from processing.gui.RenderingStyles import RenderingStyles

    style = {"gridcast:forecastfrompoints": {"HOTSPOTS:OUTPUT": "own.qml"}}
    monkeypatch.setattr(RenderingStyles, "styles", style)
    run("forecastfrompoints", dict(inputs), load=True)
    (spots,) = project.mapLayersByName("Hot spots")
    assert spots.renderer().type() == "singleSymbol"  # the dialog of QGIS would have loaded own.qml
    forecasts = [layer for layer in project.mapLayers().values() if isinstance(layer, QgsRasterLayer)]
    assert {layer.renderer().type() for layer in forecasts} == {"singlebandpseudocolor"}


def failure(run, inputs) -> str:
    """Run the model, which has to fail, and return all that the user reads."""
    feedback = Notes()
    with pytest.raises(QgsProcessingException) as caught:
        run("forecastfrompoints", dict(inputs), feedback=feedback)
    return "\n".join([str(caught.value), *feedback.warnings])  # before 3.26 the reason is in the log alone


def test_a_failing_step_ends_the_model(worker, run, inputs, tmp_path):
    from gridcast_qgis.core.errors import InputError

    def fail(job, *_):
        if job == "train":
            raise InputError("The cube is short.", hint="Rasterize more.", parameter="LOOKBACK", value=7)

    worker.on_job = fail
    assert "LOOKBACK = 7: The cube is short. Rasterize more." in failure(run, inputs)
    assert not Path(inputs["FORECAST:OUTPUT"]).exists()


def test_a_step_checks_its_values_although_the_model_does_not(worker, run, inputs):
    assert "No area can be flagged. Choose a share above 0 percent." in failure(
        run, inputs | {"AREA_SHARE": 0.0}
    )


def test_the_model_can_be_opened_in_the_designer(algorithm):
    model = algorithm("forecastfrompoints")
    assert isinstance(model, QgsProcessingModelAlgorithm)
    assert Path(model.sourceFilePath()) == resource("models", "gridcast_forecast.model3")
    assert sorted(model.childAlgorithms()) == ["CUBE", "FORECAST", "GRID", "HOTSPOTS", "TRAIN"]
    assert model.validate() == (True, [])


def test_the_model_holds_the_defaults_of_its_steps(algorithm):
    """QGIS 3.22 wants a value for each parameter that cannot be empty."""
    model = algorithm("forecastfrompoints")
    optional = QgsProcessingParameterDefinition.Flag.FlagOptional
    for step in model.childAlgorithms().values():
        stored = {key: sources[0] for key, sources in step.parameterSources().items()}
        for definition in step.algorithm().parameterDefinitions():
            key = definition.name()
            if key in stored:
                static = stored[key].staticValue()
                # The cube is a step on the way, which nobody wants to see.
                expected = False if key == "LOAD" else definition.defaultValue()
                assert static in (None, expected), (step.childId(), key)
            elif not definition.isDestination():
                assert definition.flags() & optional, (step.childId(), key)


def test_the_model_file_runs_by_itself(worker, plugin, inputs, project):
    """As it does when a user adds it to the toolbox or calls `qgis_process run FILE`."""
    import processing

    model = QgsProcessingModelAlgorithm()
    assert model.fromFile(str(resource("models", "gridcast_forecast.model3")))
    processing.run(model, dict(inputs))
    assert len(worker.calls) == 5


def test_the_model_is_there_whenever_the_provider_is(plugin):
    """QGIS finds the steps of a model only among registered providers."""
    registry = QgsApplication.processingRegistry()
    plugin.unload()
    assert registry.algorithmById("gridcast:forecastfrompoints") is None
    plugin.initProcessing()
    model = registry.createAlgorithmById("gridcast:forecastfrompoints")
    assert [d.name() for d in model.destinationParameterDefinitions()] == [
        "FORECAST:OUTPUT",
        "HOTSPOTS:OUTPUT",
    ]
    alone = GridcastProvider()
    alone.refreshAlgorithms()
    assert alone.algorithm("buildgridfromlayer") is not None
    assert alone.algorithm("forecastfrompoints") is None


def test_numbers_of_one_step_can_go_into_another(
    worker, algorithm, run, project, cube_file, model_file, tmp_path
):
    """A user's own model: as many steps ahead as the training used for validation."""
    import processing
    from qgis.core import (
        QgsProcessingModelChildAlgorithm,
        QgsProcessingModelChildParameterSource,
        QgsProcessingModelOutput,
    )

    source = QgsProcessingModelChildParameterSource
    model = QgsProcessingModelAlgorithm("own", "own", "own")
    train = QgsProcessingModelChildAlgorithm("gridcast:trainconvlstm")
    train.setChildId("train")
    train.addParameterSources("CUBE", [source.fromStaticValue(cube_file)])
    model.addChildAlgorithm(train)
    forecast = QgsProcessingModelChildAlgorithm("gridcast:forecastheatmap")
    forecast.setChildId("forecast")
    forecast.addParameterSources("CUBE", [source.fromStaticValue(cube_file)])
    forecast.addParameterSources("MODEL", [source.fromChildOutput("train", "OUTPUT")])
    forecast.addParameterSources("HORIZON", [source.fromChildOutput("train", "EPOCHS_RUN")])
    output = QgsProcessingModelOutput("result")
    output.setChildId("forecast")
    output.setChildOutputName("OUTPUT")
    forecast.setModelOutputs({"result": output})
    model.addChildAlgorithm(forecast)
    (destination,) = model.destinationParameterDefinitions()
    processing.run(model, {destination.name(): str(tmp_path / "f.tif")})
    assert worker.request["horizon"] == 2
