# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker: runs one job from a request file and reports on stdout (see :mod:`.protocol`)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from gridcast_qgis import __version__

from .atomic import abandon
from .errors import EnvironmentFault, InputError, explain
from .protocol import CANCEL, PROTOCOL, Event, Exit
from .reporter import StreamReporter

# How long an orphaned job may take to stop by itself. Its parent was killed,
# so nobody waits for it and nothing it makes is wanted.
ORPHAN_GRACE_SECONDS = 1.0


class _Orphanage:
    """Notices the death of the parent and clears up what nobody will fetch."""

    def __init__(self, reporter: StreamReporter, job_dir: str | None) -> None:
        self._reporter = reporter
        self._job_dir = job_dir
        self._orphaned = threading.Event()
        self._finished = threading.Event()

    def watch(self) -> None:
        """Listen on stdin from now on: a line ``cancel``, or its end, stops the job."""
        threading.Thread(target=self._listen, name="parent-watch", daemon=True).start()

    def finish(self) -> None:
        """Say that the result is about to be delivered: from now on the end of stdin means nothing."""
        self._finished.set()

    def clear_up(self) -> None:
        """Remove unfinished files and the job's folder, if the parent is dead."""
        if self._orphaned.is_set():
            abandon()
            if self._job_dir:
                shutil.rmtree(self._job_dir, ignore_errors=True)

    def _listen(self) -> None:
        # The raw descriptor: a thread blocked inside sys.stdin would hold its lock at exit.
        buffer = b""
        while data := _read(0):
            *lines, buffer = (buffer + data).split(b"\n")
            if CANCEL.encode() in [line.strip() for line in lines]:
                self._reporter.cancel()
        if self._finished.is_set():
            return
        self._orphaned.set()
        abandon()
        self._reporter.cancel()
        time.sleep(ORPHAN_GRACE_SECONDS)
        self.clear_up()
        os._exit(int(Exit.CANCELLED))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def main(arguments: list[str]) -> int:
    """Run the job described by the request file and return the exit status."""
    # Libraries print; only the private copy of stdout carries events.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    reporter = StreamReporter(stream)
    reporter.emit(
        Event.HELLO,
        protocol=PROTOCOL,
        version=__version__,
        python=platform.python_version(),
        pid=os.getpid(),
    )
    orphanage = None
    try:
        call = _read_request(arguments)
        orphanage = _Orphanage(reporter, call.get("job_dir"))
        orphanage.watch()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reporter.cancel())
        outputs = _run(call, reporter)
        orphanage.finish()
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        fault = explain(error)
        reporter.emit(Event.ERROR, **fault.as_event())
        return int(fault.exit_status)
    finally:
        if orphanage is not None:
            orphanage.clear_up()
    reporter.emit(Event.PROGRESS, value=100.0)
    reporter.emit(Event.RESULT, outputs=outputs)
    return int(Exit.OK)


def _read_request(arguments: list[str]) -> dict[str, Any]:
    if len(arguments) != 1:
        raise InputError("The worker takes one argument, the path of a request file.")
    try:
        call = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The request file cannot be read: {error}.", value=arguments[0]) from error
    if not isinstance(call, dict) or call.get("protocol") != PROTOCOL:
        raise EnvironmentFault(
            f"The request does not follow version {PROTOCOL} of the worker protocol.",
            hint="Install the plugin again so that both halves have one version.",
        )
    return call


def _run(call: dict[str, Any], reporter: StreamReporter) -> dict[str, Any]:
    from .jobs import run_job

    return run_job(call["job"], call["request"], reporter)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # TensorFlow's threads can hang or crash while the interpreter is torn down; nothing is left to do.
    os._exit(status)
