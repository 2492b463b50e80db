# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of count forecasts. All of them look at the cells of the study area only.

Arrays are `(steps, y, x)`; `valid` is the bool mask `(y, x)` of the study area and
`area` the square metres of each cell inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sums import Sums, ratio

# Relative: a share such as 5 % of equal cells must not lose a cell to rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class CountErrors(Sums):
    """Errors of expected counts, summed over the cells of each step.

    Attributes
    ----------
    cells : numpy.ndarray
        Number of cells.
    squared, absolute : numpy.ndarray
        Of observed - expected.
    deviance : numpy.ndarray
        Poisson deviance 2 (y log(y / mu) - y + mu).
    """

    cells: np.ndarray
    squared: np.ndarray
    absolute: np.ndarray
    deviance: np.ndarray

    @property
    def mse(self) -> np.ndarray:
        """Mean squared error."""
        return ratio(self.squared, self.cells)

    @property
    def rmse(self) -> np.ndarray:
        """Root of the mean squared error."""
        return np.sqrt(self.mse)

    @property
    def mae(self) -> np.ndarray:
        """Mean absolute error."""
        return ratio(self.absolute, self.cells)

    @property
    def poisson_deviance(self) -> np.ndarray:
        """Mean Poisson deviance."""
        return ratio(self.deviance, self.cells)


