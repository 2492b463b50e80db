# SPDX-License-Identifier: GPL-2.0-or-later
"""The league table of a backtest: every measure with its interval, and who beats the simple methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..cube import Cube
from ..errors import InputError
from ..models.registry import is_network
from .backtest import Answers, Entrant, Plan
from .metrics import CountErrors, Hits, area_hits, count_errors
from .probabilities import ProbabilityErrors, probability_errors
from .ranking import Ranking, TopCells, ranking, top_cells
from .significance import DieboldMariano, Interval, block_bootstrap, diebold_mariano

#: Chance at which a difference counts as one.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measure:
    """A column of the table.

    Attributes
    ----------
    key, label : str
        Of fields and of tables for people.
    part : str
        Field of :class:`Standing` that holds its sums.
    of : callable
        Makes the measure of pooled sums.
    higher_is_better : bool
    """

    key: str
    label: str
    part: str
    of: Callable[[Any], Any]
    higher_is_better: bool


def measures(area_shares: Sequence[float], top: int) -> list[Measure]:
    """Return all measures for these budgets of area (percent) and number of cells."""
    found = [
        Measure("poisson_deviance", "Poisson deviance", "errors", lambda s: s.poisson_deviance, False),
        Measure("mse", "mean squared error", "errors", lambda s: s.mse, False),
        Measure("mae", "mean absolute error", "errors", lambda s: s.mae, False),
        Measure("brier", "Brier score", "probabilities", lambda s: s.brier, False),
        Measure("log_loss", "log loss", "probabilities", lambda s: s.log_loss, False),
        Measure("auc", "AUC within a step", "ranking", lambda s: s.auc, True),
        Measure("average_precision", "average precision", "ranking", lambda s: s.average_precision, True),
        Measure(f"ndcg_{top}", f"NDCG of {top} cells", "top", lambda s: s.at(0).ndcg, True),
        Measure(f"precision_{top}", f"precision of {top} cells", "top", lambda s: s.at(0).precision, True),
    ]
    for number, share in enumerate(area_shares):
        for key, label in (("rate", "hit rate"), ("pai", "PAI"), ("pei", "PEI")):
            name = f"{'hit_rate' if key == 'rate' else key}_{share:g}".replace(".", "_")
            found.append(
                Measure(name, f"{label} in {share:g} % of the area", "hits", _of_budget(key, number), True)
            )
    return found


def _of_budget(key: str, number: int) -> Callable[[Any], Any]:
    return lambda sums: getattr(sums.at(number), key)


@dataclass(frozen=True, eq=False)
class Standing:
    """How one model did; sums have one entry for each origin.

    Attributes
    ----------
    entrant : Entrant
    title : str
        Name of the kind of model.
    simple : bool
        Whether it is one of the simple methods that a network has to beat.
    parameters : int
        Number of trained weights.
    errors, probabilities
        None for classifiers of hot cells, whose values are probabilities of something else.
    ranking, top : Ranking, TopCells
        Of the cells within each step.
    hits : Hits
        `(origins, budgets)`: areas are flagged once for the whole horizon.
    values : dict
        Each measure with its interval, by key; only those that are defined.
    against : dict
        Diebold-Mariano tests against the best simple method, by loss: ``poisson_deviance``, ``mse`` and
        ``missed`` (events outside the first budget).
    """

    entrant: Entrant
    title: str
    simple: bool
    parameters: int
    errors: CountErrors | None
    probabilities: ProbabilityErrors | None
    ranking: Ranking
    top: TopCells
    hits: Hits
    values: dict[str, Interval]
    against: dict[str, DieboldMariano]

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.entrant.name

    def loss(self, name: str) -> np.ndarray | None:
        """Return the loss of each origin, if it is defined for this model."""
        if name == "missed":
            first = self.hits.at(0)
            return first.events - first.hits
        return None if self.errors is None else getattr(self.errors, name)


#: Losses that are tested.
LOSSES = ("poisson_deviance", "mse", "missed")


@dataclass(frozen=True, eq=False)
class League:
    """Models in the order of their Poisson deviance, those without one by events missed.

    Attributes
    ----------
    cube : Cube
    plan : Plan
    area_shares : tuple of float
        Budgets of area in percent; the first one decides where there is no deviance.
    measures : list of Measure
    standings : list of Standing
        Best first.
    answers : dict
        What each model forecast, by name.
    """

    cube: Cube
    plan: Plan
    area_shares: tuple[float, ...]
    measures: list[Measure]
    standings: list[Standing]
    answers: dict[str, Answers]

    @cached_property
    def observed(self) -> np.ndarray:
        """What happened, float32 `(origins, horizon, y, x)`."""
        return observed(self.cube, self.plan)

    @property
    def best_simple(self) -> Standing | None:
        """The simple method that others are tested against."""
        return next((standing for standing in self.standings if standing.simple), None)

    @property
    def best_other(self) -> Standing | None:
        """The best model that is no simple method."""
        return next((standing for standing in self.standings if not standing.simple), None)

    def standing(self, name: str) -> Standing:
        """Return how the model with this name did."""
        return next(standing for standing in self.standings if standing.name == name)

    def table(self) -> pd.DataFrame:
        """Return a row for each model: estimates, the ends of their intervals, and p values."""
        rows = []
        for place, standing in enumerate(self.standings):
            row: dict[str, Any] = {
                "place": place + 1,
                "model": standing.name,
                "kind": standing.title,
                "simple": standing.simple,
                "weights": standing.parameters,
            }
            for measure in self.measures:
                interval = standing.values.get(measure.key)
                for suffix, part in (("", "estimate"), ("_low", "low"), ("_high", "high")):
                    row[measure.key + suffix] = float(getattr(interval, part)) if interval else math.nan
            for loss in LOSSES:
                test = standing.against.get(loss)
                row[f"p_{loss}"] = test.p_value if test else math.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def origins_table(self) -> pd.DataFrame:
        """Return a row for each model and origin."""
        starts, ends = self.periods
        parts = []
        for standing in self.standings:
            columns: dict[str, Any] = {
                "model": standing.name,
                "origin": np.arange(1, len(starts) + 1),
                "start": starts,
                "end": ends,
                "events": standing.hits.at(0).events,
            }
            expected = self.answers[standing.name].expected
            columns["expected"] = np.nan if expected is None else np.nansum(expected, axis=(1, 2, 3))
            for key in ("poisson_deviance", "mse"):
                columns[key] = math.nan if standing.errors is None else getattr(standing.errors, key)
            for number, share in enumerate(self.area_shares):
                hits = standing.hits.at(number)
                name = f"{share:g}".replace(".", "_")
                columns |= {f"hits_{name}": hits.hits, f"pai_{name}": hits.pai, f"pei_{name}": hits.pei}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    @property
    def periods(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of what is forecast at each origin, UTC."""
        origins = np.array(self.plan.origins)
        edges = self.cube.axis.edges
        return edges[origins], edges[origins + self.plan.horizon]


