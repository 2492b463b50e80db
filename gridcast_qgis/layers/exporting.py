# SPDX-License-Identifier: GPL-2.0-or-later
"""What all ways of writing a layer to a file for the worker share."""

from __future__ import annotations

import threading
from pathlib import Path

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFields,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from ..core.errors import GridcastError, JobCancelled

_failed = threading.local()


def _count_failure(_feature: QgsFeature) -> None:
    _failed.count = reprojection_failures() + 1


def count_reprojection_failures(context: QgsProcessingContext) -> None:
    """Let features that cannot be reprojected be counted; call it before a source is made from `context`.

    QGIS keeps the callback without owning it and may still call it after the algorithm has ended: only a
    function that lives as long as the module is safe.
    """
    context.setTransformErrorCallback(_count_failure)


def forget_reprojection_failures() -> None:
    """Begin to count anew."""
    _failed.count = 0


def reprojection_failures() -> int:
    """Return how many features could not be reprojected in this thread so far."""
    return getattr(_failed, "count", 0)


def make_writer(
    path: Path,
    fields: QgsFields,
    wkb_type: QgsWkbTypes.Type,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
) -> QgsVectorFileWriter:
    """Return a writer of features; the file is whole when it is deleted.

    FlatGeobuf (``.fgb``) is written fastest, but takes no rows without geometry; GeoPackage (``.gpkg``) does.
    """
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "FlatGeobuf" if path.suffix == ".fgb" else "GPKG"
    options.layerOptions = ["SPATIAL_INDEX=NO"]
    writer = QgsVectorFileWriter.create(str(path), fields, wkb_type, crs, context.transformContext(), options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise not_written(path, writer)
    return writer


def not_written(path: Path, writer: QgsVectorFileWriter) -> GridcastError:
    """Return the error for a temporary file that could not be written."""
    return GridcastError(
        f"The features cannot be written to the temporary file '{path}': {writer.errorMessage()}.",
        hint="Check the free space of the disk; the temporary folder is set under Settings > Options > "
        "Processing > General.",
    )


def check_cancelled(feedback: QgsProcessingFeedback) -> None:
    """Raise JobCancelled if the user has pressed Cancel."""
    if feedback.isCanceled():
        raise JobCancelled()
