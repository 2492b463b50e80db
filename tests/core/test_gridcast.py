# SPDX-License-Identifier: GPL-2.0-or-later
"""The Gridcast network: what it adds to simple methods, and that it never does worse than they do."""

from __future__ import annotations

import copy
import dataclasses

import keras
import numpy as np
import pytest
from scipy import stats
from synthetic import Recorder, changed, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.evaluation.metrics import mean_squared_error, poisson_deviance
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.gridcast import (
    PARTS,
    SIMPLE,
    SIZES,
    FeatureScaling,
    GridcastForecaster,
    build_network,
    dispersion,
)
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

pytestmark = [
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

#: Enough for a small cube.
QUICK = {"size": "fast", "epochs": 4, "batch_size": 512, "learning_rate": 0.004}


def cube_of(rate: np.ndarray, *, seed: int = 0, holes: bool = False) -> Cube:
    """Return counts that come about by chance from rates `(steps, y, x)`."""
    grid = make_grid(*rate.shape[1:], holes=holes)
    counts = np.random.default_rng(seed).poisson(rate * grid.valid).astype(np.float32)
    return Cube(grid, make_axis(len(rate)), ("all",), counts[:, None])


def years(steps: int) -> Split:
    """Return a split whose last two years validate and test."""
    return Split(7, steps - 735, steps - 728, steps - 364, steps - 364, steps)


def fit(cube: Cube, split: Split, reporter: Reporter | None = None, **settings) -> GridcastForecaster:
    model = GridcastForecaster(**(QUICK | settings))
    return model.fit(cube.steps(0, split.validation_stop), split, reporter or Reporter())


@pytest.fixture(scope="module")
def festival():
    """Five years: cells with weekdays of their own, and one that is crowded for three days each August."""
    steps = 5 * 364
    days = np.arange(steps)
    rate = np.random.default_rng(5).gamma(1.0, 0.6, (4, 5)) * np.ones((steps, 1, 1))
    rate[:, :, 0] *= np.where(days % 7 < 2, 3.0, 0.4)[:, None]
    rate[:, :, 1] *= np.where(days % 7 == 5, 4.0, 0.5)[:, None]
    rate[np.isin(days % 364, (180, 181, 182)), 2, 3] += 30
    cube = cube_of(rate)
    split = years(steps)
    recorder = Recorder()
    return cube, split, fit(cube, split, recorder), rate, recorder


def test_the_networks_have_the_sizes_that_are_said():
    parts = {
        name: build_network(41, 29, 100, width=width, depth=depth, embedding=4, dropout=0.2)
        for name, (width, depth) in SIZES.items()
    }
    counts = {name: network.count_params() for name, network in parts.items()}
    assert counts == {"fast": 5_047, "standard": 10_199, "large": 43_159}
    rows = [np.random.default_rng(0).normal(size=(3, size)).astype("float32") for size in (41, 29)]
    for network in parts.values():
        # Untrained, it changes nothing.
        assert not np.any(network([*rows, np.array([[0], [1], [99]])]))


def test_what_simple_methods_miss_is_learned(festival):
    cube, split, model, rate, recorder = festival
    start, stop = split.test_start, split.test_stop
    observed, valid = cube.total[start:stop], cube.grid.valid
    found = model.predict_next(cube, start, stop)
    assert model.share_ == 1.0 and model.simple_ is None
    own = poisson_deviance(observed, found, valid)
    for key, settings in SIMPLE:
        other = model_class(key)(**settings).predict_next(cube, start, stop)
        assert own < 0.97 * poisson_deviance(observed, np.maximum(other, 1e-3), valid)
    # Less than a fifth of the gap to the true rates is left that the weighted average leaves.
    truth = poisson_deviance(observed, rate[start:stop].astype(np.float32), valid)
    average = model_class("ewma")().predict_next(cube, start, stop)
    assert own - truth < 0.35 * (poisson_deviance(observed, average, valid) - truth)
    august = np.flatnonzero(np.isin(np.arange(start, stop) % 364, (180, 181, 182)))
    assert (found[august, 2, 3] > 10).all()
    assert any("below that of the best simple method" in text for text in recorder.texts("info"))


def test_the_step_and_later_ones_are_not_seen(festival):
    cube, split, model, _, _ = festival
    events = cube.events.copy()
    events[1700:] = 40
    other = changed(cube, events)
    for start in (1690, 1700):
        one, two = (model.predict_next(each, start, 1701) for each in (cube, other))
        np.testing.assert_allclose(two, one, rtol=1e-4)
    assert not np.allclose(*(model.predict_next(each, 1701, 1702) for each in (cube, other)), rtol=1e-2)


def test_later_steps_are_reached_one_by_one(festival):
    cube, split, model, _, _ = festival
    ahead = model.forecast(cube, 1600, 10)
    np.testing.assert_allclose(ahead[:1], model.predict_next(cube, 1600, 1601), rtol=1e-4)
    events = cube.events.copy()
    events[1600:1604, 0] = ahead[:4]
    assumed = changed(cube, events).steps(0, 1604)
    np.testing.assert_allclose(model.predict_next(assumed, 1604, 1605)[0], ahead[4], rtol=1e-3)
    # The weekdays are still there at the end of the horizon.
    assert ahead[:, :, 0].max() > 3 * ahead[:, :, 0].min()


# Why here


def parts_of(model: GridcastForecaster, cube: Cube, origin: int, horizon: int = 1) -> dict[str, np.ndarray]:
    """Return each part `(horizon, y, x)` by its name, having seen that they make up the forecast."""
    parts = model.forecast_parts(cube, origin, horizon)
    assert parts.shape == (horizon, len(PARTS), *cube.grid.shape)
    whole = model.forecast(cube, origin, horizon)
    assert parts.prod(axis=1) == pytest.approx(whole, rel=1e-4, nan_ok=True)
    assert (np.isnan(parts).any(axis=1) == ~cube.grid.valid).all()
    return dict(zip(model.part_names, np.moveaxis(parts, 1, 0)))


def test_the_parts_of_a_forecast_make_it_up_and_tell_of_a_festival(festival):
    cube, split, model, *_ = festival
    day = 4 * 364 + 180
    assert split.test_start <= day
    found = parts_of(model, cube, day - 2, 4)
    before, after = found["calendar"][1, 2, 3], found["calendar"][2, 2, 3]
    assert after > 4 * before
    # Elsewhere the day has little of its own, but for the columns with weekdays.
    assert after > 2 * np.delete(found["calendar"][2, :, 2:].ravel(), 2 * 3 + 1).max()
    assert found["long-run level"][0] == pytest.approx(cube.total[: day - 2].mean(axis=0), rel=0.4)


def test_events_of_the_last_days_are_near_repeats():
    draw = np.random.default_rng(3)
    steps, events = 1200, np.zeros((1200, 6, 6), np.float32)
    heat = np.zeros((6, 6))
    for step in range(steps):
        events[step] = draw.poisson(0.1 + heat)
        heat = 0.7 * heat + 0.22 * events[step]
    cube = Cube(make_grid(6, 6, holes=False), make_axis(steps), ("all",), events[:, None])
    model = fit(cube, Split(7, 800, 800, 1100, 1100, 1200), epochs=8)
    assert model.share_ > 0
    quiet, busy = events.copy(), events.copy()
    quiet[1090:1100, 2, 2] = 0
    busy[1097:1100, 2, 2] = 3
    calm, hot = (
        parts_of(model, Cube(cube.grid, cube.axis, cube.types, each[:, None], cube.attributes), 1100)
        for each in (quiet, busy)
    )
    gain = {name: hot[name][0, 2, 2] / calm[name][0, 2, 2] for name in hot}
    assert gain["near repeats"] > 2
    assert max(gain, key=lambda name: gain[name]) == "near repeats"
    assert gain["calendar"] == pytest.approx(1, abs=0.3)


def test_a_network_without_trust_leaves_the_weighted_average(festival):
    cube, split, model, *_ = festival
    model = copy.copy(model)
    model.share_ = 0.0
    found = parts_of(model, cube, split.test_start)
    assert (found["near repeats"] == 1).all()
    assert (found["network's correction"] == 1).all()
    assert np.unique(found["calendar"]).size == 1


def test_a_simple_method_has_no_parts(festival):
    model = copy.copy(festival[2])
    model.simple_ = SIMPLE[0]
    assert model.part_names == ()


# Keeping -----------------------------------------------------------------------------------------------


def test_a_saved_network_is_the_same(festival, tmp_path):
    cube, split, model, _, _ = festival
    save_model(model, str(tmp_path / "model.gridcast"), {})
    again = load_model(tmp_path / "model.gridcast").model
    np.testing.assert_allclose(
        again.predict_next(cube, 1500, 1520), model.predict_next(cube, 1500, 1520), rtol=1e-5
    )
    assert (again.dispersion_, again.base_) == (model.dispersion_, model.base_)


def test_probabilities_are_those_of_counts_that_spread_more(festival):
    _, _, model, _, _ = festival
    mean = np.array([0.01, 0.5, 3.0])
    for alpha in (0.0, 0.4):
        spread = GridcastForecaster()
        spread.dispersion_ = alpha
        wanted = 1 - (stats.nbinom.pmf(0, 1 / alpha, 1 / (1 + alpha * mean)) if alpha else np.exp(-mean))
        np.testing.assert_allclose(spread.probability(mean), wanted, rtol=1e-6)


def test_the_spread_of_counts_is_found():
    random = np.random.default_rng(6)
    mean = random.gamma(2.0, 1.0, 200_000)
    for alpha in (0.0, 0.5):
        rate = mean * random.gamma(1 / alpha, alpha, len(mean)) if alpha else mean
        assert dispersion(random.poisson(rate), mean) == pytest.approx(alpha, abs=0.02)


@pytest.mark.parametrize("trust", ["noise", "few"])
def test_where_there_is_nothing_to_learn_it_is_the_simple_method(trust):
    """Rates that never change, or 300 events: no worse than the best simple method, and it says so."""
    rate = np.random.default_rng(7).gamma(1.0, 1.0, (1, 4, 5)) * np.ones((800, 1, 1))
    if trust == "few":
        rate *= 300 / rate.sum()
    cube = cube_of(rate)
    split = Split(7, 500, 507, 650, 650, 800)
    recorder = Recorder()
    model = fit(cube, split, recorder, learning_rate=0.02)
    valid, observed = cube.grid.valid, cube.total[507:650]
    own = poisson_deviance(observed, model.predict_next(cube, 507, 650), valid)
    for key, settings in SIMPLE:
        other = np.maximum(model_class(key)(**settings).predict_next(cube, 507, 650), 1e-6)
        assert own <= poisson_deviance(observed, other, valid) + 1e-6
    average = model_class("ewma")().predict_next(cube, 650, 800)
    later = mean_squared_error(cube.total[650:], model.predict_next(cube, 650, 800), valid)
    assert later <= 1.005 * mean_squared_error(cube.total[650:], average, valid)
    if model.share_ == 0 or model.simple_:
        assert any("On the validation steps" in text for text in recorder.texts())


@pytest.mark.parametrize("case", ["empty days", "twice as many"])
def test_a_break_in_the_data_is_survived(case):
    """A hole of 90 days, and a level that doubles overnight, both in the test period."""
    rate = np.random.default_rng(8).gamma(1.0, 1.0, (1, 4, 5)) * np.ones((900, 1, 1))
    rate = rate * (1 + 0.5 * np.sin(np.arange(900) * 2 * np.pi / 7))[:, None, None]
    if case == "empty days":
        rate[700:790] = 0
    else:
        rate[740:] *= 2
    cube = cube_of(rate)
    model = fit(cube, Split(7, 500, 507, 650, 650, 900), epochs=2)
    observed, valid = cube.total[650:], cube.grid.valid
    found = model.predict_next(cube, 650, 900)
    average = model_class("ewma")().predict_next(cube, 650, 900)
    assert np.isfinite(found[:, valid]).all() and found[:, valid].max() < 60
    own, simple = (mean_squared_error(observed, each, valid) for each in (found, average))
    assert own <= 1.005 * simple


def test_rows_are_drawn_when_there_are_too_many():
    cube = make_cube(200)
    split = Split(7, 160, 167, 200)
    model = fit(cube, split, samples=500)
    train = model._samples(cube, 40, 160, 1, Reporter())
    assert 400 < len(train.counts) < 600
    assert np.array_equal(train.counts, model._samples(cube, 40, 160, 1, Reporter()).counts)
    inputs, target = train.batch(np.arange(5))
    cells, steps = train.place[:5], train.step[:5] + 40
    assert np.array_equal(target[:, 0], cube.total[:, cube.grid.valid][steps, cells])
    assert inputs[2].shape == (5, 1)


def test_features_that_never_change_count_as_nothing():
    cells = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    scaling = FeatureScaling.of(cells, cells)
    assert np.array_equal(scaling.cells(cells), [[-1, 0], [1, 0]])
    assert np.array_equal(scaling.city(np.array([[100.0, 900.0]])), [[4, 0]])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"size": "huge"}, "SIZE = huge: There is no such choice. Choose one of fast, standard, large."),
        ({"dropout": 1.0}, "DROPOUT = 1.0: The dropout must be at least 0 and below 1."),
        ({"embedding": -1}, "EMBEDDING = -1: The value must be at least 0."),
        ({"samples": 0}, "SAMPLES = 0: The value must be at least 1."),
    ],
)
def test_settings_that_are_refused(settings, complaint):
    with pytest.raises(InputError) as caught:
        GridcastForecaster(**settings)
    assert complaint in caught.value.text()


def test_the_learning_rate_falls_along_a_cosine():
    cube = make_cube(60)
    model = fit(cube, Split(7, 45, 50, 60), epochs=4, learning_rate=0.01)
    assert model.history_["learning_rate"] == pytest.approx([0.01, 0.0085355, 0.005, 0.0014645], rel=1e-4)
    assert keras.backend.floatx() == "float32"
    assert dataclasses.asdict(model.settings)["size"] == "fast"
