# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for all tests, in the worker's environment and in QGIS's."""

import sys

import pytest

try:
    from hypothesis import settings
except ImportError:  # QGIS's environment has no property tests
    pass
else:
    # A busy machine must not fail a test, and a failure must come back when it is run again.
    settings.register_profile("gridcast", deadline=None, derandomize=True)
    settings.load_profile("gridcast")


@pytest.fixture(scope="session", autouse=True)
def one_world_a_process():
    """TensorFlow and QGIS bring libraries that do not get along in one process."""
    yield
    assert not {"tensorflow", "qgis"} <= sys.modules.keys()
