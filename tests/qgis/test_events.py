# SPDX-License-Identifier: GPL-2.0-or-later
"""From a point layer to the file that the worker reads: nothing is lost, nothing is added, all is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import NORTH, UTM, WEST, Notes, make_layer
from qgis.core import (
    NULL,
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDate, QDateTime, Qt, QTime, QTimeZone

from gridcast_qgis import compat

INSIDE = "Point (-79.45 43.72)"
NOON = QDateTime(QDate(2024, 3, 7), QTime(12, 0))

keeps_zones = pytest.mark.skipif(not compat.KEEPS_TIME_ZONES, reason="QGIS before 3.28.4 drops time zones")


@pytest.fixture
def export(worker, run, grid, tmp_path):
    """Rasterize a layer and return what the worker finds in its file: (x, y, time, type), and the request."""

    def call(source, **parameters):
        rows = []

        def look(_job, request, folder):
            path, fields = Path(request["events"]), request["fields"]
            as_it_is = path.parent != folder
            layer = QgsVectorLayer(str(path) + (f"|layername={request['layer']}" if request["layer"] else ""))
            assert layer.isValid()
            transform = QgsCoordinateTransform(
                layer.crs(), QgsCoordinateReferenceSystem(UTM), QgsCoordinateTransformContext()
            )
            # A file made for the worker is in the grid's system and holds what is asked for, no more.
            assert bool(request["operation"]) == (as_it_is and not transform.isShortCircuited())
            assert as_it_is or (transform.isShortCircuited() and layer.fields().names() == list(fields))
            for feature in layer.getFeatures():
                for point in feature.geometry().vertices():
                    place = transform.transform(point.x(), point.y())
                    kind = feature[fields["type"]] if "type" in fields else None
                    time = _plain(feature[fields["time"]])
                    rows.append((round(place.x()), round(place.y()), time, _plain(kind)))

        worker.on_job = look
        values = {"INPUT": source, "GRID": grid, "TIME_FIELD": "occurred", "TYPE_FIELD": "kind"}
        run(
            "rasterizeeventstocube",
            values | {"TIME_ZONE": "America/Toronto", "OUTPUT": str(tmp_path / "cube.nc")} | parameters,
        )
        return rows, worker.request

    return call


def _plain(value):
    if compat.is_null(value):
        return None
    return value.toString(Qt.DateFormat.ISODate) if hasattr(value, "toString") else value


def place(wkt: str) -> tuple[int, int]:
    """Return where the grid's system puts a point in longitude and latitude."""
    transform = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem("EPSG:4326"), QgsCoordinateReferenceSystem(UTM), QgsProject.instance()
    )
    point = transform.transform(QgsGeometry.fromWkt(wkt).asPoint())
    return round(point.x()), round(point.y())


# -- which features ------------------------------------------------------------------------------


def test_points_are_reprojected_and_fields_renamed(project, export):
    layer = make_layer(
        project, [(INSIDE, NOON, "Robbery"), ("Point (-79.4 43.7)", NOON.addDays(1), "Assault")]
    )
    rows, request = export(layer)
    assert rows == [
        (*place(INSIDE), "2024-03-07T12:00:00", "Robbery"),
        (*place("Point (-79.4 43.7)"), "2024-03-08T12:00:00", "Assault"),
    ]
    assert request["dropped_before"] == {"null_geometry": 0, "reprojection": 0}


def test_without_type_field_there_is_none(project, export):
    layer = make_layer(project, [(INSIDE, NOON, "Robbery")])
    assert export(layer, TYPE_FIELD=None)[0] == [(*place(INSIDE), "2024-03-07T12:00:00", None)]


def test_one_field_may_be_time_and_type(project, export):
    layer = make_layer(project, [(INSIDE, "2024-03-07", "x")], time_type="string")
    assert export(layer, TYPE_FIELD="occurred")[0] == [(*place(INSIDE), "2024-03-07", "2024-03-07")]


def test_selected_features_only(project, export):
    layer = make_layer(
        project, [(INSIDE, NOON, kind) for kind in "abcd"] + [(None, NOON, "e"), (None, NOON, "f")]
    )
    layer.selectByExpression("kind in ('b', 'd', 'f')")
    rows, request = export(QgsProcessingFeatureSourceDefinition(layer.id(), True))
    assert sorted(row[3] for row in rows) == ["b", "d"]
    assert request["dropped_before"]["null_geometry"] == 1


