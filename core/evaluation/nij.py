# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the NIJ's Real-Time Crime Forecasting Challenge of 2017 for Portland, Oregon."""

from __future__ import annotations

import numpy as np

SQUARE_FOOT = 0.3048**2
SQUARE_MILE = 5280**2 * SQUARE_FOOT

#: Allowed sizes of a cell, in square feet.
CELL = (62_500, 360_000)
#: Allowed flagged area, in square miles.
FLAGGED = (0.25, 0.75)
#: What the challenge takes for the area of Portland, in square metres.
TOTAL_AREA = 147.71 * SQUARE_MILE

# Feet on the ground and in the plane of a coordinate system are not quite the same.
_NEAR = 0.002


def broken_rules(cells: np.ndarray, flagged: np.ndarray) -> list[str]:
    """Return a sentence for each rule of the challenge that an entry breaks.

    Parameters
    ----------
    cells : numpy.ndarray
        Square metres of its flagged cells, without those that the border of the city cuts.
    flagged : numpy.ndarray
        Square metres flagged at a time, one number or several.
    """
    found = []
    feet, miles = cells / SQUARE_FOOT, np.atleast_1d(flagged) / SQUARE_MILE
    small, large = feet < CELL[0] * (1 - _NEAR), feet > CELL[1] * (1 + _NEAR)
    allowed = f"the challenge allows {CELL[0]:,} to {CELL[1]:,}, less only where the border cuts a cell"
    if small.any():
        found.append(
            f"{small.sum():,} flagged cells are too small, the smallest with {feet.min():,.0f} square feet: "
            f"{allowed}."
        )
    if large.any():
        found.append(
            f"{large.sum():,} flagged cells are too large, the largest with {feet.max():,.0f} square feet: "
            f"{allowed}."
        )
    if miles.min() < FLAGGED[0] * (1 - _NEAR):
        found.append(
            f"Too little is flagged, {miles.min():.3f} square miles: the challenge asks for {FLAGGED[0]} to "
            f"{FLAGGED[1]}."
        )
    if miles.max() > FLAGGED[1] * (1 + _NEAR):
        found.append(
            f"Too much is flagged, {miles.max():.3f} square miles: the challenge asks for {FLAGGED[0]} to "
            f"{FLAGGED[1]}."
        )
    return found
