# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures against their formulas written out, and the budget of area that is never overdrawn."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from math import isnan, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from gridcast_qgis.core.evaluation.metrics import (
    Hits,
    area_hits,
    count_errors,
    flag_cells,
    flagged_hits,
    hit_rate,
    mean_squared_error,
    most_events,
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


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_those_of_scikit_learn(seed):
    observed, expected = example(seed)
    y, mu = (values[:, VALID].ravel().astype(float) for values in (observed, expected))
    found = count_errors(observed, expected, VALID).pooled()
    assert found.mse == pytest.approx(sklearn.mean_squared_error(y, mu), rel=1e-12)
    assert found.rmse == pytest.approx(sklearn.root_mean_squared_error(y, mu), rel=1e-12)
    assert found.mae == pytest.approx(sklearn.mean_absolute_error(y, mu), rel=1e-12)
    assert found.poisson_deviance == pytest.approx(
        sklearn.mean_poisson_deviance(y, np.maximum(mu, 1e-9)), rel=1e-12
    )


def test_errors_of_each_step_are_kept():
    observed, expected = example(1)
    each = count_errors(observed, expected, VALID)
    assert each.mse.shape == (SHAPE[0],)
    for step in range(SHAPE[0]):
        alone = mean_squared_error(observed[step : step + 1], expected[step : step + 1], VALID)
        assert each.mse[step] == pytest.approx(alone, rel=1e-12)


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


def test_in_a_score_ties_go_against_the_forecast():
    expected = np.array([[2.0, 1.0, 1.0, 1.0]])
    observed = np.array([[0.0, 3.0, 0.0, 1.0]])
    area = np.ones((1, 4))
    flagged = [flag_cells(expected, area, share, observed).ravel().tolist() for share in (25, 50, 75, 100)]
    assert flagged[0] == [True, False, False, False]
    assert flagged[1] == [True, False, True, False]
    assert flagged[2] == [True, False, True, True]
    found = area_hits(observed[None], expected[None], area, [25, 50, 75, 100])
    assert found.hits.tolist() == [[0, 0, 1, 4]]
    # What is shown to a patrol does not look at what happened.
    assert flag_cells(expected, area, 50).ravel().tolist() == [True, True, False, False]


@given(seed=st.integers(0, 50), share=st.floats(1, 60))
def test_hits_are_counted_anew_for_each_step_and_pooled(seed, share):
    observed, expected = example(seed)
    area = VALID * np.random.default_rng(seed).uniform(0.5, 2, VALID.shape)
    hits = events = flagged_area = predicted = 0.0
    for t in range(SHAPE[0]):
        flagged = flag_cells(expected[t], area, share, observed[t])
        hits += sum(observed[t][flagged])
        predicted += sum(expected[t][flagged])
        events += sum(observed[t][VALID])
        flagged_area += sum(area[flagged])
    result = hit_rate(observed, expected, area, share)
    assert result.hits == pytest.approx(hits)
    assert result.events == pytest.approx(events)
    assert result.rate == pytest.approx(hits / events)
    share_of_area = flagged_area / (area.sum() * SHAPE[0])
    assert result.area_share == pytest.approx(share_of_area)
    assert result.pai == pytest.approx((hits / events) / share_of_area)
    if hits:
        assert result.rri == pytest.approx(predicted / hits)


def test_the_pai_of_pooled_steps_is_no_mean_of_ratios():
    area = np.ones((1, 4))
    expected = np.array([[[4.0, 3, 2, 1]], [[4.0, 3, 2, 1]], [[4.0, 3, 2, 1]]])
    observed = np.array([[[1.0, 0, 0, 0]], [[0, 0, 0, 9]], [[0, 0, 0, 0]]])
    result = hit_rate(observed, expected, area, 25)
    # Averaging would give (4 + 0 + nothing) / 3.
    assert result.pai == pytest.approx((1 / 10) / (1 / 4))
    assert asdict(result) == {
        "hits": 1,
        "events": 10,
        "best": 10,
        "expected": 12,
        "flagged_area": 3,
        "total_area": 12,
    }
    assert result.pei == 0.1
    assert result.rri == 12


