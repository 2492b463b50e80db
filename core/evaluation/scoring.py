# SPDX-License-Identifier: GPL-2.0-or-later
"""A forecast scored against the events that came: maps of cells, and the table of measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..events import EventTable, add_counts, check_readable
from ..forecast import Forecast
from ..grid import Grid
from ..labels import LabelRule
from ..reporter import Reporter
from ..timesteps import TimeAxis
from .metrics import Hits, area_hits, count_errors, flag_cells
from .nij import SQUARE_MILE
from .probabilities import bin_edges, probability_errors, reliability
from .ranking import ranking

#: Units of a budget of area, in square metres; percent of the study area has none.
BUDGET_UNITS = {"percent": None, "square-kilometre": 1e6, "square-mile": SQUARE_MILE, "hectare": 1e4}

#: Measures of a budget of area, and what they say; shares are percent.
HIT_MEASURES = {
    "hits": "events in the flagged area (n)",
    "events": "events in the study area (N)",
    "hit_rate": "percent of the events that fell into the flagged area",
    "area_km2": "flagged area in square kilometres (a), added up over the steps",
    "area_share": "percent of the study area that was flagged",
    "pai": "prediction accuracy index (n / N) / (a / A); 1 is chance",
    "best_hits": "most events that as much area could have held (n*)",
    "pei": "prediction efficiency index n / n*",
    "rri": "events forecast for the flagged area over those that came",
}

#: Measures of all cells, and what they say.
CELL_MEASURES = {
    "mse": "mean squared error of expected events",
    "rmse": "root of the mean squared error",
    "mae": "mean absolute error of expected events",
    "poisson_deviance": "mean Poisson deviance of expected events",
    "brier": "Brier score: mean squared error of the probability",
    "log_loss": "mean negative log likelihood of the probability",
    "calibration_error": "how far probabilities are off, on the mean of ten bins",
    "auc": "chance that of two cells of a step the one with an event has the higher forecast; 0.5 is chance",
    "average_precision": "mean over steps of the average precision",
}

# Named in a message at most.
_FEW = 8


@dataclass(frozen=True, eq=False)
class Score:
    """How a forecast did.

    Attributes
    ----------
    hits : Hits
        `(budgets,)`, pooled over the steps.
    budgets : numpy.ndarray
        float64 `(budgets,)`: percent of the study area that were allowed, NaN where there was no limit.
    cells : dict
        Values of :data:`CELL_MEASURES`, as far as they are defined.
    """

    hits: Hits
    budgets: np.ndarray
    cells: dict[str, float] = field(default_factory=dict)

    def values(self, index: int = 0) -> dict[str, float | None]:
        """Return the :data:`HIT_MEASURES` of one budget; None where one is not defined."""
        hits = self.hits.at(index)
        found = {
            "hits": hits.hits,
            "events": hits.events,
            "hit_rate": 100 * hits.rate,
            "area_km2": hits.flagged_area / 1e6,
            "area_share": 100 * hits.area_share,
            "pai": hits.pai,
            "best_hits": hits.best,
            "pei": hits.pei,
            "rri": hits.rri,
        }
        return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}

    def table(self) -> dict[str, np.ndarray]:
        """Return the columns of a table: measure, budget (percent of the area), value, and meaning.

        Without a budget, and where a measure is not defined, there is NaN.
        """
        rows = [
            (measure, budget, np.nan if value is None else value, HIT_MEASURES[measure])
            for index, budget in enumerate(self.budgets)
            for measure, value in self.values(index).items()
        ]
        rows += [(name, np.nan, value, CELL_MEASURES[name]) for name, value in self.cells.items()]
        measures, budgets, values, meanings = zip(*rows)
        return {
            "measure": np.array(measures, dtype=object),
            "budget": np.array(budgets, np.float64),
            "value": np.array(values, np.float64),
            "meaning": np.array(meanings, dtype=object),
        }


def shares_of(budgets: Sequence[float], unit: str, total_area: float) -> np.ndarray:
    """Return budgets of area as percent of the study area.

    Raises
    ------
    InputError
        Another unit, a budget of nothing, or one of more than the study area.
    """
    if unit not in BUDGET_UNITS:
        raise InputError(
            "Unknown unit.",
            hint=f"Choose one of {', '.join(BUDGET_UNITS)}.",
            parameter="BUDGET_UNIT",
            value=unit,
        )
    size = BUDGET_UNITS[unit]
    shares = np.asarray(budgets, np.float64) * (1 if size is None else 100 * size / total_area)
    for budget, share in zip(budgets, shares):
        if not 0 < share <= 100 * (1 + 1e-9):
            raise InputError(
                f"A budget must lie above 0 and within the study area of {total_area / 1e6:,.2f} square "
                "kilometres.",
                hint=f"BUDGET_UNIT is {unit}: choose another one, or another budget.",
                parameter="BUDGETS",
                value=f"{budget:g}",
            )
    return shares


def events_between(
    blocks: Iterable[EventTable],
    start: np.datetime64,
    end: np.datetime64,
    types: Sequence[str] | None,
    reporter: Reporter,
) -> EventTable:
    """Return the events of a period, of some types or all.

    Parameters
    ----------
    blocks : iterable of EventTable
        As :meth:`~..eventfiles.EventSource.blocks` yields them.
    start, end : numpy.datetime64
        UTC; events at `end` do not count.

    Raises
    ------
    InputError
        No row, not one date that can be read, or a type that no event has.
    """
    kept: list[EventTable] = []
    names: set[str] = set()
    read = readable = 0
    dropped: dict[str, int] = {}
    examples: tuple[str, ...] = ()
    last = np.datetime64("NaT", "s")
    for block in blocks:
        reporter.check()
        read, readable = read + block.rows_read, readable + len(block)
        dropped = add_counts(dropped, block.dropped)
        examples = (examples + block.bad_examples)[:3]
        names.update(block.type_names)
        if len(block):
            last = np.fmax(last, block.time.max())
        kept.append(block.selected((block.time >= start) & (block.time < end)))
    check_readable(read, dropped, readable, examples)
    _check_types(types, sorted(names))
    if sum(dropped.values()):
        reasons = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in dropped.items() if n)
        tell = reporter.warning if readable < 0.9 * read else reporter.message
        tell(f"{readable:,} of {read:,} events have a place and a date; left out: {reasons}.")
    if last < end - np.timedelta64(1, "D"):
        reporter.warning(
            f"The last event is of {last} UTC, before the period ends: what came after it may be missing."
        )
    table = EventTable.concatenated(kept)
    if types:
        table = table.selected(np.isin(np.array(table.type_names)[table.type_code], list(types)))
    return table


def _check_types(types: Sequence[str] | None, names: Sequence[str]) -> None:
    unknown = [name for name in types or () if name not in names]
    if unknown:
        more = f" and {len(names) - _FEW:,} more" if len(names) > _FEW else ""
        raise InputError(
            f"No event is of the type {', '.join(map(repr, unknown))}.",
            hint=f"Choose TYPE_FIELD, and types that it has: {', '.join(names[:_FEW])}{more}.",
            parameter="TYPES",
            value=", ".join(types or ()),
        )


def count_on_grid(events: EventTable, grid: Grid, axis: TimeAxis) -> tuple[np.ndarray, np.ndarray]:
    """Count events in cells and steps.

    Returns
    -------
    counts : numpy.ndarray
        float64 `(steps, y, x)`, 0 outside the study area.
    places : numpy.ndarray
        int `(3, events)`: step, row and column of each event; -1 for those that do not count.
    """
    step = axis.locate(events.time)
    row, column = grid.locate(events.x, events.y)
    counted = (step >= 0) & (row >= 0)
    counted[counted] = grid.valid[row[counted], column[counted]]
    counts = np.zeros((len(axis), *grid.shape))
    np.add.at(counts, (step[counted], row[counted], column[counted]), 1)
    return counts, np.where(counted, [step, row, column], -1)


def counts_of_cube(cube: Cube, forecast: Forecast) -> np.ndarray:
    """Return the events `(steps, y, x)` that a cube holds for the steps of a forecast.

    Raises
    ------
    InputError
        The cube has another grid, or not all the steps.
    """
    if cube.grid.fingerprint != forecast.grid.fingerprint:
        raise InputError(
            "The cube has another grid than the forecast.",
            hint="Choose a cube on the grid that the forecast was made on, or give the events as INPUT.",
            parameter="CUBE",
        )
    start = cube.start_of(forecast.axis)
    if start is None:
        raise InputError(
            f"The cube does not hold the forecast's period {forecast.intervals[0][0]} to "
            f"{forecast.intervals[-1][1]}.",
            hint="Append the events that came since, or set START and END to a part that it holds.",
            parameter="CUBE",
        )
    return cube.total[start : start + len(forecast.axis)]


def score_map(
    forecast: Forecast, observed: np.ndarray, shares: Sequence[float], each_step: bool = True
) -> tuple[Score, np.ndarray, Hits]:
    """Score a forecast.

    Parameters
    ----------
    observed : numpy.ndarray
        `(steps, y, x)` events in the steps of the forecast.
    shares : sequence of float
        Budgets in percent of the study area.
    each_step : bool
        Flag cells anew in each step and pool the steps, or once for the whole period.

    Returns
    -------
    score : Score
        Pooled over the steps.
    flagged : numpy.ndarray
        bool `(steps, y, x)`: the cells of the first budget; the same in each step unless `each_step`.
    hits : Hits
        `(steps, budgets)`, with one step unless `each_step`.
    """
    area, valid = forecast.grid.inside_area, forecast.grid.valid
    values, happened = forecast.expected, observed
    if not each_step:
        values, happened = forecast.over_all_steps()[None], observed.sum(axis=0, keepdims=True)
    hits = area_hits(happened, values, area, shares)
    flagged = np.array([flag_cells(v, area, shares[0], h) for v, h in zip(values, happened)])
    if forecast.quantity != "events":
        hits = replace(hits, expected=np.full_like(hits.hits, np.nan))
    score = Score(
        hits.pooled(), np.asarray(shares, np.float64), _cell_measures(forecast, values, happened, observed)
    )
    return score, np.broadcast_to(flagged, (len(observed), *valid.shape)), hits


def _cell_measures(
    forecast: Forecast, values: np.ndarray, happened: np.ndarray, observed: np.ndarray
) -> dict[str, float]:
    """Return the measures of all cells that are defined for the quantity that is forecast."""
    valid = forecast.grid.valid
    outcome = happened > 0
    if forecast.quantity == "hot":
        outcome = LabelRule(forecast.hot["rule"], forecast.hot["value"]).hot(observed, valid)
        if len(outcome) != len(values):
            outcome = np.any(outcome, axis=0)[None]
    order = ranking(outcome, values, valid).pooled()
    found: dict[str, np.ndarray] = {"auc": order.auc, "average_precision": order.average_precision}
    if forecast.quantity == "events":
        errors = count_errors(happened, values, valid).pooled()
        found |= {name: getattr(errors, name) for name in ("mse", "rmse", "mae", "poisson_deviance")}
    else:
        wrong = probability_errors(outcome, values, valid).pooled()
        bins = reliability(outcome, values, valid, bin_edges(values, valid)).pooled()
        found |= {
            "brier": wrong.brier,
            "log_loss": wrong.log_loss,
            "calibration_error": bins.calibration_error,
        }
    return {name: float(found[name]) for name in CELL_MEASURES if name in found and np.isfinite(found[name])}
