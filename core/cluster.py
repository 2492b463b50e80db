# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks on the machines of a Dask cluster (see :mod:`.executors`, which decides whether to use one).

A worker of the cluster runs each task in a process of its own, as this computer would, and passes on what
it tells. Files travel: what tasks read is sent to each worker once, what they make comes back as bytes and is
written here. No path has to mean the same on two machines.

Everything of a session lives in plugins of the cluster that bear the name of its client. When the client is
gone, closed or killed, the scheduler takes them away: tasks stop at their next batch, files are removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dask.system import cpu_count
from distributed import Client, Future, KilledWorker, SchedulerPlugin, WorkerPlugin, get_worker

from gridcast_qgis import __version__

from .atomic import atomic_path
from .errors import EnvironmentFault, GridcastError, InputError, JobCancelled, from_event
from .executors import SCHEDULER_VARIABLE, Task, may_pass, pass_on, side_by_side
from .protocol import Event
from .reporter import Reporter

#: Seconds that the scheduler and its first worker may take to answer.
CONNECT_SECONDS = 10.0
#: How often a task is run again that has failed for a reason that may pass.
RETRIES = 2
# How long the workers may take to stop what they run and to send its state.
_GRACE_SECONDS = 5.0
# A plugin travels as one binary value of msgpack.
_MOST_BYTES = 2**31 - 2**20
# Packages that decide about results, and the one that talks.
_PACKAGES = ("keras", "numpy", "distributed")

_REMEDY = (
    "Start scheduler and workers as docs/cluster.md says, correct SCHEDULER, the setting of the provider or "
    f"the environment variable {SCHEDULER_VARIABLE}, or leave all three empty to compute on this computer."
)


class Cluster:
    """A session on a Dask cluster; use it as a context manager, which leaves nothing on the cluster.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``tcp://10.0.0.5:8786``. With ``tls://`` the certificates that
        Dask's configuration names are used.

    Raises
    ------
    InputError
        The scheduler does not answer, has no workers, or has other versions of Gridcast, Python or packages.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = 0
        self._shipped: set[str] = set()
        self._hear: Callable[[tuple[float, Any]], None] = lambda event: None
        self._client = _connect(address)
        try:
            self._begin()
        except BaseException as error:
            self._client.close()
            if isinstance(error, OSError):
                raise _lost(address) from error
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.status == "running":
            # The scheduler would tell it of its own end.
            self._client.unsubscribe_topic(self._client.id)
        # The guard on the scheduler clears up what is left there.
        self._client.close()

    def run(self, tasks: Sequence[Task], folder: Path, reporter: Reporter) -> None:
        """Run the tasks and note in each what came of it, as :func:`.executors.run_tasks`.

        Raises
        ------
        JobCancelled
            The reporter was asked to stop. The session has ended then.
        InputError
            The scheduler was lost, or a file cannot be written.
        """
        reporter.check()
        if self._client.status != "running":
            raise _lost(self._address)
        first, self._numbers = self._numbers, self._numbers + len(tasks)
        parcels = {first + number: _Parcel(task) for number, task in enumerate(tasks)}
        digests = self._ship([path for parcel in parcels.values() for path in parcel.inputs.values()])
        watch = _Watch(parcels, self._address, reporter)
        self._hear = watch.hear
        plural = "" if len(tasks) == 1 else "s"
        reporter.message(f"{len(tasks)} task{plural} on the cluster {self._address}.")
        for number, parcel in parcels.items():
            future = self._client.submit(
                _run_task,
                self._client.id,
                number,
                json.dumps(parcel.call(digests)),
                parcel.states(),
                key=(f"gridcast-{self._client.id}", number),
                retries=RETRIES,
            )
            watch.expect(number, future)
        try:
            watch.until_all_ended()
        except JobCancelled:
            # If nobody answers there is nothing to wait for, and nobody to be told.
            with suppress(OSError):
                self._client.unregister_worker_plugin(_session(self._client.id))
                watch.until_all_stopped(_GRACE_SECONDS)
            raise

    def _begin(self) -> None:
        """Compare versions, and tell the scheduler and the workers that a session begins."""
        client = self._client
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise _unusable("The scheduler has no workers.", self._address) from error
        here = describe()
        problems = []
        found: dict[str, Any] = client.run(describe, on_error="return")
        for address, there in found.items():
            problems += [f"worker {address} {problem}" for problem in _differences(here, there)]
        try:
            there = client.run_on_scheduler(describe)
        except Exception as error:
            there = error
        # The scheduler passes on what it gets and computes nothing.
        relevant = {name: here[name] for name in ("gridcast", "python", "distributed")}
        problems += [f"the scheduler {problem}" for problem in _differences(relevant, there)]
        if problems:
            text = f"The cluster does not fit this computer: {'; '.join(problems[:5])}."
            raise _unusable(text, self._address)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        slots: dict[str, int] = {}
        for worker in workers.values():
            slots[worker["host"]] = slots.get(worker["host"], 0) + worker["nthreads"]
        threads = {
            address: max(1, there["cores"] // slots[workers[address]["host"]])
            for address, there in found.items()
            if address in workers
        }
        # The scheduler forgets what is told under the name of a client soon after the client has gone.
        client.subscribe_topic(client.id, lambda event: self._hear(event))
        client.register_plugin(_Guard(client.id), name=f"{client.id}-guard")
        self._register(_Session(here, threads), _session(client.id))

    def _ship(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Send files to every worker, also to those that come later, once each; return their hashes."""
        digests = {path: _digest(path) for path in set(paths)}
        for path, digest in digests.items():
            if digest in self._shipped:
                continue
            if path.stat().st_size > _MOST_BYTES:
                raise InputError(
                    "The file is too large to be sent to the workers of a cluster (2 GB).",
                    hint="Leave SCHEDULER empty to compute on this computer.",
                    parameter="SCHEDULER",
                    value=path,
                )
            self._register(_ShippedFile(path.name, path.read_bytes()), f"{self._client.id}-{digest}")
            self._shipped.add(digest)
        return digests

    def _register(self, plugin: WorkerPlugin, name: str) -> None:
        try:
            self._client.register_plugin(plugin, name=name)
        except OSError:
            try:
                # A worker was lost in the middle. Those that are left, and those to come, get it now.
                self._client.register_plugin(plugin, name=name)
            except OSError as error:
                raise _lost(self._address) from error


