# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of probabilities and intervals per step: errors, reliability, coverage.

Arrays are `(steps, y, x)`; `valid` is the bool mask `(y, x)` of the study area. What is scored over all
samples at once, such as a threshold, is in :mod:`.classification`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sums import Sums, ratio

#: Ways to cut the range of forecasts into bins.
BINS = ("width", "count")


@dataclass(frozen=True, eq=False)
class ProbabilityErrors(Sums):
    """Errors of probabilities of yes, summed over the cells of each step.

    Attributes
    ----------
    cells : numpy.ndarray
        Number of cells.
    squared : numpy.ndarray
        Squared difference between probability and what happened, 0 or 1.
    surprise : numpy.ndarray
        Negative log likelihood, in nats.
    """

    cells: np.ndarray
    squared: np.ndarray
    surprise: np.ndarray

    @property
    def brier(self) -> np.ndarray:
        """Brier score (1950): mean squared difference."""
        return ratio(self.squared, self.cells)

    @property
    def log_loss(self) -> np.ndarray:
        """Mean negative log likelihood, in nats."""
        return ratio(self.surprise, self.cells)


def probability_errors(outcome: np.ndarray, probability: np.ndarray, valid: np.ndarray) -> ProbabilityErrors:
    """Return the errors of each step; `outcome` is bool.

    As in scikit-learn, a probability of exactly 0 or 1 is taken as 2e-16 off it.
    """
    y = outcome[:, valid].astype(bool)
    p = probability[:, valid].astype(np.float64)
    near = np.finfo(np.float64).eps
    inner = np.clip(p, near, 1 - near)
    return ProbabilityErrors(
        np.full(len(y), y.shape[1]),
        ((p - y) ** 2).sum(axis=1),
        -np.where(y, np.log(inner), np.log1p(-inner)).sum(axis=1),
    )


@dataclass(frozen=True, eq=False)
class Reliability(Sums):
    """What was forecast beside what happened, summed over the cells of each step whose forecast is in a bin.

    All fields have the shape `(steps, bins)`.

    Attributes
    ----------
    cells : numpy.ndarray
        Number of cells.
    forecast, observed : numpy.ndarray
        Probabilities and cells with yes, or expected and observed events.
    """

    cells: np.ndarray
    forecast: np.ndarray
    observed: np.ndarray

    @property
    def mean_forecast(self) -> np.ndarray:
        """Mean forecast of each bin, NaN in empty ones: where it lies on the reliability curve."""
        return ratio(self.forecast, self.cells)

    @property
    def frequency(self) -> np.ndarray:
        """Share of yes, or mean events, of each bin; a reliable forecast has them equal to its mean."""
        return ratio(self.observed, self.cells)

    @property
    def calibration_error(self) -> np.ndarray:
        """Expected calibration error: mean over all cells of how far the mean of their bin is off."""
        return ratio(np.abs(self.forecast - self.observed).sum(axis=-1), self.cells.sum(axis=-1))


def reliability(
    observed: np.ndarray, forecast: np.ndarray, valid: np.ndarray, edges: np.ndarray
) -> Reliability:
    """Sort the cells of each step into bins of their forecasts.

    Parameters
    ----------
    observed : numpy.ndarray
        Yes or no for probabilities, events for expected events.
    edges : numpy.ndarray
        Edges `(bins + 1,)`, rising. Bins are half-open, the last one closed; forecasts beyond the edges fall
        into the outer bins.
    """
    y, p = (values[:, valid].astype(np.float64) for values in (observed, forecast))
    bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    index += bins * np.arange(len(p))[:, None]

    def per_bin(weights: np.ndarray | None) -> np.ndarray:
        flat = None if weights is None else weights.ravel()
        return np.bincount(index.ravel(), flat, len(p) * bins).reshape(len(p), bins)

    return Reliability(per_bin(None), per_bin(p), per_bin(y))


def bin_edges(forecast: np.ndarray, valid: np.ndarray, bins: int = 10, equal: str = "count") -> np.ndarray:
    """Return edges of bins for :func:`reliability`.

    Parameters
    ----------
    forecast : numpy.ndarray
        `(steps, y, x)`.
    equal : {"count", "width"}
        Count: about as many cells in each bin, which tells more where most probabilities are small; equal
        forecasts stay together, so that there may be fewer bins. Width: from 0 to 1 in equal steps.

    Raises
    ------
    ValueError
        Another word.
    """
    if equal not in BINS:
        raise ValueError(f"bins are equal in one of {BINS}, not in '{equal}'")
    if equal == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    values = forecast[:, valid].astype(np.float64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
    return edges if len(edges) > 1 else np.append(edges, edges[0] + 1)


@dataclass(frozen=True, eq=False)
class Coverage(Sums):
    """How often prediction intervals held what happened, summed over the cells of each step.

    Attributes
    ----------
    cells, within : numpy.ndarray
        Number of cells, and of those whose events lay in their interval.
    width : numpy.ndarray
        Upper minus lower end.
    """

    cells: np.ndarray
    within: np.ndarray
    width: np.ndarray

    @property
    def coverage(self) -> np.ndarray:
        """Share of the intervals that held what happened, to be compared with the nominal one."""
        return ratio(self.within, self.cells)

    @property
    def mean_width(self) -> np.ndarray:
        """Mean width of the intervals: of two with one coverage the narrower is better."""
        return ratio(self.width, self.cells)


def interval_coverage(
    observed: np.ndarray, lower: np.ndarray, upper: np.ndarray, valid: np.ndarray
) -> Coverage:
    """Compare closed intervals with what happened, step by step."""
    y, low, high = (values[:, valid].astype(np.float64) for values in (observed, lower, upper))
    return Coverage(
        np.full(len(y), y.shape[1]),
        ((low <= y) & (y <= high)).sum(axis=1),
        (high - low).sum(axis=1),
    )
