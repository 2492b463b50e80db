# SPDX-License-Identifier: GPL-2.0-or-later
"""Weather, rasters, polygons, holidays and seasons per step and cell; every bad input named with its fix."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from synthetic import (
    NORTH,
    UTM,
    WEST,
    Recorder,
    files_in,
    make_axis,
    make_cube,
    make_grid,
    write_points,
)

from gridcast_qgis.core import jobs
from gridcast_qgis.core.covariates.holiday import holidays_from_file, public_holidays, share_of_days
from gridcast_qgis.core.covariates.names import RESERVED, variable_names
from gridcast_qgis.core.covariates.polygons import covariates_from_polygons, overlay
from gridcast_qgis.core.covariates.rasters import covariate_from_raster
from gridcast_qgis.core.covariates.seasons import calendar_covariates
from gridcast_qgis.core.covariates.tables import covariates_from_table
from gridcast_qgis.core.cube import Cube
from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.grid import Grid
from gridcast_qgis.core.timesteps import TimeAxis

ROOT = Path(__file__).resolve().parents[2]
TORONTO = "America/Toronto"


def from_midnight(count: int, step: str) -> TimeAxis:
    """Return the first steps of February 2024 by the local clock."""
    first = np.datetime64("2024-02-01T05:00")
    return TimeAxis.covering(first, first, step, TORONTO).extended(count - 1)


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return caught.value.text()


# -- names ---------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), max_size=8))
def test_names_can_be_used_and_differ(texts):
    names = variable_names(texts)
    assert len({name.lower() for name in names}) == len(names) == len(texts)
    for name in names:
        assert name.isascii() and name.isidentifier() and not name.startswith("_")
        assert name.lower() not in RESERVED and not name.lower().startswith("severity_")


def test_names_stay_recognisable():
    texts = ["Température (°C)", "2nd", "time", "severity_mean", "Rain", "rain", "雨", ""]
    assert variable_names(texts) == [
        *("Temperature_C", "v_2nd", "value_time", "value_severity_mean", "Rain", "rain_2", "variable"),
        "variable_2",
    ]


def test_what_the_cube_calls_its_own_is_reserved():
    cube = make_cube(3)
    turned = replace(cube, grid=replace(cube.grid, transform=cube.grid.transform @ Affine.rotation(5)))
    for made in (cube, turned):
        dataset = made.to_dataset()
        own = {*map(str, dataset.variables), *map(str, dataset.sizes)}
        assert own <= RESERVED


def test_the_covariate_itself_loads_nothing_heavy():
    code = (
        "import sys; from gridcast_qgis.core.covariates import Covariate; "
        "print(sorted({'pandas', 'rasterio', 'shapely', 'holidays', 'pyogrio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# -- tables --------------------------------------------------------------------------------------


def table(folder: Path, text: str, name: str = "weather.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


DAILY = "date,rain,city\n2024-02-01,1.5,Toronto\n2024-02-02,,Toronto\n2024-02-04,4,Toronto\n"


def test_days_get_the_row_of_their_day(tmp_path):
    reporter = Recorder()
    (rain,) = covariates_from_table(table(tmp_path, DAILY), make_axis(5), reporter=reporter)
    assert (rain.name, rain.dimensions, rain.values.dtype) == ("rain", ("time",), np.float32)
    assert rain.description == "rain (weather.csv)"
    np.testing.assert_array_equal(rain.values, [1.5, np.nan, np.nan, 4, np.nan])
    assert reporter.texts("info") == [
        "weather.csv: columns that do not hold numbers only are left out: city ('Toronto')."
    ]
    assert reporter.texts() == []


@pytest.mark.parametrize(
    "text",
    [
        "date;rain\n2024-02-01;1.5\n2024-02-02;2\n",
        "date;rain\n2024-02-01;1,5\n2024-02-02;2\n",
        "weather_date\train\n2/1/2024\t1.5\n2/2/2024\t2\n",
        "Date,rain\n01.02.2024,1.5\n02.02.2024,2\n",
        'DATE,rain\n2024-02-01 00:00,"1,5"\n2024-02-02 00:00,2\n',
        "timestamp,rain\n2024-02-01T05:00:00Z,1.5\n2024-02-02T05:00:00Z,2\n",
        "rain,obs date\n1.5,2024-02-01\n2,2024-02-02\n",
        "\n\ndate , rain\n2024-02-01, 1.5\n2024-02-02, 2\n",
        "\ufeffdate,rain,\n2024-02-01,1.5,\n2024-02-02,2,\n",
        "date,rain,höhe\r\n2024-02-01,1.5,NA\r\n2024-02-02,2,NA\r\n",
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_tables_of_many_kinds_are_the_same(tmp_path, text, name):
    (rain,) = covariates_from_table(table(tmp_path, text, name), make_axis(3))
    assert rain.name == "rain"
    np.testing.assert_array_equal(rain.values, [1.5, 2, np.nan])


def test_old_encodings_are_read(tmp_path):
    path = table(tmp_path, "date,höhe\n2024-02-01,1\n", encoding="cp1252")
    assert covariates_from_table(path, make_axis(1))[0].name == "hohe"


def test_longer_steps_have_the_mean_of_their_rows(tmp_path):
    days = np.arange("2024-02-01", "2024-04-15", dtype="datetime64[D]")
    path = table(tmp_path, "date,number\n" + "".join(f"{day},{i}\n" for i, day in enumerate(days)))
    (months,) = covariates_from_table(path, make_axis(3, "month"))
    np.testing.assert_allclose(months.values, [14, 44, 66.5])


def test_shorter_steps_have_the_value_in_force(tmp_path):
    (rain,) = covariates_from_table(table(tmp_path, DAILY), from_midnight(5 * 24, "1h"))
    nothing = [np.nan] * 24
    np.testing.assert_array_equal(rain.values, [1.5] * 24 + nothing * 2 + [4] * 24 + nothing)


def test_the_row_of_a_day_lasts_as_long_as_the_day(tmp_path):
    path = table(tmp_path, "date,a\n2024-03-09,1\n2024-03-10,2\n2024-03-11,3\n")
    axis = TimeAxis.covering(
        np.datetime64("2024-03-09T06:00"), np.datetime64("2024-03-12T03:00"), "1h", TORONTO
    )
    (a,) = covariates_from_table(path, axis)
    local_day = axis.local_starts.day.to_numpy()
    assert (local_day == 10).sum() == 23  # the clocks change
    np.testing.assert_array_equal(a.values, local_day - 8)


def test_hourly_rows_are_averaged_and_do_not_last(tmp_path):
    text = "time,a\n" + "".join(f"2024-02-01 {hour:02}:00,{hour}\n" for hour in (0, 1, 2, 3, 7))
    path = table(tmp_path, text)
    (two_hours,) = covariates_from_table(path, from_midnight(5, "2h"))
    np.testing.assert_array_equal(two_hours.values, [0.5, 2.5, np.nan, 7, np.nan])
    (quarters,) = covariates_from_table(path, from_midnight(36, "15min"))
    filled = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [np.nan] * 12 + [7] * 4 + [np.nan] * 4
    np.testing.assert_array_equal(quarters.values, filled)


@pytest.mark.parametrize(("dates", "days"), [(("2024-01-01", "2024-02-01"), 29), (("2024-02-01",), 1)])
def test_rows_of_a_month_last_for_it(tmp_path, dates, days):
    path = table(tmp_path, "date,jobless\n" + "".join(f"{date},{i}\n" for i, date in enumerate(dates, 5)))
    (jobless,) = covariates_from_table(path, make_axis(40))
    assert np.isfinite(jobless.values[:days]).all() and np.isnan(jobless.values[days:]).all()
    assert jobless.values[0] == 4 + len(dates)


def test_rows_of_a_week_last_for_it(tmp_path):
    path = table(tmp_path, "date,a\n2024-01-29,1\n2024-02-05,2\n")
    (a,) = covariates_from_table(path, make_axis(14))
    np.testing.assert_array_equal(a.values, [1] * 4 + [2] * 7 + [np.nan] * 3)


def test_nothing_comes_from_later(tmp_path):
    """Changing later rows changes no earlier step."""
    text = "date,a\n" + "".join(f"2024-02-{day:02},{day}\n" for day in range(1, 15))
    before = covariates_from_table(table(tmp_path, text), make_axis(14))[0].values
    after = covariates_from_table(table(tmp_path, text.replace(",1", ",7")), make_axis(14))[0].values
    np.testing.assert_array_equal(before[1:9], after[1:9])


def test_repeated_and_unreadable_dates_are_told(tmp_path):
    reporter = Recorder()
    path = table(tmp_path, "date,a\n2024-02-01,1\n2024-02-01,3\nsoon,4\n2024-02-02,5\n")
    (a,) = covariates_from_table(path, make_axis(2), reporter=reporter)
    np.testing.assert_array_equal(a.values, [2, 5])
    assert reporter.texts() == [
        "weather.csv: 1 rows have a date that cannot be read, such as 'soon', and are left out.",
        "weather.csv: 1 rows repeat the time of another one; rows of one time are averaged.",
    ]


def test_the_order_of_day_and_month_is_the_one_that_fits(tmp_path):
    reporter = Recorder()
    text = "date,a\n01/02/2024,1\n02/02/2024,2\n13/02/2024,3\n"
    (a,) = covariates_from_table(table(tmp_path, text), make_axis(2), reporter=reporter)
    np.testing.assert_array_equal(a.values, [1, 2])
    assert reporter.texts() == []
    (a,) = covariates_from_table(
        table(tmp_path, "date,a\n02/01/2024,1\n02/02/2024,2\n"), make_axis(2), reporter=reporter
    )
    np.testing.assert_array_equal(a.values, [1, 2])
    assert reporter.texts() == [
        "weather.csv: in dates such as '02/01/2024' the month is taken to come first."
    ]


def test_columns_are_chosen_by_name(tmp_path):
    path = table(tmp_path, "when,day,a,B,c\nx,2024-02-01,1,2,\n")
    found = covariates_from_table(path, make_axis(1), columns=["b", "a"], date_field="DAY")
    assert [each.name for each in found] == ["B", "a"]
    assert [each.name for each in covariates_from_table(path, make_axis(1))] == ["a", "B"]


REFUSED_TABLES = {
    "empty file": ("", {}, "TABLE = {path}: The table cannot be read: No columns to parse from file. Give a"),
    "no rows": ("date,a\n", {}, "TABLE = {path}: The table has no rows. Give a CSV file (.csv or .csv.gz)"),
    "no text": ("date,a\n\0\0,1\n", {}, "TABLE = {path}: The file is no text. Give a CSV file"),
    "decimal comma": (
        "date,a,b\n2024-02-01,1,5,2,3\n",
        {},
        "TABLE = {path}: A row has more values than the first line has names; numbers with a decimal comma "
        "need semicolons between the columns.",
    ),
    "comma of what": (
        "date;a\n2024-02-01;1,234\n",
        {},
        "TABLE = a: The column has '1,234', where the comma may mark decimals or thousands. Write numbers "
        "with a decimal point and without signs for thousands.",
    ),
    "no date column": (
        "when,a\n2024-02-01,1\n",
        {},
        "TABLE = {path}: No column of the table is called as dates are. Set DATE_FIELD to one of: when, a.",
    ),
    "wrong date column": (
        DAILY,
        {"date_field": "when"},
        "DATE_FIELD = when: The table has no such column. It has: date, rain, city.",
    ),
    "no dates": (
        DAILY,
        {"date_field": "city"},
        "TABLE = {path}: Not one date can be read in the column 'city', which has 'Toronto'. Write dates as "
        "2024-01-31, or choose another column.",
    ),
    "wrong column": (
        DAILY,
        {"columns": ["snow"]},
        "COLUMNS = snow: The table has no such column. It has: rain, city.",
    ),
    "no numbers": (
        DAILY,
        {"columns": ["city"]},
        "COLUMNS = city: The column does not hold numbers only: it has 'Toronto'. Correct it or leave it "
        "out; empty cells stand for values that are not known.",
    ),
    "nothing but text": (
        "date,a\n2024-02-01,wet\n",
        {},
        "TABLE = {path}: The table has no column that holds numbers only. Write numbers with a decimal point",
    ),
    "another year": (
        DAILY.replace("2024", "2023"),
        {},
        "TABLE = {path}: The table has no value in the time of the cube: its rows are from 2023-02-01 to "
        "2023-02-04, the cube is from 2024-02-01T00:00:00-05:00 to 2024-02-04T00:00:00-05:00. Choose a table "
        "of the same time, and check DATE_FIELD.",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TABLES)
def test_bad_tables_are_refused(tmp_path, case):
    text, options, complaint = REFUSED_TABLES[case]
    path = table(tmp_path, text)
    assert refusal(covariates_from_table, path, make_axis(3), **options).startswith(
        complaint.format(path=path)
    )


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    fix = "Give a CSV file (.csv or .csv.gz) whose first line names the columns."
    path = tmp_path / "none.csv"
    assert refusal(covariates_from_table, path, make_axis(1)) == (
        f"TABLE = {path}: The file cannot be read: No such file or directory. {fix}"
    )
    path = table(tmp_path, DAILY, "t.csv.gz")
    path.write_bytes(path.read_bytes()[:-12])
    assert "The file cannot be read: " in refusal(covariates_from_table, path, make_axis(1))


# -- calendar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "cycles"),
    [
        ("week", ["season"]),
        ("day", ["season", "weekday"]),
        ("6h", ["season", "weekday", "hour"]),
        ("shifts 07:00 19:00", ["season", "weekday", "hour"]),
    ],
)
def test_the_calendar_of_the_axis_gets_names(step, cycles):
    axis = make_axis(30, step)
    found = calendar_covariates(axis)
    assert [each.name for each in found] == [f"{cycle}_{f}" for cycle in cycles for f in ("sin", "cos")]
    np.testing.assert_array_equal(np.stack([each.values for each in found], axis=1), axis.calendar)


def test_the_day_of_the_year_is_raw():
    axis = TimeAxis.covering(np.datetime64("2024-12-30T12"), np.datetime64("2025-01-01T12"), "day", TORONTO)
    (found,) = calendar_covariates(axis, "day-of-year")
    assert found.name == "day_of_year" and found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, [365, 366, 1])
    assert len(calendar_covariates(axis, "both")) == 5
    assert calendar_covariates(axis, "none") == []
    assert refusal(calendar_covariates, axis, "lunar") == (
        "CALENDAR = lunar: Unknown choice. Choose one of none, encoded, day-of-year, both."
    )


# -- holidays ------------------------------------------------------------------------------------


def year_of(step: str, year: int = 2018, zone: str = "America/Chicago") -> TimeAxis:
    days = TimeAxis.covering(
        np.datetime64(f"{year}-01-01T12:00"), np.datetime64(f"{year}-12-31T12:00"), "day", zone
    )
    return TimeAxis.covering(days.edges[0], days.edges[-1] - np.timedelta64(1, "s"), step, zone)


def test_public_holidays_of_a_state():
    axis = year_of("day")
    found = public_holidays(axis, "us", "il")
    assert (found.name, found.description) == ("public_holiday", "share of public holidays (US, IL)")
    days = axis.local_starts[found.values == 1].strftime("%m-%d").tolist()
    assert {"01-01", "02-12", "07-04", "11-11", "11-12", "11-22", "12-25"} <= set(days)
    assert set(np.unique(found.values)) == {0, 1} and len(days) == 14
    assert "02-12" not in axis.local_starts[public_holidays(axis, "US").values == 1].strftime("%m-%d")
    np.testing.assert_array_equal(public_holidays(axis, "USA", "Illinois").values, found.values)


def test_holidays_of_other_steps_are_shares():
    days = public_holidays(year_of("day"), "US", "IL").values
    hours = public_holidays(year_of("1h"), "US", "IL").values
    assert set(np.unique(hours)) == {0, 1} and hours.sum() == 24 * days.sum()
    assert public_holidays(year_of("month"), "US", "IL").values[6] == np.float32(1 / 31)
    shifts = year_of("shifts 07:00 23:00")
    fourth = shifts.local_starts.strftime("%m-%d %H") == "07-03 23"
    np.testing.assert_allclose(public_holidays(shifts, "US").values[fourth], 7 / 8)


@pytest.mark.parametrize(
    "step", ["15min", "6h", "day", "week", "14days", "month", "shifts 06:30 14:30 22:30"]
)
def test_shares_of_days_add_up(step):
    """The steps together have as many chosen days as lie in their time, whatever the clock does."""
    axis = TimeAxis.covering(np.datetime64("2024-03-04T12"), np.datetime64("2024-04-14T12"), step, TORONTO)
    days = np.array(["2024-03-10", "2024-03-11", "2024-03-29", "2024-11-03", "1999-01-01"], "datetime64[D]")
    share = share_of_days(axis, days)
    assert share.dtype == np.float32 and share.min() == 0 and share.max() <= 1
    calendar = TimeAxis.covering(axis.edges[0], axis.edges[-1], "day", TORONTO)
    day = calendar.locate(axis.edges)
    place = day + (axis.edges - calendar.starts[day]) / (calendar.ends - calendar.starts)[day]
    assert (share * np.diff(place)).sum() == pytest.approx(3, abs=1e-4)


def test_years_without_holidays_are_told():
    reporter = Recorder()
    public_holidays(year_of("day", 2110), "US", reporter=reporter)
    assert reporter.texts() == ["No public holidays of US are known for 2110."]


@pytest.mark.parametrize(
    ("country", "subdivision", "complaint"),
    [
        (
            "Canada",
            "",
            "COUNTRY = Canada: There is no such country in the list of public holidays. Did you mean CA",
        ),
        ("Germny", "", "Did you mean DE (Germany) or GG (Guernsey)?"),
        (
            "Q1",
            "",
            "COUNTRY = Q1: There is no such country in the list of public holidays. Give its ISO 3166",
        ),
        ("US", "Ilinois", "SUBDIVISION = Ilinois: US has no such subdivision. Did you mean IL (Illinois)?"),
        ("CA", "QQ", "SUBDIVISION = QQ: CA has no such subdivision. It has: AB, BC, MB, NB"),
        ("JP", "13", "SUBDIVISION = 13: JP has no such subdivision. There are none: leave it empty."),
    ],
)
def test_unknown_places_get_near_matches(country, subdivision, complaint):
    assert complaint in refusal(public_holidays, make_axis(3), country, subdivision)


def test_own_days_and_periods(tmp_path):
    reporter = Recorder()
    days = holidays_from_file(table(tmp_path, "date,name\n2024-02-02,A\n2/5/2024,B\n"), make_axis(6))
    np.testing.assert_array_equal(days.values, [0, 1, 0, 0, 1, 0])
    text = "name;Start;End\nwinter;2024-01-20;2024-02-02\n;2024-02-05;\n"
    periods = holidays_from_file(table(tmp_path, text, "school-holidays.csv.gz"), make_axis(6))
    assert (periods.name, periods.dimensions) == ("school_holidays", ("time",))
    np.testing.assert_array_equal(periods.values, [1, 1, 0, 0, 1, 0])
    once = table(tmp_path, "day\n2023-01-01\n", "2023.csv")
    assert holidays_from_file(once, make_axis(3), reporter=reporter, name="match").name == "match"
    assert reporter.texts() == ["2023.csv: none of its 1 days lies in the time of the cube."]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "2024-02-01\n2024-02-02\n",
            "The table has no column 'date', and no columns 'start' and 'end'. Name",
        ),
        ("start,name\n2024-02-01,a\n", "they are called: start, name."),
        (
            "from,to\n2024-02-05,2024-02-01\n",
            "A period ends before it begins: 2024-02-05 to 2024-02-01. Exchange the two dates.",
        ),
        ("date\nEaster\n", "Not one date can be read in the column 'date', which has 'Easter'."),
    ],
)
def test_bad_holiday_files_are_refused(tmp_path, text, complaint):
    path = table(tmp_path, text)
    said = refusal(holidays_from_file, path, make_axis(3))
    assert said.startswith(f"HOLIDAY_FILES = {path}: ") and complaint in said


# -- rasters -------------------------------------------------------------------------------------

PIXEL = 60.0
ON_GRID = Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)


def raster(
    path: Path,
    values: np.ndarray,
    *,
    transform: Affine = ON_GRID,
    crs: pyproj.CRS | None = UTM,
    nodata: float | None = None,
    scale: float = 1.0,
) -> Path:
    bands = values[None] if values.ndim == 2 else values
    profile = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "transform": transform,
        "nodata": nodata,
        "crs": None if crs is None else crs.to_wkt(),
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        file.scales = (scale,) * len(bands)
        file.set_band_description(1, "height")
        file.units = ("m",) * len(bands)
    return path


def by_hand(values: np.ndarray, transform: Affine, grid: Grid) -> np.ndarray:
    """Return the mean of the pixels in each cell, weighted by exact areas, by a plain loop."""
    i, j = np.nonzero(np.isfinite(values))
    corners = [
        [transform @ (c + a, r + b) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))] for r, c in zip(i, j)
    ]
    pixels = shapely.polygons(corners)
    result = np.full(grid.shape, np.nan)
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            (cell,) = grid.cell_polygons(np.array([row]), np.array([column]))
            area = shapely.area(shapely.intersection(pixels, cell))
            if area.sum() > 1e-6:
                result[row, column] = (area * values[i, j]).sum() / area.sum()
    return result


@pytest.fixture
def heights() -> np.ndarray:
    """Pixels of 60 m that cover the grid of 6 x 7 cells of 500 m but for its right edge."""
    row, column = np.indices((50, 50))
    noise = np.random.default_rng(0).random((50, 50))
    return (row + 2 * column + 20 * noise).astype(np.float32)


def test_means_of_pixels_are_exact(tmp_path, heights):
    grid = make_grid()
    heights[:20, :10] = np.nan
    found = covariate_from_raster(raster(tmp_path / "dem.tif", heights), grid)
    assert (found.name, found.dimensions, found.units) == ("dem", ("y", "x"), "m")
    assert found.description == "height (mean of the cell)" and found.values.dtype == np.float32
    expected = by_hand(heights, ON_GRID, grid)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert np.isnan(found.values[:2, 0]).all() and np.isnan(found.values[:, -1]).all()


@pytest.mark.parametrize("kind", ["uint8", "int16", "float64"])
def test_pixels_without_data_do_not_count(tmp_path, heights, kind):
    whole = np.floor(heights)
    whole[10:30, 5:] = 255
    path = raster(tmp_path / "dem.tif", whole.astype(kind), nodata=255, scale=0.5)
    whole[whole == 255] = np.nan
    found = covariate_from_raster(path, make_grid())
    expected = by_hand(whole, ON_GRID, make_grid())
    np.testing.assert_allclose(found.values, expected / 2, rtol=1e-6)


@pytest.mark.parametrize("turned", ["grid", "raster"])
@pytest.mark.parametrize("degrees", [10, 45, 90, 200])
def test_turned_rows_are_averaged_as_well(tmp_path, heights, turned, degrees):
    about = (WEST + 1500, NORTH - 1500)
    spin = Affine.rotation(degrees, about)
    transform, grid = ON_GRID, make_grid()
    if turned == "grid":
        grid = Grid(grid.crs, spin @ grid.transform, grid.inside)
    else:
        transform = spin @ transform
    found = covariate_from_raster(raster(tmp_path / "dem.tif", heights, transform=transform), grid)
    expected = by_hand(heights, transform, grid)
    both = np.isfinite(found.values) & np.isfinite(expected)
    assert both.sum() >= 20
    off = np.abs(found.values - expected)[both] / np.ptp(heights)
    # Averages over upright rectangles would be off by a tenth. At the edge of the raster few parts count.
    assert off.max() < 0.02 and np.median(off) < 0.002


def test_coarse_pixels_in_degrees(tmp_path):
    """A plane in another coordinate system keeps its slope."""
    grid = make_grid()
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    west, north = to_degrees.transform(WEST - 2000, NORTH + 2000)
    transform = Affine(0.002, 0, west, 0, -0.002, north)
    row, column = np.indices((60, 60))
    x, y = transform @ (column + 0.5, row + 0.5)
    plane = 100 * (x - west) + 50 * (y - north)
    path = raster(tmp_path / "plane.tif", plane, transform=transform, crs=pyproj.CRS(4326))
    found = covariate_from_raster(path, grid)
    lon, lat = to_degrees.transform(*grid.centres())
    np.testing.assert_allclose(found.values, 100 * (lon - west) + 50 * (lat - north), atol=0.1)


def test_blocks_of_rows_make_no_difference(tmp_path, heights, monkeypatch):
    path = raster(tmp_path / "dem.tif", heights)
    grid = make_grid()
    grid = Grid(grid.crs, grid.transform @ Affine.rotation(20), grid.inside)
    whole = covariate_from_raster(path, grid).values
    monkeypatch.setattr("gridcast_qgis.core.covariates.rasters._BLOCK", 1)
    np.testing.assert_array_equal(covariate_from_raster(path, grid).values, whole)
    reporter = Recorder()
    reporter.cancel()
    with pytest.raises(JobCancelled):
        covariate_from_raster(path, grid, reporter=reporter)


def test_classes_are_not_averaged(tmp_path):
    classes = np.where(np.indices((50, 60)).sum(0) % 2, 7, 3).astype(np.uint8)
    path = raster(tmp_path / "use.tif", np.stack([classes * 0, classes]))
    grid = make_grid()
    found = covariate_from_raster(path, grid, method="nearest", band=2, name="Land use")
    assert found.name == "Land_use" and set(np.unique(found.values)) == {3, 7}
    x, y = grid.centres()
    column, row = ((x - WEST) // PIXEL).astype(int), ((NORTH - y) // PIXEL).astype(int)
    np.testing.assert_array_equal(found.values, classes[row, column])


def test_bad_rasters_are_refused(tmp_path, heights):
    grid = make_grid()
    good = raster(tmp_path / "dem.tif", heights)
    assert refusal(covariate_from_raster, good, grid, band=2) == (
        "RASTER_BAND = 2: The raster 'dem.tif' has no such band. It has 1: choose a band from 1 to 1."
    )
    assert refusal(covariate_from_raster, good, grid, method="mode") == (
        "RASTER_METHOD = mode: Unknown method. Choose one of mean, nearest."
    )
    away = raster(tmp_path / "away.tif", heights, transform=Affine(60, 0, 0, 0, -60, 0))
    assert refusal(covariate_from_raster, away, grid) == (
        f"RASTERS = {away}: The raster has no data on the grid. Check that it covers the study area and that "
        "its coordinate system is set rightly."
    )
    nowhere = raster(tmp_path / "nowhere.tif", heights, crs=None)
    assert refusal(covariate_from_raster, nowhere, grid) == (
        f"RASTERS = {nowhere}: The raster has no coordinate system. Assign the right one, in QGIS with "
        "'Assign projection'."
    )
    assert np.isfinite(covariate_from_raster(nowhere, grid, crs=UTM).values).any()
    with pytest.warns(NotGeoreferencedWarning):
        picture = raster(tmp_path / "picture.tif", heights, crs=None, transform=Affine.identity())
    assert "The raster has no place on the map. Georeference it first." in refusal(
        covariate_from_raster, picture, grid
    )
    for path in (table(tmp_path, DAILY, "t.tif"), tmp_path / "none.tif"):
        said = refusal(covariate_from_raster, path, grid)
        assert said.startswith(f"RASTERS = {path}: The file is missing, damaged or not a raster (")


# -- polygons ------------------------------------------------------------------------------------


def census(path: Path, polygons, crs: str = "EPSG:32617", **fields) -> Path:
    return write_points(path, list(polygons), fields, crs=crs, kind="Unknown")


def in_map(boxes: list[tuple[float, float, float, float]]) -> np.ndarray:
    """Return rectangles given by left, top, right, bottom in cells."""
    return make_grid().to_map(np.array([shapely.box(*box) for box in boxes], dtype=object))


def test_means_and_sums_by_area(tmp_path):
    path = census(
        tmp_path / "tracts.gpkg",
        in_map([(0, 0, 1.5, 1), (1.5, 0, 3, 1), (3, 0, 4, 1)]),
        income=[10.0, 20.0, np.nan],
        people=np.array([30, 60, 9]),
    )
    income, people = covariates_from_polygons(path, make_grid(), ["income", "people"])
    assert (income.name, income.dimensions, income.values.dtype) == ("income", ("y", "x"), np.float32)
    assert income.description == "income (mean by area)"
    np.testing.assert_allclose(income.values[0, :4], [10, 15, 20, np.nan], rtol=1e-6)
    assert np.isnan(income.values[1:]).all()
    (people,) = covariates_from_polygons(path, make_grid(), ["people"], "sum", names=["Inhabitants 2020"])
    assert people.name == "Inhabitants_2020"
    assert people.description == "Inhabitants 2020 (shared out by area)"
    np.testing.assert_allclose(people.values[0, :4], [20, 30, 40, 9], rtol=1e-6)


@st.composite
def random_polygons(draw):
    """Convex and star-shaped polygons in cells of a 6 x 7 grid, some beyond its edge."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    polygons = []
    for _ in range(draw(st.integers(1, 6))):
        angles = np.sort(random.uniform(0, 2 * np.pi, draw(st.integers(3, 12))))
        reach = random.uniform(0.1, 4, len(angles))
        corners = random.uniform(-1, 8, 2) + reach[:, None] * np.c_[np.cos(angles), np.sin(angles)]
        polygons.append(shapely.make_valid(shapely.Polygon(corners)))
    return np.array(polygons, dtype=object)


