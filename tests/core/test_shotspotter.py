# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of the ShotSpotter report: its layers, its weights of events, its probabilities and types."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from synthetic import Recorder, changed, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.models import shotspotter
from gridcast_qgis.core.models.layers import ConvLSTM2D, PeepholeConvLSTMCell
from gridcast_qgis.core.models.shotspotter import ShotSpotterForecaster, build_network
from gridcast_qgis.core.training.calibration import Calibration
from gridcast_qgis.core.training.splits import Split, chronological_split

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
]

SMALL = {"width": 0.2, "epochs": 1, "batch_size": 16, "lookback": 3, "learning_rate": 0.01}


# The network -------------------------------------------------------------------------------------------

#: Kind, filters and kernel of each layer of the report, in its order.
LAYERS = [
    ("BatchNormalization",),
    ("Conv3D", 8, (1, 5, 5), "relu"),
    ("Conv3D", 8, (3, 3, 3), "relu"),
    ("BatchNormalization",),
    ("Bidirectional", 16, (3, 3)),
    ("BatchNormalization",),
    ("MaxPooling3D",),
    ("Bidirectional", 32, (3, 3)),
    ("BatchNormalization",),
    ("MaxPooling3D",),
    ("MaxPooling3D",),
    ("Conv3D", 8, (1, 3, 3), "relu"),
    ("Conv3D", 1, (1, 1, 1), "sigmoid"),
]


def description(layer: keras.layers.Layer) -> tuple:
    kind = type(layer).__name__
    if kind == "Conv3D":
        assert layer.padding == "same" or layer.kernel_size == (1, 1, 1)
        return kind, layer.filters, layer.kernel_size, layer.activation.__name__
    if kind == "Bidirectional":
        for way in (layer.forward_layer, layer.backward_layer):
            assert isinstance(way, ConvLSTM2D)
            assert way.return_sequences
            assert way.padding == "same"
            assert way.activation is keras.activations.tanh
        assert layer.backward_layer.go_backwards
        assert layer.merge_mode == "concat"
        return kind, layer.forward_layer.filters, layer.forward_layer.kernel_size
    if kind == "MaxPooling3D":
        assert layer.pool_size == (2, 1, 1)
    return (kind,)


@pytest.mark.parametrize("lookback", [7, 8])
def test_the_layers_are_those_of_the_report(lookback):
    network = build_network(36, 36, 1, lookback=lookback)
    inner = [layer for layer in network.layers if type(layer).__name__ not in ("InputLayer", "Reshape")]
    assert [description(layer) for layer in inner] == LAYERS
    frames = [layer.output.shape[1] for layer in inner if type(layer).__name__ == "MaxPooling3D"]
    assert frames == [4, 2, 1]
    # Space is never pooled.
    assert all(layer.output.shape[2:4] == (36, 36) for layer in inner)
    assert network.input_shape == (None, lookback, 36, 36, 1)
    assert network.output_shape == (None, 36, 36, 1)


@pytest.mark.parametrize(
    ("lookback", "frames"),
    [(1, [1, 1]), (2, [1, 1]), (3, [2, 1]), (4, [2, 1]), (5, [3, 2, 1]), (9, [5, 3, 2, 1])],
)
def test_any_number_of_frames_becomes_one(lookback, frames):
    network = build_network(3, 4, 2, lookback=lookback, width=0.2)
    pooled = [layer.output.shape[1] for layer in network.layers if "pool" in layer.name]
    assert pooled == frames
    assert network.output_shape == (None, 3, 4, 1)


def weights_of_recurrent(channels: int, filters: int, places: int = 0) -> int:
    """Return the weights of a bidirectional layer with 3 x 3 kernels and peepholes at so many places."""
    return 2 * (9 * (channels + filters) * 4 * filters + 4 * filters + 3 * places * filters)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("peephole", [False, True])
def test_the_width_multiplies_the_filters(width, peephole):
    network = build_network(5, 6, 3, width=width, peephole=peephole)
    a, b, c, d = (round(count * width) for count in (8, 16, 32, 8))
    places = 30 if peephole else 0
    convolutions = (25 * 3 * a + a) + (27 * a * a + a) + (9 * 2 * c * d + d) + (d + 1)
    recurrent = weights_of_recurrent(a, b, places) + weights_of_recurrent(2 * b, c, places)
    assert network.count_params() == convolutions + recurrent + 4 * (3 + a + 2 * b + 2 * c)


