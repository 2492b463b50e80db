# SPDX-License-Identifier: GPL-2.0-or-later
"""Study areas from events: hulls, cells near them, and places that are far off."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.places import (
    HULL_PLACES,
    bounds_of,
    cells_near,
    distance_off,
    hull_of,
    unique_places,
)

MILLION = 1_000_000


def town(count: int = 400, seed: int = 0) -> np.ndarray:
    """Return places spread over 20 km x 20 km."""
    return np.random.default_rng(seed).uniform(0, 20_000, (count, 2)) + [630_000, 4_833_000]


def test_each_place_once():
    places = town(50)
    assert len(unique_places(np.repeat(places, 3, axis=0))) == 50
    assert set(map(tuple, unique_places(places))) == set(map(tuple, places))


# -- far off -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 20, 1000])
@pytest.mark.parametrize("copies", [1, 100])
def test_a_far_off_place_is_found_however_often_it_occurs(count, copies):
    places = np.concatenate([town(count), np.zeros((copies, 2))])
    off = distance_off(places)
    assert (off[:count] == 0).all()
    assert off[count:] == pytest.approx(np.hypot(630_000, 4_833_000), rel=0.01)


def test_a_busy_corner_makes_the_rest_of_the_city_not_far_off():
    busy = town(100) / 1000 + [640_000, 4_840_000]
    places = np.concatenate([np.repeat(busy, 100, axis=0), town(200)])
    assert (distance_off(places) == 0).all()


def test_a_town_beside_the_city_is_not_far_off():
    assert (distance_off(np.concatenate([town(), town(50) + [60_000, 0]])) == 0).all()


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_handful_of_places_says_nothing(count):
    assert (distance_off(np.array([[0.0, 0.0], *town(count - 1)])) == 0).all()


def test_places_on_a_line():
    line = np.column_stack([np.full(50, 5.0), np.arange(50.0)])
    off = distance_off(np.concatenate([line, [[5.0, 5000.0], [900.0, 20.0]]]))
    assert np.flatnonzero(off).tolist() == [50, 51]


@given(st.lists(st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7)), min_size=1, max_size=40))
def test_most_places_stay(places):
    places = np.array(places)
    off = distance_off(places)
    assert (off >= 0).all()
    different = unique_places(places)
    assert (distance_off(different) > 0).sum() <= 0.2 * len(different) + 4


# -- hull ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_hull_holds_all_places(ratio):
    places = town()
    hull = hull_of(places, ratio)
    assert shapely.covers(hull, shapely.points(places)).all()
    assert hull.area <= shapely.convex_hull(shapely.multipoints(places)).area * (1 + 1e-12)
    assert len(shapely.get_parts(hull)) == 1 and not hull.interiors


def test_a_smaller_ratio_gives_a_tighter_hull():
    horseshoe = town()
    horseshoe = horseshoe[np.hypot(*(horseshoe - [640_000, 4_833_000]).T) > 8000]
    area = [hull_of(horseshoe, ratio).area for ratio in (0.1, 0.5, 1.0)]
    assert area[0] < area[1] < area[2]
    assert area[2] == pytest.approx(shapely.convex_hull(shapely.multipoints(horseshoe)).area)


def test_a_hull_of_a_million_places():
    places = town(MILLION)
    hull = hull_of(places, 0.2)
    assert hull.bounds == bounds_of(places)
    outside = ~shapely.contains_xy(hull, places[:, 0], places[:, 1])
    gap = shapely.distance(hull, shapely.points(places[outside]))
    assert gap.max() < 20_000 / HULL_PLACES**0.5


@pytest.mark.parametrize("places", [[[5, 5]], [[5, 5], [6, 7]], [[0, 0], [1, 1], [2, 2], [9, 9]]])
def test_places_without_an_area_are_refused(places):
    with pytest.raises(InputError) as caught:
        hull_of(np.array(places, float), 0.3)
    assert caught.value.text() == (
        "INPUT: The events span no area: they lie in one place or on one line. Choose a layer with more "
        "events, or another AREA_FROM."
    )


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_beyond_its_range_is_refused(ratio):
    with pytest.raises(InputError) as caught:
        hull_of(town(), ratio)
    assert caught.value.text() == (
        f"HULL_RATIO = {ratio}: The ratio of the hull must lie between 0 and 1. 0.3 is usual; 1 gives the "
        "convex hull."
    )


# -- near events ---------------------------------------------------------------------------------


@given(
    places=st.lists(st.tuples(st.floats(-8, 20), st.floats(-8, 20)), min_size=1, max_size=6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    cell=st.tuples(st.floats(10, 900), st.floats(10, 900)),
    distance=st.floats(0, 5000),
)
def test_near_cells_are_those_of_a_plain_loop(places, shape, cell, distance):
    near = cells_near(np.array(places), shape, cell, distance)
    width, height = cell
    events = shapely.multipoints([(x * width, y * height) for x, y in places])
    for row in range(shape[0]):
        for column in range(shape[1]):
            square = shapely.box(column * width, row * height, (column + 1) * width, (row + 1) * height)
            apart = square.distance(events)
            if abs(apart - distance) > 1e-6:  # exactly at the distance, rounding decides
                assert near[row, column] == (apart < distance)


def test_cells_near_a_million_events():
    places = np.random.default_rng(0).uniform(0, 200, (MILLION, 2))
    assert cells_near(places, (200, 200), (500.0, 500.0), 2000.0).all()


@pytest.mark.parametrize("distance", [-1.0, float("nan"), float("inf")])
def test_a_distance_that_is_none_is_refused(distance):
    with pytest.raises(InputError) as caught:
        cells_near(np.zeros((1, 2)), (2, 2), (1.0, 1.0), distance)
    assert caught.value.text() == (
        f"DISTANCE = {distance}: The distance must be a number of at least 0. Give metres, such as 500."
    )
