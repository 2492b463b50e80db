# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a network is trusted with its corrections of a simple forecast, as later steps tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Shares of what a network says of places that it may be trusted with.
PLACE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: The same of what it says of the city as a whole. That rests on few days and years, and holds less in the
#: years after those that judged it.
CITY_SHARES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Trust:
    """Shares of a network's corrections that count, from 0 to 1.

    Attributes
    ----------
    places : float
        Of what it says of the cells, beside each other.
    city : float
        Of what it says of all of them together.
    """

    places: float = 1.0
    city: float = 1.0

    def __bool__(self) -> bool:
        return self.places > 0 or self.city > 0

    def applied(self, corrections: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Return what counts of corrections of log rates.

        Parameters
        ----------
        corrections, base : numpy.ndarray
            `(steps, cells)`; the base is the rates that they correct.
        """
        whole = (corrections * base).sum(axis=1, keepdims=True) / base.sum(axis=1, keepdims=True)
        result: np.ndarray = self.places * (corrections - whole) + self.city * whole
        return result


def earned(losses: Mapping[float, np.ndarray], alike: int = 1) -> float:
    """Return the share with the least loss, 0 unless that gains more than one standard error.

    Parameters
    ----------
    losses : mapping of float to numpy.ndarray
        `(steps,)` for each share, 0 among them.
    alike : int
        How many neighbouring steps tell of the same events.
    """
    best = min(losses, key=lambda share: float(losses[share].sum()))
    gain = losses[0.0] - losses[best]
    return best if gain.sum() > gain.std() * math.sqrt(len(gain) * min(alike, len(gain))) else 0.0
