# SPDX-License-Identifier: GPL-2.0-or-later
"""The cubes of real cities that the benchmarks of training and method share.

They are made by the library from the files in the folder ``GRIDCAST_DATA`` (see docs/data.md) and kept in
``build/bench/cubes``; delete that folder to make them anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import shapely

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gridcast_qgis.core import severity, vectors  # noqa: E402
from gridcast_qgis.core.cube import Cube  # noqa: E402
from gridcast_qgis.core.events import EventTable  # noqa: E402
from gridcast_qgis.core.grid import Grid  # noqa: E402
from gridcast_qgis.core.presets import PRESETS  # noqa: E402

BENCH = ROOT / "build" / "bench"
CUBES = BENCH / "cubes"


def data_folder() -> Path:
    """Return the folder with the real data, or end with what to do."""
    folder = os.environ.get("GRIDCAST_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("Set GRIDCAST_DATA to the folder with the real data (see docs/data.md).")
    return Path(folder).resolve()


def _kept(name: str) -> Path:
    CUBES.mkdir(parents=True, exist_ok=True)
    return CUBES / f"{name}.nc"


def _preset_grid(name: str, boundary: Path) -> Grid:
    preset = PRESETS[name]
    return Grid.from_extent(
        pyproj.CRS(preset.crs),
        preset.extent,
        rows=preset.rows,
        columns=preset.columns,
        study_area=vectors.read_polygons(boundary).area,
    )


def chicago(first_year: int, last_year: int, types: Sequence[str] | None = None) -> Cube:
    """Return the crimes of Chicago by day on the 55 x 50 cells of Ahrens & de Wolff, with severity."""
    name = f"chicago-{first_year}-{last_year}" + ("" if types is None else "-" + "-".join(types).lower())
    path = _kept(name.replace(" ", "_"))
    if path.is_file():
        return Cube.read(path)
    folder = data_folder() / "chicago"
    columns = ["datetime", "primary_type", "latitude", "longitude"]
    rows = pd.concat(
        [
            pd.read_csv(folder / f"chicago_crimes_{year}.csv.gz", usecols=columns)
            for year in range(first_year, last_year + 1)
        ],
        ignore_index=True,
    )
    if types is not None:
        rows = rows[rows["primary_type"].isin(types)]
    grid = _preset_grid("chicago-55x50", folder / "chicago_boundary_wgs84.geojson")
    events = EventTable.from_arrays(
        rows["longitude"],
        rows["latitude"],
        rows["datetime"],
        rows["primary_type"],
        time_zone="America/Chicago",
    )
    counting = {"severity": severity.CHICAGO, "max_types": 1 if types is None else len(types)}
    cube = Cube.from_events(events, grid, "day", "America/Chicago", start=f"{first_year}-01-01", **counting)
    cube.write(path)
    return cube


def washington(first: str, last: str) -> Cube:
    """Return the gunshot alerts of Washington, DC, by day and type on 36 x 36 cells; `last` is not in."""
    path = _kept(f"washington-{first}-{last}")
    if path.is_file():
        return Cube.read(path)
    folder = data_folder() / "dc_shotspotter"
    rows = pd.read_csv(folder / "dc_shotspotter_2006_201906.csv.gz")
    rows = rows[(rows["datetime"] >= first) & (rows["datetime"] < last)]
    grid = _preset_grid("dc-36x36", folder / "dc_boundary_wgs84.geojson")
    events = EventTable.from_arrays(
        rows["longitude"], rows["latitude"], rows["datetime"], rows["type"], time_zone="America/New_York"
    )
    cube = Cube.from_events(events, grid, "day", "America/New_York", start=first, end=last)
    cube.write(path)
    return cube


def portland(cell_feet: float = 600.0, step: str = "month") -> Cube:
    """Return burglaries and vehicle thefts of Portland, March 2012 to February 2017: 60 months."""
    path = _kept(f"portland-{cell_feet:g}-{step}")
    if path.is_file():
        return Cube.read(path)
    folder = data_folder() / "portland_nij"
    rows = pd.read_csv(folder / "portland_burglary_mvt_201203_201705.csv.gz")
    area = vectors.read_polygons(folder / "districts" / "Portland_Police_Districts.shp").area
    grid = Grid.from_extent(
        pyproj.CRS(2913),
        area.bounds,
        cell_size=cell_feet,
        cell_unit="foot",
        study_area=area,
    )
    events = EventTable.from_arrays(
        rows["x_coordinate"],
        rows["y_coordinate"],
        rows["occ_date"],
        rows["category"],
        time_zone="America/Los_Angeles",
    )
    cube = Cube.from_events(events, grid, step, "America/Los_Angeles", start="2012-03-01", end="2017-03-01")
    cube.write(path)
    return cube


def chicago_months(cell_feet: float = 600.0) -> Cube:
    """Return the crimes of Chicago by month, March 2012 to February 2017, on square cells."""
    path = _kept(f"chicago-months-{cell_feet:g}")
    if path.is_file():
        return Cube.read(path)
    folder = data_folder() / "chicago"
    columns = ["datetime", "x_3435", "y_3435", "latitude", "longitude"]
    rows = pd.concat(
        [
            pd.read_csv(folder / f"chicago_crimes_{year}.csv.gz", usecols=columns)
            for year in range(2012, 2018)
        ],
        ignore_index=True,
    )
    to_plane = pyproj.Transformer.from_crs(4326, 3435, always_xy=True)
    boundary = vectors.read_polygons(folder / "chicago_boundary_wgs84.geojson").area
    area = shapely.transform(boundary, lambda xy: np.column_stack(to_plane.transform(*xy.T)))
    grid = Grid.from_extent(
        pyproj.CRS(3435), area.bounds, cell_size=cell_feet, cell_unit="us-survey-foot", study_area=area
    )
    x, y = to_plane.transform(rows["longitude"], rows["latitude"])
    x = np.where(np.isfinite(x), x, np.nan)
    events = EventTable.from_arrays(x, y, rows["datetime"], time_zone="America/Chicago")
    cube = Cube.from_events(events, grid, "month", "America/Chicago", start="2012-03-01", end="2017-03-01")
    cube.write(path)
    return cube


def middle(pairs: Sequence[float]) -> float:
    """Return the median, rounded for a report."""
    return round(float(np.median(pairs)), 4)
