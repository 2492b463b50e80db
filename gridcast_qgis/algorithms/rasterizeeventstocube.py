# SPDX-License-Identifier: GPL-2.0-or-later
"""Rasterize Events to Cube: points with a time become counts per time step, type and cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..core.errors import InputError
from ..i18n import tr
from ..layers.results import load_cube
from . import eventparameters as events
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm

SEVERITIES = ("none", "chicago", "table", "field")


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
            "With END_TIME_FIELD an event of which only an interval is known is spread over the steps of "
            "the interval in proportion to time (aoristic weights); its shares add up to 1. With SEVERITY "
            "the cube also holds how grave the events were: sum, mean and whether there were any.\n\n"
            "Events that cannot be used are counted by reason and never dropped silently: no geometry, no "
            "date, a date that cannot be read, a duplicate if these are to be dropped, outside the grid, the "
            "study area or the period, or not reprojectable."
        )

    def keywords(self) -> list[str]:
        return [tr("cube"), tr("space-time"), tr("netCDF"), tr("mesh"), tr("count points"), tr("aggregate")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        events.add_input(self)
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("GRID", tr("Grid")),
                tr("A grid made by 'Build Grid from Layer'."),
            )
        )
        self.addParameter(
            p.choice(
                "STEP",
                tr("Time step"),
                tr(
                    "Length of a step; shifts begin at SHIFT_STARTS. Shorter steps hold fewer events, so "
                    "that there is less to learn from."
                ),
                p.STEPS,
                default="day",
            )
        )
        events.add_time_zone(self)
        self.addParameter(
            p.described(
                QgsProcessingParameterString("SHIFT_STARTS", tr("Starts of shifts"), None, optional=True),
                tr("Times of day at which shifts begin, for STEP shifts: 7, 15, 23 or 06:45, 14:45, 22:45."),
                advanced=True,
            )
        )
        self.addParameter(
            p.moment(
                "START",
                tr("Start of the period"),
                tr("By the clock of TIME_ZONE; the whole step that holds it counts. Empty: the first event."),
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
        events.add_further_fields(self, "TIME_OF_DAY_FIELD", "END_TIME_FIELD", "ID_FIELD")
        self.addParameter(
            p.switch(
                "DROP_DUPLICATES",
                tr("Drop duplicates"),
                tr(
                    "Counts an event once that occurs again: with the same identity in ID_FIELD, or without "
                    "one with the same place, time and type."
                ),
                default=False,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "SEVERITY",
                tr("Severity"),
                tr(
                    "Where the severity of events comes from. chicago: types of Chicago's police in three "
                    "levels (soft 0, middle 0.5, worst 1). table: SEVERITY_TABLE. field: SEVERITY_FIELD."
                ),
                SEVERITIES,
                default="none",
                advanced=True,
            )
        )
        self.addParameter(
            p.file(
                "SEVERITY_TABLE",
                tr("Table of severities"),
                tr("CSV file with two columns, type and severity, for SEVERITY table."),
                "CSV (*.csv)",
                optional=True,
                advanced=True,
            )
        )
        events.add_further_fields(self, "SEVERITY_FIELD")
        events.add_date_switches(self)
        self.addParameter(
            p.integer(
                "MAX_TYPES",
                tr("Most types"),
                tr("The most frequent types are kept; the others are put together as '(other)'."),
                default=12,
                advanced=True,
            )
        )
        add_load_switch(self)
        self.addParameter(
            p.new_file(
                "OUTPUT",
                tr("Cube"),
                tr("netCDF file with the counts; the next step is 'Train ConvLSTM'."),
                p.CUBE_FILTER,
            )
        )
        add_cube_outputs(self)

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
        needs = {
            "shifts": ("STEP", "SHIFT_STARTS", "Write the times of day at which shifts begin: 7, 15, 23."),
            "table": ("SEVERITY", "SEVERITY_TABLE", "Choose a CSV file with two columns, type and severity."),
            "field": ("SEVERITY", "SEVERITY_FIELD", "Choose the field with the severity."),
            "chicago": ("SEVERITY", "TYPE_FIELD", "Choose the field with the primary type."),
        }
        for word, (key, needed, hint) in needs.items():
            chosen = self.parameterAsEnumString(parameters, key, context) == word
            if chosen and not p.given(parameters, needed):
                raise InputError(
                    f"It is needed for {key} {word}.", hint=hint, parameter=needed, value="not set"
                )
        for key, word, needed in (
            ("SHIFT_STARTS", "shifts", "STEP"),
            ("SEVERITY_FIELD", "field", "SEVERITY"),
            ("SEVERITY_TABLE", "table", "SEVERITY"),
        ):
            if p.given(parameters, key) and self.parameterAsEnumString(parameters, needed, context) != word:
                raise InputError(
                    f"It is used with {needed} {word} only.",
                    hint=f"Set {needed} to {word}, or leave {key} empty.",
                    parameter=key,
                    value=p.shown(parameters[key]),
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
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        step = self.parameterAsEnumString(parameters, "STEP", context)
        if step == "shifts":
            step += " " + self.parameterAsString(parameters, "SHIFT_STARTS", context)
        severity = self.parameterAsEnumString(parameters, "SEVERITY", context)
        table = None
        if severity == "table":
            table = p.existing_file(self, parameters, "SEVERITY_TABLE", context)
        with self.job_folder() as folder:
            request = {
                **events.event_request(self, parameters, context, feedback, folder, grid_layer.crs()),
                "grid": grid,
                "step": step,
                "time_zone": self.parameterAsString(parameters, "TIME_ZONE", context).strip(),
                "start": p.local_time(self, parameters, "START", context),
                "end": p.local_time(self, parameters, "END", context),
                "max_types": self.parameterAsInt(parameters, "MAX_TYPES", context),
                "spread": p.given(parameters, "END_TIME_FIELD"),
                "severity": "" if severity == "none" else severity,
                "severity_table": table,
                "drop_duplicates": self.parameterAsBoolean(parameters, "DROP_DUPLICATES", context),
                "output": str(Path(output).absolute()),
            }
            made = self.run_worker("rasterize_events", request, feedback, folder)
        load_if_wanted(self, parameters, output, context)
        return {"OUTPUT": output, **cube_outputs(made)}


def add_load_switch(algorithm: GridcastAlgorithm) -> None:
    """Declare whether the cube that is made is to be opened."""
    algorithm.addParameter(
        p.switch(
            "LOAD",
            tr("Open the cube as an animated layer"),
            tr("Adds the cube to the project as a mesh layer for the temporal controller."),
            default=True,
            advanced=True,
        )
    )


def load_if_wanted(
    algorithm: GridcastAlgorithm, parameters: dict[str, Any], path: str, context: QgsProcessingContext
) -> None:
    """Open a cube if the switch says so."""
    if algorithm.parameterAsBoolean(parameters, "LOAD", context):
        load_cube(path, tr("Events per cell and step"), "OUTPUT", context)


def add_cube_outputs(algorithm: GridcastAlgorithm) -> None:
    """Declare the numbers that every algorithm gives that counts events."""
    algorithm.add_numbers(
        EVENTS_READ=tr("Events read"),
        EVENTS_USED=tr("Events used"),
        EVENTS_DROPPED=tr("Events dropped"),
        DROPPED_NULL_GEOMETRY=tr("Dropped: no geometry"),
        DROPPED_NULL_TIME=tr("Dropped: no date"),
        DROPPED_BAD_TIME=tr("Dropped: date cannot be read"),
        DROPPED_DUPLICATE=tr("Dropped: duplicate"),
        DROPPED_OUTSIDE_GRID=tr("Dropped: outside the grid"),
        DROPPED_OUTSIDE_AREA=tr("Dropped: outside the study area"),
        DROPPED_OUTSIDE_PERIOD=tr("Dropped: outside the period"),
        DROPPED_REPROJECTION=tr("Dropped: cannot be reprojected"),
        AMBIGUOUS_TIMES=tr("Times that the clock shows twice"),
        SKIPPED_TIMES=tr("Times that the clock skips"),
        STEPS=tr("Time steps"),
        TYPE_COUNT=tr("Types"),
    )


def cube_outputs(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers declared by :func:`add_cube_outputs`."""
    dropped, notes = made["dropped"], made["notes"]
    return {
        "EVENTS_READ": made["events_read"],
        "EVENTS_USED": made["events_used"],
        "EVENTS_DROPPED": sum(dropped.values()),
        **{f"DROPPED_{reason.upper()}": count for reason, count in dropped.items()},
        "AMBIGUOUS_TIMES": notes["ambiguous_time"],
        "SKIPPED_TIMES": notes["skipped_time"],
        "STEPS": made["steps"],
        "TYPE_COUNT": len(made["types"]),
    }
