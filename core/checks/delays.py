# SPDX-License-Identifier: GPL-2.0-or-later
"""How long it takes until an event is known, and how exactly its time is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Shares of events for which quantiles are given.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

#: Days after an event within which it may have become known.
WITHIN_DAYS = (1, 3, 7, 30)

#: Limits of the classes of a delay or a length in hours; the first class holds all that is shorter.
CLASSES = (1, 3, 6, 12, 24, 72, 168, 720, 2160, 8760)

_HOUR = 3600


@dataclass(frozen=True, eq=False)
class Lag:
    """Time from event to report, of the events that have both.

    Attributes
    ----------
    known : float
        Share of all events that have a time of report.
    quantiles : dict
        Hours by :data:`QUANTILES`; negative where the report comes before the event.
    negative : float
        Share reported before it happened.
    within : dict
        Share reported within each of :data:`WITHIN_DAYS`, those reported too early included.
    histogram : numpy.ndarray
        int64 `(classes + 1,)`: events by :data:`CLASSES`; negative ones are left out.
    """

    known: float
    quantiles: dict[float, float]
    negative: float
    within: dict[int, float]
    histogram: np.ndarray

    @classmethod
    def of(cls, time: np.ndarray, reported: np.ndarray | None) -> Lag | None:
        """Return the lag; None where nothing is known about reports.

        Parameters
        ----------
        time, reported : numpy.ndarray
            ``datetime64[s]`` `(events,)`, UTC; NaT in `reported` where unknown.
        """
        if reported is None or np.isnat(reported).all():
            return None
        known = ~np.isnat(reported)
        hours = _hours(time[known], reported[known])
        return cls(
            known=float(known.mean()),
            quantiles=_quantiles(hours),
            negative=float((hours < 0).mean()),
            within={days: float((hours <= 24 * days).mean()) for days in WITHIN_DAYS},
            histogram=_classes(hours[hours >= 0]),
        )


@dataclass(frozen=True, eq=False)
class Intervals:
    """Length of the intervals in which events happened.

    Attributes
    ----------
    share : float
        Share of all events of which only an interval longer than nothing is known.
    quantiles : dict
        Length in hours by :data:`QUANTILES`, of these events.
    over_a_day : float
        Share of these events whose interval is longer than 24 hours.
    histogram : numpy.ndarray
        int64 `(classes + 1,)`: events by :data:`CLASSES`.
    """

    share: float
    quantiles: dict[float, float]
    over_a_day: float
    histogram: np.ndarray

    @classmethod
    def of(cls, time: np.ndarray, end: np.ndarray | None) -> Intervals | None:
        """Return the intervals; None where no event has one.

        Parameters
        ----------
        time, end : numpy.ndarray
            ``datetime64[s]`` `(events,)`, UTC; NaT in `end` where there is none.
        """
        if end is None:
            return None
        some = ~np.isnat(end) & (end > time)
        if not some.any():
            return None
        hours = _hours(time[some], end[some])
        return cls(float(some.mean()), _quantiles(hours), float((hours > 24).mean()), _classes(hours))


def _hours(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return (end.astype("datetime64[s]") - start.astype("datetime64[s]")).astype(np.int64) / _HOUR


def _quantiles(hours: np.ndarray) -> dict[float, float]:
    return dict(zip(QUANTILES, np.quantile(hours, QUANTILES).tolist()))


def _classes(hours: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(CLASSES, hours, side="right"), minlength=len(CLASSES) + 1)