@given(random_polygons())
@settings(deadline=None, max_examples=60)
def test_overlays_are_exact(polygons):
    pairs = overlay(polygons, (6, 7))
    found = np.zeros((len(polygons), 42))
    np.add.at(found, (pairs.polygon, pairs.cell), pairs.area)
    for index, polygon in enumerate(polygons):
        for row in range(6):
            for column in range(7):
                cell = shapely.box(column, row, column + 1, row + 1)
                expected = shapely.intersection(polygon, cell).area
                assert found[index, 7 * row + column] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 33])
def test_inhabitants_are_neither_lost_nor_made(tmp_path, degrees):
    grid = make_grid(20, 30)
    grid = Grid(grid.crs, grid.transform @ Affine.rotation(degrees), grid.inside)
    random = np.random.default_rng(1)
    places = shapely.multipoints(random.uniform((0, 0), (30, 20), (200, 2)))
    tracts = shapely.get_parts(shapely.voronoi_polygons(places, extend_to=shapely.box(0, 0, 30, 20)))
    tracts = shapely.intersection(tracts, shapely.box(0, 0, 30, 20))
    people = random.integers(0, 5000, len(tracts))
    path = census(tmp_path / "tracts.fgb", grid.to_map(tracts), people=people)
    (found,) = covariates_from_polygons(path, grid, ["people"], "sum")
    assert np.isfinite(found.values).all()
    assert found.values.astype(float).sum() == pytest.approx(people.sum(), rel=1e-6)