def observed(cube: Cube, plan: Plan) -> np.ndarray:
    """Return what happened, float32 `(origins, horizon, y, x)`."""
    return np.stack([cube.total[origin : origin + plan.horizon] for origin in plan.origins])


def check_budgets(area_shares: Sequence[float], top: int) -> None:
    """Raise :class:`InputError` for a share of the area that is none, or no cell to look at."""
    for share in area_shares:
        if not 0 < share <= 100:
            raise InputError(
                "A share of the area lies above 0 and at most at 100 percent.",
                hint="Give shares such as 1, 5, 10.",
                parameter="AREA_SHARES",
                value=share,
            )
    if not area_shares or top < 1:
        raise InputError(
            "There is no share of the area, or no number of cells, to judge by.",
            hint="Give AREA_SHARES such as 1, 5, 10 and TOP_CELLS such as 30.",
            parameter="AREA_SHARES" if not area_shares else "TOP_CELLS",
            value=top if area_shares else None,
        )


def make_league(
    cube: Cube,
    plan: Plan,
    entrants: Sequence[Entrant],
    answers: Mapping[str, Answers],
    *,
    area_shares: Sequence[float] = (1.0, 5.0, 10.0),
    top: int = 30,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 1,
) -> League:
    """Score the answers of all models on the same cells and steps.

    Errors are those of each cell and step. Hits are counted once for each origin: the area is flagged for
    the whole horizon by the sum of its forecasts, as a plan for patrols is, and events of the whole horizon
    count.

    Parameters
    ----------
    area_shares : sequence of float
        Percent of the study area that may be flagged.
    top : int
        Number of cells for NDCG and precision, with an event in the step.
    level, replicates, seed
        See :func:`~.significance.block_bootstrap`.

    Raises
    ------
    InputError
        A share that is none, or no cell to look at.
    """
    check_budgets(area_shares, top)
    happened = observed(cube, plan)
    columns = measures(area_shares, top)
    every = plan.origins[1] - plan.origins[0] if len(plan.origins) > 1 else 1
    drawing: dict[str, Any] = {
        "horizon": max(1, math.ceil(plan.horizon / every)),
        "level": level,
        "replicates": replicates,
        "seed": seed,
    }
    standings = []
    for entrant in entrants:
        sums = _sums(cube, happened, answers[entrant.name], area_shares, top)
        values = {
            measure.key: block_bootstrap(measure.of, sums[measure.part], **drawing)
            for measure in columns
            if sums[measure.part] is not None
        }
        given = answers[entrant.name]
        simple = not is_network(entrant.model)
        standings.append(
            Standing(entrant, given.title, simple, given.parameters, **sums, values=values, against={})
        )
    standings.sort(key=_rank)
    league = League(cube, plan, tuple(area_shares), columns, standings, dict(answers))
    for standing in standings:
        standing.against.update(_tests(standing, league.best_simple, drawing["horizon"]))
    return league


