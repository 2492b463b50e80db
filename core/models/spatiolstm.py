# SPDX-License-Identifier: GPL-2.0-or-later
"""Spatio-LSTM: is a cell hot in the next step, seen from itself and its neighbours over the last steps.

Zhuang, Almeida, Morabito & Ding (2017), "Crime Hot Spot Forecasting: A Recurrent Model with Spatial and
Temporal Information" (STNN), and the poster of Zhuang, Ding & Morabito, which has shorter windows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
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

#: Recurrent layers by name.
CELLS = {"lstm": layers.LSTM, "rnn": layers.SimpleRNN, "gru": layers.GRU}

#: Longer sequences are run in a loop: unrolled, the graph would take longer to build than to run.
UNROLL_MOST = 48

# Samples that are judged at once, and gradient steps between two looks at progress and cancel, at most:
# a fraction of a second.
_JUDGE_BATCH, _BLOCK_STEPS = 4096, 256

# Numbers in all windows of either, at most: some 32 MB.
_BLOCK_NUMBERS = 8e6


@dataclass(frozen=True, kw_only=True)
class SpatioLSTMSettings(ClassifierSettings):
    """Settings of :class:`SpatioLSTM`. The defaults are those of the poster where it names a value.

    Attributes
    ----------
    neighbourhood : int
        Side in cells of the square around a cell whose counts are seen, odd (3; 21 in the STNN).
    cell : {"lstm", "rnn", "gru"}
        Recurrent layer that encodes the steps.
    units : int
        Its width.
    dense : int
        Width of the layer between the encoded steps and the output.
    timing : bool
        Feed the calendar of each step seen: the phase of the year, and of week and day for short steps.
    location : bool
        Feed the place of the cell in the grid.
    """

    neighbourhood: int = 3
    cell: str = "lstm"
    units: int = 20
    dense: int = 50
    timing: bool = True
    location: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least("neighbourhood", "units", "dense")
        self._check_choice("cell", tuple(CELLS))
        if self.neighbourhood % 2 == 0:
            raise InputError(
                "The neighbourhood must have an odd number of cells, so that it has a middle.",
                hint="Give 3, or 21 as in the STNN.",
                parameter="NEIGHBOURHOOD",
                value=self.neighbourhood,
            )


class CellWindows:
    """What a network sees of single cells, cut from arrays that hold each step and cell once.

    A sample is a step to forecast and a cell (row times columns plus column). The same code cuts windows
    with NumPy and inside the graph of a network.

    Parameters
    ----------
    inputs : Inputs
        Counts and covariates. Cells beyond the edge of the grid are as cells without events.
    lookback : int
        Steps before the one to forecast that are seen.
    neighbourhood : int
        Side in cells of the square whose counts are seen.
    timing : bool
        Whether the calendar of each step is seen.
    """

    def __init__(self, inputs: Inputs, lookback: int, neighbourhood: int, timing: bool) -> None:
        rows, self._columns = inputs.cube.grid.shape
        radius = neighbourhood // 2
        self._radius = radius
        self._width = self._columns + 2 * radius
        self._area = (rows + 2 * radius) * self._width
        nothing = inputs.scaling.apply("counts", np.zeros(1))[0]
        edges = ((0, 0), (radius, radius), (radius, radius))
        self._counts: Any = np.pad(inputs.counts, edges, constant_values=nothing).ravel()
        steps = np.arange(-lookback, 0, dtype=np.int32)
        around = np.arange(-radius, radius + 1, dtype=np.int32)
        self._steps = steps
        self._offsets = (
            steps[:, None] * self._area + (around[:, None] * self._width + around).reshape(1, -1)
        ).astype(np.int32)
        # Values, and how far apart two steps and two cells are in them.
        self._series: list[tuple[Any, int, int]] = []
        if timing:
            self._series += [(column.copy(), 1, 0) for column in inputs.cube.axis.calendar.T]
        for name, values in inputs.covariates.items():
            dimensions = inputs.cube.covariates[name].dimensions
            cells = rows * self._columns if dimensions[-1] == "x" else 0
            per_step = max(cells, 1) if dimensions[0] == "time" else 0
            self._series.append((values.ravel(), per_step, 1 if cells else 0))
        x = np.arange(self._columns, dtype=np.float32) / max(self._columns - 1, 1)
        y = 1 - np.arange(rows, dtype=np.float32) / max(rows - 1, 1)
        # East and north of the south-western cell, as shares of the grid.
        self._places: Any = np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1).reshape(-1, 2)
        #: Shape of the windows: steps and features.
        self.shape = (lookback, neighbourhood**2 + len(self._series))

    def on_device(self) -> CellWindows:
        """Move the arrays to where networks run, and return self."""
        self._counts = ops.convert_to_tensor(self._counts)
        self._series = [(ops.convert_to_tensor(values), *rest) for values, *rest in self._series]
        self._places = ops.convert_to_tensor(self._places)
        return self

    def windows(self, steps: Any, cells: Any, module: Any = np) -> Any:
        """Return what is seen of samples before their step: `(n, lookback, features)`.

        Parameters
        ----------
        steps, cells : array
            int32 `(n,)`.
        module : module
            :mod:`numpy` or :mod:`keras.ops`, as the arrays are.
        """
        padded = (cells // self._columns + self._radius) * self._width + (
            cells % self._columns + self._radius
        )
        seen = module.take(self._counts, (steps * self._area + padded)[:, None, None] + self._offsets, axis=0)
        parts = [seen]
        for values, per_step, per_cell in self._series:
            index = (steps[:, None] + self._steps) * per_step + (cells * per_cell)[:, None]
            parts.append(module.take(values, index, axis=0)[:, :, None])
        return module.concatenate(parts, axis=-1)

    def places(self, cells: Any, module: Any = np) -> Any:
        """Return where cells lie in the grid, east and north, from 0 to 1: `(n, 2)`."""
        return module.take(self._places, cells, axis=0)


def _judge_batch(shape: tuple[int, int]) -> int:
    """Return how many samples with windows of this shape are judged at once."""
    return int(np.clip(_BLOCK_NUMBERS / (shape[0] * shape[1]), 1, _JUDGE_BATCH))


def sample_index(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return step and cell of the samples with a weight `(steps, y, x)`: int32 `(n,)` each, in that order."""
    steps, cells = np.nonzero(weights.reshape(len(weights), -1))
    return steps.astype(np.int32), cells.astype(np.int32)


