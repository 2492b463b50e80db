# SPDX-License-Identifier: GPL-2.0-or-later
"""Event layers read in blocks, so that memory does not grow with the number of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FieldError
from pyproj.exceptions import ProjError

from .errors import InputError
from .events import EventTable, check_readable
from .schemas import ROLES

#: Rows that are in memory at a time.
BLOCK_ROWS = 1 << 17

# FlatGeobuf's own way to Arrow stumbles over rows without geometry; the general one does not.
pyogrio.set_gdal_config_options({"OGR_FLATGEOBUF_STREAM_BASE_IMPL": "YES"})

# A point in well-known binary: byte order, type, x and y.
_POINT_BYTES = 21
_POINT_HEAD = np.array([1, 1, 0, 0, 0], np.uint8)


@dataclass(frozen=True)
class EventSource:
    """A layer or table of events, and how its columns are to be understood.

    Attributes
    ----------
    path : path
        Any file that OGR reads. Each part of a multipart point is an event.
    layer : str, optional
        Layer in the file; by default the first one.
    fields : mapping
        Role (:data:`~.schemas.ROLES`) to column; ``time`` is needed. With ``x`` and ``y`` the
        places stand in columns, otherwise in the geometry.
    operation : str, optional
        PROJ text of the coordinate operation to apply; x is east or longitude, before and after.
    time_zone, day_first, times_are_local
        See :meth:`~.events.EventTable.from_arrays`.
    dropped_before : mapping
        Rows already lost on the way here, by reason.
    """

    path: str | Path
    layer: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: {"time": "time"})
    operation: str | None = None
    time_zone: str = "UTC"
    day_first: bool = False
    times_are_local: bool = False
    dropped_before: Mapping[str, int] = field(default_factory=dict)

    def read(self) -> EventTable:
        """Read all rows at once.

        Raises
        ------
        InputError
            The file cannot be read, it lacks a column, has no row, or not one date can be read.
        """
        table = EventTable.concatenated(list(self.blocks()))
        check_readable(table.rows_read, table.dropped, len(table), table.bad_examples)
        return table

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[EventTable]:
        """Yield the rows in tables of about `rows`, at least one table.

        Raises
        ------
        InputError
            The file cannot be read or lacks a column.
        """
        self._check_columns()
        transformer = self._transformer()
        before = self.dropped_before
        try:
            with pyogrio.open_arrow(
                self.path,
                layer=self.layer,
                columns=sorted(set(self.fields.values())),
                read_geometry="x" not in self.fields,
                datetime_as_string=True,
                batch_size=rows,
                use_pyarrow=True,
            ) as (meta, batches):
                geometry = meta["geometry_name"] or "wkb_geometry"
                for batch in batches:
                    yield self._table(batch, geometry, transformer, before)
                    before = {}
        except (DataSourceError, DataLayerError, FieldError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        if before is self.dropped_before:
            empty = np.empty(0)
            yield EventTable.from_arrays(empty, empty, empty.astype(object), dropped_before=before)

    def _check_columns(self) -> None:
        try:
            names = [str(n) for n in pyogrio.read_info(self.path, layer=self.layer)["fields"]]
        except (DataSourceError, DataLayerError) as error:
            raise self._unreadable(error) from error
        unknown = set(self.fields) - set(ROLES)
        if unknown:
            raise ValueError(f"unknown roles {sorted(unknown)}")
        for role, column in self.fields.items():
            if column not in names:
                raise InputError(
                    f"The layer has no field '{column}'.",
                    hint="Choose one of its fields.",
                    parameter=f"{role.upper()}_FIELD",
                    value=", ".join(names),
                )

    def _transformer(self) -> pyproj.Transformer | None:
        if not self.operation:
            return None
        try:
            return pyproj.Transformer.from_pipeline(self.operation)
        except ProjError as error:
            raise InputError(
                f"The layer cannot be brought to the grid's coordinate system: {error}.",
                hint="Reproject it first ('Reproject layer').",
                parameter="INPUT",
                value=self.operation,
            ) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"The layer cannot be read: {error}.",
            hint="Choose a point layer.",
            parameter="INPUT",
            value=self.path,
        )

    def _table(
        self,
        batch: pa.RecordBatch,
        geometry: str,
        transformer: pyproj.Transformer | None,
        dropped_before: Mapping[str, int],
    ) -> EventTable:
        dropped = dict(dropped_before)
        if "x" in self.fields:
            places = [_numbers(batch.column(self.fields[role])) for role in ("x", "y")]
            rows = None
        else:
            places, rows = _points(batch.column(geometry))
        if transformer is not None:
            had_place = np.isfinite(places[0])
            places = transformer.transform(*places)
            failed = had_place & ~np.isfinite(places[0])
            if failed.any():
                dropped["reprojection"] = dropped.get("reprojection", 0) + int(failed.sum())
                places = [coordinate[~failed] for coordinate in places]
                rows = (np.arange(batch.num_rows) if rows is None else rows)[~failed]
        columns = {role: batch.column(name) for role, name in self.fields.items()}
        if rows is not None:
            columns = {role: column.take(pa.array(rows)) for role, column in columns.items()}
        times = {role: self._times(columns[role]) for role in ("time", "end", "reported") if role in columns}
        return EventTable.from_arrays(
            places[0],
            places[1],
            times["time"],
            _values(columns.get("type")),
            clocks=_values(columns.get("clock")),
            ends=times.get("end"),
            reported=times.get("reported"),
            severity=_values(columns.get("severity")),
            identity=_values(columns.get("identity")),
            time_zone=self.time_zone,
            day_first=self.day_first,
            times_are_local=self.times_are_local,
            dropped_before=dropped,
        )

    def _times(self, column: pa.Array) -> pd.Series | np.ndarray:
        """Return a column of dates, as instants where all of it is plain ISO 8601."""
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            # Text with and without offset is told apart by what converts; written offsets that are to be
            # ignored need the text itself.
            for zone in (None,) if self.times_are_local else (None, "UTC"):
                try:
                    stamps = pc.cast(column, pa.timestamp("us", zone))
                except pa.ArrowInvalid:
                    continue
                return stamps.to_pandas()
        return _values(column)


def _values(column: pa.Array | None) -> pd.Series | None:
    """Return a column as a Series; text as Python strings, which all that follows understands."""
    if column is None:
        return None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # Few types, many events: each distinct text becomes one Python object.
        coded = column.dictionary_encode()
        distinct = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
        return pd.Series(
            distinct[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)], dtype=object
        )
    return column.to_pandas()


def _numbers(column: pa.Array) -> np.ndarray:
    return pd.to_numeric(_values(column), errors="coerce").to_numpy(float)


def _points(column: pa.Array) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return x and y of all points, and of which row each is; None: one in each row, in order.

    A row without geometry has one place that is not a number.
    """
    plain = _plain_points(column)
    if plain is not None:
        return [plain[:, 0], plain[:, 1]], None
    shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False))
    coordinates, owner = shapely.get_coordinates(shapes, return_index=True)
    without = np.setdiff1d(np.arange(len(shapes)), owner)
    rows = np.concatenate([owner, without])
    order = np.argsort(rows, kind="stable")
    coordinates = np.concatenate([coordinates, np.full((len(without), 2), np.nan)])[order]
    return [coordinates[:, 0], coordinates[:, 1]], rows[order]


def _plain_points(column: pa.Array) -> np.ndarray | None:
    """Return float64 `(rows, 2)` of a column of plain points; None if there is anything else.

    Reads the bytes as they lie, which is many times faster than making a million geometries.
    """
    _, offset_bytes, data = column.buffers()
    if column.null_count or not len(column) or not pa.types.is_binary(column.type):
        return None
    offsets = np.frombuffer(offset_bytes, np.int32)[column.offset : column.offset + len(column) + 1]
    if (np.diff(offsets) != _POINT_BYTES).any():
        return None
    records = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _POINT_BYTES)
    if (records[:, :5] != _POINT_HEAD).any():
        return None
    return records[:, 5:].copy().view("<f8")
