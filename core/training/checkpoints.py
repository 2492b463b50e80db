# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a training on disk, so that a run that was broken off goes on where it was."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_path
from ..errors import InputError

SCHEMA = "checkpoint/2"

_LISTS = ("weights", "best", "optimizer", "random")


@dataclass
class TrainingState:
    """What a training needs to go on after an epoch exactly as if it had never stopped.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    weights, best, optimizer, random : list of numpy.ndarray
        Of the network after this epoch, of the network at its best, of the optimizer; states of the random
        numbers that layers draw.
    values : dict
        Plain values of the loop: history, best loss, epochs without progress.
    """

    epoch: int
    weights: list[np.ndarray]
    best: list[np.ndarray]
    optimizer: list[np.ndarray]
    random: list[np.ndarray] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the state of one training, and what tells this training from others.

    Attributes
    ----------
    path : pathlib.Path
        Need not exist yet.
    identity : str
        Hash of all that decides the result: data, settings, split.
    """

    path: Path
    identity: str

    def part(self, name: str) -> Checkpoint:
        """Return the checkpoint of a member, a file beside this one."""
        digest = hashlib.sha256(f"{self.identity} {name}".encode()).hexdigest()
        return Checkpoint(self.path.with_name(f"{self.path.name}.part-{name}"), digest[:16])

    def write(self, state: TrainingState) -> None:
        """Replace the file by this state, whole or not at all."""
        arrays = {
            f"{kind}_{number}": value for kind in _LISTS for number, value in enumerate(getattr(state, kind))
        }
        head = {
            "schema": SCHEMA,
            "identity": self.identity,
            "epoch": state.epoch,
            "lengths": {kind: len(getattr(state, kind)) for kind in _LISTS},
            "values": state.values,
        }
        text = np.frombuffer(json.dumps(head).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, head=text, **arrays)
        with atomic_path(self.path, "CHECKPOINT") as part:
            part.write_bytes(buffer.getvalue())

    def read(self) -> TrainingState | None:
        """Return the state, None if there is no file yet.

        Raises
        ------
        InputError
            The file is damaged, or belongs to another training.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                head = json.loads(arrays["head"].tobytes())
                if head["schema"] != SCHEMA:
                    raise ValueError(f"unknown schema {head['schema']}")
                if head["identity"] == self.identity:
                    lists = {
                        kind: [arrays[f"{kind}_{number}"] for number in range(count)]
                        for kind, count in head["lengths"].items()
                    }
                    return TrainingState(head["epoch"], values=head["values"], **lists)
        except (
            OSError,
            EOFError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,  # what Python 3.10 says of a .npy file
            RuntimeError,  # a member that says it is encrypted, or packed in an unknown way
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(
                f"The checkpoint cannot be read ({type(error).__name__}: {error}).",
                hint="Delete the file, or choose another one.",
                parameter="CHECKPOINT",
                value=self.path,
            ) from error
        raise InputError(
            "The checkpoint belongs to a training on other data or with other settings.",
            hint="Repeat the values of that run to continue it, or delete the file, or choose another one.",
            parameter="CHECKPOINT",
            value=self.path,
        )

    def remove(self) -> None:
        """Delete the file and those of its parts."""
        for path in (self.path, *self.path.parent.glob(f"{glob.escape(self.path.name)}.part-*")):
            path.unlink(missing_ok=True)


def identity_of(**what: Any) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
