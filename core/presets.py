# SPDX-License-Identifier: GPL-2.0-or-later
"""Grids of published studies, cell for cell. Standard library only: QGIS asks them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InputError

NO_PRESET = "none"


@dataclass(frozen=True)
class Preset:
    """A grid whose coordinate system, extent and cell counts are fixed.

    Attributes
    ----------
    crs : str
        Authority and code.
    extent : tuple of float
        (xmin, ymin, xmax, ymax) in `crs`.
    rows, columns : int
        Number of cells.
    mask_shift : int
        Columns by which the mask is moved to the east, as the study's code did by mistake.
    """

    crs: str
    extent: tuple[float, float, float, float]
    rows: int
    columns: int
    mask_shift: int = 0


_CHICAGO = (-87.940101, 41.644531, -87.524081, 42.023040)

#: The `chicago` presets are the grid of Ahrens & de Wolff (2023): rows over the latitudes and columns
#: over the longitudes of the city, cells of about 691 x 764 m; mask: cells that intersect the city.
#: Their published code moved the mask by one column, which `chicago-55x50-authors-mask` repeats.
#: `dc-36x36` has the cells of 446 x 582 m that the study of gunshot alerts in Washington, DC, names. It
#: names no extent: this one has cells of that size and holds all public alerts of 2006 to 2019.
PRESETS = {
    "chicago-55x50": Preset("EPSG:4326", _CHICAGO, 55, 50),
    "chicago-55x50-authors-mask": Preset("EPSG:4326", _CHICAGO, 55, 50, mask_shift=1),
    "dc-36x36": Preset("EPSG:4326", (-77.0857, 38.7985, -76.9005, 38.98725), 36, 36),
}


def preset_for(name: str, given: Mapping[str, object]) -> Preset | None:
    """Return a preset by name, None for ``none``.

    Parameters
    ----------
    name : str
        One of :data:`PRESETS`, or ``none``.
    given : mapping
        Values of the parameters that a preset fixes, by key in upper case; None: not given.

    Raises
    ------
    InputError
        Unknown name, or a parameter says something else than the preset.
    """
    if name == NO_PRESET:
        return None
    if name not in PRESETS:
        raise InputError(
            "Unknown preset.",
            hint=f"Choose one of {', '.join((NO_PRESET, *PRESETS))}.",
            parameter="PRESET",
            value=name,
        )
    preset = PRESETS[name]
    fixed: dict[str, object] = {
        "TARGET_CRS": preset.crs,
        "ROWS": preset.rows,
        "COLUMNS": preset.columns,
        "ROTATION": 0,
        "SNAP": "multiples",
        "LOCAL_CRS": False,
    }
    for key, value in given.items():
        if value is not None and value != fixed.get(key):
            raise InputError(
                f"The preset '{name}' fixes this: {preset.rows} rows and {preset.columns} columns over "
                f"{', '.join(map(str, preset.extent))} in {preset.crs}.",
                hint=f"Leave {key} at its default, or set PRESET to '{NO_PRESET}'.",
                parameter=key,
                value=value,
            )
    return preset