def test_other_coordinate_systems_are_brought_to_the_grid(tmp_path):
    polygons = in_map([(0, 0, 2, 2), (2, 2, 3, 3)])
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform
    degrees = shapely.transform(polygons, lambda p: np.column_stack(to_degrees(*p.T)))
    path = census(tmp_path / "t.geojson", degrees, crs="EPSG:4326", a=[1.0, 5.0])
    (found,) = covariates_from_polygons(path, make_grid(), ["a"], "sum")
    np.testing.assert_allclose(found.values[:2, :2], 0.25, rtol=1e-3)
    np.testing.assert_allclose(found.values[2, 2], 5, rtol=1e-2)


def test_one_layer_of_several(tmp_path):
    path = census(tmp_path / "t.gpkg", in_map([(0, 0, 1, 1)]), a=[1.0])
    write_points(path, list(in_map([(0, 0, 1, 1)])), {"a": [2.0]}, kind="Polygon", layer="other", append=True)
    (found,) = covariates_from_polygons(path, make_grid(), ["a"], layer="other")
    assert found.values[0, 0] == 2


def test_places_that_cannot_be_reprojected_are_left_out(tmp_path):
    reporter = Recorder()
    to_degrees = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform
    good = shapely.transform(in_map([(0, 0, 1, 1)]), lambda p: np.column_stack(to_degrees(*p.T)))
    bad = shapely.Polygon([(-81, 43), (1e30, 43), (-81, 44)])
    path = census(tmp_path / "t.gpkg", [*good, bad], crs="EPSG:4326", a=[1.0, 2.0])
    (found,) = covariates_from_polygons(path, make_grid(), ["a"], reporter=reporter)
    assert np.nanmax(found.values) == 1
    assert reporter.texts() == ["POLYGONS: 1 features have no area and are left out."]


