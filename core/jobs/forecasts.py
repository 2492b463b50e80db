# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that forecast and choose hot spots."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs

if TYPE_CHECKING:
    from ..cube import Cube
    from ..forecast import Forecast
    from ..hotspots import HotSpots
    from ..modelfile import SavedModel
    from ..models.base import Forecaster


@dataclass(frozen=True)
class MakeForecast:
    """Apply a model file to a cube.

    `types_output` gets the types, if the model forecasts any, and `parts_output` what the forecast is made
    up of, if the model can tell; `uncertainty_output` gets how sure a forecast of counts is, with the
    probability of each cell to be among the busiest `top_cells`.
    """

    cube: str
    model: str
    output: str
    horizon: int = 1
    origin: str | None = None
    types_output: str | None = None
    parts_output: str | None = None
    uncertainty_output: str | None = None
    top_cells: int = 20


def forecast(request: MakeForecast, reporter: Reporter) -> Outputs:
    """Make the forecast raster for the steps from `origin` (default: the end of the cube) on."""
    import numpy as np

    from .. import uncertainty
    from ..atomic import atomic_path

    reporter.stage("Reading cube and model", 0, 25)
    if request.horizon < 1:
        raise InputError(
            "The horizon must be at least one step.",
            hint="Give a whole number such as 7.",
            parameter="HORIZON",
            value=request.horizon,
        )
    saved, cube, origin = _model_and_cube(request.cube, request.model, request.origin)
    model = saved.model
    _check_beside(request, model)
    reporter.stage("Forecasting", 25, 90)
    result = _apply(saved, cube, origin, request.horizon, reporter)
    probable = 0.0
    reporter.stage("Writing the forecast", 90, 100)
    with ExitStack() as all_or_none:
        # What stands beside the forecast takes its place only after it: a failed job leaves nothing.
        if request.types_output:
            path = all_or_none.enter_context(atomic_path(request.types_output, "TYPES_OUTPUT"))
            result.write_types(path, model.type_names, model.forecast_types(cube, origin, request.horizon))
        if request.parts_output:
            path = all_or_none.enter_context(atomic_path(request.parts_output, "PARTS_OUTPUT"))
            result.write_parts(path, model.part_names, model.forecast_parts(cube, origin, request.horizon))
        names = uncertainty.names(request.top_cells)
        if request.uncertainty_output:
            path = all_or_none.enter_context(atomic_path(request.uncertainty_output, "UNCERTAINTY_OUTPUT"))
            probability = model.probability(result.expected)
            probable = float(np.nanpercentile(probability, 99))
            spread = uncertainty.spread(result.expected, probability, model.dispersion_, request.top_cells)
            result.write_uncertainty(path, names, spread)
        result.write(request.output)
    return {
        "output": request.output,
        "types_output": request.types_output,
        "type_names": list(model.type_names),
        "parts_output": request.parts_output,
        "part_names": list(model.part_names),
        "uncertainty_output": request.uncertainty_output,
        "uncertainty_bands": len(names),
        "uncertainty_maximum": probable,
        "quantity": result.quantity,
        "origin": result.intervals[0][0],
        "time_zone": cube.axis.time_zone,
        "step": cube.axis.step,
        "intervals": [list(interval) for interval in result.intervals],
        "expected_events": float(np.nansum(model.expected_events(result.expected))),
        "maximum": float(np.nanmax(result.expected)),
        "ramp_maximum": result.ramp_maximum,
        "unit_text": _UNITS[result.quantity].format(unit=cube.axis.unit),
    }


def _check_beside(request: MakeForecast, model: Forecaster) -> None:
    """Refuse what the model cannot give."""
    checks = (
        (
            "types_output",
            bool(model.type_names),
            "does not forecast types",
            "train a Gridcast network on a cube with two types or more",
        ),
        (
            "parts_output",
            bool(model.part_names),
            "cannot say what its forecast is made up of",
            "take a Gridcast network that has learned more than a simple method",
        ),
        (
            "uncertainty_output",
            model.quantity == "events",
            "forecasts a probability, which is all that it can say",
            "take a model that forecasts counts",
        ),
    )
    for name, able, complaint, way_out in checks:
        wanted = getattr(request, name)
        if wanted and not able:
            raise InputError(
                f"The model ({model.title}) {complaint}.",
                hint=f"Leave {name.upper()} empty, or {way_out}.",
                parameter=name.upper(),
                value=wanted,
            )
    if request.top_cells < 1:
        raise InputError(
            "There must be at least one busiest cell.",
            hint="Give a whole number such as 20.",
            parameter="TOP_CELLS",
            value=request.top_cells,
        )


_UNITS = {
    "events": "events per cell and {unit}",
    "probability": "probability of an event per cell and {unit}",
    "hot": "probability of a hot cell per {unit}",
}


def _model_and_cube(cube_path: str, model_path: str, origin: str | None) -> tuple[SavedModel, Cube, int]:
    """Read both and return them with the step at which the forecast begins."""
    from ..cube import Cube
    from ..modelfile import load_model

    cube = Cube.read(cube_path)
    saved = load_model(model_path)
    saved.check_fits(cube, path=model_path)
    cube = cube.select_types(saved.manifest["types"])
    return saved, cube, cube.index_of(origin, "ORIGIN") if origin else len(cube)


