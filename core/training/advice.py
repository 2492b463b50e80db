# SPDX-License-Identifier: GPL-2.0-or-later
"""What to try next, when to give up, and which settings matter: Optuna's answers from the trials so far.

Optuna is asked anew for each trial, with a seed of that trial alone. So a search that goes on after a break
takes the same course as one without, and nothing but the trials has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..models.settings import value_text
from .ranges import Numbers, Range, Ranges, combinations, every_combination
from .study import COMPLETE, FAILED, PRUNED, Study, Trial, key_of

#: Trials that are drawn by chance before the search learns from them.
RANDOM_TRIALS = 6
#: Complete trials before one is given up, and the epoch from which on.
PRUNE_AFTER, PRUNE_FROM = 4, 3
#: Complete trials before it is told which setting matters.
IMPORTANCE_AFTER = 8

# Values of one part of a trial lie closer together than this.
_PART = 100_000
# How often the sampler may repeat itself, and how many combinations are listed then.
_REPEATS, _LISTED = 20, 10_000

# The sampler learns from trials without a score too: it takes them for worse than all others.
_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.PRUNED}


class Watcher:
    """Sees what a trial reports on its way, and tells whether to go on with it.

    Attributes
    ----------
    values : list of (part, step, value)
        What has been reported so far.
    """

    def __init__(self, study: Study, ranges: Ranges, settings: dict[str, Any]) -> None:
        self.values: list[tuple[int, int, float]] = []
        self._reference = _reference(study)
        self._trial: optuna.Trial | None = None
        # The defaults are tried to their end, wherever they lie.
        if study.trials:
            advisor = _advisor(study, ranges, 0)
            advisor.enqueue_trial(_params(settings, ranges))
            self._trial = advisor.ask(_distributions(ranges))

    def report(self, part: int, step: int, value: float) -> bool:
        """Take up a value, the lower the better, and tell whether to give up."""
        self.values.append((part, step, value))
        if self._trial is None or part not in self._reference:
            return False
        self._trial.report(value - self._reference[part], part * _PART + step)
        return self._trial.should_prune()


def propose(
    study: Study, ranges: Ranges, defaults: dict[str, Any], seed: int, count: int = 1
) -> list[dict[str, Any]]:
    """Return what to try next: first the defaults, then what the sampler (TPE) expects most of.

    Parameters
    ----------
    ranges : dict
        Of the settings that are searched.
    defaults : dict
        Values of these settings, and of others that stay as they are.
    count : int
        How many combinations, to be tried at the same time. The sampler takes those before as bad ones, so
        that they lie apart ("constant liar").

    Returns
    -------
    list of dict
        Values by name; fewer than `count` when every combination has been tried.
    """
    found: list[dict[str, Any]] = []
    while len(found) < count:
        settings = _next(study, ranges, defaults, seed, found)
        if settings is None:
            break
        found.append(settings)
    return found


def _next(
    study: Study, ranges: Ranges, defaults: dict[str, Any], seed: int, waiting: list[dict[str, Any]]
) -> dict[str, Any] | None:
    number = len(study.trials) + len(waiting)
    if number == 0:
        return defaults
    known = [*(trial.settings for trial in study.trials), *waiting]
    if sum(_within(settings, ranges) for settings in known) >= combinations(ranges):
        return None
    tried = {key_of(settings) for settings in known}
    for attempt in range(_REPEATS):
        advisor = _advisor(study, ranges, _seed(seed, number, attempt), waiting)
        settings = defaults | _settings(advisor.ask(_distributions(ranges)), ranges)
        if key_of(settings) not in tried:
            return settings
    return _untried(ranges, defaults, tried, np.random.default_rng([seed, number]))


def _untried(
    ranges: Ranges, defaults: dict[str, Any], tried: set[str], random: np.random.Generator
) -> dict[str, Any]:
    """Choose by chance one of the combinations that have not been tried."""
    if combinations(ranges) <= _LISTED:
        all_of_them = (defaults | each for each in every_combination(ranges))
        left = [settings for settings in all_of_them if key_of(settings) not in tried]
        return left[random.integers(len(left))]
    blind = optuna.create_study(sampler=optuna.samplers.RandomSampler(int(random.integers(2**31))))
    while True:
        # So few have been tried that chance soon finds another one.
        settings = defaults | _settings(blind.ask(_distributions(ranges)), ranges)
        if key_of(settings) not in tried:
            return settings


def importance(study: Study, ranges: Ranges, seed: int) -> dict[str, float] | None:
    """Return the share of the differences between scores that each setting explains, the largest first.

    By functional analysis of variance on a random forest (Hutter, Hoos & Leyton-Brown 2014); None as long as
    there are too few complete trials, or if all have the same score.
    """
    trials = [trial for trial in study.of(COMPLETE) if _within(trial.settings, ranges)]
    if len(trials) < IMPORTANCE_AFTER or len({trial.score for trial in trials}) == 1:
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(_advisor(study, ranges, seed), evaluator=evaluator)
    return dict(sorted(((name, float(share)) for name, share in found.items()), key=lambda item: -item[1]))


def _advisor(study: Study, ranges: Ranges, seed: int, waiting: Sequence[dict[str, Any]] = ()) -> optuna.Study:
    """Return a study of Optuna's, in memory, that knows the trials and those under way."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    advisor = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PRUNE_FROM),
    )
    reference = _reference(study)
    advisor.add_trials(
        [_told(trial, study, ranges, reference) for trial in study.trials if _within(trial.settings, ranges)]
    )
    for settings in waiting:
        if _within(settings, ranges):
            advisor.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=_params(settings, ranges),
                    distributions=_distributions(ranges),
                )
            )
    return advisor