def test_without_events_there_is_no_rate():
    result = hit_rate(np.zeros((2, 1, 3)), np.ones((2, 1, 3)), np.ones((1, 3)), 10)
    for measure in (result.rate, result.pai, result.pei, result.rri):
        assert isnan(measure)


# -- properties of hits ----------------------------------------------------------------------------

SHARES = (1, 5, 10, 25, 50, 75, 100)


@st.composite
def steps(draw, whole: bool = True):
    """Return observed, expected and area; many forecasts are equal and cells are cut."""
    area = draw(areas)
    shape = (draw(st.integers(1, 3)), *area.shape)
    number = st.integers(0, 4) if whole else st.integers(0, 40).map(lambda n: n / 8)
    observed = draw(hnp.arrays(np.float64, shape, elements=number))
    expected = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 6).map(lambda n: n / 4)))
    return observed, expected, area


@given(steps())
def test_more_area_never_holds_less(case):
    found = area_hits(*case, SHARES)
    assert (np.diff(found.flagged_area, axis=1) >= 0).all()
    assert (np.diff(found.hits, axis=1) >= 0).all()
    assert (np.diff(found.best, axis=1) >= 0).all()


@given(steps(whole=False))
def test_nothing_is_better_than_the_best(case):
    found = area_hits(*case, SHARES)
    assert (found.hits <= found.best).all()
    assert (found.best <= found.events + 1e-9).all()
    held = found.best > 0
    assert (found.pei[held] <= 1).all()
    pooled = found.pooled()
    assert (pooled.pei[pooled.best > 0] <= 1).all()


@given(steps())
def test_all_of_the_area_is_chance(case):
    whole = area_hits(*case, [100]).pooled().at(0)
    if whole.events:
        assert whole.rate == 1
        assert whole.pai == pytest.approx(1, rel=1e-12)
        assert whole.pei == 1


@given(steps(), st.integers(1, 3))
def test_events_spread_evenly_give_a_pai_of_1_whatever_is_flagged(case, rate):
    _, expected, area = case
    observed = np.broadcast_to(rate * area, expected.shape)
    found = area_hits(observed, expected, area, SHARES)
    assert found.pai == pytest.approx(1, rel=1e-9)
    assert found.pei == pytest.approx(1, rel=1e-9)


@given(steps())
def test_a_forecast_that_tells_no_cells_apart_earns_nothing(case):
    observed, expected, area = case
    cells = np.where(area > 0, 1.0, 0.0)
    found = area_hits(observed, np.ones_like(expected), cells, SHARES)
    assert (found.pai[found.events > 0] <= 1 + 1e-12).all()


@given(steps(), st.randoms(use_true_random=False))
def test_the_order_of_cells_does_not_matter(case, random):
    observed, expected, area = case
    cells = list(range(area.size))
    random.shuffle(cells)

    def mixed(values):
        return values.reshape(*values.shape[:-2], 1, -1)[..., cells]

    # Cells of one size: of tied ones with other sizes more or fewer may fit.
    area = np.where(area > 0, 1.0, 0.0)
    one, other = (
        area_hits(*each, SHARES)
        for each in ((observed, expected, area), (mixed(observed), mixed(expected), mixed(area)))
    )
    for name, values in asdict(one).items():
        assert asdict(other)[name] == pytest.approx(values, rel=1e-12), name


@given(steps(), st.sampled_from([0.25, 2, 1024]), st.sampled_from([0.5, 64]))
def test_scale_does_not_matter(case, factor, metres):
    observed, expected, area = case
    one, other = area_hits(*case, SHARES), area_hits(observed, factor * expected, metres * area, SHARES)
    assert np.array_equal(one.hits, other.hits)
    assert np.array_equal(one.best, other.best)
    assert one.area_share == pytest.approx(other.area_share, rel=1e-12)


