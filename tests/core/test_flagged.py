# SPDX-License-Identifier: GPL-2.0-or-later
"""Flagged polygons of any origin: exact by geometry, overlaps once, the best choice of cells."""

from __future__ import annotations

from math import cos, isnan, radians, sin

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CELL, NORTH, UTM, WEST, Recorder, make_grid, write_points

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.evaluation.flagged import (
    EventCells,
    EventPoints,
    FlaggedAreas,
    lattice_of,
    score_areas,
    without_overlaps,
)
from gridcast_qgis.core.evaluation.metrics import flag_cells, flagged_hits
from gridcast_qgis.core.evaluation.nij import SQUARE_FOOT, SQUARE_MILE, broken_rules

CITY = shapely.box(0, 0, 100, 100)


def flagged(*polygons: shapely.Geometry, **values: list[float]) -> FlaggedAreas:
    columns = {name: np.array(column, float) for name, column in values.items()}
    return FlaggedAreas(np.array(polygons, dtype=object), UTM, **columns)


def points(*places: tuple[float, float], area: shapely.Geometry | None = CITY) -> EventPoints:
    x, y = np.array(places, float).reshape(-1, 2).T
    return EventPoints(x, y, 1.0, area, 10_000.0)


def plane(areas: FlaggedAreas) -> FlaggedAreas:
    """Let a metre of the made-up plane be a metre on the ground."""
    areas.__dict__["square_metres"] = 1.0
    return areas


def test_measures_worked_out_by_hand():
    areas = plane(flagged(shapely.box(0, 0, 20, 10), shapely.box(50, 50, 60, 70), expected=[1.5, 4]))
    happened = points((5, 5), (20, 10), (55, 70), (55, 70.1), (99, 99), (100.1, 50))
    found = score_areas(areas, happened, cell_size=10).hits.at(0)
    # Borders belong to the polygons; the last event is not in the city.
    assert (found.hits, found.events) == (3, 5)
    assert (found.flagged_area, found.total_area) == (400, 10_000)
    assert found.pai == pytest.approx((3 / 5) / 0.04)
    assert found.rri == pytest.approx(5.5 / 3)
    # Four squares of 10 could have held all five: two events lie in one of them.
    assert found.best == 5
    assert found.pei == 3 / 5


def test_polygons_are_searched_in_order():
    squares = [shapely.box(x, 0, x + 10, 10) for x in (0, 10, 20, 30)]
    happened = points((5, 5), (15, 5), (16, 5), (25, 5), (90, 90))
    ranked = plane(flagged(*squares, values=[-3, -1, -2, -np.inf]))
    found = score_areas(ranked, happened, [1, 2, 3.5, 100])
    assert found.counts.tolist() == [1, 2, 3, 4]
    assert found.hits.hits.tolist() == [2, 3, 4, 4]
    assert found.hits.area_share.tolist() == [0.01, 0.02, 0.03, 0.04]
    assert found.searched[0].equals(squares[1])
    # Not even one polygon fits: it is searched all the same, and the share says so.
    tiny = score_areas(ranked, happened, [0.1]).hits.at(0)
    assert (tiny.hits, tiny.area_share) == (2, 0.01)


def test_of_equal_values_the_polygon_with_the_fewest_events_comes_first():
    squares = [shapely.box(x, 0, x + 10, 10) for x in (0, 10, 20)]
    happened = points((5, 5), (15, 5), (16, 5))
    found = score_areas(plane(flagged(*squares, values=[7, 7, 7])), happened, [1, 2, 3])
    assert found.hits.hits.tolist() == [0, 1, 3]


def test_shared_area_counts_once_and_for_the_first():
    one, two, three = shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10), shapely.box(0, 0, 15, 10)
    happened = points((7, 5), (12, 5))
    for order, hits, area in (
        ([one, two, three], [1, 2, 2], [100, 150, 150]),
        ([two, three, one], [2, 2, 2], [100, 150, 150]),
        ([three, one, two], [2, 2, 2], [150, 150, 150]),
    ):
        areas = plane(flagged(*order, values=[3, 2, 1]))
        found = score_areas(areas, happened, [1.5, 1.5, 1.5], 5)
        each = [score_areas(areas, happened, [share], 5).hits.at(0) for share in (1, 1.5)]
        assert each[1].hits == hits[-1] and each[1].flagged_area == 150
        assert found.area.cumsum().tolist() == area
        assert np.cumsum(happened.in_polygons(found.searched)[1]).tolist() == hits


def test_neighbours_share_a_border_and_no_area():
    cells = shapely.box(*np.array([(x, y, x + 1, y + 1) for x in range(4) for y in range(4)]).T)
    assert without_overlaps(cells) is cells
    happened = points((2, 2), (1, 0.5))
    found = score_areas(plane(flagged(*cells)), happened)
    # An event on the border of four cells is one event.
    assert found.hits.at(0).hits == 2
    assert found.hits.at(0).flagged_area == 16


