# SPDX-License-Identifier: GPL-2.0-or-later
"""The report on a backtest as a page."""

from __future__ import annotations

from ..checks.wording import a_number, date, listed, percent
from ..report import Tile, render, style
from . import plots
from .league import League, Measure, Standing
from .verdict import Verdict, p_text


def page(
    league: League,
    verdict: Verdict,
    made: str,
    level: float = 0.95,
    spread: dict[str, list[float]] | None = None,
) -> str:
    """Return the report: one page of HTML that needs nothing else.

    `made` says by which version; `spread` has the PAI of models for each placing of a coarser grid.
    """
    columns = _columns(league)
    loss = "poisson_deviance" if league.standings[0].errors is not None else "missed"
    with style():
        pictures = {
            "standings": plots.standings(league, columns[0]),
            "curves": plots.curves(league),
            "course": plots.course(league),
            "calibration": plots.calibration(league),
            "maps": plots.maps(league, verdict.use),
            "spread": plots.spread(spread, "PAI") if spread else None,
        }
    return render(
        "backtest.html",
        league=league,
        verdict=verdict,
        made=made,
        about=_about(league),
        tiles=_tiles(league),
        columns=columns,
        table=[_row(each, columns, loss, verdict) for each in league.standings],
        level=percent(level),
        tested="Poisson deviance" if loss == "poisson_deviance" else "events missed",
        shares=[f"{share:g} %" for share in league.area_shares],
        hits=[_hits(league, each, verdict) for each in league.standings],
        pictures=pictures,
        placings=len(next(iter(spread.values()))) if spread else 0,
        method=_method(league),
    )


def _columns(league: League) -> list[Measure]:
    keys = ["poisson_deviance", "mse", "auc", f"pai_{league.area_shares[0]:g}".replace(".", "_")]
    there = {key for standing in league.standings for key in standing.values}
    return [measure for measure in league.measures if measure.key in keys and measure.key in there]


def _row(standing: Standing, columns: list[Measure], loss: str, verdict: Verdict) -> dict[str, object]:
    cells = []
    for measure in columns:
        interval = standing.values.get(measure.key)
        cells.append(
            {"value": "–", "interval": ""}
            if interval is None
            else {
                "value": f"{float(interval.estimate):.4g}",
                "interval": f"{float(interval.low):.4g} to {float(interval.high):.4g}",
            }
        )
    test = standing.against.get(loss)
    return {
        "name": standing.name,
        "simple": standing.simple,
        "use": standing.name == verdict.use,
        "cells": cells,
        "p": p_text(test.p_value).removeprefix("= ") if test else "–",
    }


def _hits(league: League, standing: Standing, verdict: Verdict) -> dict[str, object]:
    cells = []
    for number in range(len(league.area_shares)):
        total = standing.hits.at(number).pooled()
        cells.append(
            {
                "hits": f"{total.hits:,.0f}",
                "rate": percent(float(total.rate)),
                "pai": f"{float(total.pai):.2f}",
                "pei": f"{float(total.pei):.2f}",
            }
        )
    return {"name": standing.name, "use": standing.name == verdict.use, "cells": cells}


def _about(league: League) -> str:
    cube, origins = league.cube, league.plan.origins
    days = cube.axis.local_starts.tz_localize(None).to_numpy()
    first, last = days[origins[0]], days[origins[-1] + league.plan.horizon - 1]
    kinds = listed(cube.types) if len(cube.types) <= 6 else a_number(len(cube.types), "type")
    return (
        f"{kinds}; {date(first)} to {date(last)}, "
        f"{int(cube.grid.valid.sum()):,} cells, steps of one {cube.axis.unit}, by the clock of "
        f"{cube.axis.time_zone}."
    )


def _tiles(league: League) -> list[Tile]:
    plan = league.plan
    events = float(league.observed[..., league.cube.grid.valid].sum())
    return [
        Tile(f"{len(plan.origins):,}", "forecasts of each model"),
        Tile(a_number(plan.horizon, league.cube.axis.unit), "ahead each"),
        Tile(f"{events:,.0f}", "events to be forecast"),
    ]


def _method(league: League) -> list[tuple[str, str]]:
    plan, unit = league.plan, league.cube.axis.unit
    first = league.cube.axis.isoformat(plan.origins[0])[0]
    group = "every forecast" if plan.refit_every == 1 else f"every {plan.refit_every} forecasts"
    learned = {
        "once": f"Each model was fitted once, on what came before {first[:16]}",
        "anew": f"Each model was fitted from the start before {group}",
        "warm": f"Each model was fitted before {first[:16]}, and went on learning before {group}",
    }[plan.refit]
    span = "all steps before it" if not plan.window else f"the {plan.window:,} steps before it"
    return [
        (
            "What a forecast knows",
            "The events before its origin, and nothing after it: the cube is cut there before a model sees "
            "it.",
        ),
        (
            "What was learned",
            f"{learned}, from {span}; the last {plan.validation_share:g} % of them decided when training "
            "stops. Model files were applied as they are.",
        ),
        (
            "Hits",
            "For each origin the area is flagged once for the whole horizon, densest forecast first; of "
            "cells that a forecast does not tell apart those with the fewest events are taken. Hits, events "
            "and areas are added up over the origins before they are divided.",
        ),
        (
            "PAI",
            "Prediction accuracy index: share of the events found over share of the area flagged; 1 is "
            "chance.",
        ),
        ("PEI", "Prediction efficiency index: events found over the most that as much area could have held."),
        (
            "Errors",
            f"Poisson deviance and squared error are means over all cells of the study area and each {unit}.",
        ),
        (
            "Intervals and p",
            "Intervals are from a block bootstrap over the origins, p values from the test of Diebold and "
            "Mariano with a variance that allows for the likeness of neighbouring origins. The best simple "
            "method was chosen on the same periods, which makes it harder to beat.",
        ),
    ]
