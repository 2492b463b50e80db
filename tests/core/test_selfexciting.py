# SPDX-License-Identifier: GPL-2.0-or-later
"""The self-exciting process: it finds the parameters of a simulated one, and its sums are those of loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic import Recorder, changed, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import JobCancelled
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.selfexciting import (
    Declustering,
    SelfExciting,
    Space,
    Triggering,
)
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import Split

PLAIN = {"level": False, "weekday": False}
TRUE = Triggering(branching=0.4, delay=6.0, sigma=400.0)
REACH = 1500.0


def simulate(
    steps: int, grid: Grid, kernel: Triggering, seed: int = 0, mean: float = 0.08
) -> tuple[Cube, np.ndarray]:
    """Return a cube of the process, step by step from its definition, and its background."""
    random = np.random.default_rng(seed)
    background = random.gamma(2.0, mean / 2, grid.shape) * grid.valid
    y, x = (index.ravel() for index in np.indices(grid.shape))
    width, height = grid.cell_dimensions
    square = ((x[:, None] - x) * width) ** 2 + ((y[:, None] - y) * height) ** 2
    spread = np.exp(-square / (2 * kernel.sigma**2))
    # Of a cell in the middle, as a kernel loses what falls outside.
    spread /= spread[np.ravel_multi_index((grid.shape[0] // 2, grid.shape[1] // 2), grid.shape)].sum()
    events = np.zeros((steps, 1, *grid.shape), np.float32)
    excitement = np.zeros(len(x))
    for step in range(steps):
        triggered = kernel.branching * (spread @ excitement).reshape(grid.shape)
        events[step, 0] = random.poisson(background + triggered * grid.valid)
        excitement *= 1 - 1 / kernel.delay
        excitement += events[step, 0].ravel() / kernel.delay
    return Cube(grid, make_axis(steps), ("events",), events), background


@pytest.fixture(scope="module")
def simulated():
    cube, background = simulate(500, make_grid(14, 14, holes=False), TRUE)
    reporter = Recorder()
    model = SelfExciting(reach=REACH, **PLAIN)
    model.fit(cube, Split(1, 500, 500, 500), reporter)
    return model, cube, background, reporter


def test_the_parameters_of_a_simulated_process_are_found(simulated):
    model, cube, background, _ = simulated
    found = model.triggering_
    assert found.branching == pytest.approx(TRUE.branching, abs=0.08)
    assert found.delay == pytest.approx(TRUE.delay, rel=0.25)
    assert found.sigma == pytest.approx(TRUE.sigma, rel=0.2)
    assert model.background_.sum() == pytest.approx(background.sum(), rel=0.12)
    assert np.corrcoef(model.background_.ravel(), background.ravel())[0, 1] > 0.9
    # All of the events are either.
    triggered = found.branching * cube.total.sum()
    assert model.background_.sum() * len(cube) + triggered == pytest.approx(cube.total.sum(), rel=0.05)


def test_what_was_found_is_told(simulated):
    model, _, _, reporter = simulated
    kernel = model.triggering_
    assert reporter.texts("info") == [
        f"Of 100 events {100 * kernel.branching:.0f} are triggered by earlier ones, {kernel.delay:.3g} days "
        f"later on average and about {kernel.sigma:.0f} m away along either axis."
    ]
    likelihood = reporter.values("log_likelihood")
    assert likelihood[-1] > likelihood[0] + 30
    assert len(likelihood) <= model.settings.passes


def test_without_triggering_little_is_found():
    cube, _ = simulate(500, make_grid(8, 8, holes=False), dataclasses.replace(TRUE, branching=0.0))
    model = SelfExciting(reach=REACH, **PLAIN).fit(cube, Split(1, 500, 500, 500), Reporter())
    assert model.triggering_.branching < 0.15


def test_a_pass_by_plain_loops():
    grid = make_grid(5, 6)
    cube, _ = simulate(30, grid, TRUE, mean=0.3)
    space, first, pace = Space(grid, REACH), 4, np.linspace(0.5, 2, 30)
    fitting = Declustering(cube.total, first, pace, grid, space)
    shares = np.random.default_rng(1).random(fitting.events)
    found, better, kernel = fitting.improve(shares, TRUE)
    background = fitting.background(shares)
    exposure, total = pace[first:].sum(), 0.0
    share = iter(shares)
    share_of = {
        (step, row, column): next(share)
        for step in range(first, 30)
        for row, column in np.argwhere(cube.total[step] * grid.valid)
    }
    by_cell = np.zeros(grid.shape)
    for (step, row, column), each in share_of.items():
        by_cell[row, column] += each * cube.total[step, row, column]
    # What is usual there, from the background itself: (events + 1) / (exposure + 1 / usual).
    usual = 1 / ((by_cell + 1) / np.where(grid.valid, background, 1) - exposure)
    expected, triggered, number = 0.0, 0.0, 0
    for step in range(first, 30):
        excitement = sum(
            cube.total[earlier].astype(float) * TRUE.keep ** (step - 1 - earlier) / TRUE.delay
            for earlier in range(step)
        )
        near = TRUE.branching * space.spread(excitement[None], TRUE.sigma)[0]
        expected -= (pace[step] * background + near)[grid.valid].sum()
        for row, column in np.argwhere(cube.total[step] * grid.valid):
            own = share_of[step, row, column]
            base = (by_cell[row, column] - own + 1) / (exposure + 1 / usual[row, column]) * pace[step]
            events, rate = float(cube.total[step, row, column]), base + near[row, column]
            expected += events * np.log(rate)
            triggered += events * near[row, column] / rate
            assert better[number] == pytest.approx(base / rate, rel=1e-5)
            number += 1
            total += events
    assert number == fitting.events
    assert found == pytest.approx(expected, rel=1e-5)
    # Those that are triggered, over those that can trigger: a little less than all events.
    assert triggered / total < kernel.branching < 1.5 * triggered / total


def test_a_background_is_drawn_towards_what_lies_around():
    grid = make_grid(12, 12, holes=False)
    counts = np.zeros((10, 12, 12), np.float32)
    counts[3, 2, 2] = 40
    counts[4, 2, 4] = 1
    counts[4, 9, 9] = 1
    fitting = Declustering(counts, 0, np.ones(10), grid, Space(grid, REACH))
    rate = 10 * fitting.background(np.ones(fitting.events))
    # The busy cell keeps its own; where little happens, more is expected near it than far away.
    assert rate[2, 2] == pytest.approx(40, rel=0.35)
    assert rate[2, 3] > 2 * rate[9, 8] > 0
    assert rate[2, 4] > rate[9, 9] > rate[9, 8]
    # One event far from all others is hardly a reason to expect as many again.
    assert rate[9, 9] < 0.5
    # Where nothing has happened at all, half an event stands for it.
    nothing = Declustering(0 * counts, 0, np.ones(10), grid, Space(grid, REACH)).background(np.zeros(0))
    assert 10 * nothing.sum() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(("delay", "sigma"), [(1.5, 150.0), (6.0, 400.0), (40.0, 700.0)])
def test_the_kernel_is_found_from_what_can_be_seen(delay, sigma):
    grid, steps, first = make_grid(5, 6), 50, 7
    cube, _ = simulate(steps, grid, TRUE, mean=0.5)
    space = Space(grid, REACH)
    fitting = Declustering(cube.total, first, np.ones(steps), grid, space)
    # Mean delay and square of the distance of what each event triggers in the study area and in time.
    keep, totals = 1 - 1 / delay, cube.total.sum(axis=(1, 2))
    lags = [
        (events * keep ** (lag - 1), lag)
        for step, events in enumerate(totals)
        for lag in range(max(1, first - step), steps - step)
    ]
    mean = sum(weight * lag for weight, lag in lags) / sum(weight for weight, _ in lags)
    assert fitting._delay_of(mean) == pytest.approx(delay, rel=1e-3)
    by_cell, valid = cube.total.sum(axis=0).astype(float), grid.valid
    seen = (space.spread(by_cell, sigma) * valid).sum()
    square = (space.spread_squares(by_cell, sigma) * valid).sum() / seen
    assert fitting._sigma_of(square) == pytest.approx(sigma, rel=1e-3)


def test_a_forecast_of_several_steps_by_plain_loops(simulated):
    model, cube, _, _ = simulated
    kernel, space, origin = model.triggering_, Space(cube.grid, REACH), 400
    known = list(cube.total[:origin].astype(float))
    found = model.forecast(cube, origin, 5)
    for ahead in range(5):
        excitement = sum(
            counts * kernel.keep ** (len(known) - 1 - step) / kernel.delay
            for step, counts in enumerate(known)
        )
        rate = model.background_ + kernel.branching * space.spread(excitement[None], kernel.sigma)[0]
        assert found[ahead] == pytest.approx(rate, rel=1e-5)
        known.append(rate)
    assert found == pytest.approx(Forecaster.forecast(model, cube, origin, 5), rel=1e-4)


def test_forecasts_are_the_mean_of_what_can_happen(simulated):
    model, cube, _, _ = simulated
    quiet = changed(cube, np.zeros_like(cube.events))
    # After a long calm the process comes back to its mean, background / (1 - branching) in the middle.
    ahead = model.forecast(quiet, 100, 60)[:, 4:10, 4:10].sum(axis=(1, 2))
    assert (np.diff(ahead) > 0).all()
    usual = cube.total[100:, 4:10, 4:10].sum(axis=(1, 2)).mean()
    assert ahead[-1] == pytest.approx(usual, rel=0.06)


def test_the_background_follows_the_city():
    cube = make_cube(200, mean=2)
    events = cube.events.copy()
    events[100:] *= 4
    busier = changed(cube, events)
    split = Split(1, 90, 90, 100)
    follows = SelfExciting(passes=4).fit(busier, split, Reporter()).predict_next(busier, 199, 200)
    stays = SelfExciting(passes=4, **PLAIN).fit(busier, split, Reporter()).predict_next(busier, 199, 200)
    mean = busier.total[100:].sum() / 100
    assert np.nansum(follows) == pytest.approx(mean, rel=0.15)
    assert np.nansum(stays) < 0.75 * mean


def test_a_fit_goes_on_from_another_model(simulated):
    model, cube, _, _ = simulated
    reporter = Recorder()
    again = SelfExciting(reach=REACH, **PLAIN).fit(cube, Split(1, 500, 500, 500), reporter, start=model)
    assert len(reporter.values("log_likelihood")) < len(simulated[3].values("log_likelihood")) / 2
    assert again.triggering_.branching == pytest.approx(model.triggering_.branching, abs=0.01)


def test_a_fit_can_be_cancelled():
    reporter = Recorder(cancel_when=lambda event: event.get("name") == "log_likelihood")
    with pytest.raises(JobCancelled):
        SelfExciting().fit(make_cube(30), Split(1, 25, 25, 30), reporter)
    assert len(reporter.values("log_likelihood")) == 1


def test_scales_of_the_kernel():
    kernel = Triggering(0.25, 3.0, 120.0)
    back = Triggering.from_logs(kernel.logs())
    assert dataclasses.astuple(back) == pytest.approx(dataclasses.astuple(kernel))
    assert kernel.keep == pytest.approx(2 / 3)
    assert kernel.keep**kernel.half_life == pytest.approx(0.5)
    # Never an explosion, never within the step itself.
    far = Triggering.from_logs(np.array([50.0, -80.0, 3.0]))
    assert far.branching < 1
    assert far.delay > 1
