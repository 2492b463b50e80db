# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot spots: the cells that a fixed budget of area should go to, as ranked polygons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from .cube import Cube
from .errors import InputError
from .evaluation.metrics import Hits, flag_cells, flagged_hits
from .features import historical_average
from .forecast import Forecast
from .labels import LabelRule
from .rasters import write_geotiff
from .vectors import write_polygons

#: Which cells are flagged: the densest ones within a share of the area, those from a probability on, or
#: a number of cells.
RULES = ("area", "probability", "cells")


@dataclass(frozen=True)
class FlagRule:
    """Which cells of a map are flagged as hot spots.

    Attributes
    ----------
    kind : {"area", "probability", "cells"}
        Area: the densest cells within `value` percent of the study area. Probability: the cells whose
        probability of being hot is at least `value`. Cells: the `value` cells with the highest values.
    value : float
        See `kind`.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise InputError(
                "There is no such rule.",
                hint=f"Choose one of {', '.join(RULES)}.",
                parameter="RULE",
                value=self.kind,
            )
        if self.kind == "area" and not 0 < self.value < 100:
            raise InputError(
                "The share of the area must lie between 0 and 100 percent.",
                hint="5 is usual.",
                parameter="AREA_SHARE",
                value=self.value,
            )
        if self.kind == "probability" and not 0 < self.value < 1:
            raise InputError(
                "The probability must lie between 0 and 1.",
                hint="0.5 is usual.",
                parameter="THRESHOLD",
                value=self.value,
            )
        if self.kind == "cells" and self.value < 1:
            raise InputError(
                "At least one cell must be flagged.",
                hint="20 is usual.",
                parameter="TOP_CELLS",
                value=self.value,
            )

    def flag(self, values: np.ndarray, probability: np.ndarray, area: np.ndarray) -> np.ndarray:
        """Return the flagged cells, bool `(y, x)`, of a map and of the probability to be hot."""
        inside = area > 0
        if self.kind == "area":
            return flag_cells(values, area, self.value)
        if self.kind == "probability":
            return inside & (np.nan_to_num(probability) >= self.value)
        ranked = np.argsort(-np.where(inside, np.nan_to_num(values), -np.inf), axis=None, kind="stable")
        flagged = np.zeros(area.size, bool)
        flagged[ranked[: min(int(self.value), int(inside.sum()))]] = True
        return flagged.reshape(area.shape)


@dataclass(frozen=True, eq=False)
class HotSpots:
    """Flagged cells of a forecast and the polygons that they form.

    Attributes
    ----------
    forecast : Forecast
        The steps that were put together.
    rule : FlagRule
        Which cells were flagged.
    hot_events : int
        Events in the period from which on a cell counts as hot, where no classifier says it otherwise.
    expected : numpy.ndarray
        `(y, x)` what is forecast for all steps together (:meth:`~.forecast.Forecast.over_all_steps`).
    probability : numpy.ndarray
        float32 `(y, x)` probability that the cell is hot, NaN outside.
    flagged : numpy.ndarray
        bool `(y, x)`.
    cell_rows, cell_columns, owner : numpy.ndarray
        int `(flagged cells,)`: where the cells are and the polygon of each, polygons
        being numbered by rank from 0.
    polygons : numpy.ndarray
        shapely polygons `(hot spots,)` in the CRS of the grid, the most expected events first.
    """

    forecast: Forecast
    rule: FlagRule
    hot_events: int
    expected: np.ndarray
    probability: np.ndarray
    flagged: np.ndarray
    cell_rows: np.ndarray
    cell_columns: np.ndarray
    owner: np.ndarray
    polygons: np.ndarray

    @classmethod
    def from_forecast(
        cls,
        forecast: Forecast,
        rule: FlagRule,
        *,
        hot_events: int = 1,
        first_step: int | None = None,
        last_step: int | None = None,
        merge: bool = True,
    ) -> HotSpots:
        """Flag cells and make polygons of them.

        Parameters
        ----------
        forecast : Forecast
            One or more steps.
        rule : FlagRule
            Which cells.
        hot_events : int
            See the attribute.
        first_step, last_step : int, optional
            Steps (1-based, inclusive) that are put together; all by default.
        merge : bool
            Join flagged cells that share an edge into one polygon.
        """
        if hot_events < 1:
            raise InputError(
                "A hot cell has at least one event.",
                hint="Give 1 or more.",
                parameter="HOT_EVENTS",
                value=hot_events,
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
        chosen = replace(
            forecast, axis=forecast.axis.slice(first - 1, last), expected=forecast.expected[first - 1 : last]
        )
        expected = chosen.over_all_steps()
        probability = _probability(chosen, expected, hot_events)
        flagged = rule.flag(expected, probability, forecast.grid.inside_area)
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
        return cls(
            chosen, rule, hot_events, expected, probability, flagged, rows, columns, rank[owner], polygons
        )

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

    def score(self, cube: Cube) -> tuple[Hits, Hits]:
        """Compare with what happened: hits of these hot spots, and of the historical average.

        The historical average knows the steps before the forecast only and may flag the same share of the
        area.
        """
        observed = self.observed(cube)
        area = self.forecast.grid.inside_area
        past = cube.steps(0, self._start_in(cube))
        average = historical_average(past.total, past.axis, len(past))[0]
        share = self.rule.value if self.rule.kind == "area" else 100 * area[self.flagged].sum() / area.sum()
        own = flagged_hits(observed, self.flagged, area)
        return own, flagged_hits(observed, flag_cells(average, area, float(share)), area)

    def truth(self, cube: Cube) -> np.ndarray:
        """Return which cells were hot in the period of the forecast, bool `(y, x)`, by what a cube holds.

        The forecast of a classifier is judged by the rule that it was trained on, in any of its steps;
        otherwise as many cells (or as much area) are hot as were flagged, those with the most events, or
        with a probability as the rule those with `hot_events` events.
        """
        start = self._start_in(cube)
        valid = self.forecast.grid.valid
        if self.forecast.hot:
            own = LabelRule(self.forecast.hot["rule"], self.forecast.hot["value"])
            hot: np.ndarray = own.hot(cube.total[start : start + len(self.forecast.axis)], valid)
            return np.asarray(hot.any(axis=0))
        observed = self.observed(cube)
        enough: np.ndarray = valid & (observed >= self.hot_events)
        if self.rule.kind == "probability":
            return enough
        return enough & self.rule.flag(observed, observed, self.forecast.grid.inside_area)

    def classes(self, truth: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
        """Return bands `(band, y, x)`, NaN outside, and their descriptions.

        The first band is 1 for flagged cells and 0 for others. With the truth the second one says the
        same of what happened, and the third compares: 0 rightly cold, 1 hit, 2 false alarm, 3 missed.
        """
        valid = self.forecast.grid.valid
        bands = [self.flagged.astype(np.float32)]
        names = ["forecast: 0 cold, 1 hot"]
        if truth is not None:
            compared = np.select([self.flagged & truth, self.flagged, truth], [1, 2, 3], 0)
            bands += [truth.astype(np.float32), compared.astype(np.float32)]
            names += ["what happened: 0 cold, 1 hot", "0 rightly cold, 1 hit, 2 false alarm, 3 missed"]
        return np.where(valid, np.stack(bands), np.nan).astype(np.float32), names

    def write_probability(self, path: str | Path) -> None:
        """Write the probability of each cell to be hot, schema ``hot/1``."""
        self._write_bands(path, self.probability[None], ["probability of a hot cell"], "hot/1", "PROBABILITY")

    def write_classes(self, path: str | Path, truth: np.ndarray | None) -> None:
        """Write :meth:`classes`, schema ``classes/1``."""
        bands, names = self.classes(truth)
        self._write_bands(path, bands, names, "classes/1", "CLASSES")

    def _write_bands(
        self, path: str | Path, bands: np.ndarray, names: list[str], schema: str, parameter: str
    ) -> None:
        start, end = self.forecast.intervals[0][0], self.forecast.intervals[-1][1]
        write_geotiff(
            path,
            bands,
            self.forecast.grid.crs,
            self.forecast.grid.transform,
            tags={
                "GRIDCAST_SCHEMA": schema,
                "GRIDCAST_MODEL": self.forecast.model,
                "GRIDCAST_GRID": self.forecast.grid.fingerprint,
            },
            descriptions=[f"{start}/{end} {name}" for name in names],
            parameter=parameter,
        )

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
        if cube.grid.fingerprint != self.forecast.grid.fingerprint:
            raise InputError(
                "The cube has another grid than the forecast.",
                hint="Choose a cube on the grid that the forecast was made on.",
                parameter="CUBE",
            )
        start = cube.start_of(self.forecast.axis)
        if not start:
            raise InputError(
                f"The cube does not hold the forecast's period {self.forecast.intervals[0][0]} to "
                f"{self.forecast.intervals[-1][1]} with some steps before it.",
                hint="Leave CUBE empty, or rasterize the events that have happened since.",
                parameter="CUBE",
            )
        return start


def _probability(forecast: Forecast, over_all: np.ndarray, hot_events: int) -> np.ndarray:
    """Return the probability that a cell is hot, float32 `(y, x)`.

    Expected events are the mean of a Poisson distribution; so are those that the probability of an event
    stands for.
    """
    if forecast.quantity == "hot":
        return over_all.astype(np.float32)
    mean = over_all if forecast.quantity == "events" else -np.log1p(-np.minimum(over_all, 1 - 1e-7))
    # P(N < k) = sum of exp(-m) m^i / i! for i < k.
    term = np.exp(-mean.astype(np.float64))
    below = term.copy()
    for i in range(1, hot_events):
        term = term * mean / i
        below += term
    return (1 - below).astype(np.float32)
