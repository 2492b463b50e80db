# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of cells: nothing is lost on the way there, and forecasts come back to where they belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CELL, DEGREES, NORTH, UTM, WEST, events_of, make_cube, make_grid

from gridcast_qgis.core.binning import CubeBuilder, counting_of
from gridcast_qgis.core.coarsening import coarser_cube, coarser_grid, spread_back
from gridcast_qgis.core.covariates import Covariate
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.severity import Severity

FACTORS = st.integers(1, 7)


def test_a_grid_of_blocks_is_the_grid_of_larger_cells():
    city = shapely.Point(WEST + 2300, NORTH - 1900).buffer(1700)
    extent = (WEST, NORTH - 4000, WEST + 5000, NORTH)
    fine = Grid.from_extent(UTM, extent, cell_size=500, study_area=city)
    large = Grid.from_extent(UTM, extent, cell_size=1000, study_area=city)
    blocks = fine.coarsened(2)
    assert blocks.shape == large.shape and blocks.crs == large.crs
    assert blocks.transform.almost_equals(large.transform)
    assert blocks.inside == pytest.approx(large.inside, abs=1e-9)
    assert blocks.fingerprint == large.fingerprint


def test_what_is_missing_in_a_block_lies_outside():
    grid = make_grid(5, 7, holes=False)
    blocks = coarser_grid(grid, 3)
    assert blocks.shape == (2, 3)
    assert blocks.inside == pytest.approx(np.array([[1, 1, 1 / 3], [2 / 3, 2 / 3, 2 / 9]]))
    assert blocks.transform @ (1, 1) == (WEST + 3 * CELL, NORTH - 3 * CELL)


def test_blocks_of_a_turned_grid_lie_where_their_cells_are():
    grid = Grid.from_extent(UTM, (WEST, NORTH - 2000, WEST + 2000, NORTH), cell_size=500, rotation=20)
    blocks = grid.coarsened(2)
    x, y = grid.centres()
    rows, columns = blocks.locate(x, y)
    expected = np.indices(grid.shape) // 2
    assert (rows == expected[0]).all() and (columns == expected[1]).all()


@pytest.mark.parametrize("factor", [0, -1, 8])
def test_impossible_blocks(factor):
    with pytest.raises(InputError) as caught:
        make_grid(6, 7).coarsened(factor)
    assert caught.value.text() == (
        f"COARSEN = {factor}: Cells can be put together in blocks of 1 to 7 cells a side. Give a whole "
        "number such as 2."
    )


def test_a_cube_of_blocks_counts_the_same_events():
    cube = make_cube(8, 5, 7, holes=False)
    blocks = cube.coarsened(3)
    counted = Cube.from_events(events_of(cube), cube.grid.coarsened(3), "day", cube.axis.time_zone)
    assert blocks.events.dtype == np.float32
    assert (blocks.events == counted.events).all()
    assert blocks.types == cube.types and (blocks.axis.edges == cube.axis.edges).all()
    assert cube.coarsened(1) is cube


@settings(max_examples=25)
@given(FACTORS, st.integers(0, 100))
def test_nothing_is_lost(factor, seed):
    cube = make_cube(3, 5, 7, seed=seed)
    random = np.random.default_rng(seed)
    weight = random.integers(0, 4, cube.total.shape).astype(np.float32)
    cube = replace(cube, severity=Severity(weight * 0.5, weight))
    blocks = coarser_cube(cube, factor)
    assert blocks.events.sum(axis=(2, 3)) == pytest.approx(cube.events.sum(axis=(2, 3)))
    assert blocks.severity.sum.sum() == cube.severity.sum.sum()
    assert blocks.severity.weight.sum() == weight.sum() and blocks.severity.weight.dtype == np.float32
    # In the plane of the grid, whose cells are all alike.
    assert blocks.grid.inside.sum() * factor**2 == pytest.approx(cube.grid.inside.sum())
    assert (blocks.events[:, :, ~blocks.grid.valid] == 0).all()


