# SPDX-License-Identifier: GPL-2.0-or-later
"""The job that adds covariates to a cube."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..reporter import Reporter
from .common import Outputs

if TYPE_CHECKING:
    from ..covariates import Covariate
    from ..cube import Cube


@dataclass(frozen=True)
class AddCovariates:
    """Write a cube again with what else is known about its steps and cells.

    `raster_names` and `raster_crs` (WKT for rasters that do not tell their own) are as long as `rasters`, or
    empty; `polygon_fields` maps fields of the file to what they are called.
    """

    cube: str
    output: str
    table: str = ""
    date_field: str = ""
    columns: list[str] = field(default_factory=list)
    rasters: list[str] = field(default_factory=list)
    raster_names: list[str] = field(default_factory=list)
    raster_crs: list[str] = field(default_factory=list)
    raster_method: str = "mean"
    raster_band: int = 1
    polygons: str = ""
    polygon_fields: dict[str, str] = field(default_factory=dict)
    polygon_method: str = "mean"
    country: str = ""
    subdivision: str = ""
    holiday_files: list[str] = field(default_factory=list)
    calendar: str = "none"


def add_covariates(request: AddCovariates, reporter: Reporter) -> Outputs:
    """Make the new cube file; each covariate is reported with its range and its gaps."""
    from ..cube import Cube

    _check_request(request)
    reporter.stage("Reading the cube", 0, 10)
    cube = Cube.read(request.cube)
    reporter.stage("Reading the covariates", 10, 60)
    covariates = _named_apart(list(_all_covariates(request, cube, reporter)))
    without = np.zeros(len(cube), bool)
    for covariate in covariates:
        _tell(covariate, cube, reporter)
        if covariate.dimensions == ("time",):
            without |= np.isnan(covariate.values)
    reporter.stage("Writing the cube", 60, 100)
    cube.with_covariates(covariates).write(request.output)
    return {
        "output": request.output,
        "covariates": len(covariates),
        "missing_steps": int(without.sum()),
        "names": [covariate.name for covariate in covariates],
    }


def _check_request(request: AddCovariates) -> None:
    inputs = (request.cube, request.table, request.polygons, *request.rasters, *request.holiday_files)
    if any(path and Path(path).resolve() == Path(request.output).resolve() for path in inputs):
        raise InputError(
            "This file is one of the inputs.",
            hint="Choose another file: inputs are never changed.",
            parameter="OUTPUT",
            value=request.output,
        )
    if request.subdivision and not request.country:
        raise InputError(
            "A subdivision needs its country.",
            hint="Set COUNTRY as well, such as US.",
            parameter="COUNTRY",
            value="not set",
        )
    kinds = (request.table, request.rasters, request.polygons, request.country, request.holiday_files)
    if not any(kinds) and request.calendar == "none":
        raise InputError(
            "There is nothing to add.",
            hint="Set at least one of TABLE, RASTERS, POLYGONS, COUNTRY, HOLIDAY_FILES and CALENDAR.",
        )


def _all_covariates(request: AddCovariates, cube: Cube, reporter: Reporter) -> Iterator[Covariate]:
    """Yield the covariates of all kinds."""
    grid, axis = cube.grid, cube.axis
    if request.table:
        from ..covariates.tables import covariates_from_table

        yield from covariates_from_table(
            request.table, axis, date_field=request.date_field, columns=request.columns, reporter=reporter
        )
    yield from _from_rasters(request, cube, reporter)
    if request.polygons:
        from ..covariates.polygons import covariates_from_polygons

        yield from covariates_from_polygons(
            request.polygons,
            grid,
            list(request.polygon_fields),
            request.polygon_method,
            names=list(request.polygon_fields.values()),
            reporter=reporter,
        )
    reporter.progress(0.9)
    if request.country:
        from ..covariates.holiday import public_holidays

        yield public_holidays(axis, request.country, request.subdivision, reporter=reporter)
    for path in request.holiday_files:
        from ..covariates.holiday import holidays_from_file

        yield holidays_from_file(path, axis, reporter=reporter)
    if request.calendar != "none":
        from ..covariates.seasons import calendar_covariates

        yield from calendar_covariates(axis, request.calendar)


def _from_rasters(request: AddCovariates, cube: Cube, reporter: Reporter) -> Iterator[Covariate]:
    if not request.rasters:
        return
    import pyproj

    from ..covariates.rasters import covariate_from_raster

    for index, path in enumerate(request.rasters):
        reporter.progress(0.1 + 0.6 * index / len(request.rasters))
        system = request.raster_crs[index] if request.raster_crs else ""
        yield covariate_from_raster(
            path,
            cube.grid,
            method=request.raster_method,
            band=request.raster_band,
            name=request.raster_names[index] if request.raster_names else "",
            crs=pyproj.CRS.from_wkt(system) if system else None,
            reporter=reporter,
        )


def _named_apart(covariates: list[Covariate]) -> list[Covariate]:
    """Return the covariates with other names where two sources use the same one."""
    from ..covariates.names import variable_names

    names = variable_names([covariate.name for covariate in covariates])
    return [replace(covariate, name=name) for covariate, name in zip(covariates, names)]


def _tell(covariate: Covariate, cube: Cube, reporter: Reporter) -> None:
    """Report range and gaps of a covariate in one line."""
    if covariate.dimensions == ("time",):
        values, places = covariate.values, "steps"
    else:
        values, places = covariate.values[cube.grid.valid], "cells of the study area"
    known = values[np.isfinite(values)].astype(float)
    missing = len(values) - len(known)
    text = f"{covariate.name}: "
    if len(known):
        text += f"{known.min():.6g} to {known.max():.6g}, mean {known.mean():.6g}; "
    if covariate.name in cube.covariates:
        text += "replaces the one in the cube; "
    if missing:
        reporter.warning(f"{text}{missing:,} of {len(values):,} {places} have no value.")
    else:
        reporter.message(f"{text}all {places} have a value.")
