# SPDX-License-Identifier: GPL-2.0-or-later
"""The bare places of a point layer: a file of them that the worker reads, and their middle."""

from __future__ import annotations

from pathlib import Path

from qgis.core import (
    QgsAggregateCalculator,
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFields,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsVectorLayer,
)

from .. import compat
from ..core.errors import InputError
from .exporting import (
    check_cancelled,
    forget_reprojection_failures,
    make_writer,
    not_written,
    reprojection_failures,
)


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
    `source` is made after :func:`~.exporting.count_reprojection_failures`.

    Raises
    ------
    InputError
        The layer has not one feature; names `parameter`.
    JobCancelled
        The user pressed Cancel.
    """
    path = folder / f"places-{crs.postgisSrid()}.fgb"
    writer = make_writer(path, QgsFields(), source.wkbType(), crs, context)
    request = QgsFeatureRequest().setNoAttributes()
    request.setDestinationCrs(crs, context.transformContext())
    request.setFeedback(feedback)
    forget_reprojection_failures()
    written = writer.addFeatures(source.getFeatures(request), QgsFeatureSink.Flag.FastInsert)
    check_cancelled(feedback)
    if not written:
        raise not_written(path, writer)
    del writer  # closes the file
    if reprojection_failures():
        # A place on the other side of the earth has no coordinates in a local system.
        feedback.pushWarning(
            f"{parameter}: {reprojection_failures():,} features have no place in {crs.authid()}. They do not "
            "count for the study area and its extent: their coordinates are probably wrong."
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
