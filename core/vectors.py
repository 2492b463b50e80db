# SPDX-License-Identifier: GPL-2.0-or-later
"""Polygon layers in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import shapely

from .atomic import atomic_path
from .errors import InputError


# What GDAL writes for "this time is UTC"; otherwise it stands for "no zone known".
_UTC = 100


def read_polygons(path: str | Path) -> shapely.Geometry:
    """Return the union of all polygons of a layer; invalid rings are repaired."""
    _, _, geometry, _ = pyogrio.raw.read(path, columns=[])
    polygons = shapely.from_wkb(geometry)
    polygons = polygons[~(shapely.is_missing(polygons) | shapely.is_empty(polygons))]
    broken = ~shapely.is_valid(polygons)
    polygons[broken] = shapely.make_valid(polygons[broken])
    return shapely.union_all(polygons)


def write_polygons(
    path: str | Path,
    polygons: np.ndarray,
    fields: Mapping[str, np.ndarray],
    crs: pyproj.CRS,
    layer: str,
    parameter: str = "OUTPUT",
) -> None:
    """Write polygons with their attributes as a GeoPackage, whole or not at all.

    ``datetime64`` fields are UTC; NaN becomes an empty value.
    """
    multi = shapely.multipolygons(
        shapely.get_parts(polygons), indices=shapely.get_parts(polygons, return_index=True)[1]
    )
    with atomic_path(path, parameter) as part:
        try:
            pyogrio.raw.write(
                part,
                geometry=shapely.to_wkb(multi),
                field_data=list(fields.values()),
                fields=list(fields),
                crs=crs.to_wkt(),
                geometry_type="MultiPolygon",
                driver="GPKG",
                layer=layer,
                gdal_tz_offsets={
                    name: np.full(len(values), _UTC)
                    for name, values in fields.items()
                    if np.issubdtype(values.dtype, np.datetime64)
                },
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise InputError(
                f"The polygons cannot be written: {error}.",
                hint="Check the free space of the disk and choose another place.",
                parameter=parameter,
                value=path,
            ) from error
