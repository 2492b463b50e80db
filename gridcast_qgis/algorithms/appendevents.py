# SPDX-License-Identifier: GPL-2.0-or-later
"""Append Events to Cube: what has happened since is added to a cube, without reading the old events again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingContext, QgsProcessingFeedback

from ..core.errors import InputError
from ..i18n import tr
from . import eventparameters as events
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm
from .rasterizeeventstocube import add_cube_outputs, add_load_switch, cube_outputs, load_if_wanted


class AppendEvents(GridcastAlgorithm):
    """Extends a cube by new events."""

    ID = "appendevents"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Append Events to Cube")

    def summary(self) -> str:
        return tr("Extends a cube by new events, without reading the old ones again.")

    def explanation(self) -> str:
        return tr(
            "The result is the cube that 'Rasterize Events to Cube' would have made of the old and the new "
            "events together: with the same grid, steps, types and severities. Days, weeks and months begin "
            "as before.\n\n"
            "INPUT may hold all events or the new ones only. A cube knows up to which moment it has counted: "
            "END, or the last event. By default the events before it are left aside, because they are in the "
            "cube; switch ONLY_LATER off if every event of INPUT is new, so that late reports of old events "
            "count as well. The numbers are those of this run.\n\n"
            "A new type gets a layer of its own while the cube has fewer types than it may have. Covariates "
            "that change in time are empty in the new steps: add them again. Duplicates are found among the "
            "new events only."
        )

    def keywords(self) -> list[str]:
        return [tr("cube"), tr("append"), tr("update"), tr("nightly"), tr("netCDF")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        events.add_input(self)
        self.addParameter(
            p.moment(
                "END",
                tr("End of the period"),
                tr(
                    "By the clock of the cube; events at this time or later do not count, and the cube goes "
                    "on to this time. Empty: the last event."
                ),
            )
        )
        self.addParameter(
            p.switch(
                "ONLY_LATER",
                tr("Only events after those that the cube has counted"),
                tr("Switch this off if INPUT holds nothing that the cube has counted already."),
                default=True,
            )
        )
        events.add_further_fields(self, "TIME_OF_DAY_FIELD", "END_TIME_FIELD", "ID_FIELD", "SEVERITY_FIELD")
        events.add_date_switches(self)
        add_load_switch(self)
        self.addParameter(
            p.new_file(
                "OUTPUT", tr("Longer cube"), tr("netCDF file; CUBE itself is not changed."), p.CUBE_FILTER
            )
        )
        add_cube_outputs(self)
        self.add_numbers(
            STEPS_NEW=tr("New time steps"), EVENTS_LEFT_ASIDE=tr("Events that the cube has counted already")
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.check_destination(parameters, "OUTPUT", context, (".nc",))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        cube = p.existing_file(self, parameters, "CUBE", context)
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if Path(output).absolute() == Path(cube):
            raise InputError(
                "This is the cube that is extended.",
                hint="Choose another file: inputs are never changed.",
                parameter="OUTPUT",
                value=output,
            )
        with self.job_folder() as folder:
            known = self.run_worker("describe_cube", {"cube": cube}, feedback)
            crs = QgsCoordinateReferenceSystem.fromWkt(known["crs"])
            request = {
                **events.event_request(self, parameters, context, feedback, folder, crs),
                "cube": cube,
                "end": p.local_time(self, parameters, "END", context),
                "only_later": self.parameterAsBoolean(parameters, "ONLY_LATER", context),
                "output": str(Path(output).absolute()),
            }
            made = self.run_worker("append_events", request, feedback, folder)
        load_if_wanted(self, parameters, output, context)
        return {
            "OUTPUT": output,
            **cube_outputs(made),
            "STEPS_NEW": made["steps_new"],
            "EVENTS_LEFT_ASIDE": made["events_left_aside"],
        }