def test_broken_polygons_are_repaired_and_told(tmp_path):
    reporter = Recorder()
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    polygons = [*make_grid().to_map(np.array([bow_tie, flat], dtype=object)), None, shapely.Polygon()]
    path = census(tmp_path / "t.gpkg", polygons, a=[8.0, 1.0, 1.0, 1.0])
    (found,) = covariates_from_polygons(path, make_grid(), ["a"], "sum", reporter=reporter)
    np.testing.assert_allclose(found.values[:2, :2], 2, rtol=1e-6)
    assert reporter.texts() == [
        "POLYGONS: 1 polygons had rings that cross themselves; repaired.",
        "POLYGONS: 3 features have no area and are left out.",
    ]


def test_marks_of_the_census_are_no_incomes(tmp_path):
    reporter = Recorder()
    path = census(tmp_path / "t.gpkg", in_map([(0, 0, 1, 1), (1, 0, 2, 1)]), income=[5e4, -666666666.0])
    (found,) = covariates_from_polygons(path, make_grid(), ["income"], reporter=reporter)
    np.testing.assert_array_equal(found.values[0, :2], [5e4, np.nan])
    assert reporter.texts() == [
        "income: 1 polygons have -666666666, the census's mark for 'no estimate'; taken as not known."
    ]


def test_bad_polygons_are_refused(tmp_path):
    grid = make_grid()
    path = census(tmp_path / "t.gpkg", in_map([(0, 0, 1, 1)]), name=["Annex"], number=["12"], none=[None])
    (found,) = covariates_from_polygons(path, grid, ["number"])
    assert found.values[0, 0] == 12
    assert refusal(covariates_from_polygons, path, grid, ["income"]) == (
        "POLYGON_FIELDS = income: The layer has no such field. It has: name, number, none."
    )
    assert refusal(covariates_from_polygons, path, grid, []) == (
        "POLYGON_FIELDS = not set: No field is chosen. It has: name, number, none."
    )
    assert refusal(covariates_from_polygons, path, grid, ["name"]) == (
        "POLYGON_FIELDS = name: The field does not hold numbers: it has 'Annex'. Choose a field of numbers."
    )
    assert "POLYGON_FIELDS = none: The field does not hold numbers: it is empty." in refusal(
        covariates_from_polygons, path, grid, ["none"]
    )
    assert refusal(covariates_from_polygons, path, grid, ["number"], "median") == (
        "POLYGON_METHOD = median: Unknown method. Choose one of mean, sum."
    )
    away = census(tmp_path / "away.gpkg", in_map([(50, 50, 51, 51)]), a=[1])
    assert refusal(covariates_from_polygons, away, grid, ["a"]) == (
        f"POLYGONS = {away}: Not one of the polygons lies on the grid. Check the coordinate system of the "
        "layer, its filter and its selection."
    )
    lines = census(tmp_path / "lines.gpkg", [shapely.LineString([(WEST, NORTH), (WEST + 9, NORTH)])], a=[1])
    assert "Not one of the polygons lies on the grid." in refusal(
        covariates_from_polygons, lines, grid, ["a"]
    )
    local = 'ENGCRS["a",EDATUM["a"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    nowhere = census(tmp_path / "nowhere.gpkg", in_map([(0, 0, 1, 1)]), crs=local, a=[1])
    said = refusal(covariates_from_polygons, nowhere, grid, ["a"])
    assert said.startswith(
        f"POLYGONS = {nowhere}: The layer's coordinate system cannot be brought to that of"
    )
    text = table(tmp_path, DAILY)
    assert refusal(covariates_from_polygons, text, grid, ["rain"]).startswith(
        f"POLYGONS = {text}: The layer has no geometry."
    )
    assert "The layer cannot be read: " in refusal(
        covariates_from_polygons, tmp_path / "no.gpkg", grid, ["a"]
    )


