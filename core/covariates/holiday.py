# SPDX-License-Identifier: GPL-2.0-or-later
"""Public holidays of a country, and days from a file such as school holidays, to a share per step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..reporter import Reporter
from ..timesteps import TimeAxis
from . import Covariate
from .names import variable_names
from .tablefile import read_dates, read_table

#: Names of columns with single days, and with the first and the last day of a period, in small letters.
DAY_NAMES = ("date", "day", "holiday", "datum")
START_NAMES = (
    "start",
    "start_date",
    "startdate",
    "begin",
    "begins",
    "from",
    "first",
    "first_day",
    "date_from",
)
END_NAMES = ("end", "end_date", "enddate", "ends", "to", "until", "last", "last_day", "date_to")


def public_holidays(
    axis: TimeAxis, country: str, subdivision: str = "", *, reporter: Reporter | None = None
) -> Covariate:
    """Return how much of each step is a public holiday, observed days included.

    The dates are those of the package `holidays`.

    Parameters
    ----------
    axis : TimeAxis
        Steps; holidays are days by its local clock.
    country : str
        ISO 3166-1 code of two or three letters, such as ``US`` or ``CAN``.
    subdivision : str
        Code of a state, province or the like, such as ``IL``; empty: holidays of the whole country only.
    reporter : Reporter, optional
        Is told of years without any holiday.

    Returns
    -------
    Covariate
        ``public_holiday``: float32 `(time,)`, 1 for a holiday, for longer steps the share of days.

    Raises
    ------
    InputError
        Unknown code; the parameters are called COUNTRY and SUBDIVISION.
    """
    import holidays

    code = _country(country)
    division = _subdivision(holidays.country_holidays(code), code, subdivision)
    local = axis.local_starts
    years = range(local[0].year, local[-1].year + 2)
    days = list(holidays.country_holidays(code, subdiv=division, years=years))
    without = sorted(set(local.year) - {day.year for day in days})
    if without:
        (reporter or Reporter()).warning(
            f"No public holidays of {code} are known for {', '.join(map(str, without))}."
        )
    place = f"{code}, {division}" if division else code
    return Covariate(
        "public_holiday",
        share_of_days(axis, np.array(days, "datetime64[D]")),
        ("time",),
        description=f"share of public holidays ({place})",
    )


def holidays_from_file(
    path: str | Path, axis: TimeAxis, *, name: str = "", reporter: Reporter | None = None
) -> Covariate:
    """Return how much of each step lies on days of a file, such as school holidays or match days.

    Parameters
    ----------
    path : path
        CSV file with a column of dates, or with one of first and one of last days, known by their names
        (:data:`DAY_NAMES`, :data:`START_NAMES`, :data:`END_NAMES`). Last days belong to the period; where
        there is none the period has one day. Other columns do not matter.
    axis : TimeAxis
        Steps.
    name : str
        Name of the covariate; empty: that of the file.
    reporter : Reporter, optional
        Is told of dates that cannot be read, and if no day lies in the time of the axis.

    Returns
    -------
    Covariate
        float32 `(time,)`, 1 for such a day, for longer steps the share of days.

    Raises
    ------
    InputError
        No such file or columns, no date, or a period that ends before it begins. The parameter is called
        HOLIDAY_FILES.
    """
    reporter = reporter or Reporter()
    days = _days_in(path, reporter)
    values = share_of_days(axis, days)
    if not values.any():
        reporter.warning(f"{Path(path).name}: none of its {len(days):,} days lies in the time of the cube.")
    stem = Path(path).name.split(".")[0]
    return Covariate(
        variable_names([name or stem])[0],
        values,
        ("time",),
        description=f"share of days in {Path(path).name}",
    )


def share_of_days(axis: TimeAxis, days: np.ndarray) -> np.ndarray:
    """Return which share of each step the given days have.

    Parameters
    ----------
    axis : TimeAxis
        Steps.
    days : numpy.ndarray
        ``datetime64[D]`` by the local clock of `axis`; outside of it they do not matter.

    Returns
    -------
    numpy.ndarray
        float32 `(time,)`, 0..1. Every day counts the same, also where it has 23 or 25 hours.
    """
    calendar = TimeAxis.covering(axis.edges[0], axis.edges[-1], "day", axis.time_zone)
    local = calendar.local_starts.tz_localize(None).to_numpy().astype("datetime64[D]")
    chosen = np.isin(local, days).astype(float)
    day = calendar.locate(axis.edges)
    passed = (axis.edges - calendar.starts[day]) / (calendar.ends - calendar.starts)[day]
    holidays_before = np.concatenate([[0], np.cumsum(chosen)])[day] + chosen[day] * passed
    return (np.diff(holidays_before) / np.diff(day + passed)).astype(np.float32)


def _country(text: str) -> str:
    """Return a country's code as the package knows it."""
    from holidays import list_supported_countries
    from holidays.registry import COUNTRIES

    code = text.strip().upper()
    if code in list_supported_countries(include_aliases=True):
        return code
    # Entries are the class's name and the codes; the key is the English name in small letters.
    titles = {name.replace("_", " "): entry[1] for name, entry in COUNTRIES.items()}
    known = {**titles, **{code.lower(): code for _, *codes in COUNTRIES.values() for code in codes}}
    raise InputError(
        "There is no such country in the list of public holidays.",
        hint=_near(text, known) or "Give its ISO 3166 code, such as US, CA or DE.",
        parameter="COUNTRY",
        value=text,
    )


