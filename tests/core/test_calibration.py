# SPDX-License-Identifier: GPL-2.0-or-later
"""Probabilities that come true as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast_qgis.core.training.calibration import FORMS, Calibration

CURVES = [form for form in FORMS if form != "none"]


def sample(count: int, seed: int, weight: float = 10.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true probabilities, outputs that a weight of events has made too large, and what happened."""
    random = np.random.default_rng(seed)
    truth = random.beta(1, 15, count)
    odds = weight * truth / (1 - truth)
    return truth, (odds / (1 + odds)).astype(np.float32), random.random(count) < truth


def worst_gap(probability: np.ndarray, events: np.ndarray, bins: int = 10) -> float:
    """Return the largest gap between what is said and what happens, in bins of equal size."""
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, bins)
    return max(abs(probability[part].mean() - events[part].mean()) for part in parts)


@pytest.mark.parametrize("form", CURVES)
@pytest.mark.parametrize("weight", [100.0, 10.0, 0.2])
def test_weighted_probabilities_become_reliable(form, weight):
    _, outputs, events = sample(40_000, 1, weight)
    calibration = Calibration.fit(form, outputs, events)
    assert calibration.form == form
    # On others than it was learned from.
    truth, outputs, events = sample(40_000, 2, weight)
    calibrated = calibration.apply(outputs)
    assert calibrated.dtype == np.float32
    assert calibrated.shape == outputs.shape
    assert worst_gap(calibrated, events) < 0.012
    assert worst_gap(outputs, events) > 0.05
    assert calibrated.mean() == pytest.approx(events.mean(), abs=0.004)
    assert np.abs(calibrated - truth).mean() < 0.01


def test_platt_finds_the_weight():
    # Odds times 10: the log odds have moved by log 10 and are not stretched.
    _, outputs, events = sample(200_000, 3)
    slope, intercept = Calibration.fit("platt", outputs, events).x
    assert slope == pytest.approx(1, abs=0.03)
    assert intercept == pytest.approx(-np.log(10), abs=0.06)


def test_platt_stretches_what_is_too_sure():
    truth, _, events = sample(200_000, 4)
    odds = (truth / (1 - truth)) ** 2
    slope, intercept = Calibration.fit("platt", odds / (1 + odds), events).x
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(0, abs=0.06)


def test_platt_is_the_maximum_of_its_likelihood():
    _, outputs, events = sample(3000, 5)
    slope, intercept = Calibration.fit("platt", outputs, events).x
    score = np.log(outputs.astype(float) / (1 - outputs.astype(float)))
    positive = events.sum()
    target = np.where(events, (positive + 1) / (positive + 2), 1 / (len(events) - positive + 2))

    def likelihood(a: float, b: float) -> float:
        z = a * score + b
        return float((target * z - np.logaddexp(0, z)).sum())

    best = likelihood(slope, intercept)
    for da, db in [(0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, 0.02), (-0.01, -0.02)]:
        assert likelihood(slope + da, intercept + db) < best


def test_isotonic_follows_a_shape_that_platt_cannot():
    random = np.random.default_rng(6)
    outputs = random.random(60_000)
    truth = np.where(outputs < 0.5, 0.1, 0.1 + 0.6 * (outputs > 0.8))
    events = random.random(60_000) < truth
    gaps = {
        form: np.abs(Calibration.fit(form, outputs, events).apply(outputs) - truth).mean() for form in CURVES
    }
    assert gaps["isotonic"] < 0.01
    assert gaps["platt"] > 0.05


