# SPDX-License-Identifier: GPL-2.0-or-later
"""Tune Model: what the worker is asked, what comes back, what is refused; and a small search in earnest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_layer
from qgis.core import QgsProcessingException, QgsVectorLayer
from qgis.PyQt.QtCore import QDate, QDateTime, QTime

DEFAULTS = {
    "model": "gridcast",
    "types": None,
    "until": None,
    "validation_share": 15.0,
    "folds": 1,
    "trials": 20,
    "time_limit": None,
    "objective": "auto",
    "area_share": 5.0,
    "ranges": "",
    "seed": 1,
    "study": None,
    "workers": 1,
    "scheduler": None,
    "report_output": None,
    "trials_output": None,
    "cube_output": None,
}


def test_a_search_with_defaults(worker, run, cube_file, tmp_path):
    output = str(tmp_path / "a model.gridcast")
    done = run("tunemodel", {"CUBE": cube_file, "OUTPUT": output})
    assert worker.calls == [("tune", DEFAULTS | {"cube": cube_file, "output": output})]
    assert done.outputs == {
        "OUTPUT": output,
        "BEST_SCORE": 0.4375,
        "DEFAULT_SCORE": 0.5,
        "GAIN": 12.5,
        "TRIALS": 2,
        "PRUNED": 1,
        "FAILED": 0,
        "VERDICT": "2 trials; the best is 1.3 % better.",
        "SETTINGS": "filters = 16",
    }
    assert done.feedback.warnings == []


def test_a_search_with_everything(worker, run, cube_file, tmp_path):
    files = {
        "OUTPUT": str(tmp_path / "m.gridcast"),
        "REPORT": str(tmp_path / "report.html"),
        "CUBE_OUTPUT": str(tmp_path / "best.nc"),
        "STUDY": str(tmp_path / "study"),
    }
    given = {
        "MODEL": "hetero",
        "TYPES": 'Robbery, "Theft, other"',
        "TRIALS": 7,
        "TIME_LIMIT": 1.5,
        "RANGES": "filters = 4..8 log; coarsen = 1, 2",
        "OBJECTIVE": "hit_rate",
        "AREA_SHARE": 10,
        "UNTIL": QDateTime(QDate(2024, 1, 1), QTime(6, 0)),
        "VALIDATION_SHARE": 25,
        "FOLDS": 3,
        "SEED": 7,
        "WORKERS": 2,
        "SCHEDULER": " tcp://10.0.0.5:8786 ",
    }
    table = str(tmp_path / "trials.gpkg")
    done = run("tunemodel", {"CUBE": cube_file, "TRIALS_OUTPUT": table} | files | given)
    asked = dict(worker.request)
    assert Path(asked.pop("trials_output")).parent == worker.folders[0]
    assert asked == {
        "cube": cube_file,
        "model": "hetero",
        "types": ["Robbery", "Theft, other"],
        "until": "2024-01-01T06:00:00",
        "validation_share": 25.0,
        "folds": 3,
        "trials": 7,
        "time_limit": 1.5,
        "objective": "hit_rate",
        "area_share": 10.0,
        "ranges": "filters = 4..8 log; coarsen = 1, 2",
        "seed": 7,
        "workers": 2,
        "scheduler": "tcp://10.0.0.5:8786",
        "study": files["STUDY"],
        "output": files["OUTPUT"],
        "report_output": files["REPORT"],
        "cube_output": files["CUBE_OUTPUT"],
    }
    assert {key: done.outputs[key] for key in ("OUTPUT", "REPORT", "CUBE_OUTPUT", "TRIALS_OUTPUT")} == {
        **{key: files[key] for key in ("OUTPUT", "REPORT", "CUBE_OUTPUT")},
        "TRIALS_OUTPUT": table,
    }
    layer = QgsVectorLayer(table, "", "ogr")
    rows = [[f[name] for name in ("trial", "state", "score", "filters")] for f in layer.getFeatures()]
    assert not layer.isSpatial()
    assert rows[0] == [1, "complete", 0.5, 16] and rows[1][:2] == [2, "pruned"]


def test_temporary_results(worker, run, cube_file, project):
    outputs = dict.fromkeys(("OUTPUT", "REPORT", "TRIALS_OUTPUT"), "TEMPORARY_OUTPUT")
    done = run("tunemodel", {"CUBE": cube_file} | outputs, load=True)
    assert Path(done.outputs["OUTPUT"]).is_file() and Path(done.outputs["REPORT"]).suffix == ".html"
    (layer,) = project.mapLayers().values()
    assert layer.featureCount() == 2 and layer.name() == "Table of trials"


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"CUBE": "/none.nc"}, "CUBE = /none.nc: The file does not exist."),
        (
            {"MODEL": "oracle"},
            "MODEL = oracle: This is not one of the choices. Choose one of: gridcast, convlstm",
        ),
        ({"TRIALS": 0}, "TRIALS = 0: This is not a whole number of at least 1."),
        ({"TIME_LIMIT": 0}, "TIME_LIMIT = 0.0: This leaves no time. Choose a value above 0."),
        ({"AREA_SHARE": 0}, "AREA_SHARE = 0.0: This leaves no area. Choose a value above 0."),
        ({"VALIDATION_SHARE": 60}, "VALIDATION_SHARE = 60: This is not a number from 1 to 50."),
        ({"OBJECTIVE": "profit"}, "OBJECTIVE = profit: This is not one of the choices."),
        ({"UNTIL": "soon"}, "UNTIL = soon: This is no date and time."),
        ({"OUTPUT": "/m.zip"}, "OUTPUT = /m.zip: The file name has another ending"),
        ({"REPORT": "/r.pdf"}, "REPORT = /r.pdf: The file name has another ending"),
        ({"CUBE_OUTPUT": "/c.tif"}, "CUBE_OUTPUT = /c.tif: The file name has another ending"),
        ({"STUDY": "TEMPORARY_OUTPUT"}, "STUDY = TEMPORARY_OUTPUT: A temporary file is not found again by"),
        ({"STUDY": "/no/such/folder/s"}, "STUDY = /no/such/folder/s: The folder '/no/such/folder' does not"),
    ],
)
def test_values_that_are_refused(worker, run, cube_file, tmp_path, no_leftovers, parameters, complaint):
    good = {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")}
    with pytest.raises(QgsProcessingException) as caught:
        run("tunemodel", good | parameters)
    assert complaint in str(caught.value)
    assert worker.calls == [] and [path.name for path in tmp_path.iterdir()] == ["cube.nc"]


def test_files_that_are_the_same(worker, run, cube_file, tmp_path):
    for key in ("STUDY", "CUBE_OUTPUT"):
        with pytest.raises(QgsProcessingException, match=f"{key} = .*: This is the same file as CUBE."):
            run("tunemodel", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast"), key: cube_file})


@pytest.mark.worker
@pytest.mark.slow
def test_a_small_search(run, project, worker_python, monkeypatch, tmp_path):
    """From points to a model that forecasts, with larger cells tried and the study gone on with."""
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    rows = [
        (f"Point ({630250 + 500 * (n % 4)} {4840250 + 500 * (n // 4 % 3)})", when, "a")
        for n in range(12)
        for day in range(40)
        if (day * 7 + n) % 5 < 2
        for when in (QDateTime(QDate(2024, 1, 1), QTime(12, 0)).addDays(day),)
    ]
    layer = make_layer(project, rows, crs="EPSG:26917")
    files = {name: str(tmp_path / name) for name in ("grid.tif", "cube.nc", "m.gridcast", "report.html")}
    run("buildgridfromlayer", {"INPUT": layer, "CELL_SIZE": 500, "OUTPUT": files["grid.tif"]})
    run(
        "rasterizeeventstocube",
        {
            "INPUT": layer,
            "GRID": files["grid.tif"],
            "TIME_FIELD": "occurred",
            "TIME_ZONE": "UTC",
            "OUTPUT": files["cube.nc"],
        },
    )
    request = {
        "CUBE": files["cube.nc"],
        "MODEL": "convlstm",
        "RANGES": "filters = 1, 2; kernel = 1; epochs = 1; lookback = 2; batch_size = 16; coarsen = 1, 2\n",
        "STUDY": str(tmp_path / "study.json"),
        "OUTPUT": files["m.gridcast"],
        "REPORT": files["report.html"],
        "TRIALS_OUTPUT": str(tmp_path / "trials.gpkg"),
        "CUBE_OUTPUT": str(tmp_path / "best.nc"),
    }
    first = run("tunemodel", request | {"TRIALS": 2}).outputs
    done = run("tunemodel", request | {"TRIALS": 3})
    assert (first["TRIALS"], done.outputs["TRIALS"]) == (2, 3)
    assert done.outputs["BEST_SCORE"] <= first["BEST_SCORE"] <= first["DEFAULT_SCORE"]
    assert "The study has 2 trials; the search goes on after them." in done.feedback.infos
    assert done.outputs["VERDICT"].startswith("3 trials;")
    assert "<html" in Path(files["report.html"]).read_text(encoding="utf-8")
    assert QgsVectorLayer(request["TRIALS_OUTPUT"], "", "ogr").featureCount() == 3
    assert len(json.loads(Path(request["STUDY"]).read_text())["trials"]) == 3
    forecast = run(
        "forecastheatmap",
        {
            "CUBE": request["CUBE_OUTPUT"],
            "MODEL": files["m.gridcast"],
            "OUTPUT": str(tmp_path / "forecast.tif"),
        },
    )
    assert forecast.outputs["EXPECTED_EVENTS"] > 0
