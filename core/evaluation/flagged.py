# SPDX-License-Identifier: GPL-2.0-or-later
"""Flagged areas of any origin as polygons, scored against the events that came.

A hit is an event that lies in a flagged polygon, border included. Where polygons overlap, the shared area
counts once, for the polygon that comes first. Areas are square metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyproj
import shapely
from affine import Affine

from ..covariates.polygons import overlay
from ..errors import InputError
from ..grid import Grid, metres_per_unit
from ..reporter import Reporter
from ..vectors import read_table, usable_polygons
from .metrics import Hits, cells_within, most_events

# Relative. Neighbouring cells share slivers by rounding; that is no overlap.
_SLIVER = 1e-9
_POLYGONS = (3, 6)  # polygons and multipolygons, as shapely numbers them
# Relative. Cells whose areas differ by less have one size.
_SAME_SIZE = 0.01
# In cells. Corners that are further from those of a lattice do not belong to it.
_OFF_LATTICE = 0.02


@dataclass(frozen=True, eq=False)
class FlaggedAreas:
    """Polygons that somebody flagged.

    Attributes
    ----------
    polygons : numpy.ndarray
        shapely polygons `(n,)`, valid and with an area.
    crs : pyproj.CRS
        Their coordinate system, projected.
    values : numpy.ndarray, optional
        float64 `(n,)`: polygons are searched from the highest value to the lowest.
    expected : numpy.ndarray, optional
        float64 `(n,)`: events that were forecast for each polygon.
    plane : bool
        Measure areas in the plane of the coordinate system and not on the ground. In State Plane feet they
        differ by some hundredths of a percent.
    """

    polygons: np.ndarray
    crs: pyproj.CRS
    values: np.ndarray | None = None
    expected: np.ndarray | None = None
    plane: bool = False

    @classmethod
    def read(
        cls,
        path: str | Path,
        crs: pyproj.CRS,
        reporter: Reporter,
        *,
        order: str | None = None,
        highest_first: bool = False,
        expected: str | None = None,
        hotspot: str | None = None,
        plane: bool = False,
    ) -> FlaggedAreas:
        """Read a layer whose coordinates are in `crs`.

        Parameters
        ----------
        order, expected : str, optional
            Fields with a rank (1 first) or, with `highest_first`, a value, and with the expected events.
        hotspot : str, optional
            Field of an NIJ entry: only features in which it is 1 are flagged.
        plane : bool
            See the attribute.

        Raises
        ------
        InputError
            No polygon, or a field without numbers.
        """
        names = {"ORDER_FIELD": order, "EXPECTED_FIELD": expected, "FLAGGED": hotspot}
        wanted = [name for name in names.values() if name]
        polygons, table = read_table(path, wanted, "FLAGGED", "Choose a polygon layer.")
        columns = {key: _numbers(table[name], key) for key, name in names.items() if name}
        if hotspot:
            hot = columns["FLAGGED"] == 1
            polygons = polygons[hot]
            columns = {key: values[hot] for key, values in columns.items()}
        polygons, there = usable_polygons(polygons, reporter, "FLAGGED")
        if not len(polygons):
            raise InputError(
                "No polygon is flagged.",
                hint="Choose a layer of polygons, and check its filter and selection.",
                parameter="FLAGGED",
            )
        values = columns.get("ORDER_FIELD")
        if values is not None:
            # What has no rank comes last.
            values = np.nan_to_num(values if highest_first else -values, nan=-np.inf)[there]
        guess = columns.get("EXPECTED_FIELD")
        return cls(polygons, crs, values, None if guess is None else np.nan_to_num(guess)[there], plane)

    @cached_property
    def square_metres(self) -> float:
        """Square metres in a unit of area of the coordinate system, on the ground in the middle of all."""
        if self.plane:
            return float(self.crs.axis_info[0].unit_conversion_factor) ** 2
        xmin, ymin, xmax, ymax = shapely.total_bounds(self.polygons)
        wide, high = metres_per_unit(self.crs, (xmin + xmax) / 2, (ymin + ymax) / 2)
        return wide * high

    @cached_property
    def sizes(self) -> np.ndarray:
        """float64 `(n,)`: square metres of each polygon, as it was flagged."""
        return shapely.area(self.polygons) * self.square_metres

    @cached_property
    def of_one_size(self) -> bool:
        """Whether the polygons are cells of one size; the border may have cut some of them."""
        usual = np.median(self.sizes)
        return bool(self.sizes.max() <= usual * (1 + _SAME_SIZE))

    def cells(self, cell_size: float | None) -> Affine | None:
        """Return the lattice of cells among which the best choice is made, as an affine transform.

        Parameters
        ----------
        cell_size : float, optional
            Metres: square cells with edges on multiples of the size. By default the lattice to which the
            polygons belong, turned or not; where they are cells of one size without a common lattice,
            squares of that size.

        Returns
        -------
        affine.Affine or None
            From (column, row) to map coordinates; None if the polygons have no common size.
        """
        if cell_size is None:
            if not self.of_one_size:
                return None
            lattice = lattice_of(self.polygons)
            if lattice is not None:
                return lattice
            cell_size = float(np.sqrt(self.sizes[self.sizes >= np.median(self.sizes) * 0.99].mean()))
        return Affine.scale(cell_size / np.sqrt(self.square_metres))


def _numbers(column: np.ndarray, parameter: str) -> np.ndarray:
    numbers = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).any():
        raise InputError(
            "The field does not hold numbers.",
            hint="Choose a field of numbers.",
            parameter=parameter,
            value=f"'{column[0]}'" if len(column) else "empty",
        )
    return numbers


def lattice_of(polygons: np.ndarray) -> Affine | None:
    """Return the lattice of which polygons are cells, as a transform from (column, row); None without one.

    The cells are parallelograms of one size, in any direction. Those that the border has cut are smaller
    and not looked at.
    """
    parts = shapely.get_parts(polygons)
    area = shapely.area(parts)
    whole = (shapely.get_num_coordinates(parts) == 5) & (area >= area.max() * (1 - _SAME_SIZE))
    if 2 * whole.sum() < len(parts):
        return None
    corners = shapely.get_coordinates(parts[whole]).reshape(-1, 5, 2)[:, :4]
    first = corners[0]
    along, down = first[1] - first[0], first[3] - first[0]
    lattice = Affine(along[0], down[0], first[0, 0], along[1], down[1], first[0, 1])
    flat = corners.reshape(-1, 2)
    # The edges of one cell are too short to reach far: all corners together say how long they are.
    for _ in range(2):
        column, row = (np.round(values) for values in ~lattice @ flat.T)
        places = np.column_stack([column, row, np.ones(len(flat))])
        (a, b, c), (d, e, f) = np.linalg.lstsq(places, flat, rcond=None)[0].T
        lattice = Affine(a, b, c, d, e, f)
        if lattice.is_degenerate:
            return None
    column, row = ~lattice @ flat.T
    off = max(np.abs(column - np.round(column)).max(), np.abs(row - np.round(row)).max())
    # Each polygon is one cell: its corners are one step apart.
    one = np.abs(np.linalg.det(corners[:, [1, 3]] - corners[:, :1]) / lattice.determinant)
    return lattice if off < _OFF_LATTICE and np.allclose(one, 1, atol=_OFF_LATTICE) else None


class Happened(Protocol):
    """The events of a period and where they can have happened."""

    @property
    def events(self) -> float:
        """Events in the study area."""

    @property
    def area(self) -> float:
        """Square metres of the study area."""

    def clipped(self, polygons: np.ndarray) -> np.ndarray:
        """Return what of polygons lies in the study area, empty where nothing does."""

    def in_polygons(self, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return square metres of each polygon, and the events of which it is the first that holds them."""

    def uncut(self, polygons: np.ndarray) -> np.ndarray:
        """Tell which polygons lie in the study area as a whole, bool `(n,)`."""

    def best(self, areas: FlaggedAreas, cell_size: float | None, budget: np.ndarray) -> np.ndarray:
        """Return the most events that any choice of cells within budgets (square metres) could have held."""


