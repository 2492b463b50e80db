# SPDX-License-Identifier: GPL-2.0-or-later
"""Event tables: dates of many kinds, and every row either kept or counted with its reason."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_points

from gridcast_qgis.core.dates import parse_times
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.eventfiles import EventSource
from gridcast_qgis.core.events import DROP_REASONS, EventTable

TORONTO = "America/Toronto"


def utc(values, zone="UTC", **options) -> list[str]:
    """Return the instants as text; 'missing' and 'bad' where there is none."""
    times, missing, bad = parse_times(values, zone, **options)[:3]
    assert not (missing & bad).any()
    assert (np.isnat(times) == (missing | bad)).all()
    return ["missing" if m else "bad" if b else str(t) for t, m, b in zip(times, missing, bad)]


MONTH_FIRST = {
    "2024-01-31": "2024-01-31T00:00:00",
    "2024-1-5": "2024-01-05T00:00:00",
    "2024/01/31 18:05": "2024-01-31T18:05:00",
    "2024.01.31": "2024-01-31T00:00:00",
    "2024-01-31 18:05:09": "2024-01-31T18:05:09",
    "2024-01-31T18:05:09.250": "2024-01-31T18:05:09",
    "2024-01-31 06:05:09 PM": "2024-01-31T18:05:09",
    "20240131T180509": "2024-01-31T18:05:09",
    " 2024-01-31 ": "2024-01-31T00:00:00",
    "01/31/2024": "2024-01-31T00:00:00",
    "1/5/2024": "2024-01-05T00:00:00",
    "01/31/2024 18:05": "2024-01-31T18:05:00",
    "01/31/2024 06:05:09 PM": "2024-01-31T18:05:09",
    "01/31/2024 12:00:00 AM": "2024-01-31T00:00:00",
    "1/31/2024 6:05 PM": "2024-01-31T18:05:00",
    "01-31-2024 18:05:09": "2024-01-31T18:05:09",
    "1/31/24": "2024-01-31T00:00:00",
    "1/31/24 6:05 PM": "2024-01-31T18:05:00",
    "31.01.2024": "2024-01-31T00:00:00",
    "03.04.2024 18:05": "2024-04-03T18:05:00",
    "Jan 31, 2024": "2024-01-31T00:00:00",
    "31 January 2024 18:05": "2024-01-31T18:05:00",
    "Wed Jan 31 18:05:09 2024": "2024-01-31T18:05:09",
}
DAY_FIRST = {
    "31/01/2024": "2024-01-31T00:00:00",
    "03/04/2024": "2024-04-03T00:00:00",
    "31/01/2024 18:05:09": "2024-01-31T18:05:09",
    "31/01/2024 06:05 PM": "2024-01-31T18:05:00",
    "31-01-2024 18:05": "2024-01-31T18:05:00",
    "31.01.2024 18:05:09": "2024-01-31T18:05:09",
    "03/04/24": "2024-04-03T00:00:00",
    # A year in front leaves no doubt.
    "2024-03-04": "2024-03-04T00:00:00",
    "2024/03/04": "2024-03-04T00:00:00",
}
WITH_OFFSET = {
    "2024-01-31T18:05:09Z": "2024-01-31T18:05:09",
    "2024-01-31 18:05:09 UTC": "2024-01-31T18:05:09",
    "2024-01-31T18:05:09+02:00": "2024-01-31T16:05:09",
    "2024-01-31T18:05:09.123-0500": "2024-01-31T23:05:09",
    "2024-01-31 18:05+01": "2024-01-31T17:05:00",
    "2024-01-31 18:05:09 +0530": "2024-01-31T12:35:09",
    "20240131T180509Z": "2024-01-31T18:05:09",
    "01/31/2024 18:05:09 Z": "2024-01-31T18:05:09",
    "01/31/2024 06:05:09 PM -05:00": "2024-01-31T23:05:09",
    "31.01.2024 18:05 +01": "2024-01-31T17:05:00",
    "Wed, 31 Jan 2024 18:05:09 GMT": "2024-01-31T18:05:09",
}
EPOCHS = {
    "1706724309": "2024-01-31T18:05:09",
    "1706724309000": "2024-01-31T18:05:09",
    "1706724309123": "2024-01-31T18:05:09",
    "1706724309123456": "2024-01-31T18:05:09",
    "1706724309.75": "2024-01-31T18:05:09",
    "-1000000000": "1938-04-24T22:13:20",
}


@pytest.mark.parametrize("text", MONTH_FIRST)
def test_dates_are_understood(text):
    assert utc([text]) == [MONTH_FIRST[text]]


@pytest.mark.parametrize("text", DAY_FIRST)
def test_dates_with_the_day_first_are_understood(text):
    assert utc([text], day_first=True) == [DAY_FIRST[text]]


@pytest.mark.parametrize("text", WITH_OFFSET)
def test_offsets_win_over_the_time_zone(text):
    assert utc([text], TORONTO) == [WITH_OFFSET[text]]


@pytest.mark.parametrize("text", EPOCHS)
def test_epochs_are_utc_as_text_and_as_numbers(text):
    assert utc([text], TORONTO) == [EPOCHS[text]]
    assert utc(np.array([float(text)]), TORONTO) == [EPOCHS[text]]


@settings(max_examples=20)
@given(st.permutations(list({**MONTH_FIRST, **WITH_OFFSET, **EPOCHS}.items())))
def test_kinds_may_be_mixed_in_any_order(pairs):
    assert utc([text for text, _ in pairs]) == [instant for _, instant in pairs]


@settings(max_examples=20)
@given(st.permutations(list({**DAY_FIRST, **EPOCHS}.items())))
def test_kinds_with_the_day_first_may_be_mixed_in_any_order(pairs):
    assert utc([text for text, _ in pairs], day_first=True) == [instant for _, instant in pairs]


def test_compact_dates_are_local_days():
    assert utc([20240131, 20241103], TORONTO) == ["2024-01-31T05:00:00", "2024-11-03T04:00:00"]
    assert utc(["20240131"], TORONTO) == ["2024-01-31T05:00:00"]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-07-01 12:00", "2024-07-01T16:00:00"),
        ("2024-01-01 12:00", "2024-01-01T17:00:00"),
        ("2024-11-03 01:30", "2024-11-03T05:30:00"),  # occurs twice: the first
        ("2024-11-03 02:00", "2024-11-03T07:00:00"),
        ("2024-03-10 02:30", "2024-03-10T07:00:00"),  # skipped: the end of the gap
        ("2024-03-10 03:00", "2024-03-10T07:00:00"),
        ("11/03/2024 01:30:00 AM", "2024-11-03T05:30:00"),
    ],
)
def test_times_without_offset_are_local_clock_time(text, instant):
    assert utc([text], TORONTO) == [instant]


def test_written_offsets_can_be_ignored():
    texts = [
        "2024-01-31T18:05:09Z",
        "2024-01-31 18:05:09+02:00",
        "01/31/2024 18:05:09 UTC",
        "2024-01-31 18:05:09",
    ]
    assert utc(texts, TORONTO, times_are_local=True) == ["2024-01-31T23:05:09"] * 4
    aware = pd.Series(pd.to_datetime(["2024-01-31T18:05:09Z", None]))
    assert utc(aware, TORONTO, times_are_local=True) == ["2024-01-31T23:05:09", "missing"]
    assert utc(aware, TORONTO) == ["2024-01-31T18:05:09", "missing"]


@pytest.mark.parametrize(
    ("values", "zone", "expected"),
    [
        (np.array(["2024-07-01T12", "NaT"], "datetime64[s]"), TORONTO, ["2024-07-01T16:00:00", "missing"]),
        (np.array(["9999-12-31", "1900-01-01"], "datetime64[s]"), "UTC", ["bad", "bad"]),
        (
            [dt.datetime(2024, 7, 1, 12), None, dt.date(2024, 7, 1)],
            TORONTO,
            ["2024-07-01T16:00:00", "missing", "2024-07-01T04:00:00"],
        ),
        (
            [pd.Timestamp("2024-07-01", tz="Europe/Berlin"), pd.NaT],
            TORONTO,
            ["2024-06-30T22:00:00", "missing"],
        ),
        (pd.Series(["2024-07-01", None], dtype="string"), "UTC", ["2024-07-01T00:00:00", "missing"]),
        (
            pd.Series(["2024-07-01", "x", "2024-07-01"], dtype="category"),
            "UTC",
            ["2024-07-01T00:00:00", "bad", "2024-07-01T00:00:00"],
        ),
        (pd.array([1_706_724_309, None], dtype="Int64"), "UTC", ["2024-01-31T18:05:09", "missing"]),
        (
            np.array([np.nan, np.inf, 0.0, 5.0, 2024.0, 1e30]),
            "UTC",
            ["missing", "bad", "bad", "bad", "bad", "bad"],
        ),
        (np.array([True, False]), "UTC", ["bad", "bad"]),
        (np.array([1, 2], "timedelta64[s]"), "UTC", ["bad", "bad"]),
    ],
    ids=["naive", "years", "objects", "aware", "string", "category", "integer", "float", "bool", "duration"],
)
def test_columns_of_any_type_are_read(values, zone, expected):
    assert utc(values, zone) == expected


def test_nothing_there_is_missing_and_something_else_is_bad():
    missing = [None, float("nan"), pd.NaT, "", "  ", "NULL", "none", "NaN", "NaT", "n/a"]
    bad = [
        "?",
        "yesterday",
        "12:30",
        "2024",
        "2024-13-01",
        "2024-02-30",
        "31/01/2024",
        "9999-12-31",
        "0001-01-01",
        "1900-01-01 00:00",
        "0",
        "12345",
        "Monday",
    ]
    assert utc(missing) == ["missing"] * len(missing)
    assert utc(bad) == ["bad"] * len(bad)
    assert utc([*bad, "2024-01-31", *missing]) == ["bad"] * len(bad) + ["2024-01-31T00:00:00"] + [
        "missing"
    ] * len(missing)


def test_a_day_first_date_among_month_first_ones_is_counted_and_not_turned_round():
    assert utc(["01/02/2024", "31/01/2024", "13/01/2024 10:00"]) == ["2024-01-02T00:00:00", "bad", "bad"]
    assert utc(["01/31/2024", "01/02/2024"], day_first=True) == ["bad", "2024-02-01T00:00:00"]


def table(times, types=None, x=None, y=None, **options) -> EventTable:
    count = len(times)
    x = np.arange(count) if x is None else x
    y = np.arange(count) if y is None else y
    return EventTable.from_arrays(x, y, times, types, **options)


def test_rows_without_place_or_date_are_counted_once():
    times = ["2024-01-01", None, "x", "2024-01-02", "9999-12-31", "2024-01-03", None]
    events = table(times, x=[0, 1, 2, np.nan, 4, 5, np.nan], y=[0, 1, 2, 3, np.inf, 5, 6])
    assert len(events) == 2
    assert events.x.tolist() == [0, 5]
    assert {reason: n for reason, n in events.dropped.items() if n} == {
        "null_geometry": 3,
        "null_time": 1,
        "bad_time": 1,
    }
    assert events.rows_read == 7
    assert events.bad_examples == ("x", "9999-12-31")
    assert set(events.dropped) == set(DROP_REASONS)


def test_rows_lost_on_the_way_are_added():
    events = table(["2024-01-01"], dropped_before={"reprojection": 2, "null_geometry": 3})
    assert events.dropped["reprojection"] == 2
    assert events.dropped["null_geometry"] == 3
    assert events.rows_read == 6


good_time = st.sampled_from(["2024-01-01", "01/31/2024 18:05", "1706724309", "2024-06-01T00:00Z"])
any_time = st.one_of(good_time, st.none(), st.text(max_size=12), st.floats(), st.integers(-(2**60), 2**60))
place = st.one_of(st.floats(-1e7, 1e7), st.sampled_from([np.nan, np.inf]))
kind = st.one_of(st.none(), st.text(max_size=5), st.floats(), st.integers(0, 3))


@given(
    rows=st.lists(st.tuples(place, place, any_time, kind), max_size=12),
    before=st.dictionaries(st.sampled_from(["reprojection", "null_geometry"]), st.integers(0, 5)),
    day_first=st.booleans(),
    local=st.booleans(),
)
def test_every_row_is_kept_or_counted(rows, before, day_first, local):
    # One good row makes sure that there is a table at all.
    x, y, times, types = zip(*rows, (1.0, 2.0, "2024-01-01", "a"))
    events = EventTable.from_arrays(
        x,
        y,
        list(times),
        list(types),
        time_zone=TORONTO,
        day_first=day_first,
        times_are_local=local,
        dropped_before=before,
    )
    assert len(rows) + 1 + sum(before.values()) == events.rows_read
    assert len(events) + sum(events.dropped.values()) == events.rows_read
    assert len(events) == len(events.y) == len(events.time) == len(events.type_code) >= 1
    assert np.isfinite(events.x).all()
    assert np.isfinite(events.y).all()
    assert not np.isnat(events.time).any()
    assert events.type_code.max() < len(events.type_names)
    assert list(events.type_names) == sorted(set(events.type_names))


def test_types_are_shown_as_they_were_written():
    times = ["2024-01-01"] * 8
    types = [1.0, 2.5, None, "theft", np.nan, " theft ", "", 10]
    events = table(times, np.array(types, dtype=object))
    assert events.type_names == ("(no type)", "1", "10", "2.5", "theft")
    assert np.array(events.type_names)[events.type_code].tolist() == [
        "1",
        "2.5",
        "(no type)",
        "theft",
        "(no type)",
        "theft",
        "(no type)",
        "10",
    ]


def test_whole_numbers_with_gaps_stay_whole():
    events = table(["2024-01-01"] * 3, np.array([7, np.nan, 3]))
    assert events.type_names == ("(no type)", "3", "7")


def test_without_a_type_field_there_is_one_type():
    events = table(["2024-01-01"] * 3)
    assert events.type_names == ("events",)
    assert events.type_code.tolist() == [0, 0, 0]


def test_types_of_dropped_rows_leave_no_trace():
    events = table(["2024-01-01", None], ["kept", "lost"])
    assert events.type_names == ("kept",)


@pytest.mark.parametrize("suffix", [".fgb", ".gpkg"])
def test_a_layer_is_read_with_multipoints_and_null_geometries(tmp_path, suffix):
    path = write_points(
        tmp_path / f"events with späce{suffix}",
        [
            shapely.MultiPoint([(1, 10), (2, 20), (3, 30)]),
            None,
            shapely.MultiPoint([(4, 40)]),
            shapely.MultiPoint(),
            shapely.MultiPoint([(5, 50)]),
        ],
        {
            "time": ["2024-01-01", "2024-01-02", None, "2024-01-04", "never"],
            "type": ["a", "b", "c", "d", None],
            "other": [1, 2, 3, 4, 5],
        },
        kind="MultiPoint",
        # FlatGeobuf's spatial index takes no null geometries.
        **({"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}),
    )
    events = EventSource(path, fields={"time": "time", "type": "type"}).read()
    assert events.x.tolist() == [1, 2, 3]
    assert events.y.tolist() == [10, 20, 30]
    assert events.type_names == ("a",)
    assert events.dropped["null_geometry"] == 2
    assert events.dropped["null_time"] == 1
    assert events.dropped["bad_time"] == 1
    assert events.rows_read == 7
    assert events.bad_examples == ("never",)


POINTS = [shapely.Point(1, 10), shapely.Point(2, 20), shapely.Point(3, 30)]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (
            np.array(["2024-07-01T12:00:00", "NaT", "2024-01-01T00:00:00"], "datetime64[ms]"),
            {},
            ["2024-07-01T16:00:00", "2024-01-01T05:00:00"],
        ),
        (
            np.array(["2024-07-01T12:00:00", "NaT", "2024-01-01T00:00:00"], "datetime64[ms]"),
            {"gdal_tz_offsets": {"time": np.full(3, 100)}},
            ["2024-07-01T12:00:00", "2024-01-01T00:00:00"],
        ),
        (
            np.array(["2024-07-01", "NaT", "2024-01-01"], "datetime64[D]"),
            {},
            ["2024-07-01T04:00:00", "2024-01-01T05:00:00"],
        ),
        (np.array([1_706_724_309, 5, 20240101]), {}, ["2024-01-31T18:05:09", "2024-01-01T05:00:00"]),
        (
            np.array([1_706_724_309_000.0, np.nan, 20240101]),
            {},
            ["2024-01-31T18:05:09", "2024-01-01T05:00:00"],
        ),
    ],
    ids=["naive", "utc", "date", "integer", "real"],
)
@pytest.mark.parametrize("suffix", [".fgb", ".gpkg"])
def test_date_and_number_fields_are_read(tmp_path, suffix, values, options, expected):
    path = write_points(tmp_path / f"events{suffix}", POINTS, {"time": values}, **options)
    events = EventSource(path, time_zone=TORONTO).read()
    # FlatGeobuf stores features in the order of a spatial index.
    assert sorted(str(time) for time in events.time) == sorted(expected)
    assert events.rows_read == 3
    assert events.type_names == ("events",)


def test_dates_with_offset_in_a_layer_are_read_as_local_time_on_request(tmp_path):
    path = write_points(tmp_path / "events.fgb", POINTS[:1], {"time": ["2024-07-01T12:00:00Z"]})
    assert str(EventSource(path, time_zone=TORONTO).read().time[0]) == "2024-07-01T12:00:00"
    local = EventSource(path, time_zone=TORONTO, times_are_local=True).read()
    assert str(local.time[0]) == "2024-07-01T16:00:00"


def test_an_empty_layer_is_refused(tmp_path):
    path = write_points(tmp_path / "events.gpkg", [], {"time": np.array([], object)})
    with pytest.raises(InputError) as caught:
        EventSource(path).read()
    assert caught.value.text() == (
        "INPUT: The layer has no events. Check its filter, its selection and 'Selected features only'."
    )


def test_a_layer_without_a_readable_date_is_refused(tmp_path):
    path = write_points(tmp_path / "events.gpkg", POINTS, {"time": ["soon", None, "later"]})
    with pytest.raises(InputError) as caught:
        EventSource(path).read()
    assert caught.value.text() == (
        "TIME_FIELD = 'soon': Not one date of the field can be read. Choose the field that holds the date "
        "and time of the event. Understood are date fields, ISO dates (2024-01-31 18:05), 01/31/2024 6:05 "
        "PM, 31.01.2024, and epoch seconds or milliseconds."
    )


def test_a_field_of_nulls_is_refused(tmp_path):
    path = write_points(tmp_path / "events.gpkg", POINTS, {"time": [None, None, ""]})
    with pytest.raises(InputError, match=r"^TIME_FIELD = only empty values: Not one date"):
        EventSource(path).read()


def test_a_layer_without_the_field_is_refused(tmp_path):
    path = write_points(tmp_path / "events.gpkg", POINTS, {"when": ["2024-01-01"] * 3})
    with pytest.raises(InputError) as caught:
        EventSource(path).read()
    assert (
        caught.value.text() == "TIME_FIELD = when: The layer has no field 'time'. Choose one of its fields."
    )


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(InputError, match=r"^TIME_ZONE = Berlin: .* Did you mean Europe/Berlin\?"):
        table(["2024-01-01"], time_zone="Berlin")


def test_a_layer_that_cannot_be_opened_is_refused(tmp_path):
    path = tmp_path / "events.fgb"
    path.write_bytes(b"not a layer")
    with pytest.raises(InputError, match=r"^INPUT = .*events\.fgb: The layer cannot be read"):
        EventSource(path).read()
