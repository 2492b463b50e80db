# SPDX-License-Identifier: GPL-2.0-or-later
"""Events, block by block, into the cells and steps of a cube, with memory that does not grow with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import pandas as pd

from .covariates import Covariate
from .cube import OTHER, Cube
from .errors import InputError
from .events import UNPLACED, EventTable, add_counts, check_readable
from .grid import Grid
from .reporter import Reporter
from .severity import RESOLUTION, Severity, scores_of
from .timesteps import TimeAxis, check_step, check_time_zone, parse_local

#: A field with more distinct values is no type of event.
MAX_DISTINCT_TYPES = 5_000

# A cube beyond this would not leave a laptop room for training.
MAX_VALUES = 2_000_000_000

# Shares of an event are multiples of 1/65536: sums of them are exact, in whatever order, up to 256 events in
# a cell and step, so that a cube that was extended equals one that was made at once.
_SHARES = 1 << 16
# An event or two off the grid are a matter of course; a night of them is a wrong layer.
_MANY = 20
# A cube with fewer steps is not worth a warning.
_LONG = 50
# Pieces of events that are in memory at a time.
_PIECES = 1 << 20
# Events beyond these bytes wait on disk for the second pass.
_SPOOL_BYTES = 1 << 26


@dataclass(frozen=True)
class Counting:
    """How events are counted; a cube remembers it, so that it can be extended in the same way.

    Attributes
    ----------
    step : str
        Key of :data:`~.timesteps.STEPS`, or shifts.
    time_zone : str
        IANA name of the zone in which days begin.
    max_types : int
        Types beyond the most frequent ones are put together as ``(other)``.
    spread : bool
        Events with an end are spread over the steps of their interval in proportion to time
        (aoristic weights; Ratcliffe 2000).
    severity : str or mapping, optional
        ``field``: the events' own; a mapping: score by type.
    drop_duplicates : bool
        Whether an event that occurs again does not count: one of the same identity, or without
        identities one of the same place, time and type.
    """

    step: str
    time_zone: str
    max_types: int = 12
    spread: bool = False
    severity: str | Mapping[str, float] | None = None
    drop_duplicates: bool = False

    def __post_init__(self) -> None:
        # Shifts may be written in many ways; an axis knows one.
        object.__setattr__(self, "step", check_step(self.step))
        check_time_zone(self.time_zone)
        if self.max_types < 1:
            raise InputError(
                "At least one type is needed.",
                hint="Give 1 or more.",
                parameter="MAX_TYPES",
                value=self.max_types,
            )


class CubeBuilder:
    """Takes tables of events and makes a cube of them.

    Parameters
    ----------
    grid : Grid
        Cells; the events' coordinates are in its CRS.
    counting : Counting
        How to count.
    start, end : str, optional
        ISO local times; the cube begins with the whole step that holds `start`, and events at `end`
        or later do not count: the last step is not complete if `end` lies within it, which is said.
        By default from the first to the last event.
    base : Cube, optional
        A cube made with the same grid and counting, which is extended.
    only_later : bool
        Events before the moment up to which `base` has counted are left aside, as if the source did
        not hold them, and so are rows that have no time to tell.
    """

    def __init__(
        self,
        grid: Grid,
        counting: Counting,
        *,
        start: str | None = None,
        end: str | None = None,
        base: Cube | None = None,
        only_later: bool = False,
        reporter: Reporter | None = None,
    ) -> None:
        self._grid = grid
        self._counting = counting
        self._reporter = reporter or Reporter()
        self._base = base
        self._start = None if start is None else parse_local(start, counting.time_zone, "START")
        self._end = None if end is None else parse_local(end, counting.time_zone, "END")
        self._given = (start, end)
        self._known_until = counted_until(base) if base is not None and only_later else None
        self._left_aside = 0
        self._seen_until = np.datetime64("NaT", "s")
        self._names: dict[str, int] = {}
        self._first, self._last = np.datetime64("NaT", "s"), np.datetime64("NaT", "s")
        self._read = self._readable = self._used = 0
        self._dropped: dict[str, int] = {}
        self._notes: dict[str, int] = {}
        self._bad_examples: tuple[str, ...] = ()
        self._middle: tuple[float, float] | None = None
        self._spool = _Spool()

    @property
    def bad_times(self) -> int:
        """Number of rows so far whose date could not be read."""
        return self._dropped.get("bad_time", 0)

    @property
    def bad_examples(self) -> tuple[str, ...]:
        """Up to three dates that could not be read."""
        return self._bad_examples

    def add(self, events: EventTable) -> None:
        """Take a block of events; only those in the study area are kept, in a compact form."""
        self._reporter.check()
        self._readable += len(events)
        if self._known_until is not None:
            new = events.time >= self._known_until
            self._left_aside += int((~new).sum())
            events = events.selected(new)
        self._read += events.rows_read
        if len(events):
            self._seen_until = np.fmax(self._seen_until, events.time.max())
        self._dropped = add_counts(self._dropped, events.dropped)
        self._notes = add_counts(self._notes, events.notes)
        self._bad_examples = (self._bad_examples + events.bad_examples)[:3]
        if not len(events):
            return
        if self._middle is None:
            # A few tell where the layer lies.
            self._middle = float(np.median(events.x[:1000])), float(np.median(events.y[:1000]))
        row, column = self._grid.locate(events.x, events.y)
        on_grid = row >= 0
        cell = np.where(on_grid, row * self._grid.shape[1] + column, 0)
        in_area = on_grid & self._grid.valid.ravel()[cell]
        self._drop("outside_grid", ~on_grid)
        self._drop("outside_area", on_grid & ~in_area)
        if not in_area.all():
            events, cell = events.selected(in_area), cell[in_area]
        if len(events):
            self._keep(events, cell)

    def _drop(self, reason: str, rows: np.ndarray) -> None:
        self._dropped = add_counts(self._dropped, {reason: int(rows.sum())})

    def _keep(self, events: EventTable, cell: np.ndarray) -> None:
        kind = self._kinds(events)
        columns: dict[str, np.ndarray] = {
            "cell": cell.astype(np.int32),
            "time": events.time.astype(np.int64),
            "kind": kind,
        }
        last = events.time
        if self._counting.spread:
            end = _ends(events)
            columns["length"] = (end - events.time).astype(np.int64)
            # The end of an interval is not part of it.
            last = np.maximum(last, end - np.timedelta64(1, "s"))
        if self._counting.severity == "field":
            if events.severity is None:
                raise ValueError("the events have no severity")
            columns["severity"] = np.round(events.severity / RESOLUTION) * RESOLUTION
        if self._counting.drop_duplicates:
            columns["key"] = _keys(events, kind)
        self._first = np.fmin(self._first, events.time.min())
        self._last = np.fmax(self._last, last.max())
        self._spool.append(columns)

    def _kinds(self, events: EventTable) -> np.ndarray:
        codes = [self._names.setdefault(name, len(self._names)) for name in events.type_names]
        if len(self._names) > MAX_DISTINCT_TYPES:
            some = ", ".join(list(self._names)[:3])
            raise InputError(
                f"The field has more than {MAX_DISTINCT_TYPES:,} different values, such as {some}: it does "
                "not hold types of events.",
                hint="Choose the field with the category of the event, or none.",
                parameter="TYPE_FIELD",
            )
        return np.array(codes, np.int32)[events.type_code]

    def build(self) -> Cube:
        """Return the cube; this ends the builder.

        Raises
        ------
        InputError
            No event with a place and a date, all of them outside the grid or the period, or a cube
            that is too large.
        """
        with self._spool:
            return self._built()

    def _built(self) -> Cube:
        if self._base is None or self._read:
            check_readable(self._read, self._dropped, self._readable, self._bad_examples)
        if np.isnat(self._first) and (self._base is None or self._read - self._unplaced() >= _MANY):
            raise self._nothing_on_grid()
        if self._base is not None and self._end is not None and self._end < counted_until(self._base):
            raise InputError(
                "The cube has counted events beyond this moment.",
                hint=f"Set END after {self._base.axis.isoformat(len(self._base) - 1)[0]}, or leave it empty.",
                parameter="END",
                value=self._given[1],
            )
        axis = self._axis()
        if self._end is not None and axis.edges[0] < self._end < axis.edges[-1]:
            self._reporter.warning(
                f"END lies within a step: the last one, from {axis.isoformat(len(axis) - 1)[0]} on, is not "
                "complete."
            )
        self._look_for_stray_dates(axis)
        fresh = self._first_of_duplicates()
        kind_counts = self._count_kinds(axis, fresh)
        self._used = int(kind_counts.sum())
        if self._base is None and not self._used:
            raise InputError(
                "No event lies in the period.",
                hint="Check START, END and TIME_FIELD.",
                parameter="START",
                value=f"{axis.isoformat(0)[0]} … {axis.isoformat(len(axis) - 1)[1]}",
            )
        names = list(self._names)
        new_counts = {name: int(count) for name, count in zip(names, kind_counts) if count}
        types = self._choose_types(new_counts)
        shape = (len(axis), len(types), *self._grid.shape)
        self._check_size(shape)
        counts = np.zeros(shape, np.float32)
        severity = self._no_severity(axis)
        if self._base is not None:
            self._copy_base(axis, types, counts, severity)
        lookup = np.array([types.index(n if n in types else OTHER) for n in new_counts], np.int64)
        type_of_kind = np.full(len(names), -1)
        type_of_kind[kind_counts > 0] = lookup
        self._fill(axis, fresh, type_of_kind, counts, severity)
        if severity is not None:
            self._tell_missing_severity(severity, new_counts)
        return Cube(
            self._grid,
            axis,
            types,
            counts,
            self._attributes(new_counts, axis),
            self._covariates(axis),
            severity,
        )

    def _unplaced(self) -> int:
        """Return how many rows have no place or time at all."""
        return sum(self._dropped.get(reason, 0) for reason in UNPLACED)

    def _axis(self) -> TimeAxis:
        first = self._first if self._start is None else self._start
        last = self._last if self._end is None else self._end - np.timedelta64(1, "s")
        if self._base is not None:
            edges = self._base.axis.edges
            first = np.fmin(edges[0], first)
            last = np.fmax(edges[-1] - np.timedelta64(1, "s"), last)
        if last < first:
            start, end = self._given
            raise InputError(
                "The last event lies before it." if end is None else "The period ends before it begins.",
                hint="Set END after START, or leave both empty.",
                parameter="START" if end is None else "END",
                value=start if end is None else end,
            )
        return TimeAxis.covering(first, last, self._counting.step, self._counting.time_zone)

    def _first_of_duplicates(self) -> np.ndarray | None:
        """Return whether each kept event is the first of its kind; None: all count."""
        if not self._counting.drop_duplicates or not self._spool.rows:
            return None
        keys = np.concatenate([block["key"] for block in self._spool.blocks()])
        _, first = np.unique(keys, return_index=True)
        fresh = np.zeros(len(keys), bool)
        fresh[first] = True
        self._drop("duplicate", ~fresh)
        return fresh

    def _look_for_stray_dates(self, axis: TimeAxis) -> None:
        """Warn if a few events far from all others in time stretch the cube."""
        if len(axis) < _LONG or self._base is not None:
            return
        seen = np.zeros(len(axis) + 1, bool)
        for block in self._spool.blocks():
            seen[axis.locate(block["time"].astype("datetime64[s]"))] = True
        # What lies outside the axis has marked the last place.
        steps = np.flatnonzero(seen[:-1])
        gaps = np.diff(steps)
        if len(gaps) and gaps.max() > 0.5 * len(axis):
            before, after = steps[gaps.argmax()], steps[gaps.argmax() + 1]
            self._reporter.warning(
                f"There is no event from {axis.isoformat(before)[1]} to {axis.isoformat(after)[0]}, more "
                "than half of the cube. A wrong date may stretch it: set START and END."
            )

    def _period(self, axis: TimeAxis) -> tuple[int, int]:
        """Return the period in which events count, in seconds: that of the axis, up to END."""
        begin, end = axis.edges[0], axis.edges[-1]
        if self._end is not None:
            end = np.fmin(self._end, end)
        return int(begin.astype(np.int64)), int(end.astype(np.int64))

    def _blocks(self, axis: TimeAxis, fresh: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        """Yield what is kept of each block, counts once and lies in the period."""
        begin, end = self._period(axis)
        at = 0
        for block in self._spool.blocks():
            self._reporter.check()
            rows = len(block["time"])
            counted = (block["time"] >= begin) & (block["time"] < end)
            if "length" in block:
                counted |= (block["time"] < begin) & (block["time"] + block["length"] > begin)
            if fresh is not None:
                counted &= fresh[at : at + rows]
            at += rows
            yield block if counted.all() else {name: column[counted] for name, column in block.items()}

    def _count_kinds(self, axis: TimeAxis, fresh: np.ndarray | None) -> np.ndarray:
        counts = np.zeros(len(self._names), np.int64)
        for block in self._blocks(axis, fresh):
            counts += np.bincount(block["kind"], minlength=len(counts))
        candidates = self._spool.rows if fresh is None else int(fresh.sum())
        lost = candidates - int(counts.sum())
        self._dropped = add_counts(self._dropped, {"outside_period": lost})
        return counts

    def _choose_types(self, new: Mapping[str, int]) -> tuple[str, ...]:
        if self._base is None:
            return frequent_types(new, self._counting.max_types)
        old = self._base.attributes.get("type_counts", {})
        types = frequent_types(add_counts(old, new), self._counting.max_types)
        present = self._base.types
        hidden = [name for name in types if name in old and name not in present]
        if not hidden:
            return types
        self._reporter.warning(
            f"{', '.join(hidden)} would now be among the {self._counting.max_types} most frequent types, but "
            f"the cube has counted {'it' if len(hidden) == 1 else 'them'} as {OTHER}: its types stay as they "
            "are. Make the cube anew to have them shown."
        )
        return present

    def _check_size(self, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape, dtype=np.int64))
        if size > MAX_VALUES:
            raise InputError(
                f"The cube would have {shape[0]:,} steps x {shape[1]} types x {shape[2]:,} x {shape[3]:,} "
                f"cells and take {size * 4 / 1e9:,.0f} GB of memory.",
                hint="Choose longer steps, larger cells, fewer types (MAX_TYPES) or a shorter period.",
                parameter="STEP",
                value=self._counting.step,
            )

    def _no_severity(self, axis: TimeAxis) -> Severity | None:
        if self._counting.severity is None:
            return None
        shape = (len(axis), *self._grid.shape)
        return Severity(np.zeros(shape), np.zeros(shape, np.float32))

    def _copy_base(
        self, axis: TimeAxis, types: Sequence[str], counts: np.ndarray, severity: Severity | None
    ) -> None:
        assert self._base is not None
        first = int(np.searchsorted(axis.edges, self._base.axis.edges[0]))
        steps = slice(first, first + len(self._base))
        for index, name in enumerate(self._base.types):
            counts[steps, types.index(name if name in types else OTHER)] += self._base.events[:, index]
        if severity is not None and self._base.severity is not None:
            severity.sum[steps] = self._base.severity.sum
            severity.weight[steps] = self._base.severity.weight

    def _fill(
        self,
        axis: TimeAxis,
        fresh: np.ndarray | None,
        type_of_kind: np.ndarray,
        counts: np.ndarray,
        severity: Severity | None,
    ) -> None:
        cells = self._grid.inside.size
        flat = counts.reshape(-1)
        scores = None
        if isinstance(self._counting.severity, Mapping):
            scores = scores_of(list(self._names), self._counting.severity)
        for block in self._blocks(axis, fresh):
            for event, step, share in _pieces(block, axis, self._period(axis)):
                cell = block["cell"][event]
                kind = block["kind"][event]
                place = (step * counts.shape[1] + type_of_kind[kind]) * cells + cell
                np.add.at(flat, place, share)
                if severity is not None:
                    grave = block["severity"][event] if scores is None else scores[kind]
                    known = np.isfinite(grave)
                    place = (step * cells + cell)[known]
                    share = np.broadcast_to(share, known.shape)[known]
                    np.add.at(severity.sum.reshape(-1), place, grave[known] * share)
                    np.add.at(severity.weight.reshape(-1), place, share)

    def _tell_missing_severity(self, severity: Severity, type_counts: Mapping[str, int]) -> None:
        source = self._counting.severity
        if not severity.weight.any():
            named = ", ".join(list(type_counts)[:3])
            raise InputError(
                "Not one event has a severity.",
                hint=f"The table has none of the types, such as {named}: choose TYPE_FIELD or the table anew."
                if isinstance(source, Mapping)
                else "Choose a field that holds numbers.",
                parameter="SEVERITY",
                value="table" if isinstance(source, Mapping) else source,
            )
        if isinstance(source, Mapping):
            scores = scores_of(list(type_counts), source)
            without = [name for name, score in zip(type_counts, scores) if np.isnan(score)]
            if without:
                rows = sum(type_counts[name] for name in without)
                named = ", ".join(without[:5]) + (", …" if len(without) > 5 else "")
                self._reporter.warning(
                    f"{rows:,} events have no severity and do not count for it: the table lacks {named}."
                )

    def _covariates(self, axis: TimeAxis) -> dict[str, Covariate]:
        """Return the covariates of the base; in new steps nothing is known of those that change in time."""
        if self._base is None or np.array_equal(axis.edges, self._base.axis.edges):
            return {} if self._base is None else dict(self._base.covariates)
        first = int(np.searchsorted(axis.edges, self._base.axis.edges[0]))
        result = dict(self._base.covariates)
        for name, old in result.items():
            if "time" in old.dimensions:
                values = np.full((len(axis), *old.values.shape[1:]), np.nan, np.float32)
                values[first : first + len(old.values)] = old.values
                result[name] = replace(old, values=values)
        changing = [name for name, each in result.items() if "time" in each.dimensions]
        if changing:
            self._reporter.warning(
                f"In the new steps nothing is known of {', '.join(changing)}: add these covariates again."
            )
        return result

    @property
    def report(self) -> dict[str, Any]:
        """What became of the rows of this run: read, used, dropped and noted by reason, left aside."""
        return {
            "events_read": self._read,
            "events_used": self._used,
            "dropped": self._dropped,
            "notes": self._notes,
            "left_aside": self._left_aside,
        }

    def _attributes(self, type_counts: Mapping[str, int], axis: TimeAxis) -> dict[str, object]:
        severity = self._counting.severity
        old = self._base.attributes if self._base is not None else {}
        dropped = dict(self._dropped)
        if self._known_until is not None:
            # Rows that have no time or place were counted when the cube was made.
            dropped |= dict.fromkeys(UNPLACED, 0)
        # A row that came too late for one run counts in the next.
        before = dict(old.get("dropped", {})) | {"outside_period": 0}
        dropped = add_counts(before, dropped)
        used = self._used + old.get("events_used", 0)
        return {
            "events_read": used + sum(dropped.values()),
            "events_used": used,
            "dropped": dropped,
            "notes": add_counts(old.get("notes", {}), self._notes),
            "type_counts": add_counts(old.get("type_counts", {}), type_counts),
            "counted_until": self._counted_until(axis),
            "counting": {
                "max_types": self._counting.max_types,
                "spread": self._counting.spread,
                "severity": dict(severity) if isinstance(severity, Mapping) else severity,
                "drop_duplicates": self._counting.drop_duplicates,
            },
        }

    def _counted_until(self, axis: TimeAxis) -> str:
        """Return the moment (UTC) before which every event that happened has been counted.

        Without END it is the second after the last event: the last step may not be over.
        """
        moment = self._seen_until + np.timedelta64(1, "s") if self._end is None else self._end
        if self._base is not None:
            moment = np.fmax(moment, counted_until(self._base))
        return str(np.fmin(moment, axis.edges[-1]))

    def _nothing_on_grid(self) -> InputError:
        if self._middle is None:
            lost = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in self._dropped.items() if n)
            return InputError(
                "No event has both a place and a date that can be read.",
                hint=f"Lost: {lost}.",
                parameter="INPUT",
            )
        x, y = self._grid.centres()
        return InputError(
            f"All {self._read - self._unplaced():,} events lie outside the study area of the grid. The "
            f"events lie around x {self._middle[0]:.6g}, y {self._middle[1]:.6g}, the grid around "
            f"x {x.mean():.6g}, y {y.mean():.6g} ({self._grid.crs.name}).",
            hint="Check the coordinate system of the layer and that grid and events belong together.",
            parameter="INPUT",
        )


def counted_until(cube: Cube) -> np.datetime64:
    """Return the moment (UTC) up to which the events of a cube have been counted."""
    return np.datetime64(cube.attributes.get("counted_until", cube.axis.edges[-1]), "s")


def counting_of(cube: Cube) -> Counting:
    """Return how the events of a cube were counted.

    Raises
    ------
    InputError
        The cube does not tell: it was made by hand.
    """
    found = cube.attributes.get("counting")
    if not isinstance(found, Mapping):
        raise InputError(
            "The cube does not say how its events were counted, so it cannot be extended.",
            hint="Make it with 'Rasterize Events to Cube'.",
            parameter="CUBE",
        )
    return Counting(cube.axis.step, cube.axis.time_zone, **found)


def frequent_types(counts: Mapping[str, int], max_types: int) -> tuple[str, ...]:
    """Return the most frequent types in alphabetical order; if others are left, ``(other)`` comes last."""
    names = sorted(counts)
    if len(names) <= max_types:
        return tuple(names)
    kept = sorted(names, key=lambda name: -counts[name])[: max_types - 1]
    # A type that has this name already joins the rest.
    return (*sorted(name for name in kept if name != OTHER), OTHER)


def _ends(events: EventTable) -> np.ndarray:
    """Return the end of each event's interval, which is its beginning where none is known."""
    if events.end is None:
        return events.time
    return np.where(np.isnat(events.end), events.time, events.end)


