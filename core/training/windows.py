# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs and targets of the convolutional networks, cut from the cube batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .channels import Channels
from .fit import Batches
from .histories import HistoryTree


class Windows(Batches):
    """Batches of (window, target) for a network that sees whole grids.

    The target `(n, y, x, 3)` holds count, weight and offset of each cell. Weight is 1 in the study area
    and 0 outside; carrying it with the target keeps the loss a pure function, and saved networks free of
    custom code.

    Parameters
    ----------
    channels : Channels
        What the network sees.
    targets : numpy.ndarray
        Steps to forecast.
    lookback : int
        Steps before each target that are seen.
    batch_size, seed
        See :class:`~.fit.Batches`.
    """

    def __init__(
        self, channels: Channels, targets: np.ndarray, lookback: int, batch_size: int, seed: int | None
    ) -> None:
        super().__init__(len(targets), batch_size, seed)
        self._channels = channels
        self._targets = np.array(targets)
        self._lookback = lookback
        self._weight = channels.cube.grid.valid.astype(np.float32)

    def batch(self, chosen: np.ndarray) -> tuple[Any, Any]:
        targets = self._targets[chosen]
        return self.inputs(self._channels.window(targets, self._lookback)), self.target(targets)

    def inputs(self, window: np.ndarray) -> Any:
        """Return a window `(n, lookback, y, x, channels)` in the form that the network takes."""
        return window

    def target(self, targets: np.ndarray) -> np.ndarray:
        """Return count, weight and offset at these steps."""
        counts = self._channels.cube.total[targets]
        weight = np.broadcast_to(self._weight, counts.shape)
        return np.stack([counts, weight, self._channels.offsets(targets)], axis=-1)


class DistinctHistories(Windows):
    """The same for :class:`~..models.cellwise.CellwiseTwoStacks`: cells with a common past are one."""

    def inputs(self, window: np.ndarray) -> Any:
        return tree_inputs(window)


def tree_inputs(window: np.ndarray) -> dict[str, np.ndarray]:
    """Return the distinct histories in a window `(n, lookback, y, x, channels)` as inputs of the network."""
    histories = np.moveaxis(window, 1, 0).reshape(window.shape[1], -1, window.shape[-1])
    return HistoryTree.of(histories).as_inputs(len(window))
