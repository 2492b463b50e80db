# SPDX-License-Identifier: GPL-2.0-or-later
"""Gridcast: crime forecasts inside QGIS.

This module is imported by QGIS at start-up and by the worker process, so it
uses the standard library only and does as little as possible.
"""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent

# In a source checkout ``core/`` lies beside this package, in the plugin zip it
# lies inside. Either way its one name is ``gridcast_qgis.core``.
if not (_HERE / "core").is_dir():
    __path__.append(str(_HERE.parent))


def classFactory(iface):  # noqa: N802  (name fixed by QGIS)
    """Return the plugin object; QGIS calls this when it loads the plugin."""
    from .plugin import GridcastPlugin

    return GridcastPlugin(iface)
