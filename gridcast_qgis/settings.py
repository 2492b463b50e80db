# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user sets under Settings > Options > Processing > Providers > Gridcast.

The Processing framework owns the panel; the value lies in the user profile,
where ``qgis_process`` reads it too.
"""

from __future__ import annotations

from qgis.core import QgsSettings
from qgis.PyQt.QtGui import QIcon

from . import paths
from .i18n import tr

_GROUP = "Gridcast"
_INTERPRETER = "GRIDCAST_PYTHON"


def interpreter() -> str:
    """Return the worker's Python interpreter as the user set it, "" if not set."""
    # Processing keeps its settings under this prefix; reading the key itself works without its panel.
    return str(QgsSettings().value(f"Processing/Configuration/{_INTERPRETER}", "") or "").strip()


def add_panel() -> None:
    """Show the settings in the Processing options."""
    from processing.core.ProcessingConfig import ProcessingConfig, Setting

    ProcessingConfig.settingIcons[_GROUP] = QIcon(str(paths.resource("icons", "gridcast.svg")))
    setting = Setting(
        _GROUP,
        _INTERPRETER,
        tr("Python interpreter of the worker (empty: the environment made by Set Up Environment)"),
        "",
        valuetype=Setting.FILE,
    )
    setting.read()
    ProcessingConfig.addSetting(setting)


def remove_panel() -> None:
    """Take the settings out of the Processing options; their values stay in the profile."""
    from processing.core.ProcessingConfig import ProcessingConfig

    ProcessingConfig.settings.pop(_INTERPRETER, None)
    ProcessingConfig.settingIcons.pop(_GROUP, None)
