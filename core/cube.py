# SPDX-License-Identifier: GPL-2.0-or-later
"""The space-time cube: event counts per time step, type and cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .covariates import Covariate
from .errors import InputError
from .events import EventTable
from .grid import Grid
from .reporter import Reporter
from .severity import Severity
from .timesteps import TimeAxis, parse_local

if TYPE_CHECKING:
    import xarray as xr

MADE_BY = "Rasterize Events to Cube"
OTHER = "(other)"


@dataclass(frozen=True, eq=False)
class Cube:
    """Counts of events on a grid over time.

    Attributes
    ----------
    grid : Grid
        Cells and study area.
    axis : TimeAxis
        Steps.
    types : tuple of str
        Names of the type layers.
    events : numpy.ndarray
        float32 `(time, type, y, x)`, row 0 = north; 0 outside the study area.
    attributes : dict
        Provenance: how many events were read, used and dropped for which reason.
    covariates : dict
        What else is known about steps and cells, by name.
    severity : Severity, optional
        How grave the events of all types were.
    """

    grid: Grid
    axis: TimeAxis
    types: tuple[str, ...]
    events: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)
    covariates: dict[str, Covariate] = field(default_factory=dict)
    severity: Severity | None = None

    @classmethod
    def from_events(
        cls,
        events: EventTable,
        grid: Grid,
        step: str,
        time_zone: str,
        *,
        start: str | None = None,
        end: str | None = None,
        reporter: Reporter | None = None,
        **counting: Any,
    ) -> Cube:
        """Count events in the cells of a grid and the steps of a time axis.

        Parameters
        ----------
        events : EventTable
            Coordinates in the CRS of `grid`.
        step, time_zone, **counting
            See :class:`~.binning.Counting`.
        start, end : str, optional
            See :class:`~.binning.CubeBuilder`, which does the same block by block.

        Raises
        ------
        InputError
            All events outside the grid or the period, or the cube too large.
        """
        from .binning import Counting, CubeBuilder

        builder = CubeBuilder(
            grid, Counting(step, time_zone, **counting), start=start, end=end, reporter=reporter
        )
        builder.add(events)
        return builder.build()

    def __len__(self) -> int:
        return len(self.axis)

    @cached_property
    def total(self) -> np.ndarray:
        """float32 `(time, y, x)`: events of all types."""
        if self.events.shape[1] == 1:
            return self.events[:, 0]
        return self.events.sum(axis=1)

    def select_types(self, names: Sequence[str] | None) -> Cube:
        """Return the cube of the given types only; raises :class:`InputError` for an unknown one."""
        if not names:
            return self
        unknown = [name for name in names if name not in self.types]
        if unknown:
            raise InputError(
                f"The cube has no type {', '.join(map(repr, unknown))}.",
                hint=f"It has: {', '.join(self.types)}.",
                parameter="TYPES",
                value=", ".join(names),
            )
        chosen = [self.types.index(name) for name in names]
        return replace(self, types=tuple(names), events=self.events[:, chosen])

    def with_covariates(self, covariates: Sequence[Covariate]) -> Cube:
        """Return the cube with further covariates; one of the same name is replaced."""
        return replace(self, covariates=self.covariates | {new.name: new for new in covariates})

    def steps(self, start: int, stop: int) -> Cube:
        """Return the cube of steps `start` to `stop` (exclusive); a view, not a copy."""
        return self._part(self.grid, self.axis.slice(start, stop), time=slice(start, stop))

    def continued(self, count: int) -> Cube:
        """Return a copy of all counts together, with `count` further steps of which nothing is known yet.

        There are no events in these steps, covariates are NaN, and severity is the mean of each cell.
        """

        def longer(values: np.ndarray, fill: Any = np.nan) -> np.ndarray:
            more = np.broadcast_to(np.asarray(fill, values.dtype), (count, *values.shape[1:]))
            return np.concatenate([values, more])

        severity = self.severity
        if severity is not None:
            total, weight = (part.sum(axis=0) for part in (severity.sum, severity.weight))
            mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
            severity = Severity(longer(severity.sum, mean), longer(severity.weight, weight > 0))
        return replace(
            self,
            axis=self.axis.extended(count),
            types=("events",),
            events=longer(self.total, 0)[:, None],
            covariates={
                name: replace(each, values=longer(each.values)) if each.dimensions[0] == "time" else each
                for name, each in self.covariates.items()
            },
            severity=severity,
        )

    def crop(self, rows: slice, columns: slice) -> Cube:
        """Return the cube of a rectangle of cells; a view, not a copy."""
        return self._part(self.grid.crop(rows, columns), self.axis, y=rows, x=columns)

    def coarsened(self, factor: int) -> Cube:
        """Return the cube of blocks of `factor` x `factor` cells; see :func:`~.coarsening.coarser_cube`."""
        from .coarsening import coarser_cube

        return coarser_cube(self, factor)

    def _part(self, grid: Grid, axis: TimeAxis, **index: slice) -> Cube:
        time, y, x = (index.get(name, slice(None)) for name in ("time", "y", "x"))
        return replace(
            self,
            grid=grid,
            axis=axis,
            events=self.events[time, :, y, x],
            covariates={
                name: replace(
                    each, values=each.values[tuple(index.get(d, slice(None)) for d in each.dimensions)]
                )
                for name, each in self.covariates.items()
            },
            severity=None if self.severity is None else self.severity.part(time, y, x),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of grid, steps and counts."""
        digest = hashlib.sha256(self.grid.fingerprint.encode())
        digest.update(self.axis.edges.tobytes())
        digest.update(json.dumps(self.types).encode())
        digest.update(np.ascontiguousarray(self.events).data)
        return digest.hexdigest()[:16]

    @cached_property
    def covariates_fingerprint(self) -> str:
        """Short hash of covariates and severity."""
        digest = hashlib.sha256()
        for name, covariate in sorted(self.covariates.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(covariate.values).data)
        for part in (self.severity.sum, self.severity.weight) if self.severity else ():
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()[:16]

    def to_dataset(self) -> xr.Dataset:
        """Return the cube as an :class:`xarray.Dataset` that follows the CF conventions."""
        from .cubefile import to_dataset

        return to_dataset(self)

    def write(self, path: str | Path, parameter: str = "OUTPUT") -> None:
        """Write the cube as netCDF-4, compressed, whole or not at all."""
        from .cubefile import write_cube

        write_cube(self, path, parameter)

    @classmethod
    def read(cls, path: str | Path, parameter: str = "CUBE") -> Cube:
        """Read a cube; raises :class:`InputError` if the file is missing, damaged or something else."""
        from .cubefile import read_cube

        return read_cube(path, parameter)

    def start_of(self, axis: TimeAxis) -> int | None:
        """Return the index of the first step of another axis; None unless the cube holds all its steps."""
        start = int(np.searchsorted(self.axis.edges, axis.edges[0]))
        held = np.array_equal(self.axis.edges[start : start + len(axis.edges)], axis.edges)
        return start if held else None

    def index_of(self, text: str, parameter: str) -> int:
        """Return the index of the step that begins at or holds a local time; `len(self)` is the end."""
        instant = parse_local(text, self.axis.time_zone, parameter)
        edges = self.axis.edges
        if instant < edges[0] or instant > edges[-1]:
            raise InputError(
                "The time lies outside the cube.",
                hint=f"The cube runs from {self.axis.isoformat(0)[0]} "
                f"to {self.axis.isoformat(len(self) - 1)[1]}.",
                parameter=parameter,
                value=text,
            )
        return int(np.searchsorted(edges, instant, side="right") - 1)
