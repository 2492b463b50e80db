# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures of forecasts."""
