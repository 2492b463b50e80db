# SPDX-License-Identifier: GPL-2.0-or-later
"""What a forecast may know before a step begins: averages over the past, never over the step itself.

Row `t` of every array made here uses steps before `t` only, and there is one row
more than steps: the last one belongs to the first step after the cube.
"""

from __future__ import annotations

import numpy as np

from .timesteps import TimeAxis


def trailing_sum(counts: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over the `window` steps before each step, and how many steps these were.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, ...)`.
    window : int
        Steps to look back; near the beginning there are fewer.

    Returns
    -------
    sums : numpy.ndarray
        float64 `(steps + 1, ...)`.
    lengths : numpy.ndarray
        int `(steps + 1,)`, from 0 to `window`.
    """
    running = np.zeros((len(counts) + 1, *counts.shape[1:]))
    np.cumsum(counts, axis=0, dtype=np.float64, out=running[1:])
    stop = np.arange(len(counts) + 1)
    start = np.maximum(stop - window, 0)
    return running[stop] - running[start], stop - start


def historical_average(counts: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Mean of the last 365 days per cell (baseline HA of the Hetero-ConvLSTM paper).

    Returns float32 `(steps + 1, y, x)`; the first row, which has no past, is 0.
    """
    sums, lengths = trailing_sum(counts, axis.steps_per_year)
    return (sums / np.maximum(lengths, 1)[:, None, None]).astype(np.float32)


def weekday_average(counts: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Mean of the last 52 steps at the same place of the week (weekday, or weekday and hour).

    Where that slot has no past yet, and for steps of a week or longer, this is
    the historical average. Returns float32 `(steps + 1, y, x)`.
    """
    result = historical_average(counts, axis)
    slots = axis.extended(1).weekly_slot
    if slots.max(initial=0) == 0:
        return result
    for slot in np.unique(slots):
        members = np.flatnonzero(slots == slot)
        past = members[members < len(counts)]
        sums, lengths = trailing_sum(counts[past], 52)
        rows = np.searchsorted(past, members)
        known = lengths[rows] > 0
        result[members[known]] = sums[rows[known]] / lengths[rows[known], None, None]
    return result


def base_rate(counts: np.ndarray, inside: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Historical average drawn a little towards the mean density of the study area, so that it is never zero.

    A cell counts as if it had seen, besides its own past, seven steps at the mean
    rate of the study area, in proportion to its share inside (`inside`, `(y, x)`):
    a sliver at the border is not expected to hold as much as a whole cell.
    Returns float32 `(steps + 1, y, x)`, above 0 in the study area.
    """
    weight = 7.0
    sums, lengths = trailing_sum(counts, axis.steps_per_year)
    # Half an event in the whole city and period stands for "none so far".
    city = np.maximum(sums[:, inside > 0].sum(axis=1), 0.5)
    mean = city / np.maximum(lengths, 1) / inside.sum()
    rate = (sums + weight * mean[:, None, None] * inside) / (lengths + weight)[:, None, None]
    return np.where(inside > 0, rate, 1.0).astype(np.float32)


def recent_ratio(counts: np.ndarray, base: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Log of observed over expected events of the last 28 days, per cell.

    Three expected events are added to both, so that a quiet cell says nothing
    rather than something extreme. Returns float32 `(steps + 1, y, x)`.
    """
    window = max(2, round(28 * 24 / axis.hours))
    sums, lengths = trailing_sum(counts, window)
    return np.log((sums + 3.0) / (base * lengths[:, None, None] + 3.0)).astype(np.float32)


def city_level(counts: np.ndarray, base: np.ndarray, valid: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Log of observed over expected events of the last 28 days in the whole study area.

    Returns float32 `(steps + 1,)`.
    """
    window = max(2, round(28 * 24 / axis.hours))
    sums, lengths = trailing_sum(counts[:, valid].sum(axis=1), window)
    expected = base[:, valid].sum(axis=1) * lengths
    return np.log((sums + 3.0) / (expected + 3.0)).astype(np.float32)
