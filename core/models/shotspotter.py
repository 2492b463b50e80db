# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of the ShotSpotter report (Lau & Song): where will there be at least one event?

Conv3D, bidirectional ConvLSTM and pooling over time, after Holm & Plynning (2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..cube import Cube
from ..errors import InputError
from ..reporter import Reporter
from ..training import calibration
from ..training.calibration import Calibration
from ..training.channels import FORMS, Channels, Scaling
from ..training.checkpoints import Checkpoint
from ..training.fit import fit_network
from ..training.splits import Split
from ..training.windows import Windows
from .base import Forecaster, ModelState, NetworkForecaster
from .layers import ConvLSTM2D, normalization
from .losses import weighted_cross_entropy
from .settings import NetworkSettings

#: Largest weight that ``auto`` gives to a cell with an event.
MOST_WEIGHT = 100.0

_PREDICT_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class ShotSpotterSettings(NetworkSettings):
    """Settings of :class:`ShotSpotterForecaster`; the defaults are those of the report.

    Attributes
    ----------
    width : float
        Factor on the number of filters of all layers.
    peephole : bool
        Gates that see the memory, as in the report's equations; otherwise the Keras cell.
    event_weight : float
        How often a cell with an event counts in the loss; 0: as often as cells without one outnumber it,
        at most 100 times (the report names 100 and 10).
    calibrate : {"platt", "isotonic", "none"}
        How the probabilities, which the weight has made too large, are corrected on the validation steps
        (:class:`~..training.calibration.Calibration`). None: as published.
    type_head : bool
        Also learn which type an event has.
    channels, channel_form
        See :class:`~..training.channels.Channels`.
    """

    width: float = 1.0
    peephole: bool = False
    event_weight: float = 0.0
    calibrate: str = "platt"
    type_head: bool = False
    channels: tuple[str, ...] = ()
    channel_form: str = "standard"
    epochs: int = 100
    batch_size: int = 20
    learning_rate: float = 0.001
    patience: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.width <= 64:
            raise InputError(
                "The width must lie above 0 and at most at 64.",
                hint="1 is the network of the report, 0.5 has half as many filters.",
                parameter="WIDTH",
                value=self.width,
            )
        if not 0 <= self.event_weight <= 1e6:
            raise InputError(
                "The weight of events must not be negative.",
                hint="Give 0 for an automatic weight, or a number such as 10.",
                parameter="EVENT_WEIGHT",
                value=self.event_weight,
            )
        self._check_choice("calibrate", calibration.FORMS)
        self._check_choice("channel_form", FORMS)
        object.__setattr__(self, "channels", tuple(self.channels))


def build_network(
    rows: int,
    columns: int,
    channels: int,
    *,
    lookback: int = 7,
    width: float = 1.0,
    peephole: bool = False,
    types: int = 0,
) -> keras.Model:
    """Build the network of section V of the report.

    Input `(lookback, rows, columns, channels)`. BatchNormalization; Conv3D 8 (1 × 5 × 5) and 8 (3 × 3 × 3);
    BatchNormalization; bidirectional ConvLSTM2D 16; BatchNormalization; MaxPooling3D over time;
    bidirectional ConvLSTM2D 32; BatchNormalization; MaxPooling3D over time until one frame is left;
    Conv3D 8 (1 × 3 × 3); Conv3D 1 (1 × 1 × 1, sigmoid). Space is never pooled: 7 or 8 frames become 4,
    2, 1. Output `(rows, columns, 1)`, and with `types` behind it the shares of the types (softmax).
    """

    def filters(count: int) -> int:
        return max(1, round(count * width))

    def both_ways(count: int, name: str) -> layers.Layer:
        return layers.Bidirectional(
            ConvLSTM2D(filters(count), 3, padding="same", return_sequences=True, peephole=peephole),
            name=name,
        )

    def halved(x: Any, number: int) -> Any:
        return layers.MaxPooling3D((2, 1, 1), padding="same", name=f"pool_{number}")(x)

    inputs = keras.Input((lookback, rows, columns, channels), name="frames")
    x = normalization("norm_0")(inputs)
    x = layers.Conv3D(filters(8), (1, 5, 5), padding="same", activation="relu", name="conv_1")(x)
    x = layers.Conv3D(filters(8), (3, 3, 3), padding="same", activation="relu", name="conv_2")(x)
    x = normalization("norm_1")(x)
    x = normalization("norm_2")(both_ways(16, "recurrent_1")(x))
    x = halved(x, 1)
    x = normalization("norm_3")(both_ways(32, "recurrent_2")(x))
    for number in range(2, max(2, math.ceil(math.log2(lookback))) + 1):
        x = halved(x, number)
    x = layers.Conv3D(filters(8), (1, 3, 3), padding="same", activation="relu", name="conv_3")(x)
    heads = [layers.Conv3D(1, 1, activation="sigmoid", name="event")(x)]
    if types:
        heads.append(layers.Conv3D(types, 1, activation="softmax", name="types")(x))
    x = layers.Concatenate(name="heads")(heads) if types else heads[0]
    return keras.Model(inputs, layers.Reshape((rows, columns, 1 + types), name="map")(x), name="shotspotter")


class _TypedWindows(Windows):
    """Windows whose targets also hold the events of each type."""

    def __init__(self, channels: Channels, types: list[int], *arguments: Any) -> None:
        super().__init__(channels, *arguments)
        self._types = types

    def target(self, targets: np.ndarray) -> np.ndarray:
        plain = super().target(targets)
        if not self._types:
            return plain
        events = np.moveaxis(self._channels.cube.events[targets][:, self._types], 1, -1)
        return np.concatenate([plain, events], axis=-1)


class ShotSpotterForecaster(NetworkForecaster):
    """Probability of at least one event per cell and step, and of its type (Lau & Song, section V)."""

    key = "shotspotter"
    title = "ShotSpotter ConvLSTM"
    quantity = "probability"
    Settings = ShotSpotterSettings
    settings: ShotSpotterSettings
    search = {
        "lookback": "3..14",
        "width": "0.25..2 log",
        "batch_size": "10, 20, 40",
        "learning_rate": "0.0003..0.01 log",
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calibration_ = Calibration.none()
        self.types_: tuple[str, ...] = ()
        self.event_weight_ = 1.0

    @property
    def type_names(self) -> tuple[str, ...]:
        return self.types_

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> ShotSpotterForecaster:
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        assert start is None or isinstance(start, ShotSpotterForecaster)
        channels = self._channels(cube, start.scaling_ if start else None, split.train_stop)
        self.scaling_ = channels.scaling
        self.types_ = _types(cube) if settings.type_head else ()
        self.network_ = build_network(
            *cube.grid.shape,
            channels.count,
            lookback=settings.lookback,
            width=settings.width,
            peephole=settings.peephole,
            types=len(self.types_),
        )
        train = np.arange(split.train_start, split.train_stop)
        validation = np.arange(split.validation_start, split.validation_stop)
        self.event_weight_ = settings.event_weight or _automatic_weight(cube, train)
        if start is None:
            self._begin_at_shares(cube, train)
        else:
            self.network_.set_weights(start.network_.get_weights())
        own = [cube.types.index(name) for name in self.types_]
        self.history_ = fit_network(
            self.network_,
            weighted_cross_entropy(self.event_weight_),
            _TypedWindows(channels, own, train, settings.lookback, settings.batch_size, settings.seed),
            _TypedWindows(channels, own, validation, settings.lookback, settings.batch_size, None),
            settings.fit_options(),
            reporter,
            checkpoint=checkpoint,
        )
        self._calibrate(cube, validation, reporter)
        return self

    def batch_bytes(self, cube: Cube) -> int:
        settings = self.settings
        cells = int(np.prod(cube.grid.shape)) * settings.lookback * settings.batch_size
        # Numbers per cell and step that training keeps, mostly in the two bidirectional layers.
        return round(4 * cells * 2000 * settings.width)

    def _begin_at_shares(self, cube: Cube, train: np.ndarray) -> None:
        """Let the untrained network say what the training steps say on average, in the loss's own weights."""
        steps = slice(train[0], train[-1] + 1)
        valid = cube.grid.valid
        share = float((cube.total[steps][:, valid] > 0).mean())
        odds = max(share, 1e-6) * self.event_weight_ / max(1 - share, 1e-6)
        self.network_.get_layer("event").bias.assign([math.log(odds)])
        if self.types_:
            own = [cube.types.index(name) for name in self.types_]
            events = cube.events[steps][:, own].sum(axis=(0, 2, 3)) + 1.0
            self.network_.get_layer("types").bias.assign(np.log(events / events.sum()))

    def _calibrate(self, cube: Cube, validation: np.ndarray, reporter: Reporter) -> None:
        self.calibration_ = Calibration.none()
        if self.settings.calibrate == "none":
            return
        start, stop = int(validation[0]), int(validation[-1]) + 1
        valid = cube.grid.valid
        outputs = self._outputs(cube, start, stop)[..., 0][:, valid].ravel()
        events = cube.total[start:stop][:, valid].ravel() > 0
        self.calibration_ = Calibration.fit(self.settings.calibrate, outputs, events)
        if self.calibration_.form == "none":
            # What the weight does to the odds in theory can still be taken back.
            self.calibration_ = Calibration(
                "platt", np.array([1.0, -math.log(self.event_weight_)]), np.zeros(0)
            )
            reporter.warning(
                "The validation steps hold events everywhere or nowhere: the probabilities could not be "
                "calibrated on them and are corrected for the weight of events only."
            )

    def _channels(self, cube: Cube, scaling: Scaling | None, train_stop: int | None) -> Channels:
        form = self.settings.channel_form
        return Channels(cube, self.settings.channels, form=form, scaling=scaling, train_stop=train_stop)

    def _outputs(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Return the outputs of the network for these steps: float32 `(n, y, x, 1 + types)`."""
        self.check_history(cube, start)
        assert self.network_ is not None, "fit or restore first"
        channels = self._channels(cube, self.scaling_, None)
        found = []
        for first in range(start, stop, _PREDICT_BATCH):
            targets = np.arange(first, min(first + _PREDICT_BATCH, stop))
            window = channels.window(targets, self.settings.lookback)
            found.append(ops.convert_to_numpy(self.network_(window, training=False)))
        return np.concatenate(found)

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        result = self.calibration_.apply(self._outputs(cube, start, stop)[..., 0])
        result[:, ~cube.grid.valid] = np.nan
        return result

    def predict_types(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        result = np.moveaxis(self._outputs(cube, start, stop)[..., 1:], -1, 1)
        return np.where(cube.grid.valid, result, np.nan).astype(np.float32)

    def state(self) -> ModelState:
        assert self.scaling_ is not None, "fit or restore first"
        return ModelState(
            values={
                "scaling": self.scaling_.as_values(),
                "history": self.history_,
                "types": list(self.types_),
                "event_weight": self.event_weight_,
                "calibration": self.calibration_.form,
            },
            arrays={"calibration_x": self.calibration_.x, "calibration_y": self.calibration_.y},
            networks={"network": self.network_},
        )

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> ShotSpotterForecaster:
        model = cls(**settings)
        model.scaling_ = Scaling(**state.values["scaling"])
        model.history_ = state.values["history"]
        model.types_ = tuple(state.values["types"])
        model.event_weight_ = state.values["event_weight"]
        model.calibration_ = Calibration(
            state.values["calibration"], state.arrays["calibration_x"], state.arrays["calibration_y"]
        )
        model.network_ = state.networks["network"]
        return model


def _types(cube: Cube) -> tuple[str, ...]:
    """Return the types that can be told apart; raises :class:`InputError` if there are not two."""
    # Names in brackets are ours: no type, and the rest.
    names = tuple(name for name in cube.types if not name.startswith("("))
    if len(names) < 2:
        raise InputError(
            f"The cube tells {len(names)} types of event apart; a forecast of types needs two.",
            hint="Rasterize the events with TYPE_FIELD, choose more TYPES, or switch TYPE_HEAD off.",
            parameter="TYPE_HEAD",
            value=", ".join(cube.types),
        )
    return names


def _automatic_weight(cube: Cube, train: np.ndarray) -> float:
    """Return how many times cells without event outnumber those with one, from 1 to 100."""
    counts = cube.total[train[0] : train[-1] + 1][:, cube.grid.valid]
    events = int((counts > 0).sum())
    return float(np.clip((counts.size - events) / max(events, 1), 1.0, MOST_WEIGHT))
