# SPDX-License-Identifier: GPL-2.0-or-later
"""What the algorithms share that train networks for counts and probabilities."""

from __future__ import annotations

from ..i18n import tr
from . import parameters as p
from .training import TrainingAlgorithm, classification_measures, size_measures

CHANNEL_FORMS = ("standard", "published")
OUTPUT_FORMS = ("poisson", "linear")
LOSS_FORMS = ("corrected", "published")
SIZES = ("fast", "standard", "large")
AIMS = ("counts", "hotspots")

#: Settings of networks that take severity, season and covariates.
CHANNELS = ("CHANNELS", "CHANNEL_FORM")
#: Settings of the ConvLSTM for counts, and what it takes for those left empty.
COUNTS = ("FILTERS", "KERNEL", "OUTPUT_FORM", "BASE_RATE", "LOSS_FORM")
COUNTS_USUAL = {"EPOCHS": 20, "BATCH_SIZE": 8, "LEARNING_RATE": 0.002, "PATIENCE": 4}
#: The same of the Gridcast network.
GRIDCAST = ("SIZE", "AIM", "DROPOUT", "SAMPLES", "FINAL_NETWORKS")
GRIDCAST_USUAL = {"EPOCHS": 10, "BATCH_SIZE": 8192, "LEARNING_RATE": 0.001, "PATIENCE": 10}


class NetworkTraining(TrainingAlgorithm):
    """Base of the algorithms that train networks for counts and probabilities."""

    def add_gridcast_choices(self) -> None:
        """Add the parameters of the Gridcast network that everybody sees."""
        self.add_setting(
            p.choice(
                "SIZE",
                tr("Size of the network"),
                tr("A larger network takes longer and learns finer differences from many events."),
                SIZES,
                default="standard",
            )
        )
        self.add_setting(
            p.choice(
                "AIM",
                tr("Aim of the Gridcast network"),
                tr(
                    "What it departs from is to tell best: the events of the next step, or the places of "
                    "those of the next two months, for small flagged areas on fine grids, in steps of a week."
                ),
                AIMS,
                default="counts",
            )
        )

    def add_gridcast_network(self) -> None:
        """Add the advanced parameters of the Gridcast network."""
        self.add_setting(
            p.number(
                "DROPOUT",
                tr("Dropout"),
                tr("Share of the network that each batch of the training leaves out by chance."),
                default=0.2,
                minimum=0.0,
                maximum=0.99,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "SAMPLES",
                tr("Most cells of steps to learn from"),
                tr("Drawn by chance where there are more; they are kept in memory, about 100 bytes each."),
                default=3_000_000,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "FINAL_NETWORKS",
                tr("Networks that learn from all steps"),
                tr(
                    "Once the validation period has judged a network, so many learn anew from all steps, and "
                    "forecast in its place, as their mean. Each takes as long again. 0: the network that was "
                    "judged forecasts."
                ),
                default=2,
                minimum=0,
                advanced=True,
            )
        )

    def add_channels(self) -> None:
        """Add the parameters for what is seen besides the counts."""
        self.add_setting(
            p.words(
                "CHANNELS",
                tr("Channels besides the counts"),
                tr(
                    "What the network sees of each step besides the counts, separated by commas: severity "
                    "(if the cube has severities), season, weekday, and names of covariates of the cube."
                ),
                advanced=True,
            )
        )
        self.add_setting(
            p.choice(
                "CHANNEL_FORM",
                tr("Form of the channels"),
                tr(
                    "standard: season and weekday as points on a circle, covariates standardised, severity "
                    "with a mark where nothing happened. published: the raw values, as in Ahrens & de Wolff "
                    "(2023), for reproduction."
                ),
                CHANNEL_FORMS,
                default="standard",
                advanced=True,
            )
        )

    def add_counts_network(self) -> None:
        """Add the parameters of the network for counts."""
        self.add_setting(
            p.integer(
                "FILTERS",
                tr("Filters"),
                tr("Width of the network. More filters can learn more, take longer and need more data."),
                default=16,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "KERNEL",
                tr("Kernel size"),
                tr("Cells that each layer looks at, in each direction; odd. 1 sees no neighbouring cells."),
                default=3,
                advanced=True,
            )
        )
        self.add_setting(
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
        self.add_setting(
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
        self.add_setting(
            p.choice(
                "LOSS_FORM",
                tr("Form of the loss"),
                tr(
                    "corrected: the error is averaged over the cells of the study area. published: as in "
                    "Ahrens & de Wolff (2023), where cells outside count as well; for reproduction, with "
                    "OUTPUT_FORM linear and BASE_RATE off."
                ),
                LOSS_FORMS,
                default="corrected",
                advanced=True,
            )
        )

    def measures(self) -> dict[str, str]:
        return {
            "VALIDATION_LOSS": tr("Validation loss"),
            "VALIDATION_MSE": tr("Mean squared error of the validation steps"),
            "BASELINE_MSE": tr("The same of the historical average"),
            "SKILL": tr("Skill over the historical average (percent)"),
            "PAI": tr("Prediction accuracy index"),
            "PAI_BASELINE": tr("The same of the historical average"),
            **classification_measures(),
            **size_measures(),
        }
