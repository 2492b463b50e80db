# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known on the eve of a step: against plain loops, and never from the step itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_axis, make_cube

from gridcast_qgis.core.features import (
    BaseRates,
    CityPace,
    DecayedMeans,
    RunningSums,
    city_totals,
    decayed_mean,
    historical_average,
    season_ago,
    weekday_average,
)
from gridcast_qgis.core.timesteps import TimeAxis

INSIDE = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 0.25]], np.float32)
VALID = INSIDE > 0


def counts_of(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.7, (steps, *INSIDE.shape)).astype(np.float32) * VALID


def everything(
    counts: np.ndarray, axis: TimeAxis, start: int = 0, stop: int | None = None
) -> dict[str, np.ndarray]:
    """Return all that is said of the steps `start` to `stop - 1`, by default of all and the next one."""
    stop = len(counts) + 1 if stop is None else stop
    base = BaseRates(counts, INSIDE, axis)
    rate = base.rate(start, stop)
    pace = CityPace(city_totals(counts, VALID), axis)
    return {
        "historical_average": historical_average(counts, axis, start, stop),
        "weekday_average": weekday_average(counts, axis, start, stop),
        "base_rate": rate,
        "recent_ratio": base.recent_ratio(start, stop, rate),
        "city_level": base.city_level[start:stop],
        "decayed_mean": decayed_mean(counts, 20, start, stop),
        "long_mean": decayed_mean(counts, np.inf, start, stop),
        "pace_level": pace.level(np.full(stop - start, 2.0), start, stop),
        "pace_mean": pace.mean(5, start, stop),
        "weekday_factor": pace.weekday_factor(start, stop),
    }


# Sums --------------------------------------------------------------------------------------------------

# Sums are kept for every 64th step.
LENGTHS = st.sampled_from([0, 1, 2, 25, 63, 64, 65, 127, 128, 129, 200])


@given(steps=LENGTHS, share=st.floats(0, 1))
def test_the_sum_before_a_step(steps, share):
    counts, step = counts_of(steps), int(share * steps)
    total = RunningSums(counts).before(step)
    assert total.dtype == np.float64
    assert (total == counts[:step].sum(axis=0, dtype=float)).all()


@given(steps=LENGTHS, window=st.integers(1, 150), data=st.data())
def test_sums_over_a_window_before_each_step(steps, window, data):
    counts = counts_of(steps)
    start = data.draw(st.integers(0, steps + 1))
    stop = data.draw(st.integers(start, steps + 1))
    sums, lengths = RunningSums(counts).trailing(window, start, stop)
    assert sums.shape == (stop - start, 2, 3)
    assert sums.dtype == np.float64
    assert lengths.shape == (stop - start,)
    for i, step in enumerate(range(start, stop)):
        past = counts[max(0, step - window) : step]
        assert lengths[i] == len(past)
        assert (sums[i] == past.sum(axis=0, dtype=float)).all()


def test_sums_of_series_without_cells():
    series = np.arange(100.0)
    sums, lengths = RunningSums(series).trailing(3, 99, 101)
    assert sums.tolist() == [96 + 97 + 98, 97 + 98 + 99]
    assert lengths.tolist() == [3, 3]


def test_long_sums_of_large_counts_are_exact():
    # A float32 sum would stop growing here.
    counts = np.full((3000, 1, 1), 2**24 - 1, np.float32)
    assert RunningSums(counts).before(3000) == 3000 * (2**24 - 1)


def test_sums_keep_little_besides_the_counts():
    counts = counts_of(6400)
    sums = RunningSums(counts)
    arrays = [value for value in vars(sums).values() if isinstance(value, np.ndarray)]
    own = [array for array in arrays if not np.shares_memory(array, counts)]
    assert len(own) < len(arrays)
    assert sum(array.nbytes for array in own) < counts.nbytes / 25


# Averages ----------------------------------------------------------------------------------------------


def naive_average(counts: np.ndarray, t: int, window: int) -> np.ndarray:
    past = counts[max(0, t - window) : t].astype(float)
    return past.mean(axis=0) if len(past) else np.zeros(counts.shape[1:])


