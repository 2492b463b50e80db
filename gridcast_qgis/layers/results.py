# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to results once they are made: styles saved with them, layers finished after loading."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from qgis.core import (
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFields,
    QgsMapLayer,
    QgsMeshLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsVectorLayer,
)

from .. import compat
from ..core.errors import GridcastError, JobCancelled
from ..i18n import tr
from . import styling
from .copying import copy_features, renamed
from .temporal import offer_period, show_during, time_ranges

Finish = Callable[[QgsMapLayer, QgsProcessingContext], None]

# QGIS does not own post-processors: one that nobody keeps is silently never called. A run makes a few.
_alive: deque[QgsProcessingLayerPostProcessorInterface] = deque(maxlen=500)


class _Finisher(QgsProcessingLayerPostProcessorInterface):
    """Finishes a layer after QGIS has loaded it, in the main thread."""

    def __init__(self, finish: Finish, has_user_style: Callable[[], bool]):
        super().__init__()
        self._finish = finish
        self._has_user_style = has_user_style

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        if self._has_user_style():
            return
        try:
            self._finish(layer, context)
        except Exception as error:  # an exception here would end in a message that names no layer
            feedback.pushWarning(tr("The layer '{0}' could not be styled: {1}").format(layer.name(), error))
        layer.triggerRepaint()


def finish_when_loaded(
    context: QgsProcessingContext, destination: str, algorithm: str, output: str, finish: Finish
) -> None:
    """Call `finish` once the result has been loaded, if it is to be loaded.

    Parameters
    ----------
    destination : str
        Path or layer id under which the context knows the result.
    algorithm, output : str
        Id and output key; a style that the user has set for them is left alone.
    """
    if not context.willLoadLayerOnCompletion(destination):
        return
    details = context.layerToLoadOnCompletionDetails(destination)
    name = details.outputName
    finisher = _Finisher(finish, lambda: _has_user_style(algorithm, output, name))
    _alive.append(finisher)
    details.setPostProcessor(finisher)