def test_no_width_leaves_a_layer_without_filters():
    network = build_network(3, 3, 1, width=0.01)
    assert {layer.filters for layer in network.layers if type(layer).__name__ == "Conv3D"} == {1}


@pytest.mark.parametrize("peephole", [False, True])
def test_peepholes_are_in_both_ways_of_both_layers(peephole):
    network = build_network(3, 4, 1, width=0.2, peephole=peephole)
    cells = [
        way.cell
        for name in ("recurrent_1", "recurrent_2")
        for way in (network.get_layer(name).forward_layer, network.get_layer(name).backward_layer)
    ]
    assert [isinstance(cell, PeepholeConvLSTMCell) for cell in cells] == [peephole] * 4


def test_types_are_shares_beside_the_probability():
    network = build_network(4, 5, 2, lookback=4, width=0.3, types=3)
    random = np.random.default_rng(0)
    network.set_weights([np.abs(random.normal(0.2, 0.3, w.shape)) for w in network.get_weights()])
    window = random.normal(0, 1, (2, 4, 4, 5, 2)).astype(np.float32)
    output = np.array(network(window))
    assert output.shape == (2, 4, 5, 4)
    assert ((output >= 0) & (output <= 1)).all()
    assert output[..., 1:].sum(axis=-1) == pytest.approx(np.ones((2, 4, 5)), abs=1e-5)
    assert output.std(axis=(0, 1, 2)).min() > 0


# Weights of events, beginnings -------------------------------------------------------------------------


def sparse_cube(steps: int = 60, seed: int = 0) -> Cube:
    """Return a cube in which few cells have events, each a constant place of risk."""
    random = np.random.default_rng(seed)
    cube = make_cube(steps, types=("single", "multiple", "(other)"))
    chance = np.where(random.random(cube.grid.shape) < 0.2, 0.25, 0.01) * cube.grid.valid
    return changed(cube, random.random(cube.events.shape) < chance)


@pytest.mark.parametrize(
    ("cells_with", "expected"),
    [(0, 100.0), (1, 100.0), (40, 900 / 40 - 1), (450, 1.0), (600, 1.0), (900, 1.0)],
)
def test_the_automatic_weight(cells_with, expected):
    # 30 training steps of 30 cells.
    cube = make_cube(40, 5, 6, types=("a",), holes=False)
    events = np.zeros_like(cube.events)
    events[5:35].reshape(-1)[np.random.default_rng(1).permutation(900)[:cells_with]] = 3
    # Other steps do not matter.
    events[35:] = 1
    assert shotspotter._automatic_weight(changed(cube, events), np.arange(5, 35)) == pytest.approx(expected)


def test_cells_outside_have_no_say_in_the_weight():
    cube = sparse_cube()
    noisy = cube.events.copy()
    noisy[:, :, ~cube.grid.valid] = 1
    train = np.arange(3, 50)
    weight = shotspotter._automatic_weight(cube, train)
    assert 1 < weight < 100
    assert shotspotter._automatic_weight(changed(cube, noisy), train) == weight


@pytest.mark.parametrize("event_weight", [0.0, 1.0, 10.0])
def test_the_untrained_network_says_the_average(eager, monkeypatch, event_weight):
    cube = sparse_cube()
    heads = {}

    def look(network, loss, train, validation, options, reporter, **kwargs):
        heads["event"] = float(network.get_layer("event").bias[0])
        heads["types"] = np.array(network.get_layer("types").bias)
        return {"loss": [], "val_loss": [1.0], "learning_rate": [], "seconds": []}

    monkeypatch.setattr(shotspotter, "fit_network", look)
    model = ShotSpotterForecaster(**SMALL, type_head=True, event_weight=event_weight)
    split = chronological_split(60, 3, 15)
    model.fit(cube, split, Recorder())
    steps = slice(split.train_start, split.train_stop)
    share = (cube.total[steps][:, cube.grid.valid] > 0).mean()
    weight = event_weight or (1 - share) / share
    assert model.event_weight_ == pytest.approx(weight)
    assert heads["event"] == pytest.approx(np.log(weight * share / (1 - share)), abs=1e-4)
    counts = cube.events[steps].sum(axis=(0, 2, 3))[:2] + 1
    assert np.exp(heads["types"]) == pytest.approx(counts / counts.sum(), rel=1e-4)


