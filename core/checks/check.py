# SPDX-License-Identifier: GPL-2.0-or-later
"""The check of a layer of events: all figures, what follows from them, and the page that shows them."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyproj

from ..atomic import atomic_path
from ..errors import InputError
from ..events import EventTable
from ..reporter import Reporter
from .clock import ClockFigures
from .coverage import Coverage
from .days import DailyCounts, Gap, longest_gap
from .delays import Intervals, Lag
from .findings import Finding, find, verdict
from .holidays import DEFAULT_HOLIDAYS, HolidayFigures, holiday_figures, near_holidays, read_holidays
from .localtimes import LocalTimes
from .places import DEFAULT, FAR_OFF, ZERO, Places, place_codes
from .records import Duplicates, Rows, TypeFigures, spelling_variants, type_figures


@dataclass(frozen=True, eq=False)
class EventCheck:
    """What a check of events has found; made by :func:`check_events`.

    Attributes
    ----------
    source : str
        What the layer is called.
    crs : str
        Name of its coordinate reference system.
    time_zone : str
        IANA name of the local clock.
    rows : Rows
    types : tuple of TypeFigures
        The most frequent first.
    type_variants : tuple of tuple of str
        Names of types that differ in case, spaces and punctuation only.
    duplicates : Duplicates
    places : Places
    daily : DailyCounts
    gap : Gap or None
        None for a single event.
    coverage : Coverage
    clock : ClockFigures
    holidays : tuple of HolidayFigures
    lag : Lag or None
        None where nothing is known about reports.
    intervals : Intervals or None
        None where no event has an interval.
    """

    source: str
    crs: str
    time_zone: str
    rows: Rows
    types: tuple[TypeFigures, ...]
    type_variants: tuple[tuple[str, ...], ...]
    duplicates: Duplicates
    places: Places
    daily: DailyCounts
    gap: Gap | None
    coverage: Coverage
    clock: ClockFigures
    holidays: tuple[HolidayFigures, ...]
    lag: Lag | None
    intervals: Intervals | None

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the figures mean and what to do about it, the most important first."""
        return find(self)

    @property
    def verdict(self) -> str:
        """One sentence: whether the events can be used."""
        return verdict(self.findings)

    def numbers(self) -> dict[str, float]:
        """Return the figures for the outputs of a Processing model, always under the same names.

        Shares and ratios are fractions (0.15, not 15); NaN where there is nothing to measure: no such
        holiday in the period or among the holidays asked for, no times of report, no intervals.
        """
        holidays = {each.holiday.key: each.ratio for each in self.holidays}
        median = 0.5
        return {
            "rows": self.rows.read,
            "events": self.rows.kept,
            "share_geocoded": self.rows.geocoded,
            "duplicates": self.duplicates.dropped_as_duplicates,
            "same_place_time_type": self.duplicates.same,
            "types": len(self.types),
            "places": len(self.places),
            "far_off": self.places.events(FAR_OFF, ZERO),
            "pile_up_share": self.places.events(DEFAULT) / self.rows.kept,
            "rounding_metres": self.places.rounding.metres,
            "days": len(self.daily),
            "events_per_day": self.rows.kept / len(self.daily),
            "days_without_events": self.daily.empty,
            "longest_gap_days": self.gap.days if self.gap else math.nan,
            "spike_days": int(self.daily.striking.sum()),
            "thin_months": self._thin_months(),
            "end_ratio": self.coverage.end_ratio,
            "new_year_ratio": holidays.get("01-01", math.nan),
            "july_ratio": holidays.get("07-04", math.nan),
            "midnight_share": self.clock.midnight_share,
            "hour_share": self.clock.hour_share,
            "first_of_month_ratio": self.clock.first_of_month_ratio,
            "median_lag_hours": self.lag.quantiles[median] if self.lag else math.nan,
            "share_known_after_a_day": self.lag.within[1] if self.lag else math.nan,
            "share_with_interval": self.intervals.share if self.intervals else 0.0,
            "median_interval_hours": self.intervals.quantiles[median] if self.intervals else math.nan,
            "serious": sum(finding.level == "serious" for finding in self.findings),
            "cautions": sum(finding.level == "caution" for finding in self.findings),
        }

    def html(self, made: str = "") -> str:
        """Return the report as one page of HTML that needs nothing else; the same figures, the same bytes.

        Parameters
        ----------
        made : str
            When or by whom it was made, shown as it is at the foot.
        """
        # matplotlib and jinja2 take a second to load, which whoever wants numbers only need not wait for.
        from .page import page

        return page(self, made)

    def _thin_months(self) -> int:
        coverage = self.coverage
        early = 0 if coverage.start is None else int((coverage.months < coverage.start).sum())
        late = 0 if coverage.stop is None else int((coverage.months >= coverage.stop).sum())
        return early + late + len(coverage.thin)


def check_events(
    table: EventTable,
    crs: pyproj.CRS | str,
    time_zone: str,
    *,
    holidays: Iterable[str | datetime.date] = DEFAULT_HOLIDAYS,
    source: str = "",
    reporter: Reporter | None = None,
) -> EventCheck:
    """Check events before anything is learned from them.

    Parameters
    ----------
    table : EventTable
        The events; a million needs some 150 MB of memory beside the table itself.
    crs : pyproj.CRS or str
        Coordinate reference system of their places.
    time_zone : str
        IANA name: hours and days are those of this clock.
    holidays : iterable
        Days to look at: ``MM-DD`` for every year, full dates (``YYYY-MM-DD`` or :class:`datetime.date`)
        for some years.
    source : str
        What to call the layer.
    reporter : Reporter, optional
        Receives progress; may ask to stop.

    Raises
    ------
    InputError
        There is no event, no such time zone, or a holiday is not a day.
    """
    if not len(table):
        raise InputError(
            "Not one event has a place and a time, so that there is nothing to check.",
            hint="Choose the field that holds the date, and check that the rows have a point.",
            parameter="INPUT",
        )
    reporter = reporter or Reporter()
    days_off = read_holidays(holidays)
    crs = pyproj.CRS.from_user_input(crs)

    local = LocalTimes.of(table.time, time_zone)
    daily = DailyCounts.of(local)
    clock = ClockFigures.of(local, table.time, daily, near_holidays(daily, days_off))
    reporter.progress(0.4)
    codes = place_codes(table.x, table.y)
    places = Places.of(table, crs, codes)
    reporter.progress(0.7)
    duplicates = Duplicates.of(table, codes)
    types = type_figures(table, local)
    reporter.progress(1.0)
    return EventCheck(
        source,
        crs.name,
        time_zone,
        Rows.of(table),
        types,
        spelling_variants([each.name for each in types]),
        duplicates,
        places,
        daily,
        longest_gap(table.time),
        Coverage.of(daily),
        clock,
        holiday_figures(daily, days_off),
        Lag.of(table.time, table.reported),
        Intervals.of(table.time, table.end),
    )


def write_report(check: EventCheck, path: str | os.PathLike[str], made: str = "") -> None:
    """Write :meth:`EventCheck.html` to a file, which appears whole or not at all.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    content = check.html(made)
    with atomic_path(path) as part:
        part.write_text(content, encoding="utf-8", newline="\n")
