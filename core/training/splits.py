# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits in time order: what is learned from lies before what is judged on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Split:
    """Target steps for training, validation and test, as half-open ranges of step indexes.

    The test range may be empty. Everything that is fitted (weights, scalers, base rates used as offsets)
    sees steps before `train_stop` only.
    """

    train_start: int
    train_stop: int
    validation_start: int
    validation_stop: int
    test_start: int = 0
    test_stop: int = 0

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
    _check_lengths(steps, lookback, validation_share)
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


def five_one_one(steps: int, lookback: int) -> Split:
    """Split as the ShotSpotter report does: of seven parts five train, one validates, one tests.

    With seven years of data these are 5, 1 and 1 years. A gap of `lookback` steps lies before the
    validation and the test period, as in :func:`chronological_split`.

    Raises
    ------
    InputError
        Too few steps.
    """
    test = max(1, round((steps - lookback) / 7))
    known = steps - test - lookback
    share = 100 / 6
    before = chronological_split(max(known, 0), lookback, share)
    return Split(
        before.train_start,
        before.train_stop,
        before.validation_start,
        before.validation_stop,
        steps - test,
        steps,
    )


def expanding_folds(steps: int, lookback: int, validation_share: float, folds: int) -> list[Split]:
    """Split for walk-forward validation: each fold validates on the steps after those it learns from.

    The validation periods are consecutive, each `validation_share` / `folds` percent of the steps, the
    last ones; fold after fold there is more to learn from. The last fold learns from the most.

    Raises
    ------
    InputError
        Fewer than one fold, or too few steps for the first one; and as :func:`chronological_split`.
    """
    _check_lengths(steps, lookback, validation_share)
    if folds < 1:
        raise InputError(
            "There must be at least one fold.", hint="Give 1, or 4 as usual.", parameter="FOLDS", value=folds
        )
    share = validation_share / folds
    size = max(1, round((steps - lookback) * share / 100))
    found = []
    for fold in range(folds):
        known = steps - (folds - 1 - fold) * size
        if known - size - lookback <= lookback:
            raise InputError(
                f"{steps} steps are too few for {folds} folds with a lookback of {lookback}.",
                hint="Use fewer folds, a longer period or shorter steps.",
                parameter="FOLDS",
                value=folds,
            )
        found.append(Split(lookback, known - size - lookback, known - size, known))
    return found


def further_split(steps: int, lookback: int, validation_share: float, learned: int) -> Split:
    """Split what a model has not learned from yet: all but the first `learned` steps.

    The last `validation_share` percent of these steps validate, at least one; a gap of `lookback` steps
    lies before them.

    Raises
    ------
    InputError
        No step is left to learn from.
    """
    first = max(learned, lookback)
    validation = max(1, round((steps - first) * validation_share / 100))
    train_stop = steps - validation - lookback
    if train_stop <= first:
        raise InputError(
            f"The cube has {max(steps - learned, 0)} steps that the model has not learned from; with "
            f"{validation} to validate on and a gap of {lookback} nothing is left.",
            hint="Append newer events to the cube first.",
            parameter="CONTINUE_FROM",
        )
    return Split(first, train_stop, steps - validation, steps)


def _check_lengths(steps: int, lookback: int, validation_share: float) -> None:
    """Raise :class:`InputError` if there is no step with a full history, or no such share of them."""
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
