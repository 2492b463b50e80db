# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of Ahrens & de Wolff (2023) on the Chicago data that we have.

Protocol of the paper: 55 x 50 cells, days, lookback 7, batch 4, Adam, 128 filters, raw channels, linear
output clipped at 0, one epoch; squared error per cell and day of the test year. Kernels are 1 x 1 as in the
text (3 x 3 as in the code would take hours). Trained on four years, 2014 to 2017, tested on 2018-01-01 to
2018-11-12; December 2017 serves as validation. Cloud cover is known until August 2016 only: its row, with
rows to compare it with, is trained on the four years before September 2015 and tested on the twelve months
from there. No visibility was to be had: precipitation takes its place. Writes
``build/bench/reproduction/s2.json``; rows that are there already are not run again.
"""

from __future__ import annotations

import gzip
import math
from typing import Any

import common
import numpy as np
import pandas as pd
from common import Printer, cities, timed
from keras.layers import BatchNormalization

from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.metrics import mean_squared_error
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.training.splits import Split

PUBLISHED = {
    "filters": 128,
    "kernel": 1,
    "lookback": 7,
    "batch_size": 4,
    "epochs": 1,
    "learning_rate": 0.001,
    "base_rate": False,
    "output_form": "linear",
    "channel_form": "published",
    "loss_form": "published",
}
CORRECTED = {**PUBLISHED, "channel_form": "standard", "loss_form": "corrected"}
MAIN = ("2014-01-01", "2018-01-01", "2018-11-13")
CLOUDS = ("2011-09-01", "2015-09-01", "2016-08-29")

#: Row: period, model, settings.
ROWS: dict[str, tuple[tuple[str, str, str], str, dict[str, Any]]] = {
    "HA": (MAIN, "historical_average", {}),
    "weekday HA": (MAIN, "weekday_average", {}),
    "ConvLSTM": (MAIN, "convlstm", PUBLISHED),
    "Hetero (Cr)": (MAIN, "hetero", PUBLISHED),
    "Hetero (Cr + Sev)": (MAIN, "hetero", {**PUBLISHED, "channels": ("severity",)}),
    "Hetero (Cr + Sea)": (MAIN, "hetero", {**PUBLISHED, "channels": ("season",)}),
    "Hetero (Cr + V)": (MAIN, "hetero", {**PUBLISHED, "channels": ("precipitation",)}),
    "HA, period with clouds": (CLOUDS, "historical_average", {}),
    "Hetero (Cr), period with clouds": (CLOUDS, "hetero", PUBLISHED),
    "Hetero (Cr + CC), period with clouds": (CLOUDS, "hetero", {**PUBLISHED, "channels": ("clouds",)}),
    "ConvLSTM, corrected": (MAIN, "convlstm", CORRECTED),
    "ConvLSTM (Cr + Sea), corrected": (MAIN, "convlstm", {**CORRECTED, "channels": ("season",)}),
}


def with_weather(cube: Cube) -> Cube:
    """Return the cube with precipitation (mm) and the share of cloudy readings of each day."""
    folder = cities.data_folder() / "weather_chicago"
    days = cube.axis.local_starts.strftime("%Y-%m-%d")

    def series(file: str, column: str) -> np.ndarray:
        with gzip.open(folder / file, "rt") as text:
            table = pd.read_csv(text, index_col="date")[column]
        return table.reindex(days).to_numpy(np.float32)

    return cube.with_covariates(
        [
            Covariate("precipitation", series("chicago_ghcn_2010_2018.csv.gz", "prcp"), ("time",), "mm"),
            Covariate(
                "clouds", series("chicago_weather_20010122_20160828.csv.gz", "weather_cloud"), ("time",)
            ),
        ]
    )


def settle_averages(model: Forecaster, gradient_steps: int) -> bool:
    """Take the start out of the moving averages of the batch normalisation; return whether it was there.

    They start at 0 and 1, of which momentum ** steps is left: 0.03 after one epoch of four years, beside
    variances of some 0.0003 (the paper's ten years leave 0.0001).
    """
    networks = model.state().networks.values()
    layers = [
        layer for network in networks for layer in network.layers if isinstance(layer, BatchNormalization)
    ]
    for layer in layers:
        left = layer.momentum**gradient_steps
        gamma, beta, mean, variance = layer.get_weights()
        layer.set_weights([gamma, beta, mean / (1 - left), np.maximum(variance - left, 0.0) / (1 - left)])
    return any(layer.momentum**gradient_steps > 1e-6 for layer in layers)


def run(cube: Cube, period: tuple[str, str, str], kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on a period and return the errors of its test part."""
    first, test, end = (
        int(np.searchsorted(cube.axis.local_starts.strftime("%Y-%m-%d"), day)) for day in period
    )
    model = model_class(kind)(**settings)
    # A month before the test validates; whether the one epoch is kept is all that it decides.
    validation = test - 31
    split = Split(first + 7, validation, validation, test)
    found: dict[str, Any] = {}
    with timed(found):
        model.fit(cube.steps(0, test), split, Printer())

    def error() -> float:
        expected = model.predict_next(cube.steps(0, end), test, end)
        return mean_squared_error(cube.total[test:end], expected, cube.grid.valid)

    mse = error()
    settled = settle_averages(model, math.ceil((validation - first - 7) / PUBLISHED["batch_size"]))
    return {
        **found,
        "mse": round(mse, 5),
        "rmse": round(mse**0.5, 5),
        "settled_mse": round(error(), 5) if settled else None,
        "parameters": model.parameter_count,
        "training_days": validation - first - 7,
        "test_days": end - test,
    }


def main() -> None:
    """Run all rows."""
    cube = with_weather(cities.chicago(2011, 2018))
    found = common.results("s2")
    for name, (period, kind, settings) in ROWS.items():
        if name not in found:
            print(name, flush=True)
            found[name] = run(cube, period, kind, settings)
            print(" ", found[name], flush=True)
            common.keep("s2", found)


if __name__ == "__main__":
    main()
