# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that compares models on past periods."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs, part_of, versions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..cube import Cube
    from ..evaluation.backtest import Answers, Entrant, Plan

# Without a first origin, the last quarter of the cube is forecast.
_TESTED_SHARE = 0.25


@dataclass(frozen=True)
class Backtest:
    """Let models forecast periods that are known already, and compare them.

    Attributes
    ----------
    output : path
        The report, HTML.
    models : list of str
        Keys of the registry of the models that are fitted here.
    settings : str
        Their settings, see :func:`~..models.settingstext.parse_settings`.
    model_files : list of path
        Models that are applied as they are.
    first_origin : str, optional
        Local time at which the first forecast begins; by default three quarters through the cube.
    until : str, optional
        Local time; later steps are not looked at.
    every : int, optional
        Steps from one origin to the next; by default the horizon.
    refit, refit_every, window, validation_share
        See :class:`~..evaluation.backtest.Plan`.
    area_shares, top_cells, level
        See :func:`~..evaluation.league.make_league`.
    placings : int
        Side of blocks of cells, such as 2, on which the models in `models` are tested once more, with the
        blocks laid in every way (2 x 2 of them): how far measures depend on where the grid was laid. 1: not
        at all.
    workers, scheduler
        Where models are fitted and forecast (see :func:`~..executors.executor`).
    table_output, origins_output, hits_output : path, optional
        GeoPackages: the league table, a row for each model and origin, and the cells that the recommended
        model flagged or missed at each origin.
    """

    cube: str
    output: str
    models: list[str] = field(default_factory=list)
    settings: str = ""
    model_files: list[str] = field(default_factory=list)
    types: list[str] | None = None
    first_origin: str | None = None
    until: str | None = None
    every: int | None = None
    horizon: int = 1
    refit: str = "once"
    refit_every: int = 1
    window: int = 0
    validation_share: float = 15.0
    area_shares: list[float] = field(default_factory=lambda: [1.0, 5.0, 10.0])
    top_cells: int = 30
    level: float = 95.0
    seed: int = 1
    placings: int = 1
    workers: int = 1
    scheduler: str | None = None
    table_output: str | None = None
    origins_output: str | None = None
    hits_output: str | None = None


def backtest(request: Backtest, reporter: Reporter) -> Outputs:
    """Make the report and the tables; nothing is written before everything is known."""
    from ..atomic import atomic_path
    from ..cube import Cube
    from ..evaluation.hitcells import write_hit_cells
    from ..evaluation.league import check_budgets, make_league
    from ..evaluation.page import page
    from ..evaluation.verdict import verdict
    from ..vectors import write_table

    began = time.perf_counter()
    reporter.stage("Reading the cube", 0, 3)
    cube = part_of(Cube.read(request.cube), request.types, request.until)
    plan = _plan(request, cube)
    entrants = _entrants(request)
    reporter.message(
        f"{len(plan.origins):,} forecasts of {plan.horizon:,} steps by each of {len(entrants)} models, from "
        f"{cube.axis.isoformat(plan.origins[0])[0]} on."
    )
    check_budgets(request.area_shares, request.top_cells)
    _check_placings(request, cube)
    end = 92.0 if request.placings == 1 else 40.0
    reporter.stage("Forecasting", 3, end)
    league = make_league(
        cube,
        plan,
        entrants,
        _answers(request, plan, entrants, reporter),
        area_shares=request.area_shares,
        top=request.top_cells,
        level=request.level / 100,
        seed=request.seed,
    )
    said = verdict(league)
    spread = _spread(request, cube, plan, entrants, reporter, (end, 92.0))
    reporter.stage("Writing the report", 93, 100)
    for standing in league.standings:
        hits = standing.hits.at(0).pooled()
        errors = standing.errors
        deviance = "" if errors is None else f"deviance {float(errors.pooled().poisson_deviance):.5f}, "
        reporter.message(
            f"{standing.name}: {deviance}{float(hits.rate):.1%} of the events in "
            f"{request.area_shares[0]:g} % of the area, PAI {float(hits.pai):.2f}."
        )
    reporter.message(f"{said.title} {said.text}")
    with ExitStack() as all_or_none:

        def place(path: str, parameter: str) -> Path:
            return all_or_none.enter_context(atomic_path(path, parameter))

        place(request.output, "OUTPUT").write_text(
            page(league, said, versions()["gridcast"], request.level / 100, spread), encoding="utf-8"
        )
        if request.table_output:
            write_table(place(request.table_output, "TABLE"), _fields(league.table()), "league", "TABLE")
        if request.origins_output:
            origins = _fields(league.origins_table())
            write_table(place(request.origins_output, "ORIGINS"), origins, "origins", "ORIGINS")
        if request.hits_output:
            write_hit_cells(place(request.hits_output, "HITS"), league, said.use)
    simple, other = league.best_simple, league.best_other
    return {
        "output": request.output,
        "table_output": request.table_output,
        "origins_output": request.origins_output,
        "hits_output": request.hits_output,
        "use": said.use,
        "verdict": f"{said.title} {said.text}",
        "gain": said.gain,
        "p_value": said.p_value,
        "best_simple": simple.name if simple else "",
        "best_network": other.name if other else "",
        "forecasts": len(plan.origins),
        "events": float(league.observed[..., cube.grid.valid].sum()),
        "seconds": time.perf_counter() - began,
    }


