# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of events: whether a layer is fit to learn from, as figures and as a page."""

from .check import EventCheck, check_events, write_report
from .findings import Finding

__all__ = ["EventCheck", "Finding", "check_events", "write_report"]
