# SPDX-License-Identifier: GPL-2.0-or-later
"""The space-time cube: event counts per time step, type and cell, as a CF netCDF file."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from xarray.backends import H5NetCDFStore

from .atomic import atomic_path
from .covariates import Covariate
from .errors import InputError
from .events import EventTable
from .grid import Grid
from .rasters import check_schema
from .reporter import Reporter
from .timesteps import STEPS, TimeAxis, check_step, check_time_zone, parse_local

SCHEMA = "cube/1"
MADE_BY = "Rasterize Events to Cube"
OTHER = "(other)"

# What xarray and HDF5 raise for files of another kind or with wrong bytes; for a calendar that is not
# ours xarray wants a package that the worker does not have.
_DAMAGE = (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ImportError)

# A cube beyond this would not leave a laptop room for training.
MAX_VALUES = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Cube:
    """Counts of events on a grid over time.

    Attributes
    ----------
    grid : Grid
        Cells and study area.
    axis : TimeAxis
        Steps.
    types : tuple of str
        Names of the type layers.
    events : numpy.ndarray
        float32 `(time, type, y, x)`, row 0 = north; 0 outside the study area.
    attributes : dict
        Provenance: how many events were read, used and dropped for which reason.
    covariates : dict
        What else is known about steps and cells, by name.
    """

    grid: Grid
    axis: TimeAxis
    types: tuple[str, ...]
    events: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)
    covariates: dict[str, Covariate] = field(default_factory=dict)

    @classmethod
    def from_events(
        cls,
        events: EventTable,
        grid: Grid,
        step: str,
        time_zone: str,
        *,
        start: str | None = None,
        end: str | None = None,
        max_types: int = 12,
        reporter: Reporter | None = None,
    ) -> Cube:
        """Count events in the cells of a grid and the steps of a time axis.

        Parameters
        ----------
        events : EventTable
            Coordinates in the CRS of `grid`.
        step : str
            Key of :data:`~.timesteps.STEPS`.
        time_zone : str
            IANA name of the zone in which days begin.
        start, end : str, optional
            ISO local times; the cube holds the whole steps from the one with
            `start` up to (not including) the one that begins at or after `end`.
            By default from the first to the last event.
        max_types : int
            Types beyond the most frequent ones are put together as ``(other)``.

        Raises
        ------
        InputError
            All events outside the grid or the period, or the cube too large.
        """
        reporter = reporter or Reporter()
        check_step(step)
        check_time_zone(time_zone)
        dropped = dict(events.dropped)

        row, column = grid.locate(events.x, events.y)
        on_grid = row >= 0
        in_area = on_grid & grid.valid[np.where(on_grid, row, 0), np.where(on_grid, column, 0)]
        if not in_area.any():
            raise _nothing_on_grid(events, grid)
        first = events.time[in_area].min() if start is None else parse_local(start, time_zone, "START")
        last = events.time[in_area].max() if end is None else parse_local(end, time_zone, "END")
        if end is not None:
            last = last - np.timedelta64(1, "s")
        if last < first:
            raise InputError(
                "The last event lies before it." if end is None else "The period ends before it begins.",
                hint="Set END after START, or leave both empty.",
                parameter="START" if end is None else "END",
                value=start if end is None else end,
            )
        axis = TimeAxis.covering(first, last, step, time_zone)
        index = axis.locate(events.time)
        in_period = index >= 0
        for reason, lost in (
            ("outside_period", ~in_period),
            ("outside_grid", in_period & ~on_grid),
            ("outside_area", in_period & on_grid & ~in_area),
        ):
            dropped[reason] = dropped.get(reason, 0) + int(lost.sum())
        used = in_period & in_area
        if not used.any():
            raise InputError(
                "No event lies in the period.",
                hint="Check START, END and TIME_FIELD.",
                parameter="START",
                value=f"{axis.isoformat(0)[0]} … {axis.isoformat(len(axis) - 1)[1]}",
            )
        codes, types = _frequent_types(events, used, max_types)
        shape = (len(axis), len(types), *grid.shape)
        size = int(np.prod(shape, dtype=np.int64))
        if size > MAX_VALUES:
            raise InputError(
                f"The cube would have {shape[0]:,} steps x {shape[1]} types x {shape[2]:,} x {shape[3]:,} "
                f"cells and take {size * 4 / 1e9:,.0f} GB of memory.",
                hint="Choose longer steps, larger cells, fewer types (MAX_TYPES) or a shorter period.",
                parameter="STEP",
                value=step,
            )
        reporter.check()
        flat = np.ravel_multi_index((index[used], codes, row[used], column[used]), shape)
        counts = np.bincount(flat, minlength=size).astype(np.float32).reshape(shape)
        attributes = {
            "events_read": events.rows_read,
            "events_used": int(used.sum()),
            "dropped": dropped,
        }
        return cls(grid, axis, types, counts, attributes)

    def __len__(self) -> int:
        return len(self.axis)

    @cached_property
    def total(self) -> np.ndarray:
        """float32 `(time, y, x)`: events of all types."""
        if self.events.shape[1] == 1:
            return self.events[:, 0]
        return self.events.sum(axis=1)

    def select_types(self, names: Sequence[str] | None) -> Cube:
        """Return the cube of the given types only; raises :class:`InputError` for an unknown one."""
        if not names:
            return self
        unknown = [name for name in names if name not in self.types]
        if unknown:
            raise InputError(
                f"The cube has no type {', '.join(map(repr, unknown))}.",
                hint=f"It has: {', '.join(self.types)}.",
                parameter="TYPES",
                value=", ".join(names),
            )
        chosen = [self.types.index(name) for name in names]
        return Cube(self.grid, self.axis, tuple(names), self.events[:, chosen], self.attributes)

    def with_covariates(self, covariates: Sequence[Covariate]) -> Cube:
        """Return the cube with further covariates; one of the same name is replaced."""
        return replace(self, covariates=self.covariates | {new.name: new for new in covariates})

    def steps(self, start: int, stop: int) -> Cube:
        """Return the cube of steps `start` to `stop` (exclusive); a view, not a copy."""
        return Cube(
            self.grid, self.axis.slice(start, stop), self.types, self.events[start:stop], self.attributes
        )

    def crop(self, rows: slice, columns: slice) -> Cube:
        """Return the cube of a rectangle of cells; a view, not a copy."""
        return Cube(
            self.grid.crop(rows, columns),
            self.axis,
            self.types,
            self.events[:, :, rows, columns],
            self.attributes,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of grid, steps and counts."""
        digest = hashlib.sha256(self.grid.fingerprint.encode())
        digest.update(self.axis.edges.tobytes())
        digest.update(json.dumps(self.types).encode())
        digest.update(np.ascontiguousarray(self.events).data)
        return digest.hexdigest()[:16]

    def to_dataset(self) -> xr.Dataset:
        """Return the cube as an :class:`xarray.Dataset` that follows the CF conventions."""
        grid, axis = self.grid, self.axis
        mapping = {"grid_mapping": "spatial_ref"}
        x, y, extra = _space_coordinates(grid)
        dataset = xr.Dataset(coords={"time": axis.starts.astype("datetime64[ns]"), "y": y, "x": x, **extra})
        dataset["type"] = ("type", np.array(self.types, dtype=object), {"long_name": "event type"})
        dataset = dataset.set_coords("type")
        dataset["events"] = (
            ("time", "type", "y", "x"),
            self.events,
            {"long_name": "events", "units": "1", "cell_methods": "time: sum area: sum", **mapping},
        )
        if len(self.types) > 1:
            dataset["total"] = (
                ("time", "y", "x"),
                self.total,
                {"long_name": "events of all types", "units": "1", "cell_methods": "time: sum area: sum"}
                | mapping,
            )
        dataset["inside"] = (
            ("y", "x"),
            grid.inside,
            {"long_name": "share of the cell inside the study area", "units": "1", **mapping},
        )
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
            gridcast_schema=SCHEMA,
            step=axis.step,
            time_zone=axis.time_zone,
            provenance=json.dumps(self.attributes, sort_keys=True),
        )
        return dataset

    def write(self, path: str | Path, parameter: str = "OUTPUT") -> None:
        """Write the cube as netCDF-4, compressed, whole or not at all."""
        dataset = self.to_dataset()
        counts = {"zlib": True, "complevel": 1, "shuffle": True, "dtype": "float32", "_FillValue": None}
        rows, columns = self.grid.shape
        chunk = (min(len(self), 64), min(rows, 128), min(columns, 128))
        clock = {"units": "seconds since 1970-01-01 00:00:00", "dtype": "int64", "_FillValue": None}
        encoding: dict[str, dict[str, Any]] = {
            "events": counts | {"chunksizes": (chunk[0], 1, *chunk[1:])},
            "inside": {"zlib": True, "_FillValue": None},
            "time": clock,
            "time_bnds": clock,
            "x": {"_FillValue": None},
            "y": {"_FillValue": None},
        }
        if "total" in dataset:
            encoding["total"] = counts | {"chunksizes": chunk}
        # HDF5 does not survive a full disk: it may crash and keep the file open. Python writes the bytes.
        buffer = io.BytesIO()
        with h5netcdf.File(buffer, "w") as file:
            dataset.dump_to_store(H5NetCDFStore(file), encoding=encoding)
        with atomic_path(path, parameter) as part:
            part.write_bytes(buffer.getbuffer())

    @classmethod
    def read(cls, path: str | Path, parameter: str = "CUBE") -> Cube:
        """Read a cube; raises :class:`InputError` if the file is missing, damaged or something else."""
        fix = f"Choose a file that '{MADE_BY}' has made."
        if not Path(path).is_file():
            raise InputError("The file does not exist.", hint=fix, parameter=parameter, value=path)
        try:
            with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
                check_schema(str(dataset.attrs.get("gridcast_schema", "")), SCHEMA, parameter, path, MADE_BY)
                return cls._from_dataset(dataset)
        except _DAMAGE as error:
            raise InputError(
                f"The cube is damaged or no netCDF file ({type(error).__name__}: {error}).",
                hint="It may have been cut off while it was copied. " + fix,
                parameter=parameter,
                value=path,
            ) from error

    @classmethod
    def _from_dataset(cls, dataset: xr.Dataset) -> Cube:
        reference = dataset["spatial_ref"].attrs
        transform = Affine.from_gdal(*(float(v) for v in str(reference["GeoTransform"]).split()))
        grid = Grid(
            pyproj.CRS.from_wkt(reference["crs_wkt"]),
            transform,
            dataset["inside"].to_numpy().astype(np.float32),
        )
        bounds = dataset["time_bnds"].to_numpy().astype("datetime64[s]")
        edges = np.append(bounds[:, 0], bounds[-1, 1])
        step = str(dataset.attrs["step"])
        if step not in STEPS:
            raise ValueError(f"unknown step {step!r}")
        axis = TimeAxis(step, str(dataset.attrs["time_zone"]), edges)
        types = tuple(str(name) for name in dataset["type"].to_numpy())
        events = dataset["events"].to_numpy().astype(np.float32, copy=False)
        if events.shape != (len(axis), len(types), *grid.shape):
            raise ValueError(f"events have shape {events.shape}")
        return cls(grid, axis, types, events, json.loads(dataset.attrs.get("provenance", "{}")))

    def index_of(self, text: str, parameter: str) -> int:
        """Return the index of the step that begins at or holds a local time; `len(self)` is the end."""
        instant = parse_local(text, self.axis.time_zone, parameter)
        edges = self.axis.edges
        if instant < edges[0] or instant > edges[-1]:
            raise InputError(
                "The time lies outside the cube.",
                hint=f"The cube runs from {self.axis.isoformat(0)[0]} "
                f"to {self.axis.isoformat(len(self) - 1)[1]}.",
                parameter=parameter,
                value=text,
            )
        return int(np.searchsorted(edges, instant, side="right") - 1)


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
        x = ("x", np.arange(columns) + 0.5, {"long_name": "column", "units": "1"})
        y = ("y", np.arange(rows) + 0.5, {"long_name": "row", "units": "1"})
        return x, y, extra
    x_values = grid.transform.c + grid.transform.a * (np.arange(columns) + 0.5)
    y_values = grid.transform.f + grid.transform.e * (np.arange(rows) + 0.5)
    if grid.crs.is_geographic:
        names = (("longitude", "degrees_east"), ("latitude", "degrees_north"))
    else:
        unit = grid.crs.axis_info[0].unit_name
        unit = {"metre": "m"}.get(unit, unit.replace(" ", "_"))
        names = (("projection_x_coordinate", unit), ("projection_y_coordinate", unit))
    (x_name, x_unit), (y_name, y_unit) = names
    x = ("x", x_values, {"standard_name": x_name, "units": x_unit, "axis": "X"})
    y = ("y", y_values, {"standard_name": y_name, "units": y_unit, "axis": "Y"})
    return x, y, {}


