# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as a table: where, when and of which type, with every lost row counted by its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from .dates import combine, parse_times
from .errors import InputError

#: Why a row is not counted, in the order in which rows are tested.
DROP_REASONS = (
    "reprojection",
    "null_geometry",
    "null_time",
    "bad_time",
    "duplicate",
    "outside_grid",
    "outside_area",
    "outside_period",
)

#: Those of the reasons for which a row has no place or no time at all.
UNPLACED = DROP_REASONS[:4]

#: What may have been settled by a rule: the hour that occurs twice in autumn is taken as its first pass, a
#: time that the clock skips in spring moves to the end of the gap, a date without a readable time of day
#: counts as midnight, and an interval that ends before it begins as its beginning.
NOTES = ("ambiguous_time", "skipped_time", "no_clock", "end_before_start")

_NO_TYPE = "(no type)"


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
        clocks: object = None,
        ends: object = None,
        reported: object = None,
        severity: object = None,
        identity: object = None,
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
            Dates as text, numbers or ``datetime64`` (see :func:`~.dates.parse_times`).
        types : array-like, optional
            Anything; shown as text. Missing values become ``(no type)``.
        clocks : array-like, optional
            Times of day, where `times` holds dates only (see :func:`~.dates.parse_clock`).
        ends, reported : array-like, optional
            Dates, as `times`; what cannot be read counts as not known.
        severity, identity : array-like, optional
            Numbers; names of the events.
        dropped_before : mapping, optional
            Rows already lost on the way here, by reason.

        Raises
        ------
        InputError
            There is no such time zone.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        dropped = dict.fromkeys(DROP_REASONS, 0)
        for reason, count in (dropped_before or {}).items():
            dropped[reason] = dropped.get(reason, 0) + int(count)
        notes = dict.fromkeys(NOTES, 0)
        reading = {"day_first": day_first, "times_are_local": times_are_local}
        if clocks is None:
            parsed = parse_times(times, time_zone, **reading)
            without_clock = np.zeros(len(x), bool)
        else:
            parsed, without_clock = combine(times, clocks, time_zone, day_first=day_first)
        has_place = np.isfinite(x) & np.isfinite(y)
        dropped["null_geometry"] += int((~has_place).sum())
        dropped["null_time"] += int((has_place & parsed.missing).sum())
        dropped["bad_time"] += int((has_place & parsed.bad).sum())
        keep = has_place & ~parsed.missing & ~parsed.bad
        notes["ambiguous_time"] = int(parsed.ambiguous[keep].sum())
        notes["skipped_time"] = int(parsed.skipped[keep].sum())
        notes["no_clock"] = int(without_clock[keep].sum())
        time = parsed.time[keep]
        end = None
        if ends is not None:
            end = parse_times(ends, time_zone, **reading).time[keep]
            backwards = end < time
            notes["end_before_start"] = int(backwards.sum())
            end[backwards] = np.datetime64("NaT")
        known = parse_times(reported, time_zone, **reading).time[keep] if reported is not None else None
        names = np.asarray(identity, dtype=object)[keep] if identity is not None else None
        codes, type_names = _encode_types(types, keep)
        return cls(
            x[keep],
            y[keep],
            time,
            codes,
            type_names,
            dropped,
            bad_examples=tuple(pd.Series(times)[parsed.bad].astype(str).unique()[:3]),
            end=end,
            severity=pd.to_numeric(pd.Series(severity), errors="coerce").to_numpy(float)[keep]
            if severity is not None
            else None,
            identity=names,
            reported=known,
            notes=notes,
        )

    @classmethod
    def concatenated(cls, tables: Sequence[EventTable]) -> EventTable:
        """Return one table of the rows of several, which have the same columns."""
        type_names = tuple(sorted({name for table in tables for name in table.type_names}))
        lookup = {name: code for code, name in enumerate(type_names)}
        codes = [np.array([lookup[n] for n in t.type_names], np.int32)[t.type_code] for t in tables]

        def joined(name: str) -> np.ndarray | None:
            columns = [getattr(table, name) for table in tables]
            return None if columns[0] is None else np.concatenate(columns)

        return cls(
            np.concatenate([table.x for table in tables]),
            np.concatenate([table.y for table in tables]),
            np.concatenate([table.time for table in tables]),
            np.concatenate(codes),
            type_names,
            add_counts(*(table.dropped for table in tables)),
            tuple(example for table in tables for example in table.bad_examples)[:3],
            joined("end"),
            joined("severity"),
            joined("identity"),
            joined("reported"),
            add_counts(*(table.notes for table in tables)),
        )

    def selected(self, chosen: np.ndarray) -> EventTable:
        """Return the table of some rows (bool or indexes); what was dropped and noted stays as it is."""
        columns = ("x", "y", "time", "type_code", "end", "severity", "identity", "reported")
        values: dict[str, Any] = {name: getattr(self, name) for name in columns}
        chosen_values: Any = {k: None if v is None else v[chosen] for k, v in values.items()}
        return replace(self, **chosen_values)


def add_counts(*counts: Mapping[str, int]) -> dict[str, int]:
    """Return the sums of several counts by reason."""
    total: dict[str, int] = {}
    for each in counts:
        for reason, count in each.items():
            total[reason] = total.get(reason, 0) + int(count)
    return total


def check_readable(read: int, dropped: Mapping[str, int], used: int, bad_examples: Sequence[str]) -> None:
    """Raise :class:`InputError` if a source has no rows or not one date that can be read.

    Parameters
    ----------
    read, used : int
        Rows of the source, and those that have a place and a time.
    dropped : mapping
        The others by reason.
    bad_examples : sequence of str
        Dates that could not be read.
    """
    if read == 0:
        raise InputError(
            "The layer has no events.",
            hint="Check its filter, its selection and 'Selected features only'.",
            parameter="INPUT",
        )
    if used == 0 and dropped.get("bad_time", 0) + dropped.get("null_time", 0):
        raise InputError(
            "Not one date of the field can be read.",
            hint="Choose the field that holds the date and time of the event. Understood are date "
            "fields, ISO dates (2024-01-31 18:05), 01/31/2024 6:05 PM, 31.01.2024, and epoch seconds "
            "or milliseconds.",
            parameter="TIME_FIELD",
            value=f"'{bad_examples[0]}'" if bad_examples else "only empty values",
        )


def _encode_types(types: object, keep: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if types is None:
        return np.zeros(int(keep.sum()), np.int32), ("events",)
    codes, distinct = pd.factorize(pd.Series(types)[keep], use_na_sentinel=True)
    # Code -1 (missing) picks the name appended at the end.
    shown = [_type_name(value) for value in distinct] + [_NO_TYPE]
    present = np.unique(codes)
    names = sorted({shown[code] for code in present})
    lookup = {name: code for code, name in enumerate(names)}
    return np.array([lookup.get(name, -1) for name in shown], np.int32)[codes], tuple(names)


def _type_name(value: object) -> str:
    # A whole number read as float (because some are missing) is shown as it was written.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or _NO_TYPE
