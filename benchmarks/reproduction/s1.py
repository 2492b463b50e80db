# SPDX-License-Identifier: GPL-2.0-or-later
"""The ShotSpotter report (Lau & Song) on the gunshot alerts of Washington, DC, that we have.

Protocol of the report: 36 x 36 cells, days, Adam, batch 20, event weight 10, at most 100 epochs with early
stop and learning rate lowered on plateaus, 5/1/1 parts of the period for training, validation and test.
Periods: 2009 to 2013 and 2014 to 2018; the report had 2014 to 2021. Accuracy is what the report gives;
what tells a useful forecast from a useless one is beside it, with and without the days of fireworks (1 to
6 July, 29 December to 2 January). Writes ``build/bench/reproduction/s1.json``.
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np
from common import Printer, cities, timed

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.evaluation.metrics import hit_rate
from gridcast_qgis.core.models.baselines import HistoricalAverage
from gridcast_qgis.core.models.shotspotter import ShotSpotterForecaster
from gridcast_qgis.core.training.calibration import Calibration
from gridcast_qgis.core.training.splits import Split, five_one_one

EVENT_WEIGHT = 10.0
PERIODS = {"2009-2013": ("2009-01-01", "2014-01-01"), "2014-2018": ("2014-01-01", "2019-01-01")}


def fireworks(cube: Cube, start: int, stop: int) -> np.ndarray:
    """Return which days are those of fireworks."""
    days = cube.axis.slice(start, stop).local_starts
    month, day = days.month.to_numpy(), days.day.to_numpy()
    return ((month == 7) & (day <= 6)) | ((month == 12) & (day >= 29)) | ((month == 1) & (day <= 2))


def measures(cube: Cube, start: int, probability: np.ndarray, days: np.ndarray) -> dict[str, Any]:
    """Return the measures of forecasts that begin at a step, for the chosen days."""
    observed = cube.total[start : start + len(probability)][days]
    probability, valid = probability[days], cube.grid.valid
    outcome, p = observed[:, valid] > 0, probability[:, valid]
    plain = score(outcome, p)
    weight = np.where(outcome, EVENT_WEIGHT, 1.0)
    found = {
        "accuracy": plain.accuracy,
        "weighted_accuracy": float((weight * ((p >= 0.5) == outcome)).sum() / weight.sum()),
        "balanced_accuracy": plain.balanced_accuracy,
        "auc": plain.auc,
        "average_precision": plain.average_precision,
        "brier": plain.brier,
    }
    for share in (1.0, 4.0):
        found[f"hit_rate_{share:g}"] = hit_rate(observed, probability, cube.grid.inside_area, share).rate
    return {name: round(float(value), 5) for name, value in found.items()}


def run(cube: Cube, split: Split) -> dict[str, Any]:
    """Train on a period and return the measures of its test part."""
    found: dict[str, Any] = {"event_share": round(float((cube.total[:, cube.grid.valid] > 0).mean()), 5)}
    model = ShotSpotterForecaster(event_weight=EVENT_WEIGHT, calibrate="platt")
    with timed(found):
        model.fit(cube.steps(0, split.validation_stop), split, Printer())
    found["epochs"] = len(model.history_["loss"])
    start, stop = split.test_start, split.test_stop
    calibrated = model.predict_next(cube, start, stop)
    model.calibration_ = Calibration.none()
    average = HistoricalAverage()
    forecasts = {
        "network as published": model.predict_next(cube, start, stop),
        "network, calibrated": calibrated,
        "historical average": average.probability(average.predict_next(cube, start, stop)),
        "never": np.zeros_like(calibrated),
    }
    ordinary = ~fireworks(cube, start, stop)
    for name, days in (("all days", np.ones_like(ordinary)), ("without fireworks", ordinary)):
        found[name] = {key: measures(cube, start, values, days) for key, values in forecasts.items()}
    return {**found, "test_days": stop - start, "ordinary_days": int(ordinary.sum())}


def main() -> None:
    """Run both periods."""
    found = common.results("s1")
    for name, (first, last) in PERIODS.items():
        if name not in found:
            print(name, flush=True)
            cube = cities.washington(first, last)
            found[name] = run(cube, five_one_one(len(cube), 7))
            print(" ", found[name], flush=True)
            common.keep("s1", found)


if __name__ == "__main__":
    main()
