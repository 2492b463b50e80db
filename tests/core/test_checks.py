# SPDX-License-Identifier: GPL-2.0-or-later
"""The check of events: figures worked out by hand, rules on made-up cities, and the page."""

from __future__ import annotations

import base64
import datetime
import math
import re
import xml.etree.ElementTree as ET
from zoneinfo import ZoneInfo

import matplotlib
import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import UTM, Recorder, files_in

from gridcast_qgis.core.checks import check_events, write_report
from gridcast_qgis.core.checks.coverage import Coverage
from gridcast_qgis.core.checks.days import DailyCounts, longest_gap
from gridcast_qgis.core.checks.delays import CLASSES
from gridcast_qgis.core.checks.findings import LEVELS
from gridcast_qgis.core.checks.holidays import read_holidays
from gridcast_qgis.core.checks.localtimes import LocalTimes, days_of_month, weekdays
from gridcast_qgis.core.checks.places import BUSY, DEFAULT, FAR_OFF, ZERO, place_codes, rounding_step
from gridcast_qgis.core.checks.records import spelling_variants
from gridcast_qgis.core.checks.wording import a_number, date, listed, month, percent, span_of_hours, times
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.events import EventTable

NEW_YORK = "America/New_York"
HOUR = np.timedelta64(3600, "s")


def table(x, y, time, types=None, **more) -> EventTable:
    names = ("events",) if types is None else tuple(sorted(set(types)))
    codes = (
        np.zeros(len(x), np.int32) if types is None else np.array([names.index(t) for t in types], np.int32)
    )
    moments = np.array(time, dtype="datetime64[s]")
    return EventTable(np.array(x, float), np.array(y, float), moments, codes, names, **more)


def city(
    days: int = 730, a_day: int = 5, *, first: str = "2022-01-01", seed: int = 0, types=("a", "b")
) -> EventTable:
    """Return events spread evenly over a city of 10 km, at random minutes of each day (UTC)."""
    random = np.random.default_rng(seed)
    count = days * a_day
    day = np.datetime64(first, "s") + np.repeat(np.arange(days), a_day) * 24 * HOUR
    return EventTable(
        630_000 + random.uniform(0, 10_000, count),
        4_840_000 + random.uniform(0, 10_000, count),
        day + random.integers(0, 1440, count) * np.timedelta64(60, "s"),
        random.integers(0, len(types), count).astype(np.int32),
        tuple(types),
    )


def joined(*tables: EventTable) -> EventTable:
    return EventTable.concatenated(tables)


def at(x: float, y: float, count: int, like: EventTable) -> EventTable:
    """Return events at one place, spread over the time of another table."""
    time = like.time[np.linspace(0, len(like) - 1, count).astype(int)]
    return EventTable(np.full(count, x), np.full(count, y), time, np.zeros(count, np.int32), like.type_names)


def titles(check, *levels: str) -> list[str]:
    return [each.title for each in check.findings if each.level in (levels or LEVELS)]


def text_of(check, title: str) -> str:
    return next(each.plain() for each in check.findings if each.title == title)


def daily(*counts: int, first: str = "2023-01-01") -> DailyCounts:
    return DailyCounts(np.datetime64(first), np.array(counts))


# -- local time ------------------------------------------------------------------------------------


def test_hours_and_days_are_those_of_the_local_clock():
    # Clocks go forward on 10 March 2024 at 07:00 UTC and back on 3 November at 06:00 UTC.
    utc = ["2024-03-10T06:59:59", "2024-03-10T07:00:00"]
    utc += ["2024-11-03T05:30:00", "2024-11-03T06:30:00", "2024-11-04T04:59:59"]
    local = LocalTimes.of(np.array(utc, "datetime64[s]"), NEW_YORK)
    assert local.hour.tolist() == [1, 3, 1, 1, 23]
    assert (local.first + local.day).astype(str).tolist() == ["2024-03-10"] * 2 + ["2024-11-03"] * 3
    assert local.weekday.tolist() == [6] * 5


