# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with events besides counting them once: appending, exporting, tables, plain files."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import UTM, make_layer
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from gridcast_qgis import compat

CHECKOUT = Path(__file__).resolve().parents[2]
INSIDE = "Point (-79.45 43.72)"
NOON = "2024-03-07 12:00"

CALLS = (
    "CATEGORY,CALL GROUPS,final_case_type,CASE DESC,occ_date,x_coordinate,y_coordinate,census_tract\n"
    "BURGLARY,PROPERTY CRIME,BURGP,BURGLARY - PRIORITY *H,2012-03-01,7661410,682295,1802\n"
)
GUNSHOTS = (
    "UserID,Time,Longitude,Latitude,Type,LocationID\n1,2012-03-01 03:35:00,-77.001,38.861,0,2147483648\n"
)


@pytest.fixture
def saved(project, tmp_path):
    """Write a memory layer as a GeoPackage and open it."""

    def call(rows, name="events.gpkg", **options) -> QgsVectorLayer:
        layer = make_layer(project, rows, time_type="string", **options)
        path = str(tmp_path / name)
        writing = QgsVectorFileWriter.SaveVectorOptions()
        QgsVectorFileWriter.writeAsVectorFormatV3(layer, path, QgsCoordinateTransformContext(), writing)
        opened = QgsVectorLayer(path, name, "ogr")
        project.addMapLayer(opened)
        return opened

    return call


@pytest.fixture
def rasterize(run, worker, grid, tmp_path):
    """Rasterize and return the request that the worker got, and the feedback."""

    def call(source, **parameters):
        values = {"INPUT": source, "GRID": grid, "OUTPUT": str(tmp_path / "out.nc"), "LOAD": False}
        done = run("rasterizeeventstocube", values | {"TIME_FIELD": "occurred"} | parameters)
        return worker.request, done.feedback

    return call


# -- plain files ---------------------------------------------------------------------------------


def test_a_plain_file_is_handed_over_as_it_is(saved, rasterize, tmp_path):
    layer = saved([(INSIDE, NOON, "a")])
    request, _ = rasterize(layer, TYPE_FIELD="kind", ID_FIELD="id", END_TIME_FIELD="occurred")
    assert Path(request["events"]) == tmp_path / "events.gpkg"
    fields = {"time": "occurred", "end": "occurred", "type": "kind", "identity": "id"}
    assert request["fields"] == fields
    assert request["dropped_before"] == {} and request["spread"]
    # The operation is that of QGIS, and the worker's PROJ understands its text.
    transform = QgsCoordinateTransform(
        layer.crs(), QgsCoordinateReferenceSystem(UTM), QgsCoordinateTransformContext()
    )
    assert request["operation"] == transform.instantiatedCoordinateOperationDetails().proj
    assert request["operation"].startswith("+proj=pipeline")


def test_nothing_is_to_be_done_in_the_same_system(saved, rasterize):
    request, _ = rasterize(saved([("Point (631000 4841000)", NOON, "a")], crs=UTM))
    assert request["operation"] == ""


@pytest.mark.parametrize("change", ["filter", "edit", "selection", "limit", "memory", "row number"])
def test_whatever_qgis_adds_or_hides_goes_through_qgis(saved, rasterize, project, change):
    rows = [(INSIDE, NOON, "a"), (INSIDE, NOON, "b")]
    layer = saved(rows)
    source, more = layer, {}
    if change == "filter":
        layer.setSubsetString("kind = 'a'")
    elif change == "edit":
        layer.startEditing()
    elif change == "selection":
        layer.selectByExpression("kind = 'a'")
        source = QgsProcessingFeatureSourceDefinition(layer.id(), True)
    elif change == "limit":
        source = QgsProcessingFeatureSourceDefinition(layer.id(), False, 1)
    elif change == "memory":
        source = make_layer(project, rows, time_type="string")
    else:
        more = {"TYPE_FIELD": "fid"}
    request, _ = rasterize(source, **more)
    assert Path(request["events"]).name == "events.fgb"
    assert request["operation"] is None


