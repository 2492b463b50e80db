# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that forecast and choose hot spots."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs


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

    from ..cube import Cube
    from ..forecast import Forecast
    from ..modelfile import load_model

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
    return {
        "output": request.output,
        "origin": result.intervals[0][0],
        "time_zone": cube.axis.time_zone,
        "step": cube.axis.step,
        "intervals": [list(interval) for interval in result.intervals],
        "expected_events": float(np.nansum(expected)),
        "maximum": float(np.nanmax(expected)),
        "ramp_maximum": result.ramp_maximum,
        "unit_text": f"events per cell and {cube.axis.unit}",
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

    from ..cube import Cube
    from ..forecast import Forecast
    from ..hotspots import HotSpots

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