def _apply(saved: SavedModel, cube: Cube, origin: int, horizon: int, reporter: Reporter) -> Forecast:
    from ..forecast import Forecast

    values = saved.model.forecast(cube, origin, horizon, reporter)
    ahead = cube.axis.slice(0, origin).extended(horizon).slice(origin, origin + horizon)
    model = saved.model
    return Forecast(cube.grid, ahead, values, model.title, model.quantity, model.hot_rule())


@dataclass(frozen=True)
class ClassifyHotspots:
    """Turn a forecast, or what a model says of the step after a cube, into ranked hot spots.

    Either `forecast` or `model` and `cube` are given; with a forecast `cube` holds what happened. With a
    model the forecast begins at `origin`, by default at the end of the cube. `threshold` None: that of
    the classifier, or 0.5.
    """

    output: str
    forecast: str | None = None
    model: str | None = None
    cube: str | None = None
    origin: str | None = None
    rule: str = "area"
    area_share: float = 5.0
    threshold: float | None = None
    top_cells: int = 20
    hot_events: int = 1
    first_step: int | None = None
    last_step: int | None = None
    merge: bool = True
    probability_output: str | None = None
    classes_output: str | None = None


def classify_hotspots(request: ClassifyHotspots, reporter: Reporter) -> Outputs:
    """Make polygons and rasters; with a cube of what happened, say how good they were."""
    import numpy as np

    from ..atomic import atomic_path
    from ..cube import Cube
    from ..forecast import Forecast
    from ..hotspots import FlagRule, HotSpots

    if (request.forecast is None) == (request.model is None):
        raise InputError(
            "Hot spots come from a forecast or from a model.",
            hint="Choose INPUT, or MODEL and CUBE; not both.",
            parameter="INPUT",
            value=request.forecast,
        )
    if request.model is not None:
        if request.cube is None:
            raise InputError("A model needs a cube to look at.", hint="Choose CUBE.", parameter="CUBE")
        reporter.stage("Applying the model", 0, 30)
        saved, cube, origin = _model_and_cube(request.cube, request.model, request.origin)
        source = _apply(saved, cube, origin, 1, reporter)
        happened = cube if origin < len(cube) else None
    else:
        assert request.forecast is not None
        reporter.stage("Reading the forecast", 0, 30)
        source = Forecast.read(request.forecast)
        happened = Cube.read(request.cube) if request.cube else None
    reporter.stage("Choosing cells", 30, 70)
    threshold = request.threshold or source.hot.get("threshold", 0.5)
    value = {"area": request.area_share, "probability": threshold, "cells": request.top_cells}
    spots = HotSpots.from_forecast(
        source,
        FlagRule(request.rule, value.get(request.rule, 0)),
        hot_events=request.hot_events,
        first_step=request.first_step,
        last_step=request.last_step,
        merge=request.merge,
    )
    outputs = _judge(spots, happened, reporter)
    reporter.stage("Writing", 70, 100)
    with ExitStack() as all_or_none:
        if request.probability_output:
            part = all_or_none.enter_context(atomic_path(request.probability_output, "PROBABILITY"))
            spots.write_probability(part)
        if request.classes_output:
            part = all_or_none.enter_context(atomic_path(request.classes_output, "CLASSES"))
            spots.write_classes(part, spots.truth(happened) if happened is not None else None)
        spots.write(request.output, happened)
    area = source.grid.inside_area
    total = float(np.nansum(spots.expected))
    expected = float(spots.expected[spots.flagged].sum())
    return {
        "output": request.output,
        "probability_output": request.probability_output,
        "classes_output": request.classes_output,
        "quantity": source.quantity,
        "intervals": [list(interval) for interval in spots.forecast.intervals],
        "threshold": spots.rule.value if spots.rule.kind == "probability" else None,
        "hot_spots": len(spots.polygons),
        "cells": int(spots.flagged.sum()),
        "area_km2": float(area[spots.flagged].sum() / 1e6),
        "area_share": float(100 * area[spots.flagged].sum() / area.sum()),
        "expected_events": expected,
        "expected_share": 100 * expected / total if total else 0.0,
        **outputs,
    }


_JUDGED = (
    *("events_observed", "events_hit", "pai", "baseline_hit", "baseline_pai"),
    *("accuracy", "precision", "recall", "f1"),
)


def _judge(spots: HotSpots, cube: Cube | None, reporter: Reporter) -> Outputs:
    """Return the scores of hot spots against what happened, all None if that is not known."""
    outputs: Outputs = dict.fromkeys(_JUDGED)
    if cube is None:
        return outputs
    from ..evaluation.classification import score

    own, simple = spots.score(cube)
    valid = spots.forecast.grid.valid
    kinds = score(spots.truth(cube)[valid], spots.flagged[valid].astype(float)).as_values()
    outputs.update(
        events_observed=own.events,
        events_hit=own.hits,
        pai=own.pai,
        baseline_hit=simple.hits,
        baseline_pai=simple.pai,
        **{key: kinds[key] for key in ("accuracy", "precision", "recall", "f1")},
    )
    if own.events and own.flagged_area:
        reporter.message(
            f"Of {own.events:,.0f} events that happened, {own.hits:,.0f} ({own.rate:.1%}) fell into the "
            f"hot spots ({own.flagged_area / own.total_area:.1%} of the area); with the historical "
            f"average it would have been {simple.hits:,.0f} ({simple.rate:.1%})."
        )
    return outputs
