# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtests: what models would have forecast in the past, each knowing only what came before.

A plan says at which steps forecasts begin (origins), how far they look ahead and what is learned when. Every
model answers for the same cells and the same steps. The work is cut into pieces that share one fit; a piece
depends on nothing but the cube and its own values, so that pieces may run anywhere and in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import atomic_path
from ..cube import Cube
from ..errors import InputError
from ..models.registry import model_class
from ..reporter import Reporter
from ..training.splits import chronological_split

if TYPE_CHECKING:
    from ..models.base import Forecaster
    from .league import League

#: When models are fitted: before the first origin only; anew before each n-th one; or on from the last fit.
REFITS = ("once", "anew", "warm")

# Fewer origins say nothing about the next one.
_FEWEST_ORIGINS = 2


@dataclass(frozen=True)
class Entrant:
    """A model that takes part in a backtest.

    Attributes
    ----------
    name : str
        What it is called in tables; different for each.
    model : str
        Key of the registry.
    settings : dict
        Its settings, where they are not the defaults.
    file : str, optional
        Model file that is applied as it is, and never fitted.
    """

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True)
class Plan:
    """When forecasts begin, and what is learned before.

    Attributes
    ----------
    origins : tuple of int
        Index of the first step of each forecast; rising.
    horizon : int
        Steps of each forecast.
    refit : {"once", "anew", "warm"}
        Fit before the first origin only; or again before every `refit_every`-th one, from new weights or from
        those of the fit before.
    refit_every : int
        Origins from one fit to the next.
    window : int
        Steps before an origin that are learned from (sliding window); 0: all (expanding window).
    validation_share : float
        Percent of these steps, the last ones, on which training stops early. They lie before the origin.
    """

    origins: tuple[int, ...]
    horizon: int = 1
    refit: str = "once"
    refit_every: int = 1
    window: int = 0
    validation_share: float = 15.0

    def __post_init__(self) -> None:
        for name in ("horizon", "refit_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    "The value must be at least 1.", parameter=name.upper(), value=getattr(self, name)
                )
        if self.window < 0:
            raise InputError(
                "The window must not be negative.",
                hint="Give 0 to learn from all steps before an origin.",
                parameter="WINDOW",
                value=self.window,
            )
        if self.refit not in REFITS:
            raise InputError(
                "There is no such choice.",
                hint=f"Choose one of {', '.join(REFITS)}.",
                parameter="REFIT",
                value=self.refit,
            )

    @classmethod
    def rolling(cls, first: int, stop: int, every: int, horizon: int = 1, **others: Any) -> Plan:
        """Return the plan with an origin at `first` and at every `every`-th step after it.

        All forecasts end before `stop`, a step that is not judged any more.

        Raises
        ------
        InputError
            Steps between origins below 1, or fewer than two origins.
        """
        if every < 1:
            raise InputError("The value must be at least 1.", parameter="EVERY", value=every)
        origins = tuple(range(first, stop - horizon + 1, every))
        if len(origins) < _FEWEST_ORIGINS:
            raise InputError(
                f"Between the first origin and the end there is room for {len(origins)} forecasts of "
                f"{horizon} steps; a backtest needs at least {_FEWEST_ORIGINS}.",
                hint="Choose an earlier FIRST_ORIGIN, fewer steps ahead, or fewer steps between origins.",
                parameter="FIRST_ORIGIN",
            )
        return cls(origins, horizon, **others)

    def pieces(self, entrant: Entrant) -> list[Piece]:
        """Return the work for one model, cut where a new fit makes it independent of what was before."""
        fresh = entrant.file is None and self.refit == "anew"
        size = self.refit_every if fresh else len(self.origins)
        return [
            Piece(entrant, self, tuple(range(start, min(start + size, len(self.origins)))))
            for start in range(0, len(self.origins), size)
        ]


