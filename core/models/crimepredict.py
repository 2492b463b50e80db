# SPDX-License-Identifier: GPL-2.0-or-later
"""CrimePredict: three networks for the same hot spots - 3D CNN, LSTM per cell, CNN and RNN together.

The seed gives no layer sizes; these are ours.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..errors import InputError
from ..reporter import Reporter
from ..training.checkpoints import Checkpoint
from ..training.fit import Batches, fit_network
from .classifier import ClassifierSettings, HotspotClassifier, Inputs, Samples
from .layers import ConvLSTM2D, normalization
from .spatiolstm import UNROLL_MOST, CellClassifier, CellWindows, start_at, weighted_log_loss

_PREDICT_BATCH = 8

# A class weight beyond this makes single events drown everything else.
_MOST_WEIGHT = 100.0


@dataclass(frozen=True, kw_only=True)
class CrimePredictSettings(ClassifierSettings):
    """Settings that the three networks share.

    Attributes
    ----------
    covariates : tuple of str
        Covariates of the cube that are seen besides the counts, such as those of a census. What is not
        known is taken as the mean of the training steps.
    event_weight : {"none", "auto"} or number
        How many times a hot sample counts in the loss; auto: cold over hot samples, at most 100. The
        probabilities are corrected for it.
    """

    candidates: str = "all_cells"
    covariates: tuple[str, ...] = ()
    event_weight: str | float = "none"

    def __post_init__(self) -> None:
        # A model file holds a list.
        object.__setattr__(self, "covariates", tuple(self.covariates))
        super().__post_init__()
        weight = self._event_weight(1.0, 1.0)
        if not 0 < weight < np.inf:
            raise self._no_weight()
        if self.event_weight != "none" and self.balance == "weights":
            raise InputError(
                "BALANCE weights decides the weight of hot samples already.",
                hint="Choose BALANCE none or undersample, or EVENT_WEIGHT none.",
                parameter="EVENT_WEIGHT",
                value=self.event_weight,
            )

    def _no_weight(self) -> InputError:
        return InputError(
            "This is no weight.",
            hint="Choose none, auto or a number above 0.",
            parameter="EVENT_WEIGHT",
            value=self.event_weight,
        )

    def _event_weight(self, hot: float, cold: float) -> float:
        if self.event_weight == "none":
            return 1.0
        if self.event_weight == "auto":
            return min(cold / hot, _MOST_WEIGHT) if hot and cold else 1.0
        try:
            return float(self.event_weight)
        except ValueError as error:
            raise self._no_weight() from error

    def class_weights(self, hot: float, cold: float) -> tuple[float, float]:
        if self.event_weight == "none":
            return super().class_weights(hot, cold)
        return 1.0, self._event_weight(hot, cold)


@dataclass(frozen=True, kw_only=True)
class FrameSettings(CrimePredictSettings):
    """Settings of the networks that see the whole grid at once.

    Attributes
    ----------
    filters : int
        Filters of the first convolution; those of the others are in proportion.
    """

    filters: int = 16
    epochs: int = 30
    batch_size: int = 4
    patience: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least("filters")


@dataclass(frozen=True, kw_only=True)
class CellLSTMSettings(CrimePredictSettings):
    """Settings of :class:`CellLSTM`.

    Attributes
    ----------
    units, dense : int
        Width of the LSTM and of the layer after it.
    """

    units: int = 64
    dense: int = 32
    epochs: int = 30
    batch_size: int = 256
    patience: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least("units", "dense")


class Frames:
    """What a network sees of whole grids: counts and covariates as channels, 0 outside the study area."""

    def __init__(self, inputs: Inputs) -> None:
        valid = inputs.cube.grid.valid
        shape = inputs.counts.shape
        self._channels = [inputs.counts * valid]
        for name, values in inputs.covariates.items():
            dimensions = inputs.cube.covariates[name].dimensions
            if dimensions[-1] == "x":
                values = values * valid
            if dimensions == ("time",):
                values = values[:, None, None]
            self._channels.append(np.broadcast_to(values, shape))
        self._shape = shape[1:]

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self._channels)

    def window(self, targets: np.ndarray, lookback: int) -> np.ndarray:
        """Return the `lookback` steps before each target: float32 `(n, lookback, y, x, channels)`."""
        result = np.empty((len(targets), lookback, *self._shape, self.count), np.float32)
        for number, target in enumerate(targets):
            for channel, values in enumerate(self._channels):
                result[number, ..., channel] = values[target - lookback : target]
        return result


class FrameBatches(Batches):
    """Batches of (window, target); the target `(n, y, x, 2)` holds label and weight of each cell."""

    def __init__(
        self,
        frames: Frames,
        labels: np.ndarray,
        weights: np.ndarray,
        lookback: int,
        batch_size: int,
        seed: int | None,
    ) -> None:
        self._targets = np.flatnonzero(weights.any(axis=(1, 2)))
        super().__init__(len(self._targets), batch_size, seed)
        self._frames = frames
        self._labels = labels
        self._weights = weights
        self._lookback = lookback

    def batch(self, chosen: np.ndarray) -> tuple[Any, Any]:
        steps = self._targets[chosen]
        target = np.stack([self._labels[steps], self._weights[steps]], axis=-1).astype(np.float32)
        return self._frames.window(steps, self._lookback), target


class FrameClassifier(HotspotClassifier):
    """A classifier that looks at the whole grid."""

    Settings = FrameSettings
    settings: FrameSettings
    search = {
        "lookback": "3..12",
        "filters": "4..32 log",
        "batch_size": "2, 4, 8",
        "learning_rate": "0.0003..0.01 log",
    }

    @property
    def covariates(self) -> tuple[str, ...]:
        return self.settings.covariates

    @abstractmethod
    def _build(self, shape: tuple[int, int, int, int]) -> keras.Model:
        """Build the network for windows of this shape; its output layer is named so."""

    def _learn(
        self,
        inputs: Inputs,
        samples: Samples,
        reporter: Reporter,
        checkpoint: Checkpoint | None,
        start: HotspotClassifier | None,
    ) -> dict[str, list[float]]:
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        frames = Frames(inputs)
        self.network_ = self._build((settings.lookback, *inputs.cube.grid.shape, frames.count))
        if start is None:
            start_at(self.network_, samples.hot_share)
        else:
            self.network_.set_weights(start.network_.get_weights())
        size = settings.batch_size
        labels, lookback = samples.labels, settings.lookback
        return fit_network(
            self.network_,
            weighted_log_loss,
            FrameBatches(frames, labels, samples.train, lookback, size, settings.seed),
            FrameBatches(frames, labels, samples.validation, lookback, size, None),
            settings.fit_options(),
            reporter,
            checkpoint=checkpoint,
        )

    def _output(self, inputs: Inputs, steps: np.ndarray) -> np.ndarray:
        frames = Frames(inputs)
        result = np.empty((len(steps), *inputs.cube.grid.shape), np.float32)
        for first in range(0, len(steps), _PREDICT_BATCH):
            part = slice(first, first + _PREDICT_BATCH)
            window = frames.window(steps[part], self.settings.lookback)
            result[part] = ops.convert_to_numpy(self.network_(window, training=False))[..., 0]
        return result


def build_cnn3d(shape: tuple[int, int, int, int], filters: int = 16) -> keras.Model:
    """Build the 3D CNN for windows of this shape (steps, rows, columns, channels).

    Three times Conv3D (3 × 3 × 3, same, relu; 1, 2 and 4 times `filters`) → BatchNormalization, with the
    time, never space, halved after each until one frame is left; Conv2D 1 (sigmoid).
    """
    x = inputs = keras.Input(shape, name="history")
    for number, width in enumerate((filters, 2 * filters, 4 * filters), 1):
        x = layers.Conv3D(width, 3, padding="same", activation="relu", name=f"conv_{number}")(x)
        x = normalization(f"norm_{number}")(x)
        if x.shape[1] > 1:
            x = layers.MaxPooling3D((2, 1, 1), padding="same", name=f"pool_{number}")(x)
    if x.shape[1] > 1:
        x = layers.MaxPooling3D((x.shape[1], 1, 1), name="pool_rest")(x)
    x = layers.Reshape((*shape[1:3], x.shape[-1]), name="frame")(x)
    return keras.Model(inputs, _map_output()(x), name="cnn3d")


def build_cnn_rnn(shape: tuple[int, int, int, int], filters: int = 16) -> keras.Model:
    """Build the hybrid for windows of this shape (steps, rows, columns, channels).

    Conv2D (3 × 3, same, relu; 1 and 2 times `filters`) on each step → ConvLSTM2D (3 × 3, same; 2 times
    `filters`, last state) → Conv2D 1 (sigmoid).
    """
    x = inputs = keras.Input(shape, name="history")
    for number, width in enumerate((filters, 2 * filters), 1):
        conv = layers.Conv2D(width, 3, padding="same", activation="relu")
        x = layers.TimeDistributed(conv, name=f"conv_{number}")(x)
    x = ConvLSTM2D(2 * filters, 3, padding="same", name="memory")(x)
    return keras.Model(inputs, _map_output()(x), name="cnn_rnn")


def build_cell_lstm(shape: tuple[int, int], units: int = 64, dense: int = 32) -> keras.Model:
    """Build the LSTM for windows of this shape (steps, features): LSTM → dense (relu) → sigmoid."""
    inputs = keras.Input(shape, name="history")
    x = layers.LSTM(units, unroll=shape[0] <= UNROLL_MOST, name="memory")(inputs)
    x = layers.Dense(dense, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="output")(x), name="cell_lstm")


def _map_output() -> keras.layers.Layer:
    return layers.Conv2D(1, 1, activation="sigmoid", name="output")


class CNN3D(FrameClassifier):
    """Convolutions over time and space."""

    key = "cnn3d"
    title = "CrimePredict 3D CNN"

    def _build(self, shape: tuple[int, int, int, int]) -> keras.Model:
        return build_cnn3d(shape, self.settings.filters)


class CNNRNN(FrameClassifier):
    """Convolutions over space, whose results a ConvLSTM follows over time."""

    key = "cnn_rnn"
    title = "CrimePredict CNN + RNN"

    def _build(self, shape: tuple[int, int, int, int]) -> keras.Model:
        return build_cnn_rnn(shape, self.settings.filters)


class CellLSTM(CellClassifier):
    """An LSTM that follows each cell and its eight neighbours, with the same weights everywhere."""

    key = "cell_lstm"
    title = "CrimePredict LSTM"
    Settings = CellLSTMSettings
    settings: CellLSTMSettings
    search = {
        "lookback": "3..12",
        "units": "16..128 log",
        "dense": "8..64 log",
        "batch_size": "128, 256, 512",
        "learning_rate": "0.0003..0.01 log",
    }

    @property
    def covariates(self) -> tuple[str, ...]:
        return self.settings.covariates

    def windows(self, inputs: Inputs) -> CellWindows:
        return CellWindows(inputs, self.settings.lookback, 3, False)

    def _build(self, shape: tuple[int, int]) -> keras.Model:
        return build_cell_lstm(shape, self.settings.units, self.settings.dense)
