# SPDX-License-Identifier: GPL-2.0-or-later
"""Forecasting models: one contract (:mod:`.base`), one file a model, one line each in :mod:`.registry`."""