def finish_forecast(
    path: str,
    maximum: float,
    unit: str,
    intervals: Sequence[Sequence[str]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: str,
    output: str,
) -> None:
    """Write the style of a forecast next to it and prepare its loading as a temporal raster."""
    ranges = time_ranges(intervals)
    layer = QgsRasterLayer(path, "forecast", "gdal", _plain(QgsRasterLayer))
    styling.style_forecast(layer, maximum, unit)
    if compat.HAS_BAND_TIMES:
        compat.set_band_times(layer, ranges)
    else:
        compat.set_fixed_time(layer, ranges[0])
    problem = styling.save_beside(layer, Path(path))
    if problem:
        feedback.pushWarning(tr("The style could not be saved next to the forecast: {0}").format(problem))

    def finish(loaded: QgsMapLayer, context: QgsProcessingContext) -> None:
        styling.style_forecast(loaded, maximum, unit)
        if compat.HAS_BAND_TIMES:
            compat.set_band_times(loaded, ranges)
        else:
            _show_steps_as_layers(loaded, ranges, context)
        offer_period(context.project(), ranges)

    finish_when_loaded(context, path, algorithm, output, finish)


def finish_grid(
    path: str, context: QgsProcessingContext, feedback: QgsProcessingFeedback, algorithm: str, output: str
) -> None:
    """Write the style of a grid next to it and prepare its loading."""
    layer = QgsRasterLayer(path, "grid", "gdal", _plain(QgsRasterLayer))
    styling.style_grid(layer)
    problem = styling.save_beside(layer, Path(path))
    if problem:
        feedback.pushWarning(tr("The style could not be saved next to the grid: {0}").format(problem))
    finish_when_loaded(context, path, algorithm, output, lambda loaded, _: styling.style_grid(loaded))


def finish_hot_spots(
    destination: str,
    period: tuple[str, str] | None,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: str,
    output: str,
) -> None:
    """Store the style of hot spots with them where they are a file, and prepare their loading.

    Parameters
    ----------
    period : tuple of str or None
        ISO start and end of what the hot spots are for: they are shown while this time is shown.
    """

    def finish(layer: QgsMapLayer, _: QgsProcessingContext) -> None:
        styling.style_hot_spots(layer)
        if period is not None:
            show_during(layer, *period)

    layer = QgsProcessingUtils.mapLayerFromString(destination, context, False)
    if layer is None:  # a file, or a table in a database
        layer = QgsVectorLayer(destination, "hot spots", "ogr", _plain(QgsVectorLayer))
    if layer.isValid():
        finish(layer, context)
        problem = styling.embed(layer)
        if problem:
            feedback.pushWarning(tr("The style could not be saved with the hot spots: {0}").format(problem))
    finish_when_loaded(context, destination, algorithm, output, finish)


def load_cube(path: str, name: str, context: QgsProcessingContext, algorithm: str, output: str) -> None:
    """Have a cube opened as a mesh layer that the temporal controller plays."""
    if context.project() is None:
        return  # nothing is ever loaded, as in qgis_process
    details = QgsProcessingContext.LayerDetails(
        name, context.project(), output, QgsProcessingUtils.LayerHint.Mesh
    )
    context.addLayerToLoadOnCompletion(path, details)

    def finish(loaded: QgsMapLayer, _: QgsProcessingContext) -> None:
        if isinstance(loaded, QgsMeshLayer):
            styling.style_cube(loaded)

    finish_when_loaded(context, path, algorithm, output, finish)


def open_polygons(path: Path) -> QgsVectorLayer:
    """Open a layer that the worker has written."""
    layer = QgsVectorLayer(str(path), "", "ogr", _plain(QgsVectorLayer))
    if not layer.isValid():
        raise GridcastError(f"The result of the worker cannot be opened: '{path}'.")
    return layer


def result_fields(layer: QgsVectorLayer) -> QgsFields:
    """Return the layer's fields without the row number of its file, which means nothing elsewhere."""
    return renamed(layer.fields(), _kept_names(layer))


def copy_result(
    layer: QgsVectorLayer, sink: QgsFeatureSink, feedback: QgsProcessingFeedback, parameter: str
) -> None:
    """Copy all features of the worker's result to a sink made with :func:`result_fields`."""
    request = QgsFeatureRequest()
    request.setFeedback(feedback)
    names = _kept_names(layer)
    if not copy_features(layer.getFeatures(request), sink, layer.fields(), names, layer.wkbType()):
        raise GridcastError(
            f"The polygons cannot be written: {sink.lastError() or 'the file refuses them'}.",
            hint="Check the free space of the disk and choose another output file.",
            parameter=parameter,
        )
    if feedback.isCanceled():
        raise JobCancelled()


def _kept_names(layer: QgsVectorLayer) -> dict[str, str]:
    return {name: name for name in layer.fields().names() if name != "fid"}


def _plain(layer_class: type) -> object:
    """Return options that leave a style found next to the file alone."""
    options = layer_class.LayerOptions()
    options.loadDefaultStyle = False
    return options


def _show_steps_as_layers(layer: QgsRasterLayer, ranges: Sequence, context: QgsProcessingContext) -> None:
    """Before 3.38: one layer per band, each with its time; `layer` becomes the first one."""
    project = context.project()
    name = layer.name()
    compat.set_fixed_time(layer, ranges[0])
    for band in range(len(ranges), 1, -1):
        step = layer.clone()
        compat.show_band(step, band)
        step.setName(f"{name} ({ranges[band - 1].begin().toString('yyyy-MM-dd HH:mm')} UTC)")
        compat.set_fixed_time(step, ranges[band - 1])
        project.addMapLayer(step)
    if len(ranges) > 1:
        layer.setName(f"{name} ({ranges[0].begin().toString('yyyy-MM-dd HH:mm')} UTC)")


def _has_user_style(algorithm: str, output: str, loaded_as: str) -> bool:
    """Tell whether the user has set a style of their own for this output (or this output of a model)."""
    try:
        from processing.gui.RenderingStyles import RenderingStyles
    except ImportError:
        return False
    if RenderingStyles.getStyle(algorithm, output):
        return True
    return loaded_as != output and any(loaded_as in outputs for outputs in RenderingStyles.styles.values())
