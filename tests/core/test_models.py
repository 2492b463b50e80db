# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every forecasting model of the registry, the next one included."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
from synthetic import Recorder, changed, files_in, make_cube

from gridcast_qgis.core import jobs
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.jobs.common import describe_cube
from gridcast_qgis.core.modelfile import SCHEMA, load_model, save_model
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.registry import model_class, model_keys
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.checkpoints import Checkpoint
from gridcast_qgis.core.training.splits import chronological_split

#: Whatever of these a model has as a setting is given to it, so that it trains in a moment.
SMALL = {
    "filters": 2,
    "width": 0.4,
    "units": 3,
    "dense": 3,
    "trees": 20,
    "label_value": 5.0,
    "epochs": 1,
    "batch_size": 64,
    "lookback": 2,
    "learning_rate": 0.01,
    "subgrid_rows": 2,
    "subgrid_columns": 1,
    "window_rows": 1,
    "window_columns": 1,
}
STEPS = 40
LOOKBACK = SMALL["lookback"]

KEYS = model_keys()
#: Models that are trained epoch by epoch.
TRAINED = [key for key in KEYS if "epochs" in {f.name for f in dataclasses.fields(model_class(key).Settings)}]
#: Averages over the past, which learn nothing.
AVERAGES = ["historical_average", "weekday_average", "seasonal_naive", "ewma", "kde", "promap"]

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]


def settings_of(key: str, **changes: object) -> dict:
    known = {field.name for field in dataclasses.fields(model_class(key).Settings)}
    return {name: value for name, value in (SMALL | changes).items() if name in known}


def fit(key: str, cube: Cube, *, reporter: Reporter | None = None, changes: dict | None = None, **options):
    split = chronological_split(len(cube), LOOKBACK, 15)
    model = model_class(key)(**settings_of(key, **(changes or {})))
    return model.fit(cube, split, reporter or Reporter(), **options)


@functools.cache
def model_of(key: str) -> tuple[Forecaster, Cube]:
    """Return a model of this kind and the cube that it was fitted on."""
    cube = make_cube(STEPS)
    return fit(key, cube), cube


@pytest.fixture(params=KEYS)
def fitted(request, eager):
    """A model of each kind and the cube that it was fitted on."""
    return model_of(request.param)


@pytest.fixture(params=TRAINED)
def trained(request, eager):
    """The same of those that are trained epoch by epoch."""
    return model_of(request.param)


def parts_of(model: Forecaster) -> list[Forecaster]:
    """Return the members of an ensemble, or the model itself."""
    return getattr(model, "members_", [model])


def without_times(values: object) -> object:
    """Return plain values without those that differ from run to run."""
    if isinstance(values, dict):
        return {key: without_times(value) for key, value in values.items() if key != "seconds"}
    return [without_times(value) for value in values] if isinstance(values, list) else values


def assert_same_model(one: Forecaster, two: Forecaster) -> None:
    """Assert that two models are the same to the bit: weights, arrays, values, history."""
    a, b = one.state(), two.state()
    assert without_times(a.values) == without_times(b.values)
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        assert np.array_equal(a.arrays[name], b.arrays[name], equal_nan=True), name
    assert a.networks.keys() == b.networks.keys()
    for name in a.networks:
        for x, y in zip(a.networks[name].get_weights(), b.networks[name].get_weights()):
            assert x.tobytes() == y.tobytes()


def test_the_registry_names_its_models():
    for key in KEYS:
        kind = model_class(key)
        assert issubclass(kind, Forecaster)
        assert kind.key == key
        assert kind.title
        assert kind.quantity in ("events", "probability", "hot")
        assert dataclasses.is_dataclass(kind.Settings)
    assert len({model_class(key).title for key in KEYS}) == len(KEYS)


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError) as caught:
        model_class("oracle")
    assert caught.value.text() == f"MODEL = oracle: Unknown model. Choose one of {', '.join(KEYS)}."


def test_forecasts_are_numbers_of_the_study_area(fitted):
    model, cube = fitted
    start, valid = model.history, cube.grid.valid
    forecast = model.predict_next(cube, start, len(cube) + 1)
    assert forecast.shape == (len(cube) + 1 - start, *cube.grid.shape)
    assert forecast.dtype == np.float32
    assert np.isnan(forecast[:, ~valid]).all()
    assert np.isfinite(forecast[:, valid]).all()
    assert (forecast[:, valid] >= 0).all()
    if model.quantity != "events":
        assert (forecast[:, valid] <= 1).all()
    # Where there is nothing to learn, as here, boosting ends without a tree.
    if model.key != "boosted_trees":
        assert (model.parameter_count > 0) == (model.key not in AVERAGES)
    assert model.history >= 1
    assert model.batch_bytes(cube) >= 0
    assert model.type_names == (cube.types if model.key == "gridcast" else ())


