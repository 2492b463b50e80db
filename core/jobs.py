# SPDX-License-Identifier: GPL-2.0-or-later
"""The named jobs of the worker: a frozen request and a function each, a thin door on the library.

Field names are the parameter keys of the Processing algorithms in lower case.
Imports are inside the functions, so that a job loads only what it needs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import GridcastError, InputError
from .reporter import Reporter

Outputs = dict[str, Any]


@dataclass(frozen=True)
class BuildGrid:
    """Lay a grid over an extent or a study area (files and extent in `crs`)."""

    crs: str
    output: str
    extent: list[float] | None = None
    study_area: str | None = None
    cell_size: float | None = None
    cell_unit: str = "metre"
    rows: int | None = None
    columns: int | None = None
    rotation: float = 0.0
    rule: str = "intersects"
    min_share: float = 50.0
    cells_output: str | None = None


def build_grid(request: BuildGrid, reporter: Reporter) -> Outputs:
    """Make the grid file and, if asked for, the polygons of its cells."""
    import numpy as np
    import pyproj

    from .atomic import atomic_path
    from .grid import CELL_UNITS, Grid
    from .vectors import geopackage, read_polygons

    reporter.stage("Laying the grid", 0, 70)
    try:
        crs = pyproj.CRS.from_wkt(request.crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            "The coordinate system cannot be read.",
            hint="Choose another TARGET_CRS, or set that of the layer.",
            parameter="TARGET_CRS",
            value=request.crs[:60],
        ) from error
    area = read_polygons(request.study_area) if request.study_area else None
    grid = Grid.from_extent(
        crs,
        request.extent,
        cell_size=request.cell_size,
        cell_unit=request.cell_unit,
        rows=request.rows,
        columns=request.columns,
        rotation=request.rotation,
        study_area=area,
        rule=request.rule,
        min_share=request.min_share,
    )
    width, height = grid.cell_dimensions
    size = request.cell_size
    if size is not None and not (request.rows and request.columns):
        wanted = size * CELL_UNITS[request.cell_unit]
        if abs(width / wanted - 1) > 0.02:
            reporter.warning(
                f"In {grid.crs.name} a cell of {wanted:.0f} m is {width:.0f} m wide on the ground, because "
                "the projection stretches distances here. A local projection (UTM, State Plane) avoids this."
            )
    reporter.stage("Writing", 70, 100)
    with ExitStack() as both:
        if request.cells_output:
            rows, columns = np.nonzero(grid.valid)
            fields: dict[str, np.ndarray] = {
                "row": rows.astype(np.int32),
                "column": columns.astype(np.int32),
                "share": grid.inside[rows, columns].astype(np.float64),
            }
            # The cells take their place only after the grid: a failed job leaves neither.
            cells = both.enter_context(atomic_path(request.cells_output, "CELLS"))
            cells.write_bytes(geopackage(grid.cell_polygons(rows, columns), fields, grid.crs, "cells"))
        grid.write(request.output)
    return {
        "output": request.output,
        "cells_output": request.cells_output,
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "cells_inside": int(grid.valid.sum()),
        "cell_width": width,
        "cell_height": height,
        "area_km2": float(grid.inside_area.sum() / 1e6),
    }


@dataclass(frozen=True)
class RasterizeEvents:
    """Count the events of a point layer on a grid."""

    events: str
    grid: str
    output: str
    step: str = "day"
    time_zone: str = "UTC"
    times_are_local: bool = False
    day_first: bool = False
    start: str | None = None
    end: str | None = None
    max_types: int = 12
    dropped_before: dict[str, int] = field(default_factory=dict)


def rasterize_events(request: RasterizeEvents, reporter: Reporter) -> Outputs:
    """Make the cube file; every event that is not counted is reported with the reason."""
    from .cube import Cube
    from .events import EventTable
    from .grid import Grid

    reporter.stage("Reading the grid", 0, 5)
    grid = Grid.read(request.grid)
    reporter.stage("Reading the events", 5, 50)
    events = EventTable.read(
        request.events,
        time_zone=request.time_zone,
        day_first=request.day_first,
        times_are_local=request.times_are_local,
        dropped_before=request.dropped_before,
    )
    if events.bad_examples:
        reporter.warning(
            f"{events.dropped['bad_time']:,} rows have a date that cannot be read, such as "
            f"{', '.join(map(repr, events.bad_examples))}. If the day comes before the month, set DAY_FIRST."
        )
    reporter.stage("Counting", 50, 70)
    cube = Cube.from_events(
        events,
        grid,
        request.step,
        request.time_zone,
        start=request.start,
        end=request.end,
        max_types=request.max_types,
        reporter=reporter,
    )
    lost = cube.attributes["dropped"]
    used, read = cube.attributes["events_used"], cube.attributes["events_read"]
    if sum(lost.values()):
        reasons = ", ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in lost.items() if count)
        tell = reporter.warning if used < 0.9 * read else reporter.message
        tell(f"{used:,} of {read:,} events are counted; left out: {reasons}.")
    reporter.stage("Writing the cube", 70, 100)
    cube.write(request.output)
    return {
        "output": request.output,
        "events_read": read,
        "events_used": used,
        "dropped": lost,
        "steps": len(cube),
        "types": list(cube.types),
        "first": cube.axis.isoformat(0)[0],
        "last": cube.axis.isoformat(len(cube) - 1)[1],
    }


@dataclass(frozen=True)
class Train:
    """Train a model of the registry on a cube."""

    cube: str
    output: str
    model: str
    types: list[str] | None = None
    until: str | None = None
    validation_share: float = 15.0
    settings: dict[str, Any] = field(default_factory=dict)


# PAI of the validation period: the share of the area that most evaluations of patrol plans use.
VALIDATION_AREA_SHARE = 5.0


def train(request: Train, reporter: Reporter) -> Outputs:
    """Make the model file, with scores on the validation period beside the historical average's."""
    from .cube import Cube
    from .evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
    from .modelfile import save_model
    from .models.registry import model_class
    from .training.splits import chronological_split

    began = time.perf_counter()
    model = _with_settings(model_class(request.model), request.settings)
    reporter.stage("Reading the cube", 0, 3)
    cube = Cube.read(request.cube).select_types(request.types)
    if request.until:
        cube = cube.steps(0, cube.index_of(request.until, "UNTIL"))
    split = chronological_split(len(cube), model.history, request.validation_share)
    reporter.message(
        f"{split.train_steps:,} steps to train on, {split.validation_steps:,} to validate, "
        f"{int(cube.grid.valid.sum()):,} cells, {cube.total.sum():,.0f} events."
    )
    reporter.stage("Loading the network library", 3, 8)
    baseline = model_class("historical_average")()
    reporter.stage("Training", 8, 92)
    model.fit(cube, split, reporter)
    reporter.stage("Scoring the validation period", 92, 98)
    period = slice(split.validation_start, split.validation_stop)
    observed, valid, area = cube.total[period], cube.grid.valid, cube.grid.inside_area
    scores: dict[str, dict[str, float]] = {}
    for name, candidate in (("model", model), ("historical_average", baseline)):
        expected = candidate.predict_next(cube, period.start, period.stop)
        hits = hit_rate(observed, expected, area, VALIDATION_AREA_SHARE)
        scores[name] = {
            "mse": mean_squared_error(observed, expected, valid),
            "poisson_deviance": poisson_deviance(observed, expected, valid),
            "hit_rate": hits.rate,
            "pai": hits.pai,
        }
        reporter.check()
    own, simple = scores["model"], scores["historical_average"]
    skill = 100 * (1 - own["mse"] / simple["mse"]) if simple["mse"] else 0.0
    verdict = "better" if skill > 0 else "no better"
    reporter.message(
        f"On the {split.validation_steps} validation steps: mean squared error {own['mse']:.5f}, historical "
        f"average {simple['mse']:.5f}: the network is {verdict} ({skill:+.2f} %). In the densest "
        f"{VALIDATION_AREA_SHARE:g} % of the area it finds {own['hit_rate']:.1%} of the events, the average "
        f"{simple['hit_rate']:.1%}."
    )
    reporter.stage("Writing the model", 98, 100)
    history = getattr(model, "history_", {})
    save_model(
        model,
        request.output,
        {
            "cube": _describe_cube(cube),
            "types": request.types,
            "split": dataclasses.asdict(split),
            "scores": scores,
            "training": history,
            "versions": _versions(),
        },
    )
    validation_loss = min(history["val_loss"]) if history else own["poisson_deviance"]
    return {
        "output": request.output,
        "validation_loss": validation_loss,
        "validation_mse": own["mse"],
        "baseline_mse": simple["mse"],
        "skill": skill,
        "pai": own["pai"],
        "pai_baseline": simple["pai"],
        "epochs_run": len(history.get("loss", [])),
        "parameters": model.parameter_count,
        "train_steps": split.train_steps,
        "validation_steps": split.validation_steps,
        "seconds": time.perf_counter() - began,
    }


