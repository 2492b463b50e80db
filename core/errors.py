# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that say what is wrong, where, and how to fix it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .protocol import Exit


class GridcastError(Exception):
    """Base of all errors that Gridcast raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, as a full sentence.
    hint : str
        How to fix it, as a full sentence.
    parameter : str
        Key of the parameter at fault in upper case, as in the Processing
        algorithms (``CELL_SIZE``); the core's arguments have the same names in
        lower case.
    value : object
        The value found, shown as it is.
    """

    code = "internal"
    exit_status = Exit.INTERNAL

    def __init__(self, message: str, *, hint: str = "", parameter: str = "", value: object = None):
        self.message = message
        self.hint = hint
        self.parameter = parameter
        self.value = value
        super().__init__(self.text())

    def text(self) -> str:
        """Return one paragraph: parameter, value, what is wrong, what to do."""
        where = self.parameter
        if where and self.value is not None:
            where += f" = {self.value}"
        return " ".join(part for part in (where + ":" if where else "", self.message, self.hint) if part)

    def as_event(self) -> dict[str, str]:
        """Return the fields of the protocol's ``error`` event."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "parameter": self.parameter,
            "value": "" if self.value is None else str(self.value),
        }


class InputError(GridcastError):
    """A parameter, layer or file that cannot be used as it is."""

    code = "bad_input"
    exit_status = Exit.BAD_INPUT


class MemoryShortage(InputError):
    """A job needs more memory than there is; elsewhere, or alone, it may do."""

    code = "memory"


class JobCancelled(GridcastError):
    """The user or the death of the parent process stopped the job."""

    code = "cancelled"
    exit_status = Exit.CANCELLED

    def __init__(self, message: str = "The job was cancelled.", **details: str):
        super().__init__(message, **details)


class EnvironmentFault(GridcastError):
    """The worker's Python environment lacks something or does not work."""

    code = "environment"
    exit_status = Exit.ENVIRONMENT


#: Kinds of errors by the code that they have in the protocol.
BY_CODE: dict[str, type[GridcastError]] = {
    kind.code: kind for kind in (GridcastError, InputError, MemoryShortage, JobCancelled, EnvironmentFault)
}


def from_event(event: Mapping[str, Any]) -> GridcastError:
    """Return the error that an ``error`` event of the protocol tells of."""
    return BY_CODE.get(event["code"], GridcastError)(
        event["message"], hint=event["hint"], parameter=event["parameter"], value=event["value"] or None
    )


def explain(error: Exception) -> GridcastError:
    """Return what is told of an exception: itself if it was raised on purpose."""
    if isinstance(error, GridcastError):
        return error
    if isinstance(error, ImportError):
        return EnvironmentFault(
            f"The worker's Python environment lacks a package or cannot load it: {error}.",
            hint="Run the algorithm 'Set Up Environment' (with 'recreate' switched on).",
        )
    if isinstance(error, MemoryError):
        return MemoryShortage(
            "This machine has not enough memory for the job.",
            hint="Use larger cells, longer steps, fewer types or a shorter period.",
        )
    return GridcastError(
        f"Gridcast failed where it should not: {type(error).__name__}: {error}",
        hint="Please report this together with the log.",
    )