def pooled(outputs: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return the rising curve with the least squared error, by pooling neighbours that fall."""
    order = np.argsort(outputs)
    blocks: list[list[float]] = []
    for event in events[order].astype(float):
        blocks.append([event, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    curve = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
    result = np.empty_like(curve)
    result[order] = curve
    return result


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(5, 60))
def test_isotonic_is_the_least_squares_of_rising_curves(seed, count):
    random = np.random.default_rng(seed)
    outputs = random.permutation(count) / count
    events = random.random(count) < outputs
    if events.all() or not events.any():
        return
    found = Calibration.fit("isotonic", outputs, events).apply(outputs)
    assert found == pytest.approx(pooled(outputs, events), abs=2e-6)


# What holds for every curve ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 80),
    share=st.floats(0.05, 0.95),
    turned=st.booleans(),
    form=st.sampled_from(CURVES),
)
def test_a_curve_rises_and_stays_between_0_and_1(seed, count, share, turned, form):
    random = np.random.default_rng(seed)
    outputs = random.random(count).astype(np.float32)
    # Outputs that say the opposite of what happens are not turned round.
    events = (outputs < share) if turned else (outputs > share)
    calibration = Calibration.fit(form, outputs, events)
    grid = np.linspace(0, 1, 101)
    curve = calibration.apply(grid)
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    assert (curve <= 1).all()
    assert (np.diff(curve) >= 0).all()


@pytest.mark.parametrize("turned", [False, True])
def test_platt_keeps_the_order_of_cells(turned):
    _, outputs, events = sample(5000, 7)
    events = ~events if turned else events
    calibration = Calibration.fit("platt", outputs, events)
    assert calibration.x[0] > 0
    distinct = np.linspace(0.01, 0.99, 200)
    assert (np.diff(calibration.apply(distinct).astype(float)) > 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("happened", [False, True])
def test_one_kind_of_outcome_teaches_nothing(form, happened):
    outputs = np.linspace(0.1, 0.9, 9)
    calibration = Calibration.fit(form, outputs, np.full(9, happened))
    assert calibration.form == "none"
    assert calibration.apply(outputs) == pytest.approx(outputs)


def test_no_curve_changes_nothing():
    _, outputs, events = sample(100, 8)
    calibration = Calibration.fit("none", outputs, events)
    assert calibration.form == Calibration.none().form == "none"
    assert (calibration.apply(outputs) == outputs).all()
    assert calibration.apply(outputs.astype(float)).dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_missing_outputs_stay_missing(form):
    _, outputs, events = sample(500, 9)
    calibration = Calibration.fit(form, outputs, events)
    maps = outputs[:12].reshape(2, 2, 3).copy()
    maps[0, 1, 2] = np.nan
    calibrated = calibration.apply(maps)
    assert calibrated.shape == maps.shape
    assert (np.isnan(calibrated) == np.isnan(maps)).all()
    assert calibrated[1] == pytest.approx(calibration.apply(maps[1]))


@pytest.mark.parametrize("form", CURVES)
def test_extreme_outputs_stay_finite(form):
    outputs = np.array([0.0, 0.0, 1e-30, 0.5, 1.0, 1.0, 1.0], np.float32)
    events = np.array([0, 0, 1, 0, 1, 1, 0], bool)
    calibrated = Calibration.fit(form, outputs, events).apply(np.array([0, 1e-38, 0.3, 1], np.float32))
    assert np.isfinite(calibrated).all()
    assert (calibrated > 0).all()
    assert (calibrated < 1).all()


@pytest.mark.parametrize("form", CURVES)
def test_outputs_that_are_all_alike_become_the_share_of_events(form):
    events = np.arange(400) % 4 == 0
    calibrated = Calibration.fit(form, np.full(400, 0.8, np.float32), events).apply(np.array([0.8]))
    assert calibrated == pytest.approx(0.25, abs=0.01)


def test_outputs_that_mislead_give_the_share_of_events():
    outputs = np.linspace(0.01, 0.99, 1000)
    events = outputs < 0.2
    calibrated = Calibration.fit("platt", outputs, events).apply(outputs)
    assert calibrated == pytest.approx(np.full(1000, 0.2), abs=0.01)


def test_separable_outcomes_do_not_run_away():
    outputs = np.linspace(0.01, 0.99, 50)
    calibration = Calibration.fit("platt", outputs, outputs > 0.5)
    assert np.isfinite(calibration.x).all()
    low, high = calibration.apply(np.array([0.01, 0.99]))
    # With the targets of Platt nothing is certain.
    assert 0 < low < 0.1 < 0.9 < high < 1
