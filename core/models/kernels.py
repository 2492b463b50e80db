# SPDX-License-Identifier: GPL-2.0-or-later
"""Baselines that spread past events over space: kernel density and prospective hotspotting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..cube import Cube
from ..errors import InputError
from ..features import RunningSums, decayed_mean
from ..grid import Grid
from ..reporter import Reporter
from ..timesteps import TimeAxis
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster
from .baselines import PacedAverage, PacedSettings, check_above_zero

Spread = Callable[[np.ndarray], np.ndarray]


def gaussian(grid: Grid, bandwidth: float) -> Spread:
    """Return what spreads maps `(steps, y, x)` by a Gaussian, taken at the centres of cells.

    Parameters
    ----------
    bandwidth : float
        Standard deviation in metres.
    """
    width, height = grid.cell_dimensions
    sigma = (0.0, bandwidth / height, bandwidth / width)
    return lambda maps: ndimage.gaussian_filter(maps, sigma, mode="constant")


def smoothed(rates: np.ndarray, inside: np.ndarray, spread: Spread) -> np.ndarray:
    """Spread maps over the study area, corrected for its edge; the total of each map stays.

    What a kernel puts outside is made up for by the share of the kernel that lies inside (Diggle 1985), so
    that an even density stays even up to the edge. Cells get events in proportion to their share inside.

    Parameters
    ----------
    rates : numpy.ndarray
        `(steps, y, x)`; what lies outside does not count.
    inside : numpy.ndarray
        `(y, x)` share of each cell inside the study area.
    spread : callable
        See :func:`gaussian`.

    Returns
    -------
    numpy.ndarray
        float64 `(steps, y, x)`, 0 outside.
    """
    valid = inside > 0
    rates = np.where(valid, rates, 0.0)
    reached = np.where(valid, spread(inside[None])[0], 1.0)
    density = spread(rates) * (inside / reached)
    totals, spread_totals = rates.sum(axis=(1, 2)), density.sum(axis=(1, 2))
    return density * (totals / np.where(spread_totals > 0, spread_totals, 1))[:, None, None]


@dataclass(frozen=True)
class KDESettings(PacedSettings):
    """Settings of :class:`KDE`.

    Attributes
    ----------
    bandwidth : float
        Standard deviation of the Gaussian in metres; 0 for half the side of a cell.
    half_life_days : float
        After so many days an event counts half; 0 if all count the same, however old.
    """

    bandwidth: float = 0.0
    half_life_days: float = 0.0

    def __post_init__(self) -> None:
        for name, hint in (
            ("bandwidth", "Give metres such as 200, or 0 for half the side of a cell."),
            ("half_life_days", "Give days such as 365, or 0 if old events count as new ones do."),
        ):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise InputError(
                    "The value must not be below 0.", hint=hint, parameter=name.upper(), value=value
                )


class KDE(PacedAverage):
    """Kernel density of the past events ("retrospective hotspotting"), scaled to expected events.

    Counts of cells, weighted with an exponential decay if wanted ("decayed KDE"), are spread by a Gaussian,
    see :func:`smoothed`, and brought to the level of the city and its weekdays. (Chainey & Ratcliffe 2005,
    *GIS and Crime Mapping*.)
    """

    key = "kde"
    title = "Kernel density"
    Settings = KDESettings
    search = {
        "bandwidth": "0, 100, 200, 400, 800, 1600",
        "half_life_days": "0, 30, 60, 120, 240, 480",
        **PacedAverage.search,
    }

    def _rates(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        settings = self.settings
        bandwidth = settings.bandwidth or math.sqrt(math.prod(grid.cell_dimensions)) / 2
        half_life = settings.half_life_days * 24 / axis.hours or math.inf
        rates = decayed_mean(counts, half_life, start, stop)
        return smoothed(rates, grid.inside, gaussian(grid, bandwidth))


@dataclass(frozen=True)
class ProMapSettings(PacedSettings):
    """Settings of :class:`ProMap`.

    Attributes
    ----------
    bandwidth : float
        Events in cells whose centre lies farther away, in metres, do not count.
    window_days : float
        Older events do not count (two months).
    """

    bandwidth: float = 400.0
    window_days: float = 61.0

    def __post_init__(self) -> None:
        check_above_zero("bandwidth", self.bandwidth, "Give metres; 400 is what was published.")
        check_above_zero("window_days", self.window_days, "Give days; 61 (two months) is what was published.")


class ProMap(PacedAverage):
    """Prospective hotspotting: recent events near by raise the risk, the more the nearer and newer.

    An event counts 1 / (1 + distance) × 1 / (1 + weeks), the distance being that of the centres of the
    cells in half the side of a cell and the weeks those that have passed in full. The sum of these weights
    is scaled to expected events, with the edge corrected as in :func:`smoothed`. (Bowers, Johnson & Pease
    2004, *Prospective hot-spotting: the future of crime mapping?*, whose cells of 50 m are much smaller
    than the bandwidth.)
    """

    key = "promap"
    title = "Prospective hotspotting"
    Settings = ProMapSettings
    search = {"bandwidth": "100..1600 log", "window_days": "7..365 log", **PacedAverage.search}

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> Forecaster:
        if self._kernel(cube.grid).size == 1:
            width, height = cube.grid.cell_dimensions
            reporter.warning(
                f"Within the bandwidth of {self.settings.bandwidth:g} m of a cell of {width:.0f} x "
                f"{height:.0f} m there is no other: each cell is forecast from its own events alone."
            )
        return self

    def _rates(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int, stop: int) -> np.ndarray:
        kernel = self._kernel(grid)[None]
        rates = self._recent(counts, axis, start, stop)
        return smoothed(rates, grid.inside, lambda maps: ndimage.convolve(maps, kernel, mode="constant"))

    def _kernel(self, grid: Grid) -> np.ndarray:
        """Return the weights of the cells around a cell by distance, of odd height and width."""
        width, height = grid.cell_dimensions
        reach = self.settings.bandwidth
        rows, columns = (int(reach / side) for side in (height, width))
        y = np.arange(-rows, rows + 1)[:, None] * height
        x = np.arange(-columns, columns + 1) * width
        distance = np.hypot(x, y)
        return np.where(distance <= reach, 1 / (1 + distance / (math.sqrt(width * height) / 2)), 0.0)

    def _recent(self, counts: np.ndarray, axis: TimeAxis, start: int, stop: int) -> np.ndarray:
        """Return means of the last steps weighted by their age: float64 `(stop - start, y, x)`."""
        window = max(1, round(self.settings.window_days * 24 / axis.hours))
        weeks = (np.arange(window) * axis.hours / 168).astype(int)
        # Each week of age lowers the weight of all that is as old or older: a sum of sums over windows.
        ages = np.append(np.flatnonzero(np.diff(weeks)) + 1, window)
        weights = 1 / (1 + weeks[ages - 1])
        drops = weights - np.append(weights[1:], 0.0)
        oldest = max(0, start - window)
        sums = RunningSums(counts[oldest:])
        last = min(stop, len(counts) + 1)
        total = np.zeros((last - start, *counts.shape[1:]))
        norm = np.zeros(last - start)
        for age, drop in zip(ages, drops):
            events, steps = sums.trailing(int(age), start - oldest, last - oldest)
            total += drop * events
            norm += drop * steps
        rates = total / np.maximum(norm, 1e-300)[:, None, None]
        return rates[np.minimum(np.arange(start, stop), len(counts)) - start]
