# SPDX-License-Identifier: GPL-2.0-or-later
"""Events into cubes block by block: nothing is lost, an extended cube equals one made at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CELL, NORTH, UTM, WEST, make_grid

from gridcast_qgis.core import binning
from gridcast_qgis.core.binning import Counting, CubeBuilder, counting_of, frequent_types
from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import OTHER, Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.severity import CHICAGO, Severity, read_table, scores_of

TORONTO = "America/Toronto"
BEGIN = np.datetime64("2024-03-01T05:00:00")


class Recorder(Reporter):
    def __init__(self):
        super().__init__()
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


def places(cells) -> tuple[np.ndarray, np.ndarray]:
    """Return map coordinates of (column, row) pairs."""
    column, row = np.array(cells, float).reshape(-1, 2).T
    return WEST + column * CELL, NORTH - row * CELL


def table(cells, hours, types=None, **columns) -> EventTable:
    """Return events at (column, row), hours after the beginning of March on Toronto's clock."""
    times = BEGIN + (np.array(hours, float) * 3600).astype("timedelta64[s]")
    if "ends" in columns:
        columns["ends"] = BEGIN + (np.array(columns["ends"], float) * 3600).astype("timedelta64[s]")
    return EventTable.from_arrays(*places(cells), times, types, **columns)


def build(tables, counting=None, *, grid=None, **options) -> Cube:
    builder = CubeBuilder(grid or make_grid(), counting or Counting("day", TORONTO), **options)
    for each in tables:
        builder.add(each)
    return builder.build()


def equal(one: Cube, other: Cube) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.attributes == other.attributes
    assert (one.severity is None) == (other.severity is None)
    if one.severity is not None:
        np.testing.assert_array_equal(one.severity.sum, other.severity.sum)
        np.testing.assert_array_equal(one.severity.weight, other.severity.weight)


# -- every event counts once ---------------------------------------------------------------------

event = st.tuples(
    st.floats(-0.5, 7.5),
    st.floats(-0.5, 6.5),
    st.floats(0, 24 * 40),
    st.sampled_from("abcdef"),
    st.floats(0, 24 * 9),
)
events = st.lists(event, min_size=1, max_size=60)
#: In a cell of the study area, so that there is a cube.
SURE = (3.5, 0.5, 200.0, "a", 0.0)


def columns_of(rows):
    return (
        [(r[0], r[1]) for r in rows],
        [r[2] for r in rows],
        [r[3] for r in rows],
        [r[2] + r[4] for r in rows],
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=events,
    step=st.sampled_from(["1h", "day", "week", "shifts 07:00 15:00 23:00"]),
    blocks=st.integers(1, 5),
)
def test_blocks_do_not_matter_and_every_event_lands_in_one_cell_and_step(rows, step, blocks):
    rows = [*rows, SURE]
    counting = Counting(step, TORONTO)
    cells, hours, types, _ = columns_of(rows)
    whole = build([table(cells, hours, types)], counting)
    parts = np.array_split(np.arange(len(rows)), blocks)
    pieces = [
        table([cells[i] for i in part], [hours[i] for i in part], [types[i] for i in part])
        for part in parts
        if len(part)
    ]
    equal(build(pieces, counting), whole)
    facts = whole.attributes
    assert facts["events_used"] + sum(facts["dropped"].values()) == facts["events_read"] == len(rows)
    assert whole.events.sum() == facts["events_used"]
    # Each event by itself is in exactly one place.
    for index in range(len(rows)):
        try:
            alone = build([table([cells[index]], [hours[index]])], counting)
        except InputError as error:
            assert "outside the study area" in error.message
            continue
        assert np.sort(alone.events.ravel())[-2:].tolist()[-1] == 1 and alone.events.sum() == 1


