# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that lays a grid."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs


@dataclass(frozen=True)
class BuildGrid:
    """Lay a grid over an extent or a study area (files and extent in `crs`)."""

    crs: str
    output: str
    extent: list[float] | None = None
    study_area: str | None = None
    cell_size: float | None = None
    cell_unit: str = "metre"
    rows: int | None = None
    columns: int | None = None
    rotation: float = 0.0
    rule: str = "intersects"
    min_share: float = 50.0
    cells_output: str | None = None


def build_grid(request: BuildGrid, reporter: Reporter) -> Outputs:
    """Make the grid file and, if asked for, the polygons of its cells."""
    import numpy as np
    import pyproj

    from ..atomic import atomic_path
    from ..grid import CELL_UNITS, Grid
    from ..vectors import geopackage, read_polygons

    reporter.stage("Laying the grid", 0, 70)
    try:
        crs = pyproj.CRS.from_wkt(request.crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            "The coordinate system cannot be read.",
            hint="Choose another TARGET_CRS, or set that of the layer.",
            parameter="TARGET_CRS",
            value=request.crs[:60],
        ) from error
    area = read_polygons(request.study_area) if request.study_area else None
    grid = Grid.from_extent(
        crs,
        request.extent,
        cell_size=request.cell_size,
        cell_unit=request.cell_unit,
        rows=request.rows,
        columns=request.columns,
        rotation=request.rotation,
        study_area=area,
        rule=request.rule,
        min_share=request.min_share,
    )
    width, height = grid.cell_dimensions
    size = request.cell_size
    if size is not None and not (request.rows and request.columns):
        wanted = size * CELL_UNITS[request.cell_unit]
        if abs(width / wanted - 1) > 0.02:
            reporter.warning(
                f"In {grid.crs.name} a cell of {wanted:.0f} m is {width:.0f} m wide on the ground, because "
                "the projection stretches distances here. A local projection (UTM, State Plane) avoids this."
            )
    reporter.stage("Writing", 70, 100)
    with ExitStack() as both:
        if request.cells_output:
            rows, columns = np.nonzero(grid.valid)
            fields: dict[str, np.ndarray] = {
                "row": rows.astype(np.int32),
                "column": columns.astype(np.int32),
                "share": grid.inside[rows, columns].astype(np.float64),
            }
            # The cells take their place only after the grid: a failed job leaves neither.
            cells = both.enter_context(atomic_path(request.cells_output, "CELLS"))
            cells.write_bytes(geopackage(grid.cell_polygons(rows, columns), fields, grid.crs, "cells"))
        grid.write(request.output)
    return {
        "output": request.output,
        "cells_output": request.cells_output,
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "cells_inside": int(grid.valid.sum()),
        "cell_width": width,
        "cell_height": height,
        "area_km2": float(grid.inside_area.sum() / 1e6),
    }
