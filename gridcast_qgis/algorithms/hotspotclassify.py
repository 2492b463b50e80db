# SPDX-License-Identifier: GPL-2.0-or-later
"""Classify Hot Spots: the cells worth a patrol, within an area budget, as ranked polygons."""

from __future__ import annotations

from collections.abc import Mapping
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
from ..layers.results import finish_hot_spots
from ..layers.temporal import period_of_bands
from . import parameters as p
from .base import FORECAST, GridcastAlgorithm


class HotSpotClassify(GridcastAlgorithm):
    """Flags the cells with the most expected events until a share of the area is used up."""

    ID = "hotspotclassify"
    GROUP = FORECAST

    def title(self) -> str:
        return tr("Classify Hot Spots")

    def summary(self) -> str:
        return tr(
            "Flags the places with the most expected events, within a share of the area, as ranked polygons."
        )

    def explanation(self) -> str:
        return tr(
            "Cells are taken in the order of expected events per area until AREA_SHARE percent of the study "
            "area is used up; neighbouring cells become one polygon. Rank 1 expects the most events.\n\n"
            "With a CUBE that already holds the forecast period, the hot spots are compared with what "
            "happened: EVENTS_HIT of EVENTS_OBSERVED events fell into them; PAI is how many times denser "
            "events were there than on average. The outputs that end in BASELINE are the same for the "
            "historical average, which any forecast has to beat."
        )

    def keywords(self) -> list[str]:
        return [tr("hot spot"), tr("patrol"), tr("risk"), tr("rank"), "PAI", tr("evaluate")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("INPUT", tr("Forecast")),
                tr("A forecast made by 'Forecast Heatmap'."),
            )
        )
        self.addParameter(
            p.number(
                "AREA_SHARE",
                tr("Share of the area (percent)"),
                tr("How much of the study area may be flagged: what can be patrolled, for instance."),
                default=5.0,
                minimum=0.0,
                maximum=100.0,
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
                tr("Last band of the forecast to use; the bands are added up. Empty: all."),
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
        self.addParameter(
            p.file(
                "CUBE",
                tr("Cube with what happened"),
                tr("Cube that holds the forecast period, to score the hot spots. Empty: no score."),
                p.CUBE_FILTER,
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "OUTPUT", tr("Hot spots"), QgsProcessing.SourceType.TypeVectorPolygon
                ),
                tr("Polygons with rank, expected events, share of all events, area and density."),
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
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        if self.parameterAsDouble(parameters, "AREA_SHARE", context) <= 0:
            raise InputError(
                "No area can be flagged.",
                hint="Choose a share above 0 percent.",
                parameter="AREA_SHARE",
                value=p.shown(parameters.get("AREA_SHARE")),
            )
        if p.given(parameters, "CUBE"):
            p.existing_file(self, parameters, "CUBE", context)
        p.check_destination(parameters, "OUTPUT", context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        forecast, layer = p.raster_file(self, parameters, "INPUT", context)
        first = p.optional_integer(self, parameters, "FIRST_STEP", context)
        last = p.optional_integer(self, parameters, "LAST_STEP", context)
        bands = layer.bandCount()
        for key, value in (("FIRST_STEP", first), ("LAST_STEP", last)):
            if value is not None and value > bands:
                raise InputError(
                    f"The forecast has {bands} steps.",
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
        with self.job_folder() as folder:
            polygons = folder / "hotspots.gpkg"
            request = {
                "forecast": forecast,
                "area_share": self.parameterAsDouble(parameters, "AREA_SHARE", context),
                "first_step": first,
                "last_step": last,
                "merge": self.parameterAsBoolean(parameters, "MERGE", context),
                "cube": p.existing_file(self, parameters, "CUBE", context)
                if p.given(parameters, "CUBE")
                else None,
                "output": str(polygons),
            }
            made = self.run_worker("classify_hotspots", request, feedback, folder)
            destination = self.save_polygons(polygons, "OUTPUT", parameters, context, feedback)
        period = period_of_bands(layer, first or 1, last or bands)
        finish_hot_spots(destination, period, context, feedback, self, "OUTPUT")
        return {
            "OUTPUT": destination,
            "HOT_SPOTS": made["hot_spots"],
            "AREA_KM2": made["area_km2"],
            "EXPECTED_EVENTS": made["expected_events"],
            "EXPECTED_SHARE": made["expected_share"],
            "EVENTS_OBSERVED": made["events_observed"],
            "EVENTS_HIT": made["events_hit"],
            "PAI": made["pai"],
            "EVENTS_HIT_BASELINE": made["baseline_hit"],
            "PAI_BASELINE": made["baseline_pai"],
        }
