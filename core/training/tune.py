# SPDX-License-Identifier: GPL-2.0-or-later
"""Search for settings of a model that forecast steps best which it has not learned from."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..coarsening import spread_back
from ..cube import Cube
from ..errors import EnvironmentFault, GridcastError, InputError, JobCancelled
from ..evaluation.classification import score
from ..evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
from ..models.base import Forecaster
from ..models.registry import model_class
from ..protocol import Event
from ..reporter import PartOf, Reporter
from .advice import PRUNE_FROM, Watcher, propose
from .ranges import COARSEN, Choices, Ranges, ranges_text, read_ranges, searched, settings_text
from .splits import Split, chronological_split, expanding_folds
from .study import COMPLETE, FAILED, PRUNED, Study, Trial

#: What a search makes good, and whether more of it is better.
OBJECTIVES = {"deviance": False, "mse": False, "auc": True, "hit_rate": True}
#: The same for people.
OBJECTIVE_TITLES = {
    "deviance": "Poisson deviance",
    "mse": "mean squared error",
    "auc": "AUC",
    "hit_rate": "hit rate",
}
AUTO = "auto"

# Settings that change what the loss of a training is, so that losses of trials cannot be compared.
_OF_THE_LOSS = (
    *(COARSEN, "output_form", "loss_form", "event_weight", "type_head"),
    *("balance", "candidates", "split_mode", "label_rule", "label_value"),
    *("subgrid_rows", "subgrid_columns", "window_rows", "window_columns", "window_stride"),
)

#: Hears of a value, the lower the better, of a part of a trial (a fold, or a member in it), and tells
#: whether to give up.
Watch = Callable[[int, int, float], bool]


#: Tries combinations of settings: ``run(number, settings, reporter)`` with the number of the first of them.
RunTrials = Callable[[int, list[dict[str, Any]], Reporter], list[Trial]]


class GivenUp(Exception):
    """A trial is not worth going on with."""


@dataclass(frozen=True)
class Judging:
    """How settings are judged, as plain values that can be sent to another process.

    Attributes
    ----------
    model : str
        Key of the model in the registry.
    objective : str
        A key of :data:`OBJECTIVES`.
    area_share : float
        Percent of the area that is flagged, for the objective ``hit_rate``.
    folds : sequence of (start, stop)
        Steps that are forecast and scored.
    validation_share : float
        Percent of the steps before a fold, the last ones, that decide when its training stops.
    longest : int
        Steps that any trial looks back at most: with it these steps are the same in all trials.
    by_epoch : bool
        Whether the validation loss of each epoch is watched; else the score of each fold.
    """

    model: str
    objective: str
    area_share: float
    folds: Sequence[tuple[int, int]]
    validation_share: float
    longest: int
    by_epoch: bool = False

    def split(self, fold: int, history: int) -> Split:
        """Return what is learned from before a fold, and what decides when to stop.

        Raises
        ------
        InputError
            There are too few steps for this `history`.
        """
        split = chronological_split(self.folds[fold][0], max(history, self.longest), self.validation_share)
        return replace(split, train_start=history, train_stop=split.validation_start - history)


@dataclass(frozen=True)
class Judgement:
    """What came of settings.

    Attributes
    ----------
    score : float
        Of all folds together.
    fold_scores : list of float or None
        Of each fold; None where it is not defined.
    epochs : int
        Epochs trained in all folds.
    """

    score: float
    fold_scores: list[float | None]
    epochs: int


def judge(
    cube: Cube,
    judging: Judging,
    settings: Mapping[str, Any],
    reporter: Reporter | None = None,
    watch: Watch | None = None,
) -> Judgement:
    """Train a model with these settings on the steps before each fold and score its forecasts of the fold.

    A function of its arguments alone. What is trained sees no step of its fold or later: the cube is cut off
    there. Early stopping and whatever else a model chooses on validation steps uses the last
    `validation_share` percent of the steps before the fold, so that the score is of steps that nothing in
    the trial was chosen on. A gap of the model's own lookback lies before these.

    With the setting ``coarsen`` the model works on blocks of cells, and its forecasts are spread back over
    the cells (:func:`~..coarsening.spread_back`): scores of all block sizes are of the cells of `cube`.

    Parameters
    ----------
    watch : callable, optional
        See :data:`Watch`.

    Raises
    ------
    InputError
        The settings do not fit each other or the cube.
    GivenUp
        `watch` said so.
    """
    reporter = reporter or Reporter()
    own = dict(settings)
    factor = own.pop(COARSEN, 1)
    coarse = cube.coarsened(factor)
    kind = model_class(judging.model)
    seen: list[_Seen] = []
    epochs = 0
    listener = _Listener(reporter, len(judging.folds), watch if judging.by_epoch else None)
    for number, (start, stop) in enumerate(judging.folds):
        model = kind(**own)
        listener.begin(number, getattr(model.settings, "epochs", 0))
        model.fit(coarse.steps(0, start), judging.split(number, model.history), listener)
        seen.append(_forecast(model, cube, coarse, factor, start, stop))
        epochs += len(getattr(model, "history_", {}).get("loss", ()))
        reporter.check()
        if watch and not judging.by_epoch and number + 1 < len(judging.folds):
            loss = _measure(seen[-1:], cube, judging)
            loss = -loss if OBJECTIVES[judging.objective] else loss
            if math.isfinite(loss) and watch(number, PRUNE_FROM, loss):
                raise GivenUp()
        if model.parameter_count:
            _forget_networks()
    fold_scores = [_measure([each], cube, judging) for each in seen]
    return Judgement(
        _measure(seen, cube, judging),
        [value if math.isfinite(value) else None for value in fold_scores],
        epochs,
    )


@dataclass(frozen=True)
class _Seen:
    """Forecasts of a fold, each `(steps, y, x)`, and what happened."""

    observed: np.ndarray
    expected: np.ndarray
    outcome: np.ndarray
    probability: np.ndarray


def _forecast(model: Forecaster, cube: Cube, coarse: Cube, factor: int, start: int, stop: int) -> _Seen:
    prediction = model.predict_next(coarse, start, stop)
    expected = model.expected_events(prediction)
    probability = model.probability(prediction)
    if factor > 1:
        expected = spread_back(expected, cube.grid, factor)
        probability = -np.expm1(-expected)
    return _Seen(cube.total[start:stop], expected, model.outcome(cube, start, stop), probability)


def _measure(seen: Sequence[_Seen], cube: Cube, judging: Judging) -> float:
    """Return the objective of the steps of all given folds together."""
    valid = cube.grid.valid
    observed, expected = (
        np.concatenate([getattr(s, name) for s in seen]) for name in ("observed", "expected")
    )
    if judging.objective == "deviance":
        return poisson_deviance(observed, expected, valid)
    if judging.objective == "mse":
        return mean_squared_error(observed, expected, valid)
    if judging.objective == "hit_rate":
        return float(hit_rate(observed, expected, cube.grid.inside_area, judging.area_share).rate)
    outcome, probability = (
        np.concatenate([getattr(s, name)[:, valid] for s in seen]) for name in ("outcome", "probability")
    )
    return score(outcome, probability).auc


class _Listener(Reporter):
    """Listens to the training in a trial: passes on cancel and progress, watches the loss of each epoch."""

    def __init__(self, whole: Reporter, folds: int, watch: Watch | None) -> None:
        super().__init__()
        self._whole, self._folds, self._watch = whole, folds, watch
        self._part, self._fold, self._last = -1, 0, 0

    def begin(self, fold: int, epochs: int) -> None:
        """Get ready for the training before a fold, of so many epochs at most."""
        self._fold = fold
        # Nothing is saved by giving up when all is trained.
        self._last = epochs if fold + 1 == self._folds else epochs + 1

    def check(self) -> None:
        self._whole.check()

    def progress(self, fraction: float) -> None:
        self._whole.progress((self._fold + min(max(fraction, 0.0), 1.0)) / self._folds)

    def emit(self, event: str, **fields: Any) -> None:
        if event != Event.METRIC or fields["name"] != "val_loss" or self._watch is None:
            return
        # Each training begins with the untrained network, so does each member of an ensemble.
        self._part += fields["step"] == 0
        if self._watch(self._part, fields["step"], fields["value"]) and fields["step"] < self._last:
            raise GivenUp()


def _forget_networks() -> None:
    """Let Keras free what it keeps of networks that are gone."""
    import keras

    keras.utils.clear_session()


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes
    ----------
    model : str
        Key of the model in the registry.
    ranges : str
        What is tried of each setting, see :func:`~.ranges.read_ranges`; the rest as the model declares.
    objective : {"auto", "deviance", "mse", "auc", "hit_rate"}
        Auto: AUC for hot-spot classifiers, else the Poisson deviance.
    area_share : float
        Percent of the area that is flagged, for the objective ``hit_rate``.
    validation_share : float
        Percent of the steps, the last ones, that trials are scored on.
    folds : int
        Into how many folds these are divided; each is forecast after training on all steps before it.
    seed : int
        Of the search, and of the training in every trial.
    """

    model: str
    ranges: str = ""
    objective: str = AUTO
    area_share: float = 5.0
    validation_share: float = 15.0
    folds: int = 1
    seed: int = 1

    def prepare(self, cube: Cube) -> Prepared:
        """Read the ranges and divide the steps of a cube.

        Raises
        ------
        InputError
            Wrong ranges or nothing to search, an objective that the model has not, too few steps.
        """
        kind = model_class(self.model)
        ranges = read_ranges(self.ranges, kind.Settings, kind.search, cube.grid)
        if not searched(ranges):
            raise InputError(
                "There is nothing to search: no setting has more than one value.",
                hint="Give ranges such as 'lookback = 3..14', or choose another model.",
                parameter="RANGES",
                value=self.ranges,
            )
        objective = self._objective(kind)
        blocks = ranges.get(COARSEN)
        if kind.quantity == "hot" and blocks is not None and blocks.ends != (1,):
            raise InputError(
                "A hot cell of another size is another thing, so that classifiers cannot be compared.",
                hint="Leave out coarsen and cell_size, or choose a model for events.",
                parameter="RANGES",
                value=f"{COARSEN} = {blocks.text()}",
            )
        own = kind.Settings()
        defaults = {
            name: each.values[0]
            if isinstance(each, Choices) and len(each.values) == 1
            else getattr(own, name, 1)
            for name, each in ranges.items()
        }
        comparable = not any(name in _OF_THE_LOSS for name in searched(ranges))
        trained = "epochs" in {each.name for each in dataclasses.fields(kind.Settings)}
        longest = _longest(kind, ranges, defaults)
        splits = expanding_folds(len(cube), longest, self.validation_share, self.folds)
        judging = Judging(
            self.model,
            objective,
            self.area_share,
            tuple((split.validation_start, split.validation_stop) for split in splits),
            self.validation_share,
            longest,
            by_epoch=comparable and trained,
        )
        # Too few steps are told before anything is tried.
        judging.split(0, longest)
        return Prepared(self, kind, ranges, defaults, judging)

    def _objective(self, kind: type[Forecaster]) -> str:
        hot = kind.quantity == "hot"
        if self.objective == AUTO:
            return "auc" if hot else "deviance"
        if self.objective not in OBJECTIVES:
            raise InputError(
                "There is no such objective.",
                hint=f"Choose one of {', '.join((AUTO, *OBJECTIVES))}.",
                parameter="OBJECTIVE",
                value=self.objective,
            )
        if hot and self.objective in ("deviance", "mse"):
            raise InputError(
                f"The model ({kind.title}) says which cells are hot, not how many events there are.",
                hint="Choose auc or hit_rate.",
                parameter="OBJECTIVE",
                value=self.objective,
            )
        if self.objective == "hit_rate" and not 0 < self.area_share <= 100:
            raise InputError(
                "The share of the area must be above 0 and at most 100 percent.",
                hint="5 is usual.",
                parameter="AREA_SHARE",
                value=self.area_share,
            )
        return self.objective