@pytest.mark.parametrize(("step", "window"), [("day", 365), ("week", 52), ("month", 12), ("quarter", 4)])
def test_the_historical_average_is_the_mean_of_a_year(step, window):
    counts = counts_of(window + 30)
    average = historical_average(counts, make_axis(len(counts), step))
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
    average = weekday_average(counts, axis)
    assert average.dtype == np.float32
    starts = axis.extended(1).local_starts
    slot = [(time.day_of_week, time.hour if step != "day" else 0) for time in starts]
    for t in {0, 1, 2, steps // 3, steps // 2, steps - 1, steps}:
        same = [s for s in range(t) if slot[s] == slot[t]][-52:]
        year = historical_average(counts, axis)[t]
        expected = counts[same].mean(axis=0) if same else year
        assert average[t] == pytest.approx(expected, abs=1e-6)


def test_only_the_last_52_weekdays_count():
    counts = np.zeros((7 * 60, 2, 3), np.float32)
    counts[:56] = 1
    average = weekday_average(counts, make_axis(len(counts)))
    assert average[7 * 59] == pytest.approx(1 / 52)
    assert average[7 * 60] == pytest.approx(0)


def test_weeks_and_longer_steps_have_no_weekday():
    counts = counts_of(40)
    axis = make_axis(40, "week")
    assert (weekday_average(counts, axis) == historical_average(counts, axis)).all()


# Decayed means -----------------------------------------------------------------------------------------


@given(steps=LENGTHS, half_life=st.sampled_from([0.3, 2.0, 60.0, np.inf]), data=st.data())
def test_a_decayed_mean_by_plain_loops(steps, half_life, data):
    counts = counts_of(steps)
    start = data.draw(st.integers(0, steps))
    stop = data.draw(st.integers(start, steps + 4))
    found = decayed_mean(counts, half_life, start, stop)
    assert found.shape == (stop - start, 2, 3)
    for t in (start, (start + stop) // 2, stop - 1):
        if start <= t < stop:
            known = min(t, steps)
            weights = np.array([0.5 ** ((known - 1 - s) / half_life) for s in range(known)])
            past = counts[:known].astype(float)
            expected = np.einsum("t,tyx->yx", weights, past) / weights.sum() if known else 0.0
            assert found[t - start] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_an_event_counts_half_after_the_half_life():
    counts = np.zeros((11, 1, 1))
    counts[0] = 8
    past = DecayedMeans([5, 10], counts)
    assert past.sums.ravel() == pytest.approx([2, 4])
    assert past.weight == pytest.approx([sum(0.5 ** (k / h) for k in range(11)) for h in (5, 10)])
    past.advance(np.array([[1.0]]))
    assert past.sums.ravel() == pytest.approx([2 * 0.5**0.2 + 1, 4 * 0.5**0.1 + 1])
    assert past.means == pytest.approx(past.sums / past.weight[:, None, None])


def test_without_a_past_decayed_means_are_zero():
    assert (DecayedMeans([3], np.zeros((0, 2, 2))).means == 0).all()


# The pace of the city ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["6h", "day", "week"])
def test_the_pace_of_the_city_by_plain_loops(step):
    steps = 400
    counts = counts_of(steps)
    axis = make_axis(steps, step)
    totals = city_totals(counts, VALID)
    assert totals == pytest.approx([counts[t][VALID].sum() for t in range(steps)])
    pace = CityPace(totals, axis)
    # Beyond the step that follows the counts all is as at the end.
    stop = steps + 20
    expected = np.linspace(1, 5, stop)
    level, mean = pace.level(expected, 0, stop), pace.mean(10, 0, stop)
    factor = pace.weekday_factor(0, stop)
    month = {"6h": 112, "day": 28, "week": 4}[step]
    two_years = {"6h": 2920, "day": 730, "week": 104}[step]
    starts = axis.extended(20).local_starts
    slots = [(time.day_of_week, time.hour if step == "6h" else 0) for time in starts]
    for t in (0, 1, 9, 200, steps - 1, steps, steps + 19):
        known = min(t, steps)
        recent = totals[max(0, known - month) : known]
        assert level[t] == pytest.approx((recent.sum() + 3) / (expected[t] * len(recent) + 3))
        assert mean[t] == pytest.approx(totals[max(0, known - 10) : known].mean() if known else 0)
        same = [totals[s] for s in range(known) if slots[s] == slots[t]][-104:]
        overall = totals[max(0, known - two_years) : known].mean() if known else 0
        usual = (sum(same) + 3) / (len(same) * overall + 3)
        assert factor[t] == pytest.approx(1.0 if step == "week" else usual)


def test_weekdays_differ_by_what_happened_in_two_years():
    axis = make_axis(7 * 130)
    totals = np.full(len(axis), 10.0)
    monday = axis.local_starts.day_of_week == 0
    totals[monday] = 24
    # What lies more than two years back is forgotten.
    totals[: 7 * 26][monday[: 7 * 26]] = 500
    factor = CityPace(totals, axis).weekday_factor(len(axis), len(axis) + 7)
    days = axis.extended(7).local_starts[-7:].day_of_week
    assert factor[days == 0] == pytest.approx(24 / 12, rel=0.01)
    assert factor[days == 3] == pytest.approx(10 / 12, rel=0.01)


# One season ago ----------------------------------------------------------------------------------------


def test_the_same_weekday_of_the_week_before():
    axis = make_axis(30)
    assert season_ago(axis, 5, 12, 30).tolist() == [-1, -1, 0, 1, 2, 3, 4]
    # Two weeks ahead: the last week that is known.
    assert season_ago(axis, 30, 45, 30).tolist() == [*range(23, 30), *range(23, 30), 23]
    # Nothing is known but the first five days.
    assert season_ago(axis, 5, 14, 5).tolist() == [-1, -1, 0, 1, 2, 3, 4, -1, -1]


@pytest.mark.parametrize("step", ["1h", "6h", "shifts 07:00 15:00 23:00"])
def test_the_same_hour_across_a_change_of_the_clocks(step):
    # On 10 March 2024 the clocks go forward.
    axis = make_axis(24 * 45 if step == "1h" else 200, step)
    source = season_ago(axis, 0, len(axis), len(axis))
    local = axis.local_starts.tz_localize(None)
    week = np.flatnonzero(source >= 0)
    same = local[week] - local[source[week]] == np.timedelta64(7, "D")
    # Except for hours that one of the weeks does not have.
    assert same.sum() >= len(week) - 2
    assert (source[week] < week).all()
    assert (np.flatnonzero(source < 0) == np.arange(week[0])).all()


@pytest.mark.parametrize(("step", "year"), [("week", 52), ("14days", 26), ("month", 12), ("quarter", 4)])
def test_the_same_step_of_the_year_before(step, year):
    axis = make_axis(2 * year + 3, step)
    known = len(axis)
    assert season_ago(axis, year - 1, year + 2, known).tolist() == [-1, 0, 1]
    ahead = season_ago(axis, known, known + year + 1, known)
    assert ahead.tolist() == [*range(known - year, known), known - year]


# Base rates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "year", "month"), [("day", 365, 28), ("week", 52, 4), ("month", 12, 2)])
def test_base_rates_by_plain_loops(step, year, month):
    counts = counts_of(year + 30)
    base = BaseRates(counts, INSIDE, make_axis(len(counts), step))
    total = len(counts) + 1
    rate = base.rate(0, total)
    recent = base.recent_ratio(0, total, rate)
    assert rate.dtype == recent.dtype == base.city_level.dtype == np.float32
    assert base.city_level.shape == (total,)
    for t in (0, 1, 5, month, month + 1, year - 1, year, year + 1, len(counts)):
        past, weeks = counts[max(0, t - year) : t], counts[max(0, t - month) : t]
        density = max(past[:, VALID].sum(), 0.5) / max(len(past), 1) / INSIDE.sum()
        expected = (past.sum(axis=0) + 7 * density * INSIDE) / (len(past) + 7)
        assert rate[t][VALID] == pytest.approx(expected[VALID], rel=1e-5)
        assert rate[t][~VALID] == pytest.approx(1)
        ratio = np.log((weeks.sum(axis=0) + 3) / (rate[t] * len(weeks) + 3))
        assert recent[t] == pytest.approx(ratio, abs=1e-5)
        city = (past[:, VALID].sum() + 7 * density * INSIDE.sum()) / (len(past) + 7)
        level = np.log((weeks[:, VALID].sum() + 3) / (city * len(weeks) + 3))
        assert base.city_level[t] == pytest.approx(level, abs=1e-5)


def test_the_base_rate_is_never_zero_and_follows_the_past():
    counts = np.zeros((50, 2, 3), np.float32)
    axis = make_axis(50)
    nothing = BaseRates(counts, INSIDE, axis).rate(0, 51)
    assert (nothing[:, VALID] > 0).all()
    assert np.isfinite(nothing).all()
    # Half an event in the whole city and period stands for none so far.
    assert nothing[50, 1, 0] == pytest.approx(7 * 0.5 / 50 / INSIDE.sum() / 57, rel=1e-6)
    counts[:, 1, 0] = 2
    rate = BaseRates(counts, INSIDE, axis).rate(0, 51)
    # A year that has only 50 days: those and seven steps at the mean density.
    density = 100 / 50 / INSIDE.sum()
    assert rate[50, 1, 0] == pytest.approx((100 + 7 * density) / 57, rel=1e-6)
    assert rate[50, 0, 1] == pytest.approx(7 * density * 0.5 / 57, rel=1e-6)
    assert (rate[10:, 1, 0] > 5 * rate[10:, 0, 0]).all()


def test_recent_weeks_are_compared_with_what_was_expected():
    counts = np.ones((100, 2, 3), np.float32) * VALID
    counts[-28:, 1, 1] = 3
    base = BaseRates(counts, INSIDE, make_axis(100))
    one = np.ones((101, 2, 3), np.float32)
    ratio = base.recent_ratio(0, 101, one)
    assert ratio[0] == pytest.approx(0)
    assert ratio[100, 1, 0] == pytest.approx(0, abs=1e-6)
    assert ratio[100, 1, 1] == pytest.approx(np.log((84 + 3) / (28 + 3)), rel=1e-6)
    # 100 days at the mean of all of them, which is also what the seven further ones have.
    observed, expected = 28 * (4 + 3), 28 * (72 * 5 + 28 * 7) / 100
    assert base.city_level[100] == pytest.approx(np.log((observed + 3) / (expected + 3)), rel=1e-5)


def test_cells_outside_say_nothing_about_the_city():
    cube = make_cube(30)
    counts, valid, axis = cube.total, cube.grid.valid, cube.axis
    other = np.where(valid, counts, 99).astype(np.float32)
    one, two = (BaseRates(each, cube.grid.inside, axis) for each in (counts, other))
    assert (one.rate(0, 31) == two.rate(0, 31)).all()
    assert (one.city_level == two.city_level).all()


# All of them -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    change_at=st.integers(0, 139),
    seed=st.integers(0, 10),
    step=st.sampled_from(["1h", "day", "week", "month"]),
)
def test_the_future_never_changes_the_past(change_at, seed, step):
    counts = counts_of(140, seed)
    other = counts.copy()
    other[change_at:] = counts_of(140 - change_at, seed + 100) * 5 + VALID
    axis = make_axis(140, step)
    one, two = everything(counts, axis), everything(other, axis)
    for name in one:
        assert len(one[name]) == 141
        # Row t knows the steps before t: the row of the changed step itself is the same.
        assert (one[name][: change_at + 1] == two[name][: change_at + 1]).all(), name
    later = slice(change_at + 1, None)
    assert not np.array_equal(one["historical_average"][later], two["historical_average"][later])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10), kept=st.integers(1, 140))
def test_a_shorter_cube_knows_the_same_at_its_end(seed, kept):
    counts, axis = counts_of(140, seed), make_axis(140)
    whole, part = everything(counts, axis), everything(counts[:kept], axis.slice(0, kept))
    for name in whole:
        assert part[name] == pytest.approx(whole[name][: kept + 1], rel=1e-6), name


@settings(max_examples=30, deadline=None)
@given(step=st.sampled_from(["12h", "day", "week"]), start=st.integers(0, 141), length=st.integers(0, 141))
def test_a_part_of_the_steps_is_a_part_of_the_whole(step, start, length):
    counts, axis = counts_of(140), make_axis(140, step)
    stop = min(start + length, 141)
    if start > stop:
        return
    whole, part = everything(counts, axis), everything(counts, axis, start, stop)
    for name in whole:
        assert part[name].shape == whole[name][start:stop].shape
        assert part[name] == pytest.approx(whole[name][start:stop], rel=1e-6), name