class _Client(Client):
    """A client that is closed if it cannot connect, for whatever reason."""

    def start(self, **options: Any) -> None:
        try:
            super().start(**options)
        except Exception:
            self.close()
            raise


def _connect(address: str) -> Client:
    try:
        return _Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:
        # There are as many kinds as programs that may listen there and ways to set up TLS.
        text = f"The scheduler of the cluster cannot be reached ({type(error).__name__}: {error})."
        raise _unusable(text, address) from error


def _unusable(message: str, address: str) -> InputError:
    return InputError(message, hint=_REMEDY, parameter="SCHEDULER", value=address)


def _lost(address: str) -> InputError:
    return _unusable("The connection to the scheduler was lost.", address)


def describe() -> dict[str, Any]:
    """Return what has to be the same on all machines, and the number of processor cores."""
    found: dict[str, Any] = {
        "gridcast": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "cores": cpu_count(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _differences(here: dict[str, Any], there: dict[str, Any] | Exception) -> list[str]:
    """Return in words what differs there."""
    if isinstance(there, Exception):
        # What happens while Dask unpacks a call comes back as the text of the exception.
        return [f"cannot run Gridcast ({there if type(there) is Exception else repr(there)})"]
    return [
        f"has {name} {there[name]} instead of {value}" if there[name] else f"has no {name}"
        for name, value in here.items()
        if name != "cores" and there[name] != value
    ]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# On this computer ----------------------------------------------------------------------------------------


class _Parcel:
    """A task with its files."""

    def __init__(self, task: Task) -> None:
        from .jobs import files_of

        self.task = task
        self._files = files_of(task.job, task.request)
        # A file that is missing is missing there as well, where the job says so.
        self.inputs = {
            name: Path(task.request[name])
            for name in self._files.inputs
            if Path(task.request[name]).is_file()
        }

    def call(self, digests: dict[Path, str]) -> dict[str, Any]:
        """Return what the worker has to know, as plain values."""
        files = (*self._files.inputs, *self._files.outputs, *self._files.states)
        return {
            "name": self.task.name,
            "job": self.task.job,
            "request": self.task.request,
            "shipped": {name: digests[path] for name, path in self.inputs.items()},
            "file_names": {name: Path(self.task.request[name]).name for name in files},
            "wanted": [*self._files.outputs, *self._files.states],
        }

    def states(self) -> dict[str, bytes]:
        """Return the states that the task goes on from."""
        paths = {name: Path(self.task.request[name]) for name in self._files.states}
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}

    def take(self, result: dict[str, Any]) -> None:
        """Note what the worker sends back, and write its files."""
        self.keep_states(result)
        if result["outputs"] is not None:
            self._write(result, self._files.outputs)
        self.task.outputs = result["outputs"]
        self.task.failure = from_event(result["error"]) if result["error"] else None

    def keep_states(self, result: dict[str, Any]) -> None:
        """Write the states, which are worth keeping whatever became of the task."""
        self._write(result, self._files.states)

    def _write(self, result: dict[str, Any], names: Sequence[str]) -> None:
        for name in names:
            if name in result["files"]:
                with atomic_path(self.task.request[name], name.upper()) as part:
                    part.write_bytes(result["files"][name])


@dataclass
class _Watch:
    """What is heard of a round of tasks."""

    parcels: dict[int, _Parcel]
    address: str
    reporter: Reporter
    shares: dict[int, float] = field(default_factory=dict)
    futures: dict[int, Future] = field(default_factory=dict)
    news: queue.SimpleQueue[tuple[int, Any]] = field(default_factory=queue.SimpleQueue)

    def expect(self, number: int, future: Future) -> None:
        """Wait for a task."""
        self.futures[number] = future

        def ended(future: Future) -> None:
            try:
                self.news.put((number, future.result()))
            except BaseException as error:
                self.news.put((number, error))

        future.add_done_callback(ended)

    def hear(self, event: tuple[float, Any]) -> None:
        """Take an event of the session's topic; called in the client's thread."""
        message = event[1]
        # Dask tells of itself there, too.
        if isinstance(message, dict) and message.get("gridcast") in self.parcels:
            self.news.put((message["gridcast"], _Told(message)))

    def until_all_ended(self) -> None:
        """Wait for all tasks, and note what becomes of them."""
        while self.futures:
            try:
                number, what = self.news.get(timeout=0.1)
            except queue.Empty:
                self.reporter.check()
                continue
            task = self.parcels[number].task
            if isinstance(what, _Told):
                self._tell(number, task, what.event)
            else:
                del self.futures[number]
                self.shares[number] = 1.0
                if isinstance(what, BaseException):
                    task.failure = self._failure(what)
                else:
                    self.parcels[number].take(what)
            self.reporter.progress(sum(self.shares.values()) / len(self.parcels))

    def until_all_stopped(self, seconds: float) -> None:
        """Wait for tasks that were told to stop, and keep their states."""
        until = time.monotonic() + seconds
        while self.futures and time.monotonic() < until:
            try:
                number, what = self.news.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(what, _Told):
                continue
            del self.futures[number]
            if isinstance(what, dict):
                self.parcels[number].keep_states(what)

    def _tell(self, number: int, task: Task, event: dict[str, Any]) -> None:
        if event["event"] == Event.PROGRESS:
            # A task that runs again does not take the bar back.
            self.shares[number] = max(self.shares.get(number, 0.0), event["value"] / 100)
        elif event["event"] == Event.HELLO and number in self.shares:
            self.reporter.warning(f"{task.name} was broken off; it runs again on {event['worker']}.")
        elif event["event"] == Event.HELLO:
            self.shares[number] = 0.0
            self.reporter.message(f"{task.name} begins on {event['worker']}.")
        else:
            pass_on(event, self.reporter)

    def _failure(self, error: BaseException) -> GridcastError:
        if isinstance(error, GridcastError):
            return error
        if isinstance(error, KilledWorker):
            return GridcastError(
                f"It was given up: {error.allowed_failures + 1} workers that ran it were lost, the last one "
                f"{error.last_worker.address}.",
                hint="Most often their memory was full: start fewer workers on a machine (docs/cluster.md).",
            )
        if isinstance(error, CancelledError):
            raise _lost(self.address) from error
        return GridcastError(
            f"Its worker could not run it ({type(error).__name__}: {error}).",
            hint="The log of the worker says more.",
        )


@dataclass(frozen=True)
class _Told:
    """Something that a task tells while it runs."""

    event: dict[str, Any]


# On the scheduler and the workers ------------------------------------------------------------------------


def _session(client: str) -> str:
    return f"{client}-session"


class _Guard(SchedulerPlugin):
    """Ends a session when its client is gone."""

    def __init__(self, client: str) -> None:
        self._client = client

    def remove_client(self, scheduler: Any, client: str) -> None:
        if client != self._client:
            return
        for name in [name for name in scheduler.worker_plugins if name.startswith(self._client)]:
            scheduler.loop.add_callback(scheduler.unregister_worker_plugin, None, name)
        scheduler.remove_plugin(f"{self._client}-guard")


class _Session(WorkerPlugin):
    """What a worker knows of a session; tasks stop when it is taken away."""

    def __init__(self, versions: dict[str, Any], threads: dict[str, int]) -> None:
        self._versions = versions
        self._threads = threads

    def setup(self, worker: Any) -> None:
        self.stopped = threading.Event()
        # A worker that has come later shares the cores of its machine as it knows best.
        self.threads = self._threads.get(worker.address) or max(1, cpu_count() // worker.state.nthreads)
        self.problems = _differences(self._versions, describe())

    def teardown(self, worker: Any) -> None:
        self.stopped.set()


class _ShippedFile(WorkerPlugin):
    """A file that tasks read, on each worker once."""

    def __init__(self, file_name: str, content: bytes) -> None:
        self._file_name = file_name
        self._content = content
        self.problem = ""

    def setup(self, worker: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gridcast-", dir=worker.local_directory))
        self.path = self._folder / self._file_name
        try:
            self.path.write_bytes(self._content)
        except OSError as error:
            self.problem = f"cannot keep the file '{self._file_name}' ({error.strerror})"
        self._content = b""

    def teardown(self, worker: Any) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class _Wire(Reporter):
    """Sends what a task tells to the client, and stops it when its session has ended."""

    def __init__(self, worker: Any, client: str, number: int, session: _Session) -> None:
        super().__init__()
        self._worker, self._client, self._number, self._session = worker, client, number, session
        self._percent = -1
        #: What the paths of this machine are on the client's.
        self.names: dict[str, str] = {}

    def check(self) -> None:
        if self._session.stopped.is_set():
            raise JobCancelled()

    def emit(self, event: str, **fields: Any) -> None:
        if event == Event.PROGRESS:
            percent = int(fields["value"])
            if percent == self._percent:
                return
            self._percent = percent
        told = {"gridcast": self._number, "event": event, **fields}
        self._worker.log_event(self._client, self.translated(told))

    def translated(self, value: Any) -> Any:
        """Return a plain value with the paths of the client."""
        if isinstance(value, str):
            for here, there in self.names.items():
                value = value.replace(here, there)
            return value
        if isinstance(value, dict):
            return {key: self.translated(each) for key, each in value.items()}
        return [self.translated(each) for each in value] if isinstance(value, list) else value


def _run_task(client: str, number: int, text: str, states: dict[str, bytes]) -> dict[str, Any]:
    """Run a task in a process of its own; return its outputs or its error, and the files that it made."""
    worker: Any = get_worker()
    call = json.loads(text)
    session = worker.plugins.get(_session(client))
    if session is None:
        return {"outputs": None, "error": JobCancelled().as_event(), "files": {}}
    wire = _Wire(worker, client, number, session)
    wire.emit(Event.HELLO, worker=worker.address)
    shipped = {name: worker.plugins[f"{client}-{digest}"] for name, digest in call["shipped"].items()}
    problems = [*session.problems, *(file.problem for file in shipped.values() if file.problem)]
    if problems:
        raise EnvironmentFault(f"The worker {worker.address} {'; '.join(problems)}.")
    folder = Path(tempfile.mkdtemp(prefix="gridcast-", dir=worker.local_directory))
    try:
        paths = {}
        for name, file_name in call["file_names"].items():
            if name in shipped:
                paths[name] = shipped[name].path
                continue
            paths[name] = folder / name / file_name
            paths[name].parent.mkdir()
            if name in states:
                paths[name].write_bytes(states[name])
        wire.names = {str(path): call["request"][name] for name, path in paths.items()}
        request = {**call["request"], **{name: str(path) for name, path in paths.items()}}
        task = Task(call["name"], call["job"], request)
        try:
            side_by_side([task], 1, folder, wire, threads=session.threads)
        except JobCancelled as error:
            task.failure = error
        if task.failure and may_pass(task.failure) and not session.stopped.is_set():
            wire.warning(f"{task.name} failed on {worker.address}: {task.error}")
            raise from_event(wire.translated(task.failure.as_event()))
        return {
            "outputs": wire.translated(task.outputs),
            "error": wire.translated(task.failure.as_event()) if task.failure else None,
            "files": {name: paths[name].read_bytes() for name in call["wanted"] if paths[name].is_file()},
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
