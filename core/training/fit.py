# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop that fits a Keras network: early stop, learning-rate drops, checkpoints, progress, cancel."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ..errors import InputError
from ..reporter import Reporter
from .checkpoints import Checkpoint, TrainingState


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
        Of Adam, at the start.
    schedule : {"plateau", "cosine"}
        How the learning rate falls. Plateau: halved when the validation loss has not improved for half of
        `patience` epochs. Cosine: along half a cosine over all `epochs`, so that the last ones settle.
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
    schedule: str = "plateau"

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


class Batches:
    """Samples that a network is trained or judged on.

    A subclass calls ``super().__init__(count, batch_size, seed)`` and writes :meth:`batch`.

    Parameters
    ----------
    count : int
        Number of samples.
    batch_size : int
        Samples a batch; the last one may be smaller.
    seed : int, optional
        Decides, with the epoch, the order of the samples in an epoch; None: their own order.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None) -> None:
        self._count = count
        self.batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return -(-self._count // self.batch_size)

    def shuffled(self, seed: int) -> Batches:
        """Return the same samples, in the order that another seed decides."""
        other = copy.copy(self)
        other._seed = seed
        return other

    def batch(self, chosen: np.ndarray) -> tuple[Any, Any]:
        """Return inputs and targets of the samples with these numbers."""
        raise NotImplementedError

    def weight(self, target: Any) -> float:
        """Return how much a batch with these targets counts in the mean loss: as many as it has samples."""
        return float(len(target))

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of the epoch with this number (from 0)."""
        order = np.arange(self._count)
        if self._seed is not None:
            order = np.random.default_rng([self._seed, number]).permutation(self._count)
        for first in range(0, self._count, self.batch_size):
            yield self.batch(order[first : first + self.batch_size])


def read_ahead(batches: Iterator[tuple[Any, Any]]) -> Generator[tuple[Any, Any], None, None]:
    """Yield the same batches; each is read while the one before it is worked on.

    ``fit`` of Keras would do so too, but ends each pass over its data only when TensorFlow's tuning of
    the pipeline wakes up, which takes up to as long again as the pass itself.
    """
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def fit_network(
    network: keras.Model,
    loss: Callable[[object, object], object],
    train: Batches,
    validation: Batches | None,
    options: FitOptions,
    reporter: Reporter,
    *,
    trainer: keras.Model | None = None,
    checkpoint: Checkpoint | None = None,
) -> dict[str, list[float]]:
    """Train the network in place and leave the weights of its best epoch in it.

    The untrained network counts as epoch 0: where training only makes it worse,
    its initial weights come back.

    Parameters
    ----------
    validation : Batches, optional
        Without them there is no best epoch: all are trained, and the last weights stay.
    trainer : keras.Model, optional
        What is trained in its place: a model with the same weights that takes the batches in another
        form. By default the network takes them itself.
    checkpoint : Checkpoint, optional
        Where the state is kept after each epoch. If there is one of this training, it goes on from
        there, to the very weights that it would have reached without a break. The file is left to the
        caller, who may have more to do before it can go.

    Returns
    -------
    dict
        ``loss`` and ``val_loss`` per epoch (``val_loss`` begins with epoch 0; it is empty without
        validation), ``learning_rate`` and ``seconds`` per epoch.

    Raises
    ------
    JobCancelled
        The reporter was asked to stop; checked at every batch.
    InputError
        The loss is not finite any more, or the checkpoint is of another training.
    """
    # Keras compiles the loss into the model file unless the compiled model is a shell of its own.
    trainer = trainer or keras.Model(network.input, network.output)
    # XLA's convolutions on the CPU are many times slower than the default ones.
    trainer.compile(keras.optimizers.Adam(options.learning_rate), loss=loss, jit_compile=False)
    trainer.optimizer.build(trainer.trainable_variables)
    loop = _Loop(network, trainer, options, reporter, checkpoint)
    state = checkpoint.read() if checkpoint else None
    if state is None:
        loop.begin(validation)
    else:
        loop.resume(state)
    while not loop.finished:
        loop.run_epoch(train, validation)
    return loop.end()


def random_states(network: keras.Model) -> list[Any]:
    """Return the variables that hold the random numbers of layers such as dropout, which are no weights."""
    generators = (getattr(layer, "seed_generator", None) for layer in network.layers)
    return [generator.state for generator in generators if generator is not None]


