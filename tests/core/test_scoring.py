# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that scores forecasts and flagged areas: measures, tables, points, bad input by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from synthetic import (
    CELL,
    NORTH,
    UTM,
    WEST,
    Recorder,
    events_of,
    files_in,
    make_axis,
    make_cube,
    write_events,
    write_points,
)

from gridcast_qgis.core import jobs
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import flag_cells, hit_rate, mean_squared_error
from gridcast_qgis.core.evaluation.scoring import (
    CELL_MEASURES,
    HIT_MEASURES,
    count_on_grid,
    score_map,
    shares_of,
)
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.forecast import Forecast

FIELDS = {"time": "time", "type": "type"}
#: The steps of the forecast in the cube.
FIRST, STOP = 20, 25


@pytest.fixture(scope="module")
def cube() -> Cube:
    return make_cube(30, mean=0.6)


@pytest.fixture(scope="module")
def forecast(cube) -> Forecast:
    """A forecast of five days that knows something; many cells are equal."""
    random = np.random.default_rng(7)
    rate = cube.total.mean(axis=0) + random.gamma(1, 0.1, (STOP - FIRST, *cube.grid.shape))
    expected = np.where(cube.grid.valid, np.round(rate, 1), np.nan).astype(np.float32)
    return Forecast(cube.grid, cube.axis.slice(FIRST, STOP), expected, "made up")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, cube, forecast) -> Path:
    folder = tmp_path_factory.mktemp("in") / "Ördner mit Leerzeichen"
    folder.mkdir()
    cube.write(folder / "cube.nc")
    write_events(folder / "events.fgb", events_of(cube))
    forecast.write(folder / "forecast.tif")
    city = shapely.box(WEST, NORTH - 6 * CELL, WEST + 7 * CELL, NORTH)
    write_points(folder / "city.gpkg", [city], {"name": ["city"]}, kind="Polygon")
    squares = [square(row, column) for row, column in [(2, 1), (3, 5), (4, 2), (5, 0)]]
    write_points(
        folder / "flagged.gpkg",
        squares,
        {"rank": np.array([3, 1, 2, 4]), "expected": np.array([0.5, 2.0, 1.0, 0.25])},
        kind="Polygon",
    )
    return folder


def square(row: float, column: float) -> shapely.Polygon:
    return shapely.box(
        WEST + column * CELL, NORTH - (row + 1) * CELL, WEST + (column + 1) * CELL, NORTH - row * CELL
    )


@pytest.fixture
def run(inputs, tmp_path):
    """Score with the files of `inputs`; relative names are files there."""

    def call(reporter: Recorder | None = None, **request) -> dict:
        request = {"output": tmp_path / "measures.gpkg", **request}
        for key in ("forecast", "flagged", "cube", "events", "study_area"):
            if key in request:
                request[key] = inputs / request[key]
        if "events" in request:
            request.setdefault("fields", FIELDS)
        if "flagged" in request:
            request.setdefault("crs", UTM.to_wkt())
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in request.items()}
        return jobs.run_job("score_forecast", json.loads(json.dumps(plain)), reporter or Recorder())

    return call


def table(path: Path) -> list[tuple[str, float | None, float | None]]:
    meta, _, geometry, columns = pyogrio.raw.read(path)
    assert list(meta["fields"]) == ["measure", "budget", "value", "meaning"]
    assert geometry is None
    number = [[None if np.isnan(v) else float(v) for v in columns[i]] for i in (1, 2)]
    assert all(columns[3])
    return list(zip(columns[0], *number))


POLYGONS = {
    "flagged": "flagged.gpkg",
    "events": "events.fgb",
    "study_area": "city.gpkg",
    "time_zone": "America/Toronto",
    "start": "2024-02-21",
    "end": "2024-02-26",
}


