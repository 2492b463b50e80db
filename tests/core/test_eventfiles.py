# SPDX-License-Identifier: GPL-2.0-or-later
"""Event layers of any format, read in blocks; tables that are known by their columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from synthetic import write_points

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.eventfiles import EventSource
from gridcast_qgis.core.schemas import location_id, location_of, recognise

TORONTO = "America/Toronto"
POINTS = [shapely.Point(float(i), 10.0 * i) for i in range(10)]
TIMES = [f"2024-01-{i + 1:02}T12:00:00" for i in range(10)]


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".geojson"])
@pytest.mark.parametrize("rows", [3, 100])
def test_blocks_hold_all_rows_whatever_the_format(tmp_path, suffix, rows):
    kinds = ["a", "b"] * 5
    # With its spatial index FlatGeobuf changes the order of the rows.
    options = {"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}
    crs = "EPSG:4326" if suffix == ".geojson" else "EPSG:32617"
    path = write_points(
        tmp_path / f"events{suffix}", POINTS, {"time": TIMES, "type": kinds}, crs=crs, **options
    )
    source = EventSource(path, fields={"time": "time", "type": "type"}, time_zone=TORONTO)
    blocks = list(source.blocks(rows))
    assert [len(block) for block in blocks] == ([3, 3, 3, 1] if rows == 3 else [10])
    table = source.read()
    assert table.x.tolist() == [float(i) for i in range(10)]
    assert table.y.tolist() == [10.0 * i for i in range(10)]
    assert table.time.astype(str).tolist() == [f"2024-01-{i + 1:02}T17:00:00" for i in range(10)]
    assert [table.type_names[code] for code in table.type_code] == kinds


def test_a_table_with_coordinates_in_columns_needs_no_geometry(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text(
        "CATEGORY,occ_date,x,y\nBURGLARY,2012-03-01,7661410,682295\nTHEFT,2012-03-02,,1\nX,?,1,2\n"
    )
    to_degrees = "+proj=pipeline +step +proj=unitconvert +xy_in=ft +xy_out=m"
    fields = {"time": "occ_date", "type": "CATEGORY", "x": "x", "y": "y"}
    table = EventSource(path, fields=fields, operation=to_degrees).read()
    np.testing.assert_allclose([table.x[0], table.y[0]], [7661410 * 0.3048, 682295 * 0.3048])
    assert (table.dropped["null_geometry"], table.dropped["bad_time"]) == (1, 1)
    assert table.type_names == ("BURGLARY",)


def test_every_role_is_read(tmp_path):
    path = write_points(
        tmp_path / "events.gpkg",
        POINTS[:3],
        {
            "day": ["2024-01-01", "2024-01-02", "2024-01-03"],
            "at": ["18:00", "1900", "x"],
            "until": ["2024-01-02 03:00", None, "2023-12-31"],
            "known": ["2024-01-05", "?", None],
            "score": [1.5, None, 3.0],
            "case": ["A1", None, "A3"],
        },
    )
    fields = {
        "time": "day",
        "clock": "at",
        "end": "until",
        "reported": "known",
        "severity": "score",
        "identity": "case",
    }
    table = EventSource(path, fields=fields).read()
    assert table.time.astype(str).tolist() == [
        "2024-01-01T18:00:00",
        "2024-01-02T19:00:00",
        "2024-01-03T00:00:00",
    ]
    assert table.end.astype(str).tolist() == ["2024-01-02T03:00:00", "NaT", "NaT"]
    assert table.reported.astype(str).tolist() == ["2024-01-05T00:00:00", "NaT", "NaT"]
    assert table.identity.tolist() == ["A1", None, "A3"]
    np.testing.assert_array_equal(table.severity, [1.5, np.nan, 3.0])
    assert table.notes == {"ambiguous_time": 0, "skipped_time": 0, "no_clock": 1, "end_before_start": 1}


def test_places_that_cannot_be_reprojected_are_counted(tmp_path):
    points = [
        shapely.Point(-79.4, 43.7),
        shapely.Point(10, 1e9),
        shapely.MultiPoint([(-79, 43), (5, 1e9)]),
        None,
    ]
    path = write_points(tmp_path / "events.gpkg", points, {"time": TIMES[:4]}, kind="Unknown")
    operation = "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=utm +zone=17"
    table = EventSource(path, operation=operation).read()
    expected = pyproj.Transformer.from_crs(4326, 32617, always_xy=True).transform([-79.4, -79], [43.7, 43])
    np.testing.assert_allclose([table.x, table.y], expected)
    assert (table.dropped["reprojection"], table.dropped["null_geometry"]) == (2, 1)
    assert table.rows_read == 5


def test_an_operation_that_proj_does_not_know_is_refused(tmp_path):
    path = write_points(tmp_path / "events.gpkg", POINTS, {"time": TIMES})
    with pytest.raises(InputError, match="INPUT = \\+proj=nonsense: The layer cannot be brought to the grid"):
        EventSource(path, operation="+proj=nonsense").read()


def test_text_of_several_kinds_in_one_column(tmp_path):
    texts = ["2024-01-01T12:00:00Z", "01/02/2024 12:00", "2024-01-03 12:00", "1704369600", None]
    path = write_points(tmp_path / "events.gpkg", POINTS[:5], {"time": texts})
    table = EventSource(path, time_zone=TORONTO).read()
    assert table.time.astype(str).tolist() == [
        *("2024-01-01T12:00:00", "2024-01-02T17:00:00", "2024-01-03T17:00:00", "2024-01-04T12:00:00"),
    ]


def test_the_named_layer_is_read(tmp_path):
    path = tmp_path / "two.gpkg"
    write_points(path, POINTS[:2], {"time": TIMES[:2]}, layer="one")
    write_points(path, POINTS[:5], {"time": TIMES[:5]}, layer="other", append=True)
    assert len(EventSource(path, "one").read()) == 2
    assert len(EventSource(path, "other").read()) == 5
    with pytest.raises(InputError, match="The layer cannot be read"):
        EventSource(path, "third").read()


# -- tables known by their columns ---------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        "CATEGORY|CALL GROUPS|final_case_type|CASE DESC|occ_date|x_coordinate|y_coordinate|census_tract",
        "CATEGORY|CALL_GROUP|final_case|CASE_DESC|occ_date|x_coordina|y_coordina|census_tra",
        "category|call_group|final_case_type|case_desc|occ_date|x_coordinate|y_coordinate",
    ],
)
def test_calls_for_service_are_recognised(columns):
    columns = columns.split("|")
    schema = recognise(columns)
    assert schema.crs == "EPSG:2913" and pyproj.CRS(schema.crs).axis_info[0].unit_name == "foot"
    assert set(schema.roles.values()) <= set(columns)
    assert (schema.roles["time"], schema.roles["type"]) == ("occ_date", columns[0])
    assert schema.roles["x"] == columns[5]


def test_gunshots_are_recognised():
    schema = recognise(["UserID", "Time", "Longitude", "Latitude", "Type", "LocationID"])
    assert schema.crs == "EPSG:4326"
    assert schema.roles == {
        "identity": "UserID",
        "time": "Time",
        "x": "Longitude",
        "y": "Latitude",
        "type": "Type",
    }


def test_gunshots_need_no_number():
    schema = recognise(["datetime", "type", "source", "latitude", "longitude"])
    assert schema.roles == {"time": "datetime", "x": "longitude", "y": "latitude", "type": "type"}


@pytest.mark.parametrize("columns", [[], ["time", "type"], ["Longitude", "Latitude", "Time"], ["occ_date"]])
def test_other_tables_are_not(columns):
    assert recognise(columns) is None


EXTENT = (-77.12, 38.79, -76.91, 39.0)


def test_a_location_id_packs_latitude_and_longitude():
    assert location_id(EXTENT[0], EXTENT[1], EXTENT) == 0
    assert location_id(EXTENT[2], EXTENT[3], EXTENT) == 0xFFFFFFFF
    west_north = location_id(EXTENT[0], EXTENT[3], EXTENT)
    assert west_north == 0xFFFF << 16


def test_a_location_id_tells_the_place_again():
    random = np.random.default_rng(0)
    for longitude, latitude in zip(random.uniform(*EXTENT[::2], 100), random.uniform(*EXTENT[1::2], 100)):
        there = location_of(location_id(longitude, latitude, EXTENT), EXTENT)
        # Half a step of either coordinate: 0.16 m of latitude and as much of longitude.
        assert abs(there[0] - longitude) <= 0.21 / 65536 / 2 + 1e-12
        assert abs(there[1] - latitude) <= 0.21 / 65536 / 2 + 1e-12


def test_a_location_beyond_the_extent_is_refused():
    with pytest.raises(ValueError, match="40.0 lies outside 38.79 … 39.0"):
        location_id(-77.0, 40.0, EXTENT)


def test_a_frame_of_dates_needs_no_file():
    from gridcast_qgis.core.events import EventTable

    frame = pd.DataFrame({"when": pd.to_datetime(["2024-01-01", "2024-01-02"]), "kind": ["a", None]})
    table = EventTable.from_arrays([1, 2], [3, 4], frame["when"], frame["kind"])
    assert table.type_names == ("(no type)", "a")
