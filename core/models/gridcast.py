# SPDX-License-Identifier: GPL-2.0-or-later
"""The Gridcast network: what simple methods know, times what a network has learned that they miss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..cube import Cube
from ..errors import InputError
from ..knowledge import Knowledge, Known, recent_city_features
from ..mixture import TypeMixture, learned_type_weights, learned_weights
from ..reporter import PartOf, Reporter
from ..training.checkpoints import Checkpoint
from ..training.fit import Batches, FitOptions, fit_network
from ..training.splits import Split
from .base import Forecaster, ModelState
from .losses import masked_poisson_deviance
from .registry import model_class
from .rows import FeatureScaling, Samples
from .settings import NetworkSettings
from .trust import CITY_SHARES, PLACE_SHARES, Trust, earned

#: Width of a layer and number of layers, by size.
SIZES = {"fast": (32, 2), "standard": (64, 2), "large": (128, 3)}

# Half-lives in days of weighted averages among them.
_SIMPLE_DAYS = (30.0, 60.0, 120.0, 240.0, 730.0)
#: Simple methods that the network must not be worse than, on validation.
SIMPLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("historical_average", {}),
    ("weekday_average", {}),
    *(("ewma", {"half_life_days": days}) for days in _SIMPLE_DAYS),
    *(("ewma", {"half_life_days": days, "level": False, "weekday": False}) for days in _SIMPLE_DAYS),
)

#: What a forecast is made up of: events of a step, and factors.
PARTS = ("long-run level", "recent weeks", "near repeats", "calendar", "network's correction")

# Bound of a correction.
_CORRECTION_LIMIT = 6.0
# Rate of a cell where a simple method expects nothing: an event there is no surprise without end.
_LEAST_RATE = 1e-6
# Where hot spots are the aim: days ahead that places are told for, and share and least number of the cells
# that are flagged.
_HOTSPOT_DAYS, _HOTSPOT_SHARE, _LEAST_HOTSPOTS = 56, 0.0025, 5
# Between the seeds of networks of a model, so that those of models with neighbouring seeds differ.
_SEEDS_APART = 1000
# Steps that are read at a time, most steps that are learned from, and rows that go through at a time.
_BLOCK_STEPS, _MOST_STEPS, _PREDICT_ROWS = 64, 10_000, 65_536


@dataclass(frozen=True, kw_only=True)
class GridcastSettings(NetworkSettings):
    """Settings of :class:`GridcastForecaster`.

    Attributes
    ----------
    lookback : int
        Steps at the beginning of the cube that are looked back to only.
    size : {"fast", "standard", "large"}
        Of the network, see :data:`SIZES`.
    dropout : float
        Share of the numbers in the network that each batch of the training leaves out by chance.
    samples : int
        Cells of training steps to learn from at most, drawn by chance.
    final_networks : int
        Networks that learn anew from training and validation steps together, and forecast in the place of the
        one that was judged, as their mean; 0: that one forecasts.
    aim : {"counts", "hotspots"}
        What is to be told best: the events of the next step (Poisson deviance), or the places of those of the
        next two months (events in the busiest quarter of a percent of the cells).
    """

    epochs: int = 10
    batch_size: int = 8192
    learning_rate: float = 0.001
    patience: int = 10
    size: str = "standard"
    dropout: float = 0.2
    samples: int = 3_000_000
    final_networks: int = 2
    aim: str = "counts"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("size", tuple(SIZES))
        self._check_least("samples")
        self._check_least("final_networks", least=0)
        self._check_choice("aim", ("counts", "hotspots"))
        if not 0 <= self.dropout < 1:
            raise InputError(
                "The dropout must be at least 0 and below 1.",
                hint="0.2 is a good value.",
                parameter="DROPOUT",
                value=self.dropout,
            )

    def fit_options(self) -> FitOptions:
        return FitOptions(
            self.epochs, self.batch_size, self.learning_rate, self.patience, self.seed, schedule="cosine"
        )


def build_network(
    cell_features: int, city_features: int, *, width: int, depth: int, dropout: float
) -> keras.Model:
    """Build the network that corrects the log of a rate.

    Inputs: what is known of a cell `(n, cell_features)` and of the city `(n, city_features)`. Output
    `(n, 1)`: the correction, which is 0 as long as nothing has been learned. It is a sum of three parts: one
    of the city alone, a linear one of the cell, and one in which everything may act on everything else.
    """
    cell = keras.Input((cell_features,), name="cell")
    city = keras.Input((city_features,), name="city")
    # All cells of a step see the city through the same few numbers.
    seen = layers.Dropout(dropout, name="city_dropout")(city)
    z = layers.Dense(16, "gelu", name="city_state")(seen)
    x = layers.Add(name="meet")(
        [layers.Dense(width, name="cell_1")(cell), layers.Dense(width, name="city_1")(z)]
    )
    x = layers.Dropout(dropout, name="dropout_1")(layers.Activation("gelu", name="gelu_1")(x))
    for number in range(2, depth + 1):
        x = layers.Dense(width, "gelu", name=f"cell_{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout_{number}")(x)
    season = layers.Dense(32, "gelu", name="season_1")(city)
    season = layers.Concatenate(name="season")([layers.Dropout(dropout, name="season_dropout")(season), city])
    parts = [
        layers.Dense(1, kernel_initializer="zeros", name="joint_part")(x),
        layers.Dense(1, kernel_initializer="zeros", use_bias=False, name="cell_part")(cell),
        layers.Dense(1, kernel_initializer="zeros", use_bias=False, name="city_part")(season),
    ]
    return keras.Model([cell, city], layers.Add(name="correction")(parts), name="gridcast")


class GridcastForecaster(Forecaster):
    """A mixture of averages in the city's pace, times the exponential of what a network says.

    The mixture (see :mod:`~..mixture`) weighs averages of each cell and its surroundings over many spans of
    time as fits the training steps best. The network sees how each cell and its surroundings went over these
    spans, on the same weekday, at the same time of earlier years and on the same date, how the city went, and
    the calendar; Poisson likelihood. It starts as the mixture, so that all it changes is learned.

    It is trusted on validation steps only as far as it is better there than the mixture by more than one
    standard error; if one of the simple methods in :data:`SIMPLE` is still better, the model is that simple
    method, and says so. Then networks learn anew from all steps (:meth:`finish`); their mean speaks.

    Types of event are shared out by mixtures of their own (:class:`~..mixture.TypeMixture`).

    Later steps are forecast one by one, expected events standing in for those that are not known.

    Attributes
    ----------
    network_ : keras.Model
        The one that was judged; None until the model is fitted or restored.
    final_ : list of keras.Model
        Those that learned from all steps.
    weights_, type_weights_ : numpy.ndarray
        Of the mixture `(kernels,)` and those of the types `(types, kernels)`.
    trust_ : Trust
        How much of the network's correction counts.
    simple_ : tuple of str and dict, optional
        The simple method that stands in for the whole, with its settings.
    dispersion_ : float
        α of the variance μ + α μ² of a count with the mean μ, from the validation steps.
    history_ : dict
        Losses by epoch.
    """

    key = "gridcast"
    title = "Gridcast network"
    Settings = GridcastSettings
    settings: GridcastSettings
    search = {
        "size": "fast, standard, large",
        "batch_size": "4096, 8192, 16384",
        "learning_rate": "0.0005..0.01 log",
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.network_: Any = None
        self.final_: list[Any] = []
        self.type_names_: tuple[str, ...] = ()
        self.type_weights_ = np.ones((0, 1))
        self.scaling_: FeatureScaling | None = None
        self.weights_ = np.ones(1)
        self.trust_ = Trust()
        self.simple_: tuple[str, dict[str, Any]] | None = None
        self.dispersion_ = 0.0
        self.history_: dict[str, list[float]] = {}

    @property
    def history(self) -> int:
        return self.settings.lookback

    @property
    def parameter_count(self) -> int:
        return sum(int(network.count_params()) for network in self._speaking)

    @property
    def _speaking(self) -> list[Any]:
        """The networks that forecast."""
        return self.final_ or ([] if self.network_ is None else [self.network_])

    def batch_bytes(self, cube: Cube) -> int:
        width, depth = SIZES[self.settings.size]
        rows = min(self.settings.samples, len(cube) * int(cube.grid.valid.sum()))
        # Features of all rows in half precision, about 50 of them; numbers of a batch kept by each layer.
        return rows * 2 * 50 + self.settings.batch_size * 4 * 6 * width * depth

    # -- learning ------------------------------------------------------------------------------

    def fit(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> GridcastForecaster:
        settings = self.settings
        keras.utils.set_random_seed(settings.seed)
        first = _first_step(split, split.train_stop, cube.axis.steps_per_year)
        assert start is None or isinstance(start, GridcastForecaster)
        if cube.covariates:
            reporter.message(
                f"This network does not look at the covariates of the cube ({', '.join(cube.covariates)}): "
                "it learns the calendar by itself, and of the weather what the last days show."
            )
        self._learn_places(cube, first, split.train_stop, start, reporter)
        train = self._samples(cube, first, split.train_stop, settings.seed, reporter)
        self.scaling_ = train.scaling
        judge = self._samples(cube, split.validation_start, split.validation_stop, None, reporter)
        if start is not None:
            self.network_ = _copied(start.network_)
        else:
            width, depth = SIZES[settings.size]
            self.network_ = build_network(
                train.cells.shape[1],
                train.city.shape[1],
                width=width,
                depth=depth,
                dropout=settings.dropout,
            )
        self.final_ = []
        self.history_ = self._train(self.network_, train, judge, reporter, checkpoint)
        self._learn_trust(cube, split, judge, reporter)
        return self

    def _train(
        self,
        network: keras.Model,
        train: Batches,
        judge: Batches | None,
        reporter: Reporter,
        checkpoint: Checkpoint | None,
    ) -> dict[str, list[float]]:
        options, loss = self.settings.fit_options(), masked_poisson_deviance
        return fit_network(network, loss, train, judge, options, reporter, checkpoint=checkpoint)

    def _learn_places(
        self, cube: Cube, first: int, stop: int, start: GridcastForecaster | None, reporter: Reporter
    ) -> None:
        """Learn how much each kernel tells of where events happen, of all types and of each."""
        if start is not None:
            self.weights_, self.scaling_ = start.weights_, start.scaling_
            self.type_names_, self.type_weights_ = start.type_names_, start.type_weights_
            return
        ahead = min(self._ahead_steps(cube), max(1, (stop - first) // 2))
        known = (cube.grid, cube.axis.hours / 24, first, stop, reporter)
        self.weights_ = learned_weights(cube.total, *known, ahead=ahead)
        if len(cube.types) > 1:
            self.type_names_ = tuple(cube.types)
            self.type_weights_ = learned_type_weights(cube.events, *known, ahead=ahead)

    def _ahead_steps(self, cube: Cube) -> int:
        """Return how many steps ahead places are to be told."""
        if self.settings.aim == "counts":
            return 1
        return max(1, round(_HOTSPOT_DAYS * 24 / cube.axis.hours))

    @property
    def finishes(self) -> int:
        return self.settings.final_networks

    def finish(
        self,
        cube: Cube,
        split: Split,
        reporter: Reporter,
        *,
        checkpoint: Checkpoint | None = None,
        start: Forecaster | None = None,
    ) -> None:
        if self.simple_ is not None or not self.finishes:
            return
        assert start is None or isinstance(start, GridcastForecaster)
        stop = split.validation_stop
        first = _first_step(split, stop, cube.axis.steps_per_year)
        self._learn_places(cube, first, stop, None, reporter)
        if not self.trust_:
            return
        train = self._samples(cube, first, stop, None, reporter)
        begun = start._speaking if start is not None else []
        final = []
        for number in range(self.finishes):
            seed = self.settings.seed + _SEEDS_APART * (number + 1)
            keras.utils.set_random_seed(seed)
            if begun:
                network = _copied(begun[number % len(begun)])
            else:
                # The same layers, without what they have learned.
                network = keras.models.clone_model(self.network_)
            part = checkpoint.part(f"final_{number}") if checkpoint else None
            name = f"Network {number + 1} of {self.finishes} that learns from all steps: "
            told = PartOf(reporter, number / self.finishes, (number + 1) / self.finishes, name)
            self._train(network, train.shuffled(seed), None, told, part)
            final.append(network)
        self.final_ = final

    def _samples(self, cube: Cube, start: int, stop: int, seed: int | None, reporter: Reporter) -> Samples:
        """Return rows of steps; all that fit into the limit, or as many of them drawn by chance."""
        valid = cube.grid.valid
        share = self.settings.samples / ((stop - start) * valid.sum())
        draw = np.random.default_rng([self.settings.seed, start])
        blocks = []
        for first, last, known in self._read(cube, start, stop):
            chosen = draw.random(known.base.shape) < share
            step, place = np.nonzero(chosen)
            blocks.append(
                (
                    (first - start + step).astype(np.int32),
                    place.astype(np.int32),
                    cube.total[first:last, valid][chosen].astype(np.float32),
                    known.base[chosen].astype(np.float32),
                    known.cells[chosen].astype(np.float16),
                    known.city,
                )
            )
            reporter.check()
        return Samples(blocks, self.scaling_, self.settings.batch_size, seed)

    def _read(self, cube: Cube, start: int, stop: int) -> Iterator[tuple[int, int, Known]]:
        """Yield first and last step (exclusive) of blocks, and what is known on the eve of their steps."""
        axis = cube.axis.extended(stop - len(cube.axis))
        look = Knowledge(cube.total, axis, cube.grid, start, self.weights_)
        for first in range(start, stop, _BLOCK_STEPS):
            last = min(first + _BLOCK_STEPS, stop)
            yield first, last, look.read(last)

    def _learn_trust(self, cube: Cube, split: Split, judge: Samples, reporter: Reporter) -> None:
        """Decide on validation steps how far the network is trusted, and how counts spread."""
        corrections = np.concatenate(
            [
                self._correction(judge.batch(rows)[0])
                for rows in np.array_split(
                    np.arange(len(judge.counts)), -(-len(judge.counts) // _PREDICT_ROWS)
                )
            ]
        )
        places, city = judge.parted(corrections)

        def rates(of_places: float, of_city: float) -> np.ndarray:
            return judge.base * np.exp(of_places * places + of_city * city)

        def losses(of_places: float, of_city: float) -> np.ndarray:
            return judge.losses(rates(of_places, of_city))

        hotspots = self.settings.aim == "hotspots"
        if hotspots:
            misses, others = self._misses(cube, split, reporter)
            # What is told of neighbouring steps overlaps: it is told of more than one step.
            of_places = earned(misses, alike=self._ahead_steps(cube))
            of_city = earned({share: losses(of_places, share) for share in CITY_SHARES})
            own = float(misses[of_places].sum())
        else:
            of_city = max(CITY_SHARES)
            for _ in range(2):
                of_places = earned({share: losses(share, of_city) for share in PLACE_SHARES})
                of_city = earned({share: losses(of_places, share) for share in CITY_SHARES})
            simple = (rates[judge.step, judge.place] for rates in _simple_rates(cube, split))
            others = [float(judge.losses(np.maximum(rate, _LEAST_RATE)).sum()) for rate in simple]
            own = float(losses(of_places, of_city).sum())
        self.trust_ = Trust(of_places, of_city)
        best = int(np.argmin(others))
        self.simple_ = SIMPLE[best] if others[best] < own else None
        self.dispersion_ = dispersion(judge.counts, rates(of_places, of_city))
        if hotspots:
            more = (others[best] - own) / len(judge.city)
            gained = f"the busiest cells held {more:.2f} more events of two months, on average, than with"
        else:
            deviance = 2 * (others[best] - own) / len(judge.counts)
            gained = f"the Poisson deviance is {deviance:.5f} below that of"
        self._tell(SIMPLE[best], gained, reporter)

    def _misses(
        self, cube: Cube, split: Split, reporter: Reporter
    ) -> tuple[dict[float, np.ndarray], list[float]]:
        """Return the events of the next two months outside the busiest cells, fewer of which are better.

        Those of each validation step for each share of trust in places, and the sum for each simple method.
        """
        start, stop, valid = split.validation_start, split.validation_stop, cube.grid.valid
        ahead = min(self._ahead_steps(cube), stop - start)
        flagged = max(_LEAST_HOTSPOTS, round(_HOTSPOT_SHARE * int(valid.sum())))
        so_far = np.cumsum(cube.total[start:stop, valid], axis=0, dtype=np.float64)
        so_far = np.concatenate([np.zeros((1, so_far.shape[1])), so_far])
        begin = np.arange(stop - start)
        coming = so_far[np.minimum(begin + ahead, stop - start)] - so_far[begin]

        def misses(rates: np.ndarray, first: int) -> np.ndarray:
            seen = coming[first - start : first - start + len(rates)]
            busiest = np.argsort(-rates, axis=1, kind="stable")[:, :flagged]
            found: np.ndarray = seen.sum(axis=1) - np.take_along_axis(seen, busiest, axis=1).sum(axis=1)
            return found

        blocks: dict[float, list[np.ndarray]] = {share: [] for share in PLACE_SHARES}
        for first, _, known in self._read(cube, start, stop):
            said = self._say(*self._scaled(known))
            for share, found in blocks.items():
                found.append(misses(known.base * np.exp(share * said), first))
            reporter.check()
        others = [float(misses(rates, start).sum()) for rates in _simple_rates(cube, split)]
        return {share: np.concatenate(found) for share, found in blocks.items()}, others

    def _tell(self, best: tuple[str, dict[str, Any]], gained: str, reporter: Reporter) -> None:
        name = model_class(best[0]).title.lower()
        if "half_life_days" in best[1]:
            name += f", half-life {best[1]['half_life_days']:g} days"
        if self.simple_ is not None:
            reporter.warning(
                f"On the validation steps no network was better than a simple method ({name}): the model is "
                "that method. There may be too few events to learn more from."
            )
        elif not self.trust_:
            reporter.warning(
                "On the validation steps the network was not better than the mixture of averages that it "
                f"starts from: the model is that mixture, with which {gained} the best simple method "
                f"({name}). There may be too few events to learn more from."
            )
        else:
            reporter.message(
                f"On the validation steps {gained} the best simple method ({name}). Of what the network says "
                f"of places {self.trust_.places:.0%} counts, of what it says of the city as a whole "
                f"{self.trust_.city:.0%}."
            )

    # -- forecasting ---------------------------------------------------------------------------

    def _correction(self, inputs: Any) -> np.ndarray:
        """Return what the network says of rows: float32 `(n,)`."""
        said = [
            ops.convert_to_numpy(network(inputs, training=False))[:, 0].clip(
                -_CORRECTION_LIMIT, _CORRECTION_LIMIT
            )
            for network in self._speaking
        ]
        mean: np.ndarray = np.mean(said, axis=0)
        return mean

    def _rates(self, known: Known) -> np.ndarray:
        """Return expected events `(steps, cells)`."""
        if not self.trust_:
            return known.base.astype(np.float32)
        said = self._say(*self._scaled(known))
        return (known.base * np.exp(self.trust_.applied(said, known.base))).astype(np.float32)

    def _scaled(self, known: Known) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network sees of cells `(steps, cells, features)` and city `(steps, features)`."""
        assert self.scaling_ is not None, "fit or restore first"
        # As in training, where features are kept in half precision.
        cells = self.scaling_.cells(known.cells.astype(np.float16).astype(np.float32))
        return cells.astype(np.float16), self.scaling_.city(known.city)

    def _say(self, cells: np.ndarray, city: np.ndarray) -> np.ndarray:
        """Return what the network says of all cells of some steps: `(steps, cells)`."""
        steps, places = cells.shape[:2]
        result = np.empty((steps, places), np.float32)
        at_once = max(1, _PREDICT_ROWS // places)
        for first in range(0, steps, at_once):
            part = slice(first, min(first + at_once, steps))
            count = part.stop - part.start
            said = self._correction(
                (
                    cells[part].astype(np.float32).reshape(count * places, -1),
                    np.repeat(city[part], places, axis=0),
                )
            )
            result[part] = said.reshape(count, places)
        return result

    def predict_next(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        self.check_history(cube, start)
        assert self.network_ is not None, "fit or restore first"
        if self.simple_ is not None:
            return self._stand_in().predict_next(cube, start, stop)
        result = np.full((stop - start, *cube.grid.shape), np.nan, np.float32)
        for first, last, known in self._read(cube, start, stop):
            result[first - start : last - start, cube.grid.valid] = self._rates(known)
        return result

    def forecast(self, cube: Cube, origin: int, horizon: int, reporter: Reporter | None = None) -> np.ndarray:
        self.check_origin(cube, origin, horizon)
        if self.simple_ is not None:
            return self._stand_in().forecast(cube, origin, horizon, reporter)
        result = np.full((horizon, *cube.grid.shape), np.nan, np.float32)
        for ahead, (_, _, rates) in enumerate(self._ahead(cube, origin, horizon)):
            result[ahead, cube.grid.valid] = rates
            if reporter:
                reporter.progress((ahead + 1) / horizon)
        return result

    def _ahead(self, cube: Cube, origin: int, horizon: int) -> Iterator[tuple[Knowledge, Known, np.ndarray]]:
        """Yield what is known of each step from `origin` on, and its rates `(cells,)`."""
        axis = cube.axis.slice(0, origin).extended(horizon)
        look = Knowledge(cube.total[:origin], axis, cube.grid, origin, self.weights_)
        for step in range(origin, origin + horizon):
            known = look.read(step + 1)
            rates = self._rates(known)[0]
            yield look, known, rates
            expected = np.zeros(cube.grid.shape, np.float32)
            expected[cube.grid.valid] = rates
            look.learn(expected)

    # -- types -------------------------------------------------------------------------------------

    @property
    def type_names(self) -> tuple[str, ...]:
        return self.type_names_

    def predict_types(self, cube: Cube, start: int, stop: int) -> np.ndarray:
        cube = cube.select_types(list(self.type_names_))
        past = TypeMixture(cube.events[:start], cube.grid, cube.axis.hours / 24)
        result = np.full((stop - start, len(self.type_names_), *cube.grid.shape), np.nan, np.float32)
        for step in range(start, stop):
            result[step - start][:, cube.grid.valid] = self._type_shares(past)
            if step < len(cube):
                past.advance(np.where(cube.grid.valid, cube.events[step], 0.0))
        return result

    def forecast_types(self, cube: Cube, origin: int, horizon: int) -> np.ndarray:
        expected = np.nan_to_num(self.forecast(cube, origin, horizon))
        cube = cube.select_types(list(self.type_names_))
        past = TypeMixture(cube.events[:origin], cube.grid, cube.axis.hours / 24)
        result = np.full((horizon, len(self.type_names_), *cube.grid.shape), np.nan, np.float32)
        for ahead in range(horizon):
            result[ahead][:, cube.grid.valid] = self._type_shares(past)
            past.advance(expected[ahead] * np.nan_to_num(result[ahead]))
        return result

    def _type_shares(self, past: TypeMixture) -> np.ndarray:
        rates = past.rates(self.type_weights_)
        shares: np.ndarray = rates / rates.sum(axis=0)
        return shares

    # -- why -----------------------------------------------------------------------------------

    @property
    def part_names(self) -> tuple[str, ...]:
        return () if self.simple_ else PARTS

    def forecast_parts(self, cube: Cube, origin: int, horizon: int) -> np.ndarray:
        """Take the forecast apart into :data:`PARTS`.

        The long-run level is the cell's rate by the longest half-life alone; recent weeks are what those of a
        month and more and the level of the city make of it; near repeats what those up to a fortnight do. The
        network's correction is shared out by the values of Shapley (Lundberg & Lee, 2017) among what it sees
        of the last fortnight in the cell and around it (near repeats), of weekday, season and dates
        (calendar), and the rest; what is left out of its sight has the mean of the training.
        """
        self.check_origin(cube, origin, horizon)
        result = np.full((horizon, len(PARTS), *cube.grid.shape), np.nan, np.float32)
        recent = recent_city_features(cube.axis)
        for ahead, (look, known, _) in enumerate(self._ahead(cube, origin, horizon)):
            repeats, calendar, rest = self._attributed(known, look.kinds(known.cells.shape[2]), recent)
            # The step has been read, but nothing been learned of it yet.
            lasting, settled = look.slower()
            weekday, base = known.weekday[0], known.base[0]
            # As many events as the base has on a day of no particular weekday.
            settled = settled * base.sum() / weekday
            late = base / (settled * weekday)
            parts = (lasting, settled / lasting, late * repeats, weekday * calendar, rest)
            result[ahead][:, cube.grid.valid] = parts
        return result

    def _attributed(self, known: Known, kinds: np.ndarray, recent: int) -> np.ndarray:
        """Share the network's factor of one step out among repeats, calendar and the rest: `(3, cells)`."""
        if not self.trust_:
            return np.ones((3, known.base.shape[1]))
        cells, city = self._scaled(known)
        late = np.arange(city.shape[1]) < recent
        # Which features of a cell and of the city belong to which player of the game.
        of_cell = np.select([kinds == "repeats", kinds == "calendar"], [0, 1], 2)
        of_city = np.where(late, 2, 1)
        players = range(3)

        def say(seen: tuple[int, ...]) -> np.ndarray:
            shown = cells * np.isin(of_cell, seen), city * np.isin(of_city, seen)
            return self.trust_.applied(self._say(*shown).astype(np.float64), known.base)[0]

        said = {seen: say(seen) for size in range(4) for seen in combinations(players, size)}
        parts = np.zeros((3, known.base.shape[1]))
        for seen, value in said.items():
            for player in set(players).difference(seen):
                after = said[tuple(sorted((*seen, player)))]
                parts[player] += (after - value) / (3 * math.comb(2, len(seen)))
        # What it says of a cell of which it sees nothing.
        parts[-1] += said[()]
        return np.exp(parts)

    def _stand_in(self) -> Forecaster:
        assert self.simple_ is not None
        key, settings = self.simple_
        return model_class(key)(**settings)

    # -- keeping -------------------------------------------------------------------------------

    def state(self) -> ModelState:
        assert self.scaling_ is not None, "fit or restore first"
        values = {
            "trust": [self.trust_.places, self.trust_.city],
            "simple": None if self.simple_ is None else list(self.simple_),
            "dispersion": self.dispersion_,
            "history": self.history_,
            "types": list(self.type_names_),
        }
        arrays = {
            name: getattr(self.scaling_, name)
            for name in ("cell_mean", "cell_width", "city_mean", "city_width")
        }
        arrays |= {"weights": self.weights_, "type_weights": self.type_weights_}
        networks = {"network": self.network_}
        networks |= {f"final_{number}": network for number, network in enumerate(self.final_)}
        return ModelState(values=values, arrays=arrays, networks=networks)

    @classmethod
    def restore(cls, settings: dict[str, Any], state: ModelState) -> GridcastForecaster:
        model = cls(**settings)
        values = state.values
        model.trust_ = Trust(*values["trust"])
        model.simple_ = None if values["simple"] is None else (values["simple"][0], values["simple"][1])
        model.dispersion_, model.history_ = values["dispersion"], values["history"]
        arrays = dict(state.arrays)
        model.weights_, model.type_weights_ = arrays.pop("weights"), arrays.pop("type_weights")
        model.type_names_ = tuple(values["types"])
        model.scaling_ = FeatureScaling(**arrays)
        networks = dict(state.networks)
        model.network_ = networks.pop("network")
        model.final_ = [networks[f"final_{number}"] for number in range(len(networks))]
        return model


def _simple_rates(cube: Cube, split: Split) -> Iterator[np.ndarray]:
    """Yield what each simple method says of the validation steps: `(steps, cells)`."""
    for key, settings in SIMPLE:
        model = model_class(key)(**settings)
        yield model.predict_next(cube, split.validation_start, split.validation_stop)[:, cube.grid.valid]


def _first_step(split: Split, stop: int, year: int) -> int:
    """Return the first step to learn from: without a year before it, a step tells nothing of seasons."""
    history = min(year, split.train_steps // 4)
    return max(split.train_start + history, stop - _MOST_STEPS)


def _copied(network: keras.Model) -> keras.Model:
    copied = keras.models.clone_model(network)
    copied.set_weights(network.get_weights())
    return copied


def dispersion(counts: np.ndarray, rate: np.ndarray) -> float:
    """Return α of the variance μ + α μ² from counts and their means, by moments; 0 if they spread less."""
    excess = ((counts - rate) ** 2 - rate).sum(dtype=np.float64)
    return max(0.0, float(excess / np.square(rate, dtype=np.float64).sum()))
