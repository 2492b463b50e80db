# SPDX-License-Identifier: GPL-2.0-or-later
"""Independent pieces of work: one by one in this process, side by side in others, or on a cluster.

A piece of work is a :class:`Task`: a job and its request. Wherever it runs it is the same job on the same
files with the same seed, so that the result is the same.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import GridcastError, JobCancelled, explain, from_event
from .protocol import CANCEL, PROTOCOL, Event
from .reporter import PartOf, Reporter, pass_on

#: Environment variable with the address of the scheduler of a Dask cluster.
SCHEDULER_VARIABLE = "GRIDCAST_SCHEDULER"

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# How long a cancelled process may take before it is killed.
_GRACE_SECONDS = 5.0


class TaskCrash(GridcastError):
    """The process of a task ended without a word."""

    code = "crash"


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
    failure : GridcastError, optional
        Why it failed.
    """

    name: str
    job: str
    request: dict[str, Any]
    outputs: dict[str, Any] | None = None
    failure: GridcastError | None = None
    _share: float = field(default=0.0, repr=False)

    @property
    def error(self) -> str:
        """Why it failed, as text; empty if it did not."""
        return self.failure.text() if self.failure else ""


#: Runs tasks: ``run(tasks, folder, reporter)``, as :func:`run_tasks`.
Run = Callable[[Sequence[Task], Path, Reporter], None]


def run_tasks(
    tasks: Sequence[Task],
    folder: Path,
    reporter: Reporter,
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Run independent tasks and note in each what came of it.

    Where they run is decided as in :func:`executor`, which is for several rounds of tasks. Messages and
    metrics reach the reporter with the name of the task before them, progress as a part of the whole.

    Parameters
    ----------
    tasks : sequence of Task
        What to run. A task that fails has a `failure` afterwards, the others go on.
    folder : Path
        Private temporary folder for request files and logs.

    Raises
    ------
    JobCancelled
        The reporter was asked to stop. Nothing is left running then.
    InputError
        The cluster cannot be used.
    """
    with executor(workers=workers, scheduler=scheduler) as run:
        run(tasks, folder, reporter)


@contextmanager
def executor(*, workers: int = 1, scheduler: str | None = None) -> Iterator[Run]:
    """Yield a function that runs tasks; for several rounds of them.

    On a cluster, all rounds share the connection and the files that the workers have got.

    Parameters
    ----------
    workers : int
        Tasks that run at the same time on this computer, each in a process of its own. 1: one after the
        other in this process.
    scheduler : str, optional
        Address of the scheduler of a Dask cluster, such as ``tcp://10.0.0.5:8786``. Tasks run there then, and
        `workers` has no meaning. Empty: the address in the environment variable ``GRIDCAST_SCHEDULER``, and
        without it this computer.

    Raises
    ------
    InputError
        The cluster cannot be used.
    """
    address = (scheduler or os.environ.get(SCHEDULER_VARIABLE, "")).strip()
    if address:
        from .cluster import Cluster

        with Cluster(address) as cluster:
            yield cluster.run
    else:
        yield lambda tasks, folder, reporter: _run_here(tasks, workers, folder, reporter)


def may_pass(failure: GridcastError) -> bool:
    """Tell whether a task that failed so may pass when it is run again, elsewhere or by itself."""
    return failure.code not in ("bad_input", "environment")


def _run_here(tasks: Sequence[Task], workers: int, folder: Path, reporter: Reporter) -> None:
    if workers == 1 or len(tasks) == 1:
        _one_by_one(tasks, reporter)
        return
    side_by_side(tasks, workers, folder, reporter)
    # Most often the memory did not suffice for several at a time.
    for number, task in enumerate(tasks):
        if task.failure is None or not may_pass(task.failure):
            continue
        reporter.warning(f"{task.name} failed: {task.error} It is tried again by itself.")
        task.failure = None
        own = folder / f"again_{number}"
        own.mkdir()
        side_by_side([task], 1, own, PartOf(reporter, 1.0, 1.0))


def _one_by_one(tasks: Sequence[Task], reporter: Reporter) -> None:
    """Run the tasks in this process, and note in each what came of it."""
    from .jobs import run_job

    for number, task in enumerate(tasks):
        part = PartOf(reporter, number / len(tasks), (number + 1) / len(tasks), f"{task.name}: ")
        try:
            # What it is given and gives is what a process of its own would get and send.
            task.outputs = _plain(run_job(task.job, _plain(task.request), part))
        except JobCancelled:
            raise
        except Exception as error:
            task.failure = explain(error)
            if task.failure is not error:
                traceback.print_exc()
        part.progress(1.0)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def side_by_side(
    tasks: Sequence[Task], workers: int, folder: Path, reporter: Reporter, *, threads: int | None = None
) -> None:
    """Run the tasks in processes of their own, `workers` at a time, and note in each what came of it.

    A task that fails or whose process dies is noted as failed; the others go on.

    Parameters
    ----------
    folder : Path
        Private temporary folder for request files and logs.
    threads : int, optional
        Threads that each process computes with; by default the processor cores are shared out between them.

    Raises
    ------
    JobCancelled
        The reporter was asked to stop; no process is left then.
    """
    waiting = list(enumerate(tasks))
    running: dict[int, subprocess.Popen[bytes]] = {}
    lines: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
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
        **{name: value for name, value in os.environ.items() if name != SCHEDULER_VARIABLE},
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
    elif kind == Event.RESULT:
        task.outputs = event["outputs"]
    elif kind == Event.ERROR:
        task.failure = from_event(event)
    else:
        pass_on(event, reporter, f"{task.name}: ")


def _note_end(task: Task, process: subprocess.Popen[bytes]) -> None:
    status = process.wait()
    task._share = 1.0
    if task.outputs is None and task.failure is None:
        task.failure = TaskCrash(f"Its process ended with status {status}.")
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
