# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract that every forecasting model follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..reporter import Reporter
from ..training.channels import Scaling
from ..training.checkpoints import Checkpoint
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
    #: What a forecast says of a cell and step: expected "events", the "probability" of at least one
    #: event, or the probability that the cell is "hot".
    quantity: ClassVar[str] = "events"
    Settings: ClassVar[type]
    #: What a search for better settings tries unless it is told otherwise: the name of a setting and its
    #: range, written as :mod:`..training.ranges` reads it. The default lies within.
    search: ClassVar[Mapping[str, str]] = {}
    #: Cluster for a training that falls into parts (see :func:`~..executors.executor`). It is no setting: it
    #: says where a model is trained, not what it is.
    scheduler: str | None = None

    def __init__(self, **settings: Any) -> None:
        self.settings = self.Settings(**settings)

    #: α of the variance μ + α μ² of a count with the mean μ; 0, that of Poisson, unless it was measured.
    dispersion_ = 0.0

    @property
    @abstractmethod
    def history(self) -> int:
        """Steps that :meth:`predict_next` needs before its first step."""

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return 0

    @abstractmethod
    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> Forecaster:
        """Learn from the training steps of `split` and return self.

        Parameters
        ----------
        checkpoint : Checkpoint, optional
            Where the state of the training is kept, and from where it goes on if it was broken off.
        start : Forecaster, optional
            Fitted model of this kind and form to start from instead of random weights.
        """

    @property
    def finishes(self) -> int:
        """How many further trainings :meth:`finish` is."""
        return 0

    def finish(  # noqa: B027 - most models do nothing
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> None:
        """Learn from the validation steps of `split` too, once these have judged the fitted model.

        Scores on them tell of the model only before. Parameters are those of :meth:`fit`.
        """

    @abstractmethod
    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Forecast each of the steps `start` … `stop - 1` from the steps before it.

        `stop` may be ``len(cube) + 1``: the step after the cube's end.

        Returns
        -------
        numpy.ndarray
            float32 `(stop - start, y, x)`, see :attr:`quantity`; NaN outside the study area.
        """

    def expected_events(self, prediction: np.ndarray) -> np.ndarray:
        """Return the expected events that a prediction stands for, of the same shape.

        A probability p of at least one event is that of a Poisson count with the mean -log(1 - p).
        """
        if self.quantity == "probability":
            return -np.log1p(-np.minimum(prediction, np.float32(0.9999)))
        return prediction

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
        result = np.full((horizon, *cube.grid.shape), np.nan, np.float32)
        for ahead, (_, prediction) in enumerate(self._walk(cube, origin, horizon)):
            result[ahead] = prediction
            if reporter:
                reporter.progress((ahead + 1) / horizon)
        return result

    def probability(self, prediction: np.ndarray) -> np.ndarray:
        """Return the probability of :meth:`outcome` that a prediction stands for, of the same shape."""
        if self.quantity != "events":
            return prediction
        if self.dispersion_ < 1e-6:
            return -np.expm1(-prediction)
        return -np.expm1(-np.log1p(self.dispersion_ * prediction) / self.dispersion_)

    def outcome(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Return what probabilities are of, for these steps: bool `(stop - start, y, x)`, here: an event."""
        return cube.total[start:stop] > 0

    def hot_rule(self) -> dict[str, Any]:
        """Return what a classifier calls hot: ``rule``, ``value`` and ``threshold``; else nothing."""
        return {}

    def batch_bytes(self, cube: Cube) -> int:
        """Return roughly how much memory the training needs for one batch."""
        return 0

    @property
    def type_names(self) -> tuple[str, ...]:
        """Types of event whose shares the model forecasts."""
        return ()

    def predict_types(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Forecast, as :meth:`predict_next`, which type an event has that happens in a cell.

        Returns
        -------
        numpy.ndarray
            float32 `(stop - start, type, y, x)`, shares that sum to 1; NaN outside the study area.
        """
        raise NotImplementedError(f"{self.title} does not forecast types")

    def forecast_types(self, cube: Cube, origin: int, horizon: int) -> np.ndarray:
        """Forecast the types of the `horizon` steps from `origin` on: float32 `(horizon, type, y, x)`."""
        steps = [
            self.predict_types(known, len(known), len(known) + 1)
            for known, _ in self._walk(cube, origin, horizon)
        ]
        return np.concatenate(steps)

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a forecast is made up of, as far as the model can tell."""
        return ()

    def forecast_parts(self, cube: Cube, origin: int, horizon: int) -> np.ndarray:
        """Take the forecast of :meth:`forecast` apart.

        Returns
        -------
        numpy.ndarray
            float32 `(horizon, part, y, x)`: a rate and factors, whose product is the forecast; NaN outside
            the study area.
        """
        raise NotImplementedError(f"{self.title} cannot say what its forecast is made up of")

    def _walk(self, cube: Cube, origin: int, horizon: int) -> Iterator[tuple[Cube, np.ndarray]]:
        """Yield for each of `horizon` steps the cube as known on its eve and the forecast `(y, x)`."""
        self.check_origin(cube, origin, horizon)
        # The past that a forecast reads: its own history and the year behind the averages.
        first = max(0, origin - self.history - cube.axis.steps_per_year - 1)
        longer = cube.steps(first, origin).continued(horizon)
        for at in range(origin - first, origin - first + horizon):
            known = longer.steps(0, at)
            prediction = self.predict_next(known, at, at + 1)[0]
            yield known, prediction
            longer.events[at, 0] = np.nan_to_num(self.expected_events(prediction))

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

    def check_origin(self, cube: Cube, origin: int, horizon: int) -> None:
        """Raise :class:`InputError` unless `horizon` steps can be forecast from `origin` on."""
        self.check_history(cube, origin)
        if horizon < 1:
            raise InputError("The horizon must be at least one step.", parameter="HORIZON", value=horizon)


class NetworkForecaster(Forecaster):
    """A forecaster that is one Keras network.

    Attributes
    ----------
    network_ : keras.Model
        None until the model is fitted or restored.
    scaling_ : Scaling, optional
        How the network's inputs are scaled.
    history_ : dict
        Losses by epoch, see :func:`~..training.fit.fit_network`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.network_: Any = None
        self.scaling_: Scaling | None = None
        self.history_: dict[str, list[float]] = {}

    @property
    def history(self) -> int:
        lookback: int = self.settings.lookback
        return lookback

    @property
    def parameter_count(self) -> int:
        return 0 if self.network_ is None else int(self.network_.count_params())
