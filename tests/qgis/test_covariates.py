# SPDX-License-Identifier: GPL-2.0-or-later
"""Covariates for a cube: what reaches the worker, what is refused, and a run with the real worker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import CELL, NORTH, UTM, WEST, FakeWorker, Notes, make_layer, make_raster
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
    QgsWkbTypes,
)

#: Four tracts of one cell each, in cells from the north-western corner; the last one crosses itself.
TRACTS = [
    "0 0, 1 0, 1 1, 0 1, 0 0",
    "1 0, 2 0, 2 1, 1 1, 1 0",
    "0 1, 1 1, 1 2, 0 2, 0 1",
    "1 1, 2 2, 2 1, 1 2, 1 1",
]


def on_map(corners: str) -> str:
    pairs = (corner.split() for corner in corners.split(", "))
    return ", ".join(f"{WEST + CELL * float(x)} {NORTH - CELL * float(y)}" for x, y in pairs)


@pytest.fixture
def tracts(project) -> QgsVectorLayer:
    """Polygons in degrees with income, people and a name; one row has no geometry."""
    fields = "field=fid:double&field=income:double&field=people:integer&field=name:string(20)"
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:4326&{fields}", "census tracts", "memory")
    to_degrees = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem(UTM), layer.crs(), QgsProject.instance().transformContext()
    )
    features = []
    for number, corners in enumerate([*TRACTS, ""]):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([number / 2, 1000.0 * (number + 1), 10 * number, f"tract {number}"])
        if corners:
            geometry = QgsGeometry.fromWkt(f"Polygon (({on_map(corners)}))")
            geometry.transform(to_degrees)
            feature.setGeometry(geometry)
        features.append(feature)
    assert layer.dataProvider().addFeatures(features)[0]
    layer.updateExtents()
    project.addMapLayer(layer)
    return layer


@pytest.fixture
def worker(worker, monkeypatch) -> FakeWorker:
    def answer(self, request):
        Path(request["output"]).write_bytes(b"cube with covariates")
        return {"output": request["output"], "covariates": 2, "missing_steps": 3, "names": ["rain", "income"]}

    monkeypatch.setattr(FakeWorker, "_add_covariates", answer, raising=False)
    return worker


@pytest.fixture
def add(run, worker, cube_file, tmp_path):
    """Add covariates and return the run; the request is that of `worker`."""

    def call(**parameters):
        return run("addcovariates", {"CUBE": cube_file, "OUTPUT": str(tmp_path / "out.nc")} | parameters)

    return call


@pytest.fixture
def exported(add, worker):
    """Add fields of polygons and return what the worker finds in its file."""

    def call(source, fields="income", **parameters):
        found = []

        def look(job, request, _folder):
            if job != "add_covariates":
                return
            layer = QgsVectorLayer(request["polygons"], "", "ogr")
            assert layer.isValid() and layer.crs().authid() == UTM
            for feature in layer.getFeatures():
                values = [feature[name] for name in request["polygon_fields"]]
                found.append((feature.geometry(), values))

        worker.on_job = look
        add(POLYGONS=source, POLYGON_FIELDS=fields, **parameters)
        return found

    return call


# -- the request ---------------------------------------------------------------------------------


def test_everything_reaches_the_worker(add, worker, tmp_path, tracts, cube_file, no_leftovers):
    paths = {}
    for name in ("weather.csv.gz", "school.csv", "match.csv"):
        path = tmp_path / name
        path.write_bytes(b"date\n")
        paths[name] = str(path)
    dem = make_raster(tmp_path / "dem.tif", [[1.0] * 5] * 4)
    done = add(
        TABLE=paths["weather.csv.gz"],
        DATE_FIELD=" day ",
        COLUMNS='tmax, "rain, mm"',
        RASTERS=[dem],
        RASTER_METHOD="nearest",
        RASTER_BAND=2,
        POLYGONS=tracts,
        POLYGON_FIELDS=["income", "people"],
        POLYGON_METHOD="sum",
        COUNTRY=" US",
        SUBDIVISION="IL",
        HOLIDAY_FILES=[paths["school.csv"], paths["match.csv"]],
        CALENDAR="both",
    )
    assert [job for job, _ in worker.calls] == ["describe_cube", "add_covariates"]
    request = dict(worker.request)
    assert Path(request.pop("polygons")).name == "polygons.gpkg"
    (system,) = request.pop("raster_crs")
    assert QgsCoordinateReferenceSystem.fromWkt(system).authid() == UTM
    assert request == {
        "cube": cube_file,
        "output": str(tmp_path / "out.nc"),
        "table": paths["weather.csv.gz"],
        "date_field": "day",
        "columns": ["tmax", "rain, mm"],
        "rasters": [dem],
        "raster_names": ["dem"],
        "raster_method": "nearest",
        "raster_band": 2,
        "polygon_fields": {"value_1": "income", "value_2": "people"},
        "polygon_method": "sum",
        "country": "US",
        "subdivision": "IL",
        "holiday_files": [paths["school.csv"], paths["match.csv"]],
        "calendar": "both",
    }
    assert done.outputs == {
        "OUTPUT": str(tmp_path / "out.nc"),
        "COVARIATES": 2,
        "MISSING_STEPS": 3,
        "NAMES": "rain, income",
    }


def test_one_kind_is_enough(add, worker):
    add(CALENDAR="encoded")
    assert [job for job, _ in worker.calls] == ["add_covariates"]
    request = worker.request
    assert "polygons" not in request and request["rasters"] == [] and request["table"] == ""
    assert (request["columns"], request["country"], request["raster_method"]) == ([], "", "mean")


def test_layers_of_the_project_are_rasters_as_well(add, worker, project, tmp_path):
    path = make_raster(tmp_path / "dem.tif", [[1.0] * 5] * 4)
    layer = QgsRasterLayer(path, "Height above sea")
    project.addMapLayer(layer)
    add(RASTERS=[layer.id()])
    assert worker.request["rasters"] == [path]
    assert worker.request["raster_names"] == ["Height above sea"]
    add(RASTERS=layer.name())
    assert worker.request["rasters"] == [path]


# -- polygons ------------------------------------------------------------------------------------


def test_polygons_are_reprojected_with_their_fields(exported, tracts):
    found = exported(tracts, ["people", "fid"])
    assert [values for _, values in found] == [[10 * n, n / 2] for n in range(5)]
    geometries = [geometry for geometry, _ in found]
    assert all(geometry.wkbType() == QgsWkbTypes.Type.MultiPolygon for geometry in geometries[:4])
    assert geometries[4].isEmpty()
    for geometry, corners in zip(geometries[:3], TRACTS):
        expected = QgsGeometry.fromWkt(f"Polygon (({on_map(corners)}))")
        assert geometry.symDifference(expected).area() < 1e-3
    # The worker repairs it.
    assert not geometries[3].isGeosValid()


def test_selection_and_filter_are_respected(exported, tracts):
    tracts.selectByExpression("people >= 20")
    chosen = exported(QgsProcessingFeatureSourceDefinition(tracts.id(), True))
    assert sorted(values for _, values in chosen) == [[3000], [4000], [5000]]
    tracts.setSubsetString("people = 10")
    assert [values for _, values in exported(tracts)] == [[2000]]
    tracts.setSubsetString("")
    tracts.startEditing()
    tracts.changeAttributeValue(next(tracts.getFeatures()).id(), 1, 7.0)
    assert exported(tracts)[0][1] == [7]
    tracts.rollBack()


def test_invalid_polygons_do_not_stop_it(algorithm, worker, tracts, cube_file, tmp_path, project):
    """By default QGIS ends an algorithm at the first invalid geometry."""
    context = QgsProcessingContext()
    context.setProject(project)
    context.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck.GeometryAbortOnInvalid)
    parameters = {
        "CUBE": cube_file,
        "POLYGONS": tracts,
        "POLYGON_FIELDS": ["income"],
        "OUTPUT": str(tmp_path / "out.nc"),
    }
    _, ok = algorithm("addcovariates").run(parameters, context, Notes())
    assert ok and worker.calls[-1][0] == "add_covariates"


def test_curves_become_straight(exported, project):
    layer = QgsVectorLayer(f"CurvePolygon?crs={UTM}&field=a:double", "circle", "memory")
    feature = QgsFeature(layer.fields())
    feature.setAttributes([1.0])
    x, y = WEST + 1000, NORTH - 1000
    ring = f"{x} {y}, {x + 500} {y + 500}, {x + 1000} {y}, {x + 500} {y - 500}, {x} {y}"
    feature.setGeometry(QgsGeometry.fromWkt(f"CurvePolygon (CircularString ({ring}))"))
    assert layer.dataProvider().addFeatures([feature])[0]
    project.addMapLayer(layer)
    ((geometry, _),) = exported(layer, ["a"])
    assert geometry.wkbType() == QgsWkbTypes.Type.MultiPolygon
    assert geometry.area() == pytest.approx(3.14159 * 500**2, rel=1e-3)


# -- what is refused -----------------------------------------------------------------------------


REFUSED = {
    "nothing": (
        {},
        "There is nothing to add. Set at least one of TABLE, RASTERS, POLYGONS, COUNTRY, HOLIDAY_FILES and "
        "CALENDAR.",
    ),
    "empty lists": ({"RASTERS": [], "HOLIDAY_FILES": []}, "There is nothing to add."),
    "no fields": (
        {"POLYGONS": "tracts"},
        "POLYGON_FIELDS = not set: It is needed for POLYGONS. Choose the fields that hold the numbers.",
    ),
    "no polygons": (
        {"POLYGON_FIELDS": ["income"]},
        "POLYGONS = not set: It is needed for POLYGON_FIELDS. Choose the layer that has the fields.",
    ),
    "no country": (
        {"SUBDIVISION": "IL"},
        "COUNTRY = not set: It is needed for SUBDIVISION. Set the country as well, such as US.",
    ),
    "columns of nothing": (
        {"COLUMNS": "a", "CALENDAR": "both"},
        "TABLE = not set: It is needed for COLUMNS. Choose the table that has the columns.",
    ),
    "dates of nothing": (
        {"DATE_FIELD": "a", "CALENDAR": "both"},
        "TABLE = not set: It is needed for DATE_FIELD.",
    ),
    "no such field": (
        {"POLYGONS": "tracts", "POLYGON_FIELDS": ["rent"]},
        "POLYGON_FIELDS = rent: The layer 'census tracts' has no such field. Choose fields with numbers; "
        "there are: fid, income, people, name.",
    ),
    "no cube": (
        {"CUBE": "none.nc", "CALENDAR": "both"},
        "none.nc: The file does not exist. Choose another file: Gridcast cube (*.nc).",
    ),
    "no table": (
        {"TABLE": "none.csv"},
        "none.csv: The file does not exist. Choose another file: CSV (*.csv *.csv.gz *.gz *.txt *.tsv).",
    ),
    "no raster": (
        {"RASTERS": ["none.tif"]},
        "none.tif']: Not all of these layers can be opened. Check that the files exist and are not damaged.",
    ),
    "vectors": (
        {"RASTERS": ["tracts"]},
        "RASTERS = census tracts: This is no raster that GDAL reads, such as a GeoTIFF. Save it as a GeoTIFF",
    ),
    "no file of days": (
        {"HOLIDAY_FILES": ["none.csv"]},
        "none.csv: The file does not exist. Choose CSV files with a column date, or with columns start and",
    ),
    "wrong ending": (
        {"CALENDAR": "both", "OUTPUT": "out.tif"},
        "out.tif: The file name has another ending than the format that is written. Give it the ending .nc.",
    ),
    "no such word": (
        {"CALENDAR": "lunar"},
        "CALENDAR = lunar: This is not one of the choices. Choose one of: none, encoded, day-of-year, both.",
    ),
    "no band": (
        {"CALENDAR": "both", "RASTER_BAND": 0},
        "RASTER_BAND = 0: This is not a whole number of at least 1.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_values_are_refused_before_work_begins(add, worker, tracts, tmp_path, case, no_leftovers):
    values, complaint = REFUSED[case]

    def real(value):
        if value == "tracts":
            return tracts.id()
        return str(tmp_path / value) if str(value).startswith(("none.", "out.")) else value

    values = {
        key: [real(one) for one in value] if isinstance(value, list) else real(value)
        for key, value in values.items()
    }
    before = sorted(tmp_path.iterdir())
    with pytest.raises(QgsProcessingException) as caught:
        add(**values)
    assert complaint in str(caught.value)
    assert worker.calls == [] and sorted(tmp_path.iterdir()) == before


def test_inputs_are_never_overwritten(add, worker, cube_file, tmp_path):
    climate = make_raster(tmp_path / "climate.nc", [[1.0] * 5] * 4)
    link = tmp_path / "link.nc"
    link.symlink_to(cube_file)
    for output in (cube_file, str(link), climate):
        before = Path(output).read_bytes()
        with pytest.raises(QgsProcessingException) as caught:
            add(CALENDAR="both", RASTERS=[climate], OUTPUT=output)
        assert (
            f"OUTPUT = {output}: This file is one of the inputs. Choose another file: inputs are never"
            in str(caught.value)
        )
        assert Path(output).read_bytes() == before
    assert worker.calls == []


def test_fields_may_be_text_with_semicolons(exported, tracts):
    assert exported(tracts, "income;people")[1][1] == [2000, 10]


# -- the real worker -----------------------------------------------------------------------------


@pytest.fixture
def real_cube(project, run, monkeypatch, worker_python, tmp_path) -> str:
    """A cube of 20 days on 4 x 5 cells, made by the real worker."""
    monkeypatch.setenv("GRIDCAST_PYTHON", str(worker_python))
    dice = random.Random(1)
    rows = []
    for day in range(1, 21):
        for _ in range(4):
            x, y = WEST + dice.uniform(1, 2499), NORTH - dice.uniform(1, 1999)
            rows.append((f"Point ({x} {y})", f"2024-07-{day:02} 12:00", "a"))
    events = make_layer(project, rows, crs=UTM, time_type="string")
    extent = f"{WEST},{WEST + 2500},{NORTH - 2000},{NORTH} [{UTM}]"
    grid = str(tmp_path / "grid.tif")
    run("buildgridfromlayer", {"INPUT": events, "EXTENT": extent, "CELL_SIZE": CELL, "OUTPUT": grid})
    cube = str(tmp_path / "cube.nc")
    values = {"INPUT": events, "GRID": grid, "TIME_FIELD": "occurred", "TIME_ZONE": "America/Chicago"}
    run("rasterizeeventstocube", values | {"LOAD": False, "OUTPUT": cube})
    return cube


@pytest.mark.worker
def test_the_real_worker_adds_all_kinds(real_cube, run, tracts, tmp_path, no_leftovers):
    weather = tmp_path / "weather.csv"
    weather.write_text(
        "weather_date,temp high\n" + "".join(f"7/{day}/2024,{20 + day}\n" for day in range(1, 19))
    )
    school = tmp_path / "school holidays.csv"
    school.write_text("start,end\n2024-06-20,2024-07-10\n")
    dem = make_raster(tmp_path / "dem.tif", [[1.0, 2.0, 3.0, 4.0, 5.0]] * 4)
    before = Path(real_cube).read_bytes()
    output = str(tmp_path / "richer.nc")
    done = run(
        "addcovariates",
        {
            "CUBE": real_cube,
            "TABLE": str(weather),
            "RASTERS": [dem],
            "POLYGONS": tracts,
            "POLYGON_FIELDS": ["people"],
            "POLYGON_METHOD": "sum",
            "COUNTRY": "US",
            "SUBDIVISION": "IL",
            "HOLIDAY_FILES": [str(school)],
            "CALENDAR": "day-of-year",
            "OUTPUT": output,
        },
    )
    names = "temp_high, dem, people, public_holiday, school_holidays, day_of_year"
    assert done.outputs == {"OUTPUT": output, "COVARIATES": 6, "MISSING_STEPS": 2, "NAMES": names}
    assert Path(real_cube).read_bytes() == before
    told = done.feedback.infos + done.feedback.warnings
    for line in (
        "temp_high: 21 to 38, mean 29.5; 2 of 20 steps have no value.",
        "dem: 1 to 5, mean 3; all cells of the study area have a value.",
        "people: 0 to 30, mean 15; 16 of 20 cells of the study area have no value.",
        "public_holiday: 0 to 1, mean 0.05; all steps have a value.",
        "school_holidays: 0 to 1, mean 0.5; all steps have a value.",
        "day_of_year: 183 to 202, mean 192.5; all steps have a value.",
        "POLYGONS: 1 polygons had rings that cross themselves; repaired.",
        "POLYGONS: 1 features have no area and are left out.",
    ):
        assert any(line in text for text in told), (line, told)


@pytest.mark.worker
def test_what_the_worker_refuses_leaves_nothing(real_cube, run, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(QgsProcessingException) as caught:
        run(
            "addcovariates",
            {
                "CUBE": real_cube,
                "COUNTRY": "US",
                "SUBDIVISION": "Ilinois",
                "OUTPUT": str(tmp_path / "out.nc"),
            },
        )
    assert "SUBDIVISION = Ilinois: US has no such subdivision. Did you mean IL (Illinois)?" in str(
        caught.value
    )
    assert sorted(tmp_path.iterdir()) == before
