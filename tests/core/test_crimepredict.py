# SPDX-License-Identifier: GPL-2.0-or-later
"""CrimePredict: the shape of its networks, covariates as channels, weights of events."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from keras import layers
from synthetic import make_axis, make_cube, make_grid

from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.models.classifier import Inputs, Samples
from gridcast_qgis.core.models.crimepredict import (
    CNN3D,
    CNNRNN,
    CellLSTM,
    CellLSTMSettings,
    FrameBatches,
    Frames,
    FrameSettings,
    build_cell_lstm,
    build_cnn3d,
    build_cnn_rnn,
)
from gridcast_qgis.core.models.spatiolstm import CellWindows
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

SPLIT = Split(2, 24, 24, 32, 32, 40)
SMALL = {"lookback": 2, "label_value": 4, "epochs": 1, "learning_rate": 0.01}
#: Each network in a size that trains in a moment.
NETWORKS = {
    CNN3D: {**SMALL, "filters": 2},
    CNNRNN: {**SMALL, "filters": 2},
    CellLSTM: {**SMALL, "units": 4, "dense": 3},
}
KINDS = pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.key)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
]


def cube_with_covariates(steps: int = 40) -> Cube:
    random = np.random.default_rng(3)
    cube = make_cube(steps, mean=1.0)
    income = random.normal(50_000, 9_000, (6, 7)).astype(np.float32)
    income[3, 3] = np.nan
    rain = random.gamma(1.0, 3.0, steps).astype(np.float32)
    rain[5] = np.nan
    light = random.random((steps, 6, 7)).astype(np.float32)
    return cube.with_covariates(
        [
            Covariate("income", income, ("y", "x")),
            Covariate("rain", rain, ("time",)),
            Covariate("light", light, ("time", "y", "x")),
        ]
    )


NAMES = ("income", "rain", "light")


# Networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "frames"),
    [(1, [1, 1, 1]), (2, [1, 1, 1]), (3, [2, 1, 1]), (6, [3, 2, 1]), (8, [4, 2, 1]), (24, [12, 6, 3])],
)
def test_the_3d_cnn_pools_time_until_one_frame_is_left_and_never_space(steps, frames):
    network = build_cnn3d((steps, 5, 9, 2))
    convolutions = [layer for layer in network.layers if isinstance(layer, layers.Conv3D)]
    assert [layer.filters for layer in convolutions] == [16, 32, 64]
    assert all(layer.kernel_size == (3, 3, 3) for layer in convolutions)
    assert [layer.output.shape[1] for layer in convolutions] == [steps, *frames[:2]]
    assert all(layer.output.shape[2:4] == (5, 9) for layer in convolutions)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in network.layers) == 3
    assert network.get_layer("frame").output.shape == (None, 5, 9, 64)
    assert network.output_shape == (None, 5, 9, 1)
    weights = 27 * (2 * 16 + 16 * 32 + 32 * 64) + 16 + 32 + 64
    assert network.count_params() == weights + 4 * (16 + 32 + 64) + 64 + 1


def test_the_hybrid_sees_space_first_and_time_after():
    network = build_cnn_rnn((6, 5, 9, 2))
    assert network.get_layer("conv_1").output.shape == (None, 6, 5, 9, 16)
    assert network.get_layer("conv_2").output.shape == (None, 6, 5, 9, 32)
    assert network.get_layer("memory").output.shape == (None, 5, 9, 32)
    assert network.output_shape == (None, 5, 9, 1)
    weights = 9 * (2 * 16 + 16 * 32) + 16 + 32
    assert network.count_params() == weights + 4 * 32 * (9 * (32 + 32) + 1) + 32 + 1


def test_the_lstm_is_one_for_all_cells():
    network = build_cell_lstm((6, 9))
    assert network.output_shape == (None, 1)
    assert network.count_params() == 4 * 64 * (9 + 64 + 1) + 32 * (64 + 1) + 32 + 1


# Channels ----------------------------------------------------------------------------------------------


def learned(cube: Cube, train_stop: int = 24) -> Inputs:
    return Inputs.learn(cube, NAMES, False, cube.grid.valid, train_stop)


def test_covariates_are_standardised_on_the_training_steps():
    cube = cube_with_covariates()
    valid = cube.grid.valid
    inputs = learned(cube)
    income, rain, light = (inputs.covariates[name] for name in NAMES)
    known = valid & np.isfinite(cube.covariates["income"].values)
    for part in (income[known], rain[:24][np.arange(24) != 5], light[:24, valid]):
        assert part.mean() == pytest.approx(0, abs=1e-5)
        assert part.std() == pytest.approx(1, abs=1e-5)
    # What is not known is taken as the mean.
    assert income[3, 3] == rain[5] == 0
    later = {name: each.values.copy() for name, each in cube.covariates.items()}
    later["rain"][24:] += 9
    later["light"][24:] += 9
    other = cube.with_covariates(
        [dataclasses.replace(each, values=later[name]) for name, each in cube.covariates.items()]
    )
    assert learned(other).scaling == inputs.scaling


def test_a_covariate_that_is_never_known_is_zero():
    cube = make_cube(30).with_covariates([Covariate("rain", np.full(30, np.nan, np.float32), ("time",))])
    assert (Inputs.learn(cube, ("rain",), False, cube.grid.valid, 20).covariates["rain"] == 0).all()


def test_frames_have_counts_and_covariates_as_channels():
    cube = cube_with_covariates()
    inputs = learned(cube)
    frames = Frames(inputs)
    assert frames.count == 4
    window = frames.window(np.array([9, 20]), 3)
    assert window.shape == (2, 3, 6, 7, 4)
    assert window.dtype == np.float32
    valid = cube.grid.valid
    for number, target in enumerate((9, 20)):
        past = slice(target - 3, target)
        assert (window[number, ..., 0] == inputs.counts[past] * valid).all()
        assert (window[number, ..., 1] == inputs.covariates["income"] * valid).all()
        assert (window[number, ..., 2] == inputs.covariates["rain"][past, None, None]).all()
        assert (window[number, ..., 3] == inputs.covariates["light"][past] * valid).all()


def test_cells_have_their_own_covariates_after_the_counts_around_them():
    cube = cube_with_covariates()
    inputs = learned(cube)
    windows = CellWindows(inputs, 3, 3, False)
    assert windows.shape == (3, 12)
    steps, cells = np.array([9, 20], np.int32), np.array([16, 30], np.int32)
    found = windows.windows(steps, cells)
    for number, (step, cell) in enumerate(zip(steps, cells)):
        row, column = divmod(cell, 7)
        past = slice(step - 3, step)
        assert (found[number, :, 9] == inputs.covariates["income"][row, column]).all()
        assert (found[number, :, 10] == inputs.covariates["rain"][past]).all()
        assert (found[number, :, 11] == inputs.covariates["light"][past, row, column]).all()


@KINDS
def test_an_unknown_covariate_names_those_there_are(kind):
    for cube, known in (
        (cube_with_covariates(), "income, rain, light"),
        (make_cube(40, mean=1.0), "none; 'Add Covariates to Cube' adds them"),
    ):
        with pytest.raises(InputError) as caught:
            kind(**NETWORKS[kind], covariates=("crowd",)).fit(cube, SPLIT, Reporter())
        assert caught.value.text() == (
            f"COVARIATES = crowd: The cube has no such covariate. It has: {known}."
        )


@pytest.mark.usefixtures("eager")
@KINDS
def test_covariates_are_used_but_never_those_of_the_future(kind):
    cube = cube_with_covariates()
    model = kind(**NETWORKS[kind], covariates=list(NAMES)).fit(cube, SPLIT, Reporter())
    assert model.settings.covariates == NAMES
    expected = model.forecast(cube, 34, 3)
    assert np.isfinite(expected[:, cube.grid.valid]).all()

    def shifted(start: int, stop: int) -> Cube:
        rain = cube.covariates["rain"].values.copy()
        rain[start:stop] += 20
        return cube.with_covariates([Covariate("rain", rain, ("time",))])

    assert model.forecast(shifted(34, 40), 34, 3) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert not np.allclose(model.forecast(shifted(32, 34), 34, 1)[0], expected[0], equal_nan=True)
    with pytest.raises(InputError, match="COVARIATES = income: The model needs the covariates income, rain"):
        model.predict_next(make_cube(40), 30, 31)


# Samples -----------------------------------------------------------------------------------------------


def test_all_cells_of_the_study_area_are_learned_from_by_default():
    cube = make_cube(40, mean=1.0)
    for settings in (FrameSettings(**SMALL), CellLSTMSettings(**SMALL)):
        samples = Samples.draw(cube, SPLIT, settings)
        assert (samples.candidates == cube.grid.valid).all()
        assert (samples.train[2:24] == cube.grid.valid).all()


def test_targets_carry_label_and_weight():
    cube = make_cube(40, mean=1.0)
    samples = Samples.draw(cube, SPLIT, FrameSettings(**SMALL, balance="undersample"))
    inputs = Inputs.learn(cube, (), False, samples.candidates, 24)
    data = FrameBatches(Frames(inputs), samples.labels, samples.train, 2, 5, None)
    window, target = (np.concatenate(parts) for parts in zip(*data.epoch(0)))
    assert window.shape == (22, 2, 6, 7, 1)
    assert (target[..., 0] == samples.labels[2:24]).all()
    assert (target[..., 1] == samples.train[2:24]).all()
    assert target[..., 1].sum() == 2 * (samples.labels & (samples.train > 0)).sum()


@pytest.mark.parametrize(
    ("weight", "hot", "cold", "expected"),
    [
        ("none", 10, 30, (1, 1)),
        ("auto", 10, 30, (1, 3)),
        ("auto", 1, 5000, (1, 100)),
        ("auto", 0, 30, (1, 1)),
        ("7.5", 10, 30, (1, 7.5)),
        (2, 10, 30, (1, 2)),
    ],
)
def test_the_weight_of_events(weight, hot, cold, expected):
    settings = FrameSettings(event_weight=weight)
    assert settings.class_weights(hot, cold) == pytest.approx(expected)


def test_the_weight_of_events_is_undone_in_the_probabilities():
    cube = make_cube(40, mean=1.0)
    samples = Samples.draw(cube, SPLIT, FrameSettings(**SMALL, event_weight=5))
    assert set(np.unique(samples.train[samples.labels & (samples.train > 0)])) == {5}
    assert samples.odds_ratio == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"event_weight": "heavy"}, "EVENT_WEIGHT = heavy: This is no weight. Choose none, auto or a number"),
        ({"event_weight": 0}, "EVENT_WEIGHT = 0: This is no weight."),
        ({"event_weight": "nan"}, "EVENT_WEIGHT = nan: This is no weight."),
        (
            {"event_weight": "auto", "balance": "weights"},
            "EVENT_WEIGHT = auto: BALANCE weights decides the weight of hot samples already.",
        ),
        ({"lookback": 0}, "LOOKBACK = 0: The value must be at least 1."),
    ],
)
@KINDS
def test_settings_are_checked(kind, settings, text):
    with pytest.raises(InputError) as caught:
        kind(**settings)
    assert caught.value.text().startswith(text)


@pytest.mark.parametrize(("kind", "name"), [(CNN3D, "filters"), (CNNRNN, "filters"), (CellLSTM, "units")])
def test_widths_are_checked(kind, name):
    with pytest.raises(InputError, match=f"{name.upper()} = 0: The value must be at least 1"):
        kind(**{name: 0})


# Learning ----------------------------------------------------------------------------------------------


@KINDS
def test_the_networks_learn_where_it_is_hot_next(kind):
    # Hot cells change sides every step.
    grid = make_grid(5, 6, holes=False)
    events = np.zeros((60, 1, 5, 6), np.float32)
    events[::2, 0, :, :2] = 4
    events[1::2, 0, :, 4:] = 4
    cube = Cube(grid, make_axis(60), ("events",), events)
    settings = {**NETWORKS[kind], "epochs": 12, "patience": 12, "label_value": 10, "learning_rate": 0.05}
    if kind is not CellLSTM:
        settings |= {"filters": 4, "batch_size": 8}
    model = kind(**settings).fit(cube, Split(2, 44, 44, 52, 52, 60), Reporter())
    assert model.scores_["test"]["best"]["f1"] > 0.9
    assert model.scores_["test"]["best"]["auc"] > 0.95