def count_errors(observed: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> CountErrors:
    """Return the errors of each step.

    In the deviance an expected count of zero is taken as 1e-9: an event there is very unlikely, not
    impossible.
    """
    y = observed[:, valid].astype(np.float64)
    rate = expected[:, valid].astype(np.float64)
    mu = np.maximum(rate, 1e-9)
    log_ratio = np.log(np.where(y > 0, y, 1.0) / np.where(y > 0, mu, 1.0))
    return CountErrors(
        np.full(len(y), y.shape[1]),
        ((y - rate) ** 2).sum(axis=1),
        np.abs(y - rate).sum(axis=1),
        (2 * (y * log_ratio - y + mu)).sum(axis=1),
    )


def mean_squared_error(observed: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> float:
    """Mean of (observed - expected)² over all valid cells and steps."""
    return float(count_errors(observed, expected, valid).pooled().mse)


def poisson_deviance(observed: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> float:
    """Mean Poisson deviance over all valid cells and steps, see :func:`count_errors`."""
    return float(count_errors(observed, expected, valid).pooled().poisson_deviance)


def flag_cells(
    expected: np.ndarray, area: np.ndarray, area_share: float, against: np.ndarray | None = None
) -> np.ndarray:
    """Return the cells to flag, bool `(y, x)`, when `area_share` percent of the area may be flagged.

    Cells are taken by expected events per square metre, densest first, as long
    as they fit into the area; at least one is flagged. Ties go to the cell further
    north, then west, so that a run can be repeated. A sliver at the border counts
    as a tenth of a cell: its few square metres would make one event a top density.

    Parameters
    ----------
    expected : numpy.ndarray
        `(y, x)` expected events per cell.
    area : numpy.ndarray
        `(y, x)` square metres inside the study area, 0 outside.
    against : numpy.ndarray, optional
        `(y, x)` events that happened, to score a forecast: of cells that it does not tell apart those
        with the fewest events are flagged, so that it earns nothing by chance.
    """
    inside = area > 0
    order = _ranked(expected[inside], area[inside], None if against is None else against[inside])
    reached = np.cumsum(area[inside][order])
    count = cells_within(reached, reached[-1] * area_share / 100)
    flagged = np.zeros(area.size, bool)
    flagged[np.flatnonzero(inside)[order[:count]]] = True
    return flagged.reshape(area.shape)


def _ranked(expected: np.ndarray, area: np.ndarray, against: np.ndarray | None) -> np.ndarray:
    """Return the order `(cells,)` in which cells of the study area are flagged."""
    density = np.nan_to_num(expected) / np.maximum(area, 0.1 * area.max())
    if against is None:
        return np.argsort(-density, kind="stable")
    return np.lexsort((against, -density))


def cells_within(reached: np.ndarray, budget: np.ndarray | float) -> np.ndarray:
    """Return how many cells fit into budgets of area, at least one; `reached` adds up the areas in order."""
    return np.maximum(1, np.searchsorted(reached, np.asarray(budget) * (1 + _ROUNDING), side="right"))


@dataclass(frozen=True, eq=False)
class Hits(Sums):
    """How many events fell into flagged areas. A further axis may hold several budgets of area.

    Attributes
    ----------
    hits : numpy.ndarray
        Events in the flagged area (n).
    events : numpy.ndarray
        Events in the study area (N).
    best : numpy.ndarray
        Events that the best choice of as much area would have held (n*), see :func:`most_events`.
    expected : numpy.ndarray
        Events that were forecast for the flagged area; NaN if the forecast is none of counts.
    flagged_area, total_area : numpy.ndarray
        Square metres (a and A).
    """

    hits: np.ndarray
    events: np.ndarray
    best: np.ndarray
    expected: np.ndarray
    flagged_area: np.ndarray
    total_area: np.ndarray

    @property
    def rate(self) -> np.ndarray:
        """Hit rate n / N: share of the events that fell into flagged cells."""
        return ratio(self.hits, self.events)

    @property
    def area_share(self) -> np.ndarray:
        """Share of the study area that was flagged, a / A."""
        return ratio(self.flagged_area, self.total_area)

    @property
    def pai(self) -> np.ndarray:
        """Prediction accuracy index (n / N) / (a / A) of Chainey et al. (2008); 1 is chance."""
        return ratio(self.rate, self.area_share)

    @property
    def pei(self) -> np.ndarray:
        """Prediction efficiency index n / n* as in the NIJ's challenge (2017), where it is called PEI*."""
        return ratio(self.hits, self.best)

    @property
    def rri(self) -> np.ndarray:
        """Recapture rate index: events forecast for the flagged cells over those that fell there."""
        return ratio(self.expected, self.hits)


def area_hits(observed: np.ndarray, expected: np.ndarray, area: np.ndarray, shares: Sequence[float]) -> Hits:
    """Flag shares of the area anew for each step and count the events that fell there.

    Cells are flagged as by :func:`flag_cells`, with ties against the forecast.

    Parameters
    ----------
    observed, expected : numpy.ndarray
        `(steps, y, x)`; any values that rise with the expected events will do, but `rri` needs counts.
    area : numpy.ndarray
        `(y, x)` square metres inside the study area, 0 outside.
    shares : sequence of float
        Percent of the area.

    Returns
    -------
    Hits
        `(steps, shares)`. As whole cells are flagged, `area_share` may be a little below the share, and is
        above it where not even one cell fits.
    """
    inside = area > 0
    a, fractions = area[inside], np.asarray(shares, np.float64) / 100
    counts, rates = (values[:, inside].astype(np.float64) for values in (observed, expected))
    hits, best, forecast, flagged = np.empty((4, len(counts), len(fractions)))
    for step in range(len(counts)):
        order = _ranked(rates[step], a, counts[step])
        reached = np.cumsum(a[order])
        last = cells_within(reached, reached[-1] * fractions) - 1
        flagged[step] = reached[last]
        hits[step] = np.cumsum(counts[step, order])[last]
        forecast[step] = np.cumsum(np.nan_to_num(rates[step, order]))[last]
        best[step] = most_events(counts[step], a, flagged[step])
    # Fractions of events add up differently in another order.
    best = np.maximum(best, hits)
    return Hits(hits, counts.sum(axis=1, keepdims=True), best, forecast, flagged, a.sum())


def flagged_hits(
    observed: np.ndarray, flagged: np.ndarray, area: np.ndarray, expected: np.ndarray | None = None
) -> Hits:
    """Count the events that fell into cells that have been flagged, in one step: all fields are numbers.

    Parameters
    ----------
    observed, expected : numpy.ndarray
        `(y, x)`; `expected` only where it is a count.
    flagged : numpy.ndarray
        bool `(y, x)`, inside the study area.
    area : numpy.ndarray
        `(y, x)` square metres inside the study area, 0 outside.
    """
    inside = area > 0
    counts = observed[inside].astype(np.float64)
    hits = observed[flagged].sum(dtype=np.float64)
    held = area[flagged].sum()
    return Hits(
        hits,
        counts.sum(),
        np.maximum(most_events(counts, area[inside], held), hits),
        np.asarray(np.nan if expected is None else np.nan_to_num(expected[flagged]).sum(dtype=np.float64)),
        held,
        area.sum(),
    )


def most_events(counts: np.ndarray, area: np.ndarray, budget: np.ndarray | float) -> np.ndarray:
    """Return the most events n* that any choice of cells within a budget of area could have held.

    With equal cells these are the cells with the most events. Cells that the border of the study area cuts
    make the choice a knapsack problem; returned is the bound of Dantzig (1957), which takes the densest cells
    and of the first that does not fit the share that does. It is never below the best choice, so that
    n / n* is at most 1, and less than one cell's events above it. Events that are whole are rounded down,
    as the best choice holds a whole number.

    Parameters
    ----------
    counts, area : numpy.ndarray
        float64 `(cells,)`: events, and square metres above 0.
    budget : numpy.ndarray or float
        Square metres, of any shape.
    """
    busy = counts > 0
    events, size = counts[busy], area[busy]
    order = np.argsort(-events / size, kind="stable")
    reached, held = (np.concatenate([[0.0], np.cumsum(values[order])]) for values in (size, events))
    most = np.interp(budget, reached, held)
    whole = (events == np.floor(events)).all()
    return np.floor(most + 1e-6) if whole else most


def hit_rate(observed: np.ndarray, expected: np.ndarray, area: np.ndarray, area_share: float) -> Hits:
    """Flag `area_share` percent of the area anew for each step; count the events, pooled over all steps."""
    return area_hits(observed, expected, area, [area_share]).at(0).pooled()
