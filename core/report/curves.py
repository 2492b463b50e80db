# SPDX-License-Identifier: GPL-2.0-or-later
"""The course of a training as a picture."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from .figures import RED, new_figure, png, style


def loss_curve(history: dict[str, list[float]]) -> bytes:
    """Return a PNG of training and validation loss over the epochs; the best epoch is marked.

    Parameters
    ----------
    history : dict
        ``loss`` per epoch and ``val_loss``, which begins with the untrained network.
    """
    loss, validation = history["loss"], history["val_loss"]
    best = min(range(len(validation)), key=validation.__getitem__)
    with style():
        figure = new_figure()
        axes = figure.add_subplot()
        axes.plot(range(1, len(loss) + 1), loss, color="#7a8b99", marker=".", label="training")
        axes.plot(range(len(validation)), validation, color=RED, marker=".", label="validation")
        axes.plot([best], [validation[best]], "o", color=RED, label=f"best: epoch {best}")
        axes.set_xlabel("Epoch (0: untrained)")
        axes.set_ylabel("Loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        return png(figure)