@settings(max_examples=30, deadline=None)
@given(
    rows=events,
    shift=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    angle=st.sampled_from([0.0, 17.0, -63.0]),
)
def test_translation_and_rotation_keep_the_counts(rows, shift, angle):
    from affine import Affine

    rows = [*rows, SURE]
    cells, hours, types, _ = columns_of(rows)
    # Away from the edges of cells, on which rounding decides.
    cells = [(np.floor(x) + 0.25 + (x % 1) / 2, np.floor(y) + 0.25 + (y % 1) / 2) for x, y in cells]
    plain = build([table(cells, hours, types)])
    grid = make_grid()
    move = Affine.translation(shift[0] * CELL, shift[1] * CELL) @ Affine.rotation(angle, pivot=(WEST, NORTH))
    x, y = places(cells)
    moved_x, moved_y = move @ (x, y)
    times = BEGIN + (np.array(hours) * 3600).astype("timedelta64[s]")
    moved = build(
        [EventTable.from_arrays(moved_x, moved_y, times, types)],
        grid=Grid(UTM, move @ grid.transform, grid.inside),
    )
    np.testing.assert_array_equal(moved.events, plain.events)
    assert moved.attributes == plain.attributes


def test_another_coordinate_system_keeps_the_counts():
    import pyproj

    random = np.random.default_rng(4)
    cells = random.uniform(0, 6, (400, 2))
    hours = random.uniform(0, 500, 400)
    plain = build([table(cells, hours)])
    # State Plane feet and degrees, brought back to the grid's system.
    x, y = places(cells)
    for code in (2263, 4326):
        there = pyproj.Transformer.from_crs(UTM, code, always_xy=True)
        back = pyproj.Transformer.from_crs(code, UTM, always_xy=True)
        times = BEGIN + (hours * 3600).astype("timedelta64[s]")
        again = build([EventTable.from_arrays(*back.transform(*there.transform(x, y)), times)])
        np.testing.assert_array_equal(again.events, plain.events)


@pytest.mark.parametrize(("day", "hours"), [("2024-03-10", 23), ("2024-11-03", 25), ("2024-07-01", 24)])
def test_a_day_on_which_the_clock_changes_has_23_or_25_hourly_steps(day, hours):
    first = np.datetime64(f"{day}T04:00:00") - np.timedelta64(24, "h")
    times = first + np.arange(0, 80 * 60, 30).astype("timedelta64[m]")
    x, y = places([(3.5, 0.5)] * len(times))
    cube = build([EventTable.from_arrays(x, y, times)], Counting("1h", TORONTO))
    local = cube.axis.local_starts
    mine = local.strftime("%Y-%m-%d") == day
    assert mine.sum() == hours
    assert (cube.total[mine].sum(axis=(1, 2)) == 2).all()


# -- aoristic weights ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(rows=events, step=st.sampled_from(["15min", "1h", "6h", "day", "month", "shifts 06:30 18:30"]))
def test_shares_of_an_interval_add_up_to_one(rows, step):
    rows = [*rows, SURE]
    cells, hours, types, ends = columns_of(rows)
    cube = build([table(cells, hours, types, ends=ends)], Counting(step, TORONTO, spread=True))
    assert cube.events.sum(dtype=np.float64) == cube.attributes["events_used"]
    assert (cube.events >= 0).all()


def test_shares_follow_time():
    # From six in the evening to six in the morning, and to noon two days later.
    grid = make_grid(2, 2, holes=False)
    cube = build(
        [table([(0.5, 0.5), (1.5, 0.5), (0.5, 1.5)], [18, 12, 7], ends=[30, 60, 7])],
        Counting("day", TORONTO, spread=True),
        grid=grid,
    )
    np.testing.assert_allclose(cube.total[:, 0, 0], [0.5, 0.5, 0], atol=2**-16)
    np.testing.assert_allclose(cube.total[:, 0, 1], [0.25, 0.5, 0.25], atol=2**-16)
    assert cube.total[:, 1, 0].tolist() == [1, 0, 0]


def test_an_interval_that_ends_as_a_step_begins_is_not_in_it():
    cube = build([table([(3.5, 0.5)], [20], ends=[24])], Counting("day", TORONTO, spread=True))
    assert len(cube) == 1 and cube.total.sum() == 1


