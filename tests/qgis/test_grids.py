# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Grid from Layer: which area, which extent, which cells the worker is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import UTM, Notes, make_layer
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsRasterLayer,
    QgsVectorLayer,
    QgsWkbTypes,
)
from test_contract import constant_of_the_core

from gridcast_qgis.algorithms import buildgridfromlayer

SQUARE = "Polygon ((625000 4843000, 627500 4843000, 627500 4845000, 625000 4845000, 625000 4843000))"
WEST_HALF = "Polygon ((625000 4843000, 626000 4843000, 626000 4845000, 625000 4845000, 625000 4843000))"


@pytest.fixture
def build(worker, run, tmp_path):
    """Build a grid and return the request, and the geometries in the file of the study area or events."""

    def call(**parameters):
        found = []

        def look(_job, request, folder):
            for path in filter(None, (request["study_area"], request["events"])):
                assert Path(path).parent == folder
                layer = QgsVectorLayer(path, "area", "ogr")
                assert layer.crs() == QgsCoordinateReferenceSystem.fromWkt(request["crs"])
                assert layer.fields().isEmpty()
                found.extend(feature.geometry() for feature in layer.getFeatures())

        worker.on_job = look
        worker.answers["build_grid"] = {"repaired": 2}
        done = run("buildgridfromlayer", {"OUTPUT": str(tmp_path / "grid.tif")} | parameters)
        return worker.request, found, done

    return call


def points(project, crs=UTM, **rest):
    places = ["Point (625100 4843100)", "Point (627000 4844500)"]
    if crs != UTM:
        places = ["Point (-79.45 43.72)", "Point (-79.40 43.75)"]
    return make_layer(project, [(place, None, "a") for place in places], crs=crs, **rest)


def polygons(project, *shapes, **rest):
    return make_layer(project, [(shape, None, "a") for shape in shapes], geometry="Polygon", crs=UTM, **rest)


# -- area and extent -----------------------------------------------------------------------------


def test_points_alone_give_the_extent(project, build):
    request, places, _ = build(INPUT=points(project))
    assert request["extent"] is None and request["study_area"] is None
    assert coordinates(places) == [(625100, 4843100), (627000, 4844500)]


def coordinates(places) -> list[tuple[float, float]]:
    return [(place.asPoint().x(), place.asPoint().y()) for place in places]


def test_lines_alone_give_the_extent(project, build):
    line = make_layer(
        project, [("LineString (625100 4843100, 627000 4844500)", None, "a")], geometry="LineString", crs=UTM
    )
    request, *_ = build(INPUT=line)
    assert request["extent"] == [625100, 4843100, 627000, 4844500]
    assert request["events"] is None and request["study_area"] is None


def test_a_study_area_gives_area_and_extent(project, build):
    request, area, _ = build(INPUT=points(project), STUDY_AREA=polygons(project, SQUARE))
    assert request["extent"] is None and request["events"] is None
    assert [geometry.area() for geometry in area] == [5e6]


def test_polygons_as_input_are_the_study_area(project, build):
    request, area, _ = build(INPUT=polygons(project, SQUARE, WEST_HALF))
    assert request["extent"] is None
    assert sorted(geometry.area() for geometry in area) == [2e6, 5e6]


def test_an_extent_wins(project, build):
    request, area, _ = build(
        INPUT=points(project), STUDY_AREA=polygons(project, SQUARE), EXTENT=f"1000,2000,3000,4000 [{UTM}]"
    )
    assert request["extent"] == [1000, 3000, 2000, 4000]
    assert len(area) == 1


def test_an_extent_in_another_system_is_brought_along(project, build):
    request, *_ = build(INPUT=points(project), EXTENT="-79.5,-79.4,43.7,43.8 [EPSG:4326]")
    west, south, east, north = request["extent"]
    assert 600000 < west < east < 660000 and 4830000 < south < north < 4860000


def test_all_layers_are_reprojected(project, build):
    request, area, _ = build(
        INPUT=points(project, crs="EPSG:4326"), STUDY_AREA=polygons(project, SQUARE), TARGET_CRS=UTM
    )
    assert QgsCoordinateReferenceSystem.fromWkt(request["crs"]).authid() == UTM
    _, places, _ = build(INPUT=points(project, crs="EPSG:4326"), TARGET_CRS=UTM)
    assert all(600000 < x < 660000 for x, _ in coordinates(places))


