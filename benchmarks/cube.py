# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast events become a cube, measured against what QGIS and NumPy take for less.

The data is made up: events around 400 places with five types over eight years, as GeoPackages of one and
four million points in longitude and latitude; 55 x 50 cells in UTM. Every figure is the median of at least
three pairs that run one after the other. Writes ``build/bench/cube.json``:

``layer_vs_countpoints``
    ``qgis_process run gridcast:rasterizeeventstocube`` (daily steps, one type field) over
    ``native:countpointsinpolygon`` on the same points and cells, whole processes.
``read_limit_ratio``, ``read_limit_ratio_through_qgis``
    From the layer to the event table (QGIS's part and the whole worker process) over QGIS's plain copy of
    the layer to FlatGeobuf without spatial index; the second for layers that are more than a plain file.
``binning_vs_bincount``
    From arrays in random order to the cube over `numpy.bincount` of ready-made flat indexes.
``growth``, ``peak_rss_mb_1m``, ``peak_rss_mb_4m``
    Four million events over one million, whole processes; the worker's largest memory.
``step_read_share``, ``history_read_share``
    Reading one step of all cells, and all steps of one cell, over reading the whole variable.

Needs QGIS_PROCESS, QGIS_PYTHON, GRIDCAST_PYTHON and PLUGIN_DIR, which ``make bench-cube`` sets.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio.raw
import pyproj
import shapely
import xarray as xr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gridcast_qgis.core.cube import Cube  # noqa: E402
from gridcast_qgis.core.events import EventTable  # noqa: E402
from gridcast_qgis.core.grid import Grid  # noqa: E402

RESULT = ROOT / "build" / "bench" / "cube.json"
FOLDER = ROOT / "build" / "bench" / "cube"
PAIRS = 3
YEARS = 8
TYPES = ("Assault", "Auto Theft", "Break and Enter", "Robbery", "Theft Over")
TIME_ZONE = "America/Toronto"
EXTENT = (600_000.0, 4_800_000.0, 650_000.0, 4_860_000.0)
UTM = "EPSG:32617"

# Runs in QGIS's Python: the plain copy, and what the plugin does before the worker starts.
QGIS_PART = """
import json, sys, time
from pathlib import Path
from qgis.core import *
sys.path.insert(0, sys.argv[1])
application = QgsApplication([], False)
application.initQgis()
from gridcast_qgis.layers.exporting import count_reprojection_failures
from gridcast_qgis.layers.sources import event_file
source_path, folder, through_qgis = sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "yes"
layer = QgsVectorLayer(source_path, "events", "ogr")
project = QgsProject.instance()
project.addMapLayer(layer)
context = QgsProcessingContext()
context.setProject(project)
options = QgsVectorFileWriter.SaveVectorOptions()
options.driverName = "FlatGeobuf"
options.layerOptions = ["SPATIAL_INDEX=NO"]
began = time.perf_counter()
rules = context.transformContext()
QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(folder / "copy.fgb"), rules, options)
copy = time.perf_counter() - began
count_reprojection_failures(context)
definition = QgsProcessingFeatureSourceDefinition(layer.id(), False)
parameter = QgsProcessingParameterFeatureSource("INPUT", "")
source = QgsProcessingParameters.parameterAsSource(parameter, {"INPUT": definition}, context)
began = time.perf_counter()
found = event_file(
    source, None if through_qgis else layer, folder,
    fields={"time": "time", "type": "type"}, crs=QgsCoordinateReferenceSystem(sys.argv[5]),
    table_crs=QgsCoordinateReferenceSystem(),
    context=context, feedback=QgsProcessingFeedback(False),
)
print(json.dumps({"copy": copy, "export": time.perf_counter() - began, "request": found.request()}))
sys.stdout.flush()
import os
os._exit(0)
"""

# Runs in a small process of its own: what a child needs at most is counted from what its parent had.
MEMORY_PART = """
import resource, subprocess, sys
worker = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
assert worker.wait() == 0
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""

# Runs in the worker's Python.
WORKER_PART = """
import json, sys
from gridcast_qgis.core.eventfiles import EventSource
call = json.loads(sys.argv[1])
source = EventSource(call["events"], call["layer"], call["fields"], call["operation"], sys.argv[2])
print(sum(len(block) for block in source.blocks()))
"""


def make_points(count: int) -> Path:
    """Write a GeoPackage of events in the order in which they happened."""
    path = FOLDER / f"events_{count}.gpkg"
    random = np.random.default_rng(1)
    centres = random.uniform(EXTENT[:2], EXTENT[2:], (400, 2))
    weights = random.pareto(1.2, 400) + 0.05
    chosen = random.choice(400, count, p=weights / weights.sum())
    places = np.clip(centres[chosen] + random.normal(0, 1500, (count, 2)), EXTENT[:2], EXTENT[2:])
    seconds = np.sort(random.integers(0, YEARS * 365 * 86400, count))
    times = np.datetime64("2014-01-01T05:00:00", "ms") + (seconds * 1000).astype("timedelta64[ms]")
    kinds = np.array(TYPES, object)[random.choice(5, count, p=[0.5, 0.15, 0.25, 0.07, 0.03])]
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(shapely.points(*to_degrees.transform(*places.T))),
        field_data=[times, kinds],
        fields=["time", "type"],
        layer="events",
        driver="GPKG",
        geometry_type="Point",
        crs="EPSG:4326",
        dataset_options={"VERSION": "1.2"},
        gdal_tz_offsets={"time": np.full(count, 100)},
    )
    return path


def make_cells() -> tuple[Path, Path]:
    """Write the grid, and its cells as polygons."""
    grid = Grid.from_extent(pyproj.CRS(UTM), EXTENT, rows=55, columns=50)
    grid.write(FOLDER / "grid.tif")
    rows, columns = (index.ravel() for index in np.indices(grid.shape))
    path = FOLDER / "cells.gpkg"
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(grid.cell_polygons(rows, columns)),
        field_data=[rows.astype(np.int32)],
        fields=["row"],
        layer="cells",
        driver="GPKG",
        geometry_type="Polygon",
        crs=UTM,
        dataset_options={"VERSION": "1.2"},
    )
    return FOLDER / "grid.tif", path


class Qgis:
    """Runs algorithms as whole processes, in a fresh profile with this build of the plugin."""

    def __init__(self) -> None:
        self._process = os.environ["QGIS_PROCESS"]
        profile = FOLDER / "profile"
        profile.mkdir()
        self._environment = {
            **os.environ,
            "QGIS_CUSTOM_CONFIG_PATH": str(profile),
            "QGIS_PLUGINPATH": str(Path(os.environ["PLUGIN_DIR"]).resolve()),
        }
        self._call("plugins", "enable", "gridcast_qgis")

    def _call(self, *arguments: str) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            [self._process, *arguments], env=self._environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - began

    def run(self, algorithm: str, **inputs: object) -> float:
        """Run one algorithm and return the seconds it took."""
        return self._call("run", algorithm, "--", *(f"{key}={value}" for key, value in inputs.items()))

    def rasterize(self, points: Path, grid: Path) -> float:
        """Make a daily cube by type and return the seconds it took."""
        return self.run(
            "gridcast:rasterizeeventstocube",
            INPUT=f"{points}|layername=events",
            GRID=grid,
            TIME_FIELD="time",
            TYPE_FIELD="type",
            STEP="day",
            TIME_ZONE=TIME_ZONE,
            LOAD="false",
            OUTPUT=FOLDER / "cube.nc",
        )

    def count_points(self, points: Path, cells: Path) -> float:
        """Count the points in the cells, once, and return the seconds it took."""
        return self.run(
            "native:countpointsinpolygon",
            POLYGONS=f"{cells}|layername=cells",
            POINTS=f"{points}|layername=events",
            FIELD="NUMPOINTS",
            OUTPUT=FOLDER / "counted.gpkg",
        )


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker process."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def layer_to_table(points: Path, through_qgis: bool) -> tuple[float, float]:
    """Return seconds from the layer to the event table, and of the plain copy."""
    folder = FOLDER / "export"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = subprocess.run(
        [os.environ["QGIS_PYTHON"], "-c", QGIS_PART, str(Path(os.environ["PLUGIN_DIR"]).resolve())]
        + [f"{points}|layername=events", str(folder), "yes" if through_qgis else "no", UTM],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    began = time.perf_counter()
    subprocess.run(
        [os.environ["GRIDCAST_PYTHON"], "-c", WORKER_PART, json.dumps(found["request"]), TIME_ZONE],
        env=worker_environment(),
        check=True,
        capture_output=True,
    )
    return found["export"] + time.perf_counter() - began, found["copy"]


def peak_memory(points: Path, grid: Path) -> float:
    """Return the largest memory of the worker in MB for a cube of these points."""
    to_grid = (
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=utm +zone=17 +ellps=WGS84"
    )
    request = {
        "events": str(points),
        "layer": "events",
        "fields": {"time": "time", "type": "type"},
        "operation": to_grid,
        "grid": str(grid),
        "time_zone": TIME_ZONE,
        "output": str(FOLDER / "memory.nc"),
    }
    call = FOLDER / "request.json"
    call.write_text(
        json.dumps({"protocol": 1, "job": "rasterize_events", "request": request, "job_dir": None})
    )
    python = os.environ["GRIDCAST_PYTHON"]
    worker = [python, "-X", "utf8", "-m", "gridcast_qgis.core", str(call)]
    done = subprocess.run(
        [python, "-c", MEMORY_PART, *worker],
        env=worker_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def binning() -> list[float]:
    """Return the ratios of making a cube of arrays to counting ready-made indexes."""
    count = 1_000_000
    random = np.random.default_rng(2)
    grid = Grid.from_extent(pyproj.CRS(UTM), EXTENT, rows=55, columns=50)
    x, y = (random.uniform(EXTENT[i], EXTENT[i + 2], count) for i in (0, 1))
    seconds = random.integers(0, YEARS * 365 * 86400, count).astype("timedelta64[s]")
    times = np.datetime64("2014-01-01T05:00:00", "s") + seconds
    kinds = random.integers(0, len(TYPES), count).astype(np.int32)
    table = EventTable(x, y, times, kinds, TYPES)
    cube = Cube.from_events(table, grid, "day", TIME_ZONE)
    row, column = grid.locate(x, y)
    flat = np.ravel_multi_index((cube.axis.locate(times), kinds, row, column), cube.events.shape)
    size = cube.events.size
    if not np.array_equal(np.bincount(flat, minlength=size).reshape(cube.events.shape), cube.events):
        sys.exit("the cube is wrong")

    def seconds_of(action: Callable[[], object]) -> float:
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    return [
        seconds_of(lambda: Cube.from_events(table, grid, "day", TIME_ZONE))
        / seconds_of(lambda: np.bincount(flat, minlength=size))
        for _ in range(9)
    ]


def reading() -> tuple[float, float]:
    """Return the shares of the time for the whole variable that one step and one history take."""

    def seconds_of(take: Callable[[xr.DataArray], xr.DataArray]) -> float:
        with xr.open_dataset(FOLDER / "cube.nc", engine="h5netcdf") as cube:
            began = time.perf_counter()
            take(cube["total"]).to_numpy()
            return time.perf_counter() - began

    rounds = []
    for _ in range(5):
        whole = seconds_of(lambda total: total)
        step = seconds_of(lambda total: total[1500])
        rounds.append((step / whole, seconds_of(lambda total: total[:, 20, 20]) / whole))
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


def main() -> None:
    """Measure and write the result."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - began:4.0f} s] {text}", flush=True)

    say("Making one and four million events")
    grid, cells = make_cells()
    million, four = make_points(1_000_000), make_points(4_000_000)
    qgis = Qgis()
    qgis.count_points(million, cells)  # both programs and the points are in the file cache from here on
    qgis.rasterize(million, grid)

    say("Layer to cube against counting points in polygons")
    layer = [(qgis.rasterize(million, grid), qgis.count_points(million, cells)) for _ in range(PAIRS + 2)]
    say("Four million events against one million")
    growth = [(qgis.rasterize(four, grid), qgis.rasterize(million, grid)) for _ in range(PAIRS)]
    say("Layer to event table against a plain copy")
    plain = [layer_to_table(million, through_qgis=False) for _ in range(PAIRS)]
    through = [layer_to_table(million, through_qgis=True) for _ in range(PAIRS)]
    say("Memory, binning, reading")
    step_share, history_share = reading()
    result = {
        "layer_vs_countpoints": statistics.median(own / peer for own, peer in layer),
        "read_limit_ratio": statistics.median(own / peer for own, peer in plain),
        "read_limit_ratio_through_qgis": statistics.median(own / peer for own, peer in through),
        "binning_vs_bincount": statistics.median(binning()),
        "growth": statistics.median(more / less for more, less in growth),
        "peak_rss_mb_1m": statistics.median(peak_memory(million, grid) for _ in range(PAIRS)),
        "peak_rss_mb_4m": statistics.median(peak_memory(four, grid) for _ in range(PAIRS)),
        "step_read_share": step_share,
        "history_read_share": history_share,
        "seconds": {
            "rasterize_1m": statistics.median(own for own, _ in layer),
            "countpoints_1m": statistics.median(peer for _, peer in layer),
            "rasterize_4m": statistics.median(more for more, _ in growth),
            "plain_copy_1m": statistics.median(peer for _, peer in plain + through),
        },
    }
    shutil.rmtree(FOLDER)
    RESULT.write_text(json.dumps(result, indent=1))
    say("Done")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
