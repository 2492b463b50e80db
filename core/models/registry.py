# SPDX-License-Identifier: GPL-2.0-or-later
"""All forecasting models by name. A new model is one file and one line here."""

from __future__ import annotations

from importlib import import_module

from ..errors import InputError
from .base import Forecaster

# Modules are named, not imported: a baseline must not load TensorFlow.
_MODELS = {
    "historical_average": ("baselines", "HistoricalAverage"),
    "weekday_average": ("baselines", "WeekdayAverage"),
    "seasonal_naive": ("baselines", "SeasonalNaive"),
    "ewma": ("baselines", "EWMA"),
    "kde": ("kernels", "KDE"),
    "promap": ("kernels", "ProMap"),
    "self_exciting": ("selfexciting", "SelfExciting"),
    "boosted_trees": ("boosted", "BoostedTrees"),
    "gridcast": ("gridcast", "GridcastForecaster"),
    "convlstm": ("convlstm", "ConvLSTMForecaster"),
    "shotspotter": ("shotspotter", "ShotSpotterForecaster"),
    "hetero": ("hetero", "HeteroForecaster"),
    "hetero_gridcast": ("hetero", "HeteroGridcastForecaster"),
    "spatiolstm": ("spatiolstm", "SpatioLSTM"),
    "cnn3d": ("crimepredict", "CNN3D"),
    "cell_lstm": ("crimepredict", "CellLSTM"),
    "cnn_rnn": ("crimepredict", "CNNRNN"),
}

_NETWORKS = frozenset(("gridcast", "convlstm", "shotspotter", "hetero", "spatiolstm", "crimepredict"))


def model_keys() -> tuple[str, ...]:
    """Return the names of all models."""
    return tuple(_MODELS)


def is_network(key: str) -> bool:
    """Tell networks from the simple methods that they have to beat."""
    return _MODELS[key][0] in _NETWORKS


def model_class(key: str) -> type[Forecaster]:
    """Return the class of a model; raises :class:`InputError` for an unknown name."""
    if key not in _MODELS:
        raise InputError(
            "Unknown model.", hint=f"Choose one of {', '.join(_MODELS)}.", parameter="MODEL", value=key
        )
    module, name = _MODELS[key]
    loaded: type[Forecaster] = getattr(import_module(f".{module}", __package__), name)
    return loaded
