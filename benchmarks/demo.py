# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole chain through ``qgis_process``: events and a boundary in, forecast, hot spots and a picture out.

``demo.py --data toronto`` uses the sample that the plugin ships, ``--data chicago`` the
Chicago crimes in the folder ``GRIDCAST_DATA`` (see docs/data.md). Every step is an
algorithm of the assembled plugin in a fresh QGIS profile, as a nightly job would run it.
The last days are held out: the network never sees them, and the hot spots are
scored on what happened then, beside those of the historical average.

Needs the variables QGIS_PROCESS, QGIS_PYTHON, GRIDCAST_PYTHON and PLUGIN_DIR, which
``make demo`` sets. Standard library only.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MAP_SCRIPT = ROOT / "benchmarks" / "demo_map.py"


@dataclass(frozen=True)
class Plan:
    """What one demo does; the settings were chosen on the validation period, before the held-out days."""

    city: str
    time_field: str
    type_field: str
    time_zone: str
    start: str
    end: str
    held_out_from: str
    held_out_days: int
    grid: dict[str, Any]
    map_crs: str
    attribution: str


PLANS = {
    "toronto": Plan(
        city="Toronto",
        time_field="time",
        type_field="type",
        time_zone="America/Toronto",
        start="2019-12-01",
        end="2022-01-01",
        held_out_from="2021-12-04",
        held_out_days=28,
        grid={"CELL_SIZE": 1000, "TARGET_CRS": "EPSG:32617"},
        map_crs="EPSG:32617",
        attribution="Events and boundary: City of Toronto, Open Government Licence - Toronto",
    ),
    "chicago": Plan(
        city="Chicago",
        time_field="datetime",
        type_field="primary_type",
        time_zone="America/Chicago",
        start="2014-01-01",
        end="2018-02-01",
        held_out_from="2018-01-01",
        held_out_days=31,
        # 55 x 50 cells over the bounds that Ahrens & de Wolff used.
        grid={"ROWS": 55, "COLUMNS": 50, "EXTENT": "-87.940101,-87.524081,41.644531,42.023040 [EPSG:4326]"},
        map_crs="EPSG:26971",
        attribution="Events and boundary: City of Chicago data portal",
    ),
}


