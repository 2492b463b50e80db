# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures against their formulas written out, and the budget of area that is never overdrawn."""

from __future__ import annotations

from math import isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gridcast_qgis.core.evaluation.metrics import (
    HitRate,
    flag_cells,
    hit_rate,
    mean_squared_error,
    poisson_deviance,
)

SHAPE = (5, 4, 6)
VALID = np.random.default_rng(3).random(SHAPE[1:]) < 0.7


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    expected = random.gamma(1, 0.5, SHAPE).astype(np.float32)
    observed = random.poisson(expected).astype(np.float32)
    observed[:, ~VALID], expected[:, ~VALID] = 77, np.nan
    return observed, expected


@pytest.mark.parametrize("seed", range(3))
def test_errors_look_at_valid_cells_only(seed):
    observed, expected = example(seed)
    pairs = [
        (float(observed[t, r, c]), float(expected[t, r, c]))
        for t in range(SHAPE[0])
        for r, c in zip(*np.nonzero(VALID))
    ]
    squared = [(y - mu) ** 2 for y, mu in pairs]
    deviance = [2 * ((y * log(y / mu) if y else 0) - y + mu) for y, mu in pairs]
    assert mean_squared_error(observed, expected, VALID) == pytest.approx(np.mean(squared), rel=1e-9)
    assert poisson_deviance(observed, expected, VALID) == pytest.approx(np.mean(deviance), rel=1e-9)


def test_a_perfect_forecast_has_no_error():
    observed, _ = example(0)
    assert mean_squared_error(observed, observed, VALID) == 0
    assert poisson_deviance(observed, observed, VALID) == pytest.approx(0, abs=1e-8)


def test_an_impossible_event_costs_much_but_not_everything():
    observed, expected = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    valid = np.ones((1, 1), bool)
    assert poisson_deviance(observed, expected, valid) == pytest.approx(2 * (log(1e9) - 1 + 1e-9))


def density_of(expected: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Return expected events per area, where slivers count as a tenth of a cell."""
    return np.where(area > 0, expected / np.maximum(area, 0.1 * area.max()), -1)


areas = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.one_of(st.just(0.0), st.floats(0.01, 5.0)),
).filter(lambda area: area.any())


@given(data=st.data(), area=areas, share=st.floats(0.01, 99.99))
def test_the_budget_is_never_overdrawn_and_at_least_one_cell_is_flagged(data, area, share):
    expected = data.draw(hnp.arrays(np.float32, area.shape, elements=st.floats(0, 10, width=32)))
    flagged = flag_cells(expected, area, share)
    assert flagged.shape == area.shape
    assert flagged.dtype == bool
    assert flagged.sum() >= 1
    assert not flagged[area == 0].any()
    if flagged.sum() > 1:
        assert area[flagged].sum() <= area.sum() * share / 100 * (1 + 1e-6)
    # No cell left out is denser than one taken.
    density = density_of(expected, area)
    left = ~flagged & (area > 0)
    if left.any():
        assert density[left].max() <= density[flagged].min() * (1 + 1e-6)


@given(data=st.data(), area=areas, share=st.floats(0.01, 99.99))
def test_the_next_cell_would_overdraw_the_budget(data, area, share):
    expected = data.draw(hnp.arrays(np.float32, area.shape, elements=st.floats(0, 10, width=32), unique=True))
    flagged = flag_cells(expected, area, share)
    left = ~flagged & (area > 0)
    if left.any():
        density = np.where(left, density_of(expected, area), -1)
        following = np.unravel_index(np.argmax(density), area.shape)
        assert area[flagged].sum() + area[following] > area.sum() * share / 100 * (1 - 1e-6)


@pytest.mark.parametrize(("share", "count"), [(1, 1), (5, 5), (5.9, 5), (50, 50), (99.9, 99)])
def test_equal_cells_are_not_lost_to_rounding(share, count):
    expected = np.arange(100.0).reshape(10, 10)
    for size in (1.0, 0.1, 250_000 / 3):
        flagged = flag_cells(expected, np.full((10, 10), size), share)
        assert flagged.sum() == count
        assert flagged.ravel()[-count:].all()


def test_dense_small_cells_come_before_full_large_ones():
    expected = np.array([[3.0, 2.0, 1.0]])
    area = np.array([[10.0, 1.0, 1.0]])
    assert flag_cells(expected, area, 20).tolist() == [[False, True, True]]


def test_a_sliver_is_no_top_density_for_one_event():
    area = np.array([[1.0, 1.0, 0.001, 0.2]])
    assert flag_cells(np.array([[0.5, 0.2, 0.01, 0.01]]), area, 50).tolist() == [[True, False, False, False]]
    assert flag_cells(np.array([[0.5, 0.2, 0.06, 0.01]]), area, 50).tolist() == [[True, False, True, False]]


def test_ties_go_north_and_then_west():
    flagged = flag_cells(np.ones((4, 5)), np.ones((4, 5)), 35)
    assert np.argwhere(flagged).tolist() == [[0, c] for c in range(5)] + [[1, 0], [1, 1]]


def test_cells_without_a_forecast_come_last():
    expected = np.array([[np.nan, 0.1, np.nan, 0.2]])
    assert flag_cells(expected, np.ones((1, 4)), 50).tolist() == [[False, True, False, True]]


@given(seed=st.integers(0, 50), share=st.floats(1, 60))
def test_hits_are_counted_anew_for_each_step_and_pooled(seed, share):
    observed, expected = example(seed)
    area = VALID * np.random.default_rng(seed).uniform(0.5, 2, VALID.shape)
    hits = events = flagged_area = 0.0
    for t in range(SHAPE[0]):
        flagged = flag_cells(expected[t], area, share)
        hits += sum(observed[t][flagged])
        events += sum(observed[t][VALID])
        flagged_area += sum(area[flagged])
    result = hit_rate(observed, expected, area, share)
    assert result.hits == pytest.approx(hits)
    assert result.events == pytest.approx(events)
    assert result.rate == pytest.approx(hits / events)
    share_of_area = flagged_area / (area.sum() * SHAPE[0])
    assert result.pai == pytest.approx((hits / events) / share_of_area)


def test_the_pai_of_pooled_steps_is_no_mean_of_ratios():
    area = np.ones((1, 4))
    expected = np.array([[[4.0, 3, 2, 1]], [[4.0, 3, 2, 1]], [[4.0, 3, 2, 1]]])
    observed = np.array([[[1.0, 0, 0, 0]], [[0, 0, 0, 9]], [[0, 0, 0, 0]]])
    result = hit_rate(observed, expected, area, 25)
    # Averaging would give (4 + 0 + nothing) / 3.
    assert result.pai == pytest.approx((1 / 10) / (1 / 4))
    assert result == HitRate(1.0, 10.0, 3.0, 12.0)


def test_without_events_there_is_no_rate():
    result = hit_rate(np.zeros((2, 1, 3)), np.ones((2, 1, 3)), np.ones((1, 3)), 10)
    assert isnan(result.rate)
    assert isnan(result.pai)
