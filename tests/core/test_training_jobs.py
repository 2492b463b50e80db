# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that trains: splits, continued and interrupted runs, what the model file tells."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from synthetic import Recorder, files_in, make_cube

from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.modelfile import load_model
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster
from gridcast_qgis.core.reporter import Reporter

STEPS = 80

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
]

TINY = {
    "convlstm": {"filters": 2, "lookback": 3, "epochs": 2, "learning_rate": 0.01},
    "shotspotter": {"width": 0.2, "lookback": 3, "epochs": 2, "learning_rate": 0.01},
    "hetero": {"filters": 2, "lookback": 3, "epochs": 2, "learning_rate": 0.01},
    "spatiolstm": {"units": 3, "dense": 3, "lookback": 3, "epochs": 2, "label_value": 4},
}

#: Of the Gridcast network, whose runs that are broken off are tested with the models.
QUICK = {"size": "fast", "epochs": 2, "learning_rate": 0.01, "final_networks": 1}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory) -> Path:
    """A folder with a cube of 80 steps and its first 60."""
    folder = tmp_path_factory.mktemp("cubes")
    cube = make_cube(STEPS)
    cube.write(folder / "long.nc")
    cube.steps(0, 60).write(folder / "short.nc")
    return folder


def train(cube: Path, output: Path, model: str, reporter: Reporter | None = None, **fields):
    request = {"cube": str(cube), "output": str(output), "model": model, **TINY.get(model, {}), **fields}
    return run_job("train", request, reporter or Reporter())


def weights_of(path: Path) -> list[np.ndarray]:
    state = load_model(path).model.state()
    networks = [state.networks[name] for name in sorted(state.networks)]
    return [weight for network in networks for weight in network.get_weights()]


def after_an_epoch() -> Recorder:
    """Return a reporter that stops the job once an epoch has been reported."""
    return Recorder(cancel_when=lambda event: "Epoch 1 of" in str(event.get("text")))


@pytest.mark.parametrize("model", TINY)
def test_a_run_that_was_broken_off_goes_on_to_the_same_model(cubes, tmp_path, model):
    whole, parts, state = tmp_path / "whole.gridcast", tmp_path / "parts.gridcast", tmp_path / "state"
    train(cubes / "long.nc", whole, model)
    with pytest.raises(JobCancelled):
        train(cubes / "long.nc", parts, model, after_an_epoch(), checkpoint=str(state))
    assert not parts.exists()
    kept = [name for name in files_in(tmp_path) if name.startswith("state")]
    assert kept
    recorder = Recorder()
    train(cubes / "long.nc", parts, model, recorder, checkpoint=str(state))
    assert any("Continuing after epoch 1 of 2" in text for text in recorder.texts("info"))
    assert files_in(tmp_path) == ["parts.gridcast", "whole.gridcast"]
    for one, two in zip(weights_of(whole), weights_of(parts), strict=True):
        assert (one == two).all()


def test_a_checkpoint_of_other_settings_is_refused(cubes, tmp_path):
    state = str(tmp_path / "state")
    with pytest.raises(JobCancelled):
        train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm", after_an_epoch(), checkpoint=state)
    with pytest.raises(InputError) as caught:
        train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm", checkpoint=state, filters=3)
    assert caught.value.parameter == "CHECKPOINT"
    assert "belongs to a training on other data or with other settings" in caught.value.text()


@pytest.mark.parametrize("model", TINY)
def test_a_model_is_continued_on_newer_steps_only(cubes, tmp_path, model):
    first, second = tmp_path / "first.gridcast", tmp_path / "second.gridcast"
    train(cubes / "short.nc", first, model)
    before = load_model(first).manifest
    continued = {"continue_from": str(first), "epochs": 1, "batch_size": 4}
    outputs = train(cubes / "long.nc", second, model, **continued)
    after = load_model(second).manifest
    assert after["split"]["train_start"] == before["split"]["train_stop"]
    assert outputs["train_steps"] == after["split"]["train_stop"] - before["split"]["train_stop"]
    assert after["split"]["validation_stop"] == STEPS
    assert after["values"].get("scaling") == before["values"].get("scaling")
    # What the model is stays, how it is trained may change.
    assert after["settings"] == before["settings"] | {"epochs": 1, "batch_size": 4}
    assert after["trained_until"] > before["trained_until"]


