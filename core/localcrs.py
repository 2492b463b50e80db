# SPDX-License-Identifier: GPL-2.0-or-later
"""The projected coordinate system that fits a place. Standard library only: QGIS asks it too."""

from __future__ import annotations

# (south, north, west, east, zone): where a zone is wider than 6 degrees, off Norway and on Svalbard.
_WIDENED = (
    (56.0, 64.0, 3.0, 12.0, 32),
    (72.0, 84.0, 0.0, 9.0, 31),
    (72.0, 84.0, 9.0, 21.0, 33),
    (72.0, 84.0, 21.0, 33.0, 35),
    (72.0, 84.0, 33.0, 42.0, 37),
)

_UPS_NORTH, _UPS_SOUTH = "EPSG:5041", "EPSG:5042"


def suggested_crs(longitude: float, latitude: float) -> str:
    """Return the EPSG code of the UTM zone at a place, as ``EPSG:32617``.

    Parameters
    ----------
    longitude, latitude : float
        Degrees in WGS 84; longitudes may run from -180 to 180 or from 0 to 360.

    Returns
    -------
    str
        The zone in WGS 84 with the exceptions of Norway and Svalbard; north of 84 degrees and south
        of -80 degrees, where UTM ends, the universal polar stereographic system.
    """
    if latitude > 84:
        return _UPS_NORTH
    if latitude < -80:
        return _UPS_SOUTH
    longitude = (longitude + 180) % 360 - 180
    zone = int((longitude + 180) // 6) + 1
    for south, north, west, east, widened in _WIDENED:
        if south <= latitude < north and west <= longitude < east:
            zone = widened
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}"
