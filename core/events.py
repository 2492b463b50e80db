# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as a table: where, when and of which type, with every lost row counted by its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataSourceError

from .errors import InputError
from .timesteps import YEARS, check_time_zone

#: Why a row is not counted, in the order in which rows are tested.
DROP_REASONS = (
    "reprojection",
    "null_geometry",
    "null_time",
    "bad_time",
    "outside_period",
    "outside_grid",
    "outside_area",
)

#: What may have been settled by a rule: the hour that occurs twice in autumn is taken as its first pass, a
#: time that the clock skips in spring moves to the end of the gap, an interval that ends before it begins
#: counts as its beginning, and an event that occurs again (same identity, or same place, time and type).
NOTES = ("ambiguous_time", "skipped_time", "end_before_start", "duplicate")

_OFFSET = r"(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_ISO = r"^\s*\d{4}-\d{1,2}-\d{1,2}"
_CLOCKS = ("%I:%M:%S %p", "%H:%M:%S", "%H:%M", "%I:%M %p")


@dataclass(frozen=True, eq=False)
class EventTable:
    """Events that have a place and a time.

    Attributes
    ----------
    x, y : numpy.ndarray
        float64 `(events,)` in the CRS of the layer.
    time : numpy.ndarray
        ``datetime64[s]`` `(events,)`, UTC.
    type_code : numpy.ndarray
        int32 `(events,)`, index into `type_names`.
    type_names : tuple of str
        Types in alphabetical order; one entry ``events`` where there is no type.
    dropped : dict
        Rows lost so far by reason (:data:`DROP_REASONS`).
    bad_examples : tuple of str
        Up to three dates that could not be read, as they were written.
    end : numpy.ndarray, optional
        ``datetime64[s]`` `(events,)`, UTC: when the event had happened at the latest, for events
        of which only an interval is known; NaT where there is none.
    severity : numpy.ndarray, optional
        float64 `(events,)`; NaN where unknown.
    identity : numpy.ndarray, optional
        object `(events,)`: what the source calls the event; None where it has no name.
    reported : numpy.ndarray, optional
        ``datetime64[s]`` `(events,)`, UTC: when it became known; NaT where unknown.
    notes : dict
        Events that are kept although something about them was settled by a rule
        (:data:`NOTES`), by reason.
    """

    x: np.ndarray
    y: np.ndarray
    time: np.ndarray
    type_code: np.ndarray
    type_names: tuple[str, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    bad_examples: tuple[str, ...] = ()
    end: np.ndarray | None = None
    severity: np.ndarray | None = None
    identity: np.ndarray | None = None
    reported: np.ndarray | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def rows_read(self) -> int:
        """Rows of the source, kept or not."""
        return len(self) + sum(self.dropped.values())

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        times: object,
        types: object = None,
        *,
        time_zone: str = "UTC",
        day_first: bool = False,
        times_are_local: bool = False,
        dropped_before: Mapping[str, int] | None = None,
    ) -> EventTable:
        """Build the table from columns; rows without place or time are counted and left out.

        Parameters
        ----------
        x, y : array-like of float
            NaN where a row has no geometry.
        times : array-like
            Dates as text, numbers or ``datetime64`` (see :func:`parse_times`).
        types : array-like, optional
            Anything; shown as text. Missing values become ``(no type)``.
        dropped_before : mapping, optional
            Rows already lost on the way here, by reason.

        Raises
        ------
        InputError
            There is no row, or not one date can be read.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        dropped = dict.fromkeys(DROP_REASONS, 0)
        for reason, count in (dropped_before or {}).items():
            dropped[reason] = dropped.get(reason, 0) + int(count)
        if len(x) == 0:
            raise InputError(
                "The layer has no events.",
                hint="Check its filter, its selection and 'Selected features only'.",
                parameter="INPUT",
            )
        parsed, missing, bad = parse_times(
            times, time_zone, day_first=day_first, times_are_local=times_are_local
        )
        has_place = np.isfinite(x) & np.isfinite(y)
        dropped["null_geometry"] += int((~has_place).sum())
        dropped["null_time"] += int((has_place & missing).sum())
        dropped["bad_time"] += int((has_place & bad).sum())
        if (missing | bad).all():
            sample = pd.Series(times).dropna().astype(str)
            raise InputError(
                "Not one date of the field can be read.",
                hint="Choose the field that holds the date and time of the event. Understood are date "
                "fields, ISO dates (2024-01-31 18:05), 01/31/2024 6:05 PM, 31.01.2024, and epoch seconds "
                "or milliseconds.",
                parameter="TIME_FIELD",
                value=f"'{sample.iloc[0]}'" if len(sample) else "only empty values",
            )
        keep = has_place & ~missing & ~bad
        codes, names = _encode_types(types, keep)
        examples = tuple(pd.Series(times)[bad].astype(str).unique()[:3])
        return cls(x[keep], y[keep], parsed[keep], codes, names, dropped, examples)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        time_zone: str = "UTC",
        day_first: bool = False,
        times_are_local: bool = False,
        dropped_before: Mapping[str, int] | None = None,
    ) -> EventTable:
        """Read a point layer with a field ``time`` and optionally ``type`` (any format of OGR).

        Each part of a multipart point is an event.
        """
        try:
            info = pyogrio.read_info(path)
        except DataSourceError as error:
            raise InputError(
                f"The layer cannot be read: {error}.",
                hint="Choose a point layer.",
                parameter="INPUT",
                value=path,
            ) from error
        names = [str(name) for name in info["fields"]]
        wanted = [name for name in ("time", "type") if name in names]
        if "time" not in wanted:
            raise InputError("The layer has no field 'time'.", parameter="TIME_FIELD", value=", ".join(names))
        meta, _, geometry, columns = pyogrio.raw.read(path, columns=wanted, datetime_as_string=True)
        by_name = dict(zip(meta["fields"], columns))
        points = shapely.from_wkb(geometry)
        coordinates, owner = shapely.get_coordinates(points, return_index=True)
        without = np.setdiff1d(np.arange(len(points)), owner)
        rows = np.concatenate([owner, without])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        nothing = np.full((len(without), 2), np.nan)
        coordinates = np.concatenate([coordinates, nothing])[order]
        return cls.from_arrays(
            coordinates[:, 0],
            coordinates[:, 1],
            by_name["time"][rows],
            by_name["type"][rows] if "type" in by_name else None,
            time_zone=time_zone,
            day_first=day_first,
            times_are_local=times_are_local,
            dropped_before=dropped_before,
        )


def parse_times(
    values: object, time_zone: str, *, day_first: bool = False, times_are_local: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read dates of many kinds, also mixed in one column.

    Understood are ``datetime64``; ISO 8601 with or without offset; US dates
    (``01/31/2024 06:05:00 PM``) and, with `day_first`, European ones;
    ``20240131``; epoch seconds, milliseconds and microseconds (UTC), as numbers or text.

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

    Returns
    -------
    time : numpy.ndarray
        ``datetime64[s]`` UTC; NaT where missing or bad.
    missing, bad : numpy.ndarray
        bool: nothing there; something there that is no date.
    """
    zone = check_time_zone(time_zone)
    column = pd.Series(np.asarray(values, dtype=object) if isinstance(values, list) else values)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        aware = (
            column.dt.tz_localize(None)
            if times_are_local
            else column.dt.tz_convert("UTC").dt.tz_localize(None)
        )
        stamps = aware if not times_are_local else _localize(aware, zone)
        return _checked(stamps, column.isna().to_numpy())
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return _checked(_localize(column, zone), column.isna().to_numpy())
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        column = column.astype(str)
    # Events share dates, and parsing text is slow: read each distinct value once.
    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    distinct = pd.Series(distinct)
    if pd.api.types.is_numeric_dtype(column.dtype):
        stamps = _from_numbers(distinct.astype(float), zone)
        blank = pd.Series(False, index=distinct.index)
    else:
        text = distinct.astype(str).str.strip()
        blank = text.str.lower().isin(["", "null", "none", "nan", "nat", "n/a"])
        stamps = _from_text(text, zone, day_first, times_are_local)
    # Code -1 (missing) picks the row appended at the end.
    time = np.append(stamps.to_numpy().astype("datetime64[s]"), np.datetime64("NaT", "s"))[codes]
    missing = np.append(blank.to_numpy(), True)[codes]
    return _checked(pd.Series(time), missing)


