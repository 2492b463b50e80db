# SPDX-License-Identifier: GPL-2.0-or-later
"""Gradient-boosted trees on averages of the past.

Friedman (2001), "Greedy function approximation: a gradient boosting machine", in the histogram form of
scikit-learn, with the Poisson deviance as loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_poisson_deviance

from ..cube import Cube
from ..errors import InputError
from ..features import CityPace, DecayedMeans, city_totals, month_steps
from ..grid import Grid
from ..reporter import Reporter
from ..timesteps import TimeAxis
from ..training.checkpoints import Checkpoint
from ..training.splits import Split
from .base import Forecaster, ModelState

# The base rate is that of an exponentially weighted mean with this half-life in days.
_BASE_DAYS = 60.0
# Other half-lives in days; the last one is the long-run rate, all of the past alike.
_OTHER_DAYS = (3.0, 14.0, 30.0, 120.0, 365.0, math.inf)
# Which of these, counted from the base on, are also looked at in the eight cells around.
_AROUND = (2, 4)

# Events that are added to observed and expected ones, so that quiet cells differ little.
_CALM = 1.0

# Values that are told apart of each feature, and samples from which they are chosen.
_BINS, _BIN_SAMPLES = 200, 200_000

# Steps whose features are held at a time, and samples that go through the trees at a time.
_BLOCK_STEPS, _BLOCK_SAMPLES = 64, 16384

_NEIGHBOURS = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])


@dataclass(frozen=True)
class BoostedTreesSettings:
    """Settings of :class:`BoostedTrees`.

    Attributes
    ----------
    trees : int
        Trees at most.
    leaves : int
        Leaves of a tree at most.
    shrinkage : float
        Share of what a tree has learned that counts.
    patience : int
        Training ends when so many rounds of ten trees have brought no progress on the validation steps.
    samples : int
        Cells of training steps to learn from at most, drawn by chance.
    seed : int
        Start of the random numbers.
    """

    trees: int = 200
    leaves: int = 15
    shrinkage: float = 0.1
    patience: int = 2
    samples: int = 1_000_000
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("trees", 1), ("leaves", 2), ("patience", 1), ("samples", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"The value must be at least {least}.", parameter=name.upper(), value=value)
        if not 0 < self.shrinkage <= 1:
            raise InputError(
                "The shrinkage must be above 0 and at most 1.",
                hint="0.1 is a good start.",
                parameter="SHRINKAGE",
                value=self.shrinkage,
            )


class Features:
    """What the trees look at on the eve of each step, step by step.

    Parameters
    ----------
    counts : numpy.ndarray
        `(steps, y, x)` all that is known.
    axis : TimeAxis
        Of these steps; it may go on beyond them.
    grid : Grid
        Cells and study area.
    start : int
        First step to look at.
    """

    def __init__(self, counts: np.ndarray, axis: TimeAxis, grid: Grid, start: int) -> None:
        self._counts, self._axis = counts, axis
        self._valid, self._inside = grid.valid, grid.inside
        self._totals = city_totals(counts, grid.valid)
        self._step = start
        days = axis.hours / 24
        self._past = DecayedMeans([each / days for each in (_BASE_DAYS, *_OTHER_DAYS)], counts[:start])
        around = ndimage.convolve(self._valid.astype(np.float64), _NEIGHBOURS, mode="constant")
        self._around = np.maximum(around, 1.0)

    def read(self, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return base rates and features of the steps up to `stop - 1` that have not been read yet.

        Of steps whose counts are not known only the first can be read, until :meth:`learn` is told them.

        Returns
        -------
        base : numpy.ndarray
            float64 `(steps, cells)`, above 0: exponentially weighted mean, times level and weekday factor
            of the city.
        features : numpy.ndarray
            float32 `(steps, cells, features)`: of cells the base rate, averages over other spans of time
            and over the cells around, each relative to it, and the share inside; of the city its level, its
            last week and year relative to the last 28 days, weekday factor and calendar.
        """
        start = self._step
        usual, own = zip(*(self._look() for _ in range(start, stop)))
        base, cells = np.stack(usual), np.stack(own)
        pace = CityPace(self._totals, self._axis)
        level = pace.level(base.sum(axis=1), start, stop)
        weekday = pace.weekday_factor(start, stop)
        month = month_steps(self._axis)
        recent, week, year = (
            pace.mean(steps, start, stop) + 1e-9
            for steps in (month, max(1, month // 4), self._axis.steps_per_year)
        )
        calendar = self._axis.extended(stop - len(self._axis)).calendar[start:stop]
        city = np.column_stack(
            [np.log(level), np.log(week / recent), np.log(recent / year), np.log(weekday), calendar]
        ).astype(np.float32)
        city = np.broadcast_to(city[:, None], (*cells.shape[:2], city.shape[1]))
        return base * (level * weekday)[:, None], np.concatenate([cells, city], axis=2)

    def learn(self, counts: np.ndarray) -> None:
        """Take in what happened, or is expected, in the step after those that are known: `(y, x)`."""
        self._totals = np.append(self._totals, counts[self._valid].sum())
        self._advance(np.where(self._valid, counts, 0.0))

    def _advance(self, counts: np.ndarray) -> None:
        self._past.advance(counts)
        self._step += 1

    def _look(self) -> tuple[np.ndarray, np.ndarray]:
        """Return usual rate `(cells,)` and features of the cells `(cells, features)` on the eve of a step."""
        sums, weights = self._past.sums * self._valid, self._past.weight
        # One step at the mean rate of the city: a cell without events is not expected to stay so for ever.
        density = max(float(sums[0].sum()), 0.5) / max(weights[0], 1.0) / self._inside.sum()
        usual = (sums[0] + density * self._inside) / (weights[0] + 1)
        columns = [np.log(np.where(self._valid, usual, 1.0)), self._inside]
        columns += [_ratio(sums[i], weights[i] * usual) for i in range(1, len(sums))]
        columns += [_ratio(self._near(sums[i]), weights[i] * self._near(usual)) for i in _AROUND]
        if self._step < len(self._counts):
            self._advance(self._counts[self._step])
        cells = np.stack([column[self._valid] for column in columns], axis=1)
        return usual[self._valid], cells.astype(np.float32)

    def _near(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of the cells around each cell that belong to the study area."""
        return ndimage.convolve(values * self._valid, _NEIGHBOURS, mode="constant") / self._around


def _ratio(events: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.log((events + _CALM) / (expected + _CALM))


@dataclass(frozen=True)
class Trees:
    """Trees as arrays of nodes, all in a row; a leaf leads to itself.

    Attributes
    ----------
    feature : numpy.ndarray
        int64 `(nodes,)`: what is looked at.
    child : numpy.ndarray
        int64 `(nodes, 2)`: the next node for values up to the threshold, and above.
    threshold, value : numpy.ndarray
        float64 `(nodes,)`.
    roots : numpy.ndarray
        int64 `(trees,)`.
    depth : int
        Of the deepest tree.
    constant : float
        Added to the sum of the trees.
    """

    feature: np.ndarray
    child: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    depth: int = 0
    constant: float = 0.0

    ARRAYS = ("feature", "child", "threshold", "value", "roots")

    @classmethod
    def none(cls) -> Trees:
        """Return no trees, whose sum is 0."""
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole.reshape(0, 2), real, real, whole)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], depth: int, constant: float) -> Trees:
        """Return trees from what is kept of them."""
        feature, child, threshold, value, roots = (arrays[name] for name in cls.ARRAYS)
        return cls(feature, child, threshold, value, roots, depth, constant)

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor, edges: Sequence[np.ndarray] | None = None) -> Trees:
        """Return the trees of a fitted regressor; their sum is the log of what it predicts.

        Parameters
        ----------
        edges : sequence of numpy.ndarray, optional
            What :func:`codes` has taken of each feature, if the regressor has learned from codes: the trees
            take the values.
        """
        # scikit-learn offers no other way to its nodes; a test compares the predictions.
        parts = [predictor.nodes for (predictor,) in model._predictors]
        roots = np.append(0, np.cumsum([len(part) for part in parts]))[:-1]
        nodes = np.concatenate(parts)
        own = np.arange(len(nodes))
        first = np.repeat(roots, [len(part) for part in parts])
        leaf = nodes["is_leaf"] == 1
        threshold = np.where(leaf, 0.0, nodes["num_threshold"])
        if edges is not None:
            # A code up to k is a value up to edge k.
            for feature, values in enumerate(edges):
                at = ~leaf & (nodes["feature_idx"] == feature)
                threshold[at] = values[np.floor(threshold[at]).astype(int)]
        return cls(
            np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
            np.stack([np.where(leaf, own, first + nodes[side]) for side in ("left", "right")], axis=1),
            threshold,
            np.where(leaf, nodes["value"], 0.0),
            roots,
            int(nodes["depth"].max()),
            float(np.ravel(model._baseline_prediction)[0]),
        )

    def __len__(self) -> int:
        return len(self.roots)

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return int((self.child[:, 0] == np.arange(len(self.child))).sum())

    def joined(self, other: Trees) -> Trees:
        """Return these trees and others."""
        shift = {"child": len(self.feature), "roots": len(self.feature)}
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name) + shift.get(name, 0)])
            for name in self.ARRAYS
        }
        depth, constant = max(self.depth, other.depth), self.constant + other.constant
        return Trees.from_arrays(arrays, depth, constant)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the sum of the trees and the constant for each sample `(n, features)`: float64 `(n,)`."""
        result = np.full(len(features), self.constant)
        child = self.child.ravel()
        for first in range(0, len(features), _BLOCK_SAMPLES):
            block = np.ascontiguousarray(features[first : first + _BLOCK_SAMPLES])
            rows = np.arange(len(block)) * block.shape[1]
            values = block.ravel()
            for root in self.roots:
                node = np.full(len(block), root)
                for _ in range(self.depth):
                    above = values[rows + self.feature[node]] > self.threshold[node]
                    node = child[2 * node + above]
                result[first : first + len(block)] += self.value[node]
        return result


def bin_edges(features: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return for each feature `(n, features)` rising values of it that divide it about evenly."""
    if len(features) > _BIN_SAMPLES:
        features = features[np.random.default_rng(seed).permutation(len(features))[:_BIN_SAMPLES]]
    shares = np.arange(1, _BINS) / _BINS
    return [np.unique(np.quantile(column, shares, method="lower")) for column in features.T]


def codes(features: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """Return how many edges lie below each value, uint8 `(n, features)`."""
    found = np.empty(features.shape, np.uint8)
    for column, values in enumerate(edges):
        found[:, column] = np.searchsorted(values, features[:, column])
    return found


class BoostedTrees(Forecaster):
    """Trees that learn by what a rate has to be multiplied, from averages of the past.

    The forecast is ``base rate × exp(sum of trees)``, see :class:`Features` for what the base rate is and
    what the trees look at. They are boosted on the Poisson deviance; a factor on a base rate b is learned
    from counts over b with the weights b, which is the same. Training ends when rounds of ten trees bring
    no progress on the validation steps; no tree at all counts as well.

    Later steps are forecast one by one, expected events standing in for those that are not known.

    Attributes
    ----------
    trees_ : Trees
        None until the model is fitted or restored.
    """

    key = "boosted_trees"
    title = "Boosted trees"
    Settings = BoostedTreesSettings
    search = {"trees": "50..400 log", "leaves": "7..63 log", "shrinkage": "0.03..0.3 log"}

    # Trees that are learned between two looks at the validation steps.
    _ROUND = 10

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.trees_: Trees | None = None

    @property
    def history(self) -> int:
        return 1

    @property
    def parameter_count(self) -> int:
        return 0 if self.trees_ is None else self.trees_.leaves

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> Forecaster:
        """Learn from the training steps; with `start`, further trees. No checkpoint is kept."""
        self.trees_ = getattr(start, "trees_", None) or Trees.none()
        train = self._samples(cube, split.train_start, split.train_stop, reporter)
        judge = self._samples(cube, split.validation_start, split.validation_stop, reporter)
        if train[0].sum() == 0:
            return self
        rates = [base * np.exp(self.trees_.predict(features)) for _, base, features in (train, judge)]
        best, late, trees = mean_poisson_deviance(judge[0], rates[1]), 0, self.trees_
        reporter.metric("val_loss", best, 0)
        # Left to the regressor, bins would be made anew from weighted samples in each round, slowly.
        edges = bin_edges(train[2], self.settings.seed)
        seen = codes(train[2], edges)
        rounds = -(-self.settings.trees // self._ROUND)
        for number in range(rounds):
            regressor = self._regressor(min(self._ROUND, self.settings.trees - number * self._ROUND), train)
            regressor.fit(seen, train[0] / rates[0], sample_weight=rates[0])
            more = Trees.of(regressor, edges)
            rates = [rate * np.exp(more.predict(part[2])) for rate, part in zip(rates, (train, judge))]
            trees = trees.joined(more)
            loss = mean_poisson_deviance(judge[0], rates[1])
            reporter.metric("loss", mean_poisson_deviance(train[0], rates[0]), number + 1)
            reporter.metric("val_loss", loss, number + 1)
            reporter.progress((number + 1) / rounds)
            late += 1
            if loss < best:
                best, late, self.trees_ = loss, 0, trees
            if late == self.settings.patience:
                break
        return self

    def _regressor(self, trees: int, train: tuple[np.ndarray, ...]) -> HistGradientBoostingRegressor:
        settings = self.settings
        return HistGradientBoostingRegressor(
            loss="poisson",
            learning_rate=settings.shrinkage,
            max_iter=trees,
            max_leaf_nodes=settings.leaves,
            max_depth=5,
            min_samples_leaf=int(np.clip(len(train[0]) // 1000, 20, 200)),
            # In expected events, as the weights are.
            l2_regularization=10.0,
            early_stopping=False,
            random_state=settings.seed,
        )

    def _samples(
        self, cube: Cube, start: int, stop: int, reporter: Reporter
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return counts, base rates and features `(n, …)` of cells and steps drawn by chance."""
        share = self.settings.samples / ((stop - start) * cube.grid.valid.sum())
        draw = np.random.default_rng([self.settings.seed, start])
        parts = []
        for first, last, base, features in self._blocks(cube, start, stop):
            chosen = draw.random(base.shape) < share
            counts = cube.total[first:last, cube.grid.valid].astype(np.float64)
            parts.append((counts[chosen], base[chosen], features[chosen]))
            reporter.check()
        counts, base, features = (np.concatenate(part) for part in zip(*parts))
        return counts, base, features

    @staticmethod
    def _blocks(cube: Cube, start: int, stop: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Yield first and last step (exclusive), base rates and features of some steps after another."""
        look = Features(cube.total, cube.axis, cube.grid, start)
        for first in range(start, stop, _BLOCK_STEPS):
            last = min(first + _BLOCK_STEPS, stop)
            yield first, last, *look.read(last)

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        result = np.full((stop - start, *cube.grid.shape), np.nan, np.float32)
        for first, last, base, features in self._blocks(cube, start, stop):
            result[first - start : last - start, cube.grid.valid] = self._rates(base, features)
        return result

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        self.check_origin(cube, origin, horizon)
        look = Features(cube.total[:origin], cube.axis.slice(0, origin).extended(horizon), cube.grid, origin)
        result = np.full((horizon, *cube.grid.shape), np.nan, np.float32)
        for ahead in range(horizon):
            result[ahead, cube.grid.valid] = self._rates(*look.read(origin + ahead + 1))[0]
            look.learn(result[ahead])
            if reporter:
                reporter.progress((ahead + 1) / horizon)
        return result

    def _rates(self, base: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return expected events `(steps, cells)`."""
        assert self.trees_ is not None, "fit or restore first"
        factors = self.trees_.predict(features.reshape(-1, features.shape[2]))
        return base * np.exp(factors).reshape(base.shape)

    def state(self) -> ModelState:
        assert self.trees_ is not None, "fit or restore first"
        trees = self.trees_
        values = {"depth": trees.depth, "constant": trees.constant}
        return ModelState(values=values, arrays={name: getattr(trees, name) for name in Trees.ARRAYS})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> BoostedTrees:
        model = cls(**settings)
        model.trees_ = Trees.from_arrays(state.arrays, **state.values)
        return model
