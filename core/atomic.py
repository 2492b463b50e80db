# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that appear whole or not at all. Standard library only."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, JobCancelled

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.EIO),
)

# Unfinished files of this process, for the case that it has to leave at once.
_unfinished: set[Path] = set()
_abandoned = False


@contextmanager
def atomic_path(target: str | os.PathLike[str], parameter: str = "OUTPUT") -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes the target's place on success.

    Parameters
    ----------
    target : path
        The file to make. An existing file is replaced only when the new one
        is complete.
    parameter : str
        Parameter named in the error when the place cannot be written.

    Raises
    ------
    InputError
        The folder is missing or not writable, or the disk is full.
    """
    target = Path(target)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    _unfinished.add(part)
    try:
        try:
            # Writing libraries report a missing permission in many ways; ask the system first.
            with open(part, "wb"):
                pass
            part.unlink()
            yield part
            if _abandoned:
                raise JobCancelled()
            os.replace(part, target)
        except OSError as error:
            raise _explain(error, target, parameter) from error
    finally:
        _unfinished.discard(part)
        _remove(part)


def abandon() -> None:
    """Give up all files that are not whole yet, and any begun later; for an exit without unwinding."""
    global _abandoned
    _abandoned = True
    for part in list(_unfinished):
        _remove(part)


def _remove(part: Path) -> None:
    # SQLite and GDAL leave companions (-journal, -wal, .aux.xml) beside a file they were writing. What
    # cannot be seen or removed must not hide the reason why the file was given up.
    with suppress(OSError):
        for path in part.parent.glob(glob.escape(part.name) + "*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _explain(error: OSError, target: Path, parameter: str) -> Exception:
    if error.errno in _FULL:
        return InputError(
            f"The disk is full: {error.strerror}.",
            hint="Free some space or choose a folder on another disk.",
            parameter=parameter,
            value=target,
        )
    if error.errno in _UNWRITABLE:
        return InputError(
            f"The file cannot be written: {error.strerror}.",
            hint="Choose a folder that exists and that you may write to.",
            parameter=parameter,
            value=target,
        )
    return error
