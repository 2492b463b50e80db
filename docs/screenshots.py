# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the screenshots of the documentation in a real QGIS window, in docs/images: ``make screenshots``.

Run as a script, this file starts QGIS in a fresh profile in which only this build of the
plugin and Processing are enabled, and waits for it. That QGIS imports this file again and
calls :func:`start`, which does what a user would do and takes the pictures.

Forecast, hot spots and cube are made by Gridcast's algorithms and come into the project through
``processing.runAndLoadResults``, which loads and styles results as the dialog of an algorithm
does. Model, cube and sample are those that ``make demo`` left in build/demo, so nothing has to be
trained. Only the outline of the city is opened as a file and drawn as an outline here.

Needs a display and the variables GRIDCAST_PYTHON and PLUGIN_DIR, which ``make screenshots`` sets.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFillSymbol,
    QgsMapLayer,
    QgsProject,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QElapsedTimer, QSize, Qt, QTimer
from qgis.PyQt.QtGui import QImage
from qgis.PyQt.QtWidgets import QAction, QApplication, QDockWidget, QToolButton, QWidget

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
WORK = ROOT / "build" / "screenshots"
IMAGES = ROOT / "docs" / "images"
NAMES = ("toolbox", "dialog", "temporal", "cube")

# In pixels. The legend of a forecast is wide.
WINDOW, DIALOG = QSize(1400, 900), QSize(960, 600)
LEGEND_WIDTH, CONTROLLER_HEIGHT = 375, 140

# Seconds after which QGIS gives up by itself, and after which it is ended from outside.
PATIENCE, LIMIT = 300, 360

# The days that the demo holds out, and the one of them at which the playing forecast is stopped.
ORIGIN, DAYS, SHOWN_DAY = "2021-12-04T00:00:00", 28, 25
# A month of the sample, and the day of it that is shown.
MONTH, SHOWN_DAY_OF_MONTH = ("2021-12-01T00:00:00", "2022-01-01T00:00:00"), 15

# The last sections keep away what a first start asks and tells.
SETTINGS = """\
[PythonPlugins]
processing=true
gridcast_qgis=true
MetaSearch=false
db_manager=false
grassprovider=false

[locale]
overrideFlag=true
userLocale=en_US
globalLocale=en_US

[migration]
fileVersion=2
firstRunVersionFlag={version}
settings=true

[plugins]
automatically-check-for-updates=false

[qgis]
checkVersion=false
"""


# --- outside QGIS --------------------------------------------------------------------------------------


