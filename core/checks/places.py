# SPDX-License-Identifier: GPL-2.0-or-later
"""Where events lie: how exact places are, which hold too many events, which lie far off.

A place is a pair of coordinates that one or more events have exactly in common.

*Far off* is a place outside a generous box: from the 5 % to the 95 % quantile of the places in each
direction (each place counts once, so that a default coordinate cannot stretch the box), and half as much
again as the longer side of that box on every side. It takes a city with all its suburbs and a county with
its villages; what is outside lies in another one. Of places exactly at 0, 0 - of the layer's coordinate
system or in degrees - there is no doubt.

*Probable default coordinates* are places among the ten busiest that hold more than 0.5 % of the events, at
least 20, and more than five times as many as the next place after them. Busy places of the real world
follow one another gradually: the second shopping mall has three quarters of the first one's thefts. A
coordinate that stands for "unknown" or for the police station breaks that row. Below 20 places there is
no row to break.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyproj

from ..events import EventTable

#: Places listed, the busiest first.
LISTED = 10

#: How a place is judged.
BUSY, DEFAULT, FAR_OFF, ZERO = "busy place", "probable default", "far off", "zero point"

_FEW_PLACES = 20
_DEFAULT_SHARE, _DEFAULT_EVENTS, _DEFAULT_STEP = 0.005, 20, 5
_BOX_QUANTILES, _BOX_MARGIN = (0.05, 0.95), 1.5

# Mean radius of the earth in metres: good to half a percent anywhere.
_EARTH = 6_371_008.8

# Coordinates are called rounded to a step if 99 % of the distinct ones lie within 2 % of the step from a
# lattice, and the lattice is long enough not to arise by chance.
_ON_LATTICE, _NEAR = 0.99, 0.02
_DISTINCT, _STEPS_WIDE = 20, 10
_LOOKED_AT = 20_000


@dataclass(frozen=True)
class Place:
    """Coordinates that several events share.

    Attributes
    ----------
    x, y : float
        In the coordinate system of the layer.
    longitude, latitude : float
        Degrees in WGS 84.
    events : int
    share : float
        Of all events.
    top_type : str
        The most frequent type there.
    top_share : float
        Share of `top_type` there.
    verdict : str
        :data:`BUSY`, :data:`DEFAULT`, :data:`FAR_OFF` or :data:`ZERO`.
    """

    x: float
    y: float
    longitude: float
    latitude: float
    events: int
    share: float
    top_type: str
    top_share: float
    verdict: str


@dataclass(frozen=True)
class Rounding:
    """To what coordinates are rounded.

    Attributes
    ----------
    step_x, step_y : float or None
        Distance between neighbouring values in `unit`; None where none is found.
    unit : str
        ``degree``, or the unit of the layer's coordinate system.
    metres_x, metres_y : float
        The same in metres; 0 where none is found.
    """

    step_x: float | None
    step_y: float | None
    unit: str
    metres_x: float
    metres_y: float

    @property
    def steps(self) -> list[str]:
        """The steps as text, one of each."""
        steps = {step for step in (self.step_x, self.step_y) if step}
        # Not 1e-06: whoever knows the degrees of a map may not know this way of writing.
        return [np.format_float_positional(float(f"{step:.6g}"), trim="-") for step in sorted(steps)]

    @property
    def metres(self) -> float:
        """The coarser of the two directions."""
        return max(self.metres_x, self.metres_y)


@dataclass(frozen=True, eq=False)
class Places:
    """The places of events.

    Attributes
    ----------
    x, y : numpy.ndarray
        float64 `(places,)`: distinct places in the layer's coordinate system, the busiest first.
    counts : numpy.ndarray
        int64 `(places,)`: events at each.
    verdicts : numpy.ndarray
        str `(places,)`: how each is judged.
    metres_per_unit : tuple of float
        Metres a unit of x and of y in the middle of the places.
    rounding : Rounding
    busiest, astray : tuple of Place
        Up to ten busiest places, of more than one event each if there are such; up to three of those
        that lie far off or at zero.
    """

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    verdicts: np.ndarray
    metres_per_unit: tuple[float, float]
    rounding: Rounding
    busiest: tuple[Place, ...]
    astray: tuple[Place, ...]

    @classmethod
    def of(cls, table: EventTable, crs: pyproj.CRS, codes: np.ndarray) -> Places:
        """Return the places of at least one event.

        Parameters
        ----------
        codes : numpy.ndarray
            As returned by :func:`place_codes`.
        """
        counts = np.bincount(codes)
        order = np.argsort(-counts, kind="stable")
        first = np.empty(len(counts), np.int64)
        # Written backwards, so that the first event of each place stays.
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        x, y, counts = table.x[first[order]], table.y[first[order]], counts[order]
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        scale = metres_per_unit(crs, float(np.median(y)))
        zero = _at_zero(x, y, to_degrees)
        far = ~zero & _far_off(x, y, scale)
        verdicts = np.full(len(x), BUSY, dtype="<U16")
        verdicts[_defaults(counts, len(table), ~zero & ~far)] = DEFAULT
        verdicts[far], verdicts[zero] = FAR_OFF, ZERO

        def shown(chosen: np.ndarray) -> tuple[Place, ...]:
            return tuple(
                _place(table, codes == order[i], x[i], y[i], verdicts[i], to_degrees) for i in chosen
            )

        near = verdicts == BUSY
        return cls(
            x,
            y,
            counts,
            verdicts,
            scale,
            _rounding(x[near], y[near], crs, scale, to_degrees),
            busiest=shown(np.arange(max(1, (counts[:LISTED] > 1).sum()))),
            astray=shown(np.flatnonzero(far | zero)[:3]),
        )

    def __len__(self) -> int:
        return len(self.x)

    def events(self, *verdicts: str) -> int:
        """Return how many events lie at places that are judged so."""
        return int(self.counts[np.isin(self.verdicts, verdicts)].sum())

    def number(self, *verdicts: str) -> int:
        """Return how many places are judged so."""
        return int(np.isin(self.verdicts, verdicts).sum())

    @property
    def enough(self) -> bool:
        """Whether there are enough places to judge them."""
        return len(self) >= _FEW_PLACES

    @property
    def busiest_share(self) -> float:
        """Share of the events that lie at the ten busiest places."""
        return float(self.counts[:LISTED].sum() / self.counts.sum())


def place_codes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return int64 `(events,)`: 0, 1, ... in the order in which places first occur."""
    x_codes, _ = pd.factorize(x)
    y_codes, distinct = pd.factorize(y)
    return pd.factorize(x_codes.astype(np.int64) * len(distinct) + y_codes)[0].astype(np.int64)


