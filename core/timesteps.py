# SPDX-License-Identifier: GPL-2.0-or-later
"""Time axes: half-open steps from 15 minutes to quarters and police shifts, aligned with the local clock.

Instants are UTC (``datetime64[s]``); the time zone decides where days, weeks
and months begin, so a day on which the clocks change has 23 or 25 hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd

from .errors import InputError

#: Steps by name, with their nominal length in hours.
STEPS: dict[str, float] = {
    "15min": 0.25,
    "30min": 0.5,
    "1h": 1,
    "2h": 2,
    "3h": 3,
    "4h": 4,
    "6h": 6,
    "8h": 8,
    "12h": 12,
    "day": 24,
    "week": 168,
    "14days": 336,
    "30days": 720,
    "month": 730.5,
    "quarter": 2191.5,
}

#: First word of a step of police shifts, as in ``shifts 07:00 15:00 23:00``.
SHIFTS = "shifts"

MAX_STEPS = 2_000_000

#: Dates before or after these years are typing errors or placeholders (1900-01-01, 9999-12-31).
YEARS = (1901, 2199)

# A Monday long ago: weeks start on Mondays, and 14- and 30-day steps always at the
# same dates, whatever the first event is.
_ANCHOR = pd.Timestamp("1969-12-29")


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """Consecutive half-open steps.

    Attributes
    ----------
    step : str
        A key of :data:`STEPS`, or shifts as made by :func:`shift_step`.
    time_zone : str
        IANA name of the study area's time zone.
    edges : numpy.ndarray
        ``datetime64[s]`` in UTC, one more than there are steps.
    """

    step: str
    time_zone: str
    edges: np.ndarray

    @classmethod
    def covering(cls, first: np.datetime64, last: np.datetime64, step: str, time_zone: str) -> TimeAxis:
        """Return whole steps from the one that holds `first` to the one that holds `last` (UTC)."""
        check_step(step)
        zone = check_time_zone(time_zone)
        start = _local(first, zone)
        end = _local(last, zone)
        count = (
            (np.datetime64(last, "s") - np.datetime64(first, "s"))
            / np.timedelta64(3600, "s")
            / step_hours(step)
        )
        if count > MAX_STEPS:
            raise InputError(
                f"There would be about {count:,.0f} time steps; at most {MAX_STEPS:,} are allowed.",
                hint="Choose longer steps, or set START and END (a wrong date can stretch the period).",
                parameter="STEP",
                value=step,
            )
        edges = _edges(start, end, step, zone)
        keep_from = np.searchsorted(edges, np.datetime64(first, "s"), side="right") - 1
        keep_to = np.searchsorted(edges, np.datetime64(last, "s"), side="right")
        return cls(step, time_zone, edges[keep_from : keep_to + 1])

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def starts(self) -> np.ndarray:
        """Start of each step, UTC."""
        return self.edges[:-1]

    @property
    def ends(self) -> np.ndarray:
        """End of each step, UTC (not part of the step)."""
        return self.edges[1:]

    @property
    def hours(self) -> float:
        """Nominal length of a step in hours; of shifts, the mean."""
        return step_hours(self.step)

    @property
    def unit(self) -> str:
        """What one step is called in a legend: ``day``, ``month``, ``shift``."""
        return "shift" if is_shifts(self.step) else self.step

    @property
    def steps_per_year(self) -> int:
        """Steps in 365 days, at least 1."""
        return max(1, round(365 * 24 / self.hours))

    def locate(self, times: np.ndarray) -> np.ndarray:
        """Return the index of the step that holds each instant (UTC); -1 outside the axis."""
        seconds = times.astype("datetime64[s]").astype(np.int64)
        edges = self.edges.astype(np.int64)
        # NaT is the smallest integer, so it lies outside as well.
        within = (seconds >= edges[0]) & (seconds < edges[-1])
        shortest, step_of_bucket = self._buckets
        index = step_of_bucket[np.where(within, (seconds - edges[0]) // shortest, 0)]
        index += seconds >= edges[index + 1]
        return np.where(within, index, -1)

    @cached_property
    def _buckets(self) -> tuple[int, np.ndarray]:
        """Length of buckets in seconds, and the step in which each begins.

        In a bucket as long as the shortest step ends one step at most: one look tells where an instant
        belongs, several times faster than a search for each of a million events in random order.
        """
        edges = self.edges.astype(np.int64)
        shortest = int(np.diff(edges).min())
        starts = np.arange(edges[0], edges[-1], shortest)
        return shortest, np.searchsorted(edges, starts, side="right") - 1

    def slice(self, start: int, stop: int) -> TimeAxis:
        """Return the axis of steps `start` to `stop` (exclusive)."""
        return TimeAxis(self.step, self.time_zone, self.edges[start : stop + 1])

    def extended(self, count: int) -> TimeAxis:
        """Return this axis with `count` further steps at its end."""
        if count <= 0:
            return self
        zone = ZoneInfo(self.time_zone)
        # Months differ in length: ask for a few too many and cut.
        ahead = np.timedelta64(int((count + 3) * self.hours * 3600 * 1.05) + 7200, "s")
        edges = _edges(_local(self.edges[-1], zone), _local(self.edges[-1] + ahead, zone), self.step, zone)
        later = edges[edges > self.edges[-1]][:count]
        return TimeAxis(self.step, self.time_zone, np.concatenate([self.edges, later]))

    @cached_property
    def local_starts(self) -> pd.DatetimeIndex:
        """Starts of the steps on the local clock (with time zone)."""
        return pd.DatetimeIndex(self.starts).tz_localize("UTC").tz_convert(self.time_zone)

    @cached_property
    def calendar(self) -> np.ndarray:
        """float32 `(steps, features)` in -1..1: season, and weekday and hour where steps are that short.

        Sine and cosine pairs, so that 31 December is next to 1 January.
        """
        local = self.local_starts
        phases = [(local.day_of_year.to_numpy() - 1) / 365.25]
        if self.hours <= 24:
            phases.append(local.day_of_week.to_numpy() / 7)
        if self.hours < 24:
            phases.append((local.hour.to_numpy() + local.minute.to_numpy() / 60) / 24)
        columns = [f(2 * np.pi * phase) for phase in phases for f in (np.sin, np.cos)]
        return np.stack(columns, axis=1).astype(np.float32)

    @cached_property
    def weekly_slot(self) -> np.ndarray:
        """int `(steps,)`: which slot of the week a step is (weekday, or weekday and time of day).

        Steps of a week and longer have one slot only.
        """
        local = self.local_starts
        if self.hours > 24:
            return np.zeros(len(self), int)
        if is_shifts(self.step):
            starts = [hour * 60 + minute for hour, minute in _shift_starts(self.step)]
            minutes = local.hour.to_numpy() * 60 + local.minute.to_numpy()
            # A clock change may move the beginning of a shift.
            shift = np.maximum(np.searchsorted(starts, minutes, side="right") - 1, 0)
            return local.day_of_week.to_numpy() * len(starts) + shift
        slots_a_day = max(1, round(24 / self.hours))
        minutes = local.hour.to_numpy() * 60 + local.minute.to_numpy()
        within = np.minimum(minutes // max(1, round(self.hours * 60)), slots_a_day - 1)
        return local.day_of_week.to_numpy() * slots_a_day + (0 if slots_a_day == 1 else within)

    def isoformat(self, index: int) -> tuple[str, str]:
        """Return start and end of a step as local ISO 8601 times with their UTC offset."""
        zone = ZoneInfo(self.time_zone)
        start, end = (pd.Timestamp(self.edges[i], tz="UTC").tz_convert(zone) for i in (index, index + 1))
        return start.isoformat(), end.isoformat()


def check_step(step: str) -> str:
    """Return a step as axes know it: a key of :data:`STEPS`, or shifts as made by :func:`shift_step`.

    Raises
    ------
    InputError
        There is no such step.
    """
    if is_shifts(step):
        return shift_step(step.removeprefix(SHIFTS))
    if step not in STEPS:
        raise InputError(
            "Unknown time step.", hint=f"Choose one of {', '.join(STEPS)}.", parameter="STEP", value=step
        )
    return step


def shift_step(starts: str) -> str:
    """Return the step of police shifts that begin at the given times of day, by the local clock.

    Parameters
    ----------
    starts : str
        Such as ``7, 15, 23`` or ``06:45 14:45 22:45``; in any order.

    Returns
    -------
    str
        Such as ``shifts 07:00 15:00 23:00``, for :attr:`TimeAxis.step`.

    Raises
    ------
    InputError
        No time of day, or fewer than two shifts.
    """
    starts = starts.strip()
    times = set()
    for word in re.split(r"[\s,;]+", starts):
        found = re.fullmatch(r"(\d{1,2})(?::?([0-5]\d))?", word)
        if not found or int(found[1]) > 23:
            raise InputError(
                "These are not times of day at which shifts begin.",
                hint="Write them as 7, 15, 23 or 06:45, 14:45, 22:45.",
                parameter="SHIFT_STARTS",
                value=starts,
            )
        times.add((int(found[1]), int(found[2] or 0)))
    if len(times) < 2:
        raise InputError(
            "There must be at least two shifts a day.",
            hint="Give the times at which each begins, such as 7, 15, 23; for whole days choose STEP day.",
            parameter="SHIFT_STARTS",
            value=starts,
        )
    return " ".join([SHIFTS, *(f"{hour:02}:{minute:02}" for hour, minute in sorted(times))])


def is_shifts(step: str) -> bool:
    """Tell whether a step is one of police shifts."""
    return step.split(" ")[0] == SHIFTS


def step_hours(step: str) -> float:
    """Return the nominal length of a step in hours; of shifts, the mean."""
    return 24 / len(_shift_starts(step)) if is_shifts(step) else STEPS[step]


def _shift_starts(step: str) -> list[tuple[int, int]]:
    return [(int(word[:2]), int(word[3:])) for word in step.split(" ")[1:]]


def check_time_zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name; raise :class:`InputError` if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError, PermissionError) as error:
        wanted = name.strip().lower().replace(" ", "_").split("/")[-1]
        near = sorted(zone for zone in available_timezones() if wanted and wanted in zone.lower())[:3]
        raise InputError(
            "There is no such time zone.",
            hint=f"Did you mean {' or '.join(near)}?"
            if near
            else "Give an IANA name such as America/Toronto, Europe/Berlin or UTC.",
            parameter="TIME_ZONE",
            value=name,
        ) from error


def parse_local(text: str, time_zone: str, parameter: str) -> np.datetime64:
    """Return the UTC instant of an ISO 8601 time; without offset it is local clock time."""
    try:
        # pandas would take "" for a missing time and "now" for the time of the run.
        if not any(character.isdigit() for character in text):
            raise ValueError("no digit")
        stamp = pd.Timestamp(text)
        if stamp.tzinfo is None:
            stamp = stamp.tz_localize(check_time_zone(time_zone), ambiguous=True, nonexistent="shift_forward")
    except (ValueError, TypeError) as error:
        raise InputError(
            "This is not a date and time.",
            hint="Write it as 2024-01-31 or 2024-01-31T18:00.",
            parameter=parameter,
            value=text,
        ) from error
    if not YEARS[0] <= stamp.year <= YEARS[1]:
        raise InputError(
            f"The date lies outside the years {YEARS[0]} to {YEARS[1]}.",
            hint="Correct the year, or leave the field empty if there is no limit.",
            parameter=parameter,
            value=text,
        )
    return np.datetime64(stamp.tz_convert("UTC").tz_localize(None), "s")


def _local(instant: np.datetime64, zone: ZoneInfo) -> pd.Timestamp:
    return pd.Timestamp(np.datetime64(instant, "s"), tz="UTC").tz_convert(zone).tz_localize(None)


def _edges(start: pd.Timestamp, end: pd.Timestamp, step: str, zone: ZoneInfo) -> np.ndarray:
    """Return UTC edges of all steps that touch local `start` … `end`, with some to spare."""
    hours = step_hours(step)
    if is_shifts(step):
        days = pd.date_range(start.normalize() - pd.Timedelta(days=1), end.normalize() + pd.Timedelta(days=2))
        offsets = [pd.Timedelta(hours=hour, minutes=minute) for hour, minute in _shift_starts(step)]
        return _to_utc(pd.DatetimeIndex(np.concatenate([days + offset for offset in offsets])), zone)
    if hours < 2:
        # Short steps run evenly through a clock change: that day has 23 or 25 hours.
        # They begin anew at each local midnight, which also aligns zones with half-hour
        # offsets, and the months after a change by half an hour (Lord Howe).
        days = pd.date_range(start.normalize() - pd.Timedelta(days=1), end.normalize() + pd.Timedelta(days=2))
        midnights = _to_utc(days, zone)
        length = np.timedelta64(int(hours * 3600), "s")
        return np.concatenate([np.arange(a, b, length) for a, b in zip(midnights[:-1], midnights[1:])])
    if step == "month":
        local = pd.date_range(
            start.to_period("M").start_time, end + pd.DateOffset(months=1, days=1), freq="MS"
        )
    elif step == "quarter":
        local = pd.date_range(start.to_period("Q").start_time, end + pd.DateOffset(months=4), freq="QS")
    elif hours >= 24:
        days = round(hours / 24)
        first = _ANCHOR + pd.Timedelta(days=(start - _ANCHOR).days // days * days)
        local = pd.date_range(first, end + pd.Timedelta(days=days + 1), freq=f"{days}D")
    else:
        local = pd.date_range(
            start.normalize(), end.normalize() + pd.Timedelta(days=2), freq=f"{round(hours)}h"
        )
    return _to_utc(local, zone)


def clock_to_utc(local: pd.DatetimeIndex, zone: ZoneInfo, *, first_pass: bool = True) -> pd.DatetimeIndex:
    """Return the UTC times (without zone) of local clock times.

    A time that the clock shows twice is taken as its first pass, or as its second one; one that it never
    shows moves to the end of the gap.
    """
    passes = np.full(len(local), first_pass)
    aware = local.tz_localize(zone, ambiguous=passes, nonexistent="shift_forward")
    return aware.tz_convert("UTC").tz_localize(None)


def _to_utc(local: pd.DatetimeIndex, zone: ZoneInfo) -> np.ndarray:
    # A step that the clock change swallows whole must not stay as an empty one.
    return np.unique(clock_to_utc(local, zone).to_numpy().astype("datetime64[s]"))
