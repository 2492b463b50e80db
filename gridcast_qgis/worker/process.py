# SPDX-License-Identifier: GPL-2.0-or-later
"""A child process that can be listened to without blocking and is always ended. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, cast

#: Longest time between two looks at the cancel button.
POLL_SECONDS = 0.1
#: Time between terminate and kill.
TERMINATE_SECONDS = 0.5
# A line without end must not fill the memory; the protocol's lines are far shorter.
_LINE_LIMIT = 1 << 20
# How long a process may live on after it closed its output.
_EXIT_SECONDS = 10.0
# How long an ended process's output may stay open in the hands of its own children.
_ORPHANED_OUTPUT_SECONDS = 0.5


class Child:
    """A running child process; use it as a context manager, which leaves no process behind.

    Its standard input stays open for as long as this object lives: its end
    tells the child that the parent died.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; no shell is involved.
    environment : mapping
        The complete environment of the child.
    cwd : Path
        Its working folder.
    stderr : binary file or None
        Where its standard error goes; None merges it into the lines.

    Raises
    ------
    OSError
        The program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path,
        stderr: IO[bytes] | None = None,
    ):
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW
        else:
            # A session of its own, so that the child's own children can be ended with it.
            options["start_new_session"] = True
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr is None else stderr,
            env=dict(environment),
            cwd=cwd,
            **options,
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="gridcast-worker-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, None while the child runs; negative: the number of the signal that ended it."""
        return self._process.poll()

    def lines(self) -> Iterator[bytes | None]:
        """Yield the child's lines as they come, and None at least every `POLL_SECONDS` of silence.

        Ends when the child has ended or, still alive, has closed its output
        for ten seconds; `status` tells which.
        """
        ended = None
        while True:
            try:
                line = self._queue.get(timeout=POLL_SECONDS)
            except Empty:
                yield None
                if self.status is not None:
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended > _ORPHANED_OUTPUT_SECONDS:
                        return
                continue
            if line is None:
                break
            yield line
        closed = time.monotonic()
        while self.status is None and time.monotonic() - closed < _EXIT_SECONDS:
            yield None
            self._wait(POLL_SECONDS)

    def stop(self, request: bytes = b"", grace: float = 0.0) -> None:
        """End the child for sure and wait for it: ask, then terminate, then kill.

        Parameters
        ----------
        request : bytes
            Line written to its standard input as a polite request, if any.
        grace : float
            Seconds it may take to follow the request.
        """
        if request:
            self._send(request)
            self._wait(grace)
        if self.status is None:
            self._process.terminate()
            self._wait(TERMINATE_SECONDS)
        if self.status is None:
            self._process.kill()
        self._process.wait()

    def remaining_lines(self) -> list[bytes]:
        """Return the lines that arrived after the last one read; for an ended child."""
        self._reader.join(_ORPHANED_OUTPUT_SECONDS)
        lines = []
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                lines.append(line)
        return lines

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            self.stop()
        if sys.platform != "win32":
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # the usual case: the child left no children of its own
        try:
            self._stdin.close()
        except OSError:
            pass  # bytes that nobody reads any more
        self._reader.join(_ORPHANED_OUTPUT_SECONDS)
        if not self._reader.is_alive():
            self._stdout.close()

    def _read(self) -> None:
        try:
            while line := self._stdout.readline(_LINE_LIMIT):
                self._queue.put(line)
        finally:
            self._queue.put(None)

    def _send(self, line: bytes) -> None:
        try:
            self._stdin.write(line)
            self._stdin.flush()
        except OSError:
            pass  # it has closed its input or ended; the ladder's next step deals with it

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
