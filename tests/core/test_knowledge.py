# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known on the eve of a step: the same however it is read, and nothing of the step or later."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic import changed, make_axis, make_cube

from gridcast_qgis.core import knowledge
from gridcast_qgis.core.features import CityPace, city_totals
from gridcast_qgis.core.knowledge import Knowledge, city_features
from gridcast_qgis.core.mixture import RADII, Past, spans_of

STEPS = 900


def weights_for(days: float) -> np.ndarray:
    """Return weights of a mixture in which every kernel counts, all of them differently."""
    kernels = len(RADII) * len(spans_of(days)) + 1
    return np.arange(1, kernels + 1) / (kernels * (kernels + 1) / 2)


@pytest.fixture(scope="module")
def cube():
    """Two and a half years of days."""
    return make_cube(STEPS, 4, 5, mean=1.0)


def look_from(cube, start, counts=None, axis=None):
    days = cube.axis.hours / 24
    counts = cube.total if counts is None else counts
    return Knowledge(counts, axis or cube.axis.extended(1), cube.grid, start, weights_for(days))


def read(cube, start, stop, *, known=None):
    counts = cube.total[: len(cube) if known is None else known]
    axis = cube.axis.extended(stop - len(cube.axis))
    return look_from(cube, start, counts, axis).read(stop)


def assert_same(one, two):
    for name in ("base", "cells", "city"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-5, atol=1e-6)


def test_the_base_is_the_mixture_in_the_pace_of_the_city(cube):
    """What the mixture says of places, times the events that the last 28 days and the weekday promise."""
    valid = cube.grid.valid
    pace = CityPace(city_totals(cube.total, valid), cube.axis)
    weekday = pace.weekday_factor(700, 710)
    found = read(cube, 700, 710).base
    for step in (700, 709):
        decay = 0.5 ** (np.arange(step - 1, -1, -1) / 90)
        total = (decay @ city_totals(cube.total[:step], valid)) / decay.sum()
        where = Past.of(cube.total[:step], cube.grid, 1.0).mixed(weights_for(1.0))[valid]
        level = pace.level(np.array([total]), step, step + 1)
        np.testing.assert_allclose(found[step - 700], total * where * level * weekday[step - 700], rtol=1e-5)


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
    look = look_from(cube, 20)
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
    look = look_from(cube, 890, cube.total[:890], cube.axis)
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
