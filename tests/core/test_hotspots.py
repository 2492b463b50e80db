# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot spots: which cells, which polygons, and how they did."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import DEGREES, files_in, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.forecast import Forecast
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.hotspots import FlagRule, HotSpots

STEPS, AHEAD = 40, 3


def make_forecast(seed: int = 0, grid: Grid | None = None) -> Forecast:
    grid = grid or make_grid()
    expected = np.random.default_rng(seed).gamma(0.5, 0.3, (AHEAD, *grid.shape)).astype(np.float32)
    expected[:, ~grid.valid] = np.nan
    return Forecast(grid, make_axis(STEPS).slice(STEPS - AHEAD, STEPS), expected, "ConvLSTM")


def groups(flagged: np.ndarray) -> list[set[tuple[int, int]]]:
    """Return the cells that hang together by their edges."""
    left = {(int(r), int(c)) for r, c in np.argwhere(flagged)}
    found = []
    while left:
        heap, group = [left.pop()], set()
        while heap:
            r, c = heap.pop()
            group.add((r, c))
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if near in left:
                    left.remove(near)
                    heap.append(near)
        found.append(group)
    return found


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), share=st.floats(1, 90), angle=st.sampled_from([0.0, 31.0]))
def test_the_polygons_are_the_flagged_cells_and_nothing_else(seed, share, angle):
    grid = make_grid()
    grid = Grid(
        grid.crs,
        Affine.rotation(angle, pivot=(grid.transform.c, grid.transform.f)) @ grid.transform,
        grid.inside,
    )
    forecast = make_forecast(seed, grid)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", share))
    expected = groups(spots.flagged)
    assert len(spots.polygons) == len(expected)
    found = [set() for _ in spots.polygons]
    for row, column, owner in zip(spots.cell_rows, spots.cell_columns, spots.owner):
        found[owner].add((int(row), int(column)))
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    cell = abs(grid.transform.determinant)
    for polygon, cells in zip(spots.polygons, found):
        assert polygon.is_valid
        assert polygon.geom_type == "Polygon"
        assert polygon.area == pytest.approx(len(cells) * cell, rel=1e-9)
    whole = shapely.union_all(grid.cell_polygons(spots.cell_rows, spots.cell_columns))
    assert shapely.union_all(spots.polygons).symmetric_difference(whole).area < 1e-3
    assert sum(polygon.area for polygon in spots.polygons) == pytest.approx(whole.area, rel=1e-9)


@given(seed=st.integers(0, 1000), share=st.floats(1, 90), merge=st.booleans())
def test_ranks_follow_the_expected_events(seed, share, merge):
    forecast = make_forecast(seed)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", share), merge=merge)
    totals = spots.per_polygon(spots.expected)
    assert (np.diff(totals) <= 1e-6).all()
    assert totals.sum() == pytest.approx(spots.expected[spots.flagged].sum(), rel=1e-5)
    assert spots.area.sum() == pytest.approx(forecast.grid.inside_area[spots.flagged].sum())
    if not merge:
        assert len(spots.polygons) == spots.flagged.sum()


def test_the_budget_is_a_share_of_the_study_area():
    forecast = make_forecast()
    area = forecast.grid.inside_area
    for share in (5, 20, 60):
        spots = HotSpots.from_forecast(forecast, FlagRule("area", share))
        assert area[spots.flagged].sum() <= area.sum() * share / 100 * (1 + 1e-6)
        assert not spots.flagged[~forecast.grid.valid].any()
    assert HotSpots.from_forecast(forecast, FlagRule("area", 0.001)).flagged.sum() == 1


def test_steps_are_added_up():
    forecast = make_forecast()
    every = HotSpots.from_forecast(forecast, FlagRule("area", 20))
    assert every.expected == pytest.approx(forecast.expected.sum(axis=0), nan_ok=True)
    one = HotSpots.from_forecast(forecast, FlagRule("area", 20), first_step=2, last_step=2)
    assert one.expected == pytest.approx(forecast.expected[1], nan_ok=True)
    assert one.forecast.intervals == forecast.intervals[1:2]
    two = HotSpots.from_forecast(forecast, FlagRule("area", 20), first_step=2)
    assert two.expected == pytest.approx(forecast.expected[1:].sum(axis=0), nan_ok=True)


def test_cells_that_touch_at_a_corner_stay_apart():
    grid = make_grid(4, 4, holes=False)
    expected = np.full((AHEAD, 4, 4), 0.01, np.float32)
    for cell in ((0, 0), (1, 1), (1, 2), (3, 3)):
        expected[:, cell[0], cell[1]] = 1 + cell[0]
    forecast = Forecast(grid, make_forecast().axis, expected, "x")
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 25))
    assert len(spots.polygons) == 3
    assert spots.per_polygon(np.ones((4, 4))).tolist() == [1, 2, 1] or spots.per_polygon(
        np.ones((4, 4))
    ).tolist() == [2, 1, 1]


