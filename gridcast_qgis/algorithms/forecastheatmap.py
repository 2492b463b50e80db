# SPDX-License-Identifier: GPL-2.0-or-later
"""Forecast Heatmap: a trained network says how many events to expect in each cell in the next steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterRasterDestination,
)

from ..i18n import tr
from ..layers.results import finish_bands
from . import parameters as p
from .base import FORECAST, GridcastAlgorithm


class ForecastHeatMap(GridcastAlgorithm):
    """Forecasts the next steps after the end of a cube, or after any moment in it."""

    ID = "forecastheatmap"
    GROUP = FORECAST

    def title(self) -> str:
        return tr("Forecast Heatmap")

    def summary(self) -> str:
        return tr("Forecasts the expected number of events in each cell in the next steps.")

    def explanation(self) -> str:
        return tr(
            "The result is a raster with one band for each step: band 1 is the first step after the end of "
            "the cube. In QGIS 3.38 and later the temporal controller plays the bands, in earlier versions "
            "each step is a layer. Values are expected events per cell and step, so their sum over an area "
            "is the expected number of events there.\n\n"
            "The cube must have the grid, the time step and the types that the model was trained with; it "
            "may hold newer events. Steps after the first are forecast from forecasts and less certain."
        )

    def keywords(self) -> list[str]:
        return [tr("predict"), tr("heat map"), tr("risk map"), tr("hot spot"), tr("temporal")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file(
                "CUBE",
                tr("Cube"),
                tr("Cube with the latest events, made by 'Rasterize Events to Cube'."),
                p.CUBE_FILTER,
            )
        )
        self.addParameter(
            p.file(
                "MODEL",
                tr("Model"),
                tr("Model made by 'Train ConvLSTM' or 'Train Hetero Ensemble'."),
                p.MODEL_FILTER,
            )
        )
        self.addParameter(
            p.integer(
                "HORIZON", tr("Steps ahead"), tr("How many steps to forecast, such as 7 days."), default=1
            )
        )
        self.addParameter(
            p.moment(
                "ORIGIN",
                tr("Origin"),
                tr(
                    "Time by the cube's clock at which the forecast begins; events after it are not looked "
                    "at. Empty: the end of the cube."
                ),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterDestination("OUTPUT", tr("Forecast")),
                tr("GeoTIFF with one band for each step; the next step is 'Classify Hot Spots'."),
            )
        )
        self.add_numbers(
            EXPECTED_EVENTS=tr("Expected events, all cells and steps"), MAXIMUM=tr("Largest value of a cell")
        )
        self.add_strings(FIRST_STEP=tr("First step"), LAST_STEP=tr("Last step"))

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        p.existing_file(self, parameters, "MODEL", context)
        p.local_time(self, parameters, "ORIGIN", context)
        p.check_destination(parameters, "OUTPUT", context, (".tif", ".tiff"))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        request = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "model": p.existing_file(self, parameters, "MODEL", context),
            "horizon": self.parameterAsInt(parameters, "HORIZON", context),
            "origin": p.local_time(self, parameters, "ORIGIN", context),
            "output": str(Path(output).absolute()),
        }
        made = self.run_worker("forecast", request, feedback)
        intervals = made["intervals"]
        finish_bands(
            output,
            float(made["ramp_maximum"]),
            str(made["unit_text"]),
            intervals,
            context,
            feedback,
            self,
            "OUTPUT",
        )
        return {
            "OUTPUT": output,
            "EXPECTED_EVENTS": made["expected_events"],
            "MAXIMUM": made["maximum"],
            "FIRST_STEP": "/".join(intervals[0]),
            "LAST_STEP": "/".join(intervals[-1]),
        }