def test_parts_of_intervals_beyond_the_period_do_not_count():
    counting = Counting("day", TORONTO, spread=True)
    cube = build([table([(3.5, 0.5)], [18], ends=[30])], counting, start="2024-03-02", end="2024-03-03")
    assert len(cube) == 1 and cube.total.sum() == 0.5
    assert cube.attributes["events_used"] == 1


def test_intervals_that_end_before_they_begin_count_as_their_beginning():
    cube = build([table([(3.5, 0.5)], [18], ends=[2])], Counting("day", TORONTO, spread=True))
    assert cube.total.sum() == 1 and cube.attributes["notes"]["end_before_start"] == 1


def test_a_long_interval_is_spread_in_pieces(monkeypatch):
    whole = build(
        [table([(3.5, 0.5)] * 3, [0, 5, 9], ends=[900, 20, 700])], Counting("1h", TORONTO, spread=True)
    )
    monkeypatch.setattr(binning, "_PIECES", 7)
    equal(
        build(
            [table([(3.5, 0.5)] * 3, [0, 5, 9], ends=[900, 20, 700])], Counting("1h", TORONTO, spread=True)
        ),
        whole,
    )


# -- severity ------------------------------------------------------------------------------------


def test_severity_by_the_table_of_the_paper():
    cells = [(3.5, 0.5)] * 4 + [(4.5, 0.5)]
    types = ["THEFT", "criminal damage", "NON - CRIMINAL", "DANCING", "GAMBLING"]
    cube = build([table(cells, [1, 2, 3, 4, 5], types)], Counting("day", TORONTO, severity=CHICAGO))
    severity = cube.severity
    assert severity.sum[0, 0, 3] == 1.5 and severity.weight[0, 0, 3] == 3
    assert severity.mean[0, 0, 3] == 0.5
    # A soft crime is not the same as none.
    assert severity.mean[0, 0, 4] == 0 and severity.indicator[0, 0, 4] == 1
    assert severity.indicator[0, 0, 5] == 0
    assert severity.mean.dtype == severity.indicator.dtype == np.float32


def test_the_table_of_the_paper_has_three_levels():
    assert set(CHICAGO.values()) == {0.0, 0.5, 1.0}
    assert scores_of(["Arson", "GAMBLING", "CRIMINAL TRESPASS", "?"], CHICAGO).tolist()[:3] == [1, 0, 0.5]
    assert np.isnan(scores_of(["?"], CHICAGO)[0])


def test_severity_from_a_field():
    cube = build(
        [table([(3.5, 0.5)] * 3, [1, 2, 3], severity=[4.0, None, "2"])],
        Counting("day", TORONTO, severity="field"),
    )
    assert (cube.severity.sum.sum(), cube.severity.weight.sum()) == (6, 2)


def test_severity_is_spread_with_the_event():
    cube = build(
        [table([(3.5, 0.5)], [18], ends=[30], severity=[3.0])],
        Counting("day", TORONTO, spread=True, severity="field"),
    )
    assert cube.severity.sum[:, 0, 3].tolist() == [1.5, 1.5]
    assert cube.severity.mean[:, 0, 3].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type\nTHEFT\n", "it has 1 columns and 1 rows"),
        ("type,severity\nTHEFT,high\n", "the severity of 'THEFT' is 'high'"),
        ("type,severity\nTHEFT,1\ntheft,2\n", "'THEFT' occurs twice"),
        ("type,severity\n", "it has 2 columns and 0 rows"),
    ],
)
def test_a_table_of_severities_that_cannot_be_used(tmp_path, text, problem):
    path = tmp_path / "severities.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert caught.value.text() == (
        f"SEVERITY_TABLE = {path}: The table of severities cannot be used: {problem}. Give a CSV file with "
        "two columns, the type and its severity as a number, and a first line with their names."
    )


def test_a_table_of_severities_is_read(tmp_path):
    path = tmp_path / "severities.csv"
    path.write_text("type,severity\nTheft Over, 2.5\nNon - Criminal,0\n")
    assert scores_of(["theft over", "NON-CRIMINAL"], read_table(path)).tolist() == [2.5, 0]


# -- duplicates ----------------------------------------------------------------------------------


