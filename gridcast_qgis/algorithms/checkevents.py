# SPDX-License-Identifier: GPL-2.0-or-later
"""Check Events: what is odd about a layer of events, before a forecast is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterString,
)

from ..i18n import tr
from . import eventparameters as events
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm

#: Outputs, which are called as the core's numbers of a check, and what they say.
NUMBERS = {
    "ROWS": "Rows",
    "EVENTS": "Events with a place and a date",
    "SHARE_GEOCODED": "Share of rows with a place",
    "DUPLICATES": "Duplicates",
    "SAME_PLACE_TIME_TYPE": "Events of the same place, time and type",
    "TYPES": "Types",
    "PLACES": "Distinct places",
    "FAR_OFF": "Events far off",
    "PILE_UP_SHARE": "Share of events at probable default places",
    "ROUNDING_METRES": "Rounding of coordinates (metres)",
    "DAYS": "Days",
    "EVENTS_PER_DAY": "Events a day",
    "DAYS_WITHOUT_EVENTS": "Days without events",
    "LONGEST_GAP_DAYS": "Longest gap (days)",
    "SPIKE_DAYS": "Days that stand out",
    "THIN_MONTHS": "Months with few events",
    "END_RATIO": "Last days over what is expected",
    "NEW_YEAR_RATIO": "1 January over the weeks around it",
    "JULY_RATIO": "4 July over the weeks around it",
    "MIDNIGHT_SHARE": "Share of events at midnight",
    "HOUR_SHARE": "Share of events on the hour",
    "FIRST_OF_MONTH_RATIO": "First of the month over other days",
    "MEDIAN_LAG_HOURS": "Median delay of reports (hours)",
    "SHARE_KNOWN_AFTER_A_DAY": "Share reported within a day",
    "SHARE_WITH_INTERVAL": "Share of events with an interval",
    "MEDIAN_INTERVAL_HOURS": "Median length of intervals (hours)",
    "SERIOUS": "Serious findings",
    "CAUTIONS": "Cautions",
}


class CheckEvents(GridcastAlgorithm):
    """Writes a report about a layer of events."""

    ID = "checkevents"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Check Events")

    def summary(self) -> str:
        return tr("Writes a short report about a layer of events: what is missing, odd or repeated in it.")

    def explanation(self) -> str:
        return tr(
            "The report is one HTML file with plots: events a day, hour by weekday, types, a map, busy "
            "places and days, and the delay of reports. It says in plain words what to do about missing "
            "dates and places, duplicates, points far off, places and times that stand for an unknown one, "
            "holidays, and periods that are not complete.\n\n"
            "The outputs are numbers that a model can use, for instance to stop when too few events have a "
            "place. The layer is not changed."
        )

    def keywords(self) -> list[str]:
        return [tr("check"), tr("quality"), tr("report"), tr("duplicates"), tr("outliers"), tr("holidays")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        events.add_input(self)
        events.add_time_zone(self)
        events.add_further_fields(self, "TIME_OF_DAY_FIELD", "END_TIME_FIELD", "ID_FIELD", "REPORTED_FIELD")
        self.addParameter(
            p.described(
                QgsProcessingParameterString("HOLIDAYS", tr("Holidays"), "01-01, 07-04", optional=True),
                tr(
                    "Days on which numbers may be unusual, separated by commas: 07-04 for every fourth of "
                    "July, 2024-11-28 for one day."
                ),
                advanced=True,
            )
        )
        events.add_date_switches(self)
        self.addParameter(
            p.described(
                QgsProcessingParameterFileDestination("OUTPUT", tr("Report"), "HTML (*.html)"),
                tr("The report: one file that a browser opens and that can be sent by mail."),
            )
        )
        self.add_numbers(**{key: tr(label) for key, label in NUMBERS.items()})
        self.add_strings(VERDICT=tr("Verdict"))

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.check_destination(parameters, "OUTPUT", context, (".html", ".htm"))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        with self.job_folder() as folder:
            request = {
                **events.event_request(self, parameters, context, feedback, folder),
                "time_zone": self.parameterAsString(parameters, "TIME_ZONE", context).strip(),
                "holidays": p.comma_list(self.parameterAsString(parameters, "HOLIDAYS", context)) or [],
                "output": str(Path(output).absolute()),
            }
            made = self.run_worker("check_events", request, feedback, folder)
        numbers = {key: made[key.lower()] for key in NUMBERS}
        return {"OUTPUT": output, **numbers, "VERDICT": made["verdict"]}