def _longest(kind: type[Forecaster], ranges: Ranges, defaults: dict[str, Any]) -> int:
    """Return how many steps the trial that looks back furthest looks back."""
    history = kind(**_of_the_model(defaults)).history
    return max(history, *map(int, ranges["lookback"].ends)) if "lookback" in ranges else history


@dataclass(frozen=True)
class Prepared:
    """A search on a cube, ready to run.

    Attributes
    ----------
    search : Search
    kind : type
        Class of the model.
    ranges : dict
        Of all settings that are not left alone, single values included.
    defaults : dict
        Their values in the first trial.
    judging : Judging
    """

    search: Search
    kind: type[Forecaster]
    ranges: Ranges
    defaults: dict[str, Any]
    judging: Judging = field(repr=False)

    def model_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial that are the model's, with the seed of the search."""
        own = _of_the_model(settings)
        if any(each.name == "seed" for each in dataclasses.fields(self.kind.Settings)):
            own["seed"] = self.search.seed
        return own

    def open_study(self, cube: Cube, path: str | Path | None) -> Study:
        """Return the study of this search, from its file if there is one."""
        plain = dataclasses.asdict(self.search)
        plain |= {
            "ranges": ranges_text(self.ranges),
            "objective": self.judging.objective,
            "area_share": self.search.area_share if self.judging.objective == "hit_rate" else None,
            "data": cube.fingerprint,
            "covariates": cube.covariates_fingerprint,
        }
        return Study.open(plain, OBJECTIVES[self.judging.objective], path)

    def run(
        self,
        study: Study,
        trials: int,
        run_trials: RunTrials,
        reporter: Reporter | None = None,
        *,
        at_once: int = 1,
        time_limit: float | None = None,
    ) -> None:
        """Add trials to a study until there are `trials` in all.

        Parameters
        ----------
        run_trials : callable
            See :data:`RunTrials` and :meth:`here`.
        at_once : int
            Trials that are chosen at a time, and kept when all of them have come to an end. It decides the
            course of the search; where they are run does not.
        time_limit : float, optional
            Minutes after which no further trial is begun; the first one is always run.

        Raises
        ------
        JobCancelled
            The reporter was asked to stop; checked at every batch. The study holds the trials before.
        InputError
            The study cannot be written, or no trial has come to a score.
        """
        reporter = reporter or Reporter()
        began = time.perf_counter()
        if study.trials:
            one = len(study.trials) == 1
            reporter.message(
                f"The study has {len(study.trials)} trial{'' if one else 's'}; the search goes on after "
                f"{'it' if one else 'them'}."
            )
        while (number := len(study.trials)) < trials:
            if number and time_limit is not None and time.perf_counter() - began > 60 * time_limit:
                reporter.message(f"The time is up: {number} of {trials} trials have been run.")
                break
            count = min(at_once, trials - number)
            chosen = propose(study, searched(self.ranges), self.defaults, self.search.seed, count)
            if not chosen:
                reporter.message(f"All {number} combinations have been tried.")
                break
            share = PartOf(reporter, number / trials, (number + len(chosen)) / trials)
            for trial in run_trials(number, chosen, share):
                study.add(trial)
                reporter.message(self._line(trial, study, trials))
        if study.best is None:
            raise InputError(
                f"None of {len(study.trials)} trials has come to a score. The first one failed: "
                f"{study.trials[0].error}",
                hint="Change the ranges or the data.",
                parameter="RANGES",
                value=ranges_text(self.ranges),
            )

    def here(self, cube: Cube, study: Study) -> RunTrials:
        """Return what runs trials one by one in this process."""

        def run(number: int, chosen: list[dict[str, Any]], reporter: Reporter) -> list[Trial]:
            parts = [
                PartOf(reporter, place / len(chosen), (place + 1) / len(chosen), quiet=True)
                for place in range(len(chosen))
            ]
            # None of them knows of another: elsewhere they are run at the same time.
            known = dataclasses.replace(study, trials=list(study.trials))
            return [
                self.try_out(cube, known, number + place, settings, parts[place])
                for place, settings in enumerate(chosen)
            ]

        return run

    def try_out(
        self, cube: Cube, study: Study, number: int, settings: dict[str, Any], reporter: Reporter
    ) -> Trial:
        """Judge settings and return what came of them; the study (left as it is) tells when to give up.

        Raises
        ------
        JobCancelled, EnvironmentFault
            All other failures are the trial's.
        """
        began = time.perf_counter()
        watcher = Watcher(study, searched(self.ranges), settings)
        blocks = {COARSEN: settings[COARSEN]} if COARSEN in settings else {}
        state, judgement, error = COMPLETE, None, ""
        try:
            judgement = judge(
                cube, self.judging, self.model_settings(settings) | blocks, reporter, watcher.report
            )
            if not math.isfinite(judgement.score):
                state, error = FAILED, "The score is not defined on these steps."
        except (JobCancelled, EnvironmentFault):
            raise
        except GivenUp:
            state = PRUNED
        except (GridcastError, ArithmeticError, MemoryError) as reason:
            state, error = FAILED, str(reason) or type(reason).__name__
        done = judgement if state == COMPLETE else None
        return Trial(
            number,
            state,
            settings,
            score=done.score if done else None,
            fold_scores=done.fold_scores if done else [],
            values=watcher.values,
            epochs=done.epochs if done else 0,
            seconds=round(time.perf_counter() - began, 3),
            error=error,
        )

    def _line(self, trial: Trial, study: Study, trials: int) -> str:
        """Return a sentence on a trial."""
        what = "the defaults" if trial.number == 0 else settings_text(_only(trial.settings, self.ranges))
        start = f"Trial {trial.number + 1} of {trials} ({what})"
        if trial.state == FAILED:
            return f"{start} failed: {trial.error}"
        if trial.state == PRUNED:
            return f"{start}: given up after {trial.seconds:.0f} s, as others were better at that point."
        title = OBJECTIVE_TITLES[self.judging.objective]
        best = "the best so far" if study.best is trial and trial.number else ""
        return f"{start}: {title} {trial.score:.6g}, {trial.seconds:.0f} s{'; ' + best if best else ''}."


def _of_the_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != COARSEN}


def _only(settings: Mapping[str, Any], ranges: Ranges) -> dict[str, Any]:
    """Return the settings that are searched."""
    return {name: settings[name] for name in searched(ranges)}