def test_duplicates_are_kept_unless_they_are_to_be_dropped():
    rows = [table([(3.5, 0.5)] * 3, [1, 1, 1], ["a", "a", "b"])]
    assert build(rows).events.sum() == 3
    cube = build(rows, Counting("day", TORONTO, drop_duplicates=True))
    assert cube.events.sum() == 2 and cube.attributes["dropped"]["duplicate"] == 1


def test_an_identity_tells_duplicates_across_blocks():
    counting = Counting("day", TORONTO, drop_duplicates=True)
    one = table([(3.5, 0.5), (3.5, 0.5)], [1, 1], identity=["17", None])
    two = table([(4.5, 0.5), (3.5, 0.5)], [9, 1], identity=["17", "18"])
    cube = build([one, two], counting)
    # The second 17 is the first again, wherever it lies; 18 and the nameless one are events of their own.
    assert cube.events.sum() == 3 and cube.attributes["dropped"]["duplicate"] == 1
    assert cube.total[0, 0, 4] == 0


# -- types ---------------------------------------------------------------------------------------


def test_rare_types_are_put_together():
    assert frequent_types({"a": 1, "b": 5, "c": 2}, 3) == ("a", "b", "c")
    assert frequent_types({"a": 1, "b": 5, "c": 2}, 2) == ("b", OTHER)
    assert frequent_types({"a": 1, OTHER: 5, "c": 2}, 2) == (OTHER,)


def test_a_field_of_names_is_no_type():
    count = binning.MAX_DISTINCT_TYPES + 1
    with pytest.raises(InputError) as caught:
        build([table([(3.5, 0.5)] * count, [1] * count, [f"{i:05}" for i in range(count)])])
    assert caught.value.text() == (
        "TYPE_FIELD: The field has more than 5,000 different values, such as 00000, 00001, 00002: it does "
        "not hold types of events. Choose the field with the category of the event, or none."
    )


# -- extending a cube ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rows=events,
    cut=st.integers(0, 60),
    step=st.sampled_from(["1h", "day", "14days", "month", "shifts 07:00 15:00 23:00"]),
    spread=st.booleans(),
    severity=st.sampled_from([None, {"a": 0.1, "b": 0.7}]),
    max_types=st.integers(3, 8),
)
def test_an_extended_cube_equals_one_made_at_once(rows, cut, step, spread, severity, max_types):
    rows = [SURE, *rows]
    counting = Counting(step, TORONTO, max_types=max_types, spread=spread, severity=severity)

    def part(some):
        cells, hours, types, ends = columns_of(some)
        return table(cells, hours, types, ends=ends)

    old = build([part(rows[: cut + 1])], counting)
    reporter = Recorder()
    later = [part(rows[cut + 1 :])] if rows[cut + 1 :] else []
    extended = build(later, counting_of(old), base=old, reporter=reporter)
    at_once = build([part(rows)], counting)
    if any("its types stay as they are" in text for text in reporter.warnings):
        # Types that were put together cannot be taken apart again; this is said.
        assert extended.types == old.types
        np.testing.assert_array_equal(extended.total, at_once.total)
    else:
        equal(extended, at_once)


def test_an_extended_file_equals_one_made_at_once(tmp_path):
    random = np.random.default_rng(1)
    cells, hours = random.uniform(0, 6, (500, 2)), np.sort(random.uniform(0, 2000, 500))
    types = random.choice(["a", "b", "c"], 500)
    counting = Counting("day", TORONTO, severity={"a": 1.0, "b": 0.3, "c": 0.0})
    build([table(cells[:300], hours[:300], types[:300])], counting).write(tmp_path / "old.nc")
    old = Cube.read(tmp_path / "old.nc")
    at_once = build([table(cells, hours, types)], counting)
    for _ in range(5):  # the files hold the second in which they were made
        build([table(cells[300:], hours[300:], types[300:])], counting_of(old), base=old).write(
            tmp_path / "extended.nc"
        )
        at_once.write(tmp_path / "at_once.nc")
        if (tmp_path / "extended.nc").read_bytes() == (tmp_path / "at_once.nc").read_bytes():
            return
    raise AssertionError("the files differ")


