# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known on the eve of a step: the same however it is read, and nothing of the step or later."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from synthetic import changed, make_axis, make_cube, make_grid

from gridcast_qgis.core import knowledge
from gridcast_qgis.core.features import CityPace, city_totals
from gridcast_qgis.core.knowledge import BASE_DAYS, BASE_PRIORS, Base, Knowledge, best_base, city_features

STEPS = 900
BASE = Base()


@pytest.fixture(scope="module")
def cube():
    """Two and a half years of days."""
    return make_cube(STEPS, 4, 5, mean=1.0)


def read(cube, start, stop, *, known=None, base=BASE):
    counts = cube.total[: len(cube) if known is None else known]
    axis = cube.axis.extended(stop - len(cube.axis))
    return Knowledge(counts, axis, cube.grid, start, base).read(stop)


def assert_same(one, two):
    for name in ("base", "cells", "city"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-5, atol=1e-6)


def test_the_base_is_a_weighted_mean_in_the_pace_of_the_city(cube):
    """Drawn towards the cells around by so many events, these by one step towards the mean of the city."""
    valid, inside = cube.grid.valid, cube.grid.inside
    pace = CityPace(city_totals(cube.total, valid), cube.axis)
    weekday = pace.weekday_factor(700, 710)
    weights = 0.5 ** (np.arange(709, -1, -1) / 60)
    for prior in (0.1, 3.0):
        found = read(cube, 700, 710, base=Base(60.0, prior)).base
        for step in (700, 709):
            weight = weights[-step:]
            sums = np.tensordot(weight, cube.total[:step], axes=1) * valid
            density = sums.sum() / weight.sum() / inside.sum()
            spread = {"sigma": 2.0, "mode": "constant", "truncate": 3.0}
            near = ndimage.gaussian_filter(sums, **spread) / ndimage.gaussian_filter(inside, **spread)
            local = (near + density) / (weight.sum() + 1) * inside
            usual = (sums + prior / density * local) / (weight.sum() + prior / density)
            level = pace.level(usual[valid].sum()[None], step, step + 1)
            wanted = usual[valid] * level * weekday[step - 700]
            np.testing.assert_allclose(found[step - 700], wanted, rtol=1e-5)


@pytest.mark.parametrize("step", ["15min", "1h", "day", "week", "month"])
def test_every_kind_of_step_can_be_read(step):
    cube = make_cube(150, step=step)
    found = read(cube, 3, 151)
    cells = int(cube.grid.valid.sum())
    assert found.base.shape == (148, cells) == found.cells.shape[:2]
    assert all(np.isfinite(values).all() for values in (found.base, found.cells, found.city))
    assert (found.base > 0).all()


@pytest.mark.parametrize("step", ["1h", "day", "week"])
def test_it_does_not_matter_where_reading_begins(step):
    cube = make_cube(STEPS, 4, 5, step=step)
    whole = read(cube, 20, 901)
    look = Knowledge(cube.total, cube.axis.extended(1), cube.grid, 20, Base())
    in_parts = [look.read(stop) for stop in (500, 501, 901)]
    for name in ("base", "cells", "city"):
        joined = np.concatenate([getattr(part, name) for part in in_parts])
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=1e-5, atol=1e-5)
    later = read(cube, 800, 901)
    for name in ("base", "cells", "city"):
        np.testing.assert_allclose(getattr(later, name), getattr(whole, name)[780:], rtol=1e-4, atol=1e-5)


def test_the_step_and_what_comes_after_it_are_not_seen(cube):
    events = cube.events.copy()
    events[800:] = 50 * np.random.default_rng(1).random(events[800:].shape)
    other = changed(cube, events)
    assert_same(read(cube, 790, 801), read(other, 790, 801))
    assert_same(read(cube, 790, 801), read(cube, 790, 801, known=800))
    assert not np.allclose(read(cube, 801, 802).cells, read(other, 801, 802).cells)


def test_cells_outside_may_hold_anything(cube):
    events = cube.events.copy()
    events[:, :, ~cube.grid.valid] = 7.0
    assert_same(read(cube, 500, 700), read(changed(cube, events), 500, 700))


def test_expected_counts_stand_in_for_known_ones(cube):
    """Reading on after what is expected equals reading a past in which it happened."""
    expected = np.random.default_rng(2).random((5, *cube.grid.shape)).astype(np.float32) * cube.grid.valid
    events = cube.events.copy()
    events[890:895] = 0
    events[890:895, 0] = expected
    look = Knowledge(cube.total[:890], cube.axis, cube.grid, 890, Base())
    for ahead in range(5):
        found = look.read(891 + ahead)
        wanted = read(changed(cube, events), 890 + ahead, 891 + ahead)
        assert_same(found, wanted)
        look.learn(expected[ahead])


