# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Grid from Layer: an extent or a study area becomes a grid of cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterCrs,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsRectangle,
    QgsWkbTypes,
)

from .. import compat
from ..core.errors import InputError
from ..core.localcrs import suggested_crs
from ..core.presets import NO_PRESET, PRESETS, Preset, preset_for
from ..i18n import tr
from ..layers.exporting import count_reprojection_failures
from ..layers.places import export_places, middle_of
from ..layers.results import finish_grid
from ..layers.sources import export_polygons, extent_of
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm

# The words are those of the core.
CELL_UNITS = (
    "metre",
    "kilometre",
    "foot",
    "us-survey-foot",
    "mile",
    "yard",
    "nautical-mile",
    "map-unit",
)
RULES = ("intersects", "centre", "share")
SNAPS = ("multiples", "extent", "raster")
AREA_SOURCES = ("auto", "polygons", "near-events", "hull", "extent")
CELL_SHAPES = ("square", "hexagon")
HEXAGON_TOPS = ("flat", "pointy")

DEFAULT_SIZE = 500.0
WGS84 = "EPSG:4326"


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
            "whole extent takes part. AREA_FROM takes it from the events instead: the cells near them, or "
            "the hull around them. Cells are squares of CELL_SIZE, rectangles if CELL_HEIGHT is set, or ROWS "
            "by COLUMNS of them. A cell of a given size needs a projected coordinate reference system, such "
            "as the UTM zone of the city: set TARGET_CRS or LOCAL_CRS if the layer is in longitude and "
            "latitude.\n\n"
            "Smaller cells show more detail but hold fewer events, so that there is less to learn from: 250 "
            "to 1000 metres suit most cities."
        )

    def keywords(self) -> list[str]:
        return [tr("grid"), tr("cells"), tr("fishnet"), tr("hexagons"), tr("study area"), tr("raster")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self._add_area()
        self._add_place()
        self._add_cells()
        self._add_outputs()

    def _add_area(self) -> None:
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
                    "part. Holes and several parts are respected; invalid rings are repaired and counted."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "AREA_FROM",
                tr("Study area from"),
                tr(
                    "auto: the polygons of STUDY_AREA or INPUT, without polygons the whole extent. polygons: "
                    "the same, but fails without polygons. near-events: the cells within DISTANCE of an "
                    "event of INPUT. hull: the outline around the events of INPUT. extent: the whole "
                    "extent."
                ),
                AREA_SOURCES,
                default="auto",
            )
        )
        self.addParameter(
            p.number(
                "DISTANCE",
                tr("Distance from events (metres)"),
                tr("Used with AREA_FROM near-events: cells take part up to this far from an event."),
                default=500.0,
                minimum=0.0,
                maximum=100_000.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "HULL_RATIO",
                tr("Ratio of the hull"),
                tr(
                    "Used with AREA_FROM hull: from 0, an outline that follows the events closely, to 1, the "
                    "convex hull."
                ),
                default=0.3,
                minimum=0.0,
                maximum=1.0,
                advanced=True,
            )
        )

    def _add_place(self) -> None:
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
            p.switch(
                "LOCAL_CRS",
                tr("Choose the local system for layers in degrees"),
                tr(
                    "If INPUT is in longitude and latitude and TARGET_CRS is empty, the grid gets the UTM "
                    "zone of the study area, or polar stereographic near the poles. The log names it."
                ),
                default=False,
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
                tr(
                    "Rectangle to cover. Empty: that of the study area, or of INPUT if there is none; of "
                    "points, those that lie far off all others do not count."
                ),
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "PRESET",
                tr("Grid of a published study"),
                tr(
                    "Fixes coordinate reference system, extent, rows and columns. chicago-55x50: Chicago in "
                    "55 rows and 50 columns. chicago-55x50-authors-mask: the same with the study area one "
                    "column too far east, as in the code of that study. dc-36x36: Washington, DC, in 36 by "
                    "36 cells of 446 x 582 m."
                ),
                (NO_PRESET, *PRESETS),
                default=NO_PRESET,
                advanced=True,
            )
        )

    def _add_cells(self) -> None:
        self.addParameter(
            p.number(
                "CELL_SIZE",
                tr("Cell size (metres, unless another unit is chosen)"),
                tr(
                    "Side of the square cells in CELL_UNIT, or their width if CELL_HEIGHT is set. ROWS and "
                    "COLUMNS, if set, are used instead."
                ),
                default=DEFAULT_SIZE,
                minimum=0.0,
                optional=True,
            )
        )
        self.addParameter(
            p.number(
                "CELL_HEIGHT",
                tr("Cell height, if the cells are no squares"),
                tr("In CELL_UNIT. Empty: as wide as high."),
                minimum=0.0,
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "CELL_UNIT",
                tr("Unit of the cell size"),
                tr(
                    "Unit of CELL_SIZE and CELL_HEIGHT; it is converted to that of the coordinate reference "
                    "system. map-unit: the unit of that system itself."
                ),
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
            p.choice(
                "SNAP",
                tr("Edges of the cells"),
                tr(
                    "multiples: on multiples of the cell size from the origin of the coordinate reference "
                    "system, as national grids have them. extent: counted from the north-western corner of "
                    "the extent. raster: on the edges of the cells of SNAP_RASTER. A rotated grid has no "
                    "multiples: it is centred on the extent. ROWS and COLUMNS divide the extent evenly."
                ),
                SNAPS,
                default="multiples",
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterLayer("SNAP_RASTER", tr("Raster to snap to"), optional=True),
                tr(
                    "Used with SNAP raster: any raster file in the coordinate reference system of the grid. "
                    "If CELL_SIZE is empty, its cells are those of the grid; otherwise CELL_SIZE has to be a "
                    "whole multiple or a whole fraction of theirs. The grid is rotated as the raster is."
                ),
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "ROTATION",
                tr("Rotation (degrees)"),
                tr("Turns the grid clockwise about its centre, such as into the direction of the streets."),
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
                    "intersects: cells that share area with the study area. centre: cells whose centre is "
                    "inside. share: cells with at least MIN_SHARE percent of their area inside."
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

    def _add_outputs(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterRasterDestination("OUTPUT", tr("Grid")),
                tr("GeoTIFF with the grid; the next step is 'Rasterize Events to Cube'."),
            )
        )
        self.addParameter(
            p.choice(
                "CELL_SHAPE",
                tr("Shape of the polygons in CELLS"),
                tr(
                    "square: the cells of the grid. hexagon: a tessellation of regular hexagons, each with "
                    "the area of a cell, with a share inside of their own. The grid itself stays as it is."
                ),
                CELL_SHAPES,
                default="square",
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "HEXAGON_TOP",
                tr("Top of the hexagons"),
                tr("flat: an edge at the top. pointy: a corner at the top."),
                HEXAGON_TOPS,
                default="flat",
                advanced=True,
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
            REPAIRED=tr("Polygons repaired"),
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
        if self._height(parameters, context) == 0:
            raise InputError(
                "A cell needs a height.",
                hint="Set a height above 0, or leave it empty for square cells.",
                parameter="CELL_HEIGHT",
                value=p.shown(parameters["CELL_HEIGHT"]),
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
        self._preset(parameters, context)
        if self.parameterAsEnumString(parameters, "SNAP", context) == "raster" and not p.given(
            parameters, "SNAP_RASTER"
        ):
            raise InputError(
                "There is no raster to snap to.",
                hint="Set SNAP_RASTER, or another SNAP.",
                parameter="SNAP_RASTER",
                value="not set",
            )
        p.check_destination(parameters, "OUTPUT", context, (".tif", ".tiff"))
        p.check_destination(parameters, "CELLS", context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        count_reprojection_failures(context)
        source = p.vector_source(self, parameters, "INPUT", context)
        area, area_key = self._study_area(parameters, context, source)
        preset = self._preset(parameters, context)
        self._tell_what_is_not_used(parameters, context, feedback, area_key)
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        with_cells = p.given(parameters, "CELLS")

        with self.job_folder() as folder:
            export = {"context": context, "feedback": feedback}
            crs = self._crs(parameters, source, area, area_key, preset, folder, **export)
            study_area = events = extent = None
            if area is not None:
                # QGIS may be set to stop at invalid rings; the worker repairs them and says so.
                area.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck.GeometryNoCheck)
                study_area = export_polygons(area, folder, parameter=area_key, crs=crs, **export)
            if self._needs_events(parameters, context, source, has_area=area is not None):
                events = export_places(source, folder, parameter="INPUT", crs=crs, **export)
            if p.given(parameters, "EXTENT"):
                extent = self._given_extent(parameters, context, crs)
            elif preset is None and area is None and events is None:
                only_some = p.is_part(parameters, "INPUT")
                extent = _corners(
                    extent_of(source, parameter="INPUT", only_some=only_some, crs=crs, **export)
                )
            cells = folder / "cells.gpkg"
            request = {
                "crs": compat.wkt(crs),
                "extent": extent,
                "study_area": str(study_area) if study_area else None,
                "events": str(events) if events else None,
                "area_from": self.parameterAsEnumString(parameters, "AREA_FROM", context),
                "distance": self.parameterAsDouble(parameters, "DISTANCE", context),
                "hull_ratio": self.parameterAsDouble(parameters, "HULL_RATIO", context),
                **self._cells(parameters, context, preset),
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
                "REPAIRED": made["repaired"],
            }
            if with_cells:
                results["CELLS"] = self.save_layer(cells, "CELLS", parameters, context, feedback)
        finish_grid(output, context, feedback, self, "OUTPUT")
        return results

    # -- the cells -----------------------------------------------------------------------------

    def _cells(
        self, parameters: dict[str, Any], context: QgsProcessingContext, preset: Preset | None
    ) -> dict[str, Any]:
        """Return the part of the request that says how large the cells are and where they lie."""
        snap = self.parameterAsEnumString(parameters, "SNAP", context)
        size = self.parameterAsDouble(parameters, "CELL_SIZE", context)
        by_count = preset is not None or p.given(parameters, "ROWS")
        if by_count or (snap == "raster" and not p.given(parameters, "CELL_SIZE")):
            size = None
        return {
            "preset": self.parameterAsEnumString(parameters, "PRESET", context),
            "cell_size": size,
            "cell_height": None if by_count else self._height(parameters, context),
            "cell_unit": self.parameterAsEnumString(parameters, "CELL_UNIT", context),
            "rows": p.optional_integer(self, parameters, "ROWS", context),
            "columns": p.optional_integer(self, parameters, "COLUMNS", context),
            "rotation": self.parameterAsDouble(parameters, "ROTATION", context),
            "snap": snap,
            "snap_raster": self._snap_raster(parameters, context) if snap == "raster" else None,
            "rule": self.parameterAsEnumString(parameters, "RULE", context),
            "min_share": self.parameterAsDouble(parameters, "MIN_SHARE", context),
            "cell_shape": self.parameterAsEnumString(parameters, "CELL_SHAPE", context),
            "hexagon_top": self.parameterAsEnumString(parameters, "HEXAGON_TOP", context),
        }

    def _height(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> float | None:
        if not p.given(parameters, "CELL_HEIGHT"):
            return None
        return self.parameterAsDouble(parameters, "CELL_HEIGHT", context)

    def _snap_raster(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> str:
        """Return what GDAL opens as the raster to snap to."""
        layer = self.parameterAsRasterLayer(parameters, "SNAP_RASTER", context)
        if layer is None or not layer.isValid() or layer.providerType() != "gdal":
            raise InputError(
                "This is no raster file that can be read.",
                hint="Choose a raster file, such as a GeoTIFF; web services and databases have no cells.",
                parameter="SNAP_RASTER",
                value=p.shown(parameters["SNAP_RASTER"]),
            )
        path = Path(layer.source())
        return str(path.absolute()) if path.is_file() else layer.source()

    def _preset(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> Preset | None:
        """Return the preset, None if there is none; raises InputError if a parameter contradicts it."""
        size = self.parameterAsDouble(parameters, "CELL_SIZE", context)
        given_crs = p.given(parameters, "TARGET_CRS")
        return preset_for(
            self.parameterAsEnumString(parameters, "PRESET", context),
            {
                "TARGET_CRS": self.parameterAsCrs(parameters, "TARGET_CRS", context).authid()
                if given_crs
                else None,
                "LOCAL_CRS": self.parameterAsBoolean(parameters, "LOCAL_CRS", context),
                "EXTENT": p.shown(parameters["EXTENT"]) if p.given(parameters, "EXTENT") else None,
                # The dialog always sets it.
                "CELL_SIZE": None if size == DEFAULT_SIZE else size,
                "CELL_HEIGHT": self._height(parameters, context),
                "ROWS": p.optional_integer(self, parameters, "ROWS", context),
                "COLUMNS": p.optional_integer(self, parameters, "COLUMNS", context),
                "ROTATION": self.parameterAsDouble(parameters, "ROTATION", context),
                "SNAP": self.parameterAsEnumString(parameters, "SNAP", context),
            },
        )

    # -- the place -----------------------------------------------------------------------------

    def _study_area(
        self, parameters: dict[str, Any], context: QgsProcessingContext, source: QgsProcessingFeatureSource
    ) -> tuple[QgsProcessingFeatureSource | None, str]:
        """Return the source of the study area's polygons, if they are wanted, and its parameter."""
        area_from = self.parameterAsEnumString(parameters, "AREA_FROM", context)
        kind = QgsWkbTypes.geometryType(source.wkbType())
        if area_from in ("near-events", "hull") and kind != QgsWkbTypes.GeometryType.PointGeometry:
            raise InputError(
                f"The layer has no points, and AREA_FROM is '{area_from}'.",
                hint="Choose a layer of events, or another AREA_FROM.",
                parameter="INPUT",
                value=source.sourceName(),
            )
        if area_from not in ("auto", "polygons"):
            return None, ""
        if p.given(parameters, "STUDY_AREA"):
            return p.vector_source(self, parameters, "STUDY_AREA", context), "STUDY_AREA"
        if kind == QgsWkbTypes.GeometryType.PolygonGeometry:
            return source, "INPUT"
        if area_from == "polygons":
            raise InputError(
                "There are no polygons to take the study area from.",
                hint="Set STUDY_AREA, or another AREA_FROM.",
                parameter="AREA_FROM",
                value=area_from,
            )
        return None, ""

    def _needs_events(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        source: QgsProcessingFeatureSource,
        *,
        has_area: bool,
    ) -> bool:
        """Tell whether the worker needs the points of INPUT: for the study area, or for the extent."""
        if self.parameterAsEnumString(parameters, "AREA_FROM", context) in ("near-events", "hull"):
            return True
        has_extent = has_area or p.given(parameters, "EXTENT") or self._preset(parameters, context)
        # Points may lie far off by mistake; the worker looks at each and not at their extent alone.
        return not has_extent and _has_points(source)

    def _crs(
        self,
        parameters: dict[str, Any],
        source: QgsProcessingFeatureSource,
        area: QgsProcessingFeatureSource | None,
        area_key: str,
        preset: Preset | None,
        folder: Path,
        *,
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> QgsCoordinateReferenceSystem:
        """Return the coordinate reference system of the grid."""
        if preset is not None:
            return QgsCoordinateReferenceSystem(preset.crs)
        if p.given(parameters, "TARGET_CRS"):
            return self.parameterAsCrs(parameters, "TARGET_CRS", context)
        wanted = self.parameterAsBoolean(parameters, "LOCAL_CRS", context)
        if not wanted or not source.sourceCrs().isGeographic():
            return source.sourceCrs()
        degrees = QgsCoordinateReferenceSystem(WGS84)
        export = {"crs": degrees, "context": context, "feedback": feedback}
        if p.given(parameters, "EXTENT"):
            west, south, east, north = self._given_extent(parameters, context, degrees)
            middle = (west + east) / 2, (south + north) / 2
        elif area is None and _has_points(source):
            places = export_places(source, folder, parameter="INPUT", **export)
            middle = middle_of(places, source.sourceName(), "INPUT")
        else:
            key = area_key or "INPUT"
            extent = extent_of(area or source, parameter=key, only_some=p.is_part(parameters, key), **export)
            middle = extent.center().x(), extent.center().y()
        crs = QgsCoordinateReferenceSystem(suggested_crs(*middle))
        feedback.pushInfo(tr("LOCAL_CRS: the grid is in {0}, {1}.").format(crs.authid(), crs.description()))
        return crs

    def _given_extent(
        self, parameters: dict[str, Any], context: QgsProcessingContext, crs: QgsCoordinateReferenceSystem
    ) -> list[float]:
        extent = self.parameterAsExtent(parameters, "EXTENT", context, crs)
        if extent.isNull() or extent.isEmpty():
            raise InputError(
                "This is no rectangle with an area.",
                hint="Write it as xmin,xmax,ymin,ymax [EPSG:code].",
                parameter="EXTENT",
                value=p.shown(parameters["EXTENT"]),
            )
        return _corners(extent)

    def _tell_what_is_not_used(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        area_key: str,
    ) -> None:
        """Say which of the given parameters another one makes void."""
        preset = self.parameterAsEnumString(parameters, "PRESET", context)
        area_from = self.parameterAsEnumString(parameters, "AREA_FROM", context)
        snap = self.parameterAsEnumString(parameters, "SNAP", context)
        void = []
        if preset != NO_PRESET:
            void.append(("CELL_SIZE", tr("PRESET is set")))
        elif p.given(parameters, "ROWS"):
            void += [(key, tr("ROWS and COLUMNS are set")) for key in ("CELL_SIZE", "CELL_HEIGHT")]
        if area_key != "STUDY_AREA":
            void.append(("STUDY_AREA", tr("AREA_FROM is {0}").format(area_from)))
        if snap != "raster":
            void.append(("SNAP_RASTER", tr("SNAP is {0}").format(snap)))
        for key, reason in void:
            if p.given(parameters, key):
                feedback.pushInfo(tr("{0}: {1} is not used.").format(reason, key))
        if p.given(parameters, "TARGET_CRS") and self.parameterAsBoolean(parameters, "LOCAL_CRS", context):
            feedback.pushInfo(tr("TARGET_CRS is set: LOCAL_CRS is not used."))


def _has_points(source: QgsProcessingFeatureSource) -> bool:
    return QgsWkbTypes.geometryType(source.wkbType()) == QgsWkbTypes.GeometryType.PointGeometry


def _corners(extent: QgsRectangle) -> list[float]:
    return [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
