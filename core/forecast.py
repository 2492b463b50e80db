# SPDX-License-Identifier: GPL-2.0-or-later
"""Forecast rasters: expected events per cell for the next steps, one band a step."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import InputError
from .grid import Grid
from .rasters import read_geotiff, write_geotiff
from .timesteps import TimeAxis

SCHEMA = "forecast/2"
MADE_BY = "Forecast Heatmap"

# From which factor on a part of a forecast is a reason.
_LIFT = 1.05


@dataclass(frozen=True, eq=False)
class Forecast:
    """Expected events, or probabilities, per cell and step.

    Attributes
    ----------
    grid : Grid
        Cells and study area (share of each cell inside).
    axis : TimeAxis
        The steps ahead.
    expected : numpy.ndarray
        float32 `(steps, y, x)`, NaN outside the study area.
    model : str
        Name of the model.
    quantity : {"events", "probability", "hot"}
        What `expected` holds: expected events, the probability of at least one, or the probability that
        the cell is hot.
    hot : dict
        Of a classifier: ``rule`` and ``value`` that make a cell hot, and ``threshold``, from which
        probability on it is called hot.
    """

    grid: Grid
    axis: TimeAxis
    expected: np.ndarray
    model: str
    quantity: str = "events"
    hot: dict[str, Any] = field(default_factory=dict)

    @property
    def intervals(self) -> list[tuple[str, str]]:
        """Start and end of each step, local ISO 8601 with offset."""
        return [self.axis.isoformat(index) for index in range(len(self.axis))]

    @property
    def ramp_maximum(self) -> float:
        """Upper end of a colour ramp: 99th percentile of the cells; one cell shall not pale all others."""
        values = self.expected[np.isfinite(self.expected)]
        return float(max(np.percentile(values, 99), 1e-6))

    def write(self, path: str | Path) -> None:
        """Write a GeoTIFF (COG layout), schema ``forecast/2``: one band a step, nodata outside."""
        edges = [_utc(edge) for edge in self.axis.edges]
        write_geotiff(
            path,
            self.expected,
            self.grid.crs,
            self.grid.transform,
            tags={
                "GRIDCAST_SCHEMA": SCHEMA,
                "GRIDCAST_INTERVALS": json.dumps(list(zip(edges[:-1], edges[1:]))),
                "GRIDCAST_TIME_ZONE": self.axis.time_zone,
                "GRIDCAST_STEP": self.axis.step,
                "GRIDCAST_MODEL": self.model,
                "GRIDCAST_ORIGIN": edges[0],
                "GRIDCAST_GRID": self.grid.fingerprint,
                "GRIDCAST_RAMP_MAX": repr(self.ramp_maximum),
                "GRIDCAST_INSIDE": _pack(self.grid.inside),
                "GRIDCAST_QUANTITY": self.quantity,
                "GRIDCAST_HOT": json.dumps(self.hot),
            },
            descriptions=[f"{start}/{end}" for start, end in self.intervals],
        )

    @classmethod
    def read(cls, path: str | Path, parameter: str = "INPUT") -> Forecast:
        """Read a forecast written by :meth:`write`; raises :class:`InputError` if it is none."""
        raster = read_geotiff(path, SCHEMA, parameter, MADE_BY)
        try:
            intervals = json.loads(raster.tags["GRIDCAST_INTERVALS"])
            edges = [start for start, _ in intervals] + [intervals[-1][1]]
            axis = TimeAxis(
                raster.tags["GRIDCAST_STEP"],
                raster.tags["GRIDCAST_TIME_ZONE"],
                np.array([edge.rstrip("Z") for edge in edges], "datetime64[s]"),
            )
            if len(raster.bands) != len(axis):
                raise ValueError(f"{len(raster.bands)} bands for {len(axis)} steps")
            inside = _unpack(raster.tags["GRIDCAST_INSIDE"], raster.bands.shape[1:])
            quantity, hot = raster.tags["GRIDCAST_QUANTITY"], json.loads(raster.tags["GRIDCAST_HOT"])
        except (KeyError, ValueError, IndexError, TypeError, AttributeError, zlib.error) as error:
            raise InputError(
                f"The forecast has lost its description ({error}).",
                hint=f"Make it again with '{MADE_BY}'; a copy saved by another program may lack the tags.",
                parameter=parameter,
                value=path,
            ) from error
        grid = Grid(raster.crs, raster.transform, inside)
        return cls(grid, axis, raster.bands, raster.tags.get("GRIDCAST_MODEL", ""), quantity, hot)

    def over_all_steps(self) -> np.ndarray:
        """Return one map `(y, x)` for the whole period, NaN outside.

        Expected events are added up; probabilities of an event become that of at least one event in the
        period, the steps taken as independent; probabilities of a hot cell are averaged.
        """
        if self.quantity == "events":
            return self.expected.sum(axis=0)
        if self.quantity == "probability":
            return -np.expm1(np.log1p(-np.minimum(self.expected, np.float32(1 - 1e-7))).sum(axis=0))
        return self.expected.mean(axis=0)

    def write_types(self, path: str | Path, names: Sequence[str], shares: np.ndarray) -> None:
        """Write which type an event has, schema ``types/1``: a GeoTIFF beside the forecast.

        For each step a band for each type with P(type | an event in this cell and step), then a band with
        the number (from 1) of the most likely type.

        Parameters
        ----------
        names : sequence of str
            Types.
        shares : numpy.ndarray
            float32 `(steps, type, y, x)`, NaN outside the study area.
        """
        likely = np.nan_to_num(shares).argmax(axis=1) + 1
        label = f"most likely type ({_numbered(names)})"
        bands = np.concatenate([shares, likely[:, None]], axis=1)
        self._write_beside(path, "types", [*names, label], bands, {"GRIDCAST_TYPES": json.dumps(list(names))})

    def write_parts(self, path: str | Path, names: Sequence[str], parts: np.ndarray) -> None:
        """Write what the forecast is made up of, schema ``parts/1``: a GeoTIFF beside the forecast.

        For each step a band for each part, then a band with the number (from 1) of the main reason: the part
        that is the largest multiple of its mean over the study area; 0 if none is 5 % above it.

        Parameters
        ----------
        names : sequence of str
            Parts.
        parts : numpy.ndarray
            float32 `(steps, part, y, x)`, above 0, NaN outside the study area.
        """
        lift = np.nan_to_num(parts / np.nanmean(parts, axis=(2, 3), keepdims=True, dtype=np.float64))
        reason = np.where(lift.max(axis=1) > _LIFT, lift.argmax(axis=1) + 1, 0)
        label = f"main reason ({_numbered(names)})"
        bands = np.concatenate([parts, reason[:, None]], axis=1)
        self._write_beside(path, "parts", [*names, label], bands, {"GRIDCAST_PARTS": json.dumps(list(names))})

    def write_uncertainty(self, path: str | Path, names: Sequence[str], values: np.ndarray) -> None:
        """Write how sure the forecast is, schema ``uncertainty/1``: a GeoTIFF beside the forecast.

        Parameters
        ----------
        names : sequence of str
            What the values are.
        values : numpy.ndarray
            float32 `(steps, name, y, x)`, NaN outside the study area.
        """
        self._write_beside(path, "uncertainty", names, values, {})

    def _write_beside(
        self, path: str | Path, kind: str, labels: Sequence[str], bands: np.ndarray, tags: dict[str, str]
    ) -> None:
        """Write bands `(steps, label, y, x)` on the grid, without what lies outside, step by step."""
        bands = np.where(np.isfinite(bands[:, :1]), bands, np.nan)
        write_geotiff(
            path,
            bands.reshape(-1, *bands.shape[2:]),
            self.grid.crs,
            self.grid.transform,
            tags={
                "GRIDCAST_SCHEMA": f"{kind}/1",
                "GRIDCAST_MODEL": self.model,
                "GRIDCAST_GRID": self.grid.fingerprint,
                **tags,
            },
            descriptions=[f"{start}/{end} {label}" for start, end in self.intervals for label in labels],
            parameter=f"{kind.upper()}_OUTPUT",
        )


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))


def _pack(inside: np.ndarray) -> str:
    """Return the shares inside as text for a tag, so that areas can be measured from the forecast alone."""
    return base64.b64encode(zlib.compress(inside.astype("<f4").tobytes())).decode()


def _unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(shape).astype(np.float64)


def _utc(edge: np.datetime64) -> str:
    return pd.Timestamp(edge).isoformat() + "Z"
