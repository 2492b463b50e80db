# SPDX-License-Identifier: GPL-2.0-or-later
"""Training, forecasting and hot spots: requests, outputs, refusals; the way to the worker and back."""

from __future__ import annotations

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

from gridcast_qgis.algorithms import base
from gridcast_qgis.core.errors import EnvironmentFault, InputError, JobCancelled
from gridcast_qgis.worker import client

TRAINING = {
    "model": "convlstm",
    "types": None,
    "lookback": 7,
    "filters": 16,
    "kernel": 3,
    "output_form": "poisson",
    "base_rate": True,
    "epochs": 20,
    "batch_size": 8,
    "learning_rate": 0.002,
    "patience": 4,
    "validation_share": 15,
    "until": None,
    "seed": 1,
}
LAYOUT = {"subgrid_rows": 3, "subgrid_columns": 3, "window_rows": 2, "window_columns": 2, "window_stride": 1}

# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short_id", "more"), [("trainconvlstm", {}), ("trainheteroensemble", {"model": "hetero"} | LAYOUT)]
)
def test_training_with_defaults(worker, run, cube_file, tmp_path, short_id, more):
    output = str(tmp_path / "a model.gridcast")
    done = run(short_id, {"CUBE": cube_file, "OUTPUT": output})
    assert worker.calls == [("train", {"cube": cube_file, "output": output} | TRAINING | more)]
    assert done.outputs == {
        "OUTPUT": output,
        "VALIDATION_LOSS": 0.5,
        "VALIDATION_MSE": 0.25,
        "BASELINE_MSE": 0.26,
        "SKILL": 3.8,
        "PAI": 4.5,
        "PAI_BASELINE": 4.0,
        "EPOCHS_RUN": 2,
        "PARAMETERS": 1234,
        "TRAIN_STEPS": 40,
        "VALIDATION_STEPS": 10,
    }


def test_training_with_everything(worker, run, cube_file, tmp_path):
    run(
        "trainheteroensemble",
        {
            "CUBE": cube_file,
            "TYPES": ' Robbery, "Theft, other" ,,Assault',
            "LOOKBACK": 14,
            "EPOCHS": 2,
            "FILTERS": 8,
            "KERNEL": 1,
            "OUTPUT_FORM": "linear",
            "BASE_RATE": False,
            "BATCH_SIZE": 4,
            "LEARNING_RATE": 0.01,
            "PATIENCE": 1,
            "VALIDATION_SHARE": 25,
            "UNTIL": QDateTime(QDate(2024, 1, 1), QTime(6, 0)),
            "SEED": 7,
            "SUBGRID_ROWS": 4,
            "SUBGRID_COLUMNS": 5,
            "WINDOW_ROWS": 3,
            "WINDOW_COLUMNS": 3,
            "WINDOW_STRIDE": 2,
            "OUTPUT": str(tmp_path / "m.gridcast"),
        },
    )
    assert worker.request == {
        "cube": cube_file,
        "model": "hetero",
        "types": ["Robbery", "Theft, other", "Assault"],
        "lookback": 14,
        "epochs": 2,
        "filters": 8,
        "kernel": 1,
        "output_form": "linear",
        "base_rate": False,
        "batch_size": 4,
        "learning_rate": 0.01,
        "patience": 1,
        "validation_share": 25,
        "until": "2024-01-01T06:00:00",
        "seed": 7,
        "subgrid_rows": 4,
        "subgrid_columns": 5,
        "window_rows": 3,
        "window_columns": 3,
        "window_stride": 2,
        "output": str(tmp_path / "m.gridcast"),
    }


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


# -- hot spots -----------------------------------------------------------------------------------


def test_hot_spots(worker, run, forecast_file, tmp_path):
    output = str(tmp_path / "hot spots.gpkg")
    done = run("hotspotclassify", {"INPUT": forecast_file, "OUTPUT": output})
    request = worker.request
    assert Path(request.pop("output")).name == "hotspots.gpkg"
    assert request == {
        "forecast": forecast_file,
        "area_share": 5,
        "first_step": None,
        "last_step": None,
        "merge": True,
        "cube": None,
    }
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
        ("forecastheatmap", "CUBE"),
        ("forecastheatmap", "MODEL"),
        ("hotspotclassify", "CUBE"),
    ],
)
def test_files_that_are_not_there(refused, tmp_path, short_id, key):
    missing = str(tmp_path / ("no such file.gridcast" if key == "MODEL" else "no such file.nc"))
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
