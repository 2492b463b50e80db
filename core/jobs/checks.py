# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that checks a layer of events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..reporter import Reporter
from .common import EventsRequest, Outputs


@dataclass(frozen=True, kw_only=True)
class CheckEvents(EventsRequest):
    """Look for what is odd about the events of a layer, whose coordinates are in `crs`."""

    crs: str
    output: str
    time_zone: str = "UTC"
    holidays: list[str] = field(default_factory=lambda: ["01-01", "07-04"])
    name: str = ""


def check_events(request: CheckEvents, reporter: Reporter) -> Outputs:
    """Make the report; its figures are outputs, None where there is nothing to measure."""
    from ..checks import check_events as check
    from ..checks import write_report

    reporter.stage("Reading the events", 0, 40)
    table = request.source(request.time_zone).read()
    reporter.stage("Checking", 40, 80)
    found = check(
        table,
        request.crs,
        request.time_zone,
        holidays=request.holidays,
        source=request.name,
        reporter=reporter,
    )
    for finding in found.findings:
        tell = reporter.warning if finding.level in ("serious", "caution") else reporter.message
        tell(finding.plain())
    reporter.stage("Writing the report", 80, 100)
    write_report(found, request.output)
    numbers = {key: value if math.isfinite(value) else None for key, value in found.numbers().items()}
    return {"output": request.output, "verdict": found.verdict, **numbers}