# -- forecasts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["events", "cube"])
def test_a_forecast_is_scored_step_by_step(run, cube, forecast, tmp_path, source):
    given = {"events": "events.fgb"} if source == "events" else {"cube": "cube.nc"}
    reporter = Recorder()
    outputs = run(reporter, forecast="forecast.tif", budgets=[20, 5], **given)
    observed, area = cube.total[FIRST:STOP], cube.grid.inside_area
    expected = hit_rate(observed, forecast.expected, area, 20)
    assert outputs["hits"] == expected.hits
    assert outputs["events"] == observed.sum()
    assert outputs["hit_rate"] == pytest.approx(100 * expected.rate)
    assert outputs["area_share"] == pytest.approx(100 * expected.area_share, rel=1e-6)
    assert outputs["area_km2"] == pytest.approx(expected.flagged_area / 1e6, rel=1e-6)
    assert outputs["best_hits"] == expected.best
    for name in ("pai", "pei", "rri"):
        assert outputs[name] == pytest.approx(getattr(expected, name), rel=1e-6)
    assert outputs["violations"] == 0
    assert outputs["points_output"] is None
    assert reporter.texts() == []
    rows = table(tmp_path / "measures.gpkg")
    assert [row[:2] for row in rows[:9]] == [(name, 20) for name in HIT_MEASURES]
    assert [row[:2] for row in rows[9:18]] == [(name, 5) for name in HIT_MEASURES]
    assert [row[0] for row in rows[18:]] == [
        *("mse", "rmse", "mae", "poisson_deviance"),
        *("auc", "average_precision"),
    ]
    values = {(name, budget): value for name, budget, value in rows}
    assert values["pai", 20] == outputs["pai"]
    five = hit_rate(observed, forecast.expected, area, 5)
    assert values["hits", 5] == five.hits
    assert values["mse", None] == pytest.approx(
        mean_squared_error(observed, forecast.expected, cube.grid.valid)
    )
    assert files_in(tmp_path) == ["measures.gpkg"]


def test_without_a_budget_it_is_5_percent(run):
    one = run(forecast="forecast.tif", cube="cube.nc")
    assert one == run(forecast="forecast.tif", cube="cube.nc", budgets=[5])


def test_a_budget_may_be_an_area(run, cube):
    share = 100 * 1.0e6 / cube.grid.inside_area.sum()
    one = run(forecast="forecast.tif", cube="cube.nc", budgets=[1.0], budget_unit="square-kilometre")
    other = run(forecast="forecast.tif", cube="cube.nc", budgets=[share])
    assert one == other
    assert one["area_km2"] / 5 == pytest.approx(1, abs=0.3)
    assert shares_of([640], "hectare", 6.4e6)[0] == pytest.approx(100)
    assert shares_of([0.5], "square-mile", 2_589_988.110336)[0] == pytest.approx(50)


def test_cells_may_be_flagged_once_for_the_whole_period(run, cube, forecast):
    outputs = run(forecast="forecast.tif", cube="cube.nc", budgets=[20], each_step=False)
    observed = cube.total[FIRST:STOP].sum(axis=0)
    flagged = flag_cells(forecast.over_all_steps(), cube.grid.inside_area, 20, observed)
    assert outputs["hits"] == observed[flagged].sum()
    assert outputs["events"] == observed.sum()
    assert outputs["area_km2"] == pytest.approx(cube.grid.inside_area[flagged].sum() / 1e6, rel=1e-6)


def test_part_of_a_forecast_can_be_scored(run, cube, forecast):
    outputs = run(
        forecast="forecast.tif", cube="cube.nc", start="2024-02-22", end="2024-02-24T12:00", budgets=[20]
    )
    # The step of 24 February ends after END.
    part = slice(FIRST + 1, FIRST + 3)
    expected = hit_rate(cube.total[part], forecast.expected[1:3], cube.grid.inside_area, 20)
    assert (outputs["hits"], outputs["events"]) == (expected.hits, expected.events)


@pytest.mark.parametrize("source", ["events", "cube"])
def test_types_can_be_chosen(run, cube, source):
    given = {"events": "events.fgb"} if source == "events" else {"cube": "cube.nc"}
    outputs = run(forecast="forecast.tif", types=["theft"], **given)
    assert outputs["events"] == cube.events[FIRST:STOP, 1].sum()


