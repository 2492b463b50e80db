# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of the order in which a forecast puts the cells of each step, whatever its values are.

Arrays are `(steps, y, x)`; `valid` is the bool mask `(y, x)` of the study area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from .sums import Sums, ratio

#: What a cell with y events is worth: y, or 2^y - 1.
GAINS = ("linear", "exponential")


@dataclass(frozen=True, eq=False)
class Ranking(Sums):
    """How well each step tells cells with an event from those without.

    Attributes
    ----------
    pairs : numpy.ndarray
        Pairs of a cell with and a cell without an event.
    in_order : numpy.ndarray
        Those in which the cell with an event has the higher forecast; equal forecasts count half.
    precision : numpy.ndarray
        Average precision of the step.
    steps : numpy.ndarray
        1 if the step has an event, else 0.
    """

    pairs: np.ndarray
    in_order: np.ndarray
    precision: np.ndarray
    steps: np.ndarray

    @property
    def auc(self) -> np.ndarray:
        """Chance that of two cells of a step the one with an event has the higher forecast."""
        return ratio(self.in_order, self.pairs)

    @property
    def average_precision(self) -> np.ndarray:
        """Mean of the average precision over the steps with an event."""
        return ratio(self.precision, self.steps)


def ranking(outcome: np.ndarray, forecast: np.ndarray, valid: np.ndarray) -> Ranking:
    """Return how each step is ordered; `outcome` is bool.

    Cells are compared within their step. Over all samples at once, as in :func:`.classification.score`, a
    forecast also gains by telling busy steps from quiet ones.
    """
    y = outcome[:, valid].astype(bool)
    p = forecast[:, valid].astype(np.float64)
    yes = y.sum(axis=1, dtype=np.float64)
    # Mann and Whitney's U, from the ranks of the cells with an event.
    ranks = np.where(y, rankdata(p, axis=1), 0).sum(axis=1) if p.size else np.zeros(len(p))
    precision = np.array([average_precision_score(a, b) if a.any() else 0.0 for a, b in zip(y, p)])
    return Ranking(yes * (y.shape[1] - yes), ranks - yes * (yes + 1) / 2, precision, yes > 0)


@dataclass(frozen=True, eq=False)
class TopCells(Sums):
    """What the cells with the highest forecasts of each step held; the last axis holds numbers of cells k.

    Attributes
    ----------
    normalised_gain : numpy.ndarray
        NDCG@k of the step, 0 without an event.
    with_events, cells : numpy.ndarray
        Cells with an event among the first k, and k (or all cells, if there are fewer).
    steps : numpy.ndarray
        1 if the step has an event, else 0.
    """

    normalised_gain: np.ndarray
    with_events: np.ndarray
    cells: np.ndarray
    steps: np.ndarray

    @property
    def ndcg(self) -> np.ndarray:
        """Normalised discounted cumulative gain (Järvelin & Kekäläinen 2002), mean over steps with events."""
        return ratio(self.normalised_gain, self.steps)

    @property
    def precision(self) -> np.ndarray:
        """Precision at k: share of the first k cells that had an event."""
        return ratio(self.with_events, self.cells)


def top_cells(
    observed: np.ndarray,
    forecast: np.ndarray,
    valid: np.ndarray,
    counts: Sequence[int],
    gain: str = "linear",
) -> TopCells:
    """Look at the `k` cells with the highest forecasts of each step.

    Of equal forecasts the cells with the fewest events come first: a forecast earns nothing by chance.

    Parameters
    ----------
    observed : numpy.ndarray
        Events.
    counts : sequence of int
        Numbers of cells k.
    gain : {"linear", "exponential"}
        What a cell with y events is worth: y (as in scikit-learn), or 2^y - 1 (as is usual for ranks).

    Returns
    -------
    TopCells
        `(steps, counts)`.

    Raises
    ------
    ValueError
        Another gain, or a number of cells below 1.
    """
    if gain not in GAINS:
        raise ValueError(f"the gain is one of {GAINS}, not '{gain}'")
    if min(counts) < 1:
        raise ValueError("at least one cell must be looked at")
    y, p = (values[:, valid].astype(np.float64) for values in (observed, forecast))
    last = np.minimum(np.asarray(counts), y.shape[1]) - 1
    discount = 1 / np.log2(np.arange(y.shape[1]) + 2)
    normalised, with_events = np.zeros((2, len(y), len(last)))
    for step, (events, values) in enumerate(zip(y, p)):
        if not events.any():
            continue
        found = events[np.lexsort((events, -values))]
        worth, ideal = (_gain(order, gain) for order in (found, np.sort(events)[::-1]))
        normalised[step] = (np.cumsum(worth * discount) / np.cumsum(ideal * discount))[last]
        with_events[step] = np.cumsum(found > 0)[last]
    return TopCells(normalised, with_events, last + 1, np.any(y, axis=1, keepdims=True))


def _gain(events: np.ndarray, gain: str) -> np.ndarray:
    return events if gain == "linear" else np.expm1(np.log(2) * events)
