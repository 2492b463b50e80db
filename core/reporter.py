# SPDX-License-Identifier: GPL-2.0-or-later
"""How long-running core functions tell what they are doing and learn that they shall stop.

Every long function of the core takes a :class:`Reporter`. The default one is
silent, so a notebook needs none; the worker passes a :class:`StreamReporter`.
"""

from __future__ import annotations

import json
import threading
from typing import Any, TextIO

from .errors import JobCancelled
from .protocol import Event


class Reporter:
    """Receives stages, progress and messages; this base class drops them.

    Progress is a fraction of the current stage; each stage covers a part of
    the whole job, so the bar of the caller never runs backwards.
    """

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._span = (0.0, 100.0)

    def cancel(self) -> None:
        """Ask the job to stop at its next safe point (thread-safe)."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise :class:`~.errors.JobCancelled` if the job was asked to stop."""
        if self._cancelled.is_set():
            raise JobCancelled()

    def stage(self, name: str, start: float, end: float) -> None:
        """Begin a named stage that covers `start` to `end` percent of the job."""
        self.check()
        self._span = (start, end)
        self.emit(Event.STAGE, name=name)
        self.emit(Event.PROGRESS, value=start)

    def progress(self, fraction: float) -> None:
        """Report the fraction (0..1) of the current stage that is done."""
        self.check()
        start, end = self._span
        self.emit(Event.PROGRESS, value=start + (end - start) * min(max(fraction, 0.0), 1.0))

    def message(self, text: str) -> None:
        """Tell the user something worth knowing."""
        self.emit(Event.MESSAGE, level="info", text=text)

    def warning(self, text: str) -> None:
        """Tell the user something to look at before trusting the result."""
        self.emit(Event.MESSAGE, level="warning", text=text)

    def metric(self, name: str, value: float, step: int) -> None:
        """Report a measured value, such as the validation loss of an epoch."""
        self.emit(Event.METRIC, name=name, value=value, step=step)

    def emit(self, event: str, **fields: object) -> None:
        """Deliver one event; nothing to do here."""


class StreamReporter(Reporter):
    """Writes each event as one line of JSON to a text stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.Lock()
        self._last_percent = -1.0

    def emit(self, event: str, **fields: object) -> None:
        if event == Event.PROGRESS:
            # A line per batch would flood the pipe; a tenth of a percent is enough.
            value = round(float(fields["value"]), 1)  # type: ignore[arg-type]
            if value == self._last_percent:
                return
            self._last_percent = value
            fields = {"value": value}
        line = json.dumps({"event": event, **fields}, ensure_ascii=False, allow_nan=True)
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except OSError:
            # Nobody reads any more: the parent is gone, and nothing that this job makes is wanted.
            self.cancel()


class PartOf(Reporter):
    """Passes on what a part of a job reports, its progress as a part of the current stage of the whole.

    Parameters
    ----------
    start, end : float
        Fractions of that stage which the part covers.
    prefix : str
        Put before messages and names of metrics.
    quiet : bool
        Pass on progress only.
    stages : bool
        Pass on the names of the part's stages.
    """

    def __init__(
        self,
        whole: Reporter,
        start: float,
        end: float,
        prefix: str = "",
        *,
        quiet: bool = False,
        stages: bool = False,
    ) -> None:
        super().__init__()
        self._whole, self._start, self._end, self._prefix = whole, start, end, prefix
        self._quiet, self._stages = quiet, stages

    def check(self) -> None:
        self._whole.check()

    def emit(self, event: str, **fields: Any) -> None:
        if event == Event.PROGRESS:
            self._whole.progress(self._start + (self._end - self._start) * fields["value"] / 100)
        elif event == Event.STAGE:
            if self._stages:
                self._whole.emit(event, **fields)
        elif not self._quiet:
            pass_on({"event": event, **fields}, self._whole, self._prefix)


def pass_on(event: dict[str, Any], reporter: Reporter, prefix: str = "") -> None:
    """Pass on a message or a metric of a part, with the name of the part before it."""
    if event["event"] == Event.MESSAGE:
        tell = reporter.warning if event["level"] == "warning" else reporter.message
        tell(prefix + event["text"])
    elif event["event"] == Event.METRIC:
        reporter.metric(prefix + event["name"], event["value"], event["step"])