def test_a_type_that_was_put_together_is_not_taken_apart():
    old = build([table([(3.5, 0.5)] * 6, [1] * 6, list("aaabbc"))], Counting("day", TORONTO, max_types=2))
    assert old.types == ("a", OTHER)
    reporter = Recorder()
    new = build(
        [table([(3.5, 0.5)] * 5, [30] * 5, list("ccccd"))], counting_of(old), base=old, reporter=reporter
    )
    assert new.types == ("a", OTHER) and new.events.sum() == 11
    assert reporter.warnings == [
        "c would now be among the 2 most frequent types, but the cube has counted it as (other): its types "
        "stay as they are. Make the cube anew to have them shown."
    ]


def test_nothing_new_leaves_the_cube_as_it_was():
    old = build([table([(3.5, 0.5)], [1], ["a"])])
    equal(build([], counting_of(old), base=old), old)
    # A night with an event outside the area, or with an empty layer, is no error.
    empty = table(np.empty((0, 2)), [])
    outside = build([empty, table([(-5, -5)], [50])], counting_of(old), base=old)
    assert outside.fingerprint == old.fingerprint
    assert outside.attributes["dropped"]["outside_grid"] == 1


def test_events_that_the_cube_has_are_left_aside():
    rows = table([(3.5, 0.5)] * 2, [1, 30], ["a", "a"])
    both = build([rows])
    old = build([rows.selected(np.array([True, False]))])
    equal(build([rows], counting_of(old), base=old, only_later=True), both)
    # A row without a date among events that are all known is no reason to think that no date can be read.
    with_a_gap = table([(3.5, 0.5)] * 3, [1, 30, 0], ["a"] * 3, dropped_before={"bad_time": 1})
    again = build([with_a_gap], counting_of(both), base=both, only_later=True)
    assert again.fingerprint == both.fingerprint
    # It was counted when the cube was made, like the events.
    assert again.attributes == both.attributes


@pytest.mark.parametrize("step", ["day", "week", "month"])
@pytest.mark.parametrize("end", [None, "2024-03-13T09:30"])
def test_a_step_that_was_not_over_is_completed(step, end):
    hours = np.arange(0, 24 * 40, 5.0)
    rows = table([(3.5, 0.5)] * len(hours), hours, ["a"] * len(hours))
    whole = build([rows], Counting(step, TORONTO))
    seen = rows if end else rows.selected(hours < 300)
    old = build([seen], Counting(step, TORONTO), end=end)
    again = build([rows], counting_of(old), base=old, only_later=True)
    assert again.fingerprint == whole.fingerprint
    assert again.attributes == whole.attributes
    # Once more changes nothing, and nothing is counted twice.
    equal(build([rows], counting_of(again), base=again, only_later=True), again)


def test_what_is_left_aside_is_told():
    rows = table([(3.5, 0.5)] * 3, [1, 30, 60], ["a"] * 3)
    old = build([rows.selected(np.array([True, True, False]))])
    builder = CubeBuilder(old.grid, counting_of(old), base=old, only_later=True)
    builder.add(rows)
    builder.build()
    assert builder.report["left_aside"] == 2 and builder.report["events_used"] == 1


def test_an_end_before_what_is_counted_is_refused():
    old = build([table([(3.5, 0.5)] * 2, [1, 100], ["a", "a"])])
    with pytest.raises(InputError, match="END = 2024-03-02: The cube has counted events beyond this moment"):
        build([], counting_of(old), base=old, end="2024-03-02")


def test_many_new_events_off_the_grid_are_a_wrong_layer():
    old = build([table([(3.5, 0.5)], [1], ["a"])])
    with pytest.raises(InputError, match="INPUT: All 30 events lie outside the study area"):
        build([table([(-5, -5)] * 30, [50] * 30)], counting_of(old), base=old)