# -- tables that are known by their columns --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields", "start"),
    [
        (CALLS, {"time": "occ_date", "type": "CATEGORY"}, "+proj=pipeline +step +proj=unitconvert +xy_in=ft"),
        (GUNSHOTS, {"time": "Time", "type": "Type"}, "+proj=pipeline +step +proj=unitconvert +xy_in=deg"),
    ],
)
def test_a_known_table_needs_neither_geometry_nor_fields(rasterize, worker, tmp_path, text, fields, start):
    path = tmp_path / "table.csv"
    path.write_text(text)
    rows = []

    def look(_job, request, _folder):
        layer = QgsVectorLayer(request["events"], "", "ogr")
        names = list(request["fields"].values())
        rows.extend([feature[name] for name in names] for feature in layer.getFeatures())

    worker.on_job = look
    request, feedback = rasterize(str(path), TIME_FIELD=None)
    assert set(request["fields"]) == {"time", "type", "x", "y"}
    assert request["operation"].startswith(start)
    (row,) = rows
    written = dict(zip(text.splitlines()[0].split(","), text.splitlines()[1].split(",")))
    assert [str(value) for value in row[:2]] == [written[name] for name in fields.values()]
    named = ", ".join(f"{role} = {name}" for role, name in fields.items())
    assert any(named in info and info.startswith("Recognised as a table of") for info in feedback.infos)


def test_fields_that_are_chosen_win(rasterize, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(CALLS)
    request, _ = rasterize(str(path), TIME_FIELD=None, TYPE_FIELD="final_case_type")
    assert set(request["fields"]) == {"time", "type", "x", "y"}


def test_other_tables_are_refused(rasterize, tmp_path, worker):
    path = tmp_path / "table.csv"
    path.write_text("occurred,place\n2024-01-01,here\n")
    with pytest.raises(QgsProcessingException) as caught:
        rasterize(str(path))
    assert "INPUT = table: The table has no geometry, and its columns are none that Gridcast knows." in str(
        caught.value
    )
    assert worker.calls == [] and not (tmp_path / "out.nc").exists()


def test_an_undefined_system_is_none(saved, rasterize, worker, project):
    import sqlite3

    layer = saved([(INSIDE, NOON, "a")], name="undefined.gpkg")
    path = layer.source().split("|")[0]
    del layer
    with sqlite3.connect(path) as file:
        file.execute("update gpkg_contents set srs_id = -1")
        file.execute("update gpkg_geometry_columns set srs_id = -1")
    undefined = QgsVectorLayer(path, "undefined", "ogr")
    project.addMapLayer(undefined)
    with pytest.raises(QgsProcessingException) as caught:
        rasterize(undefined)
    assert "INPUT = undefined: The layer has no coordinate reference system." in str(caught.value)
    assert worker.calls == []


def test_polygons_are_no_events(rasterize, project, worker):
    area = make_layer(
        project, [("Polygon ((0 0, 1 0, 1 1, 0 0))", None, "a")], geometry="Polygon", name="city"
    )
    with pytest.raises(QgsProcessingException) as caught:
        rasterize(area)
    assert "INPUT = city: The layer holds Polygon and not points." in str(caught.value)
    assert worker.calls == []


# -- what must go together -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"STEP": "shifts"}, "SHIFT_STARTS = not set: It is needed for STEP shifts."),
        ({"SEVERITY": "table"}, "SEVERITY_TABLE = not set: It is needed for SEVERITY table."),
        ({"SEVERITY": "field"}, "SEVERITY_FIELD = not set: It is needed for SEVERITY field."),
        ({"SEVERITY": "chicago"}, "TYPE_FIELD = not set: It is needed for SEVERITY chicago."),
        ({"SHIFT_STARTS": "7, 15"}, "SHIFT_STARTS = 7, 15: It is used with STEP shifts only."),
        ({"SEVERITY_FIELD": "id"}, "SEVERITY_FIELD = id: It is used with SEVERITY field only."),
        (
            {"SEVERITY_FIELD": "nothing", "SEVERITY": "field"},
            "SEVERITY_FIELD = nothing: The layer 'events' has no such field.",
        ),
    ],
)
def test_parameters_that_need_others(rasterize, project, worker, parameters, complaint):
    with pytest.raises(QgsProcessingException) as caught:
        rasterize(make_layer(project, [(INSIDE, NOON, "a")], time_type="string"), **parameters)
    assert complaint in str(caught.value)
    assert worker.calls == []


def test_shifts_and_severity_reach_the_worker(rasterize, project, tmp_path):
    layer = make_layer(project, [(INSIDE, NOON, "a")], time_type="string")
    table = tmp_path / "grave.csv"
    table.write_text("kind,score\na,1\n")
    request, _ = rasterize(
        layer,
        STEP="shifts",
        SHIFT_STARTS="7, 19",
        SEVERITY="table",
        SEVERITY_TABLE=str(table),
        DROP_DUPLICATES=True,
    )
    assert (request["step"], request["severity"], request["severity_table"]) == (
        "shifts 7, 19",
        "table",
        str(table),
    )
    assert request["drop_duplicates"] and not request["spread"]


