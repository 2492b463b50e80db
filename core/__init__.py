# SPDX-License-Identifier: GPL-2.0-or-later
"""The science of Gridcast, free of Qt and QGIS.

Import what you need from the submodules (``gridcast_qgis.core.grid`` and so
on); this package itself imports nothing, so that the light modules
(:mod:`.protocol`, :mod:`.errors`) can be used inside QGIS.
"""