def test_what_lies_outside_the_study_area_does_not_count():
    over_the_edge = shapely.box(90, 90, 110, 110)
    touching = shapely.box(100, 0, 120, 20)
    found = score_areas(plane(flagged(over_the_edge, touching)), points((95, 95), (105, 105)), cell_size=10)
    assert found.hits.at(0).flagged_area == 100
    assert (found.hits.at(0).hits, found.hits.at(0).events) == (1, 1)
    everywhere = points((95, 95), (105, 105), area=None)
    assert score_areas(plane(flagged(over_the_edge)), everywhere).hits.at(0).hits == 2
    assert everywhere.uncut(np.array([over_the_edge])).all()
    assert points().uncut(np.array([over_the_edge, shapely.box(1, 1, 2, 2)])).tolist() == [False, True]


def test_an_edge_along_the_border_leaves_no_lines_behind():
    bent = shapely.Polygon([(80, 0), (120, 0), (120, 50), (100, 50), (100, 60), (80, 60), (80, 0)])
    city = shapely.box(0, 0, 100, 100).difference(shapely.box(90, 20, 100, 30))
    clipped = points(area=city).clipped(np.array([bent, shapely.box(100, 0, 110, 5)]))
    assert set(shapely.get_type_id(clipped)) <= {3, 6}
    assert shapely.area(clipped).tolist() == [20 * 60 - 100, 0]


def test_without_events_there_is_no_rate():
    found = score_areas(plane(flagged(shapely.box(0, 0, 10, 10))), points()).hits.at(0)
    assert (found.hits, found.events, found.best) == (0, 0, 0)
    assert isnan(found.pai) and isnan(found.pei)


# -- the lattice of cells ----------------------------------------------------------------------------


def cells_of(lattice: Affine, *places: tuple[int, int]) -> np.ndarray:
    boxes = shapely.box(*np.array([(x, y, x + 1, y + 1) for x, y in places], float).T)
    return shapely.transform(boxes, lambda p: np.column_stack(lattice @ p.T))


def same_lattice(found: Affine | None, lattice: Affine, far: int = 1) -> bool:
    """Tell whether corners of one lattice are corners of the other, up to `far` cells away, and back."""
    assert found is not None
    steps = np.array([(x, y) for x in (-far, 0, far) for y in (-far, 0, far)]).T
    off = [~one @ (other @ steps) for one, other in ((found, lattice), (lattice, found))]
    return bool(np.abs(np.array(off) - np.round(off)).max() < 0.02)


@given(
    st.floats(-180, 180),
    st.floats(50, 800),
    st.floats(0.3, 3),
    st.lists(st.tuples(st.integers(-200, 200), st.integers(-200, 200)), min_size=1, max_size=8, unique=True),
    st.booleans(),
)
def test_the_lattice_of_scattered_cells_is_found(turn, width, ratio, places, rounded):
    c, s = cos(radians(turn)), sin(radians(turn))
    lattice = Affine(c * width, -s * width * ratio, 630_000, s * width, c * width * ratio, 4_840_000)
    cells = cells_of(lattice, *places)
    if rounded:
        cells = shapely.transform(cells, lambda p: np.round(p, 2))
    # The edges of one cell say little of what is far off, all cells together say enough.
    assert same_lattice(lattice_of(cells), lattice @ Affine.translation(*places[0]))
    if not rounded:
        assert same_lattice(lattice_of(cells), lattice, 300)


def test_cells_that_the_border_has_cut_do_not_matter():
    cells = list(cells_of(Affine.scale(10), (0, 0), (5, 3), (2, 9)))
    cut = shapely.box(70, 70, 80, 80).intersection(shapely.box(0, 0, 74, 100))
    assert same_lattice(lattice_of(np.array([*cells, cut])), Affine.scale(10))
    assert same_lattice(plane(flagged(*cells, cut)).cells(None), Affine.scale(10))


@pytest.mark.parametrize(
    "shapes",
    [
        [shapely.box(0, 0, 10, 10), shapely.box(14, 0, 24, 10)],
        [shapely.Point(0, 0).buffer(10), shapely.Point(50, 0).buffer(10)],
        [shapely.Polygon([(0, 0), (4, 0), (5, 3), (0, 3)])],
        [shapely.Polygon([(x, 0), (x + 10, 0), (x + 5, 8)]) for x in (0, 10, 20)],
    ],
)
def test_other_shapes_have_no_lattice(shapes):
    assert lattice_of(np.array(shapes)) is None
    areas = plane(flagged(*shapes))
    size = np.sqrt(shapes[0].area)
    # Shapes of one size: squares as large as they are.
    assert areas.cells(None) == pytest.approx(Affine.scale(size), rel=1e-9)
    assert areas.cells(3.0) == pytest.approx(Affine.scale(3.0))


