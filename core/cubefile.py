# SPDX-License-Identifier: GPL-2.0-or-later
"""The cube's file: netCDF-4 that follows the CF conventions, for QGIS, GDAL, xarray and netCDF tools."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import h5netcdf
import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from xarray.backends import H5NetCDFStore

from gridcast_qgis import __version__

from .atomic import atomic_path
from .covariates import Covariate
from .cube import MADE_BY, Cube
from .errors import InputError
from .grid import Grid
from .rasters import check_schema, write_geotiff
from .severity import Severity
from .timesteps import TimeAxis, check_step

SCHEMA = "cube/2"

_T = TypeVar("_T")

# What xarray and HDF5 raise for files of another kind or with wrong bytes; for a calendar that is not
# ours xarray wants a package that the worker need not have.
_DAMAGE = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ImportError),
    ArithmeticError,
)

# Steps, rows and columns in a chunk, at most. A chunk is what is read at least: it has to serve those who
# want all cells of one step (maps) and those who want all steps of one cell (histories).
_CHUNK = (64, 32, 32)

#: GDAL writes no GeoTIFF with more bands.
MAX_BANDS = 65_535

_PER_STEP_AND_CELL = {"cell_methods": "time: sum area: sum", "grid_mapping": "spatial_ref"}


def to_dataset(cube: Cube) -> xr.Dataset:
    """Return the cube as an :class:`xarray.Dataset` that follows the CF conventions."""
    grid, axis = cube.grid, cube.axis
    mapping = {"grid_mapping": "spatial_ref"}
    x, y, extra = _space_coordinates(grid)
    dataset = xr.Dataset(coords={"time": axis.starts.astype("datetime64[ns]"), "y": y, "x": x, **extra})
    # A coordinate variable has to be a number: the names stand beside the dimension.
    dataset["type_name"] = ("type", np.array(cube.types, dtype=object), {"long_name": "event type"})
    dataset = dataset.set_coords("type_name")
    dataset["events"] = (
        ("time", "type", "y", "x"),
        cube.events,
        {"long_name": "events", "units": "1", **_PER_STEP_AND_CELL},
    )
    if len(cube.types) > 1:
        dataset["total"] = (
            ("time", "y", "x"),
            cube.total,
            {"long_name": "events of all types", "units": "1", **_PER_STEP_AND_CELL},
        )
    dataset["inside"] = (
        ("y", "x"),
        grid.inside,
        {"long_name": "share of the cell inside the study area", "units": "1", **mapping},
    )
    if cube.severity is not None:
        _add_severity(dataset, cube.severity)
    for covariate in cube.covariates.values():
        attributes = {
            "long_name": covariate.description or covariate.name,
            "units": covariate.units,
            "gridcast_role": "covariate",
        }
        if "y" in covariate.dimensions:
            attributes |= mapping
        dataset[covariate.name] = (covariate.dimensions, covariate.values, attributes)
    bounds = np.stack([axis.starts, axis.ends], axis=1).astype("datetime64[ns]")
    dataset["time_bnds"] = (("time", "bnds"), bounds)
    dataset["time"].attrs.update(
        standard_name="time", long_name="start of the step (UTC)", axis="T", bounds="time_bnds"
    )
    reference = {key: value for key, value in grid.crs.to_cf().items() if value is not None}
    reference["crs_wkt"] = grid.crs.to_wkt()
    # GDAL and QGIS read these two; the transform also keeps the grid exact.
    reference["spatial_ref"] = reference["crs_wkt"]
    reference["GeoTransform"] = " ".join(repr(float(v)) for v in grid.transform.to_gdal())
    dataset["spatial_ref"] = ((), np.int32(0), reference)
    dataset.attrs.update(
        Conventions="CF-1.8",
        title="Events per cell and time step",
        source="Gridcast",
        history=f"Events counted per cell and step by Gridcast {__version__}",
        gridcast_schema=SCHEMA,
        step=axis.step,
        time_zone=axis.time_zone,
        provenance=json.dumps(cube.attributes, sort_keys=True),
    )
    return dataset


def _add_severity(dataset: xr.Dataset, severity: Severity) -> None:
    for name, values, text in (
        ("severity_sum", severity.sum, "sum of the severities of the events"),
        ("severity_weight", severity.weight, "events of known severity"),
        ("severity_mean", severity.mean, "mean severity of the events, 0 without events"),
        ("severity_indicator", severity.indicator, "1 where there are events of known severity"),
    ):
        dataset[name] = (
            ("time", "y", "x"),
            values,
            {"long_name": text, "units": "1", "grid_mapping": "spatial_ref"},
        )


def write_cube(cube: Cube, path: str | Path, parameter: str = "OUTPUT") -> None:
    """Write the cube as netCDF-4, compressed, whole or not at all."""
    dataset = to_dataset(cube)
    lengths = dict(zip(("time", "y", "x"), (len(cube), *cube.grid.shape)))
    chunk = {"type": 1, **{name: _even(n, most) for (name, n), most in zip(lengths.items(), _CHUNK)}}
    # CF 1.8 knows no 64-bit integers; seconds are whole numbers of 53 bits for a long time to come.
    clock = {"units": "seconds since 1970-01-01 00:00:00", "dtype": "float64", "_FillValue": None}
    encoding: dict[str, dict[str, Any]] = {"time": clock, "time_bnds": clock}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "f":
            encoding[str(name)] = {"_FillValue": np.float32(np.nan) if name in cube.covariates else None}
        if "time" in variable.dims and "y" in variable.dims:
            encoding[str(name)] |= {
                **{"zlib": True, "complevel": 1, "shuffle": True},
                "chunksizes": tuple(chunk[str(dimension)] for dimension in variable.dims),
            }
    # HDF5 does not survive a full disk: it may crash and keep the file open. Python writes the bytes.
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file), encoding=encoding)
    with atomic_path(path, parameter) as part:
        part.write_bytes(buffer.getbuffer())


def export_bands(cube: Cube, path: str | Path, variable: str = "", parameter: str = "OUTPUT") -> float:
    """Write one quantity of a cube as a GeoTIFF with one band a step.

    Parameters
    ----------
    variable : str
        A type, ``severity_mean``, ``severity_sum``, or a covariate that changes from cell to cell
        and in time; by default the events of all types.

    Returns
    -------
    float
        Upper end for a colour ramp: the 99th percentile of the cells that are not 0.

    Raises
    ------
    InputError
        There is no such variable, or more steps than a GeoTIFF has bands.
    """
    if len(cube) > MAX_BANDS:
        raise InputError(
            f"The raster would have {len(cube):,} bands, more than the {MAX_BANDS:,} that a GeoTIFF has.",
            hint="Set START and END to a shorter period.",
            parameter="START",
            value=cube.axis.isoformat(0)[0],
        )
    choices: dict[str, np.ndarray] = {name: cube.events[:, i] for i, name in enumerate(cube.types)}
    if cube.severity is not None:
        choices |= {"severity_mean": cube.severity.mean, "severity_sum": cube.severity.sum}
    choices |= {e.name: e.values for e in cube.covariates.values() if e.dimensions == ("time", "y", "x")}
    if variable and variable not in choices:
        raise InputError(
            "This covariate does not change from cell to cell and in time."
            if variable in cube.covariates
            else "The cube has no such variable.",
            hint=f"Choose one of: {', '.join(choices)}; leave it empty for all events.",
            parameter="VARIABLE",
            value=variable,
        )
    values = np.array(choices[variable] if variable else cube.total, np.float32)
    values[:, ~cube.grid.valid] = np.nan
    write_geotiff(
        path,
        values,
        cube.grid.crs,
        cube.grid.transform,
        tags={
            "GRIDCAST_VARIABLE": variable or "events",
            "GRIDCAST_TIME_ZONE": cube.axis.time_zone,
            "GRIDCAST_STEP": cube.axis.step,
            "GRIDCAST_GRID": cube.grid.fingerprint,
        },
        descriptions=["/".join(cube.axis.isoformat(index)) for index in range(len(cube))],
        parameter=parameter,
    )
    there = values[np.isfinite(values) & (values > 0)]
    return float(np.percentile(there, 99)) if there.size else 1.0


def _even(length: int, most: int) -> int:
    """Return the size of equal pieces of at most `most`, so that the last one is no sliver."""
    return ceil(length / ceil(length / most))


def read_cube(path: str | Path, parameter: str = "CUBE") -> Cube:
    """Read a cube; raises :class:`InputError` if the file is missing, damaged or something else."""
    return _read(path, parameter, _from_dataset)


def describe(path: str | Path, parameter: str = "CUBE") -> dict[str, str]:
    """Return CRS (WKT), step and time zone of a cube without reading its counts."""
    return _read(
        path,
        parameter,
        lambda dataset: {
            "crs": str(dataset["spatial_ref"].attrs["crs_wkt"]),
            "step": str(dataset.attrs["step"]),
            "time_zone": str(dataset.attrs["time_zone"]),
        },
    )


def _read(path: str | Path, parameter: str, take: Callable[[xr.Dataset], _T]) -> _T:
    fix = f"Choose a file that '{MADE_BY}' has made."
    if not Path(path).is_file():
        raise InputError("The file does not exist.", hint=fix, parameter=parameter, value=path)
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
            check_schema(str(dataset.attrs.get("gridcast_schema", "")), SCHEMA, parameter, path, MADE_BY)
            return take(dataset)
    except _DAMAGE as error:
        raise InputError(
            f"The cube is damaged or no netCDF file ({type(error).__name__}: {error}).",
            hint="It may have been cut off while it was copied. " + fix,
            parameter=parameter,
            value=path,
        ) from error


def _from_dataset(dataset: xr.Dataset) -> Cube:
    reference = dataset["spatial_ref"].attrs
    transform = Affine.from_gdal(*(float(v) for v in str(reference["GeoTransform"]).split()))
    grid = Grid(
        pyproj.CRS.from_wkt(reference["crs_wkt"]),
        transform,
        dataset["inside"].to_numpy().astype(np.float64),
    )
    bounds = dataset["time_bnds"].to_numpy()
    if bounds.dtype.kind != "M":
        raise ValueError("the times are in another calendar")
    bounds = bounds.astype("datetime64[s]")
    edges = np.append(bounds[:, 0], bounds[-1, 1])
    step = str(dataset.attrs["step"])
    try:
        check_step(step)
    except InputError as error:
        raise ValueError(f"unknown step {step!r}") from error
    axis = TimeAxis(step, str(dataset.attrs["time_zone"]), edges)
    types = tuple(str(name) for name in dataset["type_name"].to_numpy())
    severity = None
    if "severity_sum" in dataset:
        severity = Severity(dataset["severity_sum"].to_numpy(), dataset["severity_weight"].to_numpy())
    cube = Cube(
        grid,
        axis,
        types,
        dataset["events"].to_numpy().astype(np.float32, copy=False),
        json.loads(dataset.attrs.get("provenance", "{}")),
        _covariates(dataset),
        severity,
    )
    lengths = {"time": len(axis), "type": len(types), "y": grid.shape[0], "x": grid.shape[1]}
    for name, dimensions, values in _parts(cube):
        if values.shape != tuple(lengths[dimension] for dimension in dimensions):
            raise ValueError(f"{name} has shape {values.shape}")
    return cube


def _parts(cube: Cube) -> list[tuple[str, tuple[str, ...], np.ndarray]]:
    parts: list[tuple[str, tuple[str, ...], np.ndarray]] = [
        ("events", ("time", "type", "y", "x"), cube.events)
    ]
    if cube.severity is not None:
        parts.append(("severity_sum", ("time", "y", "x"), cube.severity.sum))
        parts.append(("severity_weight", ("time", "y", "x"), cube.severity.weight))
    return parts + [(each.name, each.dimensions, each.values) for each in cube.covariates.values()]


def _covariates(dataset: xr.Dataset) -> dict[str, Covariate]:
    return {
        str(name): Covariate(
            str(name),
            variable.to_numpy().astype(np.float32, copy=False),
            tuple(str(dimension) for dimension in variable.dims),
            str(variable.attrs.get("units", "1")),
            str(variable.attrs.get("long_name", "")),
        )
        for name, variable in dataset.data_vars.items()
        if variable.attrs.get("gridcast_role") == "covariate"
    }


def _space_coordinates(grid: Grid) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return CF coordinates x and y (cell centres), and longitude/latitude for a rotated grid."""
    rows, columns = grid.shape
    if grid.is_rotated:
        # One-dimensional x and y cannot describe turned rows: they count cells, and
        # two-dimensional coordinates tell where these are.
        x_map, y_map = grid.centres()
        to_degrees = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True)
        longitude, latitude = to_degrees.transform(x_map, y_map)
        extra = {
            "lon": (("y", "x"), longitude, {"standard_name": "longitude", "units": "degrees_east"}),
            "lat": (("y", "x"), latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        }
        if not grid.crs.is_geographic:
            unit = _unit(grid)
            extra["easting"] = (
                ("y", "x"),
                x_map,
                {"standard_name": "projection_x_coordinate", "units": unit},
            )
            extra["northing"] = (
                ("y", "x"),
                y_map,
                {"standard_name": "projection_y_coordinate", "units": unit},
            )
        x = ("x", np.arange(columns) + 0.5, {"long_name": "column", "units": "1"})
        y = ("y", np.arange(rows) + 0.5, {"long_name": "row", "units": "1"})
        return x, y, extra
    x_values = grid.transform.c + grid.transform.a * (np.arange(columns) + 0.5)
    y_values = grid.transform.f + grid.transform.e * (np.arange(rows) + 0.5)
    if grid.crs.is_geographic:
        names = (("longitude", "degrees_east"), ("latitude", "degrees_north"))
    else:
        unit = _unit(grid)
        names = (("projection_x_coordinate", unit), ("projection_y_coordinate", unit))
    (x_name, x_unit), (y_name, y_unit) = names
    x = ("x", x_values, {"standard_name": x_name, "units": x_unit, "axis": "X"})
    y = ("y", y_values, {"standard_name": y_name, "units": y_unit, "axis": "Y"})
    return x, y, {}


def _unit(grid: Grid) -> str:
    """Return the unit of a projected grid's coordinates as UDUNITS knows it."""
    unit = grid.crs.axis_info[0].unit_name
    return {"metre": "m"}.get(unit, unit.replace(" ", "_"))