def _checked(stamps: pd.Series, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    time = stamps.to_numpy().astype("datetime64[s]")
    with np.errstate(invalid="ignore"):
        years = time.astype("datetime64[Y]").astype(np.int64) + 1970
    plausible = ~np.isnat(time) & (years >= YEARS[0]) & (years <= YEARS[1])
    time[~plausible] = np.datetime64("NaT")
    return time, missing, ~plausible & ~missing


def _localize(naive: pd.Series, zone: object) -> pd.Series:
    """Return UTC times without zone of local clock times."""
    index = pd.DatetimeIndex(naive)
    aware = index.tz_localize(zone, ambiguous=np.ones(len(index), bool), nonexistent="shift_forward")
    return pd.Series(aware.tz_convert("UTC").tz_localize(None), index=naive.index)


def _from_numbers(numbers: pd.Series, zone: object) -> pd.Series:
    result = pd.Series(pd.NaT, index=numbers.index, dtype="datetime64[s]")
    size = numbers.abs()
    whole = numbers == np.floor(numbers)
    compact = whole & (numbers >= 19010101) & (numbers <= 21991231)
    if compact.any():
        dates = pd.to_datetime(
            numbers[compact].astype(np.int64).astype(str), format="%Y%m%d", errors="coerce"
        )
        result[compact] = _localize(dates, zone).astype("datetime64[s]")
    for low, high, unit in ((2.2e7, 1e11, 1.0), (1e11, 1e14, 1e3), (1e14, 1e17, 1e6)):
        chosen = ~compact & (size >= low) & (size < high)
        seconds = np.floor(numbers[chosen] / unit).astype(np.int64)
        result[chosen] = seconds.to_numpy().astype("datetime64[s]")
    return result


def _from_text(text: pd.Series, zone: object, day_first: bool, times_are_local: bool) -> pd.Series:
    result = pd.Series(pd.NaT, index=text.index, dtype="datetime64[s]")
    numbers = pd.to_numeric(text.where(text.str.fullmatch(r"[+-]?\d+(?:\.\d+)?")), errors="coerce")
    numeric = numbers.notna()
    result[numeric] = _from_numbers(numbers[numeric], zone)
    # 2024/01/31 is ISO in all but the separator; a year in front leaves no doubt about the order.
    text = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", r"\1-\2-\3", regex=True)
    with_offset = (
        ~numeric & text.str.contains(_OFFSET, regex=True, case=False) & text.str.contains(r":|T", regex=True)
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
                stamps = _localize(stamps, zone)
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


def _encode_types(types: object, keep: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if types is None:
        return np.zeros(int(keep.sum()), np.int32), ("events",)
    column = pd.Series(types)[keep].reset_index(drop=True)
    text = column.map(_type_name, na_action="ignore").fillna("(no type)")
    categories = pd.Categorical(text, categories=sorted(text.unique()))
    return categories.codes.astype(np.int32), tuple(str(name) for name in categories.categories)


def _type_name(value: object) -> str:
    # A whole number read as float (because some are missing) is shown as it was written.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or "(no type)"
