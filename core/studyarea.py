# SPDX-License-Identifier: GPL-2.0-or-later
"""Which share of each cell lies inside a study area.

Here a geometry is in cell coordinates: x counts columns and y rows from the grid's outer corner. Cells
are unit squares then, even in a turned grid or with rectangular cells, and areas are shares.
"""

from __future__ import annotations

import numpy as np
import shapely

from .errors import InputError

# In cells. Edges of the area on edges of cells cut slivers off their neighbours by rounding.
_SLIVER = 1e-9
# Well below what an exact share may be off, well above the rounding of areas of whole cells.
_ALL_BUT = 1e-10


def repaired(area: shapely.Geometry) -> shapely.Geometry:
    """Return a study area with valid rings.

    Raises
    ------
    InputError
        It has no area.
    """
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


def inside_share(
    area: shapely.Geometry, shape: tuple[int, int], rule: str = "intersects", min_share: float = 50.0
) -> np.ndarray:
    """Return the exact share of each cell inside an area, 0 for cells that the rule leaves out.

    Parameters
    ----------
    area : shapely geometry
        Polygon(s) in cell coordinates.
    shape : (rows, columns)
        Shape of the grid.
    rule : {"intersects", "centre", "share"}
        See :meth:`.grid.Grid.from_extent`.
    min_share : float
        Percent, for the rule ``share``.

    Returns
    -------
    numpy.ndarray
        float64 `(rows, columns)`, 0..1; off by less than 1e-9.
    """
    if not shapely.is_valid(area):  # by rounding on the way to cell coordinates
        area = shapely.make_valid(area)
    share = exact_share(area, shape)
    rows, columns = np.nonzero(share)
    kept = takes_part(share[rows, columns], columns + 0.5, rows + 0.5, area, rule, min_share)
    share[rows[~kept], columns[~kept]] = 0
    return share


def takes_part(
    share: np.ndarray, x: np.ndarray, y: np.ndarray, area: shapely.Geometry, rule: str, min_share: float
) -> np.ndarray:
    """Tell which cells with exact shares and centres `x`, `y` a rule keeps: bool, as long as `share`."""
    if rule == "centre":
        shapely.prepare(area)
        return (share > 0) & shapely.contains_xy(area, x, y)
    if rule == "share":
        # Exactly half a cell must not fall out by rounding.
        return (share > 0) & (share >= min_share / 100 - _SLIVER)
    return share > 0


def exact_share(area: shapely.Geometry, shape: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell inside an area: float64 `(rows, columns)`.

    Blocks of cells are halved until the area covers a block or one cell is left. The area is clipped to
    each block on the way, so the cost follows the length of its outline and not cells times vertices.
    """
    share = np.zeros(shape)
    blocks = np.array([[0, shape[0], 0, shape[1]]])
    parts = np.array([area], dtype=object)
    while len(blocks):
        top, bottom, left, right = blocks.T
        parts = shapely.intersection(parts, shapely.box(left, top, right, bottom))
        cells = (bottom - top) * (right - left)
        covered = shapely.area(parts)
        full = covered >= cells - _ALL_BUT
        for t, b, w, e in blocks[full]:
            share[t:b, w:e] = 1
        single = ~full & (cells == 1)
        share[top[single], left[single]] = covered[single]
        split = ~full & (cells > 1) & (covered > 0)
        parts = np.concatenate([parts[split], parts[split]])
        blocks = halves(blocks[split])
    share[share < _SLIVER] = 0
    return share


def halves(blocks: np.ndarray) -> np.ndarray:
    """Return the first and then the second halves of blocks (top, bottom, left, right)."""
    first, second = blocks.copy(), blocks.copy()
    top, bottom, left, right = blocks.T
    high = bottom - top >= right - left
    first[high, 1] = second[high, 0] = (top + bottom)[high] // 2
    first[~high, 3] = second[~high, 2] = (left + right)[~high] // 2
    return np.concatenate([first, second])
