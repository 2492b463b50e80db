# SPDX-License-Identifier: GPL-2.0-or-later
"""The plots of the report on events."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm

from ..report.figures import (
    AMBER,
    INK,
    MIST,
    PAGE,
    PLUM,
    RED,
    SLATE,
    Picture,
    heat_colours,
    new_figure,
    picture,
    thousands,
)
from .clock import FIRST_STANDS_OUT
from .delays import CLASSES
from .holidays import PROFILE_DAYS, HolidayFigures
from .localtimes import days_of_month
from .places import BUSY, DEFAULT, LISTED
from .wording import a_number, date, listed, percent

if TYPE_CHECKING:
    from .check import EventCheck
    from .places import Places

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_TYPES_SHOWN = 12
_HOLIDAYS_SHOWN = 4
# Up to this number of places each gets a dot of its own; of more, their density is shown.
_MOST_DOTS = 12_000


def daily(check: EventCheck) -> Picture:
    """Return events a day over the whole period, with their running mean and the holidays."""
    counts = check.daily
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    mean = counts.running_mean()
    axes.plot(counts.days, counts.counts, color=SLATE, linewidth=0.6, label="events a day")
    axes.plot(counts.days, mean, color=PLUM, linewidth=1.8, label="mean of 28 days")
    top = _top(counts.counts, mean)
    _mark_holidays(axes, check, top)
    cut = counts.counts > top
    if cut.any():
        axes.plot(
            counts.days[cut], np.full(cut.sum(), top), "^", color=RED, markersize=4, clip_on=False, zorder=5
        )
        highest = int(counts.counts.argmax())
        axes.set_title(
            f"Red triangles: {a_number(int(cut.sum()), 'day')} above the plot, up to "
            f"{counts.counts[highest]:,} events on {date(counts.days[highest])}"
        )
    axes.set_ylim(0, top)
    axes.set_xlim(counts.days[0] - 1, counts.days[-1] + 1)
    axes.set_ylabel("events a day")
    _date_axis(axes)
    thousands(axes)
    figure.legend(loc="outside lower center", ncols=6)
    alt = (
        f"Line of events a day from {date(counts.first)} to {date(counts.last)}: on average "
        f"{counts.counts.mean():,.1f}, from {counts.counts.min():,} to {counts.counts.max():,}."
    )
    return picture(figure, alt)


def monthly(check: EventCheck) -> Picture:
    """Return events a month; thin months and months that lie only partly in the period stand out."""
    coverage = check.coverage
    months = coverage.months
    thin = np.isin(months, np.array(coverage.thin, "datetime64[M]"))
    if coverage.start is not None:
        thin |= months < coverage.start
    if coverage.stop is not None:
        thin |= months >= coverage.stop
    partial = _partial_months(check)
    figure = new_figure(height=2.5)
    axes = figure.subplots()
    starts, ends = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    for chosen, colour, label in (
        (~thin & ~partial, SLATE, "whole month"),
        (partial & ~thin, MIST, "part of a month"),
        (thin, RED, "thin: less than half of the months beside it"),
    ):
        if chosen.any():
            width = (ends - starts)[chosen].astype(int) * 0.86
            axes.bar(starts[chosen], coverage.counts[chosen], width, align="edge", color=colour, label=label)
    axes.set_ylabel("events a month")
    axes.grid(False, axis="x")
    _date_axis(axes)
    thousands(axes)
    figure.legend(loc="outside lower center", ncols=3)
    alt = f"Bars of events in each of {len(months)} months; {a_number(int(thin.sum()), 'month')} thin."
    return picture(figure, alt)


def week(check: EventCheck) -> Picture:
    """Return the mean number of events in each hour of the week."""
    table = check.clock.week
    figure = new_figure(height=2.9)
    axes = figure.subplots()
    image = axes.pcolormesh(table, cmap=heat_colours(), vmin=0, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(7) + 0.5, WEEKDAYS)
    axes.set_xticks(np.arange(0, 25, 3), [f"{hour:02d}:00" for hour in range(0, 25, 3)])
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(f"by the clock of {check.time_zone}")
    bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.04)
    bar.set_label("events an hour")
    bar.outline.set_visible(False)
    busy_day, busy_hour = divmod(int(table.argmax()), 24)
    quiet = check.clock.quiet
    alt = (
        f"Heat map of events by hour and weekday: most on {WEEKDAYS[busy_day]} from {busy_hour:02d}:00, "
        f"fewest from {quiet:02d}:00 to {(quiet + 3) % 24:02d}:00."
    )
    return picture(figure, alt)


def regularities(check: EventCheck) -> Picture:
    """Return events by minute of the hour and by day of the month, where guesses stand out."""
    clock = check.clock
    figure = new_figure(height=2.4)
    left, right = figure.subplots(1, 2)
    shares = clock.minutes / clock.minutes.sum()
    _bars(left, np.arange(60), shares * 100, stand_out=shares > 3 / 60)
    left.set_xticks(range(0, 60, 10))
    left.set_xlabel("minute of the hour")
    left.set_ylabel("% of events")
    ratios = clock.day_of_month
    _bars(right, np.arange(1, 32), ratios, stand_out=(np.arange(31) == 0) & (ratios >= FIRST_STANDS_OUT))
    right.axhline(1, color=INK, linewidth=0.8)
    right.set_xticks([1, 5, 10, 15, 20, 25, 31])
    right.set_xlabel("day of the month (without holidays)")
    right.set_ylabel("events, usual = 1")
    alt = (
        f"Bars of events by minute of the hour, {percent(float(shares[0]))} at minute 0, and by day "
        "of the month, "
        f"{_ratio_text(clock.first_of_month_ratio)} the usual number on the first."
    )
    return picture(figure, alt)


def holidays(check: EventCheck) -> Picture | None:
    """Return events in the days around each holiday; None if no holiday lies in the period."""
    shown = [each for each in check.holidays if np.isfinite(each.profile).any()]
    shown = sorted(shown, key=lambda each: not each.striking)[:_HOLIDAYS_SHOWN]
    if not shown:
        return None
    figure = new_figure(height=2.5)
    for axes, each in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        _holiday(axes, each)
    texts = [f"{_ratio_text(each.ratio)} the usual number on {each.holiday.name}" for each in shown]
    return picture(figure, f"Bars of events around holidays: {listed(texts)}.")


def types(check: EventCheck) -> Picture:
    """Return the most frequent types."""
    shown = check.types[:_TYPES_SHOWN]
    names = [_shortened(each.name) for each in shown]
    counts = [each.events for each in shown]
    if len(check.types) > len(shown):
        rest = check.types[len(shown) :]
        names.append(a_number(len(rest), "other type"))
        counts.append(sum(each.events for each in rest))
    figure = new_figure(height=0.75 + 0.25 * len(names))
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.barh(rows, counts, color=[SLATE] * len(shown) + [MIST] * (len(names) - len(shown)))
    # Names come from the data: a dollar sign in one is no formula.
    axes.set_yticks(rows, names, parse_math=False)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    for row, count in zip(rows, counts):
        axes.annotate(
            f"{count:,} ({percent(count / check.rows.kept)})",
            (count, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_xlim(0, 1.2 * max(counts))
    axes.set_xlabel("events")
    thousands(axes, "x")
    return picture(figure, f"Bars of events by type; the most frequent is {shown[0].name}.")


def places(check: EventCheck) -> Picture:
    """Return a map of the places that are not far off; the ten busiest are numbered."""
    found = check.places
    near = np.isin(found.verdicts, (BUSY, DEFAULT))
    if not near.any():
        near[:] = True
    x, y, counts = found.x[near], found.y[near], found.counts[near]
    # The busiest places stand first.
    west, east, south, north = _window(x, y, LISTED, found.metres_per_unit)
    aspect = (north - south) * found.metres_per_unit[1] / ((east - west) * found.metres_per_unit[0])
    height = min(max(8.0 * aspect, 3.0), 6.5)
    # What a narrow map leaves over at its sides is not part of the picture, apart from the colour bar.
    figure = new_figure(min(max(height / aspect + 1.1, 3.5), PAGE), height)
    axes = figure.subplots()
    shown = (x >= west) & (x <= east) & (y >= south) & (y <= north)
    norm = LogNorm(1, max(int(counts.max()), 10))
    drawn: ScalarMappable
    if len(x) <= _MOST_DOTS:
        size = min(max(250 / math.sqrt(len(x)), 2), 7)
        # The busiest are drawn last, so that they are seen.
        order = np.flatnonzero(shown)[::-1]
        drawn = axes.scatter(
            x[order], y[order], size**2, counts[order], cmap=_map_colours(), norm=norm, linewidths=0
        )
        label = "events at a place"
    else:
        drawn, label = _density(axes, x[shown], y[shown], counts[shown], (west, east, south, north), found)
    axes.set(xlim=(west, east), ylim=(south, north), xticks=[], yticks=[])
    axes.set_aspect(found.metres_per_unit[1] / found.metres_per_unit[0])
    axes.set_facecolor("#f4f6f8")
    _number_places(axes, check, 72 * (height - 0.3) / ((north - south) * found.metres_per_unit[1]))
    _scale_bar(axes, found)
    bar = figure.colorbar(drawn, ax=axes, pad=0.015, fraction=0.04, format="{x:,.0f}")
    bar.set_label(label)
    alt = f"Map of {len(found):,} places of events; the ten busiest are numbered as in the table below."
    return picture(figure, alt, raster=True)


def delays(histogram: np.ndarray, what: str) -> Picture:
    """Return the events by classes of delay or length.

    Parameters
    ----------
    histogram : numpy.ndarray
        Events in the classes between :data:`~.delays.CLASSES`.
    what : str
        What is counted, as in ``delay of the report``.
    """
    figure = new_figure(height=2.5)
    axes = figure.subplots()
    shares = histogram / max(histogram.sum(), 1) * 100
    axes.bar(np.arange(len(shares)), shares, width=0.9, color=SLATE)
    names = [_hours_text(hours) for hours in CLASSES]
    labels = [f"under\n{names[0]}", *(f"{a}\nto {b}" for a, b in zip(names, names[1:])), f"over\n{names[-1]}"]
    axes.set_xticks(np.arange(len(shares)), labels)
    axes.grid(False, axis="x")
    for at, share in enumerate(shares):
        axes.annotate(
            percent(share / 100), (at, share), (0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_ylim(0, 1.15 * max(float(shares.max()), 1))
    axes.set_ylabel("% of events")
    axes.set_xlabel(what)
    most = int(shares.argmax())
    return picture(
        figure, f"Bars of events by {what}: most in the class {labels[most].replace(chr(10), ' ')}."
    )


def _top(counts: np.ndarray, mean: np.ndarray) -> float:
    """Return the upper end of an axis of daily counts, which a few extreme days shall not set."""
    usual = 1.25 * max(float(np.nanmax(mean, initial=0)), float(np.quantile(counts, 0.98)), 1.0)
    highest = 1.05 * float(counts.max())
    return highest if highest <= 1.6 * usual else usual


def _mark_holidays(axes: Axes, check: EventCheck, top: float) -> None:
    colours = (AMBER, INK, RED, SLATE)
    for each, colour in zip(check.holidays, colours):
        if len(each.days):
            heights = np.minimum(each.counts, top)
            axes.plot(
                each.days, heights, "o", color=colour, markersize=4.5, markeredgecolor="white",
                markeredgewidth=0.6, label=each.holiday.name, zorder=4, clip_on=False,
            )  # fmt: skip


def _date_axis(axes: Axes) -> None:
    locator = mdates.AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, show_offset=False))


def _partial_months(check: EventCheck) -> np.ndarray:
    months = check.coverage.months
    partial = np.zeros(len(months), bool)
    partial[0] = days_of_month(check.daily.days[:1])[0] > 1
    partial[-1] |= days_of_month(check.daily.days[-1:] + 1)[0] > 1
    return partial


def _bars(axes: Axes, at: np.ndarray, heights: np.ndarray, stand_out: np.ndarray) -> None:
    axes.bar(at, np.nan_to_num(heights), width=0.85, color=np.where(stand_out, RED, SLATE))
    axes.grid(False, axis="x")


def _holiday(axes: Axes, each: HolidayFigures) -> None:
    offsets = np.arange(-PROFILE_DAYS, PROFILE_DAYS + 1)
    before, after = each.holiday.around
    belongs = (offsets >= -before) & (offsets <= after)
    axes.bar(offsets, np.nan_to_num(each.profile), width=0.85, color=np.where(belongs, AMBER, MIST))
    axes.bar(0, np.nan_to_num(each.profile[PROFILE_DAYS]), width=0.85, color=RED)
    axes.axhline(1, color=INK, linewidth=0.8)
    axes.set_title(f"{each.holiday.name}: {_ratio_text(each.ratio)} the usual")
    axes.set_xticks([-PROFILE_DAYS, -3, 0, 3, PROFILE_DAYS], ["-7", "-3", "the day", "+3", "+7"])
    axes.set_ylabel("events, usual = 1")
    axes.grid(False, axis="x")


def _ratio_text(ratio: float) -> str:
    return "?" if math.isnan(ratio) else f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def _shortened(name: str, most: int = 38) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _window(
    x: np.ndarray, y: np.ndarray, whole: int, scale: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the part of the map that holds all but the outermost places: west, east, south, north.

    The first `whole` places are inside.
    """
    sides = []
    for values in (x, y):
        low, high = np.quantile(values, (0.002, 0.998))
        sides.append((min(low, values[:whole].min()), max(high, values[:whole].max())))
    widths = [(high - low) * metres for (low, high), metres in zip(sides, scale)]
    # A single place, or places in one line, need some country around them.
    padding = max(0.04 * max(widths), 100.0)
    (west, east), (south, north) = (
        (low - padding / metres, high + padding / metres) for (low, high), metres in zip(sides, scale)
    )
    return float(west), float(east), float(south), float(north)


