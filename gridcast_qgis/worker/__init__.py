# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker seen from QGIS: which Python it is, its environment, one conversation with it."""