@dataclass(frozen=True, eq=False)
class EventPoints:
    """Events as points, in the coordinate system of the flagged areas.

    Attributes
    ----------
    x, y : numpy.ndarray
        float64 `(events,)`.
    square_metres : float
        Square metres in a unit of area of the coordinate system.
    study_area : shapely geometry, optional
        What lies outside does not count; without one all events count.
    total_area : float
        Square metres of the study area.
    """

    x: np.ndarray
    y: np.ndarray
    square_metres: float
    study_area: shapely.Geometry | None
    total_area: float

    @cached_property
    def inside(self) -> np.ndarray:
        """bool `(events,)`: which events lie in the study area."""
        if self.study_area is None:
            return np.ones(len(self.x), bool)
        shapely.prepare(self.study_area)
        return shapely.intersects_xy(self.study_area, self.x, self.y)

    @property
    def events(self) -> float:
        return float(self.inside.sum())

    @property
    def area(self) -> float:
        return self.total_area

    def clipped(self, polygons: np.ndarray) -> np.ndarray:
        if self.study_area is None:
            return polygons
        shapely.prepare(self.study_area)
        cut = ~shapely.contains_properly(self.study_area, polygons)
        polygons = polygons.copy()
        polygons[cut] = shapely.intersection(polygons[cut], self.study_area)
        # Where it also touches the border, lines and points are left over.
        mixed = ~np.isin(shapely.get_type_id(polygons), _POLYGONS)
        polygons[mixed] = shapely.buffer(polygons[mixed], 0)
        return polygons

    def owners(self, polygons: np.ndarray) -> np.ndarray:
        """Return the index of the first polygon that holds each event, -1 without one: int `(events,)`."""
        places = np.flatnonzero(self.inside)
        found = shapely.STRtree(polygons).query(
            shapely.points(self.x[places], self.y[places]), predicate="intersects"
        )
        owner = np.full(len(self.x), len(polygons))
        np.minimum.at(owner, places[found[0]], found[1])
        return np.where(owner == len(polygons), -1, owner)

    def in_polygons(self, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        owner = self.owners(polygons)
        counts = np.bincount(owner[owner >= 0], minlength=len(polygons)).astype(float)
        return shapely.area(polygons) * self.square_metres, counts

    def uncut(self, polygons: np.ndarray) -> np.ndarray:
        if self.study_area is None:
            return np.ones(len(polygons), bool)
        shapely.prepare(self.study_area)
        return shapely.contains_properly(self.study_area, polygons)

    def best(self, areas: FlaggedAreas, cell_size: float | None, budget: np.ndarray) -> np.ndarray:
        lattice = areas.cells(cell_size)
        if lattice is None:
            return np.full(np.shape(budget), np.nan)
        column, row = (np.floor(v) for v in ~lattice @ (self.x[self.inside], self.y[self.inside]))
        cells, counts = np.unique(np.column_stack([column, row]), axis=0, return_counts=True)
        left, top = cells.T
        squares = shapely.box(left, top, left + 1, top + 1)
        squares = shapely.transform(squares, lambda p: np.column_stack(lattice @ p.T))
        size = shapely.area(self.clipped(squares)) * self.square_metres
        # An event on the very border may lie in a cell of which nothing is inside.
        return most_events(counts.astype(float), np.maximum(size, 1e-9), budget)


@dataclass(frozen=True, eq=False)
class EventCells:
    """Events as counts of the cells of a grid; those of a cell are spread evenly over its part inside.

    Attributes
    ----------
    grid : Grid
        Cells and study area; the flagged areas are in its coordinate system.
    counts : numpy.ndarray
        float64 `(rows, columns)`.
    """

    grid: Grid
    counts: np.ndarray

    @property
    def events(self) -> float:
        return float(self.counts[self.grid.valid].sum())

    @property
    def area(self) -> float:
        return float(self.grid.inside_area.sum())

    def clipped(self, polygons: np.ndarray) -> np.ndarray:
        return polygons

    def in_polygons(self, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = overlay(_to_cells(polygons, self.grid), self.grid.shape)
        inside = self.grid.inside.ravel()[pairs.cell]
        held = np.minimum(pairs.area, inside)
        share = np.divide(held, inside, out=np.zeros_like(held), where=inside > 0)
        area = held * self.grid.cell_area.ravel()[pairs.cell]
        events = share * self.counts.ravel()[pairs.cell]
        return (
            np.bincount(pairs.polygon, area, len(polygons)),
            np.bincount(pairs.polygon, events, len(polygons)),
        )

    def uncut(self, polygons: np.ndarray) -> np.ndarray:
        area = self.in_polygons(polygons)[0]
        whole = shapely.area(_to_cells(polygons, self.grid)) * self.grid.cell_area.mean()
        return area >= whole * (1 - _SAME_SIZE)

    def best(self, areas: FlaggedAreas, cell_size: float | None, budget: np.ndarray) -> np.ndarray:
        valid = self.grid.valid
        return most_events(self.counts[valid].astype(float), self.grid.inside_area[valid], budget)


def _to_cells(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    return shapely.transform(polygons, lambda p: np.column_stack(grid.to_cells(p[:, 0], p[:, 1])))


@dataclass(frozen=True, eq=False)
class AreaScore:
    """How flagged areas did.

    Attributes
    ----------
    hits : Hits
        `(budgets,)`.
    searched : numpy.ndarray
        Polygons in the order in which they were searched, without what belongs to an earlier one.
    area : numpy.ndarray
        float64 `(n,)`: square metres of these inside the study area.
    counts : numpy.ndarray
        int `(budgets,)`: how many of these each budget holds.
    """

    hits: Hits
    searched: np.ndarray
    area: np.ndarray
    counts: np.ndarray


def score_areas(
    areas: FlaggedAreas,
    happened: Happened,
    shares: Sequence[float] | None = None,
    cell_size: float | None = None,
) -> AreaScore:
    """Score flagged areas against what happened.

    Parameters
    ----------
    shares : sequence of float, optional
        Budgets in percent of the study area: polygons are searched in order as long as they fit, at least
        one. Of polygons with one value those with the fewest events come first. By default all are searched.
    cell_size : float, optional
        Metres: the cells of the best choice, see :meth:`FlaggedAreas.cells`; those of a grid are its own.
    """
    polygons = happened.clipped(areas.polygons)
    order = np.arange(len(polygons))
    if areas.values is not None:
        order = np.lexsort((happened.in_polygons(polygons)[1], -areas.values))
    searched = without_overlaps(polygons[order])
    area, counts = happened.in_polygons(searched)
    reached = np.cumsum(area)
    number = np.array([len(polygons)])
    if shares is not None:
        number = cells_within(reached, happened.area * np.asarray(shares, float) / 100)
    hits = np.cumsum(counts)[number - 1]
    expected = np.full(len(number), np.nan)
    if areas.expected is not None:
        expected = np.cumsum(areas.expected[order])[number - 1]
    flagged = reached[number - 1]
    # The choice that was made is one of the choices, whatever the cells of the best one are.
    best = np.maximum(happened.best(areas, cell_size, flagged), hits)
    events, total = np.full(hits.shape, happened.events), np.full(hits.shape, happened.area)
    return AreaScore(Hits(hits, events, best, expected, flagged, total), searched, area, number)


def without_overlaps(polygons: np.ndarray) -> np.ndarray:
    """Return polygons without what belongs to an earlier one."""
    area = shapely.area(polygons)
    if area.sum() - shapely.area(shapely.union_all(polygons)) <= _SLIVER * area.sum():
        return polygons
    later, earlier = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = np.column_stack([later, earlier])[earlier < later]
    shared = shapely.area(shapely.intersection(polygons[pairs[:, 0]], polygons[pairs[:, 1]]))
    pairs = pairs[shared > _SLIVER * area[pairs[:, 0]]]
    result = polygons.copy()
    for index in np.unique(pairs[:, 0]):
        before = shapely.union_all(polygons[pairs[pairs[:, 0] == index, 1]])
        result[index] = shapely.difference(polygons[index], before)
    return result