def test_points_say_what_was_hit(run, cube, forecast, tmp_path):
    outputs = run(
        forecast="forecast.tif",
        events="events.fgb",
        budgets=[30, 5],
        points_output=tmp_path / "points.gpkg",
    )
    meta, _, geometry, (hit, time, kind) = pyogrio.raw.read(tmp_path / "points.gpkg")
    assert list(meta["fields"]) == ["hit", "time", "type"]
    assert (hit.sum(), len(hit)) == (outputs["hits"], outputs["events"])
    row, column = cube.grid.locate(*shapely.get_coordinates(shapely.from_wkb(geometry)).T)
    step = cube.axis.locate(time.astype("datetime64[s]")) - FIRST
    flagged = [
        flag_cells(e, cube.grid.inside_area, 30, o) for e, o in zip(forecast.expected, cube.total[FIRST:STOP])
    ]
    assert (hit == np.array(flagged)[step, row, column]).all()
    assert set(kind) == {"assault", "theft"}


def test_probabilities_have_measures_of_their_own(cube, forecast):
    probability = 1 - np.exp(-forecast.expected)
    other = replace(forecast, expected=probability, quantity="probability")
    observed = cube.total[FIRST:STOP]
    found, _, _ = score_map(other, observed, [10])
    valid = cube.grid.valid
    expected = score(observed[:, valid] > 0, probability[:, valid])
    assert set(found.cells) == {"brier", "log_loss", "calibration_error", "auc", "average_precision"}
    assert found.cells["brier"] == pytest.approx(expected.brier, rel=1e-6)
    assert found.cells["log_loss"] == pytest.approx(expected.log_loss, rel=1e-6)
    assert found.values()["rri"] is None
    assert found.values()["hits"] == hit_rate(observed, probability, cube.grid.inside_area, 10).hits
    assert set(CELL_MEASURES) == {*found.cells, "mse", "rmse", "mae", "poisson_deviance"}


@pytest.mark.parametrize("each_step", [True, False])
def test_classifiers_are_judged_by_their_own_rule(cube, forecast, each_step):
    hot = {"rule": "threshold", "value": 2.0, "threshold": 0.4}
    other = replace(forecast, expected=forecast.expected / 9, quantity="hot", hot=hot)
    observed = cube.total[FIRST:STOP]
    found, flagged, _ = score_map(other, observed, [10], each_step)
    truth = (observed >= 2)[:, cube.grid.valid]
    values = other.expected[:, cube.grid.valid]
    if not each_step:
        truth, values = truth.any(axis=0), values.mean(axis=0)
        assert (flagged == flagged[0]).all()
    assert found.cells["brier"] == pytest.approx(score(truth, values).brier, rel=1e-5)
    assert flagged.shape == observed.shape


def test_counts_on_a_grid(cube):
    events = events_of(cube)
    counts, (step, row, column) = count_on_grid(events, cube.grid, cube.axis)
    assert (counts == cube.total).all()
    assert (step >= 0).all() and (row >= 0).all() and (column >= 0).all()
    # Outside the study area, the grid and the period.
    times = np.array(["2024-02-02", "2024-02-02", "2023-01-01"], "datetime64[s]")
    x, y = [WEST + 10, WEST - 10, WEST + 1.5 * CELL], [NORTH - 10, NORTH - 10, NORTH - 3 * CELL]
    counts, places = count_on_grid(EventTable.from_arrays(x, y, times), cube.grid, cube.axis)
    assert counts.sum() == 0
    assert (places == -1).all()


# -- flagged areas -----------------------------------------------------------------------------------


def test_flagged_areas_are_scored(run, cube, tmp_path):
    reporter = Recorder()
    outputs = run(reporter, **POLYGONS, expected_field="expected", points_output=tmp_path / "points.gpkg")
    observed = cube.total[FIRST:STOP].sum(axis=0)
    hits = observed[[2, 3, 4, 5], [1, 5, 2, 0]].sum()
    assert (outputs["hits"], outputs["events"]) == (hits, observed.sum())
    assert outputs["area_share"] == pytest.approx(100 * 4 / 42, rel=1e-6)
    assert outputs["pai"] == pytest.approx((hits / observed.sum()) / (4 / 42), rel=1e-6)
    assert outputs["rri"] == pytest.approx(3.75 / hits)
    # The polygons are cells of the grid: so are those of the best choice.
    assert outputs["best_hits"] == np.sort(observed, axis=None)[-4:].sum()
    assert outputs["pei"] == pytest.approx(hits / outputs["best_hits"])
    rows = table(tmp_path / "measures.gpkg")
    assert [row[:2] for row in rows] == [(name, None) for name in HIT_MEASURES]
    hit = pyogrio.raw.read(tmp_path / "points.gpkg")[3][0]
    assert (hit.sum(), len(hit)) == (hits, observed.sum())
    assert reporter.texts() == []


