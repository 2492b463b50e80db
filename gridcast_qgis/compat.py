# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between QGIS versions; no other module asks for a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsDateTimeRange,
    QgsField,
    QgsFields,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QMetaType, QVariant

VERSION: int = Qgis.QGIS_VERSION_INT

#: Up to 3.28.3 date-time values lose their time zone when QGIS reads or writes files.
KEEPS_TIME_ZONES = VERSION >= 32804

#: From 3.38 each band of a raster can have its own time.
HAS_BAND_TIMES = VERSION >= 33800

#: Where a field of a layer comes from: the provider itself.
FIELD_OF_PROVIDER = (
    Qgis.FieldOrigin.Provider if hasattr(Qgis, "FieldOrigin") else QgsFields.FieldOrigin.OriginProvider
)

_TEXT = {QMetaType.Type.QString}
_TIMES = {QMetaType.Type.QDate, QMetaType.Type.QDateTime}
_NUMBERS = {
    QMetaType.Type.Int,
    QMetaType.Type.UInt,
    QMetaType.Type.LongLong,
    QMetaType.Type.ULongLong,
    QMetaType.Type.Double,
}
_OTHERS = {QMetaType.Type.Bool}


def is_null(value: Any) -> bool:
    """Tell whether an attribute is empty, in whichever of its forms a version of QGIS delivers it."""
    return value is None or (isinstance(value, QVariant) and value.isNull())


def holds_times(field: QgsField) -> bool:
    """Tell whether dates can be read from the field: dates, text, and numbers (epoch)."""
    return field.type() in _TEXT | _TIMES | _NUMBERS


def holds_clock_times(field: QgsField) -> bool:
    """Tell whether times of day can be read from the field: times, text, numbers such as 1805."""
    return field.type() in _TEXT | _TIMES | _NUMBERS | {QMetaType.Type.QTime}


def holds_numbers(field: QgsField) -> bool:
    """Tell whether the field holds numbers, be it as text."""
    return field.type() in _TEXT | _NUMBERS


def holds_plain_values(field: QgsField) -> bool:
    """Tell whether the field holds single values that every vector format can store."""
    return field.type() in _TEXT | _TIMES | _NUMBERS | _OTHERS


def is_date_time(field: QgsField) -> bool:
    """Tell whether the field holds dates with a time of day."""
    return field.type() == QMetaType.Type.QDateTime


def wkt(crs: QgsCoordinateReferenceSystem) -> str:
    """Return the coordinate reference system as WKT 2."""
    return crs.toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED)


def source_filter(definition: Any) -> str:
    """Return the feature filter of a QgsProcessingFeatureSourceDefinition, "" before 3.32 had one."""
    return getattr(definition, "filterExpression", "") or ""


def show_band(layer: QgsRasterLayer, band: int) -> None:
    """Let a layer with one coloured band show another band."""
    renderer = layer.renderer()
    if VERSION >= 33800:
        renderer.setInputBand(band)
    else:
        renderer.setBand(band)


def set_fixed_time(layer: QgsRasterLayer, interval: QgsDateTimeRange) -> None:
    """Show the raster only while the temporal controller is within `interval`."""
    properties = layer.temporalProperties()
    properties.setMode(Qgis.RasterTemporalMode.FixedTemporalRange)
    properties.setFixedTemporalRange(interval)
    properties.setIsActive(True)


def set_band_times(
    layer: QgsRasterLayer, intervals: Sequence[QgsDateTimeRange], bands: Sequence[int] | None = None
) -> None:
    """Give some bands, by default 1, 2, …, each its own interval; needs :data:`HAS_BAND_TIMES`."""
    properties = layer.temporalProperties()
    properties.setMode(Qgis.RasterTemporalMode.FixedRangePerBand)
    properties.setFixedRangePerBand(dict(zip(bands or range(1, len(intervals) + 1), intervals)))
    properties.setIsActive(True)


def save_style_in_file(layer: QgsVectorLayer, name: str, description: str) -> str:
    """Store the layer's style in its GeoPackage as the default one; return what went wrong, if anything."""
    # Returns None, a message or a tuple, as the version likes.
    answer = layer.saveStyleToDatabase(name, description, True, "")
    if isinstance(answer, tuple):
        answer = next((part for part in answer if isinstance(part, str)), "")
    return answer or ""
