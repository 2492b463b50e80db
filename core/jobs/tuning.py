# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that search for settings of a model."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs, part_of

if TYPE_CHECKING:
    from ..cube import Cube


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
    report_output: str | None = None
    trials_output: str | None = None
    cube_output: str | None = None


def tune(request: Tune, reporter: Reporter) -> Outputs:
    """Make the model file, and what else is asked for; none of it if the search is broken off."""
    import tempfile

    from ..atomic import atomic_path
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
    prepared.run(cube, study, request.trials, reporter, time_limit=request.time_limit)
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
            _Last(reporter, 85, 97),
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
    """Judge one combination of settings; a process of its own does no more than this.

    Attributes
    ----------
    judging : dict
        Fields of :class:`~..training.tune.Judging`.
    settings : dict
        Of the model, and ``coarsen``.
    """

    cube: str
    judging: dict[str, Any]
    settings: dict[str, Any]
    types: list[str] | None = None
    until: str | None = None


def run_trial(request: RunTrial, reporter: Reporter) -> Outputs:
    """Return the score, and what was seen on the way; nothing is written."""
    from ..training.tune import Judging, judge

    reporter.stage("Reading the cube", 0, 5)
    _, cube = _read(request.cube, request.types, request.until)
    reporter.stage("Trying", 5, 100)
    values: list[list[float]] = []

    def keep(part: int, step: int, value: float) -> bool:
        values.append([part, step, value])
        return False

    found = judge(cube, Judging(**request.judging), request.settings, reporter, keep)
    return {**dataclasses.asdict(found), "values": values}


def _read(path: str, types: list[str] | None, until: str | None) -> tuple[Cube, Cube]:
    """Return the cube of a file, and the part that may be looked at."""
    from ..cube import Cube

    whole = Cube.read(path)
    return whole, part_of(whole, types, until)


class _Last(Reporter):
    """Passes on what a job within a job reports, its stages as a part of the whole."""

    def __init__(self, whole: Reporter, start: float, end: float) -> None:
        super().__init__()
        self._whole, self._start, self._end = whole, start, end

    def check(self) -> None:
        self._whole.check()

    def stage(self, name: str, start: float, end: float) -> None:
        width = (self._end - self._start) / 100
        self._whole.stage(name, self._start + width * start, self._start + width * end)

    def progress(self, fraction: float) -> None:
        self._whole.progress(fraction)

    def emit(self, event: str, **fields: object) -> None:
        self._whole.emit(event, **fields)