def test_severity_that_fits_nothing_is_refused():
    rows = table([(3.5, 0.5)], [1], ["a"], severity=["high"])
    with pytest.raises(InputError) as caught:
        build([rows], Counting("day", TORONTO, severity=CHICAGO))
    assert caught.value.text() == (
        "SEVERITY = table: Not one event has a severity. The table has none of the types, such as a: choose "
        "TYPE_FIELD or the table anew."
    )
    with pytest.raises(InputError, match="SEVERITY = field: Not one event has a severity. Choose a field"):
        build([rows], Counting("day", TORONTO, severity="field"))


def test_types_without_a_severity_are_named():
    reporter = Recorder()
    rows = table([(3.5, 0.5)] * 3, [1, 2, 3], ["THEFT", "x", "x"])
    build([rows], Counting("day", TORONTO, severity=CHICAGO), reporter=reporter)
    assert reporter.warnings == ["2 events have no severity and do not count for it: the table lacks x."]


def test_a_wrong_year_that_stretches_the_cube_is_told():
    reporter = Recorder()
    hours = [*range(0, 24 * 40, 24), 24 * 4000]
    build([table([(3.5, 0.5)] * len(hours), hours)], reporter=reporter)
    assert len(reporter.warnings) == 1 and reporter.warnings[0].startswith(
        "There is no event from 2024-04-10"
    )


def test_it_goes_on_to_a_given_end():
    old = build([table([(3.5, 0.5)], [1], ["a"])])
    longer = build([], counting_of(old), base=old, end="2024-03-04")
    assert len(longer) == 3 and longer.events[1:].sum() == 0


def test_covariates_of_new_steps_are_unknown_and_this_is_said():
    old = build([table([(3.5, 0.5)] * 2, [1, 30], ["a", "a"])])
    place = Covariate("income", np.ones(old.grid.shape, np.float32), ("y", "x"))
    time = Covariate("rain", np.array([1, 2], np.float32), ("time",))
    reporter = Recorder()
    new = build(
        [table([(3.5, 0.5)], [50], ["a"])],
        counting_of(old),
        base=old.with_covariates([place, time]),
        reporter=reporter,
    )
    np.testing.assert_array_equal(new.covariates["rain"].values, [1, 2, np.nan])
    assert new.covariates["income"] is place
    assert reporter.warnings == ["In the new steps nothing is known of rain: add these covariates again."]


def test_a_cube_made_by_hand_cannot_be_extended():
    cube = build([table([(3.5, 0.5)], [1])])
    with pytest.raises(InputError, match="does not say how its events were counted"):
        counting_of(Cube(cube.grid, cube.axis, cube.types, cube.events))


# -- memory --------------------------------------------------------------------------------------


def test_events_wait_on_disk_when_there_are_many(monkeypatch):
    rows = [table([(3.5, 0.5), (2.5, 3.5)], [h, h + 1], ["a", "b"]) for h in range(50)]
    in_memory = build(rows)
    monkeypatch.setattr(binning, "_SPOOL_BYTES", 100)
    equal(build(rows), in_memory)


def test_a_full_temporary_folder_is_named(monkeypatch):
    class Full:
        def tell(self):
            return 0

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(binning.tempfile, "SpooledTemporaryFile", lambda size: Full())
    with pytest.raises(InputError, match="The temporary folder cannot hold the events: No space left"):
        build([table([(3.5, 0.5)], [1])])


def test_parts_of_a_cube_take_everything_with_them():
    cube = build([table([(3.5, 0.5)] * 2, [1, 30], ["a", "a"])], Counting("day", TORONTO, severity={"a": 1}))
    cube = cube.with_covariates(
        [
            Covariate("rain", np.array([1, 2], np.float32), ("time",)),
            Covariate("income", np.arange(42, dtype=np.float32).reshape(6, 7), ("y", "x")),
        ]
    )
    part = cube.steps(1, 2).crop(slice(0, 2), slice(3, 5))
    assert part.covariates["rain"].values.tolist() == [2]
    assert part.covariates["income"].values.tolist() == [[3, 4], [10, 11]]
    assert isinstance(part.severity, Severity) and part.severity.sum.tolist() == [[[1, 0], [0, 0]]]
    assert part.select_types(["a"]).severity is part.severity
