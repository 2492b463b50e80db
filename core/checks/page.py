# SPDX-License-Identifier: GPL-2.0-or-later
"""The report on events as a page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..report import Picture, Tile, render, style
from . import plots
from .findings import CAUTION, GOOD, NOTE, SERIOUS, coordinates
from .wording import a_number, date, listed, percent, span_of_hours

if TYPE_CHECKING:
    from .check import EventCheck

_TYPES_LISTED = 40

#: How reasons for losing rows and for settling times are shown.
_REASONS = {
    "reprojection": "place cannot be reprojected",
    "null_geometry": "no place",
    "null_time": "no date",
    "bad_time": "date cannot be read",
    "duplicate": "duplicate",
    "outside_grid": "outside the grid",
    "outside_area": "outside the study area",
    "outside_period": "outside the period",
    "ambiguous_time": "time that the clock shows twice: first pass taken",
    "skipped_time": "time that the clock skips: end of the gap taken",
    "no_clock": "no readable time of day: midnight taken",
    "end_before_start": "interval ends before it begins: beginning taken",
}

_BADGES = {SERIOUS: "Serious", CAUTION: "Caution", NOTE: "Note", GOOD: "In order"}


def page(check: EventCheck, made: str) -> str:
    """Return the page of :meth:`~.check.EventCheck.html`."""
    with style():
        pictures = _pictures(check)
    worst = check.findings[0].level if check.findings else GOOD
    return render(
        "checkevents.html",
        check=check,
        made=made,
        badges=_BADGES,
        worst=SERIOUS if worst == SERIOUS else CAUTION if worst == CAUTION else GOOD,
        tiles=_tiles(check),
        pictures=pictures,
        reasons=[
            (_REASONS.get(reason, reason.replace("_", " ")), count) for reason, count in _reasons(check)
        ],
        types=check.types[:_TYPES_LISTED],
        types_left=max(0, len(check.types) - _TYPES_LISTED),
        spikes=check.daily.spikes(),
        coordinates=coordinates,
        names_of_days=_names_of_days(check),
        rounding=_rounding(check),
        percent=percent,
        date=date,
        span_of_hours=span_of_hours,
        known=math.isfinite,
    )


def _pictures(check: EventCheck) -> dict[str, Picture | None]:
    lag, intervals = check.lag, check.intervals
    return {
        "daily": plots.daily(check),
        "monthly": plots.monthly(check),
        "week": None if check.clock.dates_only else plots.week(check),
        "regularities": plots.regularities(check),
        "holidays": plots.holidays(check),
        "types": plots.types(check) if len(check.types) > 1 else None,
        "places": plots.places(check),
        "lag": plots.delays(lag.histogram, "time from event to report") if lag else None,
        "intervals": plots.delays(intervals.histogram, "length of the interval") if intervals else None,
    }


def _tiles(check: EventCheck) -> list[Tile]:
    rows, days = check.rows, check.daily
    rate = rows.kept / len(days)
    return [
        Tile(f"{rows.kept:,}", f"events of {rows.read:,} rows"),
        Tile(percent(rows.geocoded), "of the rows have a place"),
        Tile(f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}", "events a day"),
        Tile(_length(len(days)), f"{date(days.first)} to {date(days.last)}"),
        Tile(f"{len(check.types):,}", "type" if len(check.types) == 1 else "types"),
        Tile(f"{len(check.places):,}", "place" if len(check.places) == 1 else "different places"),
    ]


def _length(days: int) -> str:
    return f"{days / 365.25:.1f} years" if days >= 730 else a_number(days, "day")


def _reasons(check: EventCheck) -> list[tuple[str, int]]:
    return [*check.rows.dropped.items(), *check.rows.notes.items()]


def _names_of_days(check: EventCheck) -> dict[str, str]:
    """Return the name of each holiday by its date, and of the days beside it."""
    names: dict[str, str] = {}
    for each in check.holidays:
        before, after = each.holiday.around
        for day in each.holiday.dates(check.daily.first - after, check.daily.last + before):
            names[str(day)] = each.holiday.name
            for offset in range(-before, after + 1):
                names.setdefault(str(day + offset), f"near {each.holiday.name}")
    return names


def _rounding(check: EventCheck) -> str:
    rounding = check.places.rounding
    if not rounding.metres:
        return "Coordinates show no rounding."
    step = listed(rounding.steps)
    return f"Coordinates are written to {step} {rounding.unit}, which is {_metres(rounding.metres)}."


def _metres(metres: float) -> str:
    return f"{metres:,.0f} m" if metres >= 10 else f"{metres:.1f} m" if metres >= 0.1 else "less than 0.1 m"
