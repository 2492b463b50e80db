# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers and dates as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd


def percent(share: float) -> str:
    """Return a share as percent with about two significant digits: ``0.052%``, ``4.1%``, ``35%``."""
    if math.isnan(share):
        return "unknown"
    value = 100 * share
    if value == 0:
        return "0%"
    if abs(value) < 0.01:
        return "less than 0.01%"
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    text = f"{value:.{digits}f}"
    # Only all is 100%, however close.
    return "more than 99%" if text == "100" and share < 1 else f"{text}%"


def times(ratio: float) -> str:
    """Return a ratio: ``1.5 times``, ``17 times``."""
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def a_number(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 day``, ``1,200 days``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Return parts as ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def span_of_hours(hours: float) -> str:
    """Return a length of time in the unit that fits: ``20 minutes``, ``3.5 hours``, ``12 days``."""
    size = abs(hours)
    if size < 1:
        return f"{60 * hours:.0f} minutes"
    if size < 48:
        return f"{hours:.1f} hours"
    days = hours / 24
    return f"{days:.1f} days" if size < 240 else f"{days:,.0f} days"


def date(moment: np.datetime64) -> str:
    """Return a day: ``4 Jul 2012``."""
    stamp = pd.Timestamp(moment)
    return f"{stamp.day} {stamp:%b %Y}"


def month(moment: np.datetime64) -> str:
    """Return a month: ``July 2012``."""
    return f"{pd.Timestamp(moment):%B %Y}"