@given(
    st.lists(
        st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2100, 1, 1)), min_size=1, max_size=20
    ),
    st.sampled_from([NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
)
def test_local_times_are_those_of_the_standard_library(moments, zone):
    local = LocalTimes.of(np.array(moments, "datetime64[s]"), zone)
    for moment, day, second in zip(moments, local.first + local.day, local.second):
        moment = moment.replace(microsecond=0, tzinfo=datetime.timezone.utc)
        expected = moment.astimezone(ZoneInfo(zone))
        assert day.astype(object) == expected.date()
        assert second == expected.hour * 3600 + expected.minute * 60 + expected.second


def test_days_of_week_and_month():
    days = np.array(["2024-02-29", "2024-03-01", "1969-12-31"], "datetime64[D]")
    assert weekdays(days).tolist() == [3, 4, 2]
    assert days_of_month(days).tolist() == [29, 1, 31]


# -- a small table by hand -------------------------------------------------------------------------


def small() -> EventTable:
    return table(
        x=[0.5, 0.5, 0.5, 0.7, 0.7],
        y=[1.5, 1.5, 1.5, 1.5, 1.6],
        # Local times in winter: 00:00, 00:00, 12:00, 12:30 on 1 January, and 00:00:01 on 3 January.
        time=["2024-01-01T05:00:00"] * 2
        + ["2024-01-01T17:00:00", "2024-01-01T17:30:00", "2024-01-03T05:00:01"],
        types=["theft", "theft", "theft", "arson", "arson"],
        dropped={"null_geometry": 3, "bad_time": 1, "null_time": 0},
        notes={"ambiguous_time": 2, "skipped_time": 0},
        identity=np.array(["A", "B", "A", None, None], object),
    )


def test_rows_days_and_types():
    check = check_events(small(), "EPSG:4326", NEW_YORK, source="Calls")
    assert (check.rows.read, check.rows.kept) == (9, 5)
    assert check.rows.dropped == {"null_geometry": 3, "bad_time": 1}
    assert check.rows.notes == {"ambiguous_time": 2}
    assert check.rows.geocoded == pytest.approx(6 / 9)
    assert check.rows.without_date == pytest.approx(1 / 9)
    assert check.daily.counts.tolist() == [4, 0, 1]
    assert (str(check.daily.first), str(check.daily.last), check.daily.empty) == (
        "2024-01-01",
        "2024-01-03",
        1,
    )
    assert check.daily.median == 1
    assert [(each.name, each.events, each.share) for each in check.types] == [
        ("theft", 3, 0.6),
        ("arson", 2, 0.4),
    ]
    assert str(check.types[1].last) == "2024-01-03"
    assert check.gap.days == pytest.approx((24 + 11.5) / 24 + 1 / 86400)


def test_duplicates():
    duplicates = check_events(small(), "EPSG:4326", NEW_YORK).duplicates
    # Two are called A; the first two have place, time and type in common; those without identity differ.
    assert (duplicates.identity, duplicates.same, duplicates.dropped_as_duplicates) == (1, 1, 1)


def test_duplicates_without_identities():
    events = small()
    nameless = table(events.x, events.y, events.time)
    duplicates = check_events(nameless, "EPSG:4326", NEW_YORK).duplicates
    assert (duplicates.identity, duplicates.same, duplicates.dropped_as_duplicates) == (None, 1, 1)
    blank = table(events.x, events.y, events.time, identity=np.full(5, None, object))
    assert check_events(blank, "EPSG:4326", NEW_YORK).duplicates == duplicates


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=30))
def test_surplus_rows_are_all_but_one_of_each_kind(rows):
    x, hours, kinds = zip(*rows)
    time = np.datetime64("2024-01-01", "s") + np.array(hours) * HOUR
    check = check_events(table(x, np.zeros(len(x)), time, [f"type {k}" for k in kinds]), "EPSG:4326", "UTC")
    assert check.duplicates.same == len(rows) - len(set(rows))
    assert len(check.places) == len(set(x))


def test_times_of_day():
    clock = check_events(small(), "EPSG:4326", NEW_YORK).clock
    assert clock.midnight_share == pytest.approx(2 / 5)
    assert clock.hour_share == pytest.approx(3 / 5)
    assert clock.utc_midnight_share == 0
    assert clock.exactness == 1
    assert clock.minutes[[0, 30]].tolist() == [4, 1]


def test_the_numbers_have_always_the_same_names():
    found = check_events(small(), "EPSG:4326", NEW_YORK).numbers()
    full = check_events(city(), UTM, "UTC", holidays=()).numbers()
    assert list(found) == list(full)
    assert found["events"] == 5
    assert found["share_geocoded"] == pytest.approx(6 / 9)
    assert found["duplicates"] == 1
    assert found["days_without_events"] == 1
    assert math.isnan(found["july_ratio"]) and math.isnan(found["median_lag_hours"])
    assert all(isinstance(float(value), float) for value in full.values())


