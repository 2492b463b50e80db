# SPDX-License-Identifier: GPL-2.0-or-later
"""The convolutional LSTM: the one of Keras in fewer operations, and the report's equations with peepholes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gridcast_qgis.core.models import layers as own
from gridcast_qgis.core.models.layers import ConvLSTM2D

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    # Python's own tempfile inside Keras.
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]


def sequences(steps: int = 5, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return `(2, steps, 4, 3, channels)` normal values."""
    return np.random.default_rng(seed).normal(0, 1, (2, steps, 4, 3, channels)).astype(np.float32)


def randomize(layer: keras.layers.Layer, seed: int = 1) -> None:
    """Give a layer weights that are all different, biases and peepholes too."""
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(0, 0.4, w.shape).astype(np.float32) for w in layer.get_weights()])


def value_and_gradients(layer: keras.layers.Layer, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the output, and the gradients of an uneven sum of it for the input and each weight."""
    tensor = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        output = layer(tensor)
        factors = np.linspace(-1, 2, int(np.prod(output.shape))).reshape(output.shape).astype(np.float32)
        total = tf.reduce_sum(output * factors)
    wanted = [tensor, *(variable.value for variable in layer.trainable_variables)]
    return output.numpy(), [gradient.numpy() for gradient in tape.gradient(total, wanted)]


def assert_same(one: keras.layers.Layer, two: keras.layers.Layer, x: np.ndarray) -> None:
    (output, gradients), (other, others) = value_and_gradients(one, x), value_and_gradients(two, x)
    assert output.shape == other.shape
    assert output == pytest.approx(other, abs=1e-5)
    assert len(gradients) == len(others)
    for gradient, its in zip(gradients, others):
        assert gradient == pytest.approx(its, abs=1e-4, rel=1e-4)
        assert np.abs(its).max() > 0


@pytest.mark.parametrize(("kernel", "channels"), [(1, 3), (3, 1), (3, 3), ((1, 3), 2)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True},
        {"go_backwards": True},
        {"return_sequences": True, "go_backwards": True},
        {"use_bias": False},
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
        {"padding": "valid"},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_the_layer_is_that_of_keras(kernel, channels, options):
    x = sequences(channels=channels)
    options = {"padding": "same"} | options
    ours, theirs = ConvLSTM2D(2, kernel, **options), keras.layers.ConvLSTM2D(2, kernel, **options)
    for layer in (ours, theirs):
        layer.build(x.shape)
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    assert [w.path.split("/")[-1] for w in ours.weights] == [w.path.split("/")[-1] for w in theirs.weights]
    assert_same(ours, theirs, x)


@pytest.mark.parametrize("whole", [True, False], ids=["sequences", "last"])
def test_both_ways_are_those_of_keras(whole):
    x = sequences()
    pair = [
        keras.layers.Bidirectional(layer(2, 3, padding="same", return_sequences=whole))
        for layer in (ConvLSTM2D, keras.layers.ConvLSTM2D)
    ]
    for layer in pair:
        layer.build(x.shape)
    randomize(pair[0])
    pair[1].set_weights(pair[0].get_weights())
    assert isinstance(pair[0].backward_layer, ConvLSTM2D)
    assert_same(*pair, x)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"return_state": True},
        {"stateful": True},
        {"strides": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_not_written_anew_is_left_to_keras(options):
    x = sequences()
    both = []
    for kind in (ConvLSTM2D, keras.layers.ConvLSTM2D):
        layer = kind(2, 3, padding="same", **options)
        layer.build(x.shape)
        randomize(layer)
        results = [layer(x), layer(x)]
        both.append([np.array(part) for result in results for part in tf.nest.flatten(result)])
    for one, two in zip(*both):
        assert one == pytest.approx(two, abs=1e-5)
    changes = not np.allclose(both[0][0], both[0][len(both[0]) // 2])
    assert changes == ("stateful" in options)


def test_a_given_state_is_where_the_layer_begins():
    x, random = sequences(), np.random.default_rng(3)
    state = [random.normal(0, 1, (2, 4, 3, 2)).astype(np.float32) for _ in range(2)]
    both = []
    for kind in (ConvLSTM2D, keras.layers.ConvLSTM2D):
        layer = kind(2, 3, padding="same")
        layer.build(x.shape)
        randomize(layer)
        both.append((np.array(layer(x, initial_state=state)), np.array(layer(x))))
    assert both[0][0] == pytest.approx(both[1][0], abs=1e-5)
    assert not np.allclose(both[0][0], both[0][1])


# Peepholes ---------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve `(n, y, x, channel)` with `(rows, columns, channel, filter)`, zeros beyond the edge."""
    rows, columns = kernel.shape[:2]
    top, left = (rows - 1) // 2, (columns - 1) // 2
    padded = np.pad(x, ((0, 0), (top, rows - 1 - top), (left, columns - 1 - left), (0, 0)))
    height, width = x.shape[1:3]
    return sum(padded[:, r : r + height, c : c + width] @ kernel[r, c] for r, c in np.ndindex(rows, columns))


def equations(x: np.ndarray, weights: list[np.ndarray], filters: int) -> np.ndarray:
    """Return H of all steps by equations [1] to [5] of the report, term by term."""
    kernel, recurrent, bias, (W_ci, W_cf, W_co) = (w.astype(float) for w in weights)
    W_xi, W_xf, W_xc, W_xo = np.split(kernel, 4, axis=-1)
    W_hi, W_hf, W_hc, W_ho = np.split(recurrent, 4, axis=-1)
    b_i, b_f, b_c, b_o = np.split(bias, 4)
    H = C = np.zeros((*x.shape[:1], *x.shape[2:4], filters))
    found = []
    for X in np.moveaxis(x.astype(float), 1, 0):
        i = sigmoid(convolved(X, W_xi) + convolved(H, W_hi) + W_ci * C + b_i)
        f = sigmoid(convolved(X, W_xf) + convolved(H, W_hf) + W_cf * C + b_f)
        C = f * C + i * np.tanh(convolved(X, W_xc) + convolved(H, W_hc) + b_c)
        o = sigmoid(convolved(X, W_xo) + convolved(H, W_ho) + W_co * C + b_o)
        H = o * np.tanh(C)
        found.append(H)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_peepholes_follow_the_equations_of_the_report(kernel, channels, seed):
    x = sequences(6, channels, seed)
    layer = ConvLSTM2D(2, kernel, padding="same", return_sequences=True, peephole=True)
    layer.build(x.shape)
    randomize(layer, seed)
    shapes = [w.shape for w in layer.get_weights()]
    assert shapes == [(kernel, kernel, channels, 8), (kernel, kernel, 2, 8), (8,), (3, 4, 3, 2)]
    expected = equations(x, layer.get_weights(), 2)
    assert np.array(layer(x)) == pytest.approx(expected, abs=1e-5)
    without = [*layer.get_weights()[:3], np.zeros(shapes[3])]
    assert np.abs(equations(x, without, 2) - expected).max() > 1e-3


def test_peepholes_of_zero_change_nothing():
    x = sequences()
    layer = ConvLSTM2D(2, 3, padding="same", return_sequences=True, peephole=True)
    plain = ConvLSTM2D(2, 3, padding="same", return_sequences=True)
    layer.build(x.shape)
    plain.build(x.shape)
    # That is how they begin.
    assert not layer.get_weights()[3].any()
    randomize(plain)
    layer.set_weights([*plain.get_weights(), np.zeros((3, 4, 3, 2))])
    assert np.array(layer(x)) == pytest.approx(np.array(plain(x)), abs=1e-6)
    assert layer.count_params() == plain.count_params() + 3 * 4 * 3 * 2


def test_peepholes_are_learned():
    x = sequences()
    layer = ConvLSTM2D(2, 3, padding="same", peephole=True)
    layer.build(x.shape)
    randomize(layer)
    _, gradients = value_and_gradients(layer, x)
    # The numerical derivative of the same sum, for one peephole of each gate.
    factors = np.linspace(-1, 2, 2 * 4 * 3 * 2).reshape(2, 4, 3, 2)
    weights = [w.astype(float) for w in layer.get_weights()]
    for place in [(0, 1, 2, 0), (1, 3, 0, 1), (2, 0, 1, 1)]:
        totals = []
        for step in (-1e-4, 1e-4):
            moved = [w.copy() for w in weights]
            moved[3][place] += step
            totals.append((equations(x, moved, 2)[:, -1] * factors).sum())
        assert gradients[4][place] == pytest.approx((totals[1] - totals[0]) / 2e-4, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("options", [{"padding": "valid"}, {"data_format": "channels_first"}], ids=str)
def test_peepholes_need_the_same_cells_before_and_after(options):
    layer = ConvLSTM2D(2, 3, peephole=True, **({"padding": "same"} | options))
    with pytest.raises(ValueError, match="channels last and padding 'same'"):
        layer.build((2, 5, 4, 3, 2))


# Long sequences, files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"return_sequences": True, "go_backwards": True}], ids=["last", "all"]
)
def test_a_loop_gives_the_same_as_unrolled_steps(monkeypatch, peephole, options):
    x = sequences(6)
    layer = ConvLSTM2D(2, 3, padding="same", peephole=peephole, **options)
    layer.build(x.shape)
    randomize(layer)
    unrolled = value_and_gradients(layer, x)
    monkeypatch.setattr(own, "_UNROLL_MOST", 5)
    monkeypatch.setattr(own, "advance", _counted(own.advance, calls := []))
    looped = value_and_gradients(layer, x)
    # Our own cell goes on step by step then, the one of Keras does all by itself.
    assert len(calls) >= 6 if peephole else not calls
    assert looped[0] == pytest.approx(unrolled[0], abs=1e-5)
    for one, two in zip(looped[1], unrolled[1]):
        assert one == pytest.approx(two, abs=1e-4, rel=1e-4)


def _counted(function, calls):
    def counting(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counting


def test_a_sequence_beyond_the_limit_is_that_of_keras():
    x = sequences(own._UNROLL_MOST + 2)
    pair = [kind(1, 3, padding="same") for kind in (ConvLSTM2D, keras.layers.ConvLSTM2D)]
    for layer in pair:
        layer.build(x.shape)
        randomize(layer)
    assert np.array(pair[0](x)) == pytest.approx(np.array(pair[1](x)), abs=1e-5)


@pytest.mark.parametrize("peephole", [False, True])
def test_a_layer_is_made_again_from_its_configuration(peephole):
    layer = ConvLSTM2D(
        2,
        (1, 3),
        padding="same",
        return_sequences=True,
        go_backwards=True,
        recurrent_activation="hard_sigmoid",
        use_bias=False,
        peephole=peephole,
        name="memory",
    )
    again = ConvLSTM2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.peephole is peephole
    assert isinstance(again.cell, own.PeepholeConvLSTMCell) is peephole
    x = sequences()
    for each in (layer, again):
        each.build(x.shape)
        randomize(each)
    assert len(again.weights) == (3 if peephole else 2)
    assert (np.array(layer(x)) == np.array(again(x))).all()


@pytest.mark.parametrize("peephole", [False, True])
def test_a_saved_network_is_read_without_trust(tmp_path, peephole):
    x = sequences()
    inputs = keras.Input(x.shape[1:])
    y = keras.layers.Bidirectional(
        ConvLSTM2D(2, 3, padding="same", return_sequences=True, peephole=peephole)
    )(inputs)
    network = keras.Model(inputs, ConvLSTM2D(1, 1, padding="same", peephole=peephole)(y))
    randomize(network)
    path = tmp_path / "network.keras"
    network.save(path)
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    assert (np.array(loaded(x)) == np.array(network(x))).all()
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in network.layers]
    for one, two in zip(loaded.get_weights(), network.get_weights()):
        assert (one == two).all()
