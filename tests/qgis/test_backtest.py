# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtest: what the worker is asked, what comes back, what is refused; and a small one in earnest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from qgis.core import (
    Qgis,
    QgsDateTimeRange,
    QgsProcessingException,
    QgsVectorLayer,
    QgsVectorLayerTemporalContext,
)
from qgis.PyQt.QtCore import QDateTime, Qt

DEFAULTS = {
    "models": ["historical_average", "weekday_average", "ewma", "kde", "promap"],
    "settings": "",
    "model_files": [],
    "types": None,
    "first_origin": None,
    "until": None,
    "every": None,
    "horizon": 1,
    "area_shares": [1.0, 5.0, 10.0],
    "refit": "once",
    "refit_every": 1,
    "window": 0,
    "validation_share": 15.0,
    "top_cells": 30,
    "placings": 1,
    "workers": 1,
    "level": 95.0,
    "scheduler": None,
    "seed": 1,
}


def test_a_backtest_with_defaults(worker, run, cube_file, tmp_path):
    output = str(tmp_path / "report.html")
    done = run("backtest", {"CUBE": cube_file, "OUTPUT": output})
    assert worker.calls == [("backtest", DEFAULTS | {"cube": cube_file, "output": output})]
    assert done.outputs == {
        "OUTPUT": output,
        "GAIN": -0.5,
        "P_VALUE": 0.25,
        "FORECASTS": 52,
        "EVENTS": 1234.0,
        "USE": "ewma",
        "VERDICT": "convlstm does not beat ewma here; use ewma.",
        "BEST_SIMPLE": "ewma",
        "BEST_NETWORK": "convlstm",
    }


def test_a_backtest_with_everything(worker, run, cube_file, model_file, tmp_path):
    given = {
        "CUBE": cube_file,
        "MODELS": ["historical_average", "convlstm"],
        "MODEL_FILES": [model_file],
        "SETTINGS": "convlstm.epochs = 5",
        "TYPES": 'Robbery, "Theft, other"',
        "FIRST_ORIGIN": "2024-03-01T00:00:00",
        "UNTIL": "2024-06-01T00:00:00",
        "EVERY": 7,
        "HORIZON": 14,
        "AREA_SHARES": "0.5, 2",
        "REFIT": "warm",
        "REFIT_EVERY": 4,
        "WINDOW": 365,
        "VALIDATION_SHARE": 20,
        "TOP_CELLS": 10,
        "PLACINGS": 2,
        "WORKERS": 2,
        "LEVEL": 90,
        "SCHEDULER": " tcp://10.0.0.5:8786 ",
        "SEED": 7,
        "OUTPUT": str(tmp_path / "report.html"),
        "TABLE": str(tmp_path / "table.gpkg"),
        "ORIGINS": str(tmp_path / "origins.csv"),
        "HITS": str(tmp_path / "hits.gpkg"),
    }
    done = run("backtest", given)
    request = worker.request
    files = {key: request.pop(key) for key in ("table_output", "origins_output", "hits_output")}
    assert all(Path(file).parent == worker.folders[-1] for file in files.values())
    assert request == {
        "cube": cube_file,
        "models": ["historical_average", "convlstm"],
        "model_files": [model_file],
        "settings": "convlstm.epochs = 5",
        "types": ["Robbery", "Theft, other"],
        "first_origin": "2024-03-01T00:00:00",
        "until": "2024-06-01T00:00:00",
        "every": 7,
        "horizon": 14,
        "area_shares": [0.5, 2.0],
        "refit": "warm",
        "refit_every": 4,
        "window": 365,
        "validation_share": 20.0,
        "top_cells": 10,
        "placings": 2,
        "workers": 2,
        "level": 90.0,
        "scheduler": "tcp://10.0.0.5:8786",
        "seed": 7,
        "output": given["OUTPUT"],
    }
    for key in ("TABLE", "ORIGINS", "HITS"):
        layer = QgsVectorLayer(done.outputs[key], "made", "ogr")
        assert layer.isValid() and layer.featureCount() == (3 if key == "HITS" else 1)


def test_hits_are_coloured_and_play(worker, run, cube_file, tmp_path, project):
    path = str(tmp_path / "hits.gpkg")
    run("backtest", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "r.html"), "HITS": path}, load=True)
    (layer,) = project.mapLayers().values()
    assert layer.renderer().classAttribute() == "kind"
    assert [each.value() for each in layer.renderer().categories()] == ["hit", "false alarm", "missed"]
    times = layer.temporalProperties()
    assert times.isActive()
    assert times.mode() == Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields
    assert (times.startField(), times.endField()) == ("start", "end")
    context = QgsVectorLayerTemporalContext()
    context.setLayer(layer)
    for day, shown in ((7, 3), (8, 0)):
        begin, end = (
            QDateTime.fromString(f"2024-03-{each:02}T06:00:00Z", Qt.DateFormat.ISODate)
            for each in (day, day + 1)
        )
        wanted = times.createFilterString(context, QgsDateTimeRange(begin, end))
        assert len(list(layer.getFeatures(wanted))) == shown


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"MODELS": []}, "MODELS: There is no model to test."),
        (
            {"MODELS": "ewma;kde"},
            "MODELS = ewma;kde: Not all of these are among the choices. Choose from hist",
        ),
        ({"MODEL_FILES": ["/missing/a.gridcast"]}, "MODEL_FILES = "),
        ({"AREA_SHARES": "1; 5"}, "AREA_SHARES = 1; 5: These are not shares of the area in percent."),
        ({"AREA_SHARES": "0"}, "AREA_SHARES = 0: These are not shares of the area in percent."),
        ({"HORIZON": 0}, "HORIZON = 0: This is not a whole number of at least 1."),
        ({"OUTPUT": "report.txt"}, "OUTPUT = report.txt: The file name has another ending"),
        ({"CUBE": "/missing/cube.nc"}, "CUBE = "),
    ],
)
def test_values_that_are_refused(worker, run, cube_file, tmp_path, no_leftovers, given, text):
    usual = {"CUBE": cube_file, "OUTPUT": str(tmp_path / "report.html")}
    with pytest.raises(QgsProcessingException, match=f"(?s){re.escape(text)}"):
        run("backtest", {**usual, **given})
    assert worker.calls == []
