# SPDX-License-Identifier: GPL-2.0-or-later
"""Grids: where the cells lie, how much of each is inside, what is refused."""

from __future__ import annotations

from math import cos, hypot, radians, sin

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from synthetic import DEGREES, UTM, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import CELL_UNITS, MAX_CELLS, RULES, Grid, metres_per_unit
from gridcast_qgis.core.rasters import Lattice, write_geotiff

ILLINOIS_FEET = pyproj.CRS("EPSG:3435")  # US survey feet
OREGON_FEET = pyproj.CRS("EPSG:2913")  # international feet
MERCATOR = pyproj.CRS("EPSG:3857")

#: A place where each system is at home, lower left corner.
HOME = {
    "EPSG:32617": (630_000.0, 4_833_000.0),
    "EPSG:3435": (1_170_000.0, 1_890_000.0),
    "EPSG:2913": (7_640_000.0, 680_000.0),
    "EPSG:3857": (-8_840_000.0, 5_410_000.0),
    "EPSG:4326": (-79.5, 43.6),
}


def star(points: int = 11, middle: float = 50.0, outer: float = 48.0, inner: float = 17.0) -> shapely.Polygon:
    angle = np.linspace(0.1, 0.1 + 2 * np.pi, 2 * points, endpoint=False)
    radius = np.where(np.arange(2 * points) % 2, inner, outer)
    return shapely.Polygon(
        np.column_stack([middle + radius * np.cos(angle), middle + radius * np.sin(angle)])
    )


SHAPES = {
    "star": star(),
    "hole": star().difference(shapely.Point(50, 50).buffer(11)),
    "hole inside one cell": shapely.box(3, 3, 97, 97).difference(shapely.Point(45, 45).buffer(2)),
    "parts": shapely.MultiPolygon([shapely.box(1, 1, 13.5, 90), shapely.Point(70, 60).buffer(20)]),
    "smaller than a cell": shapely.Point(44.4, 33.3).buffer(1.5),
    "thread": shapely.LineString([(0, 3), (99, 96)]).buffer(0.01),
    "beyond the extent": shapely.Point(90, 90).buffer(60),
}


def test_edges_lie_on_multiples_of_the_cell_size():
    grid = Grid.from_extent(UTM, (600_010, 4_800_020, 603_990, 4_802_001), cell_size=500)
    assert grid.shape == (5, 8)
    assert grid.transform == Affine(500, 0, 600_000, 0, -500, 4_802_500)
    assert grid.inside.dtype == np.float64
    assert (grid.inside == 1).all()


@pytest.mark.parametrize("size", [500.0, 0.1, 1 / 3, 1234.5])
def test_an_extent_that_fits_gets_no_further_cells(size):
    extent = (1001 * size, 4003 * size, 1012 * size, 4008 * size)
    assert Grid.from_extent(UTM, extent, cell_size=size).shape == (5, 11)


def test_grids_of_one_size_fit_together():
    one = Grid.from_extent(UTM, (600_010, 4_800_020, 603_990, 4_802_001), cell_size=250)
    two = Grid.from_extent(UTM, (601_111, 4_799_999, 609_990, 4_802_222), cell_size=250)
    column, row = ~one.transform @ (two.transform.c, two.transform.f)
    assert column == pytest.approx(round(column), abs=1e-9)
    assert row == pytest.approx(round(row), abs=1e-9)


@pytest.mark.parametrize("crs", [UTM, DEGREES], ids=["projected", "geographic"])
def test_rows_and_columns_divide_the_extent_evenly(crs):
    grid = Grid.from_extent(crs, (-87.940101, 41.644531, -87.524081, 42.023040), rows=55, columns=50)
    assert grid.shape == (55, 50)
    assert grid.transform @ (0, 0) == pytest.approx((-87.940101, 42.023040), abs=1e-12)
    assert grid.transform @ (50, 55) == pytest.approx((-87.524081, 41.644531), abs=1e-12)


def test_rows_and_columns_win_over_a_cell_size():
    assert Grid.from_extent(UTM, (0, 0, 70, 60), cell_size=10, rows=2, columns=3).shape == (2, 3)


@pytest.mark.parametrize("code", ["EPSG:32617", "EPSG:3435", "EPSG:2913"])
@pytest.mark.parametrize("unit", CELL_UNITS)
def test_cells_have_their_size_on_the_ground_whatever_the_units(code, unit):
    crs = pyproj.CRS(code)
    west, south = HOME[code]
    metres = 600.0
    per_unit = {"EPSG:32617": 1.0, "EPSG:3435": 1200 / 3937, "EPSG:2913": 0.3048}[code]
    size = metres / (CELL_UNITS[unit] or per_unit)
    grid = Grid.from_extent(crs, (west, south, west + 20_000, south + 20_000), cell_size=size, cell_unit=unit)
    assert grid.transform.a == pytest.approx(metres / per_unit, rel=1e-12)
    assert grid.cell_dimensions == pytest.approx((metres, metres), rel=1e-3)
    assert grid.cell_area == pytest.approx(metres**2, rel=2e-3)


