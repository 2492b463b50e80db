# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of probabilities, reliability and coverage: against scikit-learn and worked out by hand."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import calibration, metrics

from gridcast_qgis.core.evaluation.probabilities import (
    bin_edges,
    interval_coverage,
    probability_errors,
    reliability,
)

SHAPE = (6, 5, 7)
VALID = np.random.default_rng(4).random(SHAPE[1:]) < 0.8
WHOLE = np.ones((1, 4), bool)


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probability = random.beta(1, 4, SHAPE)
    outcome = random.random(SHAPE) < probability
    probability[:, ~VALID] = np.nan
    outcome[:, ~VALID] = True
    return outcome, probability


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_those_of_scikit_learn(seed):
    outcome, probability = example(seed)
    y, p = outcome[:, VALID].ravel(), probability[:, VALID].ravel()
    found = probability_errors(outcome, probability, VALID)
    assert found.brier.shape == (SHAPE[0],)
    assert found.pooled().brier == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-12)
    assert found.pooled().log_loss == pytest.approx(metrics.log_loss(y, p), rel=1e-12)


def test_certain_and_wrong_costs_much_but_not_everything():
    outcome, probability = np.array([[[True, False, True, False]]]), np.array([[[0.0, 1.0, 1.0, 0.0]]])
    found = probability_errors(outcome, probability, WHOLE).pooled()
    assert found.brier == 0.5
    assert found.log_loss == pytest.approx(metrics.log_loss(outcome.ravel(), probability.ravel()), rel=1e-12)
    assert found.log_loss == pytest.approx(-log(np.finfo(float).eps) / 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("equal", ["width", "count"])
def test_the_reliability_curve_is_that_of_scikit_learn(seed, equal):
    outcome, probability = example(seed)
    y, p = outcome[:, VALID].ravel(), probability[:, VALID].ravel()
    found = reliability(outcome, probability, VALID, bin_edges(probability, VALID, 5, equal)).pooled()
    if equal == "width":
        frequency, mean = calibration.calibration_curve(y, p, n_bins=5)
        filled = found.cells > 0
        assert found.frequency[filled] == pytest.approx(frequency, rel=1e-12)
        assert found.mean_forecast[filled] == pytest.approx(mean, rel=1e-12)
    else:
        assert np.ptp(found.cells) <= 1
    assert found.cells.sum() == len(p)
    assert found.forecast.sum() == pytest.approx(p.sum())
    assert found.observed.sum() == y.sum()


def test_reliability_worked_out_by_hand():
    outcome = np.array([[[1, 0, 1, 0]], [[0, 0, 0, 1]]])
    probability = np.array([[[0.9, 0.1, 0.2, 0.0]], [[0.5, 0.4, 1.0, 0.5]]])
    found = reliability(outcome, probability, WHOLE, np.array([0, 0.5, 1.0]))
    assert found.cells.tolist() == [[3, 1], [1, 3]]
    pooled = found.pooled()
    assert pooled.mean_forecast == pytest.approx([0.7 / 4, 2.9 / 4])
    assert pooled.frequency.tolist() == [1 / 4, 2 / 4]
    assert pooled.calibration_error == pytest.approx((abs(0.7 - 1) + abs(2.9 - 2)) / 8)
    # Never above the mean error of single cells, and each step has its own.
    assert found.calibration_error == pytest.approx([(0.7 + 0.1) / 4, (0.4 + 1.0) / 4])


def test_counts_have_a_reliability_too():
    observed = np.array([[[0, 0, 3, 5]]])
    expected = np.array([[[0.5, 0.5, 4.0, 6.0]]])
    found = reliability(observed, expected, WHOLE, np.array([0.0, 1.0, 5.0])).pooled()
    # A forecast beyond the last edge counts in the last bin.
    assert found.cells.tolist() == [2, 2]
    assert found.frequency.tolist() == [0, 4]
    assert found.mean_forecast.tolist() == [0.5, 5]


def test_bins_without_cells_are_not_defined():
    found = reliability(np.ones((1, 1, 4)), np.full((1, 1, 4), 0.1), WHOLE, bin_edges(None, None, 4, "width"))
    assert isnan(found.pooled().frequency[2])
    assert found.pooled().calibration_error == pytest.approx(0.9)


def test_equal_forecasts_stay_in_one_bin():
    forecast = np.array([[[0.2, 0.2, 0.2, 0.7]]])
    assert bin_edges(forecast, WHOLE, 4).tolist() == [0.2, 0.7]
    assert bin_edges(np.full((1, 1, 4), 0.3), WHOLE, 4).tolist() == [0.3, 1.3]
    with pytest.raises(ValueError, match="equal in one of"):
        bin_edges(forecast, WHOLE, 4, "number")


@given(st.integers(0, 40), st.integers(1, 12), st.sampled_from(["width", "count"]))
def test_a_forecast_that_comes_true_in_each_bin_is_calibrated(seed, bins, equal):
    _, probability = example(seed)
    found = reliability(probability, probability, VALID, bin_edges(probability, VALID, bins, equal))
    assert found.calibration_error == pytest.approx(0, abs=1e-12)


def test_coverage_worked_out_by_hand():
    observed = np.array([[[0, 1, 2, 9]], [[1, 1, 1, 1]]])
    lower = np.array([[[0, 0, 3, 0]], [[1, 2, 0, 0]]])
    upper = np.array([[[0, 4, 4, 8]], [[1, 3, 1, 2]]])
    found = interval_coverage(observed, lower, upper, np.array([[True, True, True, False]]))
    assert found.coverage == pytest.approx([2 / 3, 2 / 3])
    assert found.pooled().mean_width == pytest.approx((4 + 1 + 1 + 1) / 6)
    assert asdict(found.pooled()) == {"cells": 6, "within": 4, "width": 7}


def test_intervals_of_the_right_distribution_cover_as_often_as_they_say():
    random = np.random.default_rng(0)
    rate = random.gamma(2, 2, (20, 20))
    observed = random.poisson(rate, (50, 20, 20))
    low, high = (np.broadcast_to(np.round(rate + s * 1.64 * np.sqrt(rate)), observed.shape) for s in (-1, 1))
    found = interval_coverage(observed, low, high, np.ones((20, 20), bool)).pooled()
    assert 0.88 < found.coverage < 0.96