def _density(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    counts: np.ndarray,
    window: tuple[float, float, float, float],
    found: Places,
) -> tuple[ScalarMappable, str]:
    west, east, south, north = window
    widths = (east - west) * found.metres_per_unit[0], (north - south) * found.metres_per_unit[1]
    size = _round_number(max(widths) / 160)
    bins = [max(1, math.ceil(width / size)) for width in widths]
    limits = [
        [low, low + n * size / metres] for low, n, metres in zip((west, south), bins, found.metres_per_unit)
    ]
    density, _, _ = np.histogram2d(x, y, bins=bins, range=limits, weights=counts)
    drawn = axes.imshow(
        np.where(density > 0, density, np.nan).T,
        cmap=_map_colours(),
        norm=LogNorm(1, max(float(density.max()), 10)),
        origin="lower",
        extent=(limits[0][0], limits[0][1], limits[1][0], limits[1][1]),
        interpolation="nearest",
    )
    return drawn, f"events in {size:,.0f} m x {size:,.0f} m"


def _map_colours() -> Colormap:
    # A place with a single event has to stand out from the paper.
    return heat_colours("#fbd79b")


def _number_places(axes: Axes, check: EventCheck, points_per_metre: float) -> None:
    scale = np.array(check.places.metres_per_unit) * points_per_metre
    taken: list[np.ndarray] = []
    for number, place in enumerate(check.places.busiest, start=1):
        if place.verdict not in (BUSY, DEFAULT):
            continue
        colour = RED if place.verdict == DEFAULT else INK
        at = np.array([place.x, place.y]) * scale
        offset = _free_offset(at, taken)
        taken.append(at + offset)
        axes.plot(place.x, place.y, "o", markersize=8, markerfacecolor="none", markeredgecolor=colour)
        axes.annotate(
            str(number), (place.x, place.y), tuple(offset), textcoords="offset points", annotation_clip=True,
            color="white", fontsize=8, fontweight="bold", ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": colour, "linewidth": 0},
            arrowprops={"arrowstyle": "-", "color": colour, "shrinkA": 0, "shrinkB": 4, "linewidth": 0.8},
        )  # fmt: skip


