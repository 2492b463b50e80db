# SPDX-License-Identifier: GPL-2.0-or-later
"""One conversation with the worker: a request in, events while it runs, outputs or an error at the end.

Standard library only; :mod:`.feedback` is the side that knows QGIS.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ..core.errors import BY_CODE, EnvironmentFault, GridcastError, JobCancelled
from ..core.protocol import CANCEL, PROTOCOL, Event, Exit
from .environment import clean_environment
from .interpreter import REMEDY
from .process import Child

#: Folder that holds the package ``gridcast_qgis``.
PACKAGE_PARENT = Path(__file__).resolve().parents[2]
#: Seconds the worker may take to say hello; a first start from a slow disk takes a while.
HELLO_SECONDS = 60.0
#: Logs of failed workers that are kept.
KEPT_LOGS = 20

_KEPT_LOG_BYTES = 1 << 20
_TAIL_BYTES = 8192
_TAIL_LINES = 6

_CRASH_HINTS = {
    "SIGKILL": "Most often the memory was full: use larger cells, longer steps, a smaller network or a "
    "smaller batch.",
    "SIGILL": "This processor lacks instructions (AVX) that TensorFlow needs.",
}


class WorkerCrash(GridcastError):
    """The worker ended without a word: killed, crashed or broken."""

    code = "crash"


def run_job(
    job: str,
    request: Mapping[str, Any],
    *,
    python: Path,
    on_event: Callable[[dict[str, Any]], None],
    is_cancelled: Callable[[], bool],
    job_dir: Path,
    logs: Path,
    grace: float = 1.0,
    environ: Mapping[str, str] | None = None,
    hello_seconds: float = HELLO_SECONDS,
) -> dict[str, Any]:
    """Run one job in a worker process and return its outputs.

    Blocks until the worker has ended; `on_event` and `is_cancelled` are
    called in the calling thread. However this function ends, no worker is
    left, and if it raises, no output of the job is left either.

    Parameters
    ----------
    job : str
        Name of the job.
    request : mapping
        Its request, ready for JSON, with absolute paths. The values of
        ``output`` and of keys that end in ``_output`` are files it makes.
    python : Path
        Interpreter of the worker.
    on_event : callable
        Receives hello, stage, progress, message and metric events as they come.
    is_cancelled : callable
        Asked at least ten times a second.
    job_dir : Path
        Private temporary folder of this job; the caller removes it.
    logs : Path
        Folder that keeps the logs of failed workers, the last 20 of them.
    grace : float
        Seconds the worker may take to stop when it is cancelled, before it is
        terminated and half a second later killed.
    environ : mapping or None
        Environment variables to start from; None: those of this process.
    hello_seconds : float
        Seconds the worker may take to start.

    Raises
    ------
    GridcastError
        What the worker reported: InputError, EnvironmentFault, or GridcastError itself.
    JobCancelled
        `is_cancelled` answered yes.
    EnvironmentFault
        The worker could not be started or is of another version.
    WorkerCrash
        The worker died or broke the protocol.
    """
    request_file = job_dir / "request.json"
    call = {"protocol": PROTOCOL, "job": job, "request": dict(request), "job_dir": str(job_dir)}
    request_file.write_text(json.dumps(call, ensure_ascii=False, indent=1), encoding="utf-8")
    variables = os.environ if environ is None else environ
    environment = clean_environment(variables, sys.platform, PACKAGE_PARENT)
    command = [str(python), "-X", "utf8", "-u", "-m", "gridcast_qgis.core", str(request_file)]
    outputs = _OutputFiles(request)
    talk = _Talk(job, python, log=job_dir / "worker.log", logs=logs)
    try:
        # The worker and this process both append to the log; the worker's folder is its own, because
        # Python looks for modules in the current folder first.
        with open(talk.log, "ab", buffering=0) as log:
            try:
                child = Child(command, environment, cwd=job_dir, stderr=log)
            except OSError as error:
                raise EnvironmentFault(
                    f"The worker's Python '{python}' cannot be started: {error.strerror or error}.",
                    hint=REMEDY,
                ) from error
            with child:
                _listen(child, talk, log, on_event, is_cancelled, grace, hello_seconds)
                if child.status is None:
                    child.stop()
                    raise talk.crash("closed its output but did not end")
                return talk.conclude(child.status)
    except BaseException:
        outputs.discard(talk.worker_pid)
        raise


def _listen(
    child: Child,
    talk: _Talk,
    log: IO[bytes],
    on_event: Callable[[dict[str, Any]], None],
    is_cancelled: Callable[[], bool],
    grace: float,
    hello_seconds: float,
) -> None:
    deadline = time.monotonic() + hello_seconds
    for line in child.lines():
        if is_cancelled():
            child.stop(CANCEL.encode() + b"\n", grace)
            if talk.worker_pid is None:
                # Cancelled before it was heard: its process id tells which unfinished files are its own.
                # The line at hand may be the very one that says it.
                for late in ([line] if line else []) + child.remaining_lines():
                    talk.take(late, log)
            raise JobCancelled()
        event = None if line is None else talk.take(line, log)
        if event is not None:
            on_event(event)
        if talk.worker_pid is None and time.monotonic() > deadline:
            child.stop()
            raise talk.fault(f"did not answer within {hello_seconds:g} seconds")


class _Talk:
    """What the worker has said so far, and what it means."""

    def __init__(self, job: str, python: Path, *, log: Path, logs: Path):
        self.log = log
        self.worker_pid: int | None = None
        self._job = job
        self._python = python
        self._logs = logs
        self._outputs: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None

    def take(self, line: bytes, log: IO[bytes]) -> dict[str, Any] | None:
        """Take one line; return the event if it is one for the user."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            # A library wrote to the descriptor itself, past Python: worth keeping, no reason to fail.
            log.write(b"[stdout] " + line.rstrip(b"\n") + b"\n")
            return None
        name = event["event"]
        if name == Event.HELLO:
            self._greet(event)
        elif self.worker_pid is None:
            raise self.fault("did not say hello first")
        if name == Event.RESULT:
            found = event.get("outputs")
            self._outputs = found if isinstance(found, dict) else None
            return None
        if name == Event.ERROR:
            self._error = event
            return None
        return event

    def _greet(self, event: dict[str, Any]) -> None:
        if event.get("protocol") != PROTOCOL:
            raise EnvironmentFault(
                f"The worker speaks version {event.get('protocol')} of the worker protocol, this plugin "
                f"version {PROTOCOL}.",
                hint="Two versions of Gridcast are mixed: restart QGIS after an update, and remove any "
                "Gridcast installed into the worker's Python.",
            )
        pid = event.get("pid")
        self.worker_pid = pid if isinstance(pid, int) else -1

    def conclude(self, status: int) -> dict[str, Any]:
        """Return the outputs of a worker that ended with `status`, or raise what went wrong."""
        if self._error is not None:
            raise self._reported(self._error)
        if status == Exit.CANCELLED:
            raise JobCancelled()
        if status == Exit.OK and self._outputs is not None:
            return self._outputs
        if self.worker_pid is None and status > 0:
            raise self.fault(f"ended with status {status} before it answered")
        if status == Exit.OK:
            raise self.crash("ended without a result")
        if self._outputs is not None:
            raise self.crash(f"delivered its result, but then {_ending(status)}")
        raise self.crash(_ending(status), _CRASH_HINTS.get(_signal_name(status), ""))

    def _reported(self, event: dict[str, Any]) -> GridcastError:
        kind = BY_CODE.get(str(event.get("code")), GridcastError)
        hint = str(event.get("hint") or "")
        if kind in (GridcastError, EnvironmentFault):
            hint = " ".join(part for part in (hint, self._keep_log()) if part)
        return kind(
            str(event.get("message") or "The worker failed without saying why."),
            hint=hint,
            parameter=str(event.get("parameter") or ""),
            value=event.get("value") or None,
        )

    def fault(self, what: str) -> EnvironmentFault:
        """Return the error for a worker that could not start."""
        return EnvironmentFault(
            f"The worker's Python '{self._python}' {what}.",
            hint=f"{REMEDY}{self._tail()}\n{self._keep_log()}",
        )

    def crash(self, what: str, hint: str = "") -> WorkerCrash:
        """Return the error for a worker that died."""
        return WorkerCrash(
            f"The worker process of the job '{self._job}' {what}.",
            hint=f"{hint}{self._tail()}\n{self._keep_log()}".strip(),
        )

    def _tail(self) -> str:
        try:
            with open(self.log, "rb") as log:
                log.seek(max(0, os.path.getsize(self.log) - _TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        last = [line.rstrip() for line in lines if line.strip()][-_TAIL_LINES:]
        return "\nIts log ends with:\n" + "\n".join(f"  {line}" for line in last) if last else ""

    def _keep_log(self) -> str:
        """Copy the log out of the job's folder and return a sentence that says where it is."""
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            stamp = time.strftime("%Y%m%d-%H%M%S")
            kept = self._logs / f"{stamp}-{self._job}-{time.time_ns() % 10**9:09d}.log"
            with open(self.log, "rb") as log:
                log.seek(max(0, os.path.getsize(self.log) - _KEPT_LOG_BYTES))
                kept.write_bytes(log.read())
            for old in sorted(self._logs.glob("*.log"))[:-KEPT_LOGS]:
                old.unlink(missing_ok=True)
        except OSError as error:
            return f"Its log could not be kept: {error.strerror}."
        return f"The whole log is kept in '{kept}'."


class _OutputFiles:
    """The files a job was asked to make, so that a failed one leaves none of them."""

    def __init__(self, request: Mapping[str, Any]):
        wanted = [
            value
            for key, value in request.items()
            if (key == "output" or key.endswith("_output")) and isinstance(value, str) and value
        ]
        self._before = {Path(path): self._state(Path(path)) for path in wanted}

    @staticmethod
    def _state(path: Path) -> tuple[int, int, int] | None:
        try:
            stat = path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def discard(self, worker_pid: int | None) -> None:
        """Remove what the job wrote; a file that was there before and is untouched stays."""
        for path, before in self._before.items():
            leftovers = [path] if self._state(path) not in (before, None) else []
            # A worker that was killed could not remove its unfinished files (named in core.atomic).
            prefix = f".{path.stem}.{worker_pid}.part"
            if path.parent.is_dir():
                leftovers += [p for p in path.parent.iterdir() if p.name.startswith(prefix)]
            for leftover in leftovers:
                try:
                    leftover.unlink()
                except OSError:
                    continue  # somebody else has it open; nothing better can be done


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return ""


def _ending(status: int) -> str:
    name = _signal_name(status)
    if name:
        return f"was ended by the signal {name}"
    # Windows gives crash reasons as large numbers that are known in hexadecimal form.
    return f"ended with the exit status {status if abs(status) < 256 else f'0x{status & 0xFFFFFFFF:08X}'}"
