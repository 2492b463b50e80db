# SPDX-License-Identifier: GPL-2.0-or-later
"""Train Hetero Ensemble: one network for each window of the grid, averaged where windows overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import QgsProcessingContext

from ..core.errors import InputError
from ..i18n import tr
from . import parameters as p
from .networks import CHANNELS, COUNTS, COUNTS_USUAL, GRIDCAST, GRIDCAST_USUAL, NetworkTraining
from .training import Architecture

WEIGHTS = ("equal", "learned")

# Key, default; in the order in which they are shown.
_LAYOUT = {
    "SUBGRID_ROWS": 3,
    "SUBGRID_COLUMNS": 3,
    "WINDOW_ROWS": 2,
    "WINDOW_COLUMNS": 2,
    "WINDOW_STRIDE": 1,
}
_ENSEMBLE = (*_LAYOUT, "WEIGHTS", "TAPER", "WORKERS")


class TrainHeteroEnsemble(NetworkTraining):
    """Trains one network for each window of the grid."""

    ID = "trainheteroensemble"
    LOOKBACK = 7
    ARCHITECTURES = {
        "hetero_gridcast": Architecture((*GRIDCAST, *_ENSEMBLE), GRIDCAST_USUAL),
        "hetero": Architecture((*CHANNELS, *COUNTS, *_ENSEMBLE), COUNTS_USUAL),
    }

    def title(self) -> str:
        return tr("Train Hetero Ensemble")

    def summary(self) -> str:
        return tr("Trains several neural networks, each for a part of the city, to forecast the next step.")

    def explanation(self) -> str:
        return tr(
            "Parts of a city follow different rules. The grid is cut into SUBGRID_ROWS x SUBGRID_COLUMNS "
            "subgrids, a window of WINDOW_ROWS x WINDOW_COLUMNS subgrids moves over them, and each window "
            "gets a network for counts of its own, a member of the ensemble. Where windows overlap, the "
            "forecast is the mean of their members. With the default layout there are four windows, as in "
            "Ahrens & de Wolff (2023). The ARCHITECTURE decides what the members are:\n\n"
            "hetero_gridcast: Gridcast networks, the default of 'Train ConvLSTM'. Each is checked against "
            "simple methods on the validation steps of its window, and learns from these too after that.\n\n"
            "hetero: convolutional LSTMs, as published.\n\n"
            "The log and the outputs tell how good it is: SKILL is the gain in squared error over the "
            "historical average of each cell, in percent; PAI is how many times denser events are in the "
            "flagged 5 percent of the area than on average; AUC tells how well cells with events are told "
            "from those without, 0.5 being chance. The outputs that end in BASELINE are the same for the "
            "historical average.\n\n"
            "It takes about as long as 'Train ConvLSTM' times the number of windows times their share of the "
            "area; WORKERS trains several members at the same time on this computer, SCHEDULER on a cluster. "
            "With a CHECKPOINT a run that was broken off goes on where it was."
        )

    def keywords(self) -> list[str]:
        return [
            tr("train"),
            tr("model"),
            tr("neural network"),
            tr("deep learning"),
            tr("ensemble"),
            tr("heterogeneity"),
            "ConvLSTM",
            "LSTM",
            "Hetero-ConvLSTM",
        ]

    def architectures_explained(self) -> str:
        return tr(
            "What the members are. hetero_gridcast: Gridcast networks, which correct a mixture of averages. "
            "hetero: two stacks of convolutional LSTMs each (Hetero-ConvLSTM paper)."
        )

    def add_main_parameters(self) -> None:
        # The windows are for those who know them.
        self.add_gridcast_choices()

    def add_further_parameters(self) -> None:
        self.add_gridcast_network()
        self.add_channels()
        self.add_counts_network()
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
            self.add_setting(p.integer(key, label, text, default=default, advanced=True))
        self.add_setting(
            p.choice(
                "WEIGHTS",
                tr("Weights of the members"),
                tr(
                    "How members are put together where windows overlap. equal: their mean, as published. "
                    "learned: weights that forecast the validation steps best."
                ),
                WEIGHTS,
                default="equal",
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "TAPER",
                tr("Taper (cells)"),
                tr(
                    "Cells over which the weight of a member falls off towards an edge of its window, so "
                    "that the forecast has no seams; with equal WEIGHTS only. 0: not at all, as published."
                ),
                default=0,
                minimum=0,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "WORKERS",
                tr("Members at the same time"),
                tr(
                    "Members that are trained at the same time on this computer; each one needs a processor "
                    "core and memory. On a cluster (SCHEDULER) its workers decide."
                ),
                default=1,
                advanced=True,
            )
        )

    def independent_parts(self) -> str:
        return tr("the members of the ensemble, or the folds of the split walk-forward")

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
