# SPDX-License-Identifier: GPL-2.0-or-later
"""The trials of a search for settings, and the file that keeps them.

The file is replaced as a whole after each trial, so that it is complete whenever a search is broken off.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..errors import InputError
from ..models.settings import value_text

SCHEMA = "study/1"

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
STATES = (COMPLETE, PRUNED, FAILED)

# Which parameters stand behind the parts of a search.
_PARAMETERS = {
    "model": "MODEL",
    "data": "CUBE, TYPES or UNTIL",
    "covariates": "covariates in CUBE",
    "ranges": "RANGES",
    "objective": "OBJECTIVE",
    "area_share": "AREA_SHARE",
    "validation_share": "VALIDATION_SHARE",
    "folds": "FOLDS",
    "seed": "SEED",
}


@dataclass(frozen=True)
class Trial:
    """One combination of settings and what came of it.

    Attributes
    ----------
    number : int
        From 0, which are the defaults.
    state : {"complete", "pruned", "failed"}
        Pruned: given up, because others were better at that point.
    settings : dict
        Values by name, those that are not searched included.
    score : float, optional
        Of all folds together; of complete trials only.
    fold_scores : list of float or None
        Of each fold; None where it is not defined.
    values : list of (part, step, value)
        What was seen on the way, the lower the better; see :class:`~.tune.Judging`.
    epochs : int
        Epochs trained in all folds.
    seconds : float
    error : str
        Why it failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    score: float | None = None
    fold_scores: list[float | None] = field(default_factory=list)
    values: list[tuple[int, int, float]] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Trial:
        """Return the trial of plain values, which :func:`dataclasses.asdict` and JSON have made of it.

        Raises
        ------
        ValueError, TypeError, LookupError, AttributeError
            They are none of a trial.
        """
        settings = read_settings(values["settings"])
        seen = [tuple(each) for each in values["values"]]
        trial = cls(**{**values, "settings": settings, "values": seen})
        if trial.state not in STATES or (trial.state == COMPLETE) != isinstance(trial.score, float):
            raise ValueError(f"trial {trial.number} is not complete")
        return trial

    @property
    def key(self) -> str:
        """Text that is equal for equal settings."""
        return key_of(self.settings)


def read_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings from their plain values: lists are those of tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def key_of(settings: dict[str, Any]) -> str:
    """Return a text that is equal for equal settings."""
    return "; ".join(f"{name} = {value_text(settings[name])}" for name in sorted(settings))


@dataclass
class Study:
    """The trials of one search.

    Attributes
    ----------
    search : dict
        What decides the course of the search, as plain values: model, data, ranges, objective, seed.
    higher_is_better : bool
        Whether a good score is a high one.
    path : pathlib.Path, optional
        File that keeps the trials; without one they are lost with the process.
    """

    search: dict[str, Any]
    higher_is_better: bool
    path: Path | None = None
    trials: list[Trial] = field(default_factory=list)

    @classmethod
    def open(cls, search: dict[str, Any], higher_is_better: bool, path: str | Path | None) -> Study:
        """Return the study of a file, or a new one if there is no file yet.

        Raises
        ------
        InputError
            The file is damaged, or belongs to another search.
        """
        study = cls(search, higher_is_better, Path(path) if path else None)
        if study.path is not None and study.path.exists():
            study.trials = study._read(study.path)
        return study

    def add(self, trial: Trial) -> None:
        """Take up a trial and write the file."""
        self.trials.append(trial)
        if self.path is not None:
            head = f'"schema": {json.dumps(SCHEMA)},\n"search": {json.dumps(self.search, indent=1)}'
            # A line a trial, for people who look into the file.
            lines = ",\n".join(json.dumps(asdict(each)) for each in self.trials)
            with atomic_path(self.path, "STUDY") as part:
                part.write_text(f'{{{head},\n"trials": [\n{lines}\n]}}\n', encoding="utf-8")

    def _read(self, path: Path) -> list[Trial]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(f"unknown schema {content['schema']}")
            found: dict[str, Any] = content["search"]
            trials = [Trial.of(values) for values in content["trials"]]
            if [trial.number for trial in trials] != list(range(len(trials))):
                raise ValueError("a trial is missing")
        except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"The study cannot be read ({type(error).__name__}: {error}).",
                hint="Delete the file, or choose another one.",
                parameter="STUDY",
                value=path,
            ) from error
        other = [name for key, name in _PARAMETERS.items() if found.get(key) != self.search.get(key)]
        if other:
            raise InputError(
                f"The study belongs to a search with other values of {', '.join(other)}.",
                hint="Repeat the values of that search to continue it, or delete the file, or choose another "
                "one.",
                parameter="STUDY",
                value=path,
            )
        return trials

    # -- what came of it -----------------------------------------------------------------------

    def of(self, state: str) -> list[Trial]:
        """Return the trials of a state."""
        return [trial for trial in self.trials if trial.state == state]

    def loss(self, trial: Trial) -> float:
        """Return the score of a complete trial so that lower is better."""
        assert trial.score is not None, "complete trials have a score"
        return -trial.score if self.higher_is_better else trial.score

    @property
    def default(self) -> Trial | None:
        """The trial of the defaults, if it is complete."""
        first = self.trials[0] if self.trials else None
        return first if first and first.state == COMPLETE else None

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best score; of equal ones the first, None if there is none."""
        return min(self.of(COMPLETE), key=self.loss, default=None)

    @property
    def gain(self) -> float | None:
        """How much better the best score is than that of the defaults, in percent of the latter."""
        if self.default is None or self.best is None or not self.default.score:
            return None
        return 100 * (self.loss(self.default) - self.loss(self.best)) / abs(self.default.score)
