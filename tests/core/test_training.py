# SPDX-License-Identifier: GPL-2.0-or-later
"""Windows, losses and the fitting loop; the loop mostly on networks small enough to be done at once."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops
from synthetic import Recorder, changed, files_in, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.metrics import mean_squared_error
from gridcast_qgis.core.models.baselines import HistoricalAverage
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster, build_network
from gridcast_qgis.core.models.losses import (
    masked_poisson_deviance,
    masked_squared_departure,
    masked_squared_error,
    published_squared_error,
    weighted_cross_entropy,
)
from gridcast_qgis.core.training.channels import Channels
from gridcast_qgis.core.training.checkpoints import Checkpoint
from gridcast_qgis.core.training.fit import Batches, FitOptions, fit_network, read_ahead, sparkline
from gridcast_qgis.core.training.splits import chronological_split
from gridcast_qgis.core.training.windows import Windows

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
]


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


def test_ten_years_of_days_are_912_gradient_steps():
    # 2011 to 2020 have 3,653 days, the first 7 of which have no full past.
    days = 3653
    cube = Cube(
        make_grid(1, 1, holes=False), make_axis(days), ("events",), np.ones((days, 1, 1, 1), np.float32)
    )
    windows = Windows(Channels(cube), np.arange(7, days), 7, 4, 1)
    assert days - 7 == 3646
    assert len(windows) == 912
    sizes = [len(target) for _, target in windows.epoch(0)]
    assert sizes == [4] * 911 + [2]
    assert next(windows.epoch(0))[0].shape == (4, 7, 1, 1, 1)


def test_an_epoch_covers_all_targets_once_in_an_order_that_seed_and_epoch_decide():
    cube = make_cube(30)
    targets = np.arange(4, 25)

    def orders(seed, epochs, batch_size=8):
        windows = Windows(Channels(cube), targets, 4, batch_size, seed)
        assert len(windows) == -(-21 // batch_size)
        found = []
        for epoch in range(epochs):
            counts = np.concatenate([target[..., 0] for _, target in windows.epoch(epoch)])
            found.append([int(np.flatnonzero((cube.total == c).all(axis=(1, 2)))[0]) for c in counts])
        return found

    assert orders(None, 2) == [list(targets)] * 2
    found = orders(1, 4)
    assert all(sorted(epoch) == list(targets) for epoch in found)
    assert len({tuple(epoch) for epoch in [*found, *orders(2, 4), list(targets)]}) == 9
    assert orders(1, 4, batch_size=5) == found
    assert orders(1, 4) == found


def test_batches_read_ahead_are_the_same_and_errors_come_through():
    def batches(last):
        yield from range(1, 4)
        last()

    assert list(read_ahead(batches(lambda: None))) == [1, 2, 3]
    stream = read_ahead(batches(lambda: 1 // 0))
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        list(stream)


def test_inputs_and_targets_belong_together():
    cube = make_cube(30)
    channels = Channels(cube, anchored=True, train_stop=25)
    windows = Windows(channels, np.arange(4, 25), 4, 8, 3)
    for inputs, target in windows.epoch(0):
        for window, its in zip(inputs, target):
            step = int(np.flatnonzero((cube.total == its[..., 0]).all(axis=(1, 2)))[0])
            assert (window == channels.maps(step - 4, step)).all()


def test_a_target_holds_count_weight_and_offset():
    cube = make_cube(30)
    channels = Channels(cube, anchored=True, train_stop=25)
    _, target = Windows(channels, np.arange(4, 25), 4, 8, None).batch(np.arange(8, 16))
    assert target.shape == (8, 6, 7, 3)
    assert target.dtype == np.float32
    assert (target[..., 0] == cube.total[12:20]).all()
    assert (target[..., 1] == cube.grid.valid).all()
    assert target[..., 2] == pytest.approx(channels.offsets(np.arange(12, 20)))


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
        published_squared_error: ((y - on * out) ** 2).mean(),
    }


#: Means over the study area.
LOSSES = (masked_poisson_deviance, masked_squared_error, masked_squared_departure)


@pytest.mark.parametrize("loss", (*LOSSES, published_squared_error), ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_their_formulas(loss, seed):
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


def test_the_published_error_shrinks_with_the_share_of_cells_outside():
    # Two cells inside, of which one is wrong by 2; six outside, without events.
    count, weight = np.zeros((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)
    weight[0, 0, :2] = 1
    count[0, 0] = [3, 1, 0, 0]
    output = np.ones((1, 2, 4, 1), np.float32)
    example = count, weight, np.zeros_like(count), output
    assert value_of(masked_squared_error, *example) == pytest.approx(4 / 2)
    assert value_of(published_squared_error, *example) == pytest.approx(4 / 8)
    # It is the corrected one times the share of valid cells, as long as nothing happens outside.
    count[0, 1, 0] = 2
    assert value_of(published_squared_error, *example) == pytest.approx((4 + 4) / 8)
    assert value_of(masked_squared_error, *example) == pytest.approx(4 / 2)


@pytest.mark.parametrize("event_weight", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("types", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_cross_entropy_by_its_formula(event_weight, types, seed):
    count, weight, offset, _ = loss_example(seed)
    random = np.random.default_rng(seed + 50)
    probability = random.beta(1, 2, (*count.shape, 1)).astype(np.float32)
    shares = random.dirichlet(np.ones(max(types, 1)), count.shape).astype(np.float32)[..., :types]
    events = random.poisson(0.3, (*count.shape, types)).astype(np.float32)
    target = np.concatenate([np.stack([count, weight, offset], axis=-1), events], axis=-1)
    output = np.concatenate([probability, shares], axis=-1)
    found = weighted_cross_entropy(event_weight)(ops.convert_to_tensor(target), ops.convert_to_tensor(output))
    total = factors = 0.0
    kinds = number = 0.0
    for place in np.ndindex(count.shape):
        if not weight[place]:
            continue
        p = float(probability[place][0])
        factor = event_weight if count[place] > 0 else 1.0
        total -= factor * np.log(p if count[place] > 0 else 1 - p)
        factors += factor
        kinds -= float((events[place] * np.log(shares[place])).sum())
        number += float(events[place].sum())
    expected = total / factors + (kinds / number if types else 0)
    assert float(ops.convert_to_numpy(found)) == pytest.approx(expected, rel=1e-5)


def test_a_certain_mistake_costs_a_finite_amount():
    target = np.array([[[[1, 1, 0, 2, 0]]], [[[0, 1, 0, 0, 0]]]], np.float32)
    output = np.array([[[[0, 0, 1]]], [[[1, 0.5, 0.5]]]], np.float32)
    loss = weighted_cross_entropy(10.0)
    value = float(ops.convert_to_numpy(loss(ops.convert_to_tensor(target), ops.convert_to_tensor(output))))
    # Probabilities end at a millionth; both events are of the type that was said to be impossible.
    assert value == pytest.approx(2 * -np.log(1e-6), rel=1e-2)


# The loop ----------------------------------------------------------------------------------------------


class Pairs(Batches):
    """Fixed inputs and targets, in their order unless there is a seed."""

    def __init__(self, x, y, batch_size=4, seed=None):
        super().__init__(len(x), batch_size, seed)
        self._x, self._y = x.astype(np.float32), y.astype(np.float32)

    def batch(self, chosen):
        return self._x[chosen], self._y[chosen]


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
    assert len(reporter.texts("info")) == 6
    assert reporter.texts("info")[0].startswith("Epoch 1 of 5: loss ")
    assert reporter.texts("info")[5].startswith("Validation loss over the epochs: ")
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


# The loop, broken off and taken up ---------------------------------------------------------------------


def deep(seed: int = 3) -> keras.Model:
    """Return a network with weights, moving averages and more than one layer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((2,))
    x = layers.Dense(3, activation="tanh")(inputs)
    x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def wave(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (count, 2))
    return x, np.sin(2 * x[:, :1]) + random.normal(0, 0.3, (count, 1))


