# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock's odd hours, and dates whose time of day stands in another column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast_qgis.core.dates import combine, parse_clock, parse_times

TORONTO = "America/Toronto"


@pytest.mark.parametrize("as_text", [True, False])
def test_hours_that_the_clock_shows_twice_or_never_are_found(as_text):
    texts = [
        "2024-11-03T01:30",
        "2024-03-10T02:30",
        "2024-03-10T03:00",
        "2024-11-03T02:00",
        "2024-07-01T12:00",
    ]
    parsed = parse_times(texts if as_text else np.array(texts, "datetime64[s]"), TORONTO)
    assert parsed.ambiguous.tolist() == [True, False, False, False, False]
    assert parsed.skipped.tolist() == [False, True, False, False, False]
    assert parsed.time.astype(str).tolist() == [
        "2024-11-03T05:30:00",
        "2024-03-10T07:00:00",
        "2024-03-10T07:00:00",
        "2024-11-03T07:00:00",
        "2024-07-01T16:00:00",
    ]


def test_written_offsets_leave_no_doubt():
    parsed = parse_times(["2024-11-03T01:30-04:00", "2024-11-03T01:30-05:00", "2024-11-03T05:30Z"], TORONTO)
    assert not parsed.ambiguous.any()
    assert parsed.time.astype(str).tolist() == [f"2024-11-03T0{hour}:30:00" for hour in (5, 6, 5)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(min_value=pd.Timestamp("1990-01-01"), max_value=pd.Timestamp("2030-01-01"))))
def test_the_odd_hours_are_those_that_the_zone_says(moments):
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("Europe/Berlin")
    naive = [moment.replace(microsecond=0) for moment in moments]
    parsed = parse_times(np.array(naive, "datetime64[s]"), "Europe/Berlin")
    for moment, ambiguous, skipped in zip(naive, parsed.ambiguous, parsed.skipped):
        first, second = (moment.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        assert ambiguous == (first > second)
        assert skipped == (first < second)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("18:05", 65100),
        ("18:05:30", 65130),
        ("18:05:30.75", 65130),
        ("6:05 PM", 65100),
        ("6:05:30 p.m.", 65130),
        ("12:10 am", 600),
        ("12:10 PM", 43800),
        ("1805", 65100),
        ("905", 32700),
        (1805, 65100),
        (905.0, 32700),
        (5, 300),
        ("18.05", 65100),
        (18.05, 65100),
        ("24:00", 86400),
        ("1899-12-30T18:05:00", 65100),
        ("1899-12-30 18:05", 65100),
        ("25:00", None),
        ("18:60", None),
        ("noon", None),
        ("", None),
        (None, None),
    ],
)
def test_times_of_day(value, seconds):
    found, known = parse_clock([value])
    assert known.tolist() == [seconds is not None]
    assert found.tolist() == [seconds or 0]


def test_a_date_and_a_time_of_day_make_a_time():
    times, without = combine(
        ["2024-07-01", "07/02/2024", "2024-07-03T09:00", "2024-07-04", None],
        ["18:05", "1805", "0100", "?", "12:00"],
        TORONTO,
    )
    assert times.time.astype(str).tolist() == [
        "2024-07-01T22:05:00",
        "2024-07-02T22:05:00",
        "2024-07-03T05:00:00",
        "2024-07-04T04:00:00",
        "NaT",
    ]
    assert without.tolist() == [False, False, False, True, False]
    assert times.missing.tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("31-OCT-2020", "2020-10-31T00:00:00"),
        ("31-OCT-20", "2020-10-31T00:00:00"),
        ("30-Sep-2020 06:05:00 PM", "2020-09-30T18:05:00"),
        ("202010311805", "2020-10-31T18:05:00"),
        ("20201031180530", "2020-10-31T18:05:30"),
        ("915148800000", "1999-01-01T00:00:00"),
        ("01/31/2024 10:00:00.000", "2024-01-31T10:00:00"),
        ("01/31/2024 10:00:00.000 PM", "2024-01-31T22:00:00"),
        ("10/31/2020 6:05 p.m.", "2020-10-31T18:05:00"),
        ("2020-10-31T18:05:00.123Z", "2020-10-31T18:05:00"),
    ],
)
def test_dates_as_other_programs_export_them(text, instant):
    assert parse_times([text], "UTC").time.astype(str).tolist() == [instant]
    # Neither the neighbours nor a zone west of Greenwich move them to another day.
    parsed = parse_times([text, "2024-01-01T12:00:00Z", "13-DEC-2020"], "UTC")
    assert parsed.time.astype(str).tolist()[0] == instant and not parsed.bad.any()


def test_placeholders_for_never_are_no_dates():
    for values in (["9999-12-31", "2024-01-01"], np.array(["9999-12-31", "2024-01-01"], "datetime64[s]")):
        parsed = parse_times(values, TORONTO)
        assert parsed.bad.tolist() == [True, False]
