# SPDX-License-Identifier: GPL-2.0-or-later
"""How much better a map could be that knows the rest of the period: what hindsight would bring.

Where even a map that has seen what came later finds no more, there is no more to learn from the places of
past events. Validation periods only.

Washington, DC: gunshots by day on 36 x 36 cells, 2011 without the days of fireworks. The mixture of kernels
that the Gridcast network starts from, learned until 2010, alone and mixed with the shots of the whole of 2011
but those of the seven days around each day; and with the true number of shots of each day. Portland: maps of
burglaries and vehicle thefts on cells of 250 feet, a quarter of a square mile flagged every second Sunday
from September 2013 to February 2015, hits pooled. Kernel densities of the past, and of past and future but
the coming three months; of each the best bandwidth and half-life.

``python benchmarks/hindsight.py`` with ``GRIDCAST_DATA`` set (see docs/data.md); writes
``build/bench/hindsight.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import accuracy
import baselines
import cities
import numpy as np
from baselines import Maps, Pai, Printer, day, fireworks, hits_in_top

from gridcast_qgis.core.evaluation.classification import score
from gridcast_qgis.core.knowledge import Knowledge
from gridcast_qgis.core.mixture import around, learned_weights

#: Standard deviations in cells of the maps of hindsight, and how much they count beside the mixture.
RADII, SHARES = (0.5, 1.0, 2.0), (0.2, 1 / 3, 0.5)
#: Days around each day that hindsight does not see.
HIDDEN_DAYS = 7
#: Settings of kernel densities: standard deviations in cells, half-lives in weeks (None: all count alike).
WIDTHS, HALF_LIVES = (0.0, 0.5, 1.0), (None, 104.0)
#: Weeks to come that hindsight does not see.
COMING_WEEKS = 13


def washington() -> dict[str, Any]:
    """Score maps of the gunshots of 2011."""
    cube = baselines.washington_cube()
    start, stop, valid = day(cube, "2011-01-01"), day(cube, "2012-01-01"), cube.grid.valid
    judged = ~fireworks(cube.axis.local_starts[start:stop])
    counts = cube.total[start:stop]
    weights = learned_weights(cube.total, cube.grid, 1.0, cube.axis.steps_per_year, start, Printer())
    mixture = Knowledge(cube.total, cube.axis, cube.grid, start, weights).read(stop).base
    total = mixture.sum(axis=1, keepdims=True)

    def scores(rates: np.ndarray) -> dict[str, float]:
        observed, expected = counts[:, valid][judged], rates[judged]
        return {
            "auc": round(float(score(observed > 0, -np.expm1(-expected)).auc), 4),
            "hits_top_4_percent": hits_in_top(observed, expected, 52),
        }

    found = {"mixture": scores(mixture)}
    found["mixture, true shots of each day"] = scores(
        mixture / total * counts[:, valid].sum(axis=1, keepdims=True)
    )
    half = HIDDEN_DAYS // 2
    seen = [
        counts.sum(axis=0) - counts[max(0, n - half) : n + half + 1].sum(axis=0) for n in range(len(counts))
    ]
    for radius in RADII:
        places = around(np.stack(seen), radius, valid)[:, valid]
        places /= places.sum(axis=1, keepdims=True)
        for share in SHARES:
            found[f"with hindsight, {radius} cells, share {share:.2f}"] = scores(
                (1 - share) * mixture + share * total * places
            )
    return found


def portland() -> dict[str, Any]:
    """Score maps of the validation period by the PAI of the coming week to three months."""
    found: dict[str, Any] = {}
    for category in baselines.LIKE_KNOWN:
        cube, rows = baselines.portland_cube(category)
        first, last = day(cube, "2013-09-01"), day(cube, "2015-03-01")
        # The weeks of the test are not seen.
        judge, counts = Pai(cube, rows), np.where(cube.grid.valid, cube.total[:last], 0.0)
        kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "past": lambda ago: ago > 0,
            "past and future": lambda ago: (ago > 0) | (ago <= -COMING_WEEKS),
        }
        for kind, is_seen in kinds.items():
            tried = {}
            for width in WIDTHS:
                for half_life in HALF_LIVES:
                    maps = np.empty((last - first, *cube.grid.shape), np.float32)
                    for step in range(first, last):
                        ago = step - np.arange(len(counts))
                        memory = is_seen(ago) * (0.5 ** (np.abs(ago) / half_life) if half_life else 1.0)
                        maps[step - first] = around(np.tensordot(memory, counts, 1), width, cube.grid.valid)
                    name = f"{width} cells, half-life {half_life} weeks"
                    tried[name] = judge.pai(Maps(maps, first), "2013-09-01", "2015-03-01")
            best = max(tried, key=lambda name: sum(tried[name]))
            found[f"{category}, {kind}"] = {"best": best, "pai": tried[best], "all": tried}
            print("   ", category, kind, best, tried[best], flush=True)
    return found


if __name__ == "__main__":
    result = {"washington": washington()}
    print(result, flush=True)
    accuracy.write(cities.BENCH / "hindsight.json", result | {"portland": portland()})
