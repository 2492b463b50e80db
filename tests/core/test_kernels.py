# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel density and prospective hotspotting, against kernels written out."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import CELL, Recorder, changed, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.models.baselines import EWMA
from gridcast_qgis.core.models.kernels import KDE, ProMap, gaussian, smoothed
from gridcast_qgis.core.training.splits import chronological_split

PLAIN = {"level": False, "weekday": False}
#: Sides of a cell on the ground, which differ a little from those in the map.
WIDTH, HEIGHT = make_grid().cell_dimensions


def single(steps: int, when: int, row: int, column: int, rows: int = 9, columns: int = 11) -> Cube:
    """Return a cube with one event."""
    cube = make_cube(steps, rows, columns, holes=False)
    events = np.zeros_like(cube.events)
    events[when, 0, row, column] = 1
    return changed(cube, events)


# Spreading over the study area -------------------------------------------------------------------------


def test_a_gaussian_of_the_distance_in_metres():
    cube = single(1, 0, 4, 5)
    spread = gaussian(cube.grid, 300.0)(cube.total.astype(float))[0]
    y, x = np.indices(spread.shape)
    weights = np.exp(-(((y - 4) * HEIGHT) ** 2 + ((x - 5) * WIDTH) ** 2) / (2 * 300.0**2))
    near = (abs(y - 4) <= 2) & (abs(x - 5) <= 2)
    assert spread[near] == pytest.approx((weights / weights[near].sum())[near], rel=1e-3)
    assert spread.sum() == pytest.approx(1)


def test_an_even_density_stays_even_up_to_the_edge():
    inside = make_grid().inside
    density = 3.0 * inside
    junk = np.where(inside > 0, density, 77.0)
    found = smoothed(junk[None], inside, gaussian(make_grid(), 700.0))[0]
    assert found == pytest.approx(density)


def test_the_total_stays_and_nothing_leaves_the_study_area():
    grid = make_grid()
    rates = np.random.default_rng(1).gamma(1, 1, (3, *grid.shape)) * grid.valid
    rates[1] = 0
    found = smoothed(rates, grid.inside, gaussian(grid, 600.0))
    assert found.sum(axis=(1, 2)) == pytest.approx(rates.sum(axis=(1, 2)))
    assert (found[:, ~grid.valid] == 0).all()
    assert (found[[0, 2]][:, grid.valid] > 0).all()


def test_cells_get_events_in_proportion_to_their_share_inside():
    grid = make_grid()
    share = np.ones(grid.shape)
    share[2, 3] = 0.25
    rates = np.zeros((1, *grid.shape))
    rates[0, 2, 2] = rates[0, 2, 4] = 1
    found = smoothed(rates, share, gaussian(Grid(grid.crs, grid.transform, share), 400.0))[0]
    whole = smoothed(rates, np.ones(grid.shape), gaussian(grid, 400.0))[0]
    # The kernel loses little in the sliver, which is made up for.
    assert found[2, 3] / whole[2, 3] == pytest.approx(0.25, abs=0.08)


# Kernel density ----------------------------------------------------------------------------------------


def test_a_kernel_density_of_one_event_by_hand():
    cube = single(10, 2, 4, 5)
    forecast = KDE(bandwidth=CELL, **PLAIN).predict_next(cube, 10, 11)[0]
    assert forecast.sum() == pytest.approx(1 / 10)
    assert forecast[4, 6] / forecast[4, 5] == pytest.approx(np.exp(-0.5 * (WIDTH / CELL) ** 2), rel=1e-3)
    assert forecast[5, 6] / forecast[4, 5] == pytest.approx(
        np.exp(-0.5 * (WIDTH**2 + HEIGHT**2) / CELL**2), rel=1e-3
    )
    # All of the past counts the same.
    other = KDE(bandwidth=CELL, **PLAIN).predict_next(single(10, 9, 4, 5), 10, 11)[0]
    assert other == pytest.approx(forecast)


