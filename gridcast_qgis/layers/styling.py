# SPDX-License-Identifier: GPL-2.0-or-later
"""Styles: the templates in ``resources/styles``, fitted to the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsColorRampShader,
    QgsFillSymbol,
    QgsMapLayer,
    QgsMarkerSymbol,
    QgsMeshDatasetIndex,
    QgsMeshLayer,
    QgsPalettedRasterRenderer,
    QgsRasterLayer,
    QgsRasterShader,
    QgsRendererCategory,
    QgsSingleBandPseudoColorRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from .. import compat
from ..i18n import tr
from ..paths import resource

# Of types: colours that also the colour-blind tell apart (Okabe & Ito, then Tol).
_TYPES = (
    *("#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#f0e442", "#332288"),
    *("#882255", "#44aa99", "#999933", "#aa4499", "#88ccee"),
)

# What a cell was: a hit, a false alarm or missed, with colour and label.
_HIT_CELLS = (
    ("hit", "#0072b2", tr("hit: hot as forecast")),
    ("false alarm", "#f6b04c", tr("false alarm: forecast only")),
    ("missed", "#8a1c4a", tr("missed: hot, not forecast")),
)


def style_forecast(layer: QgsRasterLayer, maximum: float, unit: str) -> None:
    """Colour a forecast from nothing to `maximum`, with a legend in words and numbers."""
    _load(layer, "forecast.qml")
    _fit_raster(layer, maximum, unit)


def style_probability(layer: QgsRasterLayer, maximum: float, unit: str) -> None:
    """Colour probabilities from nothing to `maximum`, with a legend in words and numbers."""
    _load(layer, "probability.qml")
    _fit_raster(layer, maximum, unit)


def style_hot_probability(layer: QgsRasterLayer) -> None:
    """Colour the probability of cells to be hot up to what all but the hottest hundredth reach."""
    block = layer.dataProvider().block(1, layer.extent(), layer.width(), layer.height())
    values = np.frombuffer(bytes(block.data()), np.float32)
    values = values[values >= 0]  # neither empty cells nor those outside the study area
    maximum = float(np.percentile(values, 99)) if values.size else 0.0
    style_probability(layer, maximum, tr("probability of a hot cell"))


def style_classes(layer: QgsRasterLayer) -> None:
    """Colour hot spots beside what happened where the raster compares them, else hot spots alone."""
    if layer.bandCount() < 3:
        classes = [(0, "#d5dde5", 60, tr("cold")), (1, "#8a1c4a", 235, tr("hot"))]
        _paint(layer, 1, classes)
        return
    classes = [(0, "#d5dde5", 60, tr("rightly cold"))]
    classes += [(value, colour, 235, label) for value, (_, colour, label) in enumerate(_HIT_CELLS, start=1)]
    _paint(layer, 3, classes)


def style_names(layer: QgsRasterLayer, band: int, names: Sequence[str]) -> None:
    """Colour a band that holds the number, from 1, of one of these names."""
    classes = [
        (number, _TYPES[(number - 1) % len(_TYPES)], 220, name) for number, name in enumerate(names, start=1)
    ]
    _paint(layer, band, classes)


def style_grid(layer: QgsRasterLayer) -> None:
    """Colour the cells of a grid by the share that lies in the study area."""
    _load(layer, "grid.qml")


def style_hot_spots(layer: QgsVectorLayer) -> None:
    """Colour and label hot spots by rank."""
    _load(layer, "hotspots.qml")


def style_hit_cells(layer: QgsVectorLayer) -> None:
    """Colour cells by whether they were flagged rightly, in vain, or missed."""
    categories = []
    for kind, colour, label in _HIT_CELLS:
        symbol = QgsFillSymbol.createSimple(
            {"color": colour, "outline_color": "#ffffff", "outline_width": "0.1"}
        )
        symbol.setOpacity(0.85)
        categories.append(QgsRendererCategory(kind, symbol, label))
    layer.setRenderer(QgsCategorizedSymbolRenderer("kind", categories))


def style_hits(layer: QgsVectorLayer) -> None:
    """Colour events by whether a flagged area held them."""
    classes = [(1, "#0072b2", tr("hit: in the flagged area")), (0, "#e69f00", tr("missed: elsewhere"))]
    categories = []
    for value, colour, label in classes:
        symbol = QgsMarkerSymbol.createSimple(
            {
                "name": "circle",
                "color": colour,
                "size": "2",
                "outline_color": "#ffffff",
                "outline_width": "0.2",
            }
        )
        categories.append(QgsRendererCategory(value, symbol, label))
    layer.setRenderer(QgsCategorizedSymbolRenderer("hit", categories))


def style_cube(layer: QgsMeshLayer) -> None:
    """Show a cube's events of all types, coloured from nothing to the largest count."""
    _load(layer, "cube_mesh.qml")
    # A style without times switches them off and forgets what they count from: no step would be drawn.
    properties = layer.temporalProperties()
    properties.setDefaultsFromDataProviderTemporalCapabilities(layer.dataProvider().temporalCapabilities())
    properties.setIsActive(True)
    settings = layer.rendererSettings()
    metadata = {
        group: layer.datasetGroupMetadata(QgsMeshDatasetIndex(group, 0))
        for group in layer.datasetGroupsIndexes()
    }
    scalars = {group: found for group, found in metadata.items() if found.isScalar() and found.isTemporal()}
    by_name = {found.name(): group for group, found in scalars.items()}
    # The template styles the group "events"; a cube with types has their sum as well. Severity and
    # covariates are shown in the same colours when somebody chooses them.
    template = settings.scalarSettings(by_name["events"])
    for group, found in scalars.items():
        scalar = settings.scalarSettings(group)
        scalar.setClassificationMinimumMaximum(0.0, found.maximum())
        scalar.setColorRampShader(_scaled(template.colorRampShader(), found.maximum(), ""))
        scalar.setDataResamplingMethod(template.dataResamplingMethod())
        scalar.setOpacity(template.opacity())
        settings.setScalarSettings(group, scalar)
    settings.setActiveScalarDatasetGroup(by_name.get("events of all types", by_name["events"]))
    layer.setRendererSettings(settings)


