# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are: resources, folders in the user's profile, temporary folders, destinations."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from qgis.core import QgsApplication, QgsProcessingUtils

from .core.errors import InputError

_PLUGIN = Path(__file__).resolve().parent

#: Root of a source checkout. In an installed plugin it is QGIS's plugin folder, where no `.venv` lies.
CHECKOUT = _PLUGIN.parent

#: Folder of the shipped data: inside the installed plugin, beside it in a source checkout.
RESOURCES = _PLUGIN / "resources" if (_PLUGIN / "resources").is_dir() else CHECKOUT / "resources"


def resource(*parts: str) -> Path:
    """Return the path of a shipped file, such as ``resource("icons", "gridcast.svg")``."""
    return RESOURCES.joinpath(*parts)


def profile_folder() -> Path:
    """Return Gridcast's own folder in the user profile of QGIS (it may not exist yet)."""
    return Path(QgsApplication.qgisSettingsDirPath()) / "gridcast"


def logs_folder() -> Path:
    """Return the folder that keeps the logs of failed workers."""
    return profile_folder() / "logs"


def managed_environment() -> Path:
    """Return the folder of the worker environment that "Set Up Environment" makes."""
    local = os.environ.get("LOCALAPPDATA")
    if sys.platform == "win32" and local:
        # The profile lies in the roaming part of the user's folder, which is copied over the
        # network at every login, and deep enough that TensorFlow's files pass 260 letters.
        return Path(local) / "gridcast" / "env"
    return profile_folder() / "env"


def new_job_dir() -> Path:
    """Make a private temporary folder for one worker job, where the user wants temporary files."""
    return Path(tempfile.mkdtemp(prefix="gridcast-", dir=QgsProcessingUtils.tempFolder()))


def check_destination(path: str, parameter: str) -> Path:
    """Return `path` as an absolute path to a file that can be written, before any work starts.

    Parameters
    ----------
    path : str
        Where a result shall go.
    parameter : str
        Key of the parameter it was given for, named in the error.

    Raises
    ------
    InputError
        No path, a folder in the file's place, a missing or read-only folder,
        a write-protected file.
    """

    def refuse(message: str, hint: str) -> InputError:
        return InputError(message, hint=hint, parameter=parameter, value=path)

    if not path.strip():
        raise refuse("No output file is given.", "Name the file to be written.")
    target = Path(os.path.abspath(path))
    if target.is_dir():
        raise refuse("This is a folder, not a file.", "Add a file name to it.")
    folder = target.parent
    if not folder.is_dir():
        raise refuse(f"The folder '{folder}' does not exist.", "Create it first or choose another one.")
    if target.exists() and not os.access(target, os.W_OK):
        raise refuse("The file is write-protected.", "Choose another name or remove the protection.")
    try:
        # Permission bits do not tell the truth on Windows and on network drives; a trial does.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise refuse(
            f"The folder '{folder}' cannot be written: {error.strerror}.",
            "Choose a folder that you may write to.",
        ) from error
    return target