def test_the_default_bandwidth_is_half_a_cell():
    cube = single(10, 2, 4, 5)
    half = float(np.sqrt(np.prod(cube.grid.cell_dimensions))) / 2
    default = KDE(**PLAIN).predict_next(cube, 10, 11)
    assert default == pytest.approx(KDE(bandwidth=half, **PLAIN).predict_next(cube, 10, 11))


def test_a_decayed_density_is_a_decayed_mean_spread_over_space():
    cube = make_cube(50)
    mean = EWMA(half_life_days=9.0, **PLAIN).predict_next(cube, 30, 51)
    expected = smoothed(np.nan_to_num(mean), cube.grid.inside, gaussian(cube.grid, 400.0))
    found = KDE(half_life_days=9.0, bandwidth=400.0, **PLAIN).predict_next(cube, 30, 51)
    valid = cube.grid.valid
    assert found[:, valid] == pytest.approx(expected[:, valid], rel=1e-5)
    newer = KDE(bandwidth=400.0, **PLAIN).predict_next(cube, 30, 51)
    assert not np.allclose(newer, found, equal_nan=True)


@pytest.mark.parametrize("kind", [KDE, ProMap])
def test_maps_are_scaled_to_the_events_of_the_last_28_days(kind):
    cube = make_cube(300)
    valid = cube.grid.valid
    events = 20 * cube.events
    events[-28:] *= 3
    cube = changed(cube, events)
    recent = cube.total[-28:, valid].sum() / 28
    forecast = kind(weekday=False).predict_next(cube, 300, 301)
    assert np.nansum(forecast) == pytest.approx(recent, rel=0.01)
    # Weekdays average out.
    week = kind().forecast(cube, 300, 7)
    assert np.nansum(week) / 7 == pytest.approx(recent, rel=0.02)


# Prospective hotspotting -------------------------------------------------------------------------------


def test_prospective_weights_of_distance_by_hand():
    cube = single(20, 19, 4, 5)
    forecast = ProMap(bandwidth=CELL * 1.1, **PLAIN).predict_next(cube, 20, 21)[0]
    side = np.sqrt(WIDTH * HEIGHT)
    along, down = 1 / (1 + 2 * WIDTH / side), 1 / (1 + 2 * HEIGHT / side)
    assert forecast[4, 6] / forecast[4, 5] == pytest.approx(along)
    assert forecast[3, 5] / forecast[4, 5] == pytest.approx(down)
    # Neighbours over the corner lie beyond the bandwidth.
    assert (forecast > 0).sum() == 5


def test_prospective_weights_of_weeks_by_hand():
    for age, weight in ((1, 1), (7, 1), (8, 1 / 2), (14, 1 / 2), (15, 1 / 3), (61, 1 / 9), (62, 0)):
        cube = single(70, 70 - age, 4, 5)
        forecast = ProMap(**PLAIN).predict_next(cube, 70, 71)[0]
        # 61 days: eight weeks of seven and five days of the ninth.
        norm = sum(7 / week for week in range(1, 9)) + 5 / 9
        assert forecast[4, 5] == pytest.approx(weight / norm, abs=1e-9)


def test_a_window_of_two_months_is_two_steps_of_a_month():
    cube = make_cube(12, step="month")
    valid = cube.grid.valid
    forecast = ProMap(bandwidth=100.0, **PLAIN).predict_next(cube, 12, 13)[0]
    # A month ago is four full weeks ago.
    expected = (cube.total[-1] + cube.total[-2] / 5) / (1 + 1 / 5)
    assert forecast[valid] == pytest.approx(expected[valid], rel=1e-5)


def test_too_small_a_bandwidth_is_told():
    cube = make_cube(20)
    split = chronological_split(20, 2, 15)
    reporter = Recorder()
    ProMap().fit(cube, split, reporter)
    assert reporter.texts() == [
        "Within the bandwidth of 400 m of a cell of 500 x 500 m there is no other: each cell is forecast "
        "from its own events alone."
    ]
    ProMap(bandwidth=600.0).fit(cube, split, reporter)
    assert len(reporter.texts()) == 1
