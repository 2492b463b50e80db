# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the edges of cells lie: from a size, a number of cells, or the cells of another raster.

Every function returns the affine transform of a grid, from (column, row) to map coordinates, and its
shape (rows, columns). Bounds are (xmin, ymin, xmax, ymax); lengths are in units of the coordinate system.
"""

from __future__ import annotations

from math import ceil, cos, floor, hypot, radians, sin

from affine import Affine

from .errors import InputError

Bounds = tuple[float, float, float, float]
Layout = tuple[Affine, tuple[int, int]]

# In cells. An edge that lies on another up to rounding is on it: no further row for 1e-9.
_NEAR = 1e-6


def cells_of_size(bounds: Bounds, width: float, height: float, rotation: float, *, snap: str) -> Layout:
    """Cover the bounds with cells of one size.

    Parameters
    ----------
    rotation : float
        Degrees clockwise about the centre of the bounds.
    snap : {"multiples", "extent"}
        Edges on multiples of the size from the origin of the coordinate system (a turned grid, which
        has none there, is centred on the bounds instead); or from the north-western corner.
    """
    xmin, ymin, xmax, ymax = _frame(bounds, rotation)
    if snap == "multiples" and not rotation:
        xmin, xmax = floor(xmin / width + _NEAR) * width, ceil(xmax / width - _NEAR) * width
        ymin, ymax = floor(ymin / height + _NEAR) * height, ceil(ymax / height - _NEAR) * height
    columns = max(1, ceil((xmax - xmin) / width - _NEAR))
    rows = max(1, ceil((ymax - ymin) / height - _NEAR))
    if snap == "multiples" and rotation:
        xmin -= (columns * width - (xmax - xmin)) / 2
        ymax += (rows * height - (ymax - ymin)) / 2
    return _turned(Affine(width, 0.0, xmin, 0.0, -height, ymax), bounds, rotation), (rows, columns)


def cells_by_count(bounds: Bounds, rows: int, columns: int, rotation: float) -> Layout:
    """Divide the bounds evenly into rows and columns."""
    xmin, ymin, xmax, ymax = _frame(bounds, rotation)
    step_x, step_y = (xmax - xmin) / columns, (ymax - ymin) / rows
    return _turned(Affine(step_x, 0.0, xmin, 0.0, -step_y, ymax), bounds, rotation), (rows, columns)


def cells_of_raster(bounds: Bounds, raster: Affine, size: tuple[float, float] | None) -> Layout:
    """Cover the bounds with cells whose edges are edges of a raster's cells.

    Parameters
    ----------
    raster : affine.Affine
        Transform of the raster, which may be turned or have its first row in the south.
    size : (width, height), optional
        Size of the cells: the raster's times or divided by a whole number. By default the raster's.

    Raises
    ------
    InputError
        The raster's cells are no rectangles, or the size does not go with them.
    """
    if raster.determinant > 0:  # the first row is the southern one
        raster = raster @ Affine.scale(1, -1)
    width, height = hypot(raster.a, raster.d), hypot(raster.b, raster.e)
    if abs(raster.a * raster.b + raster.d * raster.e) > 1e-9 * width * height:
        raise InputError(
            "The cells of the raster are no rectangles: it is sheared.",
            hint="Choose another raster, or another way to SNAP.",
            parameter="SNAP_RASTER",
        )
    if size is not None:
        raster = raster @ Affine.scale(_whole(size[0], width, "wide"), _whole(size[1], height, "high"))
    xmin, ymin, xmax, ymax = bounds
    corners = [~raster @ corner for corner in ((xmin, ymin), (xmin, ymax), (xmax, ymin), (xmax, ymax))]
    x, y = zip(*corners)
    left, right = floor(min(x) + _NEAR), ceil(max(x) - _NEAR)
    top, bottom = floor(min(y) + _NEAR), ceil(max(y) - _NEAR)
    return raster @ Affine.translation(left, top), (max(1, bottom - top), max(1, right - left))


def _whole(size: float, cell: float, direction: str) -> float:
    """Return how many cells of a raster make one of ours, or one divided by the number of ours in it."""
    ratio = size / cell
    factor = float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
    if abs(ratio / factor - 1) > 1e-6:
        raise InputError(
            f"The raster's cells are {cell:.9g} {direction} in units of the coordinate system, ours would be "
            f"{size:.9g}, which is no whole multiple of that.",
            hint="Leave CELL_SIZE and CELL_HEIGHT empty to take the raster's cells, or give a multiple.",
            parameter="SNAP_RASTER",
        )
    return factor


def _frame(bounds: Bounds, rotation: float) -> Bounds:
    """Return the bounds, before it is turned, of a frame that covers `bounds` after it is turned."""
    if not rotation:
        return bounds
    xmin, ymin, xmax, ymax = bounds
    x, y, width, height = (xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin
    c, s = abs(cos(radians(rotation))), abs(sin(radians(rotation)))
    half_x, half_y = (width * c + height * s) / 2, (width * s + height * c) / 2
    return x - half_x, y - half_y, x + half_x, y + half_y


def _turned(transform: Affine, bounds: Bounds, rotation: float) -> Affine:
    if not rotation:
        return transform
    xmin, ymin, xmax, ymax = bounds
    return Affine.rotation(-rotation, pivot=((xmin + xmax) / 2, (ymin + ymax) / 2)) @ transform
