# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that compare forecasts with what happened."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..reporter import Reporter
from .common import EventsRequest, Outputs

if TYPE_CHECKING:
    import numpy as np
    import pyproj

    from ..cube import Cube
    from ..evaluation.flagged import AreaScore, FlaggedAreas
    from ..evaluation.scoring import Score
    from ..events import EventTable
    from ..forecast import Forecast

PRESETS = ("none", "nij-2017")


@dataclass(frozen=True, kw_only=True)
class ScoreForecast(EventsRequest):
    """Score a forecast raster, or polygons that somebody flagged, against the events that came.

    Attributes
    ----------
    forecast, flagged : path
        One of them. The coordinates of `flagged`, and of the events beside it, are in `crs`.
    events, cube : path
        One of them, see :class:`~.common.EventsRequest`.
    study_area : path, optional
        Polygons in `crs`, with `flagged` and `events`; forecasts and cubes have a study area of their own.
    order_field, highest_first, expected_field, hotspot_field
        See :meth:`~..evaluation.flagged.FlaggedAreas.read`.
    start, end : str, optional
        ISO local times: the period of `flagged`, or the part of a forecast that is scored.
    budgets : list of float
        In `budget_unit`. Empty: 5 percent of the study area; with `flagged` all polygons.
    cell_size : float, optional
        Metres, see :func:`~..evaluation.flagged.score_areas`.
    each_step : bool
        See :func:`~..evaluation.scoring.score_map`.
    preset : {"none", "nij-2017"}
        Rules that are checked; a study area that is not given is that of the challenge.
    output : path
        Gets the measures as a table.
    points_output : path, optional
        Gets the events, with what was hit.
    """

    events: str = ""
    forecast: str | None = None
    flagged: str | None = None
    cube: str | None = None
    crs: str = ""
    study_area: str | None = None
    order_field: str | None = None
    highest_first: bool = False
    expected_field: str | None = None
    hotspot_field: str | None = None
    types: list[str] | None = None
    time_zone: str = "UTC"
    start: str | None = None
    end: str | None = None
    budgets: list[float] = field(default_factory=list)
    budget_unit: str = "percent"
    cell_size: float | None = None
    each_step: bool = True
    preset: str = "none"
    output: str
    points_output: str | None = None


#: Percent of the study area that a forecast may flag where no budget is given.
USUAL_SHARE = 5.0


def score_forecast(request: ScoreForecast, reporter: Reporter) -> Outputs:
    """Write the measures as a table, and return those of the first budget one by one."""
    from ..vectors import write_table

    _check(request)
    score, cells, flagged_at_once = (_score_map if request.forecast else _score_areas)(request, reporter)
    broken: list[str] = []
    if request.preset == "nij-2017":
        from ..evaluation.nij import broken_rules

        broken = broken_rules(cells, flagged_at_once)
        for sentence in broken:
            reporter.warning(f"PRESET nij-2017: {sentence}")
    values = score.values()
    _tell(values, reporter)
    write_table(request.output, score.table(), "measures", "OUTPUT")
    return {
        "output": request.output,
        "points_output": request.points_output,
        "violations": len(broken),
        **values,
    }


def _check(request: ScoreForecast) -> None:
    if (request.forecast is None) == (request.flagged is None):
        raise InputError(
            "A forecast or flagged areas are scored.",
            hint="Choose FORECAST or FLAGGED, not both.",
            parameter="FORECAST",
            value=request.forecast,
        )
    if bool(request.events) == (request.cube is not None):
        raise InputError(
            "Events come from a layer or from a cube.",
            hint="Choose INPUT or CUBE, not both.",
            parameter="CUBE",
            value=request.cube,
        )
    if request.flagged and not (request.start and request.end):
        raise InputError(
            "The period that the areas were flagged for is needed.",
            hint="Set START and END.",
            parameter="END" if request.start else "START",
            value="not set",
        )
    if request.flagged and request.events and not request.study_area and request.preset == "none":
        raise InputError(
            "A study area is needed: measures compare the flagged area with it.",
            hint="Choose the polygon of the city.",
            parameter="STUDY_AREA",
            value="not set",
        )
    if request.preset not in PRESETS:
        raise InputError(
            "Unknown preset.",
            hint=f"Choose one of {', '.join(PRESETS)}.",
            parameter="PRESET",
            value=request.preset,
        )
    if request.cell_size is not None and not request.cell_size > 0:
        raise InputError(
            "The cell size must be a positive number.",
            hint="Give metres, such as 250, or leave it empty.",
            parameter="CELL_SIZE",
            value=request.cell_size,
        )


