# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every algorithm of the provider."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import CLASSIFIERS
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingModelAlgorithm,
    QgsProcessingParameterDefinition,
)
from qgis.PyQt.QtCore import QDate, QDateTime, Qt, QTime

from gridcast_qgis.algorithms import (
    backtest,
    buildgridfromlayer,
    checkevents,
    hotspotclassify,
    networks,
    scoreforecast,
    trainconvlstm,
    trainhotspotclassifier,
    training,
    tunemodel,
)
from gridcast_qgis.algorithms import parameters as p
from gridcast_qgis.provider import ALGORITHMS, MODELS

CHECKOUT = Path(__file__).resolve().parents[2]
IDS = [kind.ID for kind in ALGORITHMS + MODELS]
GROUPS = {
    "gridandcube": "Grid and cube",
    "train": "Train",
    "forecast": "Forecast",
    "evaluate": "Evaluate",
    "setup": "Set up",
}
OUTPUTS = {
    "buildgridfromlayer": "OUTPUT CELLS ROW_COUNT COLUMN_COUNT CELLS_INSIDE CELL_WIDTH CELL_HEIGHT AREA_KM2 "
    "REPAIRED",
    "rasterizeeventstocube": "OUTPUT EVENTS_READ EVENTS_USED EVENTS_DROPPED DROPPED_NULL_GEOMETRY "
    "DROPPED_NULL_TIME DROPPED_BAD_TIME DROPPED_DUPLICATE DROPPED_OUTSIDE_GRID DROPPED_OUTSIDE_AREA "
    "DROPPED_OUTSIDE_PERIOD DROPPED_REPROJECTION AMBIGUOUS_TIMES SKIPPED_TIMES STEPS TYPE_COUNT",
    "exportcube": "OUTPUT BANDS",
    "addcovariates": "OUTPUT COVARIATES MISSING_STEPS NAMES",
    "trainconvlstm": "OUTPUT VALIDATION_LOSS VALIDATION_MSE BASELINE_MSE SKILL PAI PAI_BASELINE AUC "
    "AUC_BASELINE AVERAGE_PRECISION F1 EPOCHS_RUN PARAMETERS TRAIN_STEPS VALIDATION_STEPS",
    "trainhotspotclassifier": "OUTPUT VALIDATION_LOSS AUC AUC_BASELINE AVERAGE_PRECISION F1 THRESHOLD "
    "EPOCHS_RUN PARAMETERS TRAIN_STEPS VALIDATION_STEPS",
    "tunemodel": "OUTPUT REPORT TRIALS_OUTPUT CUBE_OUTPUT BEST_SCORE DEFAULT_SCORE GAIN TRIALS PRUNED FAILED "
    "VERDICT SETTINGS",
    "forecastheatmap": "OUTPUT TYPES_OUTPUT PARTS_OUTPUT UNCERTAINTY_OUTPUT EXPECTED_EVENTS MAXIMUM "
    "FIRST_STEP LAST_STEP",
    "hotspotclassify": "OUTPUT PROBABILITY CLASSES HOT_SPOTS AREA_KM2 EXPECTED_EVENTS EXPECTED_SHARE "
    "EVENTS_OBSERVED EVENTS_HIT PAI EVENTS_HIT_BASELINE PAI_BASELINE ACCURACY PRECISION RECALL F1",
    "scoreforecast": "OUTPUT POINTS HITS EVENTS HIT_RATE AREA_KM2 AREA_SHARE PAI BEST_HITS PEI RRI "
    "VIOLATIONS",
    "backtest": "OUTPUT TABLE ORIGINS HITS GAIN P_VALUE FORECASTS EVENTS USE VERDICT BEST_SIMPLE "
    "BEST_NETWORK",
    "loadsample": "OUTPUT EVENTS BOUNDARY TIME_ZONE",
    "setupenvironment": "PYTHON",
    "forecastfrompoints": "FORECAST:OUTPUT HOTSPOTS:OUTPUT",
}
OUTPUTS["checkevents"] = " ".join(["OUTPUT", "VERDICT", *checkevents.NUMBERS])
OUTPUTS["appendevents"] = OUTPUTS["rasterizeeventstocube"] + " STEPS_NEW EVENTS_LEFT_ASIDE"
OUTPUTS["trainheteroensemble"] = OUTPUTS["trainconvlstm"]


