# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables with dates from CSV files of many kinds, plain or compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from ..dates import ParsedTimes, parse_times
from ..errors import InputError
from ..reporter import Reporter

#: What stands for "nothing is known", in small letters.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "missing", "-"})

_SEPARATORS = ",;\t"


def read_table(path: str | Path, parameter: str) -> pd.DataFrame:
    """Read a CSV file as text, with names in its first line.

    Columns may be separated by commas, semicolons or tabs; text is UTF-8, or else Windows-1252 as old
    spreadsheets write it. Missing values are ``""``.

    Parameters
    ----------
    path : path
        ``.csv``, or ``.csv.gz``.
    parameter : str
        Named in the error.

    Raises
    ------
    InputError
        Missing, damaged, no table, without a row, or two columns of one name.
    """

    def refuse(message: str) -> InputError:
        return InputError(
            message,
            hint="Give a CSV file (.csv or .csv.gz) whose first line names the columns.",
            parameter=parameter,
            value=path,
        )

    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(f"The file cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    text = _decoded(content)
    if "\0" in text:
        raise refuse("The file is no text.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # values that would be dropped
            frame = pd.read_csv(
                io.StringIO(text),
                sep=_separator(text),
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
            )
    except pd.errors.ParserWarning as error:
        raise refuse(
            "A row has more values than the first line has names; numbers with a decimal comma need "
            "semicolons between the columns."
        ) from error
    except (ValueError, csv.Error) as error:
        raise refuse(f"The table cannot be read: {str(error).splitlines()[0]}.") from error
    frame.columns = [_title(name) for name in frame.columns]
    if frame.empty:
        raise refuse("The table has no rows.")
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    return frame.mask(frame.apply(lambda column: column.str.lower().isin(MISSING)), "")


def read_dates(
    column: pd.Series, time_zone: str, parameter: str, path: str | Path, reporter: Reporter
) -> ParsedTimes:
    """Read a column of dates; the month comes first unless only the other order fits.

    Raises
    ------
    InputError
        Not one date can be read; names `parameter` and `path`.
    """
    times = parse_times(column, time_zone)
    other = parse_times(column, time_zone, day_first=True)
    if other.bad.sum() < times.bad.sum():
        times = other
    elif not (other.bad | times.bad).any() and (differ := (times.time != other.time) & ~times.missing).any():
        example = column[differ].iloc[0]
        reporter.warning(f"{Path(path).name}: in dates such as '{example}' the month is taken to come first.")
    if np.isnat(times.time).all():
        raise InputError(
            f"Not one date can be read in the column '{column.name}', which has "
            f"'{next((value for value in column if value), '')}'.",
            hint="Write dates as 2024-01-31, or choose another column.",
            parameter=parameter,
            value=path,
        )
    if times.bad.any():
        reporter.warning(
            f"{Path(path).name}: {times.bad.sum():,} rows have a date that cannot be read, such as "
            f"'{column[times.bad].iloc[0]}', and are left out."
        )
    return times


def find_column(frame: pd.DataFrame, wanted: str, parameter: str) -> str:
    """Return the name of a column as the table has it; capital letters do not matter.

    Raises
    ------
    InputError
        There is none; names `parameter` and the columns that there are.
    """
    if wanted in frame.columns:
        return wanted
    for name in frame.columns:
        if str(name).lower() == wanted.strip().lower():
            return str(name)
    raise InputError(
        "The table has no such column.",
        hint=f"It has: {', '.join(filter(None, frame.columns))}.",
        parameter=parameter,
        value=wanted,
    )


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _separator(text: str) -> str:
    """Return the separator that cuts the first line into the most columns."""
    header = text.lstrip().partition("\n")[0]
    return max(_SEPARATORS, key=lambda sign: len(next(csv.reader([header], delimiter=sign), [])))


def _title(name: object) -> str:
    # pandas calls a column without a name "Unnamed: 0"; programs write row numbers there.
    text = str(name).strip()
    return "" if text.startswith("Unnamed:") else text