Scored = tuple["Score", "np.ndarray", "np.ndarray"]


def _score_map(request: ScoreForecast, reporter: Reporter) -> Scored:
    """Return the score, the sizes of whole flagged cells, and the areas flagged at a time."""
    from ..evaluation.scoring import (
        count_on_grid,
        counts_of_cube,
        events_between,
        score_map,
        shares_of,
    )
    from ..forecast import Forecast

    reporter.stage("Reading the forecast", 0, 20)
    forecast = _part(Forecast.read(request.forecast or "", "FORECAST"), request)
    grid, axis = forecast.grid, forecast.axis
    shares = shares_of(
        request.budgets or [USUAL_SHARE],
        request.budget_unit if request.budgets else "percent",
        float(grid.inside_area.sum()),
    )
    reporter.stage("Reading the events", 20, 60)
    events, places = None, None
    if request.cube:
        observed = counts_of_cube(_read_cube(request), forecast)
    else:
        source = request.source(axis.time_zone)
        events = events_between(source.blocks(), axis.edges[0], axis.edges[-1], request.types, reporter)
        observed, places = count_on_grid(events, grid, axis)
        _tell_outside(len(events), int((places[0] < 0).sum()), reporter)
    reporter.stage("Scoring", 60, 90)
    score, flagged, hits = score_map(forecast, observed, list(shares), request.each_step)
    if request.points_output and events is not None and places is not None:
        reporter.stage("Writing the events", 90, 100)
        counted = places[0] >= 0
        step, row, column = (index[counted] for index in places)
        _write_points(request, events.selected(counted), flagged[step, row, column], grid.crs)
    whole = flagged.any(axis=0) & (grid.inside > 1 - 1e-6)
    return score, grid.cell_area[whole], hits.at(0).flagged_area


def _part(forecast: Forecast, request: ScoreForecast) -> Forecast:
    """Return the steps of a forecast that lie within START and END."""
    import numpy as np

    from ..timesteps import parse_local

    axis, keep = forecast.axis, np.ones(len(forecast.axis), bool)
    if request.start:
        keep &= axis.starts >= parse_local(request.start, axis.time_zone, "START")
    if request.end:
        keep &= axis.ends <= parse_local(request.end, axis.time_zone, "END")
    if not keep.any():
        raise InputError(
            "No step of the forecast lies in this period.",
            hint=f"It runs from {forecast.intervals[0][0]} to {forecast.intervals[-1][1]}.",
            parameter="END" if request.end else "START",
            value=request.end or request.start,
        )
    first, stop = int(keep.argmax()), len(keep) - int(keep[::-1].argmax())
    return dataclasses.replace(forecast, axis=axis.slice(first, stop), expected=forecast.expected[first:stop])


def _read_cube(request: ScoreForecast) -> Cube:
    from ..cube import Cube

    return Cube.read(request.cube or "").select_types(request.types)


def _score_areas(request: ScoreForecast, reporter: Reporter) -> Scored:
    """Return the score, the sizes of flagged polygons that no border cuts, and the area flagged at once."""
    import numpy as np
    import pyproj

    from ..evaluation.flagged import FlaggedAreas, score_areas
    from ..evaluation.scoring import Score, shares_of

    reporter.stage("Reading the flagged areas", 0, 20)
    crs = pyproj.CRS.from_wkt(request.crs)
    areas = FlaggedAreas.read(
        request.flagged or "",
        crs,
        reporter,
        order=request.order_field,
        highest_first=request.highest_first,
        expected=request.expected_field,
        hotspot=request.hotspot_field,
        # The challenge's area of Portland was measured in the plane, and so are the cells then.
        plane=request.preset == "nij-2017" and not request.study_area,
    )
    reporter.stage("Reading the events", 20, 60)
    events, happened = _happened(request, areas, reporter)
    shares = np.full(1, np.nan)
    if request.budgets:
        shares = shares_of(request.budgets, request.budget_unit, happened.area)
    reporter.stage("Scoring", 60, 90)
    found = score_areas(areas, happened, list(shares) if request.budgets else None, request.cell_size)
    score = Score(found.hits, shares)
    if np.isnan(found.hits.best).any():
        reporter.warning(
            "The flagged polygons are not cells of one size, so that the best choice of as much area is not "
            "known: there is no PEI. Set CELL_SIZE to have it."
        )
    _tell_about_areas(areas, found, reporter)
    if request.points_output and events is not None:
        reporter.stage("Writing the events", 90, 100)
        inside = happened.inside
        owner = happened.owners(found.searched)[inside]
        hit = (owner >= 0) & (owner < found.counts[0])
        _write_points(request, events.selected(inside), hit, crs)
    return score, areas.sizes[happened.uncut(areas.polygons)], found.hits.flagged_area