def _keys(events: EventTable, kind: np.ndarray) -> np.ndarray:
    """Return uint64 `(events,)`, equal for events that are one and the same."""
    frame = pd.DataFrame({"x": events.x, "y": events.y, "time": events.time, "kind": kind})
    keys = pd.util.hash_pandas_object(frame, index=False).to_numpy(copy=True)
    if events.identity is None:
        return keys
    named = ~pd.isna(events.identity)
    names = pd.Series(events.identity[named]).astype(str).astype(object)
    keys[named] = pd.util.hash_array(names.to_numpy())
    return keys


def _pieces(
    block: Mapping[str, np.ndarray], axis: TimeAxis, period: tuple[int, int]
) -> Iterator[tuple[np.ndarray | slice, np.ndarray, np.ndarray | np.float32]]:
    """Yield event, step and share of events in the steps of an axis, some at a time."""
    if "length" not in block:
        yield slice(None), axis.locate(block["time"].astype("datetime64[s]")), np.float32(1)
        return
    # What lies after the end of the period in its last step does not count.
    edges = np.clip(axis.edges.astype(np.int64), *period)
    start, length = block["time"], block["length"]
    first = np.searchsorted(edges, start, side="right") - 1
    last = np.where(length > 0, np.searchsorted(edges, start + length, side="left") - 1, first)
    first, last = np.maximum(first, 0), np.minimum(last, len(axis) - 1)
    pieces = last - first + 1
    begin = 0
    totals = np.cumsum(pieces)
    while begin < len(start):
        before = totals[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(totals, before + _PIECES, side="right")))
        event = np.repeat(np.arange(begin, stop), pieces[begin:stop])
        step = first[event] + np.arange(len(event)) - (totals[event] - pieces[event] - before)
        yield event, step, _shares(start[event], length[event], edges[step], edges[step + 1])
        begin = stop


