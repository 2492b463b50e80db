# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits: what is learned from lies before what is judged on, with a gap between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.training.splits import Split, chronological_split


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
    assert split.train_start == lookback
    assert split.train_steps >= 1
    assert split.validation_steps >= 1
    assert split.validation_stop == steps
    assert split.validation_start - split.train_stop == (lookback if gap is None else gap)
    assert split.validation_steps == pytest.approx((steps - lookback) * share / 100, abs=1)


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
