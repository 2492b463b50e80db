# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin in QGIS, layers to feed it, and a stand-in for the worker that makes real files."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal, osr
from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt import sip

import gridcast_qgis
from gridcast_qgis import compat, paths
from gridcast_qgis.algorithms import base
from gridcast_qgis.worker import client

# Absolute and before any algorithm runs: QGIS changes the working folder.
CHECKOUT = Path(__file__).resolve().parents[2]

UTM = "EPSG:26917"
CELL = 500.0
ROWS, COLUMNS = 4, 5
WEST, NORTH = 625000.0, 4845000.0
INTERVALS = [
    [f"2024-03-{day:02}T00:00:00-05:00", f"2024-03-{day + 1:02}T00:00:00-05:00"] for day in (7, 8, 9)
]
#: Models whose forecasts are probabilities of hot cells.
CLASSIFIERS = ("spatiolstm", "cell_lstm", "cnn3d", "cnn_rnn")

# GDAL may write the statistics that QGIS asks for beside a raster, whenever the raster happens to be closed.
gdal.SetConfigOption("GDAL_PAM_ENABLED", "NO")


@pytest.fixture(scope="session")
def plugin(qgis_app, qgis_processing):
    """The plugin, loaded as `qgis_process` loads it."""
    loaded = gridcast_qgis.classFactory(None)
    loaded.initProcessing()
    yield loaded
    loaded.unload()
    # A layer that outlives QGIS crashes the interpreter at its end, after all tests have passed.
    QgsProject.instance().clear()
    assert [layer.source() for layer in living_layers()] == []


