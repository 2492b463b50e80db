# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Grid from Layer: an extent or a study area becomes a grid of cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterCrs,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterDestination,
    QgsRectangle,
    QgsWkbTypes,
)

from .. import compat
from ..core.errors import InputError
from ..i18n import tr
from ..layers.results import finish_grid
from ..layers.sources import export_polygons, extent_of
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm

CELL_UNITS = ("metre", "kilometre", "foot", "us-survey-foot", "mile")
RULES = ("intersects", "centre", "share")


class BuildGridFromLayer(GridcastAlgorithm):
    """Lays a grid over a study area and computes the share of each cell inside it."""

    ID = "buildgridfromlayer"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Build Grid from Layer")

    def summary(self) -> str:
        return tr("Lays a grid of cells over a study area or a layer: the places of a forecast.")

    def explanation(self) -> str:
        return tr(
            "The result is a raster whose cells hold the share of their area that lies inside the study "
            "area, from 0 to 1; cells that do not take part are empty. All later steps use this raster.\n\n"
            "The study area is STUDY_AREA, or the polygons of INPUT if it has polygons; without either, the "
            "whole extent takes part. Cells are squares of CELL_SIZE. The coordinate reference system must "
            "be a projected one, such as the UTM zone of the city: set TARGET_CRS if the layer is in "
            "longitude and latitude.\n\n"
            "Smaller cells show more detail but hold fewer events, so that there is less to learn from: 250 "
            "to 1000 metres suit most cities."
        )

    def keywords(self) -> list[str]:
        return [tr("grid"), tr("cells"), tr("fishnet"), tr("study area"), tr("raster")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "INPUT", tr("Layer"), [QgsProcessing.SourceType.TypeVectorAnyGeometry]
                ),
                tr(
                    "Layer of events, or polygons of the study area. It gives the extent and the coordinate "
                    "reference system unless they are set below."
                ),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "STUDY_AREA",
                    tr("Study area"),
                    [QgsProcessing.SourceType.TypeVectorPolygon],
                    optional=True,
                ),
                tr(
                    "Polygons of the area to forecast for, such as the city boundary. Only cells in it take "
                    "part."
                ),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterCrs(
                    "TARGET_CRS", tr("Coordinate reference system of the grid"), optional=True
                ),
                tr(
                    "A projected system in metres or feet. Empty: that of INPUT. Layers are reprojected on "
                    "the way."
                ),
            )
        )
        self.addParameter(
            p.number(
                "CELL_SIZE",
                tr("Cell size (metres, unless another unit is chosen)"),
                tr("Side of the square cells in CELL_UNIT. ROWS and COLUMNS, if set, are used instead."),
                default=500.0,
                minimum=0.0,
                optional=True,
            )
        )
        self.addParameter(
            p.choice(
                "CELL_UNIT",
                tr("Unit of the cell size"),
                tr("Unit of CELL_SIZE; it is converted to that of the coordinate reference system."),
                CELL_UNITS,
                default="metre",
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "ROWS",
                tr("Rows"),
                tr(
                    "Number of rows, together with COLUMNS, instead of a cell size. Cells need not be "
                    "square then."
                ),
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "COLUMNS",
                tr("Columns"),
                tr("Number of columns, together with ROWS, instead of a cell size."),
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
                tr("Rectangle to cover. Empty: that of the study area, or of INPUT if there is none."),
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "ROTATION",
                tr("Rotation (degrees)"),
                tr(
                    "Turns the grid counter-clockwise about its centre, such as into the direction of the "
                    "streets."
                ),
                default=0.0,
                minimum=-360.0,
                maximum=360.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "RULE",
                tr("Cells that take part"),
                tr(
                    "intersects: cells that touch the study area. centre: cells whose centre is inside. "
                    "share: cells with at least MIN_SHARE percent of their area inside."
                ),
                RULES,
                default="intersects",
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "MIN_SHARE",
                tr("Least share inside (percent)"),
                tr("Used with the rule 'share'."),
                default=50.0,
                minimum=0.0,
                maximum=100.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterDestination("OUTPUT", tr("Grid")),
                tr("GeoTIFF with the grid; the next step is 'Rasterize Events to Cube'."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "CELLS",
                    tr("Cells"),
                    QgsProcessing.SourceType.TypeVectorPolygon,
                    optional=True,
                    createByDefault=False,
                ),
                tr("The cells that take part as polygons with row, column and share inside."),
            )
        )
        self.add_numbers(
            ROW_COUNT=tr("Rows"),
            COLUMN_COUNT=tr("Columns"),
            CELLS_INSIDE=tr("Cells that take part"),
            CELL_WIDTH=tr("Cell width (metres)"),
            CELL_HEIGHT=tr("Cell height (metres)"),
            AREA_KM2=tr("Study area (km²)"),
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        rows, columns = p.given(parameters, "ROWS"), p.given(parameters, "COLUMNS")
        if rows != columns:
            missing = "COLUMNS" if rows else "ROWS"
            raise InputError(
                "Rows and columns go together.",
                hint="Set both, or neither and a CELL_SIZE.",
                parameter=missing,
                value="not set",
            )
        if not rows and self.parameterAsDouble(parameters, "CELL_SIZE", context) <= 0:
            raise InputError(
                "A cell needs a size.",
                hint="Set a size above 0, or ROWS and COLUMNS.",
                parameter="CELL_SIZE",
                value=p.shown(parameters.get("CELL_SIZE")),
            )
        if (
            p.given(parameters, "TARGET_CRS")
            and not self.parameterAsCrs(parameters, "TARGET_CRS", context).isValid()
        ):
            raise InputError(
                "This coordinate reference system is not known.",
                hint="Write it as EPSG:26917, for instance.",
                parameter="TARGET_CRS",
                value=p.shown(parameters["TARGET_CRS"]),
            )
        p.check_destination(parameters, "OUTPUT", context, (".tif", ".tiff"))
        p.check_destination(parameters, "CELLS", context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        source = p.vector_source(self, parameters, "INPUT", context)
        crs = self.parameterAsCrs(parameters, "TARGET_CRS", context)
        if not crs.isValid():
            crs = source.sourceCrs()
        area, area_key = self._study_area(parameters, context, source)
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        with_cells = p.given(parameters, "CELLS")
        by_count = p.given(parameters, "ROWS")
        if by_count and p.given(parameters, "CELL_SIZE"):
            feedback.pushInfo(tr("ROWS and COLUMNS are set: CELL_SIZE is not used."))

        with self.job_folder() as folder:
            study_area = None
            if area is not None:
                study_area = export_polygons(
                    area, folder, parameter=area_key, crs=crs, context=context, feedback=feedback
                )
            cells = folder / "cells.gpkg"
            request = {
                "crs": compat.wkt(crs),
                "extent": self._extent(parameters, context, feedback, source, crs, area is not None),
                "study_area": str(study_area) if study_area else None,
                "cell_size": None if by_count else self.parameterAsDouble(parameters, "CELL_SIZE", context),
                "cell_unit": self.parameterAsEnumString(parameters, "CELL_UNIT", context),
                "rows": p.optional_integer(self, parameters, "ROWS", context),
                "columns": p.optional_integer(self, parameters, "COLUMNS", context),
                "rotation": self.parameterAsDouble(parameters, "ROTATION", context),
                "rule": self.parameterAsEnumString(parameters, "RULE", context),
                "min_share": self.parameterAsDouble(parameters, "MIN_SHARE", context),
                "output": str(Path(output).absolute()),
                "cells_output": str(cells) if with_cells else None,
            }
            made = self.run_worker("build_grid", request, feedback, folder)
            results = {
                "OUTPUT": output,
                "ROW_COUNT": made["rows"],
                "COLUMN_COUNT": made["columns"],
                "CELLS_INSIDE": made["cells_inside"],
                "CELL_WIDTH": made["cell_width"],
                "CELL_HEIGHT": made["cell_height"],
                "AREA_KM2": made["area_km2"],
            }
            if with_cells:
                results["CELLS"] = self.save_polygons(cells, "CELLS", parameters, context, feedback)
        finish_grid(output, context, feedback, self, "OUTPUT")
        return results

    def _study_area(
        self, parameters: dict[str, Any], context: QgsProcessingContext, source: QgsProcessingFeatureSource
    ) -> tuple[QgsProcessingFeatureSource | None, str]:
        """Return the source of the study area's polygons, if there is one, and its parameter."""
        if p.given(parameters, "STUDY_AREA"):
            return p.vector_source(self, parameters, "STUDY_AREA", context), "STUDY_AREA"
        if QgsWkbTypes.geometryType(source.wkbType()) == QgsWkbTypes.GeometryType.PolygonGeometry:
            return source, "INPUT"
        return None, ""

    def _extent(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        source: QgsProcessingFeatureSource,
        crs: QgsCoordinateReferenceSystem,
        has_area: bool,
    ) -> list[float] | None:
        """Return the extent in `crs`; None: the worker takes that of the study area."""
        if p.given(parameters, "EXTENT"):
            extent = self.parameterAsExtent(parameters, "EXTENT", context, crs)
            if extent.isNull() or extent.isEmpty():
                raise InputError(
                    "This is no rectangle with an area.",
                    hint="Write it as xmin,xmax,ymin,ymax [EPSG:code].",
                    parameter="EXTENT",
                    value=p.shown(parameters["EXTENT"]),
                )
            return _corners(extent)
        if has_area:
            return None
        return _corners(
            extent_of(
                source,
                parameter="INPUT",
                only_some=p.is_part(parameters, "INPUT"),
                crs=crs,
                context=context,
                feedback=feedback,
            )
        )


def _corners(extent: QgsRectangle) -> list[float]:
    return [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
