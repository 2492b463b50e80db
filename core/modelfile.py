# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``.gridcast`` model file: a zip of ``manifest.json``, ``*.keras``, ``arrays.npz`` and pictures.

Nothing in it runs code when it is opened: no pickle, no lambda layers, and
member names, sizes and counts are checked before anything is read.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import atomic_path
from .cube import Cube
from .errors import InputError
from .models.base import Forecaster, ModelState
from .models.registry import model_class, model_keys
from .rasters import check_schema

SCHEMA = "model/2"
MADE_BY = "Train ConvLSTM"

_MAX_MEMBERS = 200
_MAX_BYTES = 2_000_000_000
# What content of the wrong kind makes Python, NumPy and Keras raise.
_MISFITS = (LookupError, ValueError, TypeError, AttributeError, RuntimeError)
# A fixed date, so that the zip itself adds nothing that differs from run to run.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class SavedModel:
    """A fitted model and what its file says about it."""

    model: Forecaster
    manifest: dict[str, Any]

    @property
    def known_until(self) -> np.datetime64 | None:
        """End (UTC) of the last step that training or validation has seen; None if the file does not say."""
        known = self.manifest.get("known_until")
        return None if known is None else np.datetime64(known)

    def check_fits(self, cube: Cube, parameter: str = "MODEL", path: object = None) -> None:
        """Raise :class:`InputError` unless the cube has the grid, step and types of the training."""
        trained = self.manifest["cube"]
        rows, columns = cube.grid.shape
        if trained["grid_fingerprint"] != cube.grid.fingerprint:
            raise InputError(
                f"The model was trained on another grid ({trained['rows']} x {trained['columns']} cells in "
                f"{trained['crs_name']}) than that of CUBE ({rows} x {columns} cells in "
                f"{cube.grid.crs.name}).",
                hint="Choose the cube that the model was trained on, or train a model on this cube.",
                parameter=parameter,
                value=path,
            )
        if (trained["step"], trained["time_zone"]) != (cube.axis.step, cube.axis.time_zone):
            raise InputError(
                f"The model was trained on steps of '{trained['step']}' in {trained['time_zone']}, "
                f"CUBE has steps of '{cube.axis.step}' in {cube.axis.time_zone}.",
                hint="Choose the cube that the model was trained on, or train a model on this cube.",
                parameter=parameter,
                value=path,
            )
        missing = sorted(set(self.manifest["types"] or ()) - set(cube.types))
        if missing:
            raise InputError(
                f"The model forecasts the types {', '.join(self.manifest['types'])}, CUBE lacks "
                f"{', '.join(missing)}.",
                hint="Rasterize the events with the same type field.",
                parameter=parameter,
                value=path,
            )


def save_model(
    model: Forecaster, path: str | Path, manifest: dict[str, Any], pictures: dict[str, bytes] | None = None
) -> None:
    """Write a fitted model, whole or not at all.

    `manifest` holds what the caller knows (cube, types, scores); schema, model
    name, settings and learned values are added here. `pictures` are PNG files by name.
    """
    state = model.state()
    content = {
        "schema": SCHEMA,
        "model": model.key,
        "settings": model.settings_dict(),
        "values": state.values,
        "networks": sorted(state.networks),
        **manifest,
    }
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        _add(archive, "manifest.json", json.dumps(content, indent=1, sort_keys=True).encode(), deflate=True)
        if state.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **state.arrays)  # type: ignore[arg-type]
            _add(archive, "arrays.npz", buffer.getvalue())
        for name, picture in (pictures or {}).items():
            _add(archive, name, picture)
        with tempfile.TemporaryDirectory() as folder:
            for name, network in sorted(state.networks.items()):
                saved = Path(folder) / f"{name}.keras"
                network.save(saved)
                _add(archive, saved.name, saved.read_bytes())


def load_model(path: str | Path, parameter: str = "MODEL") -> SavedModel:
    """Read a model file; raises :class:`InputError` if it is missing, damaged or unsafe."""
    fix = f"Choose a file that '{MADE_BY}' or 'Train Hetero Ensemble' has made."
    if not Path(path).is_file():
        raise InputError("The file does not exist.", hint=fix, parameter=parameter, value=path)
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(_checked(archive, "manifest.json")))
            if not isinstance(manifest, dict):
                raise ValueError("the manifest is no object")
            check_schema(str(manifest.get("schema", "")), SCHEMA, parameter, path, MADE_BY)
            if manifest["model"] not in model_keys():
                raise InputError(
                    f"The file holds a model of the kind '{manifest['model']}', which this Gridcast does "
                    "not know.",
                    hint="Install the Gridcast that made it.",
                    parameter=parameter,
                    value=path,
                )
            state = ModelState(values=manifest["values"])
            for name in manifest["networks"]:
                state.networks[name] = _read_network(archive, f"{name}.keras")
            if "arrays.npz" in archive.namelist():
                data = archive.read(_checked(archive, "arrays.npz"))
                with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                    state.arrays = dict(arrays)
            model = model_class(manifest["model"]).restore(manifest["settings"], state)
            return SavedModel(model, manifest)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, *_MISFITS) as error:
        raise InputError(
            f"The model file is damaged or no model file ({type(error).__name__}: {error}).",
            hint="It may have been cut off while it was copied. " + fix,
            parameter=parameter,
            value=path,
        ) from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes, *, deflate: bool = False) -> None:
    info = zipfile.ZipInfo(name, _ZIP_DATE)
    info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    archive.writestr(info, data)


def _checked(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return the entry of a member after checking names, number and sizes of all."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(entries) > _MAX_MEMBERS or len(set(names)) != len(names):
        raise ValueError("too many or repeated members")
    if sum(entry.file_size for entry in entries) > _MAX_BYTES:
        raise ValueError("the members are too large")
    for member in names:
        plain = Path(member).name == member and not member.startswith(".")
        if not plain or Path(member).suffix not in (".json", ".keras", ".npz", ".png"):
            raise ValueError(f"unexpected member {member!r}")
    return archive.getinfo(name)


def _read_network(archive: zipfile.ZipFile, name: str) -> Any:
    # Only a model that has networks needs Keras, and our layers, which Keras knows once they are loaded.
    import keras

    from .models import layers as _own_layers  # noqa: F401

    entry = _checked(archive, name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        copy.write_bytes(archive.read(entry))
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
