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
from ..training.channels import FORMS, Channels, Scaling
from ..training.checkpoints import Checkpoint
from ..training.fit import fit_network
from ..training.splits import Split
from ..training.windows import DistinctHistories, Windows, tree_inputs
from .base import Forecaster, ModelState, NetworkForecaster
from .cellwise import CellwiseTwoStacks
from .layers import ConvLSTM2D, normalization
from .losses import (
    LOG_RATE,
    masked_poisson_deviance,
    masked_squared_departure,
    masked_squared_error,
    published_squared_error,
)
from .settings import NetworkSettings

_PREDICT_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class ConvLSTMSettings(NetworkSettings):
    """Settings of :class:`ConvLSTMForecaster`.

    Attributes
    ----------
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
    channels : tuple of str
        Channels besides the counts: ``severity``, ``season``, ``weekday``, names of covariates
        (Sev, Sea, and V and CC of the paper).
    channel_form : {"standard", "published"}
        See :class:`~..training.channels.Channels`.
    loss_form : {"corrected", "published"}
        Corrected: the loss looks at the cells of the study area, and the moving averages of the batch
        normalisation keep up with the network (:func:`~.layers.normalization`). Published: see
        :func:`~.losses.published_squared_error`, with Keras's momentum of 0.99; needs a linear output
        without base rate.
    """

    filters: int = 16
    kernel: int = 3
    output_form: str = "poisson"
    base_rate: bool = True
    channels: tuple[str, ...] = ()
    channel_form: str = "standard"
    loss_form: str = "corrected"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least("filters", "kernel")
        if self.kernel % 2 == 0:
            raise InputError(
                "The kernel must have an odd number of cells, so that it has a middle.",
                hint="Give 1, 3 or 5.",
                parameter="KERNEL",
                value=self.kernel,
            )
        self._check_choice("output_form", ("poisson", "linear"))
        self._check_choice("channel_form", FORMS)
        self._check_choice("loss_form", ("corrected", "published"))
        if self.loss_form == "published" and (self.base_rate or self.output_form != "linear"):
            raise InputError(
                "The published loss is a squared error of counts.",
                hint="Choose OUTPUT_FORM linear and switch BASE_RATE off, or choose LOSS_FORM corrected.",
                parameter="LOSS_FORM",
                value=self.loss_form,
            )
        # A model file holds a list.
        object.__setattr__(self, "channels", tuple(self.channels))


