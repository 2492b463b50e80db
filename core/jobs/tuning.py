# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that search for settings of a model."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import EnvironmentFault, InputError
from ..reporter import PartOf, Reporter
from .common import Outputs, part_of

if TYPE_CHECKING:
    from ..cube import Cube
    from ..executors import Run
    from ..training.study import Study
    from ..training.tune import RunTrials, Search


@dataclass(frozen=True)
class Tune:
    """Search for settings of a model of the registry on a cube, and train it with the best ones.

    Attributes
    ----------
    model, ranges, objective, area_share, validation_share, folds, seed
        See :class:`~..training.tune.Search`.
    types, until
        Types of event, and the time up to which steps are used; later ones are not looked at.
    trials : int
        In all, those of a study that is continued included.
    time_limit : float, optional
        Minutes after which no further trial is begun.
    study : path, optional
        File that keeps the trials. If it is there, the search goes on after them.
    report_output, trials_output : path, optional
        A page of HTML; the trials as a GeoPackage table without geometry.
    workers : int
        Trials that are chosen and run at the same time.
    scheduler : str, optional
        Cluster that runs them in place of this computer (see :func:`~..executors.executor`).
    cube_output : path, optional
        The cube with the best size of cells; needed if larger cells are tried.
    """

    cube: str
    output: str
    model: str
    types: list[str] | None = None
    until: str | None = None
    validation_share: float = 15.0
    folds: int = 1
    trials: int = 20
    time_limit: float | None = None
    objective: str = "auto"
    area_share: float = 5.0
    ranges: str = ""
    seed: int = 1
    study: str | None = None
    workers: int = 1
    scheduler: str | None = None
    report_output: str | None = None
    trials_output: str | None = None
    cube_output: str | None = None


def tune(request: Tune, reporter: Reporter) -> Outputs:
    """Make the model file, and what else is asked for; none of it if the search is broken off."""
    from ..atomic import atomic_path
    from ..executors import executor
    from ..report.tuning import page
    from ..training.outcome import Outcome
    from ..training.ranges import COARSEN
    from ..training.tune import Search
    from ..vectors import geopackage
    from .training import Train, train

    if request.trials < 1:
        raise InputError(
            "There must be at least one trial.",
            hint="20 is a good start.",
            parameter="TRIALS",
            value=request.trials,
        )
    if request.time_limit is not None and request.time_limit <= 0:
        raise InputError(
            "The time limit must be above 0 minutes.",
            hint="Leave it empty for no limit.",
            parameter="TIME_LIMIT",
            value=request.time_limit,
        )
    if request.workers < 1:
        raise InputError(
            "There must be at least one trial at a time.",
            hint="Give 1, or as many as the computer has memory for.",
            parameter="WORKERS",
            value=request.workers,
        )
    reporter.stage("Reading the cube", 0, 2)
    whole, cube = _read(request.cube, request.types, request.until)
    search = Search(
        request.model,
        request.ranges,
        request.objective,
        request.area_share,
        request.validation_share,
        request.folds,
        request.seed,
    )
    prepared = search.prepare(cube)
    blocks = prepared.ranges.get(COARSEN)
    if blocks is not None and blocks.ends != (1,) and not request.cube_output:
        raise InputError(
            "A model for larger cells needs a cube of such cells to forecast from.",
            hint="Name a file for it, or leave coarsen and cell_size out of RANGES.",
            parameter="CUBE_OUTPUT",
            value="not set",
        )
    study = prepared.open_study(cube, request.study)
    reporter.stage("Searching", 2, 85)
    with (
        tempfile.TemporaryDirectory(prefix="gridcast-trials-") as folder,
        executor(workers=request.workers, scheduler=request.scheduler) as run,
    ):
        prepared.run(
            study,
            request.trials,
            _elsewhere(request, search, study, run, Path(folder)),
            reporter,
            at_once=request.workers,
            time_limit=request.time_limit,
        )
    outcome = Outcome.of(prepared, study)
    reporter.message(outcome.verdict)
    reporter.message(f"Settings: {outcome.settings}.")
    factor = outcome.best.settings.get(COARSEN, 1)
    with tempfile.TemporaryDirectory(prefix="gridcast-tune-") as folder, ExitStack() as all_or_none:
        source = request.cube
        if request.cube_output:
            part = all_or_none.enter_context(atomic_path(request.cube_output, "CUBE_OUTPUT"))
            whole.coarsened(factor).write(part)
            source = str(part)
        reporter.stage("Training with the best settings", 85, 97)
        trained = train(
            Train(
                source,
                str(Path(folder) / "model.gridcast"),
                request.model,
                types=request.types,
                until=request.until,
                validation_share=request.validation_share,
                settings=prepared.model_settings(outcome.best.settings),
            ),
            PartOf(reporter, 0.0, 1.0, stages=True),
            {"tuning": outcome.record()},
        )
        reporter.stage("Writing", 97, 100)
        if request.report_output:
            part = all_or_none.enter_context(atomic_path(request.report_output, "REPORT"))
            part.write_text(page(outcome, cube, trained), encoding="utf-8", newline="\n")
        if request.trials_output:
            part = all_or_none.enter_context(atomic_path(request.trials_output, "TRIALS_OUTPUT"))
            part.write_bytes(geopackage(None, outcome.table(), None, "trials"))
        part = all_or_none.enter_context(atomic_path(request.output))
        part.write_bytes((Path(folder) / "model.gridcast").read_bytes())
        reporter.check()
    return {
        "output": request.output,
        "report_output": request.report_output,
        "trials_output": request.trials_output,
        "cube_output": request.cube_output,
        "verdict": outcome.verdict,
        "settings": outcome.settings,
        **outcome.numbers(),
    }


