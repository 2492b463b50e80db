# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that train models."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import GridcastError, InputError
from ..reporter import Reporter
from .common import Outputs, describe_cube, part_of, versions

if TYPE_CHECKING:
    from ..cube import Cube
    from ..modelfile import SavedModel
    from ..models.base import Forecaster
    from ..training.checkpoints import Checkpoint
    from ..training.splits import Split

SPLITS = ("validation", "5-1-1", "walk-forward")


@dataclass(frozen=True)
class Train:
    """Train a model of the registry on a cube.

    Attributes
    ----------
    split : {"validation", "5-1-1", "walk-forward"}
        Validation: the last `validation_share` percent validate. 5-1-1: of seven parts five train, one
        validates, one tests. Walk-forward: `folds` expanding folds over the last `validation_share`
        percent; the model of the last one is kept.
    checkpoint : path, optional
        See :class:`~..training.checkpoints.Checkpoint`; removed when the model is written.
    continue_from : path, optional
        Model file to go on from: its settings hold, except those of training, and it learns from the steps
        that it has not learned from yet.
    compare : bool
        Also train the simple classifiers (:mod:`~..evaluation.rivals`) on the samples of a Spatio-LSTM, and
        report their scores.
    scheduler : str, optional
        Cluster that trains the folds, or the members of an ensemble (see :func:`~..executors.executor`).
    """

    cube: str
    output: str
    model: str
    types: list[str] | None = None
    until: str | None = None
    validation_share: float = 15.0
    split: str = "validation"
    folds: int = 4
    checkpoint: str | None = None
    continue_from: str | None = None
    compare: bool = False
    scheduler: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def train(request: Train, reporter: Reporter, record: dict[str, Any] | None = None) -> Outputs:
    """Make the model file, with scores on the validation period beside the historical average's.

    `record` is what else the file is to say about how the model came to be.
    """
    from ..modelfile import save_model
    from ..models.registry import model_class
    from ..report.curves import loss_curve
    from ..training.memory import memory_needed

    began = time.perf_counter()
    if request.compare and request.model != "spatiolstm":
        raise InputError(
            "The simple classifiers learn from the samples of a Spatio-LSTM.",
            hint="Choose the architecture 'spatiolstm', or switch COMPARE off.",
            parameter="COMPARE",
            value=request.compare,
        )
    earlier = _earlier(request, reporter)
    kind = model_class(request.model)
    model = _with_settings(kind, _settings(request, earlier))
    reporter.stage("Reading the cube", 0, 3)
    cube = _read_cube(request, earlier)
    splits = _splits(request, model, cube, earlier)
    split = splits[-1]
    checkpoint = _checkpoint(request, model, cube, splits)
    reporter.message(
        f"{split.train_steps:,} steps to train on, {split.validation_steps:,} to validate, "
        f"{int(cube.grid.valid.sum()):,} cells, {cube.total.sum():,.0f} events."
    )
    reporter.message(memory_needed(cube, model.batch_bytes(cube)))
    if len(splits) > 1:
        reporter.stage(f"Training {len(splits)} folds", 8, 92)
        model, folds = _walk_forward(request, splits, checkpoint, reporter)
    else:
        # Each training takes about as long as another.
        judged = 8 + 80 // (1 + model.finishes)
        reporter.stage("Training", 8, judged)
        model.scheduler = request.scheduler
        start = earlier.model if earlier else None
        model.fit(cube, split, reporter, checkpoint=checkpoint, start=start)
        reporter.stage("Scoring the validation period", judged, judged + 4)
        folds = [_score_validation(model, cube, split, reporter)]
        reporter.stage("Learning from all steps", judged + 4, 92)
        model.finish(cube, split, reporter, checkpoint=checkpoint, start=start)
    test = None
    if split.test_stop > split.test_start:
        test = _score(model, cube, split.test_start, split.test_stop, reporter)
        _tell(test, "test", split.test_stop - split.test_start, reporter)
    rivals = _rivals(request, model, cube, split, reporter)
    reporter.stage("Writing the model", 98, 100)
    history = getattr(model, "history_", {})
    save_model(
        model,
        request.output,
        {
            "cube": describe_cube(cube),
            "types": request.types,
            "split": dataclasses.asdict(split),
            "trained_until": str(cube.axis.ends[split.train_stop - 1]),
            "known_until": str(cube.axis.ends[split.validation_stop - 1]),
            "scores": folds[-1],
            "folds": folds,
            "test": test,
            "rivals": rivals,
            "training": history,
            "versions": versions(),
            **(record or {}),
        },
        {"training.png": loss_curve(history)} if history else {},
    )
    if checkpoint is not None:
        checkpoint.remove()
    scores = folds[-1]
    own, simple = scores["model"], scores["historical_average"]
    return {
        "output": request.output,
        "validation_loss": min(history["val_loss"]) if history else own["poisson_deviance"],
        "validation_mse": own.get("mse"),
        "baseline_mse": simple.get("mse"),
        "skill": _skill(scores),
        "pai": own["pai"],
        "pai_baseline": simple["pai"],
        "auc": own["auc"],
        "auc_baseline": simple["auc"],
        "average_precision": own["average_precision"],
        "f1": own["f1"],
        "threshold": model.hot_rule().get("threshold"),
        "epochs_run": len(history.get("loss", [])),
        "parameters": model.parameter_count,
        "train_steps": split.train_steps,
        "validation_steps": split.validation_steps,
        "seconds": time.perf_counter() - began,
    }


