# SPDX-License-Identifier: GPL-2.0-or-later
"""What QGIS loads: registers the provider and, with a window, the menu "Gridcast"."""

from __future__ import annotations

from collections.abc import Callable

from qgis.core import Qgis, QgsApplication
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon
from qgis.PyQt.QtWidgets import QAction, QDockWidget

from . import paths, settings
from .i18n import tr
from .provider import GridcastProvider

_MENU = "&Gridcast"


class GridcastPlugin:
    """The plugin object: `initProcessing` for qgis_process, `initGui` for the desktop, `unload` for both."""

    def __init__(self, iface):
        self._iface = iface
        self._provider: GridcastProvider | None = None
        self._actions: list[QAction] = []
        self._has_panel = False

    def initProcessing(self) -> None:
        self._provider = GridcastProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        try:
            settings.add_panel()
            self._has_panel = True
        except ImportError:
            # The user switched the Processing plugin off; the environment variable still works.
            pass
        self.initProcessing()
        self._add_action("gridcast", tr("Open the toolbox"), self.open_toolbox)
        self._add_action("loadsample", tr("Load sample data…"), lambda: self.open_dialog("loadsample"))
        self._add_action(
            "setupenvironment", tr("Set up environment…"), lambda: self.open_dialog("setupenvironment")
        )
        self._add_action("gridcast", tr("Help"), self.open_help)

    def unload(self) -> None:
        for action in self._actions:
            self._iface.removePluginMenu(_MENU, action)
            action.deleteLater()
        self._actions.clear()
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
        if self._has_panel:
            settings.remove_panel()
            self._has_panel = False

    def open_toolbox(self) -> None:
        """Show the Processing toolbox with Gridcast's algorithms unfolded."""
        toolbox = self._iface.mainWindow().findChild(QDockWidget, "ProcessingToolbox")
        if toolbox is None or self._provider is None:
            self._miss_processing()
            return
        toolbox.setUserVisible(True)
        toolbox.searchBox.clear()
        tree = toolbox.algorithmTree
        model = tree.model()
        for row in range(model.rowCount()):
            index = model.index(row, 0)
            if index.data() == self._provider.name():
                tree.expandRecursively(index)
                tree.setCurrentIndex(index)
                tree.scrollTo(index, tree.ScrollHint.PositionAtTop)

    def open_dialog(self, algorithm: str) -> None:
        """Show the dialog of one of the algorithms."""
        try:
            import processing
        except ImportError:
            self._miss_processing()
            return
        processing.execAlgorithmDialog(f"gridcast:{algorithm}")

    def open_help(self) -> None:
        """Show the shipped help page in the browser."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(paths.resource("help", "index.html"))))

    def _add_action(self, icon: str, text: str, run: Callable[[], None]) -> None:
        action = QAction(QIcon(str(paths.resource("icons", f"{icon}.svg"))), text, self._iface.mainWindow())
        action.triggered.connect(lambda *_: run())
        self._iface.addPluginToMenu(_MENU, action)
        self._actions.append(action)

    def _miss_processing(self) -> None:
        self._iface.messageBar().pushMessage(
            "Gridcast",
            tr("Switch on the plugin 'Processing' under Plugins > Manage and Install Plugins."),
            Qgis.MessageLevel.Warning,
        )
