# SPDX-License-Identifier: GPL-2.0-or-later
"""Train ConvLSTM: a network learns from a cube how many events come next, or where there will be any."""

from __future__ import annotations

from ..i18n import tr
from . import parameters as p
from .networks import CHANNELS, COUNTS, COUNTS_USUAL, GRIDCAST, GRIDCAST_USUAL, NetworkTraining
from .training import Architecture

CALIBRATIONS = ("platt", "isotonic", "none")


class TrainConvLstm(NetworkTraining):
    """Trains one network for the whole grid."""

    ID = "trainconvlstm"
    LOOKBACK = 7
    ARCHITECTURES = {
        "gridcast": Architecture(GRIDCAST, GRIDCAST_USUAL),
        "convlstm": Architecture((*CHANNELS, *COUNTS), COUNTS_USUAL),
        "shotspotter": Architecture(
            (*CHANNELS, "TYPE_HEAD", "WIDTH", "PEEPHOLE", "EVENT_WEIGHT", "CALIBRATE"),
            {"EPOCHS": 100, "BATCH_SIZE": 20, "LEARNING_RATE": 0.001, "PATIENCE": 10},
        ),
    }

    def title(self) -> str:
        return tr("Train ConvLSTM")

    def summary(self) -> str:
        return tr("Trains a neural network to forecast the events of the next step from those before it.")

    def explanation(self) -> str:
        return tr(
            "The network sees what happened in all cells up to a step and learns what comes in that step. "
            "The ARCHITECTURE decides how:\n\n"
            "gridcast forecasts the expected number of events in each cell, and their types if the cube has "
            "several. It starts from a mixture of averages in the pace of the city, and learns what that "
            "misses: how each cell and its surroundings went over days, weeks, months and years, its own "
            "weekdays and seasons, what the same days of earlier years brought, and the calendar. It is "
            "checked against simple methods and is never worse than the best of them on the validation "
            "steps: where there are too few events to learn from, it becomes that method and says so. Then "
            "it learns from the validation steps too (FINAL_NETWORKS).\n\n"
            "convlstm sees the last LOOKBACK steps and forecasts the expected number of events. Two "
            "stacks of convolutional LSTMs, after Ahrens & de Wolff (2023).\n\n"
            "shotspotter sees as many steps and forecasts the probability of at least one event, for rare "
            "events such as gunfire. 3D convolutions and bidirectional convolutional LSTMs, after Lau & "
            "Song, ShotSpotter Model v1.0. Cells with an event count more in its training (EVENT_WEIGHT); "
            "CALIBRATE makes its probabilities true again. With TYPE_HEAD it also forecasts which type an "
            "event has.\n\n"
            "The last steps of the cube are kept aside for validation; training stops when they are no "
            "longer forecast any better.\n\n"
            "The log and the outputs tell how good it is: SKILL is the gain in squared error over the "
            "historical average of each cell, in percent; PAI is how many times denser events are in the "
            "flagged 5 percent of the area than on average; AUC tells how well cells with events are told "
            "from those without, 0.5 being chance. The outputs that end in BASELINE are the same for the "
            "historical average. Forecasts of crime beat the historical average by little; a skill of a few "
            "percent is good.\n\n"
            "Training takes minutes to hours, depending on cells, steps, EPOCHS, and SIZE, FILTERS or WIDTH. "
            "With a CHECKPOINT a run that was broken off goes on where it was."
        )

    def keywords(self) -> list[str]:
        return [
            tr("train"),
            tr("model"),
            tr("neural network"),
            tr("deep learning"),
            tr("probability"),
            tr("gunfire"),
            "ConvLSTM",
            "LSTM",
            "ShotSpotter",
        ]

    def architectures_explained(self) -> str:
        return tr(
            "gridcast: counts; corrects a mixture of averages, never worse than it on validation. convlstm: "
            "counts; two stacks of convolutional LSTMs (Hetero-ConvLSTM paper). shotspotter: "
            "probability of an event; 3D convolutions and bidirectional ConvLSTM (ShotSpotter report)."
        )

    def add_main_parameters(self) -> None:
        self.add_gridcast_choices()
        self.add_setting(
            p.switch(
                "TYPE_HEAD",
                tr("Forecast the type of the events"),
                tr(
                    "Also learns which type an event has if there is one. The cube needs two types or more "
                    "(TYPE_FIELD of 'Rasterize Events to Cube')."
                ),
                default=False,
            )
        )

    def add_further_parameters(self) -> None:
        self.add_gridcast_network()
        self.add_channels()
        self.add_counts_network()
        self.add_setting(
            p.number(
                "WIDTH",
                tr("Width"),
                tr("Factor on the number of filters of all layers; 1 is the network of the report."),
                default=1.0,
                minimum=0.01,
                maximum=64.0,
                advanced=True,
            )
        )
        self.add_setting(
            p.switch(
                "PEEPHOLE",
                tr("Peephole connections"),
                tr("Lets the gates see the memory of the cells, as in the equations of the report."),
                default=False,
                advanced=True,
            )
        )
        self.add_setting(
            p.number(
                "EVENT_WEIGHT",
                tr("Class weight of an event"),
                tr(
                    "How many times more a cell with an event counts in the training than one without. 0: as "
                    "many times as cells without an event outnumber those with one, at most 100. The "
                    "report names 100 and 10."
                ),
                default=0.0,
                minimum=0.0,
                maximum=1e6,
                advanced=True,
            )
        )
        self.add_setting(
            p.choice(
                "CALIBRATE",
                tr("Calibration"),
                tr(
                    "How the probabilities, which the class weight makes too large, are corrected on the "
                    "validation steps. platt: one smooth curve. isotonic: a rising curve of any shape, for "
                    "many validation steps. none: as published."
                ),
                CALIBRATIONS,
                default="platt",
                advanced=True,
            )
        )
