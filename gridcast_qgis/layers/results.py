# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to results once they are made: styles saved with them, layers finished after loading."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFields,
    QgsMapLayer,
    QgsMeshLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingModelAlgorithm,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsVectorLayer,
)

from .. import compat
from ..core.errors import GridcastError, JobCancelled
from ..i18n import tr
from . import styling
from .copying import copy_features, renamed
from .temporal import offer_period, show_by_fields, show_during, time_ranges

Finish = Callable[[QgsMapLayer, QgsProcessingContext], None]

# QGIS does not own post-processors: one that nobody keeps is silently never called. A run makes a few.
_alive: deque[QgsProcessingLayerPostProcessorInterface] = deque(maxlen=500)


# Where a band cannot have a time of its own, each step is a layer: a month of days is enough of them.
_MOST_LAYERS = 31


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
    context: QgsProcessingContext,
    destination: str,
    algorithm: QgsProcessingAlgorithm,
    output: str,
    finish: Finish,
    name: str | None = None,
) -> None:
    """Call `finish` once the result has been loaded, if it is to be loaded.

    Parameters
    ----------
    destination : str
        Path or layer id under which the context knows the result.
    algorithm, output : QgsProcessingAlgorithm, str
        Who makes the result, and its key; a style that the user has set for it is left alone.
    name : str, optional
        Name of the layer, unless the user has given it one; by default what the output is called.
    """
    if not context.willLoadLayerOnCompletion(destination):
        return
    details = context.layerToLoadOnCompletionDetails(destination)
    label = algorithm.outputDefinition(output).description()
    in_model = details.name != label
    if details.name in (output, label):  # the shipped model would name layers by keys
        details.name = name or label
    algorithm_id = algorithm.id()
    _set_finisher(details, finish, lambda: _has_user_style(algorithm_id, output, in_model))


def _set_finisher(
    details: QgsProcessingContext.LayerDetails, finish: Finish, has_user_style: Callable[[], bool]
) -> None:
    finisher = _Finisher(finish, has_user_style)
    _alive.append(finisher)
    details.setPostProcessor(finisher)


