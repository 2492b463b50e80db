# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of count forecasts. All of them look at the cells of the study area only.

Arrays are `(steps, y, x)`; `valid` is the bool mask `(y, x)` of the study area and
`area` the square metres of each cell inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def mean_squared_error(observed: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> float:
    """Mean of (observed - expected)² over all valid cells and steps."""
    difference = observed[:, valid].astype(np.float64) - expected[:, valid]
    return float(np.mean(difference**2))


def poisson_deviance(observed: np.ndarray, expected: np.ndarray, valid: np.ndarray) -> float:
    """Mean Poisson deviance 2 (y log(y / mu) - y + mu) over all valid cells and steps.

    An expected count of zero is taken as 1e-9: an event there is very unlikely, not impossible.
    """
    y = observed[:, valid].astype(np.float64)
    mu = np.maximum(expected[:, valid].astype(np.float64), 1e-9)
    log_ratio = np.log(np.where(y > 0, y, 1.0) / np.where(y > 0, mu, 1.0))
    return float(np.mean(2 * (y * log_ratio - y + mu)))


def flag_cells(expected: np.ndarray, area: np.ndarray, area_share: float) -> np.ndarray:
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
    """
    inside = area > 0
    density = np.where(inside, np.nan_to_num(expected) / np.maximum(area, 0.1 * area.max()), -np.inf)
    order = np.argsort(-density, axis=None, kind="stable")[: int(inside.sum())]
    reached = np.cumsum(area.reshape(-1)[order])
    # A share such as 5 % of equal cells must not lose a cell to rounding.
    count = max(1, int(np.searchsorted(reached, reached[-1] * area_share / 100 * (1 + 1e-9), side="right")))
    flagged = np.zeros(area.size, bool)
    flagged[order[:count]] = True
    return flagged.reshape(area.shape)


@dataclass(frozen=True)
class HitRate:
    """How many events fell into flagged cells, pooled over all steps."""

    hits: float
    events: float
    flagged_area: float
    total_area: float

    @property
    def rate(self) -> float:
        """Share of the events that fell into flagged cells."""
        return self.hits / self.events if self.events else float("nan")

    @property
    def pai(self) -> float:
        """Prediction accuracy index (n / N) / (a / A) of Chainey et al. (2008)."""
        return self.rate / (self.flagged_area / self.total_area)


def hit_rate(observed: np.ndarray, expected: np.ndarray, area: np.ndarray, area_share: float) -> HitRate:
    """Flag `area_share` percent of the area anew for each step and count the events that fell there."""
    hits = events = flagged_area = 0.0
    valid = area > 0
    for counts, rates in zip(observed, expected):
        flagged = flag_cells(rates, area, area_share)
        hits += float(counts[flagged].sum())
        events += float(counts[valid].sum())
        flagged_area += float(area[flagged].sum())
    return HitRate(hits, events, flagged_area, float(area.sum()) * len(observed))
