# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows the worker's events in the dialog, on the console or in the log of QGIS."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingFeedback

from ..core.protocol import Event
from ..i18n import tr


class FeedbackBridge:
    """Passes the worker's events on to a QgsProcessingFeedback.

    Call it with each event; ask :meth:`is_cancelled` whether the user has had enough.
    """

    def __init__(self, feedback: QgsProcessingFeedback):
        self._feedback = feedback

    def __call__(self, event: dict[str, Any]) -> None:
        name = event["event"]
        if name == Event.STAGE:
            text = str(event.get("name", ""))
            self._feedback.setProgressText(text)
        elif name == Event.PROGRESS:
            value = event.get("value")
            if isinstance(value, (int, float)):
                self._feedback.setProgress(min(max(float(value), 0.0), 100.0))
        elif name == Event.MESSAGE:
            text = str(event.get("text", ""))
            if event.get("level") == "warning":
                self._feedback.pushWarning(text)
            else:
                self._feedback.pushInfo(text)
        elif name == Event.METRIC:
            value = event.get("value")
            shown = f"{value:.6g}" if isinstance(value, (int, float)) else str(value)
            self._feedback.pushInfo(f"{event.get('name')} ({tr('step')} {event.get('step')}): {shown}")
        elif name == Event.HELLO:
            self._feedback.pushDebugInfo(
                f"Gridcast {event.get('version')}, Python {event.get('python')}, process {event.get('pid')}"
            )

    def is_cancelled(self) -> bool:
        """Tell whether the user pressed Cancel."""
        return self._feedback.isCanceled()
