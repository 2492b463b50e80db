# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that tunes a model, on a small network: its files, what they say, and what a break leaves."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
from scaledmodels import register
from synthetic import Recorder, files_in, make_cube

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.modelfile import load_model
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.tune import GivenUp, Search, judge

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

SMALL = "filters = 1; kernel = 1; epochs = 1; lookback = 2; batch_size = 64; learning_rate = 0.001..0.1 log"
EXTRA = {"report_output": "report.html", "trials_output": "trials.gpkg", "cube_output": "best.nc"}


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cubes") / "cube.nc"
    make_cube(40, 4, 4, types=("events",)).write(path)
    return path


def tune(cube: Path, folder: Path, reporter: Reporter | None = None, **fields):
    request = {
        "cube": str(cube),
        "output": str(folder / "model.gridcast"),
        "model": "convlstm",
        "ranges": SMALL,
        "trials": 2,
    }
    return run_job("tune", request | fields, reporter or Reporter())


@pytest.fixture(scope="module")
def tuned(cube, tmp_path_factory, eager):
    """A folder with all that a search makes, the outputs of the job and what it said."""
    folder = tmp_path_factory.mktemp("tuned")
    recorder = Recorder()
    files = {key: str(folder / name) for key, name in EXTRA.items()}
    outputs = tune(
        cube, folder, recorder, **files, ranges=f"{SMALL}; coarsen = 1, 2", study=str(folder / "study.json")
    )
    return folder, outputs, recorder


def test_the_files_and_figures(tuned):
    folder, outputs, recorder = tuned
    assert files_in(folder) == sorted(["model.gridcast", "study.json", *EXTRA.values()])
    assert (outputs["trials"], outputs["pruned"], outputs["failed"]) == (2, 0, 0)
    assert outputs["best_score"] <= outputs["default_score"]
    assert outputs["gain"] == pytest.approx(100 * (1 - outputs["best_score"] / outputs["default_score"]))
    assert outputs["verdict"] in recorder.texts("info")
    assert json.loads((folder / "study.json").read_text())["schema"] == "study/1"


def test_the_model_is_trained_with_the_best_settings_and_says_how_they_were_found(tuned):
    folder, outputs, _ = tuned
    saved = load_model(folder / "model.gridcast")
    trials = json.loads((folder / "study.json").read_text())["trials"]
    best = min(trials, key=lambda trial: trial["score"])
    for name, value in best["settings"].items():
        assert name == "coarsen" or saved.manifest["settings"][name] == value
    # What any training writes, and the search.
    assert {"cube", "split", "scores", "training", "versions"} <= saved.manifest.keys()
    record = saved.manifest["tuning"]
    assert record["settings"] == best["settings"]
    assert record["best_trial"] == best["number"] + 1
    assert (record["objective"], record["seed"], record["trials"]) == ("deviance", 1, 2)
    assert record["best_score"] == outputs["best_score"]
    assert "learning_rate = 0.001..0.1 log" in record["ranges"]


def test_the_cube_of_the_best_cells_fits_the_model(cube, tuned):
    folder, outputs, _ = tuned
    best = Cube.read(folder / "best.nc")
    factor = int(re.search(r"coarsen = (\d)", outputs["settings"])[1])
    assert best.fingerprint == Cube.read(cube).coarsened(factor).fingerprint
    saved = load_model(folder / "model.gridcast")
    saved.check_fits(best)
    assert np.isfinite(saved.model.predict_next(best, 40, 41)[0, best.grid.valid]).all()


def test_the_table_has_a_row_a_trial(tuned):
    folder, outputs, _ = tuned
    meta, _, geometry, columns = pyogrio.raw.read(folder / "trials.gpkg")
    found = dict(zip(meta["fields"], columns))
    assert geometry is None
    assert list(found) == [
        *("trial", "state", "score", "gain_pct", "learning_rate", "coarsen", "epochs", "seconds", "error")
    ]
    assert list(found["trial"]) == [1, 2] and list(found["state"]) == ["complete"] * 2
    assert min(found["score"]) == outputs["best_score"]
    assert found["gain_pct"].max() == pytest.approx(outputs["gain"])
    assert (found["learning_rate"][0], found["coarsen"][0]) == (0.002, 1)  # the defaults


def test_the_report_is_complete_in_itself(tuned):
    folder, outputs, _ = tuned
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert outputs["verdict"] in page and outputs["settings"] in page
    assert "<title>Tuning of the model: ConvLSTM</title>" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(pictures) == 2  # two trials are too few to tell what mattered
    assert all(b"<svg" in base64.b64decode(picture) for picture in pictures)
    assert "There are too few complete trials to tell" in page


def test_a_network_is_given_up_in_the_middle_and_a_cancel_is_heard(cube):
    """Both come out of the training loop as they went in."""
    data = Cube.read(cube)
    judging = Search("convlstm", SMALL).prepare(data).judging
    assert judging.by_epoch
    settings = {"filters": 1, "kernel": 1, "epochs": 3, "lookback": 2, "batch_size": 8}
    seen = []

    def watch(*value):
        seen.append(value)
        return value[1] == 1

    with pytest.raises(GivenUp):
        judge(data, judging, settings, watch=watch)
    assert [value[:2] for value in seen] == [(0, 0), (0, 1)]
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress")
    with pytest.raises(JobCancelled):
        judge(data, judging, settings, reporter)
    assert sum(event["event"] == "progress" for event in reporter.events) == 1


