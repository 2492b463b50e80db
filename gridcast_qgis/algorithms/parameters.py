# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters with help, and their values with errors that name parameter, value and fix."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDateTime,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProperty,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDateTime, Qt, QTimeZone

from .. import compat, paths, settings
from ..core.errors import InputError
from ..i18n import tr

#: Time steps; the names are those of the core. Shifts begin at times of day that are given besides.
STEPS = (
    "15min",
    "30min",
    "1h",
    "2h",
    "3h",
    "4h",
    "6h",
    "8h",
    "12h",
    "day",
    "week",
    "14days",
    "30days",
    "month",
    "quarter",
    "shifts",
)

CUBE_FILTER = "Gridcast cube (*.nc)"
MODEL_FILTER = "Gridcast model (*.gridcast)"
ANY_FILE = "Any file (*)"
RASTER_SUFFIXES = (".tif", ".tiff")

_TEMPORARY = "TEMPORARY_OUTPUT"

# Layers in memory and tables in databases: "memory:", "postgis:dbname=…", "ogr:dbname=…"; no drive letter.
_NO_FILE = re.compile(r"[A-Za-z]{2,}:")

_NO_LAYER = (
    "The layer cannot be opened.",
    "Choose a vector layer of the project, or check that the file exists and is not damaged.",
)
_NO_RASTER = (
    "The raster cannot be opened: it is missing, damaged or no raster.",
    "Choose another file, for a grid or a forecast one that Gridcast has written.",
)

# -- making parameters --------------------------------------------------------------------------


