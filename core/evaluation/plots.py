# SPDX-License-Identifier: GPL-2.0-or-later
"""The plots of the report on a backtest."""

from __future__ import annotations

import numpy as np
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from ..report.figures import AMBER, INK, MIST, PLUM, RED, SLATE, Picture, heat_colours, new_figure, picture
from .curves import HitCurve, budgets, hit_curve
from .league import League, Measure, Standing
from .metrics import area_hits, flag_cells
from .probabilities import bin_edges, reliability

_LINES = 4
_COLOURS = (RED, INK, AMBER, SLATE)
_MODELS_SHOWN = 12


def standings(league: League, measure: Measure) -> Picture | None:
    """Return a measure of each model with its interval; None if no model has it."""
    shown = [each for each in league.standings if measure.key in each.values][:_MODELS_SHOWN]
    if not shown:
        return None
    figure = new_figure(height=0.9 + 0.3 * len(shown))
    axes = figure.subplots()
    rows = np.arange(len(shown))
    for row, standing in zip(rows, shown):
        interval = standing.values[measure.key]
        colour = SLATE if standing.simple else RED
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=5, alpha=0.35)
        axes.plot([interval.estimate], [row], "o", color=colour)
        axes.annotate(
            f"{float(interval.estimate):.4g}",
            (float(interval.estimate), row),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(rows, [each.name for each in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(False, axis="y")
    better = "higher is better" if measure.higher_is_better else "lower is better"
    axes.set_xlabel(f"{measure.label} ({better})")
    return picture(figure, f"{measure.label} of {len(shown)} models with their intervals.")


def curves(league: League) -> Picture:
    """Return hit rate and PAI over the share of the area that is flagged."""
    figure = new_figure(height=3.6)
    left, right = figure.subplots(1, 2)
    shown = [(each, curve_of(league, each)) for each in _chosen(league)]
    best = shown[0][1]
    share = 100 * best.area_share
    left.plot(share, 100 * best.best_rate, color=MIST, linewidth=2.5, label="oracle")
    left.plot([0, 100], [0, 100], color=MIST, linestyle="--", label="chance")
    right.axhline(1, color=MIST, linestyle="--", label="chance")
    for (standing, curve), colour in zip(shown, _COLOURS):
        label = _plain(standing.name)
        left.plot(100 * curve.area_share, 100 * curve.hit_rate, color=colour, label=label)
        right.plot(100 * curve.area_share, curve.pai, color=colour, label=label)
    left.set(xlabel="% of the area flagged", ylabel="% of the events found", xlim=(0, 100), ylim=(0, 101))
    right.set(xlabel="% of the area flagged", ylabel="PAI (chance = 1)", xscale="log")
    ends = [float(np.nanmin(100 * curve.area_share[curve.area_share > 0])) for _, curve in shown]
    right.set_xlim(max(min(ends), 0.05), 100)
    right.set_xticks([tick for tick in (0.1, 0.5, 1, 5, 10, 50, 100) if tick >= right.get_xlim()[0]])
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.minorticks_off()
    right.set_ylim(0)
    left.legend(loc="lower right")
    return picture(figure, "Share of events found, and PAI, over the share of the area flagged.")


def curve_of(league: League, standing: Standing) -> HitCurve:
    """Return hits at many budgets of area, pooled over the origins."""
    values = league.answers[standing.name].ranked
    area = league.cube.grid.inside_area
    return hit_curve(area_hits(league.observed.sum(axis=1), values, area, budgets(60).tolist()))


def calibration(league: League) -> Picture | None:
    """Return observed over expected events in classes of the forecast; None without a count forecast."""
    shown = [each for each in _chosen(league) if each.errors is not None]
    if not shown:
        return None
    grid = league.cube.grid
    happened = league.observed.reshape(-1, *grid.shape)
    figure = new_figure(width=5.4, height=4.0)
    axes = figure.subplots()
    ends = []
    for standing, colour in zip(shown, _COLOURS):
        expected = league.answers[standing.name].expected
        assert expected is not None
        expected = expected.reshape(-1, *grid.shape)
        bins = reliability(happened, expected, grid.valid, bin_edges(expected, grid.valid, 12)).pooled()
        x, y = bins.mean_forecast, bins.frequency
        both = (x > 0) & (y > 0)
        if both.any():
            axes.plot(x[both], y[both], color=colour, marker=".", label=_plain(standing.name))
            ends += [x[both].min(), x[both].max(), y[both].min(), y[both].max()]
    if not ends:
        return None
    limits = 0.8 * min(ends), 1.25 * max(ends)
    axes.plot(limits, limits, color=MIST, linestyle="--", label="as forecast", zorder=0)
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axes.set(xlabel="forecast events per cell and step", ylabel="what happened there, mean")
    axes.legend()
    return picture(figure, "What happened over what was forecast, in classes of the forecast.")


def course(league: League) -> Picture | None:
    """Return the loss saved against the best simple method, added up over the origins."""
    simple = league.best_simple
    if simple is None:
        return None
    name = "poisson_deviance"
    reference = simple.loss(name)
    shown = [each for each in _chosen(league) if each is not simple and each.loss(name) is not None]
    if reference is None or not shown or reference.sum() == 0:
        return None
    figure = new_figure(height=2.8)
    axes = figure.subplots()
    starts = league.periods[0]
    axes.axhline(0, color=INK, linewidth=0.8)
    for standing, colour in zip(shown, _COLOURS):
        loss = standing.loss(name)
        assert loss is not None
        saved = 100 * np.cumsum(reference - loss) / reference.sum()
        axes.plot(starts, saved, color=colour, label=_plain(standing.name))
    axes.set_ylabel("deviance saved, %")
    locator = mdates.AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, show_offset=False))
    axes.legend()
    return picture(figure, f"Deviance saved against {simple.name}, added up over the origins.")


def maps(league: League, use: str) -> Picture:
    """Return what happened and what was forecast at one origin, with the cells flagged in the first budget.

    It is the origin whose number of hits is nearest to the mean: neither a lucky nor an unlucky one.
    """
    shown = [league.standing(use)]
    shown += [each for each in (league.best_simple, league.best_other) if each and each.name != use][:1]
    hits = shown[0].hits.at(0).hits
    at = int(np.argmin(np.abs(hits - hits.mean())))
    grid, share = league.cube.grid, league.area_shares[0]
    happened = np.where(grid.valid, league.observed[at].sum(axis=0), np.nan)
    panels: list[tuple[str, np.ndarray, np.ndarray | None]] = [("what happened", happened, None)]
    for standing in shown:
        values = league.answers[standing.name].ranked[at]
        panels.append((_plain(standing.name), values, flag_cells(values, grid.inside_area, share, happened)))
    rows, columns = grid.shape
    width = 9.0 / len(panels)
    figure = new_figure(height=min(max((width - 0.6) * rows / columns + 0.6, 2.2), 6.0))
    for axes, (title, values, flagged) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        _map(axes, title, values, flagged, happened)
    start = league.cube.axis.isoformat(league.plan.origins[at])[0]
    return picture(figure, f"Maps of events and forecasts for the period from {start[:16]}.", raster=True)


def _map(
    axes: Axes, title: str, values: np.ndarray, flagged: np.ndarray | None, happened: np.ndarray
) -> None:
    top = float(np.nanpercentile(values, 99.5)) or 1.0
    axes.imshow(values, cmap=heat_colours(), norm=PowerNorm(0.5, 0, top), interpolation="nearest")
    axes.set_title(title, parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_facecolor("#f4f6f8")
    if flagged is None:
        return
    hit = flagged & (np.nan_to_num(happened) > 0)
    for chosen, colour in ((flagged & ~hit, INK), (hit, "#1f8a5b")):
        for row, column in zip(*np.nonzero(chosen)):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=0.9))


def _chosen(league: League) -> list[Standing]:
    """Return the models that plots show: the best network, the best simple method, then the others."""
    first = [each for each in (league.best_other, league.best_simple) if each]
    rest = [each for each in league.standings if each not in first]
    return (first + rest)[:_LINES]


def _plain(name: str) -> str:
    # A dollar sign in a name is no formula, and a leading underscore hides a line from a legend.
    return name.replace("$", r"\$").lstrip("_") or "?"


def spread(values: dict[str, list[float]], label: str) -> Picture:
    """Return a measure of each model for each placing of the grid."""
    figure = new_figure(height=0.9 + 0.3 * len(values))
    axes = figure.subplots()
    for row, found in enumerate(values.values()):
        axes.plot(found, [row] * len(found), "o", color=PLUM, alpha=0.6)
    axes.set_yticks(range(len(values)), list(values), parse_math=False)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel(label)
    everything = [each for found in values.values() for each in found]
    return picture(
        figure, f"{label}: {min(everything):.3g} to {max(everything):.3g} over the placings of the grid."
    )