def metres_per_unit(crs: pyproj.CRS, y: float) -> tuple[float, float]:
    """Return how many metres a unit of x and of y is at a height `y`."""
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    if not crs.is_geographic:
        return unit, unit
    # Radians a unit; towards the poles degrees of longitude lose their length.
    return unit * _EARTH * max(math.cos(y * unit), 0.01), unit * _EARTH


def rounding_step(values: np.ndarray) -> float | None:
    """Return the coarsest decimal step (1, 2, 2.5 or 5 times a power of ten) to which values are rounded.

    The lattice may begin anywhere, as the centres of cells do. None: no step, or too few different values
    to tell, or values so close together that a step could be a matter of chance.
    """
    distinct = np.unique(values)
    if len(distinct) < _DISTINCT:
        return None
    if len(distinct) > _LOOKED_AT:
        distinct = distinct[np.linspace(0, len(distinct) - 1, _LOOKED_AT).astype(int)]
    width = distinct[-1] - distinct[0]
    size = max(abs(distinct[0]), abs(distinct[-1]))
    exponent = math.floor(math.log10(width / _STEPS_WIDE))
    # Below this the last digits of a float64 look like a lattice.
    while 10.0**exponent > max(size * 1e-13, width * 1e-9):
        for factor in (5.0, 2.5, 2.0, 1.0):
            step = factor * 10.0**exponent
            if width >= _STEPS_WIDE * step and _on_lattice(distinct, step):
                return step
        exponent -= 1
    return None


