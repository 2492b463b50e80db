# SPDX-License-Identifier: GPL-2.0-or-later
"""How accurate the Gridcast network is beside every simple method, on four real cities.

One set of settings, the defaults, for all of them, but that Portland's network aims at hot spots; what was
chosen was chosen on the validation periods.
Each city is trained with three seeds, the median of each figure counts; "per seed" has all of them.

Chicago: crimes by day on 55 x 50 cells, learned until 2016, 2017 validates, tested on 2018 (to 12
November), one day ahead. Toronto: major crimes by day on cells of a kilometre, learned until 2019, 2020
validates, tested on 2021. Washington, DC: gunshots by day on 36 x 36 cells without the days of fireworks,
learned until 2010, 2011 validates, tested from January 2012 to June 2013. Portland: burglaries and vehicle
thefts by week on cells of 250 feet, as types of one cube, learned until August 2014, the half year after it
validates, tested on a quarter of a square mile every second Sunday from 1 March 2015 to February 2017, hits
pooled, for one week to three months. Strange: Toronto with 300 events, with 90 empty days, and with twice as
many events overnight, beside the exponentially weighted average.

``python benchmarks/accuracy.py [--quick] [chicago] [toronto] [washington] [portland] [strange]`` with
``GRIDCAST_DATA`` set (see docs/data.md); writes ``build/bench/accuracy.json``, with ``--quick`` (Chicago, one
seed, and how long the fast size takes to train) ``accuracy-quick.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import baselines
import cities
import numpy as np
import pandas as pd
import pyproj
import shapely
from baselines import Maps, Pai, Printer, day, fireworks, hits_in_top

from gridcast_qgis.core import vectors
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import hit_rate, mean_squared_error, poisson_deviance
from gridcast_qgis.core.evaluation.probabilities import bin_edges, reliability
from gridcast_qgis.core.evaluation.significance import diebold_mariano
from gridcast_qgis.core.events import EventTable
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.gridcast import GridcastForecaster
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.training.splits import Split

SEEDS = (1, 2, 3)
#: Simple methods that count as baselines of forecasts by day.
SIMPLE: dict[str, tuple[str, dict[str, Any]]] = {
    name: row for name, row in baselines.ROWS.items() if name not in ("seasonal naive", "decayed KDE")
}


def three_parts(cube: Cube, validation: str, test: str) -> Split:
    """Return the split whose validation and test begin at these dates, a week of it left out before."""
    a, b = day(cube, validation), day(cube, test)
    return Split(7, a - 7, a, b, b, len(cube))


def fitted(cube: Cube, split: Split, seed: int, **settings: Any) -> tuple[GridcastForecaster, float]:
    """Return a network that knows nothing of the test, and the seconds of its training."""
    model = GridcastForecaster(seed=seed, **settings)
    began = time.perf_counter()
    known = cube.steps(0, split.validation_stop)
    model.fit(known, split, Printer())
    model.finish(known, split, Printer())
    return model, time.perf_counter() - began


def trust(model: GridcastForecaster) -> dict[str, float]:
    """Return how much of what the network says counts."""
    return {f"trust_{what}": share for what, share in asdict(model.trust_).items()}


def by_seed(measure: Callable[[int], Mapping[str, Any]], seeds: tuple[int, ...]) -> dict[str, Any]:
    """Return the median of each figure over the seeds, and what each seed gave."""
    found = [measure(seed) for seed in seeds]

    def middle(values: list[Any]) -> Any:
        if isinstance(values[0], list):
            return [middle(list(each)) for each in zip(*values)]
        return round(float(statistics.median(values)), 6)

    return {
        **{name: middle([each[name] for each in found]) for name in found[0]},
        "per seed": found,
    }


def losses(observed: np.ndarray, expected: np.ndarray) -> dict[str, np.ndarray]:
    """Return squared error and Poisson deviance of each step, from counts `(steps, cells)`."""
    rate = np.maximum(expected.astype(np.float64), 1e-9)
    ratio = np.where(observed > 0, observed / rate, 1.0)
    return {
        "mse": ((observed - rate) ** 2).mean(axis=1),
        "deviance": 2 * (observed * np.log(ratio) - observed + rate).mean(axis=1),
    }


def daily(cube: Cube, split: Split, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Score the network and the simple methods on the days of the test, one day ahead."""
    start, stop, valid, area = split.test_start, len(cube), cube.grid.valid, cube.grid.inside_area
    observed = cube.total[start:stop]

    def scores(expected: np.ndarray) -> dict[str, float]:
        return {
            "mse": round(mean_squared_error(observed, expected, valid), 5),
            "deviance": round(poisson_deviance(observed, np.maximum(expected, 1e-6), valid), 5),
            "hits_top_5_percent": round(float(hit_rate(observed, expected, area, 5.0).rate), 5),
        }

    forecasts = {}
    for name, (key, settings) in SIMPLE.items():
        model = model_class(key)(**settings).fit(cube.steps(0, start), split, Printer())
        forecasts[name] = model.predict_next(cube, start, stop)
        print("   ", name, scores(forecasts[name]), flush=True)
    simple = {name: losses(observed[:, valid], each[:, valid]) for name, each in forecasts.items()}

    def one(seed: int) -> dict[str, float]:
        model, seconds = fitted(cube, split, seed)
        expected = model.predict_next(cube, start, stop)
        own = losses(observed[:, valid], expected[:, valid])
        tests = {
            f"p_{kind}_{name}": diebold_mariano(own[kind], other[kind], alternative="less").p_value
            for name, other in simple.items()
            for kind in own
        }
        found = {**scores(expected), "train_seconds": round(seconds, 1), **trust(model), **tests}
        print("    seed", seed, {name: found[name] for name in list(found)[:5]}, flush=True)
        return found

    network = by_seed(one, seeds)
    static = np.broadcast_to(cube.total[split.validation_start : start].mean(axis=0), observed.shape)
    baseline = {name: scores(expected) for name, expected in forecasts.items()}
    return {
        **{name: value for name, value in network.items() if not name.startswith("p_")},
        "mean of the validation year": scores(static),
        "simple methods": baseline,
        "gain_over_best_deviance": round(
            1 - network["deviance"] / min(each["deviance"] for each in baseline.values()), 5
        ),
        "largest_p_deviance": max(value for name, value in network.items() if name.startswith("p_deviance")),
        "p_mse": {name: network[f"p_mse_{name}"] for name in simple},
    }


