# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of several models in one line of text: ``convlstm.epochs = 5; ewma.half_life_days = 30``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import InputError
from .registry import model_class
from .settings import read_value

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
        try:
            found.setdefault(model, {})[key] = read_value(value, fields[key].default)
        except ValueError as error:
            raise InputError(str(error), hint=_WRITTEN, parameter=parameter, value=part) from error
    return found