@given(steps(), st.sampled_from([np.nan, -1.0, 99.0]))
def test_what_lies_outside_does_not_matter(case, value):
    observed, expected, area = case
    outside = np.broadcast_to(area == 0, expected.shape)
    changed = area_hits(np.where(outside, value, observed), np.where(outside, value, expected), area, SHARES)
    for name, values in asdict(area_hits(*case, SHARES)).items():
        assert np.array_equal(asdict(changed)[name], values), name


@given(steps(), st.sampled_from(SHARES))
def test_cells_that_have_been_flagged_count_the_same(case, share):
    observed, expected, area = (values[0] if values.ndim == 3 else values for values in case)
    flagged = flag_cells(expected, area, share, observed)
    alone = asdict(flagged_hits(observed, flagged, area, expected))
    found = asdict(area_hits(observed[None], expected[None], area, [share]).at(0).pooled())
    for name, value in found.items():
        assert alone[name] == pytest.approx(value, rel=1e-12), name


# -- the best choice -------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 3)), min_size=1, max_size=8),
    st.floats(0.05, 12),
)
def test_the_best_choice_is_bounded_closely(cells, budget):
    counts, area = (np.array(values, float) for values in zip(*cells))
    chosen = [list(c) for size in range(len(cells) + 1) for c in combinations(range(len(cells)), size)]
    most = max(counts[c].sum() for c in chosen if area[c].sum() <= budget)
    bound = most_events(counts, area, budget)
    assert most <= bound <= most + counts.max()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 30), st.floats(0.01, 1e6))
def test_the_best_of_equal_cells_are_those_with_the_most_events(counts, number, size):
    counts = np.array(counts, float)
    area = np.full(len(counts), size)
    budget = area[:number].sum() if number <= len(counts) else number * size
    assert most_events(counts, area, budget) == np.sort(counts)[::-1][:number].sum()


def test_the_best_choice_worked_out_by_hand():
    counts, area = np.array([6.0, 5.0, 0.0, 1.0]), np.array([3.0, 2.0, 1.0, 0.25])
    # The small cell is the densest (4 per area), then 2.5, then 2.
    assert most_events(counts, area, [0.2, 0.25, 1.25, 2.25, 3.5, 9]).tolist() == [0, 1, 3, 6, 8, 12]
    assert most_events(counts / 4, area, 1.25) == pytest.approx(0.25 + 0.625)
    assert most_events(counts * 0, area, 3.0) == 0


def test_measures_of_no_flagged_area_are_not_defined():
    nothing = flagged_hits(np.ones((2, 2)), np.zeros((2, 2), bool), np.ones((2, 2)))
    assert (nothing.hits, nothing.rate, nothing.area_share) == (0, 0, 0)
    assert isnan(nothing.pai) and isnan(nothing.pei) and isnan(nothing.rri)


# -- sums ------------------------------------------------------------------------------------------


def test_sums_add_up():
    case = np.random.default_rng(0)
    observed, expected = case.poisson(0.5, (6, 3, 4)), case.random((6, 3, 4))
    found = area_hits(observed, expected, np.ones((3, 4)), [10, 30])
    assert len(found) == 6
    assert found.pai.shape == (6, 2)
    first, rest = found.origins(slice(2)), found.origins(np.array([2, 3, 4, 5]))
    pooled = asdict(found.pooled())
    twice = asdict(found.weighted(np.array([[1, 1, 1, 1, 1, 1], [2, 0, 0, 0, 0, 1]])))
    for name, values in pooled.items():
        assert (asdict(first.pooled() + rest.pooled())[name] == values).all()
        assert (asdict(Hits.joined([first, rest]).pooled())[name] == values).all()
        assert (twice[name][0] == values).all()
        assert (twice[name][1] == 2 * asdict(found)[name][0] + asdict(found)[name][5]).all()
    assert found.at(1).pooled().pai == found.pooled().pai[1]
