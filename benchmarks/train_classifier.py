# SPDX-License-Identifier: GPL-2.0-or-later
"""How much faster a Spatio-LSTM is trained than by feeding Keras one window a: ``train_classifier.py``.

Both sides have the same network, samples, batch size, number of epochs, loss and optimizer, and validate
after each epoch. The other side is what Keras offers from the shelf: windows in arrays, ``LSTM`` with its
defaults, ``Model.fit``. Our time is that of the whole ``fit`` of the model (labels, samples, training,
threshold and scores), theirs that of ``compile`` and ``fit`` alone. Both pay for building their graphs.
"""

from __future__ import annotations

import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cities
import keras
import numpy as np
from keras import layers

from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.models.classifier import Inputs, Samples
from gridcast_qgis.core.models.spatiolstm import CellWindows, SpatioLSTM, SpatioLSTMSettings, sample_index
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.timesteps import TimeAxis
from gridcast_qgis.core.training.splits import Split


def monthly(cube: Cube) -> Cube:
    """Return the cube of whole months of a cube of days that begins with a month."""
    axis = TimeAxis.covering(cube.axis.edges[0], cube.axis.edges[-1], "month", cube.axis.time_zone)
    months = len(axis) - 1
    first = np.searchsorted(cube.axis.edges, axis.edges[: months + 1])
    counts = np.add.reduceat(cube.total[: first[-1]], first[:-1], axis=0)
    return Cube(cube.grid, axis.slice(0, months), ("events",), counts[:, None])


def split_of(steps: int, lookback: int) -> Split:
    """Return the split of the poster, 42/6/6 months out of 60, in proportion."""
    held_out = round((steps - lookback) / 9)
    return Split(
        lookback, steps - 2 * held_out, steps - 2 * held_out, steps - held_out, steps - held_out, steps
    )


def shelf(cube: Cube, split: Split, settings: SpatioLSTMSettings) -> tuple[float, float]:
    """Train with arrays of windows and Keras's own parts; return seconds and the best validation loss."""
    samples = Samples.draw(cube, split, settings)
    inputs = Inputs.learn(cube, (), settings.raw, samples.candidates, split.train_stop)
    windows = CellWindows(inputs, settings.lookback, settings.neighbourhood, settings.timing)

    def arrays(weights: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        steps, cells = sample_index(weights)
        return [windows.windows(steps, cells), windows.places(cells)], samples.labels[weights > 0]

    train, validation = arrays(samples.train), arrays(samples.validation)
    keras.utils.set_random_seed(settings.seed)
    seen, place = keras.Input(windows.shape), keras.Input((2,))
    states = layers.Flatten()(layers.LSTM(settings.units, return_sequences=True)(seen))
    x = layers.Dense(settings.dense, activation="relu")(layers.Concatenate()([states, place]))
    network = keras.Model([seen, place], layers.Dense(2, activation="softmax")(x))
    began = time.perf_counter()
    network.compile(
        keras.optimizers.Adam(settings.learning_rate), "sparse_categorical_crossentropy", jit_compile=False
    )
    history = network.fit(
        *train,
        validation_data=validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        verbose=0,
    ).history
    return time.perf_counter() - began, min(history["val_loss"])


def ours(cube: Cube, split: Split, settings: SpatioLSTMSettings) -> tuple[float, float, SpatioLSTM]:
    """Train with Gridcast; return seconds, the best validation loss and the model."""
    began = time.perf_counter()
    model = SpatioLSTM(**vars(settings)).fit(cube, split, Reporter())
    seconds = time.perf_counter() - began
    return seconds, min(model.history_["val_loss"]), model


def measure(cube: Cube, pairs: int = 3, epochs: int = 60) -> dict[str, float]:
    """Train both ways, by turns, and compare pair by pair.

    Parameters
    ----------
    cube : Cube
        Of months.
    pairs : int
        Number of pairs.
    epochs : int
        Passes over the samples, without early stopping.

    Returns
    -------
    dict
        Medians: ``speedup`` of a whole training, seconds of both, seconds of an ``epoch`` of ours,
        validation losses of both; and the number of training ``samples``.
    """
    rows = []
    for pair in range(pairs):
        settings = SpatioLSTMSettings(epochs=epochs, patience=epochs, seed=pair + 1)
        split = split_of(len(cube), settings.lookback)
        other, other_loss = shelf(cube, split, settings)
        own, own_loss, model = ours(cube, split, settings)
        assert len(model.history_["loss"]) == epochs and model.samples_ is not None
        epoch = float(np.median(model.history_["seconds"]))
        rows.append((other / own, own, other, epoch, own_loss, other_loss))
        samples = int((model.samples_.train > 0).sum())
    names = ("speedup", "own_seconds", "keras_seconds", "own_epoch_seconds", "own_loss", "keras_loss")
    return {**{name: cities.middle(values) for name, values in zip(names, zip(*rows))}, "samples": samples}


def main() -> None:
    """Measure on Chicago and Portland."""
    cubes = {"chicago": monthly(cities.chicago(2011, 2018)), "portland": cities.portland()}
    report = {name: measure(cube, epochs=60 if name == "chicago" else 8) for name, cube in cubes.items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
