# SPDX-License-Identifier: GPL-2.0-or-later
"""Event tables that are known by the names of their columns. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: What a column of an event table may hold. The time may stand in two: date and time of day (`clock`).
ROLES = ("time", "clock", "end", "type", "severity", "identity", "reported", "x", "y")


@dataclass(frozen=True)
class Schema:
    """A kind of event table.

    Attributes
    ----------
    title : str
        Name for people.
    roles : dict
        Role to column, as the table at hand spells it.
    crs : str
        System of the columns `x` and `y`.
    """

    title: str
    roles: dict[str, str]
    crs: str


@dataclass(frozen=True)
class _Known:
    title: str
    crs: str
    # Role to the spellings of its column, compared without case, spaces and underscores.
    roles: dict[str, tuple[str, ...]]
    # Further columns by which the table is recognised.
    marks: tuple[tuple[str, ...], ...] = ()
    # Roles whose column may be missing.
    optional: tuple[str, ...] = ()


# The gunshot table of the ShotSpotter model v1.0 (Washington DC), and the calls for service of the NIJ
# forecasting challenge (Portland). Shapefiles cut names after ten characters.
_TABLES = (
    _Known(
        "gunshots (UserID, time, longitude, latitude, type, LocationID)",
        "EPSG:4326",
        {
            "identity": ("userid", "id"),
            "time": ("time", "datetime"),
            "x": ("longitude", "lon", "long"),
            "y": ("latitude", "lat"),
            "type": ("type", "typeofgunshots", "typeofguns", "gunshottype"),
        },
        optional=("identity",),
    ),
    _Known(
        "calls for service (CATEGORY, CALL GROUPS, final_case_type, CASE DESC, occ_date, …)",
        "EPSG:2913",
        {
            "time": ("occdate",),
            "x": ("xcoordinate", "xcoordina"),
            "y": ("ycoordinate", "ycoordina"),
            "type": ("category",),
        },
        ((("callgroup", "callgroups")), ("finalcasetype", "finalcase")),
    ),
)


def recognise(columns: Iterable[str]) -> Schema | None:
    """Return the kind of a table by the names of its columns; None if it is none of the known ones."""
    present = {_plain(column): column for column in columns}
    for known in _TABLES:
        found = {
            role: next((present[name] for name in names if name in present), "")
            for role, names in known.roles.items()
        }
        found = {role: column for role, column in found.items() if column or role not in known.optional}
        if all(found.values()) and all(any(name in present for name in names) for names in known.marks):
            return Schema(known.title, found, known.crs)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).lower()


def describe_known() -> str:
    """Return one line that names the tables that are recognised."""
    return "; ".join(known.title for known in _TABLES)


def location_id(longitude: float, latitude: float, extent: tuple[float, float, float, float]) -> int:
    """Return the LocationID of a place: 16 bits of latitude, then 16 bits of longitude.

    The report of the ShotSpotter model v1.0 shifts floating-point degrees, which no computer does;
    its authors' intent, one integer per place, is kept by counting in 65,536 steps within an extent.

    Parameters
    ----------
    extent : (xmin, ymin, xmax, ymax)
        Degrees that the grid covers.

    Raises
    ------
    ValueError
        The place lies outside the extent.
    """
    xmin, ymin, xmax, ymax = extent
    return _sixteen_bits(latitude, ymin, ymax) << 16 | _sixteen_bits(longitude, xmin, xmax)


def location_of(location: int, extent: tuple[float, float, float, float]) -> tuple[float, float]:
    """Return longitude and latitude of a LocationID: the middle of its step of either coordinate."""
    xmin, ymin, xmax, ymax = extent
    east, north = location & 0xFFFF, location >> 16
    return xmin + (east + 0.5) * (xmax - xmin) / 65536, ymin + (north + 0.5) * (ymax - ymin) / 65536


def _sixteen_bits(value: float, low: float, high: float) -> int:
    if not low <= value <= high:
        raise ValueError(f"{value} lies outside {low} … {high}")
    return min(int((value - low) / (high - low) * 65536), 65535)
