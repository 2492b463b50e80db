# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that lays a grid."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..presets import NO_PRESET, Preset, preset_for
from ..reporter import Reporter
from .common import Outputs

if TYPE_CHECKING:
    import numpy as np
    import pyproj
    import shapely

    from ..grid import Grid

#: What makes up the study area; ``auto``: the polygons if there are any, else the whole extent.
AREA_SOURCES = ("auto", "polygons", "near-events", "hull", "extent")

CELL_SHAPES = ("square", "hexagon")


@dataclass(frozen=True)
class BuildGrid:
    """Lay a grid over an extent or a study area (files and extent in `crs`).

    `study_area` is a layer of polygons, `events` one of points; `events` also give the extent
    where there is neither `extent` nor `study_area`. `distance` is in metres.
    """

    crs: str
    output: str
    extent: list[float] | None = None
    study_area: str | None = None
    events: str | None = None
    area_from: str = "auto"
    distance: float = 500.0
    hull_ratio: float = 0.3
    preset: str = NO_PRESET
    cell_size: float | None = None
    cell_height: float | None = None
    cell_unit: str = "metre"
    rows: int | None = None
    columns: int | None = None
    rotation: float = 0.0
    snap: str = "multiples"
    snap_raster: str | None = None
    rule: str = "intersects"
    min_share: float = 50.0
    cell_shape: str = "square"
    hexagon_top: str = "flat"
    cells_output: str | None = None


def build_grid(request: BuildGrid, reporter: Reporter) -> Outputs:
    """Make the grid file and, if asked for, the polygons of its cells."""
    from ..atomic import atomic_path
    from ..rasters import read_lattice

    reporter.stage("Reading the study area", 0, 20)
    crs = _crs(request.crs)
    preset = _preset(request, crs)
    if preset is not None:
        request = replace(request, extent=list(preset.extent), rows=preset.rows, columns=preset.columns)
    snap_raster = read_lattice(request.snap_raster) if request.snap_raster else None
    places = _places(request, crs, reporter)
    area, repaired = _area(request, places, reporter)

    reporter.stage("Laying the grid", 20, 70)
    from ..grid import Grid

    grid = Grid.from_extent(
        crs,
        _extent(request, crs, places, area),
        cell_size=request.cell_size,
        cell_height=request.cell_height,
        cell_unit=request.cell_unit,
        rows=request.rows,
        columns=request.columns,
        rotation=request.rotation,
        snap=request.snap,
        snap_raster=snap_raster,
        study_area=area,
        rule=request.rule,
        min_share=request.min_share,
    )
    if request.area_from == "near-events":
        grid, area = _near_events(grid, places, request.distance), None
    if preset is not None and preset.mask_shift:
        grid, area = _moved_mask(grid, preset.mask_shift), None
    _warn_of_stretched_cells(request, grid, reporter)

    reporter.stage("Writing", 70, 100)
    with ExitStack() as both:
        if request.cells_output:
            # The cells take their place only after the grid: a failed job leaves neither.
            cells = both.enter_context(atomic_path(request.cells_output, "CELLS"))
            cells.write_bytes(_cells(request, grid, area))
        grid.write(request.output)
    width, height = grid.cell_dimensions
    return {
        "output": request.output,
        "cells_output": request.cells_output,
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "cells_inside": int(grid.valid.sum()),
        "cell_width": width,
        "cell_height": height,
        "area_km2": float(grid.inside_area.sum() / 1e6),
        "repaired": repaired,
    }


def _crs(wkt: str) -> pyproj.CRS:
    import pyproj

    try:
        return pyproj.CRS.from_wkt(wkt)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            "The coordinate system cannot be read.",
            hint="Choose another TARGET_CRS, or set that of the layer.",
            parameter="TARGET_CRS",
            value=wkt[:60],
        ) from error


def _preset(request: BuildGrid, crs: pyproj.CRS) -> Preset | None:
    from ..grid import crs_name

    return preset_for(
        request.preset,
        {
            "TARGET_CRS": crs_name(crs),
            "EXTENT": request.extent,
            "CELL_SIZE": request.cell_size,
            "CELL_HEIGHT": request.cell_height,
            "ROWS": request.rows,
            "COLUMNS": request.columns,
            "ROTATION": request.rotation,
            "SNAP": request.snap,
        },
    )


def _places(request: BuildGrid, crs: pyproj.CRS, reporter: Reporter) -> np.ndarray | None:
    """Return the places of the events without those far off, None if no events are needed."""
    from ..places import distance_off
    from ..vectors import read_places

    if request.area_from not in AREA_SOURCES:
        raise InputError(
            "Unknown source of the study area.",
            hint=f"Choose one of {', '.join(AREA_SOURCES)}.",
            parameter="AREA_FROM",
            value=request.area_from,
        )
    if request.events is None:
        if request.area_from in ("near-events", "hull"):
            raise InputError(
                "The study area is to come from events, and there are none.",
                hint="Choose a layer of points as INPUT, or another AREA_FROM.",
                parameter="AREA_FROM",
                value=request.area_from,
            )
        return None
    places = read_places(request.events)
    if not len(places):
        raise InputError(
            "The layer has no features with a place.",
            hint="Check its filter, its selection and 'Selected features only'.",
            parameter="INPUT",
        )
    off = distance_off(places)
    if off.any():
        reporter.warning(
            f"{(off > 0).sum():,} of {len(off):,} events lie far off all others, up to "
            f"{_kilometres(off.max(), crs):,.0f} km. They do not count for the study area and its extent: "
            "probably their coordinates are wrong. If they are right, set EXTENT or STUDY_AREA."
        )
    return places[off == 0]