#: A training in which the rate drops, the best epoch is not the last one, and patience ends it.
RUN = options(epochs=14, patience=4, learning_rate=0.3, seed=6)


def train_wave(network, checkpoint=None, reporter=None, run=RUN):
    return fit_network(
        network,
        squared,
        Pairs(*wave(24, 1), 5, run.seed),
        Pairs(*wave(11, 2), 4),
        run,
        reporter or Recorder(),
        checkpoint=checkpoint,
    )


def assert_same_training(one, two):
    (network, history), (other, its) = one, two
    for name in ("loss", "val_loss", "learning_rate"):
        assert history[name] == its[name], name
    assert len(history["seconds"]) == len(its["seconds"])
    for a, b in zip(network.get_weights(), other.get_weights()):
        assert a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def unbroken():
    network = deep()
    history = train_wave(network)
    best = int(np.argmin(history["val_loss"]))
    assert 0 < best < len(history["loss"]) < RUN.epochs
    assert len(set(history["learning_rate"])) > 1
    return network, history


@pytest.mark.parametrize("stop", [1, 5, 7, 9])
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(tmp_path, unbroken, stop):
    epochs = len(unbroken[1]["loss"])
    checkpoint = Checkpoint(tmp_path / "run.ckpt", "x")
    # In the middle of the epoch after this one.
    progress = (min(stop, epochs) + 0.5) / RUN.epochs * 100
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress" and event["value"] >= progress)
    if stop < epochs:
        with pytest.raises(JobCancelled):
            train_wave(deep(), checkpoint, reporter)
        assert checkpoint.read().epoch == stop
    else:
        train_wave(deep(), checkpoint, reporter)
    reporter = Recorder()
    # Other initial weights: what counts is what was saved.
    network = deep(99)
    history = train_wave(network, checkpoint, reporter)
    assert_same_training((network, history), unbroken)
    text = f"Continuing after epoch {min(stop, epochs)} of 14 of a run that was broken off."
    assert reporter.texts("info")[0] == text
    values = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert len(values) == 5 * max(epochs - stop, 0)
    assert all(value > 100 * min(stop, epochs) / 14 for value in values)
    # The caller removes the file.
    assert files_in(tmp_path) == ["run.ckpt"]


