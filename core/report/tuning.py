# SPDX-License-Identifier: GPL-2.0-or-later
"""The report on a search for settings as a page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..cube import Cube
from ..models.settings import value_text
from ..training.outcome import Outcome
from ..training.ranges import Numbers, Range, searched
from ..training.study import COMPLETE, FAILED, PRUNED, Trial
from ..training.tune import OBJECTIVE_TITLES
from .figures import AMBER, INK, MIST, PAGE, RED, SLATE, Picture, new_figure, picture, style
from .page import Tile, render

# Slices side by side, and trials in the table.
_ACROSS, _ROWS = 3, 20


def page(outcome: Outcome, cube: Cube, trained: dict[str, Any], made: str = "") -> str:
    """Return the page of HTML, complete in itself.

    Parameters
    ----------
    cube : Cube
        What the trials were scored on.
    trained : dict
        Outputs of the training with the best settings, see :func:`~..jobs.training.train`.
    made : str
        When and by what, for the last line.
    """
    with style():
        pictures = {
            "history": _history(outcome),
            "importance": _importance(outcome),
            "slices": _slices(outcome),
        }
    ranges = searched(outcome.prepared.ranges)
    # They follow each other.
    folds = outcome.prepared.judging.folds
    complete = sorted(outcome.study.of(COMPLETE), key=outcome.study.loss)
    default = outcome.study.default
    return render(
        "tunemodel.html",
        outcome=outcome,
        title=outcome.prepared.kind.title,
        objective=_title(outcome),
        level="good" if outcome.improved else "caution",
        tiles=_tiles(outcome),
        pictures=pictures,
        names=list(ranges),
        best=outcome.best,
        default=default,
        rows=complete[:_ROWS],
        failed=outcome.study.of(FAILED),
        hidden=max(0, len(complete) - _ROWS),
        steps=folds[-1][1] - folds[0][0],
        folds=len(folds),
        period=(cube.axis.isoformat(folds[0][0])[0], cube.axis.isoformat(folds[-1][1] - 1)[1]),
        trained=trained,
        text=value_text,
        higher=outcome.study.higher_is_better,
        made=made,
    )


def _title(outcome: Outcome) -> str:
    judging = outcome.prepared.judging
    title = OBJECTIVE_TITLES[judging.objective]
    return f"{title} at {judging.area_share:g} % of the area" if judging.objective == "hit_rate" else title


def _score(trial: Trial) -> float:
    assert trial.score is not None, "complete trials have a score"
    return trial.score


def _tiles(outcome: Outcome) -> list[Tile]:
    study = outcome.study
    tiles = [Tile(f"{outcome.best.score:.5g}", f"{_title(outcome)} of the best trial")]
    if study.default is not None:
        tiles.append(Tile(f"{study.default.score:.5g}", "of the defaults"))
    if study.gain is not None:
        tiles.append(Tile(f"{study.gain:.2g} %", "better than the defaults"))
    seconds = sum(trial.seconds for trial in study.trials)
    tiles += [
        Tile(f"{len(study.trials)}", "trials"),
        Tile(f"{len(study.of(PRUNED))} / {len(study.of(FAILED))}", "given up / failed"),
        Tile(f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:,.0f} s", "of computing"),
    ]
    return tiles


def _history(outcome: Outcome) -> Picture:
    """Return the scores in the order of the trials, and the best so far."""
    study = outcome.study
    figure = new_figure(height=3.2)
    axes = figure.add_subplot()
    complete = study.of(COMPLETE)
    axes.plot(
        [t.number + 1 for t in complete], [_score(t) for t in complete], "o", color=SLATE, label="trial"
    )
    if study.default is not None:
        axes.axhline(_score(study.default), color=AMBER, linestyle="--", label="defaults")
    so_far, best = [], math.inf
    for trial in study.trials:
        best = min(best, study.loss(trial) if trial.state == COMPLETE else math.inf)
        so_far.append(-best if study.higher_is_better else best)
    numbers = np.arange(len(so_far)) + 1
    known = np.isfinite(so_far)
    axes.step(numbers[known], np.array(so_far)[known], where="post", color=RED, label="best so far")
    for state, mark, label in ((PRUNED, "|", "given up"), (FAILED, "x", "failed")):
        at = [trial.number + 1 for trial in study.of(state)]
        if at:
            axes.plot(
                at, [0.03] * len(at), mark, color=INK, label=label, transform=axes.get_xaxis_transform()
            )
    axes.set_xlabel("Trial (1: the defaults)")
    axes.set_ylabel(_title(outcome))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
    return picture(figure, "Scores of the trials in their order, and the best so far")


def _importance(outcome: Outcome) -> Picture | None:
    """Return how much of the differences each setting explains."""
    if not outcome.importance:
        return None
    names = list(outcome.importance)[::-1]
    shares = [100 * outcome.importance[name] for name in names]
    figure = new_figure(0.7 * PAGE, 0.6 + 0.3 * len(names))
    axes = figure.add_subplot()
    axes.barh(names, shares, color=[RED if n == len(names) - 1 else SLATE for n in range(len(names))])
    axes.set_xlabel("percent of the differences between the scores")
    axes.grid(False, axis="y")
    return picture(figure, "How much each setting mattered")


def _slices(outcome: Outcome) -> Picture:
    """Return the score over each setting that was searched."""
    ranges = searched(outcome.prepared.ranges)
    down = -(-len(ranges) // _ACROSS)
    figure = new_figure(height=2.3 * down)
    for number, (name, each) in enumerate(ranges.items()):
        axes = figure.add_subplot(down, _ACROSS, number + 1)
        _slice(axes, name, each, outcome)
        if number % _ACROSS == 0:
            axes.set_ylabel(_title(outcome))
    return picture(figure, "Score of each trial over the value of each setting")


def _slice(axes: Axes, name: str, each: Range, outcome: Outcome) -> None:
    def place(trial: Trial) -> float:
        value = trial.settings[name]
        return value if isinstance(each, Numbers) else words.index(value_text(value))

    complete = outcome.study.of(COMPLETE)
    words = list(dict.fromkeys(value_text(t.settings[name]) for t in complete))
    if not isinstance(each, Numbers):
        # In the order of the range; defaults may lie outside.
        known = [value_text(value) for value in each.values]
        words = known + [word for word in words if word not in known]
        axes.set_xticks(range(len(words)), words)
        axes.set_xlim(-0.5, len(words) - 0.5)
    elif each.log:
        axes.set_xscale("log")
    axes.scatter([place(t) for t in complete], [_score(t) for t in complete], s=18, color=SLATE)
    default, best = outcome.study.default, outcome.best
    if default is not None:
        axes.plot([place(default)], [_score(default)], "o", color=AMBER, markersize=7, markeredgecolor=MIST)
    if best is not default:
        axes.plot([place(best)], [_score(best)], "o", color=RED, markersize=7, markeredgecolor=MIST)
    axes.set_title(name)