def finish_bands(
    path: str,
    maximum: float,
    unit: str,
    intervals: Sequence[Sequence[str]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
    *,
    quantity: str = "events",
) -> None:
    """Write the style of a raster with a band a step next to it and prepare its loading as a temporal layer.

    Parameters
    ----------
    maximum : float
        Upper end of the colour ramp.
    unit : str
        What the values are, for the legend.
    intervals : sequence
        ISO start and end of each band.
    quantity : {"events", "probability", "hot"}
        Events, the probability of an event, or that of a hot cell; decides legend and name.
    """
    ranges = time_ranges(intervals)
    names = {"probability": tr("Probability of an event"), "hot": tr("Probability of a hot cell")}
    style = styling.style_probability if quantity in names else styling.style_forecast
    layer = _open_raster(path)
    style(layer, maximum, unit)
    if compat.HAS_BAND_TIMES:
        compat.set_band_times(layer, ranges)
    else:
        compat.set_fixed_time(layer, ranges[0])
    _save_style(layer, path, feedback)

    def finish(loaded: QgsMapLayer, context: QgsProcessingContext) -> None:
        style(loaded, maximum, unit)
        if compat.HAS_BAND_TIMES:
            compat.set_band_times(loaded, ranges)
        else:
            _show_steps_as_layers(loaded, ranges, context)
        offer_period(context.project(), ranges)

    finish_when_loaded(context, path, algorithm, output, finish, names.get(quantity))


def finish_names(
    path: str,
    names: Sequence[str],
    intervals: Sequence[Sequence[str]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Have a raster of types or parts show the one that counts most in each step.

    Parameters
    ----------
    names : sequence of str
        Each step has a band for each of them and one with the number of that which counts most.
    intervals : sequence
        ISO start and end of each step.
    """
    each = len(names) + 1

    def style(layer: QgsRasterLayer) -> None:
        styling.style_names(layer, each, names)

    _finish_stack(path, style, each, each, intervals, context, feedback, algorithm, output)


def finish_uncertainty(
    path: str,
    maximum: float,
    bands: int,
    intervals: Sequence[Sequence[str]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Have a raster of uncertainty show the first of the bands of each step, a probability."""

    def style(layer: QgsRasterLayer) -> None:
        styling.style_probability(layer, maximum, tr("probability of an event"))

    _finish_stack(path, style, bands, 1, intervals, context, feedback, algorithm, output)


def _finish_stack(
    path: str,
    style: Callable[[QgsRasterLayer], None],
    each: int,
    shown: int,
    intervals: Sequence[Sequence[str]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Style a raster with `each` bands a step, of which one (from 1) is `shown`."""
    ranges = time_ranges(intervals)

    def style_in_time(layer: QgsRasterLayer) -> None:
        style(layer)
        if compat.HAS_BAND_TIMES:
            compat.set_band_times(layer, ranges, [each * step + shown for step in range(len(ranges))])
        else:
            compat.set_fixed_time(layer, ranges[0])

    finish_raster(path, style_in_time, context, feedback, algorithm, output)


def finish_map(
    path: str,
    style: Callable[[QgsRasterLayer], None],
    period: tuple[str, str],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Style a raster that is one map of a period, given by its ISO start and end."""
    (interval,) = time_ranges([period])

    def style_in_time(layer: QgsRasterLayer) -> None:
        style(layer)
        compat.set_fixed_time(layer, interval)

    finish_raster(path, style_in_time, context, feedback, algorithm, output)


def finish_grid(
    path: str,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Show the cells of a grid by their share inside the study area."""
    finish_raster(path, styling.style_grid, context, feedback, algorithm, output)


def finish_raster(
    path: str,
    style: Callable[[QgsRasterLayer], None],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Write the style of a raster next to it and prepare its loading."""
    layer = _open_raster(path)
    style(layer)
    _save_style(layer, path, feedback)
    finish_when_loaded(context, path, algorithm, output, lambda loaded, _: style(loaded))


def finish_hot_spots(
    destination: str,
    period: tuple[str, str],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Store the style of hot spots with them where they are a file, and prepare their loading.

    Parameters
    ----------
    period : tuple of str
        ISO start and end of what the hot spots are for: they are shown while this time is shown.
    """

    def finish(layer: QgsMapLayer, _: QgsProcessingContext) -> None:
        styling.style_hot_spots(layer)
        show_during(layer, *period)

    _finish_vector(destination, finish, tr("hot spots by rank"), context, feedback, algorithm, output)


def finish_hit_cells(
    destination: str,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Store the style of hit and missed cells with them where they are a file, and prepare their loading."""

    def finish(layer: QgsMapLayer, _: QgsProcessingContext) -> None:
        styling.style_hit_cells(layer)
        show_by_fields(layer, "start", "end")

    _finish_vector(destination, finish, tr("hits and misses"), context, feedback, algorithm, output)


def finish_hits(
    destination: str,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Store the style of hit and missed events with them where they are a file, and prepare their loading."""

    def finish(layer: QgsMapLayer, _: QgsProcessingContext) -> None:
        styling.style_hits(layer)

    _finish_vector(destination, finish, tr("hit and missed events"), context, feedback, algorithm, output)


def _finish_vector(
    destination: str,
    finish: Finish,
    description: str,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    algorithm: QgsProcessingAlgorithm,
    output: str,
) -> None:
    """Store the style of a vector layer with it where it is a file, and prepare its loading."""
    layer = QgsProcessingUtils.mapLayerFromString(destination, context, False)
    if layer is None:  # a file, or a table in a database
        layer = QgsVectorLayer(destination, "result", "ogr", _plain(QgsVectorLayer))
    if layer.isValid():
        finish(layer, context)
        problem = styling.embed(layer, description)
        if problem:
            feedback.pushWarning(
                tr("The style could not be saved with the {0}: {1}").format(description, problem)
            )
    finish_when_loaded(context, destination, algorithm, output, finish)


def load_cube(path: str, name: str, output: str, context: QgsProcessingContext) -> None:
    """Have a cube opened as a mesh layer that the temporal controller plays."""
    if context.project() is None:
        return  # nothing is ever loaded, as in qgis_process

    def finish(loaded: QgsMapLayer, _: QgsProcessingContext) -> None:
        if isinstance(loaded, QgsMeshLayer):
            styling.style_cube(loaded)

    details = QgsProcessingContext.LayerDetails(
        name, context.project(), output, QgsProcessingUtils.LayerHint.Mesh
    )
    context.addLayerToLoadOnCompletion(path, details)
    # Users set styles for rasters and vectors only.
    _set_finisher(context.layerToLoadOnCompletionDetails(path), finish, lambda: False)


def open_layer(path: Path) -> QgsVectorLayer:
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
            f"The layer cannot be written: {sink.lastError() or 'the file refuses them'}.",
            hint="Check the free space of the disk and choose another output file.",
            parameter=parameter,
        )
    if feedback.isCanceled():
        raise JobCancelled()


def _kept_names(layer: QgsVectorLayer) -> dict[str, str]:
    return {name: name for name in layer.fields().names() if name != "fid"}


def _open_raster(path: str) -> QgsRasterLayer:
    return QgsRasterLayer(path, "raster", "gdal", _plain(QgsRasterLayer))


def _save_style(layer: QgsRasterLayer, path: str, feedback: QgsProcessingFeedback) -> None:
    problem = styling.save_beside(layer, Path(path))
    if problem:
        feedback.pushWarning(tr("The style could not be saved next to the raster: {0}").format(problem))


def _plain(layer_class: Any) -> Any:
    """Return options that leave a style found next to the file alone."""
    options = layer_class.LayerOptions()
    options.loadDefaultStyle = False
    return options


def _show_steps_as_layers(layer: QgsRasterLayer, ranges: Sequence, context: QgsProcessingContext) -> None:
    """Before 3.38: one layer per band, each with its time; `layer` becomes the first one."""
    project = context.project()
    name = layer.name()
    compat.set_fixed_time(layer, ranges[0])
    for band in range(min(len(ranges), _MOST_LAYERS), 1, -1):
        step = layer.clone()
        compat.show_band(step, band)
        step.setName(f"{name} ({ranges[band - 1].begin().toString('yyyy-MM-dd HH:mm')} UTC)")
        compat.set_fixed_time(step, ranges[band - 1])
        project.addMapLayer(step)
    if len(ranges) > 1:
        layer.setName(f"{name} ({ranges[0].begin().toString('yyyy-MM-dd HH:mm')} UTC)")


def _has_user_style(algorithm_id: str, output: str, in_model: bool) -> bool:
    """Tell whether the user has set a style for this output, or for the model that makes it."""
    try:
        from processing.gui.RenderingStyles import RenderingStyles
    except ImportError:
        return False
    registry = QgsApplication.processingRegistry()
    if not in_model:
        return bool(RenderingStyles.getStyle(algorithm_id, output))
    # Which model it is, nobody tells: any one that has this step and a style for a result of this kind.
    kind = registry.algorithmById(algorithm_id).parameterDefinition(output).type()
    for model_id, outputs in RenderingStyles.styles.items():
        model = registry.algorithmById(model_id)
        if not isinstance(model, QgsProcessingModelAlgorithm):
            continue
        steps = {step.algorithmId() for step in model.childAlgorithms().values()}
        styled = filter(None, (model.parameterDefinition(key) for key in outputs))
        if algorithm_id in steps and any(definition.type() == kind for definition in styled):
            return True
    return False
