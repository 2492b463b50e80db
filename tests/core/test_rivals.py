# SPDX-License-Identifier: GPL-2.0-or-later
"""The rivals of the Spatio-LSTM: the same samples, and fair play."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Recorder, changed, make_cube

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation import rivals
from gridcast_qgis.core.evaluation.rivals import ALWAYS_COLD, RIVALS, compare
from gridcast_qgis.core.models.classifier import Inputs, Samples
from gridcast_qgis.core.models.spatiolstm import CellWindows, SpatioLSTMSettings
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

SPLIT = Split(3, 60, 60, 75, 75, 90)
SETTINGS = {"lookback": 3, "label_value": 5}


def busy_cube(steps: int = 90) -> Cube:
    """Return a cube whose cells are busy for a while and then calm again."""
    random = np.random.default_rng(4)
    cube = make_cube(steps)
    level = np.zeros((steps, 6, 7))
    for step in range(1, steps):
        level[step] = 0.9 * level[step - 1] + random.normal(0, 0.5, (6, 7))
    events = random.poisson(np.exp(level))[:, None] * cube.grid.valid
    return Cube(cube.grid, cube.axis, ("events",), events.astype(np.float32))


@pytest.fixture(scope="module")
def compared():
    cube = busy_cube()
    reporter = Recorder()
    return compare(cube, SPLIT, SpatioLSTMSettings(**SETTINGS), reporter), cube, reporter


def test_all_rivals_are_judged_on_the_very_samples_of_the_test(compared):
    scores, cube, reporter = compared
    assert set(scores) == {
        "always_cold",
        "decision_tree",
        "random_forest",
        "gaussian_nb",
        "lda",
        "svc",
        "mlp",
        "logistic_regression",
    }
    samples = Samples.draw(cube, SPLIT, SpatioLSTMSettings(**SETTINGS))
    test = samples.test > 0
    for found in scores.values():
        assert found.samples == test.sum()
        assert found.true_positives + found.false_negatives == (samples.labels & test).sum()
        assert np.isfinite([found.brier, found.log_loss]).all()
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert len(progress) == len(RIVALS)
    assert progress == sorted(progress)


def test_rivals_learn_something(compared):
    scores, _, _ = compared
    cold = scores[ALWAYS_COLD]
    assert cold.recall == 0
    assert cold.auc == 0.5
    for name in RIVALS:
        assert scores[name].auc > 0.6, name
        assert scores[name].f1 > 0.2, name
    assert scores["logistic_regression"].log_loss < cold.log_loss


def test_a_comparison_can_be_repeated(compared):
    scores, cube, _ = compared
    again = compare(cube, SPLIT, SpatioLSTMSettings(**SETTINGS), Reporter())
    for name, found in scores.items():
        assert again[name].as_values() == found.as_values(), name


def test_what_is_judged_on_is_not_learned_from(compared):
    scores, cube, _ = compared
    # Test labels turned round: the same probabilities are as wrong as they were right.
    events = cube.events.copy()
    events[75:] = events[75:].max() - events[75:]
    settings = SpatioLSTMSettings(**SETTINGS)
    one, two = (Samples.draw(c, SPLIT, settings) for c in (cube, changed(cube, events)))
    assert (one.train == two.train).all()
    found = compare(changed(cube, events), SPLIT, settings, Reporter())
    assert found["lda"].threshold == scores["lda"].threshold


def test_features_are_windows_and_places_side_by_side():
    cube = busy_cube()
    settings = SpatioLSTMSettings(**SETTINGS)
    samples = Samples.draw(cube, SPLIT, settings)
    windows = CellWindows(Inputs.learn(cube, (), False, samples.candidates, 60), 3, 3, True)
    x, y, weight = rivals._table(windows, samples, samples.validation, True)
    assert x.shape == (len(y), 3 * (9 + 4) + 2)
    assert (weight == 1).all()
    without, _, _ = rivals._table(windows, samples, samples.validation, False)
    assert (without == x[:, :-2]).all()


def test_without_a_test_period_the_validation_is_judged(compared):
    _, cube, _ = compared
    settings = SpatioLSTMSettings(**SETTINGS)
    found = compare(cube, Split(3, 60, 60, 75), settings, Reporter())
    assert found["lda"].samples == (Samples.draw(cube, SPLIT, settings).validation > 0).sum()


@pytest.mark.parametrize("balance", ["weights", "undersample"])
def test_balanced_rivals_tell_probabilities_of_the_real_world(compared, monkeypatch, balance):
    plain, cube, _ = compared
    settings = SpatioLSTMSettings(**SETTINGS, balance=balance)
    found = compare(cube, SPLIT, settings, Reporter())
    assert found[ALWAYS_COLD].log_loss == pytest.approx(plain[ALWAYS_COLD].log_loss, rel=1e-5)
    monkeypatch.setattr(rivals, "corrected", lambda probability, odds_ratio: probability)
    as_balanced = compare(cube, SPLIT, settings, Reporter())
    for name in ("lda", "logistic_regression"):
        assert found[name].log_loss < 0.9 * as_balanced[name].log_loss, name
        # The order and the flags are the same.
        assert found[name].auc == pytest.approx(as_balanced[name].auc, abs=1e-3)
        assert found[name].f1 == pytest.approx(as_balanced[name].f1)


def test_a_support_vector_machine_is_spared_too_many_samples(monkeypatch, compared):
    _, cube, _ = compared
    seen = []
    fit = rivals.SVC.fit
    monkeypatch.setattr(rivals, "_SVC_SAMPLES", 500)
    monkeypatch.setattr(
        rivals.SVC, "fit", lambda self, x, *rest, **more: seen.append(len(x)) or fit(self, x, *rest, **more)
    )
    compare(cube, SPLIT, SpatioLSTMSettings(**SETTINGS), Reporter())
    assert seen == [500]


def test_samples_of_one_kind_cannot_be_told_apart(compared):
    _, cube, _ = compared
    same = changed(cube, np.ones_like(cube.events))
    settings = SpatioLSTMSettings(lookback=3, label_rule="threshold", label_value=1)
    with pytest.raises(InputError) as caught:
        compare(same, SPLIT, settings, Reporter())
    assert caught.value.text().startswith(
        "LABEL_VALUE = 1: All training samples are of one kind, so there is nothing to tell apart."
    )


def test_a_comparison_can_be_cancelled(compared):
    _, cube, _ = compared
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress")
    with pytest.raises(JobCancelled):
        compare(cube, SPLIT, SpatioLSTMSettings(**SETTINGS), reporter)
    assert len(reporter.events) == 1
