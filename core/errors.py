# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that say what is wrong, where, and how to fix it. Standard library only."""

from __future__ import annotations

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