@dataclass(frozen=True)
class MakeForecast:
    """Apply a model file to a cube."""

    cube: str
    model: str
    output: str
    horizon: int = 1
    origin: str | None = None


def forecast(request: MakeForecast, reporter: Reporter) -> Outputs:
    """Make the forecast raster for the steps from `origin` (default: the end of the cube) on."""
    import numpy as np

    from .cube import Cube
    from .forecast import Forecast
    from .modelfile import load_model

    reporter.stage("Reading cube and model", 0, 25)
    if request.horizon < 1:
        raise InputError(
            "The horizon must be at least one step.",
            hint="Give a whole number such as 7.",
            parameter="HORIZON",
            value=request.horizon,
        )
    cube = Cube.read(request.cube)
    saved = load_model(request.model)
    saved.check_fits(cube, path=request.model)
    cube = cube.select_types(saved.manifest["types"])
    origin = cube.index_of(request.origin, "ORIGIN") if request.origin else len(cube)
    reporter.stage("Forecasting", 25, 90)
    expected = saved.model.forecast(cube, origin, request.horizon, reporter)
    reporter.stage("Writing the forecast", 90, 100)
    ahead = cube.axis.slice(0, origin).extended(request.horizon).slice(origin, origin + request.horizon)
    result = Forecast(cube.grid, ahead, expected, saved.model.title)
    result.write(request.output)
    step = cube.axis.step
    return {
        "output": request.output,
        "origin": result.intervals[0][0],
        "time_zone": cube.axis.time_zone,
        "step": step,
        "intervals": [list(interval) for interval in result.intervals],
        "expected_events": float(np.nansum(expected)),
        "maximum": float(np.nanmax(expected)),
        "ramp_maximum": result.ramp_maximum,
        "unit_text": f"events per cell and {step}",
    }