def test_a_ring_of_cells_keeps_its_hole():
    grid = make_grid(5, 5, holes=False)
    expected = np.full((AHEAD, 5, 5), 0.01, np.float32)
    expected[:, 1:4, 1:4] = 1
    expected[:, 2, 2] = 0
    spots = HotSpots.from_forecast(Forecast(grid, make_forecast().axis, expected, "x"), FlagRule("area", 32))
    assert len(spots.polygons) == 1
    assert len(spots.polygons[0].interiors) == 1


def cube_that_holds(forecast: Forecast, seed: int = 1) -> Cube:
    return make_cube(STEPS, seed=seed, mean=1.0)


def test_the_score_counts_events_in_flagged_cells():
    forecast = make_forecast(2)
    cube = cube_that_holds(forecast)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 30))
    own, simple = spots.score(cube)
    hits = events = 0.0
    for t in range(STEPS - AHEAD, STEPS):
        for r, c in np.ndindex(*forecast.grid.shape):
            events += cube.total[t, r, c] * forecast.grid.valid[r, c]
            hits += cube.total[t, r, c] * spots.flagged[r, c]
    area = forecast.grid.inside_area
    flagged = area[spots.flagged].sum()
    assert (own.hits, own.events) == (hits, events)
    assert own.pai == pytest.approx((hits / events) / (flagged / area.sum()))
    # The average knows the steps before the forecast, and gets the same budget.
    average = cube.total[: STEPS - AHEAD].mean(axis=0)
    density = np.where(forecast.grid.valid, average / np.where(area > 0, area, 1), -1).ravel()
    taken, used = [], 0.0
    for cell in np.argsort(-density, kind="stable"):
        if used + area.ravel()[cell] > 0.3 * area.sum() * (1 + 1e-9):
            break
        used += area.ravel()[cell]
        taken.append(cell)
    observed = cube.total[STEPS - AHEAD :].sum(axis=0).ravel()
    assert simple.hits == observed[taken].sum()
    assert simple.flagged_area == pytest.approx(used)
    assert simple.events == own.events


def test_the_score_does_not_know_the_period_it_judges():
    forecast = make_forecast(2)
    cube = cube_that_holds(forecast)
    events = cube.events.copy()
    events[STEPS - AHEAD :] = 0
    events[STEPS - AHEAD :, 0, 5, 5] = 50
    other = Cube(cube.grid, cube.axis, cube.types, events)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 30))
    assert spots.score(cube)[1].flagged_area == spots.score(other)[1].flagged_area


def test_a_cube_that_goes_on_after_the_forecast_is_fine():
    forecast = make_forecast(2)
    longer = make_cube(STEPS + 10, mean=1.0)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 30))
    assert spots.observed(longer) == pytest.approx(longer.total[STEPS - AHEAD : STEPS].sum(axis=0))


def write(tmp_path, cube=None, share=30, **options):
    forecast = make_forecast(2)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", share), **options)
    path = tmp_path / "höt spots.gpkg"
    spots.write(path, cube)
    assert files_in(tmp_path) == [path.name]
    meta, _, geometry, columns = pyogrio.raw.read(path, layer="hot_spots", datetime_as_string=True)
    return spots, meta, shapely.from_wkb(geometry), dict(zip(meta["fields"], columns))


FIELDS = ["rank", "expected", "share_pct", "area_km2", "density", "cells", "start", "end", "observed"]


def test_the_layer_has_ranked_multipolygons(tmp_path):
    cube = cube_that_holds(make_forecast(2))
    spots, meta, polygons, fields = write(tmp_path, cube)
    assert list(meta["fields"]) == FIELDS
    assert meta["crs"] == "EPSG:32617"
    assert meta["geometry_type"] == "MultiPolygon"
    assert [name for name, _ in pyogrio.list_layers(tmp_path / "höt spots.gpkg")] == ["hot_spots"]
    count = len(spots.polygons)
    assert fields["rank"].tolist() == list(range(1, count + 1))
    assert shapely.equals(polygons, spots.polygons).all()
    assert fields["expected"] == pytest.approx(spots.per_polygon(spots.expected))
    assert fields["share_pct"] == pytest.approx(100 * fields["expected"] / np.nansum(spots.expected))
    assert fields["area_km2"] == pytest.approx(spots.area / 1e6)
    assert fields["density"] == pytest.approx(fields["expected"] / fields["area_km2"])
    assert fields["cells"].sum() == spots.flagged.sum()
    assert fields["observed"] == pytest.approx(spots.per_polygon(spots.observed(cube)))
    start, end = make_axis(STEPS).edges[[STEPS - AHEAD, STEPS]]
    for name, moment in (("start", start), ("end", end)):
        assert set(fields[name]) == {f"{moment}Z"}


