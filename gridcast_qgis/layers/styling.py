# SPDX-License-Identifier: GPL-2.0-or-later
"""Styles: the templates in ``resources/styles``, fitted to the data."""

from __future__ import annotations

from pathlib import Path

from qgis.core import (
    QgsColorRampShader,
    QgsFeatureRequest,
    QgsMapLayer,
    QgsMeshDatasetIndex,
    QgsMeshLayer,
    QgsRasterLayer,
    QgsRasterShader,
    QgsSingleBandPseudoColorRenderer,
    QgsVectorLayer,
)

from .. import compat
from ..paths import resource
from .temporal import show_during


def style_forecast(layer: QgsRasterLayer, maximum: float, unit: str) -> None:
    """Colour a forecast from nothing to `maximum`, with a legend in words and numbers."""
    _load(layer, "forecast.qml")
    _fit_raster(layer, maximum, unit)


def style_grid(layer: QgsRasterLayer) -> None:
    """Colour the cells of a grid by the share that lies in the study area."""
    _load(layer, "grid.qml")


def style_hot_spots(layer: QgsVectorLayer) -> None:
    """Colour and label hot spots by rank, and show them while the time they are forecast for is shown."""
    _load(layer, "hotspots.qml")
    # All hot spots of a layer are forecast for one period.
    any_spot = next(layer.getFeatures(QgsFeatureRequest().setLimit(1)), None)
    if any_spot is not None:
        show_during(layer, any_spot["start"], any_spot["end"])


def style_cube(layer: QgsMeshLayer) -> None:
    """Show a cube's events of all types, coloured from nothing to the largest count."""
    _load(layer, "cube_mesh.qml")
    settings = layer.rendererSettings()
    template = settings.scalarSettings(0)
    active, most_steps = 0, 0
    for group in layer.datasetGroupsIndexes():
        metadata = layer.datasetGroupMetadata(QgsMeshDatasetIndex(group, 0))
        if not metadata.isScalar():
            continue
        maximum = metadata.maximum()
        scalar = settings.scalarSettings(group)
        scalar.setClassificationMinimumMaximum(0.0, maximum)
        scalar.setColorRampShader(_scaled(template.colorRampShader(), maximum, ""))
        scalar.setDataResamplingMethod(template.dataResamplingMethod())
        scalar.setOpacity(template.opacity())
        settings.setScalarSettings(group, scalar)
        # The last one with as many steps is the sum over all types where there are several.
        steps = layer.datasetCount(QgsMeshDatasetIndex(group, 0))
        if steps >= most_steps:
            active, most_steps = group, steps
    settings.setActiveScalarDatasetGroup(active)
    layer.setRendererSettings(settings)


def save_beside(layer: QgsMapLayer, path: Path) -> str:
    """Write the style to a ``.qml`` file next to the layer's file; return what went wrong, if anything."""
    message, saved = layer.saveNamedStyle(str(path.with_suffix(".qml")))
    return "" if saved else message


def embed(layer: QgsVectorLayer) -> str:
    """Store the style where it is found again with the layer; return what went wrong, if anything."""
    if layer.providerType() != "ogr":
        return ""  # in memory, where it lives in the project, or in a database
    if layer.dataProvider().storageType() == "GPKG":
        return compat.save_style_in_file(layer, "Hot spots", "Hot spots by rank (Gridcast)")
    path = Path(layer.source().split("|")[0])
    return save_beside(layer, path) if path.is_file() else ""


def _load(layer: QgsMapLayer, name: str) -> None:
    message, loaded = layer.loadNamedStyle(str(resource("styles", name)))
    if not loaded:
        raise RuntimeError(f"the style {name} cannot be loaded: {message}")


def _fit_raster(layer: QgsRasterLayer, maximum: float, unit: str) -> None:
    template = layer.renderer().shader().rasterShaderFunction()
    shader = QgsRasterShader()
    shader.setRasterShaderFunction(_scaled(template, maximum, unit))
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1, shader)
    renderer.setClassificationMin(0.0)
    renderer.setClassificationMax(maximum)
    layer.setRenderer(renderer)


def _scaled(template: QgsColorRampShader, maximum: float, unit: str) -> QgsColorRampShader:
    """Return the template, whose values run from 0 to 1, with values from 0 to `maximum`."""
    # A forecast of nothing at all still needs a ramp that rises.
    top = maximum if maximum > 0 else 1.0
    shader = QgsColorRampShader(template)
    items = []
    for item in template.colorRampItemList():
        value = item.value * top
        label = item.label.replace("{value}", _short(value)).replace("{unit}", unit)
        items.append(QgsColorRampShader.ColorRampItem(value, item.color, label))
    shader.setColorRampItemList(items)
    shader.setMinimumValue(0.0)
    shader.setMaximumValue(top)
    return shader


def _short(value: float) -> str:
    """Return a number with two significant digits and without exponent."""
    rounded = float(f"{value:.2g}")
    text = f"{rounded:,.6f}".rstrip("0").rstrip(".")
    return text if float(text.replace(",", "")) == rounded else f"{rounded:g}"
