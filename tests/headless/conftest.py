# SPDX-License-Identifier: GPL-2.0-or-later
"""The packaged plugin in a fresh profile, called from the command line as a nightly job calls it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
UTM = "urn:ogc:def:crs:EPSG::26917"
WEST, SOUTH = 630000.0, 4840000.0
DAYS = 60


@pytest.fixture(scope="session")
def qgis_process() -> str:
    program = os.environ.get("QGIS_PROCESS") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed")
    return program


@pytest.fixture(scope="session")
def profiles(tmp_path_factory) -> Path:
    """A folder of profiles whose only one has nothing but the plugin from the zip."""
    package = os.environ.get("PLUGIN_ZIP")
    if not package or not Path(package).is_file():
        pytest.skip("PLUGIN_ZIP names no package: run `make test-headless`")
    folder = tmp_path_factory.mktemp("profiles of Zoë")
    profile = folder / "profiles" / "default"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(profile / "python" / "plugins")
    (profile / "QGIS").mkdir()
    (profile / "QGIS" / "QGIS3.ini").write_text("[PythonPlugins]\ngridcast_qgis=true\n")
    return folder


@dataclass
class Answer:
    """What a call of qgis_process came to."""

    status: int
    text: str
    results: dict[str, Any]


@pytest.fixture(scope="session")
def environment(profiles, tmp_path_factory) -> dict[str, str]:
    """The environment of the calls; temporary files have a folder of their own."""
    python = os.environ.get("GRIDCAST_PYTHON") or str(CHECKOUT / ".venv" / "bin" / "python")
    if not Path(python).is_file():
        pytest.skip(f"the worker's environment is missing: {python}")
    return os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(profiles),
        "GRIDCAST_PYTHON": python,
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "LC_ALL": os.environ.get("LC_ALL", "C.UTF-8"),
    }


@dataclass
class Caller:
    """Calls qgis_process."""

    program: str
    environment: dict[str, str]

    def __call__(self, *arguments: str, stdin: str | None = None, **environment: str) -> Answer:
        done = subprocess.run(
            [self.program, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=280,
        )
        try:
            results = json.loads(done.stdout).get("results", {})
        except (ValueError, AttributeError):
            results = {}
        return Answer(done.returncode, done.stdout + done.stderr, results)

    def json(self, algorithm: str, inputs: Mapping[str, Any], **environment: str) -> Answer:
        """Run an algorithm with JSON on standard input."""
        request = json.dumps({"inputs": dict(inputs)})
        return self("run", algorithm, "-", stdin=request, **environment)

    def temporary_folder(self) -> Path:
        """Return the folder for temporary files."""
        return Path(self.environment["TMPDIR"])


@pytest.fixture(scope="session")
def call(qgis_process, environment) -> Caller:
    return Caller(qgis_process, environment)


@pytest.fixture(scope="session")
def json_input(call) -> None:
    """Skip where qgis_process takes no JSON."""
    if " - " not in call("--help").text and "JSON" not in call("--help").text:
        pytest.skip("qgis_process takes JSON since QGIS 3.24")


# -- data ---------------------------------------------------------------------------------------


def write_features(path: Path, features: list[dict[str, Any]], crs: str | None = UTM) -> str:
    """Write a GeoJSON file and return its path."""
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(collection), encoding="utf-8")
    return str(path)


def point(x: float, y: float, when: str, kind: str = "Robbery") -> dict[str, Any]:
    """Return an event as GeoJSON."""
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [x, y]},
        "properties": {"when": when, "kind": kind},
    }


def polygon(*corners: tuple[float, float]) -> dict[str, Any]:
    """Return a polygon as GeoJSON."""
    ring = [list(corner) for corner in (*corners, corners[0])]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"id": 1},
    }


def make_events(days: int = DAYS) -> list[dict[str, Any]]:
    """Return events that gather in three places, at local times as text."""
    dice = random.Random(1)
    first = datetime(2024, 1, 1)
    events = []
    for _ in range(40 * days):
        x, y = dice.choice([(800, 900), (2600, 3000), (3900, 1400)])
        when = first + timedelta(minutes=dice.randrange(days * 24 * 60))
        events.append(
            point(
                WEST + min(max(dice.gauss(x, 450), 10), 4990),
                SOUTH + min(max(dice.gauss(y, 450), 10), 3990),
                when.strftime("%Y-%m-%d %H:%M"),
                dice.choice(["Robbery", "Assault"]),
            )
        )
    return events


@dataclass
class Files:
    """Inputs and results of the chain."""

    folder: Path
    events: str
    city: str
    results: dict[str, dict[str, Any]]

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("Daten für Zoë")
    corners = [(WEST, SOUTH), (WEST + 5000, SOUTH), (WEST + 5000, SOUTH + 3500), (WEST, SOUTH + 4000)]
    return Files(
        folder,
        write_features(folder / "events.geojson", make_events()),
        write_features(folder / "city.geojson", [polygon(*corners)]),
        {},
    )


@pytest.fixture(scope="session")
def chain(call, inputs, json_input) -> Files:
    """From points to hot spots, one algorithm after the other, with JSON."""

    def run(algorithm: str, **values: Any) -> None:
        answer = call.json(f"gridcast:{algorithm}", values)
        assert answer.status == 0, answer.text
        inputs.results[algorithm] = answer.results

    run(
        "buildgridfromlayer",
        INPUT=inputs.events,
        STUDY_AREA=inputs.city,
        CELL_SIZE=500,
        OUTPUT=inputs["grid.tif"],
        CELLS=inputs["cells.gpkg"],
    )
    run(
        "rasterizeeventstocube",
        INPUT=inputs.events,
        GRID=inputs["grid.tif"],
        TIME_FIELD="when",
        TYPE_FIELD="kind",
        TIME_ZONE="America/Toronto",
        OUTPUT=inputs["cube.nc"],
    )
    small = {"CUBE": inputs["cube.nc"], "EPOCHS": 1}
    run("trainconvlstm", **small, SIZE="fast", OUTPUT=inputs["model.gridcast"])
    two_windows = {"SUBGRID_ROWS": 2, "SUBGRID_COLUMNS": 1, "WINDOW_ROWS": 1, "WINDOW_COLUMNS": 1}
    run("trainheteroensemble", **small, SIZE="fast", **two_windows, OUTPUT=inputs["ensemble.gridcast"])
    run(
        "trainhotspotclassifier",
        CUBE=inputs["cube.nc"],
        LABEL_VALUE=6,
        UNITS=4,
        EPOCHS=2,
        OUTPUT=inputs["classifier.gridcast"],
    )
    run(
        "forecastheatmap",
        CUBE=inputs["cube.nc"],
        MODEL=inputs["model.gridcast"],
        HORIZON=3,
        OUTPUT=inputs["forecast.tif"],
    )
    run("hotspotclassify", INPUT=inputs["forecast.tif"], AREA_SHARE=10, OUTPUT=inputs["hotspots.gpkg"])
    return inputs
