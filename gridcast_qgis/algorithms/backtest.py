# SPDX-License-Identifier: GPL-2.0-or-later
"""Backtest: how good would these models have been?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
)

from ..core.errors import InputError
from ..i18n import tr
from ..layers.results import finish_hit_cells
from . import parameters as p
from .base import EVALUATE, GridcastAlgorithm

#: Models that can be fitted; simple methods come first.
MODELS = (
    "historical_average",
    "weekday_average",
    "seasonal_naive",
    "ewma",
    "kde",
    "promap",
    "self_exciting",
    "boosted_trees",
    "gridcast",
    "convlstm",
    "shotspotter",
    "hetero",
    "hetero_gridcast",
    "spatiolstm",
    "cnn3d",
    "cell_lstm",
    "cnn_rnn",
)
USUAL = ("historical_average", "weekday_average", "ewma", "kde", "promap")
REFITS = ("once", "anew", "warm")

# Layers that are made on request: their keys, and what the worker calls the files.
_TABLES = {"TABLE": "table_output", "ORIGINS": "origins_output", "HITS": "hits_output"}


class Backtest(GridcastAlgorithm):
    """Lets models forecast the past and compares them with simple methods."""

    ID = "backtest"
    GROUP = EVALUATE

    def title(self) -> str:
        return tr("Backtest")

    def summary(self) -> str:
        return tr(
            "Lets models forecast periods that are known already, each from what came before, and reports "
            "which one to use."
        )

    def explanation(self) -> str:
        return tr(
            "The report is one HTML file: a league table with intervals, how many events are found in how "
            "much area, calibration, maps, and a verdict in plain words. A network is recommended only if it "
            "beats every simple method beyond chance (Diebold-Mariano test, p below 0.05).\n\n"
            "Every model answers for the same cells and steps, and sees nothing of a period before it is "
            "forecast. Models chosen in MODELS are fitted here, with their default settings or those in "
            "SETTINGS; those in MODEL_FILES are applied as they are, and must have been trained, with their "
            "validation, on steps before FIRST_ORIGIN (train with UNTIL).\n\n"
            "Area is flagged once for each forecast, for all its steps together: choose HORIZON and EVERY as "
            "patrols are planned, such as 7 and 7 for weekly plans from daily steps. More forecasts give "
            "narrower intervals; some fifty are a good number. Settings should be chosen on earlier periods "
            "than those tested here."
        )

    def keywords(self) -> list[str]:
        return [tr("evaluate"), tr("validate"), tr("compare"), tr("accuracy"), tr("PAI"), tr("report")]

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.addParameter(
            p.file("CUBE", tr("Cube"), tr("A cube made by 'Rasterize Events to Cube'."), p.CUBE_FILTER)
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterEnum(
                    "MODELS",
                    tr("Models to fit"),
                    list(MODELS),
                    allowMultiple=True,
                    defaultValue=list(USUAL),
                    optional=True,
                    usesStaticStrings=True,
                ),
                tr(
                    "Simple methods and networks that learn from what came before the first forecast. Simple "
                    "methods take seconds; what a network takes is what its training takes."
                ),
            )
        )
        self.addParameter(
            p.described(
                QgsProcessingParameterMultipleLayers(
                    "MODEL_FILES", tr("Trained models"), QgsProcessing.SourceType.TypeFile, optional=True
                ),
                tr("Model files (.gridcast) that take part as they are; each is called by its file name."),
            )
        )
        self.addParameter(
            p.words(
                "TYPES",
                tr("Types"),
                tr(
                    "Types of events to forecast, separated by commas; a name with a comma in it goes in "
                    "double quotes. Empty: all types together."
                ),
            )
        )
        self._add_plan()
        self.addParameter(
            p.described(
                QgsProcessingParameterString("AREA_SHARES", tr("Shares of the area (percent)"), "1, 5, 10"),
                tr(
                    "How much of the study area may be flagged, separated by commas. The first share decides "
                    "maps and hits: give the area that can be patrolled."
                ),
            )
        )
        self._add_fitting()
        self._add_outputs()

    def _add_plan(self) -> None:
        self.addParameter(
            p.integer(
                "HORIZON",
                tr("Steps ahead"),
                tr("Steps of each forecast, such as 7 days; the area is flagged for all of them together."),
                default=1,
            )
        )
        self.addParameter(
            p.integer(
                "EVERY",
                tr("Steps between forecasts"),
                tr("Steps from the beginning of one forecast to that of the next. Empty: HORIZON."),
                optional=True,
            )
        )
        self.addParameter(
            p.moment(
                "FIRST_ORIGIN",
                tr("First forecast"),
                tr(
                    "Time by the cube's clock at which the first forecast begins. Empty: the last quarter of "
                    "the steps is forecast."
                ),
            )
        )
        self.addParameter(
            p.moment(
                "UNTIL",
                tr("Use steps until"),
                tr("Only steps that end by this time of the cube's clock are looked at. Empty: all steps."),
            )
        )

    def _add_fitting(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterString("SETTINGS", tr("Settings"), None, optional=True),
                tr(
                    "Settings of the models in MODELS that are not the usual ones, such as convlstm.epochs = "
                    "10; convlstm.filters = 8. Names are those of the training algorithms in lower case."
                ),
                advanced=True,
            )
        )
        self.addParameter(
            p.choice(
                "REFIT",
                tr("Fit again"),
                tr(
                    "once: models are fitted before the first forecast only. anew: from the start before "
                    "every REFIT_EVERY-th forecast. warm: likewise, but they go on learning from where they "
                    "were, which takes less time."
                ),
                REFITS,
                default="once",
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "REFIT_EVERY",
                tr("Forecasts between fits"),
                tr("With REFIT anew or warm: forecasts from one fit to the next."),
                default=1,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "WINDOW",
                tr("Steps to learn from"),
                tr("Only so many steps before a fit are learned from (sliding window). 0: all."),
                default=0,
                minimum=0,
                advanced=True,
            )
        )
        self.addParameter(
            p.validation_share(
                tr("Share of what is learned from, its last steps, that decides when training stops.")
            )
        )
        self.addParameter(
            p.integer(
                "TOP_CELLS",
                tr("Number of top cells"),
                tr("Cells that NDCG and precision look at in each step."),
                default=30,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "PLACINGS",
                tr("Placings of the grid"),
                tr(
                    "2: the models in MODELS are tested once more on cells twice as wide, laid in four "
                    "ways, to tell how far results depend on where the grid was laid; that takes as long "
                    "again. 3: nine ways. 1: not at all."
                ),
                default=1,
                advanced=True,
            )
        )
        self.addParameter(
            p.integer(
                "WORKERS",
                tr("Processes"),
                tr("Models that are fitted and forecast at the same time, each in a process of its own."),
                default=1,
                advanced=True,
            )
        )
        self.addParameter(p.scheduler(tr("the models")))
        self.addParameter(
            p.number(
                "LEVEL",
                tr("Level of the intervals (percent)"),
                tr("Share of the bootstrap's draws that lie within an interval."),
                default=95.0,
                minimum=50.0,
                maximum=99.9,
                advanced=True,
            )
        )
        self.addParameter(p.seed(tr("Start of the random numbers of networks and intervals.")))

    def _add_outputs(self) -> None:
        self.addParameter(
            p.described(
                QgsProcessingParameterFileDestination("OUTPUT", tr("Report"), "HTML (*.html)"),
                tr("The report: one file that a browser opens and that can be sent by mail."),
            )
        )
        for key, label, kind, text in (
            (
                "TABLE",
                tr("League table"),
                QgsProcessing.SourceType.TypeVector,
                tr("A row for each model: every measure with its interval, and p values."),
            ),
            (
                "ORIGINS",
                tr("Forecasts one by one"),
                QgsProcessing.SourceType.TypeVector,
                tr("A row for each model and forecast: period, events, errors, hits, PAI and PEI."),
            ),
            (
                "HITS",
                tr("Hits and misses"),
                QgsProcessing.SourceType.TypeVectorPolygon,
                tr(
                    "Cells that the recommended model flagged in the first share of the area, with an event "
                    "(hit) or without (false alarm), and cells with events that it missed; the temporal "
                    "controller plays them forecast by forecast."
                ),
            ),
        ):
            self.addParameter(
                p.described(QgsProcessingParameterFeatureSink(key, label, kind, None, True, False), text)
            )
        self.add_numbers(
            GAIN=tr("Gain of the best network over the best simple method (percent)"),
            P_VALUE=tr("Chance of such a difference between equally good models"),
            FORECASTS=tr("Forecasts of each model"),
            EVENTS=tr("Events to be forecast"),
        )
        self.add_strings(
            USE=tr("Model to use"),
            VERDICT=tr("Verdict"),
            BEST_SIMPLE=tr("Best simple method"),
            BEST_NETWORK=tr("Best network"),
        )

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        p.existing_file(self, parameters, "CUBE", context)
        if not self._models(parameters, context) and not self._files(parameters, context):
            raise InputError(
                "There is no model to test.", hint="Choose models or model files.", parameter="MODELS"
            )
        for key in ("FIRST_ORIGIN", "UNTIL"):
            p.local_time(self, parameters, key, context)
        self._shares(parameters, context)
        p.check_destination(parameters, "OUTPUT", context, (".html", ".htm"))
        for key in _TABLES:
            p.check_destination(parameters, key, context)
        p.check_distinct(parameters, ("CUBE", "OUTPUT", *_TABLES), context)

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        with self.job_folder() as folder:
            wanted = {key: folder / f"{key.lower()}.gpkg" for key in _TABLES if p.given(parameters, key)}
            request = {
                "cube": p.existing_file(self, parameters, "CUBE", context),
                "models": self._models(parameters, context),
                "settings": self.parameterAsString(parameters, "SETTINGS", context),
                "model_files": self._files(parameters, context),
                "types": p.comma_list(self.parameterAsString(parameters, "TYPES", context)),
                "first_origin": p.local_time(self, parameters, "FIRST_ORIGIN", context),
                "until": p.local_time(self, parameters, "UNTIL", context),
                "every": p.optional_integer(self, parameters, "EVERY", context),
                "area_shares": self._shares(parameters, context),
                "refit": self.parameterAsEnumString(parameters, "REFIT", context),
                "validation_share": self.parameterAsDouble(parameters, "VALIDATION_SHARE", context),
                "level": self.parameterAsDouble(parameters, "LEVEL", context),
                "scheduler": p.scheduler_address(self, parameters, context),
                **{
                    key.lower(): self.parameterAsInt(parameters, key, context)
                    for key in (
                        "HORIZON",
                        "REFIT_EVERY",
                        "WINDOW",
                        "TOP_CELLS",
                        "PLACINGS",
                        "WORKERS",
                        "SEED",
                    )
                },
                "output": str(Path(output).absolute()),
                **{_TABLES[key]: str(path) for key, path in wanted.items()},
            }
            made = self.run_worker("backtest", request, feedback, folder)
            results = {
                key: self.save_layer(path, key, parameters, context, feedback) for key, path in wanted.items()
            }
        if "HITS" in results:
            finish_hit_cells(results["HITS"], context, feedback, self, "HITS")
        return {
            "OUTPUT": output,
            **results,
            **{
                key: made[key.lower()]
                for key in (
                    "GAIN",
                    "P_VALUE",
                    "FORECASTS",
                    "EVENTS",
                    "USE",
                    "VERDICT",
                    "BEST_SIMPLE",
                    "BEST_NETWORK",
                )
            },
        }

    def _models(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> list[str]:
        # QGIS takes its default for an empty list.
        nothing = "MODELS" in parameters and parameters["MODELS"] in ([], "")
        return [] if nothing else self.parameterAsEnumStrings(parameters, "MODELS", context)

    def _files(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> list[str]:
        if not p.given(parameters, "MODEL_FILES"):
            return []
        files = [
            Path(file).absolute() for file in self.parameterAsFileList(parameters, "MODEL_FILES", context)
        ]
        missing = next((file for file in files if not file.is_file()), None)
        if missing:
            raise InputError(
                "The file does not exist.",
                hint="Choose model files made by one of the algorithms of the group 'Train'.",
                parameter="MODEL_FILES",
                value=str(missing),
            )
        return [str(file) for file in files]

    def _shares(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> list[float]:
        text = self.parameterAsString(parameters, "AREA_SHARES", context)
        try:
            shares = [float(word) for word in p.comma_list(text) or []]
        except ValueError:
            shares = []
        if not shares or not all(0 < share <= 100 for share in shares):
            raise InputError(
                "These are not shares of the area in percent.",
                hint="Give numbers above 0 and up to 100, separated by commas: 1, 5, 10.",
                parameter="AREA_SHARES",
                value=text,
            )
        return shares
