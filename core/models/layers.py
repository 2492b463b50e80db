# SPDX-License-Identifier: GPL-2.0-or-later
"""The convolutional LSTM, with and without peepholes, computed with as few operations as it needs."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

# Longer sequences are run in a loop: unrolled, the graph would take longer to build than to run.
_UNROLL_MOST = 48


@keras.saving.register_keras_serializable("gridcast")
class PeepholeConvLSTMCell(ConvLSTMCell):
    """Cell whose gates also see the memory: equations [1] to [5] of the ShotSpotter report.

    ``i = s(Wxi * X + Whi * H + Wci . C + bi)``, ``f = s(Wxf * X + Whf * H + Wcf . C + bf)``,
    ``C' = f . C + i . tanh(Wxc * X + Whc * H + bc)``, ``o = s(Wxo * X + Who * H + Wco . C' + bo)``,
    ``H' = o . tanh(C')``, with ``*`` a convolution and ``.`` the product element by element. The peephole
    weights `(3, y, x, filters)`, for i, f and o, belong to places, so the network fits one grid only.
    """

    def __init__(self, filters: int, kernel_size: Any, **kwargs: Any) -> None:
        super().__init__(2, filters, kernel_size, **kwargs)

    def build(self, inputs_shape: Any, states_shape: Any = None) -> None:
        super().build(inputs_shape, states_shape)
        if self.data_format != "channels_last" or self.padding != "same":
            raise ValueError("A peephole cell takes channels last and padding 'same'.")
        self.peephole = self.add_weight(
            shape=(3, *self.spatial_dims, self.filters), name="peephole", initializer="zeros"
        )

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        h, c = advance(self, gate_kernels(self), inputs, states[0], states[1])
        return h, [h, c]


@keras.saving.register_keras_serializable("gridcast")
class ConvLSTM2D(layers.ConvLSTM2D):
    """:class:`keras.layers.ConvLSTM2D` with the same weights and results, and optional peepholes.

    The convolutions of input and state are one, the steps are unrolled, and the first one, whose state is
    zero, has no recurrent convolution at all. Strides and dilations are left to Keras.

    Parameters
    ----------
    peephole : bool
        Use :class:`PeepholeConvLSTMCell`.
    **kwargs
        As for the Keras layer.
    """

    def __init__(
        self, filters: int, kernel_size: int | tuple[int, int], *, peephole: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.peephole = peephole
        if peephole:
            plain: ConvLSTMCell = self.cell
            self.cell: ConvLSTMCell = PeepholeConvLSTMCell(**plain.get_config())

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        cell = self.cell
        steps = sequences.shape[1]
        plain = (
            initial_state is None
            and mask is None
            and not (self.stateful or self.return_state or cell.dropout or cell.recurrent_dropout)
            and self.data_format == "channels_last"
            and cell.padding == "same"
            and {*cell.strides, *cell.dilation_rate} == {1}
            and steps is not None
            and steps <= _UNROLL_MOST
        )
        if not plain:
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        frames = ops.unstack(sequences, num=steps, axis=1)
        gates = gate_kernels(cell)
        h = c = None
        outputs = []
        for frame in reversed(frames) if self.go_backwards else frames:
            h, c = advance(cell, gates, frame, h, c)
            outputs.append(h)
        return ops.stack(outputs, axis=1) if self.return_sequences else h

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "peephole": self.peephole}


def normalization(name: str, momentum: float = 0.9) -> keras.layers.Layer:
    """Return a batch normalisation whose moving averages keep up with the network.

    The averages start at 0 and 1 and are what predictions use. With Keras's momentum of 0.99 a start of 1
    still weighs 0.37 after 100 gradient steps and 0.03 after 350, beside variances of hidden states that are
    below 0.001: forecasts, early stopping and learning rate would follow the start, not the network.
    """
    return layers.BatchNormalization(momentum=momentum, name=name)


def gate_kernels(cell: ConvLSTMCell) -> list[tuple[Any, Any, Any]]:
    """Return for each of the gates i, f, g, o: kernel of the input, of input and state together, and bias."""
    inputs = ops.split(cell.kernel, 4, axis=-1)
    both = ops.split(ops.concatenate([cell.kernel, cell.recurrent_kernel], axis=2), 4, axis=-1)
    biases = [None] * 4 if cell.bias is None else ops.split(cell.bias, 4)
    return list(zip(inputs, both, biases))


def advance(
    cell: ConvLSTMCell, gates: list[tuple[Any, Any, Any]], frame: Any, h: Any, c: Any
) -> tuple[Any, Any]:
    """Return state and memory after a step, `(n, y, x, filters)` each; None stands for a state of zeros.

    Input and state go through one convolution a gate: what is written to memory and read again, more than
    what is multiplied, decides how long a step with few filters takes.
    """
    seen = frame if h is None else ops.concatenate([frame, h], axis=-1)
    i, f, g, o = (
        _with_bias(ops.conv(seen, kernel if h is None else both, padding="same"), bias)
        for kernel, both, bias in gates
    )
    peephole = getattr(cell, "peephole", None)
    if peephole is not None and c is not None:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    new = cell.recurrent_activation(i) * cell.activation(g)
    if c is not None:
        new = new + cell.recurrent_activation(f) * c
    if peephole is not None:
        o = o + peephole[2] * new
    return cell.recurrent_activation(o) * cell.activation(new), new


def _with_bias(x: Any, bias: Any) -> Any:
    if bias is None:
        return x
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # TensorFlow joins this operation with the convolution, but not a plain sum.
        return tf.nn.bias_add(x, bias)
    return x + bias
