# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that lays a grid: where the study area comes from, what is reported, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from synthetic import CELL, DEGREES, NORTH, UTM, WEST, Recorder, files_in, write_points

from gridcast_qgis.core import jobs
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.hexagons import tessellate

MERCATOR = pyproj.CRS("EPSG:3857")
SQUARE = shapely.box(WEST, NORTH - 4 * CELL, WEST + 5 * CELL, NORTH)
BOW_TIE = shapely.Polygon(
    [(WEST, NORTH), (WEST + 2000, NORTH - 2000), (WEST + 2000, NORTH), (WEST, NORTH - 2000)]
)


def build(out: Path, reporter: Recorder | None = None, **request) -> tuple[dict, Grid]:
    request = {"crs": UTM.to_wkt(), "output": out / "grid.tif", "cell_size": CELL} | request
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in request.items()}
    outputs = jobs.run_job("build_grid", json.loads(json.dumps(plain)), reporter or Recorder())
    return outputs, Grid.read(out / "grid.tif")


def polygons(out: Path, *shapes: shapely.Geometry | None) -> Path:
    return write_points(out / "area.gpkg", list(shapes), {"id": np.arange(len(shapes))}, kind="Unknown")


def events(out: Path, places: np.ndarray, crs: str = "EPSG:32617") -> Path:
    return write_points(out / "events.fgb", shapely.points(places), {"id": np.arange(len(places))}, crs)


def city(count: int = 500) -> np.ndarray:
    """Return places in a ring, so that hull, extent and neighbourhood differ."""
    random = np.random.default_rng(1)
    angle, radius = random.uniform(0, 2 * np.pi, count), random.uniform(3000, 5000, count)
    return np.column_stack([WEST + radius * np.cos(angle), NORTH + radius * np.sin(angle)])


# -- polygons ------------------------------------------------------------------------------------


def test_repaired_polygons_are_counted_and_told(tmp_path):
    reporter = Recorder()
    spike = shapely.LineString([(WEST, NORTH), (WEST + 9, NORTH), (WEST + 99, NORTH)]).coords
    area = polygons(
        tmp_path, BOW_TIE, None, shapely.box(WEST, NORTH, WEST + 500, NORTH + 500), shapely.Polygon(spike)
    )
    outputs, grid = build(tmp_path, reporter, study_area=area)
    assert outputs["repaired"] == 1
    assert reporter.texts() == [
        "1 of 3 polygons of the study area had invalid rings and were repaired. Look at the grid: what is "
        "inside may be outside where rings cross.",
        "1 of 3 polygons of the study area have no area and do not count.",
    ]
    assert outputs["area_km2"] == pytest.approx(2 + 0.25, rel=1e-2)
    assert grid.inside.sum() * CELL**2 == pytest.approx(2.25e6, rel=1e-9)


def test_valid_polygons_are_not_repaired(tmp_path):
    reporter = Recorder()
    hole = SQUARE.difference(shapely.Point(WEST + 700, NORTH - 700).buffer(300))
    parts = shapely.MultiPolygon([hole, shapely.box(WEST + 4000, NORTH - 400, WEST + 4400, NORTH)])
    outputs, grid = build(tmp_path, reporter, study_area=polygons(tmp_path, parts))
    assert outputs["repaired"] == 0 and reporter.texts() == []
    assert grid.inside.sum() * CELL**2 == pytest.approx(parts.area, rel=1e-9)


def test_polygons_are_wanted_and_there_are_none(tmp_path):
    with pytest.raises(InputError) as caught:
        build(tmp_path, area_from="polygons", extent=[0, 0, 5000, 5000])
    assert caught.value.text() == (
        "AREA_FROM = polygons: The study area is to come from polygons, and there are none. Choose a layer "
        "of polygons as STUDY_AREA, or another AREA_FROM."
    )
    assert files_in(tmp_path) == []


# -- events --------------------------------------------------------------------------------------


