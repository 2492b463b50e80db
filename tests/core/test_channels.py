# SPDX-License-Identifier: GPL-2.0-or-later
"""What a network sees of each step: each channel by hand, nothing of the future, nothing kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import changed, make_cube

from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.features import BaseRates
from gridcast_qgis.core.severity import Severity
from gridcast_qgis.core.training import channels as module
from gridcast_qgis.core.training.channels import Channels, Scaling
from gridcast_qgis.core.training.windows import Windows

STEPS, STOP = 150, 100


def rich_cube(step: str = "day", steps: int = STEPS, seed: int = 0) -> Cube:
    """Return a cube with severity and a covariate of each shape, with gaps."""
    random = np.random.default_rng(seed)
    cube = make_cube(steps, step=step, types=("assault",))
    weather = random.normal(12, 7, steps).astype(np.float32)
    weather[[3, 120]] = np.nan
    income = random.normal(5e4, 1e4, cube.grid.shape).astype(np.float32)
    income[3, 3] = np.nan
    crowd = random.gamma(2, 50, (steps, *cube.grid.shape)).astype(np.float32)
    crowd[5] = np.nan
    severity = random.integers(0, 3, cube.total.shape) / 2 * cube.total
    return dataclasses.replace(
        cube,
        covariates={
            "weather": Covariate("weather", weather, ("time",)),
            "income": Covariate("income", income, ("y", "x")),
            "crowd": Covariate("crowd", crowd, ("time", "y", "x")),
        },
        severity=Severity(severity, cube.total.copy()),
    )


CUBE = rich_cube()
VALID = CUBE.grid.valid


def standardised(values: np.ndarray, stop: int = STOP) -> np.ndarray:
    """Return values by mean and deviation of the steps before `stop`, inside the study area."""
    sample = values[:stop].astype(float)
    sample = sample[:, VALID] if sample.ndim == 3 else sample
    return np.nan_to_num((values - np.nanmean(sample)) / np.nanstd(sample))


def everywhere(series: np.ndarray) -> np.ndarray:
    return np.broadcast_to(series[:, None, None], (len(series), *CUBE.grid.shape))


def expected_of(name: str, form: str, cube: Cube = CUBE) -> list[np.ndarray]:
    """Return what a channel holds in all steps, straight from its definition."""
    local = cube.axis.local_starts
    phase = {
        "season": (local.day_of_year.to_numpy() - 1) / 365.25,
        "weekday": local.day_of_week.to_numpy() / 7,
    }
    if name == "severity":
        mean = np.where(cube.total > 0, cube.severity.sum / np.maximum(cube.total, 1), 0)
        return [mean] if form == "published" else [mean, (cube.total > 0).astype(float)]
    if name == "season" and form == "published":
        return [everywhere(local.day_of_year.to_numpy())]
    if name in phase:
        return [everywhere(f(2 * np.pi * phase[name])) for f in (np.sin, np.cos)]
    values = cube.covariates[name].values
    if name == "income":
        values = np.broadcast_to(values, cube.total.shape)
    values = np.nan_to_num(values) if form == "published" else standardised(values)
    return [everywhere(values) if values.ndim == 1 else values * VALID]


# Values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["standard", "published"])
@pytest.mark.parametrize("name", ["severity", "season", "weekday", "weather", "income", "crowd"])
def test_each_channel_by_its_definition(name, form):
    channels = Channels(CUBE, (name,), form=form, train_stop=STOP)
    expected = expected_of(name, form)
    assert channels.count == 1 + len(expected)
    for start, stop in ((0, STEPS), (60, 70), (STEPS - 1, STEPS)):
        maps = channels.maps(start, stop)
        assert maps.dtype == np.float32
        assert maps.shape == (stop - start, *CUBE.grid.shape, channels.count)
        assert (maps[..., 0] == CUBE.total[start:stop]).all()
        for number, values in enumerate(expected, start=1):
            assert maps[..., number] == pytest.approx(values[start:stop], rel=1e-4, abs=1e-5)


def test_published_seasons_are_days_from_1_to_366():
    cube = make_cube(24, step="month")
    days = Channels(cube, ("season",), form="published").maps(0, 24)[:, 0, 0, 1]
    # February 2024, a leap year, to January 2026.
    assert days[:3].tolist() == [32, 61, 92]
    assert days[10:13].tolist() == [336, 1, 32]


def test_soft_crime_is_not_the_same_as_none():
    cube = rich_cube()
    cube.severity.sum[:] = 0
    maps = Channels(cube, ("severity",)).maps(0, STEPS)
    assert not maps[..., 1].any()
    assert (maps[..., 2] == (cube.total > 0)).all()
    assert maps[..., 2].any()


def test_channels_come_in_the_order_of_their_names():
    names = ("crowd", "season", "severity", "weather")
    maps = Channels(CUBE, names, form="published").maps(0, 9)
    expected = [values for name in names for values in expected_of(name, "published")]
    assert maps.shape[-1] == 1 + 4
    for number, values in enumerate(expected, start=1):
        assert maps[..., number] == pytest.approx(values[:9], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("step", ["day", "week"])
def test_anchored_channels_equal_what_is_computed_directly(step):
    cube = rich_cube(step)
    channels = Channels(cube, ("income",), anchored=True, train_stop=STOP)
    base = BaseRates(cube.total, cube.grid.inside, cube.axis)
    # Of each step what is known at its end, when the next one is forecast.
    rate = base.rate(1, STEPS + 1)
    calendar = cube.axis.extended(1).calendar[1:]
    expected = [
        standardised(np.log1p(cube.total)) * VALID,
        standardised(np.log(rate)) * VALID,
        standardised(base.recent_ratio(1, STEPS + 1, rate)) * VALID,
        everywhere(standardised(base.city_level[1:])),
        np.broadcast_to(cube.grid.inside, cube.total.shape),
        *(everywhere(column) for column in calendar.T),
        standardised(np.broadcast_to(cube.covariates["income"].values, cube.total.shape)) * VALID,
    ]
    maps = channels.maps(0, STEPS)
    assert channels.count == maps.shape[-1] == len(expected)
    for number, values in enumerate(expected):
        assert maps[..., number] == pytest.approx(values, rel=1e-3, abs=1e-4), number
    targets = np.array([5, 77, STEPS])
    offsets = channels.offsets(targets)
    assert offsets.dtype == np.float32
    assert offsets == pytest.approx(np.log(base.rate(0, STEPS + 1)[targets]), rel=1e-5)


def test_without_anchor_the_offset_is_the_mean_count_of_the_training():
    channels = Channels(CUBE, train_stop=STOP)
    mean = CUBE.total[:STOP][:, VALID].mean()
    assert channels.offsets(np.array([7, STEPS])) == pytest.approx(np.full((2, 6, 7), np.log(mean)), rel=1e-5)
    nothing = Channels(changed(CUBE, np.zeros_like(CUBE.events)), train_stop=STOP)
    assert nothing.offsets(np.array([7])) == pytest.approx(np.full((1, 6, 7), np.log(1e-6)), rel=1e-5)


@pytest.mark.parametrize("anchored", [False, True])
def test_cells_outside_are_empty(anchored):
    cube = rich_cube()
    cube.events[:, :, ~VALID] = 9
    cube.severity.sum[:, ~VALID] = 9
    cube.severity.weight[:, ~VALID] = 9
    maps = Channels(cube, ("severity", "income", "crowd"), anchored=anchored).maps(0, STEPS)
    by_cell = [0, 1, 2, *range(maps.shape[-1] - 4, maps.shape[-1])] if anchored else range(5)
    assert not maps[:, ~VALID][..., list(by_cell)].any()


@settings(max_examples=25, deadline=None)
@given(anchored=st.booleans(), start=st.integers(0, STEPS), length=st.integers(1, STEPS))
def test_a_part_of_the_steps_is_a_part_of_the_whole(anchored, start, length):
    channels = Channels(CUBE, ("season", "crowd"), anchored=anchored, train_stop=STOP)
    stop = min(start + length, STEPS)
    whole = channels.maps(0, STEPS)
    assert channels.maps(start, stop) == pytest.approx(whole[start:stop], abs=1e-5)


# Scaling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("form", ["standard", "published"])
def test_nothing_after_the_training_changes_what_is_seen_in_it(anchored, form):
    cube = rich_cube()
    later = rich_cube()
    later.events[STOP:] = 50 * VALID
    later.severity.sum[STOP:] = 7
    for name in ("weather", "crowd"):
        later.covariates[name].values[STOP:] = -1e4
    names = ("severity", "season", "weather", "income", "crowd")
    one, two = (
        Channels(each, names, anchored=anchored, form=form, train_stop=STOP) for each in (cube, later)
    )
    assert one.scaling == two.scaling
    assert (one.maps(0, STOP) == two.maps(0, STOP)).all()
    targets = np.arange(STOP + 1)
    assert (one.offsets(targets) == two.offsets(targets)).all()
    assert not (one.maps(STOP, STEPS) == two.maps(STOP, STEPS)).all()


@pytest.mark.parametrize("stop", [1, 63, 64, 65, 128, STEPS])
def test_scaling_is_learned_block_by_block_from_valid_cells_and_known_values(stop):
    scaling = Channels(CUBE, ("weather", "income", "crowd"), anchored=True, train_stop=stop).scaling
    samples = {
        "counts": CUBE.total[:stop, VALID],
        "log_counts": np.log1p(CUBE.total[:stop, VALID]),
        "weather": CUBE.covariates["weather"].values[:stop],
        "income": CUBE.covariates["income"].values[VALID],
        "crowd": CUBE.covariates["crowd"].values[:stop, VALID],
    }
    for name in samples:
        if name == "counts":
            continue
        known = samples[name].astype(float)
        assert scaling.mean[name] == pytest.approx(np.nanmean(known), rel=1e-6)
        deviation = np.nanstd(known)
        assert scaling.deviation[name] == pytest.approx(deviation if deviation else 1, rel=1e-4)
    plain = Channels(CUBE, train_stop=stop).scaling
    assert plain.mean["counts"] == pytest.approx(samples["counts"].mean(), rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 3.0, 1e6])
def test_what_never_changed_in_training_is_not_blown_up_later(level):
    cube = rich_cube()
    weather = cube.covariates["weather"].values
    weather[:STOP] = level
    weather[STOP:] = level + 2
    maps = Channels(cube, ("weather",), train_stop=STOP).maps(0, STEPS)
    assert not maps[:STOP, ..., 1].any()
    assert maps[STOP:, ..., 1] == pytest.approx(2)


def test_small_values_are_standardised_as_well_as_large_ones():
    cube = rich_cube()
    values = cube.covariates["crowd"].values
    expected = Channels(cube, ("crowd",), train_stop=STOP).maps(0, STEPS)
    values *= 1e-6
    assert Channels(cube, ("crowd",), train_stop=STOP).maps(0, STEPS) == pytest.approx(expected, abs=1e-3)


def test_a_covariate_of_which_nothing_is_known_says_nothing():
    cube = rich_cube()
    cube.covariates["weather"].values[:] = np.nan
    for form in ("standard", "published"):
        maps = Channels(cube, ("weather",), form=form).maps(0, STEPS)
        assert not maps[..., 1].any()


def test_a_scaling_survives_as_plain_values():
    one = Channels(CUBE, ("weather", "crowd"), anchored=True, train_stop=STOP)
    again = Scaling(**one.scaling.as_values())
    two = Channels(CUBE, ("weather", "crowd"), anchored=True, scaling=again)
    assert again == one.scaling
    assert (two.maps(0, STEPS) == one.maps(0, STEPS)).all()


# Names -------------------------------------------------------------------------------------------------


def refusal(cube: Cube, names: tuple[str, ...]) -> str:
    with pytest.raises(InputError) as caught:
        Channels(cube, names)
    return caught.value.text()


def test_an_unknown_channel_is_refused_with_those_there_are():
    assert refusal(CUBE, ("season", "wether")) == (
        "CHANNELS = wether: The cube has no such channel. It has: severity, season, weekday, weather, "
        "income, crowd. Severity is counted by 'Rasterize Events to Cube', covariates come from 'Add "
        "Covariates to Cube'."
    )


def test_a_cube_without_severity_and_of_weeks_has_fewer_channels():
    text = refusal(make_cube(20, step="week"), ("severity",))
    assert text.startswith("CHANNELS = severity: The cube has no such channel. It has: season. Severity ")
    assert refusal(make_cube(20, step="week"), ("weekday",)).startswith("CHANNELS = weekday: ")


def test_a_channel_named_twice_is_refused():
    assert refusal(CUBE, ("season", "weather", "season")) == (
        "CHANNELS = season: The channel is named twice. Name it once."
    )


# Windows -----------------------------------------------------------------------------------------------


def test_a_window_holds_the_steps_before_its_target():
    channels = Channels(CUBE, ("crowd",), train_stop=STOP)
    window = channels.window(np.array([5, 90, STEPS]), 4)
    assert window.shape == (3, 4, 6, 7, 2)
    assert window.dtype == np.float32
    for i, target in enumerate([5, 90, STEPS]):
        assert window[i] == pytest.approx(channels.maps(target - 4, target), abs=1e-6)
        assert (window[i, ..., 0] == CUBE.total[target - 4 : target]).all()


def test_anchored_windows_end_with_the_calendar_of_their_target():
    cube = make_cube(30)
    channels = Channels(cube, anchored=True, train_stop=20)
    window = channels.window(np.array([10, 30]), 3)
    calendar = cube.axis.extended(1).calendar
    assert (window[0, -1, 2, 3, -4:] == calendar[10]).all()
    assert (window[1, -1, 2, 3, -4:] == calendar[30]).all()
    assert (window[0, :, :, :, 4] == cube.grid.inside).all()
    assert np.isfinite(window).all()


@settings(max_examples=20, deadline=None)
@given(known=st.integers(5, 60), seed=st.integers(0, 5), anchored=st.booleans())
def test_a_window_never_holds_its_target_or_later_steps(known, seed, anchored):
    cube = make_cube(60, seed=seed)
    events = cube.events.copy()
    events[known:] = 9 * cube.grid.valid
    scaling = Channels(cube, anchored=anchored).scaling
    one, two = (Channels(each, anchored=anchored, scaling=scaling) for each in (cube, changed(cube, events)))
    target = np.array([known])
    assert (one.window(target, 5) == two.window(target, 5)).all()
    assert (one.offsets(target) == two.offsets(target)).all()


# Memory ------------------------------------------------------------------------------------------------


def arrays_in(thing: object, seen: set[int] | None = None) -> list[np.ndarray]:
    """Return the arrays that an object holds, wherever they are in it."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return [thing]
    parts = []
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, (list, tuple, set)):
        parts = list(thing)
    elif hasattr(thing, "__dict__"):
        parts = list(vars(thing).values())
    return [array for part in parts for array in arrays_in(part, seen)]


@pytest.mark.parametrize("anchored", [False, True])
def test_channels_keep_no_copy_of_the_cube(anchored):
    cube = rich_cube(steps=3000)
    channels = Channels(cube, ("severity", "season", "weather", "income", "crowd"), anchored=anchored)
    windows = Windows(channels, np.arange(7, 3000), 7, 8, 1)
    first = next(windows.epoch(0))
    source = arrays_in(cube)
    own = [array for array in arrays_in(windows) if not any(np.shares_memory(array, its) for its in source)]
    total = cube.total.nbytes
    assert first[0].nbytes < total / 3
    # Calendar and targets are a few numbers a step, sums are kept of every 64th step.
    assert sum(array.nbytes for array in own) < total / 4
    assert max(array.nbytes for array in own) < total / 10


def test_scaling_is_learned_without_reading_all_steps_at_once(monkeypatch):
    reads = []

    def counted(self, start, stop):
        reads.append((start, stop))
        return original(self, start, stop)

    original = Channels._read
    monkeypatch.setattr(Channels, "_read", counted)
    Channels(CUBE, anchored=True, train_stop=STOP)
    assert max(stop - start for start, stop in reads) <= module._BLOCK
    assert max(stop for _, stop in reads) == STOP