@dataclass(frozen=True)
class ClassifyHotspots:
    """Turn a forecast into ranked hot spots."""

    forecast: str
    output: str
    area_share: float = 5.0
    first_step: int | None = None
    last_step: int | None = None
    merge: bool = True
    cube: str | None = None


def classify_hotspots(request: ClassifyHotspots, reporter: Reporter) -> Outputs:
    """Make the polygons; with a cube of what happened, say how many events they held."""
    import numpy as np

    from .cube import Cube
    from .forecast import Forecast
    from .hotspots import HotSpots

    reporter.stage("Reading the forecast", 0, 30)
    source = Forecast.read(request.forecast)
    cube = Cube.read(request.cube) if request.cube else None
    reporter.stage("Choosing cells", 30, 70)
    spots = HotSpots.from_forecast(
        source,
        request.area_share,
        first_step=request.first_step,
        last_step=request.last_step,
        merge=request.merge,
    )
    outputs: Outputs = dict.fromkeys(("events_observed", "events_hit", "pai", "baseline_hit", "baseline_pai"))
    if cube is not None:
        own, simple = spots.score(cube)
        outputs.update(
            events_observed=own.events,
            events_hit=own.hits,
            pai=own.pai,
            baseline_hit=simple.hits,
            baseline_pai=simple.pai,
        )
        if own.events:
            reporter.message(
                f"Of {own.events:,.0f} events that happened, {own.hits:,.0f} ({own.rate:.1%}) fell into the "
                f"hot spots ({own.flagged_area / own.total_area:.1%} of the area); with the historical "
                f"average it would have been {simple.hits:,.0f} ({simple.rate:.1%})."
            )
    reporter.stage("Writing the polygons", 70, 100)
    spots.write(request.output, cube)
    area = source.grid.inside_area
    total = float(np.nansum(spots.expected))
    expected = float(spots.expected[spots.flagged].sum())
    return {
        "output": request.output,
        "hot_spots": len(spots.polygons),
        "cells": int(spots.flagged.sum()),
        "area_km2": float(area[spots.flagged].sum() / 1e6),
        "area_share": float(100 * area[spots.flagged].sum() / area.sum()),
        "expected_events": expected,
        "expected_share": 100 * expected / total if total else 0.0,
        **outputs,
    }