def test_polygons_of_different_sizes_have_no_best_choice_without_a_cell_size():
    areas = plane(flagged(shapely.box(0, 0, 20, 10), shapely.box(50, 50, 60, 60)))
    assert areas.cells(None) is None
    happened = points((5, 5), (90, 90), (91, 91))
    assert isnan(score_areas(areas, happened).hits.at(0).pei)
    assert score_areas(areas, happened, cell_size=10).hits.at(0).pei == 1 / 3


def test_the_best_choice_is_made_among_the_cells_of_the_lattice():
    lattice = Affine.translation(3, 4) @ Affine.rotation(30) @ Affine.scale(10)
    cells = cells_of(lattice, (0, 0), (3, 1))
    inside = [lattice @ place for place in [(0.5, 0.5), (5.1, 0.1), (5.9, 0.9), (6.1, 0.1), (1.2, 3.3)]]
    happened = points(*inside, area=None)
    found = score_areas(plane(flagged(*cells)), happened).hits.at(0)
    # The two events near each other lie in one cell of this lattice, those at the next border do not.
    assert (found.hits, found.best) == (1, 3)


def test_a_cell_that_the_border_cuts_is_cheap():
    city = shapely.box(0, 0, 45, 100)
    cells = cells_of(Affine.scale(10), (0, 0), (1, 0))
    happened = points((1, 1), (21, 21), (22, 22), (42, 1), (43, 43), area=city)
    found = score_areas(plane(flagged(*cells)), happened).hits.at(0)
    # 200 of area: the cell with two events and two half cells with one each.
    assert found.best == 4


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30),
    st.lists(
        st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(1, 30), st.integers(0, 3)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([None, 7.0, 30.0]),
)
def test_nothing_is_better_than_the_best_and_more_area_never_holds_less(places, squares, cell_size):
    shapes = [shapely.box(x, y, x + size, y + size) for x, y, size, _ in squares]
    areas = plane(flagged(*shapes, values=[value for *_, value in squares]))
    found = score_areas(areas, points(*places), [1, 3, 10, 100], cell_size).hits
    assert (np.diff(found.hits) >= 0).all() and (np.diff(found.flagged_area) >= 0).all()
    assert not (found.pei > 1).any()
    assert (found.hits <= found.events).all()
    assert (found.flagged_area <= shapely.area(shapely.union_all(shapes)) * (1 + 1e-9)).all()
    held = sum(shapely.union_all(shapes).intersects(shapely.Point(place)) for place in places)
    assert found.hits[-1] == held


# -- counts of cells ---------------------------------------------------------------------------------


def test_polygons_that_are_cells_of_a_cube_score_as_the_cells_do():
    grid = make_grid()
    random = np.random.default_rng(3)
    counts = random.poisson(1.0, grid.shape) * grid.valid
    expected = random.random(grid.shape)
    chosen = flag_cells(expected, grid.inside_area, 25)
    rows, columns = np.nonzero(chosen)
    areas = FlaggedAreas(grid.cell_polygons(rows, columns), UTM)
    happened = EventCells(grid, counts.astype(float))
    found = score_areas(areas, happened).hits.at(0)
    cells = flagged_hits(counts, chosen, grid.inside_area)
    for name in ("hits", "events", "best", "flagged_area", "total_area", "pai", "pei"):
        assert getattr(found, name) == pytest.approx(getattr(cells, name), rel=1e-9), name
    whole = grid.inside[rows, columns] == 1
    assert happened.uncut(areas.polygons).tolist() == whole.tolist()


def test_a_part_of_a_cell_has_its_share_of_the_events():
    grid = make_grid(holes=False)
    counts = np.zeros(grid.shape)
    counts[0, 0], counts[5, 5] = 8, 2
    quarter = shapely.box(WEST, NORTH - CELL / 2, WEST + CELL / 2, NORTH)
    off = shapely.box(WEST - CELL, NORTH, WEST, NORTH + CELL)
    found = score_areas(FlaggedAreas(np.array([quarter, off]), UTM), EventCells(grid, counts)).hits.at(0)
    assert found.hits == pytest.approx(2)
    assert found.flagged_area == pytest.approx(grid.cell_area[0, 0] / 4)
    assert found.pai == pytest.approx((2 / 10) / (1 / 4 / 42))


# -- reading -----------------------------------------------------------------------------------------


def layer(path, shapes, **fields):
    return write_points(path, shapes, fields or {"n": np.arange(len(shapes))}, kind="Unknown")


def test_reading_repairs_and_says_so(tmp_path):
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    path = layer(tmp_path / "a.gpkg", [shapely.box(0, 0, 10, 10), bow, None])
    reporter = Recorder()
    found = FlaggedAreas.read(path, UTM, reporter)
    assert shapely.area(found.polygons).tolist() == [100, 50]
    assert found.values is None and found.expected is None
    assert reporter.texts() == [
        "FLAGGED: 1 polygons had rings that cross themselves; repaired.",
        "FLAGGED: 1 features have no area and are left out.",
    ]