@pytest.mark.parametrize(
    ("crs", "unit"),
    [(ILLINOIS_FEET, "us-survey-foot"), (OREGON_FEET, "foot")],
    ids=["survey", "international"],
)
def test_feet_are_the_feet_of_the_state_plane(crs, unit):
    grid = Grid.from_extent(crs, (6_000_000, 600_000, 6_012_000, 606_000), cell_size=600, cell_unit=unit)
    assert grid.shape == (10, 20)
    assert grid.transform.a == pytest.approx(600, abs=1e-9)


@pytest.mark.parametrize("unit", ["metre", "yard", "map-unit"])
def test_cells_may_be_rectangles(unit):
    metres = CELL_UNITS[unit] or 0.3048
    grid = Grid.from_extent(
        OREGON_FEET, (7_600_000, 600_000, 7_630_000, 620_000), cell_size=300, cell_height=700, cell_unit=unit
    )
    width, height = 300 * metres / 0.3048, 700 * metres / 0.3048
    assert (grid.transform.a, -grid.transform.e) == pytest.approx((width, height))
    assert grid.transform.c / width == pytest.approx(round(grid.transform.c / width), abs=1e-9)
    assert grid.transform.f / height == pytest.approx(round(grid.transform.f / height), abs=1e-9)
    assert grid.cell_dimensions == pytest.approx((300 * metres, 700 * metres), rel=1e-3)


@pytest.mark.parametrize(
    ("code", "extent"),
    [
        ("EPSG:27700", (529_345.6, 179_812.3, 535_001.2, 183_400.0)),  # British National Grid, London
        ("EPSG:3035", (4_321_012.3, 3_209_876.5, 4_330_555.5, 3_214_999.9)),  # European reference grid
    ],
)
def test_squares_of_a_kilometre_are_those_of_the_national_grid(code, extent):
    grid = Grid.from_extent(pyproj.CRS(code), extent, cell_size=1, cell_unit="kilometre")
    assert grid.transform.a == 1000
    assert (grid.transform.c % 1000, grid.transform.f % 1000) == (0, 0)
    west, north = grid.transform.c, grid.transform.f
    assert west <= extent[0] < west + 1000 and north - 1000 < extent[3] <= north


@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_cells_may_begin_at_the_corner_of_the_extent(rotation):
    extent = (600_010, 4_800_020, 603_990, 4_802_001)
    grid = Grid.from_extent(UTM, extent, cell_size=500, cell_height=400, rotation=rotation, snap="extent")
    frame = Grid.from_extent(UTM, extent, rows=1, columns=1, rotation=rotation)
    assert grid.transform @ (0, 0) == pytest.approx(frame.transform @ (0, 0))
    if not rotation:
        assert grid.transform @ (0, 0) == (600_010, 4_802_001)
        assert grid.shape == (5, 8)
    for corner in [(600_010, 4_800_020), (603_990, 4_800_020), (603_990, 4_802_001)]:
        column, row = ~grid.transform @ corner
        assert -1e-6 <= column <= grid.shape[1] + 1e-6 and -1e-6 <= row <= grid.shape[0] + 1e-6


RASTERS = {
    "north up": Affine(30, 0, 500_015, 0, -20, 4_900_007),
    "south up": Affine(30, 0, 500_015, 0, 20, 4_700_007),
    "turned": Affine.translation(500_015, 4_900_007) @ Affine.rotation(17) @ Affine.scale(30, -20),
    "turned by a quarter": Affine(0, 20, 500_015, 30, 0, 4_900_007),
}


@pytest.mark.parametrize("size", [None, (300.0, 60.0), (10.0, 5.0)], ids=["its own", "multiple", "fraction"])
@pytest.mark.parametrize("name", RASTERS)
def test_edges_lie_on_the_edges_of_a_raster(name, size):
    extent = (600_010, 4_800_020, 603_990, 4_802_001)
    width, height = size or (None, None)
    grid = Grid.from_extent(
        UTM,
        extent,
        cell_size=width,
        cell_height=height,
        snap="raster",
        snap_raster=Lattice(UTM, RASTERS[name]),
    )
    own = hypot(grid.transform.a, grid.transform.d), hypot(grid.transform.b, grid.transform.e)
    assert own == pytest.approx(size or (30, 20))
    assert grid.transform.determinant < 0
    # Corners of the coarser of the two are corners of the finer one.
    corners = [(0, 0), (1, 0), (0, 1), (7, 5)]
    if own[0] >= 30:
        found = np.array([~RASTERS[name] @ (grid.transform @ corner) for corner in corners])
    else:
        found = np.array([~grid.transform @ (RASTERS[name] @ corner) for corner in corners])
    assert np.abs(found - np.round(found)).max() < 1e-5
    for corner in [extent[:2], (extent[0], extent[3]), (extent[2], extent[1]), extent[2:]]:
        column, row = ~grid.transform @ corner
        assert -1e-5 <= column <= grid.shape[1] + 1e-5 and -1e-5 <= row <= grid.shape[0] + 1e-5
    assert grid.is_rotated == ("turned" in name)


