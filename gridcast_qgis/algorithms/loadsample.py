# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the shipped sample as a GeoPackage and open it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterVectorDestination,
    QgsProcessingUtils,
)

from .. import paths
from ..i18n import tr
from .base import SET_UP, GridcastAlgorithm
from .parameters import check_destination, described

_SUFFIX = ".gpkg"


class LoadSample(GridcastAlgorithm):
    """Turns the sample into two layers of one GeoPackage."""

    ID = "loadsample"
    GROUP = SET_UP

    def title(self) -> str:
        return tr("Load Sample Data")

    def summary(self) -> str:
        return tr("Writes eight years of reported crimes in Toronto and the city's outline to a GeoPackage.")

    def explanation(self) -> str:
        return tr(
            "The layer 'events' holds 239,935 points from 2014 to 2021 with their time (in UTC; the city's "
            "time zone is America/Toronto) and type: Assault, Break and Enter, Auto Theft, Robbery, Theft "
            "Over. Only the hour is known, and places are shifted to the nearest intersection. The layer "
            "'boundary' holds the outline of the city. Both are in EPSG:4326; build the grid in EPSG:32617."
            "\n\n"
            "Source: Toronto Police Service, Major Crime Indicators. Contains information licensed under the "
            "Open Government Licence – Toronto."
        )

    def keywords(self) -> list[str]:
        return [tr("example"), tr("demo"), tr("tutorial"), tr("test data"), "Toronto"]

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        self.addParameter(
            described(
                QgsProcessingParameterVectorDestination(
                    "OUTPUT", tr("Sample"), QgsProcessing.SourceType.TypeVectorAnyGeometry
                ),
                tr("GeoPackage to write; it gets both layers."),
            )
        )
        self.addOutput(QgsProcessingOutputVectorLayer("EVENTS", tr("Events")))
        self.addOutput(QgsProcessingOutputVectorLayer("BOUNDARY", tr("City boundary")))
        self.add_strings(TIME_ZONE=tr("Time zone of the city"))

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        check_destination(parameters, "OUTPUT", context, [_SUFFIX])

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        destination = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        # A temporary file gets the ending that the user chose for all temporary layers.
        output = str(paths.check_destination(str(Path(destination).with_suffix(_SUFFIX)), "OUTPUT"))
        request = {"folder": str(paths.resource("sample")), "output": output}
        outputs = self.run_worker("load_sample", request, feedback)
        feedback.pushInfo(outputs["attribution"])
        events, boundary = (f"{output}|layername={name}" for name in ("events", "boundary"))
        self._open_both(
            context, destination, {events: tr("Toronto events"), boundary: tr("Toronto boundary")}
        )
        return {
            "OUTPUT": output,
            "EVENTS": events,
            "BOUNDARY": boundary,
            "TIME_ZONE": outputs["time_zone"],
        }

    @staticmethod
    def _open_both(context: QgsProcessingContext, destination: str, layers: Mapping[str, str]) -> None:
        """If QGIS is to open the result, let it open both layers instead of the first one."""
        waiting = context.layersToLoadOnCompletion()
        wish = waiting.pop(destination, None)
        if wish is None:
            return
        for layer, name in layers.items():
            details = QgsProcessingContext.LayerDetails(
                name, wish.project, "OUTPUT", QgsProcessingUtils.LayerHint.Vector
            )
            details.forceName = True
            waiting[layer] = details
        context.setLayersToLoadOnCompletion(waiting)
