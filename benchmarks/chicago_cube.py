# SPDX-License-Identifier: GPL-2.0-or-later
"""The crimes of Chicago 2011 to 2018 as a daily 55 x 50 cube by type, against a group-by of pandas.

The way of a user: a point layer, ``Build Grid from Layer`` with the preset, ``Rasterize Events to Cube``
through ``qgis_process``. The check: cell, day and type of each row computed by pandas from the same
columns, without any code of Gridcast. Writes ``build/bench/chicago_cube.json``; ends with an error if one
count differs. Needs GRIDCAST_DATA (see docs/data.md) and what ``make bench-chicago_cube`` sets.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio.raw
import shapely

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gridcast_qgis.core.cube import Cube  # noqa: E402

RESULT = ROOT / "build" / "bench" / "chicago_cube.json"
FOLDER = ROOT / "build" / "bench" / "chicago_cube"
YEARS = range(2011, 2019)
#: More than Chicago has, so that none is put together with others.
MAX_TYPES = 60
WEST, EAST, SOUTH, NORTH = -87.940101, -87.524081, 41.644531, 42.023040


def read(folder: Path) -> pd.DataFrame:
    """Return the rows of all years."""
    columns = ["datetime", "primary_type", "latitude", "longitude"]
    parts = [pd.read_csv(folder / f"chicago_crimes_{year}.csv.gz", usecols=columns) for year in YEARS]
    return pd.concat(parts, ignore_index=True)


def write_layer(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows as points; those without coordinates as rows without geometry."""
    points = shapely.points(rows["longitude"], rows["latitude"])
    points[rows["longitude"].isna().to_numpy()] = None
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(points),
        field_data=[rows["datetime"].to_numpy(object), rows["primary_type"].to_numpy(object)],
        fields=["datetime", "primary_type"],
        layer="crimes",
        driver="GPKG",
        geometry_type="Point",
        crs="EPSG:4326",
        dataset_options={"VERSION": "1.2"},
    )


def run(algorithm: str, **inputs: object) -> float:
    """Run an algorithm and return the seconds it took."""
    environment = {
        **os.environ,
        "QGIS_CUSTOM_CONFIG_PATH": str(FOLDER / "profile"),
        "QGIS_PLUGINPATH": str(Path(os.environ["PLUGIN_DIR"]).resolve()),
    }
    process = os.environ["QGIS_PROCESS"]
    (FOLDER / "profile").mkdir(exist_ok=True)
    subprocess.run([process, "plugins", "enable", "gridcast_qgis"], env=environment, capture_output=True)
    began = time.perf_counter()
    values = [f"{key}={value}" for key, value in inputs.items()]
    done = subprocess.run([process, "run", algorithm, "--", *values], env=environment, text=True)
    if done.returncode:
        sys.exit(f"{algorithm} failed")
    return time.perf_counter() - began


def count_by_pandas(rows: pd.DataFrame, valid: np.ndarray) -> pd.Series:
    """Return the number of rows by day, type, row and column of the grid, in the cells that take part.

    Coordinates have six decimals, and every fifth edge between columns lies on such a number: whole
    millionths of a degree leave no doubt on which side a crime is.
    """
    known = rows["longitude"].notna()
    west, east, south, north = (round(degrees * 1e6) for degrees in (WEST, EAST, SOUTH, NORTH))
    longitude, latitude = (
        (rows[name].where(known, 0) * 1e6).round().astype("int64") for name in ("longitude", "latitude")
    )
    column = (longitude - west) * 50 // (east - west)
    row = (north - latitude) * 55 // (north - south)
    on_grid = known & column.between(0, 49) & row.between(0, 54)
    frame = pd.DataFrame(
        {
            "day": pd.to_datetime(rows["datetime"]).dt.normalize()[on_grid],
            "type": rows["primary_type"][on_grid],
            "row": row[on_grid],
            "column": column[on_grid],
        }
    )
    frame = frame[valid[frame["row"], frame["column"]]]
    return frame.groupby(["day", "type", "row", "column"]).size()


def main() -> None:
    """Make both and compare."""
    if "GRIDCAST_DATA" not in os.environ:
        sys.exit("GRIDCAST_DATA is not set: name the folder that holds chicago/ (see docs/data.md).")
    data = Path(os.environ["GRIDCAST_DATA"]).resolve() / "chicago"
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    rows = read(data)
    write_layer(rows, FOLDER / "crimes.gpkg")
    run(
        "gridcast:buildgridfromlayer",
        INPUT=data / "chicago_boundary_wgs84.geojson",
        PRESET="chicago-55x50",
        OUTPUT=FOLDER / "grid.tif",
    )
    seconds = run(
        "gridcast:rasterizeeventstocube",
        INPUT=f"{FOLDER / 'crimes.gpkg'}|layername=crimes",
        GRID=FOLDER / "grid.tif",
        TIME_FIELD="datetime",
        TYPE_FIELD="primary_type",
        STEP="day",
        TIME_ZONE="America/Chicago",
        MAX_TYPES=MAX_TYPES,
        LOAD="false",
        OUTPUT=FOLDER / "cube.nc",
    )
    cube = Cube.read(FOLDER / "cube.nc")
    expected = count_by_pandas(rows, cube.grid.valid)
    place = np.argwhere(cube.events)
    found = pd.Series(
        cube.events[tuple(place.T)].astype(int),
        pd.MultiIndex.from_arrays(
            [
                cube.axis.local_starts[place[:, 0]].tz_localize(None).normalize(),
                np.array(cube.types)[place[:, 1]],
                place[:, 2],
                place[:, 3],
            ],
            names=expected.index.names,
        ),
    )
    different = int((found.sub(expected, fill_value=0) != 0).sum())
    result = {
        "rows": len(rows),
        "counted": int(expected.sum()),
        "in_cube": int(cube.events.sum(dtype=np.float64)),
        "dropped": cube.attributes["dropped"],
        "notes": cube.attributes["notes"],
        "days": len(cube),
        "types": len(cube.types),
        "cells": int(cube.grid.valid.sum()),
        "nonzero_counts": len(expected),
        "different_counts": different,
        "rasterize_seconds": seconds,
        "cube_mb": (FOLDER / "cube.nc").stat().st_size / 1e6,
    }
    shutil.rmtree(FOLDER)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    if different or result["counted"] != result["in_cube"]:
        sys.exit("The cube differs from the group-by.")


if __name__ == "__main__":
    main()
