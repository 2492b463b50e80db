# SPDX-License-Identifier: GPL-2.0-or-later
"""What the simple methods reach on real cities, beside the figures that are known for them.

Chicago: crimes by day on 55 x 50 cells, 2011 to November 2018; models learn from the days up to the end of
2016, 2017 validates, the days of 2018 are the test. The kernel of the self-exciting process is also fitted to
burglaries alone. Washington, DC: gunshots by day, 36 x 36 cells over the bounds of the city, those outside
the city too, tested from January 2012 to June 2013 (what learns, learns from 2009 on, when all districts had
sensors); the alerts of 29 December to 2 January and 1 to 6 July,
which are fireworks, are left out as events and as days. Portland: burglaries and vehicle thefts, cells of 250
feet, a quarter of a square mile flagged every second Sunday from 1 March 2015 to February 2017; hits of all
origins are pooled over the area of 147.71 square miles. Where the known figures do not say how a method was
set, the settings are chosen on fortnights from September 2013 to February 2015.

``python benchmarks/baselines.py [chicago] [burglary] [washington] [portland]`` with ``GRIDCAST_DATA`` set
(see docs/data.md); writes ``build/bench/baselines.json``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import cities
import numpy as np
import pandas as pd
import pyproj

from gridcast_qgis.core import vectors
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.models.selfexciting import SelfExciting
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

RESULT = cities.BENCH / "baselines.json"

#: Known figures, measured elsewhere on the same data: what they are, and their values.
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "chicago": (
        "mean squared error per cell and day of 2018; HA is the mean of 2017, which does not move on",
        {
            "HA 2017": 0.6704,
            "EWMA": 0.6633,
            "EWMA x level x weekday": 0.6596,
            "boosted trees": 0.6595,
            "oracle (cell means of the test year, true city totals)": 0.6494,
        },
    ),
    "chicago_deviance": (
        "mean Poisson deviance on the same days",
        {"HA 2017": 0.799, "EWMA x level x weekday": 0.792},
    ),
    "washington": (
        "decayed count (60 d, sigma 0.5 cell): of at least one gunshot per cell and day",
        {"auc": 0.941, "average_precision": 0.0666, "hits_top_4_percent": 0.524, "hits_top_1_percent": 0.226},
    ),
    "portland": (
        "PAI of a decayed KDE for 1 week, 2 weeks, 1, 2 and 3 months",
        {
            "MOTOR VEHICLE THEFT": [27.8, 26.8, 27.3, 27.3, 27.3],
            "BURGLARY": [16.5, 15.3, 15.2, 15.3, 15.0],
        },
    ),
}

#: Row: model and settings.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "HA": ("historical_average", {}),
    "weekday HA": ("weekday_average", {}),
    "seasonal naive": ("seasonal_naive", {}),
    "EWMA": ("ewma", {"level": False, "weekday": False}),
    "EWMA x level x weekday": ("ewma", {}),
    "KDE": ("kde", {}),
    "decayed KDE": ("kde", {"half_life_days": 60.0}),
    "PROMAP": ("promap", {}),
    "self-exciting": ("self_exciting", {}),
    "boosted trees": ("boosted_trees", {}),
}


class Printer(Reporter):
    """Prints what a training says."""

    def emit(self, event: str, **fields: object) -> None:
        if event == "message":
            print("   ", fields["text"], flush=True)


def timed(act: Any, *arguments: Any) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    began = time.perf_counter()
    found = act(*arguments)
    return found, round(time.perf_counter() - began, 3)


def day(cube: Cube, date: str) -> int:
    """Return the first step from a local date on."""
    return int(np.searchsorted(cube.axis.local_starts.strftime("%Y-%m-%d"), date))


def years(cube: Cube) -> Split:
    """Return the split of Chicago: up to 2016, 2017, 2018."""
    a, b = day(cube, "2017-01-01"), day(cube, "2018-01-01")
    return Split(1, a, a, b, b, len(cube))


def kernel(model: Forecaster, cube: Cube) -> dict[str, float]:
    """Return what a self-exciting process has learned."""
    assert isinstance(model, SelfExciting)
    fitted = model.triggering_
    assert fitted is not None
    return {
        "branching": round(fitted.branching, 4),
        "mean_delay_days": round(fitted.delay * cube.axis.hours / 24, 2),
        "sigma_metres": round(fitted.sigma, 1),
    }


def chicago(rows: Sequence[str] = tuple(ROWS)) -> dict[str, Any]:
    """Score methods on 2018, one day ahead, and time them."""
    cube = cities.chicago(2011, 2018)
    split = years(cube)
    test, end, valid = split.test_start, len(cube), cube.grid.valid
    observed, area = cube.total[test:], cube.grid.inside_area

    def scores(expected: np.ndarray) -> dict[str, float]:
        hits = hit_rate(observed, expected, area, 5.0)
        return {
            "mse": round(mean_squared_error(observed, expected, valid), 5),
            "poisson_deviance": round(poisson_deviance(observed, expected, valid), 5),
            "hits_top_5_percent": round(hits.rate, 5),
            "pai_5_percent": round(hits.pai, 3),
        }

    last_year = cube.total[split.validation_start : test].mean(axis=0)
    found: dict[str, Any] = {"HA 2017": scores(np.broadcast_to(last_year, observed.shape))}
    weekly = 0.0
    for name in rows:
        key, settings = ROWS[name]
        print(f"  {name}", flush=True)
        model, fit_seconds = timed(model_class(key)(**settings).fit, cube, split, Printer())
        expected = model.predict_next(cube, test, end)
        _, year_seconds = timed(model.predict_next, cube, end - 365, end)
        origins = range(end - 364, end, 7)
        _, origin_seconds = timed(model.forecast, cube, origins[0], 7)
        found[name] = {
            **scores(expected),
            "fit_seconds": fit_seconds,
            "seconds_365_days": year_seconds,
            "seconds_7_days_ahead": origin_seconds,
        }
        if key != "boosted_trees":
            for origin in origins:
                weekly += timed(model.forecast, cube, origin, 7)[1]
        if key == "self_exciting":
            found[name] |= kernel(model, cube)
        print("   ", found[name], flush=True)
    return {**found, "seconds_52_origins_without_trees": round(weekly, 2)}


def burglary() -> dict[str, Any]:
    """Fit the self-exciting process to the burglaries of Chicago."""
    cube = cities.chicago(2011, 2018, ["BURGLARY"])
    found: dict[str, Any] = {}
    for name, settings in (
        ("background with level and weekday of the city", {}),
        ("constant background", {"level": False, "weekday": False}),
    ):
        model, seconds = timed(model_class("self_exciting")(**settings).fit, cube, years(cube), Printer())
        found[name] = {**kernel(model, cube), "fit_seconds": seconds}
    return found


def washington_cube() -> Cube:
    """Return the gunshots of Washington by day from 2006 to June 2013, without those of fireworks."""
    folder = cities.data_folder() / "dc_shotspotter"
    rows = pd.read_csv(folder / "dc_shotspotter_2006_201306.csv.gz")
    rows = rows[~fireworks(pd.to_datetime(rows["datetime"]).dt)]
    bounds = vectors.read_polygons(folder / "dc_boundary_wgs84.geojson").area.bounds
    grid = Grid.from_extent(pyproj.CRS(4326), bounds, rows=36, columns=36)
    events = EventTable.from_arrays(
        rows["longitude"], rows["latitude"], rows["datetime"], time_zone="America/New_York"
    )
    return Cube.from_events(events, grid, "day", "America/New_York", start="2006-01-01")


def washington(rows_shown: Sequence[str] = ()) -> dict[str, Any]:
    """Score maps of gunshots on the days of the test, all of them pooled; all maps, or those named."""
    cube = washington_cube()
    covered, first = day(cube, "2009-01-01"), day(cube, "2012-01-01")
    days = np.flatnonzero(~fireworks(cube.axis.local_starts[first:]))
    observed = cube.total[first:][days]
    width, height = cube.grid.cell_dimensions
    half_cell = 0.5 * float(np.sqrt(width * height))
    decays = {"half-life 60 d": 60.0, "mean age 60 d": 60.0 * float(np.log(2))}
    pure: dict[str, Any] = {"bandwidth": half_cell, "level": False, "weekday": False}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        **{f"KDE, {name}": ("kde", {**pure, "half_life_days": days}) for name, days in decays.items()},
        "KDE x level x weekday, half-life 60 d": ("kde", {"half_life_days": 60.0}),
        "EWMA x level x weekday": ("ewma", {}),
        "PROMAP": ("promap", {}),
        "self-exciting": ("self_exciting", {}),
    }
    found: dict[str, Any] = {
        "days": len(days),
        "events": int(observed.sum()),
        "share_of_cells_and_days_with_an_event": round(float((observed > 0).mean()), 5),
    }
    for name, (key, settings) in kinds.items():
        if rows_shown and name not in rows_shown:
            continue
        model = model_class(key)(**settings)
        model.fit(cube, Split(covered, first, first, first), Printer())
        expected = model.predict_next(cube, first, len(cube))[days]
        kind = score(observed > 0, model.probability(expected))
        found[name] = {
            "auc": round(kind.auc, 4),
            "average_precision": round(kind.average_precision, 4),
            "hits_top_4_percent": hits_in_top(observed, expected, 52),
            "hits_top_1_percent": hits_in_top(observed, expected, 13),
            **(kernel(model, cube) if key == "self_exciting" else {}),
        }
        print("   ", name, found[name], flush=True)
    return found


def fireworks(time: Any) -> np.ndarray:
    """Tell which times lie on 29 December to 2 January or 1 to 6 July."""
    date = np.asarray(time.month * 100 + time.day)
    return (date >= 1229) | (date <= 102) | ((date >= 701) & (date <= 706))


def hits_in_top(observed: np.ndarray, expected: np.ndarray, cells: int) -> float:
    """Return the share of the events that fell into the `cells` cells with the most expected each day."""
    order = np.argsort(-expected.reshape(len(expected), -1), axis=1, kind="stable")[:, :cells]
    hits = np.take_along_axis(observed.reshape(len(observed), -1), order, axis=1).sum()
    return round(float(hits / observed.sum()), 4)


#: Square miles that are flagged, and of the whole area.
FLAGGED, AREA = 0.25, 147.71
WINDOWS = (
    pd.DateOffset(days=7),
    pd.DateOffset(days=14),
    pd.DateOffset(months=1),
    pd.DateOffset(months=2),
    pd.DateOffset(months=3),
)
#: Settings among which the decayed KDE is chosen: bandwidths in cells, half-lives in days.
BANDWIDTHS, HALF_LIVES = (0.5, 0.9, 1.0, 1.5, 2.0), (60.0, 120.0, 365.0, 730.0, 0.0)
#: Settings with which the known figures come out; of the source only "decayed KDE" is known.
LIKE_KNOWN = {"MOTOR VEHICLE THEFT": (0.9, 120.0), "BURGLARY": (0.5, 730.0)}


def portland_cube(category: str) -> tuple[Cube, pd.DataFrame]:
    """Return the weeks of one kind of crime of Portland on cells of 250 feet, and its rows.

    A day is added to all dates, so that weeks, which begin on Mondays, begin on Sundays, as 1 March 2015 was
    one.
    """
    folder = cities.data_folder() / "portland_nij"
    rows = pd.read_csv(folder / "portland_burglary_mvt_201203_201705.csv.gz")
    rows = rows[rows["category"] == category]
    moved = pd.to_datetime(rows["occ_date"]) + pd.Timedelta(days=1)
    rows = rows.assign(occ_date=moved.dt.strftime("%Y-%m-%d"))
    area = vectors.read_polygons(folder / "districts" / "Portland_Police_Districts.shp").area
    grid = Grid.from_extent(pyproj.CRS(2913), area.bounds, cell_size=250.0, cell_unit="foot", study_area=area)
    events = EventTable.from_arrays(
        rows["x_coordinate"], rows["y_coordinate"], rows["occ_date"], time_zone="America/Los_Angeles"
    )
    return Cube.from_events(events, grid, "week", "America/Los_Angeles", start="2012-03-01"), rows


def portland(*, like_known_only: bool = False) -> dict[str, Any]:
    """Score maps of Portland by the PAI of the coming week to three months."""
    side = 250 * 0.3048
    found: dict[str, Any] = {}
    for category in LIKE_KNOWN:
        cube, own = portland_cube(category)
        found["cells"] = int(cube.grid.valid.sum())
        judge = Pai(cube, own)

        def kde(cells: float, days: float) -> Forecaster:
            return model_class("kde")(bandwidth=cells * side, half_life_days=days)

        if like_known_only:
            own_pai = judge.pai(kde(*LIKE_KNOWN[category]), "2015-03-01", "2017-03-01")
            found[category] = {"decayed KDE like the known one": {"pai": own_pai}}
            continue
        tried = {
            setting: judge.pai(kde(*setting), "2013-09-01", "2015-03-01")
            for setting in [(cells, days) for cells in BANDWIDTHS for days in HALF_LIVES]
        }
        best = max(tried, key=lambda setting: float(np.mean(tried[setting])))
        process = model_class("self_exciting")()
        start = day(cube, "2015-03-01")
        process.fit(cube.steps(0, start), Split(1, start - 1, start - 1, start), Printer())
        models: dict[str, Forecaster] = {
            "decayed KDE like the known one": kde(*LIKE_KNOWN[category]),
            "decayed KDE chosen before the test": kde(*best),
            "HA": model_class("historical_average")(),
            "EWMA": model_class("ewma")(),
            "PROMAP": model_class("promap")(),
            "self-exciting": process,
        }
        found[category] = {"origins": len(judge.origins("2015-03-01", "2017-03-01"))}
        for name, model in models.items():
            found[category][name] = {"pai": judge.pai(model, "2015-03-01", "2017-03-01")}
            print("   ", category, name, found[category][name], flush=True)
        for name, (cells, days) in (
            ("like the known one", LIKE_KNOWN[category]),
            ("chosen before the test", best),
        ):
            found[category][f"decayed KDE {name}"] |= {"bandwidth_cells": cells, "half_life_days": days}
        found[category]["self-exciting"] |= kernel(process, cube)
    return found


class Maps:
    """Forecasts maps that have been made before, one for each step from the first."""

    def __init__(self, maps: np.ndarray, first: int) -> None:
        self._maps, self._first = maps, first

    def predict_next(self, _cube: Cube, start: int, stop: int) -> np.ndarray:
        """Return the maps of these steps."""
        return self._maps[start - self._first : stop - self._first]


class Pai:
    """Counts hits of maps that are made at the beginning of every second week."""

    def __init__(self, cube: Cube, rows: pd.DataFrame) -> None:
        self.cube = cube
        self._row, self._column = cube.grid.locate(
            rows["x_coordinate"].to_numpy(), rows["y_coordinate"].to_numpy()
        )
        self._date = pd.to_datetime(rows["occ_date"]).to_numpy()
        side = 250 / 5280
        self._cells = int(FLAGGED / side**2)
        self._share = self._cells * side**2 / AREA

    def origins(self, first: str, last: str) -> range:
        """Return the first step of every second week."""
        return range(day(self.cube, first), day(self.cube, last), 2)

    def pai(self, model: Forecaster | Maps, first: str, last: str) -> list[float]:
        """Return the PAI for each of the windows, hits and events pooled over the origins."""
        hits, events = np.zeros(len(WINDOWS)), np.zeros(len(WINDOWS))
        for origin in self.origins(first, last):
            rates = np.nan_to_num(model.predict_next(self.cube, origin, origin + 1)[0], nan=-1.0)
            flagged = np.zeros(rates.size, bool)
            flagged[np.argsort(-rates, axis=None, kind="stable")[: self._cells]] = True
            flagged = flagged.reshape(rates.shape)
            begin = self.cube.axis.local_starts[origin].tz_localize(None)
            for number, window in enumerate(WINDOWS):
                inside = (self._date >= begin) & (self._date < begin + window) & (self._row >= 0)
                hits[number] += flagged[self._row[inside], self._column[inside]].sum()
                events[number] += inside.sum()
        return [round(float(value), 1) for value in hits / events / self._share]


MEASURES = {measure.__name__: measure for measure in (chicago, burglary, washington, portland)}


def main(names: list[str]) -> None:
    """Measure all, or only what is named, and write the result."""
    result: dict[str, Any] = {}
    if names and RESULT.is_file():
        result = json.loads(RESULT.read_text(encoding="utf-8"))
    result["cores"] = os.cpu_count()
    result["known"] = {name: {"what": what, **values} for name, (what, values) in KNOWN.items()}
    for name in names or MEASURES:
        print(name, flush=True)
        result[name], seconds = timed(MEASURES[name])
        print(f"  {seconds:.0f} s", json.dumps(result[name], indent=1), flush=True)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
