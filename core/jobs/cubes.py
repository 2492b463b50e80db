# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that make cubes of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from ..reporter import Reporter
from .common import EventsRequest, Outputs

if TYPE_CHECKING:
    from ..binning import Counting
    from ..cube import Cube
    from ..grid import Grid


@dataclass(frozen=True, kw_only=True)
class RasterizeEvents(EventsRequest):
    """Count the events of a point layer on a grid.

    `severity` is empty, ``chicago``, ``table`` (then `severity_table` is its path) or ``field``.
    """

    grid: str
    output: str
    step: str = "day"
    time_zone: str = "UTC"
    start: str | None = None
    end: str | None = None
    max_types: int = 12
    spread: bool = False
    severity: str = ""
    severity_table: str | None = None
    drop_duplicates: bool = False


def rasterize_events(request: RasterizeEvents, reporter: Reporter) -> Outputs:
    """Make the cube file; every event that is not counted is reported with the reason."""
    from .. import severity
    from ..binning import Counting
    from ..grid import Grid

    reporter.stage("Reading the grid", 0, 5)
    grid = Grid.read(request.grid)
    scores: Any = request.severity or None
    if request.severity == "chicago":
        scores = severity.CHICAGO
    elif request.severity == "table":
        scores = severity.read_table(request.severity_table or "")
    counting = Counting(
        request.step,
        request.time_zone,
        max_types=request.max_types,
        spread=request.spread,
        severity=scores,
        drop_duplicates=request.drop_duplicates,
    )
    cube, report = _count(request, grid, counting, reporter, start=request.start, end=request.end)
    return _write(cube, report, request.output, reporter)


@dataclass(frozen=True)
class DescribeCube:
    """Tell where and when a cube is."""

    INPUT_FILES: ClassVar = ("cube",)

    cube: str


def describe_cube(request: DescribeCube, reporter: Reporter) -> Outputs:
    """Return what QGIS needs to know of a cube before it can hand over events for it."""
    from ..cubefile import describe

    reporter.stage("Reading the cube", 0, 100)
    return describe(request.cube)


@dataclass(frozen=True, kw_only=True)
class AppendEvents(EventsRequest):
    """Extend a cube by events that it has not counted yet."""

    cube: str
    output: str
    end: str | None = None
    only_later: bool = True


def append_events(request: AppendEvents, reporter: Reporter) -> Outputs:
    """Make a cube that holds the steps of the old one and what has happened since."""
    from ..binning import counting_of
    from ..cube import Cube

    reporter.stage("Reading the cube", 0, 20)
    cube = Cube.read(request.cube)
    counting = counting_of(cube)
    for role, wanted, parameter in (
        ("type", len(cube.attributes["type_counts"]) > 1, "TYPE_FIELD"),
        ("end", counting.spread, "END_TIME_FIELD"),
        ("severity", counting.severity == "field", "SEVERITY_FIELD"),
    ):
        if wanted and role not in request.fields:
            raise InputError(
                "The cube was made with such a field.",
                hint="Choose the field that holds the same in the new events.",
                parameter=parameter,
                value="not set",
            )
    if counting.spread and cube.events.sum(dtype=float) < cube.attributes["events_used"]:
        reporter.warning(
            "Intervals of the cube's events reached past its end: their later parts are not in the new "
            "steps. Leave END empty when a cube with END_TIME_FIELD is made that is to be extended."
        )
    longer, report = _count(
        request, cube.grid, counting, reporter, base=cube, end=request.end, only_later=request.only_later
    )
    if report["left_aside"]:
        reporter.message(
            f"{report['left_aside']:,} events happened before {cube.attributes['counted_until']} UTC, up to "
            "which the cube has counted already: they are left aside."
        )
    outputs = _write(longer, report, request.output, reporter)
    new = len(longer) - len(cube)
    reporter.message(f"{report['events_used']:,} events and {new:,} steps are new.")
    return outputs | {"steps_new": new, "events_left_aside": report["left_aside"]}


def _count(
    request: EventsRequest,
    grid: Grid,
    counting: Counting,
    reporter: Reporter,
    *,
    base: Cube | None = None,
    **options: Any,
) -> tuple[Cube, dict[str, Any]]:
    from ..binning import CubeBuilder

    reporter.stage("Reading the events", 20 if base else 5, 50)
    builder = CubeBuilder(grid, counting, base=base, reporter=reporter, **options)
    for events in request.source(counting.time_zone).blocks():
        builder.add(events)
    if builder.bad_examples:
        reporter.warning(
            f"{builder.bad_times:,} rows have a date that cannot be read, such as "
            f"{', '.join(map(repr, builder.bad_examples))}. If the day comes before the month, set DAY_FIRST."
        )
    reporter.stage("Counting", 50, 70)
    cube = builder.build()
    return cube, builder.report


def _write(cube: Cube, report: dict[str, Any], output: str, reporter: Reporter) -> Outputs:
    lost, notes, used, read = (report[key] for key in ("dropped", "notes", "events_used", "events_read"))
    if sum(lost.values()):
        reasons = ", ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in lost.items() if count)
        tell = reporter.warning if used < 0.9 * read else reporter.message
        tell(f"{used:,} of {read:,} events are counted; left out: {reasons}.")
    for reason, count in notes.items():
        if count:
            reporter.message(f"{count:,} {_RULES[reason]}.")
    reporter.stage("Writing the cube", 70, 100)
    cube.write(output)
    return {
        "output": output,
        "events_read": read,
        "events_used": used,
        "dropped": lost,
        "notes": notes,
        "steps": len(cube),
        "types": list(cube.types),
        "first": cube.axis.isoformat(0)[0],
        "last": cube.axis.isoformat(len(cube) - 1)[1],
    }


#: What is done about events whose time is not plain, by the reason counted in their table.
_RULES = {
    "ambiguous_time": "times fall into the hour that the clock shows twice: its first pass is taken",
    "skipped_time": "times fall into the hour that the clock skips: the first moment after it is taken",
    "no_clock": "dates have no time of day that can be read: midnight is taken",
    "end_before_start": "intervals end before they begin: their beginning alone is taken",
}


@dataclass(frozen=True)
class ExportCube:
    """Write a variable of a cube as a raster with a band for each step."""

    cube: str
    output: str
    variable: str = ""
    start: str | None = None
    end: str | None = None


def export_cube(request: ExportCube, reporter: Reporter) -> Outputs:
    """Make the raster; bands are described by their intervals."""
    from ..cube import Cube
    from ..cubefile import export_bands

    reporter.stage("Reading the cube", 0, 50)
    cube = Cube.read(request.cube)
    first = cube.index_of(request.start, "START") if request.start else 0
    stop = cube.index_of(request.end, "END") if request.end else len(cube)
    if stop <= first:
        raise InputError(
            "The period ends before it begins.",
            hint="Set END after START, or leave both empty.",
            parameter="END",
            value=request.end,
        )
    reporter.stage("Writing the raster", 50, 100)
    chosen = cube.steps(first, stop)
    maximum = export_bands(chosen, request.output, request.variable)
    return {
        "output": request.output,
        "bands": len(chosen),
        "maximum": maximum,
        "intervals": [list(chosen.axis.isoformat(index)) for index in range(len(chosen))],
        "unit_text": f"{request.variable or 'events'} per cell and {chosen.axis.unit}",
    }
