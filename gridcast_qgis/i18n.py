# SPDX-License-Identifier: GPL-2.0-or-later
"""Translation of the texts that the user sees."""

from qgis.PyQt.QtCore import QCoreApplication


def tr(text: str) -> str:
    """Return `text` in the user's language; all texts of the plugin share the context ``Gridcast``."""
    return QCoreApplication.translate("Gridcast", text)
