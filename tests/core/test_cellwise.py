# SPDX-License-Identifier: GPL-2.0-or-later
"""Distinct histories of cells, and the network computed once per history, which is that network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import Recorder, make_cube

from gridcast_qgis.core.models.cellwise import CellwiseTwoStacks
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster, build_network
from gridcast_qgis.core.models.losses import masked_poisson_deviance
from gridcast_qgis.core.training import histories
from gridcast_qgis.core.training.channels import Channels
from gridcast_qgis.core.training.fit import FitOptions, fit_network
from gridcast_qgis.core.training.histories import HistoryTree
from gridcast_qgis.core.training.splits import chronological_split
from gridcast_qgis.core.training.windows import DistinctHistories, Windows, tree_inputs

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
]


# The tree ----------------------------------------------------------------------------------------------


def check_tree(tree: HistoryTree, steps: np.ndarray) -> None:
    """Assert that a tree holds the distinct ones of these histories, and which cell has which."""
    length, cells = steps.shape[:2]
    assert len(tree.values) == len(tree.parents) == len(tree.counts) == length
    for t in range(length):
        pasts = np.moveaxis(steps[: t + 1], 0, 1).reshape(cells, -1) + 0.0
        assert len(tree.values[t]) == len(np.unique(pasts, axis=0))
        assert tree.values[t].dtype == np.float32
        assert tree.parents[t].dtype == np.int32
        assert tree.counts[t].dtype == np.float32
        assert tree.counts[t].sum() == cells
    # From the leaf of each cell back to the root lies its own history.
    node, found = tree.leaf, []
    for t in reversed(range(length)):
        own = np.bincount(node, minlength=len(tree.counts[t]))
        assert (own == tree.counts[t]).all()
        found.append(tree.values[t][node])
        node = tree.parents[t][node]
    assert not node.any()
    assert (np.stack(found[::-1]) == steps).all()


@settings(deadline=None)
@given(
    length=st.integers(1, 6),
    cells=st.integers(1, 40),
    channels=st.integers(1, 3),
    most=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_a_tree_holds_the_distinct_histories(length, cells, channels, most, seed):
    steps = np.random.default_rng(seed).integers(0, most + 1, (length, cells, channels)).astype(np.float32)
    check_tree(HistoryTree.of(steps), steps)


@pytest.mark.parametrize("channels", [1, 2])
def test_histories_whose_keys_fall_together_are_told_apart(monkeypatch, channels):
    # With this factor only the last channel would count.
    monkeypatch.setattr(histories, "_MULTIPLIER", np.uint64(0))
    steps = np.random.default_rng(0).integers(0, 3, (4, 60, channels)).astype(np.float32)
    check_tree(HistoryTree.of(steps), steps)


def test_a_negative_zero_is_a_zero():
    steps = np.array([[[0.0], [-0.0], [1.0]]], np.float32)
    tree = HistoryTree.of(steps)
    assert len(tree.values[0]) == 2
    assert tree.leaf[0] == tree.leaf[1] != tree.leaf[2]


def test_values_that_hardly_differ_are_told_apart():
    one = np.float32(1)
    steps = np.array([[[one], [np.nextafter(one, np.float32(2))], [-one], [np.float32(1e-45)]]])
    check_tree(HistoryTree.of(steps), steps)


def test_quiet_cells_make_a_small_tree():
    cube = make_cube(60, 30, 30, mean=0.05)
    window = Channels(cube).window(np.array([20, 40]), 7)
    inputs = tree_inputs(window)
    assert inputs["cells"].shape == (2, 30 * 30)
    assert len(inputs["values_6"]) < 200
    sizes = [len(inputs[f"values_{t}"]) for t in range(7)]
    assert sizes == sorted(sizes)


# The network -------------------------------------------------------------------------------------------

#: Rows, columns, filters, lookback.
ROWS, COLUMNS, FILTERS, LOOKBACK = 6, 7, 3, 4


def example(anchored: bool = False, names: tuple[str, ...] = ()) -> tuple[Channels, int]:
    """Return what a network sees of a cube that has cells outside, and how many channels that is."""
    cube = make_cube(40, ROWS, COLUMNS, mean=0.5)
    channels = Channels(cube, names, anchored=anchored, train_stop=30)
    return channels, channels.count


def network_and_twin(channels: int, seed: int = 0) -> tuple[keras.Model, keras.Model]:
    """Return two networks with the same weights, all of them different."""
    pair = [
        build_network(ROWS, COLUMNS, channels, lookback=LOOKBACK, filters=FILTERS, kernel=1) for _ in range(2)
    ]
    random = np.random.default_rng(seed)
    # Moving variances are positive.
    weights = [np.abs(random.normal(0.1, 0.5, w.shape)).astype(np.float32) for w in pair[0].get_weights()]
    weights = [
        w if "variance" in v.path else w * random.choice([-1, 1], w.shape)
        for v, w in zip(pair[0].weights, weights)
    ]
    for network in pair:
        network.set_weights(weights)
    return pair[0], pair[1]


CHANNELS = pytest.mark.parametrize(
    ("anchored", "names"),
    [(False, ()), (False, ("season", "weekday")), (True, ())],
    ids=["counts", "calendar", "anchored"],
)


@CHANNELS
@pytest.mark.parametrize("training", [False, True])
def test_outputs_gradients_and_statistics_are_those_of_the_network(anchored, names, training):
    seen, count = example(anchored, names)
    network, twin = network_and_twin(count)
    shared = CellwiseTwoStacks(twin)
    targets = np.array([7, 19, 20])
    x, target = Windows(seen, targets, LOOKBACK, 3, None).batch(np.arange(3))
    tree, same_target = DistinctHistories(seen, targets, LOOKBACK, 3, None).batch(np.arange(3))
    assert (target == same_target).all()
    assert (target[..., 1] == 0).any()
    found = []
    for model, inputs, weights in ((network, x, network), (shared, tree, twin)):
        before = [np.array(v) for v in weights.non_trainable_weights]
        with tf.GradientTape() as tape:
            output = model(inputs, training=training)
            loss = masked_poisson_deviance(target, output)
        gradients = tape.gradient(loss, [v.value for v in weights.trainable_variables])
        after = [np.array(v) for v in weights.non_trainable_weights]
        changed = [not np.array_equal(*pair) for pair in zip(before, after)]
        assert sum(changed) == (4 if training else 0)
        found.append([np.array(output), np.array(loss), *map(np.array, gradients), *after])
    for one, two in zip(*found):
        assert one.shape == two.shape
        assert two == pytest.approx(one, abs=2e-5, rel=1e-4)
    # A gradient that is 0 would be equal to anything that is not computed.
    assert all(np.abs(value).max() > 0 for value in found[0])


def test_the_twin_has_no_weights_of_its_own():
    network, _ = network_and_twin(1)
    shared = CellwiseTwoStacks(network)
    inputs = shared.inputs()
    trainer = keras.Model(inputs, shared(inputs))
    assert [v.path for v in trainer.trainable_variables] == [v.path for v in network.trainable_variables]
    assert {id(v) for v in trainer.variables} == {id(v) for v in network.variables}
    assert trainer.output_shape == (None, ROWS, COLUMNS, 1)


def test_training_makes_the_same_network(eager):
    seen, count = example(anchored=True)
    network, twin = network_and_twin(count)
    shared = CellwiseTwoStacks(twin)
    inputs = shared.inputs()
    train, validation = np.arange(LOOKBACK, 30), np.arange(34, 40)
    options = FitOptions(epochs=2, batch_size=8, learning_rate=0.005, patience=9, seed=4)
    results = []
    for batches, model, trainer in (
        (Windows, network, None),
        (DistinctHistories, twin, keras.Model(inputs, shared(inputs))),
    ):
        results.append(
            fit_network(
                model,
                masked_poisson_deviance,
                batches(seen, train, LOOKBACK, 8, 4),
                batches(seen, validation, LOOKBACK, 8, None),
                options,
                Recorder(),
                trainer=trainer,
            )
        )
    for name in ("loss", "val_loss"):
        assert results[1][name] == pytest.approx(results[0][name], rel=1e-4)
    assert len(set(results[0]["val_loss"])) == 3
    for one, two in zip(network.get_weights(), twin.get_weights()):
        assert two == pytest.approx(one, abs=1e-3)


def test_a_forecast_is_that_of_the_network(eager):
    cube = make_cube(40)
    model = ConvLSTMForecaster(
        kernel=1, filters=2, epochs=1, lookback=3, batch_size=16, learning_rate=0.01
    ).fit(cube, chronological_split(40, 3, 15), Recorder())
    targets = np.arange(30, 41)
    channels = Channels(cube, anchored=True, scaling=model.scaling_)
    output = np.array(model.network_(channels.window(targets, 3), training=False))[..., 0]
    expected = np.exp(channels.offsets(targets) + output)
    expected[:, ~cube.grid.valid] = np.nan
    assert model.predict_next(cube, 30, 41) == pytest.approx(expected, rel=1e-5, nan_ok=True)
