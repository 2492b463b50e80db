# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Grid from Layer: which area, which extent, which cells the worker is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import UTM, make_layer
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsVectorLayer,
    QgsWkbTypes,
)

SQUARE = "Polygon ((625000 4843000, 627500 4843000, 627500 4845000, 625000 4845000, 625000 4843000))"
WEST_HALF = "Polygon ((625000 4843000, 626000 4843000, 626000 4845000, 625000 4845000, 625000 4843000))"


@pytest.fixture
def build(worker, run, tmp_path):
    """Build a grid and return the request, and the WKT of the polygons in the study area file."""

    def call(**parameters):
        found = []

        def look(_job, request, folder):
            if request["study_area"]:
                assert Path(request["study_area"]).parent == folder
                layer = QgsVectorLayer(request["study_area"], "area", "ogr")
                assert layer.crs() == QgsCoordinateReferenceSystem(UTM)
                found.extend(feature.geometry() for feature in layer.getFeatures())

        worker.on_job = look
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
    request, area, _ = build(INPUT=points(project))
    assert request["extent"] == [625100, 4843100, 627000, 4844500]
    assert request["study_area"] is None and area == []


def test_a_study_area_gives_area_and_extent(project, build):
    request, area, _ = build(INPUT=points(project), STUDY_AREA=polygons(project, SQUARE))
    assert request["extent"] is None
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
    request, *_ = build(INPUT=points(project, crs="EPSG:4326"), TARGET_CRS=UTM)
    assert 600000 < request["extent"][0] < request["extent"][2] < 660000


def test_only_selected_features(project, build):
    layer = points(project)
    layer.selectByIds([min(layer.allFeatureIds())])
    request, *_ = build(INPUT=QgsProcessingFeatureSourceDefinition(layer.id(), True))
    assert request["extent"] == [625100, 4843100, 625100, 4843100]
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
    assert build(INPUT=source)[0]["extent"] == [627000, 4844500, 627000, 4844500]


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
        CELL_UNIT="us-survey-foot",
        ROTATION=12.5,
        RULE="share",
        MIN_SHARE=30,
    )
    request.pop("crs")
    assert request == {
        "extent": [625100, 4843100, 627000, 4844500],
        "study_area": None,
        "cell_size": 250,
        "cell_unit": "us-survey-foot",
        "rows": None,
        "columns": None,
        "rotation": 12.5,
        "rule": "share",
        "min_share": 30,
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
    }


def test_rows_and_columns_win_over_the_cell_size(project, build):
    request, _, done = build(INPUT=points(project), ROWS=36, COLUMNS=40)
    assert (request["rows"], request["columns"], request["cell_size"]) == (36, 40, None)
    assert not any("CELL_SIZE" in text for text in done.feedback.infos)
    request, _, done = build(INPUT=points(project), ROWS=36, COLUMNS=40, CELL_SIZE=100)
    assert request["cell_size"] is None
    assert "ROWS and COLUMNS are set: CELL_SIZE is not used." in done.feedback.infos


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
        ({"TARGET_CRS": "EPSG:999999"}, "TARGET_CRS = EPSG:999999: "),
        (
            {"EXTENT": "5,5,6,6 [EPSG:26917]"},
            "EXTENT = 5,5,6,6 [EPSG:26917]: This is no rectangle with an area.",
        ),
    ],
)
def test_values_that_make_no_grid(project, refused, parameters, complaint):
    assert complaint in refused(INPUT=points(project), **parameters)


def test_a_raster_that_is_no_geotiff(project, refused, tmp_path):
    path = str(tmp_path / "grid.png")
    assert f"OUTPUT = {path}: The file name has another ending than the format that is written." in refused(
        INPUT=points(project), OUTPUT=path
    )
