# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers that polygons have, such as a census, to a value per cell by shares of area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError

from ..errors import InputError
from ..grid import Grid, crs_name
from ..reporter import Reporter
from ..studyarea import halves
from ..vectors import usable_polygons
from . import Covariate
from .names import variable_names

#: Mean of the polygons weighted by their areas in the cell; or their values shared out over the cells.
METHODS = ("mean", "sum")

#: What the American Community Survey writes where it has no estimate.
NO_ESTIMATE = (-222222222, -333333333, -555555555, -666666666, -888888888, -999999999)

# In cells. Edges of polygons on edges of cells cut slivers off their neighbours by rounding.
_SLIVER = 1e-10
# A block of at most so many cells is not halved again: to try each cell takes less time.
_FEW_CELLS = 16


@dataclass(frozen=True)
class Overlay:
    """Which polygon shares how much area with which cell: one entry per pair, all arrays `(pairs,)`.

    Attributes
    ----------
    polygon, cell : numpy.ndarray
        int64: index of the polygon, and row × columns + column of the cell.
    area : numpy.ndarray
        float64: shared area, in cells.
    """

    polygon: np.ndarray
    cell: np.ndarray
    area: np.ndarray


def covariates_from_polygons(
    path: str | Path,
    grid: Grid,
    fields: Sequence[str],
    method: str = "mean",
    *,
    layer: str | None = None,
    names: Sequence[str] | None = None,
    reporter: Reporter | None = None,
) -> list[Covariate]:
    """Return fields of a polygon layer as one value per cell.

    Parameters
    ----------
    path : path
        Any polygon layer that GDAL reads; corners are reprojected to the grid if need be.
    grid : Grid
        Cells.
    fields : sequence of str
        Fields with numbers.
    method : {"mean", "sum"}
        ``mean``, for what does not depend on the size of a polygon, such as an income or a rate: the mean
        of the polygons weighted by their areas in the cell. ``sum``, for what is counted, such as
        inhabitants: each cell gets of a polygon's value the share that it has of its area. The sum over all
        cells is that over all polygons, as far as these lie in the grid.
    layer : str, optional
        Layer of a file that has several; by default the first.
    names : sequence of str, optional
        What the fields are called, if that is not their name in the file.
    reporter : Reporter, optional
        Is told of polygons that were repaired or cannot be used.

    Returns
    -------
    list of Covariate
        float32 `(y, x)`; NaN where no polygon with a value is.

    Raises
    ------
    InputError
        No layer, no such field or method, a field without numbers, or no polygon on the grid. The
        parameters are called POLYGONS, POLYGON_FIELDS and POLYGON_METHOD.
    """
    reporter = reporter or Reporter()
    if method not in METHODS:
        raise InputError(
            "Unknown method.",
            hint=f"Choose one of {', '.join(METHODS)}.",
            parameter="POLYGON_METHOD",
            value=method,
        )
    polygons, table = _read(path, layer, grid, fields)
    table = table.set_axis(list(names or fields), axis="columns")
    polygons, there = usable_polygons(polygons, reporter, "POLYGONS")
    table = table[there]
    pairs = overlay(polygons, grid.shape, reporter)
    if not len(pairs.area):
        raise InputError(
            "Not one of the polygons lies on the grid.",
            hint="Check the coordinate system of the layer, its filter and its selection.",
            parameter="POLYGONS",
            value=path,
        )
    numbers = [_numbers(table[title], reporter) for title in table.columns]
    shares = pairs.area if method == "mean" else pairs.area / shapely.area(polygons)[pairs.polygon]
    return [
        Covariate(
            name,
            _spread(values, pairs, shares, grid, method).astype(np.float32),
            ("y", "x"),
            description=f"{title} ({'mean by area' if method == 'mean' else 'shared out by area'})",
        )
        for name, title, values in zip(variable_names(list(table.columns)), table.columns, numbers)
    ]


def overlay(polygons: np.ndarray, shape: tuple[int, int], reporter: Reporter | None = None) -> Overlay:
    """Return the exact areas that polygons share with the cells of a grid.

    Blocks of cells are halved until a polygon covers its block or one cell is left, for all polygons at
    once. Each polygon is clipped to its block on the way, so that the cost follows the lengths of the
    outlines, and a polygon with many corners is not intersected as a whole with every cell on its edge.

    Parameters
    ----------
    polygons : numpy.ndarray
        `(n,)` of valid shapely geometries in cell coordinates: x counts columns and y rows.
    shape : (rows, columns)
        Shape of the grid.
    """
    reporter = reporter or Reporter()
    index = np.arange(len(polygons))
    nothing = index[:0]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(nothing, nothing, nothing)]
    blocks = _blocks_around(polygons, shape)
    parts = polygons
    while len(index):
        reporter.check()
        top, bottom, left, right = blocks.T
        parts = shapely.intersection(parts, shapely.box(left, top, right, bottom))
        covered = shapely.area(parts)
        cells = (bottom - top) * (right - left)
        full = covered >= cells - _SLIVER
        whole, row, column = _cells_of(blocks[full])
        found.append((index[full][whole], row * shape[1] + column, np.ones(len(whole))))
        single = ~full & (cells == 1) & (covered > _SLIVER)
        found.append((index[single], top[single] * shape[1] + left[single], covered[single]))
        split = ~full & (cells > 1) & (covered > _SLIVER)
        source, blocks = _pieces(blocks[split])
        parts, index = parts[split][source], index[split][source]
    return Overlay(*(np.concatenate(column) for column in zip(*found)))