def _on_lattice(distinct: np.ndarray, step: float) -> bool:
    angle = 2 * np.pi * ((distinct - distinct[0]) / step)
    phase = np.angle(np.exp(1j * angle).mean())
    off = np.abs(np.angle(np.exp(1j * (angle - phase)))) / (2 * np.pi)
    return bool((off <= _NEAR).mean() >= _ON_LATTICE)


def _rounding(
    x: np.ndarray,
    y: np.ndarray,
    crs: pyproj.CRS,
    scale: tuple[float, float],
    to_degrees: pyproj.Transformer,
) -> Rounding:
    unit = crs.axis_info[0].unit_name if crs.axis_info else "unit"
    steps = rounding_step(x), rounding_step(y)
    if all(step is None for step in steps) and not crs.is_geographic and len(x):
        # A layer may have been rounded in degrees before it was reprojected.
        some = np.linspace(0, len(x) - 1, min(len(x), _LOOKED_AT)).astype(int)
        longitude, latitude = to_degrees.transform(x[some], y[some])
        finite = np.isfinite(longitude) & np.isfinite(latitude)
        if finite.any():
            unit = "degree"
            steps = rounding_step(longitude[finite]), rounding_step(latitude[finite])
            scale = metres_per_unit(pyproj.CRS("EPSG:4326"), float(np.median(latitude[finite])))
    return Rounding(*steps, unit, (steps[0] or 0) * scale[0], (steps[1] or 0) * scale[1])


def _at_zero(x: np.ndarray, y: np.ndarray, to_degrees: pyproj.Transformer) -> np.ndarray:
    zero = (x == 0) & (y == 0)
    # The few places near the point in question are found by asking where it lies in the layer.
    there = to_degrees.transform(0.0, 0.0, direction="INVERSE")
    if np.isfinite(there).all():
        longitude, latitude = to_degrees.transform(*there)
        if abs(longitude) < 1e-6 and abs(latitude) < 1e-6:
            zero |= (np.abs(x - there[0]) < 0.01) & (np.abs(y - there[1]) < 0.01)
    return zero


def _far_off(x: np.ndarray, y: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    boxes = [np.quantile(values, _BOX_QUANTILES) for values in (x, y)]
    margin = _BOX_MARGIN * max((high - low) * metres for (low, high), metres in zip(boxes, scale))
    far = np.zeros(len(x), bool)
    for values, (low, high), metres in zip((x, y), boxes, scale):
        far |= (values < low - margin / metres) | (values > high + margin / metres)
    return far


def _defaults(counts: np.ndarray, events: int, candidates: np.ndarray) -> np.ndarray:
    """Return the indexes of probable default coordinates among `candidates`, the busiest first."""
    index = np.flatnonzero(candidates)
    if len(index) < _FEW_PLACES:
        return index[:0]
    top = counts[index[: LISTED + 1]]
    breaks = np.flatnonzero(top[:-1] > _DEFAULT_STEP * top[1:])
    enough = (top > _DEFAULT_SHARE * events) & (top >= _DEFAULT_EVENTS)
    before_break = np.arange(len(top)) <= (breaks[-1] if len(breaks) else -1)
    return index[: len(top)][enough & before_break]


def _place(
    table: EventTable, there: np.ndarray, x: float, y: float, verdict: str, to_degrees: pyproj.Transformer
) -> Place:
    types = np.bincount(table.type_code[there])
    longitude, latitude = to_degrees.transform(x, y)
    events = int(there.sum())
    return Place(
        float(x),
        float(y),
        float(longitude),
        float(latitude),
        events,
        events / len(table),
        table.type_names[int(types.argmax())],
        float(types.max() / events),
        str(verdict),
    )
