# SPDX-License-Identifier: GPL-2.0-or-later
"""Distinct histories of cells, as a tree: what cells have in common is computed once.

A network with 1 x 1 kernels treats each cell by itself. With small counts most cells share their last steps
with many others, all the more so their first few. Level `t` of the tree holds the distinct histories of
`t + 1` steps; a cell is at one node of each level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Odd and without pattern, so that sums of products of different vectors hardly ever fall together.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class HistoryTree:
    """Distinct histories of `n` cells over `steps` steps.

    Attributes
    ----------
    values : list of numpy.ndarray
        Per level float32 `(nodes, channels)`: what is new at this step.
    parents : list of numpy.ndarray
        Per level int32 `(nodes,)`: node of the level before; zeros at the first level.
    counts : list of numpy.ndarray
        Per level float32 `(nodes,)`: how many cells are at this node.
    leaf : numpy.ndarray
        int32 `(n,)`: node of each cell at the last level.
    """

    values: list[np.ndarray]
    parents: list[np.ndarray]
    counts: list[np.ndarray]
    leaf: np.ndarray

    @classmethod
    def of(cls, histories: np.ndarray) -> HistoryTree:
        """Find the distinct ones among histories `(steps, n, channels)`."""
        values, parents, counts = [], [], []
        node = np.zeros(histories.shape[1], np.int64)
        for step in histories:
            first, owner = _distinct(node, step)
            values.append(np.ascontiguousarray(step[first], np.float32))
            parents.append(node[first].astype(np.int32))
            counts.append(np.bincount(owner, minlength=len(first)).astype(np.float32))
            node = owner
        return cls(values, parents, counts, node.astype(np.int32))

    def as_inputs(self, samples: int) -> dict[str, np.ndarray]:
        """Return the arrays by name: ``cells``, ``values_0``, ``parents_0``, ``counts_0`` and so on.

        ``cells`` is `leaf` with a row for each of the `samples`. It comes first in alphabetical order:
        Keras takes the length of the first input for the number of samples in its means.
        """
        found = {"cells": self.leaf.reshape(samples, -1)}
        for t, (values, parents, counts) in enumerate(zip(self.values, self.parents, self.counts)):
            found |= {f"values_{t}": values, f"parents_{t}": parents, f"counts_{t}": counts}
        return found


def _distinct(node: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell cells apart by node and values: an example of each kind, and the kind of each cell."""
    # Adding zero makes -0 the same as 0.
    bits = np.ascontiguousarray(step + np.float32(0), np.float32).view(np.uint32).astype(np.uint64)
    key = node.astype(np.uint64)
    for channel in bits.T:
        key = (key ^ (key >> np.uint64(29))) * _MULTIPLIER + channel
    _, first, owner = np.unique(key, return_index=True, return_inverse=True)
    same = np.array_equal(node[first][owner], node) and np.array_equal(bits[first][owner], bits)
    if not same:
        # Two kinds with one key: not seen yet, but a sum of products may.
        rows = np.column_stack([node.astype(np.uint64), bits])
        _, first, owner = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, owner.reshape(-1)