@pytest.mark.parametrize(
    "order", [{"order_field": "rank"}, {"order_field": "expected", "highest_first": True}]
)
def test_flagged_areas_are_searched_in_order(run, cube, tmp_path, order):
    outputs = run(**POLYGONS, **order, budgets=[3, 5, 90], points_output=tmp_path / "points.gpkg")
    observed = cube.total[FIRST:STOP].sum(axis=0)
    assert outputs["hits"] == observed[3, 5]
    values = {(name, budget): value for name, budget, value in table(tmp_path / "measures.gpkg")}
    assert values["hits", 5] == observed[3, 5] + observed[4, 2]
    assert values["hits", 90] == observed[[2, 3, 4, 5], [1, 5, 2, 0]].sum()
    # The points are those of the first budget.
    assert pyogrio.raw.read(tmp_path / "points.gpkg")[3][0].sum() == observed[3, 5]


def test_a_cube_in_the_place_of_events(run, cube):
    given = {key: value for key, value in POLYGONS.items() if key not in ("events", "study_area")}
    outputs = run(**given, cube="cube.nc")
    area = cube.grid.inside_area
    observed = cube.total[FIRST:STOP].sum(axis=0)
    assert outputs["hits"] == pytest.approx(observed[[2, 3, 4, 5], [1, 5, 2, 0]].sum())
    assert outputs["events"] == observed.sum()
    assert outputs["area_share"] == pytest.approx(
        100 * area[[2, 3, 4, 5], [1, 5, 2, 0]].sum() / area.sum(), rel=1e-6
    )


def test_the_rules_of_the_challenge(run, tmp_path):
    reporter = Recorder()
    given = {key: value for key, value in POLYGONS.items() if key != "study_area"}
    outputs = run(reporter, **given, preset="nij-2017")
    # Cells of 500 m are too large, and four of them are 0.386 square miles.
    assert outputs["violations"] == 1
    (text,) = reporter.texts()
    assert text.startswith("PRESET nij-2017: 4 flagged cells are too large, the largest with 2,69")
    assert outputs["area_share"] == pytest.approx(100 * 4 * 0.25 / 382.57, rel=1e-3)
    again = Recorder()
    shares = run(again, forecast="forecast.tif", cube="cube.nc", budgets=[50], preset="nij-2017")
    assert shares["violations"] == 2
    assert "flagged cells are too large" in again.texts()[0]
    assert "Too much is flagged, 1.811 square miles" in again.texts()[1]


# -- what is said ------------------------------------------------------------------------------------


def test_the_verdict_is_one_sentence(run):
    reporter = Recorder()
    outputs = run(reporter, forecast="forecast.tif", cube="cube.nc", budgets=[20])
    (text,) = reporter.texts("info")
    assert text == (
        f"Of {outputs['events']:.0f} events {outputs['hits']:.0f} ({outputs['hit_rate']:.1f} %) fell into "
        f"the flagged {outputs['area_share']:.2f} % of the area: PAI {outputs['pai']:.2f}, PEI "
        f"{outputs['pei']:.3f} (the best choice would have held {outputs['best_hits']:.0f})."
    )


def test_a_period_without_events_has_no_rates(run, tmp_path):
    reporter = Recorder()
    outputs = run(reporter, **POLYGONS | {"start": "2024-03-10", "end": "2024-03-11"})
    assert (outputs["hits"], outputs["events"]) == (0, 0)
    assert outputs["pai"] is outputs["pei"] is outputs["hit_rate"] is None
    assert [text.split(":")[0] for text in reporter.texts()] == [
        "The last event is of 2024-03-01T17",
        "Not one event came in the period and the study area",
    ]
    values = {name: value for name, _, value in table(tmp_path / "measures.gpkg")}
    assert values["hits"] == 0 and values["pai"] is None


