# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of several models in one line of text: ``convlstm.epochs = 5; ewma.half_life_days = 30``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import InputError
from .registry import model_class

_WRITTEN = "Write convlstm.epochs = 5; convlstm.filters = 8."


def parse_settings(
    text: str, models: tuple[str, ...], parameter: str = "SETTINGS"
) -> dict[str, dict[str, Any]]:
    """Return the settings of each model, as values of the kind that the model takes.

    Parameters
    ----------
    models : tuple of str
        Keys of the models that may be named.

    Raises
    ------
    InputError
        A part that cannot be read, or names an unknown model, setting or value.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        name, equals, value = (word.strip() for word in part.partition("="))
        model, dot, key = name.partition(".")
        if not equals or not dot or not value:
            raise InputError("This is no setting.", hint=_WRITTEN, parameter=parameter, value=part)
        if model not in models:
            raise InputError(
                f"'{model}' is none of the models that are fitted here.",
                hint=f"Choose one of {', '.join(models)}, or add it to MODELS.",
                parameter=parameter,
                value=part,
            )
        fields = {each.name: each for each in dataclasses.fields(model_class(model).Settings)}
        if key not in fields:
            raise InputError(
                f"The model '{model}' has no such setting.",
                hint=f"It has {', '.join(sorted(fields))}." if fields else "It has no settings.",
                parameter=parameter,
                value=part,
            )
        found.setdefault(model, {})[key] = _value(value, fields[key], part, parameter)
    return found


def _value(text: str, field: dataclasses.Field[Any], part: str, parameter: str) -> Any:
    default = field.default
    try:
        if isinstance(default, bool):
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise InputError(
            f"The value must be {kind}.", hint=_WRITTEN, parameter=parameter, value=part
        ) from error
    if isinstance(default, tuple):
        return tuple(word.strip() for word in text.split(",") if word.strip())
    return text