def test_what_cannot_be_continued(cubes, tmp_path):
    first = tmp_path / "first.gridcast"
    train(cubes / "long.nc", first, "convlstm")
    cases = [
        ({"model": "shotspotter"}, "CONTINUE_FROM", "The model is of the kind 'ConvLSTM'."),
        ({"split": "5-1-1"}, "SPLIT", "continued with the split 'validation' only"),
        ({"types": ["theft"]}, "TYPES", "was trained on all types"),
        ({"cube": str(cubes / "short.nc")}, "CONTINUE_FROM", "steps that the model has not learned from"),
    ]
    for fields, parameter, text in cases:
        request = {
            "cube": str(cubes / "long.nc"),
            "output": str(tmp_path / "m"),
            "model": "convlstm",
            **fields,
        }
        with pytest.raises(InputError) as caught:
            run_job("train", {**request, "continue_from": str(first)}, Reporter())
        assert caught.value.parameter == parameter
        assert text in caught.value.text()
    assert files_in(tmp_path) == ["first.gridcast"]


def test_walk_forward_scores_every_fold_and_keeps_the_last(cubes, tmp_path):
    model = tmp_path / "m.gridcast"
    fields = {"split": "walk-forward", "folds": 3, "validation_share": 40}
    outputs = train(cubes / "long.nc", model, "convlstm", **fields)
    manifest = load_model(model).manifest
    assert len(manifest["folds"]) == 3
    assert manifest["scores"] == manifest["folds"][-1]
    assert manifest["split"]["validation_stop"] == STEPS
    assert outputs["validation_mse"] == manifest["folds"][-1]["model"]["mse"]
    assert len({fold["model"]["mse"] for fold in manifest["folds"]}) == 3


def test_folds_that_were_broken_off_go_on(cubes, tmp_path):
    model, state = tmp_path / "m.gridcast", str(tmp_path / "state")
    fields = {"split": "walk-forward", "folds": 2, "validation_share": 40, "checkpoint": state}
    with pytest.raises(JobCancelled):
        train(cubes / "short.nc", model, "convlstm", after_an_epoch(), **fields)
    assert files_in(tmp_path) == ["state.part-fold_0"]
    recorder = Recorder()
    train(cubes / "short.nc", model, "convlstm", recorder, **fields)
    told = recorder.texts("info")
    assert sum("Continuing after epoch 1 of 2" in text for text in told) == 1
    assert any(text.startswith("Fold 1 of 2: Continuing after epoch 1 of 2") for text in told)
    assert files_in(tmp_path) == ["m.gridcast"]


def test_a_fold_that_fails_ends_the_run(cubes, tmp_path, monkeypatch):
    def diverge(self, *arguments, **options):
        raise InputError("It diverged.", parameter="LEARNING_RATE", value=9.0)

    monkeypatch.setattr(ConvLSTMForecaster, "fit", diverge)
    fields = {"split": "walk-forward", "folds": 2, "validation_share": 40}
    with pytest.raises(InputError) as caught:
        train(cubes / "short.nc", tmp_path / "m.gridcast", "convlstm", **fields)
    assert caught.value.text() == "LEARNING_RATE = 9.0: It diverged."
    assert files_in(tmp_path) == []


def test_five_one_one_scores_the_test_period_once(cubes, tmp_path):
    model, recorder = tmp_path / "m.gridcast", Recorder()
    train(cubes / "long.nc", model, "convlstm", recorder, split="5-1-1")
    manifest = load_model(model).manifest
    assert manifest["split"]["test_stop"] == STEPS
    assert manifest["test"]["model"]["mse"] > 0
    assert sum("test steps: mean squared error" in text for text in recorder.texts("info")) == 1


def test_an_unknown_split_is_refused(cubes, tmp_path):
    with pytest.raises(InputError) as caught:
        train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm", split="random")
    assert caught.value.text() == (
        "SPLIT = random: There is no such split. Choose one of validation, 5-1-1, walk-forward."
    )


def test_the_model_file_shows_the_course_of_the_training(cubes, tmp_path):
    recorder = Recorder()
    train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm", recorder)
    with zipfile.ZipFile(tmp_path / "m.gridcast") as archive:
        picture = archive.read("training.png")
        manifest = json.loads(archive.read("manifest.json"))
    assert picture.startswith(b"\x89PNG")
    assert len(manifest["training"]["loss"]) == 2
    assert len(manifest["training"]["val_loss"]) == 3
    texts = recorder.texts("info")
    assert any(text.startswith("Training needs about") and "GB of memory" in text for text in texts)
    assert any(text.startswith("Validation loss over the epochs: ") for text in texts)


