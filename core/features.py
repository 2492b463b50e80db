# SPDX-License-Identifier: GPL-2.0-or-later
"""What a forecast may know before a step begins: averages over the past, never over the step itself.

What is said of step `t` uses steps before `t` only; `t` may be the first step after the cube.
"""

from __future__ import annotations

import numpy as np

from .timesteps import TimeAxis


class RunningSums:
    """Sums over the steps before any step, of which only every 64th is kept.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, ...)`; referred to, not copied.
    """

    _BLOCK = 64

    def __init__(self, counts: np.ndarray) -> None:
        self._counts = counts
        blocks = range(0, len(counts), self._BLOCK)
        self._kept = np.zeros((len(blocks) + 1, *counts.shape[1:]))
        for number, start in enumerate(blocks):
            part = counts[start : start + self._BLOCK].sum(axis=0, dtype=np.float64)
            self._kept[number + 1] = self._kept[number] + part

    def before(self, step: int) -> np.ndarray:
        """Return the sum of all steps before this one, float64."""
        block = step // self._BLOCK
        rest = self._counts[block * self._BLOCK : step]
        return self._kept[block] + rest.sum(axis=0, dtype=np.float64)

    def trailing(self, window: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sums over the `window` steps before each of the steps `start` to `stop - 1`.

        `stop` may be the number of steps plus one. Near the beginning there are fewer steps to look
        back to.

        Returns
        -------
        sums : numpy.ndarray
            float64 `(stop - start, ...)`.
        lengths : numpy.ndarray
            int `(stop - start,)`, from 0 to `window`.
        """
        steps = np.arange(start, stop)
        first = np.maximum(steps - window, 0)
        sums = np.empty((len(steps), *self._counts.shape[1:]))
        if len(steps):
            sums[0] = self.before(start) - self.before(int(first[0]))
        for i in range(1, len(steps)):
            sums[i] = sums[i - 1] + self._counts[steps[i] - 1]
            if first[i] > first[i - 1]:
                sums[i] -= self._counts[first[i - 1]]
        return sums, steps - first


def historical_average(
    counts: np.ndarray, axis: TimeAxis, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Mean of the last 365 days per cell (baseline HA of the Hetero-ConvLSTM paper).

    Returns float32 `(stop - start, y, x)` for the steps `start` to `stop - 1`, by default for all and the
    one after the last; the first row of all, which has no past, is 0.
    """
    stop = len(counts) + 1 if stop is None else stop
    sums, lengths = RunningSums(counts).trailing(axis.steps_per_year, start, stop)
    return (sums / np.maximum(lengths, 1)[:, None, None]).astype(np.float32)


def weekday_average(
    counts: np.ndarray, axis: TimeAxis, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Mean of the last 52 steps at the same place of the week (weekday, or weekday and hour).

    Where that slot has no past yet, and for steps of a week or longer, this is
    the historical average. Returns float32 as :func:`historical_average`.
    """
    stop = len(counts) + 1 if stop is None else stop
    result = historical_average(counts, axis, start, stop)
    slots = axis.extended(1).weekly_slot
    if slots.max(initial=0) == 0:
        return result
    for slot in np.unique(slots[start:stop]):
        members = np.flatnonzero(slots == slot)
        past = members[members < len(counts)]
        sums = RunningSums(counts[past])
        for step in members[(members >= start) & (members < stop)]:
            place = int(np.searchsorted(past, step))
            total, length = sums.trailing(52, place, place + 1)
            if length[0]:
                result[step - start] = total[0] / length[0]
    return result


class BaseRates:
    """What is known of each cell on the eve of a step, from counts of the steps before.

    A cell counts as if it had seen, besides its own past of a year, seven steps at the mean rate of the
    study area, in proportion to its share inside: a cell without events is not expected to stay so for
    ever, and a sliver at the border is not expected to hold as much as a whole cell.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)`; referred to, not copied.
    inside : numpy.ndarray
        `(y, x)` share of each cell inside the study area.
    axis : TimeAxis
        Of `counts`.
    """

    _WEIGHT = 7.0
    # Events that are added to observed and expected ones, so that a quiet cell says nothing.
    _CALM = 3.0

    def __init__(self, counts: np.ndarray, inside: np.ndarray, axis: TimeAxis) -> None:
        self._sums = RunningSums(counts)
        self._inside = inside
        self._valid = inside > 0
        self._year = axis.steps_per_year
        self._month = max(2, round(28 * 24 / axis.hours))
        # Counts are 0 outside the study area; a product needs no copy of the cells inside.
        weights = self._valid.astype(np.float32).ravel()
        city = RunningSums((counts.reshape(len(counts), -1) @ weights).astype(np.float64))
        everything = (0, len(counts) + 1)
        sums, lengths = city.trailing(self._year, *everything)
        # Half an event in the whole city and period stands for "none so far".
        self._mean = np.maximum(sums, 0.5) / np.maximum(lengths, 1) / inside.sum()
        expected = (sums + self._WEIGHT * self._mean * inside.sum()) / (lengths + self._WEIGHT)
        observed, span = city.trailing(self._month, *everything)
        #: float32 `(steps + 1,)`: log of observed over expected events of 28 days in the study area.
        self.city_level = np.log((observed + self._CALM) / (expected * span + self._CALM)).astype(np.float32)

    def rate(self, start: int, stop: int) -> np.ndarray:
        """Return expected events for the steps `start` to `stop - 1`: float32, above 0; 1 outside."""
        sums, lengths = self._sums.trailing(self._year, start, stop)
        prior = self._WEIGHT * self._mean[start:stop, None, None] * self._inside
        rate = (sums + prior) / (lengths + self._WEIGHT)[:, None, None]
        return np.where(self._valid, rate, 1.0).astype(np.float32)

    def recent_ratio(self, start: int, stop: int, rate: np.ndarray) -> np.ndarray:
        """Return the log of observed over expected (`rate`) events of the last 28 days per cell, float32."""
        sums, lengths = self._sums.trailing(self._month, start, stop)
        calm = self._CALM
        return np.log((sums + calm) / (rate * lengths[:, None, None] + calm)).astype(np.float32)
