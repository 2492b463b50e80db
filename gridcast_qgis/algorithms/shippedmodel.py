# SPDX-License-Identifier: GPL-2.0-or-later
"""Models that the plugin ships, as algorithms of the provider with ids that never change."""

from __future__ import annotations

from qgis.core import QgsProcessingModelAlgorithm
from qgis.PyQt.QtGui import QIcon

from .. import paths
from ..i18n import tr
from .base import FORECAST


class ForecastFromPoints(QgsProcessingModelAlgorithm):
    """All steps from points to hot spots in one; the model designer of QGIS opens it.

    The steps are in ``resources/models/gridcast_forecast.model3``, in the form that all versions of QGIS
    since 3.22 read and that names the outputs in the same way in all of them.
    """

    ID = "forecastfrompoints"

    def __init__(self) -> None:
        super().__init__()
        path = paths.resource("models", "gridcast_forecast.model3")
        if not self.fromFile(str(path)):
            raise RuntimeError(f"the model {path} cannot be loaded")
        # Without it there is no "Edit Model" and no "Copy as Python Command".
        self.setSourceFilePath(str(path))

    def name(self) -> str:
        return self.ID

    def displayName(self) -> str:
        return tr("Forecast from Points")

    def group(self) -> str:
        return tr(FORECAST[1])

    def groupId(self) -> str:
        return FORECAST[0]

    def shortDescription(self) -> str:
        return tr(
            "All steps in one: from a layer of events and the outline of a city to a forecast and hot spots."
        )

    def shortHelpString(self) -> str:
        # The model's own help is HTML.
        return self.shortDescription() + tr(
            "\n\n"
            "Builds a grid, counts the events per cell and time step, trains a ConvLSTM, forecasts the next "
            "steps and flags the hot spots. It takes as long as the training: minutes to hours.\n\n"
            "For more choices, or to keep the grid, the cube and the model, run the steps one by one, or "
            "open this model in the model designer and save a changed copy."
        )

    def tags(self) -> list[str]:
        return [
            "gridcast",
            tr("crime"),
            tr("forecast"),
            tr("prediction"),
            tr("hot spot"),
            tr("model"),
            tr("workflow"),
        ]

    def svgIconPath(self) -> str:
        return str(paths.resource("icons", f"{self.ID}.svg"))

    def icon(self) -> QIcon:
        return QIcon(self.svgIconPath())

    def createInstance(self) -> ForecastFromPoints:
        return type(self)()