def test_a_table_without_events_cannot_be_checked():
    with pytest.raises(InputError, match="Not one event has a place and a time") as caught:
        check_events(table([], [], [], dropped={"null_geometry": 7}), UTM, "UTC")
    assert caught.value.parameter == "INPUT"


def test_a_wrong_time_zone_is_named():
    with pytest.raises(InputError, match="no such time zone"):
        check_events(small(), "EPSG:4326", "America/Chikago")


def test_a_check_can_be_cancelled():
    with pytest.raises(JobCancelled):
        check_events(small(), "EPSG:4326", NEW_YORK, reporter=cancelled())


def cancelled() -> Recorder:
    reporter = Recorder()
    reporter.cancel()
    return reporter


# -- days ------------------------------------------------------------------------------------------


def test_the_level_is_the_median_and_the_mean_where_events_are_rare():
    often = daily(*([10] * 30 + [200] + [10] * 30))
    assert set(often.level) == {10}
    assert often.spikes()[0] == often.spikes(among=often.striking)[0]
    spike = often.spikes()[0]
    assert (str(spike.day), spike.events, spike.ratio, spike.striking) == ("2023-01-31", 200, 20, True)
    rare = daily(*([0, 0, 0, 1] * 20))
    assert rare.level[40] == pytest.approx(7 / 29, abs=0.01)
    assert not rare.striking.any()


def test_days_with_hardly_any_events_are_hollow():
    assert daily(*[100] * 20, 24, *[100] * 20).hollow.astype(str).tolist() == ["2023-01-21"]
    assert not len(daily(*[100] * 20, 26, *[100] * 20).hollow)
    assert not len(daily(*[3] * 20, 0, *[3] * 20).hollow)


def test_the_longest_gap():
    hours = np.r_[0:100, 148:1000]
    gap = longest_gap(np.datetime64("2024-01-01", "s") + np.random.default_rng(0).permutation(hours) * HOUR)
    assert (gap.days, gap.improbable) == (pytest.approx(49 / 24), True)
    assert not longest_gap(np.array(["2024-01-01", "2024-01-02", "2024-01-05"], "datetime64[s]")).improbable
    assert longest_gap(np.array(["2024-01-01"], "datetime64[s]")) is None
    assert longest_gap(np.array(["2024-01-01"] * 2, "datetime64[s]")).days == 0


# -- coverage --------------------------------------------------------------------------------------


def months(*usual: int) -> Coverage:
    """Return the coverage of months with so many events on each day."""
    counts, day = [], datetime.date(2020, 1, 1)
    for each in usual:
        days = (day.replace(day=28) + datetime.timedelta(days=4)).replace(day=1) - day
        counts += [each] * days.days
        day += days
    return Coverage.of(daily(*counts, first="2020-01-01"))


def test_an_even_source_is_covered():
    coverage = months(*[10, 8, 12, 15] * 6)
    assert (coverage.start, coverage.stop, coverage.thin, coverage.end_short) == (None, None, (), False)
    assert coverage.counts[0] == 310
    assert coverage.usual[:2].tolist() == [10, 8]


def test_a_late_start_an_early_end_and_a_thin_month_are_found():
    coverage = months(*[1] * 5, *[10] * 12, 4, *[10] * 12, *[2] * 3)
    assert str(coverage.start) == "2020-06"
    assert str(coverage.stop) == "2022-07"
    assert [str(month) for month in coverage.thin] == ["2021-06"]


def test_a_slow_growth_is_no_late_start():
    assert months(*range(10, 40)).start is None


def test_an_unfinished_end_is_told_from_a_quiet_season():
    assert months(*[20] * 15).end_ratio == pytest.approx(1)
    short = Coverage.of(daily(*[20, 22] * 250, *[11, 13] * 14))
    assert short.end_short and short.end_ratio == pytest.approx(12 / 21, abs=0.05)
    seasons = (60 + 40 * np.sin(np.arange(1200) / 365 * 2 * np.pi)).astype(int)
    assert not any(Coverage.of(daily(*seasons[:end])).end_short for end in range(600, 1200, 25))
    assert math.isnan(Coverage.of(daily(*[20] * 50)).end_ratio)


# -- holidays --------------------------------------------------------------------------------------


