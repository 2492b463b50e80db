# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the Spatio-LSTM poster and its longer sibling, and the CrimePredict networks.

Protocol of the poster: cells of 600 feet, months, the 20 hottest cells of a month, candidates that were
ever hot, the last six months seen, 42/6/6 months for training, validation and test out of 60. Data: burglary
and vehicle theft of Portland, March 2012 to February 2017 (the poster had all calls for service), and all
crimes of Chicago in the same 60 months. Candidates are chosen in the training months; once also, as the
poster seems to have done, in all months, which looks into the future. Writes
``build/bench/reproduction/s3_s4.json``.
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np
from common import Printer, cities, timed

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.classification import ClassificationScores, score
from gridcast_qgis.core.evaluation.rivals import compare
from gridcast_qgis.core.models.classifier import HotspotClassifier
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.models.spatiolstm import SpatioLSTMSettings
from gridcast_qgis.core.training.splits import Split

#: Targets: months 7 to 60, of which 42 train, 6 validate and 6 test.
SPLIT = Split(6, 48, 48, 54, 54, 60)
FRAMES = {"epochs": 8, "patience": 3}


def brief(scores: ClassificationScores) -> dict[str, float | None]:
    """Return the measures of the tables."""
    values = scores.as_values()
    names = ("accuracy", "precision", "recall", "f1", "auc", "average_precision", "brier", "threshold")
    return {name: None if values[name] is None else round(values[name], 4) for name in names}


def judged(model: HotspotClassifier, cube: Cube, cells: np.ndarray) -> dict[str, float | None]:
    """Score a classifier on the test months and the given cells."""
    labels = model.outcome(cube, SPLIT.test_start, SPLIT.test_stop)[:, cells]
    probability = model.predict_next(cube, SPLIT.test_start, SPLIT.test_stop)[:, cells]
    return brief(score(labels, probability, model.threshold_))


def trained(cube: Cube, key: str, cells: np.ndarray | None = None, **settings: Any) -> dict[str, Any]:
    """Train a network and score it on its candidates, or on the given cells."""
    found: dict[str, Any] = {}
    model = model_class(key)(**settings)
    assert isinstance(model, HotspotClassifier)
    with timed(found):
        model.fit(cube, SPLIT, Printer())
    assert model.candidates_ is not None
    chosen = model.candidates_ if cells is None else cells
    return {
        **found,
        **judged(model, cube, chosen),
        "epochs": len(model.history_["loss"]),
        "parameters": model.parameter_count,
        "candidates": int(model.candidates_.sum()),
        "samples": [int(chosen.sum()) * steps for steps in (42, 6, 6)],
    }


def table(cube: Cube, city: str, results: dict[str, Any]) -> None:
    """Add the rows of one city that are not there yet, and keep each."""
    found = results.setdefault(city, {"events": int(cube.total.sum()), "cells": int(cube.grid.valid.sum())})
    # The CrimePredict networks learn from all cells; on the same candidates they can be compared.
    model = model_class("spatiolstm")()
    assert isinstance(model, HotspotClassifier)
    hot = model.labels(cube)[: SPLIT.train_stop].any(axis=0)
    rows: dict[str, tuple[str, np.ndarray | None, dict[str, Any]]] = {
        "Spatio-LSTM": ("spatiolstm", None, {}),
        "Spatio-LSTM, candidates of all months": (
            "spatiolstm",
            None,
            {"candidates": "all_steps", "raw": True},
        ),
        "Spatio-RNN": ("spatiolstm", None, {"cell": "rnn"}),
        "Spatio-GRU": ("spatiolstm", None, {"cell": "gru"}),
        "LSTM per cell (CrimePredict)": ("cell_lstm", hot, FRAMES),
        "3D CNN (CrimePredict)": ("cnn3d", hot, FRAMES),
        "CNN + RNN (CrimePredict)": ("cnn_rnn", hot, FRAMES),
    }
    if "random_forest" not in found:
        for name, scores in compare(cube, SPLIT, SpatioLSTMSettings(), Printer()).items():
            found[name] = brief(scores)
    for name, (key, cells, settings) in rows.items():
        if name not in found:
            print(name, flush=True)
            found[name] = trained(cube, key, cells, **settings)
            common.keep("s3_s4", results)


def longer(cube: Cube) -> dict[str, Any]:
    """Return the longer paper's protocol: 14 days, 24 steps back, 21 x 21 cells; and a split in time."""
    steps = len(cube)
    size = (steps - 24) // 10
    split = Split(24, steps - 2 * size, steps - 2 * size, steps - size, steps - size, steps)
    found: dict[str, Any] = {"steps": steps}
    for name, mode in (("random split (leaks)", "random"), ("split in time", "chronological")):
        row: dict[str, Any] = {}
        model = model_class("spatiolstm")(
            lookback=24,
            neighbourhood=21,
            learning_rate=0.0005,
            epochs=60,
            patience=8,
            balance="undersample",
            candidates="all_steps" if mode == "random" else "training",
            split_mode=mode,
        )
        assert isinstance(model, HotspotClassifier)
        with timed(row):
            model.fit(cube, split, Printer())
        assert model.candidates_ is not None
        row["test"] = model.scores_["test"]["half"]
        found[name] = {**row, "candidates": int(model.candidates_.sum())}
    return found


def main() -> None:
    """Run both cities."""
    found = common.results("s3_s4")
    cubes = {
        "Portland": lambda: cities.portland(),
        "Chicago": lambda: cities.chicago_months(),
    }
    for city, cube in cubes.items():
        print(city, flush=True)
        table(cube(), city, found)
    if "STNN" not in found:
        found["STNN"] = longer(cities.portland(600.0, "14days"))
        common.keep("s3_s4", found)


if __name__ == "__main__":
    main()