def _kilometres(distance: float, crs: pyproj.CRS) -> float:
    """Return a distance in units of the coordinate system in kilometres, roughly."""
    metres = 111_195.0 if crs.is_geographic else crs.axis_info[0].unit_conversion_factor
    return distance * metres / 1000


def _area(
    request: BuildGrid, places: np.ndarray | None, reporter: Reporter
) -> tuple[shapely.Geometry | None, int]:
    """Return the polygons of the study area, None if there are none, and how many were repaired."""
    from ..places import hull_of
    from ..vectors import read_polygons

    if request.area_from == "hull":
        assert places is not None
        return hull_of(places, request.hull_ratio), 0
    if request.area_from in ("near-events", "extent"):
        return None, 0
    if request.study_area is None:
        if request.area_from == "polygons":
            raise InputError(
                "The study area is to come from polygons, and there are none.",
                hint="Choose a layer of polygons as STUDY_AREA, or another AREA_FROM.",
                parameter="AREA_FROM",
                value=request.area_from,
            )
        return None, 0
    found = read_polygons(request.study_area)
    if found.repaired:
        reporter.warning(
            f"{found.repaired:,} of {found.polygons:,} polygons of the study area had invalid rings and were "
            "repaired. Look at the grid: what is inside may be outside where rings cross."
        )
    if found.lost:
        reporter.warning(
            f"{found.lost:,} of {found.polygons:,} polygons of the study area have no area and do not count."
        )
    return found.area, found.repaired


def _extent(
    request: BuildGrid, crs: pyproj.CRS, places: np.ndarray | None, area: shapely.Geometry | None
) -> list[float] | None:
    """Return what the grid has to cover; None: the study area."""
    from ..grid import metres_per_unit
    from ..places import bounds_of

    if request.extent is not None:
        return request.extent
    if area is not None or places is None:
        return None
    xmin, ymin, xmax, ymax = bounds_of(places)
    if request.area_from != "near-events":
        return [xmin, ymin, xmax, ymax]
    wide, high = metres_per_unit(crs, (xmin + xmax) / 2, (ymin + ymax) / 2)
    x, y = request.distance / wide, request.distance / high
    return [xmin - x, ymin - y, xmax + x, ymax + y]


def _near_events(grid: Grid, places: np.ndarray | None, distance: float) -> Grid:
    """Return the grid with the cells within a distance of an event."""
    import numpy as np

    from ..grid import Grid
    from ..places import cells_near

    assert places is not None
    column, row = grid.to_cells(*places.T)
    near = cells_near(np.column_stack([column, row]), grid.shape, grid.cell_dimensions, distance)
    if not near.any():
        raise InputError(
            "No cell of the grid lies near an event.",
            hint="Check that EXTENT holds events, or give a greater DISTANCE.",
            parameter="DISTANCE",
            value=f"{distance:g}",
        )
    return Grid(grid.crs, grid.transform, near)


def _moved_mask(grid: Grid, columns: int) -> Grid:
    """Return the grid with its shares moved to the east by some columns."""
    import numpy as np

    from ..grid import Grid

    moved = np.roll(grid.inside, columns, axis=1)
    moved[:, :columns] = 0
    return Grid(grid.crs, grid.transform, moved)


def _warn_of_stretched_cells(request: BuildGrid, grid: Grid, reporter: Reporter) -> None:
    """Say so if cells of a given size have another size on the ground."""
    from ..grid import CELL_UNITS

    if request.cell_size is None or (request.rows and request.columns):
        return
    metres = CELL_UNITS[request.cell_unit] or grid.crs.axis_info[0].unit_conversion_factor
    height = request.cell_size if request.cell_height is None else request.cell_height
    sizes = zip(("wide", "high"), (request.cell_size, height), grid.cell_dimensions)
    for direction, size, found in sizes:
        wanted = size * metres
        if abs(found / wanted - 1) > 0.02:
            reporter.warning(
                f"In {grid.crs.name} a cell of {wanted:.0f} m is {found:.0f} m {direction} on the ground, "
                "because the projection stretches distances here. A local projection (UTM, State Plane) "
                "avoids this."
            )
            return


def _cells(request: BuildGrid, grid: Grid, area: shapely.Geometry | None) -> memoryview:
    """Return the bytes of a GeoPackage with the cells of the study area."""
    import numpy as np

    from ..hexagons import tessellate
    from ..vectors import geopackage

    if request.cell_shape == "hexagon":
        found = tessellate(
            grid, area, top=request.hexagon_top, rule=request.rule, min_share=request.min_share
        )
        polygons, row, column, share = found.polygons, found.row, found.column, found.share
    elif request.cell_shape == "square":
        row, column = np.nonzero(grid.valid)
        polygons, share = grid.cell_polygons(row, column), grid.inside[row, column]
    else:
        raise InputError(
            "Unknown shape of cells.",
            hint=f"Choose one of {', '.join(CELL_SHAPES)}.",
            parameter="CELL_SHAPE",
            value=request.cell_shape,
        )
    fields = {"row": row.astype(np.int32), "column": column.astype(np.int32), "share": share}
    return geopackage(polygons, fields, grid.crs, "cells")
