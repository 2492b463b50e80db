# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells are hot spots: labels of each step, and the cells that a classifier looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InputError

#: Ways to tell hot cells from others.
RULES = ("top_cells", "top_share", "threshold")
#: Ways to choose the cells that can become hot; ``all_steps`` looks into the future.
CANDIDATES = ("training", "all_steps", "all_cells")


@dataclass(frozen=True)
class LabelRule:
    """What makes a cell hot in a step.

    Attributes
    ----------
    kind : {"top_cells", "top_share", "threshold"}
        The `value` cells with the most events of the step (20 in the Spatio-LSTM), the hottest `value`
        percent of the cells of the study area (rounded down, but at least one), or all cells with at
        least `value` events.
    value : float
        See `kind`.
    """

    kind: str = "top_cells"
    value: float = 20.0

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise InputError(
                "There is no such rule for hot cells.",
                hint=f"Choose one of {', '.join(RULES)}.",
                parameter="LABEL_RULE",
                value=self.kind,
            )
        if self.kind == "top_cells" and not (self.value >= 1 and float(self.value).is_integer()):
            raise InputError(
                "The number of hot cells must be a whole number from 1 on.",
                hint="20 is what the Spatio-LSTM was published with.",
                parameter="LABEL_VALUE",
                value=self.value,
            )
        if self.kind == "top_share" and not 0 < self.value <= 100:
            raise InputError(
                "The share of hot cells must be above 0 and at most 100 percent.",
                hint="1 is a good start.",
                parameter="LABEL_VALUE",
                value=self.value,
            )
        if self.kind == "threshold" and not 0 < self.value < np.inf:
            raise InputError(
                "The number of events that make a cell hot must be above 0.",
                hint="Give a number such as 3.",
                parameter="LABEL_VALUE",
                value=self.value,
            )

    def hot(self, counts: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Tell which cells are hot in each step, from the events of that step alone.

        A cell without an event is never hot, so there may be fewer hot cells than asked for. Of cells
        with the same number of events those come first that have more events in the 3 x 3 cells around
        them in the same step, then those further north, then further west: a run can be repeated, and
        what happens in other steps never changes a label.

        Parameters
        ----------
        counts : numpy.ndarray
            `(steps, y, x)` events; those outside the study area are not looked at.
        valid : numpy.ndarray
            bool `(y, x)`: the study area.

        Returns
        -------
        numpy.ndarray
            bool `(steps, y, x)`.
        """
        counts = np.where(valid, counts, 0)
        if self.kind == "threshold":
            return counts >= self.value
        most = int(self.value)
        if self.kind == "top_share":
            # 5 % of 40 cells are 2, whatever rounding makes of it.
            most = max(1, int(valid.sum() * self.value / 100 * (1 + 1e-12)))
        around = _around(counts)
        hot = np.zeros(counts.shape, bool).reshape(len(counts), -1)
        # Step by step, as only cells with events have to be sorted, and these are few.
        for step, flags in enumerate(hot):
            values = counts[step].ravel()
            cells = np.flatnonzero(values)
            order = np.lexsort((-around[step].ravel()[cells], -values[cells]))
            flags[cells[order[:most]]] = True
        return hot.reshape(counts.shape)


def _around(counts: np.ndarray) -> np.ndarray:
    """Return the sum over each cell and its eight neighbours: `(steps, y, x)`."""
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def candidates(labels: np.ndarray, valid: np.ndarray, train_stop: int, how: str = "training") -> np.ndarray:
    """Choose the cells that a classifier learns from and judges; all others count as cold.

    Parameters
    ----------
    labels : numpy.ndarray
        bool `(steps, y, x)`, see :meth:`LabelRule.hot`.
    valid : numpy.ndarray
        bool `(y, x)`: the study area.
    train_stop : int
        First step after those of the training.
    how : {"training", "all_steps", "all_cells"}
        Cells that were ever hot before `train_stop`; that are ever hot, later steps included (as
        published: it tells the model which cells become hot after its training, so it is for
        reproduction only); or the whole study area.

    Returns
    -------
    numpy.ndarray
        bool `(y, x)`, at least one cell.

    Raises
    ------
    InputError
        Unknown way to choose, or no cell is ever hot.
    """
    check_candidates(how)
    if how == "all_cells":
        chosen = valid.copy()
    else:
        chosen = labels[: train_stop if how == "training" else None].any(axis=0) & valid
    if not chosen.any():
        raise InputError(
            "No cell is hot in any training step, so there is nothing to learn.",
            hint="Choose a lower LABEL_VALUE, longer steps or a longer period.",
            parameter="CANDIDATES",
            value=how,
        )
    return chosen


def check_candidates(how: str) -> None:
    """Raise :class:`InputError` if there is no such way to choose the cells."""
    if how not in CANDIDATES:
        raise InputError(
            "There is no such way to choose the cells.",
            hint=f"Choose one of {', '.join(CANDIDATES)}.",
            parameter="CANDIDATES",
            value=how,
        )
