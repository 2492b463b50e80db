# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a source covers its whole period: a late start, months with few records, an unfinished end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .days import DailyCounts

#: A month is thin if a usual day of it has less than this share of a usual day in the months beside it.
THIN = 0.5

#: Days at the end that are compared with what the time before leads to expect.
END_DAYS = 28

#: The end counts as unfinished below this share of what is expected.
END_SHARE = 0.85

_BEFORE_END = 84
# 52 weeks, so that weekdays match.
_YEAR = 364
_YEAR_OF_MONTHS = 12
# A month of which fewer days lie in the period says nothing.
_DAYS_OF_MONTH = 7


@dataclass(frozen=True, eq=False)
class Coverage:
    """Months and how well they are covered.

    Attributes
    ----------
    months : numpy.ndarray
        ``datetime64[M]`` `(months,)`, all of the period.
    counts : numpy.ndarray
        int64 `(months,)`: events.
    usual : numpy.ndarray
        float64 `(months,)`: events on a usual day of the month (median; mean where it is below one),
        NaN for a month of which fewer than seven days lie in the period.
    start, stop : numpy.datetime64 or None
        First month of full coverage, if thin months lie before it; first of the thin months in which
        the source runs out.
    thin : tuple of numpy.datetime64
        Thin months in between.
    end_ratio : float
        Events of the last 28 full days over what the 84 days before them lead to expect, given how the
        same days of the year before compare; NaN where the period is too short.
    end_short : bool
        Whether so few are not explained by how days vary.
    """

    months: np.ndarray
    counts: np.ndarray
    usual: np.ndarray
    start: np.datetime64 | None
    stop: np.datetime64 | None
    thin: tuple[np.datetime64, ...]
    end_ratio: float
    end_short: bool

    @classmethod
    def of(cls, daily: DailyCounts) -> Coverage:
        """Return the coverage of daily counts."""
        month_of_day = daily.days.astype("datetime64[M]")
        months, begin = np.unique(month_of_day, return_index=True)
        parts = np.split(daily.counts, begin[1:])
        usual = np.array([_usual(part) if len(part) >= _DAYS_OF_MONTH else math.nan for part in parts])
        known = np.flatnonzero(np.isfinite(usual))
        early = _thin_run(usual[known])
        late = _thin_run(usual[known][::-1])
        inner = known[early : len(known) - late]
        end_ratio, end_short = _end(daily.counts)
        return cls(
            months,
            np.array([part.sum() for part in parts]),
            usual,
            start=months[known[early]] if early else None,
            stop=months[known[len(known) - late]] if late else None,
            thin=tuple(months[inner[_thin_inside(usual[inner])]]),
            end_ratio=end_ratio,
            end_short=end_short,
        )


def _usual(counts: np.ndarray) -> float:
    median = float(np.median(counts))
    return median if median >= 1 else float(counts.mean())


def _thin_run(usual: np.ndarray) -> int:
    """Return how many months at the beginning are thin.

    The longest run whose last month, and four fifths of all its months, have less than half of the median of
    the twelve months (at least three) that follow the run.
    """
    longest = 0
    for length in range(1, len(usual) - 2):
        bound = THIN * np.median(usual[length : length + _YEAR_OF_MONTHS])
        run = usual[:length]
        if run[-1] < bound and (run < bound).mean() >= 0.8:
            longest = length
    return longest


def _thin_inside(usual: np.ndarray) -> np.ndarray:
    """Return which months have less than half of the median of the six before and the six after."""
    thin = np.zeros(len(usual), bool)
    half = _YEAR_OF_MONTHS // 2
    for index in range(len(usual)):
        beside = np.r_[usual[max(0, index - half) : index], usual[index + 1 : index + 1 + half]]
        thin[index] = len(beside) >= half and usual[index] < THIN * np.median(beside)
    return thin


def _end(counts: np.ndarray) -> tuple[float, bool]:
    # An export in the middle of a day leaves that day unfinished, which says nothing about the days before.
    counts = counts[:-1]
    if len(counts) < END_DAYS + _BEFORE_END:
        return math.nan, False
    end, before = counts[-END_DAYS:], counts[-END_DAYS - _BEFORE_END : -END_DAYS]
    factor = 1.0
    if len(counts) >= _YEAR + END_DAYS + _BEFORE_END:
        end_then = counts[-_YEAR - END_DAYS : -_YEAR]
        before_then = counts[-_YEAR - END_DAYS - _BEFORE_END : -_YEAR - END_DAYS]
        if _usual(before_then) > 0:
            factor = _usual(end_then) / _usual(before_then)
    expected = _usual(before) * factor
    if expected <= 0:
        return math.nan, False
    shortfall = expected - _usual(end)
    spread = float(before.std()) / math.sqrt(END_DAYS)
    ratio = _usual(end) / expected
    return ratio, ratio < END_SHARE and shortfall > 3 * spread