class CellBatches(Batches):
    """Batches of samples, each a step and a cell, with label and weight as target.

    Inputs are int32 `(n, 2)`, targets float32 `(n, 2)`; the weight travels with the target, which keeps
    the loss a pure function.

    Parameters
    ----------
    labels : numpy.ndarray
        bool `(steps, y, x)`.
    weights : numpy.ndarray
        float32 `(steps, y, x)`, 0 where there is no sample.
    batch_size, seed
        See :class:`~..training.fit.Batches`.
    """

    def __init__(self, labels: np.ndarray, weights: np.ndarray, batch_size: int, seed: int | None) -> None:
        self._index = np.stack(sample_index(weights), axis=1)
        super().__init__(len(self._index), min(batch_size, len(self._index)), seed)
        chosen = weights > 0
        self._target = np.stack([labels[chosen], weights[chosen]], axis=1).astype(np.float32)

    def batch(self, chosen: np.ndarray) -> tuple[Any, Any]:
        return self._index[chosen], self._target[chosen]

    def weight(self, target: Any) -> float:
        return float(target[..., 1].sum())


class CellBlocks(CellBatches):
    """The same, many batches at a time: `(batches, n, 2)`.

    The last batch of an epoch is filled up with samples of weight 0.

    Parameters
    ----------
    labels, weights, batch_size, seed
        See :class:`CellBatches`.
    width : int
        Numbers in the window of a sample; the wider, the fewer batches make a block.
    """

    def __init__(
        self, labels: np.ndarray, weights: np.ndarray, batch_size: int, seed: int, width: int
    ) -> None:
        super().__init__(labels, weights, batch_size, seed)
        self._block = int(np.clip(_BLOCK_NUMBERS / (self.batch_size * width), 1, _BLOCK_STEPS))

    def __len__(self) -> int:
        return -(-super().__len__() // self._block)

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        batches, size = super().__len__(), self.batch_size
        order = np.random.default_rng([self._seed or 0, number]).permutation(self._count)
        order = np.append(order, np.zeros(batches * size - self._count, order.dtype))
        index, target = self.batch(order)
        target[self._count :, 1] = 0
        index, target = (values.reshape(batches, size, 2) for values in (index, target))
        for first in range(0, batches, self._block):
            yield index[first : first + self._block], target[first : first + self._block]


def recurrent_states(layer: keras.layers.Layer, windows: Any) -> list[Any]:
    """Return the hidden state of a layer of :data:`CELLS` after each step, `(n, units)` each.

    The same as calling the layer with ``return_sequences``, in fewer operations: the part of the inputs
    is one product for all steps, and the first step, whose state is zero, has no recurrent product.

    Parameters
    ----------
    layer : keras.layers.Layer
        Built, with the activations that it has by default.
    windows : tensor
        `(n, steps, features)`.
    """
    advance = {layers.LSTM: _lstm, layers.SimpleRNN: _rnn, layers.GRU: _gru}[type(layer)]
    cell = layer.cell
    steps, features = windows.shape[1:]
    # The GRU has two rows of bias, for the inputs and for the state.
    bias = ops.reshape(cell.bias, (-1, cell.kernel.shape[-1]))
    parts = ops.matmul(ops.reshape(windows, (-1, features)), cell.kernel) + bias[0]
    parts = ops.unstack(ops.reshape(parts, (-1, steps, parts.shape[-1])), axis=1)
    states: list[Any] = []
    memory = None
    for part in parts:
        before = states[-1] if states else None
        own = None if before is None else ops.matmul(before, cell.recurrent_kernel)
        state, memory = advance(part, own, bias[-1], before, memory)
        states.append(state)
    return states


def _lstm(part: Any, own: Any, bias: Any, before: Any, memory: Any) -> tuple[Any, Any]:
    i, f, new, o = ops.split(part if own is None else part + own, 4, axis=-1)
    fresh = ops.sigmoid(i) * ops.tanh(new)
    memory = fresh if memory is None else fresh + ops.sigmoid(f) * memory
    return ops.sigmoid(o) * ops.tanh(memory), memory


def _rnn(part: Any, own: Any, bias: Any, before: Any, memory: Any) -> tuple[Any, Any]:
    return ops.tanh(part if own is None else part + own), None


def _gru(part: Any, own: Any, bias: Any, before: Any, memory: Any) -> tuple[Any, Any]:
    own = ops.broadcast_to(bias, ops.shape(part)) if own is None else own + bias
    keep, reset, new = ops.split(part, 3, axis=-1)
    own_keep, own_reset, own_new = ops.split(own, 3, axis=-1)
    keep = ops.sigmoid(keep + own_keep)
    new = (1.0 - keep) * ops.tanh(new + ops.sigmoid(reset + own_reset) * own_new)
    return (new if before is None else keep * before + new), None


class CellTrainer(keras.Model):
    """Takes samples by step and cell, cuts their windows in the graph and judges them as a network does.

    The network, whose weights these are, stays one that takes windows. Its recurrent layer is named
    memory.
    """

    def __init__(self, network: keras.Model, windows: CellWindows) -> None:
        super().__init__()
        self.network = network
        self._windows = windows.on_device()
        self._located = len(network.inputs) > 1
        self._memory = network.get_layer("memory")
        places = network.inputs[1:]
        # A model would clone the layers' nodes, and Keras could not save the network any more.
        self._rest = keras.Function([self._memory.output, *places], network.output)

    def cut(self, index: Any) -> list[Any]:
        """Return what the network takes for samples `(n, 2)`: windows, and places if it takes them."""
        steps, cells = index[:, 0], index[:, 1]
        seen = [self._windows.windows(steps, cells, ops)]
        return [*seen, self._windows.places(cells, ops)] if self._located else seen

    def judge(self, seen: list[Any]) -> Any:
        """Return the output of the network for what :meth:`cut` returns."""
        if seen[0].shape[1] > UNROLL_MOST:
            return self.network(seen if self._located else seen[0])
        states = recurrent_states(self._memory, seen[0])
        encoded = ops.stack(states, axis=1) if self._memory.return_sequences else states[-1]
        return self._rest([encoded, *seen[1:]])

    def call(self, index: Any, training: bool = False) -> Any:
        return self.judge(self.cut(index))


class BlockTrainer(CellTrainer):
    """Takes :class:`CellBlocks`: all gradient steps of a block are one call. For TensorFlow only.

    A step of this network takes less time than Keras takes to begin it.
    """

    def __init__(self, network: keras.Model, windows: CellWindows) -> None:
        super().__init__(network, windows)
        import tensorflow as tf

        def compiled(function: Any, *leading: None) -> Any:
            shape = (*leading, 2)
            signature = [tf.TensorSpec(shape, tf.int32), tf.TensorSpec(shape, tf.float32)]
            return tf.function(function, input_signature=signature, autograph=False)

        self._train = compiled(self._train_block, None, None)
        self._test = compiled(self._test_batch, None)

    def _train_block(self, index: Any, target: Any) -> Any:
        """Take a gradient step for each batch `(n, 2)` of a block; return the sum of weight times loss."""
        import tensorflow as tf

        batches, size, _ = tf.unstack(tf.shape(index))
        # Cut together, as a look into the arrays costs the same for many samples as for a few.
        seen = [
            tf.reshape(part, (batches, size, *part.shape[1:]))
            for part in self.cut(tf.reshape(index, (-1, 2)))
        ]
        variables = self.trainable_variables

        def advance(number: Any, total: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                output = self.judge([part[number] for part in seen])
                loss = self.compute_loss(y=target[number], y_pred=output)
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return number + 1, total + loss * tf.reduce_sum(target[number, :, 1])

        start = tf.constant(0), tf.constant(0.0)
        return tf.while_loop(lambda number, _: number < batches, advance, start, parallel_iterations=1)[1]

    def _test_batch(self, index: Any, target: Any) -> Any:
        return self.compute_loss(y=target, y_pred=self(index))

    def train_on_batch(self, index: Any, target: Any, **options: Any) -> dict[str, float]:
        """Train on a block; return the mean loss of its samples, by weight."""
        return {"loss": float(self._train(index, target)) / float(target[..., 1].sum())}

    def test_on_batch(self, index: Any, target: Any, **options: Any) -> dict[str, float]:
        """Return the mean loss of samples `(n, 2)`, by weight."""
        return {"loss": float(self._test(index, target))}


def weighted_log_loss(target: Any, output: Any) -> Any:
    """Mean of -log of the probability given to what happened, by weight.

    Parameters
    ----------
    target : tensor
        `(..., 2)`: label 0 or 1, weight.
    output : tensor
        `(..., 1)` or `(..., 2)`: the last one is the probability of label 1.
    """
    label, weight = target[..., 0], target[..., 1]
    p = ops.clip(output[..., -1], 1e-7, 1 - 1e-7)
    loss = -(label * ops.log(p) + (1.0 - label) * ops.log(1.0 - p))
    return ops.sum(weight * loss) / ops.maximum(ops.sum(weight), 1e-7)


def start_at(network: keras.Model, share: float) -> None:
    """Set the bias of the layer named output so that the network starts near the share of hot samples."""
    layer = network.get_layer("output")
    kernel, bias = layer.get_weights()
    bias[-1] = np.log(share / (1 - share))
    layer.set_weights([kernel, bias])


class CellClassifier(HotspotClassifier):
    """A classifier that looks at one cell and its neighbours at a time, with the same weights everywhere."""

    @abstractmethod
    def _build(self, shape: tuple[int, int]) -> keras.Model:
        """Build the network for windows of this shape; its output layer is named so."""

    @abstractmethod
    def windows(self, inputs: Inputs) -> CellWindows:
        """Return what the network sees."""

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
        windows = self.windows(inputs)
        self.network_ = self._build(windows.shape)
        if start is None:
            start_at(self.network_, samples.hot_share)
        else:
            self.network_.set_weights(start.network_.get_weights())
        # Blocks are written for TensorFlow, whose steps cost most to begin.
        blocks = keras.backend.backend() == "tensorflow"
        trainer = (BlockTrainer if blocks else CellTrainer)(self.network_, windows)
        training = samples.labels, samples.train, settings.batch_size, settings.seed
        width = windows.shape[0] * windows.shape[1]
        return fit_network(
            self.network_,
            weighted_log_loss,
            CellBlocks(*training, width) if blocks else CellBatches(*training),
            CellBatches(samples.labels, samples.validation, _judge_batch(windows.shape), None),
            settings.fit_options(),
            reporter,
            trainer=trainer,
            checkpoint=checkpoint,
        )

    def _output(self, inputs: Inputs, steps: np.ndarray) -> np.ndarray:
        assert self.candidates_ is not None, "fit or restore first"
        cells = np.flatnonzero(self.candidates_).astype(np.int32)
        windows = self.windows(inputs)
        trainer = CellTrainer(self.network_, windows)
        size = _judge_batch(windows.shape)
        index = np.stack([np.repeat(steps.astype(np.int32), len(cells)), np.tile(cells, len(steps))], axis=1)
        found = np.empty(len(index), np.float32)
        for first in range(0, len(index), size):
            part = slice(first, first + size)
            found[part] = ops.convert_to_numpy(trainer(index[part], training=False))[:, -1]
        result = np.zeros((len(steps), self.candidates_.size), np.float32)
        result[:, cells] = found.reshape(len(steps), -1)
        return result.reshape(len(steps), *self.candidates_.shape)


def build_network(
    shape: tuple[int, int], *, cell: str = "lstm", units: int = 20, dense: int = 50, location: bool = True
) -> keras.Model:
    """Build the two networks of the poster, one behind the other.

    Temporal Influence Encoding Network: windows of this shape (steps, features) → recurrent layer, all
    hidden states. Hot Spot Forecasting Network: these and the place of the cell, a vector of
    steps · units + 2 (122 for 6 steps and 20 units) → dense (relu) → softmax of cold and hot.
    """
    seen = keras.Input(shape, name="history")
    states = CELLS[cell](units, return_sequences=True, unroll=shape[0] <= UNROLL_MOST, name="memory")(seen)
    vector = layers.Flatten(name="states")(states)
    place = keras.Input((2,), name="place")
    if location:
        vector = layers.Concatenate(name="vector")([vector, place])
    x = layers.Dense(dense, activation="relu", name="dense")(vector)
    output = layers.Dense(2, activation="softmax", name="output")(x)
    return keras.Model([seen, place] if location else seen, output, name="spatiolstm")


class SpatioLSTM(CellClassifier):
    """Spatio-LSTM; with 24 steps, a neighbourhood of 21 and undersampling it is the STNN."""

    key = "spatiolstm"
    title = "Spatio-LSTM"
    Settings = SpatioLSTMSettings
    settings: SpatioLSTMSettings
    search = {
        "lookback": "3..12",
        "neighbourhood": "1, 3, 5",
        "cell": "lstm, rnn, gru",
        "units": "8..64 log",
        "dense": "16..128 log",
        "batch_size": "16, 32, 64",
        "learning_rate": "0.0003..0.01 log",
    }

    def windows(self, inputs: Inputs) -> CellWindows:
        settings = self.settings
        return CellWindows(inputs, settings.lookback, settings.neighbourhood, settings.timing)

    def _build(self, shape: tuple[int, int]) -> keras.Model:
        settings = self.settings
        return build_network(
            shape,
            cell=settings.cell,
            units=settings.units,
            dense=settings.dense,
            location=settings.location,
        )