def test_holidays_are_days_of_all_years_or_of_some():
    found = read_holidays(
        ["07-04", datetime.date(2023, 11, 23), "2022-11-24", "01-01", "2024-07-04", "02-29"]
    )
    assert [each.key for each in found] == ["01-01", "02-29", "07-04", "11-23", "11-24"]
    assert [each.name for each in found][2:4] == ["4 July", "23 November 2023"]
    days = found[1].dates(np.datetime64("2019-01-01"), np.datetime64("2024-12-31"))
    assert days.astype(str).tolist() == ["2020-02-29", "2024-02-29"]
    assert found[0].around == (3, 1) and found[2].around == (3, 3)


@pytest.mark.parametrize("text", ["7/4", "13-01", "2023-02-29", "", "Christmas"])
def test_a_holiday_that_is_no_day_is_refused(text):
    with pytest.raises(InputError, match="This is not a day") as caught:
        check_events(small(), "EPSG:4326", NEW_YORK, holidays=[text])
    assert caught.value.parameter == "HOLIDAYS"


def test_the_ratio_of_a_holiday():
    counts = [10] * 365
    fourth = (datetime.date(2023, 7, 4) - datetime.date(2023, 1, 1)).days
    counts[fourth], counts[fourth + 1], counts[0] = 60, 25, 10
    day = np.datetime64("2023-01-01", "s") + np.repeat(np.arange(365), counts) * 24 * HOUR + 12 * HOUR
    random = np.random.default_rng(1)
    events = table(random.uniform(0, 0.1, len(day)), random.uniform(0, 0.1, len(day)), day)
    january, july = check_events(events, "EPSG:4326", "UTC").holidays
    assert july.days.astype(str).tolist() == ["2023-07-04"]
    assert (july.mean, july.ratio, july.ratio_to_others) == (60, 6, 6)
    assert july.around_ratio == pytest.approx((5 * 10 + 25) / 60)
    assert july.profile[[0, 6, 7, 8]].tolist() == [1, 1, 6, 2.5]
    assert july.striking and not january.striking
    # What lies before the first day is not known.
    assert np.isnan(january.profile[:7]).all() and january.profile[7:].tolist() == [1] * 8


def test_a_celebration_is_told_from_a_default_date():
    base = city(1095, 20)
    january = np.repeat(np.array(["2023-01-01T12:00", "2024-01-01T12:00"], "datetime64[s]"), 60)
    firsts = np.repeat(np.arange("2022-02", "2025-01", dtype="datetime64[M]").astype("datetime64[s]"), 8)
    extra = city(1, len(january), seed=1)
    party = EventTable(extra.x, extra.y, january, extra.type_code, extra.type_names)
    celebrated = check_events(joined(base, party), UTM, "UTC")
    assert "Holiday: 1 January" in titles(celebrated, "caution")
    assert celebrated.clock.first_of_month_ratio == pytest.approx(1, abs=0.01)
    extra = city(1, len(firsts), seed=2)
    default = EventTable(extra.x, extra.y, firsts + 12 * HOUR, extra.type_code, extra.type_names)
    guessed = check_events(joined(base, party, default), UTM, "UTC")
    assert {"1 January", "First days of months"} <= set(titles(guessed))
    assert guessed.clock.first_of_month_ratio == pytest.approx(1.4, abs=0.02)
    assert guessed.clock.day_of_month[1] == pytest.approx(1, abs=0.05)


# -- times of day ----------------------------------------------------------------------------------


def test_dates_without_time_of_day_are_noticed():
    events = city()
    midnight = events.time.astype("datetime64[D]").astype("datetime64[s]") + 5 * HOUR
    check = check_events(
        EventTable(events.x, events.y, midnight, events.type_code, events.type_names), UTM, "Etc/GMT+5"
    )
    assert check.clock.dates_only
    assert "Dates only" in titles(check, "caution")
    assert check.clock.first_of_month_ratio == pytest.approx(1)
    assert "Default time of day" not in titles(check)


def test_dates_read_as_utc_are_noticed():
    events = city()
    midnight = events.time.astype("datetime64[D]").astype("datetime64[s]")
    check = check_events(
        EventTable(events.x, events.y, midnight, events.type_code, events.type_names), UTM, NEW_YORK
    )
    assert "Dates in the wrong time zone" in titles(check, "serious")
    assert check.verdict.startswith("Not yet fit for forecasting: 1 serious problem")