# What it forecasts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(eager):
    """A model for each way to calibrate, with one network for all of them."""
    cube = sparse_cube(100)
    split = chronological_split(100, 3, 30)
    first = ShotSpotterForecaster(**SMALL, calibrate="none").fit(cube, split, Recorder())
    models = {"none": first}
    for form in ("platt", "isotonic"):
        other = ShotSpotterForecaster.restore({**first.settings_dict(), "calibrate": form}, first.state())
        other._calibrate(cube, np.arange(split.validation_start, split.validation_stop), Recorder())
        models[form] = other
    return cube, split, models


@pytest.mark.parametrize("form", ["platt", "isotonic"])
def test_calibration_makes_up_for_the_weight_of_events(fitted, form):
    cube, split, models = fitted
    start, stop = split.validation_start, split.validation_stop
    valid = cube.grid.valid
    happened = (cube.total[start:stop] > 0)[:, valid].mean()
    plain, calibrated = (models[f].predict_next(cube, start, stop) for f in ("none", form))
    assert models["none"].event_weight_ > 5
    assert plain[:, valid].mean() > 2 * happened
    assert calibrated[:, valid].mean() == pytest.approx(happened, abs=0.02)
    # The curve is that of the network's own outputs on the validation steps.
    outcome = (cube.total[start:stop] > 0)[:, valid].ravel()
    curve = Calibration.fit(form, plain[:, valid].ravel(), outcome)
    assert curve.apply(plain) == pytest.approx(calibrated, abs=1e-5, nan_ok=True)


def test_platt_keeps_the_order_of_cells(fitted):
    cube, _, models = fitted
    plain, calibrated = (models[f].predict_next(cube, 90, 91)[0][cube.grid.valid] for f in ("none", "platt"))
    assert (np.argsort(plain, kind="stable") == np.argsort(calibrated, kind="stable")).all()


@pytest.mark.parametrize("events", [0.0, 1.0], ids=["nowhere", "everywhere"])
def test_validation_steps_that_teach_nothing_are_told(eager, events):
    cube = sparse_cube()
    split = chronological_split(60, 3, 15)
    counts = cube.events.copy()
    counts[split.validation_start :] = events * cube.grid.valid
    reporter = Recorder()
    cube = changed(cube, counts)
    model = ShotSpotterForecaster(**SMALL).fit(cube, split, reporter)
    assert [text for text in reporter.texts() if "calibrated" in text] == [
        "The validation steps hold events everywhere or nowhere: the probabilities could not be "
        "calibrated on them and are corrected for the weight of events only."
    ]
    # An event that counts w times has w times the odds.
    weight = model.event_weight_
    assert weight > 5
    output = model._outputs(cube, 50, 60)[..., 0][:, cube.grid.valid].astype(float)
    odds = output / (1 - output) / weight
    said = model.predict_next(cube, 50, 60)[:, cube.grid.valid]
    assert said == pytest.approx(odds / (1 + odds), rel=1e-3)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_probability_stands_for_a_poisson_count(probability):
    model = ShotSpotterForecaster()
    expected = model.expected_events(np.array([probability], np.float32))
    assert np.isfinite(expected).all()
    assert 1 - np.exp(-expected) == pytest.approx(probability, abs=2e-4)
    assert model.probability(np.array([probability])) == pytest.approx(probability)


# Types -------------------------------------------------------------------------------------------------


