# SPDX-License-Identifier: GPL-2.0-or-later
"""Score Forecast: how many of the events that came since lay where they had been forecast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from .. import compat
from ..core.errors import InputError
from ..core.localcrs import suggested_crs
from ..i18n import tr
from ..layers.exporting import count_reprojection_failures
from ..layers.polygons import export_polygon_fields
from ..layers.results import finish_hits
from ..layers.sources import export_polygons, extent_of, field_names
from . import eventparameters as events
from . import parameters as p
from .base import EVALUATE, GridcastAlgorithm

BUDGET_UNITS = ("percent", "square-kilometre", "square-mile", "hectare")
ORDERS = ("lowest-first", "highest-first")
PRESETS = ("none", "nij-2017")

#: Field of entries to the NIJ's challenge that is 1 in flagged cells.
HOTSPOT_FIELD = "hotspot"

# Number outputs, which the worker calls by the same names in lower case, and what they are.
_NUMBERS = {
    "HITS": "Events in the flagged area",
    "EVENTS": "Events",
    "HIT_RATE": "Hit rate (percent)",
    "AREA_KM2": "Flagged area (km²)",
    "AREA_SHARE": "Flagged share of the area (percent)",
    "PAI": "Prediction accuracy index",
    "BEST_HITS": "Events that the best choice would have held",
    "PEI": "Prediction efficiency index",
    "RRI": "Recapture rate index",
    "VIOLATIONS": "Broken rules of the preset",
}


class ScoreForecast(GridcastAlgorithm):
    """Compares a forecast, or polygons that anybody has flagged, with what happened."""

    ID = "scoreforecast"
    GROUP = EVALUATE

    def title(self) -> str:
        return tr("Score Forecast")

    def summary(self) -> str:
        return tr("Compares a forecast, or areas that anybody has flagged, with the events that came since.")

    def explanation(self) -> str:
        return tr(
            "FORECAST is scored step by step: in each step the densest cells are flagged until the budget of "
            "area is used up, and hits are added up over all steps. Of cells that the forecast does not tell "
            "apart, those with the fewest events are taken, so that it earns nothing by chance. FLAGGED is "
            "any layer of polygons, also one that another program has made: an event is a hit if it lies in "
            "one of them. With ORDER_FIELD they are searched in order until a budget is used up.\n\n"
            "PAI = (n / N) / (a / A): n of N events fell into the flagged area a of the study area A; 1 is "
            "chance. PEI = n / n*, where n* is the most that any choice of cells with the same area could "
            "have held. RRI: events forecast for the flagged area over those that came. The table has a row "
            "for each measure and budget; the outputs are those of the first budget. For a forecast it also "
            "has measures of all cells, such as the mean squared error.\n\n"
            "Choose events that were not known when the forecast was made. With FORECAST or CUBE their own "
            "study area counts and the clock is theirs; else STUDY_AREA, TIME_ZONE, START and END are "
            "needed.\n\n"
            "PRESET nij-2017 checks the rules of the Real-Time Crime Forecasting Challenge of the National "
            "Institute of Justice: cells of 62,500 to 360,000 square feet, 0.25 to 0.75 square miles in all. "
            "Each rule that is broken is said. Without STUDY_AREA all events count, and A is 147.71 square "
            "miles. Of a layer with a field 'hotspot' only the features in which it is 1 are flagged. PEI is "
            "what the challenge calls PEI*."
        )

    def keywords(self) -> list[str]:
        return [
            tr("evaluate"),
            tr("validate"),
            tr("hit rate"),
            tr("accuracy"),
            tr("hot spot"),
            *("PAI", "PEI", "RRI", "NIJ"),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self._add_forecast()
        events.add_input(self, optional=True)
        self.addParameter(
            p.file(
                "CUBE",
                tr("Cube"),
                tr("In place of INPUT: a cube that holds the period. Empty: INPUT."),
                p.CUBE_FILTER,
                optional=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "STUDY_AREA",
                    tr("Study area"),
                    [QgsProcessing.SourceType.TypeVectorPolygon],
                    optional=True,
                ),
                tr(
                    "Polygons of the city, for FLAGGED with INPUT: events and flagged areas outside do not "
                    "count."
                ),
            )
        )
        events.add_time_zone(self)
        self._add_budgets()
        self._add_period()
        events.add_further_fields(self, "TIME_OF_DAY_FIELD")
        events.add_date_switches(self)
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "OUTPUT", tr("Measures"), QgsProcessing.SourceType.TypeVector, optional=True
                ),
                tr("Table with a row for each measure and budget."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "POINTS",
                    tr("Events, hit or missed"),
                    QgsProcessing.SourceType.TypeVectorPoint,
                    optional=True,
                    createByDefault=False,
                ),
                tr("The events of INPUT that count, with 1 in the field hit if the first budget held them."),
            )
        )
        self.add_numbers(**{key: tr(label) for key, label in _NUMBERS.items()})

    def _add_forecast(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("FORECAST", tr("Forecast"), None, optional=True),
                tr("A forecast made by 'Forecast Heatmap'. Empty: FLAGGED is scored."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "FLAGGED",
                    tr("Flagged areas"),
                    [QgsProcessing.SourceType.TypeVectorPolygon],
                    optional=True,
                ),
                tr(
                    "Polygons in any coordinate system, made by 'Classify Hot Spots' or by anything else. "
                    "Where they overlap, the area counts once. Empty: FORECAST is scored."
                ),
            )
        )
        self.addParameter(
            p.layer_field(
                "ORDER_FIELD",
                tr("Rank or value field"),
                tr(
                    "Field of FLAGGED with a rank or a value, by which polygons are searched until a budget "
                    "is used up. Empty: all polygons are flagged."
                ),
                layer="FLAGGED",
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "ORDER",
                tr("Order"),
                tr("lowest-first: ORDER_FIELD is a rank. highest-first: it is a value, such as a risk."),
                ORDERS,
                default="lowest-first",
                advanced=True,
            )
        )
        self.addParameter(
            p.layer_field(
                "EXPECTED_FIELD",
                tr("Expected events field"),
                tr("Field of FLAGGED with the events that were forecast for each polygon, for RRI."),
                layer="FLAGGED",
                optional=True,
                advanced=True,
            )
        )

    def _add_budgets(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterString("BUDGETS", tr("Budgets of area"), None, optional=True),
                tr(
                    "How much may be flagged, one or more numbers in BUDGET_UNIT separated by commas, such "
                    "as 5, 1, 10. With FLAGGED they need ORDER_FIELD. Empty: 5 percent of the study area, or "
                    "all polygons."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "BUDGET_UNIT",
                tr("Unit of the budgets"),
                tr("percent: of the study area. Else an area."),
                BUDGET_UNITS,
                default="percent",
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "PRESET",
                tr("Rules"),
                tr("nij-2017: the rules of the NIJ's challenge are checked, see above. none: no rules."),
                PRESETS,
                default="none",
            )
        )
        self.addParameter(
            p.number(
                "CELL_SIZE",
                tr("Cell size of the best choice (metres)"),
                tr(
                    "With FLAGGED and INPUT: the best choice, which PEI compares with, is one of square "
                    "cells of this size. Empty: the cells to which the polygons belong, or squares as large "
                    "as they are; if they have no common size there is no PEI."
                ),
                minimum=0.0,
                optional=True,
                advanced=True,
            )
        )

    def _add_period(self) -> None:
        self.addParameter(
            p.moment(
                "START",
                tr("Start of the period"),
                tr(
                    "With FLAGGED: the moment from which the areas were flagged, by the clock of TIME_ZONE. "
                    "With FORECAST: steps that begin earlier are not scored."
                ),
            )
        )
        self.addParameter(
            p.moment(
                "END",
                tr("End of the period"),
                tr("Events at this time or later do not count. With FORECAST: nor do steps that end later."),
            )
        )
        self.addParameter(
            p.words(
                "TYPES",
                tr("Types of events"),
                tr("Types that count, separated by commas; of TYPE_FIELD or CUBE. Empty: all."),
                advanced=True,
            )
        )
        self.addParameter(
            p.switch(
                "EACH_STEP",
                tr("Flag cells anew in each step"),
                tr("With FORECAST. Switched off: cells are flagged once for the whole period."),
                default=True,
                advanced=True,
            )
        )

    # -- running -------------------------------------------------------------------------------

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        _one_of(parameters, "FORECAST", "FLAGGED", "A forecast or flagged areas are scored")
        _one_of(parameters, "INPUT", "CUBE", "Events come from a layer or from a cube")
        self._check_period(parameters, context)
        self._check_companions(parameters, context)
        budgets = self._budgets(parameters, context)
        if budgets and p.given(parameters, "FLAGGED") and not p.given(parameters, "ORDER_FIELD"):
            raise InputError(
                "With budgets, polygons are searched in an order.",
                hint="Choose the field with their rank or value, or leave BUDGETS empty.",
                parameter="ORDER_FIELD",
                value="not set",
            )
        if p.given(parameters, "CELL_SIZE") and self.parameterAsDouble(parameters, "CELL_SIZE", context) <= 0:
            raise InputError(
                "A cell needs a size.",
                hint="Set a size above 0, or leave it empty.",
                parameter="CELL_SIZE",
                value=p.shown(parameters["CELL_SIZE"]),
            )
        p.optional_file(self, parameters, "CUBE", context)
        for key in ("OUTPUT", "POINTS"):
            p.check_destination(parameters, key, context)
        p.check_distinct(parameters, ("OUTPUT", "POINTS"), context)

    def _check_period(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        start = p.local_time(self, parameters, "START", context)
        end = p.local_time(self, parameters, "END", context)
        if p.given(parameters, "FLAGGED"):
            for key, value in (("START", start), ("END", end)):
                if value is None:
                    raise InputError(
                        "The period that the areas were flagged for is needed.",
                        hint="Set START and END, such as 2024-03-01T00:00:00 and 2024-03-08T00:00:00.",
                        parameter=key,
                        value="not set",
                    )
        if start and end and end <= start:
            raise InputError(
                "The period ends before it begins.",
                hint=f"Set END after START ({start}).",
                parameter="END",
                value=end,
            )

    def _check_companions(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        """Raise InputError for a parameter that lacks the one it belongs to, or stands beside a wrong one."""
        given = {each.name(): p.given(parameters, each.name()) for each in self.parameterDefinitions()}
        bare = given["FLAGGED"] and given["INPUT"] and not given["STUDY_AREA"]
        if bare and self.parameterAsEnumString(parameters, "PRESET", context) == "none":
            raise InputError(
                "A study area is needed: measures compare the flagged area with it.",
                hint="Choose the polygon of the city.",
                parameter="STUDY_AREA",
                value="not set",
            )
        for key, other, message in (
            ("STUDY_AREA", "FORECAST", "A forecast has a study area of its own."),
            ("STUDY_AREA", "CUBE", "A cube has a study area of its own."),
            ("POINTS", "CUBE", "A cube holds counts and no points."),
            ("ORDER_FIELD", "FORECAST", "It is used with FLAGGED only."),
            ("EXPECTED_FIELD", "FORECAST", "It is used with FLAGGED only."),
            ("CELL_SIZE", "FORECAST", "A forecast has cells of its own."),
            ("CELL_SIZE", "CUBE", "A cube has cells of its own."),
        ):
            if given[key] and given[other]:
                raise InputError(
                    message, hint="Leave it empty.", parameter=key, value=p.shown(parameters[key])
                )

    def _budgets(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> list[float]:
        text = self.parameterAsString(parameters, "BUDGETS", context)
        try:
            return [float(word) for word in p.comma_list(text.replace(";", ",")) or []]
        except ValueError as error:
            raise InputError(
                "These are not numbers.",
                hint="Write them with a point for decimals and commas between them: 0.5, 1, 5.",
                parameter="BUDGETS",
                value=text,
            ) from error

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        count_reprojection_failures(context)
        with self.job_folder() as folder:
            cube = p.optional_file(self, parameters, "CUBE", context)
            if p.given(parameters, "FORECAST"):
                path, layer = p.raster_file(self, parameters, "FORECAST", context)
                part, crs = {"forecast": path}, layer.crs()
                if not crs.isValid():
                    raise InputError(
                        "The forecast has lost its coordinate reference system.",
                        hint="Make it again with 'Forecast Heatmap'.",
                        parameter="FORECAST",
                        value=path,
                    )
            else:
                part, crs = self._flagged(parameters, context, feedback, folder, cube)
            if cube is None:
                part |= events.event_request(self, parameters, context, feedback, folder, crs)
            with_points = p.given(parameters, "POINTS")
            table, points = folder / "measures.gpkg", folder / "scored.gpkg"
            request = {
                **part,
                "cube": cube,
                "types": p.comma_list(self.parameterAsString(parameters, "TYPES", context)),
                "time_zone": self.parameterAsString(parameters, "TIME_ZONE", context).strip(),
                "start": p.local_time(self, parameters, "START", context),
                "end": p.local_time(self, parameters, "END", context),
                "budgets": self._budgets(parameters, context),
                "budget_unit": self.parameterAsEnumString(parameters, "BUDGET_UNIT", context),
                "cell_size": p.plain_value(self, parameters, "CELL_SIZE", context),
                "each_step": self.parameterAsBoolean(parameters, "EACH_STEP", context),
                "preset": self.parameterAsEnumString(parameters, "PRESET", context),
                "output": str(table),
                "points_output": str(points) if with_points else None,
            }
            made = self.run_worker("score_forecast", request, feedback, folder)
            results = {key: made[key.lower()] for key in _NUMBERS}
            if p.given(parameters, "OUTPUT"):
                results["OUTPUT"] = self.save_layer(table, "OUTPUT", parameters, context, feedback)
            if with_points:
                results["POINTS"] = self.save_layer(points, "POINTS", parameters, context, feedback)
        if with_points:
            finish_hits(results["POINTS"], context, feedback, self, "POINTS")
        return results

    def _flagged(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        folder: Path,
        cube: str | None,
    ) -> tuple[dict[str, Any], QgsCoordinateReferenceSystem]:
        """Return the part of the request about flagged polygons, and the system they are brought to."""
        export: dict[str, Any] = {"context": context, "feedback": feedback}
        source = p.vector_source(self, parameters, "FLAGGED", context)
        # QGIS may be set to stop at invalid rings; the worker repairs them and says so.
        source.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck.GeometryNoCheck)
        roles = {
            role: self._number_field(parameters, key, context, source)
            for role, key in (("order_field", "ORDER_FIELD"), ("expected_field", "EXPECTED_FIELD"))
            if p.given(parameters, key)
        }
        nij = self.parameterAsEnumString(parameters, "PRESET", context) == "nij-2017"
        hotspot = source.fields().lookupField(HOTSPOT_FIELD)
        if nij and hotspot >= 0:
            roles["hotspot_field"] = source.fields().at(hotspot).name()
        if cube is not None:
            known = self.run_worker("describe_cube", {"cube": cube}, feedback)
            crs = QgsCoordinateReferenceSystem.fromWkt(known["crs"])
        else:
            crs = self._projected(parameters, source, **export)
        path, names = export_polygon_fields(source, folder, list(roles.values()), crs=crs, **export)
        part: dict[str, Any] = {"flagged": str(path), "crs": compat.wkt(crs), **dict(zip(roles, names))}
        part["highest_first"] = self.parameterAsEnumString(parameters, "ORDER", context) == "highest-first"
        if p.given(parameters, "STUDY_AREA"):
            area = p.vector_source(self, parameters, "STUDY_AREA", context)
            area.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck.GeometryNoCheck)
            part["study_area"] = str(export_polygons(area, folder, parameter="STUDY_AREA", crs=crs, **export))
        return part, crs

    def _number_field(
        self,
        parameters: dict[str, Any],
        key: str,
        context: QgsProcessingContext,
        source: QgsProcessingFeatureSource,
    ) -> str:
        """Return the name of a field of the flagged areas that is there and holds numbers."""
        name = self.parameterAsString(parameters, key, context)
        index = source.fields().lookupField(name)
        if index < 0 or not compat.holds_numbers(source.fields().at(index)):
            raise InputError(
                f"The layer '{source.sourceName()}' has no such field."
                if index < 0
                else "The field does not hold numbers.",
                hint=f"Choose a field with numbers; there are: {field_names(source.fields())}.",
                parameter=key,
                value=name,
            )
        return source.fields().at(index).name()

    def _projected(
        self,
        parameters: dict[str, Any],
        source: QgsProcessingFeatureSource,
        **export: Any,
    ) -> QgsCoordinateReferenceSystem:
        """Return the layer's own system, or a local one if that counts in degrees."""
        crs = source.sourceCrs()
        if not crs.isGeographic():
            return crs
        extent = extent_of(
            source,
            parameter="FLAGGED",
            only_some=p.is_part(parameters, "FLAGGED"),
            crs=QgsCoordinateReferenceSystem("EPSG:4326"),
            **export,
        )
        middle = extent.center()
        return QgsCoordinateReferenceSystem(suggested_crs(middle.x(), middle.y()))


def _one_of(parameters: Mapping[str, Any], first: str, second: str, rule: str) -> None:
    """Raise InputError unless exactly one of two parameters is given."""
    both = p.given(parameters, first)
    if both == p.given(parameters, second):
        raise InputError(
            f"{rule}, and here are both." if both else f"{rule}, and here is neither.",
            hint=f"Choose {first} or {second}.",
            parameter=first,
            value=p.shown(parameters.get(first)) if both else "not set",
        )
