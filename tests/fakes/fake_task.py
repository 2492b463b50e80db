# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the process of a task (``python -m gridcast_qgis.core request.json``): the job's name says how.

Jobs that are not in :data:`PLAYED` are not for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

PLAYED = (
    "work",
    "meet",
    "die",
    "refuse",
    "fail",
    "exit",
    "wait",
    "hold",
    "stubborn",
    "chatter",
    "copy",
)


def tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


def say(text: str, level: str = "info") -> None:
    tell(event="message", level=level, text=text)


def copy(request: dict) -> dict:
    """Make the output from the cube, and a state that counts the runs."""
    cube, state = Path(request["cube"]), Path(request["checkpoint"])
    content = cube.read_bytes()
    runs = int(state.read_text()) if state.exists() else 0
    state.write_text(str(runs + 1))
    Path(request["output"]).write_bytes(content[::-1])
    say(f"read {cube}")
    return {
        "output": request["output"],
        "file": [os.stat(cube).st_ino, cube.name, hashlib.sha256(content).hexdigest()],
        "runs": runs,
    }


def play(job: str, request: dict) -> dict:
    """Do what a job does and return its outputs, if it has any."""
    if job == "meet":
        # Each waits until the others have come.
        here, others = Path(request["here"]), [Path(other) for other in request["others"]]
        here.touch()
        while not all(other.exists() for other in others):
            time.sleep(0.01)
    if job == "die":
        tell(event="progress", value=30.0)
        os.kill(os.getpid(), signal.SIGTERM)
    if job == "refuse":
        text = {"message": "Too few events.", "hint": "Choose more.", "parameter": "CUBE"}
        tell(event="error", code="bad_input", **text, value=request.get("cube", "a.nc"))
        sys.exit(2)
    if job == "fail":
        tell(event="error", code="internal", message="Broken.", hint="", parameter="", value="")
        sys.exit(1)
    if job == "exit":
        sys.exit(7)
    if job == "wait" or (job == "hold" and not Path(request["gate"]).exists()):
        if "checkpoint" in request:
            Path(request["checkpoint"]).write_text("half done")
        say(f"waiting {os.getpid()}")
        sys.stdin.readline()
        say("told to stop")
        sys.exit(3)
    if job == "stubborn":
        say("waiting")
        threading.Event().wait()
    if job == "chatter":
        for number in range(5000):
            tell(event="progress", value=number / 50)
    return copy(request) if job == "copy" else {}


def main() -> None:
    call = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    job, request = call["job"], call["request"]
    tell(event="hello", protocol=call["protocol"])
    print("a library that prints to the wrong place", flush=True)
    print("for the log", file=sys.stderr, flush=True)
    outputs = play(job, request)
    tell(event="progress", value=50.0)
    say("half done", request.get("level", "info"))
    tell(event="metric", name="loss", value=0.5, step=1)
    seen = {
        "echo": request,
        "job_dir": call["job_dir"],
        "threads": os.environ["OMP_NUM_THREADS"],
        "processor": os.environ["TF_NUM_INTRAOP_THREADS"],
        "scheduler": os.environ.get("GRIDCAST_SCHEDULER"),
    }
    tell(event="result", outputs={**seen, **outputs})


if __name__ == "__main__":
    main()
