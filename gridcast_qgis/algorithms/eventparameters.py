# SPDX-License-Identifier: GPL-2.0-or-later
"""What all algorithms that read events share: the layer, its fields, and how its dates are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsField,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSource,
    QgsWkbTypes,
)

from .. import compat
from ..core.errors import InputError
from ..core.schemas import Schema, describe_known, recognise
from ..i18n import tr
from ..layers.exporting import count_reprojection_failures
from ..layers.sources import event_file, field_names
from . import parameters as p

#: Role in an event table to key of the parameter with its field, what the field has to hold, and the test.
_FIELDS: dict[str, tuple[str, str, Callable[[QgsField], bool]]] = {
    "time": ("TIME_FIELD", "dates, text or numbers", compat.holds_times),
    "clock": ("TIME_OF_DAY_FIELD", "times, text or numbers", compat.holds_clock_times),
    "end": ("END_TIME_FIELD", "dates, text or numbers", compat.holds_times),
    "type": ("TYPE_FIELD", "text or numbers", compat.holds_plain_values),
    "severity": ("SEVERITY_FIELD", "numbers", compat.holds_numbers),
    "identity": ("ID_FIELD", "text or numbers", compat.holds_plain_values),
    "reported": ("REPORTED_FIELD", "dates, text or numbers", compat.holds_times),
}


def add_input(algorithm: QgsProcessingAlgorithm, *, optional: bool = False) -> None:
    """Declare layer, time and type."""
    algorithm.addParameter(
        p.described(
            # A table without geometry may have its coordinates in known columns.
            QgsProcessingParameterFeatureSource(
                "INPUT",
                tr("Events"),
                [QgsProcessing.SourceType.TypeVectorPoint, QgsProcessing.SourceType.TypeVector],
                optional=optional,
            ),
            tr(
                "Layer of points, one for each event. Each part of a multipart point is an event. A table "
                "without geometry is understood if it is one of: {0}."
            ).format(describe_known()),
        )
    )
    algorithm.addParameter(
        p.layer_field(
            "TIME_FIELD",
            tr("Date and time field"),
            tr(
                "Field of INPUT with the date, and if possible the time, of the event. Empty: the fields of "
                "known tables are found by their names."
            ),
            optional=True,
        )
    )
    algorithm.addParameter(
        p.layer_field(
            "TYPE_FIELD",
            tr("Type field"),
            tr("Field of INPUT with the type of the event, such as burglary or robbery. Empty: one type."),
            optional=True,
        )
    )


def add_further_fields(algorithm: QgsProcessingAlgorithm, *keys: str) -> None:
    """Declare some of the optional fields by their keys."""
    texts = {
        "TIME_OF_DAY_FIELD": (
            tr("Time of day field"),
            tr(
                "Field with the time of day, where TIME_FIELD holds dates only: 18:05, 6:05 PM or 1805, by "
                "the local clock."
            ),
        ),
        "END_TIME_FIELD": (
            tr("End of the interval"),
            tr(
                "Field with the latest moment at which the event can have happened, where TIME_FIELD is the "
                "earliest one, as for burglaries found in the morning."
            ),
        ),
        "ID_FIELD": (
            tr("Identity field"),
            tr("Field with the number of the case: events with the same one are duplicates."),
        ),
        "SEVERITY_FIELD": (tr("Severity field"), tr("Field with a number that tells how grave an event is.")),
        "REPORTED_FIELD": (
            tr("Report time field"),
            tr("Field with the time at which the event was reported or entered, to measure the delay."),
        ),
    }
    for key in keys:
        algorithm.addParameter(p.layer_field(key, *texts[key], optional=True, advanced=True))


def add_time_zone(algorithm: QgsProcessingAlgorithm) -> None:
    """Declare the zone of the clock."""
    algorithm.addParameter(
        p.time_zone(
            "TIME_ZONE",
            tr("Time zone"),
            tr("Time zone of the study area by its IANA name, such as America/Toronto."),
        )
    )


def add_date_switches(algorithm: QgsProcessingAlgorithm) -> None:
    """Declare how dates are to be read."""
    algorithm.addParameter(
        p.switch(
            "TIMES_ARE_LOCAL",
            tr("Times are local, whatever zone they carry"),
            tr("Switch this on if the field claims to be in UTC but holds the local clock."),
            default=False,
            advanced=True,
        )
    )
    algorithm.addParameter(
        p.switch(
            "DAY_FIRST",
            tr("Day before month"),
            tr("How to read dates such as 03/04/2024 in text: 3 April if switched on, else March 4."),
            default=False,
            advanced=True,
        )
    )


def event_request(
    algorithm: QgsProcessingAlgorithm,
    parameters: Mapping[str, Any],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    folder: Path,
    crs: QgsCoordinateReferenceSystem | None = None,
) -> dict[str, Any]:
    """Return the part of a job's request that says where the events are and how to read them.

    Parameters
    ----------
    folder : Path
        Private folder of the job.
    crs : QgsCoordinateReferenceSystem, optional
        System to bring the events to; by default their own, and the request names it and the layer.

    Raises
    ------
    InputError
        The layer has no such field, no coordinate reference system, or not one usable row.
    """
    feedback.setProgressText(tr("Reading the events"))
    count_reprojection_failures(context)
    source, fields, schema = _source(algorithm, parameters, context, feedback)
    in_columns = QgsCoordinateReferenceSystem(schema.crs) if schema else QgsCoordinateReferenceSystem()
    own = in_columns if "x" in fields else source.sourceCrs()
    found = event_file(
        source,
        p.whole_layer(algorithm, parameters, "INPUT", context),
        folder,
        fields=fields,
        crs=crs or own,
        table_crs=in_columns,
        context=context,
        feedback=feedback,
    )
    local = algorithm.parameterAsBoolean(parameters, "TIMES_ARE_LOCAL", context)
    if not found.keeps_zones and not local and compat.is_date_time(source.fields().field(fields["time"])):
        feedback.pushWarning(
            tr(
                "This version of QGIS drops time zones when it reads date fields: the times of {0} are "
                "taken by the local clock. If they are in another zone, update to QGIS 3.28.4 or later."
            ).format(fields["time"])
        )
    request = {
        **found.request(),
        "times_are_local": local,
        "day_first": algorithm.parameterAsBoolean(parameters, "DAY_FIRST", context),
    }
    return request if crs else request | {"crs": compat.wkt(own), "name": source.sourceName()}


def _source(
    algorithm: QgsProcessingAlgorithm,
    parameters: Mapping[str, Any],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> tuple[QgsProcessingFeatureSource, dict[str, str], Schema | None]:
    """Return the layer, role to field, and the kind of table if it was recognised."""
    source = p.vector_source(algorithm, parameters, "INPUT", context, needs_crs=False)
    schema = recognise(source.fields().names())
    fields = {
        role: _field(algorithm, parameters, key, context, source, wanted, fits)
        for role, (key, wanted, fits) in _FIELDS.items()
        if p.given(parameters, key) and algorithm.parameterDefinition(key) is not None
    }
    kind = QgsWkbTypes.geometryType(source.wkbType())
    without_geometry = kind == QgsWkbTypes.GeometryType.NullGeometry
    if not without_geometry and kind != QgsWkbTypes.GeometryType.PointGeometry:
        raise InputError(
            f"The layer holds {QgsWkbTypes.displayString(source.wkbType())} and not points.",
            hint="Choose a layer with a point for each event, or make one ('Centroids').",
            parameter="INPUT",
            value=source.sourceName(),
        )
    if without_geometry and schema is None:
        raise InputError(
            "The table has no geometry, and its columns are none that Gridcast knows.",
            hint="Make a layer of points first ('Create points layer from table'). Known tables: "
            f"{describe_known()}.",
            parameter="INPUT",
            value=source.sourceName(),
        )
    if "time" not in fields:
        if schema is None:
            raise InputError(
                "A field with the date is needed, and the fields are none that Gridcast knows.",
                hint=f"Choose one of the fields: {field_names(source.fields())}. Known tables: "
                f"{describe_known()}.",
                parameter="TIME_FIELD",
                value="not set",
            )
        fields = {role: schema.roles[role] for role in ("time", "type")} | fields
        named = ", ".join(f"{role} = {name}" for role, name in fields.items())
        feedback.pushInfo(tr("Recognised as a table of {0}: {1}.").format(schema.title, named))
    if without_geometry and schema is not None:
        fields |= {role: schema.roles[role] for role in ("x", "y")}
    else:
        p.check_crs(source, "INPUT")
    return source, fields, schema


def _field(
    algorithm: QgsProcessingAlgorithm,
    parameters: Mapping[str, Any],
    key: str,
    context: QgsProcessingContext,
    source: QgsProcessingFeatureSource,
    wanted: str,
    fits: Callable[[QgsField], bool],
) -> str:
    """Return the name of a field that is there and holds what is needed."""
    name = algorithm.parameterAsString(parameters, key, context)
    index = source.fields().lookupField(name)
    if index < 0:
        raise InputError(
            f"The layer '{source.sourceName()}' has no such field.",
            hint=f"Choose one of its fields: {field_names(source.fields())}.",
            parameter=key,
            value=name,
        )
    field = source.fields().at(index)
    if not fits(field):
        raise InputError(
            f"The field holds {field.typeName()}, not {wanted}.",
            hint="Choose another field.",
            parameter=key,
            value=name,
        )
    return field.name()
