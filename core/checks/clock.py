# SPDX-License-Identifier: GPL-2.0-or-later
"""The time of day and the day of the month: how exact they are, and which of them stand for "not known"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .days import DailyCounts
from .localtimes import DAY, LocalTimes, days_of_month, weekdays

#: From this ratio on, events on the first days of months are more than chance makes of a year's data.
FIRST_STANDS_OUT = 1.08

#: Exactness of times in seconds, the coarsest first, and what it is called.
EXACTNESS = {
    DAY: "days",
    3600: "hours",
    1800: "half hours",
    900: "quarter hours",
    60: "minutes",
    1: "seconds",
}

# Share of the times that must fit to an exactness.
_FITTING = 0.99

# A time of day stands for "not known" if it has three times the events of the same minute of the hours
# beside it; it is favoured if it has a quarter more. Either way it must matter: a share of all events.
_STANDS_FOR_UNKNOWN, _FAVOURED = 3.0, 1.25
_MATTERS = {_STANDS_FOR_UNKNOWN: 0.001, _FAVOURED: 0.005}


@dataclass(frozen=True)
class FavouredTime:
    """A minute of the day that has more events than its neighbours.

    Attributes
    ----------
    clock : str
        ``HH:MM``.
    events : int
    share : float
        Of all events.
    ratio : float
        Events over the mean of the same minute of the hour before and the hour after.
    """

    clock: str
    events: int
    share: float
    ratio: float

    @property
    def stands_for_unknown(self) -> bool:
        """Whether most of its events must have been written there because nobody knew the time."""
        return self.ratio >= _STANDS_FOR_UNKNOWN


@dataclass(frozen=True, eq=False)
class ClockFigures:
    """Times of day and days of the month.

    Attributes
    ----------
    exactness : int
        Seconds: the coarsest of :data:`EXACTNESS` to which 99 % of the times are whole.
    midnight_share, hour_share : float
        Share of events at 00:00:00, and on any full hour.
    utc_midnight_share : float
        Share of events at 00:00:00 UTC.
    favoured : tuple of FavouredTime
        The most excessive first.
    first_of_month_ratio : float
        Events on the first days of months over their level, relative to the other days; without
        1 January and the days around holidays; NaN where the period has no such day.
    day_of_month : numpy.ndarray
        float64 `(31,)`: the same for each day of the month.
    week : numpy.ndarray
        float64 `(7, 24)`: mean events in each hour of the week, Monday first; without the days around
        holidays.
    minutes : numpy.ndarray
        int64 `(60,)`: events by minute of the hour.
    quiet : int
        First of the three hours in a row in which least happens.
    """

    exactness: int
    midnight_share: float
    hour_share: float
    utc_midnight_share: float
    favoured: tuple[FavouredTime, ...]
    first_of_month_ratio: float
    day_of_month: np.ndarray
    week: np.ndarray
    minutes: np.ndarray
    quiet: int

    @classmethod
    def of(
        cls, local: LocalTimes, time: np.ndarray, daily: DailyCounts, near_holidays: np.ndarray
    ) -> ClockFigures:
        """Return the figures of at least one event.

        Parameters
        ----------
        time : numpy.ndarray
            ``datetime64[s]`` `(events,)`, UTC.
        near_holidays : numpy.ndarray
            bool `(days,)`: days that say nothing about the day of the month.
        """
        second = local.second
        by_minute = np.bincount(second // 60, minlength=1440).reshape(24, 60)
        hours = by_minute.sum(axis=1)
        of_month = _by_day_of_month(daily, near_holidays)
        return cls(
            exactness=_exactness(second),
            midnight_share=float((second == 0).mean()),
            hour_share=float((second % 3600 == 0).mean()),
            utc_midnight_share=float((time.astype("datetime64[s]").astype(np.int64) % DAY == 0).mean()),
            favoured=_favoured(by_minute),
            first_of_month_ratio=float(of_month[0]),
            day_of_month=of_month,
            week=_week(local, daily, near_holidays),
            minutes=by_minute.sum(axis=0),
            quiet=int(np.argmin(hours + np.roll(hours, -1) + np.roll(hours, -2))),
        )

    @property
    def dates_only(self) -> bool:
        """Whether events have a date and no time of day."""
        return self.exactness == DAY


def _exactness(second: np.ndarray) -> int:
    return next(unit for unit in EXACTNESS if (second % unit == 0).mean() >= _FITTING)


def _favoured(by_minute: np.ndarray) -> tuple[FavouredTime, ...]:
    events = by_minute.sum()
    beside = (np.roll(by_minute, 1, axis=0) + np.roll(by_minute, -1, axis=0)) / 2
    excess = by_minute - beside
    found = []
    for index in np.argsort(-excess, axis=None, kind="stable")[:20]:
        hour, minute = divmod(int(index), 60)
        ratio = by_minute[hour, minute] / max(beside[hour, minute], 0.5)
        # Both sides of the comparison are counts; the bound is high because 1,440 minutes are compared.
        spread = math.sqrt(by_minute[hour, minute] + beside[hour, minute] / 2 + 1)
        if excess[hour, minute] >= 6 * spread and any(
            ratio >= bound and excess[hour, minute] >= share * events for bound, share in _MATTERS.items()
        ):
            count = int(by_minute[hour, minute])
            found.append(FavouredTime(f"{hour:02d}:{minute:02d}", count, float(count / events), float(ratio)))
    return tuple(sorted(found, key=lambda each: -each.ratio))


def _by_day_of_month(daily: DailyCounts, left_out: np.ndarray) -> np.ndarray:
    day = days_of_month(daily.days)
    january = daily.days.astype("datetime64[M]").astype(np.int64) % 12 == 0
    use = ~left_out & ~(january & (day == 1))
    events = np.bincount(day[use], daily.counts[use], minlength=32)[1:]
    level = np.bincount(day[use], daily.level[use], minlength=32)[1:]
    ratios = np.full(31, math.nan)
    for index in range(31):
        others = np.arange(31) != index
        other_level = level[others].sum()
        if level[index] > 0 and other_level > 0 and events[others].sum() > 0:
            ratios[index] = (events[index] / level[index]) / (events[others].sum() / other_level)
    return ratios


def _week(local: LocalTimes, daily: DailyCounts, near_holidays: np.ndarray) -> np.ndarray:
    ordinary = ~near_holidays if not near_holidays.all() else np.ones(len(daily), bool)
    hour_of_week = local.weekday * 24 + local.hour
    events = np.bincount(hour_of_week, ordinary[local.day], minlength=168).reshape(7, 24)
    days = np.bincount(weekdays(daily.days), ordinary, minlength=7)
    return events / np.maximum(days, 1)[:, None]
