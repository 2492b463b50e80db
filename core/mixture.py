# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the next events will be: a mixture of densities of the past ones, at many scales of space and time.

Of each cell and its surroundings (Gaussians), the past is counted with many half-lives; each such count,
divided by its sum, is a density over the cells: a kernel. How much each of them counts is learned as the
weights of a mixture are, by expectation-maximisation on what happened next; of late more than long ago, as
cities change, and so does what is recorded of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from .features import DecayedMeans
from .grid import Grid
from .reporter import Reporter

#: Radii of the surroundings (standard deviations of a Gaussian), in cells.
RADII = (0.0, 0.5, 1.0, 2.0, 5.0)
#: Half-lives in days; those shorter than a step are left out.
HALF_LIVES = (0.125, 0.5, 1.0, 3.0, 7.0, 14.0, 30.0, 90.0, 365.0, 1095.0)

# Share of a mixture that is the same everywhere at least: no place is impossible.
_EVERYWHERE = 1e-3
# Rounds of expectation-maximisation; events, and steps at most, that weights are learned from.
_ROUNDS, _MOST_EVENTS, _FITTED_STEPS, _TYPE_STEPS = 200, 200_000, 400, 100
# Half-life in days by which events count less the longer ago they are; longer ones take its place until so
# many events count.
_LATELY, _ENOUGH_EVENTS = 180.0, 1000
# Half-lives in days for types of events, and which of them tells how common a type is.
_TYPE_HALF_LIVES, _TYPE_LEVEL = (30.0, 90.0, 365.0, 1095.0), 90.0


def spans_of(days: float, half_lives: Sequence[float] = HALF_LIVES) -> list[float]:
    """Return the half-lives in days that steps of so many days can tell."""
    return [span for span in half_lives if span >= 0.75 * days]


def around(values: np.ndarray, radius: float, valid: np.ndarray) -> np.ndarray:
    """Return sums over the surroundings `(..., y, x)` of cells, weighted by distance."""
    values = np.where(valid, values, 0.0)
    if radius == 0:
        return values
    spread = (0.0,) * (values.ndim - 2) + (radius, radius)
    result: np.ndarray = ndimage.gaussian_filter(values, spread, mode="constant", truncate=3.0)
    return result


class Past:
    """Weighted sums of the past, of each cell and of its surroundings.

    Parameters
    ----------
    past : DecayedMeans
        Of counts `(..., y, x)`, all that is known so far.
    spans : sequence of float
        Its half-lives, in days.
    """

    def __init__(self, past: DecayedMeans, grid: Grid, spans: Sequence[float]) -> None:
        self._valid, inside = grid.valid, grid.inside
        self.spans = tuple(spans)
        smooth = partial(around, valid=self._valid)
        self._past = [past.mapped(partial(smooth, radius=radius)) for radius in RADII]
        #: How much of the surroundings of each cell lies in the study area, for each radius `(y, x)`.
        self.shares = [np.maximum(smooth(inside, radius=radius), 1e-9) for radius in RADII]
        # By what surroundings are multiplied to tell of the cell, which may lie partly outside.
        self._parts = [self._valid * 1.0, *(inside / share for share in self.shares[1:])]
        self._even = inside / inside.sum()

    @classmethod
    def of(cls, counts: np.ndarray, grid: Grid, days: float) -> Past:
        """Return the past that counts `(steps, ..., y, x)` are, in steps of so many days."""
        spans = spans_of(days)
        return cls(DecayedMeans([span / days for span in spans], counts), grid, spans)

    @property
    def weight(self) -> np.ndarray:
        """float64 `(half_lives,)`: how many steps the past amounts to."""
        return self._past[0].weight

    def sums(self, radius: int) -> np.ndarray:
        """Return the weighted sums for one of :data:`RADII`, by its number: `(half_lives, ..., y, x)`."""
        return self._past[radius].sums

    def advance(self, counts: np.ndarray) -> None:
        """Take in the counts `(..., y, x)` of a further step."""
        for past, radius in zip(self._past, RADII):
            past.advance(around(counts, radius, self._valid))

    def densities(self) -> np.ndarray:
        """Return all kernels, the last one the same everywhere: float64 `(kernels, ..., cells)`."""
        even = self._even[self._valid]
        found = []
        for past, part in zip(self._past, self._parts):
            rates = (past.sums * part)[..., self._valid]
            total = rates.sum(axis=-1, keepdims=True)
            # Where nothing has happened yet, anything may.
            found.append(np.where(total > 0, rates / np.where(total > 0, total, 1), even))
        return np.concatenate([*found, np.broadcast_to(even, (1, *found[0].shape[1:]))])

    def mixed(self, weights: np.ndarray) -> np.ndarray:
        """Return the mixture of the kernels, of one kind of counts: float64 `(y, x)`, sum 1."""
        *parts, rest = np.split(weights, np.arange(1, len(RADII) + 1) * len(self.spans))
        result = float(rest[0]) * self._even
        for past, part, own in zip(self._past, self._parts, parts):
            rates = past.sums * part
            total = rates.sum(axis=(1, 2))
            result = result + own[total <= 0].sum() * self._even
            result += np.tensordot(np.where(total > 0, own, 0.0) / np.where(total > 0, total, 1.0), rates, 1)
        return result

    def moved(self, weights: np.ndarray, spans: Sequence[int], to: int) -> np.ndarray:
        """Return weights in which kernels of some half-lives, by number, leave theirs to another one.

        The surroundings keep their weights.
        """
        found = weights.copy()
        by_radius = found[:-1].reshape(len(RADII), -1)
        away = by_radius[:, list(spans)].sum(axis=1)
        by_radius[:, list(spans)] = 0.0
        by_radius[:, to] += away
        return found


