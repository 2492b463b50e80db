# SPDX-License-Identifier: GPL-2.0-or-later
"""What a network sees of each step, cut from the cube when it is needed and never kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cube import Cube
from ..errors import InputError
from ..features import BaseRates

#: Channels that every cube has, or could have; any other name is a covariate of the cube.
SEVERITY, SEASON, WEEKDAY = "severity", "season", "weekday"
FORMS = ("standard", "published")

# Steps that are looked at together when scaling is learned.
_BLOCK = 64

# Name, values `(steps, y, x)` or `(steps,)`, and whether they are standardised.
_Channel = tuple[str, np.ndarray, bool]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of channels by name, from training steps only."""

    mean: dict[str, float]
    deviation: dict[str, float]

    def apply(self, name: str, values: np.ndarray) -> np.ndarray:
        """Standardise a channel; what is not known is taken as the mean."""
        return np.nan_to_num((values - self.mean[name]) / self.deviation[name]).astype(np.float32)

    def as_values(self) -> dict[str, Any]:
        """Return plain values for a model file."""
        return {"mean": self.mean, "deviation": self.deviation}


class Channels:
    """The channels of the steps of a cube.

    The first one is the counts. With `anchored` follow base rate, recent weeks, city level, calendar of
    the next step and the share of each cell inside the study area, and the output of the network is
    understood as a departure from the base rate (:attr:`offset`).

    Parameters
    ----------
    cube : Cube
        Referred to, not copied.
    names : sequence of str
        Further channels: ``severity``, ``season``, ``weekday``, or covariates of the cube.
    anchored : bool
        See above.
    form : {"standard", "published"}
        Standard: season and weekday as sine and cosine, covariates standardised, severity with an
        indicator that tells "no crime" from "soft crime". Published: the raw values of Ahrens & de Wolff,
        day of the year from 1 to 366 included.
    scaling : Scaling, optional
        Of a fitted model; by default it is learned from the steps before `train_stop`.
    train_stop : int, optional
        Steps to learn the scaling from; all by default.

    Raises
    ------
    InputError
        The cube has no such channel.
    """

    def __init__(
        self,
        cube: Cube,
        names: Sequence[str] = (),
        *,
        anchored: bool = False,
        form: str = "standard",
        scaling: Scaling | None = None,
        train_stop: int | None = None,
    ) -> None:
        self.cube = cube
        self.names = tuple(names)
        self.anchored = anchored
        self.form = form
        self._valid = cube.grid.valid
        self._check_names()
        self._calendar = cube.axis.extended(1).calendar
        self._base = BaseRates(cube.total, cube.grid.inside, cube.axis) if anchored else None
        self.scaling = scaling or self._learn(len(cube) if train_stop is None else train_stop)
        #: Number of channels.
        self.count = self.maps(0, 1).shape[-1]

    def _check_names(self) -> None:
        known = [SEASON, *self.cube.covariates]
        if self.cube.axis.hours <= 24:
            known.insert(1, WEEKDAY)
        if self.cube.severity is not None:
            known.insert(0, SEVERITY)
        for number, name in enumerate(self.names):
            if name not in known:
                raise InputError(
                    "The cube has no such channel.",
                    hint=f"It has: {', '.join(known)}. Severity is counted by 'Rasterize Events to Cube', "
                    "covariates come from 'Add Covariates to Cube'.",
                    parameter="CHANNELS",
                    value=name,
                )
            if name in self.names[:number]:
                raise InputError(
                    "The channel is named twice.", hint="Name it once.", parameter="CHANNELS", value=name
                )

    def maps(self, start: int, stop: int) -> np.ndarray:
        """Return the channels of the steps `start` to `stop - 1`: float32 `(stop - start, y, x, channels)`.

        They are 0 outside the study area, except those that are the same everywhere.
        """
        channels = self._read(start, stop)
        result = np.empty((stop - start, *self.cube.grid.shape, len(channels)), np.float32)
        for number, (name, values, scaled) in enumerate(channels):
            if scaled:
                values = self.scaling.apply(name, values)
            result[..., number] = values * self._valid if values.ndim == 3 else values[:, None, None]
        return result

    def window(self, targets: np.ndarray, lookback: int) -> np.ndarray:
        """Return the `lookback` steps before each target: float32 `(n, lookback, y, x, channels)`."""
        shape = (len(targets), lookback, *self.cube.grid.shape, self.count)
        batch = np.empty(shape, np.float32)
        for i, target in enumerate(targets):
            batch[i] = self.maps(int(target) - lookback, int(target))
        return batch

    def offsets(self, targets: np.ndarray) -> np.ndarray:
        """Return the log rate from which the output departs at each target: float32 `(n, y, x)`."""
        shape = (len(targets), *self.cube.grid.shape)
        if self._base is None:
            return np.full(shape, np.log(max(self.scaling.mean["counts"], 1e-6)), np.float32)
        offsets = np.empty(shape, np.float32)
        for i, target in enumerate(targets):
            offsets[i] = np.log(self._base.rate(int(target), int(target) + 1)[0])
        return offsets

    def _read(self, start: int, stop: int) -> list[_Channel]:
        steps = slice(start, stop)
        counts = self.cube.total[steps]
        found: list[_Channel] = [("counts", counts, False)]
        if self._base is not None:
            rate = self._base.rate(start + 1, stop + 1)
            found = [
                ("log_counts", np.log1p(counts), True),
                ("log_base_rate", np.log(rate), True),
                ("recent_ratio", self._base.recent_ratio(start + 1, stop + 1, rate), True),
                ("city_level", self._base.city_level[start + 1 : stop + 1], True),
                ("inside", np.broadcast_to(self.cube.grid.inside, counts.shape), False),
                *(("calendar", column, False) for column in self._calendar[start + 1 : stop + 1].T),
            ]
        for name in self.names:
            found += self._named(name, steps)
        return found

    def _named(self, name: str, steps: slice) -> list[_Channel]:
        published = self.form == "published"
        if name == SEVERITY:
            severity = self.cube.severity
            assert severity is not None, "checked before"
            part = severity.part(steps)
            shares = [(name, part.mean, False)]
            return shares if published else [*shares, ("severity_known", part.indicator, False)]
        if name == SEASON and published:
            day = self.cube.axis.slice(steps.start, steps.stop).local_starts.day_of_year
            return [(name, day.to_numpy().astype(np.float32), False)]
        if name in (SEASON, WEEKDAY):
            columns = slice(0, 2) if name == SEASON else slice(2, 4)
            return [(name, column, False) for column in self._calendar[steps, columns].T]
        covariate = self.cube.covariates[name]
        values = covariate.values[steps] if covariate.dimensions[0] == "time" else covariate.values[None]
        values = np.broadcast_to(values, (steps.stop - steps.start, *values.shape[1:]))
        return [(name, np.nan_to_num(values) if published else values, not published)]

    def _learn(self, stop: int) -> Scaling:
        """Learn mean and deviation of what is standardised, and the mean count, block by block."""
        sums: dict[str, np.ndarray] = {}
        for start in range(0, stop, _BLOCK):
            for name, values, scaled in self._read(start, min(start + _BLOCK, stop)):
                if scaled or name == "counts":
                    sample = (values[:, self._valid] if values.ndim == 3 else values).astype(np.float64)
                    sample = sample[np.isfinite(sample)]
                    moments = np.array([sample.size, sample.sum(), (sample**2).sum()])
                    sums[name] = sums.get(name, 0.0) + moments
        mean, deviation = {}, {}
        for name, (number, total, squares) in sums.items():
            mean[name] = float(total / max(number, 1.0))
            square = squares / max(number, 1.0)
            spread = square - mean[name] ** 2
            # What never changed in training, up to rounding, must not become huge when it does at last.
            deviation[name] = float(np.sqrt(spread)) if spread > 1e-10 * square else 1.0
        return Scaling(mean, deviation)
