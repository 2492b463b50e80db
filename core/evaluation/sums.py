# SPDX-License-Identifier: GPL-2.0-or-later
"""Sums per origin: what measures are pooled from, added up, and drawn again by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

S = TypeVar("S", bound="Sums")


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the cells of each origin, or of each step.

    All fields are float64 arrays of one shape `(origins, …)`; fields of fewer axes are repeated. The measures
    are properties that divide sums by sums. They are those of each origin here, and those of all origins
    together in what :meth:`pooled` returns: sums are added up before they are divided, so that a period
    without events neither counts as a failure nor falls out.
    """

    def __post_init__(self) -> None:
        names = [each.name for each in fields(self)]
        values = (np.asarray(getattr(self, name), np.float64) for name in names)
        for name, value in zip(names, np.broadcast_arrays(*values)):
            object.__setattr__(self, name, value[()])  # a number, where there are no axes

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __add__(self: S, other: S) -> S:
        return type(self)(*(a + b for a, b in zip(self._values(), other._values())))

    def pooled(self: S) -> S:
        """Return the sums over all origins."""
        return self._each(lambda value: value.sum(axis=0))

    def weighted(self: S, weights: np.ndarray) -> S:
        """Return sums over origins that count several times or not at all.

        Parameters
        ----------
        weights : numpy.ndarray
            `(draws, origins)`; the result has the shape `(draws, …)`.
        """
        return self._each(lambda value: np.tensordot(weights, value, axes=1))

    def origins(self: S, chosen: slice | np.ndarray) -> S:
        """Return the sums of some origins."""
        return self._each(lambda value: value[chosen])

    def at(self: S, index: int) -> S:
        """Return the sums of one entry of the last axis, such as one budget of area."""
        return self._each(lambda value: value[..., index])

    def grouped(self: S, size: int) -> S:
        """Return the sums of each `size` consecutive entries: those of origins, from those of their steps."""
        return self._each(lambda value: value.reshape(-1, size, *value.shape[1:]).sum(axis=1))

    @classmethod
    def joined(cls: type[S], parts: Sequence[S]) -> S:
        """Return the sums of all origins of several parts, one after the other."""
        return cls(*(np.concatenate(values) for values in zip(*(part._values() for part in parts))))

    def _each(self: S, change: Callable[[np.ndarray], np.ndarray]) -> S:
        return type(self)(*map(change, self._values()))

    def _values(self) -> list[np.ndarray]:
        return [getattr(self, each.name) for each in fields(self)]


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0."""
    there = np.asarray(whole) != 0
    return np.where(there, part / np.where(there, whole, 1.0), np.nan)[()]