def test_a_raster_in_degrees_gives_cells_in_degrees():
    raster = Lattice(DEGREES, Affine(0.01, 0, -180, 0, -0.01, 90))
    grid = Grid.from_extent(DEGREES, (-79.455, 43.601, -79.4, 43.65), snap="raster", snap_raster=raster)
    assert grid.shape == (5, 6)
    assert grid.transform @ (0, 0) == pytest.approx((-79.46, 43.65))


@given(
    angle=st.floats(-180, 180).filter(lambda a: abs(a) > 1e-6),
    size=st.one_of(st.none(), st.floats(3, 40)),
)
def test_a_turned_grid_covers_the_whole_extent_about_its_centre(angle, size):
    rows, columns = (None, None) if size else (4, 6)
    grid = Grid.from_extent(
        UTM, (1000, 5000, 1120, 5070), cell_size=size, rows=rows, columns=columns, rotation=angle
    )
    height, width = grid.shape
    assert grid.transform @ (width / 2, height / 2) == pytest.approx((1060, 5035), abs=1e-6)
    for corner in [(1000, 5000), (1120, 5000), (1120, 5070), (1000, 5070)]:
        column, row = ~grid.transform @ corner
        assert -1e-6 <= column <= width + 1e-6
        assert -1e-6 <= row <= height + 1e-6


def test_rotation_is_clockwise_and_keeps_the_size_of_the_cells():
    grid = Grid.from_extent(UTM, (0, 0, 120, 70), cell_size=10, rotation=30)
    east = np.subtract(grid.transform @ (1, 0), grid.transform @ (0, 0))
    south = np.subtract(grid.transform @ (0, 1), grid.transform @ (0, 0))
    assert grid.is_rotated
    assert east == pytest.approx((10 * cos(radians(30)), -10 * sin(radians(30))))
    assert south == pytest.approx((-10 * sin(radians(30)), -10 * cos(radians(30))))
    assert hypot(*east) == pytest.approx(10)


def test_the_rules_keep_fewer_and_fewer_cells():
    area = star()
    kept = {
        rule: Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=10, study_area=area, rule=rule).valid
        for rule in RULES
    }
    exact = Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=10, study_area=area).inside
    x, y = make_unit_centres(10)
    assert (kept["intersects"] == (exact > 0)).all()
    assert (kept["centre"] == shapely.contains_xy(area, x, y)).all()
    assert (kept["share"] == (exact >= 0.5)).all()
    assert kept["share"].sum() < kept["intersects"].sum()


def make_unit_centres(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(count) * 10 + 5.0, 95.0 - np.arange(count) * 10)
    return x, y


@pytest.mark.parametrize("rule", RULES)
def test_a_kept_cell_keeps_its_exact_share_under_every_rule(rule):
    exact = Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=10, study_area=star()).inside
    grid = Grid.from_extent(UTM, (0, 0, 100, 100), cell_size=10, study_area=star(), rule=rule)
    assert (grid.inside[grid.valid] == exact[grid.valid]).all()
    assert (grid.inside[~grid.valid] == 0).all()


@pytest.mark.parametrize("least", [0, 25, 50, 99.5, 100])
def test_cells_with_exactly_the_least_share_stay(least):
    area = shapely.box(0, 0, 10 + 10 * least / 100, 10)
    grid = Grid.from_extent(UTM, (0, 0, 30, 10), cell_size=10, study_area=area, rule="share", min_share=least)
    assert grid.valid.tolist() == [[True, least > 0, False]]


@pytest.mark.parametrize("rotation", [0.0, 33.0])
@pytest.mark.parametrize("name", SHAPES)
def test_shares_are_exact_areas(name, rotation):
    area = SHAPES[name]
    grid = Grid.from_extent(UTM, (0, 0, 100, 100), rows=9, columns=13, rotation=rotation, study_area=area)
    rows, columns = np.indices(grid.shape)
    cells = grid.cell_polygons(rows.ravel(), columns.ravel())
    expected = (shapely.area(shapely.intersection(cells, area)) / shapely.area(cells)).reshape(grid.shape)
    assert np.abs(grid.inside - expected).max() < 1e-9


def test_areas_add_up_to_the_study_area():
    area = SHAPES["hole"]
    grid = Grid.from_extent(UTM, (0, 0, 100, 100), rows=31, columns=17, study_area=area)
    in_plane = grid.inside * (100 / 31) * (100 / 17)
    assert in_plane.sum() == pytest.approx(area.area, rel=1e-12)


@pytest.mark.parametrize(
    ("wkt", "area"),
    [
        ("POLYGON((0 0, 40 40, 40 0, 0 40, 0 0))", 800),  # bow tie
        ("POLYGON((0 0, 40 0, 40 40, 0 40, 0 0, -5 -5, 0 0))", 1600),  # spike
        ("POLYGON((0 0, 40 0, 40 40, 0 40, 0 0),(10 10, 50 10, 50 20, 10 20, 10 10))", 1300 + 100),
    ],
    ids=["bow tie", "spike", "hole that leaves"],
)
@pytest.mark.parametrize("rule", ["intersects", "centre"])
def test_invalid_rings_are_repaired(wkt, area, rule):
    grid = Grid.from_extent(
        UTM, (-10, -10, 60, 60), cell_size=10, study_area=shapely.from_wkt(wkt), rule=rule
    )
    if rule == "intersects":
        assert grid.inside.sum() * 100 == pytest.approx(area, rel=1e-9)
    else:
        assert 0 < grid.valid.sum() <= area / 100 + 4


