# SPDX-License-Identifier: GPL-2.0-or-later
"""The ConvLSTM of Ahrens & de Wolff (2023): two parallel stacks of two ConvLSTM layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..cube import Cube
from ..errors import InputError
from ..reporter import Reporter
from ..training.fit import FitOptions, fit_network
from ..training.splits import Split
from ..training.windows import Scaling, StepInputs, WindowDataset, scaling_to_values
from .base import Forecaster, ModelState

# Bounds of the log rate: exp(8) events in one cell and step are beyond any data,
# and without a bound one wild batch would overflow the loss.
_LOG_RATE = (-16.0, 8.0)

_PREDICT_BATCH = 8


@dataclass(frozen=True)
class ConvLSTMSettings:
    """Settings of :class:`ConvLSTMForecaster`.

    Attributes
    ----------
    lookback : int
        Steps that the network sees.
    filters : int
        Filters of each ConvLSTM layer (128 in the paper).
    kernel : int
        Side of the kernel in cells, odd (3 in the authors' code, 1 in their text).
    output_form : {"poisson", "linear"}
        Poisson: the output is a log rate, trained on the Poisson deviance. Linear:
        the output is a count, trained on the squared error and clipped at 0 (paper).
    base_rate : bool
        Feed the historical average, recent weeks and calendar besides the counts,
        and let the output depart from the historical average. Off: the raw counts
        of the paper.
    epochs, batch_size, learning_rate, patience, seed
        See :class:`~..training.fit.FitOptions`.
    """

    lookback: int = 7
    filters: int = 16
    kernel: int = 3
    output_form: str = "poisson"
    base_rate: bool = True
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 0.002
    patience: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        self.fit_options()
        for name in ("lookback", "filters", "kernel"):
            value = getattr(self, name)
            if value < 1:
                raise InputError("The value must be at least 1.", parameter=name.upper(), value=value)
        if self.kernel % 2 == 0:
            raise InputError(
                "The kernel must have an odd number of cells, so that it has a middle.",
                hint="Give 1, 3 or 5.",
                parameter="KERNEL",
                value=self.kernel,
            )
        if self.output_form not in ("poisson", "linear"):
            raise InputError(
                "Unknown form of the output.",
                hint="Choose poisson or linear.",
                parameter="OUTPUT_FORM",
                value=self.output_form,
            )

    def fit_options(self) -> FitOptions:
        """Return the part that concerns training."""
        return FitOptions(self.epochs, self.batch_size, self.learning_rate, self.patience, self.seed)


def build_network(
    rows: int, columns: int, channels: int, *, lookback: int = 7, filters: int = 128, kernel: int = 3
) -> keras.Model:
    """Build the network of figure 5 of the paper.

    Input `(lookback, rows, columns, channels)`; two stacks, each ConvLSTM2D →
    BatchNormalization → ConvLSTM2D (tanh, same padding), concatenated; a 1 × 1
    convolution with linear output `(rows, columns, 1)`. With 128 filters and one
    channel it has 3,551,489 parameters for 3 × 3 kernels and 397,569 for 1 × 1.
    """
    inputs = keras.Input((lookback, rows, columns, channels), name="history")
    stacks = []
    for stack in "ab":
        x = layers.ConvLSTM2D(filters, kernel, padding="same", return_sequences=True, name=f"{stack}_1")(
            inputs
        )
        x = layers.BatchNormalization(name=f"{stack}_norm")(x)
        stacks.append(layers.ConvLSTM2D(filters, kernel, padding="same", name=f"{stack}_2")(x))
    x = layers.Concatenate(name="stacks")(stacks)
    return keras.Model(inputs, layers.Conv2D(1, 1, name="output")(x), name="convlstm")


def masked_poisson_deviance(target: Any, output: Any) -> Any:
    """Poisson deviance of the rate exp(offset + output), averaged over cells with weight 1.

    `target` is `(n, y, x, 3)`: count, weight, offset; `output` is `(n, y, x, 1)`.
    """
    count, weight, offset = target[..., 0], target[..., 1], target[..., 2]
    log_rate = ops.clip(offset + output[..., 0], *_LOG_RATE)
    # y log y, which is 0 for y = 0; a constant that makes the loss a deviance.
    constant = count * ops.log(ops.maximum(count, 1.0))
    deviance = 2.0 * (constant - count * log_rate - count + ops.exp(log_rate))
    return ops.sum(weight * deviance) / ops.maximum(ops.sum(weight), 1.0)


def masked_squared_error(target: Any, output: Any) -> Any:
    """Mean of (count - output)² over cells with weight 1; arguments as in the deviance."""
    count, weight = target[..., 0], target[..., 1]
    return ops.sum(weight * (count - output[..., 0]) ** 2) / ops.maximum(ops.sum(weight), 1.0)


def masked_squared_departure(target: Any, output: Any) -> Any:
    """Squared error of exp(offset) + output, for a linear output that departs from the base rate."""
    count, weight, offset = target[..., 0], target[..., 1], target[..., 2]
    error = count - ops.exp(offset) - output[..., 0]
    return ops.sum(weight * error**2) / ops.maximum(ops.sum(weight), 1.0)


class ConvLSTMForecaster(Forecaster):
    """Two-stack ConvLSTM over the whole grid (Ahrens & de Wolff 2023, section 3.3)."""

    key = "convlstm"
    title = "ConvLSTM"
    Settings = ConvLSTMSettings
    settings: ConvLSTMSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.network_: keras.Model | None = None
        self.scaling_: Scaling | None = None
        self.history_: dict[str, list[float]] = {}

    @property
    def history(self) -> int:
        return self.settings.lookback

    @property
    def parameter_count(self) -> int:
        return 0 if self.network_ is None else int(self.network_.count_params())

    def fit(self, cube: Cube, split: Split, reporter: Reporter) -> ConvLSTMForecaster:
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        inputs = StepInputs(cube, settings.base_rate, None, split.train_stop)
        self.scaling_ = inputs.scaling
        rows, columns = cube.grid.shape
        self.network_ = build_network(
            rows,
            columns,
            inputs.channels,
            lookback=settings.lookback,
            filters=settings.filters,
            kernel=settings.kernel,
        )
        output = self.network_.get_layer("output")
        if settings.base_rate or settings.output_form == "poisson":
            # Start exactly at the rate that the output departs from.
            output.set_weights([np.zeros_like(w) for w in output.get_weights()])
        train = np.arange(split.train_start, split.train_stop)
        validation = np.arange(split.validation_start, split.validation_stop)
        self.history_ = fit_network(
            self.network_,
            self._loss(),
            WindowDataset(inputs, train, settings.lookback, settings.batch_size, settings.seed),
            WindowDataset(inputs, validation, settings.lookback, settings.batch_size, None),
            settings.fit_options(),
            reporter,
        )
        return self

    def _loss(self) -> Any:
        if self.settings.output_form == "poisson":
            return masked_poisson_deviance
        return masked_squared_departure if self.settings.base_rate else masked_squared_error

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        assert self.network_ is not None, "fit or restore first"
        inputs = StepInputs(cube, self.settings.base_rate, self.scaling_, None)
        result = np.full((stop - start, *cube.grid.shape), np.nan, np.float32)
        for first in range(start, stop, _PREDICT_BATCH):
            targets = np.arange(first, min(first + _PREDICT_BATCH, stop))
            window = inputs.window(targets, self.settings.lookback)
            output = ops.convert_to_numpy(self.network_(window, training=False))[..., 0]
            result[targets - start] = self._rate(output, inputs.offsets(targets))
        result[:, ~cube.grid.valid] = np.nan
        return result

    def _rate(self, output: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return expected events for network outputs and offsets, both `(n, y, x)`."""
        if self.settings.output_form == "poisson":
            return np.exp(np.clip(offset + output, *_LOG_RATE))
        return np.maximum(output + np.exp(offset) if self.settings.base_rate else output, 0.0)

    def state(self) -> ModelState:
        assert self.scaling_ is not None, "fit or restore first"
        values = {"scaling": scaling_to_values(self.scaling_), "history": self.history_}
        return ModelState(values=values, networks={"network": self.network_})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> ConvLSTMForecaster:
        model = cls(**settings)
        model.scaling_ = Scaling(**state.values["scaling"])
        model.history_ = state.values["history"]
        model.network_ = state.networks["network"]
        return model