def test_without_a_cube_nothing_was_observed(tmp_path):
    *_, fields = write(tmp_path)
    assert np.isnan(fields["observed"]).all()


def test_a_forecast_of_nothing_has_no_shares(tmp_path):
    forecast = make_forecast()
    nothing = Forecast(forecast.grid, forecast.axis, forecast.expected * 0, "x")
    spots = HotSpots.from_forecast(nothing, FlagRule("area", 10))
    spots.write(tmp_path / "spots.gpkg", None)
    _, _, _, columns = pyogrio.raw.read(tmp_path / "spots.gpkg", columns=["expected", "share_pct"])
    assert (columns[0] == 0).all()
    assert (columns[1] == 0).all()


REFUSED = {
    "step 0": (
        {"first_step": 0},
        "FIRST_STEP = 0: The forecast has the steps 1 to 3. Choose FIRST_STEP and LAST_STEP among them, the "
        "first not after the last.",
    ),
    "step 4": (
        {"first_step": 4},
        "FIRST_STEP = 4: The forecast has the steps 1 to 3. Choose FIRST_STEP and LAST_STEP among them, the "
        "first not after the last.",
    ),
    "last 4": (
        {"last_step": 4},
        "LAST_STEP = 4: The forecast has the steps 1 to 3. Choose FIRST_STEP and LAST_STEP among them, the "
        "first not after the last.",
    ),
    "backwards": (
        {"first_step": 3, "last_step": 2},
        "LAST_STEP = 2: The forecast has the steps 1 to 3. Choose FIRST_STEP and LAST_STEP among them, the "
        "first not after the last.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_choices_that_make_no_sense_are_refused(case):
    arguments, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        HotSpots.from_forecast(make_forecast(), FlagRule("area", 5), **arguments)
    assert caught.value.text() == text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("area", 0, "AREA_SHARE = 0: The share of the area must lie between 0 and 100 percent. 5 is usual."),
        (
            "area",
            100,
            "AREA_SHARE = 100: The share of the area must lie between 0 and 100 percent. 5 is usual.",
        ),
        ("probability", 0, "THRESHOLD = 0: The probability must lie between 0 and 1. 0.5 is usual."),
        ("probability", 1, "THRESHOLD = 1: The probability must lie between 0 and 1. 0.5 is usual."),
        ("cells", 0, "TOP_CELLS = 0: At least one cell must be flagged. 20 is usual."),
        ("best", 1, "RULE = best: There is no such rule. Choose one of area, probability, cells."),
    ],
)
def test_rules_that_make_no_sense_are_refused(kind, value, text):
    with pytest.raises(InputError) as caught:
        FlagRule(kind, value)
    assert caught.value.text() == text


def test_a_number_of_cells_and_a_probability_as_the_rule():
    forecast = make_forecast()
    total = forecast.expected.sum(axis=0)
    valid = forecast.grid.valid
    ten = HotSpots.from_forecast(forecast, FlagRule("cells", 10))
    assert ten.flagged.sum() == 10
    assert total[ten.flagged].min() >= total[valid & ~ten.flagged].max()
    assert HotSpots.from_forecast(forecast, FlagRule("cells", 1000)).flagged.sum() == valid.sum()
    likely = HotSpots.from_forecast(forecast, FlagRule("probability", 0.4))
    assert (likely.flagged == (valid & (1 - np.exp(-np.nan_to_num(total)) >= 0.4))).all()
    nobody = HotSpots.from_forecast(forecast, FlagRule("probability", 0.999999))
    assert len(nobody.polygons) == 0


@pytest.mark.parametrize("events", [1, 2, 4])
def test_the_probability_of_a_hot_cell_is_that_of_a_poisson_count(events):
    forecast = make_forecast()
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 5), hot_events=events)
    mean = forecast.expected.sum(axis=0)[forecast.grid.valid].astype(float)
    below = sum(np.exp(-mean) * mean**i / math.factorial(i) for i in range(events))
    assert spots.probability[forecast.grid.valid] == pytest.approx(1 - below, abs=1e-6)
    assert np.isnan(spots.probability[~forecast.grid.valid]).all()


