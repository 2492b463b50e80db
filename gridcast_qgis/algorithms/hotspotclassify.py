# SPDX-License-Identifier: GPL-2.0-or-later
"""Classify Hot Spots: the cells worth a patrol, as ranked polygons and maps, judged by what happened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterRasterLayer,
)

from ..core.errors import InputError
from ..i18n import tr
from ..layers.results import finish_hot_spots, finish_map
from ..layers.styling import style_classes, style_hot_probability
from . import parameters as p
from .base import FORECAST, GridcastAlgorithm

RULES = ("area", "probability", "cells")

# Rasters that are made if they are asked for, and how they look.
_MAPS = {"PROBABILITY": style_hot_probability, "CLASSES": style_classes}

# Number outputs, and what the worker calls them.
_NUMBERS = {
    "HOT_SPOTS": "hot_spots",
    "AREA_KM2": "area_km2",
    "EXPECTED_EVENTS": "expected_events",
    "EXPECTED_SHARE": "expected_share",
    "EVENTS_OBSERVED": "events_observed",
    "EVENTS_HIT": "events_hit",
    "PAI": "pai",
    "EVENTS_HIT_BASELINE": "baseline_hit",
    "PAI_BASELINE": "baseline_pai",
    "ACCURACY": "accuracy",
    "PRECISION": "precision",
    "RECALL": "recall",
    "F1": "f1",
}


class HotSpotClassify(GridcastAlgorithm):
    """Flags cells of a forecast, or of what a model says of the next step, by one of several rules."""

    ID = "hotspotclassify"
    GROUP = FORECAST

    def title(self) -> str:
        return tr("Classify Hot Spots")

    def summary(self) -> str:
        return tr("Flags the places where most is to be expected as hot spots, as ranked polygons.")

    def explanation(self) -> str:
        return tr(
            "Hot spots come from a forecast (INPUT), or from a MODEL that is applied to a CUBE for the next "
            "step. RULE decides which cells are flagged: area takes the cells with the most expected events "
            "per area until AREA_SHARE percent of the study area is used up; probability takes those that "
            "are hot with at least the probability THRESHOLD; cells takes the TOP_CELLS cells with the "
            "highest values. Neighbouring cells become one polygon. Rank 1 expects the most events.\n\n"
            "A classifier made by 'Train Hotspot Classifier' (Zhuang et al., Spatio-LSTM, 2017, and the "
            "CrimePredict poster) knows what a hot cell is. For other models (Ahrens & de Wolff, 2023; Lau & "
            "Song, ShotSpotter Model v1.0) a cell is hot from HOT_EVENTS events on.\n\n"
            "With a CUBE that already holds the forecast period (with MODEL: that goes on after ORIGIN), the "
            "hot spots are compared with what happened: EVENTS_HIT of EVENTS_OBSERVED events fell into them; "
            "PAI is how many times denser events were there than on average. The outputs that end in "
            "BASELINE are the same for the historical average, which any forecast has to beat. ACCURACY, "
            "PRECISION, RECALL and F1 compare cell by cell, and CLASSES maps it."
        )

    def keywords(self) -> list[str]:
        return [
            tr("hot spot"),
            tr("patrol"),
            tr("risk"),
            tr("rank"),
            tr("classification"),
            tr("evaluate"),
            "PAI",
            "Spatio-LSTM",
            "CrimePredict",
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self._add_sources()
        self._add_rules()
        self._add_steps()
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "OUTPUT", tr("Hot spots"), QgsProcessing.SourceType.TypeVectorPolygon
                ),
                tr("Polygons with rank, expected events, share of all events, area and density."),
            )
        )
        self.addParameter(
            p.new_raster(
                "PROBABILITY",
                tr("Probability of a hot cell"),
                tr("GeoTIFF with the probability of each cell to be hot."),
                optional=True,
            )
        )
        self.addParameter(
            p.new_raster(
                "CLASSES",
                tr("Hot and cold cells"),
                tr(
                    "GeoTIFF whose first band is 1 in flagged cells, else 0. If the cube holds what "
                    "happened, the second band says the same of that, and the third one compares: 0 rightly "
                    "cold, 1 hit, 2 false alarm, 3 missed."
                ),
                optional=True,
            )
        )
        self.add_numbers(
            HOT_SPOTS=tr("Hot spots"),
            AREA_KM2=tr("Flagged area (km²)"),
            EXPECTED_EVENTS=tr("Expected events in the hot spots"),
            EXPECTED_SHARE=tr("Their share of all expected events (percent)"),
            EVENTS_OBSERVED=tr("Events that happened"),
            EVENTS_HIT=tr("Events that happened in the hot spots"),
            PAI=tr("Prediction accuracy index"),
            EVENTS_HIT_BASELINE=tr("Events in the hot spots of the historical average"),
            PAI_BASELINE=tr("Prediction accuracy index of the historical average"),
            ACCURACY=tr("Share of the cells that were classified rightly"),
            PRECISION=tr("Share of the flagged cells that were hot"),
            RECALL=tr("Share of the hot cells that were flagged"),
            F1=tr("F1"),
        )

    def _add_sources(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("INPUT", tr("Forecast"), None, optional=True),
                tr("A forecast made by 'Forecast Heatmap'. Empty: MODEL is applied to CUBE."),
            )
        )
        self.addParameter(
            p.file(
                "MODEL",
                tr("Model"),
                tr(
                    "Model made by one of the algorithms of the group 'Train', to flag the hot spots of the "
                    "step after ORIGIN. Empty: INPUT is used."
                ),
                p.MODEL_FILTER,
                optional=True,
            )
        )
        self.addParameter(
            p.file(
                "CUBE",
                tr("Cube"),
                tr(
                    "With MODEL: the cube that it is applied to. With INPUT: a cube that holds the forecast "
                    "period, to score the hot spots; empty: no score."
                ),
                p.CUBE_FILTER,
                optional=True,
            )
        )

    def _add_rules(self) -> None:
        self.addParameter(
            p.choice(
                "RULE",
                tr("Rule"),
                tr(
                    "area: the cells with the most events per area, up to AREA_SHARE. probability: the cells "
                    "whose probability is THRESHOLD or more. cells: the TOP_CELLS cells with the highest "
                    "values."
                ),
                RULES,
                default="area",
            )
        )
        self.addParameter(
            p.number(
                "AREA_SHARE",
                tr("Share of the area (percent)"),
                tr(
                    "How much of the study area may be flagged by the rule area: what can be patrolled, for "
                    "instance."
                ),
                default=5.0,
                minimum=0.0,
                maximum=100.0,
            )
        )
        self.addParameter(
            p.number(
                "THRESHOLD",
                tr("Threshold"),
                tr(
                    "Probability from which a cell is flagged by the rule probability. Empty: the "
                    "classifier's own, or 0.5."
                ),
                minimum=0.0,
                maximum=1.0,
                optional=True,
            )
        )
        self.addParameter(
            p.integer(
                "TOP_CELLS",
                tr("Number of cells"),
                tr("How many cells are flagged by the rule cells."),
                default=20,
            )
        )
        self.addParameter(
            p.integer(
                "HOT_EVENTS",
                tr("Events of a hot cell"),
                tr(
                    "Events in the period from which on a cell is hot, where no classifier says it otherwise."
                ),
                default=1,
                advanced=True,
            )
        )

    def _add_steps(self) -> None:
        self.addParameter(
            p.moment(
                "ORIGIN",
                tr("Origin"),
                tr(
                    "With MODEL: time by the cube's clock at which the step begins that is classified; "
                    "events after it are not looked at, except to score. Empty: the end of the cube."
                ),
            )
        )
        self.addParameter(
            p.integer(
                "FIRST_STEP",
                tr("First step"),
                tr("First band of the forecast to use. Empty: 1."),
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "LAST_STEP",
                tr("Last step"),
                tr("Last band of the forecast to use; the bands are put together. Empty: all."),
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.switch(
                "MERGE",
                tr("Merge neighbouring cells"),
                tr("Makes one polygon of flagged cells that touch; else each cell is a polygon."),
                default=True,
                advanced=True,
            )
        )

    # -- running -------------------------------------------------------------------------------

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        self._check_sources(parameters, context)
        if self.parameterAsDouble(parameters, "AREA_SHARE", context) <= 0:
            raise InputError(
                "No area can be flagged.",
                hint="Choose a share above 0 percent.",
                parameter="AREA_SHARE",
                value=p.shown(parameters.get("AREA_SHARE")),
            )
        threshold = p.plain_value(self, parameters, "THRESHOLD", context)
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(
                "The probability must lie between 0 and 1.",
                hint="0.5 is usual.",
                parameter="THRESHOLD",
                value=threshold,
            )
        p.check_destination(parameters, "OUTPUT", context)
        for key in _MAPS:
            p.check_destination(parameters, key, context, p.RASTER_SUFFIXES)
        p.check_distinct(parameters, ("OUTPUT", *_MAPS), context)

    def _check_sources(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        with_model = p.given(parameters, "MODEL")
        if with_model == p.given(parameters, "INPUT"):
            raise InputError(
                "Hot spots come from a forecast or from a model, and here are both."
                if with_model
                else "Hot spots come from a forecast or from a model, and here is neither.",
                hint="Choose INPUT, or MODEL and CUBE.",
                parameter="INPUT",
                value=p.shown(parameters.get("INPUT")) if with_model else "not set",
            )
        if with_model:
            p.existing_file(self, parameters, "MODEL", context)
            p.existing_file(self, parameters, "CUBE", context)
        p.optional_file(self, parameters, "CUBE", context)
        if p.local_time(self, parameters, "ORIGIN", context) and not with_model:
            raise InputError(
                "A forecast has its own beginning.",
                hint="Leave ORIGIN empty, or choose a MODEL in place of INPUT.",
                parameter="ORIGIN",
                value=p.shown(parameters.get("ORIGIN")),
            )

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        maps = {key: self.parameterAsOutputLayer(parameters, key, context) for key in _MAPS}
        with self.job_folder() as folder:
            polygons = folder / "hotspots.gpkg"
            request = {
                **self._source(parameters, context),
                "cube": p.optional_file(self, parameters, "CUBE", context),
                "rule": self.parameterAsEnumString(parameters, "RULE", context),
                "area_share": self.parameterAsDouble(parameters, "AREA_SHARE", context),
                "threshold": p.plain_value(self, parameters, "THRESHOLD", context),
                "top_cells": self.parameterAsInt(parameters, "TOP_CELLS", context),
                "hot_events": self.parameterAsInt(parameters, "HOT_EVENTS", context),
                "merge": self.parameterAsBoolean(parameters, "MERGE", context),
                "output": str(polygons),
                **{
                    f"{key.lower()}_output": str(Path(path).absolute()) if path else None
                    for key, path in maps.items()
                },
            }
            made = self.run_worker("classify_hotspots", request, feedback, folder)
            destination = self.save_layer(polygons, "OUTPUT", parameters, context, feedback)
        period = made["intervals"][0][0], made["intervals"][-1][1]
        finish_hot_spots(destination, period, context, feedback, self, "OUTPUT")
        results = {"OUTPUT": destination}
        for key, path in maps.items():
            if path:
                finish_map(path, _MAPS[key], period, context, feedback, self, key)
                results[key] = path
        return {**results, **{key: made[name] for key, name in _NUMBERS.items()}}

    def _source(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the part of the request that says what is classified."""
        forecast, bands = None, 1  # a model is asked for one step
        if p.given(parameters, "INPUT"):
            forecast, layer = p.raster_file(self, parameters, "INPUT", context)
            bands = layer.bandCount()
        first = p.optional_integer(self, parameters, "FIRST_STEP", context)
        last = p.optional_integer(self, parameters, "LAST_STEP", context)
        for key, value in (("FIRST_STEP", first), ("LAST_STEP", last)):
            if value is not None and value > bands:
                raise InputError(
                    f"The forecast has {bands} steps." if bands > 1 else "The forecast has one step.",
                    hint=f"Choose a step from 1 to {bands}, or leave it empty.",
                    parameter=key,
                    value=value,
                )
        if (first or 1) > (last or bands):
            raise InputError(
                "The last step comes before the first one.",
                hint=f"Choose a step from {first} to {bands}, or leave it empty.",
                parameter="LAST_STEP",
                value=last,
            )
        return {
            "forecast": forecast,
            "model": p.optional_file(self, parameters, "MODEL", context),
            "origin": p.local_time(self, parameters, "ORIGIN", context),
            "first_step": first,
            "last_step": last,
        }
