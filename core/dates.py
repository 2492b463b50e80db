# SPDX-License-Identifier: GPL-2.0-or-later
"""Dates of many kinds, as real data has them, to UTC instants; the local clock's odd hours are counted."""

from __future__ import annotations

import re
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from .timesteps import YEARS, check_time_zone, clock_to_utc

_OFFSET = r"(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_ISO = r"^\s*\d{4}-\d{1,2}-\d{1,2}"
# Hours, minutes, seconds, and A or P of AM and PM.
_CLOCK = r"^(\d{1,2})[:.h]?(\d{2})(?::?(\d{2})(?:\.\d+)?)?\s*(?:([AP])\.?M\.?)?$"
_CLOCKS = ("%I:%M:%S %p", "%H:%M:%S", "%H:%M", "%I:%M %p")


class ParsedTimes(NamedTuple):
    """What became of a column of dates; all arrays `(rows,)`.

    Attributes
    ----------
    time : numpy.ndarray
        ``datetime64[s]`` UTC; NaT where missing or bad.
    missing, bad : numpy.ndarray
        bool: nothing there; something there that is no date.
    ambiguous, skipped : numpy.ndarray
        bool: local times that the clock shows twice, taken as the first pass; and
        that it never shows, moved to the end of the gap.
    """

    time: np.ndarray
    missing: np.ndarray
    bad: np.ndarray
    ambiguous: np.ndarray
    skipped: np.ndarray


class _LocalClock:
    """Turns local clock times into UTC and remembers at which places of a column the clock was odd."""

    def __init__(self, zone: ZoneInfo, size: int) -> None:
        self._zone = zone
        self.ambiguous = np.zeros(size, bool)
        self.skipped = np.zeros(size, bool)

    def to_utc(self, naive: pd.Series) -> pd.Series:
        """Return UTC times without zone; the index of `naive` are places in the column.

        Placeholders such as 9999-12-31 come back as no time: they have no clock that could be odd.
        """
        years = naive.dt.year
        naive = naive.where((years >= YEARS[0]) & (years <= YEARS[1]))
        index = pd.DatetimeIndex(naive)
        utc = clock_to_utc(index, self._zone)
        self._note(index, utc, naive.index.to_numpy())
        return pd.Series(utc, index=naive.index)

    def _note(self, index: pd.DatetimeIndex, utc: pd.DatetimeIndex, places: np.ndarray) -> None:
        # Only days whose midnights are not 24 hours apart need a closer look.
        day_of_event = index.normalize()
        days = day_of_event.unique().dropna()
        if not len(days):
            return
        begin, end = (clock_to_utc(days + pd.Timedelta(days=more), self._zone) for more in (0, 1))
        odd_days = days[(end - begin) != pd.Timedelta(days=1)]
        look = np.flatnonzero(day_of_event.isin(odd_days))
        if not len(look):
            return
        places, utc, index = places[look], utc[look], index[look]
        self.ambiguous[places] = utc != clock_to_utc(index, self._zone, first_pass=False)
        shown = utc.tz_localize("UTC").tz_convert(self._zone).tz_localize(None)
        self.skipped[places] = shown != index


def parse_times(
    values: object, time_zone: str, *, day_first: bool = False, times_are_local: bool = False
) -> ParsedTimes:
    """Read dates of many kinds, also mixed in one column.

    Understood are ``datetime64``; ISO 8601 with or without offset; US dates
    (``01/31/2024 06:05:00 PM``) and, with `day_first`, European ones;
    ``31-JAN-2024``; ``20240131`` and ``202401311805``; epoch seconds, milliseconds and
    microseconds (UTC), as numbers or text.

    Parameters
    ----------
    values : array-like
        The column.
    time_zone : str
        IANA name; a time without offset is local clock time there. The hour that
        occurs twice in autumn counts as its first pass; a time that the clock
        skips in spring moves to the end of the gap.
    day_first : bool
        Whether 03/04 is the third of April.
    times_are_local : bool
        Ignore offsets: every written time is local clock time.

    Raises
    ------
    InputError
        There is no such time zone.
    """
    zone = check_time_zone(time_zone)
    column = pd.Series(np.asarray(values, dtype=object) if isinstance(values, list) else values)
    column = column.reset_index(drop=True)
    clock = _LocalClock(zone, len(column))
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        if times_are_local:
            stamps = clock.to_utc(column.dt.tz_localize(None))
        else:
            stamps = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return _checked(stamps, column.isna().to_numpy(), clock)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return _checked(clock.to_utc(column), column.isna().to_numpy(), clock)
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        column = column.astype(str)
    # Events share dates, and parsing text is slow: read each distinct value once.
    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    distinct = pd.Series(distinct)
    clock = _LocalClock(zone, len(distinct))
    if pd.api.types.is_numeric_dtype(column.dtype):
        stamps = _from_numbers(distinct.astype(float), clock)
        blank = pd.Series(False, index=distinct.index)
    else:
        text = distinct.astype(str).str.strip()
        blank = text.str.lower().isin(["", "null", "none", "nan", "nat", "n/a"])
        stamps = _from_text(text, clock, day_first, times_are_local)
    # Code -1 (missing) picks the row appended at the end.
    time = np.append(stamps.to_numpy().astype("datetime64[s]"), np.datetime64("NaT", "s"))[codes]
    missing = np.append(blank.to_numpy(), True)[codes]
    clock.ambiguous = np.append(clock.ambiguous, False)[codes]
    clock.skipped = np.append(clock.skipped, False)[codes]
    return _checked(pd.Series(time), missing, clock)