def test_cells_near_events_take_part(tmp_path):
    places = city()
    outputs, grid = build(tmp_path, events=events(tmp_path, places), area_from="near-events", distance=300)
    cells = grid.cell_polygons(*(i.ravel() for i in np.indices(grid.shape)))
    apart = shapely.distance(cells, shapely.multipoints(places)).reshape(grid.shape)
    # Metres on the ground: at this place of the zone those of the map are 0.02 % longer.
    assert grid.valid[apart < 299].all() and not grid.valid[apart > 301].any()
    assert set(np.unique(grid.inside)) == {0.0, 1.0}
    row, column = grid.locate(*places.T)
    assert (row >= 0).all() and grid.valid[row, column].all()
    assert outputs["repaired"] == 0


@pytest.mark.parametrize(
    ("code", "options"),
    [("EPSG:3857", {"cell_size": 700}), ("EPSG:4326", {"cell_size": None, "rows": 40, "columns": 30})],
)
def test_the_distance_is_measured_on_the_ground(tmp_path, code, options):
    place = np.array([[-79.4, 43.7]])
    to_map = pyproj.Transformer.from_crs(DEGREES, code, always_xy=True)
    x, y = to_map.transform(*place[0])
    _, grid = build(
        tmp_path,
        crs=pyproj.CRS(code).to_wkt(),
        events=events(tmp_path, np.array([[x, y]]), code),
        area_from="near-events",
        distance=3000,
        **options,
    )
    rows, columns = np.nonzero(grid.valid)
    area = grid.inside_area.sum()
    side = max(grid.cell_dimensions)
    assert np.pi * 3000**2 < area < np.pi * (3000 + 1.5 * side) ** 2
    longitude, latitude = to_map.transform(*(c[rows, columns] for c in grid.centres()), direction="INVERSE")
    away = pyproj.Geod(ellps="WGS84").inv(longitude, latitude, [-79.4] * len(rows), [43.7] * len(rows))[2]
    assert max(away) < 3000 + side


def test_one_event_is_enough_for_its_neighbourhood(tmp_path):
    _, grid = build(
        tmp_path, events=events(tmp_path, city(1)), area_from="near-events", distance=100, cell_size=50
    )
    assert grid.valid.sum() > 9


def test_the_hull_has_exact_shares(tmp_path):
    places = city()
    outputs, grid = build(tmp_path, events=events(tmp_path, places), area_from="hull", hull_ratio=1.0)
    hull = shapely.convex_hull(shapely.multipoints(places))
    cells = grid.cell_polygons(*(i.ravel() for i in np.indices(grid.shape)))
    share = shapely.area(shapely.intersection(cells, hull)).reshape(grid.shape) / CELL**2
    assert np.abs(grid.inside - share).max() < 1e-9
    tight, _ = build(tmp_path, events=tmp_path / "events.fgb", area_from="hull", hull_ratio=0.0)
    assert tight["area_km2"] < outputs["area_km2"]
    some, _ = build(tmp_path, events=tmp_path / "events.fgb", area_from="hull", hull_ratio=1.0, rule="centre")
    assert some["cells_inside"] < outputs["cells_inside"]


def test_the_extent_may_be_that_of_events(tmp_path):
    places = city()
    _, grid = build(tmp_path, events=events(tmp_path, places))
    assert (grid.inside == 1).all()
    west, south = places.min(axis=0)
    assert 0 <= west - grid.transform.c < CELL
    assert 0 <= south - (grid.transform @ (0, grid.shape[0]))[1] < CELL


@pytest.mark.parametrize("area_from", ["auto", "extent", "hull", "near-events"])
def test_far_off_events_are_told_and_make_no_giant_grid(tmp_path, area_from):
    good, _ = build(tmp_path, events=events(tmp_path, city()), area_from=area_from)
    reporter = Recorder()
    off = np.array([[0.0, 0.0]] * 3 + [[WEST + 200_000, NORTH]])
    file = events(tmp_path, np.concatenate([city(), off]))
    outputs, _ = build(tmp_path, reporter, events=file, area_from=area_from)
    assert outputs == good
    (warning,) = reporter.texts()
    assert warning == (
        "4 of 504 events lie far off all others, up to 4,876 km. They do not count for the study area and "
        "its extent: probably their coordinates are wrong. If they are right, set EXTENT or STUDY_AREA."
    )


