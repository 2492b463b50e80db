# SPDX-License-Identifier: GPL-2.0-or-later
"""Ranges of settings: what is written is what is meant, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_grid

from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.models.convlstm import ConvLSTMForecaster, ConvLSTMSettings
from gridcast_qgis.core.models.crimepredict import CNN3D
from gridcast_qgis.core.models.hetero import HeteroForecaster
from gridcast_qgis.core.models.registry import model_class, model_keys
from gridcast_qgis.core.training.ranges import (
    Choices,
    Numbers,
    combinations,
    every_combination,
    ranges_text,
    read_ranges,
    searched,
    settings_text,
)


def read(text: str, model=ConvLSTMForecaster, *, search=None):
    return read_ranges(text, model.Settings, model.search if search is None else search, make_grid(6, 7))


def test_a_range_is_numbers_or_choices():
    found = read(
        "filters = 8..64 log; kernel = 1, 3 ,5\nlearning_rate = 1e-4 .. 0.01  log;; base_rate = yes, No;"
        "output_form=poisson,linear; channels = none, season, season+weekday; epochs = 5; lookback=3..28 ;",
        search={},
    )
    assert found == {
        "lookback": Numbers(3, 28, whole=True),
        "filters": Numbers(8, 64, log=True, whole=True),
        "kernel": Choices((1, 3, 5)),
        "output_form": Choices(("poisson", "linear")),
        "base_rate": Choices((True, False)),
        "channels": Choices(((), ("season",), ("season", "weekday"))),
        "epochs": Choices((5,)),
        "learning_rate": Numbers(0.0001, 0.01, log=True),
    }
    assert list(searched(found)) == [name for name in found if name != "epochs"]
    assert read(ranges_text(found), search={}) == found


def test_what_is_not_named_is_as_the_model_declares():
    found = read("kernel = 3")
    assert found == {
        "lookback": Numbers(3, 14, whole=True),
        "filters": Numbers(4, 32, log=True, whole=True),
        "kernel": Choices((3,)),
        "batch_size": Choices((4, 8, 16)),
        "learning_rate": Numbers(0.0003, 0.01, log=True),
    }


@pytest.mark.parametrize("key", model_keys())
def test_declared_ranges_hold_the_defaults_and_fit(key):
    model = model_class(key)
    found = read_ranges("", model.Settings, model.search)
    assert set(found) == set(model.search)
    defaults = model.Settings()
    for name, each in found.items():
        assert each.size > 1
        assert each.holds(getattr(defaults, name)), name
        for value in each.ends:
            model.Settings(**{name: value})
    # Every model with settings can be tuned.
    assert found or not dataclasses.fields(model.Settings)


@pytest.mark.parametrize(
    ("text", "part", "complaint"),
    [
        ("filters", "filters", "This is no range. Write it as name = low..high"),
        ("filters = ", "filters =", "This is no range."),
        ("filters = 8..16; = 3", "= 3", "This is no range."),
        (
            "filter = 8..16",
            "filter = 8..16",
            "The model has no setting 'filter' to search. It has: lookback,",
        ),
        ("seed = 1, 2", "seed = 1, 2", "The model has no setting 'seed' to search."),
        ("kernel = 1; kernel = 3", "kernel = 3", "'kernel' is named twice."),
        ("filters = 8.5", "filters = 8.5", "'8.5' is no whole number."),
        ("filters = few..many", "filters = few..many", "'few' is no number."),
        ("filters = nan", "filters = nan", "'nan' is no number."),
        ("filters = 16..8", "filters = 16..8", "The range ends before it begins."),
        ("filters = 8..", "filters = 8..", "A value is missing."),
        ("filters = ..8", "filters = ..8", "A value is missing."),
        ("filters = 8..16 ln", "filters = 8..16 ln", "'ln' has no meaning here."),
        ("filters = a b..16", "filters = a b..16", "'a b' is no number."),
        ("filters = 0..16 log", "filters = 0..16 log", "A log range begins above 0."),
        ("filters = 0..16", "filters = 0..16", "The value 0 cannot be used: The value must be at least 1."),
        ("kernel = 1, 2, 3", "kernel = 1, 2, 3", "The value 2 cannot be used: The kernel must have an odd"),
        ("kernel = 1,,3", "kernel = 1,,3", "A value is missing."),
        ("kernel = 1, 3, 1", "kernel = 1, 3, 1", "A value is named twice."),
        ("base_rate = 1", "base_rate = 1", "'1' is neither yes nor no."),
        ("base_rate = no..yes", "base_rate = no..yes", "This setting is no number and has no range."),
        (
            "output_form = poisson, tanh",
            "output_form = poisson, tanh",
            "The value tanh cannot be used: There",
        ),
        ("coarsen = 0..2", "coarsen = 0..2", "in blocks of 1 to 7 cells a side, not of 0."),
        ("coarsen = 1, 8", "coarsen = 1, 8", "in blocks of 1 to 7 cells a side, not of 8."),
        ("coarsen = 1; cell_size = 500", "cell_size = 500", "'coarsen' and 'cell_size' say the same."),
        (
            "cell_size = 500, 700",
            "cell_size = 500, 700",
            "Cells of 700 m cannot be made of the cells of CUBE",
        ),
        (
            "cell_size = 600..900",
            "cell_size = 600..900",
            "No whole multiple of the cells of CUBE, which are 500",
        ),
    ],
)
def test_what_is_wrong_is_named(text, part, complaint):
    with pytest.raises(InputError) as caught:
        read(text)
    assert caught.value.parameter == "RANGES"
    assert caught.value.value == part
    assert complaint in caught.value.text()


def test_a_value_that_is_possible_with_others_only_is_taken():
    found = read("loss_form = corrected, published; output_form = poisson, linear; base_rate = yes, no")
    assert found["loss_form"] == Choices(("corrected", "published"))
    with pytest.raises(InputError, match="The value published cannot be used: The published loss is"):
        read("loss_form = corrected, published")
    wide = read("window_rows = 2..4; subgrid_rows = 3..4", HeteroForecaster)
    assert wide["window_rows"] == Numbers(2, 4, whole=True)
    with pytest.raises(InputError, match="The value 4 cannot be used: The window spans more parts"):
        read("window_rows = 2..4", HeteroForecaster)


def test_what_is_forecast_cannot_be_searched():
    assert read("label_value = 10", CNN3D)["label_value"] == Choices((10.0,))
    with pytest.raises(InputError, match="'label_value' says what is forecast, so that scores with"):
        read("label_value = 10..30", CNN3D)


def test_cell_sizes_are_blocks():
    assert read("cell_size = 500..1500")["coarsen"] == Choices((1, 2, 3))
    assert read("cell_size = 1000, 500")["coarsen"] == Choices((2, 1))
    assert read("cell_size = 800..99999")["coarsen"] == Choices((2, 3, 4, 5, 6, 7))
    assert read("coarsen = 1..3")["coarsen"] == Numbers(1, 3, whole=True)
    assert "coarsen" not in read("")


def test_combinations_are_counted_and_listed():
    found = read("lookback = 2..4; kernel = 1, 3", search={})
    assert combinations(found) == 6
    listed = list(every_combination(found))
    assert len(listed) == 6 == len({tuple(each.items()) for each in listed})
    assert all(type(each["lookback"]) is int for each in listed)
    assert math.isinf(combinations(read("")))


@settings(max_examples=40)
@given(
    st.lists(st.floats(1e-6, 0.9, allow_subnormal=False), min_size=2, max_size=2, unique=True),
    st.booleans(),
)
def test_a_range_is_written_as_it_is_read(limits, log):
    low, high = sorted(float(f"{limit:.12g}") for limit in limits)
    if low == high:
        return
    each = Numbers(low, high, log)
    assert read(f"learning_rate = {each.text()}")["learning_rate"] == each


def test_settings_are_written_as_ranges_are():
    settings = {"kernel": 3, "learning_rate": 0.003457, "base_rate": False, "channels": ("season", "weekday")}
    found = read(settings_text(settings), search={})
    assert {name: each.ends[0] for name, each in found.items()} == settings
    assert settings_text({"channels": ()}) == "channels = none"
    ConvLSTMSettings(**settings)