def test_forecasts_stand_for_events_and_probabilities(fitted):
    model, cube = fitted
    valid = cube.grid.valid
    forecast = model.predict_next(cube, 30, len(cube))
    for values in (model.expected_events(forecast), model.probability(forecast)):
        assert values.shape == forecast.shape
        assert (np.isnan(values) == np.isnan(forecast)).all()
        assert (values[:, valid] >= 0).all()
        # More stays more.
        order = np.argsort(forecast[0, valid], kind="stable")
        assert (np.diff(values[0, valid][order]) >= 0).all()
    assert (model.probability(forecast)[:, valid] <= 1).all()
    outcome = model.outcome(cube, 30, len(cube))
    assert outcome.shape == forecast.shape
    assert outcome.dtype == bool
    assert not outcome[:, ~valid].any()
    if model.quantity == "hot":
        assert outcome.sum(axis=(1, 2)).max() <= SMALL["label_value"]
    else:
        assert (outcome == (cube.total[30:] > 0)).all()


def test_steps_can_be_asked_for_one_by_one_or_together(fitted):
    model, cube = fitted
    together = model.predict_next(cube, 20, 31)
    one_by_one = np.concatenate([model.predict_next(cube, t, t + 1) for t in (20, 25, 30)])
    assert one_by_one == pytest.approx(together[[0, 5, 10]], abs=1e-5, nan_ok=True)


def test_a_forecast_never_looks_at_its_step_or_a_later_one(fitted):
    model, cube = fitted
    known = 30
    events = cube.events.copy()
    events[known:] = 9 * cube.grid.valid
    future = changed(cube, events)
    # The forecast of the first changed step itself is the same.
    before, after = (model.predict_next(c, known - 3, known + 1) for c in (cube, future))
    assert after == pytest.approx(before, abs=1e-6, nan_ok=True)
    later = (model.predict_next(c, known + 7, len(cube) + 1) for c in (cube, future))
    assert not np.allclose(*later, equal_nan=True)


