# SPDX-License-Identifier: GPL-2.0-or-later
"""Make or repair the Python environment that the worker runs in."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback

from .. import paths, settings
from ..core.errors import GridcastError, JobCancelled
from ..core.protocol import Event
from ..i18n import tr
from ..worker import client
from ..worker.environment import (
    base_candidates,
    clean_environment,
    create_managed,
    find_base_python,
    is_current,
)
from ..worker.feedback import FeedbackBridge
from ..worker.interpreter import VARIABLE, python_of
from .base import SET_UP, GridcastAlgorithm
from .parameters import switch


class SetUpEnvironment(GridcastAlgorithm):
    """Installs the locked packages into the managed environment and checks that they work."""

    ID = "setupenvironment"
    GROUP = SET_UP
    NEEDS_WORKER = False

    def title(self) -> str:
        return tr("Set Up Environment")

    def summary(self) -> str:
        return tr("Installs the Python packages that Gridcast needs into an environment of its own.")

    def explanation(self) -> str:
        return tr(
            "Needed once after installing or updating Gridcast. It downloads about 500 MB, takes about 2 GB "
            "on disk and touches neither the Python of QGIS nor that of the system. Each package has the "
            "exact version that Gridcast was tested with and is checked by its hash.\n\n"
            "If the environment is there and works, nothing is done. An older one stays in place until the "
            "new one works.\n\n"
            "Python 3.10 to 3.13 must be on this computer. Behind a proxy, set the environment variable "
            "HTTPS_PROXY before QGIS starts."
        )

    def keywords(self) -> list[str]:
        return [
            tr("install"),
            tr("dependencies"),
            tr("python"),
            tr("packages"),
            tr("repair"),
            "tensorflow",
            "pip",
        ]

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        self.addParameter(
            switch(
                "RECREATE",
                tr("Make the environment anew even if it works"),
                tr("Use this if something in it is damaged."),
                default=False,
            )
        )
        self.add_strings(PYTHON=tr("Python interpreter of the environment"))

    def execute(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        managed = paths.managed_environment()
        lock = paths.resource("worker", "worker.lock")
        recreate = self.parameterAsBool(parameters, "RECREATE", context)
        if recreate or not is_current(managed, lock) or not self._works(python_of(managed), feedback):
            self._create(managed, lock, feedback)
        if settings.interpreter() or os.environ.get(VARIABLE, "").strip():
            feedback.pushWarning(
                tr(
                    "Gridcast does not use this environment yet: the Processing options or the environment "
                    "variable GRIDCAST_PYTHON name another Python. Clear them to use it."
                )
            )
        return {"PYTHON": str(python_of(managed))}

    def _works(self, python: Path, feedback: QgsProcessingFeedback) -> bool:
        try:
            self._verify(python, feedback)
        except JobCancelled:
            raise
        except GridcastError as error:
            feedback.pushWarning(error.text())
            feedback.pushInfo(tr("The environment is made anew."))
            return False
        feedback.pushInfo(tr("The environment is there and works."))
        return True

    def _create(self, managed: Path, lock: Path, feedback: QgsProcessingFeedback) -> None:
        environment = clean_environment(os.environ, sys.platform, client.PACKAGE_PARENT)
        feedback.setProgressText(tr("Looking for Python"))
        base = find_base_python(
            base_candidates(sys.platform, Path(sys.prefix)), environment, feedback.isCanceled
        )
        feedback.pushInfo(tr("Python: {0}").format(base))
        feedback.setProgressText(tr("Installing packages"))
        create_managed(
            managed,
            lock,
            base,
            environment=environment,
            verify=lambda python: self._verify(python, feedback),
            on_line=_InstallLog(lock, feedback),
            is_cancelled=feedback.isCanceled,
        )
        feedback.setProgress(100)

    @staticmethod
    def _verify(python: Path, feedback: QgsProcessingFeedback) -> None:
        """Load all packages in a worker of the environment; raise if that fails."""
        feedback.setProgressText(tr("Checking the environment"))
        bridge = FeedbackBridge(feedback)
        job_dir = paths.new_job_dir()
        try:
            outputs = client.run_job(
                "verify_environment",
                {},
                python=python,
                # Stages and progress would describe the check alone.
                on_event=lambda event: bridge(event) if event["event"] == Event.MESSAGE else None,
                is_cancelled=bridge.is_cancelled,
                job_dir=job_dir,
                logs=paths.logs_folder(),
            )
        finally:
            shutil.rmtree(job_dir, ignore_errors=True)
        packages = ", ".join(f"{name} {version}" for name, version in outputs["packages"].items())
        feedback.pushInfo(f"Python {outputs['python']}: {packages}")


class _InstallLog:
    """Shows what pip prints and estimates progress from it."""

    def __init__(self, lock: Path, feedback: QgsProcessingFeedback):
        self._feedback = feedback
        self._packages = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
        self._collected = 0

    def __call__(self, line: str) -> None:
        if line.startswith("Collecting "):
            # A package that this system does not need is not collected, so the end comes early.
            self._collected += 1
            self._feedback.setProgress(60.0 * min(1.0, self._collected / max(1, self._packages)))
        elif line.startswith("Installing collected packages"):
            self._feedback.setProgress(60.0)
        elif line.startswith("Successfully installed"):
            self._feedback.setProgress(90.0)
        self._feedback.pushConsoleInfo(line)
