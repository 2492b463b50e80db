# SPDX-License-Identifier: GPL-2.0-or-later
"""Hexagons: regular, as large as a cell, without gaps, and with exact shares."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st
from synthetic import UTM, make_grid

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import RULES, Grid
from gridcast_qgis.core.hexagons import TOPS, tessellate

RING = shapely.Point(630_050, 4_833_050).buffer(45).difference(shapely.Point(630_060, 4_833_050).buffer(12))
AREA = shapely.union_all([RING, shapely.box(630_000, 4_833_001, 630_013, 4_833_009)])
EXTENT = (630_000, 4_833_000, 630_100, 4_833_100)


def grid_of(area=AREA, **options) -> Grid:
    return Grid.from_extent(UTM, EXTENT, study_area=area, **{"cell_size": 10, "cell_height": 7} | options)


@given(
    top=st.sampled_from(TOPS),
    angle=st.one_of(st.just(0.0), st.floats(-180, 180)),
    cell=st.tuples(st.floats(3, 30), st.floats(3, 30)),
)
def test_hexagons_are_a_tessellation_with_the_areas_of_cells(top, angle, cell):
    grid = grid_of(cell_size=cell[0], cell_height=cell[1], rotation=angle)
    found = tessellate(grid, AREA, top=top)
    area = shapely.area(found.polygons)
    assert area == pytest.approx(cell[0] * cell[1], rel=1e-6)
    corners = shapely.get_coordinates(found.polygons).reshape(-1, 7, 2)
    side = np.hypot(*np.moveaxis(np.diff(corners, axis=1), 2, 0))
    assert side == pytest.approx(np.full_like(side, side[0, 0]), rel=1e-6)
    assert shapely.area(shapely.union_all(found.polygons, grid_size=1e-6)) == pytest.approx(
        area.sum(), rel=1e-5
    )
    # Nothing of the study area is missing or counted twice, and each share is what shapely says.
    assert (found.share * area).sum() == pytest.approx(AREA.area, rel=1e-8)
    assert len(set(zip(found.row.tolist(), found.column.tolist()))) == len(found.polygons)
    plain = shapely.area(shapely.intersection(found.polygons, AREA)) / area
    assert np.abs(found.share - plain).max() < 1e-8


def test_shares_are_exact_at_the_origin():
    area = shapely.affinity.translate(AREA, -630_000, -4_833_000)
    grid = Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=9, study_area=area)
    found = tessellate(grid, area)
    plain = shapely.area(shapely.intersection(found.polygons, area)) / shapely.area(found.polygons)
    assert np.abs(found.share - plain).max() < 1e-9


@pytest.mark.parametrize(("top", "highest"), [("flat", 2), ("pointy", 1)])
def test_the_top_is_an_edge_or_a_corner(top, highest):
    polygon = tessellate(grid_of(), AREA, top=top).polygons[0]
    y = shapely.get_coordinates(polygon)[:6, 1]
    assert (y > y.max() - 1e-6).sum() == highest


@pytest.mark.parametrize("top", TOPS)
def test_rows_run_south_and_columns_east(top):
    found = tessellate(grid_of(), AREA, top=top)
    centre = shapely.get_coordinates(shapely.centroid(found.polygons))
    rows = [centre[found.row == row, 1].mean() for row in np.unique(found.row)]
    columns = [centre[found.column == column, 0].mean() for column in np.unique(found.column)]
    assert (np.diff(rows) < 0).all() and (np.diff(columns) > 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_rules_choose_hexagons_as_they_choose_cells(rule):
    all_of_them = tessellate(grid_of(), AREA)
    found = tessellate(grid_of(), AREA, rule=rule, min_share=60)
    expected = {
        "intersects": all_of_them.share > 0,
        "centre": shapely.contains(AREA, shapely.centroid(all_of_them.polygons)),
        "share": all_of_them.share >= 0.6,
    }[rule]
    assert shapely.equals(found.polygons, all_of_them.polygons[expected]).all()


def test_without_polygons_the_cells_are_the_area():
    grid = make_grid()
    found = tessellate(grid)
    area = shapely.area(found.polygons)
    assert (found.share * area).sum() == pytest.approx(grid.valid.sum() * 500**2)
    rows, columns = np.nonzero(~grid.valid)
    outside = shapely.union_all(grid.cell_polygons(rows, columns))
    plain = shapely.area(shapely.difference(found.polygons, outside))
    assert (plain > 0).all()


def test_what_lies_beyond_the_grid_does_not_count():
    wide = shapely.box(629_000, 4_832_000, 631_000, 4_834_000)
    grid = grid_of(wide)
    found = tessellate(grid, wide)
    assert (found.share * shapely.area(found.polygons)).sum() == pytest.approx(np.prod(grid.shape) * 70)


def test_many_vertices_and_hexagons():
    coast = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    radius = 40 + 3 * np.sin(97 * coast) + 0.5 * np.sin(1501 * coast)
    area = shapely.Polygon(np.column_stack([50 + radius * np.cos(coast), 50 + radius * np.sin(coast)]))
    grid = Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=0.5, study_area=area)
    found = tessellate(grid, area)
    assert (found.share * 0.25).sum() == pytest.approx(area.area, rel=1e-9)


def test_an_unknown_top_is_refused():
    with pytest.raises(InputError) as caught:
        tessellate(grid_of(), AREA, top="round")
    assert caught.value.text() == "HEXAGON_TOP = round: Unknown kind of hexagon. Choose one of flat, pointy."


def test_an_area_smaller_than_all_hexagons_is_refused():
    speck = shapely.box(630_004, 4_833_004, 630_006, 4_833_006)
    with pytest.raises(InputError) as caught:
        tessellate(grid_of(speck), speck, rule="share", min_share=90)
    assert caught.value.text() == (
        "CELL_SHAPE = hexagon: No hexagon lies in the study area. Choose smaller cells or the rule "
        "'intersects'."
    )
