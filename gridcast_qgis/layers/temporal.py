# SPDX-License-Identifier: GPL-2.0-or-later
"""Layers that know their time, and a temporal controller that is ready to play them."""

from __future__ import annotations

from collections.abc import Sequence

from qgis.core import (
    Qgis,
    QgsDateTimeRange,
    QgsInterval,
    QgsProject,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDateTime, Qt


def time_ranges(intervals: Sequence[Sequence[str]]) -> list[QgsDateTimeRange]:
    """Return ISO intervals ``[[start, end], …]`` as half-open ranges in UTC."""
    return [QgsDateTimeRange(_utc(start), _utc(end), True, False) for start, end in intervals]


def show_during(layer: QgsVectorLayer, start: QDateTime | str, end: QDateTime | str) -> None:
    """Show the layer while the time between two moments is shown (ISO text where a format has no times)."""
    properties = layer.temporalProperties()
    properties.setMode(Qgis.VectorTemporalMode.FixedTemporalRange)
    properties.setFixedTemporalRange(QgsDateTimeRange(_utc(start), _utc(end), True, False))
    properties.setIsActive(True)


def show_by_fields(layer: QgsVectorLayer, start: str, end: str) -> None:
    """Show each feature while the time between its own start and end is shown."""
    properties = layer.temporalProperties()
    properties.setMode(Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields)
    properties.setStartField(start)
    properties.setEndField(end)
    properties.setIsActive(True)


def offer_period(project: QgsProject, ranges: Sequence[QgsDateTimeRange]) -> None:
    """Let the project and the temporal controller play `ranges`, unless the user has chosen a period."""
    whole = QgsDateTimeRange(ranges[0].begin(), ranges[-1].end(), True, False)
    settings = project.timeSettings()
    if not settings.temporalRange().isInfinite():
        return
    seconds = ranges[0].begin().secsTo(ranges[0].end())
    if seconds >= 86400:
        unit, count = QgsUnitTypes.TemporalUnit.TemporalDays, round(seconds / 86400)
    else:
        unit, count = QgsUnitTypes.TemporalUnit.TemporalMinutes, round(seconds / 60)
    settings.setTemporalRange(whole)
    settings.setTimeStepUnit(unit)
    settings.setTimeStep(count)
    controller = _controller()
    if controller is not None and project is QgsProject.instance():
        controller.setTemporalExtents(whole)
        controller.setFrameDuration(QgsInterval(count, unit))


def _controller():
    from qgis.utils import iface

    canvas = iface.mapCanvas() if iface is not None else None
    return canvas.temporalController() if canvas is not None else None


def _utc(value: QDateTime | str) -> QDateTime:
    moment = (
        value if isinstance(value, QDateTime) else QDateTime.fromString(str(value), Qt.DateFormat.ISODate)
    )
    if not moment.isValid():
        raise ValueError(f"no time: {value}")
    return moment.toUTC()