@dataclass(frozen=True)
class ForecastOrigins:
    """Let one model forecast some origins of a backtest; a task does no more than this.

    Attributes
    ----------
    output : path
        Gets what :meth:`~..evaluation.backtest.Answers.read` reads.
    entrant, plan : dict
        Values of :class:`~..evaluation.backtest.Entrant`, without its file, and of
        :class:`~..evaluation.backtest.Plan`.
    model_file : path, optional
        The file of the entrant.
    numbers : list of int
        Places of the origins in the plan.
    placing : list of int, optional
        Blocks of cells to forecast in place of cells, see :func:`~..coarsening.placed_cube`.
    """

    INPUT_FILES: ClassVar = ("cube", "model_file")

    cube: str
    output: str
    entrant: dict[str, Any]
    plan: dict[str, Any]
    numbers: list[int]
    types: list[str] | None = None
    until: str | None = None
    model_file: str | None = None
    placing: list[int] | None = None


def forecast_origins(request: ForecastOrigins, reporter: Reporter) -> Outputs:
    """Write the answers of a model."""
    from ..coarsening import placed_cube
    from ..cube import Cube
    from ..evaluation.backtest import Entrant, Piece, Plan

    cube = part_of(Cube.read(request.cube), request.types, request.until)
    if request.placing:
        cube = placed_cube(cube, *request.placing)
    entrant = Entrant(**request.entrant, file=request.model_file)
    plan = Plan(**{**request.plan, "origins": tuple(request.plan["origins"])})
    Piece(entrant, plan, tuple(request.numbers)).run(cube, reporter).write(request.output)
    return {"output": request.output}


def _answers(
    request: Backtest,
    plan: Plan,
    entrants: list[Entrant],
    reporter: Reporter,
    placing: list[int] | None = None,
) -> dict[str, Answers]:
    """Return what each model says; the pieces of the work are run wherever there is room."""
    from ..evaluation.backtest import Answers
    from ..executors import Task, run_tasks

    with tempfile.TemporaryDirectory(prefix="gridcast-backtest-") as name:
        folder = Path(name)
        tasks: dict[str, list[Task]] = {}
        for entrant in entrants:
            own = tasks.setdefault(entrant.name, [])
            for piece in plan.pieces(entrant):
                values = dataclasses.asdict(entrant)
                values.pop("file")
                piece_request = ForecastOrigins(
                    cube=request.cube,
                    output=str(folder / f"{len(tasks)}_{len(own)}.npz"),
                    entrant=values,
                    plan=dataclasses.asdict(plan),
                    numbers=list(piece.numbers),
                    types=request.types,
                    until=request.until,
                    model_file=entrant.file,
                    placing=placing,
                )
                own.append(Task(entrant.name, "forecast_origins", dataclasses.asdict(piece_request)))
        everything = [task for own in tasks.values() for task in own]
        run_tasks(everything, folder, reporter, workers=request.workers, scheduler=request.scheduler)
        for task in everything:
            if task.failure:
                raise task.failure
        return {
            name: Answers.joined([Answers.read(task.request["output"]) for task in own])
            for name, own in tasks.items()
        }


