# SPDX-License-Identifier: GPL-2.0-or-later
"""Small made-up grids, events and cubes that the tests of the core share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio.raw
import pyproj
import shapely

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.timesteps import TimeAxis

UTM = pyproj.CRS("EPSG:32617")
DEGREES = pyproj.CRS("EPSG:4326")
#: North-western corner of the made-up city, in UTM.
WEST, NORTH = 630_000.0, 4_840_000.0
CELL = 500.0


def make_grid(rows: int = 6, columns: int = 7, *, holes: bool = True) -> Grid:
    """Return a grid of square cells; with `holes` some cells lie outside or only partly inside."""
    grid = Grid.from_extent(
        UTM, (WEST, NORTH - rows * CELL, WEST + columns * CELL, NORTH), rows=rows, columns=columns
    )
    if holes:
        inside = grid.inside.copy()
        inside[0, :2] = 0
        inside[-1, -1] = 0
        inside[1, 0] = 0.5
        inside[2, 3] = 0.25
        grid = Grid(grid.crs, grid.transform, inside)
    return grid


def make_axis(count: int, step: str = "day", time_zone: str = "America/Toronto") -> TimeAxis:
    """Return the first `count` steps from the beginning of February 2024 on the local clock."""
    first = np.datetime64("2024-02-01T12:00:00")
    return TimeAxis.covering(first, first, step, time_zone).extended(count - 1)


def make_cube(
    steps: int = 60,
    rows: int = 6,
    columns: int = 7,
    *,
    types: tuple[str, ...] = ("assault", "theft"),
    seed: int = 0,
    mean: float = 0.4,
    holes: bool = True,
    step: str = "day",
    time_zone: str = "America/Toronto",
) -> Cube:
    """Return random counts whose rate differs from cell to cell; none outside the study area."""
    random = np.random.default_rng(seed)
    grid = make_grid(rows, columns, holes=holes)
    rate = random.gamma(1.0, mean / len(types), (len(types), rows, columns)) * grid.valid
    events = random.poisson(rate, (steps, len(types), rows, columns)).astype(np.float32)
    return Cube(grid, make_axis(steps, step, time_zone), types, events)


def changed(cube: Cube, events: np.ndarray) -> Cube:
    """Return the cube with other counts."""
    return Cube(cube.grid, cube.axis, cube.types, events.astype(np.float32), cube.attributes)


def events_of(cube: Cube) -> EventTable:
    """Return a table that has one event, at the middle of cell and step, for each one counted."""
    time, kind, row, column = (np.repeat(i, cube.events.astype(int).ravel()) for i in _indices(cube))
    x, y = cube.grid.centres()
    middle = cube.axis.starts + (cube.axis.ends - cube.axis.starts) // 2
    return EventTable.from_arrays(x[row, column], y[row, column], middle[time], np.array(cube.types)[kind])


def _indices(cube: Cube) -> list[np.ndarray]:
    return [index.ravel() for index in np.indices(cube.events.shape)]


def write_points(
    path: Path,
    geometry: list[shapely.Geometry | None] | np.ndarray,
    fields: dict[str, list | np.ndarray],
    crs: str = "EPSG:32617",
    kind: str = "Point",
    **options: object,
) -> Path:
    """Write a layer as a job gets it from QGIS; the driver follows from the suffix."""
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array(geometry, dtype=object)),
        field_data=[v if isinstance(v, np.ndarray) else np.array(v, dtype=object) for v in fields.values()],
        fields=list(fields),
        crs=crs,
        geometry_type=kind,
        driver={".fgb": "FlatGeobuf", ".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON"}[
            path.suffix
        ],
        **options,
    )
    return path


def write_events(path: Path, table: EventTable) -> Path:
    """Write an event table as the layer that the job `rasterize_events` reads."""
    times = np.datetime_as_string(table.time, unit="s")
    return write_points(
        path,
        shapely.points(table.x, table.y),
        {
            "time": np.array([f"{time}Z" for time in times], dtype=object),
            "type": np.array(table.type_names, dtype=object)[table.type_code],
        },
    )


class Recorder(Reporter):
    """Keeps all events; cancels the job when a condition on one of them is met."""

    def __init__(self, cancel_when=lambda event: False):
        super().__init__()
        self.events: list[dict] = []
        self._cancel_when = cancel_when

    def emit(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, **fields})
        if self._cancel_when(self.events[-1]):
            self.cancel()

    def texts(self, level: str = "warning") -> list[str]:
        return [e["text"] for e in self.events if e["event"] == "message" and e["level"] == level]

    def values(self, name: str) -> list[float]:
        return [e["value"] for e in self.events if e["event"] == "metric" and e["name"] == name]


def files_in(folder: Path) -> list[str]:
    """Return the names of all files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