def test_a_forecast_of_several_steps_knows_the_steps_before_its_origin_only(fitted):
    model, cube = fitted
    origin, horizon = 30, 2
    reporter = Recorder()
    expected = model.forecast(cube, origin, horizon, reporter)
    assert expected.shape == (horizon, *cube.grid.shape)
    assert expected.dtype == np.float32
    assert (np.isnan(expected) == ~cube.grid.valid).all()
    assert (expected[:, cube.grid.valid] >= 0).all()
    assert expected[0] == pytest.approx(
        model.predict_next(cube, origin, origin + 1)[0], abs=1e-5, nan_ok=True
    )
    events = cube.events.copy()
    events[origin:] = 9 * cube.grid.valid
    assert model.forecast(changed(cube, events), origin, horizon) == pytest.approx(
        expected, abs=1e-6, nan_ok=True
    )
    assert model.forecast(cube.steps(0, origin), origin, horizon) == pytest.approx(
        expected, abs=1e-6, nan_ok=True
    )
    progress = [event["value"] for event in reporter.events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert len(progress) == horizon


def test_a_forecast_can_begin_after_the_end_of_the_cube_and_be_cancelled(fitted):
    model, cube = fitted
    reporter = Recorder(cancel_when=lambda event: event["event"] == "progress")
    with pytest.raises(JobCancelled):
        model.forecast(cube, len(cube), 5, reporter)
    assert len(reporter.events) == 1


def test_a_forecast_needs_a_horizon_and_a_history(fitted):
    model, cube = fitted
    with pytest.raises(InputError) as caught:
        model.forecast(cube, len(cube), 0)
    assert caught.value.text().startswith("HORIZON = 0: The horizon must be at least one step.")
    with pytest.raises(InputError) as caught:
        model.forecast(cube, model.history - 1, 1)
    assert caught.value.text() == (
        f"LOOKBACK = {model.history}: The cube has {model.history - 1} steps before the forecast, the model "
        f"looks back {model.history}. Use a cube with a longer history, or a model with a shorter lookback."
    )


def test_a_saved_model_forecasts_the_same(fitted, tmp_path):
    model, cube = fitted
    path = tmp_path / "mödel file.gridcast"
    save_model(model, path, {"cube": describe_cube(cube), "types": None})
    loaded = load_model(path)
    assert type(loaded.model) is type(model)
    assert loaded.model.settings == model.settings
    assert loaded.model.parameter_count == model.parameter_count
    assert loaded.manifest["schema"] == SCHEMA
    loaded.check_fits(cube)
    one = model.forecast(cube, len(cube), 3)
    assert loaded.model.forecast(cube, len(cube), 3) == pytest.approx(one, abs=1e-6, nan_ok=True)
    assert files_in(tmp_path) == [path.name]


def test_counts_outside_never_matter_and_the_same_seed_gives_the_same_model(fitted):
    model, cube = fitted
    outside = ~cube.grid.valid
    events = cube.events.copy()
    events[:, :, outside] = np.random.default_rng(5).poisson(20, events[:, :, outside].shape)
    noisy = changed(cube, events)
    expected = model.predict_next(cube, 33, 41)
    assert model.predict_next(noisy, 33, 41) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    again = fit(model.key, noisy)
    assert_same_model(again, model)
    assert again.predict_next(cube, 33, 41) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_another_seed_gives_another_model(trained):
    model, cube = trained
    other = fit(model.key, cube, changes={"seed": 7})
    weights = [w for part in parts_of(model) for w in part.network_.get_weights()]
    others = [w for part in parts_of(other) for w in part.network_.get_weights()]
    assert not all(np.array_equal(one, two) for one, two in zip(weights, others))


def test_nothing_after_the_training_and_validation_is_learned_from(fitted):
    model, cube = fitted
    key = model.key
    split = chronological_split(STEPS, LOOKBACK, 15)
    events = np.concatenate([cube.events, 9 * np.ones_like(cube.events[:6]) * cube.grid.valid])
    longer = dataclasses.replace(cube, axis=cube.axis.extended(6), events=events)
    again = model_class(key)(**settings_of(key)).fit(longer, split, Reporter())
    assert_same_model(again, model)


# Trainings that are broken off, and that go on ---------------------------------------------------------


def counting_validations(stop: int | None) -> Recorder:
    """Return a reporter that cancels after so many epochs of all networks together."""
    seen = []

    def full(event):
        if str(event.get("name")).endswith("val_loss") and event["step"] > 0:
            seen.append(event)
        return len(seen) == stop

    reporter = Recorder(cancel_when=full)
    reporter.seen = seen
    return reporter


@pytest.mark.parametrize("key", TRAINED)
def test_a_training_that_was_broken_off_ends_as_if_it_had_not_been(key, tmp_path):
    # Models that look at cells one by one have more samples.
    cube, changes = make_cube(30), {"epochs": 2, "batch_size": 256 if "units" in settings_of(key) else 12}
    reporter = counting_validations(None)
    whole = fit(key, cube, reporter=reporter, changes=changes)
    epochs = len(reporter.seen)
    assert epochs == 2 * len(parts_of(whole))
    # In the last epoch: of an ensemble, that of its last member.
    checkpoint = Checkpoint(tmp_path / "run.ckpt", "x")
    with pytest.raises(JobCancelled):
        fit(key, cube, reporter=counting_validations(epochs - 1), changes=changes, checkpoint=checkpoint)
    # The second time there is nothing left to train.
    for left in (1, 0):
        reporter = counting_validations(None)
        resumed = fit(key, cube, reporter=reporter, changes=changes, checkpoint=checkpoint)
        assert_same_model(resumed, whole)
        assert len(reporter.seen) == left
    assert files_in(tmp_path)
    checkpoint.remove()
    assert not files_in(tmp_path)


@pytest.mark.parametrize("key", TRAINED)
def test_the_checkpoint_of_another_training_is_refused(key, tmp_path):
    cube, path = make_cube(20), tmp_path / "run.ckpt"
    fit(key, cube, checkpoint=Checkpoint(path, "x"))
    files = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    with pytest.raises(InputError) as caught:
        fit(key, cube, checkpoint=Checkpoint(path, "y"))
    assert caught.value.parameter == "CHECKPOINT"
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == files
    for name in files:
        (tmp_path / name).write_bytes(files[name][:100])
    with pytest.raises(InputError) as caught:
        fit(key, cube, checkpoint=Checkpoint(path, "x"))
    assert caught.value.parameter == "CHECKPOINT"


def test_a_training_starts_from_a_fitted_model(fitted):
    model, cube = fitted
    changes = {"learning_rate": 1e-9}
    again = fit(model.key, cube, changes=changes, start=model)
    # It begins where the other one was best, and hardly moves on from there.
    for part, earlier in zip(parts_of(again), parts_of(model)):
        if model.key in TRAINED:
            best = min(earlier.history_["val_loss"])
            assert part.history_["val_loss"][0] == pytest.approx(best, rel=1e-4)
    expected = model.predict_next(cube, 33, 41)
    # Moving averages do not stand still.
    assert again.predict_next(cube, 33, 41) == pytest.approx(expected, abs=0.02, nan_ok=True)


def test_what_was_learned_before_keeps_its_scaling(trained):
    model, cube = trained
    key = model.key
    busier = changed(cube, 20 * cube.events)
    again = fit(key, busier, start=model)
    scalings = ([dataclasses.asdict(part.scaling_) for part in parts_of(each)] for each in (again, model))
    np.testing.assert_equal(*scalings)


# Strange cubes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", ["constant", "one event", "no event", "one cell", "one column"])
def test_strange_cubes_give_sane_forecasts(key, case):
    shape = {"one cell": (1, 1), "one column": (5, 1)}.get(case)
    cube = make_cube(20, *shape, mean=2, holes=False) if shape else make_cube(20)
    events = cube.events.copy()
    if case in ("one event", "no event"):
        events[:] = 0
    if case == "one event":
        events[7, 0, 3, 3] = 1
    if case == "constant":
        events[:] = cube.grid.valid
    cube = changed(cube, events)
    try:
        model = fit(key, cube)
    except InputError as error:
        # Where there are no hot cells, those that could be hot cannot be told from others.
        assert (case, model_class(key).quantity) == ("no event", "hot")
        assert "hot" in error.text()
        return
    forecast = model.forecast(cube, len(cube), 2)
    expected = model.expected_events(forecast)[:, cube.grid.valid]
    assert np.isfinite(forecast[:, cube.grid.valid]).all()
    assert np.isfinite(expected).all()
    assert (expected >= 0).all()
    usual = cube.total if model.quantity == "events" else cube.total > 0
    if model.quantity != "hot":
        assert np.nansum(forecast) < 4 * (usual.sum() / len(cube) + 1)
    if case == "constant" and key in AVERAGES:
        # A density has fewer events where less of a cell lies inside.
        whole = cube.grid.inside[cube.grid.valid] == 1
        tolerance = 0.1 if key in ("kde", "promap") else 1e-6
        assert expected[:, whole] == pytest.approx(2, rel=tolerance)
    assert_readable(model, cube, forecast)


def assert_readable(model: Forecaster, cube: Cube, forecast: np.ndarray) -> None:
    """Assert that what a model learned is plain enough for its file, and gives the same forecast again."""
    state = model.state()
    values = json.loads(json.dumps(state.values))
    again = type(model).restore(
        json.loads(json.dumps(model.settings_dict())), dataclasses.replace(state, values=values)
    )
    assert again.forecast(cube, len(cube), 2) == pytest.approx(forecast, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("key", KEYS)
def test_a_cancelled_training_leaves_nothing(key, tmp_path):
    cube = tmp_path / "cube.nc"
    make_cube(STEPS).write(cube)
    reporter = Recorder(cancel_when=lambda event: event.get("name") == "Training")
    request = {"cube": str(cube), "output": str(tmp_path / "out.gridcast"), "model": key, **settings_of(key)}
    with pytest.raises(JobCancelled):
        jobs.run_job("train", request, reporter)
    assert files_in(tmp_path) == ["cube.nc"]


@pytest.mark.parametrize("key", ["convlstm", "hetero"])
@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("lookback", 0, "LOOKBACK = 0: The value must be at least 1."),
        ("filters", 0, "FILTERS = 0: The value must be at least 1."),
        ("epochs", 0, "EPOCHS = 0: The value must be at least 1."),
        ("batch_size", 0, "BATCH_SIZE = 0: The value must be at least 1."),
        ("patience", 0, "PATIENCE = 0: The value must be at least 1."),
        ("seed", -1, "SEED = -1: The value must be at least 0."),
        (
            "kernel",
            4,
            "KERNEL = 4: The kernel must have an odd number of cells, so that it has a middle. Give 1, 3 or "
            "5.",
        ),
        (
            "learning_rate",
            1.0,
            "LEARNING_RATE = 1.0: The learning rate must lie between 0 and 1. 0.002 is a good start.",
        ),
        (
            "loss_form",
            "published",
            "LOSS_FORM = published: The published loss is a squared error of counts. Choose OUTPUT_FORM "
            "linear and switch BASE_RATE off, or choose LOSS_FORM corrected.",
        ),
        (
            "output_form",
            "sigmoid",
            "OUTPUT_FORM = sigmoid: There is no such choice. Choose one of poisson, linear.",
        ),
    ],
)
def test_settings_are_checked(key, setting, value, text):
    with pytest.raises(InputError) as caught:
        model_class(key)(**{setting: value})
    assert caught.value.text() == text