@pytest.mark.skipif(Qgis.QGIS_VERSION_INT < 33200, reason="QGIS has feature filters since 3.32")
@pytest.mark.parametrize("selected", [False, True])
def test_feature_filter(project, export, selected):
    layer = make_layer(project, [(INSIDE, NOON, kind) for kind in "abcd"] + [(None, NOON, "c")])
    layer.selectByExpression("kind < 'c'")
    source = QgsProcessingFeatureSourceDefinition(layer.id(), selected)
    source.filterExpression = "\"kind\" in ('b', 'c')"
    rows, request = export(source)
    assert sorted(row[3] for row in rows) == (["b"] if selected else ["b", "c"])
    assert request["dropped_before"]["null_geometry"] == (0 if selected else 1)


def saved(layer: QgsVectorLayer, path: Path, driver: str = "GPKG") -> QgsVectorLayer:
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = driver
    QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), QgsCoordinateTransformContext(), options)
    copy = QgsVectorLayer(str(path), path.stem, "ogr")
    QgsProject.instance().addMapLayer(copy)
    return copy


def test_layer_filter(project, export, tmp_path):
    layer = saved(
        make_layer(project, [(INSIDE, NOON, kind) for kind in "abc"]), tmp_path / "with spaces é.gpkg"
    )
    assert layer.setSubsetString("kind = 'b'")
    assert [row[3] for row in export(layer)[0]] == ["b"]
    layer.setSubsetString("")
    assert [row[3] for row in export(layer)[0]] == ["a", "b", "c"]


def test_unsaved_edits_count(project, export, tmp_path):
    layer = saved(make_layer(project, [(INSIDE, NOON, kind) for kind in "abc"]), tmp_path / "edits.gpkg")
    first, second, _ = layer.getFeatures()
    assert layer.startEditing()
    layer.deleteFeature(first.id())
    layer.changeAttributeValue(second.id(), layer.fields().lookupField("kind"), "changed")
    new = QgsFeature(layer.fields())
    new["kind"], new["occurred"] = "new", NOON
    new.setGeometry(QgsGeometry.fromWkt(INSIDE))
    layer.addFeature(new)
    assert sorted(row[3] for row in export(layer)[0]) == ["c", "changed", "new"]
    layer.rollBack()


def test_a_file_needs_no_project(export, project, tmp_path):
    path = tmp_path / "événements.gpkg"
    project.removeMapLayer(saved(make_layer(project, [(INSIDE, NOON, "a")]), path))
    assert [row[3] for row in export(str(path))[0]] == ["a"]


