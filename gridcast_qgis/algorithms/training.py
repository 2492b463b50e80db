# SPDX-License-Identifier: GPL-2.0-or-later
"""What the algorithms that train a model share: their parameters, their request, their measures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
)

from ..core.errors import InputError
from ..i18n import tr
from . import parameters as p
from .base import TRAIN, GridcastAlgorithm

SPLITS = ("validation", "5-1-1", "walk-forward")

#: Settings that every model has.
COMMON = ("LOOKBACK", "EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "PATIENCE", "SEED")

#: A choice that leaves a setting to the architecture.
AUTO = "auto"

# Settings of a run, not of a model: they hold when a model is continued.
_OF_THE_RUN = frozenset(("EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "PATIENCE", "SEED", "WEIGHTS", "WORKERS"))


@dataclass(frozen=True)
class Architecture:
    """A model that can be trained.

    Attributes
    ----------
    settings : tuple of str
        Keys of its settings besides :data:`COMMON`; each is a setting of the worker's model in lower case.
    usual : dict
        What the worker takes for settings that are left empty.
    """

    settings: tuple[str, ...]
    usual: Mapping[str, float | str]


class TrainingAlgorithm(GridcastAlgorithm):
    """Base of the algorithms that train a model on a cube.

    A subclass names its architectures and adds their parameters with :meth:`add_setting`.
    """

    GROUP = TRAIN
    #: What can be trained, by its name for the worker; the first one is the default.
    ARCHITECTURES: Mapping[str, Architecture]
    #: Steps that are looked back by default.
    LOOKBACK: int

    # -- to be written by subclasses -----------------------------------------------------------

    def architectures_explained(self) -> str:
        """Return what the choices are, where there is more than one."""
        return ""

    @abstractmethod
    def add_main_parameters(self) -> None:
        """Add the parameters of its own that everybody sees."""

    @abstractmethod
    def add_further_parameters(self) -> None:
        """Add the advanced parameters of its own."""

    def independent_parts(self) -> str:
        """Return which trainings need nothing of each other, as the object of a sentence."""
        return tr("the folds of the split walk-forward")

    @abstractmethod
    def measures(self) -> dict[str, str]:
        """Return the number outputs: key, which is the worker's in upper case, and label."""

    # -- parameters ----------------------------------------------------------------------------

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        if len(self.ARCHITECTURES) > 1:
            names = tuple(self.ARCHITECTURES)
            self.addParameter(
                p.choice(
                    "ARCHITECTURE",
                    tr("Architecture"),
                    self.architectures_explained(),
                    names,
                    default=names[0],
                )
            )
        self.add_main_parameters()
        self.addParameter(
            p.words(
                "TYPES",
                tr("Types"),
                tr(
                    "Types of events to learn from and forecast, separated by commas; a name with a comma in "
                    "it goes in double quotes. Empty: all types together."
                ),
            )
        )
        self.add_setting(
            p.integer(
                "LOOKBACK",
                tr("Steps looked back"),
                tr("Number of past steps that the network sees."),
                default=self.LOOKBACK,
            )
        )
        self.add_setting(
            p.integer(
                "EPOCHS",
                tr("Most epochs"),
                tr(
                    "How often the network goes through the training steps at most; it stops earlier if it "
                    "can."
                ),
                optional=True,
            )
        )
        self.addParameter(
            p.file(
                "CONTINUE_FROM",
                tr("Model to continue from"),
                tr(
                    "A model made by this algorithm. Its settings hold, except those of the training that "
                    "are given here (epochs, batch size, learning rate, patience, seed), and it learns from "
                    "the steps of the cube that are newer than what it has learned from: append the latest "
                    "events to the cube before. Empty: a new model."
                ),
                p.MODEL_FILTER,
                optional=True,
            )
        )
        self.add_further_parameters()
        self._add_training_parameters()
        self.addParameter(
            p.new_file(
                "OUTPUT",
                tr("Model"),
                tr("File with the trained network; 'Forecast Heatmap' and 'Classify Hot Spots' apply it."),
                p.MODEL_FILTER,
            )
        )
        self.add_numbers(**self.measures())

    def add_setting(self, definition: QgsProcessingParameterDefinition) -> None:
        """Add a parameter that is a setting of models; its help says of which, and what is usual."""
        key, text = definition.name(), definition.help()
        usual: dict[str, list[str]] = {}
        for name, each in self.ARCHITECTURES.items():
            if key in each.usual:
                usual.setdefault(str(each.usual[key]), []).append(name)
        if usual:
            left_alone = AUTO if definition.defaultValue() == AUTO else tr("Empty")
            values = [f"{value} ({', '.join(names)})" for value, names in usual.items()]
            text = f"{text} {left_alone}: {', '.join(values) if len(usual) > 1 else next(iter(usual))}."
        having = [name for name in self.ARCHITECTURES if key in self.settings_of(name)]
        if len(having) < len(self.ARCHITECTURES):
            text = tr("{0} Only for {1}.").format(text, ", ".join(having))
        definition.setHelp(text)
        self.addParameter(definition)

    def _add_training_parameters(self) -> None:
        self.add_setting(
            p.integer(
                "BATCH_SIZE",
                tr("Batch size"),
                tr("Samples that are learned from at a time. Smaller needs less memory."),
                optional=True,
                advanced=True,
            )
        )
        self.add_setting(
            p.number(
                "LEARNING_RATE",
                tr("Learning rate"),
                tr("Size of the steps in which the network learns; it is lowered when there is no progress."),
                minimum=1e-7,
                maximum=1.0,
                optional=True,
                advanced=True,
            )
        )
        self.add_setting(
            p.integer(
                "PATIENCE",
                tr("Patience (epochs)"),
                tr("Epochs without progress after which training stops."),
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "SPLIT",
                tr("Split"),
                tr(
                    "Which steps are kept aside for validation. validation: the last VALIDATION_SHARE "
                    "percent. 5-1-1: of seven parts five train, one validates, one tests, as in the "
                    "ShotSpotter report. walk-forward: FOLDS trainings, each with more steps than the one "
                    "before and validated on the next ones; the model of the last one is kept."
                ),
                SPLITS,
                default="validation",
                advanced=True,
            )
        )
        self.addParameter(
            p.validation_share(
                tr(
                    "Share of the steps, the last ones, that are kept aside to measure how good the network "
                    "is. The split 5-1-1 has shares of its own."
                )
            )
        )
        self.addParameter(
            p.integer(
                "FOLDS",
                tr("Folds"),
                tr("Number of trainings of the split walk-forward."),
                default=4,
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
            p.file(
                "CHECKPOINT",
                tr("Checkpoint"),
                tr(
                    "File, which need not exist yet, that keeps the state of the training after each epoch. "
                    "If the run is broken off, run it again with the same values: it goes on from there to "
                    "the same model. The file is deleted when the model is written. Empty: no checkpoint."
                ),
                p.ANY_FILE,
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(p.scheduler(self.independent_parts()))
        self.add_setting(
            p.seed(
                tr("Start of the random numbers: the same seed gives the same network on the same computer.")
            )
        )

    # -- running -------------------------------------------------------------------------------

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        continued = p.optional_file(self, parameters, "CONTINUE_FROM", context)
        split = self.parameterAsEnumString(parameters, "SPLIT", context)
        if continued and split != "validation":
            raise InputError(
                "A model is continued with the split 'validation' only.",
                hint="Choose it, or leave CONTINUE_FROM empty.",
                parameter="SPLIT",
                value=split,
            )
        p.local_time(self, parameters, "UNTIL", context)
        p.check_destination(parameters, "OUTPUT", context, (".gridcast",))
        p.kept_file(self, parameters, "CHECKPOINT", context)
        p.check_distinct(parameters, ("CUBE", "CONTINUE_FROM", "OUTPUT", "CHECKPOINT"), context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        architecture = self._architecture(parameters, context)
        request = {
            "cube": p.existing_file(self, parameters, "CUBE", context),
            "model": architecture,
            "types": p.comma_list(self.parameterAsString(parameters, "TYPES", context)),
            "until": p.local_time(self, parameters, "UNTIL", context),
            "split": self.parameterAsEnumString(parameters, "SPLIT", context),
            "validation_share": self.parameterAsDouble(parameters, "VALIDATION_SHARE", context),
            "folds": self.parameterAsInt(parameters, "FOLDS", context),
            "checkpoint": p.kept_file(self, parameters, "CHECKPOINT", context),
            "continue_from": p.optional_file(self, parameters, "CONTINUE_FROM", context),
            "scheduler": p.scheduler_address(self, parameters, context),
            **self._settings(architecture, parameters, context, feedback),
            **self.further_request(parameters, context),
            "output": str(Path(output).absolute()),
        }
        made = self.run_worker("train", request, feedback)
        return {"OUTPUT": output, **{key: made.get(key.lower()) for key in self.measures()}}

    def further_request(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """Return what one algorithm alone asks of the worker."""
        return {}

    def settings_of(self, architecture: str) -> tuple[str, ...]:
        """Return the keys of the settings of an architecture."""
        return (*COMMON, *self.ARCHITECTURES[architecture].settings)

    def _architecture(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> str:
        if len(self.ARCHITECTURES) == 1:
            return next(iter(self.ARCHITECTURES))
        return self.parameterAsEnumString(parameters, "ARCHITECTURE", context)

    def _settings(
        self,
        architecture: str,
        parameters: Mapping[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Return the settings that hold, for the worker, and say which ones have been set in vain."""
        own = self.settings_of(architecture)
        continued = p.given(parameters, "CONTINUE_FROM")
        settings = {}
        for key in dict.fromkeys(key for name in self.ARCHITECTURES for key in self.settings_of(name)):
            value = p.plain_value(self, parameters, key, context)
            if key in own and (key in _OF_THE_RUN or not continued):
                if value is not None and value != AUTO:
                    settings[key.lower()] = value
            elif value != p.plain_value(self, {}, key, context):
                reason = (
                    tr("the model that is continued has its own value")
                    if key in own
                    else tr("{0} has no such setting").format(architecture)
                )
                feedback.pushWarning(tr("{0} is ignored: {1}.").format(key, reason))
        return settings


def classification_measures() -> dict[str, str]:
    """Return how well cells are told apart."""
    return {
        "AUC": tr("Area under the ROC curve (AUC)"),
        "AUC_BASELINE": tr("The same of the historical average"),
        "AVERAGE_PRECISION": tr("Average precision"),
        "F1": tr("F1"),
    }


def size_measures() -> dict[str, str]:
    """Return how much there was to train, and on what."""
    return {
        "EPOCHS_RUN": tr("Epochs run"),
        "PARAMETERS": tr("Weights of the network"),
        "TRAIN_STEPS": tr("Training steps"),
        "VALIDATION_STEPS": tr("Validation steps"),
    }
