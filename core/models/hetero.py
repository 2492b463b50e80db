# SPDX-License-Identifier: GPL-2.0-or-later
"""Ensembles of networks for parts of a city, each of which follows rules of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cube import Cube
from ..reporter import Reporter
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState
from .convlstm import ConvLSTMForecaster, ConvLSTMSettings
from .ensemble import WindowEnsemble, WindowSettings
from .gridcast import GridcastForecaster, GridcastSettings, dispersion


@dataclass(frozen=True, kw_only=True)
class HeteroSettings(WindowSettings, ConvLSTMSettings):
    """Settings of :class:`HeteroForecaster`: those of its members and the windows."""


class HeteroForecaster(WindowEnsemble):
    """Mean of ConvLSTMs that were each trained on a window of the grid (Ahrens & de Wolff 2023)."""

    key = "hetero"
    title = "Hetero-ConvLSTM ensemble"
    Member = ConvLSTMForecaster
    Settings = HeteroSettings
    settings: HeteroSettings
    search = {**ConvLSTMForecaster.search, "weights": "equal, learned"}


@dataclass(frozen=True, kw_only=True)
class HeteroGridcastSettings(WindowSettings, GridcastSettings):
    """Settings of :class:`HeteroGridcastForecaster`: those of its members and the windows."""


class HeteroGridcastForecaster(WindowEnsemble):
    """Mean of Gridcast networks that were each trained on a window of the grid.

    Each member is held back by what simple methods know of its own window, so that none is worse there than
    the best of them on validation.

    Attributes
    ----------
    dispersion_ : float
        α of the variance μ + α μ² of a count with the mean μ, from the validation steps.
    """

    key = "hetero_gridcast"
    title = "Hetero ensemble of Gridcast networks"
    Member = GridcastForecaster
    Settings = HeteroGridcastSettings
    settings: HeteroGridcastSettings
    search = {**GridcastForecaster.search, "weights": "equal, learned"}

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> HeteroGridcastForecaster:
        super().fit(cube, split, reporter, checkpoint=checkpoint, start=start)
        period, valid = slice(split.validation_start, split.validation_stop), cube.grid.valid
        rates = self.predict_next(cube, period.start, period.stop)[:, valid]
        self.dispersion_ = dispersion(cube.total[period][:, valid], rates)
        return self

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        # Members walk on their own forecasts: each knows how, and reads years of its window for it.
        self.check_origin(cube, origin, horizon)
        return self._mean(
            cube, horizon, lambda member, part: member.forecast(part, origin, horizon), reporter
        )

    def state(self) -> ModelState:
        state = super().state()
        state.values["dispersion"] = self.dispersion_
        return state

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> HeteroGridcastForecaster:
        model = super().restore(settings, state)
        assert isinstance(model, cls)
        model.dispersion_ = state.values["dispersion"]
        return model
