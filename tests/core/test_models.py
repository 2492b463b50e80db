# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every forecasting model of the registry, the next one included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic import Recorder, changed, files_in, make_cube

from gridcast_qgis.core import jobs
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.jobs.common import describe_cube
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.base import Forecaster
from gridcast_qgis.core.models.registry import model_class, model_keys
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.training.splits import chronological_split

#: Whatever of these a model has as a setting is given to it, so that it trains in a moment.
SMALL = {
    "filters": 2,
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

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]


def settings_of(key: str) -> dict:
    known = {field.name for field in dataclasses.fields(model_class(key).Settings)}
    return {name: value for name, value in SMALL.items() if name in known}


def fit(key: str, cube: Cube) -> Forecaster:
    split = chronological_split(len(cube), LOOKBACK, 15)
    return model_class(key)(**settings_of(key)).fit(cube, split, Reporter())


@pytest.fixture(scope="module", params=model_keys())
def fitted(request, eager):
    """A model of each kind and the cube that it was fitted on."""
    cube = make_cube(STEPS)
    return fit(request.param, cube), cube


def test_the_registry_names_its_models():
    for key in model_keys():
        kind = model_class(key)
        assert issubclass(kind, Forecaster)
        assert kind.key == key
        assert kind.title
        assert dataclasses.is_dataclass(kind.Settings)
    assert len({model_class(key).title for key in model_keys()}) == len(model_keys())


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError) as caught:
        model_class("oracle")
    assert caught.value.text() == (
        "MODEL = oracle: Unknown model. Choose one of historical_average, weekday_average, convlstm, hetero."
    )


def test_forecasts_are_expected_counts_of_the_study_area(fitted):
    model, cube = fitted
    start = model.history
    expected = model.predict_next(cube, start, len(cube) + 1)
    assert expected.shape == (len(cube) + 1 - start, *cube.grid.shape)
    assert expected.dtype == np.float32
    assert np.isnan(expected[:, ~cube.grid.valid]).all()
    assert np.isfinite(expected[:, cube.grid.valid]).all()
    assert (expected[:, cube.grid.valid] >= 0).all()
    assert model.parameter_count >= 0
    assert model.history >= 1


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
    assert loaded.manifest["schema"] == "model/1"
    loaded.check_fits(cube)
    one = model.forecast(cube, len(cube), 3)
    assert loaded.model.forecast(cube, len(cube), 3) == pytest.approx(one, abs=1e-6, nan_ok=True)
    assert files_in(tmp_path) == [path.name]


def test_the_same_seed_gives_the_same_model_and_counts_outside_never_matter(fitted):
    model, cube = fitted
    outside = ~cube.grid.valid
    events = cube.events.copy()
    events[:, :, outside] = np.random.default_rng(5).poisson(20, events[:, :, outside].shape)
    noisy = changed(cube, events)
    expected = model.predict_next(cube, 33, 41)
    assert model.predict_next(noisy, 33, 41) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    again = fit(model.key, noisy)
    assert again.predict_next(cube, 33, 41) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("key", model_keys())
@pytest.mark.parametrize("case", ["constant", "one event", "one cell"])
def test_strange_cubes_give_sane_forecasts(key, case):
    cube = make_cube(20, 1, 1, holes=False) if case == "one cell" else make_cube(20)
    events = cube.events.copy()
    if case == "one event":
        events[:] = 0
        events[7, 0, 3, 3] = 1
    if case == "constant":
        events[:] = cube.grid.valid
    cube = changed(cube, events)
    expected = fit(key, cube).forecast(cube, len(cube), 2)[:, cube.grid.valid]
    assert np.isfinite(expected).all()
    assert (expected >= 0).all()
    assert expected.sum() < 4 * (events.sum() / len(cube) + 1)
    if case == "constant" and "average" in key:
        assert expected == pytest.approx(2)


@pytest.mark.parametrize("key", model_keys())
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
            "output_form",
            "sigmoid",
            "OUTPUT_FORM = sigmoid: Unknown form of the output. Choose poisson or linear.",
        ),
    ],
)
def test_settings_are_checked(key, setting, value, text):
    with pytest.raises(InputError) as caught:
        model_class(key)(**{setting: value})
    assert caught.value.text() == text
