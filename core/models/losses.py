# SPDX-License-Identifier: GPL-2.0-or-later
"""Losses over the study area. Targets `(n, y, x, 3)` hold count, weight and offset; outputs `(n, y, x, 1)`.

Weight is 1 in the study area and 0 outside, the offset is the log of the rate that the output starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

# Bounds of the log rate: exp(8) events in one cell and step are beyond any data,
# and without a bound one wild batch would overflow the loss.
LOG_RATE = (-16.0, 8.0)

# Nothing is impossible or certain.
_EDGE = 1e-6


def masked_poisson_deviance(target: Any, output: Any) -> Any:
    """Poisson deviance of the rate exp(offset + output), averaged over cells with weight 1."""
    count, weight, offset = target[..., 0], target[..., 1], target[..., 2]
    log_rate = ops.clip(offset + output[..., 0], *LOG_RATE)
    # y log y, which is 0 for y = 0; a constant that makes the loss a deviance.
    constant = count * ops.log(ops.maximum(count, 1.0))
    deviance = 2.0 * (constant - count * log_rate - count + ops.exp(log_rate))
    return _mean(deviance, weight)


def masked_squared_error(target: Any, output: Any) -> Any:
    """Mean of (count - output)² over cells with weight 1."""
    return _mean((target[..., 0] - output[..., 0]) ** 2, target[..., 1])


def masked_squared_departure(target: Any, output: Any) -> Any:
    """Squared error of exp(offset) + output, for a linear output that departs from the base rate."""
    return _mean((target[..., 0] - ops.exp(target[..., 2]) - output[..., 0]) ** 2, target[..., 1])


def published_squared_error(target: Any, output: Any) -> Any:
    """Squared error as in the code of Ahrens & de Wolff (2023).

    The mask is laid over the prediction only, and the mean is over all cells: the more cells lie
    outside the study area, the smaller the loss.
    """
    return ops.mean((target[..., 0] - target[..., 1] * output[..., 0]) ** 2)


def weighted_cross_entropy(event_weight: float) -> Callable[[Any, Any], Any]:
    """Return the binary cross-entropy of "at least one event", averaged over the study area.

    The first channel of the output is the probability; cells with an event count `event_weight` times.
    Further channels of the output are the shares of the types of event, and those of the target beyond
    the third the events of each type: where there are events, the cross-entropy of their types is added.
    """

    def loss(target: Any, output: Any) -> Any:
        event = ops.cast(target[..., 0] > 0, output.dtype)
        probability = ops.clip(output[..., 0], _EDGE, 1.0 - _EDGE)
        entropy = -(event * ops.log(probability) + (1.0 - event) * ops.log(1.0 - probability))
        value = _mean(entropy, target[..., 1] * (1.0 + (event_weight - 1.0) * event))
        if output.shape[-1] > 1:
            events = target[..., 3:] * target[..., 1:2]
            types = -ops.sum(events * ops.log(ops.maximum(output[..., 1:], _EDGE)))
            value = value + types / ops.maximum(ops.sum(events), 1.0)
        return value

    return loss


def _mean(values: Any, weight: Any) -> Any:
    return ops.sum(weight * values) / ops.maximum(ops.sum(weight), 1.0)
