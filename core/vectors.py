# SPDX-License-Identifier: GPL-2.0-or-later
"""Polygon layers in and out, and tables without geometry."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class StudyArea:
    """The union of the polygons of a layer, and what was wrong with them.

    Attributes
    ----------
    area : shapely geometry
        Valid; may be empty.
    polygons : int
        Features that have a geometry.
    repaired : int
        Those whose rings were invalid (they crossed or touched themselves) and were repaired.
    lost : int
        Those that have no area, also after repair.
    """

    area: shapely.Geometry
    polygons: int
    repaired: int
    lost: int


def read_polygons(path: str | Path) -> StudyArea:
    """Return the union of all polygons of a layer; invalid rings are repaired and counted."""
    polygons = _read_geometry(path, "STUDY_AREA", "Choose a polygon layer.")
    polygons = polygons[~(shapely.is_missing(polygons) | shapely.is_empty(polygons))]
    broken = ~shapely.is_valid(polygons)
    polygons[broken] = shapely.make_valid(polygons[broken])
    flat = shapely.area(polygons) == 0
    return StudyArea(
        shapely.union_all(polygons[~flat]), len(polygons), int((broken & ~flat).sum()), int(flat.sum())
    )


def read_places(path: str | Path) -> np.ndarray:
    """Return x and y of all points of a layer: float64 `(n, 2)`; multipoints give several."""
    places = shapely.get_coordinates(_read_geometry(path, "INPUT", "Choose a layer of points."))
    return places[np.isfinite(places).all(axis=1)]


def _read_geometry(path: str | Path, parameter: str, fix: str) -> np.ndarray:
    try:
        _, _, geometry, _ = pyogrio.raw.read(path, columns=[])
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"The layer cannot be read: {error}.", hint=fix, parameter=parameter, value=path
        ) from error
    return shapely.from_wkb(geometry, on_invalid="fix")


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


def attribute_table(fields: Mapping[str, np.ndarray], layer: str) -> memoryview:
    """Return the bytes of a GeoPackage with a table without geometry; NaN becomes an empty value."""
    buffer = io.BytesIO()
    pyogrio.raw.write(
        buffer,
        geometry=None,
        field_data=list(fields.values()),
        fields=list(fields),
        driver="GPKG",
        dataset_options={"VERSION": "1.2"},
        layer=layer,
    )
    return buffer.getbuffer()
