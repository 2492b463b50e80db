# SPDX-License-Identifier: GPL-2.0-or-later
"""The ensemble: where its windows lie, how members are put together, and what happens if one fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Recorder, changed, files_in, make_cube

from gridcast_qgis.core.errors import GridcastError, InputError, JobCancelled
from gridcast_qgis.core.executors import run_tasks
from gridcast_qgis.core.models import ensemble as windowed
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster
from gridcast_qgis.core.models.ensemble import Window, spans, window_weights
from gridcast_qgis.core.models.hetero import HeteroForecaster
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.checkpoints import Checkpoint
from gridcast_qgis.core.training.splits import chronological_split

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
]


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


# Weights -----------------------------------------------------------------------------------------------


def cover_of(windows: list[Window], shape: tuple[int, int]) -> np.ndarray:
    """Return in how many windows each cell lies."""
    cover = np.zeros(shape, int)
    for window in windows:
        cover[window.slices] += 1
    return cover


def test_without_taper_overlapping_windows_count_the_same():
    windows = HeteroForecaster().windows(55, 50)
    weights = window_weights(windows, (55, 50), 0)
    cover = cover_of(windows, (55, 50))
    for weight, window in zip(weights, windows):
        assert weight[window.slices] == pytest.approx(1 / cover[window.slices])
        outside = np.ones((55, 50), bool)
        outside[window.slices] = False
        assert not weight[outside].any()


def test_a_taper_by_hand():
    # Rows 0-3 and 2-5: the first weighs less towards its lower edge, the second towards its upper one.
    weights = window_weights([Window(0, 4, 0, 1), Window(2, 6, 0, 1)], (6, 1), 2)
    assert weights[0, :, 0] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0])
    assert weights[1, :, 0] == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    # Where there is one window only, its edge does not matter.
    alone = window_weights([Window(1, 4, 0, 2)], (6, 2), 3)
    assert alone[0].tolist() == [[0, 0], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]]


@given(rows=st.integers(1, 30), columns=st.integers(1, 30), parts=st.integers(1, 5), taper=st.integers(0, 9))
def test_weights_sum_to_one_and_fall_off_towards_inner_edges(rows, columns, parts, taper):
    model = HeteroForecaster(
        subgrid_rows=parts, subgrid_columns=parts, window_rows=min(2, parts), window_columns=min(2, parts)
    )
    windows = model.windows(rows, columns)
    weights = window_weights(windows, (rows, columns), taper)
    assert (weights >= 0).all()
    assert weights.sum(axis=0) == pytest.approx(np.ones((rows, columns)))
    assert ((weights > 0).sum(axis=0) == cover_of(windows, (rows, columns))).all()
    # Turned upside down, the same.
    turned = [Window(rows - w.bottom, rows - w.top, w.left, w.right) for w in windows]
    assert window_weights(turned, (rows, columns), taper)[:, ::-1] == pytest.approx(weights)


class Constant:
    """Stands in for a trained member."""

    def __init__(self, value: float):
        self.value = value

    def predict_next(self, cube, start, stop):
        result = np.full((stop - start, *cube.grid.shape), self.value, np.float32)
        result[:, ~cube.grid.valid] = np.nan
        return result


class Knowing(Constant):
    """Knows what will happen, times a factor, plus a mistake."""

    def __init__(self, factor: float, mistake: float, seed: int = 0):
        self.factor, self.mistake, self.seed = factor, mistake, seed

    def predict_next(self, cube, start, stop):
        result = self.factor * cube.total[start:stop]
        noise = np.random.default_rng(self.seed).gamma(1, 1, result.shape)
        result = (result + self.mistake * noise).astype(np.float32)
        result[:, ~cube.grid.valid] = np.nan
        return result


def ensemble(members: list, rows: int, columns: int, **settings) -> HeteroForecaster:
    """Return a model with these members, as if it had been fitted."""
    model = HeteroForecaster(lookback=2, **settings)
    model.windows_ = model.windows(rows, columns)
    assert len(model.windows_) == len(members)
    model.members_ = members
    model.weights_ = window_weights(model.windows_, (rows, columns), model.settings.taper).astype(np.float32)
    return model


@pytest.mark.parametrize("taper", [0, 2])
def test_a_forecast_is_the_mean_of_the_windows_that_cover_the_cell(taper):
    cube = make_cube(12, 6, 7)
    values = (1, 10, 100, 1000)
    model = ensemble([Constant(value) for value in values], 6, 7, taper=taper)
    weights = window_weights(model.windows_, (6, 7), taper)
    expected = np.zeros((6, 7))
    for r, c in np.ndindex(6, 7):
        covering = [
            (weights[i, r, c], value)
            for i, (window, value) in enumerate(zip(model.windows_, values))
            if window.top <= r < window.bottom and window.left <= c < window.right
        ]
        if not taper:
            assert {weight for weight, _ in covering} == {1 / len(covering)}
        expected[r, c] = sum(weight * value for weight, value in covering)
    expected[~cube.grid.valid] = np.nan
    forecast = model.predict_next(cube, 5, 7)
    assert forecast == pytest.approx(np.stack([expected] * 2), rel=1e-5, nan_ok=True)


TWO = {"subgrid_rows": 3, "subgrid_columns": 1, "window_rows": 2, "window_columns": 1}


def learned(members: list, steps: int = 60) -> tuple[HeteroForecaster, np.ndarray]:
    """Return two members, upper and lower, with learned weights, and where both have a say."""
    cube = make_cube(steps, 6, 5, mean=1.5)
    model = ensemble(members, 6, 5, weights="learned", **TWO)
    assert [(w.top, w.bottom) for w in model.windows_] == [(0, 4), (2, 6)]
    model._learn_weights(cube, chronological_split(steps, 2, 40))
    both = np.zeros((6, 5), bool)
    both[2:4] = True
    # Where there is one member only, its weight stays 1.
    assert (model.weights_[0, :2] == 1).all()
    assert (model.weights_[1, 4:] == 1).all()
    assert not model.weights_[0, 4:].any()
    assert not model.weights_[1, :2].any()
    assert (model.weights_ >= 0).all()
    return model, both & cube.grid.valid


@pytest.mark.parametrize("right", [0, 1])
def test_learned_weights_trust_the_member_that_is_right(right):
    members = [Knowing(0.0, 3.0, seed) for seed in range(2)]
    members[right] = Knowing(1.0, 0.0)
    model, both = learned(members)
    assert model.weights_[right][both] == pytest.approx(1, abs=0.02)
    assert model.weights_[1 - right][both] == pytest.approx(0, abs=0.02)


def test_learned_weights_correct_the_level():
    model, both = learned([Knowing(0.5, 0.0), Knowing(0.0, 0.0)])
    assert model.weights_[0][both] == pytest.approx(2, abs=0.02)


def test_members_that_say_the_same_share_the_weight():
    model, both = learned([Knowing(1.0, 0.0), Knowing(1.0, 0.0)])
    assert model.weights_[:, both] == pytest.approx(0.5, abs=1e-3)


def test_a_member_that_says_the_opposite_is_not_turned_round():
    model, both = learned([Knowing(1.0, 0.5), Knowing(-1.0, 0.0)])
    assert model.weights_[1][both] == pytest.approx(0, abs=1e-6)


def test_learned_weights_make_no_larger_error_on_what_they_were_learned_from():
    cube = make_cube(60, 6, 5, mean=1.5)
    split = chronological_split(60, 2, 40)
    members = [Knowing(0.9, 1.0, 1), Knowing(0.6, 0.4, 2)]
    errors = []
    for weights in ("equal", "learned"):
        model = ensemble(members, 6, 5, weights=weights, **TWO)
        if weights == "learned":
            model._learn_weights(cube, split)
        period = slice(split.validation_start, split.validation_stop)
        difference = cube.total[period] - model.predict_next(cube, period.start, period.stop)
        errors.append(np.nanmean(difference**2))
    assert errors[1] < errors[0]


def test_weights_are_learned_however_many_members_there_are():
    cube = make_cube(60, 20, 20, mean=1.5)
    layout = {"subgrid_rows": 10, "subgrid_columns": 10, "window_rows": 2, "window_columns": 2}
    members = [Knowing(float(number % 2), float(1 - number % 2), number) for number in range(81)]
    model = ensemble(members, 20, 20, weights="learned", **layout)
    model._learn_weights(cube, chronological_split(60, 2, 40))
    # A window that is wrong lies beside those that are right.
    shared = (cover_of(model.windows_, (20, 20)) > 1) & cube.grid.valid
    right = model.weights_[1::2].sum(axis=0)[shared]
    wrong = model.weights_[::2].sum(axis=0)[shared]
    assert right == pytest.approx(1, abs=0.1)
    assert wrong == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("members", [[Constant(0.0), Constant(0.0)], [Knowing(0.0, 0.0), Constant(1.0)]])
def test_members_without_any_events_get_finite_weights(members):
    cube = make_cube(40, 6, 5)
    model = ensemble(members, 6, 5, weights="learned", **TWO)
    model._learn_weights(changed(cube, np.zeros_like(cube.events)), chronological_split(40, 2, 40))
    assert np.isfinite(model.weights_).all()
    assert (model.weights_ >= 0).all()


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
    "workers": (0, "WORKERS = 0: The value must be at least 1."),
    "weights": ("best", "WEIGHTS = best: There is no such choice. Choose one of equal, learned."),
    "taper": (
        -1,
        "TAPER = -1: A taper is a number of cells, 0 with learned weights. Give 0, or a number such as 3 "
        "with WEIGHTS equal.",
    ),
    "window_stride": (0, "WINDOW_STRIDE = 0: The value must be at least 1."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_windows_that_do_not_fit_are_refused(name):
    value, text = REFUSED[name]
    with pytest.raises(InputError) as caught:
        HeteroForecaster(**{name: value})
    assert caught.value.text() == text


def test_learned_weights_and_a_taper_exclude_each_other():
    with pytest.raises(InputError) as caught:
        HeteroForecaster(weights="learned", taper=2)
    assert caught.value.parameter == "TAPER"


# Fitting -----------------------------------------------------------------------------------------------

SMALL = {"lookback": 2, "filters": 2, "epochs": 2, "batch_size": 32, "learning_rate": 0.01, **TWO}
CUBE = make_cube(40)
SPLIT = chronological_split(40, 2, 15)


def weights_of(model: HeteroForecaster) -> list[np.ndarray]:
    return [w for member in model.members_ for w in member.network_.get_weights()]


def test_a_window_without_study_area_gets_no_member(eager):
    cube = make_cube(30, 6, 6, holes=False)
    cube.grid.inside[:, :3] = 0
    layout = {"subgrid_rows": 2, "subgrid_columns": 2, "window_rows": 1, "window_columns": 1}
    split = chronological_split(30, 2, 15)
    model = HeteroForecaster(**{**SMALL, **layout, "epochs": 1}).fit(cube, split, Reporter())
    assert [member.network_.input_shape[2:4] for member in model.members_] == [(3, 3), (3, 3)]
    assert [window.left for window in model.windows_] == [3, 3]
    # Members differ, but the whole follows from one seed.
    assert [member.settings.seed for member in model.members_] == [1, 2]


@pytest.fixture(scope="module")
def one_by_one(eager):
    return HeteroForecaster(**SMALL).fit(CUBE, SPLIT, Recorder())


def test_each_member_is_a_network_of_its_window(one_by_one):
    assert [member.network_.input_shape[2:4] for member in one_by_one.members_] == [(4, 7), (4, 7)]
    for number, (window, member) in enumerate(zip(one_by_one.windows_, one_by_one.members_)):
        settings = {**one_by_one.settings.member_settings(), "seed": 1 + number}
        alone = ConvLSTMForecaster(**settings).fit(CUBE.crop(*window.slices), SPLIT, Recorder())
        for one, two in zip(alone.network_.get_weights(), member.network_.get_weights()):
            assert (one == two).all()


def test_the_history_is_the_mean_of_the_members(one_by_one):
    model = HeteroForecaster.restore(one_by_one.settings_dict(), one_by_one.state())
    first, second = (list(member.history_["val_loss"]) for member in model.members_)
    assert len(first) == len(second) == 3
    # It stopped early.
    model.members_[1].history_ = {**model.members_[1].history_, "val_loss": second[:2]}
    mean = [(first[0] + second[0]) / 2, (first[1] + second[1]) / 2, (first[2] + second[1]) / 2]
    assert model.history_["val_loss"] == pytest.approx(mean)


def test_progress_runs_over_all_members(eager):
    reporter = Recorder()
    HeteroForecaster(**SMALL).fit(CUBE, SPLIT, reporter)
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(100)
    assert min(progress) < 30
    assert reporter.texts("info")[0].startswith("Member 1 of 2 (rows 0-3, columns 0-6): ")


# Members that fail -------------------------------------------------------------------------------------

#: Windows of two thirds by two thirds, as in the paper.
FOUR = SMALL | {"subgrid_columns": 3, "window_columns": 2, "epochs": 1}


def failing(monkeypatch, numbers: tuple[int, ...], error: Exception) -> list[int]:
    """Let the members with these numbers fail; return the list of all that were tried."""
    fit, tried = ConvLSTMForecaster.fit, []

    def fit_or_fail(self, *arguments, **options):
        number = self.settings.seed - 1
        tried.append(number)
        if number in numbers:
            raise error
        return fit(self, *arguments, **options)

    monkeypatch.setattr(ConvLSTMForecaster, "fit", fit_or_fail)
    return tried


def narrow_city():
    """Return a cube whose city is the one column in which all windows of :data:`FOUR` overlap."""
    cube = make_cube(40, 6, 7, holes=False)
    cube.grid.inside[:, :3] = 0
    cube.grid.inside[:, 4:] = 0
    return cube


def test_a_member_that_fails_does_not_lose_the_others(eager, monkeypatch):
    cube = narrow_city()
    whole = HeteroForecaster(**FOUR).fit(cube, SPLIT, Recorder())
    assert [(w.top, w.left, w.right) for w in whole.windows_] == [(0, 0, 4), (0, 3, 7), (2, 0, 4), (2, 3, 7)]
    tried = failing(monkeypatch, (1,), InputError("Diverged."))
    reporter = Recorder()
    model = HeteroForecaster(**FOUR).fit(cube, SPLIT, reporter)
    assert tried == [0, 1, 2, 3]
    assert [(w.top, w.left) for w in model.windows_] == [(0, 0), (2, 0), (2, 3)]
    told = [text for text in reporter.texts() if "failed" in text or "be trained" in text]
    assert told == [
        "Member 2 of 4 (rows 0-3, columns 3-6) failed: Diverged.",
        "Of 4 members, number 2 could not be trained. Its cells are forecast by the members whose windows "
        "overlap it.",
    ]
    assert model.weights_.sum(axis=0)[cube.grid.valid] == pytest.approx(1)
    # Cells that the lost member had no part in are forecast as before.
    forecast, before = (m.predict_next(cube, 35, 41) for m in (model, whole))
    assert np.isfinite(forecast[:, cube.grid.valid]).all()
    assert forecast[:, 4:] == pytest.approx(before[:, 4:], abs=1e-6, nan_ok=True)
    # The members that are left are those that they would have been.
    kept = [w for number in (0, 2, 3) for w in whole.members_[number].network_.get_weights()]
    for one, two in zip(kept, weights_of(model)):
        assert (one == two).all()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError("no memory"), "This machine has not enough memory for the job. Use larger cells, "),
        (ArithmeticError("x"), "Gridcast failed where it should not: ArithmeticError: x Please"),
        (GridcastError("Broken."), "Broken."),
    ],
)
def test_members_fail_for_many_reasons(eager, monkeypatch, error, text):
    failing(monkeypatch, (0, 3), error)
    reporter = Recorder()
    model = HeteroForecaster(**FOUR).fit(narrow_city(), SPLIT, reporter)
    assert [(w.top, w.left) for w in model.windows_] == [(0, 3), (2, 0)]
    failed = [told for told in reporter.texts() if " failed: " in told]
    assert [told.split(" failed: ")[1].startswith(text) for told in failed] == [True, True]
    assert reporter.texts()[-1].startswith("Of 4 members, number 1, 4 could not be trained.")


def test_a_checkpoint_that_does_not_fit_ends_the_training(eager, monkeypatch):
    failing(monkeypatch, (0, 1), InputError("It is another's.", parameter="CHECKPOINT"))
    reporter = Recorder()
    with pytest.raises(InputError) as caught:
        HeteroForecaster(**SMALL).fit(CUBE, SPLIT, reporter)
    assert caught.value.text() == "CHECKPOINT: It is another's."
    assert reporter.texts() == []


def test_cells_that_only_the_lost_member_covers_end_the_training(eager, monkeypatch):
    failing(monkeypatch, (1,), InputError("Diverged."))
    with pytest.raises(GridcastError) as caught:
        HeteroForecaster(**SMALL).fit(CUBE, SPLIT, Recorder())
    assert caught.value.text() == (
        "Of 2 members, number 2 could not be trained, and without it there are cells without a forecast. The "
        "messages above say why. With CHECKPOINT, the others need not be trained again."
    )


def test_cancel_is_no_failure_of_a_member(eager, monkeypatch):
    tried = failing(monkeypatch, (0,), JobCancelled())
    with pytest.raises(JobCancelled):
        HeteroForecaster(**SMALL).fit(CUBE, SPLIT, Recorder())
    assert tried == [0]


# Where they are trained --------------------------------------------------------------------------------


def test_members_are_trained_where_the_settings_say(one_by_one, monkeypatch):
    asked = []

    def run(tasks, folder, reporter, **where):
        asked.append(where)
        run_tasks(tasks, folder, reporter)

    monkeypatch.setattr(windowed, "run_tasks", run)
    model = HeteroForecaster(**SMALL, workers=2)
    model.scheduler = "tcp://far.example:8786"
    model.fit(CUBE, SPLIT, Recorder())
    assert asked == [{"workers": 2, "scheduler": "tcp://far.example:8786"}]
    for one, two in zip(weights_of(one_by_one), weights_of(model)):
        assert one.tobytes() == two.tobytes()
    assert model.history_["val_loss"] == one_by_one.history_["val_loss"]
    # Where it was trained is no setting.
    assert "scheduler" not in model.settings_dict()


def test_a_broken_off_ensemble_goes_on(one_by_one, tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.ckpt", "x")
    # In the second member.
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress" and event["value"] > 80)
    with pytest.raises(JobCancelled):
        HeteroForecaster(**SMALL).fit(CUBE, SPLIT, reporter, checkpoint=checkpoint)
    assert len(files_in(tmp_path)) == 2
    model = HeteroForecaster(**SMALL).fit(CUBE, SPLIT, Recorder(), checkpoint=checkpoint)
    for one, two in zip(weights_of(one_by_one), weights_of(model)):
        assert one.tobytes() == two.tobytes()
    checkpoint.remove()
    assert files_in(tmp_path) == []


def test_members_start_from_those_of_the_same_window(one_by_one):
    best = [min(member.history_["val_loss"]) for member in one_by_one.members_]
    model = HeteroForecaster(**SMALL).fit(CUBE, SPLIT, Recorder(), start=one_by_one)
    begins = [member.history_["val_loss"][0] for member in model.members_]
    assert begins == pytest.approx(best, rel=1e-5)
    assert [member.scaling_ for member in model.members_] == [
        member.scaling_ for member in one_by_one.members_
    ]


@pytest.mark.slow
@pytest.mark.worker
def test_members_trained_in_processes_of_their_own_are_the_same(one_by_one):
    reporter = Recorder()
    model = HeteroForecaster(**SMALL, workers=2).fit(CUBE, SPLIT, reporter)
    assert not [text for text in reporter.texts() if "failed" in text]
    for one, two in zip(weights_of(one_by_one), weights_of(model)):
        assert two == pytest.approx(one, abs=1e-5)
    assert model.predict_next(CUBE, 35, 41) == pytest.approx(
        one_by_one.predict_next(CUBE, 35, 41), abs=1e-5, nan_ok=True
    )
