# SPDX-License-Identifier: GPL-2.0-or-later
"""Averages of each cell over time, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import changed, make_cube

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.features import weekday_average
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.baselines import EWMA, HeldAverage, SeasonalNaive
from gridcast_qgis.core.models.registry import model_class, model_keys


def one_by_one(model: Forecaster, cube: Cube, origin: int, horizon: int) -> np.ndarray:
    """Forecast as networks do: each step from the one before, its expected events standing in for it."""
    return Forecaster.forecast(model, cube, origin, horizon)


def test_seasonal_naive_is_what_happened_a_week_ago():
    cube = make_cube(40)
    valid = cube.grid.valid
    forecast = SeasonalNaive().predict_next(cube, 7, 41)
    assert (forecast[:, valid] == cube.total[:34, valid]).all()


def test_seasonal_naive_falls_back_on_the_average():
    cube = make_cube(40)
    valid = cube.grid.valid
    forecast = SeasonalNaive().predict_next(cube, 1, 9)
    for t in range(1, 7):
        assert forecast[t - 1, valid] == pytest.approx(cube.total[:t, valid].mean(axis=0))
    assert (forecast[6, valid] == cube.total[0, valid]).all()
    # Ahead of four known days: the average of these until their weekday comes again.
    ahead = SeasonalNaive().forecast(cube, 4, 8)[:, valid]
    known = cube.total[:4, valid]
    assert ahead[:3] == pytest.approx(np.broadcast_to(known.mean(axis=0), (3, valid.sum())))
    assert (ahead[3:7] == known).all()


@pytest.mark.parametrize(("step", "steps"), [("day", 40), ("12h", 40), ("month", 20), ("quarter", 9)])
def test_seasonal_naive_repeats_the_last_season_ahead(step, steps):
    cube = make_cube(steps, step=step)
    horizon = {"day": 16, "12h": 30, "month": 14, "quarter": 6}[step]
    forecast = SeasonalNaive().forecast(cube, steps, horizon)
    assert forecast == pytest.approx(one_by_one(SeasonalNaive(), cube, steps, horizon), nan_ok=True)


def test_an_exponentially_weighted_mean_by_hand():
    cube = make_cube(4, 1, 1, holes=False)
    events = np.zeros((4, 2, 1, 1))
    events[:, 0, 0, 0] = [4, 0, 2, 1]
    cube = changed(cube, events)
    plain = EWMA(half_life_days=1.0, level=False, weekday=False)
    # From new to old, 1, 2, 0 and 4 events have the weights 1, 1/2, 1/4 and 1/8.
    assert plain.predict_next(cube, 4, 5).ravel() == pytest.approx([(1 + 1 + 0 + 0.5) / 1.875])
    # Level: 7 events in four days, where four times the mean are expected; and three on either side.
    expected = 2.5 / 1.875
    leveled = EWMA(half_life_days=1.0, weekday=False).predict_next(cube, 4, 5)
    assert leveled.ravel() == pytest.approx([expected * (7 + 3) / (4 * expected + 3)])
    # The weekday of the fifth day has not been there before.
    assert EWMA(half_life_days=1.0).predict_next(cube, 4, 5) == pytest.approx(leveled)


def test_the_half_life_is_in_days_whatever_the_step():
    plain = {"level": False, "weekday": False, "half_life_days": 2.0}
    for step, steps in (("day", 2), ("12h", 4), ("6h", 8)):
        cube = make_cube(9, 1, 1, holes=False, step=step)
        events = np.zeros((9, 2, 1, 1))
        events[-1] = 1
        newest = EWMA(**plain).predict_next(changed(cube, events), 9, 10)
        events = np.roll(events, -steps, axis=0)
        older = EWMA(**plain).predict_next(changed(cube, events), 9, 10)
        assert older == pytest.approx(newest / 2)


def test_an_average_follows_the_level_and_the_weekdays_of_the_city():
    cube = make_cube(400)
    valid, sunday = cube.grid.valid, cube.axis.local_starts.day_of_week == 6
    events = np.broadcast_to(4.0 * valid, cube.events.shape).copy()
    events[sunday] *= 2
    events[-28:] *= 3
    forecast = EWMA(half_life_days=200).forecast(changed(cube, events), 400, 14)
    days = cube.axis.extended(14).local_starts[-14:].day_of_week
    # The events of the last 28 days, spread over the week as in all of the past.
    assert forecast[:, valid].mean() == pytest.approx(24 * 8 / 7, rel=0.01)
    ratio = forecast[days == 6][:, valid].mean() / forecast[days == 2][:, valid].mean()
    assert ratio == pytest.approx(2, rel=0.02)
    assert forecast[7:] == pytest.approx(forecast[:7], nan_ok=True)


def test_a_plain_mean_held_is_what_step_by_step_forecasts_come_to():
    cube = make_cube(60)
    plain = EWMA(level=False, weekday=False)
    held = plain.forecast(cube, 60, 12)
    assert held == pytest.approx(one_by_one(plain, cube, 60, 12), rel=1e-5, nan_ok=True)
    assert held == pytest.approx(np.broadcast_to(held[0], held.shape), nan_ok=True)


HELD = [key for key in model_keys() if issubclass(model_class(key), HeldAverage)]


@pytest.mark.parametrize("key", HELD)
def test_forecasts_of_several_steps_follow_from_what_is_known_at_the_origin(key):
    assert {"seasonal_naive", "ewma", "kde", "promap"} <= set(HELD)
    cube, model = make_cube(50), model_class(key)()
    ahead = model.forecast(cube, 45, 9)
    assert ahead[0] == pytest.approx(model.predict_next(cube, 45, 46)[0], nan_ok=True)
    # The weekdays of the second week are those of the first.
    assert ahead[7:] == pytest.approx(ahead[:2], nan_ok=True)


def test_the_weekday_average_is_another_method():
    cube = make_cube(60)
    naive = SeasonalNaive().predict_next(cube, 30, 60)
    assert not np.allclose(naive, weekday_average(cube.total, cube.axis, 30, 60), equal_nan=True)


@pytest.mark.parametrize(
    ("key", "setting", "value", "text"),
    [
        (
            "ewma",
            "half_life_days",
            0.0,
            "HALF_LIFE_DAYS = 0.0: The value must be a number above 0. 60 is a good start.",
        ),
        (
            "kde",
            "bandwidth",
            -1.0,
            "BANDWIDTH = -1.0: The value must not be below 0. Give metres such as 200, or 0 for half the "
            "side of a cell.",
        ),
        (
            "kde",
            "half_life_days",
            float("nan"),
            "HALF_LIFE_DAYS = nan: The value must not be below 0. Give days such as 365, or 0 if old events "
            "count as new ones do.",
        ),
        (
            "promap",
            "bandwidth",
            0.0,
            "BANDWIDTH = 0.0: The value must be a number above 0. Give metres; 400 is what was published.",
        ),
        (
            "promap",
            "window_days",
            float("inf"),
            "WINDOW_DAYS = inf: The value must be a number above 0. Give days; 61 (two months) is what was "
            "published.",
        ),
        (
            "self_exciting",
            "reach",
            0.0,
            "REACH = 0.0: The value must be a number above 0. Give metres such as 1000.",
        ),
        (
            "self_exciting",
            "longest_delay_days",
            0.0,
            "LONGEST_DELAY_DAYS = 0.0: The value must be a number above 0. 90 is a good value.",
        ),
        (
            "self_exciting",
            "tolerance",
            0.0,
            "TOLERANCE = 0.0: The value must be a number above 0. 0.0001 is a good value.",
        ),
        ("self_exciting", "passes", 0, "PASSES = 0: The value must be at least 1."),
        ("boosted_trees", "trees", 0, "TREES = 0: The value must be at least 1."),
        ("boosted_trees", "leaves", 1, "LEAVES = 1: The value must be at least 2."),
        ("boosted_trees", "samples", 0, "SAMPLES = 0: The value must be at least 1."),
        ("boosted_trees", "patience", 0, "PATIENCE = 0: The value must be at least 1."),
        ("boosted_trees", "seed", -1, "SEED = -1: The value must be at least 0."),
        (
            "boosted_trees",
            "shrinkage",
            1.5,
            "SHRINKAGE = 1.5: The shrinkage must be above 0 and at most 1. 0.1 is a good start.",
        ),
    ],
)
def test_settings_are_checked(key, setting, value, text):
    with pytest.raises(InputError) as caught:
        model_class(key)(**{setting: value})
    assert caught.value.text() == text