def build_network(
    rows: int,
    columns: int,
    channels: int,
    *,
    lookback: int = 7,
    filters: int = 128,
    kernel: int = 3,
    norm_momentum: float = 0.9,
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
        x = ConvLSTM2D(filters, kernel, padding="same", return_sequences=True, name=f"{stack}_1")(inputs)
        x = normalization(f"{stack}_norm", norm_momentum)(x)
        stacks.append(ConvLSTM2D(filters, kernel, padding="same", name=f"{stack}_2")(x))
    x = layers.Concatenate(name="stacks")(stacks)
    return keras.Model(inputs, layers.Conv2D(1, 1, name="output")(x), name="convlstm")


class ConvLSTMForecaster(NetworkForecaster):
    """Two-stack ConvLSTM over the whole grid (Ahrens & de Wolff 2023, section 3.3)."""

    key = "convlstm"
    title = "ConvLSTM"
    Settings = ConvLSTMSettings
    settings: ConvLSTMSettings
    search = {
        "lookback": "3..14",
        "filters": "4..32 log",
        "kernel": "1, 3, 5",
        "batch_size": "4, 8, 16",
        "learning_rate": "0.0003..0.01 log",
    }

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> ConvLSTMForecaster:
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        assert start is None or isinstance(start, ConvLSTMForecaster)
        channels = self._channels(cube, start.scaling_ if start else None, split.train_stop)
        self.scaling_ = channels.scaling
        self.network_ = build_network(
            *cube.grid.shape,
            channels.count,
            lookback=settings.lookback,
            filters=settings.filters,
            kernel=settings.kernel,
            norm_momentum=0.99 if settings.loss_form == "published" else 0.9,
        )
        if start is not None:
            self.network_.set_weights(start.network_.get_weights())
        elif settings.base_rate or settings.output_form == "poisson":
            # Start exactly at the rate that the output departs from.
            output = self.network_.get_layer("output")
            output.set_weights([np.zeros_like(w) for w in output.get_weights()])
        batches = DistinctHistories if self._cellwise else Windows
        train = np.arange(split.train_start, split.train_stop)
        validation = np.arange(split.validation_start, split.validation_stop)
        self.history_ = fit_network(
            self.network_,
            self._loss(),
            batches(channels, train, settings.lookback, settings.batch_size, settings.seed),
            batches(channels, validation, settings.lookback, settings.batch_size, None),
            settings.fit_options(),
            reporter,
            trainer=self._trainer(),
            checkpoint=checkpoint,
        )
        return self

    def batch_bytes(self, cube: Cube) -> int:
        settings = self.settings
        cells = int(np.prod(cube.grid.shape)) * settings.lookback * settings.batch_size
        # Numbers per cell and step that training keeps: four gates, their activations, state and memory
        # of four layers, the normalised states, and the gradient of what is being worked on.
        return 4 * cells * 100 * settings.filters

    def _channels(self, cube: Cube, scaling: Scaling | None, train_stop: int | None) -> Channels:
        return Channels(
            cube,
            self.settings.channels,
            anchored=self.settings.base_rate,
            form=self.settings.channel_form,
            scaling=scaling,
            train_stop=train_stop,
        )

    @property
    def _cellwise(self) -> bool:
        """Whether cells with the same past can be taken together."""
        # JAX compiles anew for each number of distinct histories, which takes longer than it saves.
        return self.settings.kernel == 1 and keras.backend.backend() != "jax"

    def _trainer(self) -> keras.Model | None:
        """Return a model that takes distinct histories and has the weights of the network."""
        if not self._cellwise:
            return None
        shared = CellwiseTwoStacks(self.network_)
        inputs = shared.inputs()
        return keras.Model(inputs, shared(inputs))

    def _loss(self) -> Any:
        if self.settings.output_form == "poisson":
            return masked_poisson_deviance
        if self.settings.loss_form == "published":
            return published_squared_error
        return masked_squared_departure if self.settings.base_rate else masked_squared_error

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        assert self.network_ is not None, "fit or restore first"
        channels = self._channels(cube, self.scaling_, None)
        network = self._trainer() or self.network_
        result = np.full((stop - start, *cube.grid.shape), np.nan, np.float32)
        for first in range(start, stop, _PREDICT_BATCH):
            targets = np.arange(first, min(first + _PREDICT_BATCH, stop))
            window = channels.window(targets, self.settings.lookback)
            inputs = tree_inputs(window) if self._cellwise else window
            output = ops.convert_to_numpy(network(inputs, training=False))[..., 0]
            result[targets - start] = self._rate(output, channels.offsets(targets))
        result[:, ~cube.grid.valid] = np.nan
        return result

    def _rate(self, output: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return expected events for network outputs and offsets, both `(n, y, x)`."""
        if self.settings.output_form == "poisson":
            return np.exp(np.clip(offset + output, *LOG_RATE))
        return np.maximum(output + np.exp(offset) if self.settings.base_rate else output, 0.0)

    def state(self) -> ModelState:
        assert self.scaling_ is not None, "fit or restore first"
        values = {"scaling": self.scaling_.as_values(), "history": self.history_}
        return ModelState(values=values, networks={"network": self.network_})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> ConvLSTMForecaster:
        model = cls(**settings)
        model.scaling_ = Scaling(**state.values["scaling"])
        model.history_ = state.values["history"]
        model.network_ = state.networks["network"]
        return model
