# SPDX-License-Identifier: GPL-2.0-or-later
"""Rasters of any resolution and coordinate system to a value per cell."""

from __future__ import annotations

import warnings
from math import ceil
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling

from ..errors import InputError
from ..grid import Grid
from ..reporter import Reporter
from . import Covariate
from .names import variable_names

#: Mean of the pixels in a cell, weighted by area; or the pixel at its centre, for classes.
METHODS = ("mean", "nearest")

# Up to this slope between rows of pixels and rows of cells GDAL's averages are exact enough: it averages
# over the upright rectangle between two corners of a cell.
_SLOPE = 0.005
# Where rows are turned, a cell is cut into this many parts each way, at least and at most.
_PARTS = (8, 32)
# Parts of cells that are read at a time.
_BLOCK = 16_000_000


def covariate_from_raster(
    path: str | Path,
    grid: Grid,
    *,
    method: str = "mean",
    band: int = 1,
    name: str = "",
    crs: pyproj.CRS | None = None,
    reporter: Reporter | None = None,
) -> Covariate:
    """Return a band of a raster as one value per cell.

    Parameters
    ----------
    path : path or str
        Whatever GDAL opens, such as a GeoTIFF or ``NETCDF:"file.nc":variable``.
    grid : Grid
        Cells, in any coordinate system, also turned ones.
    method : {"mean", "nearest"}
        ``mean``: of the pixels in the cell, weighted by area; those without data do not count. Exact where
        rows of pixels and rows of cells run in one direction. Otherwise the cell is cut into 8 × 8 to
        32 × 32 parts, finer than the pixels if possible. ``nearest``: the pixel at the centre.
    band : int
        From 1.
    name : str
        Name of the covariate; empty: that of the file.
    crs : pyproj.CRS, optional
        Coordinate system of a raster that does not tell its own.
    reporter : Reporter, optional
        Is asked now and then whether to stop.

    Returns
    -------
    Covariate
        float32 `(y, x)`; NaN where the raster has no data.

    Raises
    ------
    InputError
        No raster, no coordinate system, no such band or method, or no data on the grid. The parameters are
        called RASTERS, RASTER_BAND and RASTER_METHOD.
    """
    if method not in METHODS:
        raise InputError(
            "Unknown method.",
            hint=f"Choose one of {', '.join(METHODS)}.",
            parameter="RASTER_METHOD",
            value=method,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told below, as an error
            with rasterio.open(path) as source:
                system = _checked_system(source, path, band, crs)
                values = _cell_values(source, system, grid, method, band, reporter or Reporter())
                values = values * source.scales[band - 1] + source.offsets[band - 1]
                text, units = source.descriptions[band - 1], source.units[band - 1]
    except (RasterioError, ProjError, ValueError) as error:
        raise InputError(
            f"The file is missing, damaged or not a raster ({error}).",
            hint="Choose a raster whose pixels lie on a map, such as a GeoTIFF.",
            parameter="RASTERS",
            value=path,
        ) from error
    if not np.isfinite(values).any():
        raise InputError(
            "The raster has no data on the grid.",
            hint="Check that it covers the study area and that its coordinate system is set rightly.",
            parameter="RASTERS",
            value=path,
        )
    title = name or Path(path).stem
    description = f"{text or title} ({'mean of the cell' if method == 'mean' else 'at the centre'})"
    return Covariate(
        variable_names([title])[0], values.astype(np.float32), ("y", "x"), units or "1", description
    )


def _checked_system(
    source: rasterio.DatasetReader, path: str | Path, band: int, crs: pyproj.CRS | None
) -> rasterio.crs.CRS:
    """Return the raster's coordinate system."""
    if source.transform.is_identity or source.transform.is_degenerate:
        raise InputError(
            "The raster has no place on the map.",
            hint="Georeference it first.",
            parameter="RASTERS",
            value=path,
        )
    if not 1 <= band <= source.count:
        raise InputError(
            f"The raster '{Path(path).name}' has no such band.",
            hint=f"It has {source.count}: choose a band from 1 to {source.count}.",
            parameter="RASTER_BAND",
            value=band,
        )
    if source.crs:
        return source.crs
    if crs is None:
        raise InputError(
            "The raster has no coordinate system.",
            hint="Assign the right one, in QGIS with 'Assign projection'.",
            parameter="RASTERS",
            value=path,
        )
    return rasterio.crs.CRS.from_wkt(crs.to_wkt())


def _cell_values(
    source: rasterio.DatasetReader,
    system: rasterio.crs.CRS,
    grid: Grid,
    method: str,
    band: int,
    reporter: Reporter,
) -> np.ndarray:
    """Return float64 `(y, x)`, read in blocks of rows."""
    parts, resampling = 1, Resampling.nearest
    if method == "mean":
        parts, resampling = _sampling(source, system, grid)
    rows, columns = grid.shape
    nodata = source.nodatavals[band - 1]
    is_float = source.dtypes[band - 1].startswith("float")
    values = np.full(grid.shape, np.nan)
    with WarpedVRT(
        source,
        src_crs=system,
        src_nodata=np.nan if nodata is None and is_float else nodata,
        crs=rasterio.crs.CRS.from_wkt(grid.crs.to_wkt()),
        transform=grid.transform @ Affine.scale(1 / parts),
        width=columns * parts,
        height=rows * parts,
        resampling=resampling,
        nodata=np.nan,
        dtype="float64",
    ) as warped:
        height = max(1, _BLOCK // (columns * parts**2))
        for top in range(0, rows, height):
            reporter.check()
            bottom = min(top + height, rows)
            window = ((top * parts, bottom * parts), (0, columns * parts))
            pixels = warped.read(band, window=window, masked=True).filled(np.nan)
            values[top:bottom] = _block_means(pixels, parts)
    return values


def _sampling(source: rasterio.DatasetReader, system: rasterio.crs.CRS, grid: Grid) -> tuple[int, Resampling]:
    """Return into how many parts a cell is cut each way, and how GDAL fills them."""
    row, column = np.array(grid.shape) / 2
    corners = [(column, row), (column + 1, row), (column, row + 1)]
    x, y = zip(*(grid.transform @ corner for corner in corners))
    to_raster = pyproj.Transformer.from_crs(grid.crs, pyproj.CRS.from_wkt(system.to_wkt()), always_xy=True)
    x, y = to_raster.transform(x, y)
    pixel = np.array([~source.transform @ place for place in zip(x, y)])
    across, down = np.abs(pixel[1] - pixel[0]), np.abs(pixel[2] - pixel[0])
    if not np.isfinite([across, down]).all():
        return 1, Resampling.average  # far outside the raster's coordinate system
    if across[1] <= _SLOPE * across[0] and down[0] <= _SLOPE * down[1]:
        return 1, Resampling.average
    size = max(np.hypot(*across), np.hypot(*down))
    parts = int(np.clip(ceil(2 * size), *_PARTS))
    return parts, Resampling.average if size > parts else Resampling.nearest


def _block_means(pixels: np.ndarray, parts: int) -> np.ndarray:
    """Return the means of blocks of `parts` × `parts` pixels; NaN does not count."""
    rows, columns = np.array(pixels.shape) // parts
    blocks = pixels.reshape(rows, parts, columns, parts)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    sums = np.where(known, blocks, 0).sum(axis=(1, 3))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
