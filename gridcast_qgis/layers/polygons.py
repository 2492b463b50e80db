# SPDX-License-Identifier: GPL-2.0-or-later
"""Polygon layers with numbers, such as a census, to files that the worker reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsWkbTypes,
)

from .copying import copy_features, renamed
from .exporting import check_cancelled, make_writer, not_written


def export_polygon_fields(
    source: QgsProcessingFeatureSource,
    folder: Path,
    fields: Sequence[str],
    *,
    crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> tuple[Path, dict[str, str]]:
    """Write polygons with some of their fields, reprojected and with straight edges, by QGIS's C++.

    Selection, filters, edits and joins are respected. Invalid polygons and those without a place in `crs`
    are handed on as they are: the worker repairs and counts them.

    Parameters
    ----------
    fields : sequence of str
        Fields of `source`.
    crs : QgsCoordinateReferenceSystem
        Coordinate reference system of the grid.

    Returns
    -------
    Path
        The file. A GeoPackage: it takes rows without geometry, too.
    dict
        Name of each field in the file to its name in the layer; the file has columns of its own, with whose
        names those of the layer must not clash.

    Raises
    ------
    GridcastError
        The file cannot be written.
    JobCancelled
        The user pressed Cancel.
    """
    path = folder / "polygons.gpkg"
    names = {f"value_{number}": name for number, name in enumerate(fields, start=1)}
    wkb_type = QgsWkbTypes.Type.MultiPolygon
    writer = make_writer(path, renamed(source.fields(), names), wkb_type, crs, context)
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([source.fields().lookupField(name) for name in fields])
    request.setDestinationCrs(crs, context.transformContext())
    request.setFeedback(feedback)
    features = source.getFeatures(request, QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks)
    written = copy_features(features, writer, source.fields(), names, wkb_type)
    check_cancelled(feedback)
    if not written:
        raise not_written(path, writer)
    del writer  # closes the file
    return path, names
