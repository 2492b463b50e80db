# SPDX-License-Identifier: GPL-2.0-or-later
"""How sure a forecast of counts is: quantiles, and probabilities of an event and of being busiest."""

from __future__ import annotations

import numpy as np
from scipy import stats

#: Quantiles of a count that are told.
LEVELS = (0.1, 0.5, 0.9)

# Cities that are drawn to find the busiest cells, and most cells that are drawn at a time.
_DRAWS, _AT_ONCE = 1000, 4_000_000


def names(top_cells: int) -> list[str]:
    """Return what :func:`spread` tells of each cell."""
    return [
        "probability of an event",
        *(f"{level:.0%} quantile of events" for level in LEVELS),
        f"probability of being among the busiest {top_cells} cells",
    ]


def quantiles(rate: np.ndarray, dispersion: float) -> np.ndarray:
    """Return the quantiles :data:`LEVELS` of counts with these means.

    Parameters
    ----------
    rate : numpy.ndarray
        `(...)` above 0.
    dispersion : float
        α of the variance μ + α μ² of a count with the mean μ (negative binomial); 0 for Poisson.

    Returns
    -------
    numpy.ndarray
        float64 `(levels, ...)`, whole numbers: the least count that is not exceeded with that probability.
    """
    levels = np.reshape(LEVELS, (-1, *(1,) * rate.ndim))
    if dispersion < 1e-6:
        found = stats.poisson.ppf(levels, rate)
    else:
        found = stats.nbinom.ppf(levels, 1 / dispersion, 1 / (1 + dispersion * rate))
    return np.asarray(found, np.float64)


def busiest(rate: np.ndarray, dispersion: float, top_cells: int, seed: int) -> np.ndarray:
    """Return the probability that each cell is among those with the most events.

    Counts of all cells are drawn many times, independently of each other, ties are broken by chance; the
    result has a standard error of at most 0.016.

    Parameters
    ----------
    rate : numpy.ndarray
        `(cells,)` above 0.
    dispersion : float
        See :func:`quantiles`.
    top_cells : int
        How many cells are the busiest; all, if there are fewer.

    Returns
    -------
    numpy.ndarray
        float64 `(cells,)`, which sum to `top_cells`.
    """
    if top_cells >= len(rate):
        return np.ones(len(rate))
    draw = np.random.default_rng(seed)
    times = np.zeros(len(rate))
    at_once = max(1, _AT_ONCE // len(rate))
    for first in range(0, _DRAWS, at_once):
        shape = min(at_once, _DRAWS - first), len(rate)
        mean = rate if dispersion < 1e-6 else rate * draw.gamma(1 / dispersion, dispersion, shape)
        counts = draw.poisson(mean, shape) + draw.random(shape, np.float32)
        top = np.argpartition(counts, -top_cells, axis=1)[:, -top_cells:]
        times += np.bincount(top.ravel(), minlength=len(rate))
    return times / _DRAWS


def spread(expected: np.ndarray, probability: np.ndarray, dispersion: float, top_cells: int) -> np.ndarray:
    """Return how sure a forecast is, as named by :func:`names`.

    Parameters
    ----------
    expected : numpy.ndarray
        `(steps, y, x)` expected events, NaN outside the study area.
    probability : numpy.ndarray
        `(steps, y, x)` of at least one event.
    dispersion, top_cells
        See :func:`busiest`.

    Returns
    -------
    numpy.ndarray
        float32 `(steps, names, y, x)`, NaN outside the study area.
    """
    result = np.full((len(expected), len(LEVELS) + 2, *expected.shape[1:]), np.nan, np.float32)
    inside = np.isfinite(expected[0])
    for step, (rates, event) in enumerate(zip(expected, probability)):
        rate = np.maximum(rates[inside].astype(np.float64), 1e-12)
        result[step][:, inside] = (
            event[inside],
            *quantiles(rate, dispersion),
            busiest(rate, dispersion, top_cells, seed=step),
        )
    return result