@dataclass(frozen=True)
class LoadSample:
    """Unpack the sample that comes with the plugin."""

    folder: str
    output: str


def load_sample(request: LoadSample, reporter: Reporter) -> Outputs:
    """Make a GeoPackage with the layers ``events`` and ``boundary``."""
    from .sample import load_sample as unpack

    return unpack(Path(request.folder), Path(request.output), reporter)


@dataclass(frozen=True)
class VerifyEnvironment:
    """Check that every package of the worker can be loaded."""


def verify_environment(request: VerifyEnvironment, reporter: Reporter) -> Outputs:
    """Import everything that any job imports; a failure is an environment error."""
    import platform
    from importlib import import_module

    reporter.stage("Loading packages", 0, 100)
    for name in (
        "numpy",
        "pandas",
        "xarray",
        "h5netcdf",
        "pyproj",
        "shapely",
        "rasterio",
        "pyogrio",
        "keras",
    ):
        import_module(name)
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones(1))
    return {"python": platform.python_version(), "packages": _versions(), "tensorflow": True}


#: Every job by name: its request and its function.
JOBS: dict[str, tuple[type, Callable[[Any, Reporter], Outputs]]] = {
    "build_grid": (BuildGrid, build_grid),
    "rasterize_events": (RasterizeEvents, rasterize_events),
    "train": (Train, train),
    "forecast": (MakeForecast, forecast),
    "classify_hotspots": (ClassifyHotspots, classify_hotspots),
    "load_sample": (LoadSample, load_sample),
    "verify_environment": (VerifyEnvironment, verify_environment),
}


def run_job(name: str, fields: dict[str, Any], reporter: Reporter) -> Outputs:
    """Run a job from the plain values of its request.

    Raises
    ------
    GridcastError
        Unknown job or field: the two halves of the plugin do not belong together.
    """
    if name not in JOBS:
        raise GridcastError(f"There is no job '{name}'.", hint="Install the plugin again.")
    kind, function = JOBS[name]
    known = {f.name for f in dataclasses.fields(kind)}
    if kind is Train:
        # The settings of a model are its own affair: whatever is not the job's goes there.
        extra = {key: value for key, value in fields.items() if key not in known}
        fields = {key: value for key, value in fields.items() if key in known} | {"settings": extra}
    try:
        request = kind(**fields)
    except TypeError as error:
        raise GridcastError(
            f"The request of the job '{name}' does not fit: {error}.", hint="Install the plugin again."
        ) from error
    return function(request, reporter)


def _with_settings(kind: type, settings: dict[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        raise GridcastError(
            f"The settings of the model do not fit: {error}.", hint="Install the plugin again."
        ) from error


def _describe_cube(cube: Any) -> Outputs:
    rows, columns = cube.grid.shape
    return {
        "grid_fingerprint": cube.grid.fingerprint,
        "data_fingerprint": cube.fingerprint,
        "crs": cube.grid.crs.to_wkt(),
        "crs_name": cube.grid.crs.name,
        "transform": list(cube.grid.transform)[:6],
        "rows": rows,
        "columns": columns,
        "step": cube.axis.step,
        "time_zone": cube.axis.time_zone,
        "types": list(cube.types),
        "first": cube.axis.isoformat(0)[0],
        "last": cube.axis.isoformat(len(cube) - 1)[1],
        "provenance": cube.attributes,
    }


def _versions() -> dict[str, str]:
    from importlib import metadata

    from gridcast_qgis import __version__

    found = {"gridcast": __version__}
    for distribution in ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pandas", "xarray", "rasterio"):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found