def test_only_selected_features(project, build):
    layer = points(project)
    layer.selectByIds([min(layer.allFeatureIds())])
    _, places, _ = build(INPUT=QgsProcessingFeatureSourceDefinition(layer.id(), True))
    assert coordinates(places) == [(625100, 4843100)]
    area = polygons(project, SQUARE, WEST_HALF)
    area.selectByIds([max(area.allFeatureIds())])
    _, found, _ = build(
        INPUT=points(project), STUDY_AREA=QgsProcessingFeatureSourceDefinition(area.id(), True)
    )
    assert [geometry.area() for geometry in found] == [2e6]


@pytest.mark.skipif(Qgis.QGIS_VERSION_INT < 33200, reason="QGIS has feature filters since 3.32")
def test_a_feature_filter(project, build):
    source = QgsProcessingFeatureSourceDefinition(points(project).id())
    source.filterExpression = '"id" = 2'
    assert coordinates(build(INPUT=source)[1]) == [(627000, 4844500)]


def test_curves_get_straight_edges_and_heights_go(project, build):
    circle = "CurvePolygonZ (CircularStringZ (0 100 5, 100 0 5, 0 -100 5, -100 0 5, 0 100 5))"
    layer = make_layer(project, [(circle, None, "a")], geometry="CurvePolygonZ", crs=UTM)
    _, (area,), _ = build(INPUT=layer)
    assert area.wkbType() == QgsWkbTypes.Type.MultiPolygon
    assert area.area() == pytest.approx(3.14159 * 1e4, rel=1e-3)


def test_polygons_without_geometry_are_counted(project, build):
    _, area, done = build(INPUT=polygons(project, SQUARE, None, "Polygon EMPTY"))
    assert len(area) == 1
    assert done.feedback.warnings == ["INPUT: 2 features have no geometry, or none that fits EPSG:26917."]


# -- cells ---------------------------------------------------------------------------------------


def test_the_request_and_the_outputs(project, build, tmp_path, no_leftovers):
    request, _, done = build(
        INPUT=points(project),
        CELL_SIZE=250,
        CELL_HEIGHT=400,
        CELL_UNIT="us-survey-foot",
        ROTATION=12.5,
        SNAP="extent",
        RULE="share",
        MIN_SHARE=30,
        CELL_SHAPE="hexagon",
        HEXAGON_TOP="pointy",
    )
    request.pop("crs")
    assert Path(request.pop("events")).suffix == ".fgb"
    assert request == {
        "extent": None,
        "study_area": None,
        "area_from": "auto",
        "distance": 500,
        "hull_ratio": 0.3,
        "preset": "none",
        "cell_size": 250,
        "cell_height": 400,
        "cell_unit": "us-survey-foot",
        "rows": None,
        "columns": None,
        "rotation": 12.5,
        "snap": "extent",
        "snap_raster": None,
        "rule": "share",
        "min_share": 30,
        "cell_shape": "hexagon",
        "hexagon_top": "pointy",
        "output": str(tmp_path / "grid.tif"),
        "cells_output": None,
    }
    assert done.outputs == {
        "OUTPUT": str(tmp_path / "grid.tif"),
        "ROW_COUNT": 4,
        "COLUMN_COUNT": 5,
        "CELLS_INSIDE": 20,
        "CELL_WIDTH": 500,
        "CELL_HEIGHT": 500,
        "AREA_KM2": 5,
        "REPAIRED": 2,
    }


def test_rows_and_columns_win_over_the_cell_size(project, build):
    request, _, done = build(INPUT=points(project), ROWS=36, COLUMNS=40)
    assert (request["rows"], request["columns"], request["cell_size"]) == (36, 40, None)
    assert not any("CELL_SIZE" in text for text in done.feedback.infos)
    request, _, done = build(INPUT=points(project), ROWS=36, COLUMNS=40, CELL_SIZE=100, CELL_HEIGHT=9)
    assert request["cell_size"] is None and request["cell_height"] is None
    assert "ROWS and COLUMNS are set: CELL_SIZE is not used." in done.feedback.infos
    assert "ROWS and COLUMNS are set: CELL_HEIGHT is not used." in done.feedback.infos


