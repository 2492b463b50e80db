# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables with a date in each row, such as daily or hourly weather, to a value per step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..reporter import Reporter
from ..timesteps import TimeAxis
from . import Covariate
from .names import variable_names
from .tablefile import find_column, read_dates, read_table

#: Names of columns that hold dates, in small letters, the likeliest first.
DATE_NAMES = (
    *("date", "datetime", "date_time", "timestamp", "time", "day", "weather_date", "dt", "valid", "datum"),
    *("local_time", "time_local", "observed", "period"),
)

_COMMA_NUMBER = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"


def covariates_from_table(
    path: str | Path,
    axis: TimeAxis,
    *,
    date_field: str = "",
    columns: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> list[Covariate]:
    """Return columns of a CSV file as one value per step.

    A step has the mean of the rows whose time lies in it. If there is none it has the value in force when
    it begins: that of the last row before, as long as this row lasts. A row of a daily table lasts until
    the end of its day, one of an hourly table for an hour, and one of a monthly table for its month. No
    gap is filled. Note that a daily mean is in force from the morning on, though it was measured until the
    night.

    Parameters
    ----------
    path : path
        ``.csv`` or ``.csv.gz``; separated by commas, semicolons or tabs.
    axis : TimeAxis
        Steps; dates without an offset are by the clock of its time zone.
    date_field : str
        Column of the dates; empty: known by its name (:data:`DATE_NAMES`).
    columns : sequence of str
        Columns wanted; empty: all that hold nothing but numbers.
    reporter : Reporter, optional
        Is told what was left out or averaged.

    Returns
    -------
    list of Covariate
        Values float32 `(time,)`, NaN where nothing is known.

    Raises
    ------
    InputError
        No such file or column, no date, no number, or no row in the time of the axis. The parameters are
        called TABLE, DATE_FIELD and COLUMNS.
    """
    reporter = reporter or Reporter()
    frame = read_table(path, "TABLE")
    dates = find_column(frame, date_field, "DATE_FIELD") if date_field.strip() else _date_column(frame, path)
    parsed = read_dates(frame[dates], axis.time_zone, "TABLE", path, reporter)
    numbers = _numbers(frame.drop(columns=dates), columns, path, reporter)
    known = ~np.isnat(parsed.time)
    rows = _distinct_times(numbers[known], parsed.time[known], Path(path).name, reporter)
    values = _per_step(rows, axis)
    if not np.isfinite(values).any():
        first, last = (np.datetime_as_string(moment, unit="D") for moment in rows.index.to_numpy()[[0, -1]])
        raise InputError(
            f"The table has no value in the time of the cube: its rows are from {first} to {last}, the cube "
            f"is from {axis.isoformat(0)[0]} to {axis.isoformat(len(axis) - 1)[1]}.",
            hint="Choose a table of the same time, and check DATE_FIELD.",
            parameter="TABLE",
            value=path,
        )
    return [
        Covariate(name, column, ("time",), description=f"{title} ({Path(path).name})")
        for name, title, column in zip(variable_names(list(rows.columns)), rows.columns, values.T)
    ]


def _date_column(frame: pd.DataFrame, path: str | Path) -> str:
    """Return the column that is called as dates are called."""
    small = {str(name).lower(): str(name) for name in reversed(frame.columns)}
    for name in DATE_NAMES:
        if name in small:
            return small[name]
    for name in frame.columns:
        if re.search(r"date(?!d)|time(?!zone)", str(name).lower()):
            return str(name)
    raise InputError(
        "No column of the table is called as dates are.",
        hint=f"Set DATE_FIELD to one of: {', '.join(filter(None, frame.columns))}.",
        parameter="TABLE",
        value=path,
    )


def _numbers(
    frame: pd.DataFrame, wanted: Sequence[str], path: str | Path, reporter: Reporter
) -> pd.DataFrame:
    """Return the wanted columns as float64; by default all that hold numbers only."""
    chosen = list(dict.fromkeys(find_column(frame, name, "COLUMNS") for name in wanted))
    found: dict[str, pd.Series] = {}
    left_out = []
    for name in chosen or filter(None, frame.columns):
        numbers = _to_numbers(frame[name])
        bad = numbers.isna() & (frame[name] != "")
        if not bad.any():
            if numbers.notna().any() or chosen:
                found[name] = numbers
            continue
        example = frame[name][bad].iloc[0]
        if chosen:
            raise InputError(
                f"The column does not hold numbers only: it has '{example}'.",
                hint="Correct it or leave it out; empty cells stand for values that are not known.",
                parameter="COLUMNS",
                value=name,
            )
        left_out.append(f"{name} ('{example}')")
    if left_out:
        reporter.message(
            f"{Path(path).name}: columns that do not hold numbers only are left out: {', '.join(left_out)}."
        )
    if not found:
        raise InputError(
            "The table has no column that holds numbers only.",
            hint="Write numbers with a decimal point, without units and without signs for thousands.",
            parameter="TABLE",
            value=path,
        )
    return pd.DataFrame(found)


def _to_numbers(text: pd.Series) -> pd.Series:
    """Return numbers; NaN for what is none, and for infinity.

    A decimal comma is understood where it can be nothing else.
    """
    with_comma = text[text.str.contains(",", regex=False)]
    if len(with_comma) and with_comma.str.fullmatch(_COMMA_NUMBER).all():
        if with_comma.str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}").all():
            raise InputError(
                f"The column has '{with_comma.iloc[0]}', where the comma may mark decimals or thousands.",
                hint="Write numbers with a decimal point and without signs for thousands.",
                parameter="TABLE",
                value=text.name,
            )
        text = text.str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(text.replace("", "nan"), errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))


