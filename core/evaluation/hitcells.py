# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells a model flagged rightly, in vain or not at all, origin by origin, as polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..vectors import write_polygons
from .league import League
from .metrics import flag_cells

#: What a cell was: flagged with an event, flagged without one, or not flagged in spite of one.
KINDS = ("hit", "false alarm", "missed")


def write_hit_cells(path: str | Path, league: League, name: str, parameter: str = "HITS") -> None:
    """Write the cells that a model flagged in the first budget of area, and those with events that it missed.

    Each polygon holds for one origin: fields ``kind``, ``model``, ``origin`` (from 1), ``start``, ``end``,
    ``events`` and ``forecast``.
    """
    values = league.answers[name].ranked
    happened = league.observed.sum(axis=1)
    grid = league.cube.grid
    kinds = np.zeros(happened.shape, np.int8)
    for at, (forecast, events) in enumerate(zip(values, happened)):
        flagged = flag_cells(forecast, grid.inside_area, league.area_shares[0], events)
        busy = grid.valid & (events > 0)
        kinds[at] = np.select([flagged & busy, flagged, busy], [1, 2, 3], 0)
    origin, row, column = np.nonzero(kinds)
    starts, ends = (times.astype("datetime64[ms]") for times in league.periods)
    write_polygons(
        path,
        grid.cell_polygons(row, column),
        {
            "kind": np.array(KINDS, object)[kinds[origin, row, column] - 1],
            "model": np.full(len(row), name, object),
            "origin": (origin + 1).astype(np.int32),
            "start": starts[origin],
            "end": ends[origin],
            "events": happened[origin, row, column].astype(np.float64),
            "forecast": values[origin, row, column].astype(np.float64),
        },
        grid.crs,
        "hits",
        parameter,
    )
