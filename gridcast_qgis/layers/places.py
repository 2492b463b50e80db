# SPDX-License-Identifier: GPL-2.0-or-later
"""The bare places of a point layer: a file of them that the worker reads, and their middle."""

from __future__ import annotations

import threading
from pathlib import Path

from qgis.core import (
    QgsAggregateCalculator,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFields,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from .. import compat
from ..core.errors import GridcastError, InputError, JobCancelled

_failed = threading.local()


# QGIS keeps it without owning it, and may call it after the algorithm has ended.
def _count_failure(_feature: QgsFeature) -> None:
    _failed.count = getattr(_failed, "count", 0) + 1


def count_places_without_projection(context: QgsProcessingContext) -> None:
    """Let :func:`export_places` tell of places that fit no map; call it before a source is made.

    A place on the other side of the earth has no coordinates in a local system, and its feature would
    only lose its geometry.
    """
    context.setTransformErrorCallback(_count_failure)


def export_places(
    source: QgsProcessingFeatureSource,
    folder: Path,
    *,
    parameter: str,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> Path:
    """Write the points of a layer without attributes, reprojected, to a FlatGeobuf file.

    The loop over the features runs in QGIS's C++: a million points take a few seconds, and no memory.
    `source` is made after :func:`count_places_without_projection`.

    Raises
    ------
    InputError
        The layer has not one feature; names `parameter`.
    JobCancelled
        The user pressed Cancel.
    """
    path = folder / f"places-{crs.postgisSrid()}.fgb"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "FlatGeobuf"
    options.layerOptions = ["SPATIAL_INDEX=NO"]
    writer = QgsVectorFileWriter.create(
        str(path), QgsFields(), source.wkbType(), crs, context.transformContext(), options
    )
    request = QgsFeatureRequest().setNoAttributes()
    request.setDestinationCrs(crs, context.transformContext())
    request.setFeedback(feedback)
    _failed.count = 0
    written = writer.hasError() == QgsVectorFileWriter.WriterError.NoError and writer.addFeatures(
        source.getFeatures(request), QgsFeatureSink.Flag.FastInsert
    )
    problem = writer.errorMessage()
    del writer  # closes the file
    if feedback.isCanceled():
        raise JobCancelled()
    if not written:
        raise GridcastError(
            f"The points cannot be written to the temporary file '{path}': {problem}.",
            hint="Check the free space of the disk; the temporary folder is set under Settings > Options > "
            "Processing > General.",
        )
    if _failed.count:
        feedback.pushWarning(
            f"{parameter}: {_failed.count:,} features have no place in {crs.authid()}. They do not count for "
            "the study area and its extent: their coordinates are probably wrong."
        )
    if QgsVectorLayer(str(path), "", "ogr").featureCount() < 1:
        raise _no_places(source.sourceName(), parameter)
    return path


def middle_of(places: Path, name: str, parameter: str) -> tuple[float, float]:
    """Return the medians of x and y: unlike the middle of the extent, no odd point moves them.

    Parameters
    ----------
    places : Path
        From :func:`export_places`.
    name, parameter : str
        Layer and parameter named in the error if no feature has a place.
    """
    layer = QgsVectorLayer(str(places), "", "ogr")
    median = QgsAggregateCalculator.Aggregate.Median
    x, y = (layer.aggregate(median, f"{axis}($geometry)")[0] for axis in "xy")
    if compat.is_null(x) or compat.is_null(y):
        raise _no_places(name, parameter)
    return float(x), float(y)


def _no_places(name: str, parameter: str) -> InputError:
    return InputError(
        "The layer has no features with a place.",
        hint="Check its filter, its selection and 'Selected features only'.",
        parameter=parameter,
        value=name,
    )
