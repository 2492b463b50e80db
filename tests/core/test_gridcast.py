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

from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.metrics import mean_squared_error, poisson_deviance
from gridcast_qgis.core.mixture import learned_weights, spans_of
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.gridcast import (
    PARTS,
    SIMPLE,
    SIZES,
    GridcastForecaster,
    _first_step,
    build_network,
    dispersion,
)
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.models.rows import FeatureScaling
from gridcast_qgis.core.models.trust import CITY_SHARES, PLACE_SHARES, Trust, earned
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.checkpoints import Checkpoint
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


def finished(
    cube: Cube, split: Split, checkpoint: Checkpoint | None = None, **settings
) -> GridcastForecaster:
    """Return a model that has also learned from the steps that judged it."""
    known = cube.steps(0, split.validation_stop)
    model = GridcastForecaster(**(QUICK | settings))
    model.fit(known, split, Reporter(), checkpoint=checkpoint)
    model.finish(known, split, Reporter(), checkpoint=checkpoint)
    return model


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
        name: build_network(41, 29, width=width, depth=depth, dropout=0.2)
        for name, (width, depth) in SIZES.items()
    }
    counts = {name: network.count_params() for name, network in parts.items()}
    assert counts == {"fast": 4_519, "standard": 9_543, "large": 42_247}
    rows = [np.random.default_rng(0).normal(size=(3, size)).astype("float32") for size in (41, 29)]
    for network in parts.values():
        # Untrained, it changes nothing.
        assert not np.any(network(rows))


def test_what_simple_methods_miss_is_learned(festival):
    cube, split, model, rate, recorder = festival
    start, stop = split.test_start, split.test_stop
    observed, valid = cube.total[start:stop], cube.grid.valid
    found = model.predict_next(cube, start, stop)
    assert model.trust_ == Trust(1.0, 0.75) and model.simple_ is None
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
    assert model.trust_.places > 0
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
    model.trust_ = Trust(0.0, 0.0)
    found = parts_of(model, cube, split.test_start)
    # What is left of near repeats is what the mixture has of short half-lives.
    assert found["near repeats"] == pytest.approx(np.ones((1, 4, 5)), abs=0.2)
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
    assert again.dispersion_ == model.dispersion_
    assert np.array_equal(again.weights_, model.weights_)


@pytest.fixture(scope="module")
def novelty():
    """Three years; in the third, which validates, events come on other weekdays than before."""
    steps = 3 * 364
    days = np.arange(steps)
    rate = np.random.default_rng(9).gamma(1.0, 0.5, (4, 5)) * np.ones((steps, 1, 1))
    rate[:, 1, :] *= np.where(days % 7 == 2, 5.0, 0.3)[:, None]
    rate[728:] *= np.where(days[728:] % 7 == 5, 4.0, 0.6)[:, None, None]
    cube = cube_of(rate)
    return cube, Split(7, 721, 728, 1000, 1000, steps)


def test_the_steps_that_judged_are_learned_from_afterwards(novelty, tmp_path):
    cube, split = novelty
    judged = fit(cube, split)
    model = finished(cube, split, final_networks=2)
    assert judged.trust_ and len(model.final_) == 2
    assert model.parameter_count == 2 * judged.parameter_count
    # What was judged is as it was.
    for one, two in zip(judged.network_.get_weights(), model.network_.get_weights()):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert (model.trust_, model.history_["val_loss"]) == (judged.trust_, judged.history_["val_loss"])
    observed, valid = cube.total[728:1000], cube.grid.valid
    before, after = (each.predict_next(cube, 728, 1000) for each in (judged, model))
    assert poisson_deviance(observed, after, valid) < 0.95 * poisson_deviance(observed, before, valid)
    # The two are not the same, and the forecast is what both say.
    singles = []
    for network in model.final_:
        single = copy.copy(model)
        single.final_ = [network]
        singles.append(single.predict_next(cube, 1000, 1010))
    assert not np.allclose(*singles, rtol=1e-3, equal_nan=True)
    mean = np.sqrt(singles[0] * singles[1])
    np.testing.assert_allclose(model.predict_next(cube, 1000, 1010), mean, rtol=1e-4)
    save_model(model, str(tmp_path / "model.gridcast"), {})
    again = load_model(tmp_path / "model.gridcast").model
    np.testing.assert_allclose(again.predict_next(cube, 728, 748), after[:20], rtol=1e-5)


