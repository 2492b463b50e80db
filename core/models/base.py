# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract that every forecasting model follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..reporter import Reporter
from ..training.splits import Split


@dataclass
class ModelState:
    """Everything a fitted model needs to be saved: plain values, arrays, Keras networks."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)


class Forecaster(ABC):
    """Forecasts the expected number of events per cell and step.

    The constructor only stores its settings; :meth:`fit` learns and returns
    `self`. A forecast for a step never looks at that step or a later one.

    Attributes
    ----------
    key : str
        Name in the registry and in model files.
    settings : dataclass
        The arguments of the constructor.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    Settings: ClassVar[type]

    def __init__(self, **settings: Any) -> None:
        self.settings = self.Settings(**settings)

    @property
    @abstractmethod
    def history(self) -> int:
        """Steps that :meth:`predict_next` needs before its first step."""

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return 0

    @abstractmethod
    def fit(self, cube: Cube, split: Split, reporter: Reporter) -> Forecaster:
        """Learn from the training steps of `split` and return self."""

    @abstractmethod
    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Forecast each of the steps `start` … `stop - 1` from the steps before it.

        `stop` may be ``len(cube) + 1``: the step after the cube's end.

        Returns
        -------
        numpy.ndarray
            float32 `(stop - start, y, x)`, expected events, NaN outside the study area.
        """

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        """Forecast the `horizon` steps from `origin` on, knowing steps before `origin` only.

        Later steps are reached one by one: the expected counts of a step stand
        in for what will happen there (Poisson means are what an average over the
        unknown outcomes would give to first order).

        Returns
        -------
        numpy.ndarray
            float32 `(horizon, y, x)`, NaN outside the study area.
        """
        reporter = reporter or Reporter()
        self.check_history(cube, origin)
        if horizon < 1:
            raise InputError("The horizon must be at least one step.", parameter="HORIZON", value=horizon)
        # The past that a forecast reads: its own history and the year behind the averages.
        first = max(0, origin - self.history - cube.axis.steps_per_year - 1)
        known = cube.steps(first, origin)
        axis = known.axis.extended(horizon)
        counts = np.zeros((len(axis), *cube.grid.shape), np.float32)
        counts[: len(known)] = known.total
        result = np.full((horizon, *cube.grid.shape), np.nan, np.float32)
        for ahead in range(horizon):
            at = len(known) + ahead
            so_far = Cube(cube.grid, axis.slice(0, at), ("events",), counts[:at, None])
            result[ahead] = self.predict_next(so_far, at, at + 1)[0]
            counts[at] = np.nan_to_num(result[ahead])
            reporter.progress((ahead + 1) / horizon)
        return result

    @abstractmethod
    def state(self) -> ModelState:
        """Return what :meth:`restore` needs to build the model again."""

    @classmethod
    @abstractmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> Forecaster:
        """Build a fitted model from its saved settings and state."""

    def settings_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for the model file."""
        return asdict(self.settings)

    def check_history(self, cube: Cube, start: int) -> None:
        """Raise :class:`InputError` unless the cube has the history for a forecast of step `start`."""
        if start < self.history:
            raise InputError(
                f"The cube has {start} steps before the forecast, the model looks back {self.history}.",
                hint="Use a cube with a longer history, or a model with a shorter lookback.",
                parameter="LOOKBACK",
                value=self.history,
            )