@pytest.fixture
def in_graphs():
    """Run networks as graphs, whatever the other tests do: many steps of them are faster so."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(before)


@pytest.mark.slow
def test_the_network_learns_where_events_are_and_of_which_type(in_graphs):
    # Events change sides every day; in the north it is always one type, in the south the other.
    grid = make_grid(4, 6)
    west, north = np.arange(6) < 3, np.arange(4) < 2
    events = np.zeros((150, 3, 4, 6), np.float32)
    events[::2, 0] = north[:, None] & west
    events[1::2, 0] = north[:, None] & ~west
    events[::2, 2] = ~north[:, None] & west
    events[1::2, 2] = ~north[:, None] & ~west
    cube = Cube(grid, make_axis(150), ("single", "(other)", "multiple"), events * grid.valid)
    split = chronological_split(150, 3, 20)
    model = ShotSpotterForecaster(
        width=0.5, epochs=14, batch_size=16, lookback=3, learning_rate=0.02, type_head=True, peephole=True
    ).fit(cube, split, Recorder())
    start, stop = split.validation_start, split.validation_stop
    said = model.predict_next(cube, start, stop)[:, grid.valid]
    happened = cube.total[start:stop][:, grid.valid] > 0
    assert said[happened].mean() > 0.8
    assert said[~happened].mean() < 0.2
    # What is no type is none that can be forecast.
    assert model.type_names == ("single", "multiple")
    shares = model.predict_types(cube, 140, 151)
    assert shares.shape == (11, 2, 4, 6)
    assert shares.dtype == np.float32
    assert (np.isnan(shares) == ~grid.valid).all()
    assert shares.sum(axis=1)[:, grid.valid] == pytest.approx(1, abs=1e-5)
    seen = np.isfinite(shares) & (cube.events[139:150].sum(axis=(0, 1)) > 0)
    assert np.nanmean(shares[:, 0, north], where=seen[:, 0, north]) > 0.8
    assert np.nanmean(shares[:, 1, ~north], where=seen[:, 1, ~north]) > 0.8
    # Several steps ahead the first one is the same.
    ahead = model.forecast_types(cube, 150, 3)
    assert ahead.shape == (3, 2, 4, 6)
    assert ahead[0] == pytest.approx(shares[10], abs=1e-5, nan_ok=True)
    assert ahead.sum(axis=1)[:, grid.valid] == pytest.approx(1, abs=1e-5)


def test_without_a_head_there_are_no_types(fitted):
    _, _, models = fitted
    assert models["platt"].type_names == ()


@pytest.mark.parametrize("types", [("theft",), ("theft", "(other)"), ("(none)", "(other)")])
def test_one_type_cannot_be_told_from_others(types):
    cube = make_cube(40, types=types)
    with pytest.raises(InputError) as caught:
        ShotSpotterForecaster(**SMALL, type_head=True).fit(cube, chronological_split(40, 3, 15), Recorder())
    count = sum(not name.startswith("(") for name in types)
    assert caught.value.text() == (
        f"TYPE_HEAD = {', '.join(types)}: The cube tells {count} types of event apart; a forecast of types "
        "needs two. Rasterize the events with TYPE_FIELD, choose more TYPES, or switch TYPE_HEAD off."
    )


def test_the_loss_sees_the_types_of_the_model_in_their_order(eager):
    cube = make_cube(30, types=("(other)", "b", "a"))
    channels = shotspotter.Channels(cube)
    windows = shotspotter._TypedWindows(channels, [1, 2], np.arange(5, 20), 3, 4, None)
    _, target = windows.batch(np.arange(4, 8))
    assert target.shape == (4, 6, 7, 5)
    assert (target[..., 0] == cube.total[9:13]).all()
    assert (np.moveaxis(target[..., 3:], -1, 1) == cube.events[9:13, 1:]).all()


# Settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("lookback", 0, "LOOKBACK = 0: The value must be at least 1."),
        ("epochs", 0, "EPOCHS = 0: The value must be at least 1."),
        (
            "width",
            0.0,
            "WIDTH = 0.0: The width must lie above 0 and at most at 64. 1 is the network of the report, 0.5 "
            "has half as many filters.",
        ),
        (
            "event_weight",
            -1.0,
            "EVENT_WEIGHT = -1.0: The weight of events must not be negative. Give 0 for an automatic weight, "
            "or a number such as 10.",
        ),
        (
            "calibrate",
            "beta",
            "CALIBRATE = beta: There is no such choice. Choose one of platt, isotonic, none.",
        ),
        (
            "channel_form",
            "raw",
            "CHANNEL_FORM = raw: There is no such choice. Choose one of standard, published.",
        ),
    ],
)
def test_settings_are_checked(setting, value, text):
    with pytest.raises(InputError) as caught:
        ShotSpotterForecaster(**{setting: value})
    assert caught.value.text() == text


def test_the_defaults_are_those_of_the_report():
    settings = dataclasses.asdict(ShotSpotterForecaster().settings)
    assert settings["epochs"] == 100
    assert settings["batch_size"] == 20
    assert settings["width"] == 1
    assert settings["lookback"] in (7, 8)
    # "auto" of the weight.
    assert settings["event_weight"] == 0


def test_a_split_of_one_step_can_be_learned_from(eager):
    cube = sparse_cube(20)
    model = ShotSpotterForecaster(**SMALL).fit(cube, Split(3, 4, 10, 11), Recorder())
    assert np.isfinite(model.predict_next(cube, 10, 12)[:, cube.grid.valid]).all()