def test_the_mixture_is_learned_anew_from_the_steps_that_judged():
    """Cells change every fortnight, and not any more from the steps on that judge."""
    random = np.random.default_rng(15)
    changing = np.repeat(random.gamma(0.5, 2.0, (50, 4, 5)), 14, axis=0)
    lasting = np.repeat(random.gamma(0.5, 2.0, (1, 4, 5)), 400, axis=0)
    cube = cube_of(np.concatenate([changing, lasting]))
    split = Split(7, 700, 700, 1100)
    model = fit(cube, split, epochs=1)
    before, model.simple_ = model.weights_.copy(), None
    for trust in (Trust(0.0, 0.0), Trust()):
        model.trust_ = trust
        model.finish(cube, split, Reporter())
        wanted = learned_weights(cube.total, cube.grid, 1.0, _first_step(split, 1100, 365), 1100, Reporter())
        np.testing.assert_allclose(model.weights_, wanted)
        assert np.abs(model.weights_ - before).sum() > 0.1
        assert bool(model.final_) == bool(trust)


def test_learning_from_all_steps_that_was_broken_off_goes_on(novelty, tmp_path):
    cube, split = novelty
    known = cube.steps(0, split.validation_stop)
    settings = QUICK | {"final_networks": 2, "epochs": 2}
    whole = finished(cube, split, **settings)
    checkpoint = Checkpoint(tmp_path / "state", "this one")
    model = GridcastForecaster(**settings)
    model.fit(known, split, Reporter(), checkpoint=checkpoint)
    stop = Recorder(cancel_when=lambda event: "Network 2 of 2" in str(event.get("text")))
    with pytest.raises(JobCancelled):
        model.finish(known, split, stop, checkpoint=checkpoint)
    assert model.final_ == []
    again = finished(cube, split, checkpoint, **settings)
    for network, wanted in zip([again.network_, *again.final_], [whole.network_, *whole.final_], strict=True):
        for one, two in zip(network.get_weights(), wanted.get_weights()):
            np.testing.assert_array_equal(one, two)


def test_steps_after_those_that_judged_are_not_learned_from(novelty):
    cube, split = novelty
    events = cube.events.copy()
    events[1000:] = 40
    settings = {"final_networks": 1, "epochs": 1}
    models = []
    for each in (cube, changed(cube, events)):
        model = GridcastForecaster(**(QUICK | settings))
        model.fit(each, split, Reporter())
        model.trust_ = Trust()
        model.finish(each, split, Reporter())
        models.append(model)
    for one, two in zip(*(model.final_[0].get_weights() for model in models)):
        np.testing.assert_array_equal(one, two)


def test_a_model_that_goes_on_starts_from_all_it_has_learned(novelty):
    cube, split = novelty
    earlier = finished(cube, split, final_networks=1, epochs=2)
    later = GridcastForecaster(**(QUICK | {"final_networks": 2, "epochs": 1, "learning_rate": 1e-9}))
    known = cube.steps(0, split.validation_stop)
    later.fit(known, split, Reporter(), start=earlier)
    later.finish(known, split, Reporter(), start=earlier)
    assert later.trust_
    for network in later.final_:
        for one, two in zip(network.get_weights(), earlier.final_[0].get_weights()):
            np.testing.assert_allclose(one, two, atol=1e-5)


def test_without_trust_nothing_more_is_learned(novelty):
    cube, split = novelty
    model = fit(cube, split, epochs=1)
    model.trust_ = Trust(0.0, 0.0)
    model.finish(cube, split, Reporter())
    assert model.final_ == []


# Types and hot spots -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typed():
    """Two types, the second one in the west only."""
    rate = np.random.default_rng(10).gamma(1.0, 0.6, (1, 2, 4, 5)) * np.ones((500, 1, 1, 1))
    rate[:, 1, :, 2:] *= 0.02
    grid = make_grid(4, 5)
    counts = np.random.default_rng(11).poisson(rate * grid.valid).astype(np.float32)
    cube = Cube(grid, make_axis(500), ("BURGLARY", "THEFT"), counts)
    split = Split(7, 390, 397, 450)
    return cube, split, fit(cube, split, epochs=1), rate


