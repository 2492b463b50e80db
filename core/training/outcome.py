# SPDX-License-Identifier: GPL-2.0-or-later
"""What came of a search: in a sentence, in numbers, as a table, and as a record for the model file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from ..models.settings import value_text
from .advice import importance
from .ranges import ranges_text, searched, settings_text
from .study import COMPLETE, FAILED, PRUNED, Study, Trial
from .tune import Prepared

#: A setting that explains less than this share of the differences does not matter more than others.
_MATTERS = 0.3


@dataclass(frozen=True, eq=False)
class Outcome:
    """A search that is over.

    Attributes
    ----------
    prepared : Prepared
        What was searched.
    study : Study
        Its trials, of which at least one is complete.
    importance : dict or None
        See :func:`~.advice.importance`.
    """

    prepared: Prepared
    study: Study
    importance: dict[str, float] | None

    @classmethod
    def of(cls, prepared: Prepared, study: Study) -> Outcome:
        """Look at the trials of a search."""
        return cls(prepared, study, importance(study, searched(prepared.ranges), prepared.search.seed))

    @property
    def best(self) -> Trial:
        """The trial with the best score."""
        best = self.study.best
        assert best is not None, "a search without a score has failed"
        return best

    @property
    def improved(self) -> bool:
        """Whether the best trial is another one than that of the defaults."""
        return self.best is not self.study.default

    @property
    def settings(self) -> str:
        """The best settings as text; ranges can be written so."""
        return settings_text(self.best.settings)

    @property
    def verdict(self) -> str:
        """Plain sentences: was it worth it, and what mattered."""
        count = len(self.study.trials)
        start = f"{count} trial{'' if count == 1 else 's'}"
        if not self.improved:
            return f"{start}; none is better on validation than the defaults: keep the defaults."
        gain = self.study.gain
        if self.study.default is None:
            text = f"{start}; the defaults themselves could not be scored"
        elif gain is None:
            text = f"{start}; the best is better on validation than the defaults"
        else:
            text = f"{start}; the best is {gain:.2g} % better on validation than the defaults"
        if self.importance:
            name, share = next(iter(self.importance.items()))
            if share >= _MATTERS:
                text += f"; {name} mattered most"
        return f"{text}."

    def numbers(self) -> dict[str, float | None]:
        """Return the figures by name; None where there is none."""
        default = self.study.default
        return {
            "best_score": self.best.score,
            "default_score": default.score if default else None,
            "gain": self.study.gain,
            "trials": len(self.study.trials),
            "pruned": len(self.study.of(PRUNED)),
            "failed": len(self.study.of(FAILED)),
        }

    def record(self) -> dict[str, Any]:
        """Return what the file of the best model says about the search."""
        judging, search = self.prepared.judging, self.prepared.search
        return {
            **self.numbers(),
            "objective": judging.objective,
            "area_share": self.study.search["area_share"],
            "folds": [list(fold) for fold in judging.folds],
            "validation_share": judging.validation_share,
            "ranges": ranges_text(self.prepared.ranges),
            "seed": search.seed,
            "best_trial": self.best.number + 1,
            "settings": self.best.settings,
            "importance": self.importance,
            "optuna": optuna.__version__,
        }

    def table(self) -> dict[str, np.ndarray]:
        """Return the trials, counted from 1, as columns by name; NaN where nothing is known."""
        trials = self.study.trials
        default = self.study.default
        gains = [
            100 * (self.study.loss(default) - self.study.loss(trial)) / abs(default.score)
            if default and default.score and trial.state == COMPLETE
            else np.nan
            for trial in trials
        ]
        columns = {
            "trial": np.array([trial.number + 1 for trial in trials], np.int32),
            "state": _words([trial.state for trial in trials]),
            "score": _numbers([trial.score for trial in trials]),
            "gain_pct": np.array(gains),
        }
        for name in searched(self.prepared.ranges):
            columns[name] = _column([trial.settings[name] for trial in trials])
        if len(self.prepared.judging.folds) > 1:
            for fold in range(len(self.prepared.judging.folds)):
                scores = [trial.fold_scores[fold] if trial.fold_scores else None for trial in trials]
                columns[f"fold_{fold + 1}"] = _numbers(scores)
        return columns | {
            "epochs": np.array([trial.epochs for trial in trials], np.int32),
            "seconds": np.array([trial.seconds for trial in trials]),
            "error": _words([trial.error for trial in trials]),
        }


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _words(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _column(values: list[Any]) -> np.ndarray:
    """Return values of a setting: numbers as such, anything else as it is written."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        whole = all(isinstance(value, int) for value in values)
        return np.array(values, np.int32 if whole else float)
    return _words([value_text(value) for value in values])
