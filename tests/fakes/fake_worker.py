#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for the worker's Python interpreter and plays a script instead of doing science.

Name this file as the interpreter (``GRIDCAST_PYTHON``): it ignores the options
``-X utf8 -u -m gridcast_qgis.core`` and reads the request file, its last argument.

What it plays is the field ``behaviour`` of the request, else the environment
variable ``FAKE_WORKER``, else ``normal``; the names are the functions below.
The outputs of its result are ``FAKE_WORKER_OUTPUTS`` (a JSON object) or, if
that is not set, ``{"output": the request's output}``. It writes a few bytes
to the request's ``output``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# Longer than any test runs: a fake that should be stopped never ends by itself.
FOREVER = 600.0


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)


def hello(protocol: int = 1) -> None:
    say("hello", protocol=protocol, version="0.0.0", python="3.0.0", pid=os.getpid())


def write_output(request: dict) -> None:
    if request.get("output"):
        Path(request["output"]).write_bytes(b"fake result\n")


def result(request: dict) -> None:
    given = os.environ.get("FAKE_WORKER_OUTPUTS")
    say("result", outputs=json.loads(given) if given else {"output": request.get("output")})


def normal(request: dict) -> int:
    hello()
    say("stage", name="First stage")
    say("progress", value=0)
    say("message", level="info", text="All is well – ünïcödé")
    say("stage", name="Second stage")
    say("progress", value=50.0)
    say("metric", name="validation loss", value=0.25, step=1)
    say("message", level="warning", text="Look at this")
    say("progress", value=100)
    write_output(request)
    result(request)
    return 0


def cancelled() -> int:
    say("error", code="cancelled", message="The job was cancelled.", hint="", parameter="", value="")
    return 3


def slow(request: dict) -> int:
    """Works until it is cancelled; the polite one."""
    hello()
    say("progress", value=10)
    for line in sys.stdin:
        if line.strip() == "cancel":
            return cancelled()
    return 3


def late(request: dict) -> int:
    """Finishes its work although it was asked to stop."""
    hello()
    say("progress", value=10)
    sys.stdin.readline()
    write_output(request)
    result(request)
    return 0


def ignores_cancel(request: dict) -> int:
    hello()
    say("progress", value=10)
    time.sleep(FOREVER)
    return 0


def ignores_terminate(request: dict) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    part = Path(request["output"])
    part.with_name(f".{part.stem}.{os.getpid()}.part{part.suffix}").write_bytes(b"half")
    return ignores_cancel(request)


def floods_while_cancelled(request: dict) -> int:
    """Ignores cancel and fills the pipe, so that a parent that stopped reading would block it."""
    hello()
    while True:
        say("progress", value=10)


def leaves_child(request: dict) -> int:
    """Ends well, but a process of its own lives on and holds its output open."""
    hello()
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER})"])
    say("message", level="info", text=f"child {child.pid}")
    write_output(request)
    result(request)
    return 0


def garbage(request: dict) -> int:
    print("a library's banner", flush=True)
    hello()
    sys.stdout.buffer.write(b"\xff\xfe not utf-8\n")
    sys.stdout.buffer.flush()
    for line in ("", "[1, 2]", '{"event": 5}', '{"no": "event"}', "{broken"):
        print(line, flush=True)
    say("unknown_event", value=1)
    write_output(request)
    result(request)
    return 0


def floods_stderr(request: dict) -> int:
    hello()
    for number in range(20_000):
        print(f"warning {number}: " + "x" * 100, file=sys.stderr)
    write_output(request)
    result(request)
    return 0


def dies(request: dict) -> int:
    """Dies by a signal after half its work."""
    hello()
    write_output(request)
    print("something dreadful happened", file=sys.stderr, flush=True)
    os.kill(os.getpid(), getattr(signal, request.get("signal", "SIGKILL")))
    time.sleep(FOREVER)
    return 0


def dies_before_hello(request: dict) -> int:
    print("ModuleNotFoundError: No module named 'gridcast_qgis'", file=sys.stderr)
    return 1


def silent(request: dict) -> int:
    """Never says hello."""
    time.sleep(FOREVER)
    return 0


def babbles(request: dict) -> int:
    """Never says hello either, but talks all the time."""
    while True:
        print("loading...", flush=True)
        time.sleep(0.01)


def no_hello(request: dict) -> int:
    say("progress", value=1)
    time.sleep(FOREVER)
    return 0


def wrong_protocol(request: dict) -> int:
    hello(protocol=99)
    time.sleep(FOREVER)
    return 0


def no_result(request: dict) -> int:
    hello()
    return 0


def result_then_failure(request: dict) -> int:
    hello()
    write_output(request)
    result(request)
    return 7


def silent_failure(request: dict) -> int:
    hello()
    print("no idea why", file=sys.stderr)
    return int(request.get("status", 1))


def closes_output(request: dict) -> int:
    hello()
    sys.stdout.flush()
    os.close(1)
    time.sleep(FOREVER)
    return 0


def error(request: dict) -> int:
    hello()
    print("Traceback: ...", file=sys.stderr)
    event = {
        "code": "bad_input",
        "message": "The cell size is too small.",
        "hint": "Use at least 1 metre.",
        "parameter": "CELL_SIZE",
        "value": "0",
    }
    event.update(request.get("error", {}))
    say("error", **event)
    return {"bad_input": 2, "cancelled": 3, "environment": 4}.get(str(event["code"]), 1)


def report(request: dict) -> int:
    """Sends back how it was started."""
    hello()
    say(
        "result",
        outputs={
            "arguments": sys.argv[1:],
            "cwd": os.getcwd(),
            "environment": dict(os.environ),
            "request": request,
        },
    )
    return 0


def main() -> int:
    call = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    request = call["request"]
    sys.stdout.reconfigure(encoding="utf-8")
    name = request.get("behaviour") or os.environ.get("FAKE_WORKER") or "normal"
    return globals()[name](request)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