def save_beside(layer: QgsMapLayer, path: Path) -> str:
    """Write the style to a ``.qml`` file next to the layer's file; return what went wrong, if anything."""
    message, saved = layer.saveNamedStyle(str(path.with_suffix(".qml")))
    return "" if saved else message


def embed(layer: QgsVectorLayer, description: str) -> str:
    """Store the style where it is found again with the layer; return what went wrong, if anything."""
    if layer.providerType() != "ogr":
        return ""  # in memory, where it lives in the project, or in a database
    if layer.dataProvider().storageType() == "GPKG":
        return compat.save_style_in_file(layer, "Gridcast", f"{description} (Gridcast)")
    path = Path(layer.source().split("|")[0])
    return save_beside(layer, path) if path.is_file() else ""


def _load(layer: QgsMapLayer, name: str) -> None:
    # Only what the templates hold: a raster would lose its time, for instance, to one that has none.
    kind = QgsMapLayer.StyleCategory
    parts = QgsMapLayer.StyleCategories(kind.Symbology | kind.Labeling | kind.MapTips)
    message, loaded = layer.loadNamedStyle(str(resource("styles", name)), parts)
    if not loaded:
        raise RuntimeError(f"the style {name} cannot be loaded: {message}")


def _paint(layer: QgsRasterLayer, band: int, classes: Sequence[tuple[int, str, int, str]]) -> None:
    """Give each value of a band its colour, opacity and label."""
    painted = []
    for value, colour, alpha, label in classes:
        shade = QColor(colour)
        shade.setAlpha(alpha)
        painted.append(QgsPalettedRasterRenderer.Class(value, shade, label))
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), band, painted))


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