# -- appending -------------------------------------------------------------------------------------


@pytest.fixture
def append(run, worker, cube_file, tmp_path):
    def call(source, **parameters):
        values = {"CUBE": cube_file, "INPUT": source, "TIME_FIELD": "occurred", "LOAD": False}
        return run("appendevents", values | {"OUTPUT": str(tmp_path / "longer.nc")} | parameters)

    return call


def test_events_are_appended_in_the_system_of_the_cube(append, worker, saved, cube_file, tmp_path):
    done = append(saved([(INSIDE, NOON, "a")]), TYPE_FIELD="kind", END="2024-03-09T00:00:00")
    assert [job for job, _ in worker.calls] == ["describe_cube", "append_events"]
    request = worker.request
    assert request["cube"] == cube_file and request["only_later"]
    assert request["operation"].startswith("+proj=pipeline") and "+proj=utm +zone=17" in request["operation"]
    assert request["end"] == "2024-03-09T00:00:00"
    outputs = done.outputs
    assert (outputs["EVENTS_LEFT_ASIDE"], outputs["STEPS_NEW"], outputs["STEPS"]) == (5, 2, 60)
    assert (tmp_path / "longer.nc").is_file()


def test_a_cube_is_never_its_own_extension(append, worker, project, cube_file):
    with pytest.raises(QgsProcessingException) as caught:
        append(make_layer(project, [(INSIDE, NOON, "a")], time_type="string"), OUTPUT=cube_file)
    assert f"OUTPUT = {cube_file}: This is the cube that is extended." in str(caught.value)
    assert worker.calls == [] and Path(cube_file).read_bytes() == b"cube"


# -- exporting -------------------------------------------------------------------------------------


def test_a_cube_becomes_a_temporal_raster(run, worker, cube_file, project, tmp_path):
    output = str(tmp_path / "bands.tif")
    done = run(
        "exportcube",
        {
            "CUBE": cube_file,
            "VARIABLE": " theft ",
            "START": "2024-03-07T00:00:00",
            "OUTPUT": output,
        },
        load=True,
    )
    assert worker.request == {
        "cube": cube_file,
        "variable": "theft",
        "start": "2024-03-07T00:00:00",
        "end": None,
        "output": output,
    }
    assert done.outputs["BANDS"] == 2
    assert (tmp_path / "bands.qml").is_file()
    layers = [each for each in project.mapLayers().values() if isinstance(each, QgsRasterLayer)]
    assert all(layer.temporalProperties().isActive() for layer in layers)
    # Where bands cannot have times of their own, each step is a layer.
    assert len(layers) == (1 if compat.HAS_BAND_TIMES else 2)
    if compat.HAS_BAND_TIMES:
        assert len(layers[0].temporalProperties().fixedRangePerBand()) == 2


# -- checking --------------------------------------------------------------------------------------


def test_events_are_checked_in_their_own_system(run, worker, saved, tmp_path):
    output = tmp_path / "report.html"
    done = run(
        "checkevents",
        {
            "INPUT": saved([(INSIDE, NOON, "a")]),
            "TIME_FIELD": "occurred",
            "REPORTED_FIELD": "occurred",
            "TIME_ZONE": "America/Toronto",
            "HOLIDAYS": "12-24, 2024-02-19",
            "OUTPUT": str(output),
        },
    )
    request = worker.request
    assert request["fields"] == {"time": "occurred", "reported": "occurred"}
    assert request["operation"] == "" and 'ID["EPSG",4326]' in request["crs"]
    assert request["name"] == "events.gpkg"
    assert request["holidays"] == ["12-24", "2024-02-19"]
    assert output.is_file() and done.outputs["VERDICT"] == "Good." and done.outputs["EVENTS"] == 1


def test_numbers_of_the_check_are_those_of_the_core(worker_python, tmp_path):
    """The core names them; the algorithm declares each."""
    import os
    import subprocess

    from gridcast_qgis.algorithms.checkevents import NUMBERS

    code = (
        "import numpy as np\nfrom gridcast_qgis.core.checks import check_events\n"
        "from gridcast_qgis.core.events import EventTable\n"
        "t = EventTable.from_arrays([1.0], [2.0], ['2024-01-01'])\n"
        "print(*check_events(t, 'EPSG:4326', 'UTC').numbers())"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ", "GDAL"))}
    done = subprocess.run(
        [str(worker_python), "-c", code],
        env=environment | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [key.upper() for key in done.stdout.split()] == list(NUMBERS)
