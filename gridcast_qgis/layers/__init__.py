# SPDX-License-Identifier: GPL-2.0-or-later
"""Layers in and out: features to files the worker reads, results to styled layers."""
