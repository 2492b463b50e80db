# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of each cell, and of the city, on the eve of a step: rates of the past at many scales.

What is said of step `t` uses steps before `t` only. Spans are given in days; those shorter than a step are
left out, so that the same description serves quarters of an hour and months.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from .features import CityPace, DecayedMeans, city_totals, month_steps
from .grid import Grid
from .mixture import RADII, Past, around
from .timesteps import TimeAxis, clock_to_utc

# Half-lives of the averages that are looked at over wide surroundings, and of the one that all are told from.
_WIDE_SPANS = (7.0, 30.0, 365.0)
_USUAL_SPAN = 90.0
# Longest half-life of an average that tells of near repeats.
_REPEAT_SPAN = 14.0
# Place of the radius that the same step a year ago is looked at over.
_NEAR = 1
# Half-lives of averages over the same place of the week, in weeks.
_WEEKS = (13.0, 52.0)
# Years that are looked back to, and months.
_YEARS, _MONTHS = 6, 24
# Half widths in days of the time of year that is compared with the year around it.
_SEASONS = (3, 21)
# One event that is added to observed and expected ones, so that a quiet place says nothing.
_CALM = 1.0


@dataclass(frozen=True)
class Known:
    """What is known on the eve of some steps.

    Attributes
    ----------
    base : numpy.ndarray
        float64 `(steps, cells)`, above 0: what the mixture says, times level and weekday factor of the city.
    cells : numpy.ndarray
        float32 `(steps, cells, features)`.
    city : numpy.ndarray
        float32 `(steps, features)`.
    weekday : numpy.ndarray
        float64 `(steps,)`: the weekday factor in `base`.
    """

    base: np.ndarray
    cells: np.ndarray
    city: np.ndarray
    weekday: np.ndarray


