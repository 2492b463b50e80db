# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits in time order: what is learned from lies before what is judged on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Split:
    """Target steps for training and validation, as half-open ranges of step indexes.

    Everything that is fitted (weights, scalers, base rates used as offsets) sees
    steps before `train_stop` only.
    """

    train_start: int
    train_stop: int
    validation_start: int
    validation_stop: int

    @property
    def train_steps(self) -> int:
        """Number of steps to learn from."""
        return self.train_stop - self.train_start

    @property
    def validation_steps(self) -> int:
        """Number of steps to judge on."""
        return self.validation_stop - self.validation_start


def chronological_split(
    steps: int, lookback: int, validation_share: float, *, gap: int | None = None
) -> Split:
    """Split `steps` steps: the last `validation_share` percent validate, the ones before train.

    Parameters
    ----------
    steps : int
        Length of the cube that may be used.
    lookback : int
        Steps that a forecast looks back; the first ones have no full history and are no targets.
    validation_share : float
        Percent of the target steps, more than 0 and at most 50.
    gap : int, optional
        Steps left out between the two, `lookback` by default, so that no training
        target is part of a validation input.

    Raises
    ------
    InputError
        The lookback or the share leave nothing to train or validate on.
    """
    gap = lookback if gap is None else gap
    if lookback < 1:
        raise InputError(
            "The lookback must be at least one step.",
            hint="Give a whole number such as 7.",
            parameter="LOOKBACK",
            value=lookback,
        )
    if not 0 < validation_share <= 50:
        raise InputError(
            "The share of the validation period must be above 0 and at most 50 percent.",
            hint="15 is a good start.",
            parameter="VALIDATION_SHARE",
            value=validation_share,
        )
    if steps <= lookback:
        raise InputError(
            f"The cube (or its part before UNTIL) has {steps} steps, no more than the lookback of "
            f"{lookback}.",
            hint="Choose a shorter lookback, shorter steps or a longer period.",
            parameter="LOOKBACK",
            value=lookback,
        )
    validation = max(1, round((steps - lookback) * validation_share / 100))
    train_stop = steps - validation - gap
    if train_stop <= lookback:
        raise InputError(
            f"With {steps} steps, a lookback and gap of {lookback} and {validation} validation steps "
            "nothing is left to train on.",
            hint="Use a longer period, shorter steps or a shorter lookback.",
            parameter="LOOKBACK",
            value=lookback,
        )
    return Split(lookback, train_stop, steps - validation, steps)