# -- the job -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "Wetter für Zoë"
    folder.mkdir()
    make_cube(30).write(folder / "cube.nc")
    table(folder, DAILY)
    table(folder, "date\n2024-02-01\n", "match.csv")
    raster(folder / "dem.tif", np.ones((60, 60), np.float32))
    census(folder / "tracts.gpkg", in_map([(0, 0, 7, 6)]), value_1=[5.0])
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / "Äusgabe"
    folder.mkdir()
    return folder


def add(reporter: Recorder | None = None, **request) -> dict:
    request = json.loads(json.dumps(request, default=str))
    return jobs.run_job("add_covariates", request, reporter or Recorder())


def test_all_kinds_together(inputs, out):
    reporter = Recorder()
    before = (inputs / "cube.nc").read_bytes()
    made = add(
        reporter,
        cube=inputs / "cube.nc",
        output=out / "richer.nc",
        table=inputs / "weather.csv",
        rasters=[inputs / "dem.tif"],
        raster_names=["Rain"],
        polygons=inputs / "tracts.gpkg",
        polygon_fields={"value_1": "income"},
        country="CA",
        subdivision="ON",
        holiday_files=[inputs / "match.csv"],
        calendar="both",
    )
    names = ["rain", "Rain_2", "income", "public_holiday", "match"]
    names += ["season_sin", "season_cos", "weekday_sin", "weekday_cos", "day_of_year"]
    assert made == {"output": str(out / "richer.nc"), "covariates": 10, "missing_steps": 28, "names": names}
    assert (inputs / "cube.nc").read_bytes() == before and files_in(out) == ["richer.nc"]
    cube = Cube.read(out / "richer.nc")
    assert list(cube.covariates) == names
    np.testing.assert_array_equal(cube.events, make_cube(30).events)
    assert cube.covariates["public_holiday"].values.sum() == 1  # Family Day
    np.testing.assert_array_equal(cube.covariates["income"].values, 5)
    with xr.open_dataset(out / "richer.nc") as dataset:
        assert dataset["rain"].dims == ("time",) and dataset["income"].dims == ("y", "x")
    assert reporter.texts() == ["rain: 1.5 to 4, mean 2.75; 28 of 30 steps have no value."]
    assert "income: 5 to 5, mean 5; all cells of the study area have a value." in reporter.texts("info")


