# SPDX-License-Identifier: GPL-2.0-or-later
"""What all hot-spot classifiers share: labels, samples, inputs, probabilities, decision threshold."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..evaluation.classification import best_threshold, score
from ..features import historical_average
from ..labels import LabelRule, candidates, check_candidates
from ..reporter import Reporter
from ..training.channels import Scaling
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState, NetworkForecaster
from .settings import NetworkSettings

#: Ways to make up for cold cells being many more than hot ones.
BALANCES = ("none", "weights", "undersample")
SPLIT_MODES = ("chronological", "random")

# Of a random split, as in the longer paper of the Spatio-LSTM.
_RANDOM_SHARES = (0.8, 0.1)

COUNTS = "counts"


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(NetworkSettings):
    """Settings that all :class:`HotspotClassifier` have.

    Attributes
    ----------
    label_rule, label_value
        See :class:`~..labels.LabelRule`.
    candidates : {"training", "all_steps", "all_cells"}
        Cells that are learned from and judged, see :func:`~..labels.candidates`.
    balance : {"none", "weights", "undersample"}
        Weights: hot and cold samples have the same weight in the loss. Undersample: as many cold samples
        as hot ones, chosen by chance. Probabilities are corrected for either, see
        :attr:`Samples.odds_ratio`.
    split_mode : {"chronological", "random"}
        Random: the samples of all periods of the split together are dealt out anew, 80/10/10, after
        undersampling, as published. Windows of neighbouring steps overlap, so what is validated on has
        been seen in training: for reproduction only.
    raw : bool
        Feed the counts as they are (published) instead of standardised log(1 + count).
    """

    lookback: int = 6
    label_rule: str = "top_cells"
    label_value: float = 20.0
    candidates: str = "training"
    balance: str = "none"
    split_mode: str = "chronological"
    raw: bool = False
    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 0.001
    patience: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rule()
        check_candidates(self.candidates)
        self._check_choice("balance", BALANCES)
        self._check_choice("split_mode", SPLIT_MODES)

    def rule(self) -> LabelRule:
        """Return the rule for hot cells."""
        return LabelRule(self.label_rule, self.label_value)

    def class_weights(self, hot: float, cold: float) -> tuple[float, float]:
        """Return the weights of a cold and of a hot sample, given how many there are of each."""
        if self.balance != "weights" or not (hot and cold):
            return 1.0, 1.0
        return 0.5 * (hot + cold) / cold, 0.5 * (hot + cold) / hot


@dataclass(frozen=True, eq=False)
class Samples:
    """Cells and steps that are learned from and judged on.

    Attributes
    ----------
    labels : numpy.ndarray
        bool `(steps, y, x)`: hot or not.
    candidates : numpy.ndarray
        bool `(y, x)`: cells that have samples at all.
    train, validation, test : numpy.ndarray
        float32 `(steps, y, x)`: weight of each sample in the loss, 0 where there is none. In `test` it
        is 1 for every sample, as tests are not balanced.
    odds_ratio : float
        Odds of hot to cold in nature over those in the training as it is balanced. Multiplying the odds
        of a network's output by this undoes what balancing does to its probabilities.
    """

    labels: np.ndarray
    candidates: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    odds_ratio: float

    @property
    def hot_share(self) -> float:
        """Share of hot samples in the training as it is balanced, never quite 0 or 1."""
        hot, cold = _kinds(self.train, self.labels)
        # Half a sample of each kind is added: a network's bias cannot start at infinity.
        return (hot + 0.5) / (hot + cold + 1.0)

    @classmethod
    def draw(cls, cube: Cube, split: Split, settings: ClassifierSettings) -> Samples:
        """Label the steps of a cube and choose samples from the periods of a split.

        Raises
        ------
        InputError
            No sample, no hot cell, or a split that leaves nothing to validate on.
        """
        valid = cube.grid.valid
        labels = settings.rule().hot(cube.total, valid)
        chosen = candidates(labels, valid, split.train_stop, settings.candidates)
        random = np.random.default_rng(settings.seed)
        undersample = settings.balance == "undersample"
        if settings.split_mode == "random":
            stop = max(split.validation_stop, split.test_stop)
            everything = _period(labels.shape, chosen, split.train_start, stop)
            if undersample:
                everything = _undersampled(everything, labels, random)
            periods = _dealt_out(everything, random)
            natural = train = periods[0]
        else:
            bounds = (
                (split.train_start, split.train_stop),
                (split.validation_start, split.validation_stop),
                (split.test_start, split.test_stop),
            )
            periods = [_period(labels.shape, chosen, *each) for each in bounds]
            natural = train = periods[0]
            if undersample:
                train = _undersampled(natural, labels, random)
        hot, cold = _kinds(train, labels)
        weight = np.array(settings.class_weights(hot, cold), np.float32)[labels.astype(int)]
        train = train * weight
        odds = odds_of(natural, labels) / odds_of(train, labels)
        samples = cls(labels, chosen, train, periods[1] * weight, periods[2], odds)
        if not samples.train.any() or not samples.validation.any():
            raise InputError(
                "There are no samples to train on or none to validate on.",
                hint="Use a longer period, shorter steps or a shorter lookback.",
                parameter="LOOKBACK",
                value=settings.lookback,
            )
        return samples


def _period(shape: tuple[int, ...], cells: np.ndarray, start: int, stop: int) -> np.ndarray:
    samples = np.zeros(shape, np.float32)
    samples[start:stop] = cells
    return samples


def _undersampled(samples: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Keep as many cold samples as there are hot ones, chosen by chance."""
    cold = np.flatnonzero((samples > 0) & ~labels)
    hot = int(((samples > 0) & labels).sum())
    if not hot:
        raise InputError(
            "No sample is hot, so undersampling would leave nothing.",
            hint="Choose BALANCE none, a lower LABEL_VALUE or a longer period.",
            parameter="BALANCE",
            value="undersample",
        )
    result = samples.copy()
    result.reshape(-1)[random.permutation(cold)[hot:]] = 0
    return result