def chicago(seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Measure Chicago, and what an epoch of the published ensemble takes here."""
    cube = cities.chicago(2011, 2018)
    found = daily(cube, three_parts(cube, "2017-01-01", "2018-01-01"), seeds)
    seconds = stock_ensemble_epoch(day(cube, "2017-01-01") - 365)
    return {
        **found,
        "stock_ensemble_epoch_seconds": round(seconds, 1),
        "train_over_stock_epoch": round(found["train_seconds"] / seconds, 4),
    }


def stock_ensemble_epoch(steps: int) -> float:
    """Return the seconds of one epoch of the Hetero-ConvLSTM of the paper in layers of Keras alone.

    Four windows of 36 x 33 cells, 128 filters, 1 x 1 kernels, batches of 4 of seven days: a few batches are
    timed, the rest is counted.
    """
    import train
    from keras import losses as keras_losses

    from gridcast_qgis.core.models import convlstm

    network = train.stock(convlstm, 36, 33, 1, kernel=1)
    network.compile("adam", loss=keras_losses.MeanSquaredError(), jit_compile=False)
    random = np.random.default_rng(1)
    batches = [
        (random.poisson(0.5, (4, 7, 36, 33, 1)).astype(np.float32), np.zeros((4, 36, 33, 1), np.float32))
        for _ in range(4)
    ]
    network.train_on_batch(*batches[0])
    times = []
    for batch in batches[1:]:
        began = time.perf_counter()
        network.train_on_batch(*batch)
        times.append(time.perf_counter() - began)
    return 4 * -(-steps // 4) * statistics.median(times)


def toronto_cube() -> Cube:
    """Return the major crimes of Toronto by day on cells of a kilometre."""
    path = cities.CUBES / "toronto-1000-day.nc"
    if path.is_file():
        return Cube.read(path)
    folder = cities.data_folder() / "toronto_mci"
    rows = pd.read_csv(folder / "toronto_mci.csv.gz")
    rows = rows[rows["datetime"] >= "2014-01-01"]
    boundary = vectors.read_polygons(folder / "toronto_boundary_wgs84.geojson").area
    to_plane = pyproj.Transformer.from_crs(4326, 32617, always_xy=True)
    area = shapely.transform(boundary, lambda xy: np.column_stack(to_plane.transform(*xy.T)))
    grid = Grid.from_extent(pyproj.CRS(32617), area.bounds, cell_size=1000.0, study_area=area)
    x, y = to_plane.transform(rows["longitude"].to_numpy(), rows["latitude"].to_numpy())
    events = EventTable.from_arrays(x, y, rows["datetime"], time_zone="America/Toronto")
    cube = Cube.from_events(events, grid, "day", "America/Toronto", start="2014-01-01", end="2022-01-01")
    path.parent.mkdir(parents=True, exist_ok=True)
    cube.write(path)
    return cube


def toronto() -> dict[str, Any]:
    """Measure Toronto."""
    cube = toronto_cube()
    return daily(cube, three_parts(cube, "2020-01-01", "2021-01-01"), SEEDS)


def washington() -> dict[str, Any]:
    """Measure the probability of a gunshot, pooled over the days of the test."""
    cube = baselines.washington_cube()
    split = three_parts(cube, "2011-01-01", "2012-01-01")
    start = split.test_start
    days = np.flatnonzero(~fireworks(cube.axis.local_starts[start:]))
    observed = cube.total[start:][days]

    def scores(model: Forecaster) -> dict[str, float]:
        expected = model.predict_next(cube, start, len(cube))[days]
        probability = model.probability(expected)
        kind = score(observed > 0, probability)
        everywhere = np.ones(cube.grid.shape, bool)
        edges = bin_edges(probability, everywhere)
        calibration = reliability(observed > 0, probability, everywhere, edges).pooled().calibration_error
        return {
            "auc": round(float(kind.auc), 5),
            "average_precision": round(float(kind.average_precision), 5),
            "hits_top_4_percent": hits_in_top(observed, expected, 52),
            "hits_top_1_percent": hits_in_top(observed, expected, 13),
            "calibration_error": round(float(calibration), 5),
        }

    width, height = cube.grid.cell_dimensions
    half_cell = 0.5 * float(np.sqrt(width * height))
    decayed = {"bandwidth": half_cell, "level": False, "weekday": False, "half_life_days": 60.0}
    simple = {"decayed count": scores(model_class("kde")(**decayed)), "EWMA": scores(model_class("ewma")())}
    print("   ", simple, flush=True)

    def one(seed: int) -> dict[str, float]:
        model, seconds = fitted(cube, split, seed)
        found = {**scores(model), "train_seconds": round(seconds, 1)}
        print("    seed", seed, found, flush=True)
        return found

    return {**by_seed(one, SEEDS), "simple methods": simple}


def portland() -> dict[str, Any]:
    """Measure the PAI of maps of Portland: one network, which aims at hot spots, for both types."""
    cubes = {category: baselines.portland_cube(category) for category in baselines.LIKE_KNOWN}
    one_type = [cube for cube, _ in cubes.values()]
    events = np.concatenate([cube.events for cube in one_type], axis=1)
    both = Cube(one_type[0].grid, one_type[0].axis, tuple(cubes), events, one_type[0].attributes)
    split = three_parts(both, "2014-09-01", "2015-03-01")
    judges = {category: Pai(*each) for category, each in cubes.items()}

    def pai(category: str, model: Forecaster | Maps) -> list[float]:
        return judges[category].pai(model, "2015-03-01", "2017-03-01")

    def one(seed: int) -> dict[str, Any]:
        model, seconds = fitted(both, split, seed, aim="hotspots")
        # All weeks of the test at once, each from the weeks before it.
        first = split.test_start
        rates, shares = (say(both, first, len(both)) for say in (model.predict_next, model.predict_types))
        values = {
            **{
                each: pai(each, Maps(rates * shares[:, number], first))
                for number, each in enumerate(both.types)
            },
            "train_seconds": round(seconds, 1),
            **trust(model),
        }
        print("    seed", seed, values, flush=True)
        return values

    simple = {
        category: {
            "EWMA": pai(category, model_class("ewma")()),
            "kernel density, 38 m, half-life 2 years": pai(
                category, model_class("kde")(bandwidth=0.5 * 250 * 0.3048, half_life_days=730.0)
            ),
        }
        for category in cubes
    }
    print("   ", simple, flush=True)
    return {**by_seed(one, SEEDS), "simple methods": simple}


def strange() -> dict[str, Any]:
    """Compare squared errors with the exponentially weighted average where the data is out of order."""
    cube = toronto_cube()
    split = three_parts(cube, "2020-01-01", "2021-01-01")
    start, valid = split.test_start, cube.grid.valid
    usual, _ = fitted(cube, split, SEEDS[0])

    def with_events(events: np.ndarray) -> Cube:
        return Cube(cube.grid, cube.axis, cube.types, events.astype(np.float32), cube.attributes)

    draw = np.random.default_rng(1)
    thin = with_events(draw.binomial(cube.events.astype(int), 300 / float(cube.events.sum())))
    empty, twice = cube.events.copy(), cube.events.copy()
    empty[start : start + 90] = 0
    twice[start + 180 :] *= 2
    found = {}
    for name, other, model in (
        ("300 events", thin, fitted(thin, split, SEEDS[0])[0]),
        ("90 empty days", with_events(empty), usual),
        ("level doubles overnight", with_events(twice), usual),
    ):
        errors = [
            mean_squared_error(other.total[start:], each.predict_next(other, start, len(other)), valid)
            for each in (model, model_class("ewma")())
        ]
        found[name] = {"events": int(other.events.sum()), "mse_over_ewma": round(errors[0] / errors[1], 5)}
        print("   ", name, found[name], flush=True)
    return found


MEASURES = {each.__name__: each for each in (chicago, toronto, washington, portland, strange)}


def main(arguments: list[str]) -> None:
    """Measure all, or only what is named, and write the result."""
    if "--quick" in arguments:
        path = cities.BENCH / "accuracy-quick.json"
        cube = cities.chicago(2011, 2018)
        split = three_parts(cube, "2017-01-01", "2018-01-01")
        _, seconds = fitted(cube, split, SEEDS[0], size="fast")
        quick = {"cores": os.cpu_count(), "fast_train_seconds": round(seconds, 1)}
        write(path, {**quick, "chicago": chicago(SEEDS[:1])})
        return
    path = cities.BENCH / "accuracy.json"
    result: dict[str, Any] = {}
    if arguments and path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    result["cores"] = os.cpu_count()
    for name in arguments or MEASURES:
        print(name, flush=True)
        result[name] = MEASURES[name]()
        write(path, result)


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the result and show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