# -- with a model that takes no time -------------------------------------------------------------


@pytest.fixture
def scaled(cube, tmp_path, monkeypatch):
    """Tune it."""
    register(monkeypatch.setitem)

    def call(reporter=None, **fields):
        return tune(cube, tmp_path, reporter, **{"model": "scaled", "ranges": ""} | fields)

    return call


def test_what_mattered_and_what_failed_is_shown(scaled, tmp_path):
    report = tmp_path / "report.html"
    ranges = "factor = 0.5..2 log; cells = all, <b>all</b>, none"
    outputs = scaled(ranges=ranges, trials=20, report_output=str(report))
    page = report.read_text(encoding="utf-8")
    assert outputs["failed"] >= 1 and "factor mattered most" in outputs["verdict"]
    assert "How much each setting mattered" in page
    assert "Trials that failed" in page and "CELLS = none: There are no cells. Choose all." in page
    assert "<b>all</b>" not in page and "&lt;b&gt;all&lt;/b&gt;" in page


def test_defaults_that_are_best_are_trained(scaled, tmp_path):
    outputs = scaled(ranges="factor = 8..9", trials=3)
    assert "keep the defaults" in outputs["verdict"]
    assert (outputs["gain"], outputs["best_score"]) == (0, outputs["default_score"])
    assert load_model(tmp_path / "model.gridcast").manifest["settings"]["factor"] == 2.0


def test_a_cancelled_search_leaves_the_study_alone(scaled, tmp_path):
    def first(event):
        return "Trial 1 of" in str(event.get("text"))

    files = {key: str(tmp_path / name) for key, name in EXTRA.items()} | {
        "study": str(tmp_path / "study.json")
    }
    with pytest.raises(JobCancelled):
        scaled(Recorder(cancel_when=first), **files)
    assert files_in(tmp_path) == ["study.json"]
    recorder = Recorder()
    assert scaled(recorder, **files)["trials"] == 2
    assert "The study has 1 trial; the search goes on after it." in recorder.texts("info")
    assert files_in(tmp_path) == sorted(["model.gridcast", "study.json", *EXTRA.values()])


@pytest.mark.parametrize("stage", ["Training", "Writing the model", "Writing"])
def test_a_cancel_after_the_search_leaves_no_file(scaled, tmp_path, stage):
    files = {key: str(tmp_path / name) for key, name in EXTRA.items()} | {
        "study": str(tmp_path / "study.json")
    }
    with pytest.raises(JobCancelled):
        scaled(Recorder(cancel_when=lambda event: event == {"event": "stage", "name": stage}), **files)
    assert files_in(tmp_path) == ["study.json"]


def test_progress_never_runs_backwards(scaled):
    recorder = Recorder()
    scaled(recorder, trials=3, folds=2)
    values = [event["value"] for event in recorder.events if event["event"] == "progress"]
    assert values == sorted(values) and values[0] == 0 and 80 < values[-1] <= 100


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"trials": 0}, "TRIALS = 0: There must be at least one trial. 20 is a good start."),
        ({"time_limit": 0}, "TIME_LIMIT = 0: The time limit must be above 0 minutes. Leave it empty for no"),
        (
            {"ranges": "coarsen = 1..2"},
            "CUBE_OUTPUT = not set: A model for larger cells needs a cube of such",
        ),
        ({"study": "/no/such/folder/study"}, "STUDY = /no/such/folder/study: The file cannot be written:"),
        ({"until": "2030-01-01"}, "UNTIL = 2030-01-01: The time lies outside the cube."),
        ({"types": ["theft"]}, "TYPES = theft: The cube has no type 'theft'."),
    ],
)
def test_requests_that_are_refused(scaled, tmp_path, fields, complaint):
    with pytest.raises(InputError) as caught:
        scaled(**fields)
    assert complaint in caught.value.text()
    assert files_in(tmp_path) == []


_SEARCH = """
import sys
sys.path.insert(0, sys.argv[1])
import scaledmodels
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.training.tune import GivenUp, Search, judge

scaledmodels.register()
cube = Cube.read(sys.argv[2])
prepared = Search("scaled", "factor = 0.5..2; level = 0..99").prepare(cube)
study = prepared.open_study(cube, sys.argv[3])
prepared.run(study, 10_000, prepared.here(cube, study))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_search_goes_on_to_what_it_would_have_come_to(cube, tmp_path, monkeypatch):
    path = tmp_path / "study.json"
    process = subprocess.Popen(
        [sys.executable, "-c", _SEARCH, str(Path(__file__).parent), str(cube), str(path)]
    )
    try:
        while not path.exists() or path.stat().st_size < 3000:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(json.loads(path.read_text())["trials"])
    register(monkeypatch.setitem)
    data = Cube.read(cube)
    prepared = Search("scaled", "factor = 0.5..2; level = 0..99").prepare(data)
    studies = prepared.open_study(data, path), prepared.open_study(data, None)
    assert done >= 2 and len(studies[0].trials) == done
    for study in studies:
        prepared.run(study, done + 2, prepared.here(data, study))
    one, two = ([dataclasses.replace(trial, seconds=0) for trial in study.trials] for study in studies)
    assert one == two
