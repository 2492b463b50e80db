# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the networks train, against the same networks in stock Keras.

Peer: ``ConvLSTM2D`` or ``LSTM`` of Keras, ``fit`` on arrays of ready-made windows, default settings except
``jit_compile=False`` (XLA's convolutions on the CPU are many times slower). Both start from the same
weights and see the same batches; each pair is timed in turn, from the first batch to the last, as ``fit``
may take as long again to end (``s1_peer_seconds_to_end``). Medians of the ratios are written to
``build/bench/train.json``. Data: the crimes of Chicago by day, 55 x 50 cells; needs GRIDCAST_DATA.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import cities
import keras
import numpy as np
import tensorflow as tf
import train_classifier
from keras import layers

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.models import convlstm, shotspotter
from gridcast_qgis.core.models.cellwise import CellwiseTwoStacks
from gridcast_qgis.core.models.losses import masked_squared_error, weighted_cross_entropy
from gridcast_qgis.core.training.channels import Channels
from gridcast_qgis.core.training.fit import read_ahead
from gridcast_qgis.core.training.windows import DistinctHistories, Windows

RESULT = cities.BENCH / "train.json"
LOOKBACK = 7
#: North-western window of the Hetero-ConvLSTM.
WINDOW = (slice(0, 36), slice(0, 33))

#: Trains; returns the loss of each batch and the seconds from the first batch to the last.
Fit = Callable[[], tuple[list[float], float]]


class Watch(keras.callbacks.Callback):
    """Keeps the loss of each batch, which Keras reports as a running mean, and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.began = self.ended = 0.0
        self._sum = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.began = self.began or time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        total = float((logs or {})["loss"]) * (batch + 1)
        self.losses.append(total - self._sum)
        self._sum = total
        self.ended = time.perf_counter()


def compiled(network: keras.Model, loss: Any) -> keras.Model:
    """Return the network ready to train."""
    network.compile(keras.optimizers.Adam(), loss=loss, jit_compile=False)
    return network


def stock_layer(filters: int, kernel: int, *, peephole: bool = False, **options: Any) -> layers.Layer:
    """Return the layer of Keras where the library has its own."""
    assert not peephole
    return layers.ConvLSTM2D(filters, kernel, **options)


def stock(module: Any, *arguments: Any, **options: Any) -> keras.Model:
    """Build a network of a module of the library from layers of Keras only."""
    own = module.ConvLSTM2D
    module.ConvLSTM2D = stock_layer
    try:
        return module.build_network(*arguments, **options)
    finally:
        module.ConvLSTM2D = own


def peer(network: keras.Model, batches: Windows, count: int, ends: list[float] | None = None) -> Fit:
    """Return what trains a stock network with ``fit`` on arrays of the same batches.

    The seconds that ``fit`` takes after the last batch are added to ``ends``.
    """
    x, y = (np.concatenate(each) for each in zip(*itertools.islice(batches.epoch(0), count)))

    def run() -> tuple[list[float], float]:
        watch = Watch()
        network.fit(x, y, batch_size=batches.batch_size, shuffle=False, verbose=0, callbacks=[watch])
        if ends is not None:
            ends.append(time.perf_counter() - watch.ended)
        return watch.losses, watch.ended - watch.began

    return run


def own(trainer: keras.Model, batches: Windows, count: int) -> Fit:
    """Return what trains a network of the library on the same batches, cut from the cube as it goes."""

    def run() -> tuple[list[float], float]:
        began = time.perf_counter()
        losses = [
            float(trainer.train_on_batch(x, y, return_dict=True)["loss"])
            for x, y in read_ahead(itertools.islice(batches.epoch(0), count))
        ]
        return losses, time.perf_counter() - began

    return run


def paired(one: Fit, other: Fit, pairs: int) -> tuple[list[float], list[float]]:
    """Time both in turn after a run that is not counted; return the seconds of each."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for found, run in zip(times, (one, other)):
            found.append(run()[1])
    return times


def ratio(times: tuple[list[float], list[float]]) -> float:
    """Return how many times faster the second is: the median of the ratios of pairs."""
    return cities.middle([one / other for one, other in zip(*times)])


def batches_of(cube: Cube, size: int, kind: type[Windows] = Windows) -> Windows:
    """Return batches over all steps but the first ones, shuffled."""
    return kind(Channels(cube), np.arange(LOOKBACK, len(cube)), LOOKBACK, size, 1)


def sgemm_rate() -> float:
    """Return the floating-point operations a second of a product of two 2048 x 2048 float32 matrices."""
    a, b = (tf.random.normal((2048, 2048), seed=seed) for seed in (1, 2))
    product = tf.function(lambda: tf.linalg.matmul(a, b))
    times = []
    for _ in range(12):
        began = time.perf_counter()
        product().numpy()
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / float(np.median(times[2:]))


def two_stack_operations(rows: int, columns: int, filters: int, kernel: int, batch: int) -> float:
    """Return the floating-point operations that a training step of the two-stack network needs.

    Convolutions forward, and twice as much backward (gradients of inputs and of weights), except that the
    counts need no gradient. The first step of a sequence has no recurrent convolution. A kernel does not
    reach over the edge of the grid.
    """
    edge = kernel // 2
    taps = sum(1 for d in range(-edge, edge + 1) for i in range(rows) if 0 <= i + d < rows)
    taps *= sum(1 for d in range(-edge, edge + 1) for i in range(columns) if 0 <= i + d < columns)
    # Multiplications and additions of one input channel for all gates, in all cells.
    unit = 2.0 * taps * 4 * filters * batch
    first = 2 * LOOKBACK * unit + 3 * (LOOKBACK - 1) * filters * unit
    second = 3 * (2 * LOOKBACK - 1) * filters * unit
    return 2 * (first + second)


def s2_cellwise(cube: Cube) -> dict[str, Any]:
    """Time 1 x 1 kernels, and follow both for 50 steps."""
    part = cube.crop(*WINDOW)
    keras.utils.set_random_seed(1)
    shape = (*part.grid.shape, 1)
    options = {"lookback": LOOKBACK, "filters": 128, "kernel": 1}
    reference = compiled(stock(convlstm, *shape, **options), masked_squared_error)
    network = convlstm.build_network(*shape, **options)
    network.set_weights(reference.get_weights())
    shared = CellwiseTwoStacks(network)
    inputs = shared.inputs()
    trainer = compiled(keras.Model(inputs, shared(inputs)), masked_squared_error)
    whole, distinct = batches_of(part, 4), batches_of(part, 4, DistinctHistories)
    theirs, ours = peer(reference, whole, 50)()[0], own(trainer, distinct, 50)()[0]
    apart = max(abs(a - b) / abs(a) for a, b in zip(theirs, ours))
    times = paired(peer(reference, whole, 8), own(trainer, distinct, 8), 5)
    return {
        "s2_1x1_speedup": ratio(times),
        "s2_1x1_loss_max_rel_diff": float(f"{apart:.3g}"),
        "s2_1x1_stock_seconds_a_step": cities.middle([t / 8 for t in times[0]]),
        "s2_1x1_seconds_a_step": cities.middle([t / 8 for t in times[1]]),
    }


def s2_spatial(cube: Cube) -> dict[str, Any]:
    """Time 3 x 3 kernels, and compare with the machine's own rate of multiplying matrices."""
    part = cube.crop(*WINDOW)
    keras.utils.set_random_seed(1)
    shape = (*part.grid.shape, 1)
    options = {"lookback": LOOKBACK, "filters": 128, "kernel": 3}
    reference = compiled(stock(convlstm, *shape, **options), masked_squared_error)
    network = convlstm.build_network(*shape, **options)
    network.set_weights(reference.get_weights())
    batches = batches_of(part, 4)
    rates = [sgemm_rate()]
    times = paired(peer(reference, batches, 2), own(compiled(network, masked_squared_error), batches, 2), 5)
    rates.append(sgemm_rate())
    operations = two_stack_operations(*part.grid.shape, 128, 3, 4)
    seconds = float(np.median(times[1])) / 2
    return {
        "s2_3x3_speedup": ratio(times),
        "s2_3x3_gemm_fraction": round(operations / seconds / float(np.mean(rates)), 4),
        "s2_3x3_seconds_a_step": round(seconds, 4),
        "sgemm_gflops": round(float(np.mean(rates)) / 1e9, 1),
    }


def s1(cube: Cube) -> dict[str, Any]:
    """Time the network of the ShotSpotter report on the whole grid."""
    keras.utils.set_random_seed(1)
    shape = (*cube.grid.shape, 1)
    loss = weighted_cross_entropy(10.0)
    reference = compiled(stock(shotspotter, *shape, lookback=LOOKBACK), loss)
    network = shotspotter.build_network(*shape, lookback=LOOKBACK)
    network.set_weights(reference.get_weights())
    batches = batches_of(cube, 8)
    ends: list[float] = []
    times = paired(peer(reference, batches, 3, ends), own(compiled(network, loss), batches, 3), 7)
    return {
        "s1_speedup": ratio(times),
        "s1_peer_seconds_to_end": cities.middle(ends),
        "s1_seconds_a_step": cities.middle([t / 3 for t in times[1]]),
    }


MEMORY_SCRIPT = """
import re, sys
from gridcast_qgis.core.jobs import run_job
from gridcast_qgis.core.reporter import Reporter

def peak():
    # Unlike ru_maxrss this does not count the parent's memory at the fork.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

class Watch(Reporter):
    def stage(self, name, start, end):
        super().stage(name, start, end)
        if name.startswith("Scoring"):
            print(peak())

settings = {"filters": 1, "lookback": 2, "batch_size": 16, "epochs": 1, "base_rate": sys.argv[3] == "yes"}
run_job("train", {"cube": sys.argv[1], "output": sys.argv[2], "model": "convlstm", **settings}, Watch())
print(peak())
"""


def memory(cube: Cube) -> dict[str, Any]:
    """Measure how the peak of a training grows with the cube: 1 is the cube itself, without a copy."""
    from gridcast_qgis.core.training.memory import cube_bytes

    found: dict[str, Any] = {"cube_mb": round(cube_bytes(cube) / 1e6)}
    short = cube.steps(0, 500)
    for name, base_rate in (("", "yes"), ("_without_base_rate", "no")):
        peaks = []
        for part in (short, cube):
            path, output = cities.CUBES / "memory.nc", cities.CUBES / "memory.gridcast"
            part.write(path)
            done = subprocess.run(
                [sys.executable, "-c", MEMORY_SCRIPT, str(path), str(output), base_rate],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(cities.ROOT)},
            )
            if done.returncode:
                sys.exit(done.stderr)
            peaks.append(np.array(done.stdout.split()[-2:], float))
            path.unlink()
            output.unlink()
        growth = (peaks[1] - peaks[0]) / (cube_bytes(cube) - cube_bytes(short))
        found[f"peak_rss_over_cube{name}"] = round(float(growth[0]), 3)
        found[f"peak_rss_over_cube_with_scores{name}"] = round(float(growth[1]), 3)
        found[f"peak_rss_mb{name}"] = round(float(peaks[1][1]) / 1e6)
    return found


def s3(cube: Cube) -> dict[str, Any]:
    """Time the Spatio-LSTM on months (see ``train_classifier.py``)."""
    found = train_classifier.measure(train_classifier.monthly(cube), 3)
    return {f"s3_{key}": value for key, value in found.items()}


MEASURES = {measure.__name__: measure for measure in (s2_cellwise, s2_spatial, s1, s3, memory)}


def main(names: list[str]) -> None:
    """Measure all, or only what is named, and write the result."""
    cube = cities.chicago(2011, 2018)
    result: dict[str, Any] = {}
    if names and RESULT.is_file():
        result = json.loads(RESULT.read_text(encoding="utf-8"))
    result |= {"cores": os.cpu_count(), "tensorflow": tf.__version__, "keras": keras.__version__}
    for name in names or MEASURES:
        began = time.perf_counter()
        found = MEASURES[name](cube)
        result |= found
        print(name, f"{time.perf_counter() - began:.0f} s", found, flush=True)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