def test_types_are_forecast_where_they_happen(typed, tmp_path):
    cube, split, model, rate = typed
    valid = cube.grid.valid
    found = model.predict_types(cube, 450, 501)
    assert model.type_names == ("BURGLARY", "THEFT") and found.shape == (51, 2, 4, 5)
    np.testing.assert_allclose(found[:, :, valid].sum(axis=1), 1, rtol=1e-5)
    assert np.isnan(found[:, :, ~valid]).all()
    truth = rate[450] / rate[450].sum(axis=0)
    assert np.abs(found[-1] - truth)[:, valid].mean() < 0.1
    events = cube.events.copy()
    events[480:] = np.random.default_rng(1).poisson(9, events[480:].shape)
    np.testing.assert_allclose(model.predict_types(changed(cube, events), 450, 481), found[:31], rtol=1e-5)
    save_model(model, str(tmp_path / "model.gridcast"), {})
    again = load_model(tmp_path / "model.gridcast").model
    assert again.type_names == model.type_names
    np.testing.assert_allclose(again.predict_types(cube, 450, 452), found[:2], rtol=1e-6)
    # The order of the types in a cube does not matter.
    turned = Cube(cube.grid, cube.axis, ("THEFT", "BURGLARY"), cube.events[:, ::-1], cube.attributes)
    np.testing.assert_allclose(model.predict_types(turned, 450, 451), found[:1], rtol=1e-5)


def test_types_of_later_steps_follow_from_what_is_expected(typed):
    cube, _, model, _ = typed
    ahead = model.forecast_types(cube, 460, 3)
    np.testing.assert_allclose(ahead[:1], model.predict_types(cube, 460, 461), rtol=1e-5)
    expected = model.forecast(cube, 460, 3)
    events = cube.events.copy()
    events[460:462] = np.nan_to_num(expected[:2, None] * ahead[:2])
    assumed = changed(cube, events)
    np.testing.assert_allclose(ahead[2:], model.predict_types(assumed, 462, 463), rtol=1e-4)


def test_one_type_is_none_to_forecast(festival):
    assert festival[2].type_names == ()


def test_hot_spots_call_for_a_longer_memory():
    """Bursts of a week hide the places of the next two months from who looks at the next day only."""
    random = np.random.default_rng(12)
    rate = random.gamma(0.5, 0.4, (4, 5)) * np.ones((900, 1, 1))
    for start in range(0, 900, 7):
        row, column = random.integers(0, (4, 5))
        rate[start : start + 7, row, column] += 3.0
    cube = cube_of(rate)
    split = Split(7, 790, 797, 900)
    found = {}
    for aim in ("counts", "hotspots"):
        weights = fit(cube, split, epochs=1, aim=aim).weights_
        spans = spans_of(1.0)
        by_span = weights[:-1].reshape(-1, len(spans)).sum(axis=0)
        found[aim] = by_span[: spans.index(7.0) + 1].sum()
    assert found["hotspots"] < 0.5 * found["counts"]


@pytest.mark.parametrize("case", ["places", "days"])
def test_hot_spots_are_trusted_as_far_as_they_find_events(case):
    """The events of the next two months in the busiest cells decide, whatever else a network has learned."""
    random = np.random.default_rng(13)
    rate = random.gamma(0.4, 1.0, (1, 8, 9)) * np.ones((900, 1, 1))
    if case == "days":
        rate = rate * np.where(np.arange(900) % 7 < 2, 3.0, 0.3)[:, None, None]
    cube = cube_of(rate)
    split = Split(7, 700, 707, 900)
    recorder = Recorder()
    model = fit(cube, split, recorder, aim="hotspots", epochs=2)
    by_share, others = model._misses(cube, split, Reporter())
    steps = slice(split.validation_start, split.validation_stop)
    coming = np.stack([cube.total[n : min(n + 56, 900)].sum(axis=0) for n in range(steps.start, steps.stop)])
    for share in (0.0, 1.0):
        other = copy.copy(model)
        other.trust_, other.simple_ = Trust(share, 0.0), None
        found = other.predict_next(cube, steps.start, steps.stop).reshape(193, -1)
        busiest = np.argsort(-np.nan_to_num(found), axis=1)[:, :5]
        hits = np.take_along_axis(coming.reshape(193, -1), busiest, axis=1).sum(axis=1)
        np.testing.assert_allclose(coming.sum(axis=(1, 2)) - hits, by_share[share], rtol=1e-3)
    assert (model.simple_ is not None) == (min(others) < by_share[model.trust_.places].sum())
    texts = recorder.texts("warning") + recorder.texts("info")
    assert any("On the validation steps" in text for text in texts)
    gain = by_share[0.0] - by_share[1.0]
    assert model.trust_.places < 1 or gain.sum() > 0


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
    if not model.trust_ or model.simple_:
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