def described(
    definition: QgsProcessingParameterDefinition, text: str, *, advanced: bool = False
) -> QgsProcessingParameterDefinition:
    """Give a parameter its help, and fold it away if it is advanced."""
    definition.setHelp(text)
    if advanced:
        definition.setFlags(definition.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
    return definition


def integer(
    key: str,
    label: str,
    text: str,
    *,
    default: int | None = None,
    minimum: int = 1,
    maximum: int | None = None,
    optional: bool = False,
    advanced: bool = False,
) -> QgsProcessingParameterDefinition:
    """Make a whole number parameter."""
    definition = QgsProcessingParameterNumber(
        key, label, QgsProcessingParameterNumber.Type.Integer, default, optional, minimum
    )
    if maximum is not None:
        definition.setMaximum(maximum)
    return described(definition, text, advanced=advanced)


def number(
    key: str,
    label: str,
    text: str,
    *,
    default: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    optional: bool = False,
    advanced: bool = False,
) -> QgsProcessingParameterDefinition:
    """Make a number parameter."""
    definition = QgsProcessingParameterNumber(
        key, label, QgsProcessingParameterNumber.Type.Double, default, optional
    )
    if minimum is not None:
        definition.setMinimum(minimum)
    if maximum is not None:
        definition.setMaximum(maximum)
    return described(definition, text, advanced=advanced)


def choice(
    key: str, label: str, text: str, options: Sequence[str], *, default: str, advanced: bool = False
) -> QgsProcessingParameterDefinition:
    """Make a parameter that takes one of a few words; the words themselves are stored in models."""
    definition = QgsProcessingParameterEnum(
        key, label, list(options), allowMultiple=False, defaultValue=default, usesStaticStrings=True
    )
    return described(definition, text, advanced=advanced)


def switch(
    key: str, label: str, text: str, *, default: bool, advanced: bool = False
) -> QgsProcessingParameterDefinition:
    """Make a yes/no parameter."""
    return described(QgsProcessingParameterBoolean(key, label, default), text, advanced=advanced)


def words(key: str, label: str, text: str, *, advanced: bool = False) -> QgsProcessingParameterDefinition:
    """Make an optional parameter for a list of words, separated by commas."""
    definition = QgsProcessingParameterString(key, label, None, optional=True)
    return described(definition, text, advanced=advanced)


def validation_share(text: str) -> QgsProcessingParameterDefinition:
    """Make the advanced parameter VALIDATION_SHARE; `text` says what the share is kept for."""
    return number(
        "VALIDATION_SHARE",
        tr("Validation share (percent)"),
        text,
        default=15.0,
        minimum=1.0,
        maximum=50.0,
        advanced=True,
    )


def seed(text: str) -> QgsProcessingParameterDefinition:
    """Make the advanced parameter SEED; `text` says which random numbers it begins."""
    return integer("SEED", tr("Seed"), text, default=1, minimum=0, maximum=2**31 - 1, advanced=True)


def scheduler(what: str) -> QgsProcessingParameterDefinition:
    """Make the advanced parameter SCHEDULER; `what` runs on the cluster, as the object of a sentence."""
    text = tr(
        "Address of the scheduler of a Dask cluster, such as tcp://10.0.0.5:8786, whose machines train {0}. "
        "The result is the same. Empty: the address in the settings of the provider, or in the environment "
        "variable GRIDCAST_SCHEDULER; without one, this computer. The help of Gridcast says how to start a "
        "cluster."
    ).format(what)
    definition = QgsProcessingParameterString("SCHEDULER", tr("Cluster"), None, optional=True)
    return described(definition, text, advanced=True)


def moment(key: str, label: str, text: str) -> QgsProcessingParameterDefinition:
    """Make an optional, advanced parameter for a date and time by the local clock."""
    definition = QgsProcessingParameterDateTime(
        key, label, QgsProcessingParameterDateTime.Type.DateTime, None, True
    )
    return described(definition, text, advanced=True)


def time_zone(key: str, label: str, text: str) -> QgsProcessingParameterDefinition:
    """Make a parameter for an IANA time zone, shown as a list where QGIS can."""
    definition = QgsProcessingParameterString(key, label, "UTC")
    zones = sorted(
        {
            bytes(zone).decode()
            for zone in QTimeZone.availableTimeZoneIds()
            if not bytes(zone).startswith(b"UTC")
        }
    )
    definition.setMetadata({"widget_wrapper": {"value_hints": ["UTC", *zones]}})
    return described(definition, text)


def layer_field(
    key: str, label: str, text: str, *, layer: str = "INPUT", optional: bool = False, advanced: bool = False
) -> QgsProcessingParameterDefinition:
    """Make a parameter for a field of a layer."""
    definition = QgsProcessingParameterField(key, label, None, layer, optional=optional)
    return described(definition, text, advanced=advanced)


def file(
    key: str, label: str, text: str, file_filter: str, *, optional: bool = False, advanced: bool = False
) -> QgsProcessingParameterDefinition:
    """Make a parameter for a file that exists."""
    definition = QgsProcessingParameterFile(
        key,
        label,
        QgsProcessingParameterFile.Behavior.File,
        defaultValue=None,
        optional=optional,
        fileFilter=file_filter,
    )
    return described(definition, text, advanced=advanced)


def new_file(key: str, label: str, text: str, file_filter: str) -> QgsProcessingParameterDefinition:
    """Make a parameter for a file to be written."""
    return described(QgsProcessingParameterFileDestination(key, label, file_filter), text)


def new_raster(
    key: str, label: str, text: str, *, optional: bool = False
) -> QgsProcessingParameterDefinition:
    """Make a parameter for a GeoTIFF to be written; an optional one is made only if it is asked for."""
    definition = QgsProcessingParameterRasterDestination(
        key, label, None, optional=optional, createByDefault=not optional
    )
    return described(definition, text)


# -- reading values -----------------------------------------------------------------------------


def given(parameters: Mapping[str, Any], key: str) -> bool:
    """Tell whether the user, a model or a script has set the parameter to something."""
    value = parameters.get(key)
    return not compat.is_null(value) and value != ""


def shown(value: Any) -> str:
    """Return a parameter's value as one word for messages."""
    if isinstance(value, (QgsProcessingFeatureSourceDefinition, QgsProcessingOutputLayerDefinition)):
        value = value.source if isinstance(value, QgsProcessingFeatureSourceDefinition) else value.sink
    if isinstance(value, QgsProperty):
        value = value.staticValue() if value.staticValue() is not None else value.asExpression()
    if isinstance(value, QDateTime):
        return value.toString(Qt.DateFormat.ISODate)
    name = getattr(value, "name", None)  # a layer
    return name() if callable(name) else str(value)


def check_values(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> None:
    """Raise InputError for the first value that its parameter does not accept.

    QGIS does this too, but says only that the value is "incorrect", and in a model not even that.
    """
    for definition in algorithm.parameterDefinitions():
        key = definition.name()
        value = parameters.get(key, definition.defaultValue())
        if definition.checkValueIsAcceptable(value, context) and not _no_number(definition, value):
            continue
        if not given({key: value}, key):
            raise InputError(
                "A value is needed here.", hint=f"Set {key}: {definition.description()}.", parameter=key
            )
        message, hint = _expected(definition, value)
        raise InputError(message, hint=hint, parameter=key, value=shown(value))


def _no_number(definition: QgsProcessingParameterDefinition, value: Any) -> bool:
    """Tell whether this is text in the place of a number: QGIS takes any text for an optional one."""
    if not isinstance(definition, QgsProcessingParameterNumber) or not isinstance(value, str) or not value:
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _expected(definition: QgsProcessingParameterDefinition, value: Any) -> tuple[str, str]:
    """Return what is wrong with a value that the parameter does not accept, and what it wants."""
    if isinstance(definition, QgsProcessingParameterNumber):
        low, high = definition.minimum(), definition.maximum()
        whole = definition.dataType() == QgsProcessingParameterNumber.Type.Integer
        kind = "a whole number" if whole else "a number"
        if low > -1e300 and high < (2**31 - 1 if whole else 1e300):
            return f"This is not {kind} from {low:g} to {high:g}.", "Choose a value in this range."
        if low > -1e300 and low > -(2**31):
            return f"This is not {kind} of at least {low:g}.", "Choose a larger value."
        return f"This is not {kind}.", "Write digits only, with a point for decimals."
    if isinstance(definition, QgsProcessingParameterEnum):
        if definition.allowMultiple():
            how = f"Choose from {', '.join(definition.options())}; separate several by commas."
            return "Not all of these are among the choices.", how
        return "This is not one of the choices.", f"Choose one of: {', '.join(definition.options())}."
    if isinstance(definition, QgsProcessingParameterDateTime):
        return "This is no date and time.", "Write it as 2024-01-31T18:00:00."
    if isinstance(definition, QgsProcessingParameterFile):
        return _no_file(Path(shown(value)), definition)
    if isinstance(definition, QgsProcessingParameterFeatureSource):
        return _NO_LAYER
    if isinstance(definition, QgsProcessingParameterRasterLayer):
        return _NO_RASTER
    if isinstance(definition, QgsProcessingParameterMultipleLayers):
        return "Not all of these layers can be opened.", "Check that the files exist and are not damaged."
    return "This value cannot be used here.", f"Expected is: {definition.help()}"


def optional_integer(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> int | None:
    """Return a whole number, None if it is not given."""
    return algorithm.parameterAsInt(parameters, key, context) if given(parameters, key) else None


def plain_value(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> Any:
    """Return a number, a word, a list of words, yes or no, as the parameter is; None for an empty one."""
    definition = algorithm.parameterDefinition(key)
    if isinstance(definition, QgsProcessingParameterBoolean):
        return algorithm.parameterAsBoolean(parameters, key, context)
    if isinstance(definition, QgsProcessingParameterEnum):
        return algorithm.parameterAsEnumString(parameters, key, context)
    if isinstance(definition, QgsProcessingParameterString):
        return comma_list(algorithm.parameterAsString(parameters, key, context)) or []
    if not given(parameters, key) and definition.defaultValue() is None:
        return None
    if definition.dataType() == QgsProcessingParameterNumber.Type.Integer:
        return algorithm.parameterAsInt(parameters, key, context)
    return algorithm.parameterAsDouble(parameters, key, context)


def scheduler_address(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], context: QgsProcessingContext
) -> str | None:
    """Return the address of the cluster to be used; None leaves it to the worker's environment."""
    given_here = algorithm.parameterAsString(parameters, "SCHEDULER", context).strip()
    return given_here or settings.scheduler() or None


def local_time(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> str | None:
    """Return a date and time by the local clock as ISO text, None if it is not given."""
    if not given(parameters, key):
        return None
    value = algorithm.parameterAsDateTime(parameters, key, context)
    if not value.isValid():
        raise InputError(
            "This is no date and time.",
            hint="Write it as 2024-01-31T18:00:00.",
            parameter=key,
            value=shown(parameters[key]),
        )
    if value.timeSpec() != Qt.TimeSpec.LocalTime:
        raise InputError(
            "The time has a time zone of its own.",
            hint="Write it by the clock of the study area, without Z or an offset: 2024-01-31T18:00:00.",
            parameter=key,
            value=shown(parameters[key]),
        )
    return value.toString("yyyy-MM-ddTHH:mm:ss")


def existing_file(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> str:
    """Return the absolute path of a file that is there."""
    text = algorithm.parameterAsFile(parameters, key, context)
    definition = algorithm.parameterDefinition(key)
    if not text:
        raise InputError(
            "A file is needed here.", hint=f"Set {key}: {definition.description()}.", parameter=key
        )
    path = Path(text).absolute()
    if not path.is_file():
        message, hint = _no_file(path, definition)
        raise InputError(message, hint=hint, parameter=key, value=text)
    return str(path)


def optional_file(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> str | None:
    """Return the absolute path of a file that is there, None if none is given."""
    return existing_file(algorithm, parameters, key, context) if given(parameters, key) else None


def kept_file(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> str | None:
    """Return the absolute path of a file that later runs find again, None if none is given."""
    if not given(parameters, key):
        return None
    text = algorithm.parameterAsFile(parameters, key, context)
    if text == _TEMPORARY:
        raise InputError(
            "A temporary file is not found again by the next run.",
            hint="Name a file in a folder of your own.",
            parameter=key,
            value=text,
        )
    return str(paths.check_destination(text, key))


def _no_file(path: Path, definition: QgsProcessingParameterFile) -> tuple[str, str]:
    """Return what is wrong with a path that is not the file that is needed, and what to do."""
    hint = f"Choose another file: {definition.fileFilter()}."
    if path.is_dir():
        return "This is a folder.", hint
    if path.is_file():
        return "The file has another ending than the ones that Gridcast writes.", hint
    return "The file does not exist.", hint


def vector_source(
    algorithm: QgsProcessingAlgorithm,
    parameters: Mapping[str, Any],
    key: str,
    context: QgsProcessingContext,
    *,
    needs_crs: bool = True,
) -> QgsProcessingFeatureSource:
    """Return the features of a layer that is there and, if needed, has a coordinate reference system."""
    source = algorithm.parameterAsSource(parameters, key, context)
    if source is None:
        message, hint = _NO_LAYER
        raise InputError(message, hint=hint, parameter=key, value=shown(parameters.get(key)))
    if needs_crs:
        check_crs(source, key)
    return source


def check_crs(source: QgsProcessingFeatureSource, key: str) -> None:
    """Raise InputError unless the layer has a coordinate reference system."""
    crs = source.sourceCrs()
    # A GeoPackage may say "undefined", which QGIS takes for a system; nothing can be brought to or from it.
    if not crs.isValid() or not crs.toProj():
        raise InputError(
            "The layer has no coordinate reference system.",
            hint="Assign the right one: Layer > Set CRS of Layer in QGIS, or the algorithm 'Assign "
            "projection'.",
            parameter=key,
            value=source.sourceName(),
        )


def whole_layer(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> QgsVectorLayer | None:
    """Return the layer of a parameter if all of its features are wanted, None otherwise."""
    value = parameters.get(key)
    if isinstance(value, QgsProcessingFeatureSourceDefinition) and (
        is_part(parameters, key) or value.featureLimit != -1
    ):
        return None
    return algorithm.parameterAsVectorLayer(parameters, key, context)


def is_part(parameters: Mapping[str, Any], key: str) -> bool:
    """Tell whether only the selected or filtered features of a layer are wanted."""
    value = parameters.get(key)
    if not isinstance(value, QgsProcessingFeatureSourceDefinition):
        return False
    return value.selectedFeaturesOnly or bool(compat.source_filter(value))


def raster_file(
    algorithm: QgsProcessingAlgorithm, parameters: Mapping[str, Any], key: str, context: QgsProcessingContext
) -> tuple[str, QgsRasterLayer]:
    """Return the path and the layer of a raster that is a file on this computer."""
    layer = algorithm.parameterAsRasterLayer(parameters, key, context)
    if layer is None or not layer.isValid():
        message, hint = _NO_RASTER
        raise InputError(message, hint=hint, parameter=key, value=shown(parameters.get(key)))
    path = Path(layer.source())
    if layer.providerType() != "gdal" or not path.is_file():
        raise InputError(
            "The raster is not a file on this computer.",
            hint="Choose the GeoTIFF file that Gridcast has written.",
            parameter=key,
            value=layer.source(),
        )
    return str(path.absolute()), layer


def comma_list(text: str) -> list[str] | None:
    """Return the words of a comma-separated list, None if there is none; quotes protect commas."""
    words = [word.strip() for row in csv.reader([text], skipinitialspace=True) for word in row]
    return [word for word in words if word] or None


def check_destination(
    parameters: Mapping[str, Any], key: str, context: QgsProcessingContext, suffixes: Sequence[str] = ()
) -> None:
    """Raise InputError if the file named for an output cannot be written, before any work is done.

    Parameters
    ----------
    suffixes : sequence of str
        Endings the name may have; none: any.
    """
    text = _file_named(parameters, key, context)
    if text is None:
        return  # whether it may be left out is checked elsewhere
    if suffixes and not text.lower().endswith(tuple(suffixes)):
        raise InputError(
            "The file name has another ending than the format that is written.",
            hint=f"Give it the ending {' or '.join(suffixes)}.",
            parameter=key,
            value=text,
        )
    paths.check_destination(text, key)


def check_distinct(parameters: Mapping[str, Any], keys: Sequence[str], context: QgsProcessingContext) -> None:
    """Raise InputError if two of some parameters, inputs or outputs, name the same file."""
    seen: dict[str, str] = {}
    for key in keys:
        text = _file_named(parameters, key, context)
        if text is None:
            continue
        other = seen.setdefault(os.path.normcase(os.path.abspath(text)), key)
        if other != key:
            raise InputError(
                f"This is the same file as {other}.",
                hint="Choose another file: inputs are never changed, and each result has a file of its own.",
                parameter=key,
                value=text,
            )


def _file_named(parameters: Mapping[str, Any], key: str, context: QgsProcessingContext) -> str | None:
    """Return the file that a parameter names; None if it is left out, temporary or no file."""
    value = parameters.get(key)
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink
    if isinstance(value, QgsProperty):
        value, _ = value.valueAsString(context.expressionContext(), "")
    if not given({key: value}, key):
        return None
    text = str(value)
    return None if text == _TEMPORARY or _NO_FILE.match(text) else text