def test_words_are_those_of_the_core():
    assert constant_of_the_core("grid.py", "SNAPS") == buildgridfromlayer.SNAPS
    assert constant_of_the_core("jobs/grids.py", "AREA_SOURCES") == buildgridfromlayer.AREA_SOURCES
    assert constant_of_the_core("jobs/grids.py", "CELL_SHAPES") == buildgridfromlayer.CELL_SHAPES
    assert constant_of_the_core("hexagons.py", "TOPS") == buildgridfromlayer.HEXAGON_TOPS


# -- snapping ------------------------------------------------------------------------------------


def test_a_raster_to_snap_to(project, build, grid):
    request, _, done = build(INPUT=points(project), SNAP="raster", SNAP_RASTER=grid)
    assert request["snap_raster"] == grid
    assert request["cell_size"] is None
    layer = QgsRasterLayer(grid, "heights")
    project.addMapLayer(layer)
    request, *_ = build(INPUT=points(project), SNAP="raster", SNAP_RASTER=layer.id(), CELL_SIZE=1000)
    assert (request["snap_raster"], request["cell_size"]) == (grid, 1000)
    request, _, done = build(INPUT=points(project), SNAP_RASTER=grid)
    assert request["snap_raster"] is None and request["cell_size"] == 500
    assert "SNAP is multiples: SNAP_RASTER is not used." in done.feedback.infos


# -- the local system ----------------------------------------------------------------------------


def authid(request) -> str:
    return QgsCoordinateReferenceSystem.fromWkt(request["crs"]).authid()


def test_layers_in_degrees_get_the_local_system(project, build):
    degrees = points(project, crs="EPSG:4326")
    request, places, done = build(INPUT=degrees, LOCAL_CRS=True)
    assert authid(request) == "EPSG:32617"
    assert all(600000 < x < 660000 for x, _ in coordinates(places))
    assert "LOCAL_CRS: the grid is in EPSG:32617, WGS 84 / UTM zone 17N." in done.feedback.infos
    request, *_ = build(INPUT=degrees)
    assert authid(request) == "EPSG:4326"


def test_an_odd_point_does_not_move_the_local_system(project, build):
    places = [f"Point (-79.4{number} 43.7)" for number in range(5)] + ["Point (0 0)"]
    layer = make_layer(project, [(place, None, "a") for place in (*places, None)])
    request, *_ = build(INPUT=layer, LOCAL_CRS=True)
    assert authid(request) == "EPSG:32617"


def test_points_without_a_place_in_the_system_are_told(project, build):
    places = ["Point (-79.4 43.7)", "Point (-79.5 43.8)", "Point (10.6 0)", "Point (10.6 0)"]
    layer = make_layer(project, [(place, None, "a") for place in places])
    _, found, done = build(INPUT=layer, TARGET_CRS=UTM)
    assert sum(not place.isEmpty() for place in found) == 2
    assert done.feedback.warnings == [
        "INPUT: 2 features have no place in EPSG:26917. They do not count for the study area and its extent: "
        "their coordinates are probably wrong."
    ]


def test_study_area_and_extent_choose_the_local_system(project, build):
    degrees = points(project, crs="EPSG:4326")
    bergen = "Polygon ((5 60, 5.5 60, 5.5 60.5, 5 60.5, 5 60))"
    area = make_layer(project, [(bergen, None, "a")], geometry="Polygon", name="area")
    request, found, _ = build(INPUT=degrees, STUDY_AREA=area, LOCAL_CRS=True)
    assert authid(request) == "EPSG:32632" and len(found) == 1
    request, *_ = build(INPUT=area, LOCAL_CRS=True)
    assert authid(request) == "EPSG:32632"
    request, *_ = build(INPUT=degrees, EXTENT="151,151.3,-34,-33.8 [EPSG:4326]", LOCAL_CRS=True)
    assert authid(request) == "EPSG:32756"
    assert 300000 < request["extent"][0] < request["extent"][2] < 350000