@dataclass(frozen=True)
class FitMember:
    """Train one member of an ensemble, or one fold, or finish a member; a task does no more than this.

    Attributes
    ----------
    types, until : optional
        Which part of the cube counts, as in :class:`Train`.
    window : list of int, optional
        Rows and columns of the member: top, bottom, left and right, half-open.
    score : bool
        Also score the validation period.
    finish : bool
        Also learn from the validation period, after that.
    fitted : str, optional
        Model file of a member that needs no more than to be finished.
    """

    INPUT_FILES: ClassVar = ("cube", "start", "fitted")
    STATE_FILES: ClassVar = ("checkpoint",)

    cube: str
    output: str
    model: str
    settings: dict[str, Any]
    split: dict[str, int]
    types: list[str] | None = None
    until: str | None = None
    window: list[int] | None = None
    checkpoint: str | None = None
    identity: str = ""
    start: str | None = None
    score: bool = False
    finish: bool = False
    fitted: str | None = None


def fit_member(request: FitMember, reporter: Reporter) -> Outputs:
    """Make the model file of a member."""
    from ..cube import Cube
    from ..modelfile import load_model, save_model
    from ..models.registry import model_class
    from ..training.checkpoints import Checkpoint
    from ..training.splits import Split

    reporter.stage("Reading the cube", 0, 2)
    cube = part_of(Cube.read(request.cube), request.types, request.until)
    if request.window:
        top, bottom, left, right = request.window
        cube = cube.crop(slice(top, bottom), slice(left, right))
    checkpoint = Checkpoint(Path(request.checkpoint), request.identity) if request.checkpoint else None
    start = load_model(request.start).model if request.start else None
    split = Split(**request.split)
    judged = 2
    if request.fitted:
        model = load_model(request.fitted).model
    else:
        model = _with_settings(model_class(request.model), request.settings)
        judged += 93 // (1 + (model.finishes if request.finish else 0))
        reporter.stage("Training", 2, judged)
        model.fit(cube, split, reporter, checkpoint=checkpoint, start=start)
    scores = _score_validation(model, cube, split, reporter) if request.score else None
    if request.finish:
        reporter.stage("Learning from all steps", judged, 95)
        model.finish(cube, split, reporter, checkpoint=checkpoint, start=start)
    reporter.stage("Writing the model", 95, 100)
    save_model(model, request.output, {})
    return {"output": request.output, "scores": scores}


# PAI of the validation period: the share of the area that most evaluations of patrol plans use.
VALIDATION_AREA_SHARE = 5.0

# Settings of a run, not of a model: they may differ when a model is continued.
_OF_THE_RUN = ("epochs", "batch_size", "learning_rate", "patience", "seed", "workers", "weights")


