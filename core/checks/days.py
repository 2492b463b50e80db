# SPDX-License-Identifier: GPL-2.0-or-later
"""Events a day: how many, how even, which days stand out and where days are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .localtimes import DAY, LocalTimes

#: Days over which the local level is taken: two weeks before and two weeks after.
LEVEL_DAYS = 29

#: Days that stand out are listed up to this number.
SPIKES = 10

# A day is hollow if it has less than this share of the local level, and the level is so high that a steady
# rate does not bring such a day. Rates are not steady where fireworks raise the level, so it is a hint only.
_HOLLOW_SHARE, _HOLLOW_LEVEL = 0.25, 20


@dataclass(frozen=True)
class Spike:
    """A day that stands out.

    Attributes
    ----------
    day : numpy.datetime64
    events : int
    level : float
        Events a day around it (:attr:`DailyCounts.level`).
    striking : bool
        Whether it has at least twice its level and chance explains it badly.
    """

    day: np.datetime64
    events: int
    level: float
    striking: bool

    @property
    def ratio(self) -> float:
        """Events over the level; NaN where nothing happens around the day."""
        return self.events / self.level if self.level else math.nan


@dataclass(frozen=True)
class Gap:
    """The longest time between two events in a row.

    Attributes
    ----------
    start, end : numpy.datetime64
        The two events, UTC.
    improbable : bool
        Whether events are missing rather than rare: chance would leave such a gap in fewer than one of
        a hundred layers of this length even if events came at a third of their mean rate.
    """

    start: np.datetime64
    end: np.datetime64
    improbable: bool

    @property
    def days(self) -> float:
        """Length in days of 24 hours."""
        return float((self.end - self.start) / np.timedelta64(1, "s")) / DAY


@dataclass(frozen=True, eq=False)
class DailyCounts:
    """Events on each day of the local calendar from the first event to the last.

    Attributes
    ----------
    first : numpy.datetime64
        The first day.
    counts : numpy.ndarray
        int64 `(days,)`.
    """

    first: np.datetime64
    counts: np.ndarray

    @classmethod
    def of(cls, local: LocalTimes) -> DailyCounts:
        """Return the counts of at least one event."""
        return cls(local.first, np.bincount(local.day))

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def days(self) -> np.ndarray:
        """The days, ``datetime64[D]``."""
        return self.first + np.arange(len(self.counts))

    @property
    def last(self) -> np.datetime64:
        """The last day."""
        return self.days[-1]

    @property
    def median(self) -> float:
        """Median of the events a day."""
        return float(np.median(self.counts))

    @property
    def empty(self) -> int:
        """Days without events."""
        return int((self.counts == 0).sum())

    @cached_property
    def level(self) -> np.ndarray:
        """Usual events a day around each day `(days,)`.

        The running median of :data:`LEVEL_DAYS` days, which a few festive days do not move; the running
        mean where the median is below one, because events are too rare for a median.
        """
        running = pd.Series(self.counts).rolling(LEVEL_DAYS, center=True, min_periods=1)
        median = running.median().to_numpy()
        return np.where(median >= 1, median, running.mean().to_numpy())

    @cached_property
    def surprise(self) -> np.ndarray:
        """Distance of each day `(days,)` from its level in standard deviations of a Poisson count."""
        return (self.counts - self.level) / np.sqrt(self.level + 1)

    @property
    def striking(self) -> np.ndarray:
        """bool `(days,)`: which days have at least twice their level and are badly explained by chance."""
        return (self.counts >= 2 * self.level) & (self.surprise >= 5)

    def spikes(self, among: np.ndarray | None = None) -> tuple[Spike, ...]:
        """Return the days that stand out most from the four weeks around them, the most surprising first.

        Parameters
        ----------
        among : numpy.ndarray, optional
            bool `(days,)`: the days to choose from; at most :data:`SPIKES` are returned.
        """
        candidate = self.surprise > 1
        if among is not None:
            candidate &= among
        days = np.flatnonzero(candidate)
        order = days[np.argsort(-self.surprise[days], kind="stable")][:SPIKES]
        striking = self.striking
        return tuple(
            Spike(self.days[i], int(self.counts[i]), float(self.level[i]), bool(striking[i])) for i in order
        )

    @property
    def hollow(self) -> np.ndarray:
        """Days with far fewer events than the days around, ``datetime64[D]``: records may be missing."""
        return self.days[(self.counts < _HOLLOW_SHARE * self.level) & (self.level >= _HOLLOW_LEVEL)]

    def running_mean(self, days: int = 28) -> np.ndarray:
        """Return the centred running mean `(days,)`."""
        return pd.Series(self.counts).rolling(days, center=True, min_periods=days // 2).mean().to_numpy()


def longest_gap(time: np.ndarray) -> Gap | None:
    """Return the longest time between two events in a row; None for fewer than two events.

    Parameters
    ----------
    time : numpy.ndarray
        ``datetime64[s]`` `(events,)`, in any order.
    """
    if len(time) < 2:
        return None
    ordered = np.sort(time.astype("datetime64[s]"))
    lengths = np.diff(ordered).astype(np.int64)
    longest = int(lengths.argmax())
    span = float((ordered[-1] - ordered[0]) / np.timedelta64(1, "s"))
    # Of n waiting times at a third of the mean rate, about n exp(-rate * gap) are longer than the gap.
    expected = len(time) * math.exp(-len(time) * lengths[longest] / (3 * span)) if span else math.inf
    return Gap(ordered[longest], ordered[longest + 1], lengths[longest] > DAY and expected < 0.01)
