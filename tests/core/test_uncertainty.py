# SPDX-License-Identifier: GPL-2.0-or-later
"""How sure a forecast is: against counts that were drawn, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gridcast_qgis.core.uncertainty import LEVELS, busiest, names, quantiles, spread


@pytest.mark.parametrize("dispersion", [0.0, 0.5])
@pytest.mark.parametrize("rate", [0.03, 2.0, 40.0])
def test_a_quantile_is_the_least_count_that_is_not_exceeded(rate, dispersion):
    draw = np.random.default_rng(1)
    means = rate * (draw.gamma(1 / dispersion, dispersion, 200_000) if dispersion else np.ones(200_000))
    counts = draw.poisson(means)
    found = quantiles(np.array([rate]), dispersion)
    assert found.shape == (len(LEVELS), 1)
    for level, value in zip(LEVELS, found[:, 0]):
        assert value == int(value)
        assert (counts <= value).mean() >= level - 0.005
        assert (counts <= value - 1).mean() < level + 0.005


def test_counts_that_spread_more_have_quantiles_further_apart():
    rate = np.linspace(5, 50, 10)
    (low, _, high), (lower, _, higher) = quantiles(rate, 0.0), quantiles(rate, 0.3)
    assert (lower < low).all()
    assert (higher > high).all()


@pytest.mark.parametrize("dispersion", [0.0, 0.5])
def test_cells_alike_are_busiest_alike(dispersion):
    found = busiest(np.full(50, 0.2), dispersion, 10, seed=1)
    assert found.sum() == pytest.approx(10)
    assert np.abs(found - 0.2).max() < 0.06


def test_the_busier_of_two_cells():
    rate = np.array([1.0, 2.0])
    both = stats.poisson.pmf(np.arange(40)[:, None], rate)
    ties = (both[:, 0] * both[:, 1]).sum()
    more = (both[:, 1] * (np.cumsum(both[:, 0]) - both[:, 0])).sum()
    assert busiest(rate, 0.0, 1, seed=3)[1] == pytest.approx(more + ties / 2, abs=0.05)


def test_there_may_be_fewer_cells_than_the_busiest():
    assert (busiest(np.array([0.1, 3.0]), 0.0, 5, seed=1) == 1).all()


def test_many_cells_are_drawn_in_parts(monkeypatch):
    rate = np.random.default_rng(1).gamma(0.5, 1, 300)
    whole = busiest(rate, 0.2, 20, seed=1)
    monkeypatch.setattr("gridcast_qgis.core.uncertainty._AT_ONCE", 7 * 300)
    assert busiest(rate, 0.2, 20, seed=1) == pytest.approx(whole, abs=0.08)


def test_what_is_told_of_each_cell():
    expected = np.array([[[0.0, 2.0, np.nan], [0.5, 0.1, 9.0]]] * 2, np.float32)
    found = spread(expected, -np.expm1(-expected), 0.1, 2)
    assert found.shape == (2, len(names(2)), 2, 3)
    assert np.isnan(found[:, :, 0, 2]).all()
    assert np.isfinite(np.delete(found.reshape(2, 5, 6), 2, axis=2)).all()
    event, low, middle, high, top = found[0]
    assert event[1, 2] == pytest.approx(1 - np.exp(-9), abs=1e-6)
    assert low[0, 0] == middle[0, 0] == high[0, 0] == 0
    assert (low[1, 2] < middle[1, 2] < high[1, 2]).all()
    assert np.nansum(top) == pytest.approx(2)
    # The same whenever it is asked.
    assert spread(expected, -np.expm1(-expected), 0.1, 2) == pytest.approx(found, nan_ok=True)