def test_covariates_that_are_not_looked_at_are_named():
    cube = make_cube(200)
    rain = Covariate("rain", np.zeros(200, np.float32), ("time",))
    income = Covariate("income", np.zeros(cube.grid.shape, np.float32), ("y", "x"))
    told = Recorder()
    split = Split(7, 160, 167, 200)
    fit(cube.with_covariates([rain, income]), split, told, epochs=1)
    (text,) = [text for text in told.texts("info") if "covariates" in text]
    assert text.startswith("This network does not look at the covariates of the cube (rain, income): ")
    told = Recorder()
    fit(cube, split, told, epochs=1)
    assert not [text for text in told.texts("info") if "covariates" in text]


def test_rows_are_drawn_when_there_are_too_many():
    cube = make_cube(200)
    split = Split(7, 160, 167, 200)
    model = fit(cube, split, samples=500)
    train = model._samples(cube, 40, 160, 1, Reporter())
    assert 400 < len(train.counts) < 600
    assert np.array_equal(train.counts, model._samples(cube, 40, 160, 1, Reporter()).counts)
    _, target = train.batch(np.arange(5))
    cells, steps = train.place[:5], train.step[:5] + 40
    assert np.array_equal(target[:, 0], cube.total[:, cube.grid.valid][steps, cells])


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
        ({"final_networks": -1}, "FINAL_NETWORKS = -1: The value must be at least 0."),
        ({"aim": "arrests"}, "AIM = arrests: There is no such choice. Choose one of counts, hotspots."),
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


# Trust -------------------------------------------------------------------------------------------------


def test_trust_in_places_leaves_the_city_as_it_is():
    random = np.random.default_rng(4)
    said, base = random.normal(0, 0.3, (3, 7)), random.gamma(1.0, 1.0, (3, 7))
    assert Trust(1.0, 1.0).applied(said, base) == pytest.approx(said)
    assert not Trust(0.0, 0.0) and not Trust(0.0, 0.0).applied(said, base).any()
    whole = Trust(0.0, 0.5).applied(said, base)
    assert whole == pytest.approx(np.broadcast_to(whole[:, :1], whole.shape))
    # Mean over the events: a cell counts as its rate.
    assert whole[:, 0] == pytest.approx(0.5 * np.average(said, axis=1, weights=base))
    places = Trust(0.25, 0.0).applied(said, base)
    assert (places * base).sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)
    assert places + whole == pytest.approx(Trust(0.25, 0.5).applied(said, base))


def test_trust_is_earned_by_more_than_chance():
    steps = np.zeros(100)
    sure = {0.0: steps + 1.0, 0.5: steps + 0.2, 1.0: steps + 0.3}
    assert earned(sure) == 0.5
    noise = np.random.default_rng(6).normal(0.0, 1.0, 100)
    unsure = {0.0: steps, 1.0: noise - noise.mean() - 0.05}
    assert earned(unsure) == 0.0
    clear = {0.0: steps, 1.0: noise - noise.mean() - 0.2}
    assert earned(clear) == 1.0
    # If eight steps tell of the same events, there is less to go by.
    assert earned(clear, alike=8) == 0.0
    assert earned(dict.fromkeys(PLACE_SHARES, steps)) == 0.0


def test_places_and_the_city_are_trusted_each_for_itself():
    """Weekdays that differ from cell to cell and then, in the steps that judge, from none."""
    steps = 4 * 364
    days = np.arange(steps)
    rate = np.random.default_rng(8).gamma(1.0, 1.0, (4, 5)) * np.ones((steps, 1, 1))
    rate[:, :, 0] *= np.where(days % 7 < 2, 3.0, 0.4)[:, None]
    rate[:, :, 1] *= np.where(days % 7 == 5, 4.0, 0.5)[:, None]
    # Two days a month on which the whole city is busy.
    rate[np.isin(make_axis(steps).local_starts.day, (1, 15))] *= 2.0
    known = fit(cube_of(rate), years(steps))
    assert known.trust_.places == max(PLACE_SHARES) and known.trust_.city == max(CITY_SHARES)
    rate[-728:-364] = rate[:-728].mean(axis=0)
    gone = fit(cube_of(rate), years(steps))
    assert gone.trust_ == Trust(0.0, 0.0)
