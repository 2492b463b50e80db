# SPDX-License-Identifier: GPL-2.0-or-later
"""A marker in the future is seen nowhere: not in fitting, scaling, candidates, calibration, trust, tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import changed, make_cube

from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.modelfile import load_model
from gridcast_qgis.core.reporter import Reporter

pytestmark = [
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

STEPS, KNOWN = 80, 60

#: Jobs that choose something on past steps: the request, and what each chooses.
JOBS = {
    "weights, scaling, base rate, trust": ("train", {"model": "gridcast", "settings": {"epochs": 1}}),
    "calibration of probabilities": (
        "train",
        {
            "model": "shotspotter",
            "settings": {
                "epochs": 1,
                "width": 0.1,
                "lookback": 2,
                "calibrate": "isotonic",
                "type_head": True,
            },
        },
    ),
    "candidates, labels, threshold": (
        "train",
        {
            "model": "spatiolstm",
            "settings": {
                "epochs": 1,
                "batch_size": 512,
                "units": 2,
                "dense": 2,
                "lookback": 3,
                "label_value": 4.0,
            },
        },
    ),
    "trees, bins": ("train", {"model": "boosted_trees", "settings": {"trees": 10}}),
    "triggering, background": ("train", {"model": "self_exciting", "settings": {"passes": 3}}),
    "settings": ("tune", {"model": "ewma", "trials": 4, "folds": 2}),
}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """Two files of the same past; in one of them a crowd stands where there was nobody, from step 60 on."""
    folder = tmp_path_factory.mktemp("future")
    cube = make_cube(STEPS)
    marked = cube.events.copy()
    marked[KNOWN:] = 900
    files = folder / "plain.nc", folder / "marked.nc"
    cube.write(files[0])
    changed(cube, marked * cube.grid.valid).write(files[1])
    return cube, [str(file) for file in files]


def forget_times(values: object) -> object:
    """Return plain values without times and names of files."""
    if isinstance(values, dict):
        left = ("seconds", "created", "cube", "data", "output", "trained_until", "versions", "tuning")
        return {key: forget_times(value) for key, value in values.items() if key not in left}
    return [forget_times(value) for value in values] if isinstance(values, list) else values


@pytest.mark.parametrize("what", JOBS)
def test_a_marker_in_the_future_is_seen_nowhere(cubes, tmp_path, what):
    cube, files = cubes
    job, fields = JOBS[what]
    until = cube.axis.isoformat(KNOWN - 1)[1][:19]
    saved = []
    for number, file in enumerate(files):
        output = tmp_path / f"{number}.gridcast"
        run_job(job, {"cube": file, "output": str(output), "until": until} | fields, Reporter())
        saved.append(load_model(output))
    one, two = saved
    assert forget_times(one.manifest) == forget_times(two.manifest)
    states = [each.model.state() for each in saved]
    assert forget_times(states[0].values) == forget_times(states[1].values)
    for name, array in states[0].arrays.items():
        assert np.array_equal(array, states[1].arrays[name], equal_nan=True), name
    for name, network in states[0].networks.items():
        for a, b in zip(network.get_weights(), states[1].networks[name].get_weights(), strict=True):
            assert a.tobytes() == b.tobytes()
    # What is forecast from the known steps is the same; what is forecast later is not.
    plain, marked = (type(cube).read(file) for file in files)
    for step, alike in ((KNOWN, True), (KNOWN + 3, False)):
        said = [each.model.predict_next(c, step, step + 1) for each, c in zip(saved, (plain, marked))]
        assert np.allclose(*said, rtol=1e-5, equal_nan=True) == alike


def test_a_backtest_sees_no_marker_either(cubes, tmp_path):
    cube, files = cubes
    until = cube.axis.isoformat(KNOWN - 1)[1][:19]
    made = []
    for number, file in enumerate(files):
        outputs = run_job(
            "backtest",
            {
                "cube": file,
                "output": str(tmp_path / f"{number}.html"),
                "models": ["historical_average", "ewma", "boosted_trees"],
                "settings": "boosted_trees.trees = 10",
                "until": until,
                "refit": "anew",
                "refit_every": 5,
            },
            Reporter(),
        )
        made.append(forget_times(outputs))
    assert json.dumps(made[0]) == json.dumps(made[1])
    assert Path(tmp_path / "0.html").stat().st_size > 10_000
