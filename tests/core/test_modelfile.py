# SPDX-License-Identifier: GPL-2.0-or-later
"""Model files: only what a trained model needs gets in, and only that is read."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile

import numpy as np
import pytest
from synthetic import DEGREES, make_axis, make_cube

from gridcast_qgis.core import modelfile
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.jobs.common import describe_cube
from gridcast_qgis.core.modelfile import load_model, save_model
from gridcast_qgis.core.models.base import ModelState
from gridcast_qgis.core.models.baselines import HistoricalAverage
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster, build_network
from gridcast_qgis.core.training.channels import Scaling

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

CHOOSE = "Choose a file that 'Train ConvLSTM' or 'Train Hetero Ensemble' has made."


def manifest_of(cube: Cube, types=None) -> dict:
    return {"cube": describe_cube(cube), "types": types, "scores": {"model": {"mse": 0.5}}}


def network_model() -> ConvLSTMForecaster:
    """Return a forecaster with initial weights, as if it had been trained."""
    model = ConvLSTMForecaster(filters=1, lookback=2, kernel=1, base_rate=False)
    model.network_ = build_network(6, 7, 1, lookback=2, filters=1, kernel=1)
    model.scaling_ = Scaling({"counts": 0.5}, {"counts": 1.0})
    model.history_ = {"loss": [0.25], "val_loss": [0.5, 0.25]}
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file with a network."""
    path = tmp_path_factory.mktemp("model") / "model.gridcast"
    save_model(network_model(), path, manifest_of(make_cube(10)))
    return path


@pytest.fixture
def simple(tmp_path):
    """A file without one."""
    path = tmp_path / "model.gridcast"
    save_model(HistoricalAverage(), path, manifest_of(make_cube(10)))
    return path


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def change_manifest(path, **changes) -> None:
    content = members(path)
    manifest = json.loads(content["manifest.json"])
    manifest.update(changes)
    content["manifest.json"] = json.dumps(manifest).encode()
    rewrite(path, content)


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert caught.value.parameter == "MODEL"
    assert caught.value.value == path
    assert caught.value.hint
    return caught.value.text()


def assert_damaged(path, reason: str = "") -> None:
    text = refused(path)
    assert text.startswith(f"MODEL = {path}: The model file is damaged or no model file (")
    assert text.endswith(f"It may have been cut off while it was copied. {CHOOSE}")
    assert reason in text


def test_the_file_is_a_zip_of_plain_members(saved):
    content = members(saved)
    assert sorted(content) == ["manifest.json", "network.keras"]
    manifest = json.loads(content["manifest.json"])
    assert manifest["schema"] == "model/2"
    assert manifest["model"] == "convlstm"
    assert manifest["settings"]["lookback"] == 2
    assert manifest["networks"] == ["network"]
    assert manifest["values"]["scaling"] == {"mean": {"counts": 0.5}, "deviation": {"counts": 1.0}}
    assert manifest["values"]["history"] == {"loss": [0.25], "val_loss": [0.5, 0.25]}
    assert manifest["scores"] == {"model": {"mse": 0.5}}
    assert manifest["cube"]["rows"] == 6
    # Of ours only the recurrent layer, by its registered name.
    with zipfile.ZipFile(io.BytesIO(content["network.keras"])) as network:
        config = network.read("config.json").decode()
    assert set(re.findall(r"gridcast[^\"]*", config)) <= {
        "gridcast>ConvLSTM2D",
        "gridcast_qgis.core.models.layers",
    }
    assert "Lambda" not in config


def test_the_network_is_read_back_with_its_weights(saved):
    model = load_model(saved).model
    assert isinstance(model, ConvLSTMForecaster)
    assert model.settings.kernel == 1
    assert model.parameter_count == build_network(6, 7, 1, lookback=2, filters=1, kernel=1).count_params()
    assert model.history_["val_loss"] == [0.5, 0.25]


