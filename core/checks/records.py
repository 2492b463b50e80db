# SPDX-License-Identifier: GPL-2.0-or-later
"""The records themselves: how many can be used, which repeat, and what types they have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..events import EventTable
from .localtimes import LocalTimes


@dataclass(frozen=True)
class Rows:
    """What became of the rows of the source.

    Attributes
    ----------
    read, kept : int
        Rows of the source, and those that have a place and a time.
    dropped, notes : dict
        Rows lost and events settled by a rule, by reason; reasons that do not occur are left out.
    """

    read: int
    kept: int
    dropped: dict[str, int]
    notes: dict[str, int]

    @classmethod
    def of(cls, table: EventTable) -> Rows:
        """Return the rows of a table."""
        dropped = {reason: count for reason, count in table.dropped.items() if count}
        notes = {reason: count for reason, count in table.notes.items() if count}
        return cls(table.rows_read, len(table), dropped, notes)

    @property
    def geocoded(self) -> float:
        """Share of rows that have a place."""
        return 1 - self.dropped.get("null_geometry", 0) / self.read

    @property
    def without_date(self) -> float:
        """Share of rows that have no date that can be read."""
        return (self.dropped.get("null_time", 0) + self.dropped.get("bad_time", 0)) / self.read


@dataclass(frozen=True)
class Duplicates:
    """Events that occur again; an event and its two copies count as two.

    Attributes
    ----------
    identity : int or None
        Surplus rows of the same identity; None where events have none.
    same : int
        Surplus rows of the same place, time and type, whatever their identity.
    dropped_as_duplicates : int
        Rows that are left out of a cube where duplicates are dropped: by identity, and by place, time and
        type among the rows that have none.
    """

    identity: int | None
    same: int
    dropped_as_duplicates: int

    @classmethod
    def of(cls, table: EventTable, place: np.ndarray) -> Duplicates:
        """Return the duplicates of a table.

        Parameters
        ----------
        place : numpy.ndarray
            int64 `(events,)`: the same number for the same coordinates.
        """
        seconds = table.time.astype("datetime64[s]").astype(np.int64)
        what = pd.DataFrame({"place": place, "time": seconds, "type": table.type_code})
        same = int(what.duplicated().sum())
        if table.identity is None:
            return cls(None, same, same)
        codes, _ = pd.factorize(table.identity, use_na_sentinel=True)
        named = codes >= 0
        if not named.any():
            return cls(None, same, same)
        identity = int(pd.Series(codes[named]).duplicated().sum())
        return cls(identity, same, identity + int(what[~named].duplicated().sum()))


@dataclass(frozen=True)
class TypeFigures:
    """A type of event.

    Attributes
    ----------
    name : str
    events : int
    share : float
        Of all events.
    first, last : numpy.datetime64
        Local days of the first and the last event.
    """

    name: str
    events: int
    share: float
    first: np.datetime64
    last: np.datetime64


def type_figures(table: EventTable, local: LocalTimes) -> tuple[TypeFigures, ...]:
    """Return the types that occur, the most frequent first."""
    by_type = pd.Series(local.day).groupby(table.type_code).agg(["size", "min", "max"])
    by_type = by_type.sort_values("size", ascending=False, kind="stable")
    return tuple(
        TypeFigures(
            table.type_names[code],
            int(size),
            size / len(table),
            local.first + first,
            local.first + last,
        )
        for code, size, first, last in by_type.itertuples(name=None)
    )


def spelling_variants(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of names that differ in case, spaces and punctuation only."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = re.sub(r"[\W_]+", "", name).casefold()
        if key:
            groups.setdefault(key, []).append(name)
    return tuple(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
