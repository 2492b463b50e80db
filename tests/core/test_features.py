# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known on the eve of a step: against plain loops, and never from the step itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_axis, make_cube

from gridcast_qgis.core import features
from gridcast_qgis.core.timesteps import TimeAxis

INSIDE = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 0.25]], np.float32)
VALID = INSIDE > 0


def counts_of(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.7, (steps, *INSIDE.shape)).astype(np.float32) * VALID


def everything(counts: np.ndarray, axis: TimeAxis) -> dict[str, np.ndarray]:
    base = features.base_rate(counts, INSIDE, axis)
    return {
        "historical_average": features.historical_average(counts, axis),
        "weekday_average": features.weekday_average(counts, axis),
        "base_rate": base,
        "recent_ratio": features.recent_ratio(counts, base, axis),
        "city_level": features.city_level(counts, base, VALID, axis),
    }


@given(window=st.integers(1, 30), steps=st.integers(1, 25))
def test_trailing_sums(window, steps):
    counts = counts_of(steps)
    sums, lengths = features.trailing_sum(counts, window)
    for t in range(steps + 1):
        past = counts[max(0, t - window) : t]
        assert lengths[t] == len(past)
        assert (sums[t] == past.sum(axis=0)).all()


def naive_average(counts: np.ndarray, t: int, window: int) -> np.ndarray:
    past = counts[max(0, t - window) : t].astype(float)
    return past.mean(axis=0) if len(past) else np.zeros(counts.shape[1:])


@pytest.mark.parametrize(("step", "window"), [("day", 365), ("week", 52), ("month", 12), ("quarter", 4)])
def test_the_historical_average_is_the_mean_of_a_year(step, window):
    counts = counts_of(window + 30)
    average = features.historical_average(counts, make_axis(len(counts), step))
    assert average.dtype == np.float32
    assert len(average) == len(counts) + 1
    for t in (0, 1, 2, window - 1, window, window + 1, len(counts)):
        assert average[t] == pytest.approx(naive_average(counts, t, window), abs=1e-6)


@pytest.mark.parametrize(
    ("step", "steps"), [("day", 400), ("12h", 300), ("1h", 400), ("day", 3)], ids=lambda v: str(v)
)
def test_the_weekday_average_is_the_mean_of_the_same_slots(step, steps):
    counts = counts_of(steps)
    axis = make_axis(steps, step)
    average = features.weekday_average(counts, axis)
    starts = axis.extended(1).local_starts
    slot = [(time.day_of_week, time.hour if step != "day" else 0) for time in starts]
    for t in {0, 1, 2, steps // 3, steps // 2, steps - 1, steps}:
        same = [s for s in range(t) if slot[s] == slot[t]][-52:]
        year = features.historical_average(counts, axis)[t]
        expected = counts[same].mean(axis=0) if same else year
        assert average[t] == pytest.approx(expected, abs=1e-6)


def test_only_the_last_52_weekdays_count():
    counts = np.zeros((7 * 60, 2, 3), np.float32)
    counts[:56] = 1
    average = features.weekday_average(counts, make_axis(len(counts)))
    assert average[7 * 59] == pytest.approx(1 / 52)
    assert average[7 * 60] == pytest.approx(0)


def test_weeks_and_longer_steps_have_no_weekday():
    counts = counts_of(40)
    axis = make_axis(40, "week")
    assert (features.weekday_average(counts, axis) == features.historical_average(counts, axis)).all()


@settings(max_examples=40)
@given(
    change_at=st.integers(0, 39),
    seed=st.integers(0, 10),
    step=st.sampled_from(["1h", "day", "week", "month"]),
)
def test_the_future_never_changes_the_past(change_at, seed, step):
    counts = counts_of(40, seed)
    other = counts.copy()
    other[change_at:] = counts_of(40 - change_at, seed + 100) * 5 + VALID
    axis = make_axis(40, step)
    one, two = everything(counts, axis), everything(other, axis)
    for name in one:
        assert len(one[name]) == 41
        # Row t knows the steps before t: the row of the changed step itself is the same.
        assert (one[name][: change_at + 1] == two[name][: change_at + 1]).all(), name
    later = slice(change_at + 1, None)
    assert not np.array_equal(one["historical_average"][later], two["historical_average"][later])


@given(seed=st.integers(0, 10), kept=st.integers(1, 40))
def test_a_shorter_cube_knows_the_same_at_its_end(seed, kept):
    counts, axis = counts_of(40, seed), make_axis(40)
    whole, part = everything(counts, axis), everything(counts[:kept], axis.slice(0, kept))
    for name in whole:
        assert part[name] == pytest.approx(whole[name][: kept + 1], rel=1e-6), name


def test_the_base_rate_is_never_zero_and_follows_the_past():
    counts = np.zeros((50, 2, 3), np.float32)
    axis = make_axis(50)
    nothing = features.base_rate(counts, INSIDE, axis)
    assert (nothing[:, VALID] > 0).all()
    assert np.isfinite(nothing).all()
    counts[:, 1, 0] = 2
    rate = features.base_rate(counts, INSIDE, axis)
    # A year that has only 50 days: those and seven steps at the mean density.
    density = 100 / 50 / INSIDE.sum()
    assert rate[50, 1, 0] == pytest.approx((100 + 7 * density) / 57, rel=1e-6)
    assert rate[50, 0, 1] == pytest.approx(7 * density * 0.5 / 57, rel=1e-6)
    assert (rate[10:, 1, 0] > 5 * rate[10:, 0, 0]).all()


def test_recent_weeks_are_compared_with_what_was_expected():
    counts = np.ones((100, 2, 3), np.float32) * VALID
    axis = make_axis(100)
    base = np.ones((101, 2, 3), np.float32)
    counts[-28:, 1, 1] = 3
    ratio = features.recent_ratio(counts, base, axis)
    assert ratio[0] == pytest.approx(0)
    assert ratio[100, 1, 0] == pytest.approx(0, abs=1e-6)
    assert ratio[100, 1, 1] == pytest.approx(np.log((84 + 3) / (28 + 3)), rel=1e-6)
    level = features.city_level(counts, base, VALID, axis)
    observed, expected = 28 * (4 + 3), 28 * 5
    assert level[100] == pytest.approx(np.log((observed + 3) / (expected + 3)), rel=1e-6)


def test_cells_outside_say_nothing_about_the_city():
    cube = make_cube(30)
    counts, valid, axis = cube.total, cube.grid.valid, cube.axis
    other = np.where(valid, counts, 99).astype(np.float32)
    one = features.base_rate(counts, cube.grid.inside, axis)
    two = features.base_rate(other, cube.grid.inside, axis)
    assert (one[:, valid] == two[:, valid]).all()
    level = features.city_level(counts, one, valid, axis)
    assert (level == features.city_level(other, two, valid, axis)).all()
