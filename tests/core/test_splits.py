# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits: what is learned from lies before what is judged on, with a gap between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.training.splits import (
    Split,
    chronological_split,
    expanding_folds,
    five_one_one,
    further_split,
)


def check(split: Split, steps: int, lookback: int, gap: int) -> None:
    """Assert that the parts are not empty, follow one another and keep their distance."""
    assert split.train_start >= lookback
    assert split.train_steps >= 1
    assert split.validation_steps >= 1
    assert split.validation_start - split.train_stop == gap
    assert split.validation_stop <= steps
    if split.test_stop:
        assert split.test_start - split.validation_stop == gap
        assert split.test_stop == steps > split.test_start


@given(
    steps=st.integers(1, 3000),
    lookback=st.integers(1, 60),
    share=st.floats(0.1, 50),
    gap=st.one_of(st.none(), st.integers(0, 40)),
)
def test_parts_follow_one_another_with_a_gap(steps, lookback, share, gap):
    try:
        split = chronological_split(steps, lookback, share, gap=gap)
    except InputError as error:
        assert error.parameter == "LOOKBACK"
        return
    check(split, steps, lookback, lookback if gap is None else gap)
    assert split.train_start == lookback
    assert split.validation_stop == steps
    assert split.validation_steps == pytest.approx((steps - lookback) * share / 100, abs=1)
    assert split.test_start == split.test_stop == 0


def test_no_validation_window_holds_a_training_target():
    split = chronological_split(100, 7, 15)
    assert split == Split(7, 79, 86, 100)
    assert split.validation_start - 7 >= split.train_stop