def test_far_off_events_in_degrees(tmp_path):
    reporter = Recorder()
    places = (city() - [WEST, NORTH]) / 1e5 + [-79.4, 43.7]
    file = events(tmp_path, np.concatenate([places, [[0.0, 0.0]]]), "EPSG:4326")
    outputs, _ = build(
        tmp_path, reporter, crs=DEGREES.to_wkt(), events=file, cell_size=None, rows=20, columns=20
    )
    assert outputs["cell_width"] < 1000
    (warning,) = reporter.texts()
    assert warning.startswith("1 of 501 events lie far off all others, up to 10,0")


def test_an_area_from_many_events(tmp_path):
    places = np.random.default_rng(0).uniform(0, 30_000, (300_000, 2)) + [WEST, NORTH]
    file = events(tmp_path, places)
    for area_from in ("near-events", "hull"):
        outputs, _ = build(tmp_path, events=file, area_from=area_from)
        assert outputs["cells_inside"] > 3400


EVENTS_REFUSED = {
    "no events": (
        lambda out: {"area_from": "hull", "extent": [0, 0, 5000, 5000]},
        "AREA_FROM = hull: The study area is to come from events, and there are none. Choose a layer of "
        "points as INPUT, or another AREA_FROM.",
    ),
    "no places": (
        lambda out: {"events": write_points(out / "events.gpkg", [None, None], {"id": np.arange(2)})},
        "INPUT: The layer has no features with a place. Check its filter, its selection and 'Selected "
        "features only'.",
    ),
    "elsewhere": (
        lambda out: {
            "events": events(out, city()),
            "area_from": "near-events",
            "extent": [0, 0, 5000, 5000],
        },
        "DISTANCE = 500: No cell of the grid lies near an event. Check that EXTENT holds events, or give a "
        "greater DISTANCE.",
    ),
    "one line": (
        lambda out: {
            "events": events(out, np.array([[WEST, NORTH], [WEST + 1, NORTH]])),
            "area_from": "hull",
        },
        "INPUT: The events span no area: they lie in one place or on one line. Choose a layer with more "
        "events, or another AREA_FROM.",
    ),
    "one place": (
        lambda out: {"events": events(out, np.array([[5.0, 5.0]]))},
        "EXTENT = 5.0, 5.0, 5.0, 5.0: The extent has no area. Give a study area, an extent, or a layer whose "
        "points do not all lie in one place.",
    ),
    "no source": (
        lambda out: {"area_from": "anywhere", "extent": [0, 0, 5000, 5000]},
        "AREA_FROM = anywhere: Unknown source of the study area. Choose one of auto, polygons, near-events, "
        "hull, extent.",
    ),
    "no shape": (
        lambda out: {"cell_shape": "round", "extent": [0, 0, 5000, 5000], "cells_output": out / "c.gpkg"},
        "CELL_SHAPE = round: Unknown shape of cells. Choose one of square, hexagon.",
    ),
}


