# SPDX-License-Identifier: GPL-2.0-or-later
"""What pages of HTML have in common: their look, their pictures and how they are made."""

from .figures import Picture, new_figure, picture, style
from .page import Tile, render

__all__ = ["Picture", "Tile", "new_figure", "picture", "render", "style"]
