# SPDX-License-Identifier: GPL-2.0-or-later
"""The named jobs of the worker: a frozen request and a function each, a thin door on the library.

Field names are the parameter keys of the Processing algorithms in lower case.
Imports are inside the functions, so that a job loads only what it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..errors import GridcastError
from ..reporter import Reporter
from . import backtests, checks, covariates, cubes, evaluation, forecasts, grids, setup, training, tuning
from .common import Outputs

#: Every job by name: its request and its function.
JOBS: dict[str, tuple[type, Callable[[Any, Reporter], Outputs]]] = {
    "build_grid": (grids.BuildGrid, grids.build_grid),
    "check_events": (checks.CheckEvents, checks.check_events),
    "rasterize_events": (cubes.RasterizeEvents, cubes.rasterize_events),
    "describe_cube": (cubes.DescribeCube, cubes.describe_cube),
    "append_events": (cubes.AppendEvents, cubes.append_events),
    "export_cube": (cubes.ExportCube, cubes.export_cube),
    "add_covariates": (covariates.AddCovariates, covariates.add_covariates),
    "train": (training.Train, training.train),
    "fit_member": (training.FitMember, training.fit_member),
    "tune": (tuning.Tune, tuning.tune),
    "run_trial": (tuning.RunTrial, tuning.run_trial),
    "forecast": (forecasts.MakeForecast, forecasts.forecast),
    "classify_hotspots": (forecasts.ClassifyHotspots, forecasts.classify_hotspots),
    "score_forecast": (evaluation.ScoreForecast, evaluation.score_forecast),
    "backtest": (backtests.Backtest, backtests.backtest),
    "forecast_origins": (backtests.ForecastOrigins, backtests.forecast_origins),
    "load_sample": (setup.LoadSample, setup.load_sample),
    "verify_environment": (setup.VerifyEnvironment, setup.verify_environment),
}


@dataclasses.dataclass(frozen=True)
class Files:
    """The fields of a request that name a file: what is read, what is made, and what is both.

    A state is a file that the job goes on from if it is there, and leaves behind if it is broken off.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[str, ...]


def files_of(name: str, fields: dict[str, Any]) -> Files:
    """Return which fields of a request name a file, for jobs that may run where no path is known.

    `output` and fields that end in ``_output`` are made; the request's class says the rest, as `INPUT_FILES`
    and, if there are any, `STATE_FILES`.

    Raises
    ------
    GridcastError
        Unknown job, or its request does not say which files it reads.
    """
    if name not in JOBS:
        raise _unknown(name)
    kind, _ = JOBS[name]
    inputs = getattr(kind, "INPUT_FILES", None)
    if inputs is None:
        raise GridcastError(
            f"The job '{name}' cannot run on a cluster: its request does not say which files it reads.",
            hint="Leave SCHEDULER empty to compute on this computer.",
        )
    given = [field for field, value in fields.items() if value]
    return Files(
        inputs=tuple(field for field in given if field in inputs),
        outputs=tuple(field for field in given if field == "output" or field.endswith("_output")),
        states=tuple(field for field in given if field in getattr(kind, "STATE_FILES", ())),
    )


def run_job(name: str, fields: dict[str, Any], reporter: Reporter) -> Outputs:
    """Run a job from the plain values of its request.

    Raises
    ------
    GridcastError
        Unknown job or field: the two halves of the plugin do not belong together.
    """
    if name not in JOBS:
        raise _unknown(name)
    kind, function = JOBS[name]
    known = {f.name for f in dataclasses.fields(kind)}
    if kind is training.Train:
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


def _unknown(name: str) -> GridcastError:
    return GridcastError(f"There is no job '{name}'.", hint="Install the plugin again.")
