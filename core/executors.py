# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs side by side, each in a process of its own, so that one that crashes takes no other with it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import GridcastError
from .protocol import CANCEL, PROTOCOL, Event
from .reporter import Reporter

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# How long a cancelled process may take before it is killed.
_GRACE_SECONDS = 5.0


@dataclass
class Task:
    """A job to run, and after it has run what came of it.

    Attributes
    ----------
    name : str
        What it is called in messages.
    job : str
        Name of the job (see :mod:`.jobs`).
    request : dict
        Its request.
    outputs : dict, optional
        Its outputs, None if it failed.
    error : str
        Why it failed.
    """

    name: str
    job: str
    request: dict[str, Any]
    outputs: dict[str, Any] | None = None
    error: str = ""
    _share: float = field(default=0.0, repr=False)


def side_by_side(tasks: Sequence[Task], workers: int, folder: Path, reporter: Reporter) -> None:
    """Run the tasks, `workers` at a time, and note in each what came of it.

    The processor cores are shared out between them. A task that fails or whose process dies is noted
    as failed; the others go on.

    Parameters
    ----------
    folder : Path
        Private temporary folder for request files and logs.

    Raises
    ------
    JobCancelled
        The reporter was asked to stop; no process is left then.
    """
    waiting = list(enumerate(tasks))
    running: dict[int, subprocess.Popen[bytes]] = {}
    lines: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, task = waiting.pop(0)
                running[number] = _start(task, folder / f"task_{number}", threads)
                _listen(number, running[number], lines.put)
            try:
                number, event = lines.get(timeout=0.1)
            except queue.Empty:
                reporter.check()
                continue
            if event is None:
                _note_end(tasks[number], running.pop(number))
            else:
                _note(tasks[number], event, reporter)
            reporter.progress(sum(task._share for task in tasks) / len(tasks))
    finally:
        _stop(list(running.values()))


def _start(task: Task, folder: Path, threads: int) -> subprocess.Popen[bytes]:
    folder.mkdir()
    request = folder / "request.json"
    call = {"protocol": PROTOCOL, "job": task.job, "request": task.request, "job_dir": str(folder)}
    request.write_text(json.dumps(call), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (_PACKAGE_PARENT, _PACKAGE_PARENT.parent))),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-X", "utf8", "-u", "-m", "gridcast_qgis.core", str(request)]
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
        )


def _listen(number: int, process: subprocess.Popen[bytes], put: Callable[[tuple[int, Any]], None]) -> None:
    """Put the events of a process into the queue from a thread, None at the end."""

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                put((number, json.loads(line)))
            except ValueError:
                continue
        put((number, None))

    threading.Thread(target=read, daemon=True).start()


def _note(task: Task, event: dict[str, Any], reporter: Reporter) -> None:
    kind = event.get("event")
    if kind == Event.PROGRESS:
        task._share = event["value"] / 100
    elif kind == Event.MESSAGE:
        tell = reporter.warning if event["level"] == "warning" else reporter.message
        tell(f"{task.name}: {event['text']}")
    elif kind == Event.RESULT:
        task.outputs = event["outputs"]
    elif kind == Event.ERROR:
        task.error = GridcastError(
            event["message"], hint=event["hint"], parameter=event["parameter"], value=event["value"] or None
        ).text()


def _note_end(task: Task, process: subprocess.Popen[bytes]) -> None:
    status = process.wait()
    task._share = 1.0
    if task.outputs is None and not task.error:
        task.error = f"its process ended with status {status}"
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            assert process.stdin is not None
            process.stdin.write(CANCEL.encode() + b"\n")
            process.stdin.close()
        except OSError:
            continue
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