@pytest.fixture(params=IDS)
def each(request, algorithm) -> QgsProcessingAlgorithm:
    return algorithm(request.param)


def definitions(algorithm: QgsProcessingAlgorithm) -> list[QgsProcessingParameterDefinition]:
    return list(algorithm.parameterDefinitions())


def is_advanced(definition: QgsProcessingParameterDefinition) -> bool:
    return bool(definition.flags() & QgsProcessingParameterDefinition.Flag.FlagAdvanced)


# -- the list ------------------------------------------------------------------------------------


def test_ids_never_change(plugin):
    provider = QgsApplication.processingRegistry().providerById("gridcast")
    assert sorted(found.name() for found in provider.algorithms()) == sorted(
        [
            "buildgridfromlayer",
            "rasterizeeventstocube",
            "checkevents",
            "addcovariates",
            "appendevents",
            "exportcube",
            "trainconvlstm",
            "trainheteroensemble",
            "trainhotspotclassifier",
            "tunemodel",
            "forecastheatmap",
            "hotspotclassify",
            "scoreforecast",
            "backtest",
            "loadsample",
            "setupenvironment",
            "forecastfrompoints",
        ]
    )


def test_the_provider_describes_itself(plugin):
    provider = QgsApplication.processingRegistry().providerById("gridcast")
    assert provider.name() == "Gridcast"
    assert provider.versionInfo() == __import__("gridcast_qgis").__version__
    assert Path(provider.svgIconPath()).is_file() and not provider.icon().isNull()
    assert provider.supportedOutputRasterLayerExtensions()[0] == "tif"


def constant_of_the_core(module: str, name: str) -> tuple[str, ...]:
    """Return a tuple, or the keys of a dictionary, that a module of the core defines."""
    tree = ast.parse((CHECKOUT / "core" / module).read_text(encoding="utf-8"))
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            words = node.value.keys if isinstance(node.value, ast.Dict) else node.value.elts
            return tuple(ast.literal_eval(word) for word in words)
    raise AssertionError(f"core/{module} has no {name}")


def test_words_are_those_of_the_core():
    assert (*constant_of_the_core("timesteps.py", "STEPS"), "shifts") == p.STEPS
    assert constant_of_the_core("grid.py", "CELL_UNITS") == buildgridfromlayer.CELL_UNITS
    assert constant_of_the_core("grid.py", "RULES") == buildgridfromlayer.RULES
    assert constant_of_the_core("jobs/training.py", "SPLITS") == training.SPLITS
    assert constant_of_the_core("training/channels.py", "FORMS") == networks.CHANNEL_FORMS
    assert constant_of_the_core("training/calibration.py", "FORMS") == trainconvlstm.CALIBRATIONS
    assert constant_of_the_core("labels.py", "RULES") == trainhotspotclassifier.LABEL_RULES
    assert constant_of_the_core("labels.py", "CANDIDATES") == trainhotspotclassifier.CANDIDATES
    assert constant_of_the_core("models/classifier.py", "BALANCES") == trainhotspotclassifier.BALANCES
    assert constant_of_the_core("models/classifier.py", "SPLIT_MODES") == trainhotspotclassifier.SPLIT_MODES
    assert constant_of_the_core("models/spatiolstm.py", "CELLS") == trainhotspotclassifier.CELLS
    assert constant_of_the_core("hotspots.py", "RULES") == hotspotclassify.RULES
    assert constant_of_the_core("models/registry.py", "_MODELS") == backtest.MODELS
    assert constant_of_the_core("evaluation/backtest.py", "REFITS") == backtest.REFITS
    assert ("auto", *constant_of_the_core("training/tune.py", "OBJECTIVES")) == tunemodel.OBJECTIVES
    assert constant_of_the_core("evaluation/scoring.py", "BUDGET_UNITS") == scoreforecast.BUDGET_UNITS
    assert constant_of_the_core("jobs/evaluation.py", "PRESETS") == scoreforecast.PRESETS


def test_every_model_with_settings_can_be_tuned():
    without = {"historical_average", "weekday_average", "seasonal_naive"}
    assert set(tunemodel.MODELS) == set(backtest.MODELS) - without


