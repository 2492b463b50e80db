# SPDX-License-Identifier: GPL-2.0-or-later
"""Self-exciting point process: each event raises the risk around it for a while.

Mohler, Short, Brantingham, Schoenberg & Tita (2011), "Self-exciting point process modeling of crime", with
the parametric kernels of epidemic-type aftershock sequences, on counts of cells and steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage, optimize

from ..cube import Cube
from ..errors import InputError
from ..features import CityPace, DecayedMeans, city_totals
from ..grid import Grid
from ..reporter import Reporter
from ..timesteps import TimeAxis
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState
from .baselines import PacedSettings, check_above_zero
from .kernels import gaussian, smoothed

# What is usual around a cell is taken from so many events at least (15 in Mohler et al.); what a cell has
# itself is drawn towards that as if by so many events more.
_NEIGHBOURS, _PRIOR_EVENTS = 15, 1.0

# Bounds of the estimates: below 1 event triggers an explosion, and the next step is the earliest.
_BRANCHING = (1e-6, 0.98)
_SHORTEST_DELAY = 1.001

# A jump ahead takes at most so many times the way of a pass.
_LONGEST_JUMP = 8.0


@dataclass(frozen=True)
class SelfExcitingSettings(PacedSettings):
    """Settings of :class:`SelfExciting`.

    Attributes
    ----------
    level : bool
        Let the background follow the city's level of the last 28 days.
    weekday : bool
        Let the background follow the weekdays, or weekdays and hours.
    reach : float
        Events trigger others up to this distance in metres along either axis, but at least up to two cells;
        the standard deviation of the distance is at most half of it.
    longest_delay_days : float
        The mean delay is at most this long. What persists for longer is background.
    passes : int
        Passes over the training steps at most.
    tolerance : float
        Training ends when a pass changes the branching by less than this, and delay and distance by less
        than this over the branching, as shares of themselves.
    """

    reach: float = 1000.0
    longest_delay_days: float = 90.0
    passes: int = 90
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_above_zero("reach", self.reach, "Give metres such as 1000.")
        check_above_zero("longest_delay_days", self.longest_delay_days, "90 is a good value.")
        check_above_zero("tolerance", self.tolerance, "0.0001 is a good value.")
        if self.passes < 1:
            raise InputError("The value must be at least 1.", parameter="PASSES", value=self.passes)


@dataclass(frozen=True)
class Triggering:
    """How events trigger others.

    Attributes
    ----------
    branching : float
        Events that one event triggers on average.
    delay : float
        Mean time to a triggered event in steps; delays are 1, 2, … with geometric weights.
    sigma : float
        Standard deviation along either axis of the Gaussian that spreads them, in metres.
    """

    branching: float = 0.3
    delay: float = 14.0
    sigma: float = 300.0

    @property
    def keep(self) -> float:
        """What is left of the excitement from one step to the next."""
        return 1 - 1 / self.delay

    @property
    def half_life(self) -> float:
        """Steps after which half of the excitement is left."""
        return -1 / math.log2(self.keep)

    def logs(self) -> np.ndarray:
        """Return the parameters on scales on which all numbers are allowed."""
        return np.log([self.branching / (1 - self.branching), self.delay - 1, self.sigma])

    @classmethod
    def from_logs(cls, logs: np.ndarray) -> Triggering:
        """Return the kernel of what :meth:`logs` returns, within bounds."""
        odds, beyond, sigma = np.exp(np.clip(logs, -20, 20))
        return cls(
            float(np.clip(odds / (1 + odds), *_BRANCHING)), max(1 + float(beyond), _SHORTEST_DELAY), sigma
        )


class Space:
    """A truncated Gaussian over cells, by its weights along either axis.

    Parameters
    ----------
    grid : Grid
        Whose cells they are.
    reach : float
        In metres; at least two cells.
    """

    def __init__(self, grid: Grid, reach: float) -> None:
        self.side = math.sqrt(math.prod(grid.cell_dimensions))
        width, height = grid.cell_dimensions
        self.reach = max(reach, 2 * max(width, height))
        self._y, self._x = (
            np.arange(-radius, radius + 1) * size
            for size, radius in (
                (height, max(2, round(reach / height))),
                (width, max(2, round(reach / width))),
            )
        )

    def weights(self, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights along y and x, each with the sum 1."""
        along = [np.exp(-0.5 * (distance / sigma) ** 2) for distance in (self._y, self._x)]
        return along[0] / along[0].sum(), along[1] / along[1].sum()

    def spread(self, maps: np.ndarray, sigma: float) -> np.ndarray:
        """Return maps `(steps, y, x)` spread by the kernel; what falls outside the grid is lost."""
        along_y, along_x = self.weights(sigma)
        return self._correlate(maps, along_y, along_x)

    def spread_squares(self, maps: np.ndarray, sigma: float) -> np.ndarray:
        """Return the same with each part multiplied by the square of the distance it has come."""
        along_y, along_x = self.weights(sigma)
        return self._correlate(maps, along_y * self._y**2, along_x) + self._correlate(
            maps, along_y, along_x * self._x**2
        )

    @staticmethod
    def _correlate(maps: np.ndarray, along_y: np.ndarray, along_x: np.ndarray) -> np.ndarray:
        part = ndimage.correlate1d(maps, along_x, axis=-1, mode="constant")
        return ndimage.correlate1d(part, along_y, axis=-2, mode="constant")