def test_reading_ranks_values_and_hot_spots(tmp_path):
    shapes = [shapely.box(x, 0, x + 10, 10) for x in (0, 10, 20, 30)]
    path = layer(
        tmp_path / "a.gpkg",
        shapes,
        rank=np.array([2.0, 1, np.nan, 3]),
        risk=np.array(["0.5", "0.1", "", "0.9"], object),
        hotspot=np.array([1, 0, 1, 1]),
    )
    ranks = FlaggedAreas.read(path, UTM, Recorder(), order="rank")
    assert ranks.values.tolist() == [-2, -1, -np.inf, -3]
    risks = FlaggedAreas.read(path, UTM, Recorder(), order="risk", highest_first=True, expected="rank")
    assert risks.values.tolist() == [0.5, 0.1, -np.inf, 0.9]
    assert risks.expected.tolist() == [2, 1, 0, 3]
    hot = FlaggedAreas.read(path, UTM, Recorder(), order="rank", hotspot="hotspot")
    assert hot.values.tolist() == [-2, -np.inf, -3]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {}, "FLAGGED: No polygon is flagged. Choose a layer of polygons, and check"),
        (
            {"name": np.array(["x"], object)},
            {"order": "name"},
            "ORDER_FIELD = 'x': The field does not hold numbers. Choose a field of numbers.",
        ),
        ({"hot": np.array([0])}, {"hotspot": "hot"}, "FLAGGED: No polygon is flagged."),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, fields, options, message):
    shape = shapely.box(0, 0, 1, 1) if fields else shapely.Point(0, 0)
    path = layer(tmp_path / "a.gpkg", [shape], **fields)
    with pytest.raises(InputError) as caught:
        FlaggedAreas.read(path, UTM, Recorder(), **options)
    assert caught.value.text().startswith(message)


def test_a_file_that_is_no_layer_is_said(tmp_path):
    (tmp_path / "a.gpkg").write_text("no layer")
    with pytest.raises(InputError, match="FLAGGED = .*The layer cannot be read"):
        FlaggedAreas.read(tmp_path / "a.gpkg", UTM, Recorder())


def test_areas_are_those_on_the_ground():
    import pyproj

    # A square of 1000 m by the clock of Web Mercator at 60 degrees north is one of about 500 m.
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    square = shapely.box(x, y, x + 1000, y + 1000)
    areas = FlaggedAreas(np.array([square]), pyproj.CRS(3857))
    assert areas.sizes[0] == pytest.approx(250_000, rel=0.01)
    # In feet of Oregon's State Plane system, as the challenge measured.
    feet = FlaggedAreas(np.array([shapely.box(7_600_000, 635_000, 7_600_250, 635_250)]), pyproj.CRS(2913))
    assert feet.sizes[0] == pytest.approx(62_500 * SQUARE_FOOT, rel=3e-4)
    assert FlaggedAreas(feet.polygons, feet.crs, plane=True).sizes[0] == pytest.approx(62_500 * SQUARE_FOOT)


# -- the rules of the challenge ----------------------------------------------------------------------


def test_an_entry_that_keeps_the_rules():
    cells = np.full(112, 62_500 * SQUARE_FOOT)
    assert cells.sum() / SQUARE_MILE == pytest.approx(0.2511, abs=1e-4)
    assert broken_rules(cells, cells.sum()) == []
    assert broken_rules(np.full(58, 360_000 * SQUARE_FOOT), np.array([0.25, 0.75]) * SQUARE_MILE) == []
    assert broken_rules(np.empty(0), np.float64(0.5 * SQUARE_MILE)) == []


@pytest.mark.parametrize(
    ("feet", "miles", "message"),
    [
        (
            [50_000, 40_000, 70_000],
            0.5,
            "2 flagged cells are too small, the smallest with 40,000 square feet: the challenge allows "
            "62,500 to 360,000, less only where the border cuts a cell.",
        ),
        (
            [70_000, 400_000],
            0.5,
            "1 flagged cells are too large, the largest with 400,000 square feet: the challenge allows "
            "62,500 to 360,000, less only where the border cuts a cell.",
        ),
        ([70_000], 0.2, "Too little is flagged, 0.200 square miles: the challenge asks for 0.25 to 0.75."),
        ([70_000], 0.8, "Too much is flagged, 0.800 square miles: the challenge asks for 0.25 to 0.75."),
    ],
)
def test_rules_that_are_broken(feet, miles, message):
    assert broken_rules(np.array(feet) * SQUARE_FOOT, np.float64(miles * SQUARE_MILE)) == [message]
