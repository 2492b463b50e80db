# SPDX-License-Identifier: GPL-2.0-or-later
"""The mixture of kernels: densities over the cells, weights that are found again, types."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from synthetic import make_grid

from gridcast_qgis.core.errors import JobCancelled
from gridcast_qgis.core.features import DecayedMeans
from gridcast_qgis.core.mixture import (
    HALF_LIVES,
    RADII,
    Past,
    TypeMixture,
    _lately,
    learned_type_weights,
    learned_weights,
    maximised,
    spans_of,
)
from gridcast_qgis.core.reporter import Reporter

GRID = make_grid(6, 7)
DAYS = 1.0
SPANS = spans_of(DAYS)
TYPE_SPANS = spans_of(DAYS, (30.0, 90.0, 365.0, 1095.0))


def counts_of(steps: int, mean: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, (steps, *GRID.shape)).astype(np.float32)


def kernel(radius: float, span: float) -> int:
    """Return the number of a kernel."""
    return RADII.index(radius) * len(SPANS) + SPANS.index(span)


def test_half_lives_shorter_than_a_step_are_left_out():
    assert spans_of(7.0) == [7.0, 14.0, 30.0, 90.0, 365.0, 1095.0]
    assert spans_of(1 / 96) == list(HALF_LIVES)
    assert spans_of(30.4) == [30.0, 90.0, 365.0, 1095.0]


def test_kernels_are_decayed_and_smoothed_counts_over_their_sum():
    counts = counts_of(200)
    found = Past.of(counts, GRID, DAYS).densities()
    assert found.shape == (len(RADII) * len(SPANS) + 1, GRID.valid.sum())
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[-1], GRID.inside[GRID.valid] / GRID.inside.sum())
    weights = 0.5 ** (np.arange(199, -1, -1) / 30)
    own = np.tensordot(weights, counts, 1) * GRID.valid
    np.testing.assert_allclose(found[kernel(0.0, 30.0)], own[GRID.valid] / own.sum())
    spread = {"sigma": 2.0, "mode": "constant", "truncate": 3.0}
    near = ndimage.gaussian_filter(own, **spread) / ndimage.gaussian_filter(GRID.inside, **spread)
    near = (near * GRID.inside)[GRID.valid]
    np.testing.assert_allclose(found[kernel(2.0, 30.0)], near / near.sum())


def test_moving_on_is_the_same_as_looking_back():
    counts = counts_of(90)
    moved = Past.of(counts[:60], GRID, DAYS)
    for step in counts[60:]:
        moved.advance(step)
    np.testing.assert_allclose(moved.densities(), Past.of(counts, GRID, DAYS).densities(), rtol=1e-6)


def test_the_mixture_is_the_weighted_sum_of_the_kernels():
    past = Past.of(counts_of(50), GRID, DAYS)
    weights = np.random.default_rng(1).dirichlet(np.ones(len(past.densities())))
    mixed = past.mixed(weights)
    np.testing.assert_allclose(mixed[GRID.valid], weights @ past.densities())
    assert mixed[~GRID.valid].sum() == 0 and mixed.sum() == pytest.approx(1)
    for spans, to in ((range(len(SPANS)), len(SPANS) - 1), ([0, 1, 2], 3)):
        moved = past.moved(weights, spans, to)
        by_radius, before = (each[:-1].reshape(len(RADII), -1) for each in (moved, weights))
        np.testing.assert_allclose(by_radius.sum(axis=1), before.sum(axis=1))
        assert moved[-1] == weights[-1] and not by_radius[:, [n for n in spans if n != to]].any()
        others = [n for n in range(len(SPANS)) if n not in spans and n != to]
        assert np.array_equal(by_radius[:, others], before[:, others])


def test_where_nothing_has_happened_every_place_is_alike():
    past = Past.of(counts_of(10) * 0, GRID, DAYS)
    weights = np.full(len(past.densities()), 1 / len(past.densities()))
    even = GRID.inside[GRID.valid] / GRID.inside.sum()
    np.testing.assert_allclose(past.mixed(weights)[GRID.valid], even)
    assert learned_weights(counts_of(10) * 0, GRID, DAYS, 2, 10, Reporter()).sum() == pytest.approx(1)


def test_weights_that_made_events_are_found_again():
    random = np.random.default_rng(2)
    densities = random.dirichlet(np.full(400, 0.3), 3)
    truth = np.array([0.6, 0.3, 0.1])
    events = random.multinomial(200_000, truth @ densities)
    assert maximised(densities, events.astype(float)) == pytest.approx(truth, abs=0.01)


@pytest.mark.parametrize("memory", ["long", "short"])
def test_the_memory_of_the_events_is_learned(memory):
    """Cells that stay as they are call for long half-lives, those that change every week for short ones."""
    random = np.random.default_rng(3)
    shape = (1 if memory == "long" else 60, *GRID.shape)
    rate = np.repeat(random.gamma(0.5, 1.0, shape), 600 // shape[0], axis=0)
    weights = learned_weights(random.poisson(rate).astype(np.float32), GRID, DAYS, 200, 600, Reporter())
    by_span = weights[:-1].reshape(len(RADII), -1).sum(axis=0)
    lately = by_span[: SPANS.index(14.0) + 1].sum()
    assert lately < 0.1 if memory == "long" else lately > 0.6
    assert weights.sum() == pytest.approx(1) and weights[-1] >= 1e-3


@pytest.mark.parametrize(("learn", "days", "long"), [("all", 10, 90.0), ("types", 35, 90.0)])
def test_what_happened_lately_counts_more_than_what_did_long_ago(learn, days, long):
    """Cells that come to life for some days now and then, and calm ones: the weights tell which came last."""
    random = np.random.default_rng(3)
    usual = random.gamma(0.5, 5.0, GRID.shape)
    lively = np.repeat(random.gamma(0.2, 5.0, (700 // days, *GRID.shape)), days, axis=0) * usual
    lively, calm = (random.poisson(rate).astype(np.float32) for rate in (lively, [usual] * 700))

    def memory(*parts: np.ndarray) -> float:
        """Return the weight of long half-lives."""
        counts, spans = np.concatenate(parts), SPANS
        known = (GRID, DAYS, 200, 1400, Reporter())
        if learn == "types":
            weights, spans = learned_type_weights(counts[:, None], *known)[0], TYPE_SPANS
        else:
            weights = learned_weights(counts, *known)
        return float(weights[:-1].reshape(-1, len(spans))[:, spans.index(long) :].sum())

    assert memory(lively, calm) > memory(calm, lively) + 0.08


def test_of_few_events_all_count():
    events, ages = np.full(1500, 2.0), np.arange(1500.0)
    counted = _lately(events, ages, 1)
    half_life = 180.0
    assert (events * 0.5 ** (ages / 180)).sum() < 1000 <= counted.sum()
    while (events * 0.5 ** (ages / half_life)).sum() < 1000:
        half_life *= 2
    assert counted == pytest.approx(events * 0.5 ** (ages / half_life))
    # As many of them as there are, if they are too few; those that are told of twice count once.
    assert _lately(events[:300], ages[:300], 1) == pytest.approx(events[:300] * 0.5 ** (ages[:300] / 360))
    assert _lately(3 * events, ages, 3) == pytest.approx(3 * counted)
    assert len(_lately(np.array([]), np.array([]), 1)) == 0


def test_nothing_from_the_end_on_is_read_when_weights_are_learned():
    one, two = counts_of(120), counts_of(120)
    two[100:] = 9
    for ahead in (1, 8):
        found = [learned_weights(each, GRID, DAYS, 30, 100, Reporter(), ahead=ahead) for each in (one, two)]
        assert np.array_equal(*found)
    typed = [each[:, None].repeat(2, axis=1) for each in (one, two)]
    assert np.array_equal(
        *(learned_type_weights(each, GRID, DAYS, 30, 100, Reporter(), ahead=8) for each in typed)
    )


def test_learning_can_be_stopped():
    stopped = Reporter()
    stopped.cancel()
    counts = counts_of(60)
    with pytest.raises(JobCancelled):
        learned_weights(counts, GRID, DAYS, 10, 60, stopped)
    with pytest.raises(JobCancelled):
        learned_type_weights(counts[:, None], GRID, DAYS, 10, 60, stopped)


def test_types_are_told_from_their_own_past_and_that_of_all():
    """The second type happens where the first one does, but is too rare to tell by itself."""
    random = np.random.default_rng(4)
    rate = random.gamma(0.3, 2.0, GRID.shape)
    counts = random.poisson(np.stack([rate, 0.01 * rate]), (500, 2, *GRID.shape)).astype(np.float32)
    weights = learned_type_weights(counts, GRID, DAYS, 100, 500, Reporter())
    past = TypeMixture(counts, GRID, DAYS)
    kernels = past.densities()
    assert weights.shape == (2, len(kernels)) and weights.sum(axis=1) == pytest.approx([1, 1])
    own = (len(kernels) - 1) // 2
    assert weights[1, own:].sum() > 0.6
    rates = past.rates(weights)
    truth = np.stack([rate, 0.01 * rate])[:, GRID.valid]
    assert rates.sum(axis=1) == pytest.approx(truth.sum(axis=1), rel=0.3)
    assert np.corrcoef(rates[1], truth[1])[0, 1] > 0.95
    moved = TypeMixture(counts[:-5], GRID, DAYS)
    for step in counts[-5:]:
        moved.advance(step)
    np.testing.assert_allclose(moved.rates(weights), rates, rtol=1e-9)


def test_a_past_can_be_of_many_kinds_at_once():
    counts = counts_of(40)[:, None].repeat(3, axis=1) * np.arange(1, 4)[:, None, None]
    both = Past(DecayedMeans([30.0], counts), GRID, [30.0]).densities()
    one = Past(DecayedMeans([30.0], counts[:, 0]), GRID, [30.0]).densities()
    for number in range(3):
        np.testing.assert_allclose(both[:, number], one)