MODELS_OF_THE_CORE = {
    "gridcast": "GridcastSettings",
    "convlstm": "ConvLSTMSettings",
    "shotspotter": "ShotSpotterSettings",
    "hetero": "HeteroSettings",
    "hetero_gridcast": "HeteroGridcastSettings",
    "spatiolstm": "SpatioLSTMSettings",
    "cell_lstm": "CellLSTMSettings",
    "cnn3d": "FrameSettings",
    "cnn_rnn": "FrameSettings",
}


def settings_of_the_core(name: str) -> dict[str, object]:
    """Return the fields of a class of settings and of those it is made from, with their defaults."""
    classes = {
        node.name: node
        for path in (CHECKOUT / "core" / "models").glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found: dict[str, object] = {}
    for base in classes[name].bases:
        found |= settings_of_the_core(base.id)
    for node in classes[name].body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = ast.literal_eval(node.value)
    return found


@pytest.mark.parametrize("name", MODELS_OF_THE_CORE)
def test_settings_are_those_of_the_core(algorithm, name):
    (trainer,) = (
        kind
        for kind in ALGORITHMS
        if issubclass(kind, training.TrainingAlgorithm) and name in kind.ARCHITECTURES
    )
    made, usual = algorithm(trainer.ID), trainer.ARCHITECTURES[name].usual
    expected = settings_of_the_core(MODELS_OF_THE_CORE[name])
    if name in CLASSIFIERS:
        expected.pop("event_weight", None)  # BALANCE gives hot cells their weight
    found = {}
    for key in made.settings_of(name):
        default = made.parameterDefinition(key).defaultValue()
        if default in (None, training.AUTO):
            default = usual.get(key, ())
        found[key.lower()] = default
    assert found == expected


@pytest.mark.parametrize("name", MODELS_OF_THE_CORE)
def test_help_names_the_architectures_of_a_parameter(algorithm, name):
    short_id = next(kind.ID for kind in ALGORITHMS if name in getattr(kind, "ARCHITECTURES", ()))
    made = algorithm(short_id)
    if made.parameterDefinition("ARCHITECTURE") is None:
        return
    assert name in made.parameterDefinition("ARCHITECTURE").options()
    assert f"{name}: " in made.parameterDefinition("ARCHITECTURE").help()
    for definition in definitions(made):
        if "Only for" in definition.help():
            of_this = re.search(rf"\b{name}\b", definition.help().split("Only for")[1]) is not None
            assert of_this == (definition.name() in made.settings_of(name)), definition.name()


# -- each algorithm ------------------------------------------------------------------------------


def test_names_and_groups(each):
    assert re.fullmatch("[a-z0-9]+", each.name())
    assert each.id() == f"gridcast:{each.name()}"
    assert each.displayName() and each.displayName() != each.name()
    assert GROUPS[each.groupId()] == each.group()


def test_help_is_plain_text(each):
    for text in (each.shortHelpString(), each.shortDescription()):
        assert len(text) > 40
        assert not re.search(r"<\w+|&\w+;", text)
    assert each.shortHelpString().startswith(each.shortDescription())


def test_the_icon_is_there(each):
    assert Path(each.svgIconPath()).name == f"{each.name()}.svg"
    assert Path(each.svgIconPath()).is_file()
    assert not each.icon().isNull()


def test_tags_let_it_be_found(each):
    assert {"gridcast", "crime", "forecast"} <= set(each.tags())
    assert len(set(each.tags())) == len(each.tags()) >= 6


def test_parameters_are_described(each):
    for definition in definitions(each):
        assert re.fullmatch("[A-Z][A-Z0-9_]*(:OUTPUT)?", definition.name())
        assert definition.description()
        assert len(definition.help()) > 15, definition.name()
        assert not re.search(r"<\w+|&\w+;", definition.help()), definition.name()


def test_the_dialog_is_short(each):
    shown = [d for d in definitions(each) if not is_advanced(d) and not d.isDestination()]
    assert len(shown) <= 10


def test_advanced_parameters_can_be_left_alone(each):
    optional = QgsProcessingParameterDefinition.Flag.FlagOptional
    for definition in filter(is_advanced, definitions(each)):
        assert definition.defaultValue() is not None or definition.flags() & optional, definition.name()


def test_defaults_are_accepted(each):
    context = QgsProcessingContext()
    for definition in definitions(each):
        if definition.defaultValue() is not None:
            assert definition.checkValueIsAcceptable(definition.defaultValue(), context), definition.name()


def test_words_are_stored_and_not_numbers(each):
    for definition in definitions(each):
        if definition.type() == "enum":
            assert definition.usesStaticStrings(), definition.name()
            default = definition.defaultValue()
            assert set(default if definition.allowMultiple() else [default]) <= set(definition.options())


def test_outputs_are_declared(each):
    declared = {output.name() for output in each.outputDefinitions()}
    assert declared == set(OUTPUTS[each.name()].split())
    assert {d.name() for d in definitions(each) if d.isDestination()} <= declared
    assert all(output.description() for output in each.outputDefinitions())


def test_an_instance_is_like_its_original(each):
    copy = each.create()
    assert type(copy) is type(each)
    assert [d.toVariantMap() for d in definitions(copy)] == [d.toVariantMap() for d in definitions(each)]


def test_flags(each):
    flag = QgsProcessingAlgorithm.Flag
    assert each.flags() & flag.FlagCanCancel
    if not isinstance(each, QgsProcessingModelAlgorithm):  # earlier versions run no model in the background
        assert not each.flags() & flag.FlagNoThreading
    assert not each.flags() & (flag.FlagHideFromToolbox | flag.FlagDeprecated)
    assert each.flags() & flag.FlagSupportsBatch


def test_it_may_be_a_step_of_a_model(each):
    if isinstance(each, QgsProcessingModelAlgorithm):
        assert each.validate() == (True, [])
    assert not each.flags() & QgsProcessingAlgorithm.Flag.FlagHideFromModeler


# -- calls that QGIS writes down: history, "copy as Python", "copy as qgis_process command" --------

VALUES = {
    "source": "/data/layer.gpkg",
    "vectorDestination": "/out/result.gpkg",
    "raster": "/data/grid.tif",
    # QGIS leaves rasters out that it cannot open.
    "multilayer": [str(path) for path in sorted((CHECKOUT / "docs" / "images").glob("*.png"))[:2]],
    "rasterDestination": "/out/result.tif",
    "sink": "/out/result.gpkg",
    "fileDestination": "/out/result.file",
    "file": "/data/file with 'quotes' & ünïcödé.nc",
    "field": "name of a field",
    "crs": "EPSG:26917",
    "number": 3,
    "boolean": True,
    "string": 'Theft, "other"',
    "extent": "0,10,0,20 [EPSG:26917]",
    "datetime": QDateTime(QDate(2024, 1, 31), QTime(18, 30)),
}


def some_values(algorithm: QgsProcessingAlgorithm) -> dict:
    return {
        d.name(): d.options()[-1] if d.type() == "enum" else VALUES[d.type()] for d in definitions(algorithm)
    }


class Recorder:
    """Stands in for the module `processing`."""

    def run(self, algorithm_id, parameters):
        return algorithm_id, parameters


def test_the_call_in_python_brings_back_the_values(each):
    values = some_values(each)
    command = each.asPythonCommand(values, QgsProcessingContext())
    names = {"processing": Recorder(), "QDateTime": QDateTime, "QDate": QDate, "QTime": QTime}
    names["QgsCoordinateReferenceSystem"] = lambda name: name
    found_id, found = eval(command, names)
    assert found_id == each.id()
    assert found == values


@pytest.mark.skipif(Qgis.QGIS_VERSION_INT < 32400, reason="QGIS has this since 3.24")
def test_the_command_line_brings_back_the_values(each):
    values = some_values(each)
    command, complete = each.asQgisProcessCommand(values, QgsProcessingContext())
    assert complete
    program, verb, found_id, *options = shlex.split(command)
    assert (program, verb, found_id) == ("qgis_process", "run", each.id())
    given = dict(option.removeprefix("--").split("=", 1) for option in options if option.startswith("--"))
    assert values.keys() <= given.keys()
    assert {key: given[key] for key, value in values.items() if isinstance(value, str)} == {
        key: value for key, value in values.items() if isinstance(value, str)
    }


@pytest.mark.skipif(Qgis.QGIS_VERSION_INT < 32400, reason="QGIS has this since 3.24")
def test_the_history_brings_back_the_values(each):
    values = some_values(each)
    stored = json.loads(json.dumps(each.asMap(values, QgsProcessingContext())))["inputs"]
    for definition in definitions(each):
        key = definition.name()
        if definition.type() == "datetime":
            assert QDateTime.fromString(stored[key], Qt.DateFormat.ISODate) == values[key]
        else:
            assert stored[key] == values[key]