def _happened(
    request: ScoreForecast, areas: FlaggedAreas, reporter: Reporter
) -> tuple[EventTable | None, Any]:
    """Return the events, if they are points, and what flagged areas are compared with."""
    from ..evaluation.flagged import EventCells, EventPoints
    from ..evaluation.nij import TOTAL_AREA
    from ..evaluation.scoring import events_between
    from ..timesteps import parse_local
    from ..vectors import read_polygons

    if request.cube:
        cube = _read_cube(request)
        first, stop = _steps_of_period(cube, request)
        return None, EventCells(cube.grid, cube.total[first:stop].sum(axis=0, dtype=float))
    start = parse_local(request.start or "", request.time_zone, "START")
    end = parse_local(request.end or "", request.time_zone, "END")
    _check_order(start, end, request)
    source = request.source(request.time_zone)
    events = events_between(source.blocks(), start, end, request.types, reporter)
    outline, total = None, TOTAL_AREA
    if request.study_area:
        outline = read_polygons(request.study_area).area
        total = float(outline.area * areas.square_metres)
        if not total:
            raise InputError(
                "The study area has no polygon with an area.",
                hint="Choose a polygon layer with at least one non-empty polygon (check its selection and "
                "filter).",
                parameter="STUDY_AREA",
            )
    happened = EventPoints(events.x, events.y, areas.square_metres, outline, total)
    _tell_outside(len(events), len(events) - int(happened.inside.sum()), reporter)
    return events, happened


def _steps_of_period(cube: Cube, request: ScoreForecast) -> tuple[int, int]:
    """Return the first step of the period and the one after it; the period is made of whole steps."""
    from ..timesteps import parse_local

    found = []
    for key, text in (("START", request.start or ""), ("END", request.end or "")):
        index = cube.index_of(text, key)
        if cube.axis.edges[index] != parse_local(text, cube.axis.time_zone, key):
            raise InputError(
                f"The time lies within a step of the cube, which begins at {cube.axis.isoformat(index)[0]}.",
                hint="Set it to a time at which a step of the cube begins or ends.",
                parameter=key,
                value=text,
            )
        found.append(index)
    _check_order(found[0], found[1], request)
    return found[0], found[1]


def _check_order(start: Any, end: Any, request: ScoreForecast) -> None:
    if end <= start:
        raise InputError(
            "The period ends before it begins.",
            hint=f"Set END after START ({request.start}).",
            parameter="END",
            value=request.end,
        )


def _tell_outside(events: int, outside: int, reporter: Reporter) -> None:
    reporter.message(f"{events:,} events came in the period.")
    if outside:
        reporter.message(f"{outside:,} of them lie outside the study area and do not count.")


def _tell_about_areas(areas: FlaggedAreas, found: AreaScore, reporter: Reporter) -> None:
    """Say what flagged polygons have lost to overlaps and to the border of the study area."""
    flagged, area = areas.sizes.sum(), found.area.sum()
    if area < 0.999 * flagged:
        reporter.message(
            f"Of {flagged / 1e6:,.3f} square kilometres of polygons, {area / 1e6:,.3f} count: parts that lie "
            "outside the study area or in a polygon before do not."
        )


def _write_points(request: ScoreForecast, events: EventTable, hit: np.ndarray, crs: pyproj.CRS) -> None:
    import numpy as np

    from ..vectors import write_points

    fields = {
        "hit": hit.astype(np.int32),
        "time": events.time.astype("datetime64[ms]"),
        "type": np.array(events.type_names, dtype=object)[events.type_code],
    }
    write_points(request.points_output or "", events.x, events.y, fields, crs, "events", "POINTS")


def _tell(values: dict[str, float | None], reporter: Reporter) -> None:
    if not values["events"]:
        reporter.warning("Not one event came in the period and the study area: rates are not defined.")
        return
    text = (
        f"Of {values['events']:,.0f} events {values['hits']:,.0f} ({values['hit_rate']:.1f} %) fell into the "
        f"flagged {values['area_share']:.2f} % of the area"
    )
    if values["pai"] is not None:
        text += f": PAI {values['pai']:.2f}"
    if values["pei"] is not None:
        text += f", PEI {values['pei']:.3f} (the best choice would have held {values['best_hits']:,.0f})"
    reporter.message(f"{text}.")
