# SPDX-License-Identifier: GPL-2.0-or-later
"""Tune Model: searches for settings of a model that forecast better than the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterString,
)

from ..core.errors import InputError
from ..i18n import tr
from . import parameters as p
from .base import TRAIN, GridcastAlgorithm

#: Models that have settings to search, and what they are.
MODELS = {
    "gridcast": "expected events; corrects a mixture of averages",
    "convlstm": "expected events; two stacks of convolutional LSTMs",
    "shotspotter": "probability of an event; 3D convolutions and bidirectional ConvLSTM",
    "hetero": "expected events; an ensemble of ConvLSTMs for parts of the city",
    "hetero_gridcast": "expected events; an ensemble of Gridcast networks for parts of the city",
    "spatiolstm": "hot cells; an LSTM on a cell and its neighbours",
    "cell_lstm": "hot cells; one LSTM for all cells",
    "cnn3d": "hot cells; 3D convolutions over the whole grid",
    "cnn_rnn": "hot cells; convolutions and a recurrent network",
    "ewma": "expected events; weighted average, times level and weekday",
    "kde": "expected events; kernel density of past events",
    "promap": "expected events; prospective hotspotting",
    "self_exciting": "expected events; self-exciting point process",
    "boosted_trees": "expected events; gradient-boosted trees",
}
#: What is made good; auto: auc for hot cells, else deviance.
OBJECTIVES = ("auto", "deviance", "mse", "auc", "hit_rate")

#: Number outputs, which are called as those of the worker.
NUMBERS = {
    "BEST_SCORE": "Score of the best trial",
    "DEFAULT_SCORE": "Score of the default settings",
    "GAIN": "Gain over the default settings (percent)",
    "TRIALS": "Trials run",
    "PRUNED": "Trials given up",
    "FAILED": "Trials failed",
}


class TuneModel(GridcastAlgorithm):
    """Searches for settings, and trains a model with the best ones."""

    ID = "tunemodel"
    GROUP = TRAIN

    def title(self) -> str:
        return tr("Tune Model")

    def summary(self) -> str:
        return tr("Searches for settings of a model that forecast better, and trains it with the best ones.")

    def explanation(self) -> str:
        return tr(
            "Each trial trains the model with other settings and scores its forecasts of validation steps, "
            "the last VALIDATION_SHARE percent of the steps before UNTIL. The first trial has the usual "
            "settings, so that the result says whether the search was worth it. The next ones are drawn by "
            "chance, then a Bayesian search (TPE of Optuna) tries what promises most. A trial that is worse "
            "than most others after the same number of epochs is given up.\n\n"
            "What is tried of each setting is declared by the model; RANGES changes it, for instance:\n"
            "filters = 8..64 log; kernel = 1, 3, 5; learning_rate = 0.0001..0.01 log; epochs = 5\n"
            "A single value is set for all trials. Names are those of the parameters of the training "
            "algorithms in lower case. 'coarsen = 1, 2, 3' also tries larger cells, of 2 x 2 and 3 x 3 cells "
            "of the cube, and 'cell_size = 500..1500' the same in metres; their forecasts are spread back "
            "over the cells of the cube, so that all trials are scored on the same cells.\n\n"
            "When a training stops is decided on steps before those that it is scored on, and steps after "
            "UNTIL are not looked at. Still, the best of many trials is also the luckiest: expect a smaller "
            "gain on new steps.\n\n"
            "A search takes as long as TRIALS trainings, or less. With a STUDY it can be broken off at any "
            "time, even by a crash: run it again with the same values, and it goes on. A larger number of "
            "TRIALS then adds trials to it."
        )

    def keywords(self) -> list[str]:
        return [
            tr("tune"),
            tr("hyperparameters"),
            tr("search"),
            tr("optimize"),
            tr("settings"),
            tr("train"),
            "Optuna",
            "TPE",
        ]

    # -- parameters ----------------------------------------------------------------------------

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        self.addParameter(
            p.choice(
                "MODEL",
                tr("Model"),
                " ".join(f"{name}: {tr(text)}." for name, text in MODELS.items()),
                tuple(MODELS),
                default="gridcast",
            )
        )
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
        self.addParameter(
            p.integer(
                "TRIALS",
                tr("Trials"),
                tr("Number of trainings, those of a STUDY that is continued included."),
                default=20,
            )
        )
        self.addParameter(
            p.number(
                "TIME_LIMIT",
                tr("Time limit (minutes)"),
                tr("After this time no further trial is begun. Empty: no limit."),
                minimum=0.0,
                optional=True,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterString("RANGES", tr("Ranges"), None, multiLine=True, optional=True),
                tr(
                    "What is tried of each setting, separated by semicolons or line ends: numbers as "
                    "'filters = 8..64' or 'learning_rate = 0.0001..0.01 log', choices as 'kernel = 1, 3, 5', "
                    "a single value to set it, 'coarsen = 1, 2' for larger cells. Settings that are not "
                    "named have the ranges of the model."
                ),
            )
        )
        self.addParameter(
            p.choice(
                "OBJECTIVE",
                tr("What is made good"),
                tr(
                    "deviance: Poisson deviance of the counts. mse: their mean squared error. auc: telling "
                    "cells with an event (or hot ones) from others. hit_rate: share of the events in the "
                    "densest AREA_SHARE percent of the area. auto: auc for models of hot cells, else "
                    "deviance."
                ),
                OBJECTIVES,
                default="auto",
            )
        )
        self._add_advanced_parameters()
        self.addParameter(
            p.integer(
                "WORKERS",
                tr("Trials at the same time"),
                tr(
                    "Each in a process of its own, which needs memory of its own; with a cluster, one on "
                    "each worker. They are chosen together and learn nothing from each other, so that the "
                    "search takes another course than with one at a time."
                ),
                default=1,
                advanced=True,
            )
        )
        self.addParameter(p.scheduler(tr("the models")))
        self.addParameter(
            p.new_file(
                "OUTPUT",
                tr("Model with the best settings"),
                tr("File with the trained model; 'Forecast Heatmap' and 'Classify Hot Spots' apply it."),
                p.MODEL_FILTER,
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFileDestination(
                    "REPORT", tr("Report"), "HTML (*.html)", optional=True, createByDefault=True
                ),
                tr("A page that a browser opens: the course of the search, and which settings mattered."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFeatureSink(
                    "TRIALS_OUTPUT",
                    tr("Table of trials"),
                    QgsProcessing.SourceType.TypeVector,
                    optional=True,
                    createByDefault=False,
                ),
                tr("A table with settings and score of each trial."),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterFileDestination(
                    "CUBE_OUTPUT",
                    tr("Cube with the best cell size"),
                    p.CUBE_FILTER,
                    optional=True,
                    createByDefault=False,
                ),
                tr(
                    "Needed if RANGES tries larger cells: the cube that the model fits, to forecast from. "
                    "'Append Events to Cube' extends it as any other."
                ),
            )
        )
        self.add_numbers(**{key: tr(label) for key, label in NUMBERS.items()})
        self.add_strings(VERDICT=tr("Verdict"), SETTINGS=tr("Best settings"))

    def _add_advanced_parameters(self) -> None:
        self.addParameter(
            p.number(
                "AREA_SHARE",
                tr("Share of the area (percent)"),
                tr("How much of the area is flagged. For the objective hit_rate only."),
                default=5.0,
                minimum=0.0,
                maximum=100.0,
                advanced=True,
            )
        )
        self.addParameter(
            p.moment(
                "UNTIL",
                tr("Use steps until"),
                tr(
                    "Only steps that end by this time of the cube's clock are used, so that later ones can "
                    "test the model that was found. Empty: all steps."
                ),
            )
        )
        self.addParameter(
            p.validation_share(tr("Share of the steps, the last ones, that trials are scored on."))
        )
        self.addParameter(
            p.integer(
                "FOLDS",
                tr("Folds"),
                tr(
                    "Into how many periods the validation steps are divided; each is forecast after a "
                    "training on all steps before it. More folds take as many times longer, and what they "
                    "find depends less on one period."
                ),
                default=1,
                advanced=True,
            )
        )
        self.addParameter(
            p.file(
                "STUDY",
                tr("Study"),
                tr(
                    "File, which need not exist yet, that keeps the trials. If the search is broken off, run "
                    "it again with the same values: it goes on after them. Empty: nothing is kept."
                ),
                p.ANY_FILE,
                optional=True,
                advanced=True,
            )
        )
        self.addParameter(
            p.seed(
                tr(
                    "Start of the random numbers of the search and of each training: the same seed gives the "
                    "same search on the same computer."
                )
            )
        )

    # -- running -------------------------------------------------------------------------------

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        p.local_time(self, parameters, "UNTIL", context)
        for key, what in (("TIME_LIMIT", "time"), ("AREA_SHARE", "area")):
            value = p.plain_value(self, parameters, key, context)
            if value is not None and value <= 0:
                raise InputError(
                    f"This leaves no {what}.", hint="Choose a value above 0.", parameter=key, value=value
                )
        p.check_destination(parameters, "OUTPUT", context, (".gridcast",))
        p.check_destination(parameters, "REPORT", context, (".html", ".htm"))
        p.check_destination(parameters, "TRIALS_OUTPUT", context)
        p.check_destination(parameters, "CUBE_OUTPUT", context, (".nc",))
        p.kept_file(self, parameters, "STUDY", context)
        p.check_distinct(
            parameters, ("CUBE", "STUDY", "OUTPUT", "REPORT", "TRIALS_OUTPUT", "CUBE_OUTPUT"), context
        )

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        files = {
            key: self.parameterAsFileOutput(parameters, key, context)
            for key in ("OUTPUT", "REPORT", "CUBE_OUTPUT")
            if p.given(parameters, key)
        }
        with_trials = p.given(parameters, "TRIALS_OUTPUT")
        with self.job_folder() as folder:
            table = folder / "trials.gpkg"
            request = {
                "cube": p.existing_file(self, parameters, "CUBE", context),
                "model": self.parameterAsEnumString(parameters, "MODEL", context),
                "types": p.comma_list(self.parameterAsString(parameters, "TYPES", context)),
                "until": p.local_time(self, parameters, "UNTIL", context),
                "validation_share": self.parameterAsDouble(parameters, "VALIDATION_SHARE", context),
                "folds": self.parameterAsInt(parameters, "FOLDS", context),
                "trials": self.parameterAsInt(parameters, "TRIALS", context),
                "time_limit": p.plain_value(self, parameters, "TIME_LIMIT", context),
                "objective": self.parameterAsEnumString(parameters, "OBJECTIVE", context),
                "area_share": self.parameterAsDouble(parameters, "AREA_SHARE", context),
                "ranges": self.parameterAsString(parameters, "RANGES", context),
                "seed": self.parameterAsInt(parameters, "SEED", context),
                "workers": self.parameterAsInt(parameters, "WORKERS", context),
                "scheduler": p.scheduler_address(self, parameters, context),
                "study": p.kept_file(self, parameters, "STUDY", context),
                "output": _absolute(files.get("OUTPUT")),
                "report_output": _absolute(files.get("REPORT")),
                "trials_output": str(table) if with_trials else None,
                "cube_output": _absolute(files.get("CUBE_OUTPUT")),
            }
            made = self.run_worker("tune", request, feedback, folder)
            if with_trials:
                files["TRIALS_OUTPUT"] = self.save_layer(
                    table, "TRIALS_OUTPUT", parameters, context, feedback
                )
        return {
            **files,
            **{key: made[key.lower()] for key in NUMBERS},
            "VERDICT": made["verdict"],
            "SETTINGS": made["settings"],
        }


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path else None