def _free_offset(at: np.ndarray, taken: list[np.ndarray]) -> np.ndarray:
    """Return the nearest offset in points at which a label does not cover one that is there already."""
    candidates = [
        distance * np.array([math.cos(angle), math.sin(angle)])
        for distance in (14, 26, 38, 50)
        for angle in np.linspace(0.25 * math.pi, 2.25 * math.pi, 8, endpoint=False)
    ]
    free = [each for each in candidates if all(np.abs(at + each - other).max() > 13 for other in taken)]
    return (free or candidates)[0]


def _scale_bar(axes: Axes, found: Places) -> None:
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    metres = _round_number((east - west) * found.metres_per_unit[0] / 5)
    length = metres / found.metres_per_unit[0]
    left, height = west + 0.03 * (east - west), south + 0.03 * (north - south)
    axes.plot([left, left + length], [height, height], color=INK, linewidth=3, solid_capstyle="butt")
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axes.annotate(text, (left, height), (0, 4), textcoords="offset points", fontsize=8.5)


def _round_number(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor for factor in (5.0, 2.0, 1.0) if factor * power <= value * (1 + 1e-9)) * power


def _hours_text(hours: int) -> str:
    if hours < 24:
        return f"{hours} h"
    days = hours // 24
    return "1 year" if days == 365 else f"{days} d"
