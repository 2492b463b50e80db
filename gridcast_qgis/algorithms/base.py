# SPDX-License-Identifier: GPL-2.0-or-later
"""What all algorithms share: their description, their checks, and the way to the worker.

A new algorithm is one file with a subclass of :class:`GridcastAlgorithm`, an icon
``resources/icons/<id>.svg``, and one line in the list of :mod:`..provider`.
"""

from __future__ import annotations

import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
)
from qgis.PyQt.QtGui import QIcon

from .. import paths, settings
from ..core.errors import GridcastError, InputError
from ..i18n import tr
from ..layers import results
from ..worker import client
from ..worker.feedback import FeedbackBridge
from ..worker.interpreter import find_interpreter
from .parameters import check_values, shown

#: Group ids, which never change, and the names shown for them.
GRID_AND_CUBE = ("gridandcube", "Grid and cube")
TRAIN = ("train", "Train")
FORECAST = ("forecast", "Forecast")
EVALUATE = ("evaluate", "Evaluate")
SET_UP = ("setup", "Set up")


class GridcastAlgorithm(QgsProcessingAlgorithm):
    """Base of all algorithms.

    A subclass sets the class attributes and writes ``initAlgorithm`` and
    :meth:`execute`, and :meth:`verify` where values must fit each other.
    """

    #: Id: lowercase letters and digits; never changes.
    ID: str
    #: Group: one of the constants of this module.
    GROUP: tuple[str, str]
    #: Whether it starts the worker, so that it needs the worker's environment.
    NEEDS_WORKER = True

    # -- to be written by subclasses -----------------------------------------------------------

    @abstractmethod
    def title(self) -> str:
        """Return the name shown to the user."""

    @abstractmethod
    def summary(self) -> str:
        """Return one sentence: what it makes of what."""

    @abstractmethod
    def explanation(self) -> str:
        """Return the rest of the help as plain text; `qgis_process` prints it as it is."""

    @abstractmethod
    def keywords(self) -> list[str]:
        """Return words by which the toolbox finds it."""

    def verify(self, parameters: Mapping[str, Any], context: QgsProcessingContext) -> None:
        """Raise InputError if values do not fit each other; quick, without side effects."""

    @abstractmethod
    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Do the work on checked parameters and return the outputs; any GridcastError ends the run."""

    # -- description ---------------------------------------------------------------------------

    def name(self) -> str:
        return self.ID

    def displayName(self) -> str:
        return self.title()

    def group(self) -> str:
        return tr(self.GROUP[1])

    def groupId(self) -> str:
        return self.GROUP[0]

    def shortDescription(self) -> str:
        return self.summary()

    def shortHelpString(self) -> str:
        return f"{self.summary()}\n\n{self.explanation()}"

    def tags(self) -> list[str]:
        return [*self.keywords(), "gridcast", tr("crime"), tr("forecast"), tr("prediction")]

    def svgIconPath(self) -> str:
        return str(paths.resource("icons", f"{self.ID}.svg"))

    def icon(self) -> QIcon:
        return QIcon(self.svgIconPath())

    def createInstance(self) -> GridcastAlgorithm:
        return type(self)()

    # -- checks --------------------------------------------------------------------------------

    def canExecute(self) -> tuple[bool, str]:
        """Let the toolbox say at once that the worker's environment is missing."""
        if self.NEEDS_WORKER:
            try:
                self._worker_python()
            except GridcastError as error:
                return False, error.text()
        return True, ""

    def checkParameterValues(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        try:
            check_values(self, parameters, context)
            self.verify(parameters, context)
        except GridcastError as error:
            return False, error.text()
        return super().checkParameterValues(parameters, context)

    # -- running -------------------------------------------------------------------------------

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        try:
            # A model runs its steps without checkParameterValues().
            check_values(self, parameters, context)
            self.verify(parameters, context)
            return self.execute(parameters, context, feedback)
        except GridcastError as error:
            text = error.text()
        # Only an exception makes qgis_process and models fail. It is a new one, raised out here: QGIS never
        # lets go of it, and with a traceback through execute() would keep the layers there open for ever.
        raise QgsProcessingException(text)

    @contextmanager
    def job_folder(self) -> Iterator[Path]:
        """Make the private folder of one job and remove it in the end, whatever happens.

        Fails before any work is done if there is no worker to do the rest.
        """
        self._worker_python()
        folder = paths.new_job_dir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run_worker(
        self,
        job: str,
        request: dict[str, Any],
        feedback: QgsProcessingFeedback,
        job_dir: Path | None = None,
    ) -> dict[str, Any]:
        """Run one job in the worker and return its outputs.

        Parameters
        ----------
        job : str
            Name of the job.
        request : dict
            Its request; ``output`` and keys that end in ``_output`` are files it makes.
        feedback : QgsProcessingFeedback
            Receives stages, progress, messages and measures, and says whether to stop.
        job_dir : Path
            Folder from :meth:`job_folder`, if files for the job lie in it.

        Raises
        ------
        GridcastError
            Whatever went wrong; no output is left then.
        """
        if job_dir is None:
            with self.job_folder() as folder:
                return self.run_worker(job, request, feedback, folder)
        bridge = FeedbackBridge(feedback)
        outputs = client.run_job(
            job,
            request,
            python=self._worker_python(),
            on_event=bridge,
            is_cancelled=bridge.is_cancelled,
            job_dir=job_dir,
            logs=paths.logs_folder(),
        )
        for key, value in request.items():
            if (key == "output" or key.endswith("_output")) and value and not Path(value).is_file():
                raise GridcastError(
                    f"The job '{job}' ended without writing '{value}'.",
                    hint="Please report this.",
                    parameter="OUTPUT",
                )
        return outputs

    def save_layer(
        self,
        made: Path,
        key: str,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> str:
        """Copy a layer that the worker has made to where a sink parameter says; return path or layer id."""
        layer = results.open_vector(made)
        sink, destination = self.parameterAsSink(
            parameters, key, context, results.result_fields(layer), layer.wkbType(), layer.crs()
        )
        if sink is None:
            raise InputError(
                "The layer cannot be made there.",
                hint="Choose another file or format.",
                parameter=key,
                value=shown(parameters.get(key)),
            )
        try:
            results.copy_result(layer, sink, feedback, key)
        except GridcastError:
            del sink
            # Half a layer looks like a whole one.
            Path(destination).unlink(missing_ok=True)
            raise
        return destination

    @staticmethod
    def _worker_python() -> Path:
        return find_interpreter(
            settings.interpreter(), os.environ, paths.managed_environment(), paths.CHECKOUT
        )

    # -- outputs -------------------------------------------------------------------------------

    def add_numbers(self, **labels: str) -> None:
        """Declare number outputs: key and label."""
        for key, label in labels.items():
            self.addOutput(QgsProcessingOutputNumber(key, label))

    def add_strings(self, **labels: str) -> None:
        """Declare text outputs: key and label."""
        for key, label in labels.items():
            self.addOutput(QgsProcessingOutputString(key, label))