def _earlier(request: Train, reporter: Reporter) -> SavedModel | None:
    """Read the model to continue from, if there is one."""
    if not request.continue_from:
        return None
    from ..modelfile import load_model

    reporter.stage("Reading the model to continue from", 0, 1)
    saved = load_model(request.continue_from, "CONTINUE_FROM")
    if saved.model.key != request.model:
        raise InputError(
            f"The model is of the kind '{saved.model.title}'.",
            hint="Choose the architecture of that model, or leave CONTINUE_FROM empty.",
            parameter="CONTINUE_FROM",
            value=request.continue_from,
        )
    if request.split != "validation":
        raise InputError(
            "A model is continued with the split 'validation' only.",
            hint="Choose it, or leave CONTINUE_FROM empty.",
            parameter="SPLIT",
            value=request.split,
        )
    return saved


def _settings(request: Train, earlier: SavedModel | None) -> dict[str, Any]:
    if earlier is None:
        return request.settings
    own = {key: value for key, value in request.settings.items() if key in _OF_THE_RUN}
    return {**earlier.manifest["settings"], **own}


def _read_cube(request: Train, earlier: SavedModel | None) -> Cube:
    from ..cube import Cube

    cube = Cube.read(request.cube)
    types = request.types
    if earlier is not None:
        earlier.check_fits(cube, "CONTINUE_FROM", request.continue_from)
        types = types or earlier.manifest["types"]
        if types != earlier.manifest["types"]:
            learned = ", ".join(earlier.manifest["types"] or ["all types"])
            raise InputError(
                f"The model to continue from was trained on {learned}.",
                hint="Leave TYPES empty to go on with the same.",
                parameter="TYPES",
                value=", ".join(types or ()),
            )
    return part_of(cube, types, request.until)


def _splits(request: Train, model: Forecaster, cube: Cube, earlier: SavedModel | None) -> list[Split]:
    import numpy as np

    from ..training import splits

    steps, lookback, share = len(cube), model.history, request.validation_share
    if earlier is not None:
        learned = int((cube.axis.ends <= np.datetime64(earlier.manifest["trained_until"])).sum())
        return [splits.further_split(steps, lookback, share, learned)]
    if request.split == "validation":
        return [splits.chronological_split(steps, lookback, share)]
    if request.split == "5-1-1":
        return [splits.five_one_one(steps, lookback)]
    if request.split == "walk-forward":
        return splits.expanding_folds(steps, lookback, share, request.folds)
    raise InputError(
        "There is no such split.",
        hint=f"Choose one of {', '.join(SPLITS)}.",
        parameter="SPLIT",
        value=request.split,
    )


def _checkpoint(request: Train, model: Forecaster, cube: Cube, splits: list[Split]) -> Checkpoint | None:
    if not request.checkpoint:
        return None
    from ..training.checkpoints import Checkpoint, identity_of

    settings = {key: value for key, value in model.settings_dict().items() if key != "workers"}
    identity = identity_of(
        model=model.key,
        settings=settings,
        data=cube.fingerprint,
        covariates=cube.covariates_fingerprint,
        splits=[dataclasses.asdict(split) for split in splits],
        start=request.continue_from and hashlib.sha256(Path(request.continue_from).read_bytes()).hexdigest(),
    )
    return Checkpoint(Path(request.checkpoint), identity)


def _walk_forward(
    request: Train, splits: list[Split], checkpoint: Checkpoint | None, reporter: Reporter
) -> tuple[Forecaster, list[dict[str, Any]]]:
    """Train the folds, which need nothing of each other; return the model of the last one and all scores."""
    from ..executors import Task, run_tasks
    from ..modelfile import load_model

    with tempfile.TemporaryDirectory(prefix="gridcast-folds-") as name:
        folder = Path(name)
        tasks = []
        for number, split in enumerate(splits):
            part = checkpoint.part(f"fold_{number}") if checkpoint else None
            fold = FitMember(
                cube=request.cube,
                output=str(folder / f"{number}.gridcast"),
                model=request.model,
                settings=request.settings,
                split=dataclasses.asdict(split),
                types=request.types,
                until=request.until,
                checkpoint=str(part.path) if part else None,
                identity=part.identity if part else "",
                score=True,
                # Only the model of the last fold is kept.
                finish=number == len(splits) - 1,
            )
            tasks.append(Task(f"Fold {number + 1} of {len(splits)}", "fit_member", dataclasses.asdict(fold)))
        run_tasks(tasks, folder, reporter, scheduler=request.scheduler)
        for task in tasks:
            if task.failure:
                raise task.failure
        scores = [task.outputs["scores"] for task in tasks if task.outputs]
        return load_model(tasks[-1].request["output"]).model, scores