class Declustering:
    """Expectation maximisation: which share of each event is background, and what follows from that.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)` events up to the end of the training.
    first : int
        First step to learn from; those before only trigger.
    pace : numpy.ndarray
        `(steps,)` factor of the background.
    grid : Grid
        Cells and study area.
    space : Space
        How far events trigger others.
    longest_delay : float
        Bound of the mean delay in steps.
    """

    # Steps whose excitement is held at a time.
    _BLOCK = 64

    def __init__(
        self,
        counts: np.ndarray,
        first: int,
        pace: np.ndarray,
        grid: Grid,
        space: Space,
        longest_delay: float = math.inf,
    ) -> None:
        self._longest = min(longest_delay, float(len(counts)))
        self._counts, self._pace, self._space, self._valid = counts, pace, space, grid.valid
        self._exposure = float(pace[first:].sum())
        steps, rows, columns = np.nonzero(counts[first:] * grid.valid)
        self._steps, self._cells = steps + first, (rows, columns)
        self._events = counts[(self._steps, rows, columns)].astype(np.float64)
        #: Cells and steps that have events.
        self.events = len(self._events)
        self._usual = self._around(counts[first:], grid, space.side)
        self._inside = grid.valid.astype(np.float64)
        self._by_cell = counts.sum(axis=0, dtype=np.float64) * grid.valid
        self._totals = city_totals(counts, grid.valid)
        # Delays that fit between each step and the end, less those that end before the first step.
        self._left = np.arange(len(counts) - 1, -1, -1)
        self._missed = np.maximum(first - 1 - np.arange(len(counts)), 0)

    @staticmethod
    def _around(counts: np.ndarray, grid: Grid, side: float) -> np.ndarray:
        """Return how the events lie around the cells: shares `(y, x)` with the sum 1 inside, 1 outside.

        Each cell gets what a Gaussian of one, two, four … cells tells, the first that has enough events.
        """
        events = np.where(grid.valid, counts.sum(axis=0, dtype=np.float64), 0.0)
        usual, left, radius = np.zeros(grid.shape), grid.valid, 1
        while left.any():
            width = 2 * radius + 1
            near = ndimage.uniform_filter(events, width, mode="constant") * width**2
            # Sums of whole numbers, but for rounding.
            enough = near >= _NEIGHBOURS - 0.5 if width <= max(events.shape) else True
            spread = smoothed(events[None], grid.inside, gaussian(grid, radius * side))[0]
            usual = np.where(left & enough, spread, usual)
            left, radius = left & ~np.asarray(enough), 2 * radius
        # Half an event in the whole study area stands for "none so far".
        usual += 0.5 * grid.inside / grid.inside.sum()
        return np.where(grid.valid, usual / usual.sum(), 1.0)

    def background(self, shares: np.ndarray) -> np.ndarray:
        """Return the rate of background events per cell, `(y, x)`, for the shares of events that are such.

        It is the mean of the posterior if the prior is a gamma distribution around what is usual there.

        Parameters
        ----------
        shares : numpy.ndarray
            `(events,)`, see :attr:`events`.
        """
        events = self._by_cell_sum(shares)
        return np.where(self._valid, self._rate(events, events.sum(), ...), 0.0)

    def improve(self, shares: np.ndarray, kernel: Triggering) -> tuple[float, np.ndarray, Triggering]:
        """Return the log likelihood of background shares and kernel, and better shares and kernel.

        The background at an event is what the others tell: if it counted itself, events in sparse cells
        would all look like background.
        """
        near, squares, delays = self._excitement(kernel)
        events = self._by_cell_sum(shares)
        others = np.maximum(events[self._cells] - shares, 0.0)
        base = self._pace[self._steps] * self._rate(others, events.sum(), self._cells)
        intensity = base + kernel.branching * near
        weights = self._events * kernel.branching / intensity
        triggered, parents = float(weights @ near), self._parents(kernel)
        expected = self.background(shares).sum() * self._exposure + kernel.branching * parents
        likelihood = float(self._events @ np.log(intensity) - expected)
        better = base / intensity
        if triggered <= 0 or parents <= 0:
            return likelihood, better, Triggering(_BRANCHING[0], kernel.delay, kernel.sigma)
        delay = self._delay_of(float(weights @ delays) / triggered)
        sigma = self._sigma_of(float(weights @ squares) / triggered)
        branching = triggered / self._parents(Triggering(0.5, delay, sigma))
        return likelihood, better, Triggering(float(np.clip(branching, *_BRANCHING)), delay, sigma)

    def _by_cell_sum(self, shares: np.ndarray) -> np.ndarray:
        events = np.zeros(self._valid.shape)
        np.add.at(events, self._cells, self._events * shares)
        return events

    def _rate(self, events: np.ndarray, total: float, cells: Any) -> np.ndarray:
        """Return background rates of cells from their background events and those of all cells."""
        usual = self._usual[cells] * max(float(total), 0.5) / self._exposure
        return (events + _PRIOR_EVENTS) / (self._exposure + _PRIOR_EVENTS / usual)

    def _parents(self, kernel: Triggering) -> float:
        """Return how many events can trigger others where and when these would be seen."""
        seen = self._space.spread(self._inside, kernel.sigma) * self._valid
        in_time = kernel.keep**self._missed - kernel.keep**self._left
        by_step = self._counts.reshape(len(self._counts), -1) @ seen.ravel().astype(np.float32)
        return float(in_time @ by_step)

    def _delay_of(self, mean: float) -> float:
        """Return the delay with which those delays that fit into the training have this mean."""

        def excess(delay: float) -> float:
            keep, seen, sums = 1 - 1 / delay, 0.0, 0.0
            for sign, steps in ((1, self._left), (-1, self._missed)):
                over = keep**steps
                seen += sign * float(self._totals @ (1 - over))
                sums += sign * float(self._totals @ (delay * (1 - over) - steps * over))
            return sums / seen - mean

        return _root(excess, _SHORTEST_DELAY, self._longest)

    def _sigma_of(self, square: float) -> float:
        """Return the sigma with which the distances that stay inside have this mean square."""

        def excess(sigma: float) -> float:
            seen, squares = (
                float((spread(self._inside, sigma) * self._by_cell).sum())
                for spread in (self._space.spread, self._space.spread_squares)
            )
            return squares / seen - square

        return _root(excess, self._space.side / 20, self._space.reach / 2)

    def _excitement(self, kernel: Triggering) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for each event what earlier ones have added there, by one event triggered each.

        Also the same times the square of the distance, and times the delay, each `(events,)`.
        """
        near, squares, delays = (np.zeros(len(self._events)) for _ in range(3))
        shape = (self._BLOCK, *self._valid.shape)
        excitement, delayed = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        now, late = np.zeros(shape[1:], np.float32), np.zeros(shape[1:], np.float32)
        keep = np.float32(kernel.keep)
        for first in range(0, len(self._counts), self._BLOCK):
            length = min(self._BLOCK, len(self._counts) - first)
            for i in range(length):
                excitement[i], delayed[i] = now, late
                now = keep * now + (1 - keep) * (self._counts[first + i] * self._valid)
                late = now + keep * late
            own = slice(*np.searchsorted(self._steps, (first, first + length)))
            if own.start == own.stop:
                continue
            at = (self._steps[own] - first, *(index[own] for index in self._cells))
            near[own] = self._space.spread(excitement[:length], kernel.sigma)[at]
            squares[own] = self._space.spread_squares(excitement[:length], kernel.sigma)[at]
            delays[own] = self._space.spread(delayed[:length], kernel.sigma)[at]
        return near, squares, delays


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function is 0, or the end of the range that is nearer to it."""
    if excess(low) >= 0:
        return low
    if excess(high) <= 0:
        return high
    return float(optimize.brentq(excess, low, high, rtol=1e-6))