REFUSED = {
    "lookback": (
        (50, 0, 15),
        "LOOKBACK = 0: The lookback must be at least one step. Give a whole number such as 7.",
    ),
    "no share": (
        (50, 7, 0),
        "VALIDATION_SHARE = 0: The share of the validation period must be above 0 and at most 50 percent. 15 "
        "is a good start.",
    ),
    "share": (
        (50, 7, 60),
        "VALIDATION_SHARE = 60: The share of the validation period must be above 0 and at most 50 percent. "
        "15 is a good start.",
    ),
    "lookback longer than the cube": (
        (30, 40, 15),
        "LOOKBACK = 40: The cube (or its part before UNTIL) has 30 steps, no more than the lookback of 40. "
        "Choose a shorter lookback, shorter steps or a longer period.",
    ),
    "nothing left": (
        (15, 7, 15),
        "LOOKBACK = 7: With 15 steps, a lookback and gap of 7 and 1 validation steps nothing is left to "
        "train on. Use a longer period, shorter steps or a shorter lookback.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused_with_the_fix(case):
    arguments, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        chronological_split(*arguments)
    assert caught.value.text() == text


# Five, one and one year --------------------------------------------------------------------------------


def test_seven_years_are_five_one_and_one():
    days, lookback = 2557, 7
    split = five_one_one(days, lookback)
    check(split, days, lookback, lookback)
    assert split.train_start == lookback
    year = 365.25
    assert split.train_steps == pytest.approx(5 * year, abs=3 * lookback)
    assert split.validation_steps == pytest.approx(year, abs=lookback)
    assert split.test_stop - split.test_start == pytest.approx(year, abs=lookback)
    # By hand: 2,550 days with a past, of which a seventh is 364; 2,186 days before the gap, and a sixth of
    # those with a past is 363.
    assert split == Split(7, 2557 - 364 - 7 - 363 - 7, 2557 - 364 - 7 - 363, 2557 - 364 - 7, 2557 - 364, 2557)


@given(steps=st.integers(1, 3000), lookback=st.integers(1, 60))
def test_five_one_one_keeps_its_proportions(steps, lookback):
    try:
        split = five_one_one(steps, lookback)
    except InputError as error:
        assert error.parameter == "LOOKBACK"
        # Three gaps and a few steps to train, validate and test on are enough.
        assert steps <= 4 * lookback + 4
        return
    check(split, steps, lookback, lookback)
    part = (steps - lookback) / 7
    assert split.test_stop - split.test_start == pytest.approx(part, abs=1)
    assert split.validation_steps == pytest.approx(part, abs=lookback / 6 + 2)
    assert split.train_steps == pytest.approx(5 * part, abs=2 * lookback + 2)


@pytest.mark.parametrize(("steps", "lookback"), [(0, 7), (7, 7), (24, 7)])
def test_too_few_steps_for_five_one_one(steps, lookback):
    with pytest.raises(InputError) as caught:
        five_one_one(steps, lookback)
    assert caught.value.parameter == "LOOKBACK"


# Walk forward ------------------------------------------------------------------------------------------


def test_four_folds_by_hand():
    assert expanding_folds(107, 7, 40, 4) == [
        Split(7, 60, 67, 77),
        Split(7, 70, 77, 87),
        Split(7, 80, 87, 97),
        Split(7, 90, 97, 107),
    ]


@given(
    steps=st.integers(1, 2000),
    lookback=st.integers(1, 40),
    share=st.floats(1, 50),
    folds=st.integers(1, 8),
)
def test_folds_expand_and_their_validations_follow_one_another(steps, lookback, share, folds):
    try:
        found = expanding_folds(steps, lookback, share, folds)
    except InputError as error:
        assert error.parameter in ("FOLDS", "LOOKBACK")
        return
    assert len(found) == folds
    for split in found:
        check(split, steps, lookback, lookback)
        assert split.train_start == lookback
    assert found[-1].validation_stop == steps
    for one, two in zip(found, found[1:]):
        assert one.validation_stop == two.validation_start
        assert one.train_stop < two.train_stop
    assert len({split.validation_steps for split in found}) == 1
    judged = np.concatenate([np.arange(s.validation_start, s.validation_stop) for s in found])
    assert len(set(judged)) == len(judged)


def test_one_fold_is_the_chronological_split():
    assert expanding_folds(100, 7, 15, 1) == [chronological_split(100, 7, 15)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((100, 7, 15, 0), "FOLDS = 0: There must be at least one fold. Give 1, or 4 as usual."),
        (
            (22, 7, 20, 8),
            "FOLDS = 8: 22 steps are too few for 8 folds with a lookback of 7. Use fewer folds, a longer "
            "period or shorter steps.",
        ),
    ],
)
def test_folds_that_cannot_be(arguments, text):
    with pytest.raises(InputError) as caught:
        expanding_folds(*arguments)
    assert caught.value.text() == text


@pytest.mark.parametrize(
    ("lookback", "share", "parameter"),
    [(0, 15, "LOOKBACK"), (7, 0, "VALIDATION_SHARE"), (7, 80, "VALIDATION_SHARE"), (100, 15, "LOOKBACK")],
)
@pytest.mark.parametrize("folds", [1, 4])
def test_folds_are_refused_for_the_reasons_of_a_split(lookback, share, parameter, folds):
    with pytest.raises(InputError) as caught:
        expanding_folds(100, lookback, share, folds)
    assert caught.value.parameter == parameter


# Going on ----------------------------------------------------------------------------------------------


@given(
    steps=st.integers(1, 500),
    lookback=st.integers(1, 20),
    share=st.floats(1, 50),
    learned=st.integers(0, 500),
)
def test_what_is_learned_later_was_not_learned_before(steps, lookback, share, learned):
    try:
        split = further_split(steps, lookback, share, learned)
    except InputError as error:
        assert error.parameter == "CONTINUE_FROM"
        return
    check(split, steps, lookback, lookback)
    assert split.train_start == max(learned, lookback)
    assert split.validation_stop == steps
    assert split.validation_steps == pytest.approx((steps - split.train_start) * share / 100, abs=1)


def test_further_steps_by_hand():
    assert further_split(150, 7, 20, 100) == Split(100, 133, 140, 150)
    # A model that has learned nothing begins where there is a past.
    assert further_split(107, 7, 10, 0) == Split(7, 90, 97, 107)


@pytest.mark.parametrize(("steps", "left"), [(100, 0), (90, 0), (108, 8)])
def test_nothing_new_to_learn(steps, left):
    with pytest.raises(InputError) as caught:
        further_split(steps, 7, 15, 100)
    assert caught.value.text() == (
        f"CONTINUE_FROM: The cube has {left} steps that the model has not learned from; with 1 to validate "
        "on and a gap of 7 nothing is left. Append newer events to the cube first."
    )
