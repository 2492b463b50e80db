# SPDX-License-Identifier: GPL-2.0-or-later
"""Turning the outputs of a network into probabilities that come true as often as they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FORMS = ("platt", "isotonic", "none")

_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rising curve from outputs to probabilities.

    Attributes
    ----------
    form : {"platt", "isotonic", "none"}
        Platt: the log odds are stretched and moved (Platt 1999), which keeps the order of cells. Isotonic:
        a rising curve of steps, with straight lines between them (Zadrozny & Elkan 2002), which fits any
        shape and makes ties.
    x, y : numpy.ndarray
        float64. Platt: `x` holds slope and intercept. Isotonic: outputs and their probabilities.
    """

    form: str
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def none(cls) -> Calibration:
        """Return the curve that changes nothing."""
        return cls("none", np.zeros(0), np.zeros(0))

    @classmethod
    def fit(cls, form: str, outputs: np.ndarray, events: np.ndarray) -> Calibration:
        """Learn the curve from outputs (0 to 1) and what happened (bool), both `(n,)`.

        With one kind of outcome only there is nothing to learn, and the result is :meth:`none`.
        """
        if form == "none" or events.all() or not events.any():
            return cls.none()
        if form == "platt":
            return cls(form, _platt(_log_odds(outputs), events.astype(float)), np.zeros(0))
        x, y = _isotonic(outputs.astype(float), events.astype(float))
        return cls(form, x, y)

    def apply(self, outputs: np.ndarray) -> np.ndarray:
        """Return probabilities, float32 of the same shape; NaN stays NaN."""
        if self.form == "platt":
            slope, intercept = self.x
            return (1 / (1 + np.exp(-(slope * _log_odds(outputs) + intercept)))).astype(np.float32)
        if self.form == "isotonic":
            return np.where(np.isnan(outputs), np.nan, np.interp(outputs, self.x, self.y)).astype(np.float32)
        return outputs.astype(np.float32)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    inner = np.clip(probability.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.log(inner / (1 - inner))


def _platt(score: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return slope and intercept of a logistic regression, with the targets that Platt recommends.

    A slope that would turn the order of cells round is replaced by the nearest one that does not.
    """
    positive = event.sum()
    target = np.where(event > 0, (positive + 1) / (positive + 2), 1 / (len(event) - positive + 2))
    middle, spread = float(score.mean()), float(score.std())
    if spread < 1e-9:
        # Outputs that are all alike, up to rounding.
        spread = 1.0
    design = np.column_stack([(score - middle) / spread, np.ones_like(score)])
    flat = np.array([1e-3, float(np.log(target.mean() / (1 - target.mean())))])
    weights = flat
    for _ in range(100):
        probability = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (probability - target)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        # A long step of Newton's method may overshoot far from the minimum.
        weights = weights - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    if weights[0] < flat[0]:
        weights = flat
    slope = float(weights[0]) / spread
    return np.array([slope, float(weights[1]) - slope * middle])


def _isotonic(output: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=_EDGE, y_max=1 - _EDGE, out_of_bounds="clip").fit(output, event)
    return model.X_thresholds_.astype(float), model.y_thresholds_.astype(float)
