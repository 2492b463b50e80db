# SPDX-License-Identifier: GPL-2.0-or-later
"""Season, weekday and hour of each step."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..timesteps import TimeAxis
from . import Covariate

#: How the calendar is added: not at all, as sine and cosine, as the number of the day, or both ways.
CALENDARS = ("none", "encoded", "day-of-year", "both")

_CYCLES = ("season", "weekday", "hour")


def calendar_covariates(axis: TimeAxis, calendar: str = "encoded") -> list[Covariate]:
    """Return the place of each step in the year, the week and the day, by the local clock.

    Parameters
    ----------
    axis : TimeAxis
        Steps.
    calendar : {"none", "encoded", "day-of-year", "both"}
        ``encoded``: sine and cosine of the season, and of weekday and hour where steps are that short
        (:attr:`.TimeAxis.calendar`). ``day-of-year``: 1 to 366, the raw form of Ahrens & de Wolff (2023),
        in which 31 December is far from 1 January.

    Returns
    -------
    list of Covariate
        Values float32 `(time,)`, of the beginning of each step.

    Raises
    ------
    InputError
        Unknown choice; the parameter is called CALENDAR.
    """
    if calendar not in CALENDARS:
        raise InputError(
            "Unknown choice.",
            hint=f"Choose one of {', '.join(CALENDARS)}.",
            parameter="CALENDAR",
            value=calendar,
        )
    covariates = []
    if calendar in ("encoded", "both"):
        for index, values in enumerate(axis.calendar.T):
            cycle, function = _CYCLES[index // 2], ("sin", "cos")[index % 2]
            text = f"{'sine' if function == 'sin' else 'cosine'} of the {cycle}"
            covariates.append(Covariate(f"{cycle}_{function}", values.copy(), ("time",), description=text))
    if calendar in ("day-of-year", "both"):
        days = axis.local_starts.day_of_year.to_numpy().astype(np.float32)
        covariates.append(Covariate("day_of_year", days, ("time",), description="day of the year, from 1"))
    return covariates
