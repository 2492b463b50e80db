# SPDX-License-Identifier: GPL-2.0-or-later
"""Forecast Heatmap: a trained network says what to expect in each cell in the next steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from ..i18n import tr
from ..layers.results import finish_bands, finish_names, finish_uncertainty
from . import parameters as p
from .base import FORECAST, GridcastAlgorithm

# Rasters that stand beside the forecast, and what the worker calls the names of those that have some.
_BESIDE = ("TYPES_OUTPUT", "PARTS_OUTPUT", "UNCERTAINTY_OUTPUT")
_NAMES = {"TYPES_OUTPUT": "type_names", "PARTS_OUTPUT": "part_names"}


class ForecastHeatMap(GridcastAlgorithm):
    """Forecasts the next steps after the end of a cube, or after any moment in it."""

    ID = "forecastheatmap"
    GROUP = FORECAST

    def title(self) -> str:
        return tr("Forecast Heatmap")

    def summary(self) -> str:
        return tr("Forecasts the expected events, or their probability, in each cell in the next steps.")

    def explanation(self) -> str:
        return tr(
            "The result is a raster with one band for each step: band 1 is the first step after the end of "
            "the cube. In QGIS 3.38 and later the temporal controller plays the bands, in earlier versions "
            "each step is a layer.\n\n"
            "The model decides what the values are. Models for counts (gridcast, convlstm and the Hetero "
            "ensembles, after Ahrens & de Wolff, 2023): expected events per cell and step, so their sum over "
            "an area is the expected number of events there. shotspotter (Lau & Song, ShotSpotter Model "
            "v1.0): the probability of at least one event; with a type head TYPES_OUTPUT says which type it "
            "would have. Classifiers (Zhuang et al., Spatio-LSTM, 2017, and the CrimePredict poster): the "
            "probability that the cell is hot.\n\n"
            "The cube must have the grid, the time step and the types that the model was trained with; it "
            "may hold newer events. Steps after the first are forecast from forecasts and less certain.\n\n"
            "Why here? For the Gridcast network PARTS_OUTPUT takes each forecast apart: the long-run level "
            "of the cell in events, and factors for recent weeks, near repeats, the calendar and the "
            "network's correction; their product is the forecast. Click on a cell with 'Identify Features'."
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
                tr("Model made by one of the algorithms of the group 'Train'."),
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
            p.new_raster(
                "OUTPUT",
                tr("Forecast"),
                tr("GeoTIFF with one band for each step; the next step is 'Classify Hot Spots'."),
            )
        )
        self.addParameter(
            p.new_raster(
                "TYPES_OUTPUT",
                tr("Most likely type"),
                tr(
                    "GeoTIFF that says which type an event would have, for Gridcast networks of cubes with "
                    "types, and models trained with TYPE_HEAD: each step has a band with the probability "
                    "of each type and one with the most likely."
                ),
                optional=True,
            )
        )
        self.addParameter(
            p.new_raster(
                "PARTS_OUTPUT",
                tr("Why here?"),
                tr(
                    "GeoTIFF that says what the forecast of a Gridcast network is made up of: each step has "
                    "a band with the long-run level of each cell, bands with factors, and one with the main "
                    "reason, which is what lifts the cell most above others."
                ),
                optional=True,
            )
        )
        self.addParameter(
            p.new_raster(
                "UNCERTAINTY_OUTPUT",
                tr("How sure?"),
                tr(
                    "GeoTIFF for models of counts: each step has bands with the probability of an event, the "
                    "10, 50 and 90 percent quantiles of the number of events, and the probability that the "
                    "cell is among the TOP_CELLS busiest. Counts of the Gridcast network spread as they did "
                    "on its validation steps, those of others as Poisson counts do."
                ),
                optional=True,
            )
        )
        self.addParameter(
            p.integer(
                "TOP_CELLS",
                tr("Busiest cells"),
                tr("For UNCERTAINTY_OUTPUT: how many cells are the busiest of a step."),
                default=20,
                advanced=True,
            )
        )
        self.add_numbers(
            EXPECTED_EVENTS=tr("Expected events (or hot cells), all cells and steps"),
            MAXIMUM=tr("Largest value of a cell"),
        )
        self.add_strings(FIRST_STEP=tr("First step"), LAST_STEP=tr("Last step"))

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        p.existing_file(self, parameters, "MODEL", context)
        p.local_time(self, parameters, "ORIGIN", context)
        p.check_destination(parameters, "OUTPUT", context, p.RASTER_SUFFIXES)
        for key in _BESIDE:
            p.check_destination(parameters, key, context, p.RASTER_SUFFIXES)
        p.check_distinct(parameters, ("OUTPUT", *_BESIDE), context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        beside = {key: self.parameterAsOutputLayer(parameters, key, context) for key in _BESIDE}
        request = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "model": p.existing_file(self, parameters, "MODEL", context),
            "horizon": self.parameterAsInt(parameters, "HORIZON", context),
            "origin": p.local_time(self, parameters, "ORIGIN", context),
            "output": str(Path(output).absolute()),
            "top_cells": self.parameterAsInt(parameters, "TOP_CELLS", context),
            **{key.lower(): str(Path(path).absolute()) if path else None for key, path in beside.items()},
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
            quantity=str(made["quantity"]),
        )
        results = {"OUTPUT": output}
        for key, path in beside.items():
            if not path:
                continue
            if key in _NAMES:
                finish_names(path, made[_NAMES[key]], intervals, context, feedback, self, key)
            else:
                maximum, bands = float(made["uncertainty_maximum"]), int(made["uncertainty_bands"])
                finish_uncertainty(path, maximum, bands, intervals, context, feedback, self, key)
            results[key] = path
        return {
            **results,
            "EXPECTED_EVENTS": made["expected_events"],
            "MAXIMUM": made["maximum"],
            "FIRST_STEP": "/".join(intervals[0]),
            "LAST_STEP": "/".join(intervals[-1]),
        }