def test_what_has_no_place_or_lies_outside_is_said(run, inputs, tmp_path):
    rows = [("Point", "2024-02-21T12:00:00")] * 9 + [("far", "2024-02-21T12:00:00"), ("Point", "soon")]
    place = {"Point": square(2, 1).centroid, "far": shapely.Point(WEST - 9 * CELL, NORTH)}
    write_points(
        inputs / "odd.gpkg",
        [None] * 3 + [place[where] for where, _ in rows],
        {"time": ["2024-02-21"] * 3 + [when for _, when in rows], "type": ["a"] * (len(rows) + 3)},
    )
    reporter = Recorder()
    outputs = run(reporter, **POLYGONS | {"events": "odd.gpkg"})
    assert (outputs["hits"], outputs["events"]) == (9, 9)
    assert reporter.texts() == [
        "10 of 14 events have a place and a date; left out: 3 null geometry, 1 bad time.",
        "The last event is of 2024-02-21T17:00:00 UTC, before the period ends: what came after it may be "
        "missing.",
    ]
    assert reporter.texts("info")[:2] == [
        "10 events came in the period.",
        "1 of them lie outside the study area and do not count.",
    ]


def test_what_is_lost_of_the_polygons_is_said(run, inputs):
    shapes = [square(2, 1), square(2, 1.5), square(0, 6.5)]
    write_points(inputs / "lost.gpkg", shapes, {"n": np.arange(3)}, kind="Polygon")
    reporter = Recorder()
    run(reporter, **POLYGONS | {"flagged": "lost.gpkg"})
    # Two thirds: half of the second polygon is part of the first, and half of the third lies outside.
    assert (
        "Of 0.750 square kilometres of polygons, 0.500 count: parts that lie outside the study area or in a "
        "polygon before do not."
    ) in reporter.texts("info")


def test_polygons_of_many_sizes_have_no_pei(run, inputs):
    shapes = [square(2, 1), square(4, 3).union(square(4, 4))]
    write_points(inputs / "sizes.gpkg", shapes, {"n": np.arange(2)}, kind="Polygon")
    reporter = Recorder()
    outputs = run(reporter, **POLYGONS | {"flagged": "sizes.gpkg"})
    assert outputs["pei"] is outputs["best_hits"] is None and outputs["pai"] > 0
    assert reporter.texts() == [
        "The flagged polygons are not cells of one size, so that the best choice of as much area is not "
        "known: there is no PEI. Set CELL_SIZE to have it."
    ]
    assert 0 < run(**POLYGONS | {"flagged": "sizes.gpkg"}, cell_size=500)["pei"] <= 1


# -- bad input ---------------------------------------------------------------------------------------

