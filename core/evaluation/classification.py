# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of probabilities against yes and no, and the threshold that turns one into the other."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from sklearn import metrics

NAN = float("nan")


@dataclass(frozen=True)
class ClassificationScores:
    """How well probabilities of samples agree with their labels.

    A measure that is not defined is NaN: precision if nothing is flagged, recall without a positive
    sample, F1 without both, balanced accuracy, AUC and average precision if all samples are of one kind,
    and everything if there is no sample at all.

    Attributes
    ----------
    threshold : float
        Samples with at least this probability are flagged.
    true_positives, false_positives, false_negatives, true_negatives : int
        The confusion matrix.
    accuracy, balanced_accuracy, precision, recall, f1 : float
        Of the flags; balanced accuracy is the mean of the recall of both kinds.
    auc, average_precision : float
        Of the order of the probabilities.
    brier, log_loss : float
        Of the probabilities themselves: mean squared error and mean negative log likelihood (in nats).
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    accuracy: float
    balanced_accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    average_precision: float
    brier: float
    log_loss: float

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    def as_values(self) -> dict[str, float | None]:
        """Return plain values for a file; None where a measure is not defined."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def score(labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> ClassificationScores:
    """Score probabilities against labels.

    Parameters
    ----------
    labels : numpy.ndarray
        bool, any shape.
    probabilities : numpy.ndarray
        Of the same shape, from 0 to 1.
    threshold : float
        Samples with at least this probability are flagged.

    Raises
    ------
    ValueError
        The shapes differ, or a probability is none.
    """
    if np.shape(labels) != np.shape(probabilities):
        raise ValueError(f"{np.shape(labels)} labels, but {np.shape(probabilities)} probabilities")
    y = np.asarray(labels, bool).ravel()
    p = np.asarray(probabilities, np.float64).ravel()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must lie between 0 and 1")
    flagged = p >= threshold
    tp, fp = int((flagged & y).sum()), int((flagged & ~y).sum())
    fn, tn = int((~flagged & y).sum()), int((~flagged & ~y).sum())
    recall = _ratio(tp, tp + fn)
    both = 0 < tp + fn < len(y)
    return ClassificationScores(
        threshold=float(threshold),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        true_negatives=tn,
        accuracy=_ratio(tp + tn, len(y)),
        balanced_accuracy=(recall + _ratio(tn, tn + fp)) / 2,
        precision=_ratio(tp, tp + fp),
        recall=recall,
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        auc=float(metrics.roc_auc_score(y, p)) if both else NAN,
        average_precision=float(metrics.average_precision_score(y, p)) if both else NAN,
        brier=float(np.mean((p - y) ** 2)) if len(y) else NAN,
        log_loss=float(metrics.log_loss(y, p, labels=[False, True])) if len(y) else NAN,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the threshold with the best F1; 0.5 if no sample is positive.

    It lies half way between the lowest probability that is flagged and the next one below, so that
    neither depends on rounding. Of several best thresholds it is the highest.
    """
    y = np.asarray(labels, bool).ravel()
    p = np.asarray(probabilities, np.float64).ravel()
    if not y.any():
        return 0.5
    order = np.argsort(-p, kind="stable")
    y, p = y[order], p[order]
    hits = np.cumsum(y)
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + hits[-1])
    # Samples with the same probability are flagged together.
    last = np.append(p[:-1] > p[1:], True)
    best = int(np.argmax(np.where(last, f1, -1.0)))
    below = p[best + 1] if best + 1 < len(p) else 0.0
    return float((p[best] + below) / 2)
