# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that trains a model."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from ..errors import GridcastError
from ..reporter import Reporter
from .common import Outputs, describe_cube, versions


@dataclass(frozen=True)
class Train:
    """Train a model of the registry on a cube."""

    cube: str
    output: str
    model: str
    types: list[str] | None = None
    until: str | None = None
    validation_share: float = 15.0
    settings: dict[str, Any] = field(default_factory=dict)


# PAI of the validation period: the share of the area that most evaluations of patrol plans use.
VALIDATION_AREA_SHARE = 5.0


def train(request: Train, reporter: Reporter) -> Outputs:
    """Make the model file, with scores on the validation period beside the historical average's."""
    from ..cube import Cube
    from ..evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
    from ..modelfile import save_model
    from ..models.registry import model_class
    from ..training.splits import chronological_split

    began = time.perf_counter()
    model = _with_settings(model_class(request.model), request.settings)
    reporter.stage("Reading the cube", 0, 3)
    cube = Cube.read(request.cube).select_types(request.types)
    if request.until:
        cube = cube.steps(0, cube.index_of(request.until, "UNTIL"))
    split = chronological_split(len(cube), model.history, request.validation_share)
    reporter.message(
        f"{split.train_steps:,} steps to train on, {split.validation_steps:,} to validate, "
        f"{int(cube.grid.valid.sum()):,} cells, {cube.total.sum():,.0f} events."
    )
    reporter.stage("Loading the network library", 3, 8)
    baseline = model_class("historical_average")()
    reporter.stage("Training", 8, 92)
    model.fit(cube, split, reporter)
    reporter.stage("Scoring the validation period", 92, 98)
    period = slice(split.validation_start, split.validation_stop)
    observed, valid, area = cube.total[period], cube.grid.valid, cube.grid.inside_area
    scores: dict[str, dict[str, float]] = {}
    for name, candidate in (("model", model), ("historical_average", baseline)):
        expected = candidate.predict_next(cube, period.start, period.stop)
        hits = hit_rate(observed, expected, area, VALIDATION_AREA_SHARE)
        scores[name] = {
            "mse": mean_squared_error(observed, expected, valid),
            "poisson_deviance": poisson_deviance(observed, expected, valid),
            "hit_rate": hits.rate,
            "pai": hits.pai,
        }
        reporter.check()
    own, simple = scores["model"], scores["historical_average"]
    skill = 100 * (1 - own["mse"] / simple["mse"]) if simple["mse"] else 0.0
    verdict = "better" if skill > 0 else "no better"
    reporter.message(
        f"On the {split.validation_steps} validation steps: mean squared error {own['mse']:.5f}, historical "
        f"average {simple['mse']:.5f}: the network is {verdict} ({skill:+.2f} %). In the densest "
        f"{VALIDATION_AREA_SHARE:g} % of the area it finds {own['hit_rate']:.1%} of the events, the average "
        f"{simple['hit_rate']:.1%}."
    )
    reporter.stage("Writing the model", 98, 100)
    history = getattr(model, "history_", {})
    save_model(
        model,
        request.output,
        {
            "cube": describe_cube(cube),
            "types": request.types,
            "split": dataclasses.asdict(split),
            "scores": scores,
            "training": history,
            "versions": versions(),
        },
    )
    validation_loss = min(history["val_loss"]) if history else own["poisson_deviance"]
    return {
        "output": request.output,
        "validation_loss": validation_loss,
        "validation_mse": own["mse"],
        "baseline_mse": simple["mse"],
        "skill": skill,
        "pai": own["pai"],
        "pai_baseline": simple["pai"],
        "epochs_run": len(history.get("loss", [])),
        "parameters": model.parameter_count,
        "train_steps": split.train_steps,
        "validation_steps": split.validation_steps,
        "seconds": time.perf_counter() - began,
    }


def _with_settings(kind: type, settings: dict[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        raise GridcastError(
            f"The settings of the model do not fit: {error}.", hint="Install the plugin again."
        ) from error