class Knowledge:
    """Reads the past step by step.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)` all that is known; referred to, not copied. Cells outside may hold anything.
    axis : TimeAxis
        Of all steps that will be read, which may go on beyond those that are known.
    grid : Grid
        Cells and study area.
    start : int
        First step to look at.
    weights : numpy.ndarray
        Of the mixture that the base rate is, see :func:`~.mixture.learned_weights`.
    """

    def __init__(
        self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, weights: np.ndarray
    ) -> None:
        self._counts, self._axis, self._grid = counts, axis, grid
        self._valid, self._inside = grid.valid, grid.inside
        self._step = start
        # Steps that are expected rather than known, and the totals of all.
        self._learned: list[np.ndarray] = []
        self._totals = city_totals(counts, self._valid)
        self._look_at_city(start)
        days = axis.hours / 24
        self._past = Past.of(counts[:start], grid, days)
        self._weights = weights
        spans = self._past.spans
        self._usual = spans.index(_USUAL_SPAN)
        others = [number for number in range(len(spans)) if number != self._usual]
        wide = [number for number in others if spans[number] in _WIDE_SPANS]
        # Averages that are looked at, by their number, for each radius.
        self._looked_at = [*[others] * (len(RADII) - 1), wide]
        self._repeats = [number for number, span in enumerate(spans) if span <= _REPEAT_SPAN]
        self._slots = axis.weekly_slot
        self._weeks = {
            int(slot): DecayedMeans(_WEEKS, counts[:start][self._slots[:start] == slot] * self._valid)
            for slot in np.unique(self._slots)
            if self._slots.any()
        }
        self._year = round(364 / days) if days <= 7 else axis.steps_per_year
        widths = [round(width / days) for width in _SEASONS]
        self._seasons = _Seasons(counts, start, self._year, [width for width in widths if width])
        self._dates = [] if days > 1 else [_same_dates(axis, years=_YEARS), _same_dates(axis, months=_MONTHS)]

    def read(self, stop: int) -> Known:
        """Return what is known on the eve of the steps up to `stop - 1` that have not been read yet.

        Of steps whose counts are not known only the first can be read, until :meth:`learn` is told them.
        """
        start = self._step
        usual, own = zip(*(self._look() for _ in range(start, stop)))
        rates = np.stack(usual)
        if stop > self._city_from + len(self._city):
            self._look_at_city(start)
        place = slice(start - self._city_from, stop - self._city_from)
        weekday = self._weekday[place]
        factor = self._pace.level(rates.sum(axis=1), start, stop) * weekday
        return Known(rates * factor[:, None], np.stack(own), self._city[place], weekday)

    def slower(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what the mixture would say with longer half-lives in the place of others.

        Returns
        -------
        lasting : numpy.ndarray
            float64 `(cells,)`, above 0: rates with the longest half-life only.
        settled : numpy.ndarray
            float64 `(cells,)`, above 0, sum 1: where events would be without the half-lives of near repeats.
        """
        past, every = self._past, range(len(self._past.spans))
        lasting = past.mixed(past.moved(self._weights, every, every[-1]))
        settled = past.mixed(past.moved(self._weights, self._repeats, len(self._repeats)))
        return self._total(-1) * lasting[self._valid], settled[self._valid]

    def kinds(self, features: int) -> np.ndarray:
        """Return what each of the features of a cell tells of: "place", "repeats" or "calendar"."""
        found = ["place", "place"]
        for spans in self._looked_at:
            found += ["place", *("repeats" if i in self._repeats else "place" for i in spans)]
        return np.array(found + ["calendar"] * (features - len(found)))

    def _look_at_city(self, start: int) -> None:
        """Find out what is known of the city from a step on, for all steps that totals tell of at once."""
        stop = min(len(self._totals) + 1, len(self._axis))
        self._city_from = start
        self._pace = CityPace(self._totals, self._axis)
        self._weekday = self._pace.weekday_factor(start, stop)
        self._city = city_features(self._totals, self._axis, start, stop)

    def learn(self, counts: np.ndarray) -> None:
        """Take in what is expected of the step after those that are known: `(y, x)`."""
        counts = np.where(self._valid, counts, 0.0)
        self._learned.append(counts)
        self._totals = np.append(self._totals, counts.sum())
        self._advance(counts)

    def _at(self, step: int) -> np.ndarray:
        """Return the counts of a step before the present one."""
        known = len(self._counts)
        return self._counts[step] * self._valid if step < known else self._learned[step - known]

    def _advance(self, counts: np.ndarray) -> None:
        self._past.advance(counts)
        if self._weeks:
            self._weeks[int(self._slots[self._step])].advance(counts)
        self._step += 1
        self._seasons.advance(self._at)

    def _look(self) -> tuple[np.ndarray, np.ndarray]:
        """Return usual rate `(cells,)` and features `(cells, features)` on the eve of the present step."""
        step, valid, past = self._step, self._valid, self._past
        weights = past.weight
        # Mean rate of a whole cell.
        density = self._total(self._usual) / float(self._inside.sum())
        usual = density * self._inside.sum() * past.mixed(self._weights)
        columns = [self._inside, _log_density(usual, self._inside, density)]
        for number, (radius, share, spans) in enumerate(zip(RADII, past.shares, self._looked_at)):
            # As many cells as the surroundings weigh alike.
            cells = max(1.0, 4 * np.pi * radius**2)
            sums = past.sums(number)
            rate = (sums[self._usual] + density * share) / (weights[self._usual] + 1)
            columns.append(_log_density(rate, share, density))
            columns += [_ratio(cells * sums[i], cells * weights[i] * rate) for i in spans]
        columns += self._calendar_ratios(step, usual)
        if step < len(self._counts):
            self._advance(self._at(step))
        features = np.stack([column[valid] for column in columns], axis=1)
        return usual[valid], features.astype(np.float32)

    def _total(self, number: int) -> float:
        """Return the events of a step by one of the averages; half an event stands for "none so far"."""
        sums, weight = self._past.sums(0)[number], self._past.weight[number]
        return max(float(sums.sum()), 0.5) / max(float(weight), 1.0)

    def _calendar_ratios(self, step: int, usual: np.ndarray) -> list[np.ndarray]:
        """Return what the same weekday, the time of year and the date brought, as ratios to the usual."""
        found = []
        if self._weeks:
            week = self._weeks[int(self._slots[step])]
            found += [_ratio(sums, weight * usual) for sums, weight in zip(week.sums, week.weight)]
        lags = [self._year * number for number in range(1, _YEARS + 1) if step >= self._year * number]
        (whole, length), *seasons = self._seasons.sums
        yearly = whole / max(length, 1)
        # The same step of the week a year ago, in the cell and around it, and the weeks beside it.
        exact = self._sum([step - lag for lag in lags])
        found.append(_ratio(exact, len(lags) * yearly))
        cells = 4 * np.pi * RADII[_NEAR] ** 2
        near = [around(each, RADII[_NEAR], self._valid) for each in (exact, yearly)]
        found.append(_ratio(cells * near[0], cells * len(lags) * near[1]))
        week_steps = self._year // 52
        beside = [step - lag + side for lag in lags for side in (-week_steps, week_steps)]
        beside = [each for each in beside if each >= 0]
        found.append(_ratio(self._sum(beside), len(beside) * yearly))
        found += [_ratio(sums, length * yearly) for sums, length in seasons]
        for dates in self._dates:
            earlier = [int(each) for each in dates[step] if 0 <= each < step]
            found.append(_ratio(self._sum(earlier), len(earlier) * usual))
        return found

    def _sum(self, steps: Sequence[int]) -> np.ndarray:
        total = np.zeros(self._grid.shape)
        for step in steps:
            total += self._at(step)
        return total


def _log_density(rate: np.ndarray, inside: np.ndarray, density: float) -> np.ndarray:
    """Return the log of the rate of a whole cell over the mean one."""
    return np.log(np.maximum(rate / np.maximum(inside, 1e-9), 1e-3 * density) / density)


def _ratio(events: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.log((events + _CALM) / (np.maximum(expected, 0.0) + _CALM))


class _Seasons:
    """Sums over times of the year that lie whole years back, moved on step by step.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)`.
    start : int
        Present step.
    year : int
        Steps of a year.
    widths : list of int
        Steps before and after the time of the year that the sums are over; besides they are over the whole
        year around it.
    """

    def __init__(self, counts: np.ndarray, start: int, year: int, widths: list[int]) -> None:
        self._step = start
        half = year // 2
        windows = [(half, half), *((width, width + 1) for width in widths)]
        # First step and end of each window, from the present step.
        self._windows = [
            [(-year * number - before, min(0, -year * number + after)) for number in range(1, _YEARS + 1)]
            for before, after in windows
        ]
        self._sums = [np.zeros(counts.shape[1:]) for _ in windows]
        for sums, places in zip(self._sums, self._windows):
            for first, end in places:
                sums += counts[max(0, start + first) : max(0, start + end)].sum(axis=0, dtype=np.float64)

    def advance(self, at: Callable[[int], np.ndarray]) -> None:
        """Move on by one step; `at` gives the counts of a step."""
        for sums, places in zip(self._sums, self._windows):
            for first, end in places:
                if self._step + end >= 0:
                    sums += at(self._step + end)
                if self._step + first >= 0:
                    sums -= at(self._step + first)
        self._step += 1

    @property
    def sums(self) -> list[tuple[np.ndarray, int]]:
        """Events `(y, x)` and number of steps, of whole years and of each narrower window."""
        lengths = [
            sum(max(0, self._step + end) - max(0, self._step + first) for first, end in places)
            for places in self._windows
        ]
        return list(zip(self._sums, lengths))


def _same_dates(axis: TimeAxis, *, years: int = 0, months: int = 0) -> np.ndarray:
    """Return the steps with the same date in earlier years, or the same day of earlier months.

    Returns
    -------
    numpy.ndarray
        int `(steps, years or months)`; -1 where the axis does not reach back, or the month has no such day.
    """
    local = axis.local_starts.tz_localize(None)
    zone = ZoneInfo(axis.time_zone)
    found = []
    for number in range(1, max(years, months) + 1):
        back = pd.DateOffset(years=number) if years else pd.DateOffset(months=number)
        earlier = local - back
        place = axis.locate(clock_to_utc(earlier, zone).to_numpy())
        found.append(np.where(earlier.day == local.day, place, -1))
    return np.stack(found, axis=1)


def city_features(totals: np.ndarray, axis: TimeAxis, start: int, stop: int) -> np.ndarray:
    """Return what is known of the city as a whole on the eve of the steps `start` to `stop - 1`.

    How the last days went against what the level and the weekday had promised, the level against that of
    the year, what the date, the weekday of the month and the day of the month brought in the past, the season
    a year ago, and the calendar itself.

    Parameters
    ----------
    totals : numpy.ndarray
        `(known steps,)` events of the study area.
    axis : TimeAxis
        Of all steps up to `stop - 1`.

    Returns
    -------
    numpy.ndarray
        float32 `(stop - start, features)`.
    """
    known, days = len(totals), axis.hours / 24
    pace = CityPace(totals, axis)
    usual = pace.mean(month_steps(axis), 0, stop) * pace.weekday_factor(0, stop)
    observed = np.append(0.0, np.cumsum(totals))
    expected = np.append(0.0, np.cumsum(usual[:known]))
    # Little more than nothing in a city with many events, a lot in one with few.
    calm_of = 0.4 * usual + 3.0
    calm = calm_of[start:]
    steps = np.minimum(np.arange(start, stop), known)

    def lately(length: int) -> np.ndarray:
        before = np.maximum(steps - length, 0)
        return np.log(
            (observed[steps] - observed[before] + calm) / (expected[steps] - expected[before] + calm)
        )

    columns = [lately(length) for length in _city_spans(days)]
    month, year = (pace.mean(length, start, stop) for length in (month_steps(axis), axis.steps_per_year))
    columns.append(np.log((month + 1e-3 * calm) / (year + 1e-3 * calm)))
    # The season a year ago: the fortnight around the date against the weeks before it.
    ago = np.maximum(np.arange(start, stop) - axis.steps_per_year, 0)
    fortnight, before = (max(1, round(span / days)) for span in (7.0, 28.0))
    fortnight_sum = observed[np.minimum(ago + fortnight, known)] - observed[np.maximum(ago - fortnight, 0)]
    before_sum = observed[ago] - observed[np.maximum(ago - before, 0)]
    scale = before / (2 * fortnight)
    far = (ago > before) & (ago + fortnight <= known)
    columns.append(np.where(far, np.log((fortnight_sum * scale + calm) / (before_sum + calm)), 0.0))
    columns.append(axis.calendar[start:stop])
    season = 2 * np.pi * (axis.local_starts.day_of_year.to_numpy()[start:stop] - 1) / 365.25
    columns += [turn(times * season) for times in (2, 3) for turn in (np.sin, np.cos)]
    if days <= 1:
        local = axis.local_starts[:stop]
        month_of, day, weekday = (getattr(local, name).to_numpy() for name in ("month", "day", "day_of_week"))
        last = local.days_in_month.to_numpy() - day
        for key in (
            month_of * 100 + day,
            month_of * 100 + (day - 1) // 7 * 10 + weekday,
            month_of * 100 + last // 7 * 10 + weekday,
            day,
        ):
            columns.append(_past_of(key, totals, usual, calm_of)[start:])
        columns += [day[start:] == 1, last[start:] == 0]
        columns += [weekday[start:] == number for number in range(7)]
    return np.column_stack(columns).astype(np.float32)


def _city_spans(days: float) -> list[int]:
    """Return how many steps of this many days the city's last events are counted over."""
    return sorted({max(1, round(span / days)) for span in (0.125, 0.5, 1.0, 2.0, 3.0, 7.0, 14.0, 28.0)})


def recent_city_features(axis: TimeAxis) -> int:
    """Return how many of the first of :func:`city_features` tell how the city went of late."""
    return len(_city_spans(axis.hours / 24)) + 1


def _past_of(key: np.ndarray, totals: np.ndarray, usual: np.ndarray, calm: np.ndarray) -> np.ndarray:
    """Return what earlier steps with the same key brought, as the log of observed over expected events."""
    known = np.arange(len(key)) < len(totals)
    table = pd.DataFrame(
        {
            "key": key,
            "observed": np.where(known, np.append(totals, np.zeros(len(key)))[: len(key)], 0.0),
            "expected": np.where(known, usual, 0.0),
        }
    )
    sums = table.groupby("key").cumsum() - table[["observed", "expected"]]
    return np.log((sums["observed"].to_numpy() + calm) / (sums["expected"].to_numpy() + calm))