def main() -> int:
    """Start QGIS, wait for it, and put the pictures in their place if all were made."""
    if not all((DEMO / name).is_file() for name in ("sample.gpkg", "grid.tif", "cube.nc", "model.gridcast")):
        sys.exit("There is nothing to show yet: run `make demo` first.")
    if "PLUGIN_DIR" not in os.environ:
        sys.exit("PLUGIN_DIR is not set: run `make screenshots`.")
    program = shutil.which("qgis")
    if program is None:
        sys.exit("The program `qgis` is not on the path.")

    shutil.rmtree(WORK, ignore_errors=True)
    settings = WORK / "profiles" / "default" / "QGIS" / f"QGIS{Qgis.QGIS_VERSION_INT // 10000}.ini"
    settings.parent.mkdir(parents=True)
    settings.write_text(SETTINGS.format(version=Qgis.QGIS_VERSION_INT))
    script = WORK / "start.py"  # QGIS runs the text of a file, which then does not know where it is
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'docs')!r})\nimport screenshots\nscreenshots.start()\n"
    )
    status = _run(
        [program, "--nologo", "--noversioncheck", "--profiles-path", str(WORK), "--code", str(script)]
    )
    if status:
        print((WORK / "qgis.log").read_text(errors="replace")[-4000:], file=sys.stderr)
        print(f"No pictures were made: QGIS {status}.", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    for name in NAMES:
        shutil.copy(WORK / f"{name}.png", IMAGES)
        print(
            f"{(IMAGES / name).relative_to(ROOT)}.png {(WORK / f'{name}.png').stat().st_size / 1000:.0f} kB"
        )
    return 0


def _run(command: list[str]) -> str:
    """Run QGIS in its own process group, so that its workers end with it; return what went wrong."""
    environment = {
        **os.environ,
        "QGIS_PLUGINPATH": str(Path(os.environ["PLUGIN_DIR"]).resolve()),
        "QT_ENABLE_HIGHDPI_SCALING": "0",  # a picture gets as many pixels as the window has
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("QGIS_CUSTOM_CONFIG_PATH", None)  # it names another profile
    with open(WORK / "qgis.log", "w") as log:
        # In the root of the checkout, so that no picture shows where it lies on this machine.
        qgis = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = qgis.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"did not end within {LIMIT} seconds"
        finally:
            if qgis.poll() is None:
                os.killpg(qgis.pid, signal.SIGKILL)
                qgis.wait()
    return f"ended with status {status}" if status else ""


# --- inside QGIS ---------------------------------------------------------------------------------------


def start() -> None:
    """Take the pictures once QGIS is ready for its user; whatever happens, QGIS ends."""
    QTimer.singleShot(PATIENCE * 1000, _give_up)
    QTimer.singleShot(1000, _drive)


def _drive() -> None:
    try:
        take_pictures()
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(0)


def _give_up() -> None:
    """End when something waits for a click that nobody makes."""
    for widget in QApplication.topLevelWidgets():
        if widget.isVisible():
            print(f"Still open: {type(widget).__name__} '{widget.windowTitle()}'")
    _end(1)


def _end(status: int) -> None:
    # The usual way out may ask questions, and there is nothing worth saving.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def take_pictures() -> None:
    """Do what a user does, picture by picture."""
    import processing
    from qgis.utils import iface, plugins

    window, canvas = iface.mainWindow(), iface.mapCanvas()
    _panel(window, "Browser").close()

    def begin() -> QgsVectorLayer:
        iface.newProject()
        project = QgsProject.instance()
        project.setCrs(QgsCoordinateReferenceSystem("EPSG:32617"))
        boundary = QgsVectorLayer(f"{DEMO / 'sample.gpkg'}|layername=boundary", "Study area", "ogr")
        outline = {"style": "no", "outline_color": "#404040", "outline_width": "0.4"}
        boundary.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple(outline)))
        project.addMapLayer(boundary)
        return boundary

    def run(algorithm: str, **parameters: Any) -> None:
        processing.runAndLoadResults(f"gridcast:{algorithm}", parameters)

    def arrange(layer: QgsMapLayer) -> None:
        window.showNormal()
        window.resize(WINDOW)
        window.resizeDocks([_panel(window, "Layers")], [LEGEND_WIDTH], Qt.Orientation.Horizontal)
        controller = _panel(window, "Temporal Controller")
        window.resizeDocks([controller], [CONTROLLER_HEIGHT], Qt.Orientation.Vertical)
        iface.layerTreeView().expandAllNodes()
        # Without a network, QGIS complains that it cannot fetch its font.
        iface.messageBar().clearWidgets()
        _settle(canvas)
        _zoom(canvas, layer)
        _settle(canvas)

    boundary = begin()
    run(
        "forecastheatmap",
        CUBE=str(DEMO / "cube.nc"),
        MODEL=str(DEMO / "model.gridcast"),
        ORIGIN=ORIGIN,
        HORIZON=DAYS,
        OUTPUT=str(WORK / "forecast.tif"),
    )
    run(
        "hotspotclassify",
        INPUT=str(WORK / "forecast.tif"),
        AREA_SHARE=5,
        OUTPUT=str(WORK / "hotspots.gpkg"),
    )
    plugins["gridcast_qgis"].open_toolbox()
    arrange(boundary)
    _save(window, "toolbox")

    cube = (DEMO / "cube.nc").relative_to(ROOT)
    dialog = processing.createAlgorithmDialog("gridcast:trainconvlstm", {"CUBE": str(cube)})
    dialog.resize(DIALOG)
    dialog.show()
    _settle(canvas)
    _save(dialog, "dialog")
    dialog.close()

    _panel(window, "ProcessingToolbox").close()
    window.findChild(QAction, "mActionTemporalController").trigger()
    _play_until(window, canvas, SHOWN_DAY)
    arrange(boundary)
    _save(window, "temporal")

    boundary = begin()
    run(
        "rasterizeeventstocube",
        INPUT=f"{DEMO / 'sample.gpkg'}|layername=events",
        GRID=str(DEMO / "grid.tif"),
        TIME_FIELD="time",
        TYPE_FIELD="type",
        TIME_ZONE="America/Toronto",
        START=MONTH[0],
        END=MONTH[1],
        OUTPUT=str(WORK / "cube.nc"),
    )
    _play_until(window, canvas, SHOWN_DAY_OF_MONTH)
    arrange(boundary)
    _save(window, "cube")


def _play_until(window: QWidget, canvas: QWidget, frame: int) -> None:
    """Let the temporal controller show a frame (from 1) of the period and step that it has by itself."""
    panel = _panel(window, "Temporal Controller")
    panel.findChild(QToolButton, "mNavigationAnimated").click()
    canvas.temporalController().setCurrentFrameNumber(frame - 1)


def _panel(window: QWidget, name: str) -> QDockWidget:
    panel = window.findChild(QDockWidget, name)
    if panel is None:
        raise RuntimeError(f"this QGIS has no panel '{name}'")
    return panel


def _zoom(canvas: QWidget, layer: QgsMapLayer) -> None:
    transform = QgsCoordinateTransform(layer.crs(), QgsProject.instance().crs(), QgsProject.instance())
    extent = transform.transformBoundingBox(layer.extent())
    extent.scale(1.06)
    canvas.setExtent(extent)
    canvas.refresh()


def _settle(canvas: QWidget) -> None:
    """Let QGIS work until it has drawn nothing for a second."""
    quiet = QElapsedTimer()
    quiet.start()
    while quiet.elapsed() < 1000:
        QApplication.processEvents()
        if canvas.isDrawing():
            quiet.restart()


def _save(widget: QWidget, name: str) -> None:
    path = str(WORK / f"{name}.png")
    # Quality 0 packs tightest.
    if not _with_palette(widget.grab().toImage()).save(path, "PNG", 0):
        raise RuntimeError(f"'{path}' cannot be written")


def _with_palette(picture: QImage) -> QImage:
    """Return the picture in the 256 colours that it shows most, which takes a third of the space."""
    picture = picture.convertToFormat(QImage.Format.Format_RGB32)
    bits = picture.constBits()
    bits.setsize(picture.sizeInBytes())
    pixels = np.frombuffer(bits, dtype=np.uint32)
    colours, counts = np.unique(pixels, return_counts=True)
    colours = colours[np.argsort(-counts)]
    # Of colours that hardly differ, the most frequent one stands for all.
    _, first = np.unique(colours & 0xFFF8F8F8, return_index=True)
    table = colours[np.sort(first)[:256]]
    return picture.convertToFormat(
        QImage.Format.Format_Indexed8,
        [int(colour) for colour in table],
        Qt.ImageConversionFlag.ThresholdDither | Qt.ImageConversionFlag.AvoidDither,
    )


if __name__ == "__main__":
    sys.exit(main())