def test_a_default_time_is_told_from_a_busy_hour():
    events = city(730, 20)
    time = events.time.copy()
    time[::50] = time[::50].astype("datetime64[D]").astype("datetime64[s]") + np.timedelta64(60, "s")
    check = check_events(
        EventTable(events.x, events.y, time, events.type_code, events.type_names), UTM, "UTC"
    )
    favoured = check.clock.favoured[0]
    assert (favoured.clock, favoured.stands_for_unknown) == ("00:01", True)
    assert favoured.events >= len(time) // 50
    busy = events.time.astype("datetime64[D]").astype("datetime64[s]")
    random = np.random.default_rng(3)
    busy = busy + (random.normal(20, 3, len(busy)) * 3600).astype("timedelta64[s]")
    usual = check_events(
        EventTable(events.x, events.y, busy, events.type_code, events.type_names), UTM, "UTC"
    )
    assert usual.clock.favoured == ()


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 40, 1000]))
def test_chance_makes_no_default_time(seed, days):
    assert check_events(city(days, 10, seed=seed), UTM, "UTC").clock.favoured == ()


def test_rounded_times():
    events = city(a_day=20)
    hours = events.time.astype("datetime64[h]").astype("datetime64[s]")
    check = check_events(
        EventTable(events.x, events.y, hours, events.type_code, events.type_names), UTM, "UTC"
    )
    assert check.clock.exactness == 3600
    assert "whole hours" in text_of(check, "Rounded times")
    assert check.clock.week.sum() == pytest.approx(7 * 20, rel=0.01)


# -- places ----------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, -0.0, 1.5, 1e-9]), st.sampled_from([0.0, 7.25])),
        min_size=1,
        max_size=20,
    )
)
def test_events_of_one_place_have_one_code(points):
    codes = place_codes(*np.array(points, float).T)
    for code, point in zip(codes, points):
        assert [c == code for c in codes] == [p == point for p in points]
    assert sorted(set(codes)) == list(range(codes.max() + 1))


@given(
    st.sampled_from([1e-4, 0.001, 0.002, 0.005, 1.0, 2.5, 50.0, 200.0]),
    st.floats(0, 1),
    st.integers(-1000, 1000),
    st.integers(0, 2**32 - 1),
)
def test_a_rounding_is_found_wherever_its_lattice_begins(step, shift, start, seed):
    indexes = np.random.default_rng(seed).integers(0, 400, 300)
    assert rounding_step((indexes + start + shift) * step) == pytest.approx(step)


def test_what_is_not_rounded_has_no_step():
    random = np.random.default_rng(0)
    assert rounding_step(random.uniform(0, 1000, 500)) is None
    assert rounding_step(np.arange(19.0)) is None


def test_a_rounding_in_degrees_is_found_in_a_projected_layer():
    random = np.random.default_rng(0)
    longitude, latitude = (
        -77 + random.integers(0, 200, 900) / 1000,
        38.8 + random.integers(0, 200, 900) / 1000,
    )
    time = np.datetime64("2022-01-01", "s") + np.arange(900) * 20 * HOUR
    plain = check_events(table(longitude, latitude, time), "EPSG:4326", NEW_YORK)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32618", always_xy=True).transform(
        longitude, latitude
    )
    projected = check_events(table(x, y, time), "EPSG:32618", NEW_YORK)
    for check in (plain, projected):
        rounding = check.places.rounding
        assert rounding.steps == ["0.001"] and rounding.unit == "degree"
        assert rounding.metres_x == pytest.approx(86.6, abs=0.5)
        assert rounding.metres_y == pytest.approx(111.2, abs=0.5)
        assert "cells of 250 m or more" in text_of(check, "Rounded places")


def test_a_foot_is_not_a_metre():
    events = city()
    check = check_events(
        table(np.round(events.x), np.round(events.y), events.time), "EPSG:3435", "America/Chicago"
    )
    assert check.places.rounding.metres == pytest.approx(0.3048, abs=1e-4)