def parse_clock(values: object) -> tuple[np.ndarray, np.ndarray]:
    """Read times of day: ``18:05``, ``6:05 PM``, ``1805``, 905 (five past nine), or the time in a date.

    Returns
    -------
    seconds : numpy.ndarray
        int64 `(rows,)`: since midnight; 0 where nothing can be read. 24:00 is the end of the day.
    known : numpy.ndarray
        bool `(rows,)`.
    """
    codes, distinct = pd.factorize(pd.Series(values), use_na_sentinel=True)
    text = pd.Series(distinct).map(_clock_text)
    # A spreadsheet keeps a time of day as a time on a day of its own.
    text = text.str.replace(r"^\d{4}-\d{1,2}-\d{1,2}[T ]", "", regex=True)
    parts = text.str.extract(_CLOCK, flags=re.IGNORECASE)
    hours, minutes = (pd.to_numeric(parts[i]) for i in (0, 1))
    half = parts[3].str.upper()
    hours = hours.where(half.isna(), hours % 12 + 12 * (half == "P"))
    seconds = hours * 3600 + minutes * 60 + pd.to_numeric(parts[2]).fillna(0)
    found = seconds.where((seconds <= 86400) & (minutes < 60)).to_numpy(float)
    found = np.append(found, np.nan)[codes]
    known = np.isfinite(found)
    return np.where(known, found, 0).astype(np.int64), known


def _clock_text(value: object) -> str:
    if isinstance(value, (int, float, np.number)) and float(value).is_integer():
        # A number has lost its leading zeros: 905 is 09:05 and 5 is 00:05.
        return f"{int(value):04d}"
    return str(value).strip()


def combine(
    dates: object, clocks: object, time_zone: str, *, day_first: bool = False
) -> tuple[ParsedTimes, np.ndarray]:
    """Read a column of dates and one of times of day, both by the local clock.

    Parameters
    ----------
    dates, clocks : array-like
        See :func:`parse_times` and :func:`parse_clock`. A time of day in `dates` itself is left out.

    Returns
    -------
    times : ParsedTimes
    without_clock : numpy.ndarray
        bool `(rows,)`: there is a date, but no time of day that can be read; midnight stands for it.
    """
    days = parse_times(dates, "UTC", day_first=day_first, times_are_local=True)
    seconds, known = parse_clock(clocks)
    local = days.time.astype("datetime64[D]").astype("datetime64[s]") + seconds.astype("timedelta64[s]")
    utc = parse_times(local, time_zone)
    times = ParsedTimes(utc.time, days.missing, days.bad, utc.ambiguous, utc.skipped)
    return times, ~known & ~np.isnat(utc.time)


def _checked(stamps: pd.Series, missing: np.ndarray, clock: _LocalClock) -> ParsedTimes:
    time = stamps.to_numpy().astype("datetime64[s]")
    with np.errstate(invalid="ignore"):
        years = time.astype("datetime64[Y]").astype(np.int64) + 1970
    plausible = ~np.isnat(time) & (years >= YEARS[0]) & (years <= YEARS[1])
    time[~plausible] = np.datetime64("NaT")
    ambiguous, skipped = clock.ambiguous & plausible, clock.skipped & plausible
    return ParsedTimes(time, missing, ~plausible & ~missing, ambiguous, skipped)


def _from_numbers(numbers: pd.Series, clock: _LocalClock) -> pd.Series:
    result = pd.Series(pd.NaT, index=numbers.index, dtype="datetime64[s]")
    size = numbers.abs()
    whole = numbers == np.floor(numbers)
    compact = whole & (numbers >= 19010101) & (numbers <= 21991231)
    if compact.any():
        dates = pd.to_datetime(
            numbers[compact].astype(np.int64).astype(str), format="%Y%m%d", errors="coerce"
        )
        result[compact] = clock.to_utc(dates).astype("datetime64[s]")
    for first, last, form in (
        (190101010000, 219912312359, "%Y%m%d%H%M"),
        (19010101000000, 21991231235959, "%Y%m%d%H%M%S"),
    ):
        # 202010311805: as epoch milliseconds these would be days of 1976, or thousands of years away.
        chosen = ~compact & whole & (numbers >= first) & (numbers <= last)
        if chosen.any():
            text = numbers[chosen].astype(np.int64).astype(str)
            times = pd.to_datetime(text, format=form, errors="coerce")
            times = times[times.notna()]
            result[times.index] = clock.to_utc(times).astype("datetime64[s]")
            compact[times.index] = True
    for low, high, unit in ((2.2e7, 1e11, 1.0), (1e11, 1e14, 1e3), (1e14, 1e17, 1e6)):
        chosen = ~compact & (size >= low) & (size < high)
        seconds = np.floor(numbers[chosen] / unit).astype(np.int64)
        result[chosen] = seconds.to_numpy().astype("datetime64[s]")
    return result


