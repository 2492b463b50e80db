# SPDX-License-Identifier: GPL-2.0-or-later
"""Which Python runs the worker. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import EnvironmentFault

#: Environment variable that names the worker's interpreter.
VARIABLE = "GRIDCAST_PYTHON"

#: The remedy named in every error about the worker's environment.
REMEDY = (
    "Run the algorithm 'Set Up Environment' of the Gridcast toolbox, or name a Python that has the "
    f"worker's packages in the environment variable {VARIABLE} or under Settings > Options > Processing > "
    "Providers > Gridcast."
)


def find_interpreter(setting: str | None, environ: Mapping[str, str], managed: Path, checkout: Path) -> Path:
    """Return the Python interpreter of the worker.

    The first one named wins: the user's setting, the environment variable
    ``GRIDCAST_PYTHON``, the managed environment, the ``.venv`` of a source
    checkout. A named one that does not work is an error and is not skipped,
    so that nobody runs another environment than the one they chose.

    Parameters
    ----------
    setting : str or None
        Path from the Processing options: an interpreter, or the folder of a
        virtual environment.
    environ : mapping
        The process environment.
    managed : Path
        Folder of the managed environment.
    checkout : Path
        Root of the source checkout.

    Raises
    ------
    EnvironmentFault
        None is named, or the one named is missing or is not a Python.
    """
    if setting and setting.strip():
        where = (
            "the setting 'Python interpreter of the worker' under Options > Processing > Providers > Gridcast"
        )
        return _named(setting, where)
    if environ.get(VARIABLE, "").strip():
        return _named(environ[VARIABLE], f"the environment variable {VARIABLE}")
    for folder in (managed, checkout / ".venv"):
        python = python_of(folder)
        if python.is_file():
            return python
        if os.path.lexists(python):
            raise EnvironmentFault(
                f"The worker's environment '{folder}' is broken: the Python it was made with is gone.",
                hint=REMEDY,
            )
    raise EnvironmentFault("Gridcast has no Python environment for its worker yet.", hint=REMEDY)


def python_of(folder: Path) -> Path:
    """Return where the interpreter of the virtual environment `folder` lies."""
    if sys.platform == "win32":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def _named(value: str, where: str) -> Path:
    # Paths copied from the Windows explorer come in quotes.
    path = Path(os.path.expanduser(value.strip().strip("\"'")))
    if path.is_dir():
        path = python_of(path)
    remedy = f"Correct or clear {where}. {REMEDY}"
    if not path.is_file():
        raise EnvironmentFault(
            "There is no Python interpreter at this place.", hint=remedy, parameter=VARIABLE, value=value
        )
    if path.name.lower().startswith("qgis"):
        raise EnvironmentFault(
            "This is QGIS, not a Python interpreter.", hint=remedy, parameter=VARIABLE, value=value
        )
    if not os.access(path, os.X_OK):
        raise EnvironmentFault("This file cannot be executed.", hint=remedy, parameter=VARIABLE, value=value)
    return Path(os.path.abspath(path))