def at_the_end_of(epoch):
    return lambda event: (event.get("name"), event.get("step")) == ("loss", epoch)


def test_a_run_can_be_broken_off_again_and_again(tmp_path, unbroken):
    checkpoint = Checkpoint(tmp_path / "run.ckpt", "x")
    for stop in (2, 4, 8):
        reporter = Recorder(cancel_when=at_the_end_of(stop))
        # Only the first of them begins with its own weights.
        with pytest.raises(JobCancelled):
            train_wave(deep() if stop == 2 else deep(stop), checkpoint, reporter)
        assert checkpoint.read().epoch == stop
    network = deep(99)
    assert_same_training((network, train_wave(network, checkpoint)), unbroken)


def test_nothing_is_kept_before_the_first_epoch_ends(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.ckpt", "x")
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress")
    with pytest.raises(JobCancelled):
        train_wave(deep(), checkpoint, reporter)
    assert files_in(tmp_path) == []


def test_the_checkpoint_of_another_training_stops_the_run(tmp_path):
    path = tmp_path / "run.ckpt"
    train_wave(deep(), Checkpoint(path, "x"), run=options(epochs=1))
    with pytest.raises(InputError, match=r"^CHECKPOINT = .*belongs to a training on other data"):
        train_wave(deep(), Checkpoint(path, "y"), run=options(epochs=1))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("epochs", 0, "EPOCHS = 0: The value must be at least 1."),
        ("batch_size", 0, "BATCH_SIZE = 0: The value must be at least 1."),
        ("patience", 0, "PATIENCE = 0: The value must be at least 1."),
        ("seed", -1, "SEED = -1: The value must be at least 0."),
        (
            "learning_rate",
            0.0,
            "LEARNING_RATE = 0.0: The learning rate must lie between 0 and 1. 0.002 is a good start.",
        ),
    ],
)
def test_options_are_checked(name, value, text):
    with pytest.raises(InputError) as caught:
        options(**{name: value})
    assert caught.value.text() == text


def test_a_line_of_bars_shows_the_losses():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 1.0, 3.0]) == "█▁▅"
    assert sparkline([2.0, 2.0]) == "▁▁"


# The forecaster ----------------------------------------------------------------------------------------


def test_the_network_learns_what_an_average_cannot_know():
    # Events change sides every day.
    grid = make_grid(4, 5, holes=False)
    events = np.zeros((60, 1, 4, 5), np.float32)
    events[::2, 0, :, :2] = 2
    events[1::2, 0, :, 3:] = 2
    cube = Cube(grid, make_axis(60), ("events",), events)
    split = chronological_split(60, 2, 20)
    model = ConvLSTMForecaster(filters=4, epochs=9, batch_size=8, learning_rate=0.02, lookback=2)
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
    offsets = Channels(cube, anchored=True, train_stop=25).offsets(np.array([5, 6, 7]))
    rate = model._rate(np.zeros((3, 6, 7), np.float32), offsets)
    assert rate == pytest.approx(np.exp(offsets), rel=1e-6)