def test_arrays_are_kept(tmp_path, monkeypatch):
    arrays = {"weights": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])}
    monkeypatch.setattr(HistoricalAverage, "state", lambda self: ModelState(arrays=arrays))
    restored = []
    monkeypatch.setattr(
        HistoricalAverage,
        "restore",
        classmethod(lambda cls, settings, state: restored.append(state) or cls(**settings)),
    )
    save_model(HistoricalAverage(), tmp_path / "m.gridcast", {})
    load_model(tmp_path / "m.gridcast")
    assert (restored[0].arrays["weights"] == arrays["weights"]).all()
    assert restored[0].arrays["names"].tolist() == ["a", "b"]


def test_equal_models_give_equal_files(tmp_path):
    for name in ("one.gridcast", "two.gridcast"):
        save_model(HistoricalAverage(), tmp_path / name, manifest_of(make_cube(10)))
    assert (tmp_path / "one.gridcast").read_bytes() == (tmp_path / "two.gridcast").read_bytes()


def test_a_missing_model_is_named(tmp_path):
    path = tmp_path / "none.gridcast"
    assert refused(path) == f"MODEL = {path}: The file does not exist. {CHOOSE}"


def test_another_version_is_refused(simple):
    change_manifest(simple, schema="model/3")
    assert refused(simple) == (
        f"MODEL = {simple}: The model file has version 3, this Gridcast reads version 2. Make it again with "
        "'Train ConvLSTM', or install the Gridcast that made it."
    )


def test_another_kind_of_zip_is_refused(simple):
    change_manifest(simple, schema="cube/1")
    assert refused(simple) == (
        f"MODEL = {simple}: The file is not a Gridcast model file. Choose a file that 'Train ConvLSTM' has "
        "made."
    )


def test_a_kind_of_model_from_the_future_is_refused(simple):
    change_manifest(simple, model="transformer")
    assert refused(simple) == (
        f"MODEL = {simple}: The file holds a model of the kind 'transformer', which this Gridcast does not "
        "know. Install the Gridcast that made it."
    )


@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_model_is_refused(saved, tmp_path, part):
    data = saved.read_bytes()
    path = tmp_path / "model.gridcast"
    path.write_bytes(data[: int(len(data) * part)])
    assert_damaged(path)


def test_wrong_bytes_never_surprise(simple):
    data = simple.read_bytes()
    for position in range(0, len(data), 5):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        simple.write_bytes(broken)
        try:
            load_model(simple)
        except InputError as error:
            assert error.parameter == "MODEL"


def test_wrong_bytes_in_the_network_are_noticed(saved, tmp_path):
    data = saved.read_bytes()
    path = tmp_path / "model.gridcast"
    for position in range(len(data) // 3, len(data), len(data) // 5):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        assert_damaged(path)


DAMAGES = {
    "no manifest": lambda content: content.pop("manifest.json"),
    "no json": lambda content: content.update({"manifest.json": b"{"}),
    "list": lambda content: content.update({"manifest.json": b"[]"}),
    "deep": lambda content: content.update({"manifest.json": b"[" * 100_000}),
    "network is missing": lambda content: content.pop("network.keras"),
    "network is empty": lambda content: content.update({"network.keras": b""}),
    "network is something else": lambda content: content.update({"network.keras": content["manifest.json"]}),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_model_that_lacks_something_is_refused(saved, tmp_path, case):
    content = members(saved)
    DAMAGES[case](content)
    path = tmp_path / "model.gridcast"
    rewrite(path, content)
    assert_damaged(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ["convlstm"]},
        {"settings": {"lookback": "x"}},
        {"settings": {"unknown": 1}},
        {"settings": None},
        {"values": None},
        {"values": {"history": {}}},
        {"networks": 5},
        {"networks": ["../network"]},
    ],
    ids=str,
)
def test_a_manifest_of_the_wrong_form_is_refused(saved, tmp_path, changes):
    path = tmp_path / "model.gridcast"
    path.write_bytes(saved.read_bytes())
    change_manifest(path, **changes)
    refused(path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/evil.json",
        "folder/evil.keras",
        ".hidden.json",
        "evil.pkl",
        "evil.py",
        "evil.npy",
        "evil",
        "evil.json.exe",
    ],
)
def test_unexpected_members_are_refused_before_anything_is_read(simple, tmp_path, name):
    content = members(simple)
    rewrite(simple, {**content, name: b"{}"})
    assert_damaged(simple, f"unexpected member {name!r}")
    assert [path.name for path in tmp_path.iterdir()] == [simple.name]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_repeated_members_are_refused(simple):
    with zipfile.ZipFile(simple, "a") as archive:
        archive.writestr("manifest.json", b"{}")
    assert_damaged(simple, "too many or repeated members")


