# SPDX-License-Identifier: GPL-2.0-or-later
"""Training: splits in time order, windows over the cube, the fitting loop."""
