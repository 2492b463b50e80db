# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin object: what it adds to QGIS, and that it takes all of it away again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QEvent
from qgis.PyQt.QtGui import QDesktopServices
from qgis.PyQt.QtWidgets import QAction, QDockWidget, QLineEdit, QMainWindow

import gridcast_qgis
from gridcast_qgis import paths, settings

ROOT = Path(__file__).resolve().parents[2]


class MessageBar:
    def __init__(self):
        self.messages: list[tuple] = []

    def pushMessage(self, *message):
        self.messages.append(message)


class Iface:
    """The few parts of QGIS's window that the plugin touches."""

    def __init__(self):
        self.window = QMainWindow()
        self.menus: list[tuple[str, QAction]] = []
        self.bar = MessageBar()

    def mainWindow(self):
        return self.window

    def messageBar(self):
        return self.bar

    def addPluginToMenu(self, menu, action):
        self.menus.append((menu, action))

    def removePluginMenu(self, menu, action):
        self.menus.remove((menu, action))


@pytest.fixture
def iface(qgis_app):
    return Iface()


@pytest.fixture
def alone(plugin):
    """Take the plugin of the session away for the time of a test."""
    plugin.unload()
    yield
    plugin.initProcessing()


@pytest.fixture
def gridcast(iface, alone):
    made = gridcast_qgis.classFactory(iface)
    yield made
    made.unload()


def provider():
    return QgsApplication.processingRegistry().providerById("gridcast")


def test_without_a_window_only_the_provider_appears(alone):
    made = gridcast_qgis.classFactory(None)
    made.initProcessing()
    assert provider().algorithm("buildgridfromlayer") is not None
    made.unload()
    assert provider() is None


def test_the_menu_offers_toolbox_sample_environment_and_help(gridcast, iface):
    gridcast.initGui()
    assert [(menu, action.text()) for menu, action in iface.menus] == [
        ("&Gridcast", "Open the toolbox"),
        ("&Gridcast", "Load sample data…"),
        ("&Gridcast", "Set up environment…"),
        ("&Gridcast", "Help"),
    ]
    assert not any(action.icon().isNull() for _, action in iface.menus)


def test_unload_leaves_nothing_behind(gridcast, iface):
    from processing.core.ProcessingConfig import ProcessingConfig

    for _ in range(2):
        gridcast.initGui()
        assert provider() is not None
        assert "Gridcast" in ProcessingConfig.getSettings()
        gridcast.unload()
        QgsApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert provider() is None
        assert iface.menus == []
        assert iface.window.findChildren(QAction) == []
        assert "Gridcast" not in ProcessingConfig.getSettings()
    gridcast.unload()  # may be called twice


def test_the_dialogs_of_the_menu_are_those_of_algorithms(gridcast, iface, monkeypatch):
    import processing

    opened = []
    monkeypatch.setattr(processing, "execAlgorithmDialog", opened.append)
    gridcast.initGui()
    for _, action in iface.menus[1:3]:
        action.trigger()
    assert opened == ["gridcast:loadsample", "gridcast:setupenvironment"]
    assert all(QgsApplication.processingRegistry().algorithmById(name) for name in opened)


def test_help_opens_the_shipped_page(gridcast, iface, monkeypatch):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    gridcast.initGui()
    iface.menus[3][1].trigger()
    assert [Path(url.toLocalFile()) for url in opened] == [paths.resource("help", "index.html")]


def test_the_toolbox_opens_at_the_provider(gridcast, iface):
    from qgis.gui import QgsGui, QgsProcessingToolboxTreeView

    class Toolbox(QDockWidget):
        """As QGIS's own, which needs the whole window."""

        def __init__(self, window):
            super().__init__(window)
            self.setObjectName("ProcessingToolbox")
            self.searchBox = QLineEdit("something", self)
            self.algorithmTree = QgsProcessingToolboxTreeView(self)
            self.algorithmTree.setRegistry(
                QgsApplication.processingRegistry(), QgsGui.instance().processingRecentAlgorithmLog()
            )

        def setUserVisible(self, visible):
            self.shown = visible

    gridcast.initGui()
    toolbox = Toolbox(iface.window)
    gridcast.open_toolbox()
    assert toolbox.shown
    assert toolbox.searchBox.text() == ""
    tree = toolbox.algorithmTree
    assert tree.currentIndex().data() == "Gridcast"
    assert tree.isExpanded(tree.currentIndex())
    assert tree.isExpanded(tree.model().index(0, 0, tree.currentIndex()))
    toolbox.setParent(None)


def test_without_processing_the_menu_says_what_to_do(gridcast, iface, monkeypatch):
    gridcast.initGui()
    gridcast.open_toolbox()
    monkeypatch.setitem(sys.modules, "processing", None)
    gridcast.open_dialog("loadsample")
    assert [message[1] for message in iface.bar.messages] == [
        "Switch on the plugin 'Processing' under Plugins > Manage and Install Plugins."
    ] * 2


def test_without_processing_the_plugin_still_loads(gridcast, iface, monkeypatch):
    def fail():
        raise ImportError("No module named 'processing'")

    monkeypatch.setattr(settings, "add_panel", fail)
    gridcast.initGui()
    assert provider() is not None
    gridcast.unload()
    assert provider() is None


LOAD = """
import json, sys, time
from qgis.core import QgsApplication
import qgis.gui, qgis.utils, numpy
app = QgsApplication([], False)
app.initQgis()
before = set(sys.modules)
start = time.perf_counter()
import gridcast_qgis
plugin = gridcast_qgis.classFactory(None)
plugin.initProcessing()
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
plugin.unload()
app.exitQgis()
"""


def test_loading_is_quick_and_imports_nothing_heavy(tmp_path):
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)]),
        "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path),
    }
    tries = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", LOAD], env=environ, capture_output=True, text=True, check=True
        )
        seconds, modules = json.loads(done.stdout.splitlines()[-1])
        tries.append(seconds)
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & {"tensorflow", "keras", "pandas", "rasterio", "shapely", "pyproj", "xarray", "pyogrio"}
    # The best of three: what the machine does besides is no fault of the plugin.
    assert min(tries) < 0.1, tries
