# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that make cubes of events."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..reporter import Reporter
from .common import Outputs


@dataclass(frozen=True)
class RasterizeEvents:
    """Count the events of a point layer on a grid."""

    events: str
    grid: str
    output: str
    step: str = "day"
    time_zone: str = "UTC"
    times_are_local: bool = False
    day_first: bool = False
    start: str | None = None
    end: str | None = None
    max_types: int = 12
    dropped_before: dict[str, int] = field(default_factory=dict)


def rasterize_events(request: RasterizeEvents, reporter: Reporter) -> Outputs:
    """Make the cube file; every event that is not counted is reported with the reason."""
    from ..cube import Cube
    from ..events import EventTable
    from ..grid import Grid

    reporter.stage("Reading the grid", 0, 5)
    grid = Grid.read(request.grid)
    reporter.stage("Reading the events", 5, 50)
    events = EventTable.read(
        request.events,
        time_zone=request.time_zone,
        day_first=request.day_first,
        times_are_local=request.times_are_local,
        dropped_before=request.dropped_before,
    )
    if events.bad_examples:
        reporter.warning(
            f"{events.dropped['bad_time']:,} rows have a date that cannot be read, such as "
            f"{', '.join(map(repr, events.bad_examples))}. If the day comes before the month, set DAY_FIRST."
        )
    reporter.stage("Counting", 50, 70)
    cube = Cube.from_events(
        events,
        grid,
        request.step,
        request.time_zone,
        start=request.start,
        end=request.end,
        max_types=request.max_types,
        reporter=reporter,
    )
    lost = cube.attributes["dropped"]
    used, read = cube.attributes["events_used"], cube.attributes["events_read"]
    if sum(lost.values()):
        reasons = ", ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in lost.items() if count)
        tell = reporter.warning if used < 0.9 * read else reporter.message
        tell(f"{used:,} of {read:,} events are counted; left out: {reasons}.")
    reporter.stage("Writing the cube", 70, 100)
    cube.write(request.output)
    return {
        "output": request.output,
        "events_read": read,
        "events_used": used,
        "dropped": lost,
        "steps": len(cube),
        "types": list(cube.types),
        "first": cube.axis.isoformat(0)[0],
        "last": cube.axis.isoformat(len(cube) - 1)[1],
    }
