# SPDX-License-Identifier: GPL-2.0-or-later
"""The suggested coordinate system is the one that the EPSG registry has for a place."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from pyproj.database import query_utm_crs_info

from gridcast_qgis.core.localcrs import suggested_crs


def test_the_zone_is_that_of_the_registry():
    zones = [zone for zone in query_utm_crs_info(datum_name="WGS 84") if "(" not in zone.name]
    assert len(zones) == 120
    for zone in zones:
        west, south, east, north = zone.area_of_use.bounds
        for longitude in (west + 0.01, (west + east) / 2, east - 0.01):
            for latitude in np.arange(south + 0.1, north, 2.5):
                wider = 0 <= longitude < 42 and (56 <= latitude < 64 or latitude >= 72)  # see below
                assert wider or suggested_crs(longitude, latitude) == f"EPSG:{zone.code}"


@pytest.mark.parametrize(
    ("longitude", "latitude", "code"),
    [
        (-79.4, 43.7, "EPSG:32617"),
        (151.2, -33.9, "EPSG:32756"),
        (-180, 10, "EPSG:32601"),
        (180, 10, "EPSG:32601"),
        (359.9, 10, "EPSG:32630"),
        (0, 0, "EPSG:32631"),
        (5.3, 60.4, "EPSG:32632"),  # Bergen
        (2.9, 60.4, "EPSG:32631"),
        (5.3, 64, "EPSG:32631"),
        (15.6, 78.2, "EPSG:32633"),  # Longyearbyen
        (8.9, 78, "EPSG:32631"),
        (20.9, 78, "EPSG:32633"),
        (21, 78, "EPSG:32635"),
        (33, 78, "EPSG:32637"),
        (42, 78, "EPSG:32638"),
        (21, 84, "EPSG:32634"),
        (21, 84.1, "EPSG:5041"),
        (166, -77.8, "EPSG:32758"),  # McMurdo
        (0, -80, "EPSG:32731"),
        (0, -80.1, "EPSG:5042"),
    ],
)
def test_zones_exceptions_and_poles(longitude, latitude, code):
    assert suggested_crs(longitude, latitude) == code
    assert pyproj.CRS(code).is_projected


@pytest.mark.parametrize(("code", "latitude"), [("EPSG:5041", 86), ("EPSG:5042", -86)])
def test_metres_are_metres_near_the_poles(code, latitude):
    to_plane = pyproj.Transformer.from_crs("EPSG:4326", code, always_xy=True)
    (x1, x2), (y1, y2) = to_plane.transform([20, 20], [latitude, latitude + 0.01])
    true = pyproj.Geod(ellps="WGS84").inv(20, latitude, 20, latitude + 0.01)[2]
    assert ((x1 - x2) ** 2 + (y1 - y2) ** 2) ** 0.5 == pytest.approx(true, rel=0.01)