def test_a_covariate_is_replaced_by_its_namesake(inputs, out):
    reporter = Recorder()
    add(cube=inputs / "cube.nc", output=out / "one.nc", country="CA")
    made = add(reporter, cube=out / "one.nc", output=out / "two.nc", country="US", calendar="encoded")
    assert made["covariates"] == 5
    assert len(Cube.read(out / "two.nc").covariates) == 5
    assert (
        "public_holiday: 0 to 1, mean 0.0333333; replaces the one in the cube; all steps have a value."
        in (reporter.texts("info"))
    )


def test_a_column_without_any_value_in_the_time_is_told(inputs, out, tmp_path):
    reporter = Recorder()
    path = table(tmp_path, "date,a,snow\n2024-02-01,1,\n2023-02-01,1,3\n")
    add(reporter, cube=inputs / "cube.nc", output=out / "one.nc", table=path)
    assert "snow: 30 of 30 steps have no value." in reporter.texts()


REFUSED_JOBS = {
    "nothing": (
        {},
        "There is nothing to add. Set at least one of TABLE, RASTERS, POLYGONS, COUNTRY, HOLIDAY_FILES and "
        "CALENDAR.",
    ),
    "the input": (
        {"calendar": "encoded", "output": "cube.nc"},
        "OUTPUT = {inputs}/cube.nc: This file is one of the inputs. Choose another file: inputs are never",
    ),
    "the raster": (
        {"rasters": ["dem.tif"], "output": "dem.tif"},
        "OUTPUT = {inputs}/dem.tif: This file is one of the inputs.",
    ),
    "no country": (
        {"subdivision": "IL"},
        "COUNTRY = not set: A subdivision needs its country. Set COUNTRY as well, such as US.",
    ),
    "no cube": (
        {"cube": "weather.csv", "calendar": "both"},
        "CUBE = {inputs}/weather.csv: The cube is damaged",
    ),
    "bad calendar": ({"calendar": "lunar"}, "CALENDAR = lunar: Unknown choice."),
    "bad country": ({"country": "Germny"}, "COUNTRY = Germny: There is no such country"),
    "bad table": ({"table": "dem.tif"}, "TABLE = {inputs}/dem.tif: The file is no text."),
    "bad raster": ({"rasters": ["dem.tif", "none.tif"]}, "RASTERS = {inputs}/none.tif: The file is missing"),
    "bad field": (
        {"polygons": "tracts.gpkg", "polygon_fields": {"b": "b"}},
        "POLYGON_FIELDS = b: The layer has no such field. It has: value_1.",
    ),
    "bad days": (
        {"holiday_files": ["weather.csv", "none.csv"]},
        "HOLIDAY_FILES = {inputs}/none.csv: The file",
    ),
    "no folder": (
        {"calendar": "both", "output": "none/cube.nc"},
        "OUTPUT = {inputs}/none/cube.nc: The file cannot be written: No such file or directory.",
    ),
}


@pytest.mark.parametrize("case", REFUSED_JOBS)
def test_bad_requests_are_refused_and_leave_nothing(inputs, out, case):
    fields, complaint = REFUSED_JOBS[case]
    request = {"cube": "cube.nc"} | fields
    for key in ("cube", "table", "polygons", "output"):
        if key in request:
            request[key] = inputs / request[key]
    for key in ("rasters", "holiday_files"):
        request[key] = [inputs / name for name in request.get(key, [])]
    request.setdefault("output", out / "new.nc")
    before = {name: (inputs / name).read_bytes() for name in files_in(inputs)}
    with pytest.raises(InputError) as caught:
        add(**request)
    assert caught.value.text().startswith(complaint.format(inputs=inputs))
    assert files_in(out) == []
    assert {name: (inputs / name).read_bytes() for name in files_in(inputs)} == before


def test_cancelling_leaves_nothing(inputs, out):
    reporter = Recorder(cancel_when=lambda event: event.get("name") == "Reading the covariates")
    with pytest.raises(JobCancelled):
        add(reporter, cube=inputs / "cube.nc", output=out / "new.nc", calendar="both")
    assert files_in(out) == []
