# SPDX-License-Identifier: GPL-2.0-or-later
"""A tessellation of regular hexagons, each with the area of one cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, hypot, sqrt

import numpy as np
import shapely

from .errors import InputError
from .grid import Grid
from .studyarea import takes_part

TOPS = ("flat", "pointy")

# Clipping a hexagon costs as much as the polygon has vertices.
_MOST_VERTICES = 200


@dataclass(frozen=True, eq=False)
class Hexagons:
    """Hexagons of a study area; all arrays have one entry each.

    Attributes
    ----------
    polygons : numpy.ndarray
        shapely polygons in the coordinate system of the grid.
    row, column : numpy.ndarray
        int32; the tessellation begins at the grid's outer corner. With a flat top every second column,
        with a pointy one every second row, lies half a hexagon further.
    share : numpy.ndarray
        float64, above 0 to 1: share of the hexagon's area inside study area and grid.
    """

    polygons: np.ndarray
    row: np.ndarray
    column: np.ndarray
    share: np.ndarray


def tessellate(
    grid: Grid,
    study_area: shapely.Geometry | None = None,
    *,
    top: str = "flat",
    rule: str = "intersects",
    min_share: float = 50.0,
) -> Hexagons:
    """Cover the study area of a grid with hexagons that are turned as the grid is.

    Parameters
    ----------
    grid : Grid
        Gives place, direction and the area of a hexagon in the plane of its coordinate system.
    study_area : shapely geometry, optional
        Valid polygon(s) in the grid's coordinate system. By default all cells of the study area.
    top : {"flat", "pointy"}
        Whether a hexagon has an edge or a corner at its top.
    rule, min_share : str, float
        Which hexagons take part, as for the cells of the grid.

    Raises
    ------
    InputError
        An unknown top, or no hexagon takes part.
    """
    if top not in TOPS:
        raise InputError(
            "Unknown kind of hexagon.",
            hint=f"Choose one of {', '.join(TOPS)}.",
            parameter="HEXAGON_TOP",
            value=top,
        )
    whole = grid.to_map(shapely.box(0, 0, grid.shape[1], grid.shape[0]))
    area = _area_of_cells(grid) if study_area is None else shapely.intersection(study_area, whole)
    polygons, row, column, centre = _hexagons(grid, top)
    share = _shares(polygons, area)
    kept = takes_part(share, centre[:, 0], centre[:, 1], area, rule, min_share)
    if not kept.any():
        raise InputError(
            "No hexagon lies in the study area.",
            hint="Choose smaller cells or the rule 'intersects'.",
            parameter="CELL_SHAPE",
            value="hexagon",
        )
    return Hexagons(polygons[kept], row[kept], column[kept], share[kept])


def _hexagons(grid: Grid, top: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return polygons, rows, columns and centres of the hexagons that cover the grid."""
    t = grid.transform
    cell_width, cell_height = hypot(t.a, t.d), hypot(t.b, t.e)
    east, south = np.array([t.a, t.d]) / cell_width, np.array([t.b, t.e]) / cell_height
    along, across = grid.shape[1] * cell_width, grid.shape[0] * cell_height
    side = sqrt(2 * cell_width * cell_height / (3 * sqrt(3)))
    if top == "pointy":  # a flat one, turned by a quarter: columns and rows change places
        east, south, along, across = south, east, across, along
    columns = ceil(along / (1.5 * side) - 1 / 3) + 1
    rows = ceil(across / (sqrt(3) * side) - 1 / 2) + 1
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    x = 1.5 * side * column
    y = sqrt(3) * side * (row + 0.5 * (column % 2))
    centre = np.array([t.c, t.f]) + x[:, None] * east + y[:, None] * south
    angle = np.arange(6) * np.pi / 3
    corners = side * (np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * south)
    polygons = shapely.polygons(centre[:, None, :] + corners)
    row, column = row.astype(np.int32), column.astype(np.int32)
    return (polygons, column, row, centre) if top == "pointy" else (polygons, row, column, centre)


def _shares(polygons: np.ndarray, area: shapely.Geometry) -> np.ndarray:
    pieces = _pieces(area)
    which, piece = shapely.STRtree(pieces).query(polygons, predicate="intersects")
    common = shapely.area(shapely.intersection(polygons[which], pieces[piece]))
    share = np.bincount(which, common, minlength=len(polygons)) / shapely.area(polygons[0])
    share[share < 1e-9] = 0  # they only touch
    return np.minimum(share, 1)


def _pieces(area: shapely.Geometry) -> np.ndarray:
    """Cut an area in halves until no piece has many vertices."""
    done, parts = [], np.array([area], dtype=object)
    while len(parts):
        small = shapely.get_num_coordinates(parts) <= _MOST_VERTICES
        done.append(parts[small])
        parts = parts[~small]
        xmin, ymin, xmax, ymax = shapely.bounds(parts).T
        wide = xmax - xmin > ymax - ymin
        x = np.where(wide, (xmin + xmax) / 2, xmax)
        y = np.where(wide, ymax, (ymin + ymax) / 2)
        first = shapely.intersection(parts, shapely.box(xmin, ymin, x, y))
        second = shapely.intersection(
            parts, shapely.box(np.where(wide, x, xmin), np.where(wide, ymin, y), xmax, ymax)
        )
        parts = np.concatenate([first, second])
    return np.concatenate(done)


def _area_of_cells(grid: Grid) -> shapely.Geometry:
    """Return the cells of the study area as one geometry in map coordinates."""
    edges = np.diff(grid.valid.astype(np.int8), axis=1, prepend=0, append=0)
    row, left = np.nonzero(edges > 0)
    _, right = np.nonzero(edges < 0)
    return grid.to_map(shapely.union_all(shapely.box(left, row, right, row + 1)))