def test_what_came_a_year_ago_is_known(cube):
    """A crowd on a day 52 weeks back, and on the same date, moves features of its cell only."""
    quiet, crowd = (np.ones_like(cube.events) for _ in range(2))
    row, column = 2, 1
    crowd[850 - 364, 0, row, column] = 60
    crowd[850 - 366, 0, row, column] = 60  # 2024 is a leap year: the same date
    place = int(np.flatnonzero(np.flatnonzero(cube.grid.valid) == row * 5 + column)[0])
    before, after = (read(changed(cube, events), 850, 851).cells[0] for events in (quiet, crowd))
    moved = after[place] - before[place]
    far = np.abs(after - before)[[0, 1, -1]].max()
    exact, date = np.argsort(moved)[-2:]
    assert moved[[exact, date]].min() > 1.5 and far < 1.0


def test_dates_of_earlier_years_and_months():
    axis = make_axis(1200)
    local = axis.local_starts
    dates = knowledge._same_dates(axis, years=3)
    months = knowledge._same_dates(axis, months=2)
    at = {str(day.date()): number for number, day in enumerate(local)}
    assert list(dates[at["2026-07-04"]]) == [at["2025-07-04"], at["2024-07-04"], -1]
    assert list(months[at["2025-03-31"]]) == [-1, at["2025-01-31"]]
    assert list(months[at["2025-03-01"]]) == [at["2025-02-01"], at["2025-01-01"]]
    assert dates.shape == (1200, 3)


@pytest.mark.parametrize("year", [52, 100])
def test_seasons_are_sums_over_the_same_time_of_earlier_years(year):
    counts = np.random.default_rng(3).random((400, 2, 3))
    seasons = knowledge._Seasons(counts, 60, year, [2])
    for step in range(60, 400):
        for (sums, length), (before, after) in zip(seasons.sums, ((year // 2, year // 2), (2, 3))):
            spans = [
                slice(max(0, step - year * n - before), max(0, step - year * n + after))
                for n in range(1, knowledge._YEARS + 1)
            ]
            wanted = sum(counts[span].sum(axis=0) for span in spans)
            np.testing.assert_allclose(sums, wanted, atol=1e-9)
            assert length == sum(len(counts[span]) for span in spans)
        seasons.advance(lambda place: counts[place])


def test_the_city_remembers_dates():
    """A city that is busy on every first of a month is expected to be so."""
    axis = make_axis(700)
    first = axis.local_starts.day.to_numpy() == 1
    totals = np.where(first, 60.0, 20.0)
    found = city_features(totals, axis, 600, 700)
    said = found[first[600:]].mean(axis=0) - found[~first[600:]].mean(axis=0)
    assert np.isfinite(found).all()
    # The day of the month, among others: about log 3, less what is added to both sides.
    assert any(0.5 < value < 1.2 for value in said)
    flat = city_features(np.full(700, 20.0), axis, 600, 700)
    assert np.abs(flat[:, :8]).max() < 1e-6


def test_the_base_that_fits_is_found():
    grid = make_grid(5, 5, holes=False)
    axis = make_axis(800)
    random = np.random.default_rng(4)
    still = random.gamma(1.0, 2.0, (1, 5, 5)) * np.ones((800, 1, 1))
    # Every cell goes up and down on its own within months.
    phase = random.random((1, 5, 5)) * 2 * np.pi
    waves = still * np.exp(1.5 * np.sin(np.arange(800)[:, None, None] * 2 * np.pi / 150 + phase))
    alike = np.full((800, 5, 5), 0.02)
    contrasts = still * np.where(np.indices((5, 5)).sum(axis=0) % 2, 4.0, 0.05)
    found = [
        best_base(random.poisson(rate).astype(np.float32), axis, grid, 200, 800)
        for rate in (still, waves, alike, contrasts)
    ]
    assert [base.half_life for base in found[:2]] == [BASE_DAYS[-1], BASE_DAYS[0]]
    assert found[2].prior == BASE_PRIORS[-1] > found[3].prior


def test_dates_need_no_common_calendar_with_the_machine():
    """By the local clock of the cube, also where the clocks change."""
    axis = make_axis(24 * 500, "1h")
    dates = knowledge._same_dates(axis, months=1)
    local = axis.local_starts
    some = np.arange(24 * 200, 24 * 500, 997)
    for step in some:
        earlier = dates[step, 0]
        if earlier >= 0:
            assert local[earlier].hour == local[step].hour and local[earlier].day == local[step].day
    assert (dates[some] >= 0).mean() > 0.9
    assert isinstance(local, pd.DatetimeIndex)