def living_layers() -> list[QgsMapLayer]:
    """Return the layers that Python still refers to and QGIS has not deleted."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, QgsMapLayer) and not sip.isdeleted(each)]


@pytest.fixture
def project(plugin) -> Iterator[QgsProject]:
    """The project of the session, empty before and after."""
    instance = QgsProject.instance()
    instance.clear()
    yield instance
    instance.clear()


@pytest.fixture
def algorithm(plugin) -> Callable[[str], QgsProcessingAlgorithm]:
    """Make an algorithm from its short id."""

    def make(short_id: str) -> QgsProcessingAlgorithm:
        return QgsApplication.processingRegistry().createAlgorithmById(f"gridcast:{short_id}")

    return make


class Notes(QgsProcessingFeedback):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        super().__init__(False)
        self.stages: list[str] = []
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def setProgressText(self, text: str) -> None:
        self.stages.append(text)

    def pushInfo(self, text: str) -> None:
        self.infos.append(text)

    def pushWarning(self, text: str) -> None:
        self.warnings.append(text)

    def reportError(self, text: str, fatalError: bool = False) -> None:
        self.warnings.append(text)


@dataclass
class Run:
    """An algorithm that has been run."""

    outputs: dict[str, Any]
    context: QgsProcessingContext
    feedback: Notes


@pytest.fixture
def run(algorithm, project) -> Callable[..., Run]:
    """Run an algorithm from Python, with `load` into the project as the dialog does; failures raise."""

    def call(
        short_id: str, parameters: dict[str, Any], *, feedback: Notes | None = None, load: bool = False
    ) -> Run:
        import processing

        context = QgsProcessingContext()
        context.setProject(project)
        feedback = feedback or Notes()
        how = processing.runAndLoadResults if load else processing.run
        return Run(
            how(algorithm(short_id), parameters, feedback=feedback, context=context), context, feedback
        )

    return call


# -- the stand-in for the worker -----------------------------------------------------------------


@dataclass
class FakeWorker:
    """Writes down each request, makes the files it asks for, and answers like the worker.

    `answers` replaces fields of the answer by job; `on_job` is called with the job, its request and its
    folder before the files are made.
    """

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    on_job: Callable[[str, dict[str, Any], Path], None] | None = None

    def __call__(self, job: str, request: dict[str, Any], *, job_dir: Path, on_event, **rest: Any) -> dict:
        json.dumps(request)  # a request that JSON cannot carry fails here
        assert job_dir.is_dir()
        self.calls.append((job, dict(request)))
        self.folders.append(job_dir)
        on_event({"event": "stage", "name": f"Doing {job}"})
        on_event({"event": "progress", "value": 50.0})
        if self.on_job is not None:
            self.on_job(job, request, job_dir)
        answer = getattr(self, f"_{job}")(request)
        return answer | self.answers.get(job, {})

    @property
    def request(self) -> dict[str, Any]:
        """The last request."""
        return self.calls[-1][1]

    def _build_grid(self, request: dict[str, Any]) -> dict[str, Any]:
        make_raster(request["output"], [[1.0] * COLUMNS] * ROWS)
        if request["cells_output"]:
            make_polygons(
                request["cells_output"], {"row": "integer", "column": "integer", "share": "double"}, []
            )
        return {
            "output": request["output"],
            "cells_output": request["cells_output"],
            "rows": ROWS,
            "columns": COLUMNS,
            "cells_inside": ROWS * COLUMNS,
            "repaired": 0,
            "cell_width": CELL,
            "cell_height": CELL,
            "area_km2": 5.0,
        }

    def _check_events(self, request: dict[str, Any]) -> dict[str, Any]:
        Path(request["output"]).write_text("<html></html>")
        from gridcast_qgis.algorithms.checkevents import NUMBERS

        return {"output": request["output"], "verdict": "Good.", **{key.lower(): 1.0 for key in NUMBERS}}

    def _describe_cube(self, request: dict[str, Any]) -> dict[str, Any]:
        from qgis.core import QgsCoordinateReferenceSystem

        return {"crs": compat.wkt(QgsCoordinateReferenceSystem(UTM)), "step": "day", "time_zone": "UTC"}

    def _append_events(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._rasterize_events(request) | {"steps_new": 2, "events_left_aside": 5}

    def _export_cube(self, request: dict[str, Any]) -> dict[str, Any]:
        make_raster(request["output"], *[[[float(band)] * COLUMNS] * ROWS for band in (1, 2)])
        return {
            "output": request["output"],
            "bands": 2,
            "maximum": 2.0,
            "intervals": INTERVALS[:2],
            "unit_text": "events per cell and day",
        }

    def _rasterize_events(self, request: dict[str, Any]) -> dict[str, Any]:
        Path(request["output"]).write_bytes(b"cube")
        dropped = dict.fromkeys(
            (
                "null_geometry",
                "null_time",
                "bad_time",
                "duplicate",
                "outside_grid",
                "outside_area",
                "outside_period",
                "reprojection",
            ),
            0,
        )
        return {
            "output": request["output"],
            "events_read": 100,
            "events_used": 90,
            "dropped": dropped | {"outside_grid": 7, "null_time": 3},
            "notes": {"ambiguous_time": 2, "skipped_time": 1, "no_clock": 0, "end_before_start": 0},
            "steps": 60,
            "types": ["events"],
            "first": INTERVALS[0][0],
            "last": INTERVALS[-1][1],
        }

    def _train(self, request: dict[str, Any]) -> dict[str, Any]:
        Path(request["output"]).write_bytes(b"model")
        return {
            "output": request["output"],
            "validation_loss": 0.5,
            "validation_mse": 0.25,
            "baseline_mse": 0.26,
            "skill": 3.8,
            "pai": 4.5,
            "pai_baseline": 4.0,
            "auc": 0.8,
            "auc_baseline": 0.75,
            "average_precision": 0.3,
            "f1": 0.4,
            "threshold": 0.35 if request["model"] in CLASSIFIERS else None,
            "epochs_run": 2,
            "parameters": 1234,
            "train_steps": 40,
            "validation_steps": 10,
            "seconds": 1.0,
        }

    def _tune(self, request: dict[str, Any]) -> dict[str, Any]:
        Path(request["output"]).write_bytes(b"model")
        for key in ("report_output", "cube_output"):
            if request[key]:
                Path(request[key]).write_bytes(b"made")
        if request["trials_output"]:
            fields = {"trial": "integer", "state": "string", "score": "double", "filters": "integer"}
            rows = [[1, "complete", 0.5, 16], [2, "pruned", None, 8]]
            make_features(request["trials_output"], "NoGeometry", fields, [(None, row) for row in rows])
        return {
            "output": request["output"],
            "verdict": "2 trials; the best is 1.3 % better.",
            "settings": "filters = 16",
            "best_score": 0.4375,
            "default_score": 0.5,
            "gain": 12.5,
            "trials": 2,
            "pruned": 1,
            "failed": 0,
        }

    def _backtest(self, request: dict[str, Any]) -> dict[str, Any]:
        Path(request["output"]).write_text("<html></html>")
        table = {"place": "integer", "model": "string", "mse": "double"}
        for key in ("table_output", "origins_output"):
            if request.get(key):
                make_features(request[key], "NoGeometry", table, [(None, [1, "ewma", 0.5])])
        if request.get("hits_output"):
            fields = {"kind": "string", "start": "datetime", "end": "datetime", "events": "double"}
            rows = [
                [kind, "2024-03-07T05:00:00Z", "2024-03-08T05:00:00Z", 1.0]
                for kind in ("hit", "false alarm", "missed")
            ]
            make_polygons(request["hits_output"], fields, rows)
        return {
            "output": request["output"],
            "use": "ewma",
            "verdict": "convlstm does not beat ewma here; use ewma.",
            "gain": -0.5,
            "p_value": 0.25,
            "best_simple": "ewma",
            "best_network": "convlstm",
            "forecasts": 52,
            "events": 1234.0,
        }

    def _forecast(self, request: dict[str, Any]) -> dict[str, Any]:
        intervals = INTERVALS[: request["horizon"]]
        bands = [
            [[0.1 * band + 0.01 * row] * COLUMNS for row in range(ROWS)] for band in range(len(intervals))
        ]
        make_raster(request["output"], *bands)
        for beside in ("types_output", "parts_output", "uncertainty_output"):
            if request[beside]:
                values = [[[value] * COLUMNS] * ROWS for value in (0.25, 0.75, 2.0)]
                make_raster(request[beside], *values * len(intervals))
        return {
            "output": request["output"],
            "types_output": request["types_output"],
            "type_names": ["single shot", "several shots"],
            "parts_output": request["parts_output"],
            "uncertainty_output": request["uncertainty_output"],
            "uncertainty_bands": 3,
            "uncertainty_maximum": 0.25,
            "part_names": ["long-run level", "calendar"],
            "quantity": "events",
            "origin": intervals[0][0],
            "time_zone": "America/Toronto",
            "step": "day",
            "intervals": intervals,
            "expected_events": 3.0,
            "maximum": 0.5,
            "ramp_maximum": 0.4,
            "unit_text": "events per cell and day",
        }

    def _classify_hotspots(self, request: dict[str, Any]) -> dict[str, Any]:
        fields = {
            "rank": "integer",
            "expected": "double",
            "share_pct": "double",
            "area_km2": "double",
            "density": "double",
            "cells": "integer",
            "start": "string",
            "end": "string",
            "observed": "double",
        }
        rows = [
            [rank, 5.0 / rank, 50.0 / rank, 0.25, 20.0 / rank, 1, INTERVALS[0][0], INTERVALS[-1][1], None]
            for rank in (1, 2, 5)
        ]
        make_polygons(request["output"], fields, rows)
        if request["probability_output"]:
            values = [[0.02 * row] * COLUMNS for row in range(ROWS)]
            make_raster(request["probability_output"], values)
        if request["classes_output"]:
            bands = [[[float(value)] * COLUMNS for value in (0, 1, 1, 0)] for _ in range(3)]
            make_raster(request["classes_output"], *bands[: 3 if request["cube"] else 1])
        first, last = request["first_step"] or 1, request["last_step"] or (1 if request["model"] else None)
        return {
            "output": request["output"],
            "probability_output": request["probability_output"],
            "classes_output": request["classes_output"],
            "quantity": "events",
            "threshold": None,
            "intervals": INTERVALS[first - 1 : last],
            "hot_spots": 3,
            "cells": 3,
            "area_km2": 0.75,
            "area_share": 5.0,
            "expected_events": 8.5,
            "expected_share": 85.0,
            "events_observed": None,
            "events_hit": None,
            "pai": None,
            "baseline_hit": None,
            "baseline_pai": None,
            "accuracy": None,
            "precision": None,
            "recall": None,
            "f1": None,
        }

    def _score_forecast(self, request: dict[str, Any]) -> dict[str, Any]:
        fields = {"measure": "string", "budget": "double", "value": "double", "meaning": "string"}
        rows = [["pai", 5.0, 4.5, "how much denser"], ["mse", None, 0.25, "squared"]]
        make_features(request["output"], "NoGeometry", fields, [(None, row) for row in rows])
        if request["points_output"]:
            fields = {"hit": "integer", "time": "datetime", "type": "string"}
            place = f"Point ({WEST + 50} {NORTH - 50})"
            rows = [[hit, INTERVALS[0][0], "theft"] for hit in (1, 0, 1)]
            make_features(request["points_output"], "Point", fields, [(place, row) for row in rows])
        measures = {"hits": 12.0, "events": 40.0, "hit_rate": 30.0, "area_km2": 1.5, "area_share": 5.0}
        further = {"pai": 6.0, "best_hits": 24.0, "pei": 0.5, "rri": None}
        files = {key: request[key] for key in ("output", "points_output")}
        return {**files, "violations": 1, **measures, **further}


@pytest.fixture
def worker(monkeypatch) -> FakeWorker:
    """Put the stand-in in the place of the worker."""
    fake = FakeWorker()
    monkeypatch.setattr(client, "run_job", fake)
    monkeypatch.setattr(base, "find_interpreter", lambda *_: Path(sys.executable))
    return fake


# -- data ---------------------------------------------------------------------------------------


def make_raster(path: str | Path, *bands: list[list[float]]) -> str:
    """Write a GeoTIFF of ROWS x COLUMNS cells in UTM; its first bands are described by INTERVALS."""
    driver = gdal.GetDriverByName("GTiff")
    raster = driver.Create(str(path), COLUMNS, ROWS, len(bands), gdal.GDT_Float32)
    raster.SetGeoTransform([WEST, CELL, 0, NORTH, 0, -CELL])
    system = osr.SpatialReference()
    system.SetFromUserInput(UTM)
    raster.SetProjection(system.ExportToWkt())
    for number, values in enumerate(bands, start=1):
        band = raster.GetRasterBand(number)
        for row, line in enumerate(values):
            band.WriteRaster(0, row, COLUMNS, 1, _floats(line))
        band.SetNoDataValue(-9999)
        if number <= len(INTERVALS):
            band.SetDescription("/".join(INTERVALS[number - 1]))
    raster = None
    return str(path)


def _floats(line: list[float]) -> bytes:
    import struct

    return struct.pack(f"={len(line)}f", *line)


def make_polygons(path: str, fields: dict[str, str], rows: list[list[Any]]) -> None:
    """Write squares of one cell as a GeoPackage, as the worker does."""
    features = []
    for number, row in enumerate(rows):
        x, y = WEST + number * CELL, NORTH
        ring = f"{x} {y}, {x + CELL} {y}, {x + CELL} {y - CELL}, {x} {y - CELL}, {x} {y}"
        features.append((f"MultiPolygon((({ring})))", row))
    make_features(path, "MultiPolygon", fields, features)


def make_features(
    path: str, geometry: str, fields: dict[str, str], rows: list[tuple[str | None, list[Any]]]
) -> None:
    """Write WKT in UTM and attributes as a GeoPackage."""
    from qgis.core import QgsCoordinateTransformContext, QgsVectorFileWriter

    definition = "&".join(f"field={name}:{kind}" for name, kind in fields.items())
    system = "" if geometry == "NoGeometry" else f"crs={UTM}&"
    layer = QgsVectorLayer(f"{geometry}?{system}{definition}", "features", "memory")
    for wkt, row in rows:
        feature = QgsFeature(layer.fields())
        feature.setAttributes(row)
        if wkt:
            feature.setGeometry(QgsGeometry.fromWkt(wkt))
        layer.dataProvider().addFeature(feature)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    written = QgsVectorFileWriter.writeAsVectorFormatV3(layer, path, QgsCoordinateTransformContext(), options)
    assert written[0] == QgsVectorFileWriter.WriterError.NoError, written


def make_layer(
    project: QgsProject,
    rows: list[tuple[str | None, Any, str]],
    *,
    geometry: str = "Point",
    crs: str = "EPSG:4326",
    time_type: str = "datetime",
    name: str = "events",
) -> QgsVectorLayer:
    """Make a memory layer with the fields id, occurred and kind from (WKT, time, kind), and add it."""
    system = f"crs={crs}&" if crs else ""
    layer = QgsVectorLayer(
        f"{geometry}?{system}field=id:integer&field=occurred:{time_type}&field=kind:string", name, "memory"
    )
    if not crs:
        from qgis.core import QgsCoordinateReferenceSystem

        layer.setCrs(QgsCoordinateReferenceSystem())
    for number, (wkt, time, kind) in enumerate(rows, start=1):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([number, time, kind])
        if wkt:
            feature.setGeometry(QgsGeometry.fromWkt(wkt))
        assert layer.dataProvider().addFeature(feature)
    layer.updateExtents()
    project.addMapLayer(layer)
    return layer


@pytest.fixture
def grid(tmp_path) -> str:
    """A raster that passes for a grid in QGIS."""
    return make_raster(tmp_path / "grid.tif", [[1.0] * COLUMNS] * ROWS)


@pytest.fixture
def cube_file(tmp_path) -> str:
    """A file that passes for a cube in QGIS."""
    path = tmp_path / "cube.nc"
    path.write_bytes(b"cube")
    return str(path)


@pytest.fixture
def model_file(tmp_path) -> str:
    """A file that passes for a model in QGIS."""
    path = tmp_path / "model.gridcast"
    path.write_bytes(b"model")
    return str(path)


@pytest.fixture
def forecast_file(tmp_path) -> str:
    """A raster of three steps that passes for a forecast in QGIS."""
    steps = [[[0.1 * step] * COLUMNS for _ in range(ROWS)] for step in (1, 2, 3)]
    return make_raster(tmp_path / "forecast.tif", *steps)


@pytest.fixture
def no_leftovers(tmp_path) -> Iterator[None]:
    """Check that a test leaves no job folder, and no file in `tmp_path` that was not there before it ran."""
    from qgis.core import QgsProcessingUtils

    def jobs() -> set[str]:
        return {name for name in os.listdir(QgsProcessingUtils.tempFolder()) if name.startswith("gridcast-")}

    before = jobs()
    yield
    assert jobs() == before


@pytest.fixture(scope="session")
def worker_python() -> Path:
    """The interpreter of the real worker."""
    named = os.environ.get("GRIDCAST_PYTHON")
    python = Path(named) if named else paths.CHECKOUT / ".venv" / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"the worker's environment is missing: {python}")
    return python