def _score_validation(model: Forecaster, cube: Cube, split: Split, reporter: Reporter) -> dict[str, Any]:
    """Score the validation period, and tell of it."""
    scores = _score(model, cube, split.validation_start, split.validation_stop, reporter)
    _tell(scores, "validation", split.validation_steps, reporter)
    return scores


def _score(
    model: Forecaster, cube: Cube, start: int, stop: int, reporter: Reporter
) -> dict[str, dict[str, float | None]]:
    """Score the forecasts of a period one step ahead, beside the simple method that the model has to beat."""
    from ..evaluation.classification import score
    from ..evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
    from ..models.registry import model_class

    observed, valid, area = cube.total[start:stop], cube.grid.valid, cube.grid.inside_area
    outcome = model.outcome(cube, start, stop)[:, valid]
    candidates: dict[str, Forecaster] = {
        "model": model,
        "historical_average": model_class("historical_average")(),
    }
    scores: dict[str, dict[str, float | None]] = {}
    for name, candidate in candidates.items():
        prediction = candidate.predict_next(cube, start, stop)
        reporter.check()
        hits = hit_rate(observed, prediction, area, VALIDATION_AREA_SHARE)
        values: dict[str, float | None] = {"hit_rate": float(hits.rate), "pai": float(hits.pai)}
        if candidate.quantity != "hot":
            expected = candidate.expected_events(prediction)
            values["mse"] = mean_squared_error(observed, expected, valid)
            values["poisson_deviance"] = poisson_deviance(observed, expected, valid)
        probability = candidate.probability(prediction)[:, valid]
        threshold = getattr(candidate, "threshold_", 0.5)
        kinds = score(outcome, probability, threshold).as_values()
        # The order of an average of counts says which cells are hot, its value does not.
        order_only = model.quantity == "hot" and candidate is not model
        for key in ("auc", "average_precision", *(() if order_only else ("brier", "log_loss", "f1"))):
            values[key] = kinds[key]
        scores[name] = values
    return scores


def _rivals(
    request: Train, model: Forecaster, cube: Cube, split: Split, reporter: Reporter
) -> dict[str, Any] | None:
    """Train and score the simple classifiers, if asked for, and tell how they did."""
    if not request.compare:
        return None
    from ..evaluation.rivals import compare

    reporter.stage("Training simple classifiers", 92, 98)
    settings: Any = model.settings
    found = compare(cube, split, settings, reporter)
    period = "test" if split.test_stop > split.test_start else "validation"
    for name, scores in found.items():
        reporter.message(
            f"{name}, {period} samples: accuracy {scores.accuracy:.3f}, F {scores.f1:.3f}, "
            f"AUC {scores.auc:.3f}."
        )
    return {name: scores.as_values() for name, scores in found.items()}


def _skill(scores: dict[str, Any]) -> float | None:
    """Return the gain in squared error over the historical average in percent; None for hot spots."""
    own, simple = scores["model"].get("mse"), scores["historical_average"].get("mse")
    if own is None or not simple:
        return None if own is None else 0.0
    return 100 * (1 - own / simple)


def _tell(scores: dict[str, Any], period: str, steps: int, reporter: Reporter) -> None:
    own, simple = scores["model"], scores["historical_average"]
    skill = _skill(scores)
    if skill is not None:
        verdict = "better" if skill > 0 else "no better"
        reporter.message(
            f"On the {steps} {period} steps: mean squared error {own['mse']:.5f}, historical average "
            f"{simple['mse']:.5f}: the network is {verdict} ({skill:+.2f} %). In the densest "
            f"{VALIDATION_AREA_SHARE:g} % of the area it finds {own['hit_rate']:.1%} of the events, the "
            f"average {simple['hit_rate']:.1%}."
        )
    if own["auc"] is not None:
        reporter.message(
            f"Telling cells apart on the {steps} {period} steps: AUC {own['auc']:.3f}, average precision "
            f"{own['average_precision']:.3f}; historical average {simple['auc']:.3f} and "
            f"{simple['average_precision']:.3f}."
        )


def _with_settings(kind: type, settings: dict[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        raise GridcastError(
            f"The settings of the model do not fit: {error}.", hint="Install the plugin again."
        ) from error
