# SPDX-License-Identifier: GPL-2.0-or-later
"""What the QGIS process and the worker process agree on. Standard library only.

The worker is started as ``python -X utf8 -u -m gridcast_qgis.core REQUEST``,
where ``REQUEST`` is a JSON file ``{"protocol", "job", "request", "job_dir"}``.
It answers with one JSON object a line on stdout, each with a key ``event``.
"""

from enum import IntEnum

PROTOCOL = 1

#: Line on the worker's stdin that asks it to stop at the next safe point.
CANCEL = "cancel"


class Exit(IntEnum):
    """Exit status of the worker."""

    OK = 0
    INTERNAL = 1
    BAD_INPUT = 2
    CANCELLED = 3
    ENVIRONMENT = 4


class Event:
    """Values of the key ``event``; the keys that go with each are listed beside it."""

    HELLO = "hello"  # protocol, version, python, pid
    STAGE = "stage"  # name
    PROGRESS = "progress"  # value: 0..100 of the whole job
    MESSAGE = "message"  # level: info | warning; text
    METRIC = "metric"  # name, value, step
    RESULT = "result"  # outputs: object
    ERROR = "error"  # code, message, hint, parameter, value