class SelfExciting(Forecaster):
    """Background and triggered events, told apart by stochastic declustering.

    The expected events of a cell and step are ::

        pace(step) background(cell) + branching Σ over earlier events g(delay) f(distance)

    g is geometric, f a truncated Gaussian over the centres of the cells, and `branching` the number of
    events that one event triggers, below 1. Background and kernels are fitted to the training steps by
    expectation maximisation, with extrapolation between passes (SQUAREM, Varadhan & Roland 2008). The pace
    is that of the city, see :class:`SelfExcitingSettings`. What is triggered within the step of its cause
    counts as background; what would be triggered outside the study area is lost.

    Later steps are forecast one by one, expected events standing in for those that are not known, which
    gives the exact mean of the process for a given pace, as its intensity is linear in the events.

    Attributes
    ----------
    triggering_ : Triggering
        The fitted kernel; None until the model is fitted or restored.
    background_ : numpy.ndarray
        float64 `(y, x)` expected background events a step; 0 outside the study area.
    """

    key = "self_exciting"
    title = "Self-exciting point process"
    Settings = SelfExcitingSettings
    search = {"reach": "300..2000 log", "longest_delay_days": "14..180 log"}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.triggering_: Triggering | None = None
        self.background_: np.ndarray | None = None
        self._usual_total = 0.0

    @property
    def history(self) -> int:
        return 1

    @property
    def parameter_count(self) -> int:
        return 0 if self.background_ is None else 3 + int((self.background_ > 0).sum())

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> Forecaster:
        """Learn from the training steps; no checkpoint is kept, as a pass takes seconds at most."""
        counts, axis = cube.total[: split.train_stop], cube.axis.slice(0, split.train_stop)
        totals = city_totals(counts, cube.grid.valid)
        self._usual_total = max(float(totals[split.train_start :].sum()), 0.5) / split.train_steps
        space = Space(cube.grid, self.settings.reach)
        longest = max(2.0, self.settings.longest_delay_days * 24 / axis.hours)
        pace = self._pace(totals, axis, 0, split.train_stop)
        fitting = Declustering(counts, split.train_start, pace, cube.grid, space, longest)
        kernel = getattr(start, "triggering_", None) or Triggering(
            delay=min(max(2.0, 14 * 24 / axis.hours), longest), sigma=space.side / 2
        )
        rate, kernel = self._maximise(fitting, kernel, reporter)
        self.background_, self.triggering_ = rate, kernel
        days = kernel.delay * axis.hours / 24
        reporter.message(
            f"Of 100 events {100 * kernel.branching:.0f} are triggered by earlier ones, "
            f"{days:.3g} days later on average and about {kernel.sigma:.0f} m away along either axis."
        )
        return self

    def _maximise(
        self, fitting: Declustering, kernel: Triggering, reporter: Reporter
    ) -> tuple[np.ndarray, Triggering]:
        """Return background and kernel of the greatest likelihood."""
        done = 0

        def improve(shares: np.ndarray, kernel: Triggering) -> tuple[float, np.ndarray, Triggering]:
            nonlocal done
            found = fitting.improve(shares, kernel)
            reporter.metric("log_likelihood", found[0], done)
            done += 1
            reporter.progress(done / self.settings.passes)
            return found

        shares = np.full(fitting.events, 1 - kernel.branching)
        while done < self.settings.passes:
            _, shares, first = improve(shares, kernel)
            likelihood, shares, second = improve(shares, first)
            way, turn = first.logs() - kernel.logs(), second.logs() - 2 * first.logs() + kernel.logs()
            kernel = second
            # Where hardly anything is triggered it does not matter when and where.
            moved = np.abs(second.logs() - first.logs())
            moved[0] = abs(second.branching - first.branching) / second.branching
            if second.branching * float(moved.max()) < self.settings.tolerance:
                break
            length = float(np.linalg.norm(way)) / max(float(np.linalg.norm(turn)), 1e-12)
            if length > 1 and done < self.settings.passes:
                length = min(_LONGEST_JUMP, length)
                ahead = Triggering.from_logs(first.logs() - way + 2 * length * way + length**2 * turn)
                reached, further, better = improve(shares, ahead)
                if reached >= likelihood:
                    shares, kernel = further, better
        return fitting.background(shares), kernel

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        assert self.triggering_ is not None, "fit or restore first"
        valid, counts = cube.grid.valid, cube.total
        past = DecayedMeans([self.triggering_.half_life], counts[:start])
        excitement = np.empty((stop - start, *cube.grid.shape))
        for i in range(stop - start):
            excitement[i] = past.sums[0] * valid
            if start + i < len(counts):
                past.advance(counts[start + i])
        pace = self._pace(city_totals(counts, valid), cube.axis, start, stop)
        return self._intensity(excitement, pace, cube.grid)

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        self.check_origin(cube, origin, horizon)
        assert self.triggering_ is not None, "fit or restore first"
        valid, counts = cube.grid.valid, cube.total[:origin]
        past = DecayedMeans([self.triggering_.half_life], counts)
        axis = cube.axis.slice(0, origin)
        pace = self._pace(city_totals(counts, valid), axis, origin, origin + horizon)
        result = np.empty((horizon, *cube.grid.shape), np.float32)
        for ahead in range(horizon):
            result[ahead] = self._intensity(past.sums * valid, pace[ahead : ahead + 1], cube.grid)[0]
            past.advance(np.where(valid, result[ahead], 0.0))
            if reporter:
                reporter.progress((ahead + 1) / horizon)
        return result

    def _pace(self, totals: np.ndarray, axis: TimeAxis, start: int, stop: int) -> np.ndarray:
        """Return the factor of the background for these steps, float64 `(stop - start,)`."""
        pace, factor = CityPace(totals, axis), np.ones(stop - start)
        if self.settings.level:
            factor *= pace.level(np.full(stop - start, self._usual_total), start, stop)
        if self.settings.weekday:
            factor *= pace.weekday_factor(start, stop)
        return factor

    def _intensity(self, sums: np.ndarray, pace: np.ndarray, grid: Grid) -> np.ndarray:
        """Return expected events, float32 `(steps, y, x)`, from decayed sums of the events before."""
        kernel = self.triggering_
        assert kernel is not None
        assert self.background_ is not None
        spread = Space(grid, self.settings.reach).spread(sums, kernel.sigma)
        rates = pace[:, None, None] * self.background_ + kernel.branching * (1 - kernel.keep) * spread
        return np.where(grid.valid, rates, np.nan).astype(np.float32)

    def state(self) -> ModelState:
        assert self.triggering_ is not None, "fit or restore first"
        assert self.background_ is not None
        values = {"triggering": asdict(self.triggering_), "usual_total": self._usual_total}
        return ModelState(values=values, arrays={"background": self.background_})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> SelfExciting:
        model = cls(**settings)
        model.triggering_ = Triggering(**state.values["triggering"])
        model.background_ = state.arrays["background"]
        model._usual_total = state.values["usual_total"]
        return model