@dataclass(frozen=True)
class RunTrial:
    """Judge one combination of settings; a task does no more than this.

    Attributes
    ----------
    search : dict
        Values of :class:`~..training.tune.Search`.
    trials : list of dict
        Values of the trials that came before: they tell when to give up.
    number : int
        Of the trial.
    settings : dict
        What is tried.
    """

    INPUT_FILES: ClassVar = ("cube",)

    cube: str
    search: dict[str, Any]
    trials: list[dict[str, Any]]
    number: int
    settings: dict[str, Any]
    types: list[str] | None = None
    until: str | None = None


def run_trial(request: RunTrial, reporter: Reporter) -> Outputs:
    """Return the values of the trial; nothing is written."""
    from ..training.study import Trial, read_settings
    from ..training.tune import Search

    reporter.stage("Reading the cube", 0, 5)
    _, cube = _read(request.cube, request.types, request.until)
    reporter.stage("Trying", 5, 100)
    prepared = Search(**request.search).prepare(cube)
    study = prepared.open_study(cube, None)
    study.trials = [Trial.of(values) for values in request.trials]
    trial = prepared.try_out(
        cube,
        study,
        request.number,
        read_settings(request.settings),
        PartOf(reporter, 0.0, 1.0, quiet=True),
    )
    return dataclasses.asdict(trial)


def _elsewhere(request: Tune, search: Search, study: Study, run: Run, folder: Path) -> RunTrials:
    """Return what runs trials as tasks."""
    from ..executors import Task
    from ..training.study import FAILED, Trial

    def run_trials(number: int, chosen: list[dict[str, Any]], reporter: Reporter) -> list[Trial]:
        tasks = [
            Task(
                f"Trial {each + 1}",
                "run_trial",
                dataclasses.asdict(
                    RunTrial(
                        cube=request.cube,
                        search=dataclasses.asdict(search),
                        trials=[dataclasses.asdict(trial) for trial in study.trials],
                        number=each,
                        settings=settings,
                        types=request.types,
                        until=request.until,
                    )
                ),
            )
            for each, settings in enumerate(chosen, number)
        ]
        own = folder / f"trials_{number}"
        own.mkdir()
        run(tasks, own, reporter)
        trials = []
        for each, (task, settings) in enumerate(zip(tasks, chosen), number):
            if isinstance(task.failure, EnvironmentFault):
                raise task.failure
            trials.append(
                Trial(each, FAILED, settings, error=task.error)
                if task.outputs is None
                else Trial.of(task.outputs)
            )
        return trials

    return run_trials


def _read(path: str, types: list[str] | None, until: str | None) -> tuple[Cube, Cube]:
    """Return the cube of a file, and the part that may be looked at."""
    from ..cube import Cube

    whole = Cube.read(path)
    return whole, part_of(whole, types, until)