def _subdivision(country: object, code: str, text: str) -> str | None:
    """Return a subdivision's code as the package knows it, None for no text."""
    wanted = text.strip().lower()
    if not wanted:
        return None
    aliases: Mapping[str, str] = getattr(country, "subdivisions_aliases", {})
    codes: Iterable[str] = getattr(country, "subdivisions", ())
    known = {**{alias.lower(): entry for alias, entry in aliases.items()}, **{c.lower(): c for c in codes}}
    if wanted in known:
        return known[wanted]
    hint = _near(text, known) or f"It has: {', '.join(codes)}."
    raise InputError(
        f"{code} has no such subdivision.",
        hint=hint if known else "There are none: leave it empty.",
        parameter="SUBDIVISION",
        value=text,
    )


def _near(text: str, known: Mapping[str, str]) -> str:
    """Return a question with the entries of `known` whose names in small letters are most like a text."""
    wanted = text.strip().lower()
    names = [wanted] if wanted in known else difflib.get_close_matches(wanted, known, 3, 0.6)
    # Entries with several names are shown once.
    found = {known[name]: name for name in reversed(names)}
    shown = [code if code.lower() == name else f"{code} ({name.title()})" for code, name in found.items()]
    return f"Did you mean {' or '.join(reversed(shown))}?" if shown else ""


def _days_in(path: str | Path, reporter: Reporter) -> np.ndarray:
    """Return all days of a file of days or periods: ``datetime64[D]``."""
    frame = read_table(path, "HOLIDAY_FILES")
    small = {str(name).lower(): str(name) for name in reversed(frame.columns)}
    start, end, day = (
        next((small[name] for name in names if name in small), None)
        for names in (START_NAMES, END_NAMES, DAY_NAMES)
    )
    if start is None or end is None:
        if day is None:
            raise InputError(
                "The table has no column 'date', and no columns 'start' and 'end'.",
                hint=f"Name its columns so in the first line; they are called: {', '.join(frame.columns)}.",
                parameter="HOLIDAY_FILES",
                value=path,
            )
        start = end = day
    first = _local_days(frame[start], path, reporter)
    last = _local_days(frame[end], path, reporter) if end != start and frame[end].any() else first
    last = np.where(np.isnat(last), first, last)
    wrong = last < first
    if wrong.any():
        row = frame[wrong].iloc[0]
        raise InputError(
            f"A period ends before it begins: {row[start]} to {row[end]}.",
            hint="Exchange the two dates.",
            parameter="HOLIDAY_FILES",
            value=path,
        )
    known = ~np.isnat(first)
    periods = [np.arange(a, b + np.timedelta64(1, "D")) for a, b in zip(first[known], last[known])]
    return np.unique(np.concatenate(periods))


def _local_days(column: pd.Series, path: str | Path, reporter: Reporter) -> np.ndarray:
    return read_dates(column, "UTC", "HOLIDAY_FILES", path, reporter).time.astype("datetime64[D]")
