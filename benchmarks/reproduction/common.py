# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reproductions of the seed systems share: data, reporter, results."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cities

from gridcast_qgis.core.reporter import Reporter

RESULTS = cities.BENCH / "reproduction"


class Printer(Reporter):
    """Prints what a training says."""

    def emit(self, event: str, **fields: object) -> None:
        if event == "message":
            print(" ", fields["text"], flush=True)


@contextmanager
def timed(found: dict[str, Any]) -> Iterator[None]:
    """Note in `found` how many seconds the block took."""
    began = time.perf_counter()
    yield
    found["seconds"] = round(time.perf_counter() - began, 1)


def results(name: str) -> dict[str, Any]:
    """Return what an earlier run of this script has found already."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(name: str, found: dict[str, Any]) -> None:
    """Write the results, after each part: a run may be broken off."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(RESULTS / f"{name}.json")
