# SPDX-License-Identifier: GPL-2.0-or-later
"""Rasterize Events to Cube: points with a time become counts per time step, type and cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterRasterLayer,
)

from .. import compat
from ..core.errors import InputError
from ..i18n import tr
from ..layers.results import load_cube
from ..layers.sources import count_reprojection_failures, export_points, field_names
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm


class RasterizeEventsToCube(GridcastAlgorithm):
    """Counts the events of a point layer in the cells of a grid and the steps of a time axis."""

    ID = "rasterizeeventstocube"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Rasterize Events to Cube")

    def summary(self) -> str:
        return tr("Counts events per cell and time step: the history from which a forecast learns.")

    def explanation(self) -> str:
        return tr(
            "The result is a netCDF file that QGIS also opens as a mesh layer, which the temporal "
            "controller plays. Days, weeks and months begin by the clock of TIME_ZONE.\n\n"
            "TIME_FIELD may hold dates, dates with time, text in most usual forms, or seconds or "
            "milliseconds since 1970. Times without a time zone of their own are taken as the local clock "
            "in TIME_ZONE. The selection and the filters of the layer are respected, and the layer is "
            "reprojected to the grid.\n\n"
            "Events that cannot be used are counted by reason and never dropped silently: no geometry, no "
            "date, a date that cannot be read, outside the grid, the study area or the period, or not "
            "reprojectable."
        )

    def keywords(self) -> list[str]:
        return [tr("cube"), tr("space-time"), tr("netCDF"), tr("mesh"), tr("count points"), tr("aggregate")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "INPUT", tr("Events"), [QgsProcessing.SourceType.TypeVectorPoint]
                ),
                tr("Layer of points, one for each event. Each part of a multipart point is an event."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("GRID", tr("Grid")),
                tr("A grid made by 'Build Grid from Layer'."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterField("TIME_FIELD", tr("Date and time field"), None, "INPUT"),
                tr("Field of INPUT with the date, and if possible the time, of the event."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterField("TYPE_FIELD", tr("Type field"), None, "INPUT", optional=True),
                tr(
                    "Field of INPUT with the type of the event, such as burglary or robbery. Empty: one type."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "STEP",
                tr("Time step"),
                tr("Length of a step. Shorter steps hold fewer events, so that there is less to learn from."),
                p.STEPS,
                default="day",
            )
        )
        self.addParameter(
            p.time_zone(
                "TIME_ZONE",
                tr("Time zone"),
                tr("Time zone of the study area by its IANA name, such as America/Toronto."),
            )
        )
        self.addParameter(
            p.moment(
                "START",
                tr("Start of the period"),
                tr("By the clock of TIME_ZONE. Empty: the first event."),
            )
        )
        self.addParameter(
            p.moment(
                "END",
                tr("End of the period"),
                tr(
                    "By the clock of TIME_ZONE; events at this time or later do not count. Empty: the last "
                    "event."
                ),
            )
        )
        self.addParameter(
            p.switch(
                "TIMES_ARE_LOCAL",
                tr("Times are local, whatever zone they carry"),
                tr("Switch this on if the field claims to be in UTC but holds the local clock."),
                default=False,
                advanced=True,
            )
        )
        self.addParameter(
            p.switch(
                "DAY_FIRST",
                tr("Day before month"),
                tr("How to read dates such as 03/04/2024 in text: 3 April if switched on, else March 4."),
                default=False,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "MAX_TYPES",
                tr("Most types"),
                tr("The most frequent types are kept; the others are put together as '(other)'."),
                default=12,
                advanced=True,
            )
        )
        self.addParameter(
            p.switch(
                "LOAD",
                tr("Open the cube as an animated layer"),
                tr("Adds the cube to the project as a mesh layer for the temporal controller."),
                default=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.new_file(
                "OUTPUT",
                tr("Cube"),
                tr("netCDF file with the counts; the next step is 'Train ConvLSTM'."),
                p.CUBE_FILTER,
            )
        )
        self.add_numbers(
            EVENTS_READ=tr("Events read"),
            EVENTS_USED=tr("Events used"),
            EVENTS_DROPPED=tr("Events dropped"),
            DROPPED_NULL_GEOMETRY=tr("Dropped: no geometry"),
            DROPPED_NULL_TIME=tr("Dropped: no date"),
            DROPPED_BAD_TIME=tr("Dropped: date cannot be read"),
            DROPPED_OUTSIDE_GRID=tr("Dropped: outside the grid"),
            DROPPED_OUTSIDE_AREA=tr("Dropped: outside the study area"),
            DROPPED_OUTSIDE_PERIOD=tr("Dropped: outside the period"),
            DROPPED_REPROJECTION=tr("Dropped: cannot be reprojected"),
            STEPS=tr("Time steps"),
            TYPE_COUNT=tr("Types"),
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        start = p.local_time(self, parameters, "START", context)
        end = p.local_time(self, parameters, "END", context)
        if start and end and end <= start:
            raise InputError(
                "The period ends before it begins.",
                hint=f"Set END after START ({start}), or leave both empty.",
                parameter="END",
                value=end,
            )
        p.check_destination(parameters, "OUTPUT", context, (".nc",))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        grid, grid_layer = p.raster_file(self, parameters, "GRID", context)
        if not grid_layer.crs().isValid():
            raise InputError(
                "The grid has lost its coordinate reference system.",
                hint="Make it again with 'Build Grid from Layer'.",
                parameter="GRID",
                value=grid,
            )
        count_reprojection_failures(context)
        source = p.vector_source(self, parameters, "INPUT", context)
        time_field = self._field(parameters, "TIME_FIELD", context, source)
        type_field = None
        if p.given(parameters, "TYPE_FIELD"):
            type_field = self._field(parameters, "TYPE_FIELD", context, source)
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)

        with self.job_folder() as folder:
            feedback.setProgressText(tr("Reading the events"))
            events = export_points(
                source,
                folder,
                crs=grid_layer.crs(),
                context=context,
                time_field=time_field,
                type_field=type_field,
                feedback=feedback,
            )
            request = {
                "events": str(events.path),
                "grid": grid,
                "step": self.parameterAsEnumString(parameters, "STEP", context),
                "time_zone": self.parameterAsString(parameters, "TIME_ZONE", context).strip(),
                "times_are_local": self.parameterAsBoolean(parameters, "TIMES_ARE_LOCAL", context),
                "day_first": self.parameterAsBoolean(parameters, "DAY_FIRST", context),
                "start": p.local_time(self, parameters, "START", context),
                "end": p.local_time(self, parameters, "END", context),
                "max_types": self.parameterAsInt(parameters, "MAX_TYPES", context),
                "dropped_before": events.dropped,
                "output": str(Path(output).absolute()),
            }
            self._warn_about_zones(source, time_field, request, feedback)
            made = self.run_worker("rasterize_events", request, feedback, folder)
        if self.parameterAsBoolean(parameters, "LOAD", context):
            load_cube(output, tr("Events per cell and step"), "OUTPUT", context)
        dropped = made["dropped"]
        return {
            "OUTPUT": output,
            "EVENTS_READ": made["events_read"],
            "EVENTS_USED": made["events_used"],
            "EVENTS_DROPPED": sum(dropped.values()),
            **{f"DROPPED_{reason.upper()}": count for reason, count in dropped.items()},
            "STEPS": made["steps"],
            "TYPE_COUNT": len(made["types"]),
        }

    def _field(
        self,
        parameters: dict[str, Any],
        key: str,
        context: QgsProcessingContext,
        source: QgsProcessingFeatureSource,
    ) -> str:
        """Return the name of a field that is there and holds what is needed."""
        name = self.parameterAsString(parameters, key, context)
        index = source.fields().lookupField(name)
        if index < 0:
            raise InputError(
                f"The layer '{source.sourceName()}' has no such field.",
                hint=f"Choose one of its fields: {field_names(source.fields())}.",
                parameter=key,
                value=name,
            )
        field = source.fields().at(index)
        fits = compat.holds_times if key == "TIME_FIELD" else compat.holds_plain_values
        if not fits(field):
            wanted = "dates, text or numbers" if key == "TIME_FIELD" else "text or numbers"
            raise InputError(
                f"The field holds {field.typeName()}, not {wanted}.",
                hint="Choose another field.",
                parameter=key,
                value=name,
            )
        return field.name()

    @staticmethod
    def _warn_about_zones(
        source: QgsProcessingFeatureSource,
        time_field: str,
        request: Mapping[str, Any],
        feedback: QgsProcessingFeedback,
    ) -> None:
        field = source.fields().field(time_field)
        if not compat.KEEPS_TIME_ZONES and compat.is_date_time(field) and not request["times_are_local"]:
            feedback.pushWarning(
                tr(
                    "This version of QGIS drops time zones when it reads date fields: the times of {0} are "
                    "taken as the clock of {1}. If they are in another zone, update to QGIS 3.28.4 or later."
                ).format(time_field, request["time_zone"])
            )
