# SPDX-License-Identifier: GPL-2.0-or-later
"""How long QGIS waits for the plugin: importing it, making its provider and filling it with algorithms.

Each run is a fresh Python of QGIS's own; beside it, in the same process, the time that QGIS's own
Processing framework takes to be imported, as the measure of what users are used to. Writes
``build/bench/load.json``. Needs QGIS_PYTHON and PLUGIN_DIR, which ``make bench-load`` sets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path

RUNS = 7
RESULT = Path(__file__).resolve().parent.parent / "build" / "bench" / "load.json"

# The names that must not be loaded in the QGIS process.
HEAVY = ("tensorflow", "keras", "pandas", "rasterio", "shapely", "pyproj", "xarray")

PROBE = f"""
import json, sys, time
sys.path.insert(0, sys.argv[1])
sys.path.append("/usr/share/qgis/python/plugins")
from qgis.core import QgsApplication
application = QgsApplication([], False)
application.initQgis()
began = time.perf_counter()
import processing
peer = time.perf_counter() - began
began = time.perf_counter()
import gridcast_qgis
from gridcast_qgis.provider import GridcastProvider
provider = GridcastProvider()
QgsApplication.processingRegistry().addProvider(provider)
own = time.perf_counter() - began
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
print(json.dumps({{"own": own, "peer": peer, "algorithms": len(provider.algorithms()), "heavy": heavy}}))
sys.stdout.flush()
import os
os._exit(0)
"""


def main() -> None:
    """Measure and write the result."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run(
            [os.environ["QGIS_PYTHON"], "-c", PROBE, str(Path(os.environ["PLUGIN_DIR"]).resolve())],
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    result = {
        "load_ms": statistics.median(1000 * run["own"] for run in runs),
        "load_vs_processing": statistics.median(run["own"] / run["peer"] for run in runs),
        "algorithms": runs[0]["algorithms"],
        "heavy_modules": runs[0]["heavy"],
        "runs": runs,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1))
    print(
        f"Loading the provider with {result['algorithms']} algorithms: {result['load_ms']:.0f} ms, "
        f"{result['load_vs_processing']:.2f} times QGIS's own Processing; heavy modules: "
        f"{result['heavy_modules'] or 'none'}."
    )


if __name__ == "__main__":
    main()
