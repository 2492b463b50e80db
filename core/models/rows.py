# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells of steps as rows to learn from: what is known of each on its eve, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training.fit import Batches

# Bounds of scaled features: what comes once a year may be a hundred times the usual.
_FEATURE_LIMIT, _CITY_LIMIT = 20.0, 4.0
# Rows that are scaled at a time.
_ROWS = 65_536


@dataclass(frozen=True)
class FeatureScaling:
    """Mean and width of each feature, of cells and of the city."""

    cell_mean: np.ndarray
    cell_width: np.ndarray
    city_mean: np.ndarray
    city_width: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray, city: np.ndarray) -> FeatureScaling:
        """Return the scaling of features `(n, features)`; what never changes counts as nothing."""
        values = []
        for features in (cells, city):
            mean, width = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
            values += [mean.astype(np.float32), np.where(width > 1e-4, width, np.inf).astype(np.float32)]
        return cls(*values)

    def cells(self, features: np.ndarray) -> np.ndarray:
        """Return scaled features of cells."""
        return np.clip((features - self.cell_mean) / self.cell_width, -_FEATURE_LIMIT, _FEATURE_LIMIT)

    def city(self, features: np.ndarray) -> np.ndarray:
        """Return scaled features of the city."""
        return np.clip((features - self.city_mean) / self.city_width, -_CITY_LIMIT, _CITY_LIMIT)


class Samples(Batches):
    """Cells of steps, as rows.

    Parameters
    ----------
    blocks : list of tuple of numpy.ndarray
        Of some steps each: place of the step, place of the cell, count, base rate `(rows,)`, features of the
        cell `(rows, features)`, and of the city for all of these steps `(steps, features)`.
    scaling : FeatureScaling, optional
        By default that of these rows.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[np.ndarray, ...]],
        scaling: FeatureScaling | None,
        batch_size: int,
        seed: int | None,
    ) -> None:
        self.step, self.place, self.counts, self.base, self.cells = (
            np.concatenate(part) for part in zip(*(block[:5] for block in blocks))
        )
        city = np.concatenate([block[5] for block in blocks])
        self.scaling = scaling or FeatureScaling.of(self.cells.astype(np.float32), city)
        self.city = self.scaling.city(city)
        # Half precision is more than the features are worth.
        for first in range(0, len(self.cells), _ROWS):
            rows = slice(first, first + _ROWS)
            self.cells[rows] = self.scaling.cells(self.cells[rows].astype(np.float32))
        super().__init__(len(self.counts), batch_size, seed)

    def batch(self, chosen: np.ndarray) -> tuple[Any, Any]:
        inputs = self.cells[chosen].astype(np.float32), self.city[self.step[chosen]]
        log_base = np.log(self.base[chosen])
        target = np.stack([self.counts[chosen], np.ones_like(log_base), log_base], axis=1)
        return inputs, target

    def losses(self, rate: np.ndarray) -> np.ndarray:
        """Return the Poisson loss of each step, as far as it depends on rates `(rows,)`."""
        return np.bincount(self.step, rate - self.counts * np.log(rate), len(self.city))

    def parted(self, corrections: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what corrections `(rows,)` say of places, and of all of a step together."""
        steps = len(self.city)
        weight = np.bincount(self.step, self.base, steps)
        whole = np.bincount(self.step, self.base * corrections, steps) / np.maximum(weight, 1e-6)
        return corrections - whole[self.step], whole[self.step]
