# SPDX-License-Identifier: GPL-2.0-or-later
"""The sample that ships with Gridcast: eight years of reported crimes in Toronto and the city's outline."""

from __future__ import annotations

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyogrio.raw
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from shapely.geometry import shape

from .atomic import atomic_path
from .errors import InputError
from .reporter import Reporter
from .timesteps import clock_to_utc

#: Where the sample lies, in a source checkout as in the installed plugin.
SAMPLE_FOLDER = Path(__file__).resolve().parents[1] / "resources" / "sample"

TIME_ZONE = "America/Toronto"
ATTRIBUTION = "Contains information licensed under the Open Government Licence – Toronto."

_EVENTS = "toronto_mci.csv.gz"
_BOUNDARY = "toronto_boundary.geojson"
# GDAL's mark for "this time is in UTC".
_UTC_FLAG = 100


def load_sample(folder: Path, output: Path, reporter: Reporter | None = None) -> dict[str, object]:
    """Write the sample as a GeoPackage with the layers ``events`` and ``boundary``, both in EPSG:4326.

    Parameters
    ----------
    folder : Path
        Folder with the sample's files, usually :data:`SAMPLE_FOLDER`.
    output : Path
        GeoPackage to write. It appears whole or not at all.
    reporter : Reporter, optional
        Receives progress; may ask to stop.

    Returns
    -------
    dict
        ``output``, ``events`` and ``boundary`` (all the path of the
        GeoPackage), ``time_zone`` and ``attribution``.

    Raises
    ------
    InputError
        A file of the sample is missing or damaged, or the output cannot be written.

    Notes
    -----
    The source gives the hour on the city's clock. Events are written with
    true UTC instants; see :func:`local_to_utc` for the hours that the clock
    skips or repeats.
    """
    reporter = reporter or Reporter()
    reporter.stage("Reading the sample", 0, 30)
    events = _read_events(folder / _EVENTS)
    outline = _read_boundary(folder / _BOUNDARY)
    times = local_to_utc(events["datetime"], TIME_ZONE)
    reporter.stage("Writing the GeoPackage", 30, 100)
    with atomic_path(output) as part:
        try:
            _write(part, events, times, outline, reporter)
        except (DataSourceError, DataLayerError, FeatureError) as error:
            raise InputError(
                f"The sample cannot be written: {error}.",
                hint="Check the free space of the disk and choose another place.",
                parameter="OUTPUT",
                value=output,
            ) from error
    return {
        "output": str(output),
        "events": str(output),
        "boundary": str(output),
        "time_zone": TIME_ZONE,
        "attribution": ATTRIBUTION,
    }


def _write(
    path: Path, events: pd.DataFrame, times: np.ndarray, outline: shapely.MultiPolygon, reporter: Reporter
) -> None:
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(shapely.points(events["longitude"], events["latitude"])),
        field_data=[times, events["type"].to_numpy(dtype=object)],
        fields=["time", "type"],
        layer="events",
        driver="GPKG",
        geometry_type="Point",
        crs="EPSG:4326",
        # Older versions of GDAL, such as the one inside QGIS, warn about newer forms.
        dataset_options={"VERSION": "1.2"},
        layer_options={"DATETIME_PRECISION": "MILLISECOND", "DESCRIPTION": ATTRIBUTION},
        gdal_tz_offsets={"time": np.full(len(events), _UTC_FLAG)},
    )
    reporter.progress(0.9)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array([outline])),
        field_data=[np.array(["Toronto"], dtype=object)],
        fields=["name"],
        layer="boundary",
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs="EPSG:4326",
        layer_options={"DESCRIPTION": ATTRIBUTION},
    )
    reporter.progress(1.0)


def local_to_utc(local: pd.Series, time_zone: str) -> np.ndarray:
    """Turn times on the clock of a place into UTC instants, without losing any.

    A time in the hour that the clock skips in spring is moved to the first
    one that exists; a time in the hour that it repeats in autumn is taken to
    be the first of the two.

    Parameters
    ----------
    local : Series of datetime64
        Times without zone.
    time_zone : str
        IANA name.

    Returns
    -------
    ndarray of datetime64[ms], shape (n,)
        UTC.
    """
    return clock_to_utc(pd.DatetimeIndex(local), ZoneInfo(time_zone)).to_numpy(dtype="datetime64[ms]")


def _read_events(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, parse_dates=["datetime"], date_format="%Y-%m-%d %H:%M:%S")
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_boundary(path: Path) -> shapely.MultiPolygon:
    try:
        (feature,) = json.loads(path.read_text(encoding="utf-8"))["features"]
        return shape(feature["geometry"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"The sample's file '{path.name}' is missing or damaged: {error}.",
        hint="Install the plugin again.",
    )
