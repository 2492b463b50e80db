# SPDX-License-Identifier: GPL-2.0-or-later
"""The two-stack network with 1 x 1 kernels, computed once per distinct history of a cell."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from .layers import ConvLSTM2D


class CellwiseTwoStacks(keras.layers.Layer):
    """Computes what a network of :func:`~.convlstm.build_network` with 1 x 1 kernels computes.

    It owns no weights: gradients and moving averages go to the layers of the network. Batch
    normalization counts each node of the tree as often as there are cells at it, so results, gradients
    and statistics are those of the network itself, up to rounding.

    Parameters
    ----------
    network : keras.Model
        Input `(steps, rows, columns, channels)`.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network
        self.steps, self.rows, self.columns, self.channels = network.input_shape[1:]

    def inputs(self) -> dict[str, Any]:
        """Return symbolic inputs for :meth:`~..training.histories.HistoryTree.as_inputs`."""
        found = {"cells": keras.Input((self.rows * self.columns,), dtype="int32", name="cells")}
        for t in range(self.steps):
            found[f"values_{t}"] = keras.Input((self.channels,), name=f"values_{t}")
            found[f"parents_{t}"] = keras.Input((), dtype="int32", name=f"parents_{t}")
            found[f"counts_{t}"] = keras.Input((), name=f"counts_{t}")
        return found

    def call(self, tree: dict[str, Any], training: bool = False) -> Any:
        """Return the output of the network, `(n, rows, columns, 1)`."""
        values, parents, counts = (
            [tree[f"{part}_{t}"] for t in range(self.steps)] for part in ("values", "parents", "counts")
        )
        stacks = []
        for stack in "ab":
            states = self._scan(f"{stack}_1", values, parents)
            states = self._normalize(f"{stack}_norm", states, counts, training)
            stacks.append(self._scan(f"{stack}_2", states, parents)[-1])
        output = self.network.get_layer("output")
        kernel = ops.reshape(output.kernel, (-1, output.filters))
        rates = ops.matmul(ops.concatenate(stacks, axis=-1), kernel) + output.bias
        return ops.reshape(ops.take(rates, tree["cells"], axis=0), (-1, self.rows, self.columns, 1))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (None, self.rows, self.columns, 1)

    def _scan(self, name: str, inputs: list[Any], parents: list[Any]) -> list[Any]:
        """Run a layer down the tree; return its state at the nodes of each level, `(nodes, filters)`."""
        layer: ConvLSTM2D = self.network.get_layer(name)
        cell = layer.cell
        kernel = ops.reshape(cell.kernel, (-1, 4 * cell.filters))
        recurrent = ops.reshape(cell.recurrent_kernel, (-1, 4 * cell.filters))
        outputs: list[Any] = []
        memory: Any = None
        for values, parent in zip(inputs, parents):
            part = ops.matmul(values, kernel) + cell.bias
            if outputs:
                # There are fewer parents than children: multiply first, then hand on.
                part = part + ops.take(ops.matmul(outputs[-1], recurrent), parent, axis=0)
                memory = ops.take(memory, parent, axis=0)
            i, f, g, o = ops.split(part, 4, axis=-1)
            new = ops.sigmoid(i) * ops.tanh(g)
            memory = new if memory is None else new + ops.sigmoid(f) * memory
            outputs.append(ops.sigmoid(o) * ops.tanh(memory))
        return outputs

    def _normalize(self, name: str, states: list[Any], counts: list[Any], training: bool) -> list[Any]:
        layer: keras.layers.BatchNormalization = self.network.get_layer(name)
        if training:
            weights = [ops.expand_dims(count, -1) for count in counts]
            total = sum(ops.sum(weight) for weight in weights)
            mean = sum(ops.sum(w * s, axis=0) for w, s in zip(weights, states)) / total
            variance = sum(ops.sum(w * (s - mean) ** 2, axis=0) for w, s in zip(weights, states)) / total
            for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
                average.assign(average * layer.momentum + value * (1.0 - layer.momentum))
        else:
            mean, variance = (
                ops.convert_to_tensor(layer.moving_mean),
                ops.convert_to_tensor(layer.moving_variance),
            )
        scale = layer.gamma * ops.rsqrt(variance + layer.epsilon)
        return [(state - mean) * scale + layer.beta for state in states]