class Runner:
    """Runs algorithms in a fresh profile in which only this build of the plugin is enabled."""

    def __init__(self, folder: Path) -> None:
        self._process = _required("QGIS_PROCESS")
        self._began = time.perf_counter()
        profile = folder / "profile"
        profile.mkdir()
        self._environment = {
            **os.environ,
            "QGIS_CUSTOM_CONFIG_PATH": str(profile),
            "QGIS_PLUGINPATH": str(Path(_required("PLUGIN_DIR")).resolve()),
            "QT_QPA_PLATFORM": "offscreen",
        }
        subprocess.run(
            [self._process, "plugins", "enable", "gridcast_qgis"],
            env=self._environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, algorithm: str, title: str, **inputs: Any) -> dict[str, Any]:
        """Run one algorithm and return its outputs; ends the demo if it fails.

        The form with ``KEY=VALUE`` is the one that QGIS 3.22 understands as well.
        """
        print(f"[{time.perf_counter() - self._began:4.0f} s] {title}", flush=True)
        done = subprocess.run(
            [self._process, "--json", "run", algorithm, "--", *(f"{k}={v}" for k, v in inputs.items())],
            env=self._environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{algorithm} failed with exit status {done.returncode}:\n{done.stdout}\n{done.stderr}")
        results: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["results"]
        return results


def prepare_toronto(runner: Runner, folder: Path) -> tuple[str, str]:
    """Unpack the shipped sample; return the sources of events and boundary."""
    sample = folder / "sample.gpkg"
    runner.run("gridcast:loadsample", "Unpacking the sample", OUTPUT=str(sample))
    return f"{sample}|layername=events", f"{sample}|layername=boundary"


def prepare_chicago(runner: Runner, folder: Path) -> tuple[str, str]:
    """Make a point layer of the yearly tables; return the sources of events and boundary."""
    if "GRIDCAST_DATA" not in os.environ:
        sys.exit("GRIDCAST_DATA is not set: name the folder that holds chicago/ (see docs/data.md).")
    data = Path(os.environ["GRIDCAST_DATA"]).resolve() / "chicago"
    table = folder / "events.csv"
    columns = ("datetime", "primary_type", "longitude", "latitude")
    with open(table, "w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        for year in range(2014, 2019):
            with gzip.open(data / f"chicago_crimes_{year}.csv.gz", "rt", newline="") as source:
                for row in csv.DictReader(source):
                    if row["datetime"] < "2018-02-01":
                        writer.writerow([row[name] for name in columns])
    events = folder / "events.gpkg"
    runner.run(
        "native:createpointslayerfromtable",
        "Making a point layer of the table",
        INPUT=str(table),
        XFIELD="longitude",
        YFIELD="latitude",
        TARGET_CRS="EPSG:4326",
        OUTPUT=str(events),
    )
    table.unlink()
    boundary = folder / "boundary.geojson"
    shutil.copy(data / "chicago_boundary_wgs84.geojson", boundary)
    return str(events), str(boundary)


def main() -> int:
    """Run the demo and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=PLANS, default="toronto")
    name = parser.parse_args().data
    plan = PLANS[name]
    folder = ROOT / "build" / ("demo" if name == "toronto" else f"demo-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    runner = Runner(folder)
    prepare = {"toronto": prepare_toronto, "chicago": prepare_chicago}[name]
    events, boundary = prepare(runner, folder)
    grid, cube, model = folder / "grid.tif", folder / "cube.nc", folder / "model.gridcast"
    forecast, hot_spots = folder / "forecast.tif", folder / "hotspots.gpkg"
    runner.run(
        "gridcast:buildgridfromlayer",
        "Building the grid",
        INPUT=boundary,
        STUDY_AREA=boundary,
        OUTPUT=str(grid),
        **plan.grid,
    )
    counted = runner.run(
        "gridcast:rasterizeeventstocube",
        "Counting events per cell and day",
        INPUT=events,
        GRID=str(grid),
        TIME_FIELD=plan.time_field,
        TYPE_FIELD=plan.type_field,
        STEP="day",
        TIME_ZONE=plan.time_zone,
        START=plan.start,
        END=plan.end,
        OUTPUT=str(cube),
    )
    trained = runner.run(
        "gridcast:trainconvlstm",
        "Training the network (this takes a while)",
        CUBE=str(cube),
        UNTIL=plan.held_out_from,
        OUTPUT=str(model),
    )
    runner.run(
        "gridcast:forecastheatmap",
        "Forecasting the held-out days",
        CUBE=str(cube),
        MODEL=str(model),
        ORIGIN=plan.held_out_from,
        HORIZON=plan.held_out_days,
        OUTPUT=str(forecast),
    )
    scored = runner.run(
        "gridcast:hotspotclassify",
        "Flagging 5 % of the area",
        INPUT=str(forecast),
        AREA_SHARE=5,
        CUBE=str(cube),
        OUTPUT=str(hot_spots),
    )
    print("Drawing the map", flush=True)
    subprocess.run(
        # Deprecated calls are what QGIS 3.22 has.
        [_required("QGIS_PYTHON"), "-W", "ignore::DeprecationWarning", str(MAP_SCRIPT), str(folder)],
        input=json.dumps(
            {
                "city": plan.city,
                "crs": plan.map_crs,
                "events": events,
                "boundary": boundary,
                "time_field": plan.time_field,
                "time_zone": plan.time_zone,
                "from": plan.held_out_from,
                "days": plan.held_out_days,
                "attribution": plan.attribution,
            }
        ),
        text=True,
        check=True,
    )
    shutil.rmtree(folder / "profile")
    print(_paragraph(plan, counted, trained, scored))
    print(f"Look at {os.path.relpath(folder / 'forecast.png')}, or open demo.qgz beside it in QGIS.")
    return 0


def _paragraph(plan: Plan, counted: dict[str, Any], trained: dict[str, Any], scored: dict[str, Any]) -> str:
    observed, hit, simple = (
        round(scored[key]) for key in ("EVENTS_OBSERVED", "EVENTS_HIT", "EVENTS_HIT_BASELINE")
    )
    mse, simple_mse = trained["VALIDATION_MSE"], trained["BASELINE_MSE"]
    return (
        f"\n{plan.city}: {round(counted['EVENTS_USED']):,} events were counted. The network learned from the "
        f"days before {plan.held_out_from} and forecast the {plan.held_out_days} days from then on. Of the "
        f"{observed:,} events that happened on them, {hit:,} ({hit / observed:.1%}) fell in the flagged 5 % "
        f"of the area (PAI {scored['PAI']:.2f}); with the historical average it would have been {simple:,} "
        f"({simple / observed:.1%}, PAI {scored['PAI_BASELINE']:.2f}). On the validation days before, the "
        f"network's mean squared error was {mse:.5f}, the historical average's {simple_mse:.5f}: a skill of "
        f"{trained['SKILL']:+.2f} %."
    )


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: start the demo with `make demo`.")
    return value


if __name__ == "__main__":
    sys.exit(main())
