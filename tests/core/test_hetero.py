# SPDX-License-Identifier: GPL-2.0-or-later
"""The windows of the ensemble: where they lie, and that each cell gets the mean of those that cover it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cube

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.models.hetero import HeteroForecaster, Window, spans


def test_the_windows_of_the_paper():
    assert spans(55, 3, 2, 1) == [(0, 36), (19, 55)]
    assert spans(50, 3, 2, 1) == [(0, 33), (17, 50)]
    windows = HeteroForecaster().windows(55, 50)
    assert windows == [
        Window(0, 36, 0, 33),
        Window(0, 36, 17, 50),
        Window(19, 55, 0, 33),
        Window(19, 55, 17, 50),
    ]


def test_each_cell_is_covered_by_one_two_or_four_windows():
    cover = np.zeros((55, 50), int)
    for window in HeteroForecaster().windows(55, 50):
        cover[window.slices] += 1
    assert set(np.unique(cover)) == {1, 2, 4}
    assert (cover[19:36, 17:33] == 4).all()
    assert cover[0, 0] == cover[0, -1] == cover[-1, 0] == cover[-1, -1] == 1
    assert cover[27, 0] == cover[0, 25] == 2


@given(
    length=st.integers(1, 200),
    parts=st.integers(1, 12),
    width=st.integers(1, 12),
    stride=st.integers(1, 12),
)
def test_windows_are_alike_and_leave_no_cell_out(length, parts, width, stride):
    width = min(width, parts)
    found = spans(length, parts, width, stride)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert len({stop - start for start, stop in found}) == 1
    assert found == sorted(set(found))
    covered = np.zeros(length, bool)
    for start, stop in found:
        covered[start:stop] = True
    assert covered.all()


class Constant:
    """Stands in for a trained member."""

    def __init__(self, value: float):
        self.value = value

    def predict_next(self, cube, start, stop):
        result = np.full((stop - start, *cube.grid.shape), self.value, np.float32)
        result[:, ~cube.grid.valid] = np.nan
        return result


def test_a_forecast_is_the_mean_of_the_windows_that_cover_the_cell():
    cube = make_cube(12, 6, 7)
    model = HeteroForecaster(lookback=2)
    model.windows_ = model.windows(6, 7)
    assert len(model.windows_) == 4
    model.members_ = [Constant(value) for value in (1, 10, 100, 1000)]
    expected = np.zeros((6, 7))
    for r, c in np.ndindex(6, 7):
        values = [
            member.value
            for window, member in zip(model.windows_, model.members_)
            if window.top <= r < window.bottom and window.left <= c < window.right
        ]
        expected[r, c] = np.mean(values)
    expected[~cube.grid.valid] = np.nan
    assert model.predict_next(cube, 5, 7) == pytest.approx(np.stack([expected] * 2), nan_ok=True)


REFUSED = {
    "window_rows": (
        4,
        "WINDOW_ROWS = 4: The window spans more parts than the grid has (3). Choose a value up to 3.",
    ),
    "window_columns": (
        9,
        "WINDOW_COLUMNS = 9: The window spans more parts than the grid has (3). Choose a value up to 3.",
    ),
    "subgrid_rows": (0, "SUBGRID_ROWS = 0: The value must be at least 1."),
    "window_stride": (0, "WINDOW_STRIDE = 0: The value must be at least 1."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_windows_that_do_not_fit_are_refused(name):
    value, text = REFUSED[name]
    with pytest.raises(InputError) as caught:
        HeteroForecaster(**{name: value})
    assert caught.value.text() == text


def test_a_window_without_study_area_gets_no_member(monkeypatch):
    cube = make_cube(30, 6, 6, holes=False)
    cube.grid.inside[:, :3] = 0
    fitted = []
    monkeypatch.setattr(
        "gridcast_qgis.core.models.hetero.ConvLSTMForecaster.fit",
        lambda self, part, split, reporter: fitted.append(part.grid.shape) or self,
    )
    from gridcast_qgis.core.reporter import Reporter
    from gridcast_qgis.core.training.splits import chronological_split

    model = HeteroForecaster(
        lookback=2, subgrid_rows=2, subgrid_columns=2, window_rows=1, window_columns=1
    ).fit(cube, chronological_split(30, 2, 15), Reporter())
    assert fitted == [(3, 3), (3, 3)]
    assert [window.left for window in model.windows_] == [3, 3]
    # Members differ, but the whole follows from one seed.
    assert [member.settings.seed for member in model.members_] == [1, 2]
