# SPDX-License-Identifier: GPL-2.0-or-later
"""What each part of the Gridcast network brings: the same training with one of them left out.

Chicago, crimes by day on 55 x 50 cells, learned until 2015, 2016 validates, measured on the days of 2017, one
day ahead, one seed. A difference is that of the mean Poisson deviance of a day from that of the network which
2016 judged, with a 95 % interval from a bootstrap of blocks of four weeks.

``python benchmarks/ablation.py [row ...]`` with ``GRIDCAST_DATA`` set (see docs/data.md); writes
``build/bench/ablation.json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import accuracy
import cities
import numpy as np
from baselines import Printer, day

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.evaluation.significance import block_bootstrap
from gridcast_qgis.core.evaluation.sums import Sums
from gridcast_qgis.core.knowledge import Knowledge, Known, recent_city_features
from gridcast_qgis.core.models.gridcast import GridcastForecaster
from gridcast_qgis.core.models.hetero import HeteroGridcastForecaster
from gridcast_qgis.core.models.registry import model_class
from gridcast_qgis.core.models.trust import Trust

SEED = 1
#: What the others are compared with.
WHOLE = "one network, which was judged"
#: Trained by Train Hetero Ensemble.
ENSEMBLE = "a default network for each of four windows"
BLOCK_DAYS, REPLICATES = 28, 5000

#: Row: kinds of what is known that are hidden, and settings.
ROWS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    WHOLE: ((), {}),
    "two networks that learned from all steps (default)": ((), {"final_networks": 2}),
    "without the last fortnight of the cell and around it": (("repeats",), {}),
    "without longer means of the cell and around it": (("place",), {}),
    "without earlier weekdays, years and dates of the cell": (("calendar",), {}),
    "without the last four weeks of the city": (("city recent",), {}),
    "without calendar and earlier dates of the city": (("city calendar",), {}),
    "without dropout": ((), {"dropout": 0.0}),
    "size fast": ((), {"size": "fast"}),
    "size large": ((), {"size": "large"}),
    ENSEMBLE: ((), {"final_networks": 2}),
}


class Blind(GridcastForecaster):
    """A Gridcast network that some of what is known is hidden from."""

    hidden: tuple[str, ...] = ()

    def _read(self, cube: Cube, start: int, stop: int) -> Iterator[tuple[int, int, Known]]:
        kinds = Knowledge(cube.total[:1], cube.axis, cube.grid, 0, self.weights_).kinds
        recent = recent_city_features(cube.axis)
        for first, last, known in super()._read(cube, start, stop):
            known.cells[..., np.isin(kinds(known.cells.shape[2]), self.hidden)] = 0.0
            late = np.arange(known.city.shape[1]) < recent
            known.city[:, np.where(late, "city recent" in self.hidden, "city calendar" in self.hidden)] = 0.0
            yield first, last, known


def main(rows: list[str]) -> None:
    """Train each row, and write the result."""
    cube = cities.chicago(2011, 2018)
    cube = cube.steps(0, day(cube, "2018-01-01"))
    split = accuracy.three_parts(cube, "2016-01-01", "2017-01-01")
    start, stop, valid = split.test_start, len(cube), cube.grid.valid
    observed = cube.total[start:stop][:, valid]
    average = model_class("ewma")().predict_next(cube, start, stop)[:, valid]
    deviances = {"weighted average x level x weekday": accuracy.losses(observed, average)["deviance"]}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys([WHOLE, *(rows or ROWS)]):
        hidden, settings = ROWS[name]
        settings = {"seed": SEED, "final_networks": 0} | settings
        model: Any = HeteroGridcastForecaster(**settings) if name == ENSEMBLE else Blind(**settings)
        model.hidden = hidden
        known = cube.steps(0, split.validation_stop)
        began = time.perf_counter()
        model.fit(known, split, Printer())
        model.finish(known, split, Printer())
        seconds[name] = round(time.perf_counter() - began, 1)
        expected = model.predict_next(cube, start, stop)[:, valid]
        deviances[name] = accuracy.losses(observed, expected)["deviance"]
        if name == WHOLE:
            model.trust_ = Trust(0.0, 0.0)
            mixture = model.predict_next(cube, start, stop)[:, valid]
            deviances["mixture alone, no network"] = accuracy.losses(observed, mixture)["deviance"]
        print(name, deviances[name].mean(), seconds[name], flush=True)
    whole = deviances[WHOLE]
    result = {
        name: {
            "deviance": round(float(losses.mean()), 5),
            **interval(losses - whole),
            "train_seconds": seconds.get(name),
        }
        for name, losses in deviances.items()
    }
    accuracy.write(cities.BENCH / "ablation.json", result)


@dataclass(frozen=True, eq=False)
class Days(Sums):
    """Differences of losses, by day."""

    difference: np.ndarray
    days: np.ndarray


def interval(differences: np.ndarray) -> dict[str, float]:
    """Return the mean of a series and its 95 % interval from circular blocks."""
    found = block_bootstrap(
        lambda sums: sums.difference / sums.days,
        Days(differences, np.ones(len(differences))),
        block=BLOCK_DAYS,
        replicates=REPLICATES,
    )
    return {
        "difference": round(float(found.estimate), 5),
        "low": round(float(found.low), 5),
        "high": round(float(found.high), 5),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
