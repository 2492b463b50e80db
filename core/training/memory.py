# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a training will need, said before it starts."""

from __future__ import annotations

from ..cube import Cube

# Measured: the worker's memory when TensorFlow is loaded and training has not begun.
LIBRARY_BYTES = 900_000_000


def cube_bytes(cube: Cube) -> int:
    """Return how many bytes the arrays of a cube take."""
    size = cube.events.nbytes + (cube.total.nbytes if len(cube.types) > 1 else 0)
    size += sum(covariate.values.nbytes for covariate in cube.covariates.values())
    if cube.severity is not None:
        size += cube.severity.sum.nbytes + cube.severity.weight.nbytes
    return size


def memory_needed(cube: Cube, batch: int) -> str:
    """Return a sentence on the memory for a training whose batches take `batch` bytes.

    Windows are cut from the cube batch by batch; while one batch is learned from, the next is made.
    """
    own, all_in_all = cube_bytes(cube) / 1e9, (cube_bytes(cube) + 1.5 * batch) / 1e9
    return (
        f"Training needs about {all_in_all:.2f} GB of memory ({own:.2f} GB for the cube, the rest for a "
        f"batch) besides {LIBRARY_BYTES / 1e9:.1f} GB for the network library."
    )
