# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the shipped sample (resources/sample) from the full data; prints its facts as JSON.

Run with the worker's Python: ``GRIDCAST_DATA=... .venv/bin/python benchmarks/make_sample.py``.
`GRIDCAST_DATA` is a folder that holds ``toronto_mci/toronto_mci.csv.gz`` and
``toronto_mci/toronto_boundary_wgs84.geojson``; resources/sample/SOURCE.md says
where they come from. The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pandas as pd
import pyproj
import shapely
from shapely.geometry import mapping, shape

SAMPLE = Path(__file__).resolve().parents[1] / "resources" / "sample"
FIRST_DAY = "2014-01-01"
TOLERANCE_METRES = 20.0
UTM_17_NORTH = "EPSG:32617"


def make_events(source: Path, target: Path) -> dict[str, object]:
    """Write time, type and place of all events since `FIRST_DAY`, sorted."""
    columns = ["datetime", "type", "longitude", "latitude"]
    events = pd.read_csv(source, usecols=columns, dtype=str)[columns]
    # The few older rows are late reports of long past events.
    events = events[events["datetime"] >= FIRST_DAY].sort_values(columns)
    text = events.to_csv(index=False, lineterminator="\n").encode()
    target.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    return {
        "events": len(events),
        "types": events["type"].value_counts().to_dict(),
        "first": events["datetime"].iloc[0],
        "last": events["datetime"].iloc[-1],
        "bytes": target.stat().st_size,
    }


def make_boundary(source: Path, target: Path) -> dict[str, object]:
    """Write the city's outline, simplified by `TOLERANCE_METRES`."""
    collection = json.loads(source.read_text(encoding="utf-8"))
    city = shapely.union_all([shape(feature["geometry"]) for feature in collection["features"]])
    forward = pyproj.Transformer.from_crs("EPSG:4326", UTM_17_NORTH, always_xy=True)
    metric = shapely.transform(city, forward.transform, interleaved=False)
    simple = shapely.simplify(metric, TOLERANCE_METRES, preserve_topology=True)
    # Slivers between neighbourhoods, left over from dissolving them.
    parts = [part for part in shapely.get_parts(simple) if part.area >= TOLERANCE_METRES**2]
    simple = shapely.MultiPolygon(parts)
    back = shapely.transform(
        simple, lambda x, y: forward.transform(x, y, direction="INVERSE"), interleaved=False
    )
    # Six decimals are ten centimetres.
    outline = shapely.set_precision(back, 1e-6)
    feature = {"type": "Feature", "properties": {"name": "Toronto"}, "geometry": _rounded(mapping(outline))}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]}, separators=(",", ":"))
    target.write_text(text + "\n", encoding="utf-8", newline="\n")
    return {
        "boundary_bytes": target.stat().st_size,
        "boundary_valid": bool(outline.is_valid),
        "boundary_vertices": int(shapely.get_num_coordinates(outline)),
        "area_km2": round(simple.area / 1e6, 3),
        "area_km2_before": round(metric.area / 1e6, 3),
    }


def _rounded(geometry: object) -> object:
    if isinstance(geometry, float):
        return round(geometry, 6)
    if isinstance(geometry, (list, tuple)):
        return [_rounded(part) for part in geometry]
    if isinstance(geometry, dict):
        return {key: _rounded(part) for key, part in geometry.items()}
    return geometry


def main() -> int:
    """Make both files."""
    if not os.environ.get("GRIDCAST_DATA"):
        print("Set GRIDCAST_DATA to the folder with the full data.", file=sys.stderr)
        return 2
    source = Path(os.environ["GRIDCAST_DATA"]) / "toronto_mci"
    SAMPLE.mkdir(parents=True, exist_ok=True)
    facts = make_events(source / "toronto_mci.csv.gz", SAMPLE / "toronto_mci.csv.gz")
    facts |= make_boundary(source / "toronto_boundary_wgs84.geojson", SAMPLE / "toronto_boundary.geojson")
    print(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
