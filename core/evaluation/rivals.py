# SPDX-License-Identifier: GPL-2.0-or-later
"""Classifiers of scikit-learn on the very samples of the Spatio-LSTM, to compare it with. Never saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from ..cube import Cube
from ..errors import InputError
from ..models.classifier import Inputs, Samples, corrected, odds_of
from ..models.spatiolstm import CellWindows, SpatioLSTMSettings, sample_index
from ..reporter import Reporter
from ..training.splits import Split
from .classification import ClassificationScores, best_threshold, score

# The time that a support vector machine takes grows with the square of the samples.
_SVC_SAMPLES = 20_000

#: Rivals by name, in the order of the table of the poster; each is made from a seed.
RIVALS: dict[str, Callable[[int], Any]] = {
    "decision_tree": lambda seed: DecisionTreeClassifier(min_samples_leaf=5, random_state=seed),
    "random_forest": lambda seed: RandomForestClassifier(200, min_samples_leaf=2, random_state=seed),
    "gaussian_nb": lambda seed: GaussianNB(),
    "lda": lambda seed: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "svc": lambda seed: make_pipeline(StandardScaler(), SVC(random_state=seed)),
    "mlp": lambda seed: make_pipeline(
        StandardScaler(), MLPClassifier((50,), early_stopping=True, max_iter=100, random_state=seed)
    ),
    "logistic_regression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}

#: What every rival has to beat: a forecast that says the same of all cells, cold.
ALWAYS_COLD = "always_cold"


def compare(
    cube: Cube, split: Split, settings: SpatioLSTMSettings, reporter: Reporter
) -> dict[str, ClassificationScores]:
    """Train all rivals on the samples that a Spatio-LSTM with these settings has, and score them.

    Labels, candidates, split, balance and scaling are those of the network; the features are its windows,
    calendar and place, side by side. As there, the threshold is chosen on the validation samples for the
    best F1 and probabilities are corrected for the balance. The scores are of the test samples, or of the
    validation samples if the split has no test period (then the threshold is a little too good for all).

    Returns
    -------
    dict
        By the names of :data:`RIVALS`, and :data:`ALWAYS_COLD`.

    Raises
    ------
    InputError
        As in training the network; or all training samples are of one kind.
    """
    samples = Samples.draw(cube, split, settings)
    inputs = Inputs.learn(cube, (), settings.raw, samples.candidates, split.train_stop)
    windows = CellWindows(inputs, settings.lookback, settings.neighbourhood, settings.timing)
    x, y, weight = _table(windows, samples, samples.train, settings.location)
    if y.all() or not y.any():
        raise InputError(
            "All training samples are of one kind, so there is nothing to tell apart.",
            hint="Choose another LABEL_VALUE or CANDIDATES, or a longer period.",
            parameter="LABEL_VALUE",
            value=settings.label_value,
        )
    held_out = samples.test if samples.test.any() else samples.validation
    validation_x, validation_y, _ = _table(windows, samples, samples.validation, settings.location)
    test_x, test_y, _ = _table(windows, samples, held_out, settings.location)
    # Half above any probability, as the share of the hot samples can be anything.
    share = np.full(len(test_y), samples.odds_ratio * odds_of(weight, y))
    scores = {ALWAYS_COLD: score(test_y, share / (1 + share), threshold=1.0)}
    for number, (name, make) in enumerate(RIVALS.items()):
        fitted = _fit(name, make(settings.seed), x, y, weight, settings.seed)
        p, test_p = (
            corrected(_probability(fitted, features), samples.odds_ratio)
            for features in (validation_x, test_x)
        )
        scores[name] = score(test_y, test_p, best_threshold(validation_y, p))
        reporter.progress((number + 1) / len(RIVALS))
    return scores


def _table(
    windows: CellWindows, samples: Samples, weights: np.ndarray, location: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features `(n, features)`, labels `(n,)` and weights `(n,)` of the samples with a weight."""
    steps, cells = sample_index(weights)
    features = windows.windows(steps, cells).reshape(len(steps), -1)
    if location:
        features = np.concatenate([features, windows.places(cells)], axis=1)
    chosen = weights > 0
    return features, samples.labels[chosen], weights[chosen]


def _fit(name: str, model: Any, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> Any:
    if name == "svc" and len(y) > _SVC_SAMPLES:
        chosen = np.random.default_rng(seed).permutation(len(y))[:_SVC_SAMPLES]
        x, y, weight = x[chosen], y[chosen], weight[chosen]
    if name == "lda":
        # It knows no weights of samples, but shares of the kinds.
        hot = float(weight[y].sum() / weight.sum())
        return model.set_params(priors=[1 - hot, hot]).fit(x, y)
    key = f"{model.steps[-1][0]}__sample_weight" if hasattr(model, "steps") else "sample_weight"
    return model.fit(x, y, **{key: weight})


def _probability(model: Any, x: np.ndarray) -> np.ndarray:
    """Return P(hot) `(n,)`; where a model has none, the logistic function of its distance to the border."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)[:, 1]
    return 1 / (1 + np.exp(-model.decision_function(x)))
