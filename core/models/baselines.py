# SPDX-License-Identifier: GPL-2.0-or-later
"""Simple methods that every network has to beat: averages of each cell over time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..features import CityPace, city_totals, decayed_mean, historical_average, season_ago, weekday_average
from ..grid import Grid
from ..reporter import Reporter
from ..timesteps import TimeAxis
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState


@dataclass(frozen=True)
class NoSettings:
    """A baseline has nothing to set."""


class _Average(Forecaster):
    """A baseline that is an average over past counts and learns nothing."""

    Settings: ClassVar[type] = NoSettings

    @property
    def history(self) -> int:
        return 1

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> Forecaster:
        return self

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        result = self._average(cube, start, stop)
        result[:, ~cube.grid.valid] = np.nan
        return result

    @abstractmethod
    def _average(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Return what :meth:`predict_next` does; cells outside may hold anything."""

    def state(self) -> ModelState:
        return ModelState()

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> Forecaster:
        return cls(**settings)


class HistoricalAverage(_Average):
    """Mean of the last 365 days per cell ("HA" of Ahrens & de Wolff)."""

    key = "historical_average"
    title = "Historical average"

    def _average(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        return historical_average(cube.total, cube.axis, start, stop)


class WeekdayAverage(_Average):
    """Mean of the last 52 steps at the same place of the week per cell ("weekday HA")."""

    key = "weekday_average"
    title = "Weekday average"

    def _average(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        return weekday_average(cube.total, cube.axis, start, stop)


class HeldAverage(_Average):
    """A baseline that says the same of all steps from an origin on, but for their place of the week or year.

    Several steps are forecast at once, from what is known at the origin. Going step by step, as networks
    do, an average would take its own forecasts in: a plain mean would not change by that, and one that is
    smoothed over space would only be smoothed again and again.
    """

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        self.check_origin(cube, origin, horizon)
        known = cube.axis.slice(0, origin)
        result = self._held(cube.total[:origin], known, cube.grid, origin, origin + horizon)
        result[:, ~cube.grid.valid] = np.nan
        for ahead in range(horizon):
            if reporter:
                reporter.progress((ahead + 1) / horizon)
        return result

    def _average(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        return self._held(cube.total, cube.axis, cube.grid, start, stop)

    @abstractmethod
    def _held(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        """Return forecasts for the steps `start` to `stop - 1` from the counts before each of them.

        Steps beyond the one that follows the counts are forecast from all counts. Cells outside may hold
        anything, in counts and forecasts.

        Returns
        -------
        numpy.ndarray
            float32 `(stop - start, y, x)`.
        """


class SeasonalNaive(HeldAverage):
    """What happened in the same cell one season ago.

    The season is a week for steps up to a day: the same weekday, and hour, of the week before. For longer
    steps it is a year: the step that lies `steps_per_year` back. Where that is not known, because the step
    is more than a season ahead, it is the one another season earlier, which is what step by step
    forecasts would come to; and the historical average where the cube does not reach back so far.
    """

    key = "seasonal_naive"
    title = "Seasonal naive"

    def _held(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        source = season_ago(axis, start, stop, len(counts))
        result = counts[np.maximum(source, 0)].astype(np.float32)
        early = np.flatnonzero(source < 0)
        if len(early):
            eve = np.minimum(start + early, len(counts))
            average = historical_average(counts, axis, int(eve[0]), int(eve[-1]) + 1)
            result[early] = average[eve - eve[0]]
        return result


@dataclass(frozen=True)
class PacedSettings:
    """Settings of a map of rates that is brought to the city's pace.

    Attributes
    ----------
    level : bool
        Scale the map so that the city has as many events as in the last 28 days.
    weekday : bool
        Multiply by a factor of the place of the week, from the city's last two years.
    """

    level: bool = True
    weekday: bool = True


class PacedAverage(HeldAverage):
    """A map of rates by cell, times the level of the city and the factor of the weekday."""

    Settings = PacedSettings
    search: ClassVar[Mapping[str, str]] = {"level": "yes, no", "weekday": "yes, no"}

    def _held(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        rates = self._rates(counts, axis, grid, start, stop)
        factor = np.ones(len(rates))
        if self.settings.level or self.settings.weekday:
            pace = CityPace(city_totals(counts, grid.valid), axis)
            if self.settings.level:
                factor *= pace.level(rates[:, grid.valid].sum(axis=1), start, stop)
            if self.settings.weekday:
                factor *= pace.weekday_factor(start, stop)
        return (rates * factor[:, None, None]).astype(np.float32)

    @abstractmethod
    def _rates(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        """Return the map for each step: float64 `(stop - start, y, x)`, as :meth:`_held`."""


def check_above_zero(name: str, value: float, hint: str) -> None:
    """Raise :class:`InputError` unless a setting is a number above 0."""
    if not 0 < value < np.inf:
        raise InputError(
            "The value must be a number above 0.", hint=hint, parameter=name.upper(), value=value
        )


@dataclass(frozen=True)
class EWMASettings(PacedSettings):
    """Settings of :class:`EWMA`.

    Attributes
    ----------
    half_life_days : float
        After so many days an event counts half.
    """

    half_life_days: float = 60.0

    def __post_init__(self) -> None:
        check_above_zero("half_life_days", self.half_life_days, "60 is a good start.")


class EWMA(PacedAverage):
    """Exponentially weighted mean per cell, times the city's level and the factor of the weekday.

    The level is that of the last 28 days, the factor of the weekday (or weekday and hour) is from the last
    two years; either can be switched off. Without both the forecasts of several steps are what step by
    step forecasts would come to.
    """

    key = "ewma"
    title = "Exponentially weighted average"
    Settings = EWMASettings
    search = {"half_life_days": "7..730 log", **PacedAverage.search}

    def _rates(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        return decayed_mean(counts, self.settings.half_life_days * 24 / axis.hours, start, stop)
