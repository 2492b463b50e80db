# SPDX-License-Identifier: GPL-2.0-or-later
"""The shipped sample and its way into a GeoPackage."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pyogrio
import pyogrio.raw
import pytest
import shapely

from gridcast_qgis.core.errors import InputError, JobCancelled
from gridcast_qgis.core.reporter import Reporter
from gridcast_qgis.core.sample import ATTRIBUTION, SAMPLE_FOLDER, load_sample, local_to_utc


@pytest.fixture(scope="module")
def geopackage(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "Törönto sample.gpkg"
    return path, load_sample(SAMPLE_FOLDER, path)


def test_the_sample_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.iterdir()) < 3_000_000
    assert (SAMPLE_FOLDER / "toronto_boundary.geojson").stat().st_size < 150_000


def test_the_source_is_credited():
    assert ATTRIBUTION in (SAMPLE_FOLDER / "SOURCE.md").read_text(encoding="utf-8")


def test_outputs(geopackage):
    path, outputs = geopackage
    assert outputs == {
        "output": str(path),
        "events": str(path),
        "boundary": str(path),
        "time_zone": "America/Toronto",
        "attribution": ATTRIBUTION,
    }
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert sorted(name for name, _ in pyogrio.list_layers(path)) == ["boundary", "events"]


def test_every_event_arrives_with_its_true_instant(geopackage):
    meta, _, geometry, (times, types) = pyogrio.raw.read(
        geopackage[0], layer="events", datetime_as_string=True
    )
    source = pd.read_csv(SAMPLE_FOLDER / "toronto_mci.csv.gz")
    assert meta["crs"] == "EPSG:4326"
    assert len(geometry) == len(source) == 239_935
    assert list(meta["fields"]) == ["time", "type"]
    assert (types == source["type"]).all()
    assert times[0] == "2014-01-01T05:00:00Z"  # midnight in a Toronto winter
    assert times[-1] == "2022-01-01T04:00:00Z"
    points = shapely.from_wkb(geometry)
    np.testing.assert_allclose(shapely.get_x(points), source["longitude"], atol=1e-9)
    np.testing.assert_allclose(shapely.get_y(points), source["latitude"], atol=1e-9)


def test_the_boundary_holds_the_events(geopackage):
    meta, _, (wkb,), _ = pyogrio.raw.read(geopackage[0], layer="boundary")
    boundary = shapely.from_wkb(wkb)
    assert meta["geometry_type"] == "MultiPolygon"
    assert boundary.is_valid
    shapely.prepare(boundary)
    _, _, geometry, _ = pyogrio.raw.read(geopackage[0], layer="events", columns=[])
    outside = ~shapely.contains(boundary, shapely.from_wkb(geometry))
    assert outside.mean() < 0.005


def test_hours_that_the_clock_skips_or_repeats_are_kept():
    local = pd.Series(
        pd.to_datetime(
            [
                "2021-03-14 01:00",  # EST
                "2021-03-14 02:00",  # does not exist
                "2021-03-14 03:00",  # EDT
                "2021-11-07 00:00",  # EDT
                "2021-11-07 01:00",  # exists twice
                "2021-11-07 02:00",  # EST
            ]
        )
    )
    expected = [
        "2021-03-14T06",
        "2021-03-14T07",
        "2021-03-14T07",
        "2021-11-07T04",
        "2021-11-07T05",
        "2021-11-07T07",
    ]
    np.testing.assert_array_equal(
        local_to_utc(local, "America/Toronto"), np.array(expected, dtype="datetime64[ms]")
    )


@pytest.mark.parametrize("name", ["toronto_mci.csv.gz", "toronto_boundary.geojson"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_installation_is_explained_and_leaves_nothing(tmp_path, name, damage):
    folder = tmp_path / "resources"
    shutil.copytree(SAMPLE_FOLDER, folder)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "truncated":
        (folder / name).write_bytes(whole[: len(whole) // 2])
    output = tmp_path / "out" / "sample.gpkg"
    output.parent.mkdir()
    with pytest.raises(
        InputError, match=f"The sample's file '{name}' is missing or damaged.*Install the plugin"
    ):
        load_sample(folder, output)
    assert list(output.parent.iterdir()) == []


def test_cancel_leaves_nothing(tmp_path):
    class Impatient(Reporter):
        def stage(self, name, start, end):
            super().stage(name, start, end)
            if name == "Writing the GeoPackage":
                self.cancel()

    with pytest.raises(JobCancelled):
        load_sample(SAMPLE_FOLDER, tmp_path / "sample.gpkg", Impatient())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="OUTPUT = .*cannot be written"):
        load_sample(SAMPLE_FOLDER, tmp_path / "nowhere" / "sample.gpkg")


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, **_):
        path.write_bytes(b"half")
        raise pyogrio.errors.FeatureError("sqlite3_step() failed: database or disk is full")

    monkeypatch.setattr(pyogrio.raw, "write", full)
    with pytest.raises(InputError, match=r"OUTPUT = .*disk is full\. Check the free space of the disk"):
        load_sample(SAMPLE_FOLDER, tmp_path / "sample.gpkg")
    assert list(tmp_path.iterdir()) == []