def _frequent_types(
    events: EventTable, used: np.ndarray, max_types: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return type codes of the used events and names; rare types become one."""
    if max_types < 1:
        raise InputError(
            "At least one type is needed.", hint="Give 1 or more.", parameter="MAX_TYPES", value=max_types
        )
    codes = events.type_code[used]
    counts = np.bincount(codes, minlength=len(events.type_names))
    present = np.flatnonzero(counts)
    if len(present) <= max_types:
        kept, rest = present, np.array([], int)
    else:
        by_size = present[np.argsort(-counts[present], kind="stable")]
        kept, rest = np.sort(by_size[: max_types - 1]), by_size[max_types - 1 :]
        # A type that has this name already joins the rest.
        kept = kept[[events.type_names[i] != OTHER for i in kept]]
    names = [events.type_names[i] for i in kept]
    lookup = np.full(len(events.type_names), len(kept))
    lookup[kept] = np.arange(len(kept))
    if len(rest):
        names.append(OTHER)
    return lookup[codes], tuple(names)


def _nothing_on_grid(events: EventTable, grid: Grid) -> InputError:
    if len(events) == 0:
        return InputError(
            "No event has both a place and a date that can be read.",
            hint=f"Lost: {', '.join(f'{n} {why}' for why, n in events.dropped.items() if n)}.",
            parameter="INPUT",
        )
    x, y = grid.centres()
    return InputError(
        f"All {len(events):,} events lie outside the study area of the grid. The events lie around "
        f"x {np.median(events.x):.6g}, y {np.median(events.y):.6g}, the grid around "
        f"x {x.mean():.6g}, y {y.mean():.6g} ({grid.crs.name}).",
        hint="Check the coordinate system of the layer and that grid and events belong together.",
        parameter="INPUT",
    )
