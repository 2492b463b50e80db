# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of order: against scikit-learn where nothing is tied, by hand where it is; curves."""

from __future__ import annotations

from math import isnan, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from gridcast_qgis.core.evaluation.curves import budgets, hit_curve
from gridcast_qgis.core.evaluation.metrics import area_hits
from gridcast_qgis.core.evaluation.ranking import ranking, top_cells

SHAPE = (5, 6, 7)
VALID = np.random.default_rng(5).random(SHAPE[1:]) < 0.8
ROW = np.ones((1, 4), bool)


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    forecast = random.gamma(1, 0.3, SHAPE)
    observed = random.poisson(forecast).astype(np.float32)
    observed[1] = 0
    observed[:, ~VALID], forecast[:, ~VALID] = 9, np.nan
    return observed, forecast


@pytest.mark.parametrize("seed", range(3))
def test_the_order_within_steps_is_that_of_scikit_learn(seed):
    observed, forecast = example(seed)
    found = ranking(observed > 0, np.round(forecast, 1), VALID)
    for step in (0, 2, 3, 4):
        y, p = observed[step, VALID] > 0, np.round(forecast[step, VALID], 1)
        assert found.auc[step] == pytest.approx(metrics.roc_auc_score(y, p), rel=1e-12)
        assert found.average_precision[step] == pytest.approx(
            metrics.average_precision_score(y, p), rel=1e-12
        )
    assert isnan(found.auc[1]) and isnan(found.average_precision[1])


def test_pairs_are_pooled_and_steps_averaged():
    outcome = np.array([[[1, 0, 0, 0]], [[1, 1, 0, 1]], [[0, 0, 0, 0]]], bool)
    forecast = np.array([[[3.0, 4, 1, 1]], [[2, 2, 2, 1]], [[4, 3, 2, 1]]])
    found = ranking(outcome, forecast, ROW)
    assert found.pairs.tolist() == [3, 3, 0]
    assert found.in_order.tolist() == [2, 1, 0]
    assert found.pooled().auc == 0.5
    assert found.pooled().average_precision == pytest.approx((1 / 2 + (2 / 3 * 2 / 3 + 1 / 3 * 3 / 4)) / 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_gain_without_ties_is_that_of_scikit_learn(seed, gain):
    observed, forecast = example(seed)
    worth = observed if gain == "linear" else 2**observed - 1
    found = top_cells(observed, forecast, VALID, [3, 10, 1000], gain)
    for step in (0, 2, 3, 4):
        for number, k in enumerate((3, 10, 1000)):
            expected = metrics.ndcg_score(worth[step, VALID][None], forecast[step, VALID][None], k=k)
            assert found.ndcg[step, number] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(found.ndcg[1]).all()
    assert (found.precision[1] == 0).all()
    assert found.pooled().ndcg == pytest.approx(np.nanmean(found.ndcg, axis=0))


def test_top_cells_worked_out_by_hand():
    observed = np.array([[[0.0, 2, 1, 0]], [[0, 0, 0, 0]]])
    forecast = np.array([[[5.0, 4, 1, 1]], [[1, 1, 1, 1]]])
    found = top_cells(observed, forecast, ROW, [1, 2, 3, 9])
    ideal = [2, 2 + 1 / log2(3)]
    gained = [0, 2 / log2(3), 2 / log2(3), 2 / log2(3) + 1 / log2(5)]
    assert found.ndcg[0] == pytest.approx([g / ideal[min(i, 1)] for i, g in enumerate(gained)])
    # The two equal forecasts: the cell without an event comes first.
    assert found.precision[0].tolist() == [0, 1 / 2, 1 / 3, 2 / 4]
    pooled = found.pooled()
    assert pooled.cells.tolist() == [2, 4, 6, 8]
    assert pooled.precision.tolist() == [0, 1 / 4, 1 / 6, 2 / 8]
    assert pooled.ndcg == pytest.approx(found.ndcg[0])


@given(st.integers(0, 30))
def test_order_and_values_of_the_forecast_do_not_matter_but_its_ranks(seed):
    observed, forecast = example(seed)
    mixed = np.random.default_rng(seed).permutation(VALID.sum())
    one = top_cells(observed, forecast, VALID, [4, 9])
    flat = [values[:, VALID][:, mixed][:, None] for values in (observed, np.exp(3 * forecast))]
    other = top_cells(*flat, np.ones((1, VALID.sum()), bool), [4, 9])
    assert other.ndcg == pytest.approx(one.ndcg, rel=1e-12, nan_ok=True)
    assert np.array_equal(other.with_events, one.with_events)


def test_a_perfect_order_gains_everything():
    observed, _ = example(0)
    found = top_cells(observed, observed, VALID, [1, 5, 40]).pooled()
    assert found.ndcg == pytest.approx(1)
    assert ranking(observed > 0, observed, VALID).pooled().auc == 1


@pytest.mark.parametrize(
    ("counts", "gain", "message"), [([0, 3], "linear", "at least one cell"), ([3], "square", "one of")]
)
def test_other_words_and_numbers_are_refused(counts, gain, message):
    with pytest.raises(ValueError, match=message):
        top_cells(*example(0), VALID, counts, gain)


# -- curves ----------------------------------------------------------------------------------------


def test_the_curve_runs_from_nothing_to_everything():
    observed, forecast = example(0)
    curve = hit_curve(area_hits(observed, forecast, VALID * 1.0, budgets(20)))
    for values in (curve.area_share, curve.hit_rate, curve.best_rate):
        assert (values[0], values[-1]) == (0, 1)
        assert (np.diff(values) >= 0).all()
    assert (np.diff(curve.area_share) > 0).all()
    assert (curve.hit_rate <= curve.best_rate).all()
    assert isnan(curve.pai[0]) and curve.pai[-1] == curve.best_pai[-1] == 1
    assert curve.pai[1:] == pytest.approx(curve.hit_rate[1:] / curve.area_share[1:])
    assert 0.5 < curve.area_under < 1


def test_a_curve_worked_out_by_hand():
    observed = np.array([[[0.0, 3, 1, 0]], [[0, 0, 0, 4]]])
    forecast = np.array([[[9.0, 8, 7, 6]], [[6, 7, 8, 9]]])
    curve = hit_curve(area_hits(observed, forecast, ROW * 2.0, [25, 50, 75]))
    assert curve.area_share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.hit_rate.tolist() == [0, 4 / 8, 7 / 8, 8 / 8, 1]
    assert curve.best_rate.tolist() == [0, 7 / 8, 1, 1, 1]
    assert curve.area_under == pytest.approx(0.25 * (0 / 2 + 4 / 8 + 7 / 8 + 1 + 1 / 2))


def test_budgets_rise_to_all_of_the_area():
    shares = budgets(50)
    assert len(shares) == 50 and shares[-1] == 100 and shares[0] == 0.04
    assert (np.diff(shares) > 0).all()
