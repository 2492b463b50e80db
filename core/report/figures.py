# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots as pictures inside a page: the same figures give the same bytes on every run.

Plots are made with matplotlib's objects. Its global state (``pyplot``, a user's own settings) is left
alone, so that a notebook that makes a report keeps its own figures and looks.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

#: The colours of Gridcast's icons, and greys that go with them.
INK, PLUM, RED, AMBER, MIST = "#2f3e4e", "#8a1c4a", "#e2582f", "#f6b04c", "#d5dde5"
SLATE = "#7b8fa3"

#: Width of a page in inches.
PAGE = 9.0

# A vector picture larger than this becomes a raster picture, which has the same size whatever it shows.
_LARGEST_SVG = 150_000
_DOTS_PER_INCH = 150

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": SLATE,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "grid.color": "#e6ebf0",
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.hashsalt": "gridcast",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}


@dataclass(frozen=True)
class Picture:
    """A picture for an ``img`` element.

    Attributes
    ----------
    uri : str
        The picture itself as a ``data:`` address.
    alt : str
        What it shows, for people who cannot see it.
    width : int
        Percent of the width of the page.
    """

    uri: str
    alt: str
    width: int


@contextmanager
def style() -> Iterator[None]:
    """Use the look of the reports within a ``with`` block, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float = PAGE, height: float = 3.0) -> Figure:
    """Return an empty figure; sizes in inches, of which a page is :data:`PAGE` wide."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, alt: str, *, raster: bool = False) -> Picture:
    """Return a figure as a picture: as lines (SVG) unless it would be large, else as dots (PNG).

    Parameters
    ----------
    alt : str
        What it shows.
    raster : bool
        It is known to be large.
    """
    width = min(round(100 * figure.get_figwidth() / PAGE), 100)
    if not raster:
        drawn = _saved(figure, "svg", {"Date": None, "Creator": None})
        if len(drawn) <= _LARGEST_SVG:
            return Picture(_uri("image/svg+xml", drawn), alt, width)
    return Picture(_uri("image/png", png(figure)), alt, width)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file; the same figure gives the same file."""
    return _saved(figure, "png", {"Software": None})


def heat_colours(lightest: str = "#fff6e5") -> Colormap:
    """Return colours from a light one over amber and red to dark plum; their lightness falls evenly."""
    return LinearSegmentedColormap.from_list("gridcast", [lightest, AMBER, RED, PLUM, "#4a0d28"])


def thousands(axes: Axes, axis: str = "y") -> None:
    """Write the numbers of an axis with separators of thousands."""
    getattr(axes, f"{axis}axis").set_major_formatter(lambda value, _: f"{value:,g}")


def _saved(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
