# SPDX-License-Identifier: GPL-2.0-or-later
"""The Spatio-LSTM: samples and windows by hand, the published sizes, and the mathematics of its training."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops
from synthetic import Recorder, changed, make_axis, make_cube, make_grid

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.evaluation.classification import best_threshold, score
from gridcast_qgis.core.features import historical_average
from gridcast_qgis.core.models import spatiolstm
from gridcast_qgis.core.models.classifier import Inputs, Samples, corrected
from gridcast_qgis.core.models.spatiolstm import (
    CELLS,
    BlockTrainer,
    CellBatches,
    CellBlocks,
    CellTrainer,
    CellWindows,
    SpatioLSTM,
    SpatioLSTMSettings,
    build_network,
    recurrent_states,
    sample_index,
    weighted_log_loss,
)
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.channels import Scaling
from gridcast_qgis.core.training.checkpoints import Checkpoint
from gridcast_qgis.core.training.splits import Split

#: 42, 6 and 6 of 60 months.
POSTER = Split(6, 48, 48, 54, 54, 60)
SMALL_SPLIT = Split(3, 24, 24, 32, 32, 40)
SMALL = {"lookback": 3, "label_value": 4, "epochs": 3, "units": 4, "dense": 5, "learning_rate": 0.01}


def cube_of_the_poster() -> Cube:
    """Return 60 months in which 73 cells take turns in being the 20 hottest, others have fewer events."""
    grid = make_grid(10, 12, holes=False)
    random = np.random.default_rng(1)
    ever = random.permutation(120)[:73]
    events = random.poisson(0.5, (60, 1, 120)).clip(0, 3).astype(np.float32)
    for step in range(60):
        events[step, 0, ever[(np.arange(20) + 7 * step) % 73]] = 10 + random.integers(0, 5, 20)
    return Cube(grid, make_axis(60, "month"), ("calls",), events.reshape(60, 1, 10, 12))


def small_cube(steps: int = 40) -> Cube:
    return make_cube(steps, mean=1.0)


def small_samples(**settings) -> Samples:
    return Samples.draw(small_cube(), SMALL_SPLIT, SpatioLSTMSettings(**{**SMALL, **settings}))


def inputs_of(cube: Cube, raw: bool = True) -> Inputs:
    return Inputs.learn(cube, (), raw, cube.grid.valid, len(cube))


# The published sizes -----------------------------------------------------------------------------------


def test_the_network_and_the_samples_are_those_of_the_poster():
    cube = cube_of_the_poster()
    model = SpatioLSTM(epochs=1, batch_size=512).fit(cube, POSTER, Reporter())
    assert model.candidates_.sum() == 73
    assert (model.samples_.labels.sum(axis=(1, 2)) == 20).all()
    numbers = [int((part > 0).sum()) for part in (model.samples_.train, model.samples_.validation)]
    assert [*numbers, int((model.samples_.test > 0).sum())] == [3066, 438, 438]
    network = model.network_
    assert network.get_layer("memory").input.shape == (None, 6, 9 + 2)
    assert network.get_layer("memory").output.shape == (None, 6, 20)
    assert network.get_layer("vector").output.shape == (None, 122)
    assert network.get_layer("dense").output.shape == (None, 50)
    assert network.output.shape == (None, 2)
    # LSTM, dense layer, output.
    assert model.parameter_count == 4 * 20 * (11 + 20 + 1) + 50 * (122 + 1) + 2 * (50 + 1)
    # Always-cold is right in 53 of 73 cases.
    assert score(model.samples_.labels[:, model.candidates_], np.zeros((60, 73))).accuracy == pytest.approx(
        0.726, abs=0.001
    )


@pytest.mark.parametrize("cell", CELLS)
def test_the_longer_paper_sees_more_cells_and_steps(cell):
    network = build_network((24, 441), cell=cell, location=False)
    assert network.input_shape == (None, 24, 441)
    assert network.get_layer("states").output.shape == (None, 480)


# Windows -----------------------------------------------------------------------------------------------


def test_a_window_holds_the_counts_around_a_cell_and_the_calendar():
    cube = small_cube()
    counts = np.where(cube.grid.valid, cube.total, 0)
    windows = CellWindows(inputs_of(cube), 3, 3, True)
    assert windows.shape == (3, 9 + 4)
    steps, cells = sample_index(np.ones_like(counts)[5:9])
    steps += 5
    found = windows.windows(steps, cells)
    assert found.shape == (4 * 42, 3, 13)
    assert found.dtype == np.float32
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)))
    for number in range(0, len(steps), 5):
        step, (row, column) = steps[number], divmod(cells[number], 7)
        around = padded[step - 3 : step, row : row + 3, column : column + 3].reshape(3, 9)
        assert (found[number, :, :9] == around).all()
        # Days have a season and a weekday.
        assert (found[number, :, 9:] == cube.axis.calendar[step - 3 : step]).all()


def test_neighbours_beyond_the_study_area_count_as_cells_without_events():
    cube = small_cube()
    inputs = inputs_of(cube, raw=False)
    nothing = (np.log1p(0) - inputs.scaling.mean["counts"]) / inputs.scaling.deviation["counts"]
    windows = CellWindows(inputs, 2, 3, False)
    # North and west of the cell in the second row there is nothing but holes and the edge.
    found = windows.windows(np.array([4], np.int32), np.array([7], np.int32))
    assert found[0, :, [0, 1, 2, 3, 6]] == pytest.approx(nothing, abs=1e-6)
    noisy = cube.events.copy()
    noisy[:, :, ~cube.grid.valid] = 30
    other = CellWindows(inputs_of(changed(cube, noisy), raw=False), 2, 3, False)
    index = sample_index(np.broadcast_to(cube.grid.valid, (5, 6, 7)) * np.arange(5)[:, None, None] // 2)
    assert (other.windows(*index) == windows.windows(*index)).all()


def test_a_place_runs_from_south_west_to_north_east():
    windows = CellWindows(inputs_of(small_cube()), 2, 3, False)
    places = windows.places(np.array([0, 6, 35, 41, 10]))
    assert places == pytest.approx(np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0.5, 0.8]]))
    one = make_cube(10, 1, 1, holes=False)
    assert CellWindows(inputs_of(one), 2, 3, False).places(np.array([0])).tolist() == [[0, 1]]


def test_counts_are_standardised_on_the_training_steps_of_the_candidates():
    cube = small_cube()
    chosen = np.zeros((6, 7), bool)
    chosen[2:4, 1:5] = True
    inputs = Inputs.learn(cube, (), False, chosen, 24)
    part = inputs.counts[:24, chosen]
    assert part.mean() == pytest.approx(0, abs=1e-5)
    assert part.std() == pytest.approx(1, abs=1e-5)
    future = cube.events.copy()
    future[24:] += 5
    future[:, :, ~chosen] += 5
    assert Inputs.learn(changed(cube, future), (), False, chosen, 24).scaling == inputs.scaling
    raw = Inputs.learn(cube, (), True, chosen, 24)
    assert (raw.counts == np.where(cube.grid.valid, cube.total, 0)).all()


def test_counts_that_are_all_the_same_can_be_scaled():
    cube = small_cube()
    same = changed(cube, np.ones_like(cube.events))
    assert np.isfinite(Inputs.learn(same, (), False, cube.grid.valid, 24).counts).all()


# Samples -----------------------------------------------------------------------------------------------


def test_samples_are_the_candidates_of_each_period():
    samples = small_samples()
    cube = small_cube()
    ever = samples.labels[:24].any(axis=0)
    assert (samples.candidates == ever).all()
    for part, (start, stop) in (
        (samples.train, (3, 24)),
        (samples.validation, (24, 32)),
        (samples.test, (32, 40)),
    ):
        expected = np.zeros(part.shape)
        expected[start:stop] = ever
        assert (part == expected).all()
    assert (samples.labels == SpatioLSTM(**SMALL).labels(cube)).all()
    assert samples.odds_ratio == 1


def test_what_happens_after_the_training_changes_none_of_its_samples():
    cube = small_cube()
    settings = SpatioLSTMSettings(**SMALL, balance="undersample")
    events = cube.events.copy()
    events[24:] = np.random.default_rng(9).poisson(3, events[24:].shape)
    one, two = (Samples.draw(c, SMALL_SPLIT, settings) for c in (cube, changed(cube, events)))
    assert (one.train == two.train).all()
    assert (one.candidates == two.candidates).all()
    assert one.odds_ratio == two.odds_ratio


def test_weights_give_both_kinds_the_same_say():
    samples = small_samples(balance="weights")
    plain = small_samples()
    hot, cold = samples.train[samples.labels], samples.train[~samples.labels]
    assert hot.sum() == pytest.approx(cold.sum(), rel=1e-5)
    assert samples.train.sum() == pytest.approx(plain.train.sum(), rel=1e-5)
    assert samples.hot_share == pytest.approx(0.5, abs=0.01)
    # Validation is judged by the weights of the training, the test has none.
    assert set(np.unique(samples.validation)) == set(np.unique(samples.train))
    assert set(np.unique(samples.test)) == {0, 1}
    natural = plain.train[plain.labels].sum() / plain.train[~plain.labels].sum()
    assert samples.odds_ratio == pytest.approx(natural, rel=1e-5)


def test_undersampling_keeps_as_many_cold_samples_as_hot_ones():
    plain, samples = small_samples(), small_samples(balance="undersample")
    hot = (plain.train > 0) & plain.labels
    assert ((samples.train > 0) & samples.labels == hot).all()
    assert ((samples.train > 0) & ~samples.labels).sum() == hot.sum()
    assert ((samples.train > 0) <= (plain.train > 0)).all()
    assert (samples.validation == plain.validation).all()
    assert (small_samples(balance="undersample").train == samples.train).all()
    assert (small_samples(balance="undersample", seed=2).train != samples.train).any()
    natural = hot.sum() / ((plain.train > 0) & ~plain.labels).sum()
    assert samples.odds_ratio == pytest.approx(natural)


def test_undersampling_needs_a_hot_sample():
    cube = small_cube()
    events = np.zeros_like(cube.events)
    # The only hot step has no full history.
    events[1] = cube.grid.valid
    with pytest.raises(InputError, match="BALANCE = undersample: No sample is hot"):
        Samples.draw(changed(cube, events), SMALL_SPLIT, SpatioLSTMSettings(**SMALL, balance="undersample"))


@pytest.mark.parametrize("balance", ["none", "undersample"])
def test_a_random_split_deals_out_all_samples(balance):
    samples = small_samples(split_mode="random", balance=balance)
    parts = [part > 0 for part in (samples.train, samples.validation, samples.test)]
    together = sum(part.astype(int) for part in parts)
    assert together.max() == 1
    total = together.sum()
    everything = np.zeros(together.shape, bool)
    everything[3:40] = samples.candidates
    if balance == "none":
        assert (together.astype(bool) == everything).all()
    else:
        assert total == 2 * (everything & samples.labels).sum()
    assert [part.sum() for part in parts] == pytest.approx([0.8 * total, 0.1 * total, 0.1 * total], abs=1)
    # All sets are balanced alike, so nothing has to be undone.
    assert samples.odds_ratio == 1
    assert (small_samples(split_mode="random", balance=balance).train == samples.train).all()


def test_settings_that_look_ahead_warn():
    for setting, text in (
        ({"split_mode": "random"}, "SPLIT_MODE"),
        ({"candidates": "all_steps"}, "CANDIDATES"),
    ):
        reporter = Recorder()
        SpatioLSTM(**{**SMALL, **setting, "epochs": 1}).fit(small_cube(), SMALL_SPLIT, reporter)
        assert [line for line in reporter.texts() if line.startswith(text)]


def test_a_split_without_validation_is_refused():
    with pytest.raises(InputError, match="LOOKBACK = 3: There are no samples to train on or none to valid"):
        Samples.draw(small_cube(), Split(3, 24, 24, 24), SpatioLSTMSettings(**SMALL))


@pytest.mark.parametrize("odds_ratio", [0.02, 1.0, 5.0])
def test_probabilities_are_corrected_by_the_odds(odds_ratio):
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
    found = corrected(p, odds_ratio)
    assert found.dtype == np.float32
    assert found[[0, -1]].tolist() == [0, 1]
    odds = found[1:-1] / (1 - found[1:-1])
    assert odds == pytest.approx(odds_ratio * p[1:-1] / (1 - p[1:-1]), rel=1e-5)


def test_batches_name_step_cell_label_and_weight():
    samples = small_samples(balance="weights")
    data = CellBatches(samples.labels, samples.train, 64, None)
    index, target = (np.concatenate(parts) for parts in zip(*data.epoch(0)))
    assert len(index) == (samples.train > 0).sum()
    for (step, cell), (label, weight) in zip(index, target):
        place = (step, *divmod(cell, 7))
        assert samples.labels[place] == label
        assert samples.train[place] == weight > 0


def test_blocks_hold_each_sample_once_an_epoch():
    samples = small_samples()
    count = int((samples.train > 0).sum())
    # Four batches a block, and a batch that is not full.
    blocks = CellBlocks(samples.labels, samples.train, 16, 1, int(spatiolstm._BLOCK_NUMBERS / 16 / 4))
    batches = -(-count // 16)
    assert count % 16
    assert len(blocks) == -(-batches // 4)
    orders = []
    for epoch in range(2):
        parts = list(blocks.epoch(epoch))
        assert len(parts) == len(blocks)
        index, target = (np.concatenate(part) for part in zip(*parts))
        assert index.shape == (batches, 16, 2)
        used = target[..., 1] > 0
        assert used.sum() == count
        # Only the end of the last batch is filled up.
        assert used.reshape(-1)[:count].all()
        orders.append([tuple(pair) for pair in index[used]])
        assert len(set(orders[-1])) == count
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1])
    # A training that goes on has the order that it would have had.
    assert [tuple(pair) for pair in next(blocks.epoch(1))[0].reshape(-1, 2)] == orders[1][:64]


# The mathematics ---------------------------------------------------------------------------------------


def network_of(cell: str, shape=(3, 13), *, seed: int = 0, location: bool = True) -> keras.Model:
    network = build_network(shape, cell=cell, units=4, dense=5, location=location)
    random = np.random.default_rng(seed)
    network.set_weights([random.normal(0, 0.5, weight.shape) for weight in network.get_weights()])
    return network


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_those_of_the_layer_of_keras(cell):
    layer = network_of(cell).get_layer("memory")
    windows = np.random.default_rng(1).normal(size=(7, 3, 13)).astype(np.float32)
    states = ops.convert_to_numpy(ops.stack(recurrent_states(layer, ops.convert_to_tensor(windows)), axis=1))
    assert states == pytest.approx(ops.convert_to_numpy(layer(windows)), abs=1e-6)


@pytest.mark.parametrize("location", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_samples_by_step_and_cell_are_judged_as_windows_are(cell, location):
    network = network_of(cell, location=location)
    inputs = inputs_of(small_cube(), raw=False)
    steps, cells = sample_index(small_samples().validation)
    windows = CellWindows(inputs, 3, 3, True)
    seen = [windows.windows(steps, cells), *([windows.places(cells)] if location else [])]
    expected = ops.convert_to_numpy(network(seen if location else seen[0]))
    trainer = CellTrainer(network, CellWindows(inputs, 3, 3, True))
    found = ops.convert_to_numpy(trainer(ops.convert_to_tensor(np.stack([steps, cells], axis=1))))
    assert found == pytest.approx(expected, abs=1e-6)
    assert expected.std() > 0.05


def test_a_window_longer_than_what_is_unrolled_is_judged_the_same(monkeypatch):
    network = network_of("lstm")
    trainer = CellTrainer(network, CellWindows(inputs_of(small_cube()), 3, 3, True))
    index = np.stack(sample_index(small_samples().validation), axis=1)
    expected = ops.convert_to_numpy(trainer(index))
    monkeypatch.setattr(spatiolstm, "UNROLL_MOST", 2)
    assert ops.convert_to_numpy(trainer(index)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_blocks_train_as_keras_does_batch_by_batch(balance):
    samples = small_samples(balance=balance)
    inputs = inputs_of(small_cube(), raw=False)
    windows = CellWindows(inputs, 3, 3, True)
    ours, theirs = network_of("lstm"), network_of("lstm")
    blocks = CellBlocks(samples.labels, samples.train, 16, 1, int(spatiolstm._BLOCK_NUMBERS / 16 / 4))
    trainer = BlockTrainer(ours, CellWindows(inputs, 3, 3, True))
    trainer.compile(keras.optimizers.Adam(0.01), loss=weighted_log_loss)
    trainer.optimizer.build(trainer.trainable_variables)
    parts = [part for epoch in range(2) for part in blocks.epoch(epoch)]
    for index, target in parts:
        trainer.train_on_batch(index, target)
    # The other way: windows in arrays, labels of two classes, weights of samples, losses of Keras.
    theirs.compile(keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", jit_compile=False)
    for part in parts:
        for index, target in zip(*part):
            index, target = index[target[:, 1] > 0], target[target[:, 1] > 0]
            steps, cells = index.T
            theirs.train_on_batch(
                [windows.windows(steps, cells), windows.places(cells)],
                target[:, 0],
                # Keras divides by the number of samples, not by their weight.
                sample_weight=target[:, 1] / target[:, 1].mean(),
            )
    for one, two in zip(ours.get_weights(), theirs.get_weights()):
        assert one == pytest.approx(two, abs=2e-4)
    assert np.abs(ours.get_weights()[0] - network_of("lstm").get_weights()[0]).max() > 0.05


def test_the_loss_is_a_mean_by_weight():
    target = np.array([[1, 2], [0, 1], [1, 0]], np.float32)
    output = np.array([[0.2, 0.8], [0.7, 0.3], [1.0, 0.0]], np.float32)
    expected = -(2 * np.log(0.8) + np.log(0.7)) / 3
    assert float(weighted_log_loss(target, output)) == pytest.approx(expected, rel=1e-5)
    assert float(weighted_log_loss(target, output[:, 1:])) == pytest.approx(expected, rel=1e-5)
    assert float(weighted_log_loss(target * np.float32([1, 0]), output)) == 0
    wrong = float(weighted_log_loss(np.array([[1, 1]], np.float32), np.array([[0.0]], np.float32)))
    assert 10 < wrong < 20


@pytest.mark.parametrize("balance", ["none", "weights", "undersample"])
def test_an_untrained_network_starts_near_the_share_of_hot_samples(balance):
    samples = small_samples(balance=balance)
    network = build_network((3, 13))
    spatiolstm.start_at(network, samples.hot_share)
    p = ops.convert_to_numpy(network([np.zeros((1, 3, 13)), np.zeros((1, 2))]))[0]
    assert p[1] == pytest.approx(samples.hot_share, rel=1e-4)
    hot = samples.train[samples.labels].sum() / samples.train.sum()
    assert samples.hot_share == pytest.approx(hot, abs=0.01)


# The forecaster ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    cube = small_cube()
    return SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, Reporter()), cube


def test_a_forecast_is_zero_for_cells_that_are_no_candidates(fitted):
    model, cube = fitted
    p = model.predict_next(cube, 30, 41)
    assert 0 < model.candidates_.sum() < cube.grid.valid.sum()
    assert (p[:, cube.grid.valid & ~model.candidates_] == 0).all()
    assert ((p[:, model.candidates_] > 0) & (p[:, model.candidates_] < 1)).all()
    assert model.quantity == "hot"


def test_the_threshold_is_the_best_of_the_validation_and_scores_are_kept(fitted):
    model, cube = fitted
    state = model.state()
    for name, (start, stop) in (("validation", (24, 32)), ("test", (32, 40))):
        labels = model.labels(cube)[start:stop, model.candidates_]
        p = model.predict_next(cube, start, stop)[:, model.candidates_]
        if name == "validation":
            assert model.threshold_ == pytest.approx(best_threshold(labels, p), abs=1e-6)
        found = state.values["scores"][name]
        assert found["best"] == pytest.approx(score(labels, p, model.threshold_).as_values(), nan_ok=True)
        assert found["half"] == pytest.approx(score(labels, p, 0.5).as_values(), nan_ok=True)
    json.dumps(state.values, allow_nan=False)
    again = SpatioLSTM.restore(json.loads(json.dumps(model.settings_dict())), state)
    assert again.threshold_ == model.threshold_
    assert again.scores_ == model.scores_
    assert again.settings == model.settings


def test_a_split_without_test_has_no_test_scores():
    split = Split(3, 24, 24, 32)
    model = SpatioLSTM(**{**SMALL, "epochs": 1}).fit(small_cube(), split, Reporter())
    assert set(model.scores_) == {"validation"}


def test_later_steps_take_the_average_for_what_is_not_known(fitted):
    model, cube = fitted
    expected = model.forecast(cube, 30, 3)
    mean = historical_average(cube.total, cube.axis)[30]
    assert np.ptp(mean) > 0
    events = np.zeros((32, 1, 6, 7), np.float32)
    events[:30, 0] = cube.total[:30]
    events[30:, 0] = mean
    filled = Cube(cube.grid, cube.axis.slice(0, 32), ("events",), events)
    assert expected == pytest.approx(model.predict_next(filled, 30, 33), abs=1e-6, nan_ok=True)


def test_balancing_does_not_make_hot_cells_more_probable():
    cube = small_cube(200)
    split = Split(3, 130, 130, 160, 160, 200)
    settings = {**SMALL, "epochs": 12, "candidates": "all_cells", "batch_size": 128}
    shares = {}
    for balance in ("none", "weights", "undersample"):
        model = SpatioLSTM(**settings, balance=balance).fit(cube, split, Reporter())
        p = model.predict_next(cube, 160, 200)[:, cube.grid.valid]
        shares[balance] = p.mean() / model.labels(cube)[160:, cube.grid.valid].mean()
    # Taken as they are, those of the balanced networks would be about four times too high.
    assert list(shares.values()) == pytest.approx([1, 1, 1], abs=0.5), shares


@pytest.mark.parametrize("cell", CELLS)
def test_the_network_learns_where_it_is_hot_next(cell):
    # Hot cells move one cell east each step: the neighbour in the west says who is next.
    grid = make_grid(6, 7, holes=False)
    events = np.zeros((60, 1, 6, 7), np.float32)
    for row in range(6):
        events[np.arange(60), 0, row, (np.arange(60) + 3 * row) % 7] = 5
    cube = Cube(grid, make_axis(60), ("events",), events)
    model = SpatioLSTM(
        lookback=2, label_value=6, cell=cell, epochs=25, learning_rate=0.02, batch_size=64, patience=25
    )
    model.fit(cube, Split(2, 44, 44, 52, 52, 60), Reporter())
    found = model.scores_["test"]["best"]
    assert found["auc"] > 0.95
    assert found["f1"] > 0.85


def test_more_layers_and_neighbours_can_be_had():
    cube = small_cube()
    model = SpatioLSTM(**{**SMALL, "epochs": 1}, neighbourhood=5, timing=False, location=False)
    model.fit(cube, SMALL_SPLIT, Reporter())
    assert model.network_.input_shape == (None, 3, 25)
    assert np.isfinite(model.predict_next(cube, 30, 41)[:, cube.grid.valid]).all()


def test_a_training_that_was_broken_off_goes_on_to_the_same_weights(tmp_path):
    cube = small_cube()
    whole = SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, Reporter())
    checkpoint = Checkpoint(tmp_path / "training", "this one")
    reporter = Recorder(cancel_when=lambda event: event.get("name") == "loss" and event.get("step") == 2)
    with pytest.raises(JobCancelled):
        SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, reporter, checkpoint=checkpoint)
    model = SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, Reporter(), checkpoint=checkpoint)
    assert model.history_["val_loss"] == pytest.approx(whole.history_["val_loss"], rel=1e-6)
    for one, two in zip(model.network_.get_weights(), whole.network_.get_weights()):
        assert one == pytest.approx(two, abs=1e-6)


def test_a_training_can_start_from_a_fitted_model(fitted):
    model, cube = fitted
    more = SpatioLSTM(**{**SMALL, "epochs": 1}).fit(cube, SMALL_SPLIT, Reporter(), start=model)
    assert more.history_["val_loss"][0] == pytest.approx(min(model.history_["val_loss"]), rel=1e-5)
    assert more.scaling_ == model.scaling_


def test_the_loop_stops_early_and_reports():
    reporter = Recorder()
    model = SpatioLSTM(**{**SMALL, "epochs": 40, "patience": 2, "learning_rate": 0.2}).fit(
        small_cube(), SMALL_SPLIT, reporter
    )
    losses = model.history_["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) - 1 == best + 2 < 40
    assert reporter.values("val_loss") == losses
    samples = model.samples_
    found = model.scores_["validation"]["half"]["log_loss"]
    assert (samples.validation > 0).any()
    # The weights of the best epoch are back.
    assert found == pytest.approx(losses[best], rel=1e-4)


def test_other_libraries_take_batch_after_batch(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    cube = small_cube()
    plain = SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, Reporter())
    monkeypatch.undo()
    blocks = SpatioLSTM(**SMALL).fit(cube, SMALL_SPLIT, Reporter())
    assert plain.history_["val_loss"] == pytest.approx(blocks.history_["val_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"lookback": 0}, "LOOKBACK = 0: The value must be at least 1."),
        ({"units": 0}, "UNITS = 0: The value must be at least 1."),
        ({"dense": 0}, "DENSE = 0: The value must be at least 1."),
        ({"epochs": 0}, "EPOCHS = 0: The value must be at least 1."),
        ({"neighbourhood": 0}, "NEIGHBOURHOOD = 0: The value must be at least 1."),
        (
            {"neighbourhood": 4},
            "NEIGHBOURHOOD = 4: The neighbourhood must have an odd number of cells, so that it has a middle. "
            "Give 3, or 21 as in the STNN.",
        ),
        ({"cell": "cnn"}, "CELL = cnn: There is no such choice. Choose one of lstm, rnn, gru."),
        (
            {"balance": "even"},
            "BALANCE = even: There is no such choice. Choose one of none, weights, undersample.",
        ),
        (
            {"split_mode": "k-fold"},
            "SPLIT_MODE = k-fold: There is no such choice. Choose one of chronological, random.",
        ),
        (
            {"candidates": "none"},
            "CANDIDATES = none: There is no such way to choose the cells. Choose one of training, all_steps, "
            "all_cells.",
        ),
        (
            {"label_rule": "top_share", "label_value": 0},
            "LABEL_VALUE = 0: The share of hot cells must be above 0 and at most 100 percent. 1 is a good "
            "start.",
        ),
    ],
)
def test_settings_are_checked(settings, text):
    with pytest.raises(InputError) as caught:
        SpatioLSTM(**settings)
    assert caught.value.text() == text


def test_a_model_needs_the_covariates_it_was_trained_with():
    cube = small_cube()
    scaling = Scaling({"counts": 0.0, "income": 1.0}, {"counts": 1.0, "income": 1.0})
    with pytest.raises(InputError) as caught:
        Inputs.of(cube, False, scaling)
    assert caught.value.text() == (
        "COVARIATES = income: The model needs the covariates income, the cube lacks income. Add them with "
        "'Add Covariates to Cube'."
    )
