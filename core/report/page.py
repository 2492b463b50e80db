# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of HTML from the templates in ``resources/report``; whatever is put in is shown as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class Tile:
    """A number at the head of a page, with what it counts."""

    value: str
    label: str


#: Where the templates lie, in a source checkout as in the installed plugin.
TEMPLATE_FOLDER = Path(__file__).resolve().parents[2] / "resources" / "report"


def render(template: str, **values: object) -> str:
    """Return the page made from a template.

    Parameters
    ----------
    template : str
        File name in :data:`TEMPLATE_FOLDER`.
    **values
        What the template asks for; a name that it misses is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
