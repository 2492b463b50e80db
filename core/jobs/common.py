# SPDX-License-Identifier: GPL-2.0-or-later
"""What several jobs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..cube import Cube
    from ..eventfiles import EventSource

Outputs = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EventsRequest:
    """Where the events of a request are and how to read them (:class:`~..eventfiles.EventSource`).

    `fields` tells which column holds what.
    """

    events: str
    layer: str | None = None
    fields: dict[str, str] = field(default_factory=lambda: {"time": "time"})
    operation: str | None = None
    times_are_local: bool = False
    day_first: bool = False
    dropped_before: dict[str, int] = field(default_factory=dict)

    def source(self, time_zone: str) -> EventSource:
        """Return what reads the events by the clock of a zone."""
        from ..eventfiles import EventSource

        return EventSource(
            self.events,
            self.layer,
            self.fields,
            self.operation,
            time_zone,
            self.day_first,
            self.times_are_local,
            self.dropped_before,
        )


def part_of(cube: Cube, types: list[str] | None, until: str | None) -> Cube:
    """Return the part of a cube that a job looks at: some types, and steps until a local time."""
    cube = cube.select_types(types)
    return cube.steps(0, cube.index_of(until, "UNTIL")) if until else cube


def describe_cube(cube: Any) -> Outputs:
    """Return what a model file says about the cube it was trained on."""
    rows, columns = cube.grid.shape
    return {
        "grid_fingerprint": cube.grid.fingerprint,
        "data_fingerprint": cube.fingerprint,
        "crs": cube.grid.crs.to_wkt(),
        "crs_name": cube.grid.crs.name,
        "transform": list(cube.grid.transform)[:6],
        "rows": rows,
        "columns": columns,
        "step": cube.axis.step,
        "time_zone": cube.axis.time_zone,
        "types": list(cube.types),
        "first": cube.axis.isoformat(0)[0],
        "last": cube.axis.isoformat(len(cube) - 1)[1],
        "provenance": cube.attributes,
    }


def versions() -> dict[str, str]:
    """Return the versions of Gridcast and of what it computes with."""
    from importlib import metadata

    from gridcast_qgis import __version__

    found = {"gridcast": __version__}
    for distribution in ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pandas", "xarray", "rasterio"):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found