def _from_text(text: pd.Series, clock: _LocalClock, day_first: bool, times_are_local: bool) -> pd.Series:
    result = pd.Series(pd.NaT, index=text.index, dtype="datetime64[s]")
    numbers = pd.to_numeric(text.where(text.str.fullmatch(r"[+-]?\d+(?:\.\d+)?")), errors="coerce")
    numeric = numbers.notna()
    result[numeric] = _from_numbers(numbers[numeric], clock)
    # Fractions of seconds do not matter, and p.m. is PM.
    text = text.str.replace(r"(:\d{2})[.,]\d+", r"\1", regex=True)
    text = text.str.replace(r"\b([ap])\.m\.?$", r"\1m", regex=True, case=False)
    # 2024/01/31 is ISO in all but the separator; a year in front leaves no doubt about the order.
    text = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", r"\1-\2-\3", regex=True)
    with_offset = (
        # Only after a time of day: 31-OCT-2020 ends like one.
        ~numeric
        & text.str.contains(_OFFSET, regex=True, case=False)
        & text.str.contains(r":\d|\dT\d", regex=True)
    )
    if times_are_local:
        text = text.where(~with_offset, text.str.replace(_OFFSET, "", regex=True, case=False).str.strip())
        with_offset = pd.Series(False, index=text.index)
    iso = text.str.match(_ISO)
    for chosen, aware in ((with_offset, True), (~with_offset & ~numeric, False)):
        for some, first in ((chosen & iso, False), (chosen & ~iso, day_first)):
            if not some.any():
                continue
            stamps = _parse_some(text[some], first, aware)
            if not aware:
                stamps = clock.to_utc(stamps)
            result[some] = stamps.astype("datetime64[s]")
    return result


def _parse_some(text: pd.Series, day_first: bool, aware: bool) -> pd.Series:
    """Parse text of one family: by the likely formats first, then value by value."""
    offset = ""
    if aware:
        # Offsets are written in many ways; the formats know one.
        offset = "%z"
        text = text.str.replace(r"\s*(?:Z|UTC|GMT)$", "+0000", regex=True, case=False)
        text = text.str.replace(r"\s*([+-]\d{2}):?(\d{2})$", r"\1\2", regex=True)
        text = text.str.replace(r"\s*([+-]\d{2})$", r"\g<1>00", regex=True)
    formats = ["ISO8601"] if text.iloc[0][:4].isdigit() else []
    for separator in "/-.":
        if not text.str.contains(separator, regex=False).any():
            continue
        # Dots are written where the day comes first, and nowhere else.
        order = "%d{0}%m{0}" if day_first or separator == "." else "%m{0}%d{0}"
        for year in ("%Y", "%y"):
            day = order.format(separator) + year
            formats += [f"{day} {clock}{offset}" for clock in _CLOCKS]
            if not aware:
                formats.append(day)
    if text.str.contains(r"[A-Za-z]{3}", regex=True).any():
        # As Oracle writes dates by default: 31-OCT-2020 or 31-OCT-20.
        for day in ("%d-%b-%Y", "%d-%b-%y"):
            formats += [*(f"{day} {clock}{offset}" for clock in _CLOCKS), *(() if aware else (day,))]
    result = pd.Series(pd.NaT, index=text.index, dtype="datetime64[s]")
    left = pd.Series(True, index=text.index)
    for pattern in formats:
        stamps = pd.to_datetime(text[left], format=pattern, errors="coerce", utc=True)
        good = stamps.notna()
        found = stamps[good].dt.tz_localize(None).astype("datetime64[s]")
        result[found.index] = found
        left[found.index] = False
        if not left.any():
            return result
    # Too short a text is a number or a fragment, which dateutil would gladly complete with today's date.
    # And a date such as 31/01/2024 in a month-first column is an error to be counted: turned round
    # silently it would stand beside 02/01/2024 read the other way.
    rest = text[left]
    rest = rest[
        rest.str.contains(r"\d{4}")
        & (rest.str.len() >= 8)
        & ~rest.str.match(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}")
    ]
    if len(rest):
        stamps = pd.to_datetime(rest, format="mixed", errors="coerce", dayfirst=day_first, utc=True)
        result[rest.index] = stamps.dt.tz_localize(None).astype("datetime64[s]")
    return result
