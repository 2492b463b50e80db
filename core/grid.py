# SPDX-License-Identifier: GPL-2.0-or-later
"""The grid of cells that events are counted on and forecasts are made for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, cos, floor, radians, sin
from pathlib import Path

import numpy as np
import pyproj
import shapely
from affine import Affine

from .errors import InputError
from .rasters import read_geotiff, write_geotiff

SCHEMA = "grid/1"
MADE_BY = "Build Grid from Layer"

#: A grid with more cells is refused: five years of days on it would need 29 GB.
MAX_CELLS = 4_000_000

#: Metres in one unit of ``cell_unit``.
CELL_UNITS = {
    "metre": 1.0,
    "kilometre": 1000.0,
    "foot": 0.3048,
    "us-survey-foot": 1200.0 / 3937.0,
    "mile": 1609.344,
}

_PLURALS = {"foot": "feet", "us-survey-foot": "US survey feet"}

RULES = ("intersects", "centre", "share")


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid: CRS, affine transform and each cell's share inside the study area.

    Attributes
    ----------
    crs : pyproj.CRS
        Coordinate system of the grid.
    transform : affine.Affine
        Maps (column, row) to map coordinates; (0, 0) is the outer corner of the
        north-western cell. A rotated grid has a rotated transform.
    inside : numpy.ndarray
        float32 `(rows, columns)`, 0..1: share of the cell's area inside the study
        area; 0 where the cell does not belong to it.
    """

    crs: pyproj.CRS
    transform: Affine
    inside: np.ndarray

    @classmethod
    def from_extent(
        cls,
        crs: pyproj.CRS,
        extent: Sequence[float] | None = None,
        *,
        cell_size: float | None = None,
        cell_unit: str = "metre",
        rows: int | None = None,
        columns: int | None = None,
        rotation: float = 0.0,
        study_area: shapely.Geometry | None = None,
        rule: str = "intersects",
        min_share: float = 50.0,
        max_cells: int = MAX_CELLS,
    ) -> Grid:
        """Lay a grid over an extent and mark the cells of the study area.

        Parameters
        ----------
        crs : pyproj.CRS
            Coordinate system of extent, study area and grid.
        extent : (xmin, ymin, xmax, ymax), optional
            What the grid has to cover; by default the bounds of the study area.
        cell_size : float, optional
            Side of the square cells in `cell_unit`; edges then lie on multiples
            of it, so that grids of one size fit together.
        rows, columns : int, optional
            Number of cells instead of a cell size; the extent is divided evenly.
            Allowed in a geographic CRS, where a cell size is not.
        rotation : float
            Degrees that the grid is turned clockwise about the centre of the extent.
        study_area : shapely geometry, optional
            Polygon(s) in `crs`; without it every cell is inside.
        rule : {"intersects", "centre", "share"}
            Which cells belong to the study area: all that share some area with it,
            those whose centre lies in it, those with at least `min_share` percent inside.

        Raises
        ------
        InputError
            Geographic CRS with a cell size, no area, too many cells, bad numbers.
        """
        if rule not in RULES:
            raise InputError(
                "Unknown rule.", hint=f"Choose one of {', '.join(RULES)}.", parameter="RULE", value=rule
            )
        if not 0 <= min_share <= 100:
            raise InputError(
                "The least share of a cell must lie between 0 and 100 percent.",
                hint="50 is usual.",
                parameter="MIN_SHARE",
                value=min_share,
            )
        area = _clean_study_area(study_area)
        bounds = _checked_extent(extent, area)
        if not (rows and columns):
            width = _cell_size_in_crs_units(crs, cell_size, cell_unit, bounds)
        else:
            width = None
        transform, shape = _lay_out(bounds, width, rows, columns, rotation)
        if shape[0] * shape[1] > max_cells:
            raise InputError(
                f"The grid would have {shape[0]:,} x {shape[1]:,} = {shape[0] * shape[1]:,} cells, more than "
                f"the {max_cells:,} allowed; one year of days on it would take "
                f"{shape[0] * shape[1] * 365 * 4 / 1e9:,.0f} GB of memory.",
                hint="Choose larger cells or a smaller study area.",
                parameter="ROWS" if width is None else "CELL_SIZE",
                value=f"{rows} x {columns}" if width is None else f"{cell_size:g} {cell_unit}",
            )
        inside = np.ones(shape, np.float32)
        if area is not None:
            inside = _inside_share(transform, shape, area, rule, min_share)
            if not inside.any():
                raise InputError(
                    "No cell of the grid lies in the study area.",
                    hint="Check that EXTENT and STUDY_AREA overlap, or choose smaller cells.",
                    parameter="STUDY_AREA",
                )
        return cls(crs, transform, inside)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.inside.shape

    @property
    def valid(self) -> np.ndarray:
        """bool `(rows, columns)`: the cells that belong to the study area."""
        return self.inside > 0

    @property
    def is_rotated(self) -> bool:
        """Whether rows do not run along the x axis."""
        return bool(self.transform.b or self.transform.d)

    @cached_property
    def cell_area(self) -> np.ndarray:
        """float64 `(rows, columns)`: true area of each whole cell in square metres.

        Measured on the ellipsoid, so that Web Mercator's stretched metres and
        degrees do not count as metres. In a projected CRS the cell in the middle
        stands for all.
        """
        rows, columns = self.shape
        geod, to_degrees = _on_ellipsoid(self.crs)

        def area_of(row: int, column: int) -> float:
            corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
            x, y = zip(*(self.transform @ corner for corner in corners))
            longitude, latitude = to_degrees.transform(x, y)
            return abs(geod.polygon_area_perimeter(longitude, latitude)[0])

        if not self.crs.is_geographic:
            return np.full(self.shape, area_of(rows // 2, columns // 2))
        per_row = np.array([area_of(row, columns // 2) for row in range(rows)])
        return np.repeat(per_row[:, None], columns, axis=1)

    @cached_property
    def inside_area(self) -> np.ndarray:
        """float64 `(rows, columns)`: square metres of each cell inside the study area."""
        return self.cell_area * self.inside

    @cached_property
    def cell_dimensions(self) -> tuple[float, float]:
        """Width and height of the middle cell in metres on the ground."""
        rows, columns = self.shape
        geod, to_degrees = _on_ellipsoid(self.crs)
        row, column = rows // 2, columns // 2
        points = [(column, row + 0.5), (column + 1, row + 0.5), (column + 0.5, row), (column + 0.5, row + 1)]
        x, y = zip(*(self.transform @ point for point in points))
        lon, lat = to_degrees.transform(x, y)
        width = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
        height = geod.inv(lon[2], lat[2], lon[3], lat[3])[2]
        return float(width), float(height)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of CRS, position, shape and mask: equal for equal grids."""
        digest = hashlib.sha256()
        digest.update(_crs_name(self.crs).encode())
        digest.update(np.round(np.array(self.transform[:6]), 9).tobytes())
        digest.update(np.array(self.shape, np.int64).tobytes())
        digest.update(np.round(self.inside, 5).astype(np.float32).tobytes())
        return digest.hexdigest()[:16]

    def locate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column of each point; -1 for both outside the grid.

        Cells are half-open: a point on an inner edge belongs to the cell below
        or to the right of it; one on the outer edge belongs to the grid.
        """
        column, row = _apply(~self.transform, np.asarray(x, float), np.asarray(y, float))
        rows, columns = self.shape
        # A point on the outer right or lower edge would otherwise be lost though it is in the extent.
        i = np.where(row == rows, rows - 1, np.floor(row))
        j = np.where(column == columns, columns - 1, np.floor(column))
        good = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        return np.where(good, i, -1).astype(np.int64), np.where(good, j, -1).astype(np.int64)

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of all cell centres, each `(rows, columns)`."""
        row, column = np.indices(self.shape) + 0.5
        return _apply(self.transform, column, row)

    def to_map(self, geometry: shapely.Geometry | np.ndarray) -> shapely.Geometry | np.ndarray:
        """Transform geometries from (column, row) coordinates to map coordinates."""
        return _transform(geometry, self.transform)

    def cell_polygons(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the polygons of the given cells as an array of shapely geometries."""
        return self.to_map(shapely.box(columns, rows, columns + 1, rows + 1))

    def crop(self, rows: slice, columns: slice) -> Grid:
        """Return the grid of a rectangle of cells, given by slices with a start."""
        moved = self.transform @ Affine.translation(columns.start, rows.start)
        return Grid(self.crs, moved, self.inside[rows, columns])

    def write(self, path: str | Path) -> None:
        """Write the grid as a one-band GeoTIFF (schema ``grid/1``)."""
        write_geotiff(
            path,
            self.inside[None],
            self.crs,
            self.transform,
            tags={"GRIDCAST_SCHEMA": SCHEMA, "GRIDCAST_FINGERPRINT": self.fingerprint},
            descriptions=["share of the cell inside the study area"],
        )

    @classmethod
    def read(cls, path: str | Path, parameter: str = "GRID") -> Grid:
        """Read a grid written by :meth:`write`; raises :class:`InputError` if it is none."""
        raster = read_geotiff(path, SCHEMA, parameter, MADE_BY)
        return cls(raster.crs, raster.transform, np.nan_to_num(raster.bands[0]))


def _crs_name(crs: pyproj.CRS) -> str:
    # WKT changes its wording on the way through GeoTIFF and netCDF; code and PROJ string do not.
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    authority = crs.to_authority(min_confidence=70)
    if authority:
        return ":".join(authority)
    operation = crs.coordinate_operation
    if operation is not None and operation.params:
        # "utm" may come back as "tmerc", and 500000 as 500000.000000001.
        unit = crs.axis_info[0].unit_conversion_factor
        numbers = [f"{p.name}={p.value * p.unit_conversion_factor:.9g}" for p in operation.params]
        globe = crs.ellipsoid
        shape = f"{globe.semi_major_metre:.9g} {globe.inverse_flattening:.9g}" if globe else ""
        return f"{shape} {operation.method_name} {sorted(numbers)} {unit:.9g}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "you will likely lose information": a name is enough
        return str(crs.to_proj4())


def _apply(t: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _transform(geometry: shapely.Geometry | np.ndarray, t: Affine) -> shapely.Geometry | np.ndarray:
    return shapely.transform(geometry, lambda p: np.column_stack(_apply(t, p[:, 0], p[:, 1])))


def suggested_crs(longitude: float, latitude: float) -> str:
    """Return the EPSG code of the UTM zone at a place, as ``EPSG:32617``."""
    zone = int((longitude + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"


def _on_ellipsoid(crs: pyproj.CRS) -> tuple[pyproj.Geod, pyproj.Transformer]:
    """Return what measures on the ellipsoid of a CRS, and what turns its coordinates into degrees there."""
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    base = crs.geodetic_crs or pyproj.CRS.from_epsg(4326)
    return geod, pyproj.Transformer.from_crs(crs, base, always_xy=True)


def _clean_study_area(area: shapely.Geometry | None) -> shapely.Geometry | None:
    if area is None:
        return None
    if not shapely.is_valid(area):
        area = shapely.make_valid(area)
    if area.is_empty or area.area == 0:
        raise InputError(
            "The study area has no polygon with an area.",
            hint="Choose a polygon layer with at least one non-empty polygon (check its selection and "
            "filter).",
            parameter="STUDY_AREA",
        )
    return area


def _checked_extent(
    extent: Sequence[float] | None, area: shapely.Geometry | None
) -> tuple[float, float, float, float]:
    if extent is None and area is None:
        raise InputError("There is nothing to lay a grid over.", hint="Give EXTENT or STUDY_AREA.")
    xmin, ymin, xmax, ymax = extent if extent is not None else area.bounds  # type: ignore[union-attr]
    if not np.all(np.isfinite([xmin, ymin, xmax, ymax])):
        raise InputError(
            "The extent is not finite.",
            hint="The layer may be empty or in a coordinate system that does not fit its coordinates.",
            parameter="EXTENT",
            value=extent,
        )
    if xmax <= xmin or ymax <= ymin:
        raise InputError(
            "The extent has no area.",
            hint="Give a study area, an extent, or a layer whose points do not all lie in one place.",
            parameter="EXTENT",
            value=f"{xmin}, {ymin}, {xmax}, {ymax}",
        )
    return float(xmin), float(ymin), float(xmax), float(ymax)


def _cell_size_in_crs_units(
    crs: pyproj.CRS, cell_size: float | None, cell_unit: str, bounds: tuple[float, ...]
) -> float:
    if cell_size is None:
        raise InputError("The size of the cells is missing.", hint="Give CELL_SIZE, or ROWS and COLUMNS.")
    if cell_unit not in CELL_UNITS:
        raise InputError(
            "Unknown unit.",
            hint=f"Choose one of {', '.join(CELL_UNITS)}.",
            parameter="CELL_UNIT",
            value=cell_unit,
        )
    if not np.isfinite(cell_size) or cell_size <= 0:
        raise InputError(
            "The cell size must be a positive number.",
            hint="Give a size such as 500 (metres).",
            parameter="CELL_SIZE",
            value=cell_size,
        )
    if not crs.is_projected:
        xmin, ymin, xmax, ymax = bounds
        degrees = crs.is_geographic and max(abs(xmin), abs(xmax)) <= 360 and max(abs(ymin), abs(ymax)) <= 90
        zone = suggested_crs((xmin + xmax) / 2, (ymin + ymax) / 2) if degrees else "the local UTM zone"
        raise InputError(
            f"A cell size in {_PLURALS.get(cell_unit, cell_unit + 's')} cannot be used in the coordinate "
            f"system '{crs.name}', which counts in degrees or is not projected.",
            hint=f"Set TARGET_CRS to a projected system, here {zone}, or give ROWS and COLUMNS.",
            parameter="CELL_SIZE",
            value=f"{cell_size:g} {cell_unit}",
        )
    metres_per_unit = crs.axis_info[0].unit_conversion_factor
    return cell_size * CELL_UNITS[cell_unit] / metres_per_unit


def _lay_out(
    bounds: tuple[float, float, float, float],
    size: float | None,
    rows: int | None,
    columns: int | None,
    rotation: float,
) -> tuple[Affine, tuple[int, int]]:
    """Return transform and shape of a grid that covers the bounds."""
    xmin, ymin, xmax, ymax = bounds
    centre_x, centre_y = (xmin + xmax) / 2, (ymin + ymax) / 2
    angle = radians(rotation)
    if rotation:
        # The turned grid has to reach every corner of the extent.
        c, s = abs(cos(angle)), abs(sin(angle))
        width, height = xmax - xmin, ymax - ymin
        half_x, half_y = (width * c + height * s) / 2, (width * s + height * c) / 2
        xmin, xmax = centre_x - half_x, centre_x + half_x
        ymin, ymax = centre_y - half_y, centre_y + half_y
    if size is not None:
        if not rotation:
            # An edge that lies on a multiple up to rounding is on it: no extra row for 1e-9.
            xmin, xmax = floor(xmin / size + 1e-6) * size, ceil(xmax / size - 1e-6) * size
            ymin, ymax = floor(ymin / size + 1e-6) * size, ceil(ymax / size - 1e-6) * size
        wide = max(1, ceil((xmax - xmin) / size - 1e-6))
        high = max(1, ceil((ymax - ymin) / size - 1e-6))
        step_x = step_y = size
        left, top = centre_x - wide * size / 2, centre_y + high * size / 2
        if not rotation:
            left, top = xmin, ymax
    else:
        wide, high = int(columns or 0), int(rows or 0)
        if wide < 1 or high < 1:
            raise InputError(
                "Rows and columns must be whole numbers above 0.",
                hint="Give both, such as 55 and 50.",
                parameter="ROWS",
                value=f"{rows} x {columns}",
            )
        step_x, step_y = (xmax - xmin) / wide, (ymax - ymin) / high
        left, top = xmin, ymax
    transform = Affine(step_x, 0.0, left, 0.0, -step_y, top)
    if rotation:
        transform = Affine.rotation(-rotation, pivot=(centre_x, centre_y)) @ transform
    return transform, (high, wide)


def _inside_share(
    transform: Affine, shape: tuple[int, int], area: shapely.Geometry, rule: str, min_share: float
) -> np.ndarray:
    """Return the share of each cell inside `area`, 0 for cells that the rule leaves out."""
    # In (column, row) coordinates cells are unit squares, even in a rotated grid, and areas are shares.
    unit = _transform(area, ~transform)
    if not shapely.is_valid(unit):
        unit = shapely.make_valid(unit)
    share = np.zeros(shape, np.float64)
    # What lies beyond the grid must not count as area within.
    within = shapely.intersection(unit, shapely.box(0, 0, shape[1], shape[0]))
    _fill_share(share, within, 0, shape[0], 0, shape[1])
    # An edge of the area on an edge of cells cuts slivers off their neighbours by rounding.
    share[share < 1e-9] = 0
    if rule == "centre":
        shapely.prepare(unit)
        rows, columns = np.nonzero(share > 0)
        hit = shapely.contains_xy(unit, columns + 0.5, rows + 0.5)
        share[rows[~hit], columns[~hit]] = 0
    elif rule == "share":
        # Exactly half a cell must not fall out by rounding.
        share[share < min_share / 100 - 1e-9] = 0
    return np.clip(share, 0, 1).astype(np.float32)


def _fill_share(
    share: np.ndarray, part: shapely.Geometry, top: int, bottom: int, left: int, right: int
) -> None:
    """Fill a block of cells by halving it until the polygon covers it or one cell is left.

    Clipping shrinks the polygon at each step, so the cost follows the length of
    the boundary and not cells times vertices; the areas are exact.
    """
    if part.is_empty:
        return
    cells = (bottom - top) * (right - left)
    covered = part.area
    if covered <= 0:
        return
    if covered >= cells * (1 - 1e-12):
        share[top:bottom, left:right] = 1.0
        return
    if cells == 1:
        share[top, left] = covered
        return
    if bottom - top >= right - left:
        middle = (top + bottom) // 2
        blocks = [(top, middle, left, right), (middle, bottom, left, right)]
    else:
        middle = (left + right) // 2
        blocks = [(top, bottom, left, middle), (top, bottom, middle, right)]
    for block in blocks:
        t, b, w, e = block
        _fill_share(share, shapely.intersection(part, shapely.box(w, t, e, b)), *block)
