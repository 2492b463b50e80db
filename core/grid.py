# SPDX-License-Identifier: GPL-2.0-or-later
"""The grid of cells that events are counted on and forecasts are made for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyproj
import shapely
from affine import Affine

from .errors import InputError
from .lattice import Bounds, Layout, cells_by_count, cells_of_raster, cells_of_size
from .localcrs import suggested_crs
from .rasters import Lattice, read_geotiff, write_geotiff
from .studyarea import inside_share, repaired

SCHEMA = "grid/1"
MADE_BY = "Build Grid from Layer"

#: A grid with more cells is refused: five years of days on it would need 29 GB.
MAX_CELLS = 4_000_000

#: Metres in one unit of ``cell_unit``; None: the unit of the coordinate system itself.
CELL_UNITS: dict[str, float | None] = {
    "metre": 1.0,
    "kilometre": 1000.0,
    "foot": 0.3048,
    "us-survey-foot": 1200.0 / 3937.0,
    "mile": 1609.344,
    "yard": 0.9144,
    "nautical-mile": 1852.0,
    "map-unit": None,
}

_PLURALS = {
    "foot": "feet",
    "us-survey-foot": "US survey feet",
    "nautical-mile": "nautical miles",
    "map-unit": "map units",
}

RULES = ("intersects", "centre", "share")

SNAPS = ("multiples", "extent", "raster")

# A billionth of a cell: micrometres, and far above the rounding of coordinates.
_EDGE = 1e-9


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
        float64 `(rows, columns)`, 0..1: share of the cell's area inside the study
        area; 0 where the cell does not belong to it.
    """

    crs: pyproj.CRS
    transform: Affine
    inside: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "inside", np.asarray(self.inside, np.float64))

    @classmethod
    def from_extent(
        cls,
        crs: pyproj.CRS,
        extent: Sequence[float] | None = None,
        *,
        cell_size: float | None = None,
        cell_height: float | None = None,
        cell_unit: str = "metre",
        rows: int | None = None,
        columns: int | None = None,
        rotation: float = 0.0,
        snap: str = "multiples",
        snap_raster: Lattice | None = None,
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
        cell_size, cell_height : float, optional
            Width and height of the cells in `cell_unit`; without a height they are squares.
        cell_unit : str
            One of :data:`CELL_UNITS`.
        rows, columns : int, optional
            Number of cells instead of a cell size; the extent is divided evenly.
            Allowed in a geographic CRS, where a cell size is not.
        rotation : float
            Degrees that the grid is turned clockwise about the centre of the extent.
        snap : {"multiples", "extent", "raster"}
            Where cells of a given size have their edges. ``multiples``: on multiples of the size
            from the origin of the CRS, so that grids of one size fit together and to national
            ones (a turned grid is centred on the extent). ``extent``: counted from the
            north-western corner of the extent. ``raster``: on the edges of the cells of `snap_raster`.
        snap_raster : Lattice, optional
            In `crs`. Without a cell size its cells are those of the grid; else the size is a
            whole multiple or a whole fraction of theirs.
        study_area : shapely geometry, optional
            Polygon(s) in `crs`; without it every cell is inside. Invalid rings are repaired.
        rule : {"intersects", "centre", "share"}
            Which cells belong to the study area: all that share some area with it,
            those whose centre lies in it, those with at least `min_share` percent inside.

        Raises
        ------
        InputError
            Geographic CRS with a cell size, no area, too many cells, bad numbers, a raster to snap to
            that does not fit.
        """
        _check_word(rule, RULES, "RULE", "rule")
        _check_word(snap, SNAPS, "SNAP", "way to place the cells")
        if not 0 <= min_share <= 100:
            raise InputError(
                "The least share of a cell must lie between 0 and 100 percent.",
                hint="50 is usual.",
                parameter="MIN_SHARE",
                value=min_share,
            )
        area = None if study_area is None else repaired(study_area)
        bounds = _checked_extent(extent, area)
        by_count = bool(rows and columns)
        if snap == "raster":
            _check_snap_raster(snap_raster, crs, by_count, rotation)
        if rows and columns:
            _check_counts(rows, columns)
            transform, shape = cells_by_count(bounds, rows, columns, rotation)
        else:
            transform, shape = _lay_out_by_size(
                crs, bounds, cell_size, cell_height, cell_unit, rotation, snap, snap_raster
            )
        if shape[0] * shape[1] > max_cells:
            raise InputError(
                f"The grid would have {shape[0]:,} x {shape[1]:,} = {shape[0] * shape[1]:,} cells, more than "
                f"the {max_cells:,} allowed; one year of days on it would take "
                f"{shape[0] * shape[1] * 365 * 4 / 1e9:,.0f} GB of memory.",
                hint="Choose larger cells or a smaller study area.",
                parameter="ROWS" if by_count else "CELL_SIZE",
                value=f"{rows} x {columns}" if by_count else _size_text(cell_size, cell_height, cell_unit),
            )
        if area is None:
            return cls(crs, transform, np.ones(shape))
        inside = inside_share(_transform(area, ~transform), shape, rule, min_share)
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
        digest.update(crs_name(self.crs).encode())
        digest.update(np.round(np.array(self.transform[:6]), 9).tobytes())
        digest.update(np.array(self.shape, np.int64).tobytes())
        # A copy of the shares in 32 bits, as a forecast carries it, makes no other grid.
        digest.update(np.round(self.inside.astype(np.float32), 5).tobytes())
        return digest.hexdigest()[:16]

    def locate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column of each point; -1 for both outside the grid.

        Cells are half-open: a point on an inner edge belongs to the cell below
        or to the right of it; one on the outer edge belongs to the grid.
        """
        column, row = (_on_edges(places) for places in self.to_cells(x, y))
        rows, columns = self.shape
        # A point on the outer right or lower edge would otherwise be lost though it is in the extent.
        i = np.where(row == rows, rows - 1, np.floor(row))
        j = np.where(column == columns, columns - 1, np.floor(column))
        good = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        return np.where(good, i, -1).astype(np.int64), np.where(good, j, -1).astype(np.int64)

    def to_cells(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places as fractional columns and rows, counted from the outer corner."""
        return _apply(~self.transform, np.asarray(x, float), np.asarray(y, float))

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

    def coarsened(self, factor: int) -> Grid:
        """Return the grid of blocks of `factor` x `factor` cells; see :func:`~.coarsening.coarser_grid`."""
        from .coarsening import coarser_grid

        return coarser_grid(self, factor)

    def write(self, path: str | Path) -> None:
        """Write the grid as a one-band GeoTIFF (schema ``grid/1``)."""
        write_geotiff(
            path,
            self.inside[None],
            self.crs,
            self.transform,
            tags={"GRIDCAST_SCHEMA": SCHEMA, "GRIDCAST_FINGERPRINT": self.fingerprint},
            descriptions=["share of the cell inside the study area"],
            dtype="float64",
        )

    @classmethod
    def read(cls, path: str | Path, parameter: str = "GRID") -> Grid:
        """Read a grid written by :meth:`write`; raises :class:`InputError` if it is none."""
        raster = read_geotiff(path, SCHEMA, parameter, MADE_BY)
        return cls(raster.crs, raster.transform, np.nan_to_num(raster.bands[0]))


def metres_per_unit(crs: pyproj.CRS, x: float, y: float) -> tuple[float, float]:
    """Return metres on the ground per unit of a coordinate system, along x and along y at a place."""
    geod, to_degrees = _on_ellipsoid(crs)
    step = 1e-4 if crs.is_geographic else 10.0
    lon, lat = to_degrees.transform(
        [x - step, x + step, x, x],
        [y, y, y - step, y + step],
    )
    wide = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
    high = geod.inv(lon[2], lat[2], lon[3], lat[3])[2]
    return wide / (2 * step), high / (2 * step)


def crs_name(crs: pyproj.CRS) -> str:
    """Return a name that is equal for equal coordinate systems, wherever they were read from."""
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


def _on_edges(places: np.ndarray) -> np.ndarray:
    """Return cell coordinates with those that miss an edge by rounding put on it.

    Written coordinates lie on edges more often than chance would have it: both are short decimals.
    """
    edges = np.round(places)
    return np.where(np.abs(places - edges) < _EDGE, edges, places)


def _apply(t: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _transform(geometry: shapely.Geometry | np.ndarray, t: Affine) -> shapely.Geometry | np.ndarray:
    return shapely.transform(geometry, lambda p: np.column_stack(_apply(t, p[:, 0], p[:, 1])))


def _on_ellipsoid(crs: pyproj.CRS) -> tuple[pyproj.Geod, pyproj.Transformer]:
    """Return what measures on the ellipsoid of a CRS, and what turns its coordinates into degrees there."""
    geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
    base = crs.geodetic_crs or pyproj.CRS.from_epsg(4326)
    return geod, pyproj.Transformer.from_crs(crs, base, always_xy=True)


def _checked_extent(extent: Sequence[float] | None, area: shapely.Geometry | None) -> Bounds:
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


def _check_word(word: str, words: Sequence[str], parameter: str, kind: str) -> None:
    if word not in words:
        raise InputError(
            f"Unknown {kind}.", hint=f"Choose one of {', '.join(words)}.", parameter=parameter, value=word
        )


def _check_counts(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise InputError(
            "Rows and columns must be whole numbers above 0.",
            hint="Give both, such as 55 and 50.",
            parameter="ROWS",
            value=f"{rows} x {columns}",
        )


def _check_snap_raster(snap_raster: Lattice | None, crs: pyproj.CRS, by_count: bool, rotation: float) -> None:
    if snap_raster is None:
        raise InputError(
            "There is no raster to snap to.",
            hint="Set SNAP_RASTER, or another SNAP.",
            parameter="SNAP_RASTER",
        )
    if by_count:
        raise InputError(
            "Rows and columns divide the extent evenly and cannot follow the cells of a raster.",
            hint="Leave ROWS and COLUMNS empty, or set another SNAP.",
            parameter="SNAP",
            value="raster",
        )
    if rotation:
        raise InputError(
            "The cells of a raster have a direction of their own.",
            hint="Set ROTATION to 0, or another SNAP.",
            parameter="ROTATION",
            value=f"{rotation:g}",
        )
    if crs_name(snap_raster.crs) != crs_name(crs):
        raise InputError(
            f"The raster is in '{snap_raster.crs.name}' and the grid in '{crs.name}'.",
            hint="Set TARGET_CRS to the system of the raster, or reproject the raster.",
            parameter="SNAP_RASTER",
        )


def _lay_out_by_size(
    crs: pyproj.CRS,
    bounds: Bounds,
    cell_size: float | None,
    cell_height: float | None,
    cell_unit: str,
    rotation: float,
    snap: str,
    snap_raster: Lattice | None,
) -> Layout:
    """Return transform and shape of a grid of cells of a given size, or of those of a raster."""
    if snap_raster is not None and snap == "raster":
        size = None
        if cell_size is not None or cell_height is not None:
            size = _size_in_crs_units(crs, cell_size, cell_height, cell_unit, bounds)
        return cells_of_raster(bounds, snap_raster.transform, size)
    width, height = _size_in_crs_units(crs, cell_size, cell_height, cell_unit, bounds)
    return cells_of_size(bounds, width, height, rotation, snap=snap)


def _size_in_crs_units(
    crs: pyproj.CRS, cell_size: float | None, cell_height: float | None, cell_unit: str, bounds: Bounds
) -> tuple[float, float]:
    """Return width and height of a cell in units of the coordinate system."""
    if cell_size is None:
        raise InputError(
            "The size of the cells is missing.",
            hint="Give CELL_SIZE, or ROWS and COLUMNS.",
            parameter="CELL_SIZE",
            value="not set",
        )
    _check_word(cell_unit, tuple(CELL_UNITS), "CELL_UNIT", "unit")
    height = cell_size if cell_height is None else cell_height
    for key, kind, value in (("CELL_SIZE", "size", cell_size), ("CELL_HEIGHT", "height", height)):
        if not np.isfinite(value) or value <= 0:
            raise InputError(
                f"The cell {kind} must be a positive number.",
                hint=f"Give a {kind} such as 500 (metres).",
                parameter=key,
                value=value,
            )
    if not crs.is_projected:
        raise InputError(
            f"A cell size in {_PLURALS.get(cell_unit, cell_unit + 's')} cannot be used in the coordinate "
            f"system '{crs.name}', which counts in degrees or is not projected.",
            hint=f"Set TARGET_CRS to a projected system, here {_local_crs(crs, bounds)}, or give ROWS and "
            "COLUMNS.",
            parameter="CELL_SIZE",
            value=_size_text(cell_size, cell_height, cell_unit),
        )
    metres = CELL_UNITS[cell_unit]
    units = 1.0 if metres is None else metres / crs.axis_info[0].unit_conversion_factor
    return cell_size * units, height * units


def _local_crs(crs: pyproj.CRS, bounds: Bounds) -> str:
    xmin, ymin, xmax, ymax = bounds
    if not crs.is_geographic or max(abs(xmin), abs(xmax)) > 360 or max(abs(ymin), abs(ymax)) > 90:
        return "the local UTM zone"
    return suggested_crs((xmin + xmax) / 2, (ymin + ymax) / 2)


def _size_text(cell_size: float | None, cell_height: float | None, cell_unit: str) -> str:
    if cell_size is None:
        return "that of SNAP_RASTER"
    return f"{cell_size:g}{'' if cell_height is None else f' x {cell_height:g}'} {cell_unit}"