@dataclass(frozen=True)
class Piece:
    """Some consecutive origins of a plan, for one model; `numbers` are their places in the plan."""

    entrant: Entrant
    plan: Plan
    numbers: tuple[int, ...]

    def run(self, cube: Cube, reporter: Reporter) -> Answers:
        """Fit and forecast.

        Raises
        ------
        InputError
            There is too little before the first origin, or a model file has learned from what it is to
            forecast.
        """
        plan = self.plan
        model = self._load(cube) if self.entrant.file else None
        answers = np.empty((len(self.numbers), plan.horizon, *cube.grid.shape), np.float32)
        runs = [self.numbers] if self.entrant.file or plan.refit != "warm" else self._runs()
        for done, numbers in enumerate(runs):
            if not self.entrant.file:
                model = self._fit(cube, plan.origins[numbers[0]], model, reporter)
            assert model is not None
            first = numbers[0] - self.numbers[0]
            answers[first : first + len(numbers)] = self._forecast(model, cube, numbers, reporter)
            reporter.progress((done + 1) / len(runs))
        assert model is not None
        probability = None if model.quantity == "hot" else model.probability(answers)
        expected = None if model.quantity == "hot" else model.expected_events(answers)
        return Answers(answers, expected, probability, model.title, model.parameter_count)

    def _runs(self) -> list[tuple[int, ...]]:
        every = self.plan.refit_every
        return [self.numbers[start : start + every] for start in range(0, len(self.numbers), every)]

    def _load(self, cube: Cube) -> Forecaster:
        from ..modelfile import load_model

        file = self.entrant.file
        assert file is not None
        saved = load_model(file, "MODEL_FILES")
        saved.check_fits(cube, "MODEL_FILES", file)
        known = saved.known_until
        first = self.plan.origins[self.numbers[0]]
        if known is None or known > cube.axis.edges[first]:
            raise InputError(
                f"The model has seen events until {known or 'an unknown time'} in training or validation; "
                f"the backtest begins at {cube.axis.edges[first]} (both UTC).",
                hint="Begin the backtest later (FIRST_ORIGIN), or train the model with an earlier UNTIL.",
                parameter="MODEL_FILES",
                value=file,
            )
        return saved.model

    def _fit(self, cube: Cube, origin: int, earlier: Forecaster | None, reporter: Reporter) -> Forecaster:
        first = max(0, origin - self.plan.window) if self.plan.window else 0
        # What comes after is cut off: no mistake in a model could let it look there.
        known = cube.steps(first, origin)
        model = model_class(self.entrant.model)(**self.entrant.settings)
        split = chronological_split(len(known), model.history, self.plan.validation_share)
        model.fit(known, split, reporter, start=earlier)
        model.finish(known, split, reporter, start=earlier)
        return model

    def _forecast(
        self, model: Forecaster, cube: Cube, numbers: tuple[int, ...], reporter: Reporter
    ) -> np.ndarray:
        """Return `(origins, horizon, y, x)`."""
        origins = [self.plan.origins[number] for number in numbers]
        if self.plan.horizon == 1 and len(origins) == origins[-1] - origins[0] + 1:
            # Forecasts of the next step only, one after the other, are what a model does fastest.
            return model.predict_next(cube.steps(0, origins[-1]), origins[0], origins[-1] + 1)[:, None]
        found = []
        for origin in origins:
            reporter.check()
            found.append(model.forecast(cube.steps(0, origin), origin, self.plan.horizon))
        return np.stack(found)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says at some origins; arrays are float32 `(origins, horizon, y, x)`, NaN outside.

    Attributes
    ----------
    values : numpy.ndarray
        As the model gives them; what cells are ranked by.
    expected : numpy.ndarray, optional
        Expected events; None for classifiers of hot cells.
    probability : numpy.ndarray, optional
        Probability of at least one event; None for classifiers of hot cells, which forecast something else.
    title : str
        Name of the kind of model.
    parameters : int
        Number of trained weights.
    """

    values: np.ndarray
    expected: np.ndarray | None
    probability: np.ndarray | None
    title: str
    parameters: int

    @property
    def ranked(self) -> np.ndarray:
        """What cells are flagged by, float32 `(origins, y, x)`: the horizon added up, in events if known."""
        return (self.values if self.expected is None else self.expected).sum(axis=1)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of consecutive pieces together."""

        def all_of(name: str) -> np.ndarray | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else np.concatenate(values)

        values = all_of("values")
        assert values is not None
        return cls(values, all_of("expected"), all_of("probability"), parts[0].title, parts[0].parameters)

    def write(self, path: str | Path) -> None:
        """Write a file that :meth:`read` reads."""
        arrays = {name: getattr(self, name) for name in ("values", "expected", "probability")}
        known = {name: array for name, array in arrays.items() if array is not None}
        with atomic_path(path) as part, open(part, "wb") as file:
            np.savez(file, title=np.array(self.title), parameters=np.array(self.parameters), **known)

    @classmethod
    def read(cls, path: str | Path) -> Answers:
        """Read what :meth:`write` has written."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                file["values"],
                file.get("expected"),
                file.get("probability"),
                str(file["title"]),
                int(file["parameters"]),
            )


def check_entrants(entrants: Sequence[Entrant]) -> None:
    """Raise :class:`InputError` unless there is a model, each with a name of its own."""
    names = [entrant.name for entrant in entrants]
    if not names:
        raise InputError(
            "There is no model to test.", hint="Choose models or model files.", parameter="MODELS"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(
            "Two models have the same name.",
            hint="Give each a name of its own.",
            parameter="MODELS",
            value=twice,
        )


def backtest(
    cube: Cube,
    entrants: Sequence[Entrant],
    plan: Plan,
    reporter: Reporter | None = None,
    *,
    span: tuple[float, float] = (0, 100),
    area_shares: Sequence[float] = (1.0, 5.0, 10.0),
    top: int = 30,
    **drawing: Any,
) -> League:
    """Let models forecast at the origins of a plan and compare them.

    Parameters
    ----------
    span : tuple of float
        Progress in percent at the beginning and at the end.
    area_shares, top, **drawing
        See :func:`~.league.make_league`.

    Raises
    ------
    InputError
        No model, two with the same name, or what :meth:`Piece.run` raises.

    Examples
    --------
    >>> plan = Plan.rolling(first=365, stop=len(cube), every=7, horizon=7)
    >>> league = backtest(cube, [Entrant("average", "historical_average"), Entrant("EWMA", "ewma")], plan)
    >>> league.table()
    """
    from .league import check_budgets, make_league

    check_entrants(entrants)
    check_budgets(area_shares, top)
    reporter = reporter or Reporter()
    answers = {}
    width = (span[1] - span[0]) / len(entrants)
    for number, entrant in enumerate(entrants):
        reporter.stage(entrant.name, span[0] + number * width, span[0] + (number + 1) * width)
        answers[entrant.name] = Answers.joined([piece.run(cube, reporter) for piece in plan.pieces(entrant)])
    return make_league(cube, plan, entrants, answers, area_shares=area_shares, top=top, **drawing)