def learned_weights(
    counts: np.ndarray,
    grid: Grid,
    days: float,
    start: int,
    stop: int,
    reporter: Reporter,
    *,
    ahead: int = 1,
) -> np.ndarray:
    """Return the weights of the mixture that tells best where events happen.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)`.
    days : float
        Length of a step.
    start, stop : int
        Steps to learn from: nothing from `stop` on is read.
    reporter : Reporter
        Asked before each step whether to go on.
    ahead : int
        How many steps from each one on are to be told of.

    Returns
    -------
    numpy.ndarray
        float64 `(kernels,)`, sum 1.
    """
    past = Past.of(counts[:start], grid, days)
    learned = _Lessons(days)
    for ago, densities, seen in _lessons(past, counts, grid, start, stop, reporter, ahead, _FITTED_STEPS):
        learned.add(ago, densities, seen)
    return learned.weights(ahead)


class _Lessons:
    """What kernels said of the places of events, on the eve of some steps.

    Parameters
    ----------
    days : float
        Length of a step.
    """

    def __init__(self, days: float) -> None:
        self._days = days
        self._densities: list[np.ndarray] = []
        self._events: list[np.ndarray] = []
        self._ages: list[np.ndarray] = []

    def add(self, ago: int, densities: np.ndarray, seen: np.ndarray) -> None:
        """Take in kernels `(kernels, cells)` and the events `(cells,)` that came, so many steps ago."""
        cells = np.flatnonzero(seen)
        self._densities.append(densities[:, cells].astype(np.float32))
        self._events.append(seen[cells])
        self._ages.append(np.full(len(cells), ago * self._days))

    def weights(self, ahead: int) -> np.ndarray:
        """Return the weights that tell best of them; each event is told of `ahead` times."""
        events = _lately(np.concatenate(self._events), np.concatenate(self._ages), ahead)
        return maximised(np.concatenate(self._densities, axis=1), events)


def _lately(events: np.ndarray, days: np.ndarray, ahead: int) -> np.ndarray:
    """Return events that count less the longer ago they are.

    Parameters
    ----------
    events, days : numpy.ndarray
        `(places,)` how many happened, and how long ago.
    ahead : int
        How often each event is told of.
    """
    half_life = _LATELY
    while True:
        counted: np.ndarray = events * 0.5 ** (days / half_life)
        if counted.sum() >= ahead * _ENOUGH_EVENTS or half_life > days.max(initial=0.0):
            return counted
        half_life *= 2


