# SPDX-License-Identifier: GPL-2.0-or-later
"""Training, forecasting and hot spots: requests, outputs, refusals; the way to the worker and back."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path

import pytest
from conftest import INTERVALS, Notes, make_layer
from qgis.core import (
    QgsApplication,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingUtils,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDate, QDateTime, QEventLoop, QTime, QTimer

from gridcast_qgis import settings
from gridcast_qgis.algorithms import base
from gridcast_qgis.core.errors import EnvironmentFault, InputError, JobCancelled
from gridcast_qgis.worker import client

# What every training asks for, with defaults.
TRAINING = {
    "types": None,
    "until": None,
    "split": "validation",
    "validation_share": 15,
    "folds": 4,
    "checkpoint": None,
    "continue_from": None,
    "scheduler": None,
    "lookback": 7,
    "seed": 1,
}
GRIDCAST = {
    "size": "standard",
    "aim": "counts",
    "dropout": 0.2,
    "samples": 3_000_000,
    "final_networks": 2,
}
CHANNELS = {"channels": [], "channel_form": "standard"}
COUNTS = {
    "filters": 16,
    "kernel": 3,
    "output_form": "poisson",
    "base_rate": True,
    "loss_form": "corrected",
}
PROBABILITY = {
    "type_head": False,
    "width": 1.0,
    "peephole": False,
    "event_weight": 0.0,
    "calibrate": "platt",
}
ENSEMBLE = {
    "subgrid_rows": 3,
    "subgrid_columns": 3,
    "window_rows": 2,
    "window_columns": 2,
    "window_stride": 1,
    "weights": "equal",
    "taper": 0,
    "workers": 1,
}
LABELS = {
    "lookback": 6,
    "label_rule": "top_cells",
    "label_value": 20.0,
    "balance": "none",
    "split_mode": "chronological",
    "raw": False,
    "compare": False,
}
SPATIOLSTM = {"neighbourhood": 3, "cell": "lstm", "timing": True, "location": True}

# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short_id", "architecture", "settings"),
    [
        ("trainconvlstm", None, {"model": "gridcast"} | GRIDCAST),
        ("trainconvlstm", "convlstm", CHANNELS | COUNTS),
        ("trainconvlstm", "shotspotter", CHANNELS | PROBABILITY),
        ("trainheteroensemble", None, {"model": "hetero_gridcast"} | GRIDCAST | ENSEMBLE),
        ("trainheteroensemble", "hetero", CHANNELS | COUNTS | ENSEMBLE),
        ("trainhotspotclassifier", None, {"model": "spatiolstm"} | LABELS | SPATIOLSTM),
        ("trainhotspotclassifier", "cell_lstm", LABELS | {"covariates": []}),
        ("trainhotspotclassifier", "cnn3d", LABELS | {"covariates": [], "filters": 16}),
        ("trainhotspotclassifier", "cnn_rnn", LABELS | {"covariates": [], "filters": 16}),
    ],
)
def test_training_with_defaults(worker, run, cube_file, tmp_path, short_id, architecture, settings):
    """The worker gets the settings of the architecture alone, and its own values for those left empty."""
    output = str(tmp_path / "a model.gridcast")
    choice = {"ARCHITECTURE": architecture} if architecture else {}
    done = run(short_id, {"CUBE": cube_file, "OUTPUT": output} | choice)
    files = {"cube": cube_file, "output": output}
    assert worker.calls == [("train", TRAINING | {"model": architecture} | settings | files)]
    assert done.feedback.warnings == []


def test_measures_of_networks(worker, run, cube_file, tmp_path):
    output = str(tmp_path / "m.gridcast")
    assert run("trainconvlstm", {"CUBE": cube_file, "OUTPUT": output}).outputs == {
        "OUTPUT": output,
        "VALIDATION_LOSS": 0.5,
        "VALIDATION_MSE": 0.25,
        "BASELINE_MSE": 0.26,
        "SKILL": 3.8,
        "PAI": 4.5,
        "PAI_BASELINE": 4.0,
        "AUC": 0.8,
        "AUC_BASELINE": 0.75,
        "AVERAGE_PRECISION": 0.3,
        "F1": 0.4,
        "EPOCHS_RUN": 2,
        "PARAMETERS": 1234,
        "TRAIN_STEPS": 40,
        "VALIDATION_STEPS": 10,
    }


def test_measures_of_classifiers(worker, run, cube_file, tmp_path):
    worker.answers["train"] = {"validation_mse": None, "baseline_mse": 0.2, "skill": None, "auc": None}
    output = str(tmp_path / "m.gridcast")
    assert run("trainhotspotclassifier", {"CUBE": cube_file, "OUTPUT": output}).outputs == {
        "OUTPUT": output,
        "VALIDATION_LOSS": 0.5,
        "AUC": None,
        "AUC_BASELINE": 0.75,
        "AVERAGE_PRECISION": 0.3,
        "F1": 0.4,
        "THRESHOLD": 0.35,
        "EPOCHS_RUN": 2,
        "PARAMETERS": 1234,
        "TRAIN_STEPS": 40,
        "VALIDATION_STEPS": 10,
    }


# Parameters of every training with other values than their defaults, and what the worker gets.
ALL_GIVEN = {
    "TYPES": ' Robbery, "Theft, other" ,,Assault',
    "LOOKBACK": 14,
    "EPOCHS": 2,
    "BATCH_SIZE": 4,
    "LEARNING_RATE": 0.01,
    "PATIENCE": 1,
    "SPLIT": "walk-forward",
    "FOLDS": 3,
    "VALIDATION_SHARE": 25,
    "UNTIL": QDateTime(QDate(2024, 1, 1), QTime(6, 0)),
    "SCHEDULER": "tcp://far.example:8786",
    "SEED": 7,
}
ALL_SENT = {
    "types": ["Robbery", "Theft, other", "Assault"],
    "lookback": 14,
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "patience": 1,
    "split": "walk-forward",
    "folds": 3,
    "validation_share": 25,
    "until": "2024-01-01T06:00:00",
    "scheduler": "tcp://far.example:8786",
    "seed": 7,
    "continue_from": None,
}


@pytest.mark.parametrize(
    ("short_id", "architecture", "given"),
    [
        (
            "trainheteroensemble",
            "hetero",
            {
                "CHANNELS": 'severity, season,"Temperature, mean"',
                "CHANNEL_FORM": "published",
                "FILTERS": 8,
                "KERNEL": 1,
                "OUTPUT_FORM": "linear",
                "BASE_RATE": False,
                "LOSS_FORM": "published",
                "SUBGRID_ROWS": 4,
                "SUBGRID_COLUMNS": 5,
                "WINDOW_ROWS": 3,
                "WINDOW_COLUMNS": 3,
                "WINDOW_STRIDE": 2,
                "WEIGHTS": "learned",
                "TAPER": 3,
                "WORKERS": 2,
            },
        ),
        (
            "trainconvlstm",
            "shotspotter",
            {
                "CHANNELS": "weekday",
                "CHANNEL_FORM": "published",
                "TYPE_HEAD": True,
                "WIDTH": 0.25,
                "PEEPHOLE": True,
                "EVENT_WEIGHT": 10,
                "CALIBRATE": "isotonic",
            },
        ),
        (
            "trainhotspotclassifier",
            "spatiolstm",
            {
                "LABEL_RULE": "top_share",
                "LABEL_VALUE": 2.5,
                "CANDIDATES": "all_cells",
                "BALANCE": "undersample",
                "SPLIT_MODE": "random",
                "RAW": True,
                "NEIGHBOURHOOD": 21,
                "CELL": "gru",
                "UNITS": 30,
                "DENSE": 40,
                "TIMING": False,
                "LOCATION": False,
                "COMPARE": True,
            },
        ),
        (
            "trainhotspotclassifier",
            "cnn_rnn",
            {
                "LABEL_RULE": "threshold",
                "LABEL_VALUE": 3,
                "CANDIDATES": "training",
                "BALANCE": "weights",
                "SPLIT_MODE": "random",
                "RAW": True,
                "COVARIATES": "income, density",
                "FILTERS": 4,
                "COMPARE": False,
            },
        ),
    ],
)
def test_training_with_everything(worker, run, cube_file, tmp_path, short_id, architecture, given):
    files = {"CUBE": cube_file, "CHECKPOINT": str(tmp_path / "state"), "OUTPUT": str(tmp_path / "m.gridcast")}
    done = run(short_id, files | {"ARCHITECTURE": architecture} | ALL_GIVEN | given)
    lists = {"CHANNELS", "COVARIATES"} & given.keys()
    sent = {key.lower(): value for key, value in given.items()}
    for key in lists:
        sent[key.lower()] = next(csv.reader([given[key]], skipinitialspace=True))
    paths = {key.lower(): value for key, value in files.items()}
    assert worker.request == ALL_SENT | {"model": architecture} | sent | paths
    assert done.feedback.warnings == []


def test_only_a_spatiolstm_is_compared_with_simple_classifiers(worker, run, cube_file, tmp_path):
    asked = {
        "CUBE": cube_file,
        "ARCHITECTURE": "cnn3d",
        "COMPARE": True,
        "OUTPUT": str(tmp_path / "m.gridcast"),
    }
    with pytest.raises(QgsProcessingException) as caught:
        run("trainhotspotclassifier", asked)
    assert "COMPARE = true: The simple classifiers learn from the samples of a Spatio-LSTM." in str(
        caught.value
    )
    assert worker.calls == []


def test_settings_of_another_architecture_are_ignored_aloud(worker, run, cube_file, tmp_path):
    in_vain = {"FILTERS": 32, "OUTPUT_FORM": "linear", "BASE_RATE": False, "KERNEL": 3}
    done = run(
        "trainconvlstm",
        {
            "CUBE": cube_file,
            "ARCHITECTURE": "shotspotter",
            "WIDTH": 0.5,
            "OUTPUT": str(tmp_path / "m.gridcast"),
        }
        | in_vain,
    )
    assert done.feedback.warnings == [
        f"{key} is ignored: shotspotter has no such setting."
        for key in ("FILTERS", "OUTPUT_FORM", "BASE_RATE")
    ]
    assert not {key.lower() for key in in_vain} & worker.request.keys()
    assert worker.request["width"] == 0.5


def test_a_model_that_is_continued_keeps_its_settings(worker, run, cube_file, model_file, tmp_path):
    done = run(
        "trainheteroensemble",
        {
            "CUBE": cube_file,
            "CONTINUE_FROM": model_file,
            "EPOCHS": 3,
            "SIZE": "large",
            "LOOKBACK": 7,
            "WEIGHTS": "learned",
            "OUTPUT": str(tmp_path / "m.gridcast"),
        },
    )
    own = {"epochs": 3, "seed": 1, "weights": "learned", "workers": 1, "continue_from": model_file}
    common = {key: value for key, value in TRAINING.items() if key != "lookback"}
    files = {"cube": cube_file, "output": str(tmp_path / "m.gridcast")}
    assert worker.request == common | {"model": "hetero_gridcast"} | own | files
    assert done.feedback.warnings == ["SIZE is ignored: the model that is continued has its own value."]


@pytest.mark.parametrize("short_id", ["trainconvlstm", "trainheteroensemble", "trainhotspotclassifier"])
def test_a_cluster_is_named_by_the_parameter_or_the_setting(
    worker, run, cube_file, tmp_path, monkeypatch, short_id
):
    asked = {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")}
    monkeypatch.setattr(settings, "scheduler", lambda: "tcp://set.example:8786")
    run(short_id, asked)
    assert worker.request["scheduler"] == "tcp://set.example:8786"
    run(short_id, asked | {"SCHEDULER": " tls://given.example:8786 "})
    assert worker.request["scheduler"] == "tls://given.example:8786"
    monkeypatch.setattr(settings, "scheduler", lambda: "")
    run(short_id, asked | {"SCHEDULER": ""})
    assert worker.request["scheduler"] is None


# -- forecasting ---------------------------------------------------------------------------------


def test_a_forecast(worker, run, cube_file, model_file, tmp_path):
    output = str(tmp_path / "forecast.tif")
    done = run(
        "forecastheatmap",
        {
            "CUBE": cube_file,
            "MODEL": model_file,
            "HORIZON": 3,
            "ORIGIN": "2024-03-07T00:00:00",
            "OUTPUT": output,
        },
    )
    assert worker.calls == [
        (
            "forecast",
            {
                "cube": cube_file,
                "model": model_file,
                "horizon": 3,
                "origin": "2024-03-07T00:00:00",
                "output": output,
                "types_output": None,
                "parts_output": None,
                "uncertainty_output": None,
                "top_cells": 20,
            },
        )
    ]
    assert done.outputs == {
        "OUTPUT": output,
        "EXPECTED_EVENTS": 3.0,
        "MAXIMUM": 0.5,
        "FIRST_STEP": "/".join(INTERVALS[0]),
        "LAST_STEP": "/".join(INTERVALS[2]),
    }


@pytest.mark.parametrize("key", ["TYPES_OUTPUT", "PARTS_OUTPUT", "UNCERTAINTY_OUTPUT"])
def test_what_stands_beside_a_forecast(worker, run, cube_file, model_file, tmp_path, key):
    beside = str(tmp_path / "beside.tif")
    done = run(
        "forecastheatmap",
        {
            "CUBE": cube_file,
            "MODEL": model_file,
            "OUTPUT": str(tmp_path / "f.tif"),
            key: beside,
        },
    )
    wanted = {"types_output", "parts_output", "uncertainty_output"}
    assert {name: worker.request[name] for name in wanted} == dict.fromkeys(wanted) | {key.lower(): beside}
    assert done.outputs[key] == beside
    assert (wanted - {key.lower()}).isdisjoint(name.lower() for name in done.outputs)


# -- hot spots -----------------------------------------------------------------------------------


# What is asked for with defaults.
FLAGGED = {
    "forecast": None,
    "model": None,
    "cube": None,
    "origin": None,
    "rule": "area",
    "area_share": 5,
    "threshold": None,
    "top_cells": 20,
    "hot_events": 1,
    "first_step": None,
    "last_step": None,
    "merge": True,
    "probability_output": None,
    "classes_output": None,
}


def test_hot_spots(worker, run, forecast_file, tmp_path):
    output = str(tmp_path / "hot spots.gpkg")
    done = run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": output})
    request = worker.request
    assert Path(request.pop("output")).name == "hotspots.gpkg"
    assert request == FLAGGED | {"forecast": forecast_file}
    assert done.outputs == {
        "OUTPUT": output,
        "HOT_SPOTS": 3,
        "AREA_KM2": 0.75,
        "EXPECTED_EVENTS": 8.5,
        "EXPECTED_SHARE": 85.0,
        "EVENTS_OBSERVED": None,
        "EVENTS_HIT": None,
        "PAI": None,
        "EVENTS_HIT_BASELINE": None,
        "PAI_BASELINE": None,
        "ACCURACY": None,
        "PRECISION": None,
        "RECALL": None,
        "F1": None,
    }
    layer = QgsVectorLayer(output, "hot spots", "ogr")
    assert [feature["rank"] for feature in layer.getFeatures()] == [1, 2, 5]
    assert layer.crs().authid() == "EPSG:26917"


def test_hot_spots_with_score(worker, run, forecast_file, cube_file):
    worker.answers["classify_hotspots"] = {
        "events_observed": 100,
        "events_hit": 30,
        "pai": 6.0,
        "baseline_hit": 25,
        "baseline_pai": 5.0,
        "accuracy": 0.9,
        "precision": 0.6,
        "recall": 0.5,
        "f1": 0.55,
    }
    done = run(
        "hotspotclassify",
        {
            "INPUT": forecast_file,
            "AREA_SHARE": 10,
            "FIRST_STEP": 2,
            "LAST_STEP": 3,
            "MERGE": False,
            "CUBE": cube_file,
            "OUTPUT": "TEMPORARY_OUTPUT",
        },
    )
    request = worker.request
    assert (request["first_step"], request["last_step"]) == (2, 3)
    assert (request["area_share"], request["merge"], request["cube"]) == (10, False, cube_file)
    assert done.outputs["OUTPUT"].featureCount() == 3
    assert [done.outputs[key] for key in ("EVENTS_OBSERVED", "EVENTS_HIT", "PAI")] == [100, 30, 6.0]
    assert [done.outputs[key] for key in ("EVENTS_HIT_BASELINE", "PAI_BASELINE")] == [25, 5.0]
    assert [done.outputs[key] for key in ("ACCURACY", "PRECISION", "RECALL", "F1")] == [0.9, 0.6, 0.5, 0.55]


def test_hot_spots_of_a_model(worker, run, cube_file, model_file, tmp_path):
    maps = {key: str(tmp_path / f"{key.lower()}.tif") for key in ("PROBABILITY", "CLASSES")}
    done = run(
        "hotspotclassify",
        {
            "MODEL": model_file,
            "CUBE": cube_file,
            "ORIGIN": "2024-03-07T00:00:00",
            "RULE": "probability",
            "THRESHOLD": 0.3,
            "TOP_CELLS": 10,
            "HOT_EVENTS": 2,
            "OUTPUT": str(tmp_path / "spots.gpkg"),
        }
        | maps,
    )
    request = worker.request
    assert Path(request.pop("output")).name == "hotspots.gpkg"
    assert request == FLAGGED | {
        "model": model_file,
        "cube": cube_file,
        "origin": "2024-03-07T00:00:00",
        "rule": "probability",
        "threshold": 0.3,
        "top_cells": 10,
        "hot_events": 2,
        "probability_output": maps["PROBABILITY"],
        "classes_output": maps["CLASSES"],
    }
    assert {key: done.outputs[key] for key in maps} == maps


def test_the_same_file_again(worker, run, forecast_file, tmp_path):
    for _ in range(2):
        run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": str(tmp_path / "spots.gpkg")})
    assert QgsVectorLayer(str(tmp_path / "spots.gpkg"), "", "ogr").featureCount() == 3


# -- refusals ------------------------------------------------------------------------------------


@pytest.fixture
def refused(worker, run, cube_file, model_file, forecast_file, tmp_path, no_leftovers):
    before = {path.name for path in tmp_path.iterdir()}
    good = {
        "trainconvlstm": {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")},
        "trainheteroensemble": {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")},
        "trainhotspotclassifier": {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")},
        "forecastheatmap": {"CUBE": cube_file, "MODEL": model_file, "OUTPUT": str(tmp_path / "f.tif")},
        "hotspotclassify": {"INPUT": forecast_file, "OUTPUT": str(tmp_path / "h.gpkg")},
    }

    def call(short_id: str, **parameters) -> str:
        with pytest.raises(QgsProcessingException) as caught:
            run(short_id, good[short_id] | parameters)
        assert worker.calls == []
        # QGIS itself keeps statistics of a raster that it opens beside it.
        assert {path.name for path in tmp_path.iterdir() if not path.name.endswith(".aux.xml")} == before
        return str(caught.value)

    return call


@pytest.mark.parametrize(
    ("short_id", "key"),
    [
        ("trainconvlstm", "CUBE"),
        ("trainheteroensemble", "CUBE"),
        ("trainhotspotclassifier", "CUBE"),
        ("trainconvlstm", "CONTINUE_FROM"),
        ("forecastheatmap", "CUBE"),
        ("forecastheatmap", "MODEL"),
        ("hotspotclassify", "CUBE"),
    ],
)
def test_files_that_are_not_there(refused, tmp_path, short_id, key):
    missing = str(tmp_path / ("no such file.nc" if key == "CUBE" else "no such file.gridcast"))
    assert f"{key} = {missing}: The file does not exist. Choose another file: Gridcast" in refused(
        short_id, **{key: missing}
    )
    other = __file__
    assert f"{key} = {other}: The file has another ending than the ones that" in refused(
        short_id, **{key: other}
    )
    assert f"{key} = {tmp_path}: This is a folder." in refused(short_id, **{key: str(tmp_path)})


@pytest.mark.parametrize(
    ("short_id", "parameters", "complaint"),
    [
        ("trainconvlstm", {"CUBE": None}, "CUBE: A value is needed here. Set CUBE: Cube."),
        ("trainconvlstm", {"LOOKBACK": 0}, "LOOKBACK = 0: This is not a whole number of at least 1."),
        ("trainconvlstm", {"LEARNING_RATE": 2}, "LEARNING_RATE = 2: This is not a number from 1e-07 to 1."),
        ("trainconvlstm", {"EPOCHS": "many"}, "EPOCHS = many: This is not a whole number of at least 1."),
        ("trainconvlstm", {"OUTPUT_FORM": "tanh"}, "OUTPUT_FORM = tanh: This is not one of the choices."),
        ("trainconvlstm", {"UNTIL": "soon"}, "UNTIL = soon: This is no date and time."),
        (
            "trainheteroensemble",
            {"WINDOW_ROWS": 4},
            "WINDOW_ROWS = 4: The window is larger than the grid of 3 subgrids. Choose at most 3, or a "
            "larger ",
        ),
        (
            "trainhotspotclassifier",
            {"LABEL_VALUE": -1},
            "LABEL_VALUE = -1: This is not a number of at least 0.",
        ),
        ("trainconvlstm", {"SPLIT": "by chance"}, "SPLIT = by chance: This is not one of the choices."),
        (
            "trainconvlstm",
            {"CHECKPOINT": "TEMPORARY_OUTPUT"},
            "CHECKPOINT = TEMPORARY_OUTPUT: A temporary file is not found again by the next run. Name a",
        ),
        (
            "trainconvlstm",
            {"CHECKPOINT": "/no/such/folder/state"},
            "CHECKPOINT = /no/such/folder/state: The folder '/no/such/folder' does not exist.",
        ),
        ("forecastheatmap", {"HORIZON": 0}, "HORIZON = 0: This is not a whole number of at least 1."),
        ("forecastheatmap", {"OUTPUT": "/out.jpg"}, "OUTPUT = /out.jpg: The file name has another ending"),
        ("hotspotclassify", {"AREA_SHARE": 0}, "AREA_SHARE = 0: No area can be flagged."),
        ("hotspotclassify", {"AREA_SHARE": 101}, "AREA_SHARE = 101: This is not a number from 0 to 100."),
        (
            "hotspotclassify",
            {"LAST_STEP": 4},
            "LAST_STEP = 4: The forecast has 3 steps. Choose a step from 1 to 3, or leave it empty.",
        ),
        (
            "hotspotclassify",
            {"FIRST_STEP": 3, "LAST_STEP": 2},
            "LAST_STEP = 2: The last step comes before the first one. Choose a step from 3 to 3, or leave it",
        ),
        ("hotspotclassify", {"THRESHOLD": 1}, "THRESHOLD = 1.0: The probability must lie between 0 and 1."),
        (
            "hotspotclassify",
            {"RULE": "best"},
            "RULE = best: This is not one of the choices. Choose one of: area",
        ),
        (
            "hotspotclassify",
            {"INPUT": None},
            "INPUT = not set: Hot spots come from a forecast or from a model, and here is neither.",
        ),
        (
            "hotspotclassify",
            {"ORIGIN": "2024-03-07T00:00:00"},
            "ORIGIN = 2024-03-07T00:00:00: A forecast has its own beginning. Leave ORIGIN empty, or choose a",
        ),
        ("hotspotclassify", {"CLASSES": "/c.gpkg"}, "CLASSES = /c.gpkg: The file name has another ending"),
        ("hotspotclassify", {"INPUT": __file__}, f"INPUT = {__file__}: The raster cannot be opened"),
        (
            "hotspotclassify",
            {"OUTPUT": "/no/such/folder/h.gpkg"},
            "The folder '/no/such/folder' does not exist.",
        ),
    ],
)
def test_values_that_are_refused(refused, short_id, parameters, complaint):
    assert complaint in refused(short_id, **parameters)


def test_files_that_are_the_same(refused, cube_file, model_file, tmp_path):
    model, forecast = str(tmp_path / "m.gridcast"), str(tmp_path / "f.tif")
    same = "This is the same file as {}. Choose another file: inputs are never changed, and each result has"
    for short_id, parameters, key, other in (
        ("trainconvlstm", {"CHECKPOINT": model}, "CHECKPOINT", "OUTPUT"),
        ("trainconvlstm", {"CONTINUE_FROM": model_file, "OUTPUT": model_file}, "OUTPUT", "CONTINUE_FROM"),
        ("trainconvlstm", {"CHECKPOINT": cube_file}, "CHECKPOINT", "CUBE"),
        ("forecastheatmap", {"TYPES_OUTPUT": forecast}, "TYPES_OUTPUT", "OUTPUT"),
        ("forecastheatmap", {"PARTS_OUTPUT": forecast}, "PARTS_OUTPUT", "OUTPUT"),
        ("forecastheatmap", {"UNCERTAINTY_OUTPUT": forecast}, "UNCERTAINTY_OUTPUT", "OUTPUT"),
        ("hotspotclassify", {"PROBABILITY": forecast, "CLASSES": forecast}, "CLASSES", "PROBABILITY"),
    ):
        assert f"{key} = {parameters[key]}: {same.format(other)}" in refused(short_id, **parameters)


def test_a_model_is_continued_with_one_split_only(refused, model_file):
    said = refused("trainconvlstm", CONTINUE_FROM=model_file, SPLIT="5-1-1")
    assert "SPLIT = 5-1-1: A model is continued with the split 'validation' only. Choose it, or leave" in said


def test_hot_spots_come_from_one_source(refused, model_file, cube_file, forecast_file):
    assert f"INPUT = {forecast_file}: Hot spots come from a forecast or from a model, and here are both." in (
        refused("hotspotclassify", MODEL=model_file, CUBE=cube_file)
    )
    assert "CUBE: A file is needed here. Set CUBE: Cube." in refused(
        "hotspotclassify", INPUT=None, MODEL=model_file
    )
    assert (
        "FIRST_STEP = 2: The forecast has one step. Choose a step from 1 to 1, or leave it empty."
        in refused("hotspotclassify", INPUT=None, MODEL=model_file, CUBE=cube_file, FIRST_STEP=2)
    )


# -- to the worker and back ----------------------------------------------------------------------


def test_the_worker_gets_a_folder_of_its_own_that_goes_away(worker, run, cube_file, tmp_path):
    seen = []

    def look(_job, _request, folder):
        seen.append((folder.parent, oct(folder.stat().st_mode & 0o777)))
        (folder / "something.big").write_bytes(b"x" * 100)

    worker.on_job = look
    run("trainconvlstm", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")})
    assert seen[0][0] == Path(QgsProcessingUtils.tempFolder())
    if os.name == "posix":
        assert seen[0][1] == "0o700"
    assert not worker.folders[0].exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            InputError("The cube is short.", hint="Rasterize more.", parameter="LOOKBACK", value=700),
            "LOOKBACK = 700: The cube is short. Rasterize more.",
        ),
        (EnvironmentFault("No keras.", hint="Set it up."), "No keras. Set it up."),
        (JobCancelled(), "The job was cancelled."),
        (client.WorkerCrash("It died."), "It died."),
    ],
)
def test_what_the_worker_reports_reaches_the_user(
    worker, run, cube_file, tmp_path, error, text, no_leftovers
):
    def fail(*_):
        raise error

    worker.on_job = fail
    with pytest.raises(QgsProcessingException) as caught:
        run("trainconvlstm", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")})
    assert str(caught.value).endswith(text)
    assert not worker.folders[0].exists()


def test_a_worker_that_writes_nothing_is_no_success(worker, run, cube_file, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_train", lambda request: {"output": request["output"]}, raising=False)
    with pytest.raises(
        QgsProcessingException, match=r"OUTPUT: The job 'train' ended without writing '.*m.gridcast'"
    ):
        run("trainconvlstm", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")})


@pytest.fixture
def no_environment(monkeypatch):
    def missing(*_):
        raise EnvironmentFault("Gridcast has no Python environment for its worker yet.", hint="Run it.")

    monkeypatch.setattr(base, "find_interpreter", missing)


def test_a_missing_environment_is_told_before_any_work(
    project, run, no_environment, grid, tmp_path, no_leftovers
):
    layer = make_layer(project, [("Point (-79.45 43.72)", None, "a")])
    with pytest.raises(QgsProcessingException, match="has no Python environment for its worker yet. Run it."):
        run(
            "rasterizeeventstocube",
            {"INPUT": layer, "GRID": grid, "TIME_FIELD": "occurred", "OUTPUT": str(tmp_path / "c.nc")},
        )


def test_the_toolbox_says_that_the_environment_is_missing(algorithm, no_environment):
    possible, why = algorithm("trainconvlstm").canExecute()
    assert not possible and "no Python environment" in why
    assert algorithm("setupenvironment").canExecute() == (True, "")


def test_checks_are_the_same_in_the_dialog(algorithm, worker, cube_file, tmp_path):
    train, context = algorithm("trainconvlstm"), QgsProcessingContext()
    assert train.checkParameterValues({"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")}, context)[0]
    ok, why = train.checkParameterValues({"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.zip")}, context)
    assert not ok and "Give it the ending .gridcast." in why
    # A model calls run() alone.
    with pytest.raises(QgsProcessingException, match=r"Give it the ending \.gridcast"):
        train.run({"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.zip")}, context, Notes(), {}, False)


def test_two_at_a_time(worker, algorithm, cube_file, model_file, tmp_path):
    """Both wait in the worker for each other: neither holds a lock that the other one needs."""
    meeting = threading.Barrier(2, timeout=30)
    worker.on_job = lambda *_: meeting.wait()
    context, feedback, ended = QgsProcessingContext(), Notes(), {}
    loop = QEventLoop()
    tasks = []
    for name, parameters in (
        ("trainconvlstm", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")}),
        ("forecastheatmap", {"CUBE": cube_file, "MODEL": model_file, "OUTPUT": str(tmp_path / "f.tif")}),
    ):
        task = QgsProcessingAlgRunnerTask(algorithm(name), parameters, context, feedback)

        def keep(successful, outputs, name=name):
            ended[name] = successful
            if len(ended) == 2:
                loop.quit()

        task.executed.connect(keep)
        tasks.append(task)
    for task in tasks:
        QgsApplication.taskManager().addTask(task)
    QTimer.singleShot(60000, loop.quit)
    loop.exec()
    assert ended == {"trainconvlstm": True, "forecastheatmap": True}
    first, second = worker.folders
    assert first != second
    assert (tmp_path / "m.gridcast").is_file() and (tmp_path / "f.tif").is_file()