def _distinct_times(numbers: pd.DataFrame, times: np.ndarray, name: str, reporter: Reporter) -> pd.DataFrame:
    """Return the rows in the order of their times; those of one time are averaged."""
    grouped = numbers.groupby(pd.DatetimeIndex(times)).mean()
    repeated = len(numbers) - len(grouped)
    if repeated:
        reporter.warning(
            f"{name}: {repeated:,} rows repeat the time of another one; rows of one time are averaged."
        )
    return grouped


def _per_step(rows: pd.DataFrame, axis: TimeAxis) -> np.ndarray:
    """Return float32 `(steps, columns)`: mean of the rows in each step, else the row in force."""
    times = rows.index.to_numpy().astype("datetime64[s]")
    step = axis.locate(times)
    values = rows[step >= 0].groupby(step[step >= 0]).mean().reindex(range(len(axis))).to_numpy(copy=True)
    in_force = np.searchsorted(times, axis.starts, side="right") - 1
    lasts = (in_force >= 0) & (axis.starts < _ends(times, axis.time_zone)[in_force])
    # A step with rows of its own is never filled from before it, not even where these rows are empty.
    filled = lasts & ~np.isin(np.arange(len(axis)), step)
    values[filled] = rows.to_numpy()[in_force[filled]]
    return values.astype(np.float32)


def _ends(times: np.ndarray, time_zone: str) -> np.ndarray:
    """Return until when each row lasts, UTC: for the usual distance of two rows of the table."""
    local = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(time_zone)
    days = local.tz_localize(None).normalize()
    if (_utc(days, time_zone) != times).any():
        return times + np.median(np.diff(times)) if len(times) > 1 else times
    months = np.asarray(days.year * 12 + days.month)
    if len(times) > 1 and (days.day == 1).all():
        return _utc(days + pd.DateOffset(months=int(np.median(np.diff(months)))), time_zone)
    between = np.diff(days.to_numpy().astype("datetime64[D]")).astype(int)
    return _utc(days + pd.Timedelta(days=int(np.median(between)) if len(between) else 1), time_zone)


def _utc(local: pd.DatetimeIndex, time_zone: str) -> np.ndarray:
    aware = local.tz_localize(time_zone, ambiguous=np.full(len(local), True), nonexistent="shift_forward")
    return aware.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[s]")