def test_other_providers(export, tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("kind,x,y,occurred\na,-79.45,43.72,2024-03-07T12:00:00\nb,,,2024-03-07T12:00:00\n")
    uri = f"{table.as_uri()}?type=csv&xField=x&yField=y&crs=EPSG:4326&detectTypes=no"
    layer = QgsVectorLayer(uri, "events", "delimitedtext")
    QgsProject.instance().addMapLayer(layer)
    rows, request = export(layer)
    assert [(row[:2], row[3]) for row in rows] == [(place(INSIDE), "a")]
    assert request["dropped_before"] == {"null_geometry": 1, "reprojection": 0}


@pytest.mark.parametrize(
    ("geometry", "text"), [("MultiPoint", "MultiPoint ((1 2),(3 4))"), ("PointZ", "PointZ (1 2 9)")]
)
def test_kinds_of_points(project, export, geometry, text):
    layer = make_layer(project, [(text, NOON, "a")], geometry=geometry, crs=UTM)
    expected = [(1, 2), (3, 4)] if geometry == "MultiPoint" else [(1, 2)]
    assert [row[:2] for row in export(layer)[0]] == expected


def test_what_has_no_place_is_counted(project, export):
    rows, request = export(
        make_layer(
            project,
            [
                (INSIDE, NOON, "a"),
                (None, NOON, "null"),
                ("Point EMPTY", NOON, "empty"),
                ("Point (-79.4 95)", NOON, "beyond the pole"),
                (None, NOON, "null"),
                (INSIDE, NULL, "no date"),
            ],
        )
    )
    assert [row[2:] for row in rows] == [("2024-03-07T12:00:00", "a"), (None, "no date")]
    assert request["dropped_before"] == {"null_geometry": 3, "reprojection": 1}


def test_counts_start_anew_each_time(project, export):
    layer = make_layer(project, [(INSIDE, NOON, "a"), ("Point (-79.4 95)", NOON, "b"), (None, NOON, "c")])
    for _ in range(2):
        assert export(layer)[1]["dropped_before"] == {"null_geometry": 1, "reprojection": 1}


def test_a_later_algorithm_survives_a_reprojection_failure(project, worker, algorithm, grid, tmp_path):
    """The callback that counts failures stays in the context of a model after the step has ended."""
    from qgis.core import QgsApplication, QgsProcessingContext

    layer = make_layer(project, [(INSIDE, NOON, "a"), ("Point (-79.4 95)", NOON, "b")])
    context = QgsProcessingContext()
    context.setProject(project)
    parameters = {
        "INPUT": layer.id(),
        "GRID": grid,
        "TIME_FIELD": "occurred",
        "OUTPUT": str(tmp_path / "c.nc"),
    }
    algorithm("rasterizeeventstocube").run(parameters, context, Notes())
    native = QgsApplication.processingRegistry().createAlgorithmById("native:extractbyextent")
    if native is None:
        pytest.skip("QGIS's own algorithms are not loaded")
    extent = f"{WEST},{WEST + 90000},{NORTH - 90000},{NORTH} [{UTM}]"
    native.run({"INPUT": layer.id(), "EXTENT": extent, "OUTPUT": "memory:"}, context, Notes())


# -- times ---------------------------------------------------------------------------------------


@keeps_zones
@pytest.mark.parametrize(
    ("moment", "arrives"),
    [
        (NOON, "2024-03-07T12:00:00"),
        (QDateTime(NOON.date(), NOON.time(), Qt.TimeSpec.UTC), "2024-03-07T12:00:00Z"),
        (
            QDateTime(NOON.date(), NOON.time(), Qt.TimeSpec.OffsetFromUTC, -4 * 3600),
            "2024-03-07T12:00:00-04:00",
        ),
        (QDateTime(NOON.date(), NOON.time(), QTimeZone(b"America/Toronto")), "2024-03-07T12:00:00-05:00"),
    ],
)
def test_time_zones_of_date_times(project, export, moment, arrives):
    layer = make_layer(project, [(INSIDE, moment, "a")])
    assert [row[2] for row in export(layer)[0]] == [arrives]


@keeps_zones
@pytest.mark.parametrize(
    ("driver", "ending"), [("GPKG", "gpkg"), ("GeoJSON", "geojson"), ("FlatGeobuf", "fgb")]
)
def test_time_zones_of_files(project, export, tmp_path, driver, ending):
    utc = QDateTime(NOON.date(), NOON.time(), Qt.TimeSpec.UTC)
    layer = saved(make_layer(project, [(INSIDE, utc, "a")]), tmp_path / f"t.{ending}", driver)
    assert [row[2] for row in export(layer)[0]] == ["2024-03-07T12:00:00Z"]


@pytest.mark.parametrize(
    ("time_type", "value", "arrives"),
    [
        ("date", QDate(2024, 3, 7), "2024-03-07T00:00:00"),
        ("string", "07.03.2024 12 Uhr", "07.03.2024 12 Uhr"),
        ("string", "", ""),
        ("integer", 1709812800, 1709812800),
        ("int8", 1709812800123, 1709812800123),
        ("double", 1709812800.5, 1709812800.5),
    ],
)
def test_kinds_of_time_fields(project, export, time_type, value, arrives):
    layer = make_layer(project, [(INSIDE, value, "a"), (INSIDE, NULL, "b")], time_type=time_type)
    assert [row[2] for row in export(layer)[0]] == [arrives, None]


@pytest.mark.skipif(compat.KEEPS_TIME_ZONES, reason="this QGIS keeps time zones")
def test_old_versions_warn_about_time_zones(project, worker, run, grid, tmp_path):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    done = run(
        "rasterizeeventstocube",
        {"INPUT": layer, "GRID": grid, "TIME_FIELD": "occurred", "OUTPUT": str(tmp_path / "c.nc")},
    )
    assert any("drops time zones" in text for text in done.feedback.warnings)


# -- the rest of the request ---------------------------------------------------------------------


def test_the_request_and_the_outputs(project, worker, run, grid, tmp_path, no_leftovers):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    output = str(tmp_path / "a cube – ünï.nc")
    done = run(
        "rasterizeeventstocube",
        {
            "INPUT": layer,
            "GRID": grid,
            "TIME_FIELD": "occurred",
            "TYPE_FIELD": "kind",
            "STEP": "6h",
            "TIME_ZONE": " America/Toronto ",
            "START": "2024-03-01T00:00:00",
            "END": QDateTime(QDate(2024, 4, 1), QTime(0, 0)),
            "DAY_FIRST": True,
            "MAX_TYPES": 3,
            "OUTPUT": output,
        },
    )
    job, request = worker.calls[0]
    assert job == "rasterize_events"
    events = Path(request.pop("events"))
    assert events.suffix == ".fgb" and not events.exists()
    assert request == {
        "grid": grid,
        "step": "6h",
        "time_zone": "America/Toronto",
        "times_are_local": False,
        "day_first": True,
        "start": "2024-03-01T00:00:00",
        "end": "2024-04-01T00:00:00",
        "max_types": 3,
        "fields": {"time": "time", "type": "type"},
        "layer": None,
        "operation": None,
        "spread": False,
        "severity": "",
        "severity_table": None,
        "drop_duplicates": False,
        "dropped_before": {"null_geometry": 0, "reprojection": 0},
        "output": output,
    }
    assert done.outputs == {
        "OUTPUT": output,
        "EVENTS_READ": 100,
        "EVENTS_USED": 90,
        "EVENTS_DROPPED": 10,
        "DROPPED_NULL_GEOMETRY": 0,
        "DROPPED_NULL_TIME": 3,
        "DROPPED_BAD_TIME": 0,
        "DROPPED_DUPLICATE": 0,
        "DROPPED_OUTSIDE_GRID": 7,
        "DROPPED_OUTSIDE_AREA": 0,
        "DROPPED_OUTSIDE_PERIOD": 0,
        "DROPPED_REPROJECTION": 0,
        "AMBIGUOUS_TIMES": 2,
        "SKIPPED_TIMES": 1,
        "STEPS": 60,
        "TYPE_COUNT": 1,
    }
    assert "Reading the events" in done.feedback.stages


def test_cancel_while_reading(project, worker, algorithm, grid, tmp_path, no_leftovers):
    class Impatient(Notes):
        def setProgressText(self, text):
            super().setProgressText(text)
            self.cancel()

    from qgis.core import QgsProcessingContext

    layer = make_layer(project, [(INSIDE, NOON, "a")] * 50)
    context = QgsProcessingContext()
    context.setProject(project)
    parameters = {
        "INPUT": layer.id(),
        "GRID": grid,
        "TIME_FIELD": "occurred",
        "OUTPUT": str(tmp_path / "c.nc"),
    }
    with pytest.raises(QgsProcessingException, match="The job was cancelled"):
        algorithm("rasterizeeventstocube").run(parameters, context, Impatient(), {}, False)
    assert worker.calls == []
    assert not (tmp_path / "c.nc").exists()


# -- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def refused(worker, run, grid, tmp_path, no_leftovers):
    """Run with one thing wrong and return the message; the worker is not asked and nothing is left."""
    before = {path.name for path in tmp_path.iterdir()}

    def call(**parameters) -> str:
        values = {"GRID": grid, "TIME_FIELD": "occurred", "OUTPUT": str(tmp_path / "cube.nc")}
        with pytest.raises(QgsProcessingException) as caught:
            run("rasterizeeventstocube", values | parameters)
        assert worker.calls == []
        assert {path.name for path in tmp_path.iterdir()} == before
        return str(caught.value)

    return call


def test_a_layer_without_crs(project, refused):
    message = refused(INPUT=make_layer(project, [(INSIDE, NOON, "a")], crs="", name="no system"))
    assert message.endswith(
        "INPUT = no system: The layer has no coordinate reference system. Assign the right one: Layer > Set "
        "CRS of Layer in QGIS, or the algorithm 'Assign projection'."
    )


def test_an_empty_layer(project, refused):
    message = refused(INPUT=make_layer(project, []))
    assert message.endswith(
        "INPUT: The layer has no events. Check its filter, its selection and 'Selected features only'."
    )


def test_nothing_selected(project, refused):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    message = refused(INPUT=QgsProcessingFeatureSourceDefinition(layer.id(), True))
    assert "INPUT: The layer has no events." in message


def test_no_geometry_at_all(project, refused):
    message = refused(INPUT=make_layer(project, [(None, NOON, "a"), (None, NOON, "b")]))
    assert message.endswith(
        "INPUT: Not one of 2 features has a geometry. Choose a layer of points, or make one with 'Create "
        "points layer from table'."
    )


def test_nothing_can_be_reprojected(project, refused):
    message = refused(INPUT=make_layer(project, [("Point (630000 4840000)", NOON, "a")]))
    assert (
        "INPUT: Not one of 1 features can be brought to the grid's coordinate system (EPSG:26917)." in message
    )
    assert "check it (Layer > Set CRS of Layer)" in message


def test_a_field_that_is_not_there(project, refused):
    message = refused(INPUT=make_layer(project, [(INSIDE, NOON, "a")], name="crimes"), TIME_FIELD="date")
    assert message.endswith(
        "TIME_FIELD = date: The layer 'crimes' has no such field. Choose one of its fields: id, occurred, "
        "kind."
    )


def test_a_field_of_the_wrong_kind(project, refused):
    layer = make_layer(project, [(INSIDE, True, "a")], time_type="bool")
    assert "TIME_FIELD = occurred: The field holds boolean, not dates, text or numbers." in refused(
        INPUT=layer
    )


def test_a_layer_that_is_not_there(refused, tmp_path):
    message = refused(INPUT=str(tmp_path / "missing.gpkg"))
    assert f"INPUT = {tmp_path / 'missing.gpkg'}: The layer cannot be opened." in message


def test_a_grid_that_is_damaged(project, refused, tmp_path, worker, run):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    message = refused(INPUT=layer, GRID=__file__)
    assert f"GRID = {__file__}: The raster cannot be opened: it is missing, damaged or no raster." in message


def test_a_period_that_ends_before_it_begins(project, refused):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    message = refused(INPUT=layer, START="2024-03-02T00:00:00", END="2024-03-01T00:00:00")
    assert message.endswith(
        "END = 2024-03-01T00:00:00: The period ends before it begins. Set END after START "
        "(2024-03-02T00:00:00), or leave both empty."
    )


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("yesterday", "START = yesterday: This is no date and time. Write it as 2024-01-31T18:00:00."),
        (
            "2024-03-02T00:00:00Z",
            "START = 2024-03-02T00:00:00Z: The time has a time zone of its own. Write it by",
        ),
    ],
)
def test_a_time_that_is_none(project, refused, value, complaint):
    assert complaint in refused(INPUT=make_layer(project, [(INSIDE, NOON, "a")]), START=value)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (
            "STEP",
            "fortnight",
            "STEP = fortnight: This is not one of the choices. Choose one of: 15min, 30min, 1h, 2h, 3h, 4h, "
            "6h, 8h, 12h, day, week, 14days, 30days, month, quarter, shifts.",
        ),
        ("MAX_TYPES", 0, "MAX_TYPES = 0: This is not a whole number of at least 1. Choose a larger value."),
        (
            "TIME_FIELD",
            None,
            "TIME_FIELD = not set: A field with the date is needed, and the fields are none that Gridcast "
            "knows. Choose one of the fields: id, occurred, kind. Known tables: gunshots (UserID, time,",
        ),
    ],
)
def test_values_that_parameters_refuse(project, refused, key, value, complaint):
    assert complaint in refused(INPUT=make_layer(project, [(INSIDE, NOON, "a")]), **{key: value})


def test_outputs_that_cannot_be_written(project, refused, tmp_path):
    layer = make_layer(project, [(INSIDE, NOON, "a")])
    missing = tmp_path / "missing" / "cube.nc"
    assert f"OUTPUT = {missing}: The folder '{missing.parent}' does not exist." in refused(
        INPUT=layer, OUTPUT=str(missing)
    )
    assert f"OUTPUT = {tmp_path / 'cube.txt'}: The file name has another ending than" in refused(
        INPUT=layer, OUTPUT=str(tmp_path / "cube.txt")
    )
    assert "Give it the ending .nc." in refused(INPUT=layer, OUTPUT=str(tmp_path / "cube"))


def test_points_far_away_are_no_failure(project, export):
    """They are outside the grid, which the worker counts."""
    rows, request = export(make_layer(project, [("Point (2.35 48.86)", NOON, "Paris")]))
    assert len(rows) == 1 and request["dropped_before"]["reprojection"] == 0