def test_too_many_members_are_refused(simple):
    content = members(simple)
    rewrite(simple, {**content, **{f"{number}.json": b"" for number in range(300)}})
    assert_damaged(simple, "too many or repeated members")


def test_members_that_would_fill_the_memory_are_refused(simple, monkeypatch):
    monkeypatch.setattr(modelfile, "_MAX_BYTES", 50)
    assert_damaged(simple, "the members are too large")


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickled_arrays_are_refused(simple):
    content = members(simple)
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([Trap()], dtype=object))
    rewrite(simple, {**content, "arrays.npz": buffer.getvalue()})
    assert_damaged(simple, "allow_pickle=False")
    rewrite(simple, {**content, "arrays.npz": pickle.dumps(Trap())})
    assert_damaged(simple)


def test_a_network_that_carries_code_is_refused(saved, tmp_path):
    import keras

    inputs = keras.Input((2, 6, 7, 1))
    evil = keras.Model(inputs, keras.layers.Lambda(lambda x: x[:, 0])(inputs))
    evil.save(tmp_path / "evil.keras")
    content = members(saved)
    content["network.keras"] = (tmp_path / "evil.keras").read_bytes()
    path = tmp_path / "model.gridcast"
    rewrite(path, content)
    assert_damaged(path, "unsafe")


def other_grid() -> Cube:
    grid = Grid.from_extent(DEGREES, (-79.6, 43.5, -79.1, 43.9), rows=3, columns=4)
    return Cube(grid, make_axis(10), ("assault", "theft"), np.zeros((10, 2, 3, 4), np.float32))


MISFITS = {
    "grid": (
        other_grid,
        "The model was trained on another grid (6 x 7 cells in WGS 84 / UTM zone 17N) than that of CUBE (3 x "
        "4 cells in WGS 84). Choose the cube that the model was trained on, or train a model on this cube.",
    ),
    "mask": (
        lambda: make_cube(10, holes=False),
        "The model was trained on another grid (6 x 7 cells in WGS 84 / UTM zone 17N) than that of CUBE (6 x "
        "7 cells in WGS 84 / UTM zone 17N). Choose the cube that the model was trained on, or train a model "
        "on this cube.",
    ),
    "step": (
        lambda: make_cube(10, step="week"),
        "The model was trained on steps of 'day' in America/Toronto, CUBE has steps of 'week' in "
        "America/Toronto. Choose the cube that the model was trained on, or train a model on this cube.",
    ),
    "zone": (
        lambda: make_cube(10, time_zone="UTC"),
        "The model was trained on steps of 'day' in America/Toronto, CUBE has steps of 'day' in UTC. Choose "
        "the cube that the model was trained on, or train a model on this cube.",
    ),
    "types": (
        lambda: make_cube(10, types=("assault", "robbery")),
        "The model forecasts the types theft, CUBE lacks theft. Rasterize the events with the same type "
        "field.",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_cube_that_does_not_fit_is_refused(tmp_path, case):
    make, text = MISFITS[case]
    path = tmp_path / "model.gridcast"
    save_model(HistoricalAverage(), path, manifest_of(make_cube(10), ["theft"]))
    model = load_model(path)
    model.check_fits(make_cube(25))
    with pytest.raises(InputError) as caught:
        model.check_fits(make(), path=path)
    assert caught.value.text() == f"MODEL = {path}: {text}"