def test_classifiers_are_scored_by_what_is_hot(cubes, tmp_path):
    recorder = Recorder()
    fields = {"split": "5-1-1", "compare": True}
    outputs = train(cubes / "long.nc", tmp_path / "m.gridcast", "spatiolstm", recorder, **fields)
    assert outputs["validation_mse"] is None
    assert outputs["skill"] is None
    assert 0 <= outputs["auc"] <= 1
    assert 0 < outputs["threshold"] < 1
    rivals = load_model(tmp_path / "m.gridcast").manifest["rivals"]
    assert {"decision tree", "random forest"} <= {name.replace("_", " ") for name in rivals}
    assert sum("test samples: accuracy" in text for text in recorder.texts("info")) == len(rivals)


def test_only_a_spatiolstm_is_compared(cubes, tmp_path):
    with pytest.raises(InputError) as caught:
        train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm", compare=True)
    assert caught.value.parameter == "COMPARE"


# What comes after training ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typed(cubes, tmp_path_factory, eager) -> Path:
    """A model that forecasts types."""
    path = tmp_path_factory.mktemp("typed") / "typed.gridcast"
    train(cubes / "long.nc", path, "shotspotter", type_head=True)
    return path


def test_types_are_written_beside_the_forecast(cubes, typed, tmp_path):
    import rasterio

    fields = {"cube": str(cubes / "long.nc"), "model": str(typed), "horizon": 2}
    files = {"output": str(tmp_path / "f.tif"), "types_output": str(tmp_path / "types.tif")}
    made = run_job("forecast", {**fields, **files}, Reporter())
    assert made["quantity"] == "probability"
    assert made["type_names"] == ["assault", "theft"]
    with rasterio.open(tmp_path / "types.tif") as raster:
        bands, names = raster.read(masked=True), raster.descriptions
    # Two types and the most likely one, for each of two steps.
    assert len(bands) == 6
    assert (bands[0] + bands[1]).compressed() == pytest.approx(1.0, abs=1e-5)
    assert (bands[2] == np.where(bands[0] >= bands[1], 1, 2)).all()
    assert [name.split(" ", 1)[1] for name in names[:3]] == [
        "assault",
        "theft",
        "most likely type (1 assault, 2 theft)",
    ]
    with rasterio.open(tmp_path / "f.tif") as raster:
        assert raster.tags()["GRIDCAST_QUANTITY"] == "probability"
        assert 0 < raster.read(1, masked=True).max() < 1


def test_a_model_without_types_or_parts_says_so(cubes, tmp_path):
    train(cubes / "long.nc", tmp_path / "m.gridcast", "convlstm")
    request = {"cube": str(cubes / "long.nc"), "model": str(tmp_path / "m.gridcast")}
    for wanted in ("types_output", "parts_output"):
        files = {"output": str(tmp_path / "f.tif"), wanted: str(tmp_path / "t.tif")}
        with pytest.raises(InputError) as caught:
            run_job("forecast", {**request, **files}, Reporter())
        assert caught.value.parameter == wanted.upper()
        assert files_in(tmp_path) == ["m.gridcast"]


def test_how_sure_a_forecast_is_is_written_beside_it(cubes, typed, tmp_path):
    import rasterio

    train(cubes / "long.nc", tmp_path / "m.gridcast", "gridcast", **QUICK)
    request = {"cube": str(cubes / "long.nc"), "model": str(tmp_path / "m.gridcast"), "horizon": 2}
    files = {"output": str(tmp_path / "f.tif"), "uncertainty_output": str(tmp_path / "u.tif")}
    types = {"types_output": str(tmp_path / "t.tif")}
    made = run_job("forecast", {**request, **files, **types, "top_cells": 3}, Reporter())
    assert made["type_names"] == ["assault", "theft"]
    with rasterio.open(tmp_path / "t.tif") as raster:
        shares = raster.read(masked=True)
    assert (shares[3] + shares[4]).compressed() == pytest.approx(1.0, abs=1e-5)
    model = load_model(tmp_path / "m.gridcast").model
    with rasterio.open(tmp_path / "f.tif") as raster:
        forecast = raster.read(masked=True)
    with rasterio.open(tmp_path / "u.tif") as raster:
        bands, names = raster.read(masked=True), raster.descriptions
        assert raster.tags()["GRIDCAST_SCHEMA"] == "uncertainty/1"
    assert len(bands) == 2 * made["uncertainty_bands"] == 10
    assert names[9].endswith("probability of being among the busiest 3 cells")
    for step in range(2):
        event, low, middle, high, top = bands[5 * step : 5 * step + 5]
        expected = forecast[step].compressed()
        assert event.compressed() == pytest.approx(model.probability(expected), rel=1e-5)
        assert ((low <= middle) & (middle <= high)).all()
        assert top.sum() == pytest.approx(3)
    assert made["uncertainty_maximum"] == pytest.approx(np.percentile(bands[[0, 5]].compressed(), 99))
    for wrong, parameter in (({"top_cells": 0}, "TOP_CELLS"), ({"model": str(typed)}, "UNCERTAINTY_OUTPUT")):
        with pytest.raises(InputError) as caught:
            run_job("forecast", {**request, **files, **wrong}, Reporter())
        assert caught.value.parameter == parameter


