# SPDX-License-Identifier: GPL-2.0-or-later
"""How sure a measure, or the difference of two forecasters, is: a test and intervals for series of steps.

Neighbouring steps are alike, and forecasts for several steps ahead share their past. So neither takes the
steps as independent: the test counts autocovariances, and the bootstrap draws blocks of steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from .sums import Sums

ALTERNATIVES = ("two-sided", "less", "greater")
BLOCKS = ("circular", "moving")


@dataclass(frozen=True)
class DieboldMariano:
    """The result of a test of equal accuracy.

    Attributes
    ----------
    statistic : float
        Student's t with `steps` - 1 degrees of freedom if both forecasters are equally good; negative where
        the first one loses less. NaN if their losses are always the same.
    p_value : float
        Chance of such a statistic, or one further off, between equally good forecasters.
    mean_difference : float
        Mean loss of the first minus that of the second.
    lags : int
        Autocovariances that were counted.
    steps : int
        Number of steps.
    """

    statistic: float
    p_value: float
    mean_difference: float
    lags: int
    steps: int


def diebold_mariano(
    first: np.ndarray,
    second: np.ndarray,
    *,
    horizon: int = 1,
    lags: int | None = None,
    alternative: str = "two-sided",
) -> DieboldMariano:
    """Test whether two forecasters are equally good (Diebold & Mariano 1995).

    The variance of the mean difference is that of Newey & West (1987), with Bartlett's weights. The
    statistic is corrected for few steps as by Harvey, Leybourne & Newbold (1997), with the lags that were
    counted in the place of their horizon - 1, and compared with Student's t.

    Parameters
    ----------
    first, second : numpy.ndarray
        `(steps,)` losses of the same steps in order of time, such as the mean squared error of each.
    horizon : int
        Steps that the forecasts look ahead: errors of so many neighbours overlap.
    lags : int, optional
        By default 1.3 times the square root of the number of steps, rounded down (Lazarus, Lewis, Stock &
        Watson 2018), or 2 (horizon - 1) if that is more, but at most `steps` - 2.
    alternative : {"two-sided", "less", "greater"}
        What is held against equality: that the losses differ, or that the first is less or greater.

    Raises
    ------
    ValueError
        Different numbers of steps, losses that are no numbers, fewer than two steps or than `lags` + 2,
        another word.
    """
    first, second = (np.asarray(values, np.float64) for values in (first, second))
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"losses of the same steps are compared, not {first.shape} and {second.shape}")
    if alternative not in ALTERNATIVES:
        raise ValueError(f"the alternative is one of {ALTERNATIVES}, not '{alternative}'")
    difference = first - second
    if not np.isfinite(difference).all():
        raise ValueError("a step without a loss cannot be compared")
    steps = len(difference)
    if lags is None:
        lags = min(max(2 * (horizon - 1), int(1.3 * math.sqrt(steps))), max(steps - 2, 0))
    if steps < lags + 2:
        raise ValueError(f"{steps} steps are too few to count {lags} autocovariances")
    mean = float(difference.mean())
    away = difference - mean
    variance = away @ away
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (away[lag:] @ away[:-lag])
    variance /= steps
    ahead = lags + 1
    shrink = (steps + 1 - 2 * ahead + ahead * (ahead - 1) / steps) / steps
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(mean / np.sqrt(variance / steps) * math.sqrt(shrink))
    if math.isnan(statistic):
        return DieboldMariano(statistic, 1.0, mean, lags, steps)
    below = float(stats.t.cdf(statistic, steps - 1))
    above = float(stats.t.sf(statistic, steps - 1))
    p_value = {"less": below, "greater": above, "two-sided": 2 * min(below, above)}[alternative]
    return DieboldMariano(statistic, p_value, mean, lags, steps)


@dataclass(frozen=True, eq=False)
class Interval:
    """A measure and its confidence interval, numbers or arrays of the measure's shape.

    Attributes
    ----------
    estimate, low, high : numpy.ndarray
        The measure of all origins, and the ends of the interval; NaN where it is not defined.
    block : int
        Length of the blocks in origins.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    block: int


def block_bootstrap(
    measure: Callable[..., Any],
    *sums: Sums,
    block: int | None = None,
    horizon: int = 1,
    kind: str = "circular",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 1,
) -> Interval:
    """Return a pooled measure with its interval, from sums per origin in order of time.

    Origins are drawn in blocks, with replacement, until there are as many as before, and the measure is
    made anew of their sums; the interval lies between the percentiles of many such draws. Of several
    forecasters the same origins are drawn, so that ``block_bootstrap(lambda a, b: a.pai - b.pai, a, b)`` is
    the interval of a difference; it is far narrower than that of either, and if it leaves out 0 the one is
    better.

    Parameters
    ----------
    measure : callable
        Takes pooled sums (as many as `sums`) and returns an array, like ``lambda hits: hits.pai``.
    *sums : Sums
        Of the same origins.
    block : int, optional
        Length of a block; by default the cube root of the number of origins, rounded up (the order of
        Künsch's best length), or 2 horizon - 1 if that is longer. Intervals of fewer than about a hundred
        origins, or of longer memory, are a little too narrow.
    horizon : int
        Steps that the forecasts look ahead.
    kind : {"circular", "moving"}
        Whether blocks go on from the last origin to the first (Politis & Romano 1992), so that each is drawn
        as often, or not (Künsch 1989).
    replicates, level, seed
        Number of draws; share of them within the interval; start of the random numbers.

    Raises
    ------
    ValueError
        Sums of different origins, none at all, a block longer than the series, another word.
    """
    origins = len(sums[0])
    if any(len(each) != origins for each in sums) or not origins:
        raise ValueError(f"sums of the same origins are needed, not of {[len(each) for each in sums]}")
    if kind not in BLOCKS:
        raise ValueError(f"blocks are one of {BLOCKS}, not '{kind}'")
    if block is None:
        block = min(max(2 * horizon - 1, math.ceil(round(origins ** (1 / 3), 9))), origins)
    if not 1 <= block <= origins:
        raise ValueError(f"a block of {block} origins does not fit into {origins}")
    weights = _draws(origins, block, kind, replicates, np.random.default_rng(seed))
    drawn = np.asarray(measure(*(each.weighted(weights) for each in sums)))
    tail = (1 - level) / 2
    with warnings.catch_warnings():
        # A measure that no draw defines is NaN.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    estimate = np.asarray(measure(*(each.pooled() for each in sums)))
    return Interval(estimate[()], low, high, block)


def _draws(origins: int, block: int, kind: str, replicates: int, random: np.random.Generator) -> np.ndarray:
    """Return how many times each origin is drawn: float64 `(replicates, origins)`; rows add up to all."""
    starts = origins if kind == "circular" else origins - block + 1
    first = random.integers(starts, size=(replicates, math.ceil(origins / block)))
    drawn = (first[:, :, None] + np.arange(block)).reshape(replicates, -1)[:, :origins] % origins
    drawn += origins * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=replicates * origins).reshape(replicates, origins) * 1.0
