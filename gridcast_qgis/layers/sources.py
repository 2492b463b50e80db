# SPDX-License-Identifier: GPL-2.0-or-later
"""Vector layers to files that the worker reads: points with time and type, polygons of a study area.

Selection, filters, edit buffers and every data provider are respected, because the features come from
QGIS. How date-time values arrive in the file (checked on 3.40): without time zone as
``2020-07-01T12:00:00``, which the worker takes as the local clock; in UTC as ``…T12:00:00Z``; with an
offset as ``…T12:00:00-04:00``; dates as midnight without zone. Before 3.28.4 QGIS drops zones when it
reads and when it writes: all values arrive as the first kind, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFeatureSource,
    QgsFields,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProviderRegistry,
    QgsRectangle,
    QgsVectorLayer,
    QgsWkbTypes,
)

from .. import compat
from ..core.errors import InputError
from .copying import copy_features, renamed
from .exporting import (
    check_cancelled,
    forget_reprojection_failures,
    make_writer,
    not_written,
    reprojection_failures,
)

# Formats that the worker's GDAL reads exactly as that of QGIS.
_PLAIN_FORMATS = ("GPKG", "FlatGeobuf", "ESRI Shapefile")

# A null geometry is NULL in some providers and an empty value in others.
_NO_PLACE = "$geometry IS NULL OR is_empty($geometry)"
_WITH_PLACE = f"NOT ({_NO_PLACE})"


@dataclass(frozen=True)
class EventFile:
    """A file of events for the worker.

    Attributes
    ----------
    path : Path
        The file, and its layer in `layer` if it has several.
    fields : dict
        What a column holds (roles of the core's event tables) to its name in the file.
    operation : str or None
        PROJ text of what brings the coordinates in the file to the grid's system.
    dropped : dict
        Rows of the layer that are not in the file, by reason.
    keeps_zones : bool
        Whether times come with the time zones that the layer has.
    """

    path: Path
    layer: str | None
    fields: dict[str, str]
    operation: str | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    keeps_zones: bool = True

    def request(self) -> dict[str, Any]:
        """Return the part of a job's request that describes the file."""
        return {
            "events": str(self.path),
            "layer": self.layer,
            "fields": self.fields,
            "operation": self.operation,
            "dropped_before": self.dropped,
        }


def event_file(
    source: QgsProcessingFeatureSource,
    layer: QgsVectorLayer | None,
    folder: Path,
    *,
    fields: Mapping[str, str],
    crs: QgsCoordinateReferenceSystem,
    table_crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> EventFile:
    """Return a file from which the worker reads the events of a layer.

    Where the layer is nothing but a file (no filter, no selection, no edits) that the worker reads in the
    same way, it is that file, and the worker applies the very coordinate operation that QGIS has chosen.
    Anything else is written to a temporary file by QGIS's C++.

    Parameters
    ----------
    source : QgsProcessingFeatureSource
        Made after :func:`~.exporting.count_reprojection_failures`.
    layer : QgsVectorLayer or None
        The whole layer behind `source`; None if only a part of it is wanted.
    folder : Path
        Where a temporary file is made.
    fields : mapping
        Role to field of `source`. With ``x`` and ``y`` the places stand in fields, in `table_crs`.
    crs : QgsCoordinateReferenceSystem
        Coordinate reference system of the grid.

    Raises
    ------
    InputError
        Not one feature has a place in `crs`.
    JobCancelled
        The user pressed Cancel.
    """
    if "x" in fields:
        operation = _operation(table_crs, crs, context)
        if operation is None:
            raise InputError(
                f"The coordinates in the table ({table_crs.authid()}) cannot be brought to that of the grid.",
                hint="Make a layer of points first ('Create points layer from table').",
                parameter="INPUT",
                value=source.sourceName(),
            )
        path = _export_table(source, folder, fields, context, feedback)
        names = {role: role for role in fields}
        return EventFile(path, None, names, operation, keeps_zones=compat.KEEPS_TIME_ZONES)
    plain = plain_file(layer, fields.values()) if layer is not None else None
    if plain is not None:
        operation = _operation(source.sourceCrs(), crs, context)
        if operation is not None:
            return EventFile(*plain, dict(fields), operation)
    return _export_points(source, folder, fields, crs, context, feedback)


def plain_file(layer: QgsVectorLayer, names: Iterable[str]) -> tuple[Path, str | None] | None:
    """Return file and layer name of a layer that is nothing but a file; None if QGIS adds or hides anything.

    Parameters
    ----------
    names : iterable of str
        Fields that are needed.
    """
    provider = layer.dataProvider()
    if layer.providerType() != "ogr" or provider.storageType() not in _PLAIN_FORMATS:
        return None
    if layer.isEditable() or layer.subsetString() or provider.encoding() != "UTF-8":
        return None
    if QgsWkbTypes.flatType(layer.wkbType()) not in (QgsWkbTypes.Type.Point, QgsWkbTypes.Type.MultiPoint):
        return None
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    if any(value for key, value in parts.items() if key not in ("path", "layerName", "layerId")):
        return None  # options of opening, a filter, an archive
    name = parts.get("layerName")
    if not name and (parts.get("layerId") not in (None, -1, 0) or provider.subLayerCount() > 1):
        return None
    path = Path(parts.get("path") or "")
    if not path.is_file():
        return None
    fields = layer.fields()
    for wanted in names:
        index = fields.lookupField(wanted)
        # Joined and computed fields are not in the file, and the row number is no field there.
        if fields.fieldOrigin(index) != compat.FIELD_OF_PROVIDER or index in provider.pkAttributeIndexes():
            return None
    return path.absolute(), name or None


def _operation(
    source: QgsCoordinateReferenceSystem, target: QgsCoordinateReferenceSystem, context: QgsProcessingContext
) -> str | None:
    """Return the coordinate operation of QGIS as PROJ text, "" if there is nothing to do.

    None: the worker's PROJ may not be able to do the same, because it needs grids of datum shifts.
    """
    transform = QgsCoordinateTransform(source, target, context.transformContext())
    if transform.isShortCircuited():
        return ""
    details = transform.instantiatedCoordinateOperationDetails()
    if not transform.isValid() or not details.proj or "grids=" in details.proj:
        return None
    return details.proj


def _export_table(
    source: QgsProcessingFeatureSource,
    folder: Path,
    fields: Mapping[str, str],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> Path:
    path = folder / "events.gpkg"
    request = QgsFeatureRequest()
    request.setFeedback(feedback)
    none, no_crs = QgsWkbTypes.Type.NoGeometry, QgsCoordinateReferenceSystem()
    _write_rows(source, source.fields(), request, path, dict(fields), none, no_crs, context)
    check_cancelled(feedback)
    return path


def _export_points(
    source: QgsProcessingFeatureSource,
    folder: Path,
    fields: Mapping[str, str],
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> EventFile:
    """Write the points of a layer to a FlatGeobuf file whose fields are called after their roles."""
    names = dict(fields)
    wkb_type = source.wkbType()

    # GDAL before 3.6.4 silently leaves rows without geometry out of a FlatGeobuf file and later versions
    # write them. They are counted here and never written, so that no version matters.
    request = QgsFeatureRequest().setFilterExpression(_NO_PLACE).setNoAttributes()
    request.setFeedback(feedback)
    null_geometry = sum(not _has_place(feature) for feature in source.getFeatures(request))
    check_cancelled(feedback)

    request = QgsFeatureRequest().setFilterExpression(_WITH_PLACE)
    request.setSubsetOfAttributes([source.fields().lookupField(name) for name in names.values()])
    request.setDestinationCrs(crs, context.transformContext())
    request.setFeedback(feedback)
    forget_reprojection_failures()
    path = folder / "events.fgb"
    written = _write_rows(source, source.fields(), request, path, names, wkb_type, crs, context)
    failed = reprojection_failures()
    check_cancelled(feedback)
    names = {name: name for name in names}
    if failed and written:
        # A feature that could not be reprojected goes on without its geometry.
        layer = QgsVectorLayer(str(path), "", "ogr")
        path = folder / "events-reprojected.fgb"
        request = QgsFeatureRequest().setFilterExpression(_WITH_PLACE)
        written = _write_rows(layer, layer.fields(), request, path, names, wkb_type, crs, context)
        check_cancelled(feedback)
    if not written:
        _raise_nothing_written(null_geometry, failed, crs)
    dropped = {"null_geometry": null_geometry, "reprojection": failed}
    return EventFile(path, None, names, None, dropped, compat.KEEPS_TIME_ZONES)


def export_polygons(
    source: QgsProcessingFeatureSource,
    folder: Path,
    *,
    parameter: str,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> Path:
    """Write the polygons of a layer, reprojected and with straight edges, and return the file.

    Raises
    ------
    InputError
        Not one polygon with a place in `crs`; names `parameter`.
    """
    path = folder / f"{parameter.lower()}.fgb"
    writer = make_writer(path, QgsFields(), QgsWkbTypes.Type.MultiPolygon, crs, context)
    request = QgsFeatureRequest().setNoAttributes()
    request.setDestinationCrs(crs, context.transformContext())
    kept = left_out = 0
    for feature in source.getFeatures(request):
        check_cancelled(feedback)
        geometry = feature.geometry()
        if geometry.isEmpty():
            left_out += 1
            continue
        if QgsWkbTypes.isCurvedType(geometry.wkbType()):
            geometry = QgsGeometry(geometry.constGet().segmentize())
        geometry.get().dropZValue()
        geometry.get().dropMValue()
        geometry.convertToMultiType()
        polygon = QgsFeature()
        polygon.setGeometry(geometry)
        if not writer.addFeature(polygon, QgsFeatureSink.Flag.FastInsert):
            raise not_written(path, writer)
        kept += 1
    del writer
    if left_out:
        feedback.pushWarning(
            f"{parameter}: {left_out} features have no geometry, or none that fits {crs.authid()}."
        )
    if kept == 0:
        raise InputError(
            "The layer has no polygon that can be used.",
            hint="Choose a layer with the outline of the study area, and check its filter and selection.",
            parameter=parameter,
            value=source.sourceName(),
        )
    return path


def extent_of(
    source: QgsProcessingFeatureSource,
    *,
    parameter: str,
    only_some: bool,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> QgsRectangle:
    """Return the extent of a layer's features in `crs`.

    Parameters
    ----------
    only_some : bool
        The source has a selection or a filter. The extent that QGIS knows may be that of the whole
        layer then, so the features are looked at.
    """
    if only_some:
        request = QgsFeatureRequest().setNoAttributes()
        request.setDestinationCrs(crs, context.transformContext())
        request.setFeedback(feedback)
        extent = QgsRectangle()  # null: it takes the first one as it is
        for feature in source.getFeatures(request):
            if feature.hasGeometry():
                extent.combineExtentWith(feature.geometry().boundingBox())
        check_cancelled(feedback)
    else:
        extent = source.sourceExtent()
        transform = QgsCoordinateTransform(source.sourceCrs(), crs, context.transformContext())
        if not extent.isNull() and transform.isValid():
            try:
                extent = transform.transformBoundingBox(extent)
            except QgsCsException as error:
                raise InputError(
                    f"The extent of the layer cannot be brought to {crs.authid() or 'the grid’s system'}.",
                    hint="Check the coordinate system of the layer (Layer > Set CRS of Layer).",
                    parameter=parameter,
                    value=source.sourceName(),
                ) from error
    if extent.isNull() or not extent.isFinite() or extent.xMinimum() > extent.xMaximum():
        raise InputError(
            "The layer has no features with a place.",
            hint="Check its filter, its selection and 'Selected features only'.",
            parameter=parameter,
            value=source.sourceName(),
        )
    return extent


def _has_place(feature: QgsFeature) -> bool:
    # Where a selection makes QGIS ignore the filter expression, this is the filter.
    return feature.hasGeometry() and not feature.geometry().isEmpty()


def _write_rows(
    source: QgsFeatureSource,
    fields: QgsFields,
    request: QgsFeatureRequest,
    path: Path,
    names: dict[str, str],
    wkb_type: QgsWkbTypes.Type,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
) -> bool:
    """Write a file and tell whether there is a feature in it."""
    writer = make_writer(path, renamed(fields, names), wkb_type, crs, context)
    if not copy_features(source.getFeatures(request), writer, fields, names, wkb_type):
        raise not_written(path, writer)
    del writer  # closes the file
    return QgsVectorLayer(str(path), "", "ogr").featureCount() > 0


def _raise_nothing_written(null_geometry: int, failed: int, crs: QgsCoordinateReferenceSystem) -> None:
    if failed:
        raise InputError(
            f"Not one of {failed + null_geometry} features can be brought to the grid's coordinate system "
            f"({crs.authid() or crs.description()}).",
            hint="The layer's coordinate system is probably set wrongly: check it (Layer > Set CRS of "
            "Layer).",
            parameter="INPUT",
        )
    if null_geometry:
        raise InputError(
            f"Not one of {null_geometry} features has a geometry.",
            hint="Choose a layer of points, or make one with 'Create points layer from table'.",
            parameter="INPUT",
        )
    raise InputError(
        "The layer has no events.",
        hint="Check its filter, its selection and 'Selected features only'.",
        parameter="INPUT",
    )


def field_names(fields: QgsFields) -> str:
    """Return the names of all fields as one text for messages."""
    names: Iterable[str] = fields.names()
    return ", ".join(names) or "none"
