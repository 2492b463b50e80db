# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells are hot, and which ones a classifier looks at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.labels import LabelRule, candidates

VALID = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
# Outside the study area there are more events than anywhere.
COUNTS = np.array([[3, 0, 1, 0], [0, 2, 0, 2], [2, 1, 0, 9]], np.float32)[None]


def hot(kind: str, value: float, counts: np.ndarray = COUNTS) -> list[tuple[int, int]]:
    labels = LabelRule(kind, value).hot(counts, VALID)
    assert labels.shape == counts.shape
    assert labels.dtype == bool
    return [(int(y), int(x)) for y, x in np.argwhere(labels[0])]


@pytest.mark.parametrize(
    ("value", "cells"),
    [
        (1, [(0, 0)]),
        # Of three cells with two events, (1, 1) has six around it; the others have three and, further
        # south, five.
        (2, [(0, 0), (1, 1)]),
        (3, [(0, 0), (1, 1), (2, 0)]),
        (4, [(0, 0), (1, 1), (1, 3), (2, 0)]),
        # Then come the cells with one event: (2, 1) has five around it, (0, 2) too.
        (5, [(0, 0), (0, 2), (1, 1), (1, 3), (2, 0)]),
        (6, [(0, 0), (0, 2), (1, 1), (1, 3), (2, 0), (2, 1)]),
        # A cell without an event is never hot.
        (7, [(0, 0), (0, 2), (1, 1), (1, 3), (2, 0), (2, 1)]),
    ],
)
def test_the_top_cells_have_most_events(value, cells):
    assert hot("top_cells", value) == cells


def test_ties_go_to_busy_surroundings_then_north_then_west():
    counts = np.zeros((1, 3, 4), np.float32)
    counts[0, 0, 3] = counts[0, 2, 0] = counts[0, 0, 0] = 1
    assert hot("top_cells", 1, counts) == [(0, 0)]
    assert hot("top_cells", 2, counts) == [(0, 0), (0, 3)]
    counts[0, 2, 1] = 1
    assert hot("top_cells", 1, counts) == [(2, 0)]
    assert hot("top_cells", 2, counts) == [(2, 0), (2, 1)]


@pytest.mark.parametrize(
    # Eleven cells are in the study area.
    ("share", "number"),
    [(1, 1), (9, 1), (100 / 11, 1), (18, 1), (200 / 11, 2), (30, 3), (100, 6)],
)
def test_the_top_share_is_of_the_study_area(share, number):
    assert hot("top_share", share) == hot("top_cells", number)


def test_a_share_of_cells_does_not_lose_one_to_rounding():
    counts = np.ones((1, 10, 70), np.float32)
    labels = LabelRule("top_share", 7).hot(counts, np.ones((10, 70), bool))
    assert labels.sum() == 49


@pytest.mark.parametrize(
    ("value", "cells"),
    [(0.5, 6), (1, 6), (1.5, 4), (2, 4), (3, 1), (4, 0)],
)
def test_a_threshold_is_reached_or_not(value, cells):
    assert len(hot("threshold", value)) == cells


COUNT_ARRAYS = arrays.arrays(np.float32, (3, 4, 5), elements=st.integers(0, 4).map(float))
MASKS = arrays.arrays(bool, (4, 5)).filter(np.any)


@given(COUNT_ARRAYS, MASKS, st.integers(1, 25))
def test_top_cells_of_any_counts(counts, valid, value):
    labels = LabelRule("top_cells", value).hot(counts, valid)
    for step, flags in zip(counts, labels):
        inside = np.where(valid, step, 0)
        assert flags.sum() == min(value, (inside > 0).sum())
        assert (inside[flags] > 0).all()
        if flags.any():
            assert inside[~flags].max(initial=0) <= inside[flags].min()


@given(COUNT_ARRAYS, MASKS, st.sampled_from([("top_cells", 3), ("top_share", 20), ("threshold", 2)]))
def test_a_label_depends_on_its_own_step_and_the_study_area_only(counts, valid, rule):
    labels = LabelRule(*rule).hot(counts, valid)
    other = counts.copy()
    other[1:] = 4
    other[:, ~valid] = 7
    assert (LabelRule(*rule).hot(other, valid)[0] == labels[0]).all()
    assert (LabelRule(*rule).hot(counts[2:], valid)[0] == labels[2]).all()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (
            "coldest",
            1,
            "LABEL_RULE = coldest: There is no such rule for hot cells. Choose one of top_cells, top_share, "
            "threshold.",
        ),
        ("top_cells", 0, "LABEL_VALUE = 0: The number of hot cells must be a whole number from 1 on."),
        ("top_cells", 2.5, "LABEL_VALUE = 2.5: The number of hot cells must be a whole number from 1 on."),
        ("top_cells", float("nan"), "LABEL_VALUE = nan: The number of hot cells must be a whole number"),
        ("top_cells", float("inf"), "LABEL_VALUE = inf: The number of hot cells must be a whole number"),
        ("top_share", 0, "LABEL_VALUE = 0: The share of hot cells must be above 0 and at most 100 percent."),
        ("top_share", 101, "LABEL_VALUE = 101: The share of hot cells must be above 0 and at most 100"),
        ("threshold", 0, "LABEL_VALUE = 0: The number of events that make a cell hot must be above 0."),
        ("threshold", float("nan"), "LABEL_VALUE = nan: The number of events that make a cell hot"),
    ],
)
def test_rules_are_checked(kind, value, text):
    with pytest.raises(InputError) as caught:
        LabelRule(kind, value)
    assert caught.value.text().startswith(text)


def labels_by_step() -> np.ndarray:
    labels = np.zeros((4, 3, 4), bool)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 0, 0] = labels[3, 2, 2] = True
    return labels


def test_candidates_come_from_the_training_the_whole_data_or_the_study_area():
    labels = labels_by_step()

    def cells(how):
        return [tuple(map(int, cell)) for cell in np.argwhere(candidates(labels, VALID, 3, how))]

    assert cells("training") == [(0, 0), (1, 1)]
    assert cells("all_steps") == [(0, 0), (1, 1), (2, 2)]
    assert cells("all_cells") == [tuple(map(int, cell)) for cell in np.argwhere(VALID)]
    assert (candidates(labels, VALID, 3) == candidates(labels, VALID, 3, "training")).all()


def test_candidates_are_cells_of_their_own():
    chosen = candidates(labels_by_step(), VALID, 3, "all_cells")
    chosen[:] = False
    assert VALID.any()


def test_without_a_hot_cell_there_is_nothing_to_learn():
    labels = labels_by_step()
    labels[:3] = False
    with pytest.raises(InputError) as caught:
        candidates(labels, VALID, 3)
    assert caught.value.text() == (
        "CANDIDATES = training: No cell is hot in any training step, so there is nothing to learn. Choose a "
        "lower LABEL_VALUE, longer steps or a longer period."
    )
    assert candidates(labels, VALID, 3, "all_steps").sum() == 1
    with pytest.raises(InputError, match="CANDIDATES = some: There is no such way to choose the cells"):
        candidates(labels, VALID, 3, "some")
