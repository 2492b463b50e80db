# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot spots: the cells that a fixed budget of area should go to, as ranked polygons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from .cube import Cube
from .errors import InputError
from .evaluation.metrics import HitRate, flag_cells
from .features import historical_average
from .forecast import Forecast
from .vectors import write_polygons


@dataclass(frozen=True, eq=False)
class HotSpots:
    """Flagged cells of a forecast and the polygons that they form.

    Attributes
    ----------
    forecast : Forecast
        The steps that were added up.
    area_share : float
        Percent of the study area that might be flagged.
    expected : numpy.ndarray
        `(y, x)` expected events over all steps, NaN outside.
    flagged : numpy.ndarray
        bool `(y, x)`.
    cell_rows, cell_columns, owner : numpy.ndarray
        int `(flagged cells,)`: where the cells are and the polygon of each, polygons
        being numbered by rank from 0.
    polygons : numpy.ndarray
        shapely polygons `(hot spots,)` in the CRS of the grid, the most expected events first.
    """

    forecast: Forecast
    area_share: float
    expected: np.ndarray
    flagged: np.ndarray
    cell_rows: np.ndarray
    cell_columns: np.ndarray
    owner: np.ndarray
    polygons: np.ndarray

    @classmethod
    def from_forecast(
        cls,
        forecast: Forecast,
        area_share: float,
        *,
        first_step: int | None = None,
        last_step: int | None = None,
        merge: bool = True,
    ) -> HotSpots:
        """Flag the densest cells within `area_share` percent of the study area.

        Parameters
        ----------
        forecast : Forecast
            One or more steps.
        area_share : float
            Percent of the study area, above 0 and below 100.
        first_step, last_step : int, optional
            Steps (1-based, inclusive) whose expected events are added up; all by default.
        merge : bool
            Join flagged cells that share an edge into one polygon.
        """
        if not 0 < area_share < 100:
            raise InputError(
                "The share of the area must lie between 0 and 100 percent.",
                hint="5 is usual.",
                parameter="AREA_SHARE",
                value=area_share,
            )
        first = 1 if first_step is None else first_step
        last = len(forecast.axis) if last_step is None else last_step
        if not 1 <= first <= last <= len(forecast.axis):
            raise InputError(
                f"The forecast has the steps 1 to {len(forecast.axis)}.",
                hint="Choose FIRST_STEP and LAST_STEP among them, the first not after the last.",
                parameter="FIRST_STEP" if not 1 <= first <= len(forecast.axis) else "LAST_STEP",
                value=first if not 1 <= first <= len(forecast.axis) else last,
            )
        chosen = Forecast(
            forecast.grid,
            forecast.axis.slice(first - 1, last),
            forecast.expected[first - 1 : last],
            forecast.model,
        )
        expected = chosen.expected.sum(axis=0)
        flagged = flag_cells(expected, forecast.grid.inside_area, area_share)
        rows, columns = np.nonzero(flagged)
        unit_cells = shapely.box(columns, rows, columns + 1, rows + 1)
        if merge:
            # Whole numbers join exactly; map coordinates of a turned grid would leave slivers.
            parts = shapely.get_parts(shapely.union_all(unit_cells))
            tree = shapely.STRtree(parts)
            cell, part = tree.query(shapely.points(columns + 0.5, rows + 0.5), predicate="within")
            owner = np.empty(len(rows), int)
            owner[cell] = part
        else:
            parts, owner = unit_cells, np.arange(len(rows))
        totals = np.bincount(owner, weights=expected[rows, columns], minlength=len(parts))
        by_size = np.argsort(-totals, kind="stable")
        rank = np.empty(len(parts), int)
        rank[by_size] = np.arange(len(parts))
        polygons = np.atleast_1d(forecast.grid.to_map(parts[by_size]))
        return cls(chosen, area_share, expected, flagged, rows, columns, rank[owner], polygons)

    def per_polygon(self, values: np.ndarray) -> np.ndarray:
        """Add up a map `(y, x)` over the cells of each polygon."""
        picked = np.nan_to_num(values[self.cell_rows, self.cell_columns])
        return np.bincount(self.owner, weights=picked, minlength=len(self.polygons))

    @property
    def area(self) -> np.ndarray:
        """Square metres of each polygon inside the study area."""
        return self.per_polygon(self.forecast.grid.inside_area)

    def observed(self, cube: Cube) -> np.ndarray:
        """Return the events `(y, x)` that a cube holds for the steps of the forecast."""
        start = self._start_in(cube)
        return cube.total[start : start + len(self.forecast.axis)].sum(axis=0)

    def score(self, cube: Cube) -> tuple[HitRate, HitRate]:
        """Compare with what happened: hits of these hot spots, and of the historical average.

        The historical average knows the steps before the forecast only and may flag
        the same share of the area.
        """
        observed = self.observed(cube)
        area = self.forecast.grid.inside_area
        past = cube.steps(0, self._start_in(cube))
        average = historical_average(past.total, past.axis)[-1]
        valid = area > 0

        def hits(flagged: np.ndarray) -> HitRate:
            return HitRate(
                float(observed[flagged].sum()),
                float(observed[valid].sum()),
                float(area[flagged].sum()),
                float(area.sum()),
            )

        return hits(self.flagged), hits(flag_cells(average, area, self.area_share))

    def write(self, path: str | Path, cube: Cube | None) -> None:
        """Write the polygons as a GeoPackage with rank, expected events, area, and observed events."""
        expected = self.per_polygon(self.expected)
        total = float(np.nansum(self.expected))
        square_km = self.area / 1e6
        start, end = self.forecast.axis.edges[[0, -1]].astype("datetime64[ms]")
        count = len(self.polygons)
        fields: dict[str, np.ndarray] = {
            "rank": np.arange(1, count + 1, dtype=np.int32),
            "expected": expected,
            "share_pct": 100 * expected / (total or 1.0),
            "area_km2": square_km,
            "density": expected / square_km,
            "cells": np.bincount(self.owner, minlength=count).astype(np.int32),
            "start": np.full(count, start),
            "end": np.full(count, end),
            "observed": np.full(count, np.nan) if cube is None else self.per_polygon(self.observed(cube)),
        }
        write_polygons(path, self.polygons, fields, self.forecast.grid.crs, "hot_spots")

    def _start_in(self, cube: Cube) -> int:
        """Return the index of the forecast's first step in a cube that holds all its steps."""
        edges = self.forecast.axis.edges
        if cube.grid.fingerprint != self.forecast.grid.fingerprint:
            raise InputError(
                "The cube has another grid than the forecast.",
                hint="Choose a cube on the grid that the forecast was made on.",
                parameter="CUBE",
            )
        start = int(np.searchsorted(cube.axis.edges, edges[0]))
        if start == 0 or not np.array_equal(cube.axis.edges[start : start + len(edges)], edges):
            raise InputError(
                f"The cube does not hold the forecast's period {self.forecast.intervals[0][0]} to "
                f"{self.forecast.intervals[-1][1]} with some steps before it.",
                hint="Leave CUBE empty, or rasterize the events that have happened since.",
                parameter="CUBE",
            )
        return start