MAP = {"forecast": "forecast.tif", "events": "events.fgb"}
WITHOUT_AREA = {key: value for key, value in POLYGONS.items() if key != "study_area"}
CUBE = {key: value for key, value in WITHOUT_AREA.items() if key != "events"} | {"cube": "cube.nc"}


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            POLYGONS | MAP,
            "FORECAST = {in}/forecast.tif: A forecast or flagged areas are scored. Choose FORECAST",
        ),
        ({"events": "events.fgb"}, "FORECAST: A forecast or flagged areas are scored."),
        (MAP | {"cube": "cube.nc"}, "CUBE = {in}/cube.nc: Events come from a layer or from a cube."),
        ({"forecast": "forecast.tif"}, "CUBE: Events come from a layer or from a cube. Choose INPUT or CUBE"),
        (
            POLYGONS | {"start": None},
            "START = not set: The period that the areas were flagged for is needed.",
        ),
        (POLYGONS | {"end": None}, "END = not set: The period that the areas were flagged for is needed."),
        (
            WITHOUT_AREA,
            "STUDY_AREA = not set: A study area is needed: measures compare the flagged area with it",
        ),
        (MAP | {"preset": "nij"}, "PRESET = nij: Unknown preset. Choose one of none, nij-2017."),
        (POLYGONS | {"cell_size": 0}, "CELL_SIZE = 0: The cell size must be a positive number."),
        (
            POLYGONS | {"end": "2024-02-21"},
            "END = 2024-02-21: The period ends before it begins. Set END after",
        ),
        (POLYGONS | {"start": "soon"}, "START = soon: This is not a date and time."),
        (CUBE | {"end": "2024-02-21"}, "END = 2024-02-21: The period ends before it begins."),
        (
            CUBE | {"end": "2024-02-25T12:00"},
            "END = 2024-02-25T12:00: The time lies within a step of the cube, which begins at "
            "2024-02-25T00:00:00-05:00. Set it to a time at which a step of the cube begins or ends.",
        ),
        (
            CUBE | {"end": "2025-01-01"},
            "END = 2025-01-01: The time lies outside the cube. The cube runs from",
        ),
        (MAP | {"budgets": [5, 0]}, "BUDGETS = 0: A budget must lie above 0 and within the study area of 9."),
        (MAP | {"budgets": [101]}, "BUDGETS = 101: A budget must lie above 0 and within"),
        (
            MAP | {"budgets": [50], "budget_unit": "square-mile"},
            "BUDGETS = 50: A budget must lie above 0 and within the study area of 9.44 square kilometres. "
            "BUDGET_UNIT is square-mile: choose another one, or another budget.",
        ),
        (
            MAP | {"budgets": [50], "budget_unit": "acre"},
            "BUDGET_UNIT = acre: Unknown unit. Choose one of percent, square-kilometre, square-mile, hect",
        ),
        (
            MAP | {"types": ["arson"]},
            "TYPES = arson: No event is of the type 'arson'. Choose TYPE_FIELD, and types that it has: "
            "assault, theft.",
        ),
        (
            MAP | {"fields": {"time": "type"}},
            "TIME_FIELD = 'theft': Not one date of the field can be read.",
        ),
        (
            MAP | {"end": "2024-02-21T12:00"},
            "END = 2024-02-21T12:00: No step of the forecast lies in this period. It runs from 2024-02-21T00",
        ),
        (MAP | {"start": "2024-03-21"}, "START = 2024-03-21: No step of the forecast lies in this period."),
        (MAP | {"forecast": "city.gpkg"}, "FORECAST = {in}/city.gpkg: "),
    ],
)
def test_bad_input_is_named(run, inputs, tmp_path, request_, text):
    with pytest.raises(InputError) as caught:
        run(**request_)
    assert caught.value.text().startswith(text.replace("{in}", str(inputs)))
    assert files_in(tmp_path) == []


def test_a_study_area_without_an_area_is_refused(run, inputs):
    write_points(inputs / "flat.gpkg", [None], {"name": ["x"]}, kind="Polygon")
    with pytest.raises(InputError, match="STUDY_AREA: The study area has no polygon with an area"):
        run(**POLYGONS | {"study_area": "flat.gpkg"})


def test_a_cube_that_does_not_fit_is_refused(run, inputs, cube, forecast):
    later = replace(forecast, axis=make_axis(40).slice(28, 33))
    later.write(inputs / "later.tif")
    with pytest.raises(
        InputError, match="CUBE: The cube does not hold the forecast's period 2024-02-29T00:00"
    ):
        run(forecast="later.tif", cube="cube.nc")
    assert run(forecast="later.tif", cube="cube.nc", end="2024-03-02")["events"] == cube.total[28:30].sum()
    make_cube(30, rows=5).write(inputs / "other.nc")
    with pytest.raises(
        InputError, match="CUBE: The cube has another grid than the forecast. Choose a cube on"
    ):
        run(forecast="forecast.tif", cube="other.nc")


def test_a_table_that_cannot_be_written_leaves_nothing(run, tmp_path):
    with pytest.raises(InputError, match="OUTPUT"):
        run(forecast="forecast.tif", cube="cube.nc", output=tmp_path / "none" / "measures.gpkg")
    assert files_in(tmp_path) == []
