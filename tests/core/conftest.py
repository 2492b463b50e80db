# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the core share besides :mod:`synthetic`."""

from __future__ import annotations

import os

import pytest

# Read when TensorFlow is loaded: its greeting would fill every log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Read when OpenMP is loaded: on a busy machine, threads that wait for each other take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def eager():
    """Run networks step by step: building the graph of a ConvLSTM takes longer than all its steps here."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
