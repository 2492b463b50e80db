# SPDX-License-Identifier: GPL-2.0-or-later
"""Export Cube to Raster: steps of a cube become the bands of a GeoTIFF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..i18n import tr
from ..layers.results import finish_bands
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm


class ExportCube(GridcastAlgorithm):
    """Writes a variable of a cube as a raster with a band for each step."""

    ID = "exportcube"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Export Cube to Raster")

    def summary(self) -> str:
        return tr("Writes steps of a cube as a GeoTIFF with a band for each step.")

    def explanation(self) -> str:
        return tr(
            "Every raster tool reads the result: zonal statistics, the raster calculator, other programs. "
            "Each band is described by its interval and shown at its time by the temporal controller. Cells "
            "outside the study area are empty.\n\n"
            "Empty VARIABLE: the events of all types. Otherwise the name of a type, severity_mean or "
            "severity_sum if the cube has severities, or a covariate that changes from cell to cell and in "
            "time."
        )

    def keywords(self) -> list[str]:
        return [tr("cube"), tr("export"), tr("GeoTIFF"), tr("bands"), tr("netCDF")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("VARIABLE", tr("Variable"), None, optional=True),
                tr("A type, severity_mean, severity_sum or a covariate. Empty: the events of all types."),
            )
        )
        self.addParameter(
            p.moment("START", tr("First step"), tr("By the clock of the cube. Empty: its beginning."))
        )
        self.addParameter(
            p.moment(
                "END",
                tr("End"),
                tr("By the clock of the cube; the step that begins then is left out. Empty: its end."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterDestination("OUTPUT", tr("Events per cell and step")),
                tr("GeoTIFF with one band a step."),
            )
        )
        self.add_numbers(BANDS=tr("Bands"))

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.check_destination(parameters, "OUTPUT", context, (".tif", ".tiff"))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        request = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "variable": self.parameterAsString(parameters, "VARIABLE", context).strip(),
            "start": p.local_time(self, parameters, "START", context),
            "end": p.local_time(self, parameters, "END", context),
            "output": str(Path(output).absolute()),
        }
        made = self.run_worker("export_cube", request, feedback)
        finish_bands(
            output, made["maximum"], made["unit_text"], made["intervals"], context, feedback, self, "OUTPUT"
        )
        return {"OUTPUT": output, "BANDS": made["bands"]}
