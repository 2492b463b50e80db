# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the map of the demo and saves its QGIS project; run by ``demo.py`` in QGIS's Python.

The layers come with the styles that the algorithms saved beside them.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsLayoutExporter,
    QgsLayoutItemLabel,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendStyle,
    QgsMapLayer,
    QgsMapLayerLegendUtils,
    QgsMarkerSymbol,
    QgsPrintLayout,
    QgsProject,
    QgsRasterLayer,
    QgsSingleSymbolRenderer,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QFont

WIDTH, HEIGHT, SIDE = 297.0, 210.0, 76.0  # an A4 page in millimetres, and the column of the legend


def main(folder: Path) -> None:
    """Load the layers of the folder, save the project, export ``forecast.png``."""
    facts = json.load(sys.stdin)
    start = datetime.fromisoformat(facts["from"])
    last = start + timedelta(days=facts["days"] - 1)
    project = QgsProject.instance()
    project.setCrs(QgsCoordinateReferenceSystem(facts["crs"]))

    forecast = QgsRasterLayer(str(folder / "forecast.tif"), f"Expected on {start:%-d %B %Y}")
    hot_spots = QgsVectorLayer(str(folder / "hotspots.gpkg"), "Hot spots, 5 % of the area", "ogr")
    happened = _events(facts, start)
    boundary = QgsVectorLayer(facts["boundary"], "Study area", "ogr")
    outline = {"color": "0,0,0,0", "outline_color": "#404040", "outline_width": "0.4"}
    boundary.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple(outline)))
    for layer in (forecast, hot_spots, happened, boundary):
        if not layer.isValid():
            sys.exit(f"the layer '{layer.name()}' cannot be opened")
    marks = [happened, hot_spots] if _is_sparse(happened) else [hot_spots, happened]
    layers = [*marks, boundary, forecast]
    project.addMapLayers(layers)

    layout = _layout(project, facts, layers, start, last)
    # exportToImage() would try to georeference the picture, which GDAL refuses for PNG with an error.
    picture = QgsLayoutExporter(layout).renderPageToImage(0, QSize(), 130)
    if not picture.save(str(folder / "forecast.png")):
        sys.exit("the picture could not be drawn")
    project.write(str(folder / "demo.qgz"))


def _events(facts: dict, start: datetime) -> QgsVectorLayer:
    """Return the events of the held-out days, as the layer's own filter."""
    zone = ZoneInfo(facts["time_zone"])
    end = start + timedelta(days=facts["days"])
    layer = QgsVectorLayer(facts["events"], "Events that then happened", "ogr")
    field = facts["time_field"]
    if layer.fields().field(field).typeName().lower().startswith("date"):
        # Real instants: UTC in the file.
        begin, stop = (
            moment.replace(tzinfo=zone).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            for moment in (start, end)
        )
    else:
        begin, stop = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in (start, end))
    layer.setSubsetString(f"\"{field}\" >= '{begin}' AND \"{field}\" < '{stop}'")
    if _is_sparse(layer):
        dot = {
            "size": "0.9",
            "color": "255,255,255,170",
            "outline_color": "0,0,0,190",
            "outline_width": "0.15",
        }
    else:
        # Rings would cover the map: faint specks let density show.
        dot = {"size": "0.45", "color": "0,0,0,90", "outline_style": "no"}
    layer.setRenderer(QgsSingleSymbolRenderer(QgsMarkerSymbol.createSimple({"name": "circle", **dot})))
    return layer


def _is_sparse(layer: QgsVectorLayer) -> bool:
    """Tell whether the events of a layer can be drawn as single dots on the map."""
    # The layer's own count may be an estimate that ignores its filter.
    request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry).setNoAttributes().setLimit(5000)
    return sum(1 for _ in layer.getFeatures(request)) < 5000


def _layout(
    project: QgsProject, facts: dict, layers: list[QgsMapLayer], start: datetime, last: datetime
) -> QgsPrintLayout:
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    layout.setName("Forecast")
    project.layoutManager().addLayout(layout)

    drawn = QgsLayoutItemMap(layout)
    layout.addLayoutItem(drawn)
    _place(drawn, 8, 24, WIDTH - SIDE - 14, HEIGHT - 38)
    drawn.setLayers(layers)
    drawn.setCrs(project.crs())
    boundary = layers[2]
    transform = QgsCoordinateTransform(boundary.crs(), project.crs(), project)
    extent = transform.transformBoundingBox(boundary.extent())
    extent.scale(1.04)
    drawn.zoomToExtent(extent)
    drawn.setFrameEnabled(True)

    title = f"{facts['city']}: where crime was expected, and where it then happened"
    _label(layout, title, 8, 7, WIDTH - 16, 16, bold=True)
    period = f"Hot spots and events: {start:%-d %B} to {last:%-d %B %Y} ({facts['days']} days held out)"
    _label(layout, period, 8, 15, WIDTH - 16, 10)
    _label(layout, facts["attribution"], 8, HEIGHT - 11, WIDTH - 16, 7)

    legend = QgsLayoutItemLegend(layout)
    layout.addLayoutItem(legend)
    legend.setLinkedMap(drawn)
    legend.setAutoUpdateModel(False)
    # The first node of a raster's legend is the name of its band, which the title already says.
    node = legend.model().rootGroup().findLayer(layers[3])
    QgsMapLayerLegendUtils.setLegendNodeOrder(
        node, list(range(1, len(legend.model().layerLegendNodes(node))))
    )
    legend.model().refreshLayerLegend(node)
    for style, size in (
        (QgsLegendStyle.Style.Group, 9),
        (QgsLegendStyle.Style.Subgroup, 9),
        (QgsLegendStyle.Style.SymbolLabel, 8),
    ):
        legend.setStyleFont(style, QFont("DejaVu Sans", size))
    _place(legend, WIDTH - SIDE - 4, 24, SIDE, 120)

    bar = QgsLayoutItemScaleBar(layout)
    layout.addLayoutItem(bar)
    bar.setStyle("Single Box")
    bar.setLinkedMap(drawn)
    bar.setUnits(QgsUnitTypes.DistanceUnit.DistanceKilometers)
    bar.setUnitLabel("km")
    bar.setUnitsPerSegment(5)
    bar.setNumberOfSegments(2)
    bar.setNumberOfSegmentsLeft(0)
    bar.update()
    bar.attemptMove(QgsLayoutPoint(WIDTH - SIDE - 4, HEIGHT - 32, QgsUnitTypes.LayoutUnit.LayoutMillimeters))
    return layout


def _label(
    layout: QgsPrintLayout, text: str, x: float, y: float, width: float, size: int, bold: bool = False
):
    label = QgsLayoutItemLabel(layout)
    label.setText(text)
    font = QFont("DejaVu Sans", size)
    font.setBold(bold)
    label.setFont(font)
    layout.addLayoutItem(label)
    _place(label, x, y, width, size * 0.6)


def _place(item, x: float, y: float, width: float, height: float) -> None:
    millimetres = QgsUnitTypes.LayoutUnit.LayoutMillimeters
    item.attemptMove(QgsLayoutPoint(x, y, millimetres))
    item.attemptResize(QgsLayoutSize(width, height, millimetres))


if __name__ == "__main__":
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = QgsApplication([], False)
    application.initQgis()
    main(Path(sys.argv[1]).resolve())
    QgsProject.instance().clear()
    application.exitQgis()
