# SPDX-License-Identifier: GPL-2.0-or-later
"""Windows, losses and the fitting loop; the loop mostly on networks small enough to be done at once."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops
from synthetic import Recorder, changed, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.metrics import mean_squared_error
from gridcast_qgis.core.models.baselines import HistoricalAverage
from gridcast_qgis.core.models.convlstm import (
    ConvLSTMForecaster,
    build_network,
    masked_poisson_deviance,
    masked_squared_departure,
    masked_squared_error,
)
from gridcast_qgis.core.training.fit import FitOptions, fit_network
from gridcast_qgis.core.training.splits import chronological_split
from gridcast_qgis.core.training.windows import StepInputs, WindowDataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


# The network of the paper ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "parameters"), [(3, 3_551_489), (1, 397_569)])
def test_the_network_has_as_many_parameters_as_the_papers(kernel, parameters):
    network = build_network(5, 4, 1, filters=128, kernel=kernel)
    assert network.count_params() == parameters
    assert network.input_shape == (None, 7, 5, 4, 1)
    assert network.output_shape == (None, 5, 4, 1)


def test_the_network_has_two_stacks_of_two_layers():
    network = build_network(5, 4, 3, lookback=6, filters=2)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("ConvLSTM2D") == 4
    assert kinds.count("BatchNormalization") == 2
    assert kinds.count("Concatenate") == 1
    assert network.get_layer("output").kernel_size == (1, 1)
    assert network.get_layer("output").activation is keras.activations.linear
    assert network.get_layer("a_1").activation is keras.activations.tanh


# Windows -----------------------------------------------------------------------------------------------


def test_a_window_holds_the_steps_before_its_target():
    cube = make_cube(30)
    inputs = StepInputs(cube, False, None, 20)
    assert inputs.channels == 1
    window = inputs.window(np.array([5, 9, 30]), 4)
    assert window.shape == (3, 4, 6, 7, 1)
    assert window.dtype == np.float32
    for i, target in enumerate([5, 9, 30]):
        assert (window[i, ..., 0] == cube.total[target - 4 : target]).all()


def test_anchored_inputs_know_the_calendar_of_their_target_and_the_share_of_each_cell():
    cube = make_cube(30)
    inputs = StepInputs(cube, True, None, 20)
    window = inputs.window(np.array([10]), 3)
    assert inputs.channels == 3 + 1 + 1 + cube.axis.calendar.shape[1]
    assert (window[0, -1, 2, 3, -4:] == cube.axis.calendar[10]).all()
    assert (window[0, :, :, :, 3] == cube.grid.inside).all()
    assert np.isfinite(window).all()
    assert (window[:, :, ~cube.grid.valid, :3] == 0).all()


@pytest.mark.parametrize("anchored", [True, False])
def test_scaling_and_windows_are_fitted_on_training_steps_only(anchored):
    cube = make_cube(40)
    events = cube.events.copy()
    events[25:] = 50 * cube.grid.valid
    other = changed(cube, events)
    one, two = (StepInputs(c, anchored, None, 25) for c in (cube, other))
    assert one.scaling == two.scaling
    targets = np.arange(5, 26)
    assert (one.window(targets, 3) == two.window(targets, 3)).all()
    assert (one.offsets(targets) == two.offsets(targets)).all()
    # Standardised on the training steps.
    if anchored:
        counts = one._maps[0][:25, cube.grid.valid]
        assert counts.mean() == pytest.approx(0, abs=1e-4)
        assert counts.std() == pytest.approx(1, abs=1e-3)


def test_batches_cover_all_targets_once_in_an_order_that_the_seed_decides():
    cube = make_cube(30)
    inputs = StepInputs(cube, False, None, 25)
    targets = np.arange(4, 25)

    def order(seed, epochs=1):
        data = WindowDataset(inputs, targets, 4, 8, seed)
        for _ in range(epochs):
            data.on_epoch_begin()
        assert len(data) == 3
        counts = np.concatenate([data[i][1][..., 0] for i in range(len(data))])
        return [int(np.flatnonzero((cube.total[4:25] == c).all(axis=(1, 2)))[0]) for c in counts]

    assert order(None) == list(range(21))
    assert sorted(order(1)) == list(range(21))
    assert order(1) == order(1) != order(2)
    assert order(1, epochs=2) != order(1)


def test_a_target_holds_count_weight_and_offset():
    cube = make_cube(30)
    inputs = StepInputs(cube, True, None, 25)
    _, target = WindowDataset(inputs, np.arange(4, 25), 4, 8, None)[1]
    assert target.shape == (8, 6, 7, 3)
    assert (target[..., 0] == cube.total[12:20]).all()
    assert (target[..., 1] == cube.grid.valid).all()
    assert target[..., 2] == pytest.approx(inputs.offset[12:20])


# Losses ------------------------------------------------------------------------------------------------


def loss_example(seed=0):
    random = np.random.default_rng(seed)
    count = random.poisson(0.8, (3, 4, 5)).astype(np.float32)
    weight = (random.random((3, 4, 5)) < 0.6).astype(np.float32)
    offset = random.normal(-1, 1, (3, 4, 5)).astype(np.float32)
    output = random.normal(0, 1, (3, 4, 5, 1)).astype(np.float32)
    return count, weight, offset, output


def value_of(loss, count, weight, offset, output) -> float:
    target = np.stack([count, weight, offset], axis=-1)
    return float(ops.convert_to_numpy(loss(ops.convert_to_tensor(target), ops.convert_to_tensor(output))))


def formulas(count, weight, offset, output):
    y, on = count.astype(float), weight > 0
    out, off = output[..., 0].astype(float), offset.astype(float)
    rate = np.exp(off + out)
    deviance = 2 * (np.where(y > 0, y * np.log(np.maximum(y, 1) / rate), 0) - y + rate)
    return {
        masked_poisson_deviance: deviance[on].mean(),
        masked_squared_error: ((y - out) ** 2)[on].mean(),
        masked_squared_departure: ((y - np.exp(off) - out) ** 2)[on].mean(),
    }


LOSSES = (masked_poisson_deviance, masked_squared_error, masked_squared_departure)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_means_over_valid_cells(loss, seed):
    example = loss_example(seed)
    assert value_of(loss, *example) == pytest.approx(formulas(*example)[loss], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_masked_cells_have_no_say(loss):
    count, weight, offset, output = loss_example()
    off = weight == 0
    expected = value_of(loss, count, weight, offset, output)
    other = np.where(off, 99, count), weight, np.where(off, 3, offset), np.where(off[..., None], -7, output)
    assert value_of(loss, *(np.asarray(a, np.float32) for a in other)) == pytest.approx(expected, rel=1e-6)
    assert value_of(loss, count, np.zeros_like(weight), offset, output) == 0


def test_wild_rates_stay_finite():
    count, weight, offset, output = loss_example()
    for extreme in (-1e6, 1e6):
        assert np.isfinite(value_of(masked_poisson_deviance, count, weight, offset, output + extreme))


def test_a_perfect_rate_has_no_deviance():
    count = np.full((1, 2, 2), 3, np.float32)
    output = np.full((1, 2, 2, 1), np.log(3), np.float32)
    zero = np.zeros_like(count)
    assert value_of(masked_poisson_deviance, count, zero + 1, zero, output) == pytest.approx(0, abs=1e-5)


# The loop ----------------------------------------------------------------------------------------------


class Pairs(keras.utils.PyDataset):
    """Fixed batches of inputs and targets."""

    def __init__(self, x, y, batch_size=4):
        super().__init__()
        self._x, self._y, self._size = x.astype(np.float32), y.astype(np.float32), batch_size

    def __len__(self):
        return -(-len(self._x) // self._size)

    def __getitem__(self, index):
        part = slice(index * self._size, (index + 1) * self._size)
        return self._x[part], self._y[part]


def line(start: float = 0.0) -> keras.Model:
    """Return a network that can do nothing but multiply by its one weight."""
    inputs = keras.Input((1,))
    network = keras.Model(inputs, layers.Dense(1, use_bias=False)(inputs))
    network.set_weights([np.array([[start]], np.float32)])
    return network


def squared(target, output):
    return ops.mean((target - output) ** 2)


X = np.linspace(0.5, 1.5, 12)[:, None]
#: Training says the weight is 2 ...
TRAIN = Pairs(X, 2 * X)


def options(**changes) -> FitOptions:
    return FitOptions(
        **{"epochs": 30, "batch_size": 4, "learning_rate": 0.1, "patience": 4, "seed": 1, **changes}
    )


def weight_of(network: keras.Model) -> float:
    return float(network.get_weights()[0][0, 0])


def test_the_loop_learns_and_reports():
    network, reporter = line(), Recorder()
    history = fit_network(network, squared, TRAIN, Pairs(X, 2 * X), options(epochs=5), reporter)
    assert [len(history[key]) for key in ("loss", "val_loss", "learning_rate", "seconds")] == [5, 6, 5, 5]
    assert history["val_loss"][-1] < 0.2 * history["val_loss"][0]
    assert reporter.values("val_loss") == history["val_loss"]
    assert reporter.values("loss") == history["loss"]
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(100)
    assert len(reporter.texts("info")) == 5
    assert reporter.texts("info")[0].startswith("Epoch 1 of 5: loss ")
    assert reporter.texts() == []


def test_training_stops_early_and_goes_back_to_the_best_epoch():
    # ... but validation says 1: the best weight lies on the way.
    network, validation = line(), Pairs(X, X)
    history = fit_network(network, squared, TRAIN, validation, options(patience=3), Recorder())
    best = int(np.argmin(history["val_loss"]))
    assert 0 < best < len(history["val_loss"]) - 1
    assert len(history["loss"]) == best + 3 < 30
    weight = weight_of(network)
    assert np.mean((X - weight * X) ** 2) == pytest.approx(history["val_loss"][best], rel=1e-4)


def test_the_best_epoch_is_kept_even_if_training_ends_before_patience_does():
    network, validation = line(), Pairs(X, X)
    history = fit_network(network, squared, TRAIN, validation, options(epochs=9, patience=50), Recorder())
    best = min(history["val_loss"])
    assert history["val_loss"][-1] > best
    assert np.mean((X - weight_of(network) * X) ** 2) == pytest.approx(best, rel=1e-4)


def test_the_learning_rate_drops_when_the_validation_loss_stands_still():
    history = fit_network(
        line(), squared, TRAIN, Pairs(X, X), options(epochs=12, patience=6, learning_rate=0.2), Recorder()
    )
    rates = history["learning_rate"]
    assert rates[0] == pytest.approx(0.2)
    assert min(rates) == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    # Half of the patience after the best epoch.
    best = int(np.argmin(history["val_loss"]))
    assert rates[best + 3] == pytest.approx(0.1)


def test_an_untrained_network_that_is_better_comes_back():
    network, reporter = line(1.0), Recorder()
    history = fit_network(network, squared, TRAIN, Pairs(X, X), options(epochs=3), reporter)
    assert history["val_loss"][0] == pytest.approx(0, abs=1e-12)
    assert weight_of(network) == 1.0
    assert reporter.texts() == [
        "Training did not improve on the untrained network; its initial weights are kept."
    ]


@pytest.mark.parametrize(
    "target", [np.where(X > 1.4, np.nan, X), np.where(X > 1.4, np.inf, X)], ids=["nan", "infinite"]
)
def test_a_loss_that_is_no_number_names_the_learning_rate(target):
    with pytest.raises(InputError) as caught:
        fit_network(line(), squared, Pairs(X, target), Pairs(X, X), options(), Recorder())
    text = caught.value.text()
    assert text.startswith("LEARNING_RATE = 0.1: Training diverged in epoch 1: the loss is ")
    assert text.endswith("Choose a smaller learning rate.")


def test_weights_ruined_by_the_very_last_batch_are_noticed():
    # The loss of the only batch is finite, the step it leads to is not.
    def steep(target, output):
        return ops.mean(ops.sqrt(ops.maximum(output - target, 0.0)))

    x = np.zeros((4, 1))
    with pytest.raises(InputError, match=r"^LEARNING_RATE = 0.1: Training diverged in epoch 1"):
        fit_network(line(), steep, Pairs(x, x), Pairs(x + 1, x), options(epochs=1), Recorder())


@pytest.mark.parametrize("moment", ["before", "batch", "epoch"])
def test_a_cancelled_loop_stops_at_the_next_batch(moment):
    reporter = Recorder(
        cancel_when={
            "before": lambda event: False,
            "batch": lambda event: event["event"] == "progress",
            "epoch": lambda event: event["event"] == "message",
        }[moment]
    )
    if moment == "before":
        reporter.cancel()
    with pytest.raises(JobCancelled):
        fit_network(line(), squared, TRAIN, Pairs(X, X), options(), reporter)
    progress = [event for event in reporter.events if event["event"] == "progress"]
    assert len(progress) == {"before": 0, "batch": 1, "epoch": 3}[moment]


# The forecaster ----------------------------------------------------------------------------------------


def test_the_network_learns_what_an_average_cannot_know():
    # Events change sides every day.
    grid = make_grid(4, 5, holes=False)
    events = np.zeros((60, 1, 4, 5), np.float32)
    events[::2, 0, :, :2] = 2
    events[1::2, 0, :, 3:] = 2
    cube = Cube(grid, make_axis(60), ("events",), events)
    split = chronological_split(60, 2, 20)
    model = ConvLSTMForecaster(filters=4, epochs=7, batch_size=8, learning_rate=0.02, lookback=2)
    model.fit(cube, split, Recorder())
    period = slice(split.validation_start, split.validation_stop)
    observed = cube.total[period]
    own, average = (
        mean_squared_error(observed, m.predict_next(cube, period.start, period.stop), grid.valid)
        for m in (model, HistoricalAverage())
    )
    assert own < 0.3 * average


@pytest.mark.filterwarnings("ignore:Even though:UserWarning")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("form", ["poisson", "linear"])
@pytest.mark.parametrize("base_rate", [True, False], ids=["base rate", "raw counts"])
def test_every_form_of_the_output_is_a_count(form, base_rate):
    cube = make_cube(30)
    model = ConvLSTMForecaster(
        filters=2, epochs=1, batch_size=64, lookback=2, output_form=form, base_rate=base_rate
    )
    model.fit(cube, chronological_split(30, 2, 15), Recorder())
    assert model.network_.input_shape[-1] == (9 if base_rate else 1)
    valid = cube.grid.valid
    expected = model.predict_next(cube, 25, 31)
    assert np.isfinite(expected[:, valid]).all()
    assert (expected[:, valid] >= 0).all()
    events = cube.events.copy()
    events[:, :, ~valid] = 30
    noisy = model.predict_next(changed(cube, events), 25, 31)
    assert noisy == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("form", ["poisson", "linear"])
def test_an_untrained_network_starts_at_the_rate_it_departs_from(form):
    cube = make_cube(30)
    model = ConvLSTMForecaster(filters=2, lookback=2, output_form=form)
    inputs = StepInputs(cube, True, None, 25)
    output = np.zeros((3, 6, 7), np.float32)
    rate = model._rate(output, inputs.offsets(np.array([5, 6, 7])))
    assert rate == pytest.approx(np.exp(inputs.offset[5:8]), rel=1e-6)
