# SPDX-License-Identifier: GPL-2.0-or-later
"""Polygon layers in and out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from .atomic import atomic_path
from .errors import InputError

# What GDAL writes for "this time is UTC"; otherwise it stands for "no zone known".
_UTC = 100


def read_polygons(path: str | Path) -> shapely.Geometry:
    """Return the union of all polygons of a layer; invalid rings are repaired."""
    try:
        _, _, geometry, _ = pyogrio.raw.read(path, columns=[])
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"The layer cannot be read: {error}.",
            hint="Choose a polygon layer.",
            parameter="STUDY_AREA",
            value=path,
        ) from error
    polygons = shapely.from_wkb(geometry)
    polygons = polygons[~(shapely.is_missing(polygons) | shapely.is_empty(polygons))]
    broken = ~shapely.is_valid(polygons)
    polygons[broken] = shapely.make_valid(polygons[broken])
    return shapely.union_all(polygons)


def geopackage(
    polygons: np.ndarray, fields: Mapping[str, np.ndarray], crs: pyproj.CRS, layer: str
) -> memoryview:
    """Return the bytes of a GeoPackage with polygons and their attributes.

    ``datetime64`` fields are UTC; NaN becomes an empty value.
    """
    multi = shapely.multipolygons(
        shapely.get_parts(polygons), indices=shapely.get_parts(polygons, return_index=True)[1]
    )
    buffer = io.BytesIO()
    pyogrio.raw.write(
        buffer,
        geometry=shapely.to_wkb(multi),
        field_data=list(fields.values()),
        fields=list(fields),
        crs=crs.to_wkt(),
        geometry_type="MultiPolygon",
        driver="GPKG",
        # Older versions of GDAL, such as the one inside QGIS, warn about newer forms.
        dataset_options={"VERSION": "1.2"},
        layer=layer,
        gdal_tz_offsets={
            name: np.full(len(values), _UTC)
            for name, values in fields.items()
            if np.issubdtype(values.dtype, np.datetime64)
        },
    )
    return buffer.getbuffer()


def write_polygons(
    path: str | Path,
    polygons: np.ndarray,
    fields: Mapping[str, np.ndarray],
    crs: pyproj.CRS,
    layer: str,
    parameter: str = "OUTPUT",
) -> None:
    """Write polygons with their attributes as a GeoPackage, whole or not at all."""
    # SQLite explains a full disk badly. Python writes the bytes: its error tells it from a forbidden folder.
    content = geopackage(polygons, fields, crs, layer)
    with atomic_path(path, parameter) as part:
        part.write_bytes(content)