def _told(trial: Trial, study: Study, ranges: Ranges, reference: dict[int, float]) -> FrozenTrial:
    return create_trial(
        state=_STATES[trial.state],
        value=study.loss(trial) if trial.state == COMPLETE else None,
        params=_params(trial.settings, ranges),
        distributions=_distributions(ranges),
        intermediate_values={
            part * _PART + step: value - reference[part]
            for part, step, value in trial.values
            if part in reference and trial.state != FAILED
        },
    )


def _reference(study: Study) -> dict[int, float]:
    """Return the best value that the first complete trial reached in each part.

    Folds differ in how hard they are, so values are compared by their distance from these.
    """
    first = next(iter(study.of(COMPLETE)), None)
    best: dict[int, float] = {}
    for part, _, value in first.values if first else ():
        best[part] = min(value, best.get(part, math.inf))
    return best


def _within(settings: Mapping[str, Any], ranges: Ranges) -> bool:
    """Tell whether the settings lie within the ranges; defaults need not."""
    return all(each.holds(settings[name]) for name, each in ranges.items())


def _distributions(ranges: Ranges) -> dict[str, BaseDistribution]:
    return {name: _distribution(each) for name, each in ranges.items()}


def _distribution(each: Range) -> BaseDistribution:
    if not isinstance(each, Numbers):
        return CategoricalDistribution([value_text(value) for value in each.values])
    if each.whole:
        return IntDistribution(int(each.low), int(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def _params(settings: dict[str, Any], ranges: Ranges) -> dict[str, Any]:
    """Return settings as Optuna sees them: choices are words."""
    return {
        name: settings[name] if isinstance(each, Numbers) else value_text(settings[name])
        for name, each in ranges.items()
    }


def _settings(trial: optuna.Trial, ranges: Ranges) -> dict[str, Any]:
    return {name: _value(each, trial.params[name]) for name, each in ranges.items()}


def _value(each: Range, param: Any) -> Any:
    """Return the value that Optuna's choice stands for; four digits of a number are enough to write down."""
    if not isinstance(each, Numbers):
        return next(value for value in each.values if value_text(value) == param)
    return param if each.whole else min(max(float(f"{param:.4g}"), each.low), each.high)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