@st.composite
def areas(draw) -> shapely.Geometry:
    """Draw up to three stars with holes over 100 x 100, which may overlap or leave the extent."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        x, y = draw(st.floats(0, 100)), draw(st.floats(0, 100))
        outer = draw(st.floats(1, 60))
        shape = star(draw(st.integers(3, 30)), 0, outer, outer * draw(st.floats(0.2, 1)))
        hole = shapely.Point(outer * draw(st.floats(0, 0.5)), 0).buffer(outer * draw(st.floats(0.05, 0.3)))
        parts.append(shapely.affinity.translate(shape.difference(hole), x, y))
    return shapely.union_all(parts)


@given(
    area=areas(),
    cells=st.tuples(st.floats(2, 40), st.floats(2, 40)),
    angle=st.one_of(st.just(0.0), st.floats(-180, 180)),
    place=st.sampled_from([(0.0, 0.0, 1.0), (630_000.0, 4_833_000.0, 50.0)]),
)
def test_shares_are_those_of_a_plain_loop(area, cells, angle, place):
    west, south, scale = place
    width, height = cells[0] * scale, cells[1] * scale
    area = shapely.affinity.affine_transform(area, [scale, 0, 0, scale, west, south])
    middle = shapely.Point(west + 50 * scale, south + 50 * scale)
    area = shapely.union(area, middle.buffer(5 * scale))
    extent = (west, south, west + 100 * scale, south + 100 * scale)
    grid = Grid.from_extent(UTM, extent, cell_size=width, cell_height=height, rotation=angle, study_area=area)
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            cell = grid.cell_polygons(np.array([row]), np.array([column]))[0]
            share = cell.intersection(area).area / cell.area
            assert abs(grid.inside[row, column] - share) < 1e-9


def test_a_pinhole_in_a_wide_area_is_not_lost():
    hole = shapely.box(512.2, 300.3, 512.2 + 1e-3, 300.3 + 1e-3)
    area = shapely.box(-1, -1, 1025, 1025).difference(hole)
    grid = Grid.from_extent(UTM, (0, 0, 1024, 1024), cell_size=1, study_area=area)
    assert (grid.inside < 1).sum() == 1
    assert grid.inside.min() == pytest.approx(1 - 1e-6, abs=1e-10)


@given(
    size=st.floats(0.5, 5000),
    corner=st.tuples(st.integers(100, 9000), st.integers(100, 9000)),
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    angle=st.sampled_from([0.0, 12.3, 45.0, 81.0]),
)
def test_an_area_made_of_whole_cells_has_exactly_these(size, corner, cells, angle):
    left, bottom = corner[0] * size, corner[1] * size
    extent = (left - 2 * size, bottom - 2 * size, left + 8 * size, bottom + 8 * size)
    whole = Grid.from_extent(UTM, extent, cell_size=size, rotation=angle)
    area = whole.to_map(shapely.box(1, 2, 1 + cells[0], 2 + cells[1]))
    grid = Grid.from_extent(UTM, extent, cell_size=size, rotation=angle, study_area=area)
    assert grid.shape == whole.shape
    assert grid.valid.sum() == cells[0] * cells[1]
    assert grid.inside[grid.valid] == pytest.approx(1, abs=1e-8)


def test_cells_are_half_open_but_the_outer_edge_belongs_to_the_grid():
    grid = Grid.from_extent(UTM, (0, 0, 40, 30), cell_size=10)
    points = {
        (0, 30): (0, 0),  # north-western corner
        (40, 0): (2, 3),  # south-eastern corner
        (10, 25): (0, 1),  # inner edges: to the right of it ...
        (5, 20): (1, 0),  # ... and below it
        (20, 10): (2, 2),
        (40, 15): (1, 3),
        (35, 0): (2, 3),
        (40.001, 15): (-1, -1),
        (-0.001, 15): (-1, -1),
        (5, 30.001): (-1, -1),
        (5, -0.001): (-1, -1),
        (np.nan, 5): (-1, -1),
        (np.inf, 5): (-1, -1),
    }
    x, y = np.array(list(points), float).T
    with np.errstate(invalid="ignore"):
        row, column = grid.locate(x, y)
    assert list(zip(row.tolist(), column.tolist())) == list(points.values())


@given(
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    angle=st.sampled_from([0.0, 7.5, 45.0, -63.0]),
    cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_every_point_of_the_extent_lies_in_exactly_one_cell(place, angle, cells):
    west, south, width, height = 630_000.25, 4_833_000.75, 17_321.0, 9_876.5
    grid = Grid.from_extent(
        UTM, (west, south, west + width, south + height), rows=cells[0], columns=cells[1], rotation=angle
    )
    point = (west + place[0] * width, south + place[1] * height)
    row, column = (int(v[0]) for v in grid.locate(np.array([point[0]]), np.array([point[1]])))
    if row < 0:
        # Only rounding at the outermost edge may lose a point, and then by less than a micrometre.
        whole = grid.to_map(shapely.box(0, 0, cells[1], cells[0]))
        assert shapely.distance(whole.exterior, shapely.Point(point)) < 1e-6
        return
    distance = shapely.distance(grid.cell_polygons(*np.indices(grid.shape)), shapely.Point(point))
    assert distance[row, column] < 1e-6
    distance[row, column] = np.inf
    # Others touch it at most.
    if (distance < 1e-6).any():
        cell = grid.cell_polygons(np.array([row]), np.array([column]))[0]
        assert shapely.distance(cell.exterior, shapely.Point(point)) < 2e-6


def test_centres_lie_in_their_own_cells():
    grid = Grid.from_extent(UTM, (0, 0, 120, 70), cell_size=10, rotation=30)
    row, column = grid.locate(*grid.centres())
    assert (row == np.indices(grid.shape)[0]).all()
    assert (column == np.indices(grid.shape)[1]).all()


def test_a_crop_keeps_its_place():
    grid = make_grid()
    part = grid.crop(slice(2, 5), slice(3, 7))
    assert part.shape == (3, 4)
    assert (part.inside == grid.inside[2:5, 3:7]).all()
    assert part.centres()[0][0, 0] == grid.centres()[0][2, 3]
    assert part.centres()[1][0, 0] == grid.centres()[1][2, 3]


SYSTEMS = {
    "utm": "EPSG:32617",
    "degrees": "EPSG:4326",
    "nad83": "EPSG:4269",
    "mercator": "EPSG:3857",
    "survey feet": "EPSG:3435",
    "feet": "EPSG:2913",
    "british": "EPSG:27700",
    "albers": "ESRI:102003",
    "compound": "EPSG:7405",
    "custom": "+proj=laea +lat_0=43.7 +lon_0=-79.4 +x_0=1000 +datum=WGS84 +no_defs",
    "custom feet": "+proj=utm +zone=17 +datum=WGS84 +units=us-ft +no_defs",
    "custom datum": "+proj=tmerc +lat_0=0 +lon_0=-79 +ellps=bessel "
    "+towgs84=598.1,73.7,418.2,0.2,0.1,-2.5,6.7",
}


@pytest.mark.parametrize("rotation", [0.0, 17.5, 90.0, 180.0])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_written_grid_is_read_back_equal(tmp_path, system, rotation):
    crs = pyproj.CRS(SYSTEMS[system])
    extent = (-79.6, 43.5, -79.1, 43.9) if crs.is_geographic else (600_000.3, 500_000.7, 604_321.1, 503_777.9)
    area = shapely.box(*extent).centroid.buffer((extent[2] - extent[0]) / 3)
    grid = Grid.from_extent(crs, extent, rows=5, columns=7, rotation=rotation, study_area=area)
    path = tmp_path / "grïd file.tif"
    grid.write(path)
    again = Grid.read(path)
    assert again.fingerprint == grid.fingerprint
    assert again.transform.almost_equals(grid.transform, precision=1e-12)
    assert (again.inside == grid.inside).all()
    assert again.crs.is_geographic == crs.is_geographic
    assert again.inside_area == pytest.approx(grid.inside_area, rel=1e-9)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_file_is_a_plain_geotiff(tmp_path):
    grid = make_grid()
    grid.write(tmp_path / "grid.tif")
    with rasterio.open(tmp_path / "grid.tif") as raster:
        assert raster.driver == "GTiff"
        assert raster.dtypes == ("float64",)
        assert raster.crs.to_epsg() == 32617
        assert raster.transform == grid.transform
        assert raster.tags()["GRIDCAST_SCHEMA"] == "grid/1"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (raster.read(1) == grid.inside).all()


def test_a_grid_stays_the_same_through_geotiff_netcdf_and_32_bits(tmp_path):
    axis_cube = make_cube(3)
    area = shapely.Point(631_700, 4_838_400).buffer(1300)
    extent = (630_000, 4_837_000, 633_500, 4_840_000)
    grid = Grid.from_extent(UTM, extent, cell_size=500, study_area=area)
    grid.write(tmp_path / "grid.tif")
    counts = np.zeros((3, 2, *grid.shape), np.float32)
    Cube(grid, axis_cube.axis, axis_cube.types, counts).write(tmp_path / "cube.nc")
    for again in (Grid.read(tmp_path / "grid.tif"), Cube.read(tmp_path / "cube.nc").grid):
        assert again.inside.dtype == np.float64
        assert (again.inside == grid.inside).all()
        assert again.fingerprint == grid.fingerprint
    narrow = Grid(grid.crs, grid.transform, grid.inside.astype(np.float32))
    assert narrow.inside.dtype == np.float64
    assert narrow.fingerprint == grid.fingerprint


def test_a_grid_with_shares_in_32_bits_is_read(tmp_path):
    grid = make_grid()
    write_geotiff(
        tmp_path / "old.tif",
        grid.inside[None],
        grid.crs,
        grid.transform,
        tags={"GRIDCAST_SCHEMA": "grid/1"},
        descriptions=["share"],
    )
    with rasterio.open(tmp_path / "old.tif") as raster:
        assert raster.dtypes == ("float32",)
    assert Grid.read(tmp_path / "old.tif").fingerprint == grid.fingerprint


@pytest.mark.parametrize(("code", "stretch"), [("EPSG:32617", 1), ("EPSG:3857", 0.72), ("EPSG:3435", 0.3048)])
def test_metres_on_the_ground(code, stretch):
    assert metres_per_unit(pyproj.CRS(code), *HOME[code]) == pytest.approx((stretch, stretch), rel=0.01)


def test_a_degree_is_shorter_along_the_parallel():
    wide, high = metres_per_unit(DEGREES, -79, 60)
    assert (wide, high) == pytest.approx((55_800, 111_412), rel=1e-3)


def test_the_fingerprint_tells_grids_apart():
    grid = make_grid()
    shifted = Grid(grid.crs, Affine.translation(1, 0) @ grid.transform, grid.inside)
    other_crs = Grid(pyproj.CRS("EPSG:32618"), grid.transform, grid.inside)
    other_mask = Grid(grid.crs, grid.transform, np.where(grid.inside == 0.5, 0.6, grid.inside))
    prints = {g.fingerprint for g in (grid, shifted, other_crs, other_mask, make_grid(7, 6), make_grid(6, 6))}
    assert len(prints) == 6
    assert Grid(grid.crs, grid.transform, grid.inside.copy()).fingerprint == grid.fingerprint


def test_cells_in_web_mercator_have_their_true_area():
    west, south = HOME["EPSG:3857"]
    grid = Grid.from_extent(MERCATOR, (west, south, west + 5000, south + 5000), cell_size=500)
    to_utm = pyproj.Transformer.from_crs(MERCATOR, UTM, always_xy=True)
    row, column = grid.shape[0] // 2, grid.shape[1] // 2
    cell = grid.cell_polygons(np.array([row]), np.array([column]))[0]
    true = shapely.transform(cell, lambda p: np.column_stack(to_utm.transform(*p.T))).area
    assert grid.cell_area[row, column] == pytest.approx(true, rel=1e-3)
    assert grid.cell_area[row, column] < 0.6 * 500**2
    assert grid.cell_dimensions[0] == pytest.approx(true**0.5, rel=5e-3)


def test_cells_in_degrees_are_smaller_further_north():
    grid = Grid.from_extent(DEGREES, (-80, 40, -79, 50), rows=10, columns=4)
    assert (np.diff(grid.cell_area[:, 0]) > 0).all()
    whole = pyproj.Geod(ellps="WGS84").polygon_area_perimeter([-80, -79, -79, -80], [40, 40, 50, 50])[0]
    assert grid.cell_area.sum() == pytest.approx(abs(whole), rel=1e-3)


def test_the_inside_area_is_the_share_of_the_cell_area():
    grid = make_grid()
    assert grid.inside_area == pytest.approx(grid.cell_area * grid.inside)
    assert grid.inside_area[0, 0] == 0


EXTENT = (600_000.0, 4_800_000.0, 610_000.0, 4_805_000.0)
REFUSED = {
    "geographic": (
        {"crs": DEGREES, "extent": (-79.6, 43.5, -79.1, 43.9), "cell_size": 500},
        "CELL_SIZE = 500 metre: A cell size in metres cannot be used in the coordinate system 'WGS 84', "
        "which counts in degrees or is not projected. Set TARGET_CRS to a projected system, here EPSG:32617, "
        "or give ROWS and COLUMNS.",
    ),
    "geographic, coordinates of another system": (
        {"crs": DEGREES, "extent": EXTENT, "cell_size": 1000, "cell_unit": "foot"},
        "CELL_SIZE = 1000 foot: A cell size in feet cannot be used in the coordinate system 'WGS 84', which "
        "counts in degrees or is not projected. Set TARGET_CRS to a projected system, here the local UTM "
        "zone, or give ROWS and COLUMNS.",
    ),
    "geographic, in its own unit": (
        {"crs": DEGREES, "extent": (7, 61, 9, 62), "cell_size": 0.01, "cell_unit": "map-unit"},
        "CELL_SIZE = 0.01 map-unit: A cell size in map units cannot be used in the coordinate system "
        "'WGS 84', which counts in degrees or is not projected. Set TARGET_CRS to a projected system, here "
        "EPSG:32632, or give ROWS and COLUMNS.",
    ),
    "geographic, rectangles": (
        {
            "crs": DEGREES,
            "extent": (0, 85, 9, 86),
            "cell_size": 1,
            "cell_height": 2,
            "cell_unit": "nautical-mile",
        },
        "CELL_SIZE = 1 x 2 nautical-mile: A cell size in nautical miles cannot be used in the coordinate "
        "system 'WGS 84', which counts in degrees or is not projected. Set TARGET_CRS to a projected system, "
        "here EPSG:5041, or give ROWS and COLUMNS.",
    ),
    "zero height": (
        {"cell_size": 500, "cell_height": 0},
        "CELL_HEIGHT = 0: The cell height must be a positive number. Give a height such as 500 (metres).",
    ),
    "height alone": (
        {"cell_height": 500},
        "CELL_SIZE = not set: The size of the cells is missing. Give CELL_SIZE, or ROWS and COLUMNS.",
    ),
    "snap": (
        {"cell_size": 500, "snap": "corner"},
        "SNAP = corner: Unknown way to place the cells. Choose one of multiples, extent, raster.",
    ),
    "no raster": (
        {"cell_size": 500, "snap": "raster"},
        "SNAP_RASTER: There is no raster to snap to. Set SNAP_RASTER, or another SNAP.",
    ),
    "raster and rows": (
        {"rows": 5, "columns": 5, "snap": "raster", "snap_raster": Lattice(UTM, Affine.scale(1, -1))},
        "SNAP = raster: Rows and columns divide the extent evenly and cannot follow the cells of a raster. "
        "Leave ROWS and COLUMNS empty, or set another SNAP.",
    ),
    "raster and rotation": (
        {"rotation": 10, "snap": "raster", "snap_raster": Lattice(UTM, Affine.scale(1, -1))},
        "ROTATION = 10: The cells of a raster have a direction of their own. Set ROTATION to 0, or another "
        "SNAP.",
    ),
    "raster in another system": (
        {"snap": "raster", "snap_raster": Lattice(MERCATOR, Affine.scale(1, -1))},
        "SNAP_RASTER: The raster is in 'WGS 84 / Pseudo-Mercator' and the grid in 'WGS 84 / UTM zone 17N'. "
        "Set TARGET_CRS to the system of the raster, or reproject the raster.",
    ),
    "sheared raster": (
        {"snap": "raster", "snap_raster": Lattice(UTM, Affine(10, 3, 0, 0, -10, 0))},
        "SNAP_RASTER: The cells of the raster are no rectangles: it is sheared. Choose another raster, or "
        "another way to SNAP.",
    ),
    "raster with other cells": (
        {"snap": "raster", "cell_size": 500, "snap_raster": Lattice(UTM, Affine(30, 0, 0, 0, -30, 0))},
        "SNAP_RASTER: The raster's cells are 30 wide in units of the coordinate system, ours would be 500, "
        "which is no whole multiple of that. Leave CELL_SIZE and CELL_HEIGHT empty to take the raster's "
        "cells, or give a multiple.",
    ),
    "raster with too many cells": (
        {"snap": "raster", "snap_raster": Lattice(UTM, Affine(1, 0, 0, 0, -1, 0))},
        "CELL_SIZE = that of SNAP_RASTER: The grid would have 5,000 x 10,000 = 50,000,000 cells, more than "
        "the 4,000,000 allowed; one year of days on it would take 73 GB of memory. Choose larger cells or a "
        "smaller study area.",
    ),
    "too many cells": (
        {"cell_size": 2},
        "CELL_SIZE = 2 metre: The grid would have 2,500 x 5,000 = 12,500,000 cells, more than the 4,000,000 "
        "allowed; one year of days on it would take 18 GB of memory. Choose larger cells or a smaller study "
        "area.",
    ),
    "too many rows": (
        {"rows": 10_000, "columns": 1000},
        "ROWS = 10000 x 1000: The grid would have 10,000 x 1,000 = 10,000,000 cells, more than the 4,000,000 "
        "allowed; one year of days on it would take 15 GB of memory. Choose larger cells or a smaller study "
        "area.",
    ),
    "no size": (
        {},
        "CELL_SIZE = not set: The size of the cells is missing. Give CELL_SIZE, or ROWS and COLUMNS.",
    ),
    "rows alone": (
        {"rows": 5},
        "CELL_SIZE = not set: The size of the cells is missing. Give CELL_SIZE, or ROWS and COLUMNS.",
    ),
    "negative rows": (
        {"rows": -5, "columns": 5},
        "ROWS = -5 x 5: Rows and columns must be whole numbers above 0. Give both, such as 55 and 50.",
    ),
    "zero size": (
        {"cell_size": 0},
        "CELL_SIZE = 0: The cell size must be a positive number. Give a size such as 500 (metres).",
    ),
    "no number": (
        {"cell_size": float("nan")},
        "CELL_SIZE = nan: The cell size must be a positive number. Give a size such as 500 (metres).",
    ),
    "unit": (
        {"cell_size": 5, "cell_unit": "inch"},
        "CELL_UNIT = inch: Unknown unit. Choose one of metre, kilometre, foot, us-survey-foot, mile, yard, "
        "nautical-mile, map-unit.",
    ),
    "rule": (
        {"cell_size": 500, "rule": "touch"},
        "RULE = touch: Unknown rule. Choose one of intersects, centre, share.",
    ),
    "least share": (
        {"cell_size": 500, "min_share": 150},
        "MIN_SHARE = 150: The least share of a cell must lie between 0 and 100 percent. 50 is usual.",
    ),
    "flat extent": (
        {"extent": (5, 5, 5, 9), "cell_size": 1},
        "EXTENT = 5, 5, 5, 9: The extent has no area. Give a study area, an extent, or a layer whose points "
        "do not all lie in one place.",
    ),
    "endless extent": (
        {"extent": (0, 0, float("inf"), 9), "cell_size": 1},
        "EXTENT = (0, 0, inf, 9): The extent is not finite. The layer may be empty or in a coordinate system "
        "that does not fit its coordinates.",
    ),
    "nothing": (
        {"extent": None, "cell_size": 1},
        "There is nothing to lay a grid over. Give EXTENT or STUDY_AREA.",
    ),
    "empty polygon": (
        {"study_area": shapely.Polygon(), "cell_size": 500},
        "STUDY_AREA: The study area has no polygon with an area. Choose a polygon layer with at least one "
        "non-empty polygon (check its selection and filter).",
    ),
    "polygon without area": (
        {"study_area": shapely.Polygon([(0, 0), (5, 5), (9, 9), (0, 0)]), "cell_size": 500},
        "STUDY_AREA: The study area has no polygon with an area. Choose a polygon layer with at least one "
        "non-empty polygon (check its selection and filter).",
    ),
    "polygon elsewhere": (
        {"study_area": shapely.box(0, 0, 10, 10), "cell_size": 500},
        "STUDY_AREA: No cell of the grid lies in the study area. Check that EXTENT and STUDY_AREA overlap, "
        "or choose smaller cells.",
    ),
    "polygon smaller than all cells": (
        {
            "study_area": shapely.box(600_010, 4_800_010, 600_020, 4_800_020),
            "cell_size": 500,
            "rule": "centre",
        },
        "STUDY_AREA: No cell of the grid lies in the study area. Check that EXTENT and STUDY_AREA overlap, "
        "or choose smaller cells.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_grid_is_refused_with_the_fix(case):
    arguments, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        Grid.from_extent(**{"crs": UTM, "extent": EXTENT, **arguments})
    assert caught.value.text() == text


def test_the_greatest_grid_is_allowed():
    assert Grid.from_extent(UTM, EXTENT, rows=2000, columns=MAX_CELLS // 2000).shape == (2000, 2000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        Grid.read(tmp_path / "none.tif")
    assert caught.value.text() == (
        f"GRID = {tmp_path / 'none.tif'}: The file does not exist. "
        "Choose a raster that 'Build Grid from Layer' has made."
    )


def write_raster(path, tags, crs="EPSG:32617"):
    profile = {"driver": "GTiff", "width": 3, "height": 2, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=crs, transform=Affine(5, 0, 0, 0, -5, 0), **profile) as raster:
        raster.update_tags(**tags)
        raster.write(np.ones((1, 2, 3), np.float32))


@pytest.mark.parametrize(
    ("tags", "crs", "text"),
    [
        (
            {"GRIDCAST_SCHEMA": "grid/2"},
            "EPSG:32617",
            "The grid file has version 2, this Gridcast reads version 1. Make it again with 'Build Grid from "
            "Layer', or install the Gridcast that made it.",
        ),
        (
            {"GRIDCAST_SCHEMA": "forecast/1"},
            "EPSG:32617",
            "The file is not a Gridcast grid file. Choose a file that 'Build Grid from Layer' has made.",
        ),
        (
            {},
            "EPSG:32617",
            "The file is not a Gridcast grid file. Choose a file that 'Build Grid from Layer' has made.",
        ),
        (
            {"GRIDCAST_SCHEMA": "grid/1"},
            None,
            "The grid has lost its coordinate system. Choose a raster that 'Build Grid from Layer' has made.",
        ),
    ],
    ids=["version", "forecast", "any raster", "no crs"],
)
def test_another_raster_is_refused(tmp_path, tags, crs, text):
    path = tmp_path / "other.tif"
    write_raster(path, tags, crs)
    with pytest.raises(InputError) as caught:
        Grid.read(path)
    assert caught.value.text() == f"GRID = {path}: {text}"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.9, 0.97])
def test_a_truncated_grid_is_refused(tmp_path, part):
    path = tmp_path / "grid.tif"
    make_grid().write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"^GRID = .*(damaged or not a raster|not a Gridcast grid)"):
        Grid.read(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wrong_bytes_never_surprise(tmp_path):
    path = tmp_path / "grid.tif"
    make_grid().write(path)
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            Grid.read(path)
        except InputError as error:
            assert error.parameter == "GRID"


def test_a_point_that_misses_an_edge_by_rounding_is_on_it():
    """Every fifth edge between the columns of this grid has six decimals, as coordinates have."""
    grid = Grid.from_extent(DEGREES, (-87.940101, 41.644531, -87.524081, 42.023040), rows=55, columns=50)
    edges = np.array([round(-87.940101 + k * 0.041602, 6) for k in range(1, 10)])
    _, column = grid.locate(edges, np.full(9, 41.8))
    assert column.tolist() == [5 * k for k in range(1, 10)]
    _, before = grid.locate(edges - 1e-6, np.full(9, 41.8))
    assert before.tolist() == [5 * k - 1 for k in range(1, 10)]