def _dealt_out(samples: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Split samples by chance, whatever their step."""
    order = random.permutation(np.flatnonzero(samples))
    ends = np.round(np.cumsum(_RANDOM_SHARES) * len(order)).astype(int)
    parts = []
    for part in np.split(order, ends):
        parts.append(np.zeros_like(samples))
        parts[-1].reshape(-1)[part] = 1
    return parts


def _kinds(samples: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the weight of all hot samples and of all cold ones."""
    return float(samples[labels].sum(dtype=np.float64)), float(samples[~labels].sum(dtype=np.float64))


def odds_of(samples: np.ndarray, labels: np.ndarray) -> float:
    """Return the odds of hot to cold; 1 if all samples are of one kind."""
    hot, cold = _kinds(samples, labels)
    return hot / cold if hot and cold else 1.0


@dataclass(frozen=True, eq=False)
class Inputs:
    """What networks see of the steps of a cube: scaled counts and covariates.

    Attributes
    ----------
    cube : Cube
        Where they come from.
    counts : numpy.ndarray
        float32 `(steps, y, x)`; cells outside the study area are as cells without events.
    covariates : dict of str to numpy.ndarray
        float32, shaped as in the cube; standardised, 0 where nothing is known.
    scaling : Scaling
        What has been applied.
    """

    cube: Cube
    counts: np.ndarray
    covariates: dict[str, np.ndarray]
    scaling: Scaling

    @classmethod
    def learn(
        cls, cube: Cube, names: tuple[str, ...], raw: bool, cells: np.ndarray, train_stop: int
    ) -> Inputs:
        """Learn the scaling from the steps before `train_stop` and the given cells, and apply it.

        Raises
        ------
        InputError
            The cube has no covariate of this name.
        """
        for name in names:
            if name not in cube.covariates:
                known = ", ".join(cube.covariates) or "none; 'Add Covariates to Cube' adds them"
                raise InputError(
                    "The cube has no such covariate.",
                    hint=f"It has: {known}.",
                    parameter="COVARIATES",
                    value=name,
                )
        moments = {COUNTS: (0.0, 1.0)}
        if not raw:
            moments[COUNTS] = _moments(np.log1p(cube.total[:train_stop, cells]))
        for name in names:
            covariate = cube.covariates[name]
            values = covariate.values
            if covariate.dimensions[0] == "time":
                values = values[:train_stop]
            moments[name] = _moments(values[..., cells] if covariate.dimensions[-1] == "x" else values)
        scaling = Scaling(
            {name: mean for name, (mean, _) in moments.items()},
            {name: deviation for name, (_, deviation) in moments.items()},
        )
        return cls.of(cube, raw, scaling)

    @classmethod
    def of(cls, cube: Cube, raw: bool, scaling: Scaling) -> Inputs:
        """Apply a scaling that was learned before."""
        counts = np.where(cube.grid.valid, cube.total, 0)
        names = [name for name in scaling.mean if name != COUNTS]
        missing = [name for name in names if name not in cube.covariates]
        if missing:
            raise InputError(
                f"The model needs the covariates {', '.join(names)}, the cube lacks {', '.join(missing)}.",
                hint="Add them with 'Add Covariates to Cube'.",
                parameter="COVARIATES",
                value=missing[0],
            )
        return cls(
            cube,
            scaling.apply(COUNTS, counts if raw else np.log1p(counts)),
            {name: scaling.apply(name, cube.covariates[name].values) for name in names},
            scaling,
        )


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of what is known; a constant is not divided by nothing."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not known.size:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


class HotspotClassifier(NetworkForecaster):
    """Forecasts the probability that a cell is a hot spot.

    A forecast is 0 for cells of the study area that are no candidates, as the classifier has not learned
    anything about them.

    Attributes
    ----------
    samples_ : Samples or None
        What was learned from; not saved.
    threshold_ : float
        Cells with at least this probability are called hot: the best F1 on the validation samples.
    scores_ : dict
        Scores by period (``validation``, and ``test`` if the split has one) and threshold (``best``,
        ``half``).
    """

    quantity = "hot"
    settings: ClassifierSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.candidates_: np.ndarray | None = None
        self.samples_: Samples | None = None
        self.odds_ratio_ = 1.0
        self.threshold_ = 0.5
        self.scores_: dict[str, dict[str, dict[str, float | None]]] = {}

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates that the network sees."""
        return ()

    def labels(self, cube: Cube) -> np.ndarray:
        """Return what the forecasts are of: bool `(steps, y, x)`, hot or not."""
        return self.settings.rule().hot(cube.total, cube.grid.valid)

    def outcome(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        return self.labels(cube.steps(start, stop))

    def hot_rule(self) -> dict[str, Any]:
        settings = self.settings
        return {"rule": settings.label_rule, "value": settings.label_value, "threshold": self.threshold_}

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> HotspotClassifier:
        assert start is None or isinstance(start, HotspotClassifier)
        settings = self.settings
        _warn(settings, reporter)
        samples = Samples.draw(cube, split, settings)
        if start is None:
            inputs = Inputs.learn(cube, self.covariates, settings.raw, samples.candidates, split.train_stop)
        else:
            assert start.scaling_ is not None, "fit or restore first"
            inputs = Inputs.of(cube, settings.raw, start.scaling_)
        self.samples_ = samples
        self.scaling_ = inputs.scaling
        self.candidates_ = samples.candidates
        self.odds_ratio_ = samples.odds_ratio
        self.history_ = self._learn(inputs, samples, reporter, checkpoint, start)
        self._judge(inputs, samples, reporter)
        return self

    @abstractmethod
    def _learn(
        self,
        inputs: Inputs,
        samples: Samples,
        reporter: Reporter,
        checkpoint: Checkpoint | None,
        start: HotspotClassifier | None,
    ) -> dict[str, list[float]]:
        """Build `network_`, train it and return the history of the training."""

    @abstractmethod
    def _output(self, inputs: Inputs, steps: np.ndarray) -> np.ndarray:
        """Return the network's probability of hot at the candidates in these steps: `(n, y, x)`."""

    def _probability(self, inputs: Inputs, steps: np.ndarray) -> np.ndarray:
        """Return P(hot) in these steps, float32 `(n, y, x)`; NaN outside the study area."""
        assert self.candidates_ is not None, "fit or restore first"
        p = self._output(inputs, steps) * self.candidates_
        p = corrected(p, self.odds_ratio_)
        p[:, ~inputs.cube.grid.valid] = np.nan
        return p

    def _judge(self, inputs: Inputs, samples: Samples, reporter: Reporter) -> None:
        """Choose the threshold on the validation samples, and score these and the test samples."""
        found = {}
        for name in ("validation", "test"):
            used = getattr(samples, name) > 0
            steps = np.flatnonzero(used.any(axis=(1, 2)))
            if len(steps):
                chosen = used[steps]
                found[name] = samples.labels[steps][chosen], self._probability(inputs, steps)[chosen]
            reporter.check()
        self.threshold_ = best_threshold(*found["validation"])
        self.scores_ = {
            name: {
                "best": score(*each, self.threshold_).as_values(),
                "half": score(*each, 0.5).as_values(),
            }
            for name, each in found.items()
        }

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        """Forecast each of the steps `start` … `stop - 1` from the steps before it.

        Returns
        -------
        numpy.ndarray
            float32 `(stop - start, y, x)`: P(hot); NaN outside the study area, 0 where it is no candidate.
        """
        self.check_history(cube, start)
        assert self.scaling_ is not None, "fit or restore first"
        past = self.settings.lookback
        inputs = Inputs.of(cube.steps(start - past, stop - 1), self.settings.raw, self.scaling_)
        return self._probability(inputs, np.arange(past, past + stop - start))

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        """Forecast the `horizon` steps from `origin` on, knowing steps before `origin` only.

        A probability of being hot is no count and cannot stand in for what will happen. From the second
        step on, each cell's mean of the last 365 days before the origin takes the place of the counts
        that are not known yet, at candidates and at their neighbours alike; covariates that change with
        time are taken as unknown. Counts of single steps scatter about that mean, so forecasts further
        ahead lean on the long-term level of the cells.

        Returns
        -------
        numpy.ndarray
            float32 `(horizon, y, x)`: P(hot), see :meth:`predict_next`.
        """
        reporter = reporter or Reporter()
        self.check_history(cube, origin)
        if horizon < 1:
            raise InputError("The horizon must be at least one step.", parameter="HORIZON", value=horizon)
        first = max(0, origin - max(self.history, cube.axis.steps_per_year))
        known = cube.steps(first, origin)
        at = len(known)
        mean = historical_average(known.total, known.axis)[at]
        continued = known.continued(horizon)
        continued.events[at:, 0] = mean
        result = np.full((horizon, *cube.grid.shape), np.nan, np.float32)
        for ahead in range(horizon):
            result[ahead] = self.predict_next(continued, at + ahead, at + ahead + 1)[0]
            reporter.progress((ahead + 1) / horizon)
        return result

    def state(self) -> ModelState:
        assert self.scaling_ is not None and self.candidates_ is not None, "fit or restore first"
        values = {
            "scaling": self.scaling_.as_values(),
            "odds_ratio": self.odds_ratio_,
            "threshold": self.threshold_,
            "scores": self.scores_,
            "history": self.history_,
        }
        return ModelState(values, {"candidates": self.candidates_}, {"network": self.network_})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> HotspotClassifier:
        model = cls(**settings)
        model.scaling_ = Scaling(**state.values["scaling"])
        model.odds_ratio_ = state.values["odds_ratio"]
        model.threshold_ = state.values["threshold"]
        model.scores_ = state.values["scores"]
        model.history_ = state.values["history"]
        model.candidates_ = state.arrays["candidates"]
        model.network_ = state.networks["network"]
        return model


def corrected(probability: np.ndarray, odds_ratio: float) -> np.ndarray:
    """Multiply the odds of probabilities: float32, 0 and 1 stay as they are."""
    p = np.asarray(probability, np.float64)
    return (p * odds_ratio / (p * odds_ratio + 1.0 - p)).astype(np.float32)


def _warn(settings: ClassifierSettings, reporter: Reporter) -> None:
    """Say which settings look into the future."""
    if settings.split_mode == "random":
        reporter.warning(
            "SPLIT_MODE random: windows of training and validation samples overlap, so the scores are too "
            "good. It serves to reproduce published numbers only."
        )
    if settings.candidates == "all_steps":
        reporter.warning(
            "CANDIDATES all_steps: the cells were chosen by what happens after the training, so the scores "
            "are too good. It serves to reproduce published numbers only."
        )
