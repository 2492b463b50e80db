# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithms of the provider, one a file; :mod:`..provider` lists them."""