def test_the_parts_of_a_forecast_are_written_beside_it(cubes, tmp_path, monkeypatch):
    import rasterio

    from gridcast_qgis.core.models.gridcast import PARTS, GridcastForecaster

    train(cubes / "long.nc", tmp_path / "m.gridcast", "gridcast", **QUICK)
    # The cube is so small that the model may have become a simple method, which has no parts.
    monkeypatch.setattr(GridcastForecaster, "part_names", PARTS)
    restored = GridcastForecaster.restore.__func__
    monkeypatch.setattr(
        GridcastForecaster,
        "restore",
        classmethod(lambda cls, *state: changed_to(restored(cls, *state), simple_=None)),
    )
    request = {"cube": str(cubes / "long.nc"), "model": str(tmp_path / "m.gridcast"), "horizon": 2}
    files = {"output": str(tmp_path / "f.tif"), "parts_output": str(tmp_path / "parts.tif")}
    made = run_job("forecast", {**request, **files}, Reporter())
    assert made["part_names"] == list(PARTS)
    with rasterio.open(tmp_path / "parts.tif") as raster:
        bands, names = raster.read(masked=True), raster.descriptions
        assert raster.tags()["GRIDCAST_SCHEMA"] == "parts/1"
    with rasterio.open(tmp_path / "f.tif") as raster:
        forecast = raster.read(masked=True)
    assert [name.split(" ", 1)[1] for name in names[6:11]] == list(PARTS)
    for step in range(2):
        parts = bands[6 * step : 6 * step + 5]
        assert parts.prod(axis=0).compressed() == pytest.approx(forecast[step].compressed(), rel=1e-4)
        lift = parts / parts.mean(axis=(1, 2), dtype=float)[:, None, None]
        reason = bands[6 * step + 5].compressed().astype(int)
        lifts = lift[:, ~bands.mask[0]].data
        (some,) = np.nonzero(reason)
        assert lifts[reason[some] - 1, some] == pytest.approx(lifts.max(axis=0)[some], abs=1e-6)
        assert (lifts.max(axis=0)[reason == 0] < 1.0501).all()
        assert {0, 1} <= set(reason)


def changed_to(model, **values):
    vars(model).update(values)
    return model


def test_hot_spots_straight_from_a_model(cubes, tmp_path):
    model = tmp_path / "m.gridcast"
    train(cubes / "long.nc", model, "spatiolstm")
    request = {
        "cube": str(cubes / "long.nc"),
        "model": str(model),
        "rule": "probability",
        "output": str(tmp_path / "spots.gpkg"),
        "probability_output": str(tmp_path / "p.tif"),
        "classes_output": str(tmp_path / "c.tif"),
    }
    cube = make_cube(STEPS)
    later = run_job("classify_hotspots", request, Reporter())
    assert later["quantity"] == "hot"
    assert later["f1"] is None
    assert later["threshold"] == load_model(model).model.hot_rule()["threshold"]
    known = run_job("classify_hotspots", {**request, "origin": cube.axis.isoformat(70)[0]}, Reporter())
    assert known["events_observed"] == cube.total[70].sum()
    assert 0 <= known["accuracy"] <= 1
    import rasterio

    with rasterio.open(tmp_path / "c.tif") as raster:
        assert raster.count == 3
    assert files_in(tmp_path) == ["c.tif", "m.gridcast", "p.tif", "spots.gpkg"]


def test_hot_spots_need_a_forecast_or_a_model(cubes, tmp_path):
    output = str(tmp_path / "spots.gpkg")
    cases = [
        ({}, "INPUT"),
        ({"forecast": "f.tif", "model": "m.gridcast"}, "INPUT"),
        ({"model": "m.gridcast"}, "CUBE"),
    ]
    for fields, parameter in cases:
        with pytest.raises(InputError) as caught:
            run_job("classify_hotspots", {**fields, "output": output}, Reporter())
        assert caught.value.parameter == parameter
