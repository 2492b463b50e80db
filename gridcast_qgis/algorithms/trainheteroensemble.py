# SPDX-License-Identifier: GPL-2.0-or-later
"""Train Hetero Ensemble: one network for each window of the grid, averaged where windows overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import QgsProcessingContext

from ..core.errors import InputError
from ..i18n import tr
from . import parameters as p
from .trainconvlstm import TrainConvLstm

# Key, default; in the order in which they are shown.
_LAYOUT = {
    "SUBGRID_ROWS": 3,
    "SUBGRID_COLUMNS": 3,
    "WINDOW_ROWS": 2,
    "WINDOW_COLUMNS": 2,
    "WINDOW_STRIDE": 1,
}


class TrainHeteroEnsemble(TrainConvLstm):
    """Trains one network for each window of the grid."""

    ID = "trainheteroensemble"
    MODEL = "hetero"

    def title(self) -> str:
        return tr("Train Hetero Ensemble")

    def summary(self) -> str:
        return tr("Trains several neural networks, each for a part of the city, to forecast the next step.")

    def explanation(self) -> str:
        return tr(
            "Parts of a city follow different rules. The grid is cut into SUBGRID_ROWS x SUBGRID_COLUMNS "
            "subgrids, a window of WINDOW_ROWS x WINDOW_COLUMNS subgrids moves over them, and each window "
            "gets a convolutional LSTM of its own. Where windows overlap, the forecast is the mean. With the "
            "default layout there are four windows.\n\n"
            "The log and the outputs tell how good it is: SKILL is the gain in squared error over the "
            "historical average of each cell, in percent; PAI is how many times denser events are in the "
            "flagged 5 percent of the area than on average, with PAI_BASELINE for the historical average.\n\n"
            "It takes about as long as 'Train ConvLSTM' times the number of windows times their share of the "
            "area."
        )

    def keywords(self) -> list[str]:
        return [*super().keywords(), tr("ensemble"), tr("heterogeneity"), "Hetero-ConvLSTM"]

    def add_own_parameters(self) -> None:
        labels = {
            "SUBGRID_ROWS": (
                tr("Subgrids, rows"),
                tr("Into how many parts the grid is cut from north to south."),
            ),
            "SUBGRID_COLUMNS": (
                tr("Subgrids, columns"),
                tr("Into how many parts the grid is cut from west to east."),
            ),
            "WINDOW_ROWS": (tr("Window, rows"), tr("Height of a window in subgrids.")),
            "WINDOW_COLUMNS": (tr("Window, columns"), tr("Width of a window in subgrids.")),
            "WINDOW_STRIDE": (tr("Window stride"), tr("By how many subgrids the window moves on.")),
        }
        for key, default in _LAYOUT.items():
            label, text = labels[key]
            self.addParameter(p.integer(key, label, text, default=default, advanced=True))

    def own_request(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        return {key.lower(): self.parameterAsInt(parameters, key, context) for key in _LAYOUT}

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        super().verify(parameters, context)
        for window, subgrids in (("WINDOW_ROWS", "SUBGRID_ROWS"), ("WINDOW_COLUMNS", "SUBGRID_COLUMNS")):
            size = self.parameterAsInt(parameters, window, context)
            count = self.parameterAsInt(parameters, subgrids, context)
            if size > count:
                raise InputError(
                    f"The window is larger than the grid of {count} subgrids.",
                    hint=f"Choose at most {count}, or a larger {subgrids}.",
                    parameter=window,
                    value=size,
                )
