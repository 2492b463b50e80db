# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of columns, layers and files as names of variables in the cube's file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

#: What the cube's file calls its own variables and dimensions; ``severity_…`` is reserved as well.
RESERVED = frozenset(
    {
        *("events", "total", "inside", "time", "time_bnds", "bnds", "type", "type_name", "x", "y"),
        *("lon", "lat", "easting", "northing", "spatial_ref"),
    }
)


def variable_names(texts: Sequence[str]) -> list[str]:
    """Return a name of letters, digits and underscores for each text, all different and none reserved."""
    names: list[str] = []
    for text in texts:
        wanted = _plain(text)
        name, count = wanted, 1
        # Some programs do not tell capital letters from small ones.
        while name.lower() in (taken.lower() for taken in names):
            count += 1
            name = f"{wanted}_{count}"
        names.append(name)
    return names


def _plain(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"\W+", "_", ascii_text).strip("_") or "variable"
    if name[0].isdigit():
        name = f"v_{name}"
    if name.lower() in RESERVED or name.lower().startswith("severity_"):
        name = f"value_{name}"
    return name