@pytest.mark.parametrize("case", EVENTS_REFUSED)
def test_what_gives_no_study_area_is_refused(tmp_path, case):
    make, text = EVENTS_REFUSED[case]
    request = make(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(InputError) as caught:
        build(tmp_path, **request)
    assert caught.value.text() == text
    assert files_in(tmp_path) == before


def test_a_layer_that_is_none_is_refused(tmp_path):
    (tmp_path / "events.fgb").write_bytes(b"no layer")
    with pytest.raises(
        InputError, match=r"^INPUT = .*events\.fgb: The layer cannot be read: .* Choose a layer"
    ):
        build(tmp_path, events=tmp_path / "events.fgb")
    with pytest.raises(InputError, match=r"^STUDY_AREA = .*: The layer cannot be read: .* Choose a polygon"):
        build(tmp_path, study_area=tmp_path / "events.fgb")


# -- snapping ------------------------------------------------------------------------------------


CELLS_OF_RASTER = Affine(30, 0, WEST + 7, 0, -20, NORTH + 3)


def raster(path: Path, transform: Affine = CELLS_OF_RASTER, **profile) -> Path:
    profile = {"driver": "GTiff", "width": 3, "height": 2, "count": 1, "dtype": "uint8", "crs": UTM} | profile
    with rasterio.open(path, "w", transform=transform, **profile) as file:
        file.write(np.ones((1, 2, 3), np.uint8))
    return path


@pytest.mark.parametrize(("name", "driver"), [("a.tif", "GTiff"), ("a.img", "HFA"), ("a.png", "PNG")])
def test_any_raster_gives_the_edges(tmp_path, name, driver):
    folder = tmp_path / "Höhen & more"
    folder.mkdir()
    file = raster(folder / name, driver=driver)
    request = {"snap": "raster", "snap_raster": file, "extent": [WEST, NORTH - 900, WEST + 900, NORTH]}
    outputs, grid = build(tmp_path, cell_size=None, **request)
    assert (grid.transform.a, grid.transform.e) == (30, -20)
    column, row = ~CELLS_OF_RASTER @ grid.transform @ (0, 0)
    assert (column, row) == pytest.approx((round(column), round(row)), abs=1e-9)
    assert (outputs["rows"], outputs["columns"]) == (46, 31)
    _, coarse = build(tmp_path, cell_size=300, cell_height=100, **request)
    assert (coarse.transform.a, coarse.transform.e) == (300, -100)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: path, "The file is damaged or not a raster ("),
        (lambda path: path.write_bytes(b"x") and path, "The file is damaged or not a raster ("),
        (
            lambda path: raster(path, crs=None),
            "The raster has no coordinate system. Choose a raster whose cells",
        ),
        (lambda path: raster(path, Affine.identity()), "The raster has no place on the map. Choose a raster"),
    ],
    ids=["missing", "no raster", "no system", "no place"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_without_a_place_is_refused(tmp_path, make, text):
    path = make(tmp_path / "a.tif")
    with pytest.raises(InputError) as caught:
        build(tmp_path, snap="raster", snap_raster=path, extent=[0, 0, 5000, 5000])
    assert caught.value.text().startswith(f"SNAP_RASTER = {path}: {text}")
    assert "grid.tif" not in files_in(tmp_path)


# -- cells ---------------------------------------------------------------------------------------


def test_hexagons_as_cells(tmp_path):
    area = SQUARE.difference(shapely.Point(WEST + 700, NORTH - 700).buffer(300))
    outputs, grid = build(
        tmp_path,
        study_area=polygons(tmp_path, area),
        cell_shape="hexagon",
        hexagon_top="pointy",
        rotation=20,
        cells_output=tmp_path / "cells.gpkg",
    )
    meta, _, geometry, (row, column, share) = pyogrio.raw.read(tmp_path / "cells.gpkg", layer="cells")
    assert list(meta["fields"]) == ["row", "column", "share"]
    found = tessellate(grid, area, top="pointy")
    assert (row == found.row).all() and (column == found.column).all() and (share == found.share).all()
    assert shapely.area(shapely.from_wkb(geometry)) == pytest.approx(CELL**2)
    assert (share * CELL**2).sum() == pytest.approx(area.area, rel=1e-8)
    assert outputs["cells_inside"] == grid.valid.sum()


def test_hexagons_around_events(tmp_path):
    _, grid = build(
        tmp_path,
        events=events(tmp_path, city()),
        area_from="near-events",
        cell_shape="hexagon",
        cells_output=tmp_path / "cells.gpkg",
    )
    *_, (_, _, share) = pyogrio.raw.read(tmp_path / "cells.gpkg", layer="cells")
    assert share.sum() == pytest.approx(grid.valid.sum())


def test_rectangles_are_measured_both_ways(tmp_path):
    reporter = Recorder()
    outputs, _ = build(
        tmp_path,
        reporter,
        cell_size=1,
        cell_height=2,
        cell_unit="nautical-mile",
        extent=[WEST, NORTH, WEST + 9e3, NORTH + 9e3],
    )
    assert (outputs["cell_width"], outputs["cell_height"]) == pytest.approx((1852, 3704), rel=1e-3)
    assert reporter.texts() == []
    build(
        tmp_path,
        reporter,
        crs=pyproj.CRS("EPSG:6933").to_wkt(),  # equal area: too wide here, too low
        cell_unit="map-unit",
        extent=[-7_660_000, 5_000_000, -7_650_000, 5_010_000],
    )
    (warning,) = reporter.texts()
    assert warning.startswith("In WGS 84 / NSIDC EASE-Grid 2.0 Global a cell of 500 m is ")
