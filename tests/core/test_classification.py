# SPDX-License-Identifier: GPL-2.0-or-later
"""Scores of yes and no: worked out by hand, against plain loops, and where they are not defined."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcast_qgis.core.evaluation.classification import best_threshold, score

LABELS = np.array([[True, True, False], [False, True, False]])
PROBABILITIES = np.array([[0.9, 0.4, 0.6], [0.1, 0.7, 0.2]], np.float32)


def test_scores_worked_out_by_hand():
    found = score(LABELS, PROBABILITIES)
    assert (found.true_positives, found.false_positives) == (2, 1)
    assert (found.false_negatives, found.true_negatives) == (1, 2)
    assert found.samples == 6
    assert found.threshold == 0.5
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1"):
        assert getattr(found, name) == pytest.approx(2 / 3)
    # Of nine pairs one is in the wrong order.
    assert found.auc == pytest.approx(8 / 9)
    # Hits are found at ranks 1, 2 and 4.
    assert found.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found.brier == pytest.approx((0.1**2 + 0.6**2 + 0.6**2 + 0.1**2 + 0.3**2 + 0.2**2) / 6, rel=1e-6)
    likelihood = 0.9 * 0.4 * 0.4 * 0.9 * 0.7 * 0.8
    assert found.log_loss == pytest.approx(-math.log(likelihood) / 6, rel=1e-6)


def test_balanced_accuracy_is_not_taken_in_by_always_no():
    labels = np.arange(100) < 3
    found = score(labels, np.zeros(100))
    assert found.accuracy == 0.97
    assert found.balanced_accuracy == 0.5
    assert found.auc == 0.5
    assert found.average_precision == pytest.approx(0.03)
    assert found.recall == found.f1 == 0
    assert math.isnan(found.precision)


def test_a_sample_at_the_threshold_is_flagged():
    assert score([True, False], [0.3, 0.2], 0.3).accuracy == 1
    assert score([True, False], [0.3, 0.2], 0.2).false_positives == 1


@pytest.mark.parametrize("label", [False, True])
def test_samples_of_one_kind_have_no_order(label):
    found = score(np.full(4, label), np.array([0.1, 0.2, 0.7, 0.9]))
    assert found.accuracy == 0.5
    for name in ("balanced_accuracy", "auc", "average_precision"):
        assert math.isnan(getattr(found, name))
    assert math.isnan(found.recall) != label
    assert found.precision == label
    assert np.isfinite([found.brier, found.log_loss]).all()


def test_no_sample_has_no_score():
    found = score(np.zeros(0, bool), np.zeros(0))
    assert found.samples == 0
    assert found.as_values() == {
        "threshold": 0.5,
        **dict.fromkeys(("true_positives", "false_positives", "false_negatives", "true_negatives"), 0),
        **dict.fromkeys(
            (
                "accuracy",
                "balanced_accuracy",
                "precision",
                "recall",
                "f1",
                "auc",
                "average_precision",
                "brier",
                "log_loss",
            )
        ),
    }
    json.dumps(found.as_values(), allow_nan=False)


def test_certain_and_wrong_costs_much_but_not_everything():
    assert 10 < score([True, False], [0.0, 0.0]).log_loss < 40


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([True], [0.1, 0.2]), ([True], [math.nan]), ([True], [1.5]), ([True], [-0.1])],
)
def test_what_is_no_probability_is_refused(labels, probabilities):
    with pytest.raises(ValueError, match="probabilities"):
        score(labels, probabilities)


SAMPLES = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=30)


def as_arrays(samples) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in samples]), np.array([p for _, p in samples]) / 8


@given(SAMPLES)
def test_auc_is_the_share_of_pairs_in_order(samples):
    labels, p = as_arrays(samples)
    if 0 < labels.sum() < len(labels):
        pairs = [(a > b) + (a == b) / 2 for a in p[labels] for b in p[~labels]]
        assert score(labels, p).auc == pytest.approx(np.mean(pairs))


@given(SAMPLES)
def test_no_threshold_is_better_than_the_best(samples):
    labels, p = as_arrays(samples)
    chosen = best_threshold(labels, p)
    if not labels.any():
        assert chosen == 0.5
        return
    best = score(labels, p, chosen).f1
    assert all(score(labels, p, other).f1 <= best + 1e-12 for other in {*p, 0.0, 0.5})
    # It stays clear of the probabilities themselves.
    assert best == score(labels, p.astype(np.float32), chosen).f1


def test_the_best_threshold_lies_between_the_flagged_and_the_others():
    assert best_threshold([True, True, False], [0.8, 0.6, 0.2]) == pytest.approx(0.4)
    assert best_threshold([True, True], [0.8, 0.6]) == pytest.approx(0.3)
    # Flagging one or all four samples would both be worse.
    assert best_threshold([True, False, True, False], [0.9, 0.8, 0.8, 0.1]) == pytest.approx(0.45)
