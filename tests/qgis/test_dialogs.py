# SPDX-License-Identifier: GPL-2.0-or-later
"""The dialogs that users see, and what they leave in the history."""

from __future__ import annotations

import json

import pytest
from qgis.core import Qgis, QgsProcessingContext, QgsProject, QgsRasterLayer
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QEventLoop, QTimer
from qgis.PyQt.QtWidgets import QComboBox

from gridcast_qgis.provider import ALGORITHMS, MODELS

IDS = [kind.ID for kind in ALGORITHMS + MODELS]


@pytest.fixture
def dialog(algorithm, project, qgis_iface, monkeypatch):
    """Open the dialog of an algorithm."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    from qgis.gui import QgsBrowserGuiModel

    browser = QgsBrowserGuiModel()
    monkeypatch.setattr(qgis_iface, "browserModel", lambda: browser, raising=False)
    monkeypatch.setattr(qgis_iface, "activeLayer", lambda: None, raising=False)
    opened = []

    def call(short_id: str):
        window = AlgorithmDialog(algorithm(short_id))
        opened.append(window)
        return window

    yield call
    for window in opened:
        if not sip.isdeleted(window):  # one that has done its work may have gone by itself
            window.close()
            window.deleteLater()


def wait_until(condition, seconds: float = 60) -> None:
    """Let the event loop run until something has happened."""
    loop, ticker = QEventLoop(), QTimer()
    ticker.timeout.connect(lambda: loop.quit() if condition() else None)
    ticker.start(20)
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()
    ticker.stop()
    assert condition()


@pytest.mark.parametrize("short_id", IDS)
def test_every_dialog_opens(dialog, short_id):
    window = dialog(short_id)
    widget = window.mainWidget()
    names = {definition.name() for definition in window.algorithm().parameterDefinitions()}
    assert names <= set(widget.wrappers) | {
        d.name() for d in window.algorithm().destinationParameterDefinitions()
    }


@pytest.mark.parametrize("short_id", IDS)
def test_every_batch_dialog_opens(algorithm, project, qgis_iface, short_id):
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog

    window = BatchAlgorithmDialog(algorithm(short_id))
    window.close()
    window.deleteLater()


def test_time_zones_can_be_chosen_from_a_list(dialog):
    wrapper = dialog("rasterizeeventstocube").mainWidget().wrappers["TIME_ZONE"]
    widget = wrapper.wrappedWidget()
    if not isinstance(widget, QComboBox):
        pytest.skip("this QGIS has no lists for text parameters")
    assert widget.currentText() == "UTC"
    assert widget.findText("America/Toronto") > 0


def test_running_from_the_dialog_loads_the_result(dialog, worker, project, cube_file, model_file, tmp_path):
    window = dialog("forecastheatmap")
    output = str(tmp_path / "forecast.tif")
    window.setParameters({"CUBE": cube_file, "MODEL": model_file, "HORIZON": 3, "OUTPUT": output})
    ended = []
    window.algorithmFinished.connect(lambda ok, results: ended.append((ok, results)))
    window.runAlgorithm()
    wait_until(lambda: ended)
    assert ended[0][0] is True and ended[0][1]["OUTPUT"] == output
    wait_until(lambda: QgsProject.instance().count() > 0)
    layers = list(project.mapLayers().values())
    assert all(isinstance(layer, QgsRasterLayer) for layer in layers)
    assert layers[0].renderer().type() == "singlebandpseudocolor"
    assert layers[0].temporalProperties().isActive()


def test_a_failure_is_shown_in_the_dialog(dialog, worker, cube_file, tmp_path, monkeypatch):
    from gridcast_qgis.core.errors import InputError

    def fail(*_):
        raise InputError("The cube is short.", hint="Rasterize more.", parameter="LOOKBACK", value=7)

    worker.on_job = fail
    window = dialog("trainconvlstm")
    window.setParameters({"CUBE": cube_file, "OUTPUT": str(tmp_path / "m.gridcast")})
    feedback = window.createFeedback()
    monkeypatch.setattr(window, "createFeedback", lambda: feedback)
    ended = []
    window.algorithmFinished.connect(lambda ok, results: ended.append(ok))
    window.runAlgorithm()
    wait_until(lambda: ended)
    assert ended == [False]
    assert "LOOKBACK = 7: The cube is short. Rasterize more." in feedback.textLog()


def test_a_run_can_be_repeated_from_the_history(dialog, worker, project, grid, tmp_path):
    import processing

    window = dialog("hotspotclassify")
    output = str(tmp_path / "spots.gpkg")
    window.setParameters({"INPUT": grid, "AREA_SHARE": 3, "OUTPUT": output})
    parameters = window.createProcessingParameters()
    context = QgsProcessingContext()
    command = window.algorithm().asPythonCommand(parameters, context)
    eval(command, {"processing": processing})
    assert worker.request["area_share"] == 3
    if Qgis.QGIS_VERSION_INT >= 32400:
        stored = json.loads(
            json.dumps(window.algorithm().asMap(parameters, context), default=lambda _: None)
        )["inputs"]
        processing.run("gridcast:hotspotclassify", stored)
    else:
        processing.run("gridcast:hotspotclassify", parameters)
    (_, first), (_, second) = worker.calls
    assert {**first, "output": None} == {**second, "output": None}