def test_ordinary_busy_places_are_listed_and_not_suspected():
    base = city(730, 10)
    events = joined(base, *(at(631_000 + 100 * i, 4_841_000, 400 // (i + 1), base) for i in range(12)))
    check = check_events(events, UTM, "UTC")
    assert [place.events for place in check.places.busiest[:3]] == [400, 200, 133]
    assert {place.verdict for place in check.places.busiest} == {BUSY}
    assert check.numbers()["pile_up_share"] == 0


def test_default_coordinates_are_suspected():
    base = city(730, 10)
    busy = joined(base, *(at(631_000 + 100 * i, 4_841_000, 60 // (i + 1), base) for i in range(12)))
    events = joined(busy, at(635_000, 4_845_000, 900, base), at(635_500, 4_845_500, 400, base))
    check = check_events(events, UTM, "UTC")
    assert [place.verdict for place in check.places.busiest[:3]] == [DEFAULT, DEFAULT, BUSY]
    assert check.numbers()["pile_up_share"] == pytest.approx(1300 / len(events))
    assert "Probable default place" in titles(check, "serious")
    assert check.places.busiest[0].top_type == "a" and check.places.busiest[0].top_share == 1


def test_stray_places_are_found():
    base = city(730, 10)
    longitude, latitude = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(
        base.x, base.y
    )
    base = table(longitude, latitude, base.time)
    events = joined(base, at(-91.686566, 36.619446, 57, base), at(0, 0, 3, base))
    check = check_events(events, "EPSG:4326", "UTC")
    assert check.places.events(FAR_OFF) == 57 and check.places.events(ZERO) == 3
    assert check.numbers()["far_off"] == 60
    assert "36.61945, -91.68657" in text_of(check, "Stray places")
    assert "x = 0, y = 0" in text_of(check, "Stray places")
    assert "60 events" in text_of(check, "Stray places")
    assert check.places.rounding.metres < 1


def test_suburbs_are_not_stray():
    base = city(365, 10)
    suburbs = joined(base, at(645_000, 4_845_000, 5, base), at(635_000, 4_828_000, 5, base))
    assert check_events(suburbs, UTM, "UTC").places.events(FAR_OFF, ZERO) == 0
    far = joined(base, at(635_000, 4_800_000, 5, base))
    assert check_events(far, UTM, "UTC").places.events(FAR_OFF) == 5


def test_zero_degrees_in_a_projected_layer_is_the_zero_point():
    base = city(365, 10)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(
        [-79.4, 0], [43.7, 0]
    )
    shifted = table(base.x - 635_000 + x[0], base.y - 4_845_000 + y[0], base.time)
    check = check_events(joined(shifted, at(x[1], y[1], 4, shifted)), "EPSG:3857", "UTC")
    assert check.places.events(ZERO) == 4


# -- delays and intervals --------------------------------------------------------------------------


def test_the_delay_of_reports():
    base = table([0] * 6, [0] * 6, ["2024-01-01"] * 6)
    hours = np.array([-1, 0, 2, 24, 200, 0]) * HOUR
    reported = base.time + hours
    reported[5] = np.datetime64("NaT")
    lag = check_events(table(base.x, base.y, base.time, reported=reported), "EPSG:4326", "UTC").lag
    assert lag.known == pytest.approx(5 / 6)
    assert lag.quantiles[0.5] == 2
    assert lag.negative == pytest.approx(1 / 5)
    assert lag.within == {1: pytest.approx(4 / 5), 3: pytest.approx(4 / 5), 7: pytest.approx(4 / 5), 30: 1}
    assert lag.histogram.sum() == 4 and lag.histogram[0] == 1
    # A whole day belongs to the class that begins with it.
    assert lag.histogram[1 + CLASSES.index(24)] == 1


def test_intervals():
    base = table([0] * 4, [0] * 4, ["2024-01-01"] * 4)
    end = base.time + np.array([0, 10, 30, 0]) * HOUR
    end[3] = np.datetime64("NaT")
    intervals = check_events(table(base.x, base.y, base.time, end=end), "EPSG:4326", "UTC").intervals
    assert intervals.share == pytest.approx(2 / 4)
    assert intervals.quantiles[0.5] == 20
    assert intervals.over_a_day == pytest.approx(1 / 2)
    assert intervals.histogram.sum() == 2


def test_fields_without_a_value_are_as_no_fields():
    events = city(10)
    nothing = np.full(len(events), "NaT", "datetime64[s]")
    check = check_events(table(events.x, events.y, events.time, reported=nothing, end=nothing), UTM, "UTC")
    assert check.lag is None and check.intervals is None
    instant = table(events.x, events.y, events.time, end=events.time)
    assert check_events(instant, UTM, "UTC").intervals is None


# -- findings --------------------------------------------------------------------------------------


def test_good_events_are_called_fit():
    check = check_events(city(1095, 12), UTM, "UTC")
    assert check.verdict == "Fit for forecasting: nothing stands in the way."
    assert set(titles(check)) == {"Places", "Length of the period", "Stray places", "Coverage", "Duplicates"}
    assert {each.level for each in check.findings} == {"good"}


def test_the_worst_comes_first_and_says_what_to_do():
    base = city(60, 3)
    poor = EventTable(
        *(base.x, base.y, base.time, base.type_code, ("Single Gunshot", "single_gunshot")),
        dropped={"null_geometry": 200, "null_time": 1, "bad_time": 60},
        reported=base.time + 50 * HOUR,
    )
    check = check_events(poor, UTM, "UTC")
    order = [LEVELS.index(each.level) for each in check.findings]
    assert order == sorted(order)
    serious = [each for each in check.findings if each.level == "serious"]
    assert {each.title for each in serious} >= {
        "Rows without a place",
        "Rows without a date",
        "Length of the period",
        "Few events",
    }
    assert all(each.advice for each in serious)
    assert "Spelling of types" in titles(check, "caution")
    assert "Half of the events are known after 2.1 days; 100% are not known after a day" in text_of(
        check, "Delay of reports"
    )


def test_thin_times_are_told():
    full = city(1095, 30)
    day = (full.time - full.time.min()).astype("timedelta64[D]").astype(int)
    keep = ~((day < 200) & (np.arange(len(day)) % 10 > 0)) & ~((day >= 700) & (day < 703))
    check = check_events(full.selected(keep), UTM, "UTC")
    assert "Set the start of the period to 2022-0" in text_of(check, "Late start")
    assert "There is no event for 3" in text_of(check, "Gap")
    assert "3 Dec 2023" in text_of(check, "Hollow days")


def test_spikes_outside_holidays_are_told():
    base = city(730, 10)
    riot = np.full(90, "2023-05-20T22:00", "datetime64[s]")
    extra = city(1, 90, seed=5)
    events = joined(base, EventTable(extra.x, extra.y, riot, extra.type_code, extra.type_names))
    text = text_of(check_events(events, UTM, "UTC"), "Days that stand out")
    assert "1 day has at least twice the usual number of events: 20 May 2023 (100 events, usually 10)" in text


def test_spelling_variants():
    names = ["NON - CRIMINAL", "NON-CRIMINAL", "Theft", "Multiple_Gunshots", "Multiple Gunshots", "!", "?"]
    assert spelling_variants(names) == (
        ("NON - CRIMINAL", "NON-CRIMINAL"),
        ("Multiple Gunshots", "Multiple_Gunshots"),
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.00004, "less than 0.01%"), (0.0005, "0.05%"), (0.041, "4.1%"), (0.35, "35%"), (1, "100%"),
     (0.9999, "more than 99%"), (math.nan, "unknown")],
)  # fmt: skip
def test_percents(share, text):
    assert percent(share) == text


def test_words():
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert a_number(1, "day") == "1 day" and a_number(1200, "day") == "1,200 days"
    assert times(1.57) == "1.6 times" and times(16.7) == "17 times"
    lengths = [0.5, 3, 72, 24_000]
    assert [span_of_hours(h) for h in lengths] == ["30 minutes", "3.0 hours", "3.0 days", "1,000 days"]
    assert date(np.datetime64("2012-07-04")) == "4 Jul 2012"
    assert month(np.datetime64("2012-07")) == "July 2012"


# -- the page --------------------------------------------------------------------------------------

HOSTILE = "<script>alert('--&$x$')</script>"


@pytest.fixture(scope="module")
def full_check():
    """A check in which everything occurs that a page may show."""
    base = city(800, 6, types=(HOSTILE, "b", "c"))
    events = joined(base, at(635_000, 4_845_000, 300, base), at(0, 0, 5, base))
    random = np.random.default_rng(0)
    events = EventTable(
        *(events.x, events.y, events.time, events.type_code, events.type_names),
        dropped={"null_geometry": 9, "bad_time": 4},
        end=events.time + random.integers(0, 60, len(events)) * HOUR,
        reported=events.time + random.integers(-1, 900, len(events)) * HOUR,
        identity=np.arange(len(events)).astype(object) // 2,
        notes={"ambiguous_time": 2, "duplicate": 3},
    )
    return check_events(
        events, UTM, NEW_YORK, source="<b>Calls & co</b>", holidays=["01-01", "12-25", "2023-05-01"]
    )


@pytest.fixture(scope="module")
def full_page(full_check):
    return full_check.html(made="today <i>")


def sources(page: str) -> list[str]:
    return re.findall(r'src="([^"]*)"', page)


def test_the_page_is_complete(full_page):
    for word in ("When", "Where", "What", "Delay of reports", "Intervals", "Rows", "How it is judged"):
        assert f"<h2>{word}</h2>" in full_page
    assert "probable default" in full_page and "zero point" in full_page
    assert full_page.count("<img") == 9
    assert len(re.findall(r'alt="[^"]{20,}"', full_page)) == 9


def test_the_page_needs_nothing_else(full_page):
    for source in sources(full_page):
        assert re.match(r"data:image/(png|svg\+xml);base64,", source)
    visible = re.sub(r'"data:[^"]*"', '""', full_page)
    for forbidden in ("http", "<script", "<link", "@import", "url(", "javascript", "onload"):
        assert forbidden not in visible.lower()
    assert len(full_page) < 1_500_000


def test_the_pictures_hold_no_addresses_to_load_and_no_time(full_page):
    drawn = [base64.b64decode(s.partition(",")[2]) for s in sources(full_page) if "svg" in s[:20]]
    assert drawn
    for picture in drawn:
        root = ET.fromstring(picture)  # well-formed in spite of what types are called
        links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)
        assert b"<dc:date>" not in picture and b"<script" not in re.sub(
            rb"<!--.*?-->", b"", picture, flags=re.S
        )


def test_names_from_the_data_are_shown_as_text(full_page):
    assert "&lt;b&gt;Calls &amp; co&lt;/b&gt;" in full_page
    assert "&lt;script&gt;alert(&#39;--&amp;$x$&#39;)&lt;/script&gt;" in full_page
    assert "today &lt;i&gt;" in full_page


def test_the_same_figures_give_the_same_bytes(full_check, full_page):
    # Whatever a notebook has set for its own figures.
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        assert full_check.html(made="today <i>") == full_page
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(table([5], [5], ["2024-07-04T12:00"]), id="one event"),
        pytest.param(table([5] * 40, [5] * 40, ["2024-07-04T12:00"] * 40), id="one place, one time"),
        pytest.param(at(5, 5, 400, city(400, 1)), id="one place"),
        pytest.param(table([0, 0], [0, 0], ["1970-01-01", "2024-01-01"]), id="zero only"),
        pytest.param(table([1, 2], [1, 1], ["1901-01-01", "2199-12-31"]), id="wrong years"),
        pytest.param(table(range(30), [7] * 30, ["2024-03-10T07:00"] * 30), id="in a line"),
    ],
)
def test_odd_tables_have_a_page(events):
    check = check_events(events, "EPSG:4326", NEW_YORK)
    page = check.html()
    assert len(page) < 1_500_000
    assert check.findings[0].level == "serious"
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page)