def _shares(
    start: np.ndarray, length: np.ndarray, step_start: np.ndarray, step_end: np.ndarray
) -> np.ndarray:
    """Return the share of intervals in steps, rounded so that the shares of an event add up to exactly 1."""
    size = np.maximum(length, 1)

    def until(moment: np.ndarray) -> np.ndarray:
        gone = np.clip(moment - start, 0, length)
        return np.where(
            length > 0, (gone * _SHARES + size // 2) // size, np.where(moment > start, _SHARES, 0)
        )

    return ((until(step_end) - until(step_start)) / _SHARES).astype(np.float32)


class _Spool:
    """Columns of many events, first in memory and then on disk; read back block by block."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 (lives as long)
        self._blocks: list[dict[str, tuple[int, np.dtype, int]]] = []
        self.rows = 0

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        places = {}
        try:
            for name, values in columns.items():
                places[name] = (self._file.tell(), values.dtype, len(values))
                self._file.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise InputError(
                f"The temporary folder cannot hold the events: {error.strerror}.",
                hint="Free some space there, or set another one (TMPDIR).",
                parameter="INPUT",
                value=tempfile.gettempdir(),
            ) from error
        self._blocks.append(places)
        self.rows += len(columns["time"])

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        for places in self._blocks:
            block = {}
            for name, (position, kind, count) in places.items():
                self._file.seek(position)
                block[name] = np.frombuffer(self._file.read(count * kind.itemsize), kind)
            yield block