def test_covariates_are_averaged_over_what_is_known_and_inside():
    cube = make_cube(2, 2, 4, holes=False)
    inside = np.array([[1, 0.5, 1, 0], [0, 0.5, 0, 0]])
    values = np.array([[1, 4, np.nan, 9], [7, 1, 9, 9]], np.float32)
    income = Covariate("income", values, ("y", "x"), "CAD", "mean income")
    heat = Covariate("heat", np.stack([values, 2 * values]), ("time", "y", "x"))
    holiday = Covariate("holiday", np.array([0, 1], np.float32), ("time",))
    cube = replace(cube, grid=Grid(cube.grid.crs, cube.grid.transform, inside))
    blocks = cube.with_covariates([income, heat, holiday]).coarsened(2)
    found = blocks.covariates["income"]
    # 1 x 1 + 0.5 x 4 + 0.5 x 1, over 2; in the other block the only cell inside is not known.
    np.testing.assert_array_equal(found.values, np.array([[1.75, np.nan]], np.float32))
    assert (found.units, found.description, found.dimensions) == ("CAD", "mean income", ("y", "x"))
    np.testing.assert_array_equal(
        blocks.covariates["heat"].values, np.array([[[1.75, np.nan]], [[3.5, np.nan]]], np.float32)
    )
    assert blocks.covariates["holiday"] is holiday


def test_a_forecast_comes_back_by_area():
    grid = Grid(UTM, make_grid(2, 3, holes=False).transform, np.array([[1, 0.5, 0.25], [0, 0.5, 0.75]]))
    back = spread_back(np.array([[[4.0, 2.0]]], np.float32), grid, 2)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, [[[2, 1, 0.5], [np.nan, 1, 1.5]]], rtol=1e-6)


@settings(max_examples=25)
@given(FACTORS, st.integers(0, 100))
def test_spreading_keeps_sums_and_the_study_area(factor, seed):
    grid = make_grid(5, 7)
    blocks = grid.coarsened(factor)
    expected = np.random.default_rng(seed).gamma(1, 1, (2, *blocks.shape))
    expected[:, ~blocks.valid] = np.nan
    back = spread_back(expected, grid, factor)
    assert back.shape == (2, 5, 7)
    assert (np.isfinite(back) == grid.valid).all()
    assert np.nansum(back, axis=(1, 2)) == pytest.approx(np.nansum(expected, axis=(1, 2)))
    # Put together again, it is what it was.
    again = coarser_cube(replace(make_cube(2, 5, 7), events=np.nan_to_num(back)[:, None]), factor)
    assert again.events[:, 0] == pytest.approx(np.nan_to_num(expected), rel=1e-5)


def test_cells_of_degrees_are_spread_by_their_true_area():
    grid = Grid.from_extent(DEGREES, (10, 58, 11, 60), rows=2, columns=1)
    back = spread_back(np.ones((1, 1, 1)), grid, 2)
    north, south = grid.inside_area[:, 0]
    assert north < south
    assert back[0, :, 0] == pytest.approx([north / (north + south), south / (north + south)])


def test_a_cube_of_blocks_is_a_cube_as_any_other(tmp_path):
    cube = make_cube(6, 5, 7)
    cube.coarsened(2).write(tmp_path / "blocks.nc")
    read = Cube.read(tmp_path / "blocks.nc")
    assert read.fingerprint == cube.coarsened(2).fingerprint


def test_a_cube_of_blocks_is_extended_as_any_other():
    """Events appended to the blocks, and the blocks of a cube that they were appended to, are the same."""
    whole = make_cube(8, 5, 7, holes=False)
    table = events_of(whole)
    early = table.time < whole.axis.edges[5]
    first = Cube.from_events(table.selected(early), whole.grid, "day", whole.axis.time_zone)

    def extended(cube: Cube) -> Cube:
        builder = CubeBuilder(cube.grid, counting_of(cube), base=cube)
        builder.add(table.selected(~early))
        return builder.build()

    one, two = extended(first.coarsened(2)), extended(first).coarsened(2)
    assert one.fingerprint == two.fingerprint
    assert one.attributes == two.attributes
