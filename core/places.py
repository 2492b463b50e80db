# SPDX-License-Identifier: GPL-2.0-or-later
"""A study area from the places of events: which lie far off, the hull of all, the cells near them.

Places are float64 `(n, 2)` arrays of x and y in the coordinate system of the grid. Everything here
stays fast with a million of them: events share places, and a hull is made from few.
"""

from __future__ import annotations

import numpy as np
import shapely

from .errors import InputError

#: A hull is made from so many places at most; its outline moves by less than 1/200 of the extent.
HULL_PLACES = 40_000

# Fewer places say nothing about which of them is odd.
_FEWEST = 10
# Multiples of the diagonal of the box that holds the middle 90 % of the places in x and in y.
_FAR = 3.0


def unique_places(places: np.ndarray) -> np.ndarray:
    """Return each place once."""
    found = np.unique(places[:, 0] + 1j * places[:, 1])  # several times faster than by rows
    return np.column_stack([found.real, found.imag])


def distance_off(places: np.ndarray) -> np.ndarray:
    """Return how far each place lies outside the middle of all, 0 for places that are not far off.

    The middle is the box between the 5 % and the 95 % quantile of the different places; far off is what
    lies more than three of its diagonals away from it. So neither a wrong place that many events share
    nor a busy corner of the city moves the bounds, and a town beside a city is not far off.

    Returns
    -------
    numpy.ndarray
        float64 `(n,)` in units of the coordinate system.
    """
    different = unique_places(places)
    if len(different) < _FEWEST:
        return np.zeros(len(places))
    low = np.quantile(different, 0.05, axis=0, method="higher")
    high = np.quantile(different, 0.95, axis=0, method="lower")
    distance = np.hypot(*(places - np.clip(places, low, high)).T)
    return np.where(distance > _FAR * np.hypot(*(high - low)), distance, 0.0)


def bounds_of(places: np.ndarray) -> tuple[float, float, float, float]:
    """Return (xmin, ymin, xmax, ymax)."""
    (xmin, ymin), (xmax, ymax) = places.min(axis=0), places.max(axis=0)
    return float(xmin), float(ymin), float(xmax), float(ymax)


def hull_of(places: np.ndarray, ratio: float) -> shapely.Polygon:
    """Return the concave hull of places.

    Parameters
    ----------
    ratio : float
        From 0, the tightest outline, to 1, the convex hull.

    Raises
    ------
    InputError
        A ratio beyond that, or places that span no area.
    """
    if not 0 <= ratio <= 1:
        raise InputError(
            "The ratio of the hull must lie between 0 and 1.",
            hint="0.3 is usual; 1 gives the convex hull.",
            parameter="HULL_RATIO",
            value=ratio,
        )
    few = _thinned(unique_places(places), HULL_PLACES)
    hull = shapely.concave_hull(shapely.multipoints(few), ratio=ratio)
    if hull.area == 0:
        raise InputError(
            "The events span no area: they lie in one place or on one line.",
            hint="Choose a layer with more events, or another AREA_FROM.",
            parameter="INPUT",
        )
    return hull


def _thinned(places: np.ndarray, most: int) -> np.ndarray:
    """Return at most about `most` of the places, spread as all are; the corners of the convex hull stay."""
    if len(places) <= most:
        return places
    low, high = places.min(axis=0), places.max(axis=0)
    squares = int(most**0.5)
    across = np.minimum((places - low) / np.maximum(high - low, 1e-300) * squares, squares - 1).astype(int)
    _, first = np.unique(across[:, 0] * squares + across[:, 1], return_index=True)
    corners = shapely.get_coordinates(shapely.convex_hull(shapely.multipoints(places)))
    return unique_places(np.concatenate([places[first], corners]))


def cells_near(
    places: np.ndarray, shape: tuple[int, int], cell: tuple[float, float], distance: float
) -> np.ndarray:
    """Tell which cells lie within a distance of a place.

    Parameters
    ----------
    places : numpy.ndarray
        `(n, 2)`, in cell coordinates (column, row).
    shape : (rows, columns)
        Shape of the grid.
    cell : (width, height)
        Size of a cell in metres.
    distance : float
        Metres between a place and the nearest point of a cell.

    Returns
    -------
    numpy.ndarray
        bool `(rows, columns)`.

    Raises
    ------
    InputError
        The distance is no number of at least 0.
    """
    if not (np.isfinite(distance) and distance >= 0):
        raise InputError(
            "The distance must be a number of at least 0.",
            hint="Give metres, such as 500.",
            parameter="DISTANCE",
            value=distance,
        )
    rows, columns = shape
    x, y = unique_places(places).T
    # In each row, a place reaches a run of columns: +1 where it begins, -1 behind its end.
    steps = np.zeros((rows, columns + 1))
    reach = int(distance / cell[1]) + 1
    highest, lowest = int(np.floor(y.min())), int(np.floor(y.max()))
    for offset in range(max(-reach, -lowest), min(reach, rows - 1 - highest) + 1):
        row = np.floor(y) + offset
        up_or_down = np.maximum(np.maximum(row - y, y - row - 1), 0) * cell[1]
        near = (row >= 0) & (row < rows) & (up_or_down <= distance)
        half = np.sqrt(distance**2 - up_or_down[near] ** 2) / cell[0]
        first = np.clip(np.ceil(x[near] - half - 1), 0, columns)
        behind = np.clip(np.floor(x[near] + half) + 1, 0, columns)
        for column, sign in ((first, 1), (behind, -1)):
            index = (row[near] * (columns + 1) + column).astype(np.int64)
            steps += sign * np.bincount(index, minlength=steps.size).reshape(steps.shape)
    return steps.cumsum(axis=1)[:, :columns] > 0
