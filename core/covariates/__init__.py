# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known about times and places besides the events: weather, census, holidays, season.

One module makes one kind: :mod:`.tables` (rows with dates), :mod:`.rasters` and :mod:`.polygons`
(places), :mod:`.holiday` (public and own holidays) and :mod:`.seasons` (the calendar). Nothing is fitted
and no gap is filled there: a step or cell has what its source says of that time or place, else NaN.
Whether it was known before the step began is another matter: the calendar is, measured weather is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Which of the cube's dimensions a covariate may have.
DIMENSIONS = (("time",), ("y", "x"), ("time", "y", "x"))


@dataclass(frozen=True, eq=False)
class Covariate:
    """A quantity per step, per cell, or per step and cell.

    Attributes
    ----------
    name : str
        Name of the variable in the cube's file: letters, digits and underscores.
    values : numpy.ndarray
        float32, shaped as `dimensions` of the cube; NaN where nothing is known.
    dimensions : tuple of str
        One of :data:`DIMENSIONS`.
    units : str
        UDUNITS text, ``1`` for shares and counts.
    description : str
        One line for people.
    """

    name: str
    values: np.ndarray
    dimensions: tuple[str, ...]
    units: str = "1"
    description: str = ""
