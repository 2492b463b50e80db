# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user sets under Settings > Options > Processing > Providers > Gridcast.

The Processing framework owns the panel; the values lie in the user profile,
where ``qgis_process`` reads them too.
"""

from __future__ import annotations

from qgis.core import QgsSettings
from qgis.PyQt.QtGui import QIcon

from . import paths
from .i18n import tr

_GROUP = "Gridcast"
_INTERPRETER = "GRIDCAST_PYTHON"
_SCHEDULER = "GRIDCAST_SCHEDULER"


def interpreter() -> str:
    """Return the worker's Python interpreter as the user set it, "" if not set."""
    return _value(_INTERPRETER)


def scheduler() -> str:
    """Return the address of the cluster as the user set it, "" if not set."""
    return _value(_SCHEDULER)


def _value(key: str) -> str:
    # Processing keeps its settings under this prefix; reading the key itself works without its panel.
    return str(QgsSettings().value(f"Processing/Configuration/{key}", "") or "").strip()


def add_panel() -> None:
    """Show the settings in the Processing options."""
    from processing.core.ProcessingConfig import ProcessingConfig, Setting

    ProcessingConfig.settingIcons[_GROUP] = QIcon(str(paths.resource("icons", "gridcast.svg")))
    for setting in (
        Setting(
            _GROUP,
            _INTERPRETER,
            tr("Python interpreter of the worker (empty: the environment made by Set Up Environment)"),
            "",
            valuetype=Setting.FILE,
        ),
        Setting(
            _GROUP,
            _SCHEDULER,
            tr("Scheduler of a Dask cluster, such as tcp://10.0.0.5:8786 (empty: this computer)"),
            "",
        ),
    ):
        setting.read()
        ProcessingConfig.addSetting(setting)


def remove_panel() -> None:
    """Take the settings out of the Processing options; their values stay in the profile."""
    from processing.core.ProcessingConfig import ProcessingConfig

    for key in (_INTERPRETER, _SCHEDULER):
        ProcessingConfig.settings.pop(key, None)
    ProcessingConfig.settingIcons.pop(_GROUP, None)
