# SPDX-License-Identifier: GPL-2.0-or-later
"""What the settings of all networks share: how they are trained and how values are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..training.fit import FitOptions


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings of a network; every one has other defaults.

    Attributes
    ----------
    lookback : int
        Steps that the network sees.
    epochs, batch_size, learning_rate, patience, seed
        See :class:`~..training.fit.FitOptions`.
    """

    lookback: int = 7
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 0.002
    patience: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        self.fit_options()
        self._check_least("lookback")

    def fit_options(self) -> FitOptions:
        """Return the part that concerns training."""
        from ..training.fit import FitOptions

        return FitOptions(self.epochs, self.batch_size, self.learning_rate, self.patience, self.seed)

    def _check_least(self, *names: str, least: int = 1) -> None:
        for name in names:
            value = getattr(self, name)
            if value < least:
                raise InputError(f"The value must be at least {least}.", parameter=name.upper(), value=value)

    def _check_choice(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise InputError(
                "There is no such choice.",
                hint=f"Choose one of {', '.join(known)}.",
                parameter=name.upper(),
                value=value,
            )