class _Loop:
    """Runs a training: progress, cancel, learning rate, early stop, best weights, checkpoints."""

    def __init__(
        self,
        network: keras.Model,
        trainer: keras.Model,
        options: FitOptions,
        reporter: Reporter,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._network = network
        self._trainer = trainer
        self._options = options
        self._reporter = reporter
        self._checkpoint = checkpoint
        self._best: list[np.ndarray] = []
        # Epochs since the best loss, and since then or the last drop of the learning rate.
        self._waited = self._waited_rate = 0
        self._epoch = 0
        self.history: dict[str, list[float]] = {
            name: [] for name in ("loss", "val_loss", "learning_rate", "seconds")
        }

    def begin(self, validation: Batches | None) -> None:
        """Start with the untrained network, which is epoch 0."""
        if validation is None:
            return
        loss = self._judge(validation)
        self._reporter.metric("val_loss", loss, 0)
        self.history["val_loss"].append(loss)
        self._best = self._network.get_weights()

    def resume(self, state: TrainingState) -> None:
        """Go on after a state that was saved."""
        self._network.set_weights(state.weights)
        for variable, value in zip(self._trainer.optimizer.variables, state.optimizer):
            variable.assign(value)
        for variable, value in zip(random_states(self._network), state.random):
            variable.assign(value)
        self._epoch = state.epoch
        self.history = state.values["history"]
        self._waited, self._waited_rate = state.values["waited"]
        self._best = state.best
        self._reporter.message(
            f"Continuing after epoch {self._epoch} of {self._options.epochs} of a run that was broken off."
        )

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self._epoch >= self._options.epochs or self._waited >= self._options.patience

    def run_epoch(self, train: Batches, validation: Batches | None) -> None:
        """Take a gradient step for each batch, judge the network and keep the state."""
        began = time.perf_counter()
        rate = self._trainer.optimizer.learning_rate
        if self._options.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * self._epoch / self._options.epochs))
            rate.assign(self._options.learning_rate * share)
        self.history["learning_rate"].append(float(rate))
        self.history["loss"].append(self._train(train))
        better = True
        if validation is not None:
            loss = self._judge(validation)
            # The last batch can ruin the weights after its own loss was measured.
            self._check_loss(loss)
            better = loss < min(self.history["val_loss"])
            self.history["val_loss"].append(loss)
        self._epoch += 1
        self.history["seconds"].append(time.perf_counter() - began)
        if better:
            self._best = self._network.get_weights()
        self._adapt(better)
        self._report()
        if self._checkpoint:
            self._checkpoint.write(self._state())

    def end(self) -> dict[str, list[float]]:
        """Put the best weights back and return the history."""
        self._network.set_weights(self._best)
        if not self.history["val_loss"]:
            return self.history
        if int(np.argmin(self.history["val_loss"])) == 0:
            self._reporter.warning(
                "Training did not improve on the untrained network; its initial weights are kept."
            )
        self._reporter.message(
            f"Validation loss over the epochs: {sparkline(self.history['val_loss'])} "
            f"({self.history['val_loss'][0]:.5g} to {min(self.history['val_loss']):.5g})."
        )
        return self.history

    def _train(self, train: Batches) -> float:
        total = weight = 0.0
        with closing(read_ahead(train.epoch(self._epoch))) as batches:
            for number, (x, y) in enumerate(batches, start=1):
                loss = float(self._trainer.train_on_batch(x, y, return_dict=True)["loss"])
                self._check_loss(loss)
                counts = train.weight(y)
                total, weight = total + counts * loss, weight + counts
                self._reporter.progress((self._epoch + number / len(train)) / self._options.epochs)
        return total / weight

    def _judge(self, validation: Batches) -> float:
        total = weight = 0.0
        with closing(read_ahead(validation.epoch(0))) as batches:
            for x, y in batches:
                self._reporter.check()
                counts = validation.weight(y)
                total += counts * float(self._trainer.test_on_batch(x, y, return_dict=True)["loss"])
                weight += counts
        return total / weight

    def _adapt(self, better: bool) -> None:
        """Halve the learning rate when nothing has improved for half of the patience."""
        self._waited, self._waited_rate = (0, 0) if better else (self._waited + 1, self._waited_rate + 1)
        if self._options.schedule == "plateau" and self._waited_rate >= max(1, self._options.patience // 2):
            rate = self._trainer.optimizer.learning_rate
            rate.assign(float(rate) * 0.5)
            self._waited_rate = 0

    def _state(self) -> TrainingState:
        return TrainingState(
            self._epoch,
            self._network.get_weights(),
            self._best,
            [keras.ops.convert_to_numpy(variable) for variable in self._trainer.optimizer.variables],
            [keras.ops.convert_to_numpy(variable) for variable in random_states(self._network)],
            {"history": self.history, "waited": [self._waited, self._waited_rate]},
        )

    def _report(self) -> None:
        loss, judged = self.history["loss"][-1], self.history["val_loss"][-1:]
        seconds = float(np.median(self.history["seconds"]))
        self._reporter.metric("loss", loss, self._epoch)
        for each in judged:
            self._reporter.metric("val_loss", each, self._epoch)
        self._reporter.message(
            f"Epoch {self._epoch} of {self._options.epochs}: loss {loss:.5f}, "
            + "".join(f"validation loss {each:.5f}, " for each in judged)
            + f"{self.history['seconds'][-1]:.0f} s; at most "
            f"{(self._options.epochs - self._epoch) * seconds:.0f} s left."
        )

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(float(loss)):
            raise InputError(
                f"Training diverged in epoch {self._epoch + 1}: the loss is {loss}.",
                hint="Choose a smaller learning rate.",
                parameter="LEARNING_RATE",
                value=self._options.learning_rate,
            )


def sparkline(values: Sequence[float]) -> str:
    """Return a line of bars, the lowest value the lowest bar."""
    bars = "▁▂▃▄▅▆▇█"
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(bars[round((value - low) / span * (len(bars) - 1))] for value in values)