def test_places_beyond_the_earth_have_a_page():
    events = city(40)
    far = table([*events.x, 1e9], [*events.y, 1e9], [*events.time, events.time[0]])
    check = check_events(far, UTM, "UTC")
    assert check.places.events(FAR_OFF) == 1
    assert "x 1,000,000,000.0" in check.html()


def test_the_report_is_written_whole_or_not_at_all(tmp_path):
    check = check_events(small(), "EPSG:4326", NEW_YORK)
    write_report(check, tmp_path / "report.html", made="by hand")
    assert (tmp_path / "report.html").read_bytes().decode() == check.html(made="by hand")
    assert files_in(tmp_path) == ["report.html"]
    with pytest.raises(InputError, match="cannot be written"):
        write_report(check, tmp_path / "missing" / "report.html")
    assert files_in(tmp_path) == ["report.html"]


def test_a_year_that_nobody_has_seen_is_serious():
    times = np.datetime64("2024-01-01T12:00:00") + np.arange(500) * np.timedelta64(6, "h")
    times = np.append(times, np.datetime64("2099-06-01T12:00:00"))
    table = EventTable.from_arrays(np.arange(501.0), np.arange(501.0), times)
    check = check_events(table, "EPSG:32617", "UTC")
    worst = check.findings[0]
    assert (worst.level, worst.title) == ("serious", "Stray dates")
    assert "from all others in time: 1 event." in worst.text and "2024" in worst.text and "2099" in worst.text
    assert "Fit" not in check.verdict
    # One thing is said once.
    assert "Gap" not in [finding.title for finding in check.findings]
