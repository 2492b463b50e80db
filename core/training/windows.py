# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs and targets of the convolutional networks, cut from the cube batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ..cube import Cube
from ..features import base_rate, city_level, recent_ratio


@dataclass
class Scaling:
    """Mean and standard deviation per map and per series, from training steps only."""

    mean: list[float]
    deviation: list[float]

    def apply(self, index: int, values: np.ndarray) -> np.ndarray:
        """Standardise the channel with this index."""
        return ((values - self.mean[index]) / self.deviation[index]).astype(np.float32)


class StepInputs:
    """What a network knows at the end of each step, and the rate that its output starts from.

    With `anchored`, the channels of step `s` are the counts of `s` and what is
    known on the eve of step `s + 1`: base rate, recent weeks, city level, calendar
    of `s + 1`, and the share of each cell inside the study area. Otherwise the
    raw counts alone (channel Cr of Ahrens & de Wolff).

    Attributes
    ----------
    offset : numpy.ndarray
        float32 `(steps + 1, y, x)` or broadcastable: log rate from which the output departs.
    """

    def __init__(self, cube: Cube, anchored: bool, scaling: Scaling | None, train_stop: int | None) -> None:
        self.cube = cube
        self.anchored = anchored
        counts = cube.total
        valid = cube.grid.valid
        stop = len(counts) if train_stop is None else train_stop
        if not anchored:
            self.scaling = scaling or Scaling([float(counts[:stop, valid].mean())], [1.0])
            self._maps = [counts * valid]
            self._series = np.zeros((len(counts), 0), np.float32)
            mean = max(self.scaling.mean[0], 1e-6)
            self.offset = np.full((len(counts) + 1, 1, 1), np.log(mean), np.float32)
            return
        base = base_rate(counts, cube.grid.inside, cube.axis)
        self.offset = np.log(base)
        maps = [np.log1p(counts), self.offset[1:], recent_ratio(counts, base, cube.axis)[1:]]
        level = city_level(counts, base, valid, cube.axis)[1:]
        if scaling is None:
            samples = [values[:stop, valid] for values in maps] + [level[:stop]]
            scaling = Scaling(
                [float(sample.mean()) for sample in samples],
                [max(float(sample.std()), 1e-3) for sample in samples],
            )
        self.scaling = scaling
        self._maps = [scaling.apply(i, values) * valid for i, values in enumerate(maps)]
        self._maps.append(np.broadcast_to(cube.grid.inside, counts.shape))
        calendar = cube.axis.extended(1).calendar[1:]
        self._series = np.column_stack([scaling.apply(len(maps), level), calendar]).astype(np.float32)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self._maps) + self._series.shape[1]

    def window(self, targets: np.ndarray, lookback: int) -> np.ndarray:
        """Return the `lookback` steps before each target: float32 `(n, lookback, y, x, channel)`."""
        rows, columns = self.cube.grid.shape
        batch = np.empty((len(targets), lookback, rows, columns, self.channels), np.float32)
        for i, target in enumerate(targets):
            past = slice(target - lookback, target)
            for c, values in enumerate(self._maps):
                batch[i, ..., c] = values[past]
            batch[i, ..., len(self._maps) :] = self._series[past, None, None, :]
        return batch

    def offsets(self, targets: np.ndarray) -> np.ndarray:
        """Return the offset of each target: float32 `(n, y, x)`."""
        return np.broadcast_to(self.offset[targets], (len(targets), *self.cube.grid.shape))


class WindowDataset(keras.utils.PyDataset):
    """Batches of (window, target) for Keras; the target holds count, weight and offset per cell.

    Weight is 1 in the study area and 0 outside; carrying it with the target keeps
    the loss a pure function, and saved networks free of custom code.
    """

    def __init__(
        self, inputs: StepInputs, targets: np.ndarray, lookback: int, batch_size: int, seed: int | None
    ) -> None:
        super().__init__()
        self._inputs = inputs
        self._targets = np.array(targets)
        self._lookback = lookback
        self._batch_size = batch_size
        self._random = None if seed is None else np.random.default_rng(seed)
        self._weight = inputs.cube.grid.valid.astype(np.float32)
        self.on_epoch_begin()

    def __len__(self) -> int:
        return -(-len(self._targets) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._targets[index * self._batch_size : (index + 1) * self._batch_size]
        counts = self._inputs.cube.total[chosen]
        weight = np.broadcast_to(self._weight, counts.shape)
        target = np.stack([counts, weight, self._inputs.offsets(chosen)], axis=-1)
        return self._inputs.window(chosen, self._lookback), target

    def on_epoch_begin(self) -> None:
        """Shuffle the order of the targets, if there is a seed."""
        if self._random is not None:
            self._random.shuffle(self._targets)


def scaling_to_values(scaling: Scaling) -> dict[str, Any]:
    """Return the scaling as plain values for a model file."""
    return {"mean": scaling.mean, "deviation": scaling.deviation}
