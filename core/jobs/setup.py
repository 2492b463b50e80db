# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs that set things up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..reporter import Reporter
from .common import Outputs, versions


@dataclass(frozen=True)
class LoadSample:
    """Unpack the sample that comes with the plugin."""

    folder: str
    output: str


def load_sample(request: LoadSample, reporter: Reporter) -> Outputs:
    """Make a GeoPackage with the layers ``events`` and ``boundary``."""
    from ..sample import load_sample as unpack

    return unpack(Path(request.folder), Path(request.output), reporter)


@dataclass(frozen=True)
class VerifyEnvironment:
    """Check that every package of the worker can be loaded."""


def verify_environment(request: VerifyEnvironment, reporter: Reporter) -> Outputs:
    """Import everything that any job imports; a failure is an environment error."""
    import platform
    from importlib import import_module

    reporter.stage("Loading packages", 0, 100)
    for name in (
        "numpy",
        "pandas",
        "xarray",
        "h5netcdf",
        "pyproj",
        "shapely",
        "rasterio",
        "pyogrio",
        "optuna",
        "keras",
    ):
        import_module(name)
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones(1))
    return {"python": platform.python_version(), "packages": versions(), "tensorflow": True}