def _lessons(
    past: Past | TypeMixture,
    counts: np.ndarray,
    grid: Grid,
    start: int,
    stop: int,
    reporter: Reporter,
    ahead: int,
    most: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield for some steps, about `most`, how long ago, kernels on the eve, and what came: `(..., cells)`."""
    last = max(start + 1, stop - ahead + 1)
    every = max(1, (last - start) // most)
    for step in range(start, last):
        reporter.check()
        if (step - start) % every == 0:
            seen = counts[step : min(step + ahead, stop)][..., grid.valid].sum(axis=0, dtype=np.float64)
            yield stop - step, past.densities(), seen
        past.advance(np.where(grid.valid, counts[step], 0.0))


def maximised(densities: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return the weights of kernels with the greatest likelihood, by expectation-maximisation.

    They begin all the same, and stay so where there are no events.

    Parameters
    ----------
    densities : numpy.ndarray
        `(kernels, places)`.
    events : numpy.ndarray
        `(places,)` how many happened there.
    """
    if len(events) > _MOST_EVENTS:
        chosen = np.random.default_rng(1).choice(len(events), _MOST_EVENTS, replace=False)
        densities, events = densities[:, chosen], events[chosen]
    densities = np.maximum(densities, np.float32(1e-12)).astype(np.float32)
    events = events.astype(np.float32)
    weights = np.full(len(densities), 1 / len(densities), np.float32)
    if events.sum() > 0:
        for _ in range(_ROUNDS):
            weights *= densities @ (events / (weights @ densities)) / events.sum()
    result = weights.astype(np.float64) / weights.sum(dtype=np.float64) * (1 - _EVERYWHERE)
    result[-1] += _EVERYWHERE
    return result


class TypeMixture:
    """Where events of each type will be: mixtures of kernels of the type's own past and of that of all types.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, types, y, x)` all that is known so far.
    days : float
        Length of a step.
    """

    def __init__(self, counts: np.ndarray, grid: Grid, days: float) -> None:
        self._grid = grid
        self._spans = spans_of(days, _TYPE_HALF_LIVES)
        self._past = DecayedMeans([span / days for span in self._spans], counts)

    def advance(self, counts: np.ndarray) -> None:
        """Take in the counts `(types, y, x)` of a further step."""
        self._past.advance(counts)

    def densities(self) -> np.ndarray:
        """Return the kernels of each type, its own and then those of all: `(kernels, types, cells)`."""
        own = Past(self._past, self._grid, self._spans).densities()
        together = self._past.mapped(lambda sums: sums.sum(axis=-3))
        every = Past(together, self._grid, self._spans).densities()
        return np.concatenate([own[:-1], np.broadcast_to(every[:, None], (len(every), *own.shape[1:]))])

    def rates(self, weights: np.ndarray) -> np.ndarray:
        """Return events of a step by the weights `(types, kernels)`: float64 `(types, cells)`, above 0."""
        number = self._spans.index(_TYPE_LEVEL)
        sums = self._past.sums[number][..., self._grid.valid].sum(axis=-1)
        level = (sums + 0.5) / max(float(self._past.weight[number]), 1.0)
        return level[:, None] * np.einsum("tk,ktc->tc", weights, self.densities())


def learned_type_weights(
    counts: np.ndarray,
    grid: Grid,
    days: float,
    start: int,
    stop: int,
    reporter: Reporter,
    *,
    ahead: int = 1,
) -> np.ndarray:
    """Return the weights of the mixture of each type: float64 `(types, kernels)`, rows sum to 1.

    Parameters are those of :func:`learned_weights`, but for counts `(steps, types, y, x)`.
    """
    past = TypeMixture(counts[:start], grid, days)
    learned = [_Lessons(days) for _ in range(counts.shape[1])]
    for ago, densities, seen in _lessons(past, counts, grid, start, stop, reporter, ahead, _TYPE_STEPS):
        for number, own in enumerate(learned):
            own.add(ago, densities[:, number], seen[number])
    return np.stack([own.weights(ahead) for own in learned])
