# SPDX-License-Identifier: GPL-2.0-or-later
"""Simple methods that every network has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cube import Cube
from ..features import historical_average, weekday_average
from ..reporter import Reporter
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState


@dataclass(frozen=True)
class NoSettings:
    """A baseline has nothing to set."""


class _Average(Forecaster):
    """A baseline that is an average over past counts and learns nothing."""

    Settings = NoSettings

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

    def _average(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError

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
