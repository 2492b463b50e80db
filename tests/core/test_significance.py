# SPDX-License-Identifier: GPL-2.0-or-later
"""The test of equal accuracy and bootstrap intervals: by hand, and on simulated series with a known truth."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from gridcast_qgis.core.evaluation.metrics import area_hits, count_errors
from gridcast_qgis.core.evaluation.significance import block_bootstrap, diebold_mariano
from gridcast_qgis.core.evaluation.sums import Sums, ratio


def series(steps: int, count: int, memory: float = 0.0, overlap: int = 1, seed: int = 0) -> np.ndarray:
    """Return `count` series `(steps, count)` of mean 0, autoregressive or as errors that overlap."""
    values = np.random.default_rng(seed).normal(size=(steps + 60, count))
    if overlap > 1:
        sums = np.cumsum(values, axis=0)
        return (sums[overlap:] - sums[:-overlap])[:steps]
    for step in range(1, len(values)):
        values[step] += memory * values[step - 1]
    return values[-steps:]


def test_the_statistic_worked_out_by_hand():
    first, second = np.array([3.0, 1, 4, 1, 5]), np.array([1.0, 1, 1, 1, 1])
    found = diebold_mariano(first, second, lags=1)
    # Differences 2 0 3 0 4, mean 1.8; about it 0.2 -1.8 1.2 -1.8 2.2.
    variance = (0.04 + 3.24 + 1.44 + 3.24 + 4.84) / 5
    covariance = (0.2 * -1.8 + -1.8 * 1.2 + 1.2 * -1.8 + -1.8 * 2.2) / 5
    expected = 1.8 / sqrt((variance + 2 * 0.5 * covariance) / 5)
    expected *= sqrt((5 + 1 - 2 * 2 + 2 * 1 / 5) / 5)
    assert found.statistic == pytest.approx(expected, rel=1e-12)
    assert (found.mean_difference, found.lags, found.steps) == (pytest.approx(1.8), 1, 5)
    assert found.p_value == pytest.approx(2 * stats.t.sf(expected, 4), rel=1e-12)
    # The other way round it is as sure, and each side has its part.
    turned = diebold_mariano(second, first, lags=1)
    assert turned.statistic == -found.statistic and turned.p_value == found.p_value
    sides = [diebold_mariano(first, second, lags=1, alternative=side).p_value for side in ("less", "greater")]
    assert sides == pytest.approx([1 - found.p_value / 2, found.p_value / 2])


def test_without_lags_it_is_nearly_students_test():
    values = series(80, 1)[:, 0]
    student = stats.ttest_1samp(values, 0)
    found = diebold_mariano(values, np.zeros(80), lags=0)
    # With one step ahead the correction makes the variance that of the sample.
    assert found.statistic == pytest.approx(student.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(student.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("steps", "memory", "horizon"), [(60, 0.0, 1), (200, 0.0, 1), (200, 0.3, 1), (300, 0.0, 7)]
)
def test_equal_forecasters_are_seldom_told_apart(steps, memory, horizon):
    chances = [
        diebold_mariano(each, np.zeros(steps), horizon=horizon).p_value
        for each in series(steps, 1000, memory, horizon).T
    ]
    # At a level of 5 %; by chance of the simulation alone up to 6.4 %.
    assert 0.03 < np.mean(np.array(chances) < 0.05) < 0.085


def test_a_better_forecaster_is_found():
    noise = series(200, 200, 0.3).T
    found = [diebold_mariano(each + 0.4, np.zeros(200), alternative="greater").p_value for each in noise]
    assert np.mean(np.array(found) < 0.05) > 0.9


def test_the_number_of_lags():
    def lags(steps, horizon=1):
        return diebold_mariano(series(steps, 1)[:, 0], np.zeros(steps), horizon=horizon).lags

    assert [lags(steps) for steps in (2, 3, 10, 100, 400)] == [0, 1, 4, 13, 26]
    assert [lags(100, horizon) for horizon in (5, 14)] == [13, 26]


def test_forecasters_that_are_the_same_are_not_told_apart():
    found = diebold_mariano(np.arange(9.0), np.arange(9.0))
    assert isnan(found.statistic) and found.p_value == 1 and found.mean_difference == 0
    always = diebold_mariano(np.arange(9.0) + 1, np.arange(9.0))
    assert always.statistic == np.inf and always.p_value == 0


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ((np.zeros(3), np.zeros(4)), {}, "same steps"),
        ((np.zeros((3, 2)), np.zeros((3, 2))), {}, "same steps"),
        ((np.zeros(9), np.full(9, np.nan)), {}, "without a loss"),
        ((np.zeros(1), np.zeros(1)), {}, "too few"),
        ((np.zeros(9), np.zeros(9)), {"lags": 8}, "9 steps are too few to count 8"),
        ((np.zeros(9), np.zeros(9)), {"alternative": "better"}, "one of"),
    ],
)
def test_what_cannot_be_tested_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        diebold_mariano(*values, **options)


# -- the bootstrap -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pair(Sums):
    part: np.ndarray
    whole: np.ndarray


def share(sums: Pair) -> np.ndarray:
    return ratio(sums.part, sums.whole)


@pytest.mark.parametrize("kind", ["circular", "moving"])
@pytest.mark.parametrize(("steps", "memory"), [(100, 0.0), (200, 0.3)])
def test_intervals_cover(kind, steps, memory):
    """Of 400 series each has an interval of its own; all have the mean 0."""
    values = series(steps, 400, memory)
    found = block_bootstrap(share, Pair(values, 1.0 + 0 * values), kind=kind, replicates=500)
    assert found.low.shape == found.high.shape == (400,)
    assert found.estimate == pytest.approx(values.mean(axis=0))
    assert 0.88 < np.mean((found.low <= 0) & (found.high >= 0)) < 0.98


def test_single_origins_cover_too_seldom_where_there_is_memory():
    values = series(200, 400, 0.5)
    pair = Pair(values, 1.0 + 0 * values)
    covered = []
    for block in (1, 10):
        found = block_bootstrap(share, pair, block=block, replicates=500)
        covered.append(np.mean((found.low <= 0) & (found.high >= 0)))
    assert covered[0] < 0.8 < 0.88 < covered[1]


def test_ratios_of_sums_are_covered():
    random = np.random.default_rng(1)
    whole = random.poisson(3, (120, 300))
    part = random.binomial(whole, 0.3)
    found = block_bootstrap(share, Pair(part, whole), replicates=500)
    assert 0.88 < np.mean((found.low <= 0.3) & (found.high >= 0.3)) < 0.98


def test_all_blocks_are_as_long_and_each_draw_as_large():
    seen = []

    def look(sums: Pair) -> np.ndarray:
        seen.append(sums)
        return sums.part

    # Which origins were drawn is read off the digits.
    pair = Pair(np.eye(7), np.ones((7, 1)))
    block_bootstrap(look, pair, block=3, kind="moving", replicates=300)
    drawn = seen[0].part
    assert (drawn.sum(axis=1) == 7).all()
    # 3 + 3 + 1 origins: the middle ones are in most blocks, the ends in few.
    assert drawn[:, 3].mean() > 1.2 > 0.6 > drawn[:, 6].mean()
    block_bootstrap(look, pair, block=3, replicates=300)
    assert seen[2].part.mean(axis=0) == pytest.approx(1, abs=0.2)


def test_lengths_of_blocks():
    def block(origins, horizon=1):
        pair = Pair(np.ones(origins), np.ones(origins))
        return block_bootstrap(share, pair, horizon=horizon, replicates=10).block

    assert [block(origins) for origins in (1, 8, 9, 125, 365)] == [1, 2, 3, 5, 8]
    assert [block(20, horizon) for horizon in (7, 14)] == [13, 20]


def test_the_same_seed_gives_the_same_interval():
    pair = Pair(series(50, 1)[:, 0], np.ones(50))
    one, same, other = (block_bootstrap(share, pair, seed=seed) for seed in (1, 1, 2))
    assert (one.low, one.high) == (same.low, same.high) != (other.low, other.high)
    narrow = block_bootstrap(share, pair, level=0.5)
    assert one.low < narrow.low < narrow.high < one.high


def test_intervals_of_measures_of_forecasts_and_of_differences():
    random = np.random.default_rng(2)
    rate = random.gamma(0.5, 1, (6, 8))
    observed = random.poisson(rate, (60, 6, 8))
    good, bad = (np.broadcast_to(values, observed.shape) for values in (rate, rate[::-1]))
    area = np.ones((6, 8))
    first, second = (area_hits(observed, forecast, area, [10, 20]) for forecast in (good, bad))
    alone = block_bootstrap(lambda hits: hits.pai, first)
    assert alone.estimate == pytest.approx(first.pooled().pai)
    assert ((alone.low < alone.estimate) & (alone.estimate < alone.high)).all()
    gain = block_bootstrap(lambda a, b: a.pai - b.pai, first, second)
    assert (gain.low > 0).all()
    same = block_bootstrap(lambda a, b: a.pai - b.pai, first, first)
    assert (same.low == 0).all() and (same.high == 0).all()
    errors = count_errors(observed, good, area > 0)
    found = block_bootstrap(lambda sums: sums.rmse, errors)
    assert found.low < found.estimate == errors.pooled().rmse < found.high


def test_a_measure_that_is_not_defined_has_no_interval():
    found = block_bootstrap(share, Pair(np.zeros(9), np.zeros(9)))
    assert isnan(found.estimate) and isnan(found.low) and isnan(found.high)


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ((0,), {}, "same origins are needed, not of .0."),
        ((3, 4), {}, "not of .3, 4."),
        ((5,), {"block": 6}, "does not fit into 5"),
        ((5,), {"block": 0}, "does not fit"),
        ((5,), {"kind": "stationary"}, "one of"),
    ],
)
def test_what_cannot_be_drawn_is_refused(lengths, options, message):
    sums = [Pair(np.ones(length), np.ones(length)) for length in lengths]
    with pytest.raises(ValueError, match=message):
        block_bootstrap(share, *sums, **options)
