# SPDX-License-Identifier: GPL-2.0-or-later
"""Train Hotspot Classifier: a network learns which cells will be hot spots in the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import QgsProcessingContext

from ..core.errors import InputError
from ..i18n import tr
from . import parameters as p
from .training import AUTO, Architecture, TrainingAlgorithm, classification_measures, size_measures

LABEL_RULES = ("top_cells", "top_share", "threshold")
CANDIDATES = ("training", "all_steps", "all_cells")
BALANCES = ("none", "weights", "undersample")
SPLIT_MODES = ("chronological", "random")
CELLS = ("lstm", "rnn", "gru")

# Settings of all classifiers.
_LABELS = ("LABEL_RULE", "LABEL_VALUE", "CANDIDATES", "BALANCE", "SPLIT_MODE", "RAW")
# What CrimePredict's networks that see the whole grid take for settings left empty.
_FRAMES: dict[str, float | str] = {
    "EPOCHS": 30,
    "BATCH_SIZE": 4,
    "LEARNING_RATE": 0.001,
    "PATIENCE": 6,
    "CANDIDATES": "all_cells",
}


class TrainHotspotClassifier(TrainingAlgorithm):
    """Trains a network that tells hot cells from cold ones."""

    ID = "trainhotspotclassifier"
    LOOKBACK = 6
    ARCHITECTURES = {
        "spatiolstm": Architecture(
            (*_LABELS, "NEIGHBOURHOOD", "CELL", "UNITS", "DENSE", "TIMING", "LOCATION"),
            {
                "EPOCHS": 60,
                "BATCH_SIZE": 32,
                "LEARNING_RATE": 0.001,
                "PATIENCE": 10,
                "CANDIDATES": "training",
                "UNITS": 20,
                "DENSE": 50,
            },
        ),
        "cell_lstm": Architecture(
            (*_LABELS, "COVARIATES", "UNITS", "DENSE"),
            {**_FRAMES, "BATCH_SIZE": 256, "UNITS": 64, "DENSE": 32},
        ),
        "cnn3d": Architecture((*_LABELS, "COVARIATES", "FILTERS"), _FRAMES),
        "cnn_rnn": Architecture((*_LABELS, "COVARIATES", "FILTERS"), _FRAMES),
    }

    def title(self) -> str:
        return tr("Train Hotspot Classifier")

    def summary(self) -> str:
        return tr("Trains a neural network to tell which cells will be hot spots in the next step.")

    def explanation(self) -> str:
        return tr(
            "LABEL_RULE decides which cells of a step are hot; the network sees the LOOKBACK steps before "
            "and learns the probability that a cell is hot. It suits long steps, such as months, and tasks "
            "where only the hottest cells matter. Four networks can be chosen:\n\n"
            "spatiolstm, after Zhuang et al., Spatio-LSTM (2017): each candidate cell is judged by its own "
            "past and that of its neighbours, the calendar and its place in the grid.\n\n"
            "cell_lstm, cnn3d and cnn_rnn, after the CrimePredict poster: an LSTM for each cell, 3D "
            "convolutions over the whole grid, and convolutions for each step with a recurrent network over "
            "them. They can use covariates.\n\n"
            "The last steps of the cube are kept aside for validation; training stops when they are no "
            "longer told apart any better. The log and the outputs tell how good it is: AUC is the chance "
            "that a hot cell gets a higher probability than a cold one, 0.5 being a coin; average precision "
            "and F1 look at the few hot cells alone. AUC_BASELINE is that of the historical average, whose "
            "order of cells is hard to beat. THRESHOLD is the probability from which a cell is best called "
            "hot; 'Classify Hot Spots' uses it.\n\n"
            "With a CHECKPOINT a run that was broken off goes on where it was."
        )

    def keywords(self) -> list[str]:
        return [
            tr("train"),
            tr("model"),
            tr("hot spot"),
            tr("classification"),
            tr("neural network"),
            tr("deep learning"),
            "Spatio-LSTM",
            "CrimePredict",
            "CNN",
            "LSTM",
        ]

    def architectures_explained(self) -> str:
        return tr(
            "spatiolstm: a cell and its neighbours over time (Spatio-LSTM). cell_lstm: the same, with "
            "one LSTM for all cells. cnn3d: 3D convolutions over the whole grid. cnn_rnn: convolutions for "
            "each step, and a recurrent network over them. The last three are from the CrimePredict poster."
        )

    def add_main_parameters(self) -> None:
        self.add_setting(
            p.choice(
                "LABEL_RULE",
                tr("What makes a cell hot"),
                tr(
                    "top_cells: it is one of the LABEL_VALUE cells with the most events of the step. "
                    "top_share: it is in the hottest LABEL_VALUE percent of the cells. threshold: it has at "
                    "least LABEL_VALUE events."
                ),
                LABEL_RULES,
                default="top_cells",
            )
        )
        self.add_setting(
            p.number(
                "LABEL_VALUE",
                tr("Value of the rule"),
                tr("A number of cells, a percentage or a number of events, as LABEL_RULE says."),
                default=20.0,
                minimum=0.0,
            )
        )

    def add_further_parameters(self) -> None:
        self.addParameter(
            p.switch(
                "COMPARE",
                tr("Compare with simple classifiers"),
                tr(
                    "Also trains a decision tree, a random forest, naive Bayes, LDA, an SVC, an MLP and a "
                    "logistic regression on the same samples, and writes their scores into the log and the "
                    "model file. For spatiolstm only."
                ),
                default=False,
                advanced=True,
            )
        )
        self._add_samples()
        self._add_inputs()
        self._add_layers()

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        super().verify(parameters, context)
        architecture = self.parameterAsEnumString(parameters, "ARCHITECTURE", context)
        if self.parameterAsBoolean(parameters, "COMPARE", context) and architecture != "spatiolstm":
            raise InputError(
                "The simple classifiers learn from the samples of a Spatio-LSTM.",
                hint="Choose the ARCHITECTURE spatiolstm, or switch COMPARE off.",
                parameter="COMPARE",
                value="true",
            )

    def further_request(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        return {"compare": self.parameterAsBoolean(parameters, "COMPARE", context)}

    def measures(self) -> dict[str, str]:
        return {
            "VALIDATION_LOSS": tr("Validation loss"),
            **classification_measures(),
            "THRESHOLD": tr("Probability from which a cell is called hot"),
            **size_measures(),
        }

    def _add_samples(self) -> None:
        self.add_setting(
            p.choice(
                "CANDIDATES",
                tr("Candidate cells"),
                tr(
                    "Cells that are learned from and judged; all others count as cold. training: those that "
                    "were ever hot in the training steps. all_cells: the whole study area. all_steps: those "
                    "that are ever hot, which looks into the future; to reproduce published numbers only."
                ),
                (AUTO, *CANDIDATES),
                default=AUTO,
                advanced=True,
            )
        )
        self.add_setting(
            p.choice(
                "BALANCE",
                tr("Balance of hot and cold"),
                tr(
                    "Cold cells are many more than hot ones. none: learn from them as they are. weights: hot "
                    "and cold ones have the same class weight in all. undersample: as many cold ones as hot "
                    "ones are chosen by chance. Probabilities are corrected for it."
                ),
                BALANCES,
                default="none",
                advanced=True,
            )
        )
        self.add_setting(
            p.choice(
                "SPLIT_MODE",
                tr("Order of the split"),
                tr(
                    "chronological: validation comes after training. random (leaks, for reproduction only): "
                    "samples are dealt out by chance as in the longer Spatio-LSTM paper; what is validated "
                    "has then been seen in training, and the measures are too good."
                ),
                SPLIT_MODES,
                default="chronological",
                advanced=True,
            )
        )

    def _add_inputs(self) -> None:
        self.add_setting(
            p.switch(
                "RAW",
                tr("Raw counts"),
                tr("Feeds the counts as they are, as published, instead of their standardised logarithm."),
                default=False,
                advanced=True,
            )
        )
        self.add_setting(
            p.words(
                "COVARIATES",
                tr("Covariates"),
                tr(
                    "Names of covariates of the cube that the network sees besides the counts, separated by "
                    "commas, such as those of a census ('Add Covariates to Cube')."
                ),
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "NEIGHBOURHOOD",
                tr("Neighbourhood (cells)"),
                tr("Side of the square around a cell whose counts are seen; odd. The longer paper has 21."),
                default=3,
                advanced=True,
            )
        )
        self.add_setting(
            p.switch(
                "TIMING",
                tr("See the calendar"),
                tr("Feeds where in the year, the week and the day each step is."),
                default=True,
                advanced=True,
            )
        )
        self.add_setting(
            p.switch(
                "LOCATION",
                tr("See the place"),
                tr("Feeds where in the grid the cell is."),
                default=True,
                advanced=True,
            )
        )

    def _add_layers(self) -> None:
        self.add_setting(
            p.choice(
                "CELL",
                tr("Recurrent layer"),
                tr("What goes through the steps: an LSTM, a simple recurrent layer or a GRU."),
                CELLS,
                default="lstm",
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "UNITS",
                tr("Units"),
                tr("Width of the recurrent layer."),
                optional=True,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "DENSE",
                tr("Units of the dense layer"),
                tr("Width of the layer before the output."),
                optional=True,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "FILTERS",
                tr("Filters"),
                tr("Filters of the first convolution; the others have more in proportion."),
                default=16,
                advanced=True,
            )
        )
