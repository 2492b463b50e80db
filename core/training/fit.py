# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop that fits a Keras network: early stopping, learning-rate drops, progress, cancel."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from ..errors import InputError
from ..reporter import Reporter


@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the training steps, at most.
    batch_size : int
        Windows per gradient step.
    learning_rate : float
        Of Adam, at the start; halved when the validation loss has not improved for
        half of `patience` epochs.
    patience : int
        Epochs without a better validation loss after which training ends.
    seed : int
        Decides initial weights and the order of the windows.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"The value must be at least {least}.", parameter=name.upper(), value=value)
        if not 0 < self.learning_rate < 1:
            raise InputError(
                "The learning rate must lie between 0 and 1.",
                hint="0.002 is a good start.",
                parameter="LEARNING_RATE",
                value=self.learning_rate,
            )


def fit_network(
    network: keras.Model,
    loss: Callable[[object, object], object],
    train: keras.utils.PyDataset,
    validation: keras.utils.PyDataset,
    options: FitOptions,
    reporter: Reporter,
) -> dict[str, list[float]]:
    """Train the network in place and leave the weights of its best epoch in it.

    The untrained network counts as epoch 0: where training only makes it worse,
    its initial weights come back.

    Returns
    -------
    dict
        ``loss`` and ``val_loss`` per epoch (``val_loss`` begins with epoch 0),
        ``learning_rate`` and ``seconds`` per epoch.

    Raises
    ------
    JobCancelled
        The reporter was asked to stop; checked at every batch.
    InputError
        The loss is not finite any more.
    """
    # Keras compiles the loss into the model file unless the compiled model is a shell of its own.
    trainer = keras.Model(network.inputs, network.outputs)
    # XLA's convolutions on the CPU are many times slower than the default ones.
    trainer.compile(keras.optimizers.Adam(options.learning_rate), loss=loss, jit_compile=False)
    initial_weights = [np.array(value) for value in trainer.get_weights()]
    watch = _Watch(reporter, options, len(train))
    initial_loss = float(trainer.evaluate(validation, verbose=0, callbacks=[watch]))
    reporter.metric("val_loss", initial_loss, 0)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=options.patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=0.5, patience=max(1, options.patience // 2)
    )
    history = trainer.fit(
        train,
        validation_data=validation,
        epochs=options.epochs,
        verbose=0,
        callbacks=[watch, stopping, plateau],
    ).history
    if min(history["val_loss"]) >= initial_loss:
        trainer.set_weights(initial_weights)
        reporter.warning("Training did not improve on the untrained network; its initial weights are kept.")
    return {
        "loss": [float(v) for v in history["loss"]],
        "val_loss": [initial_loss, *(float(v) for v in history["val_loss"])],
        "learning_rate": watch.learning_rates,
        "seconds": watch.seconds,
    }


class _Watch(keras.callbacks.Callback):
    """Reports progress and stops a cancelled or broken run."""

    def __init__(self, reporter: Reporter, options: FitOptions, batches: int) -> None:
        super().__init__()
        self._reporter = reporter
        self._epochs = options.epochs
        self._learning_rate = options.learning_rate
        self._batches = batches
        self._epoch = 0
        self._began = 0.0
        self.seconds: list[float] = []
        self.learning_rates: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch
        self._began = time.perf_counter()
        self.learning_rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._check_loss((logs or {}).get("loss", 0.0))
        self._reporter.progress((self._epoch + (batch + 1) / self._batches) / self._epochs)

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        self._reporter.check()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        # The last batch can ruin the weights after its own loss was measured.
        self._check_loss(logs["val_loss"])
        self.seconds.append(time.perf_counter() - self._began)
        self._reporter.metric("loss", float(logs["loss"]), epoch + 1)
        self._reporter.metric("val_loss", float(logs["val_loss"]), epoch + 1)
        left = (self._epochs - epoch - 1) * self.seconds[-1]
        self._reporter.message(
            f"Epoch {epoch + 1} of {self._epochs}: loss {logs['loss']:.5f}, validation loss "
            f"{logs['val_loss']:.5f}, {self.seconds[-1]:.0f} s; at most {left:.0f} s left."
        )

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(float(loss)):
            raise InputError(
                f"Training diverged in epoch {self._epoch + 1}: the loss is {loss}.",
                hint="Choose a smaller learning rate.",
                parameter="LEARNING_RATE",
                value=self._learning_rate,
            )
