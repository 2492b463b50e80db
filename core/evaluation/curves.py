# SPDX-License-Identifier: GPL-2.0-or-later
"""The share of events that a forecast finds, and its PAI, over the share of the area that is flagged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import auc

from .metrics import Hits
from .sums import ratio


@dataclass(frozen=True, eq=False)
class HitCurve:
    """A hit-rate curve and its two limits; all arrays are float64 `(points,)`, from no area to all of it.

    Chance finds as large a share of the events as it flags of the area: its line is `area_share` itself,
    and its PAI is 1.

    Attributes
    ----------
    area_share : numpy.ndarray
        Share of the area that was flagged.
    hit_rate : numpy.ndarray
        Share of the events that fell there.
    best_rate : numpy.ndarray
        That of an oracle, which knows each step beforehand and flags as much area.
    """

    area_share: np.ndarray
    hit_rate: np.ndarray
    best_rate: np.ndarray

    @property
    def pai(self) -> np.ndarray:
        """Prediction accuracy index at each point (budget curve), NaN without area."""
        return ratio(self.hit_rate, self.area_share)

    @property
    def best_pai(self) -> np.ndarray:
        """That of the oracle."""
        return ratio(self.best_rate, self.area_share)

    @property
    def area_under(self) -> float:
        """Area under the hit-rate curve, by trapezoids: 0.5 is chance."""
        return float(auc(self.area_share, self.hit_rate))


def budgets(points: int = 100) -> np.ndarray:
    """Return shares of the area in percent for a curve: dense where the first patrols go, then up to all."""
    return 100 * np.linspace(0, 1, points + 1)[1:] ** 2


def hit_curve(hits: Hits) -> HitCurve:
    """Return the curve of hits at many budgets, such as :func:`budgets`, pooled over the origins.

    Parameters
    ----------
    hits : Hits
        `(origins, budgets)`, as :func:`.metrics.area_hits` returns them.
    """
    total = hits.pooled()
    share, order = np.unique(total.area_share, return_index=True)
    # The ends are no budgets of their own: nothing is found without area, and everything in all of it.
    before, after = [0.0] * int(share[0] > 0), [1.0] * int(share[-1] < 1)
    rates = (total.area_share, total.rate, ratio(total.best, total.events))
    return HitCurve(*(np.concatenate([before, values[order], after]) for values in rates))