def _read(
    path: str | Path, layer: str | None, grid: Grid, fields: Sequence[str]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return geometries in cell coordinates, and the fields as they are."""
    try:
        info = pyogrio.read_info(path, layer=layer)
        missing = [name for name in fields if name not in info["fields"]]
        if missing or not fields:
            raise InputError(
                "The layer has no such field." if missing else "No field is chosen.",
                hint=f"It has: {', '.join(info['fields'])}.",
                parameter="POLYGON_FIELDS",
                value=", ".join(missing) or "not set",
            )
        meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer, columns=list(fields))
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"The layer cannot be read: {error}.",
            hint="Choose a polygon layer.",
            parameter="POLYGONS",
            value=path,
        ) from error
    if geometry is None or not meta["crs"]:
        raise InputError(
            f"The layer has no {'coordinate system' if geometry is not None else 'geometry'}.",
            hint="Choose a polygon layer with a coordinate system.",
            parameter="POLYGONS",
            value=path,
        )
    to_grid = _to_grid(meta["crs"], grid, path)

    def to_cells(places: np.ndarray) -> np.ndarray:
        x, y = places.T
        if to_grid is not None:
            x, y = to_grid.transform(x, y)
        with np.errstate(invalid="ignore"):  # places that cannot be reprojected are infinite
            return np.column_stack(grid.to_cells(x, y))

    polygons = shapely.transform(shapely.from_wkb(geometry, on_invalid="fix"), to_cells)
    table = dict(zip(meta["fields"], columns))
    return polygons, pd.DataFrame({name: table[name] for name in fields})


def _to_grid(system: str, grid: Grid, path: str | Path) -> pyproj.Transformer | None:
    """Return what brings coordinates to the grid's system; None if they are in it."""
    try:
        crs = pyproj.CRS.from_user_input(system)
        if crs_name(crs) == crs_name(grid.crs):
            return None
        return pyproj.Transformer.from_crs(crs, grid.crs, always_xy=True)
    except ProjError as error:
        raise InputError(
            f"The layer's coordinate system cannot be brought to that of the grid ({error}).",
            hint="Assign the right one, in QGIS with 'Assign projection'.",
            parameter="POLYGONS",
            value=path,
        ) from error


def _numbers(column: pd.Series, reporter: Reporter) -> np.ndarray:
    """Return float64 `(polygons,)`; NaN where nothing is known."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    bad = (
        ~np.isfinite(numbers) & column.notna().to_numpy() & (column.astype(str).str.strip() != "").to_numpy()
    )
    if bad.any() or not np.isfinite(numbers).any():
        example = f"it has '{column[bad].iloc[0]}'" if bad.any() else "it is empty"
        raise InputError(
            f"The field does not hold numbers: {example}.",
            hint="Choose a field of numbers.",
            parameter="POLYGON_FIELDS",
            value=column.name,
        )
    marked = np.isin(numbers, NO_ESTIMATE)
    if marked.any():
        reporter.warning(
            f"{column.name}: {marked.sum():,} polygons have {numbers[marked][0]:.0f}, the census's mark for "
            "'no estimate'; taken as not known."
        )
    return np.where(marked, np.nan, numbers)


def _spread(values: np.ndarray, pairs: Overlay, shares: np.ndarray, grid: Grid, method: str) -> np.ndarray:
    """Return the sums of values times shares in each cell, for a mean divided by the sums of the shares."""
    known = np.isfinite(values)[pairs.polygon]
    polygon, cell, share = pairs.polygon[known], pairs.cell[known], shares[known]
    size = grid.shape[0] * grid.shape[1]
    weights = np.bincount(cell, share, size)
    total = np.bincount(cell, share * values[polygon], size)
    if method == "mean":
        total = np.divide(total, weights, out=total, where=weights > 0)
    return np.where(weights > 0, total, np.nan).reshape(grid.shape)


def _blocks_around(polygons: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the block of cells (top, bottom, left, right) that holds what of a polygon is on the grid."""
    rows, columns = shape
    left, top, right, bottom = shapely.bounds(polygons).T
    block = [np.floor(top), np.ceil(bottom), np.floor(left), np.ceil(right)]
    limits = np.array([rows, rows, columns, columns])
    return np.clip(np.column_stack(block), 0, limits).astype(np.int64)


def _pieces(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return smaller blocks that make up the given ones, and which of these each is from."""
    small = np.flatnonzero((blocks[:, 1] - blocks[:, 0]) * (blocks[:, 3] - blocks[:, 2]) <= _FEW_CELLS)
    large = np.setdiff1d(np.arange(len(blocks)), small)
    block, row, column = _cells_of(blocks[small])
    cells = np.column_stack([row, row + 1, column, column + 1])
    return np.concatenate([small[block], large, large]), np.concatenate([cells, halves(blocks[large])])


def _cells_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return index of the block, row and column of each cell in blocks."""
    top, bottom, left, right = blocks.T
    width = right - left
    count = (bottom - top) * width
    block = np.repeat(np.arange(len(blocks)), count)
    within = np.arange(len(block)) - np.repeat(np.cumsum(count) - count, count)
    return block, top[block] + within // width[block], left[block] + within % width[block]
