# SPDX-License-Identifier: GPL-2.0-or-later
"""Polygons, points and tables, in and out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from .atomic import atomic_path
from .errors import InputError
from .reporter import Reporter

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
    polygons, _ = read_table(path, (), "STUDY_AREA", "Choose a polygon layer.")
    polygons = polygons[~(shapely.is_missing(polygons) | shapely.is_empty(polygons))]
    broken = ~shapely.is_valid(polygons)
    polygons[broken] = shapely.make_valid(polygons[broken])
    flat = shapely.area(polygons) == 0
    return StudyArea(
        shapely.union_all(polygons[~flat]), len(polygons), int((broken & ~flat).sum()), int(flat.sum())
    )


def usable_polygons(
    polygons: np.ndarray, reporter: Reporter, parameter: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the polygons that have an area, with valid rings, and which of all they are (bool).

    What was repaired or left out is said, in the name of `parameter`.
    """
    there = ~(shapely.is_missing(polygons) | shapely.is_empty(polygons))
    corners, owner = shapely.get_coordinates(polygons, return_index=True)
    there[owner[~np.isfinite(corners).all(axis=1)]] = False
    broken = there & ~shapely.is_valid(polygons)
    polygons = polygons.copy()
    polygons[broken] = shapely.make_valid(polygons[broken], method="structure", keep_collapsed=False)
    there &= shapely.area(polygons) > 0
    if (repaired := int((broken & there).sum())) > 0:
        reporter.warning(f"{parameter}: {repaired:,} polygons had rings that cross themselves; repaired.")
    if (lost := int((~there).sum())) > 0:
        reporter.warning(f"{parameter}: {lost:,} features have no area and are left out.")
    return polygons[there], there


def read_places(path: str | Path) -> np.ndarray:
    """Return x and y of all points of a layer: float64 `(n, 2)`; multipoints give several."""
    places = shapely.get_coordinates(read_table(path, (), "INPUT", "Choose a layer of points.")[0])
    return places[np.isfinite(places).all(axis=1)]


def read_table(
    path: str | Path, fields: Sequence[str], parameter: str, fix: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the geometries of a layer and the values of some of its fields.

    Raises
    ------
    InputError
        The layer cannot be read; names `parameter` and says what to do, `fix`.
    """
    try:
        meta, _, geometry, columns = pyogrio.raw.read(path, columns=list(fields))
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"The layer cannot be read: {error}.", hint=fix, parameter=parameter, value=path
        ) from error
    return shapely.from_wkb(geometry, on_invalid="fix"), dict(zip(meta["fields"], columns))


def geopackage(
    shapes: np.ndarray | None,
    fields: Mapping[str, np.ndarray],
    crs: pyproj.CRS | None,
    layer: str,
    kind: str = "MultiPolygon",
) -> memoryview:
    """Return the bytes of a GeoPackage with polygons or points and their attributes.

    ``datetime64`` fields are UTC; NaN becomes an empty value. `kind` is ``MultiPolygon``, of single ones too,
    or ``Point``; without shapes and a coordinate system it is a table.
    """
    if shapes is not None and kind == "MultiPolygon":
        parts, owners = shapely.get_parts(shapes, return_index=True)
        shapes = shapely.multipolygons(parts, indices=owners)
    buffer = io.BytesIO()
    pyogrio.raw.write(
        buffer,
        geometry=None if shapes is None else shapely.to_wkb(shapes),
        field_data=list(fields.values()),
        fields=list(fields),
        crs=None if crs is None else crs.to_wkt(),
        geometry_type=None if shapes is None else kind,
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
    _write(path, geopackage(polygons, fields, crs, layer), parameter)


def write_points(
    path: str | Path,
    x: np.ndarray,
    y: np.ndarray,
    fields: Mapping[str, np.ndarray],
    crs: pyproj.CRS,
    layer: str,
    parameter: str,
) -> None:
    """Write points with their attributes as a GeoPackage, whole or not at all."""
    _write(path, geopackage(shapely.points(x, y), fields, crs, layer, "Point"), parameter)


def write_table(path: str | Path, fields: Mapping[str, np.ndarray], layer: str, parameter: str) -> None:
    """Write a table without places as a GeoPackage, whole or not at all."""
    _write(path, geopackage(None, fields, None, layer), parameter)


def _write(path: str | Path, content: memoryview, parameter: str) -> None:
    # SQLite explains a full disk badly. Python writes the bytes: its error tells it from a forbidden folder.
    with atomic_path(path, parameter) as part:
        part.write_bytes(content)
