# SPDX-License-Identifier: GPL-2.0-or-later
"""Vector layers to files that the worker reads: points with time and type, polygons of a study area.

Selection, filters, edit buffers and every data provider are respected, because the features come from
QGIS. How date-time values arrive in the file (checked on 3.40): without time zone as
``2020-07-01T12:00:00``, which the worker takes as the local clock; in UTC as ``…T12:00:00Z``; with an
offset as ``…T12:00:00-04:00``; dates as midnight without zone. Before 3.28.4 QGIS drops zones when it
reads and when it writes: all values arrive as the first kind, and a warning says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

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
    QgsRectangle,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)

from ..core.errors import GridcastError, InputError, JobCancelled
from .copying import copy_features, renamed

# A null geometry is NULL in some providers and an empty value in others.
_NO_PLACE = "$geometry IS NULL OR is_empty($geometry)"
_WITH_PLACE = f"NOT ({_NO_PLACE})"

_failed = threading.local()


def _count_failure(_feature: QgsFeature) -> None:
    _failed.count = getattr(_failed, "count", 0) + 1


def count_reprojection_failures(context: QgsProcessingContext) -> None:
    """Let features that cannot be reprojected be counted; call it before a source is made from `context`.

    QGIS keeps the callback without owning it and may still call it after the algorithm has ended: only a
    function that lives as long as the module is safe.
    """
    context.setTransformErrorCallback(_count_failure)


@dataclass(frozen=True)
class ExportedPoints:
    """A file of points, and the rows of the layer that are not in it by reason."""

    path: Path
    dropped: dict[str, int] = field(default_factory=dict)


def export_points(
    source: QgsProcessingFeatureSource,
    folder: Path,
    *,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    time_field: str,
    type_field: str | None,
    feedback: QgsProcessingFeedback,
) -> ExportedPoints:
    """Write the points of a layer with the fields ``time`` and ``type`` to a FlatGeobuf file.

    Parameters
    ----------
    source : QgsProcessingFeatureSource
        Made after :func:`count_reprojection_failures`.
    folder : Path
        Where the file is made.
    crs : QgsCoordinateReferenceSystem
        Coordinate reference system of the file.
    time_field, type_field : str
        Fields of `source`; no type field: the file has none either.

    Raises
    ------
    InputError
        Not one feature has a place in `crs`.
    JobCancelled
        The user pressed Cancel.
    """
    names = {"time": time_field}
    if type_field:
        names["type"] = type_field
    wkb_type = source.wkbType()

    # GDAL before 3.6.4 silently leaves rows without geometry out of a FlatGeobuf file and later versions
    # write them. They are counted here and never written, so that no version matters.
    request = QgsFeatureRequest().setFilterExpression(_NO_PLACE).setNoAttributes()
    request.setFeedback(feedback)
    null_geometry = sum(not _has_place(feature) for feature in source.getFeatures(request))
    _check_cancelled(feedback)

    request = QgsFeatureRequest().setFilterExpression(_WITH_PLACE)
    request.setSubsetOfAttributes([source.fields().lookupField(name) for name in names.values()])
    request.setDestinationCrs(crs, context.transformContext())
    request.setFeedback(feedback)
    _failed.count = 0
    path = folder / "events.fgb"
    written = _write_points(source, source.fields(), request, path, names, wkb_type, crs, context)
    failed = _failed.count
    _check_cancelled(feedback)
    if failed and written:
        # A feature that could not be reprojected goes on without its geometry.
        layer = QgsVectorLayer(str(path), "", "ogr")
        path = folder / "events-reprojected.fgb"
        request = QgsFeatureRequest().setFilterExpression(_WITH_PLACE)
        names = {name: name for name in names}
        written = _write_points(layer, layer.fields(), request, path, names, wkb_type, crs, context)
        _check_cancelled(feedback)
    if not written:
        _raise_nothing_written(null_geometry, failed, crs)
    return ExportedPoints(path, {"null_geometry": null_geometry, "reprojection": failed})


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
    writer = _writer(path, QgsFields(), QgsWkbTypes.Type.MultiPolygon, crs, context)
    request = QgsFeatureRequest().setNoAttributes()
    request.setDestinationCrs(crs, context.transformContext())
    kept = left_out = 0
    for feature in source.getFeatures(request):
        _check_cancelled(feedback)
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
            raise _not_written(path, writer)
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
        _check_cancelled(feedback)
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


def _write_points(
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
    writer = _writer(path, renamed(fields, names), wkb_type, crs, context)
    if not copy_features(source.getFeatures(request), writer, fields, names, wkb_type):
        raise _not_written(path, writer)
    del writer  # closes the file
    return QgsVectorLayer(str(path), "", "ogr").featureCount() > 0


def _writer(
    path: Path,
    fields: QgsFields,
    wkb_type: QgsWkbTypes.Type,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
) -> QgsVectorFileWriter:
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "FlatGeobuf"
    options.layerOptions = ["SPATIAL_INDEX=NO"]
    writer = QgsVectorFileWriter.create(str(path), fields, wkb_type, crs, context.transformContext(), options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise _not_written(path, writer)
    return writer


def _not_written(path: Path, writer: QgsVectorFileWriter) -> GridcastError:
    return GridcastError(
        f"The features cannot be written to the temporary file '{path}': {writer.errorMessage()}.",
        hint="Check the free space of the disk; the temporary folder is set under Settings > Options > "
        "Processing > General.",
    )


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


def _check_cancelled(feedback: QgsProcessingFeedback) -> None:
    if feedback.isCanceled():
        raise JobCancelled()


def field_names(fields: QgsFields) -> str:
    """Return the names of all fields as one text for messages."""
    names: Iterable[str] = fields.names()
    return ", ".join(names) or "none"
