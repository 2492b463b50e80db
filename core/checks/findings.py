# SPDX-License-Identifier: GPL-2.0-or-later
"""What figures of a check mean, in plain language, and what to do about it.

Each rule is one function from the check to a finding, or to nothing. Rules stand in order of importance;
within the report, findings are ordered by level first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .clock import EXACTNESS, FIRST_STANDS_OUT
from .coverage import END_DAYS
from .days import Spike
from .holidays import PROFILE_DAYS, HolidayFigures, near_holidays
from .places import DEFAULT, FAR_OFF, ZERO, Place
from .wording import a_number, date, listed, month, percent, span_of_hours, times

if TYPE_CHECKING:
    from .check import EventCheck

#: Levels, the worst first.
SERIOUS, CAUTION, NOTE, GOOD = "serious", "caution", "note", "good"
LEVELS = (SERIOUS, CAUTION, NOTE, GOOD)

#: Share of events with a place below which maps of them mislead: Ratcliffe (2004), Geocoding crime and a
#: first estimate of a minimum acceptable hit rate, Int. J. Geographical Information Science 18(1).
ACCEPTABLE_HIT_RATE = 0.85

_SEVERAL = 3
# Share of events up to which those on one side of a gap are taken for errors.
_STRAY_SHARE = 0.01


@dataclass(frozen=True)
class Finding:
    """One thing to know about a layer of events.

    Attributes
    ----------
    level : str
        ``serious``: forecasts would be wrong; ``caution``: something to do or to keep in mind; ``note``:
        good to know; ``good``: looked at and in order.
    title : str
        What it is, in a few words.
    text : str
        What was found.
    advice : str
        What to do; empty where there is nothing to do.
    """

    level: str
    title: str
    text: str
    advice: str = ""

    def plain(self) -> str:
        """Return it as one paragraph of plain text."""
        return " ".join(part for part in (f"{self.title}:", self.text, self.advice) if part)


def find(check: EventCheck) -> tuple[Finding, ...]:
    """Return all findings of a check, the most important first."""
    found = [finding for rule in _RULES for finding in rule(check)]
    return tuple(sorted(found, key=lambda each: LEVELS.index(each.level)))


def verdict(findings: Sequence[Finding]) -> str:
    """Return one sentence: whether the events can be used."""
    serious, cautions = (sum(f.level == level for f in findings) for level in (SERIOUS, CAUTION))
    if serious:
        return f"Not yet fit for forecasting: {a_number(serious, 'serious problem')} to solve first" + (
            f", and {a_number(cautions, 'point')} to keep in mind." if cautions else "."
        )
    if cautions:
        return f"Fit for forecasting, with {a_number(cautions, 'point')} to keep in mind."
    return "Fit for forecasting: nothing stands in the way."


def _geocoded(check: EventCheck) -> list[Finding]:
    rows = check.rows
    missing = rows.dropped.get("null_geometry", 0)
    if not missing:
        return [Finding(GOOD, "Places", f"Every one of the {rows.read:,} rows has a place.")]
    text = f"{missing:,} of {rows.read:,} rows ({percent(1 - rows.geocoded)}) have no place."
    if rows.geocoded < ACCEPTABLE_HIT_RATE:
        advice = (
            f"Geocode them: below {ACCEPTABLE_HIT_RATE:.0%} with a place, maps of crime are known to mislead."
        )
        return [Finding(SERIOUS, "Rows without a place", text, advice)]
    if rows.geocoded < 0.97:
        advice = (
            "Look whether they come from one district, one type or one year: these would be forecast too low."
        )
        return [Finding(CAUTION, "Rows without a place", text, advice)]
    return [Finding(NOTE, "Rows without a place", text + " They cannot be used; so few do little harm.")]


def _dated(check: EventCheck) -> list[Finding]:
    rows = check.rows
    if not rows.without_date:
        return []
    unread, empty = (rows.dropped.get(reason, 0) for reason in ("bad_time", "null_time"))
    parts = [f"{unread:,} have a date that cannot be read"] if unread else []
    parts += [f"{empty:,} have none"] if empty else []
    level = SERIOUS if rows.without_date > 0.1 else CAUTION if rows.without_date > 0.01 else NOTE
    advice = (
        "Choose the right field, and set 'day first' where the day stands before the month." if unread else ""
    )
    return [Finding(level, "Rows without a date", f"Of {rows.read:,} rows, {listed(parts)}.", advice)]


def _period(check: EventCheck) -> list[Finding]:
    days, title = len(check.daily), "Length of the period"
    text = f"The events cover {days:,} days, {date(check.daily.first)} to {date(check.daily.last)}."
    if days < 90:
        return [Finding(SERIOUS, title, text, "Get at least a year of events, better three.")]
    if days < 365:
        advice = "The seasons cannot be learned from less than a year; two or more are better."
        return [Finding(CAUTION, title, text, advice)]
    return [Finding(GOOD, title, text)]


def _density(check: EventCheck) -> list[Finding]:
    rate = check.rows.kept / len(check.daily)
    if check.rows.kept < 500:
        text = f"There are {a_number(check.rows.kept, 'event')} in all."
        advice = (
            "So few do not show where and when more is to be expected: get a longer period or more types."
        )
        return [Finding(SERIOUS, "Few events", text, advice)]
    if rate < 1:
        text = f"On average one event happens every {1 / rate:.1f} days."
        advice = "Forecast weeks or months, not days, and few large cells."
        return [Finding(CAUTION, "Rare events", text, advice)]
    return []


def _one_place(check: EventCheck) -> list[Finding]:
    places = check.places
    if places.enough:
        return []
    where = "one place" if len(places) == 1 else f"only {len(places)} places"
    return [
        Finding(
            SERIOUS if len(places) == 1 else CAUTION,
            "Few places",
            f"All events lie at {where}.",
            "Check the coordinates: perhaps they are those of districts or stations rather than of events.",
        )
    ]


def _far_off(check: EventCheck) -> list[Finding]:
    places = check.places
    events = places.events(FAR_OFF, ZERO)
    if not events:
        return [Finding(GOOD, "Stray places", "No event lies far from all others.")]
    number = places.number(FAR_OFF, ZERO)
    where = "at one place" if number == 1 else f"at {number:,} places"
    kinds = []
    if places.number(FAR_OFF):
        kinds.append("far from all others")
    if places.number(ZERO):
        kinds.append("where both coordinates are zero")
    examples = listed([coordinates(place) for place in places.astray])
    text = (
        f"{events:,} events ({percent(events / check.rows.kept)}) lie {where} {listed(kinds)}"
        f"{', such as' if number > len(places.astray) else ':'} {examples}."
    )
    advice = (
        "Filter them out or leave them: they are outside any grid of the area and are counted as such. "
        "Their true places are unknown, so check what they have in common."
    )
    return [Finding(CAUTION if events > 0.01 * check.rows.kept else NOTE, "Stray places", text, advice)]


def _defaults(check: EventCheck) -> list[Finding]:
    found = [place for place in check.places.busiest if place.verdict == DEFAULT]
    if not found:
        return []
    share = check.places.events(DEFAULT) / check.rows.kept
    text = (
        f"{percent(share)} of the events pile up at {listed([coordinates(place) for place in found])}, "
        "many more than at any other place."
    )
    advice = (
        "Look at the map: if it is the police station, the city hall or the middle of the city, it "
        "stands for "
        "'place unknown'. Filter these events out, or the forecast sees a hot spot there that does not exist."
    )
    return [Finding(SERIOUS if share > 0.05 else CAUTION, "Probable default place", text, advice)]


def _rounding(check: EventCheck) -> list[Finding]:
    rounding = check.places.rounding
    if rounding.metres < 20:
        return []
    text = (
        f"Coordinates are rounded to {listed(rounding.steps)} {rounding.unit}: places are "
        f"{rounding.metres_x:,.0f} m apart "
        f"from west to east and {rounding.metres_y:,.0f} m from south to north."
    )
    cell = math.ceil(2 * rounding.metres / 50) * 50
    return [
        Finding(
            CAUTION, "Rounded places", text, f"Make cells of {cell:,} m or more; smaller ones stay empty."
        )
    ]


def _dates_only(check: EventCheck) -> list[Finding]:
    clock = check.clock
    if clock.dates_only:
        text = f"{percent(clock.midnight_share)} of the events are at midnight: there is no time of day."
        advice = (
            "Choose the field with the time of day too, if there is one. Else forecast days or "
            "longer steps, no "
            "shifts and no hours."
        )
        return [Finding(CAUTION, "Dates only", text, advice)]
    if clock.utc_midnight_share > 0.9:
        text = (
            f"{percent(clock.utc_midnight_share)} of the events are at midnight UTC: there is no time of day."
        )
        advice = (
            "The dates were read as UTC: set that times are local, or every event may fall on the day before."
        )
        return [Finding(SERIOUS, "Dates in the wrong time zone", text, advice)]
    return []


def _default_times(check: EventCheck) -> list[Finding]:
    if check.clock.dates_only:
        return []
    found = []
    unknown = [each for each in check.clock.favoured if each.stands_for_unknown]
    for each in unknown[:1]:
        text = (
            f"{each.events:,} events ({percent(each.share)}) are at {each.clock}, {times(each.ratio)} "
            "as many as "
            "at that minute of the hours beside it: the time was not known."
        )
        advice = (
            "With steps of a day or more it does not matter. With hours or shifts, that time looks too busy."
        )
        found.append(Finding(CAUTION, "Default time of day", text, advice))
    favoured = [each for each in check.clock.favoured if not each.stands_for_unknown]
    if favoured:
        some = listed([f"{each.clock} ({times(each.ratio)})" for each in favoured[:_SEVERAL]])
        text = f"More events than at the hours beside them are at {some}: times that people guess."
        found.append(
            Finding(NOTE, "Guessed times of day", text, "Prefer steps of four hours or more to single hours.")
        )
    return found


def _exactness(check: EventCheck) -> list[Finding]:
    unit = check.clock.exactness
    if unit in (60, 1) and check.clock.hour_share < 0.2 or check.clock.dates_only:
        return []
    if unit >= 900:
        text = f"Times are whole {EXACTNESS[unit]}."
        return [Finding(NOTE, "Rounded times", text, "Choose no steps shorter than that.")]
    text = (
        f"{percent(check.clock.hour_share)} of the events are exactly on the hour: many times are estimates."
    )
    return [Finding(NOTE, "Rounded times", text, "Choose steps of two hours or more.")]


def _first_of_month(check: EventCheck) -> list[Finding]:
    ratio = check.clock.first_of_month_ratio
    # Fewer firsts of a month than in a year differ by chance.
    if not ratio >= FIRST_STANDS_OUT or len(check.daily) < 365:
        return []
    text = (
        f"The first day of a month has {percent(ratio - 1)} more events than other days: the first "
        "stands for "
        "'some time in that month'."
    )
    advice = (
        "With steps of a week or more it hardly matters. With steps of a day, do not judge by the "
        "first of a month, "
        "or leave out the types whose day is rarely known, such as fraud."
    )
    return [Finding(CAUTION if ratio >= 1.25 else NOTE, "First days of months", text, advice)]


def _holidays(check: EventCheck) -> list[Finding]:
    return [
        _default_new_year(each) if _is_default_date(check, each) else _celebration(each)
        for each in check.holidays
        if each.striking
    ]


def _is_default_date(check: EventCheck, each: HolidayFigures) -> bool:
    """Tell whether 1 January stands for "some time in that year": other firsts do, and its eve is quiet."""
    beside = float(np.nanmax(each.profile[[PROFILE_DAYS - 1, PROFILE_DAYS + 1]], initial=0))
    return (
        each.holiday.key == "01-01" and check.clock.first_of_month_ratio >= FIRST_STANDS_OUT and beside < 1.25
    )


def _default_new_year(each: HolidayFigures) -> Finding:
    text = (
        f"1 January has {times(each.ratio)} the events of the days around it, while the days beside "
        "it are as usual: "
        "it stands for 'some time in that year'."
    )
    advice = "Do not judge forecasts by that day; leave it out of training where days are the steps."
    return Finding(CAUTION if each.ratio >= 2 else NOTE, "1 January", text, advice)


def _celebration(each: HolidayFigures) -> Finding:
    before, after = each.holiday.around
    text = (
        f"On {each.holiday.name} there are {times(each.ratio)} the usual number of events (mean of "
        f"{a_number(len(each.days), 'year')}: {each.mean:,.0f})"
    )
    if each.around_ratio >= 1.25:
        text += (
            f", and {times(each.around_ratio)} on the {a_number(before, 'day')} before and {after} after it"
        )
        peak = int(np.nanargmax(each.profile)) - PROFILE_DAYS
        if peak and -before <= peak <= after:
            text += (
                f"; most, {times(each.profile[peak + PROFILE_DAYS])} as many, "
                f"{a_number(abs(peak), 'day')} {'after' if peak > 0 else 'before'} it"
            )
    advice = (
        "Leave these days out of training and scores, or judge them apart: a forecast that learns "
        "them expects "
        "too much of the ordinary days around."
    )
    level = CAUTION if each.ratio >= 2 else NOTE
    return Finding(level, f"Holiday: {each.holiday.name}", text + ".", advice)


def _spikes(check: EventCheck) -> list[Finding]:
    near = near_holidays(check.daily, [each.holiday for each in check.holidays])
    unexplained = check.daily.striking & ~near
    number = int(unexplained.sum())
    if not number:
        return []
    some = [_spike(spike) for spike in check.daily.spikes(among=unexplained)[:_SEVERAL]]
    text = (
        f"{a_number(number, 'day')} {'has' if number == 1 else 'have'} at least twice the "
        "usual number of events"
    )
    text += f"{', such as' if number > _SEVERAL else ':'} {listed(some)}."
    advice = (
        "Find out what happened: a riot and a festival are events, a batch entered under one date is not."
    )
    return [
        Finding(CAUTION if number > len(check.daily) / 100 else NOTE, "Days that stand out", text, advice)
    ]


def _spike(spike: Spike) -> str:
    usual = f"usually {spike.level:,.0f}" if spike.level >= 1 else "usually fewer than one"
    return f"{date(spike.day)} ({spike.events:,} events, {usual})"


def _start(check: EventCheck) -> list[Finding]:
    start = check.coverage.start
    if start is None:
        return []
    before = int(check.coverage.counts[check.coverage.months < start].sum())
    text = (
        f"Before {month(start)} there are few events ({before:,} from {date(check.daily.first)} on): "
        "coverage grew, "
        "or dates are wrong."
    )
    advice = f"Set the start of the period to {start}-01 or later."
    return [Finding(CAUTION, "Late start", text, advice)]


def _stop(check: EventCheck) -> list[Finding]:
    coverage = check.coverage
    if coverage.stop is not None:
        after = int(coverage.counts[coverage.months >= coverage.stop].sum())
        text = f"From {month(coverage.stop)} on there are few events ({after:,}): the source runs out."
        return [Finding(CAUTION, "Early end", text, f"Set the end of the period to {coverage.stop}-01.")]
    if coverage.end_short:
        text = (
            f"The last {END_DAYS} days have {percent(coverage.end_ratio)} of the events to be "
            "expected from the "
            "weeks before and the season: events that are not yet reported or entered."
        )
        begin = check.daily.last - END_DAYS
        advice = f"Set the end of the period to {begin}, or fetch the events again in some weeks."
        return [Finding(CAUTION, "Unfinished end", text, advice)]
    return []


def _holes(check: EventCheck) -> list[Finding]:
    found = []
    if check.coverage.thin:
        months = [month(each) for each in check.coverage.thin]
        text = (
            f"{_some_of(months)} {'has' if len(months) == 1 else 'have'} less than half the "
            "events of the months beside."
        )
        advice = (
            "Find out whether something stopped crime or stopped its recording; if "
            "recording, train on the time after."
        )
        found.append(Finding(CAUTION, "Thin months", text, advice))
    hollow = [date(each) for each in check.daily.hollow]
    if hollow:
        text = (
            f"{_some_of(hollow)} {'has' if len(hollow) == 1 else 'have'} less than a quarter "
            "of the usual number of events."
        )
        found.append(Finding(NOTE, "Hollow days", text + " Records of these days may be missing."))
    gap, start = check.gap, check.coverage.start
    stray = bool(_stray_dates(check))
    if gap is not None and gap.improbable and not stray and (start is None or gap.end > start):
        text = (
            f"There is no event for {span_of_hours(gap.days * 24)} after {date(gap.start)}, far "
            "longer than chance "
            "leaves between events."
        )
        found.append(
            Finding(CAUTION, "Gap", text, "Ask the source for the missing time, or train on the time after.")
        )
    return found


def _stray_dates(check: EventCheck) -> list[Finding]:
    """Find a few events so far from all others in time that their dates must be wrong."""
    gap, daily = check.gap, check.daily
    if gap is None or gap.days < len(daily) / 2:
        return []
    day = int((gap.start.astype("datetime64[D]") - daily.first).astype(int))
    before = int(daily.counts[: day + 1].sum())
    fewer = min(before, int(daily.counts.sum()) - before)
    if fewer > _STRAY_SHARE * daily.counts.sum():
        return []
    text = (
        f"Far from all others in time: {a_number(fewer, 'event')}. Nothing happened for "
        f"{span_of_hours(gap.days * 24)} between {date(gap.start)} and {date(gap.end)}."
    )
    advice = "Correct these dates, or set START and END: otherwise the cube is empty for most of its steps."
    return [Finding(SERIOUS, "Stray dates", text, advice)]


def _some_of(names: Sequence[str]) -> str:
    if len(names) <= _SEVERAL:
        return listed(names)
    return f"{len(names)}, such as {listed(names[:_SEVERAL])}"


def _even(check: EventCheck) -> list[Finding]:
    if _start(check) or _stop(check) or _holes(check) or len(check.daily) < 365:
        return []
    return [Finding(GOOD, "Coverage", "No late start, no missing month, no unfinished end.")]


def _duplicates(check: EventCheck) -> list[Finding]:
    found, duplicates = [], check.duplicates
    if duplicates.identity:
        text = f"{duplicates.identity:,} rows have an identity that another row has already."
        advice = (
            "Drop duplicates if the identity is that of a record. If it is that of a case with "
            "several victims or "
            "offences, they are meant."
        )
        found.append(Finding(_by_share(check, duplicates.identity), "Repeated identities", text, advice))
    if duplicates.same:
        text = (
            f"{duplicates.same:,} rows ({percent(duplicates.same / check.rows.kept)}) repeat the "
            "place, time and "
            "type of another row."
        )
        if duplicates.identity is None:
            advice = (
                "Where places or times are rounded, some are events of their own. Choose a field "
                "with the identity "
                "to tell them apart."
            )
            level = _by_share(check, duplicates.same)
        else:
            text += (
                " Where their identities differ, they are several victims, offences or calls in one event."
            )
            advice, level = "", NOTE
        found.append(Finding(level, "Repeated place, time and type", text, advice))
    return found or [Finding(GOOD, "Duplicates", "No event occurs twice.")]


def _by_share(check: EventCheck, events: int) -> str:
    return CAUTION if events > 0.01 * check.rows.kept else NOTE


def _types(check: EventCheck) -> list[Finding]:
    found = []
    if check.type_variants:
        groups = [" = ".join(f"'{name}'" for name in group) for group in check.type_variants]
        text = f"Names of types differ in spelling only: {listed(groups[:_SEVERAL])}."
        found.append(
            Finding(CAUTION, "Spelling of types", text, "Write them in one way, or they count as two types.")
        )
    if len(check.types) > 100:
        text = f"There are {len(check.types):,} types."
        found.append(
            Finding(
                NOTE, "Many types", text, "Choose a coarser field; most of these are too rare to forecast."
            )
        )
    return found


def _lag(check: EventCheck) -> list[Finding]:
    lag = check.lag
    if lag is None:
        return []
    found = []
    if lag.negative > 0.001:
        text = f"{percent(lag.negative)} of the events were reported before they happened."
        level = CAUTION if lag.negative > 0.01 else NOTE
        found.append(
            Finding(level, "Reports before the event", text, "Check that the two dates are not swapped.")
        )
    late = 1 - lag.within[1]
    text = (
        f"Half of the events are known after {span_of_hours(lag.quantiles[0.5])}; {percent(late)} are "
        "not known "
        f"after a day, {percent(1 - lag.within[7])} not after a week."
    )
    advice = (
        "The most recent days are always incomplete: end the training that long before today."
        if late > 0.05
        else ""
    )
    found.append(Finding(CAUTION if 1 - lag.within[7] > 0.05 else NOTE, "Delay of reports", text, advice))
    return found


def _intervals(check: EventCheck) -> list[Finding]:
    intervals = check.intervals
    if intervals is None:
        return []
    text = (
        f"Of {percent(intervals.share)} of the events only an interval is known, half of them longer than "
        f"{span_of_hours(intervals.quantiles[0.5])}; {percent(intervals.over_a_day)} of the intervals "
        "are longer "
        "than a day."
    )
    advice = "Give the field with the end of the interval when counting, so that events are spread over it."
    return [Finding(NOTE, "Intervals", text, advice)]


def _settled(check: EventCheck) -> list[Finding]:
    clock_change = sum(check.rows.notes.get(key, 0) for key in ("ambiguous_time", "skipped_time"))
    if not clock_change:
        return []
    text = (
        f"{clock_change:,} events fall into the hours in which clocks are changed; the first pass or "
        "the end of the "
        "gap is taken."
    )
    return [Finding(NOTE, "Clock changes", text)]


def coordinates(place: Place) -> str:
    """Return where a place is, in degrees if they are known."""
    if place.x == place.y == 0:
        return "x = 0, y = 0"
    if math.isfinite(place.latitude) and math.isfinite(place.longitude):
        return f"{place.latitude:.5f}, {place.longitude:.5f}"
    return f"x {place.x:,.1f}, y {place.y:,.1f}"


_RULES: tuple[Callable[[EventCheck], list[Finding]], ...] = (
    *(_geocoded, _dated, _stray_dates, _dates_only, _period, _density, _one_place, _defaults, _far_off),
    *(_start, _stop, _holidays, _holes, _even, _spikes, _duplicates, _rounding),
    *(_first_of_month, _default_times, _exactness, _lag, _intervals, _types, _settled),
)
