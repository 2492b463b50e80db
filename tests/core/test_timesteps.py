# SPDX-License-Identifier: GPL-2.0-or-later
"""Time axes: where steps begin on the local clock, also when the clocks change."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.timesteps import (
    STEPS,
    TimeAxis,
    check_step,
    check_time_zone,
    parse_local,
    shift_step,
)

ZONES = (
    "UTC",
    "America/Toronto",
    "Europe/Berlin",
    "Asia/Kolkata",  # half an hour beside the others
    "Australia/Lord_Howe",  # changes by half an hour
    "America/Sao_Paulo",  # changed at midnight, until 2019
    "America/Havana",  # midnight comes twice
    "Pacific/Chatham",  # three quarters of an hour beside the others
)
SHORT = [step for step, hours in STEPS.items() if hours < 2]
PARTS_OF_A_DAY = [step for step, hours in STEPS.items() if hours < 24]


def axis(first: str, last: str, step: str, zone: str = "UTC") -> TimeAxis:
    return TimeAxis.covering(np.datetime64(first), np.datetime64(last), step, zone)


def local(times: np.ndarray, zone: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("step", STEPS)
def test_steps_follow_one_another_and_hold_what_they_cover(step, zone):
    first, last = np.datetime64("2018-10-20T13:07:11"), np.datetime64("2018-11-20T02:00:00")
    if step in ("month", "quarter"):
        last = np.datetime64("2020-03-20T02:00:00")
    steps = TimeAxis.covering(first, last, step, zone)
    assert steps.edges.dtype == "datetime64[s]"
    assert len(steps) == len(steps.starts) == len(steps.ends) == len(steps.local_starts)
    assert (np.diff(steps.edges) > np.timedelta64(0, "s")).all()
    assert steps.edges[0] <= first < steps.edges[1]
    assert steps.edges[-2] <= last < steps.edges[-1]
    hours = np.diff(steps.edges) / np.timedelta64(3600, "s")
    assert hours.max() <= max(STEPS[step] * 1.02, STEPS[step] + 1)


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2024-03-10", 23), ("2024-11-03", 25), ("2024-06-01", 24)],
    ids=["spring", "autumn", "other"],
)
@pytest.mark.parametrize("step", SHORT)
def test_a_day_has_as_many_short_steps_as_the_clock_gives_it(day, hours, step):
    zone = "America/Toronto"
    begin, end = (parse_local(text, zone, "START") for text in (day, str(np.datetime64(day) + 1)))
    steps = TimeAxis.covering(begin, end - np.timedelta64(1, "s"), step, zone)
    assert len(steps) == hours / STEPS[step]
    assert steps.edges[0] == begin
    assert steps.edges[-1] == end
    assert set(np.diff(steps.edges)) == {np.timedelta64(int(STEPS[step] * 3600), "s")}


@pytest.mark.parametrize(("day", "hours"), [("2024-03-10", 23), ("2024-11-03", 25)], ids=["spring", "autumn"])
@pytest.mark.parametrize("step", ["2h", "3h", "4h", "6h", "8h", "12h", "day"])
def test_longer_steps_begin_at_the_same_clock_time_every_day(day, hours, step):
    zone = "America/Toronto"
    begin = parse_local(day, zone, "START")
    end = parse_local(str(np.datetime64(day) + 1), zone, "START")
    steps = TimeAxis.covering(begin, end - np.timedelta64(1, "s"), step, zone)
    assert len(steps) == 24 / STEPS[step]
    assert (end - begin) / np.timedelta64(3600, "s") == hours
    assert steps.edges[0] == begin
    assert steps.edges[-1] == end
    # 02:00 does not exist in spring: that step begins when the clock shows 03:00.
    starts = [time.hour for time in steps.local_starts]
    expected = [int(i * STEPS[step]) for i in range(len(steps))]
    assert starts == [3 if hours == 23 and hour == 2 else hour for hour in expected]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("step", [step for step, hours in STEPS.items() if hours <= 24])
def test_every_day_begins_with_a_step(step, zone):
    steps = axis("2018-01-10", "2018-12-20", step, zone)
    dates = pd.date_range("2018-01-12", "2018-12-18")
    first = local(steps.starts, zone)
    of_day = pd.Series(first).groupby(first.date).min()
    midnight = dates.tz_localize(zone, ambiguous=np.ones(len(dates), bool), nonexistent="shift_forward")
    assert [of_day[day.date()] for day in dates] == list(midnight)


def test_a_zone_that_skips_midnight_begins_its_day_at_one():
    steps = axis("2018-11-03T12", "2018-11-05T12", "day", "America/Sao_Paulo")
    assert steps.isoformat(1) == ("2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00")
    hourly = axis("2018-11-04T03", "2018-11-05T01:59:59", "1h", "America/Sao_Paulo")
    assert len(hourly) == 23


def test_a_zone_that_repeats_midnight_begins_its_day_at_the_first():
    steps = axis("2024-11-03T04", "2024-11-04T04:59:59", "1h", "America/Havana")
    assert len(steps) == 25
    assert steps.isoformat(0)[0] == "2024-11-03T00:00:00-04:00"
    assert steps.isoformat(1)[0] == "2024-11-03T00:00:00-05:00"


def test_a_change_by_half_an_hour_moves_no_later_step():
    steps = axis("2024-04-05T20", "2024-10-08T20", "1h", "Australia/Lord_Howe")
    minutes = steps.local_starts.minute
    odd = sorted({str(day) for day in steps.local_starts[minutes != 0].date})
    assert odd == ["2024-04-07", "2024-10-06"]
    lengths = np.diff(steps.edges) / np.timedelta64(60, "s")
    assert sorted(lengths[lengths != 60]) == [30, 30]


def test_weeks_begin_on_monday_whatever_the_first_event():
    for first in ("2024-01-01", "2024-01-03", "2024-01-07"):
        steps = axis(first, "2024-02-20", "week", "America/Toronto")
        assert set(steps.local_starts.day_of_week) == {0}
        assert set(steps.local_starts.hour) == {0}


@pytest.mark.parametrize("step", ["14days", "30days"])
def test_long_steps_lie_at_the_same_dates_whatever_the_first_event(step):
    one, two = axis("2024-01-01", "2024-12-20", step), axis("2023-05-05", "2024-12-20", step)
    assert set(one.edges) <= set(two.edges)
    before = axis("1965-01-01", "1975-01-01", step)
    assert set(np.diff(before.edges)) == {np.timedelta64(int(STEPS[step]), "h")}


@pytest.mark.parametrize(("step", "months"), [("month", range(1, 13)), ("quarter", (1, 4, 7, 10))])
def test_months_and_quarters_begin_on_their_first_day(step, months):
    steps = axis("2022-12-31T23:30", "2024-02-29T22:59:59", step, "Europe/Berlin")
    starts = steps.local_starts
    assert set(starts.day) == {1}
    assert set(starts.hour) == {0}
    assert set(starts.month) <= set(months)
    # 23:30 UTC on New Year's Eve is already January in Berlin.
    assert starts[0] == pd.Timestamp("2023-01-01", tz="Europe/Berlin")
    assert len(steps) == {"month": 14, "quarter": 5}[step]


def test_an_instant_belongs_to_the_step_that_begins_with_it():
    steps = axis("2024-03-01", "2024-03-03", "day")
    times = np.array(
        [
            "2024-02-29T23:59:59",
            "2024-03-01",
            "2024-03-01T23:59:59",
            "2024-03-02",
            "2024-03-03T23:59:59",
            "2024-03-04",
        ],
        "datetime64[s]",
    )
    assert steps.locate(times).tolist() == [-1, 0, 0, 1, 2, -1]
    assert steps.locate(np.array(["NaT"], "datetime64[s]")).tolist() == [-1]


@given(
    seconds=st.integers(0, 400 * 86400),
    step=st.sampled_from(list(STEPS)),
    zone=st.sampled_from(ZONES),
)
def test_every_instant_lies_in_the_step_that_it_is_located_in(seconds, step, zone):
    instant = np.datetime64("2018-06-01T00:00:00") + np.timedelta64(seconds, "s")
    around = np.timedelta64(25, "h")
    steps = TimeAxis.covering(instant - around, instant + around, step, zone)
    index = int(steps.locate(np.array([instant]))[0])
    assert steps.starts[index] <= instant < steps.ends[index]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("step", STEPS)
def test_an_extended_axis_is_the_axis_of_the_longer_period(step, zone):
    days = {"15min": 4, "30min": 4, "1h": 8}.get(step, 60 if STEPS[step] < 168 else 900)
    whole = TimeAxis.covering(
        np.datetime64("2018-10-31"), np.datetime64("2018-10-31") + np.timedelta64(days, "D"), step, zone
    )
    for known in {1, len(whole) // 2, len(whole)}:
        grown = whole.slice(0, known).extended(len(whole) - known)
        assert (grown.edges == whole.edges).all()
        assert grown.step == step
        assert grown.time_zone == zone


def test_extending_by_nothing_changes_nothing():
    steps = axis("2024-03-01", "2024-03-03", "day")
    assert steps.extended(0) is steps


def test_a_slice_is_the_axis_of_these_steps():
    steps = axis("2024-03-01", "2024-03-09", "day")
    part = steps.slice(2, 5)
    assert len(part) == 3
    assert (part.edges == steps.edges[2:6]).all()


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("15min", 35_040),
        ("1h", 8760),
        ("12h", 730),
        ("day", 365),
        ("week", 52),
        ("month", 12),
        ("quarter", 4),
    ],
)
def test_steps_per_year(step, count):
    assert axis("2024-03-01", "2024-03-01", step).steps_per_year == count


@pytest.mark.parametrize(("step", "features"), [("1h", 6), ("8h", 6), ("day", 4), ("week", 2), ("month", 2)])
def test_the_calendar_is_a_set_of_circles(step, features):
    steps = axis("2023-12-01", "2024-03-01" if STEPS[step] < 24 else "2026-02-01", step, "America/Toronto")
    calendar = steps.calendar
    assert calendar.shape == (len(steps), features)
    assert calendar.dtype == np.float32
    assert np.abs(calendar).max() <= 1
    assert calendar[:, ::2] ** 2 + calendar[:, 1::2] ** 2 == pytest.approx(1, abs=1e-6)


def test_the_last_day_of_the_year_is_next_to_the_first():
    season = axis("2023-12-31", "2024-07-01", "day").calendar[:, :2]
    assert np.hypot(*(season[0] - season[1])) < 0.03
    assert np.hypot(*(season[0] - season[-1])) > 1.9


def test_the_weekday_is_the_local_one():
    # Sunday 21:00 in Toronto is already Monday in UTC.
    steps = axis("2024-03-04T02:00", "2024-03-04T02:00", "day", "America/Toronto")
    assert steps.calendar[0, 2:4] == pytest.approx(
        [np.sin(2 * np.pi * 6 / 7), np.cos(2 * np.pi * 6 / 7)], abs=1e-6
    )
    assert steps.weekly_slot.tolist() == [6]


@pytest.mark.parametrize("step", STEPS)
def test_a_week_has_as_many_slots_as_steps(step):
    steps = axis("2024-06-03", "2024-06-23T23:59", step, "Asia/Kolkata")
    slots = steps.weekly_slot
    expected = 1 if STEPS[step] > 24 else round(168 / STEPS[step])
    assert slots.min() >= 0
    assert slots.max() < expected
    if STEPS[step] <= 24:
        assert len(np.unique(slots)) == expected
        same = slots[steps.local_starts == pd.Timestamp("2024-06-05", tz="Asia/Kolkata")]
        assert same.tolist() == [2 * round(24 / STEPS[step])]


def test_isoformat_shows_the_local_clock_with_its_offset():
    steps = axis("2024-03-10T12", "2024-03-10T12", "day", "America/Toronto")
    assert steps.isoformat(0) == ("2024-03-10T00:00:00-05:00", "2024-03-11T00:00:00-04:00")


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2024-01-31", "America/Toronto", "2024-01-31T05:00:00"),
        ("2024-01-31T18:05", "America/Toronto", "2024-01-31T23:05:00"),
        ("2024-01-31 18:05:09.7", "UTC", "2024-01-31T18:05:09"),
        ("2024-01-31T18:05+02:00", "America/Toronto", "2024-01-31T16:05:00"),
        ("2024-01-31T18:05Z", "America/Toronto", "2024-01-31T18:05:00"),
        ("2024-11-03T01:30", "America/Toronto", "2024-11-03T05:30:00"),  # occurs twice: the first
        ("2024-03-10T02:30", "America/Toronto", "2024-03-10T07:00:00"),  # skipped: the end of the gap
    ],
)
def test_parameters_are_read_on_the_local_clock(text, zone, utc):
    assert parse_local(text, zone, "START") == np.datetime64(utc)


@pytest.mark.parametrize(
    "text", ["", "NaT", "nan", "now", "today", "yesterday", "2024-02-30", "31.31.2024", "1e999"]
)
def test_what_is_no_date_is_refused(text):
    with pytest.raises(InputError) as caught:
        parse_local(text, "UTC", "UNTIL")
    assert caught.value.text() == (
        f"UNTIL = {text}: This is not a date and time. Write it as 2024-01-31 or 2024-01-31T18:00."
    )


@pytest.mark.parametrize("text", ["0001-01-01", "1900-12-31", "2200-01-01", "9999-12-31"])
def test_placeholder_dates_are_refused(text):
    with pytest.raises(InputError) as caught:
        parse_local(text, "UTC", "END")
    assert caught.value.text() == (
        f"END = {text}: The date lies outside the years 1901 to 2199. Correct the year, or leave the field "
        "empty if there is no limit."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("berlin", "Did you mean Europe/Berlin?"),
        ("New York", "Did you mean America/New_York?"),
        ("utc", "Did you mean Etc/UTC or UTC?"),
        ("Mars/Olympus_Mons", "Give an IANA name such as America/Toronto, Europe/Berlin or UTC."),
        ("", "Give an IANA name such as America/Toronto, Europe/Berlin or UTC."),
        ("../UTC", "Did you mean Etc/UTC or UTC?"),
        ("Europe", "Did you mean Europe/Amsterdam or Europe/Andorra or Europe/Astrakhan?"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_guess(name, hint):
    with pytest.raises(InputError) as caught:
        check_time_zone(name)
    assert caught.value.text() == f"TIME_ZONE = {name}: There is no such time zone. {hint}"


def test_a_known_zone_is_returned():
    assert check_time_zone("America/Toronto") == ZoneInfo("America/Toronto")


def test_an_unknown_step_is_refused():
    with pytest.raises(InputError) as caught:
        check_step("fortnight")
    assert caught.value.text() == f"STEP = fortnight: Unknown time step. Choose one of {', '.join(STEPS)}."


def test_too_many_steps_are_refused():
    with pytest.raises(InputError) as caught:
        axis("1950-01-01", "2024-01-01", "15min")
    assert caught.value.text() == (
        "STEP = 15min: There would be about 2,594,688 time steps; at most 2,000,000 are allowed. Choose "
        "longer steps, or set START and END (a wrong date can stretch the period)."
    )


# -- police shifts -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["7, 15, 23", "23:00 07:00 15:00", " 7;15:00;2300 ", "07:00,15,23,7"])
def test_shifts_are_written_in_many_ways(text):
    assert shift_step(text) == "shifts 07:00 15:00 23:00"
    assert check_step(f"shifts {text}") == "shifts 07:00 15:00 23:00"


@pytest.mark.parametrize("text", ["", "7, noon", "24, 8", "7:75, 9", "-1, 5"])
def test_times_of_shifts_that_are_none(text):
    with pytest.raises(InputError) as caught:
        shift_step(text)
    assert caught.value.text() == (
        f"SHIFT_STARTS = {text}: These are not times of day at which shifts begin. Write them as 7, 15, 23 "
        "or 06:45, 14:45, 22:45."
    )


def test_one_shift_is_a_day():
    with pytest.raises(InputError, match="SHIFT_STARTS = 7: There must be at least two shifts a day"):
        shift_step("7")


def test_shifts_begin_at_their_times_of_day():
    step = shift_step("6:45, 14:45, 22:45")
    steps = axis("2024-03-09T20:00", "2024-03-12T20:00", step, "America/Toronto")
    starts = local(steps.starts, "America/Toronto").strftime("%H:%M").tolist()
    assert starts == (["14:45", "22:45", "06:45"] * 4)[: len(starts)]
    assert set(np.diff(steps.edges).astype("timedelta64[h]").astype(int)) == {7, 8}  # the clock changes once
    assert (steps.hours, steps.unit, steps.steps_per_year) == (8, "shift", 1095)
    # Slots of the week: three a day, counted from Monday.
    by_slot = dict(zip(steps.weekly_slot, steps.local_starts))
    for slot, start in by_slot.items():
        assert slot // 3 == start.day_of_week
    assert len(steps.extended(4)) == len(steps) + 4
    assert steps.extended(4).step == step


@pytest.mark.parametrize("zone", ZONES)
def test_shifts_follow_one_another(zone):
    step = shift_step("7, 19")
    steps = axis("2018-10-20T13:07:11", "2018-11-20T02:00:00", step, zone)
    assert (np.diff(steps.edges) > np.timedelta64(0, "s")).all()
    assert steps.edges[0] <= np.datetime64("2018-10-20T13:07:11") < steps.edges[1]
    assert steps.edges[-2] <= np.datetime64("2018-11-20T02:00:00") < steps.edges[-1]
    assert set(steps.calendar.shape) == {len(steps), 6}


@pytest.mark.parametrize("step", [*STEPS, "shifts 06:30 14:30 22:30"])
def test_instants_are_found_in_their_steps(step):
    steps = axis("2018-10-20T13:07:11", "2019-11-20T02:00:00", step, "Europe/Berlin")
    random = np.random.default_rng(0)
    margin = np.timedelta64(100, "D")
    span = int((steps.edges[-1] - steps.edges[0] + 2 * margin) / np.timedelta64(1, "s"))
    times = steps.edges[0] - margin + random.integers(0, span, 5000).astype("timedelta64[s]")
    times = np.concatenate([times, steps.edges, steps.edges - np.timedelta64(1, "s"), [np.datetime64("NaT")]])
    expected = np.searchsorted(steps.edges, times, side="right") - 1
    expected[(expected >= len(steps)) | np.isnat(times)] = -1
    np.testing.assert_array_equal(steps.locate(times), expected)
