# SPDX-License-Identifier: GPL-2.0-or-later
"""What settings share: how networks are trained, how values are checked, written and read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..training.fit import FitOptions


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What checks the values of settings."""

    def __post_init__(self) -> None:
        """Check them."""

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


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
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
        super().__post_init__()
        self.fit_options()
        self._check_least("lookback")

    def fit_options(self) -> FitOptions:
        """Return the part that concerns training."""
        from ..training.fit import FitOptions

        return FitOptions(self.epochs, self.batch_size, self.learning_rate, self.patience, self.seed)


def value_text(value: Any) -> str:
    """Return a value of a setting as people write it; :func:`read_value` reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "+".join(value) or "none"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def read_value(word: str, default: Any) -> Any:
    """Return the value that a word stands for, of the kind of a default.

    Lists of names are written as ``season+weekday``, an empty one as ``none``.

    Raises
    ------
    ValueError
        It is none, with a sentence for people.
    """
    if isinstance(default, bool):
        if word.lower() not in ("yes", "no", "true", "false"):
            raise ValueError(f"'{word}' is neither yes nor no.")
        return word.lower() in ("yes", "true")
    if isinstance(default, tuple):
        return () if word == "none" else tuple(each.strip() for each in word.split("+"))
    if isinstance(default, str):
        return word
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{word}' is no number.")
    if not isinstance(default, int):
        return number
    if not number.is_integer():
        raise ValueError(f"'{word}' is no whole number.")
    return int(number)
