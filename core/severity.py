# SPDX-License-Identifier: GPL-2.0-or-later
"""How grave events are: scores by type, and their sums per cell and step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import InputError

#: Severities are counted in steps of this size, so that their sums are exact in whatever order.
RESOLUTION = 2.0**-16

_SOFT = (
    "DECEPTIVE PRACTICE",
    "INTERFERENCE WITH PUBLIC OFFICER",
    "GAMBLING",
    "LIQUOR LAW VIOLATION",
    "NON-CRIMINAL",
    "NON-CRIMINAL (SUBJECT SPECIFIED)",
    "PUBLIC PEACE VIOLATION",
)
_MIDDLE = (
    *("INTIMIDATION", "PROSTITUTION", "OTHER OFFENSE", "CRIMINAL DAMAGE", "STALKING", "RITUALISM"),
    *("CONCEALED CARRY LICENSE VIOLATION", "PUBLIC INDECENCY", "NARCOTICS", "OTHER NARCOTIC VIOLATION"),
    # The table of the paper has the spelling without S, the city's data the other.
    *("CRIMINAL TRESPASS", "CRIMINAL TRESSPASS"),
)
_WORST = (
    *("HOMICIDE", "HUMAN TRAFFICKING", "KIDNAPPING", "SEX OFFENSE", "CRIM SEXUAL ASSAULT"),
    *("CRIMINAL SEXUAL ASSAULT", "THEFT", "ASSAULT", "BURGLARY", "ROBBERY", "WEAPONS VIOLATION"),
    *("MOTOR VEHICLE THEFT", "OFFENSE INVOLVING CHILDREN", "BATTERY", "OBSCENITY", "ARSON"),
    "DOMESTIC VIOLENCE",
)

#: Chicago's primary types in three levels (Ahrens & de Wolff 2023, appendix B): soft 0, middle 0.5, worst 1.
CHICAGO = {
    **dict.fromkeys(_SOFT, 0.0),
    **dict.fromkeys(_MIDDLE, 0.5),
    **dict.fromkeys(_WORST, 1.0),
}


@dataclass(frozen=True, eq=False)
class Severity:
    """Severity per step and cell.

    Attributes
    ----------
    sum : numpy.ndarray
        float64 `(time, y, x)`: sum of the severities of the events.
    weight : numpy.ndarray
        float32 `(time, y, x)`: events (or shares of them) whose severity is known.
    """

    sum: np.ndarray
    weight: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float32 `(time, y, x)`: mean severity, 0 where there is no event (channel Sev of the paper)."""
        return np.divide(self.sum, self.weight, out=np.zeros_like(self.sum), where=self.weight > 0).astype(
            np.float32
        )

    @property
    def indicator(self) -> np.ndarray:
        """float32 `(time, y, x)`: 1 where there is an event: tells a soft crime from none."""
        return (self.weight > 0).astype(np.float32)

    def part(self, *index: slice) -> Severity:
        """Return the severity of some steps, rows and columns."""
        return Severity(self.sum[index], self.weight[index])


def scores_of(type_names: Sequence[str], table: Mapping[str, float]) -> np.ndarray:
    """Return the severity of each type: float64 `(types,)`, NaN where the table has none.

    Names are compared without regard to case and to spaces around hyphens.
    """
    plain = {_plain(name): score for name, score in table.items()}
    scores = np.array([plain.get(_plain(name), np.nan) for name in type_names], float)
    return np.round(scores / RESOLUTION) * RESOLUTION


def read_table(path: str | Path) -> dict[str, float]:
    """Read severities from a CSV file whose first two columns are type and number.

    Raises
    ------
    InputError
        Missing, not two columns, a severity that is no number, or a type that occurs twice.
    """

    def wrong(what: str) -> InputError:
        return InputError(
            f"The table of severities cannot be used: {what}.",
            hint="Give a CSV file with two columns, the type and its severity as a number, and a first "
            "line with their names.",
            parameter="SEVERITY_TABLE",
            value=path,
        )

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise wrong(str(error).splitlines()[0]) from error
    if frame.shape[1] < 2 or frame.empty:
        raise wrong(f"it has {frame.shape[1]} columns and {len(frame)} rows")
    names = frame.iloc[:, 0].map(_plain)
    scores = pd.to_numeric(frame.iloc[:, 1], errors="coerce")
    bad = ~np.isfinite(scores.to_numpy(float))
    if bad.any():
        row = frame[bad].iloc[0]
        raise wrong(f"the severity of '{row.iloc[0]}' is '{row.iloc[1]}'")
    twice = names[names.duplicated()]
    if len(twice):
        raise wrong(f"'{twice.iloc[0]}' occurs twice")
    return dict(zip(names, scores.astype(float)))


def _plain(name: str) -> str:
    return re.sub(r"\s*-\s*", "-", re.sub(r"\s+", " ", name.strip())).upper()
