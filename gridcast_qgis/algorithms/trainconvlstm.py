# SPDX-License-Identifier: GPL-2.0-or-later
"""Train ConvLSTM: a network learns from a cube what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsProcessingParameterString

from ..i18n import tr
from . import parameters as p
from .base import TRAIN, GridcastAlgorithm

OUTPUT_FORMS = ("poisson", "linear")


class TrainConvLstm(GridcastAlgorithm):
    """Trains one network for the whole grid."""

    ID = "trainconvlstm"
    GROUP = TRAIN
    #: Name of the model for the worker.
    MODEL = "convlstm"

    def title(self) -> str:
        return tr("Train ConvLSTM")

    def summary(self) -> str:
        return tr(
            "Trains a neural network to forecast the events of the next step from those of the last ones."
        )

    def explanation(self) -> str:
        return tr(
            "The network (a convolutional LSTM) sees the last LOOKBACK steps of all cells and learns the "
            "expected number of events in each cell in the next step. The last steps of the cube are kept "
            "aside for validation; training stops when they are no longer forecast any better.\n\n"
            "The log and the outputs tell how good it is: SKILL is the gain in squared error over the "
            "historical average of each cell, in percent; PAI is how many times denser events are in the "
            "flagged 5 percent of the area than on average, with PAI_BASELINE for the historical average. "
            "Forecasts of crime beat the historical average by little; a skill of a few percent is good.\n\n"
            "Training takes minutes to hours, depending on cells, steps, EPOCHS and FILTERS."
        )

    def keywords(self) -> list[str]:
        return [tr("train"), tr("model"), tr("neural network"), tr("deep learning"), "ConvLSTM", "LSTM"]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("TYPES", tr("Types"), None, optional=True),
                tr(
                    "Types of events to learn from and forecast, separated by commas; a name with a comma in "
                    "it goes in double quotes. Empty: all types together."
                ),
            )
        )
        self.addParameter(
            p.integer(
                "LOOKBACK",
                tr("Steps looked back"),
                tr("Number of past steps that the network sees, such as 7 days."),
                default=7,
            )
        )
        self.addParameter(
            p.integer(
                "EPOCHS",
                tr("Most epochs"),
                tr(
                    "How often the network goes through the training steps at most; it stops earlier if it "
                    "can."
                ),
                default=20,
            )
        )
        self.addParameter(
            p.integer(
                "FILTERS",
                tr("Filters"),
                tr("Width of the network. More filters can learn more, take longer and need more data."),
                default=16,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "KERNEL",
                tr("Kernel size"),
                tr("Cells that each layer looks at, in each direction; odd. 1 sees no neighbouring cells."),
                default=3,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "OUTPUT_FORM",
                tr("Form of the output"),
                tr(
                    "poisson: an expected count, never negative, trained for counts. linear: trained on "
                    "squared errors and cut off at zero."
                ),
                OUTPUT_FORMS,
                default="poisson",
                advanced=True,
            )
        )
        self.addParameter(
            p.switch(
                "BASE_RATE",
                tr("Learn the change from each cell's average"),
                tr(
                    "Starts from the average of each cell, so that the network only learns what differs "
                    "from it."
                ),
                default=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "BATCH_SIZE",
                tr("Batch size"),
                tr("Samples that are learned from at a time. Smaller needs less memory."),
                default=8,
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "LEARNING_RATE",
                tr("Learning rate"),
                tr("Size of the steps in which the network learns; it is lowered when there is no progress."),
                default=0.002,
                minimum=1e-7,
                maximum=1.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "PATIENCE",
                tr("Patience (epochs)"),
                tr("Epochs without progress after which training stops."),
                default=4,
                advanced=True,
            )
        )
        self.addParameter(
            p.number(
                "VALIDATION_SHARE",
                tr("Validation share (percent)"),
                tr(
                    "Share of the steps, the last ones, that are kept aside to measure how good the network "
                    "is."
                ),
                default=15.0,
                minimum=1.0,
                maximum=50.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.moment(
                "UNTIL",
                tr("Use steps until"),
                tr(
                    "Only steps that end by this time of the cube's clock are used, so that later ones can "
                    "test the forecast. Empty: all steps."
                ),
            )
        )
        self.addParameter(
            p.integer(
                "SEED",
                tr("Seed"),
                tr("Start of the random numbers: the same seed gives the same network on the same computer."),
                default=1,
                minimum=0,
                maximum=2**31 - 1,
                advanced=True,
            )
        )
        self.add_own_parameters()
        self.addParameter(
            p.new_file(
                "OUTPUT",
                tr("Model"),
                tr("File with the trained network; the next step is 'Forecast Heatmap'."),
                p.MODEL_FILTER,
            )
        )
        self.add_numbers(
            VALIDATION_LOSS=tr("Validation loss"),
            VALIDATION_MSE=tr("Mean squared error of the validation steps"),
            BASELINE_MSE=tr("The same of the historical average"),
            SKILL=tr("Skill over the historical average (percent)"),
            PAI=tr("Prediction accuracy index"),
            PAI_BASELINE=tr("The same of the historical average"),
            EPOCHS_RUN=tr("Epochs run"),
            PARAMETERS=tr("Weights of the network"),
            TRAIN_STEPS=tr("Training steps"),
            VALIDATION_STEPS=tr("Validation steps"),
        )

    def add_own_parameters(self) -> None:
        """Add parameters of one kind of model; this one has none."""

    def own_request(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return their values for the worker."""
        return {}

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        p.local_time(self, parameters, "UNTIL", context)
        p.check_destination(parameters, "OUTPUT", context, (".gridcast",))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        request = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "model": self.MODEL,
            "types": p.comma_list(self.parameterAsString(parameters, "TYPES", context)),
            "lookback": self.parameterAsInt(parameters, "LOOKBACK", context),
            "filters": self.parameterAsInt(parameters, "FILTERS", context),
            "kernel": self.parameterAsInt(parameters, "KERNEL", context),
            "output_form": self.parameterAsEnumString(parameters, "OUTPUT_FORM", context),
            "base_rate": self.parameterAsBoolean(parameters, "BASE_RATE", context),
            "epochs": self.parameterAsInt(parameters, "EPOCHS", context),
            "batch_size": self.parameterAsInt(parameters, "BATCH_SIZE", context),
            "learning_rate": self.parameterAsDouble(parameters, "LEARNING_RATE", context),
            "patience": self.parameterAsInt(parameters, "PATIENCE", context),
            "validation_share": self.parameterAsDouble(parameters, "VALIDATION_SHARE", context),
            "until": p.local_time(self, parameters, "UNTIL", context),
            "seed": self.parameterAsInt(parameters, "SEED", context),
            **self.own_request(parameters, context),
            "output": str(Path(output).absolute()),
        }
        made = self.run_worker("train", request, feedback)
        return {
            "OUTPUT": output,
            "VALIDATION_LOSS": made["validation_loss"],
            "VALIDATION_MSE": made["validation_mse"],
            "BASELINE_MSE": made["baseline_mse"],
            "SKILL": made["skill"],
            "PAI": made["pai"],
            "PAI_BASELINE": made["pai_baseline"],
            "EPOCHS_RUN": made["epochs_run"],
            "PARAMETERS": made["parameters"],
            "TRAIN_STEPS": made["train_steps"],
            "VALIDATION_STEPS": made["validation_steps"],
        }
