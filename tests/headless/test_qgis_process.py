# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin from the zip through `qgis_process`: listing, help, runs with JSON and with key=value."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import CHECKOUT, DAYS

ALGORITHMS = [
    "buildgridfromlayer",
    "checkevents",
    "rasterizeeventstocube",
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


def test_a_fresh_profile_lists_all_algorithms(call):
    answer = call("list")
    assert answer.status == 0
    listed = [line.split("\t")[1] for line in answer.text.splitlines() if line.startswith("\tgridcast:")]
    assert sorted(listed) == sorted(f"gridcast:{name}" for name in ALGORITHMS)


@pytest.mark.parametrize("name", ["buildgridfromlayer", "forecastfrompoints"])
def test_help_is_readable(call, name):
    answer = call("help", f"gridcast:{name}")
    assert answer.status == 0
    assert "STUDY_AREA: Study area" in answer.text
    assert "<p>" not in answer.text and "<br" not in answer.text


def test_an_unknown_parameter_value_is_a_failure(call, tmp_path):
    answer = call("run", "gridcast:trainconvlstm", "--CUBE=/none.nc", f"--OUTPUT={tmp_path / 'm.gridcast'}")
    assert answer.status == 1
    assert "CUBE = /none.nc: The file does not exist." in answer.text


# -- the chain -----------------------------------------------------------------------------------


def test_grid(chain):
    results = chain.results["buildgridfromlayer"]
    assert (results["ROW_COUNT"], results["COLUMN_COUNT"]) == (8, 10)
    assert results["OUTPUT"] == chain["grid.tif"]
    assert results["AREA_KM2"] == pytest.approx(18.75, rel=0.01)
    with sqlite3.connect(chain["cells.gpkg"]) as cells:
        assert cells.execute("select count(*) from cells").fetchone()[0] == results["CELLS_INSIDE"]


def test_cube(chain):
    results = chain.results["rasterizeeventstocube"]
    assert results["EVENTS_READ"] == 40 * DAYS
    assert results["EVENTS_USED"] + results["EVENTS_DROPPED"] == results["EVENTS_READ"]
    assert results["EVENTS_DROPPED"] == sum(
        value for key, value in results.items() if key.startswith("DROPPED_")
    )
    assert (results["STEPS"], results["TYPE_COUNT"]) == (DAYS, 2)


def test_what_is_done_with_events_and_cubes_besides(chain, call, tmp_path):
    """Check the events, append them once more, add covariates, export: at night, with key=value."""
    events = (f"--INPUT={chain.events}", "--TIME_FIELD=when", "--TYPE_FIELD=kind")
    report = tmp_path / "Prüfung.html"
    answer = call("run", "gridcast:checkevents", *events, "--TIME_ZONE=America/Toronto", f"--OUTPUT={report}")
    assert answer.status == 0, answer.text
    assert "<html" in report.read_text(encoding="utf-8") and f"EVENTS:\t{40 * DAYS}" in answer.text

    rich, longer, bands = (tmp_path / name for name in ("rich.nc", "longer.nc", "bands.tif"))
    answer = call(
        "run",
        "gridcast:addcovariates",
        f"--CUBE={chain['cube.nc']}",
        "--COUNTRY=CA",
        "--SUBDIVISION=ON",
        "--CALENDAR=encoded",
        f"--OUTPUT={rich}",
    )
    assert answer.status == 0, answer.text
    assert "public_holiday" in answer.text

    # Every event is counted already; only the given end makes the cube longer.
    last = "2024-03-04T00:00:00"
    answer = call(
        "run", "gridcast:appendevents", f"--CUBE={rich}", *events, f"--END={last}", f"--OUTPUT={longer}"
    )
    assert answer.status == 0, answer.text
    assert "EVENTS_USED:\t0" in answer.text and "STEPS_NEW:\t3" in answer.text
    assert f"EVENTS_LEFT_ASIDE:\t{40 * DAYS}" in answer.text
    assert "add these covariates again" in answer.text

    answer = call("run", "gridcast:exportcube", f"--CUBE={longer}", "--VARIABLE=Robbery", f"--OUTPUT={bands}")
    assert answer.status == 0, answer.text
    assert f"BANDS:\t{DAYS + 3}" in answer.text and bands.with_suffix(".qml").is_file()


@pytest.mark.parametrize("name", ["trainconvlstm", "trainheteroensemble"])
def test_training(chain, name):
    results = chain.results[name]
    assert results["EPOCHS_RUN"] == 1
    assert results["PAI"] > 0 and results["PAI_BASELINE"] > 0
    assert results["VALIDATION_MSE"] > 0 and results["BASELINE_MSE"] > 0
    assert Path(results["OUTPUT"]).is_file()


def test_training_a_classifier(chain):
    results = chain.results["trainhotspotclassifier"]
    assert 1 <= results["EPOCHS_RUN"] <= 2
    assert 0 < results["AUC"] <= 1 and 0 < results["AUC_BASELINE"] <= 1
    assert results.keys() >= {"THRESHOLD", "F1", "AVERAGE_PRECISION"} and "SKILL" not in results
    assert Path(results["OUTPUT"]).is_file()


def test_hot_spots_of_a_classifier(chain, call, tmp_path):
    """A model is applied to the past and compared with what happened, all with key=value."""
    maps = {key: tmp_path / f"{key.lower()} é.tif" for key in ("PROBABILITY", "CLASSES")}
    answer = call(
        "run",
        "gridcast:hotspotclassify",
        f"--MODEL={chain['classifier.gridcast']}",
        f"--CUBE={chain['cube.nc']}",
        "--ORIGIN=2024-02-20T00:00:00",
        "--RULE=cells",
        "--TOP_CELLS=6",
        f"--OUTPUT={tmp_path / 'spots.gpkg'}",
        *(f"--{key}={path}" for key, path in maps.items()),
    )
    assert answer.status == 0, answer.text
    printed = dict(line.split(":\t", 1) for line in answer.text.splitlines() if ":\t" in line)
    assert 0 <= float(printed["F1"]) <= 1 and 0 < float(printed["ACCURACY"]) <= 1
    assert float(printed["EVENTS_OBSERVED"]) > 0
    assert all(path.is_file() and path.with_suffix(".qml").is_file() for path in maps.values())


def test_forecast(chain):
    results = chain.results["forecastheatmap"]
    assert results["FIRST_STEP"] == "2024-03-01T00:00:00-05:00/2024-03-02T00:00:00-05:00"
    assert results["LAST_STEP"].startswith("2024-03-03T00:00:00-05:00/")
    assert 30 < results["EXPECTED_EVENTS"] / 3 < 50  # 40 a day happened
    assert (chain.folder / "forecast.qml").is_file()


def test_hot_spots(chain):
    results = chain.results["hotspotclassify"]
    assert results["HOT_SPOTS"] > 0 and results["PAI"] is None
    assert results["AREA_KM2"] <= 1.9
    with sqlite3.connect(chain["hotspots.gpkg"]) as spots:
        ranks = [row[0] for row in spots.execute("select rank from hotspots order by rank")]
        assert ranks == list(range(1, int(results["HOT_SPOTS"]) + 1))
        assert spots.execute("select count(*) from layer_styles where useAsDefault").fetchone()[0] == 1


def test_no_temporary_file_is_left(chain, call):
    left = [path for path in call.temporary_folder().rglob("*") if path.name.startswith("gridcast-")]
    assert left == []


def test_key_value_input_and_scores(chain, call, tmp_path):
    """Hot spots of past days, scored against what happened, all with key=value."""
    forecast, spots = tmp_path / "past forecast.tif", tmp_path / "spots é.geojson"
    answer = call(
        "run",
        "gridcast:forecastheatmap",
        f"--CUBE={chain['cube.nc']}",
        f"--MODEL={chain['model.gridcast']}",
        "--HORIZON=2",
        "--ORIGIN=2024-02-20T00:00:00",
        f"--OUTPUT={forecast}",
    )
    assert answer.status == 0, answer.text
    assert "FIRST_STEP:\t2024-02-20T00:00:00-05:00/2024-02-21T00:00:00-05:00" in answer.text
    answer = call(
        "run",
        "gridcast:hotspotclassify",
        f"--INPUT={forecast}",
        "--AREA_SHARE=10",
        f"--CUBE={chain['cube.nc']}",
        f"--OUTPUT={spots}",
    )
    assert answer.status == 0, answer.text
    printed = dict(line.split(":\t", 1) for line in answer.text.splitlines() if ":\t" in line)
    assert 0 < float(printed["EVENTS_HIT"]) < float(printed["EVENTS_OBSERVED"])
    assert float(printed["PAI"]) > 1 and float(printed["PAI_BASELINE"]) > 1
    features = json.loads(spots.read_text(encoding="utf-8"))["features"]
    assert sum(feature["properties"]["observed"] for feature in features) == float(printed["EVENTS_HIT"])

    events = (f"--INPUT={chain.events}", "--TIME_FIELD=when", "--TIME_ZONE=America/Toronto")
    period = ("--START=2024-02-20T00:00:00", "--END=2024-02-22T00:00:00")
    areas = (f"--FLAGGED={spots}", f"--STUDY_AREA={chain.city}", *period)
    for source in (areas, (f"--FORECAST={forecast}",)):
        table = tmp_path / f"measures {len(source)}.csv"
        answer = call("run", "gridcast:scoreforecast", *source, *events, f"--OUTPUT={table}")
        assert answer.status == 0, answer.text
        scored = dict(line.split(":\t", 1) for line in answer.text.splitlines() if ":\t" in line)
        assert float(scored["PAI"]) > 1
        assert table.read_text(encoding="utf-8").startswith("measure,budget,value,meaning")
        happened = float(printed["EVENTS_OBSERVED"])
        if source is areas:
            # Cells that the border cuts also hold events beyond it.
            assert 0.9 * happened < float(scored["EVENTS"]) <= happened
            assert 0.9 * float(printed["EVENTS_HIT"]) < float(scored["HITS"]) <= float(printed["EVENTS_HIT"])
        else:
            assert float(scored["EVENTS"]) == happened


def test_the_shipped_model_is_a_file_as_well(call):
    answer = call("help", str(CHECKOUT / "resources" / "models" / "gridcast_forecast.model3"))
    assert answer.status == 0, answer.text
    assert "FORECAST:OUTPUT" in answer.text


def test_the_shipped_model(call, inputs, json_input, tmp_path):
    answer = call.json(
        "gridcast:forecastfrompoints",
        {
            "INPUT": inputs.events,
            "TIME_FIELD": "when",
            "STUDY_AREA": inputs.city,
            "CELL_SIZE": 1000,
            "TIME_ZONE": "America/Toronto",
            "EPOCHS": 1,
            "HORIZON": 2,
            "AREA_SHARE": 10,
            "FORECAST:OUTPUT": str(tmp_path / "f.tif"),
            "HOTSPOTS:OUTPUT": str(tmp_path / "h.gpkg"),
        },
    )
    assert answer.status == 0, answer.text
    assert answer.results["FORECAST:OUTPUT"] == str(tmp_path / "f.tif")
    assert {path.name for path in tmp_path.iterdir()} >= {"f.tif", "f.qml", "h.gpkg"}


def test_the_sample_loads(call, json_input, tmp_path):
    answer = call.json("gridcast:loadsample", {"OUTPUT": str(tmp_path / "sample.gpkg")})
    assert answer.status == 0, answer.text
    assert answer.results["TIME_ZONE"] == "America/Toronto"
    with sqlite3.connect(tmp_path / "sample.gpkg") as sample:
        assert sample.execute("select count(*) from events").fetchone()[0] > 200_000
        assert sample.execute("select count(*) from boundary").fetchone()[0] == 1
