# SPDX-License-Identifier: GPL-2.0-or-later
"""What a league table means, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .league import SIGNIFICANT, League, Standing

GOOD, CAUTION = "good", "caution"


@dataclass(frozen=True)
class Verdict:
    """Which model to use, and why.

    Attributes
    ----------
    level : {"good", "caution"}
        Good: another model is better than every simple method, beyond chance.
    use : str
        Name of the model to use.
    title : str
        One sentence.
    text : str
        What it rests on.
    gain : float
        Percent by which the loss of the best other model is lower than that of the best simple method; NaN
        if there are not both.
    p_value : float
        Chance of such a difference between equally good models; NaN likewise.
    """

    level: str
    use: str
    title: str
    text: str
    gain: float = math.nan
    p_value: float = math.nan


def verdict(league: League) -> Verdict:
    """Return the verdict: a simple method wins unless another model beats it beyond chance.

    What decides is the Poisson deviance, or for classifiers of hot cells, which have none, the events that
    they miss in the first budget of area.
    """
    simple, other = league.best_simple, league.best_other
    if simple is None or other is None:
        first = league.standings[0]
        kind, missing = ("simple method", "network") if other is None else ("network", "simple method")
        return Verdict(
            CAUTION,
            first.name,
            f"{first.name} is the best {kind} here.",
            f"No {missing} took part to compare it with.",
        )
    test = other.against.get("poisson_deviance") or other.against["missed"]
    loss = "poisson_deviance" if "poisson_deviance" in other.against else "missed"
    gain = _gain(other, simple, loss)
    what = "Poisson deviance" if loss == "poisson_deviance" else "events missed"
    found = _found(league, other, simple)
    numbers = (
        f"{what.capitalize()} over {len(league.plan.origins)} forecasts: {abs(gain):.2f} % "
        f"{'lower' if gain > 0 else 'higher'} than that of {simple.name} (Diebold-Mariano p "
        f"{p_text(test.p_value)}). {found}"
    )
    if gain > 0 and test.p_value < SIGNIFICANT:
        level, use, title = GOOD, other, f"{other.name} beats every simple method here; use it."
    elif gain > 0:
        level, use = CAUTION, simple
        title = f"{other.name} is ahead of {simple.name} by no more than chance; use {simple.name}."
    else:
        level, use = CAUTION, simple
        title = f"{other.name} does not beat {simple.name} here; use {simple.name}."
    return Verdict(level, use.name, title, numbers, gain, test.p_value)


def _gain(other: Standing, simple: Standing, loss: str) -> float:
    """Return by how many percent the loss of the model is lower than that of the simple method."""
    own, reference = other.loss(loss), simple.loss(loss)
    assert own is not None and reference is not None
    total = float(reference.sum())
    return 100 * (1 - float(own.sum()) / total) if total else 0.0


def _found(league: League, other: Standing, simple: Standing) -> str:
    share = league.area_shares[0]
    own, reference = (standing.hits.at(0).pooled() for standing in (other, simple))
    return (
        f"In {share:g} % of the area {other.name} finds {own.hits:,.0f} of {own.events:,.0f} events "
        f"({own.rate:.1%}), {simple.name} {reference.hits:,.0f} ({reference.rate:.1%})."
    )


def p_text(value: float) -> str:
    """Return a p value as it is written after a p."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