def test_the_local_system_is_for_layers_in_degrees_without_target(project, build):
    request, _, done = build(INPUT=points(project), LOCAL_CRS=True)
    assert authid(request) == UTM
    request, _, done = build(INPUT=points(project, crs="EPSG:4326"), TARGET_CRS=UTM, LOCAL_CRS=True)
    assert authid(request) == UTM
    assert "TARGET_CRS is set: LOCAL_CRS is not used." in done.feedback.infos


# -- the study area from events ------------------------------------------------------------------


@pytest.mark.parametrize("area_from", ["near-events", "hull", "extent"])
def test_the_study_area_from_events(project, build, area_from):
    area = polygons(project, SQUARE)
    request, places, done = build(
        INPUT=points(project), STUDY_AREA=area, AREA_FROM=area_from, DISTANCE=250, HULL_RATIO=0.5
    )
    assert request["study_area"] is None and request["extent"] is None
    assert coordinates(places) == [(625100, 4843100), (627000, 4844500)]
    assert (request["area_from"], request["distance"], request["hull_ratio"]) == (area_from, 250, 0.5)
    assert f"AREA_FROM is {area_from}: STUDY_AREA is not used." in done.feedback.infos


def test_events_and_an_extent(project, build):
    extent = f"625000,627000,4843000,4845000 [{UTM}]"
    request, places, _ = build(INPUT=points(project), AREA_FROM="hull", EXTENT=extent)
    assert request["extent"] == [625000, 4843000, 627000, 4845000] and len(places) == 2
    request, *_ = build(INPUT=points(project), AREA_FROM="extent", EXTENT=extent)
    assert request["events"] is None


def test_the_extent_of_polygons(project, build):
    request, *_ = build(INPUT=polygons(project, SQUARE), AREA_FROM="extent")
    assert request["extent"] == [625000, 4843000, 627500, 4845000]
    assert request["study_area"] is None and request["events"] is None


def test_multipoints_with_heights(project, build):
    layer = make_layer(project, [("MultiPointZ (1 2 3, 4 5 6)", None, "a")], geometry="MultiPointZ", crs=UTM)
    _, places, _ = build(INPUT=layer)
    assert [(point.x(), point.y()) for point in places[0].vertices()] == [(1, 2), (4, 5)]


def test_invalid_rings_reach_the_worker_though_qgis_would_stop_at_them(project, worker, algorithm, tmp_path):
    bow_tie = "Polygon ((625000 4843000, 626000 4844000, 626000 4843000, 625000 4844000, 625000 4843000))"
    layer = polygons(project, bow_tie, SQUARE)
    context = QgsProcessingContext()
    context.setProject(project)
    context.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck.GeometryAbortOnInvalid)
    found = []
    worker.on_job = lambda _job, request, _folder: found.append(
        QgsVectorLayer(request["study_area"], "", "ogr").featureCount()
    )
    worker.answers["build_grid"] = {"repaired": 1}
    outputs, done = algorithm("buildgridfromlayer").run(
        {"INPUT": layer.id(), "OUTPUT": str(tmp_path / "grid.tif")}, context, Notes()
    )
    assert done and outputs["REPAIRED"] == 1
    assert found == [2]


# -- presets -------------------------------------------------------------------------------------


def test_a_preset(project, build):
    request, places, done = build(INPUT=points(project), PRESET="chicago-55x50", CELL_SIZE=500)
    assert authid(request) == "EPSG:4326"
    assert request["preset"] == "chicago-55x50"
    assert [request[key] for key in ("extent", "events", "cell_size", "rows", "columns")] == [None] * 5
    assert "PRESET is set: CELL_SIZE is not used." in done.feedback.infos
    request, found, _ = build(
        INPUT=points(project),
        STUDY_AREA=polygons(project, SQUARE),
        PRESET="dc-36x36",
        TARGET_CRS="EPSG:4326",
        ROWS=36,
        COLUMNS=36,
    )
    assert (request["rows"], request["columns"], len(found)) == (36, 36, 1)


