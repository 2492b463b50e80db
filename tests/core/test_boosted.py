# SPDX-License-Identifier: GPL-2.0-or-later
"""Boosted trees: the arrays say what scikit-learn says, and what is looked at lies in the past."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from synthetic import Recorder, changed, make_cube

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import JobCancelled
from gridcast_qgis.core.evaluation.metrics import mean_squared_error, poisson_deviance
from gridcast_qgis.core.features import CityPace, city_totals, decayed_mean
from gridcast_qgis.core.jobs.common import describe_cube
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.boosted import BoostedTrees, Features, Trees, bin_edges, codes
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

SPLIT = Split(1, 200, 200, 230, 230, 260)
QUICK = {"trees": 20, "patience": 5, "shrinkage": 0.3}


def lively(steps: int = 260) -> Cube:
    """Return a cube in which weekends are busy in some cells and calm in the others."""
    random = np.random.default_rng(2)
    cube = make_cube(steps)
    weekend = cube.axis.local_starts.day_of_week.to_numpy() >= 5
    nightlife = np.arange(7) < 4
    rate = np.where(weekend[:, None, None] == nightlife[None, None], 4.0, 0.3) * np.ones((1, 6, 1))
    events = random.poisson(rate)[:, None] * cube.grid.valid
    return Cube(cube.grid, cube.axis, ("events",), events.astype(np.float32))


@pytest.fixture(scope="module")
def learned():
    cube, reporter = lively(), Recorder()
    return BoostedTrees(**QUICK).fit(cube, SPLIT, reporter), cube, reporter


# Trees -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [2, 5, 15])
def test_the_arrays_predict_what_the_regressor_predicts(leaves):
    random = np.random.default_rng(leaves)
    x = random.normal(0, 1, (3000, 6)).astype(np.float32)
    x[:, 4] = random.integers(0, 3, 3000)
    y = random.poisson(np.exp(0.5 * x[:, 0] - x[:, 4] * (x[:, 1] > 0.3)))
    regressor = HistGradientBoostingRegressor(
        loss="poisson", max_iter=12, max_leaf_nodes=leaves, early_stopping=False, random_state=0
    ).fit(x, y)
    trees = Trees.of(regressor)
    assert len(trees) == 12
    assert trees.leaves <= 12 * leaves
    # Values on the thresholds themselves, too.
    asked = np.concatenate([random.normal(0, 2, (500, 6)).astype(np.float32), x])
    asked[:50, 0] = trees.threshold[trees.feature == 0][:50].max().astype(np.float32)
    assert np.exp(trees.predict(asked)) == pytest.approx(regressor.predict(asked), rel=1e-9)


def test_trees_that_have_learned_from_codes_take_values():
    random = np.random.default_rng(4)
    x = random.normal(0, 1, (4000, 5)).astype(np.float32)
    x[:, 2] = random.integers(0, 4, 4000)
    x[:, 3] = 7
    y = random.poisson(np.exp(x[:, 0] - 0.5 * x[:, 2]))
    edges = bin_edges(x, seed=0)
    assert [len(values) for values in edges] == [199, 199, 4, 1, 199]
    seen = codes(x, edges)
    assert (seen[:, 3] == 0).all()
    assert ((seen <= 50) == (x <= [values[min(50, len(values) - 1)] for values in edges]))[:, [0, 1, 4]].all()
    regressor = HistGradientBoostingRegressor(loss="poisson", max_iter=15, early_stopping=False).fit(seen, y)
    trees = Trees.of(regressor, edges)
    asked = np.concatenate([random.normal(0, 3, (800, 5)).astype(np.float32), x])
    expected = regressor.predict(codes(asked, edges))
    assert np.exp(trees.predict(asked)) == pytest.approx(expected, rel=1e-9)


def test_trees_can_be_put_together():
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (500, 3)).astype(np.float32)
    one, two = (
        Trees.of(
            HistGradientBoostingRegressor(loss="poisson", max_iter=n, early_stopping=False).fit(
                x, random.poisson(np.exp(x[:, n - 2]))
            )
        )
        for n in (2, 3)
    )
    both = one.joined(two)
    assert len(both) == 5
    assert both.leaves == one.leaves + two.leaves
    assert both.predict(x) == pytest.approx(one.predict(x) + two.predict(x), abs=1e-12)
    assert Trees.none().joined(one).predict(x) == pytest.approx(one.predict(x))
    assert (Trees.none().predict(x) == 0).all()


# What they look at -------------------------------------------------------------------------------------


def test_the_base_rate_is_a_decayed_mean_at_the_pace_of_the_city():
    cube = make_cube(100, mean=3)
    valid = cube.grid.valid
    base, features = Features(cube.total, cube.axis, cube.grid, 70).read(101)
    assert base.shape == (31, valid.sum())
    assert features.shape[:2] == base.shape
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    mean = decayed_mean(cube.total, 60.0, 70, 101)[:, valid]
    weight = (0.5 ** (np.arange(70) / 60)).sum()
    density = mean[0].sum() / cube.grid.inside.sum()
    usual = (mean[0] * weight + density * cube.grid.inside[valid]) / (weight + 1)
    pace = CityPace(city_totals(cube.total, valid), cube.axis)
    level = pace.level(np.array([usual.sum()]), 70, 71)[0]
    assert base[0] == pytest.approx(usual * level * pace.weekday_factor(70, 71)[0], rel=1e-9)
    # The first columns of cell and city.
    assert features[0, :, 0] == pytest.approx(np.log(usual), rel=1e-5)
    assert features[0, :, 1] == pytest.approx(cube.grid.inside[valid])
    long_run = cube.total[:70, valid].sum(axis=0)
    assert features[0, :, 7] == pytest.approx(np.log((long_run + 1) / (70 * usual + 1)), rel=1e-4, abs=1e-5)


def test_the_cells_around_are_looked_at():
    cube = make_cube(30, mean=0.5)
    events = cube.events.copy()
    events[:, :, 3, 3] += 5
    _, calm = Features(cube.total, cube.axis, cube.grid, 30).read(31)
    _, busy = Features(changed(cube, events).total, cube.axis, cube.grid, 30).read(31)
    index = np.full(cube.grid.shape, -1)
    index[cube.grid.valid] = np.arange(cube.grid.valid.sum())
    beside, far = index[3, 4], index[5, 0]
    around = slice(8, 10)
    assert np.abs(busy - calm)[0, beside, around].min() > 0
    own = slice(2, 8)
    # What a cell has itself is looked at on its own.
    assert busy[0, far, around] == pytest.approx(calm[0, far, around], abs=0.05)
    assert np.abs(busy - calm)[0, beside, own].max() < 0.2


def test_features_know_the_past_only():
    cube = make_cube(60)
    other = cube.events.copy()
    other[40:] = 9 * cube.grid.valid
    future = changed(cube, other)
    one, two = (Features(each.total, cube.axis, cube.grid, 30).read(61) for each in (cube, future))
    for a, b in zip(one, two):
        assert (a[:11] == b[:11]).all()
        assert not np.allclose(a[12:], b[12:])
    # Nor do they know more for being asked late or in parts.
    part = Features(cube.total, cube.axis, cube.grid, 30)
    parts = [part.read(stop) for stop in (33, 34, 61)]
    for whole, pieces in zip(one, zip(*parts)):
        assert np.concatenate(pieces) == pytest.approx(whole, rel=1e-6)


def test_what_is_learned_of_a_step_is_as_if_it_had_been_known():
    cube = make_cube(60)
    known = Features(cube.total, cube.axis, cube.grid, 50)
    expected = known.read(61)
    told = Features(cube.total[:50], cube.axis, cube.grid, 50)
    for step in range(50, 61):
        base, features = told.read(step + 1)
        assert base[0] == pytest.approx(expected[0][step - 50], rel=1e-6)
        assert features[0] == pytest.approx(expected[1][step - 50], rel=1e-4, abs=1e-5)
        if step < 60:
            told.learn(np.where(cube.grid.valid, cube.total[step], np.nan))


# The model ---------------------------------------------------------------------------------------------


def test_trees_learn_what_the_averages_do_not_know(learned):
    model, cube, reporter = learned
    valid, observed = cube.grid.valid, cube.total[230:260]
    expected = model.predict_next(cube, 230, 260)
    base = np.full(expected.shape, np.nan)
    base[:, valid] = Features(cube.total, cube.axis, cube.grid, 230).read(260)[0]
    for measure in (mean_squared_error, poisson_deviance):
        assert measure(observed, expected, valid) < 0.8 * measure(observed, base, valid)
    assert model.parameter_count == model.trees_.leaves > len(model.trees_) > 0
    losses = reporter.values("val_loss")
    assert losses[0] > min(losses)
    assert len(reporter.values("loss")) == len(losses) - 1 == 2


def test_steps_are_reached_one_by_one(learned):
    model, cube, _ = learned
    origin = 240
    ahead = model.forecast(cube, origin, 4)
    events = cube.events.copy()
    for step in range(4):
        known = dataclasses.replace(cube, events=events)
        assert ahead[step] == pytest.approx(
            model.predict_next(known, origin + step, origin + step + 1)[0], rel=1e-4, nan_ok=True
        )
        events[origin + step, 0] = np.nan_to_num(ahead[step])


def test_saved_trees_forecast_the_same(learned, tmp_path):
    model, cube, _ = learned
    path = tmp_path / "trees.gridcast"
    save_model(model, path, {"cube": describe_cube(cube), "types": None})
    loaded = load_model(path).model
    assert loaded.parameter_count == model.parameter_count
    assert (loaded.predict_next(cube, 240, 261) == model.predict_next(cube, 240, 261))[
        :, cube.grid.valid
    ].all()


def test_the_same_seed_gives_the_same_trees(learned):
    model, cube, _ = learned
    # Samples are drawn, so that the seed matters.
    few = {**QUICK, "samples": 2000}
    one, two, other = (
        BoostedTrees(**few, seed=seed).fit(cube, SPLIT, Reporter()).trees_ for seed in (1, 1, 2)
    )
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in Trees.ARRAYS)
    assert not np.array_equal(one.threshold, other.threshold)


def test_training_goes_on_with_further_trees(learned):
    model, cube, _ = learned
    more = BoostedTrees(**{**QUICK, "trees": 5}).fit(cube, SPLIT, Reporter(), start=model).trees_
    first = model.trees_
    assert len(more) >= len(first)
    assert (more.threshold[: len(first.threshold)] == first.threshold).all()


def test_trees_that_bring_nothing_are_not_kept():
    # Pure chance: no tree is better than the base rate on other steps.
    cube, reporter = make_cube(120, mean=1.0), Recorder()
    model = BoostedTrees(trees=60, patience=1).fit(cube, Split(1, 60, 80, 120), reporter)
    losses = reporter.values("val_loss")
    kept = int(np.argmin(losses))
    assert len(model.trees_) == 10 * kept
    assert len(losses) <= kept + 2


def test_a_training_can_be_cancelled_between_rounds():
    reporter = Recorder(cancel_when=lambda event: event.get("name") == "loss")
    with pytest.raises(JobCancelled):
        BoostedTrees(**QUICK).fit(lively(), SPLIT, reporter)
    assert len(reporter.values("loss")) == 1
