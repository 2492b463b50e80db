# SPDX-License-Identifier: GPL-2.0-or-later
"""Days of celebration, which bring many events or stand for dates that nobody knows."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .days import DailyCounts

#: The holidays looked at unless others are given.
DEFAULT_HOLIDAYS = ("01-01", "07-04")

#: Days before and after a holiday shown in its profile.
PROFILE_DAYS = 7

# New Year is celebrated from 29 December to 2 January, anything else up to three days before and after.
_AROUND = {(1, 1): (3, 1)}
_AROUND_ANY = (3, 3)


@dataclass(frozen=True)
class Holiday:
    """A day of the year, in all years or in some.

    Attributes
    ----------
    month, day : int
    years : tuple of int, optional
        None: every year.
    """

    month: int
    day: int
    years: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """``MM-DD``."""
        return f"{self.month:02d}-{self.day:02d}"

    @property
    def name(self) -> str:
        """``4 July``; with the years if it does not recur in all of them."""
        text = f"{self.day} {datetime.date(2000, self.month, 1):%B}"
        return text if self.years is None else f"{text} {', '.join(map(str, self.years))}"

    @property
    def around(self) -> tuple[int, int]:
        """Days before and after that belong to it."""
        return _AROUND.get((self.month, self.day), _AROUND_ANY)

    def dates(self, first: np.datetime64, last: np.datetime64) -> np.ndarray:
        """Return its days from `first` to `last`, ``datetime64[D]``."""
        years = self.years
        if years is None:
            years = tuple(range(_year(first), _year(last) + 1))
        days = [
            np.datetime64(datetime.date(year, self.month, self.day), "D")
            for year in years
            if (self.month, self.day) != (2, 29) or _is_leap(year)
        ]
        return np.array([day for day in days if first <= day <= last], "datetime64[D]")


@dataclass(frozen=True, eq=False)
class HolidayFigures:
    """What happens on a holiday.

    Attributes
    ----------
    holiday : Holiday
    days : numpy.ndarray
        ``datetime64[D]``: its days in the period; may be empty.
    counts : numpy.ndarray
        Events on each of them.
    mean : float
        Mean of `counts`; NaN where there are none, as are the ratios.
    ratio : float
        Events on the days over the level of the four weeks around them
        (:attr:`~.days.DailyCounts.level`), which neither season nor trend disturbs.
    ratio_to_others : float
        `mean` over the mean of all days that belong to no holiday.
    around_ratio : float
        As `ratio`, for the days before and after that belong to it, without the day itself.
    profile : numpy.ndarray
        As `ratio`, for 7 days before to 7 days after.
    striking : bool
        Whether there is at least half as much again as usual and chance explains it badly.
    """

    holiday: Holiday
    days: np.ndarray
    counts: np.ndarray
    mean: float
    ratio: float
    ratio_to_others: float
    around_ratio: float
    profile: np.ndarray
    striking: bool


def read_holidays(given: Iterable[str | datetime.date]) -> tuple[Holiday, ...]:
    """Return holidays from ``MM-DD`` (every year), ``YYYY-MM-DD`` or dates, in the order of the calendar.

    Raises
    ------
    InputError
        A text is not such a day.
    """
    years: dict[tuple[int, int], set[int] | None] = {}
    for value in given:
        year, month, day = _read_day(value)
        key = (month, day)
        if year is None:
            years[key] = None
        elif years.setdefault(key, set()) is not None:
            years[key].add(year)  # type: ignore[union-attr]
    return tuple(Holiday(*key, tuple(sorted(some)) if some else None) for key, some in sorted(years.items()))


def near_holidays(daily: DailyCounts, holidays: Iterable[Holiday]) -> np.ndarray:
    """Return bool `(days,)`: whether a day is a holiday or one of the days around it."""
    near = np.zeros(len(daily), bool)
    for holiday in holidays:
        before, after = holiday.around
        # The New Year after the last day has its eve in the period.
        for day in holiday.dates(daily.first - after, daily.last + before):
            index = int((day - daily.first).astype(int))
            near[max(0, index - before) : max(0, index + after + 1)] = True
    return near


def holiday_figures(daily: DailyCounts, holidays: Iterable[Holiday]) -> tuple[HolidayFigures, ...]:
    """Return the figures of each holiday."""
    holidays = tuple(holidays)
    others = daily.counts[~near_holidays(daily, holidays)]
    usual = float(others.mean()) if len(others) else math.nan
    return tuple(_figures(daily, holiday, usual) for holiday in holidays)


def _figures(daily: DailyCounts, holiday: Holiday, usual: float) -> HolidayFigures:
    days = holiday.dates(daily.first, daily.last)
    at = (days - daily.first).astype(np.int64)
    counts, level = daily.counts[at], daily.level[at]
    before, after = holiday.around
    around = [offset for offset in range(-before, after + 1) if offset]
    mean = float(counts.mean()) if len(days) else math.nan
    ratio = _ratio(daily, at, [0])
    excess = counts.sum() - level.sum()
    return HolidayFigures(
        holiday,
        days,
        counts,
        mean,
        ratio,
        ratio_to_others=mean / usual if usual else math.nan,
        around_ratio=_ratio(daily, at, around),
        profile=np.array([_ratio(daily, at, [o]) for o in range(-PROFILE_DAYS, PROFILE_DAYS + 1)]),
        striking=bool(ratio >= 1.5 and excess > 5 * math.sqrt(level.sum() + 1)),
    )


def _ratio(daily: DailyCounts, at: np.ndarray, offsets: list[int]) -> float:
    """Return the events some days away from the days `at`, over the level on the days `at`."""
    index = (at[:, None] + np.array(offsets)).ravel()
    level = np.repeat(daily.level[at], len(offsets))
    inside = (index >= 0) & (index < len(daily))
    expected = level[inside].sum()
    return float(daily.counts[index[inside]].sum() / expected) if expected > 0 else math.nan


def _read_day(value: str | datetime.date) -> tuple[int | None, int, int]:
    text = f"{value:%Y-%m-%d}" if isinstance(value, datetime.date) else value.strip()
    match = re.fullmatch(r"(?:(\d{4})-)?(\d{1,2})-(\d{1,2})", text)
    try:
        if match is None:
            raise ValueError("not such a pattern")
        year = int(match[1]) if match[1] else None
        # 29 February is a day of the year, though not of every year.
        day = datetime.date(2000 if year is None else year, int(match[2]), int(match[3]))
    except ValueError as error:
        raise InputError(
            "This is not a day.",
            hint="Write holidays as month and day (07-04) or as full dates (2024-11-28).",
            parameter="HOLIDAYS",
            value=text,
        ) from error
    return year, day.month, day.day


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _year(day: np.datetime64) -> int:
    return int(day.astype("datetime64[Y]").astype(int)) + 1970
