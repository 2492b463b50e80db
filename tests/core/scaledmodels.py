# SPDX-License-Identifier: GPL-2.0-or-later
"""Models that take no time, for tests of the search for settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.features import historical_average
from gridcast_qgis.core.models import registry
from gridcast_qgis.core.models.base import Forecaster, ModelState


@dataclass(frozen=True)
class ScaledSettings:
    """Settings of :class:`Scaled`."""

    lookback: int = 4
    factor: float = 2.0
    cells: str = "all"
    level: int = 0
    epochs: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise InputError("The factor must be above 0.", parameter="FACTOR", value=self.factor)


class Scaled(Forecaster):
    """The historical average times a factor: the nearer that is to 1, the better.

    It tells its reporter of losses as a network does, and keeps what it was given to learn from.
    """

    key = "scaled"
    title = "Scaled average"
    Settings = ScaledSettings
    settings: ScaledSettings
    search = {"factor": "0.25..4 log"}
    #: Steps of the cube, and split, of each training.
    seen: list[tuple] = []

    @property
    def history(self) -> int:
        return self.settings.lookback

    def fit(self, cube, split, reporter, *, checkpoint=None, start=None):
        Scaled.seen.append((len(cube), split, float(cube.total.sum())))
        if self.settings.cells == "none":
            raise InputError("There are no cells.", hint="Choose all.", parameter="CELLS", value="none")
        for epoch in range(self.settings.epochs + 1):
            reporter.progress(epoch / self.settings.epochs)
            reporter.metric("val_loss", abs(np.log(self.settings.factor)) + 1 / (1 + epoch), epoch)
        self.history_ = {"loss": [0.0] * self.settings.epochs, "val_loss": [0.0]}
        return self

    def predict_next(self, cube, start, stop):
        result = historical_average(cube.total, cube.axis, start, stop) * np.float32(self.settings.factor)
        result[:, ~cube.grid.valid] = np.nan
        return result

    def state(self):
        return ModelState({"level": self.settings.level})

    @classmethod
    def restore(cls, settings, state):
        return cls(**settings)


class ScaledProbability(Scaled):
    """The same as a probability."""

    key = "probability"
    quantity = "probability"

    def predict_next(self, cube, start, stop):
        return -np.expm1(-super().predict_next(cube, start, stop))


class ScaledHot(Scaled):
    """The same as a classifier: hot is a cell with two events."""

    key = "hot"
    quantity = "hot"

    def outcome(self, cube, start, stop):
        return cube.total[start:stop] >= 2

    def predict_next(self, cube, start, stop):
        return np.clip(super().predict_next(cube, start, stop), 0, 1)


def register(set_item=lambda mapping, key, value: mapping.update({key: value})) -> None:
    """Put the models of this file into the registry."""
    module = ModuleType("scaled")
    for kind in (Scaled, ScaledProbability, ScaledHot):
        setattr(module, kind.__name__, kind)
        set_item(registry._MODELS, kind.key, ("scaled", kind.__name__))
    set_item(sys.modules, "gridcast_qgis.core.models.scaled", module)
    Scaled.seen = []
