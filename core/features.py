# SPDX-License-Identifier: GPL-2.0-or-later
"""What a forecast may know before a step begins: averages over the past, never over the step itself.

What is said of step `t` uses steps before `t` only; `t` may be the first step after the cube.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from .timesteps import TimeAxis, clock_to_utc

# Events that are added to observed and expected ones, so that a quiet city or cell says nothing.
_CALM = 3.0

# Times that a place of the week comes in two years.
_TWO_YEARS = 104


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


def season_ago(axis: TimeAxis, start: int, stop: int, known: int) -> np.ndarray:
    """Return the step one season before each of the steps `start` to `stop - 1`, negative if there is none.

    For steps up to a day it is the step at the same local time one week ago (weekday, or weekday and hour,
    also across a change of the clocks), for longer steps the one a year ago. Where that is not among the
    first `known` steps, which are all that is known, it is the one another season earlier, and so on.

    Returns
    -------
    numpy.ndarray
        int `(stop - start,)`.
    """
    steps = np.arange(start, stop)
    if axis.hours > 24:
        season = axis.steps_per_year
        return steps - season * np.maximum(1, -(-(steps - known + 1) // season))
    local = axis.extended(stop - len(axis)).local_starts[start:stop].tz_localize(None)
    zone = ZoneInfo(axis.time_zone)
    found, weeks = np.full(len(steps), known), 0
    while (ahead := found >= known).any():
        weeks += 1
        moments = clock_to_utc(local[ahead] - pd.Timedelta(weeks=weeks), zone).to_numpy()
        found[ahead] = np.where(moments < axis.edges[-1], axis.locate(moments), known)
    return found


class DecayedMeans:
    """Means of the past in which a step counts half as much as one that lies `half_life` steps later.

    Parameters
    ----------
    half_lives : sequence of float
        In steps; infinite if all steps count the same.
    counts : numpy.ndarray
        `(steps, ...)` all that is known so far.
    """

    _BLOCK = 64

    def __init__(self, half_lives: Sequence[float], counts: np.ndarray) -> None:
        self._keep = 0.5 ** (1 / np.asarray(half_lives, np.float64))
        weights = self._keep[:, None] ** np.arange(len(counts) - 1, -1, -1)
        self._norm = weights.sum(axis=1)
        flat = np.zeros((len(self._keep), math.prod(counts.shape[1:])))
        # In blocks, as the counts have to become double precision.
        for first in range(0, len(counts), self._BLOCK):
            block = slice(first, first + self._BLOCK)
            flat += weights[:, block] @ counts[block].reshape(-1, flat.shape[1]).astype(np.float64)
        self._sums = flat.reshape(-1, *counts.shape[1:])

    @property
    def weight(self) -> np.ndarray:
        """float64 `(half_lives,)`: how many steps the past amounts to."""
        return self._norm

    @property
    def sums(self) -> np.ndarray:
        """float64 `(half_lives, ...)`: weighted sums of the past."""
        return self._sums

    @property
    def means(self) -> np.ndarray:
        """float64 `(half_lives, ...)`: weighted means of the past, 0 if there is none."""
        return self._sums / self._per_cell(np.where(self._norm > 0, self._norm, 1))

    def advance(self, counts: np.ndarray) -> None:
        """Take in the counts `(...)` of a further step."""
        self._sums = self._sums * self._per_cell(self._keep) + counts
        self._norm = self._norm * self._keep + 1

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> DecayedMeans:
        """Return the means of counts on which a linear function `(..., y, x)` is laid; advance it by such."""
        other = copy.copy(self)
        other._sums = function(self._sums)
        return other

    def _per_cell(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *(1,) * (self._sums.ndim - 1))


def decayed_mean(counts: np.ndarray, half_life: float, start: int, stop: int) -> np.ndarray:
    """Exponentially weighted mean of all steps before each of the steps `start` to `stop - 1` per cell.

    Steps beyond the one that follows the counts get what is known at the end.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)`.
    half_life : float
        In steps; infinite for the plain mean.

    Returns
    -------
    numpy.ndarray
        float64 `(stop - start, y, x)`.
    """
    past = DecayedMeans([half_life], counts[:start])
    result = np.empty((stop - start, *counts.shape[1:]))
    for i in range(stop - start):
        result[i] = past.means[0]
        if start + i < len(counts):
            past.advance(counts[start + i])
    return result


class CityPace:
    """How many events the study area as a whole has lately, and how they spread over the week.

    Steps beyond the one that follows the counts get what is known at the end, the place of the week being
    their own.

    Parameters
    ----------
    totals : numpy.ndarray
        `(steps,)` events of the study area, see :func:`city_totals`.
    axis : TimeAxis
        Of these steps; it may go on beyond them.
    """

    def __init__(self, totals: np.ndarray, axis: TimeAxis) -> None:
        self._axis = axis
        self._sums = np.append(0.0, np.cumsum(totals))

    def level(self, expected: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return observed over expected events of the last 28 days, float64 `(stop - start,)`.

        Parameters
        ----------
        expected : numpy.ndarray
            Events that are expected of one step in the study area, for each of these steps.
        """
        observed, length = self._trailing(month_steps(self._axis), start, stop)
        return (observed + _CALM) / (expected * length + _CALM)

    def mean(self, steps: int, start: int, stop: int) -> np.ndarray:
        """Return the mean of the events of the last `steps` steps, float64 `(stop - start,)`; 0 at first."""
        observed, length = self._trailing(steps, start, stop)
        return observed / np.maximum(length, 1)

    def weekday_factor(self, start: int, stop: int) -> np.ndarray:
        """Return by how much steps differ from others for their place of the week, float64 `(stop - start,)`.

        Of the last two years, events at this place of the week (weekday, or weekday and hour) over those
        to be expected there if all places were alike. 1 for steps longer than a day.
        """
        factor = np.ones(stop - start)
        slots = self._axis.extended(stop - len(self._axis)).weekly_slot[:stop]
        if slots.max(initial=0) == 0:
            return factor
        observed, length = self._trailing(2 * self._axis.steps_per_year, start, stop)
        overall = observed / np.maximum(length, 1)
        known = len(self._sums) - 1
        totals = np.diff(self._sums)
        for slot in np.unique(slots[start:stop]):
            past = np.flatnonzero(slots[:known] == slot)
            sums = np.append(0.0, np.cumsum(totals[past]))
            own = np.flatnonzero(slots[start:stop] == slot)
            last = np.searchsorted(past, start + own)
            first = np.maximum(last - _TWO_YEARS, 0)
            usual = (last - first) * overall[own]
            factor[own] = (sums[last] - sums[first] + _CALM) / (usual + _CALM)
        return factor

    def _trailing(self, window: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sums over the `window` steps before each step, and how many steps there were."""
        end = np.minimum(np.arange(start, stop), len(self._sums) - 1)
        begin = np.maximum(end - window, 0)
        return self._sums[end] - self._sums[begin], end - begin


def city_totals(counts: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the events of each step in the study area, float64 `(steps,)`."""
    # Cells outside may hold anything, NaN excepted; a product needs no copy of the cells inside.
    weights = valid.astype(np.float32).ravel()
    return (counts.reshape(len(counts), -1) @ weights).astype(np.float64)


def month_steps(axis: TimeAxis) -> int:
    """Return how many steps 28 days are, at least 2."""
    return max(2, round(28 * 24 / axis.hours))


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

    def __init__(self, counts: np.ndarray, inside: np.ndarray, axis: TimeAxis) -> None:
        self._sums = RunningSums(counts)
        self._inside = inside
        self._valid = inside > 0
        self._year = axis.steps_per_year
        self._month = month_steps(axis)
        city = RunningSums(city_totals(counts, self._valid))
        everything = (0, len(counts) + 1)
        sums, lengths = city.trailing(self._year, *everything)
        # Half an event in the whole city and period stands for "none so far".
        self._mean = np.maximum(sums, 0.5) / np.maximum(lengths, 1) / inside.sum()
        expected = (sums + self._WEIGHT * self._mean * inside.sum()) / (lengths + self._WEIGHT)
        observed, span = city.trailing(self._month, *everything)
        #: float32 `(steps + 1,)`: log of observed over expected events of 28 days in the study area.
        self.city_level = np.log((observed + _CALM) / (expected * span + _CALM)).astype(np.float32)

    def rate(self, start: int, stop: int) -> np.ndarray:
        """Return expected events for the steps `start` to `stop - 1`: float32, above 0; 1 outside."""
        sums, lengths = self._sums.trailing(self._year, start, stop)
        prior = self._WEIGHT * self._mean[start:stop, None, None] * self._inside
        rate = (sums + prior) / (lengths + self._WEIGHT)[:, None, None]
        return np.where(self._valid, rate, 1.0).astype(np.float32)

    def recent_ratio(self, start: int, stop: int, rate: np.ndarray) -> np.ndarray:
        """Return the log of observed over expected (`rate`) events of the last 28 days per cell, float32."""
        sums, lengths = self._sums.trailing(self._month, start, stop)
        return np.log((sums + _CALM) / (rate * lengths[:, None, None] + _CALM)).astype(np.float32)
