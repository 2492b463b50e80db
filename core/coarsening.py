# SPDX-License-Identifier: GPL-2.0-or-later
"""Larger cells from smaller ones: grids and cubes in blocks of cells, forecasts of blocks spread back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from affine import Affine

from .covariates import Covariate
from .cube import Cube
from .errors import InputError
from .grid import Grid
from .severity import Severity


def coarser_grid(grid: Grid, factor: int) -> Grid:
    """Return the grid whose cells are blocks of `factor` x `factor` cells, counted from the north-west.

    The share of a block inside the study area is the mean of the shares of its cells. Where the last rows or
    columns do not fill a block, what is missing lies outside.

    Raises
    ------
    InputError
        The factor is below 1, or a block would be larger than the grid.
    """
    if not 1 <= factor <= max(grid.shape):
        raise InputError(
            f"Cells can be put together in blocks of 1 to {max(grid.shape)} cells a side.",
            hint="Give a whole number such as 2.",
            parameter="COARSEN",
            value=factor,
        )
    return Grid(grid.crs, grid.transform @ Affine.scale(factor), _sums(grid.inside, factor) / factor**2)


def coarser_cube(cube: Cube, factor: int) -> Cube:
    """Return the cube on :func:`coarser_grid`: events and severities are added up, covariates averaged.

    A covariate of a block is the mean over those of its cells that have a value, weighted with their shares
    inside the study area; NaN where there is none. A total such as residents becomes the mean per cell.
    """
    if factor == 1:
        return cube
    severity = cube.severity
    return replace(
        cube,
        grid=coarser_grid(cube.grid, factor),
        events=_sums(cube.events, factor).astype(np.float32),
        covariates={
            name: _averaged(each, cube.grid.inside, factor) if "y" in each.dimensions else each
            for name, each in cube.covariates.items()
        },
        severity=None
        if severity is None
        else Severity(_sums(severity.sum, factor), _sums(severity.weight, factor).astype(np.float32)),
    )


def placed_cube(cube: Cube, factor: int, rows: int, columns: int) -> Cube:
    """Return the cube of blocks of `factor` x `factor` cells that begin `rows` and `columns` cells earlier.

    The same events on the same size of cells, with the grid laid elsewhere: what changes is the choice of
    the grid. Cells that are added in the north and west lie outside the study area.
    """
    grid = cube.grid
    moved = Grid(
        grid.crs,
        grid.transform @ Affine.translation(-columns, -rows),
        np.pad(grid.inside, ((rows, 0), (columns, 0))),
    )

    def wider(values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        margin = [(0, 0)] * (values.ndim - 2) + [(rows, 0), (columns, 0)]
        return np.pad(values, margin, constant_values=fill)

    severity = cube.severity
    wide = replace(
        cube,
        grid=moved,
        events=wider(cube.events),
        covariates={
            name: replace(each, values=wider(each.values, np.nan)) if "y" in each.dimensions else each
            for name, each in cube.covariates.items()
        },
        severity=None if severity is None else Severity(wider(severity.sum), wider(severity.weight)),
    )
    return coarser_cube(wide, factor)


def spread_back(expected: np.ndarray, grid: Grid, factor: int) -> np.ndarray:
    """Spread expected events of blocks over their cells, in proportion to the area inside the study area.

    Parameters
    ----------
    expected : numpy.ndarray
        `(..., block rows, block columns)`, NaN outside the study area.
    grid : Grid
        The grid that the blocks were made of.

    Returns
    -------
    numpy.ndarray
        `(..., rows, columns)`, of the same type and with the same sums; NaN outside the study area.
    """
    rows, columns = grid.shape
    area = grid.inside_area
    of_block = _sums(area, factor).repeat(factor, axis=0).repeat(factor, axis=1)[:rows, :columns]
    share = np.divide(area, of_block, out=np.full(grid.shape, np.nan), where=grid.valid)
    wide = np.repeat(np.repeat(expected, factor, axis=-2), factor, axis=-1)[..., :rows, :columns]
    return (wide * share).astype(expected.dtype)


def _sums(values: np.ndarray, factor: int) -> np.ndarray:
    """Return the sums over blocks of the last two axes, float64; nothing is added beyond the edge."""
    *other, rows, columns = values.shape
    missing = [(0, 0)] * len(other) + [(0, -rows % factor), (0, -columns % factor)]
    whole = np.pad(values, missing)
    blocks = whole.reshape(*other, whole.shape[-2] // factor, factor, whole.shape[-1] // factor, factor)
    return blocks.sum(axis=(-3, -1), dtype=np.float64)


def _averaged(covariate: Covariate, inside: np.ndarray, factor: int) -> Covariate:
    known = np.isfinite(covariate.values) * inside
    weight = _sums(known, factor)
    total = _sums(np.nan_to_num(covariate.values) * known, factor)
    mean = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return replace(covariate, values=mean.astype(np.float32))