def test_cells_go_where_the_user_wants(project, build, tmp_path):
    for cells in (str(tmp_path / "cells.gpkg"), str(tmp_path / "cells.shp"), "memory:"):
        request, _, done = build(INPUT=points(project), CELLS=cells)
        assert request["cells_output"] and request["cells_output"] != cells
        layer = done.outputs["CELLS"]
        layer = layer if isinstance(layer, QgsVectorLayer) else QgsVectorLayer(layer, "cells", "ogr")
        assert layer.isValid()
        assert [name for name in layer.fields().names() if name != "fid"] == ["row", "column", "share"]


def test_relative_paths(project, build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request, _, done = build(INPUT=points(project), OUTPUT="grid.tif")
    assert request["output"] == str(tmp_path / "grid.tif")
    assert Path(done.outputs["OUTPUT"]).is_file()


# -- the whole way -------------------------------------------------------------------------------


@pytest.mark.worker
def test_hexagons_around_events_with_the_real_worker(
    project, run, monkeypatch, worker_python, tmp_path, no_leftovers
):
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    places = [f"Point (-79.{400 + 3 * number} 43.{700 + number % 7})" for number in range(30)]
    layer = make_layer(project, [(place, None, "a") for place in (*places, "Point (-70 40)")])
    done = run(
        "buildgridfromlayer",
        {
            "INPUT": layer,
            "AREA_FROM": "near-events",
            "LOCAL_CRS": True,
            "CELL_SIZE": 300,
            "CELL_HEIGHT": 200,
            "CELL_UNIT": "yard",
            "CELL_SHAPE": "hexagon",
            "OUTPUT": str(tmp_path / "grid.tif"),
            "CELLS": str(tmp_path / "cells.gpkg"),
        },
    )
    assert (done.outputs["CELL_WIDTH"], done.outputs["CELL_HEIGHT"]) == pytest.approx((274.3, 182.9), abs=0.3)
    assert done.outputs["REPAIRED"] == 0
    assert any(text.startswith("1 of 31 events lie far off all others") for text in done.feedback.warnings)
    raster = QgsRasterLayer(str(tmp_path / "grid.tif"), "grid")
    assert raster.crs().authid() == "EPSG:32617"
    assert raster.dataProvider().dataType(1) == Qgis.DataType.Float64
    cells = QgsVectorLayer(str(tmp_path / "cells.gpkg"), "cells", "ogr")
    assert cells.featureCount() > 100
    area = sum(feature.geometry().area() * feature["share"] for feature in cells.getFeatures())
    assert area == pytest.approx(done.outputs["CELLS_INSIDE"] * 300 * 200 * 0.9144**2, rel=1e-6)


# -- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def refused(worker, run, tmp_path, no_leftovers):
    def call(**parameters) -> str:
        with pytest.raises(QgsProcessingException) as caught:
            run("buildgridfromlayer", {"OUTPUT": str(tmp_path / "grid.tif")} | parameters)
        assert worker.calls == []
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    return call


def test_an_empty_layer(project, refused):
    layer = make_layer(project, [], crs=UTM, name="nothing")
    assert refused(INPUT=layer).endswith(
        "INPUT = nothing: The layer has no features with a place. Check its filter, its selection and "
        "'Selected features only'."
    )


@pytest.mark.parametrize("key", ["INPUT", "STUDY_AREA"])
def test_a_layer_without_crs(project, refused, key):
    layers = {"INPUT": points(project)} | {
        key: make_layer(project, [], geometry="Polygon", crs="", name="area")
    }
    assert f"{key} = area: The layer has no coordinate reference system. Assign the right one" in refused(
        **layers
    )


def test_a_study_area_without_polygons(project, refused):
    area = polygons(project, None, name="area")
    assert "STUDY_AREA = area: The layer has no polygon that can be used." in refused(
        INPUT=points(project), STUDY_AREA=area
    )


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        (
            {"ROWS": 10},
            "COLUMNS = not set: Rows and columns go together. Set both, or neither and a CELL_SIZE.",
        ),
        ({"COLUMNS": 10}, "ROWS = not set: Rows and columns go together."),
        ({"CELL_SIZE": 0}, "CELL_SIZE = 0: A cell needs a size. Set a size above 0, or ROWS and COLUMNS."),
        ({"CELL_SIZE": -5}, "CELL_SIZE = -5: This is not a number of at least 0."),
        ({"ROWS": 0, "COLUMNS": 0}, "ROWS = 0: This is not a whole number of at least 1."),
        (
            {"RULE": "touches"},
            "RULE = touches: This is not one of the choices. Choose one of: intersects, centre",
        ),
        ({"MIN_SHARE": 120}, "MIN_SHARE = 120: This is not a number from 0 to 100."),
        (
            {"CELL_HEIGHT": 0},
            "CELL_HEIGHT = 0: A cell needs a height. Set a height above 0, or leave it empty for square "
            "cells.",
        ),
        (
            {"SNAP": "raster"},
            "SNAP_RASTER = not set: There is no raster to snap to. Set SNAP_RASTER, or another SNAP.",
        ),
        (
            {"AREA_FROM": "polygons"},
            "AREA_FROM = polygons: There are no polygons to take the study area from. Set STUDY_AREA, or "
            "another AREA_FROM.",
        ),
        ({"HULL_RATIO": 1.5}, "HULL_RATIO = 1.5: This is not a number from 0 to 1."),
        (
            {"PRESET": "dc-36x36", "CELL_SIZE": 250},
            "CELL_SIZE = 250.0: The preset 'dc-36x36' fixes this: 36 rows and 36 columns over -77.0857, "
            "38.7985, -76.9005, 38.98725 in EPSG:4326. Leave CELL_SIZE at its default, or set PRESET to "
            "'none'.",
        ),
        ({"PRESET": "dc-36x36", "TARGET_CRS": UTM}, f"TARGET_CRS = {UTM}: The preset 'dc-36x36' fixes this"),
        ({"PRESET": "dc-36x36", "LOCAL_CRS": True}, "LOCAL_CRS = True: The preset 'dc-36x36' fixes this"),
        ({"PRESET": "dc-36x36", "ROWS": 36, "COLUMNS": 9}, "COLUMNS = 9: The preset 'dc-36x36' fixes this"),
        ({"PRESET": "dc-36x36", "EXTENT": "1,2,3,4 [EPSG:4326]"}, "EXTENT = 1,2,3,4 [EPSG:4326]: The preset"),
        ({"PRESET": "dc-36x36", "ROTATION": 3}, "ROTATION = 3.0: The preset 'dc-36x36' fixes this"),
        ({"TARGET_CRS": "EPSG:999999"}, "TARGET_CRS = EPSG:999999: "),
        (
            {"EXTENT": "5,5,6,6 [EPSG:26917]"},
            "EXTENT = 5,5,6,6 [EPSG:26917]: This is no rectangle with an area.",
        ),
    ],
)
def test_values_that_make_no_grid(project, refused, parameters, complaint):
    assert complaint in refused(INPUT=points(project), **parameters)


@pytest.mark.parametrize("area_from", ["near-events", "hull"])
def test_polygons_are_no_events(project, refused, area_from):
    assert refused(INPUT=polygons(project, SQUARE, name="city"), AREA_FROM=area_from).endswith(
        f"INPUT = city: The layer has no points, and AREA_FROM is '{area_from}'. Choose a layer of events, "
        "or another AREA_FROM."
    )


@pytest.mark.parametrize("local", [False, True])
def test_points_without_a_place(project, refused, local):
    layer = make_layer(project, [(None, None, "a")], name="nowhere")
    text = "INPUT = nowhere: The layer has no features with a place. Check its filter, its selection"
    assert text in refused(INPUT=layer, LOCAL_CRS=local, AREA_FROM="hull")


def test_a_raster_that_cannot_be_snapped_to(project, refused, tmp_path):
    assert "SNAP_RASTER = " in refused(
        INPUT=points(project), SNAP="raster", SNAP_RASTER=str(tmp_path / "none.tif")
    )


def test_a_raster_that_is_no_geotiff(project, refused, tmp_path):
    path = str(tmp_path / "grid.png")
    assert f"OUTPUT = {path}: The file name has another ending than the format that is written." in refused(
        INPUT=points(project), OUTPUT=path
    )