def _rank(standing: Standing) -> tuple[bool, float]:
    missed = standing.loss("missed")
    assert missed is not None
    if standing.errors is None:
        return True, float(missed.sum())
    return False, float(standing.errors.pooled().poisson_deviance)


def _sums(
    cube: Cube, happened: np.ndarray, given: Answers, area_shares: Sequence[float], top: int
) -> dict[str, Any]:
    """Return the sums of each origin by field of :class:`Standing`."""
    grid, horizon = cube.grid, happened.shape[1]
    valid = grid.valid

    def steps(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *grid.shape)

    counts = steps(happened)
    ranked = steps(given.values)
    hits = area_hits(happened.sum(axis=1), given.ranked, grid.inside_area, area_shares)
    found: dict[str, Any] = {
        "errors": None,
        "probabilities": None,
        "ranking": ranking(counts > 0, ranked, valid).grouped(horizon),
        "top": top_cells(counts, ranked, valid, [top]).grouped(horizon),
        "hits": hits,
    }
    if given.expected is not None and given.probability is not None:
        found["errors"] = count_errors(counts, steps(given.expected), valid).grouped(horizon)
        found["probabilities"] = probability_errors(counts > 0, steps(given.probability), valid).grouped(
            horizon
        )
    return found


def _tests(standing: Standing, simple: Standing | None, horizon: int) -> dict[str, DieboldMariano]:
    """Return the tests of a model against the best simple method; negative statistics: it is better."""
    if simple is None or simple is standing or len(standing.hits) < 2:
        return {}
    tests = {}
    for name in LOSSES:
        own, other = standing.loss(name), simple.loss(name)
        if own is not None and other is not None:
            tests[name] = diebold_mariano(own, other, horizon=horizon)
    return tests