def _check_placings(request: Backtest, cube: Cube) -> None:
    most = max(1, min(cube.grid.shape) // 2)
    if not 1 <= request.placings <= most:
        raise InputError(
            f"Blocks may have 1 to {most} cells a side here.",
            hint="Give 1 for no further placings of the grid, or 2.",
            parameter="PLACINGS",
            value=request.placings,
        )


def _spread(
    request: Backtest,
    cube: Cube,
    plan: Plan,
    entrants: list[Entrant],
    reporter: Reporter,
    span: tuple[float, float],
) -> dict[str, list[float]]:
    """Return the PAI in the first share of the area, for each model that is fitted and each placing."""
    from ..coarsening import placed_cube
    from ..evaluation.league import observed
    from ..evaluation.metrics import area_hits

    fitted = [entrant for entrant in entrants if not entrant.file]
    side = request.placings
    found: dict[str, list[float]] = {entrant.name: [] for entrant in fitted}
    if side == 1 or not fitted:
        return {}
    width = (span[1] - span[0]) / side**2
    for number in range(side**2):
        placing = [side, number // side, number % side]
        reporter.stage(
            f"Placing {number + 1} of {side**2} of the grid",
            span[0] + number * width,
            span[0] + (number + 1) * width,
        )
        placed = placed_cube(cube, *placing)
        happened = observed(placed, plan).sum(axis=1)
        for name, given in _answers(request, plan, fitted, reporter, placing).items():
            hits = area_hits(happened, given.ranked, placed.grid.inside_area, request.area_shares[:1])
            found[name].append(float(hits.at(0).pooled().pai))
    for name, values in found.items():
        reporter.message(
            f"{name}: PAI {min(values):.2f} to {max(values):.2f} over {side**2} placings of cells that are "
            f"{side} times as wide."
        )
    return found


def _fields(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns of a table in the types of a file."""
    found = {}
    for name, column in table.items():
        values = column.to_numpy()
        if values.dtype.kind == "M":
            values = values.astype("datetime64[ms]")
        found[str(name)] = values.astype("int32") if values.dtype.kind == "i" else values
    return found


def _plan(request: Backtest, cube: Cube) -> Plan:
    from ..evaluation.backtest import Plan

    if request.first_origin:
        first = cube.index_of(request.first_origin, "FIRST_ORIGIN")
    else:
        first = math.ceil(len(cube) * (1 - _TESTED_SHARE))
    return Plan.rolling(
        first,
        len(cube),
        request.horizon if request.every is None else request.every,
        request.horizon,
        refit=request.refit,
        refit_every=request.refit_every,
        window=request.window,
        validation_share=request.validation_share,
    )


def _entrants(request: Backtest) -> list[Entrant]:
    """Return the models that take part; files are called by their file names."""
    from ..evaluation.backtest import Entrant, check_entrants
    from ..modelfile import load_model
    from ..models.registry import model_class
    from ..models.settingstext import parse_settings

    given = parse_settings(request.settings, tuple(request.models))
    found = []
    for key in request.models:
        kind = model_class(key)
        settings = given.get(key, {})
        if any(each.name == "seed" for each in dataclasses.fields(kind.Settings)):
            settings.setdefault("seed", request.seed)
        kind(**settings)  # a wrong value is told before the work begins
        found.append(Entrant(key, key, settings))
    for file in request.model_files:
        found.append(Entrant(Path(file).stem, load_model(file, "MODEL_FILES").model.key, file=file))
    check_entrants(found)
    return found