def test_probabilities_of_several_steps_are_put_together():
    forecast = replace(make_forecast(), quantity="probability")
    forecast = replace(forecast, expected=np.minimum(forecast.expected, np.float32(0.9)))
    none = np.prod(1 - forecast.expected.astype(float), axis=0)
    assert forecast.over_all_steps() == pytest.approx(1 - none, abs=1e-6, nan_ok=True)
    hot = replace(forecast, quantity="hot")
    assert hot.over_all_steps() == pytest.approx(forecast.expected.mean(axis=0), nan_ok=True)
    # A probability of an event stands for a Poisson mean, which may also reach two events.
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 5), hot_events=2)
    assert spots.probability == pytest.approx(1 - none * (1 - np.log(none)), abs=1e-5, nan_ok=True)


def test_the_truth_of_a_forecast_is_as_many_cells_as_were_flagged():
    forecast, cube = make_forecast(), make_cube(STEPS)
    observed = cube.total[STEPS - AHEAD :].sum(axis=0)
    spots = HotSpots.from_forecast(forecast, FlagRule("cells", 5))
    truth = spots.truth(cube)
    assert truth.sum() == 5
    assert observed[truth].min() >= observed[cube.grid.valid & ~truth].max()
    likely = HotSpots.from_forecast(forecast, FlagRule("probability", 0.5), hot_events=2)
    assert (likely.truth(cube) == (cube.grid.valid & (observed >= 2))).all()


def test_the_truth_of_a_classifier_is_the_rule_that_it_learned():
    cube = make_cube(STEPS)
    own = {"rule": "threshold", "value": 2.0, "threshold": 0.3}
    forecast = replace(make_forecast(), quantity="hot", hot=own)
    spots = HotSpots.from_forecast(forecast, FlagRule("area", 5))
    assert (spots.truth(cube) == (cube.total[STEPS - AHEAD :] >= 2).any(axis=0)).all()


def test_classes_compare_the_forecast_with_what_happened(tmp_path):
    forecast, cube = make_forecast(), make_cube(STEPS)
    spots = HotSpots.from_forecast(forecast, FlagRule("cells", 12))
    truth = spots.truth(cube)
    spots.write_classes(tmp_path / "classes.tif", truth)
    with rasterio.open(tmp_path / "classes.tif") as raster:
        bands, names = raster.read(masked=True), raster.descriptions
        assert raster.tags()["GRIDCAST_SCHEMA"] == "classes/1"
    valid = cube.grid.valid
    assert (bands.mask == ~valid).all()
    assert (bands[0][valid] == spots.flagged[valid]).all()
    assert (bands[1][valid] == truth[valid]).all()
    meaning = {(False, False): 0, (True, True): 1, (True, False): 2, (False, True): 3}
    expected = [meaning[bool(f), bool(t)] for f, t in zip(spots.flagged[valid], truth[valid])]
    assert (bands[2][valid] == expected).all()
    assert {1, 2, 3} <= set(expected)
    assert [name.split(" ", 1)[1][:8] for name in names] == ["forecast", "what hap", "0 rightl"]
    spots.write_classes(tmp_path / "alone.tif", None)
    with rasterio.open(tmp_path / "alone.tif") as raster:
        assert raster.count == 1
    spots.write_probability(tmp_path / "hot.tif")
    with rasterio.open(tmp_path / "hot.tif") as raster:
        assert raster.read(1, masked=True).filled(np.nan) == pytest.approx(spots.probability, nan_ok=True)


PERIOD = (
    "CUBE: The cube does not hold the forecast's period 2024-03-09T00:00:00-05:00 to "
    "2024-03-12T00:00:00-04:00 with some steps before it. Leave CUBE empty, or rasterize the events that "
    "have happened since."
)
OTHER_GRID = (
    "CUBE: The cube has another grid than the forecast. Choose a cube on the grid that the forecast was made "
    "on."
)
CUBES = {
    "ends before": (lambda: make_cube(STEPS - 1), PERIOD),
    "begins with it": (lambda: make_cube(STEPS + 9).steps(STEPS - AHEAD, STEPS + 9), PERIOD),
    "other steps": (lambda: make_cube(200, step="12h"), PERIOD),
    "other zone": (lambda: make_cube(60, time_zone="UTC"), PERIOD),
    "other shape": (lambda: make_cube(STEPS, 5, 7), OTHER_GRID),
    "other study area": (lambda: make_cube(STEPS, holes=False), OTHER_GRID),
    "other place": (
        lambda: Cube(
            Grid.from_extent(DEGREES, (0, 0, 7, 6), rows=6, columns=7),
            make_axis(STEPS),
            ("x",),
            np.zeros((STEPS, 1, 6, 7), np.float32),
        ),
        OTHER_GRID,
    ),
}


@pytest.mark.parametrize("case", CUBES)
def test_a_cube_that_cannot_judge_is_refused(case):
    make, text = CUBES[case]
    with pytest.raises(InputError) as caught:
        HotSpots.from_forecast(make_forecast(), FlagRule("area", 30)).score(make())
    assert caught.value.text() == text
