# SPDX-License-Identifier: GPL-2.0-or-later
"""Add Covariates to Cube: weather, rasters, census, holidays and the season per step or cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
    QgsProviderRegistry,
    QgsRasterLayer,
)

from .. import compat
from ..core.errors import InputError
from ..i18n import tr
from ..layers.polygons import export_polygon_fields
from ..layers.sources import field_names
from . import parameters as p
from .base import GRID_AND_CUBE, GridcastAlgorithm

RASTER_METHODS = ("mean", "nearest")
POLYGON_METHODS = ("mean", "sum")
CALENDARS = ("none", "encoded", "day-of-year", "both")

#: Parameters of which at least one has to be set, besides CALENDAR.
_KINDS = ("TABLE", "RASTERS", "POLYGONS", "COUNTRY", "HOLIDAY_FILES")


class AddCovariates(GridcastAlgorithm):
    """Writes a cube again with what else is known about its steps and cells."""

    ID = "addcovariates"
    GROUP = GRID_AND_CUBE

    def title(self) -> str:
        return tr("Add Covariates to Cube")

    def summary(self) -> str:
        return tr("Adds weather, rasters, census figures, holidays and the season to the steps or cells.")

    def explanation(self) -> str:
        return tr(
            "The result is a new cube; CUBE itself is not changed. Set at least one kind.\n\n"
            "TABLE has a row for each day, hour or month. A step gets the mean of the rows in it, and a step "
            "shorter than the rows the value in force. RASTERS and POLYGONS give a value for each cell, and "
            "holidays the share of a step's days: 1 for a holiday.\n\n"
            "Nothing is fitted and no gap is filled here, so nothing leaks from later steps: a step or cell "
            "of which nothing is known stays empty. The log has a line for each covariate with its least, "
            "greatest and mean value and what is missing.\n\n"
            "A covariate of the same name in CUBE is replaced. A forecast knows the weather of the coming "
            "steps only if the table has it."
        )

    def keywords(self) -> list[str]:
        return [
            *(tr("cube"), tr("covariates"), tr("weather"), tr("census"), tr("holidays"), tr("season")),
            *(tr("raster"), tr("zonal mean"), tr("CSV")),
        ]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        self._add_table()
        self._add_rasters()
        self._add_polygons()
        self._add_calendar()
        self.addParameter(
            p.new_file(
                "OUTPUT", tr("Cube with covariates"), tr("netCDF file; CUBE is not changed."), p.CUBE_FILTER
            )
        )
        self.add_numbers(COVARIATES=tr("Covariates added"), MISSING_STEPS=tr("Steps without some value"))
        self.add_strings(NAMES=tr("Names of the covariates"))

    def _add_table(self) -> None:
        self.addParameter(
            p.file(
                "TABLE",
                tr("Table by date"),
                tr(
                    "CSV file such as daily weather, plain or gzipped, whose first line names the columns. "
                    "Dates without an offset are by the clock of the cube; the month comes first unless "
                    "only the day can."
                ),
                "CSV (*.csv *.csv.gz *.gz *.txt *.tsv)",
                optional=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("DATE_FIELD", tr("Date column"), None, optional=True),
                tr("Column of TABLE with the dates. Empty: known by its name, such as date or timestamp."),
                advanced=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("COLUMNS", tr("Columns"), None, optional=True),
                tr("Columns of TABLE, separated by commas. Empty: all that hold numbers only."),
                advanced=True,
            )
        )

    def _add_rasters(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterMultipleLayers(
                    "RASTERS", tr("Rasters"), QgsProcessing.SourceType.TypeRaster, optional=True
                ),
                tr(
                    "Rasters in any coordinate reference system, such as heights or lights at night; each "
                    "gives one value for each cell."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "RASTER_METHOD",
                tr("Value from a raster"),
                tr("mean: of the pixels in the cell. nearest: the pixel at its centre, for classes."),
                RASTER_METHODS,
                default="mean",
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "RASTER_BAND",
                tr("Band"),
                tr("Number of the band that is read from each raster, from 1."),
                default=1,
                advanced=True,
            )
        )

    def _add_polygons(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSource(
                    "POLYGONS",
                    tr("Polygons with numbers"),
                    [QgsProcessing.SourceType.TypeVectorPolygon],
                    optional=True,
                ),
                tr("Layer such as census tracts; it is reprojected to the grid, its selection respected."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterField(
                    "POLYGON_FIELDS",
                    tr("Fields of the polygons"),
                    None,
                    "POLYGONS",
                    QgsProcessingParameterField.DataType.Numeric,
                    allowMultiple=True,
                    optional=True,
                ),
                tr("Fields of POLYGONS with the numbers; each gives one covariate."),
            )
        )
        self.addParameter(
            p.choice(
                "POLYGON_METHOD",
                tr("Value from polygons"),
                tr(
                    "mean: mean by area, for incomes, shares and rates. sum: each cell gets the share that "
                    "it has of a polygon's area, for inhabitants and other counts."
                ),
                POLYGON_METHODS,
                default="mean",
            )
        )

    def _add_calendar(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterString(
                    "COUNTRY", tr("Country of public holidays"), None, optional=True
                ),
                tr("ISO 3166 code such as US, CA or DE. Empty: no public holidays."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("SUBDIVISION", tr("State or province"), None, optional=True),
                tr("Code such as IL for Illinois, so that its own holidays count as well."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterMultipleLayers(
                    "HOLIDAY_FILES", tr("Own holidays"), QgsProcessing.SourceType.TypeFile, optional=True
                ),
                tr(
                    "CSV files with a column date, or with columns start and end (both belong to it), such "
                    "as school holidays; each file gives one covariate of its name."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "CALENDAR",
                tr("Season and weekday"),
                tr(
                    "encoded: sine and cosine of the season, and of weekday and hour if steps are that "
                    "short. day-of-year: the number 1 to 366, as published. both: all of them."
                ),
                CALENDARS,
                default="none",
            )
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        for key, needed, hint in (
            ("POLYGONS", "POLYGON_FIELDS", "Choose the fields that hold the numbers."),
            ("POLYGON_FIELDS", "POLYGONS", "Choose the layer that has the fields."),
            ("SUBDIVISION", "COUNTRY", "Set the country as well, such as US."),
            ("DATE_FIELD", "TABLE", "Choose the table that has the column."),
            ("COLUMNS", "TABLE", "Choose the table that has the columns."),
        ):
            if _is_set(parameters, key) and not _is_set(parameters, needed):
                raise InputError(f"It is needed for {key}.", hint=hint, parameter=needed, value="not set")
        calendar = self.parameterAsEnumString(parameters, "CALENDAR", context)
        if calendar == "none" and not any(_is_set(parameters, key) for key in _KINDS):
            raise InputError(
                "There is nothing to add.", hint=f"Set at least one of {', '.join(_KINDS)} and CALENDAR."
            )
        p.check_destination(parameters, "OUTPUT", context, (".nc",))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        request: dict[str, Any] = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "table": "",
            "date_field": self.parameterAsString(parameters, "DATE_FIELD", context).strip(),
            "columns": p.comma_list(self.parameterAsString(parameters, "COLUMNS", context)) or [],
            **self._rasters(parameters, context),
            "country": self.parameterAsString(parameters, "COUNTRY", context).strip(),
            "subdivision": self.parameterAsString(parameters, "SUBDIVISION", context).strip(),
            "holiday_files": self._holiday_files(parameters, context),
            "calendar": self.parameterAsEnumString(parameters, "CALENDAR", context),
            "output": str(Path(output).absolute()),
        }
        if p.given(parameters, "TABLE"):
            request["table"] = p.existing_file(self, parameters, "TABLE", context)
        _check_not_an_input(request)
        with self.job_folder() as folder:
            if p.given(parameters, "POLYGONS"):
                request |= self._polygons(parameters, context, feedback, folder, request["cube"])
            made = self.run_worker("add_covariates", request, feedback, folder)
        return {
            "OUTPUT": output,
            "COVARIATES": made["covariates"],
            "MISSING_STEPS": made["missing_steps"],
            "NAMES": ", ".join(made["names"]),
        }

    def _rasters(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return the part of the request about rasters."""
        layers = []
        if _is_set(parameters, "RASTERS"):
            layers = self.parameterAsLayerList(parameters, "RASTERS", context)
        for layer in layers:
            if not isinstance(layer, QgsRasterLayer) or layer.providerType() != "gdal":
                raise InputError(
                    "This is no raster that GDAL reads, such as a GeoTIFF.",
                    hint="Save it as a GeoTIFF first (Export > Save As).",
                    parameter="RASTERS",
                    value=layer.name(),
                )
        return {
            "rasters": [_gdal_name(layer) for layer in layers],
            "raster_names": [layer.name() for layer in layers],
            "raster_crs": [compat.wkt(layer.crs()) if layer.crs().isValid() else "" for layer in layers],
            "raster_method": self.parameterAsEnumString(parameters, "RASTER_METHOD", context),
            "raster_band": self.parameterAsInt(parameters, "RASTER_BAND", context),
        }

    def _holiday_files(self, parameters: dict[str, Any], context: QgsProcessingContext) -> list[str]:
        if not _is_set(parameters, "HOLIDAY_FILES"):
            return []
        files = self.parameterAsFileList(parameters, "HOLIDAY_FILES", context)
        for file in files:
            if not Path(file).is_file():
                raise InputError(
                    "The file does not exist.",
                    hint="Choose CSV files with a column date, or with columns start and end.",
                    parameter="HOLIDAY_FILES",
                    value=file,
                )
        return [str(Path(file).absolute()) for file in files]

    def _polygons(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        folder: Path,
        cube: str,
    ) -> dict[str, Any]:
        """Return the part of the request about polygons, after they are written to a file."""
        source = p.vector_source(self, parameters, "POLYGONS", context)
        fields = _words(parameters["POLYGON_FIELDS"])
        for name in fields:
            index = source.fields().lookupField(name)
            if index < 0 or not compat.holds_numbers(source.fields().at(index)):
                raise InputError(
                    f"The layer '{source.sourceName()}' has no such field."
                    if index < 0
                    else "The field does not hold numbers.",
                    hint=f"Choose fields with numbers; there are: {field_names(source.fields())}.",
                    parameter="POLYGON_FIELDS",
                    value=name,
                )
        known = self.run_worker("describe_cube", {"cube": cube}, feedback)
        path, names = export_polygon_fields(
            source,
            folder,
            fields,
            crs=QgsCoordinateReferenceSystem.fromWkt(known["crs"]),
            context=context,
            feedback=feedback,
        )
        return {
            "polygons": str(path),
            "polygon_fields": names,
            "polygon_method": self.parameterAsEnumString(parameters, "POLYGON_METHOD", context),
        }


def _is_set(parameters: Mapping[str, Any], key: str) -> bool:
    """Tell whether a parameter has a value, in whichever form an empty list comes."""
    return p.given(parameters, key) and parameters[key] not in ([], ())


def _words(value: Any) -> list[str]:
    """Return the names in a parameter for several fields: a list, or text with semicolons."""
    return [str(name) for name in (value if isinstance(value, (list, tuple)) else p.shown(value).split(";"))]


def _gdal_name(layer: QgsRasterLayer) -> str:
    """Return a raster's source as GDAL outside QGIS opens it."""
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = parts.get("path") or ""
    if Path(path).is_file() and not parts.get("layerName"):
        return str(Path(path).absolute())
    return layer.source()


def _check_not_an_input(request: Mapping[str, Any]) -> None:
    """Raise InputError if the output is one of the inputs."""
    output = Path(request["output"]).resolve()
    inputs = [request["cube"], request["table"], *request["rasters"], *request["holiday_files"]]
    if any(path and Path(path).resolve() == output for path in inputs):
        raise InputError(
            "This file is one of the inputs.",
            hint="Choose another file: inputs are never changed.",
            parameter="OUTPUT",
            value=request["output"],
        )
