# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin folder and the plugin zip."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import validate

import build


def test_the_zip_passes_the_rules_of_the_plugin_repository(checkout):
    assert validate.validate(build.build_zip(checkout)) == []


def test_two_builds_are_identical_to_the_byte(checkout, tmp_path):
    first = build.build_zip(checkout).read_bytes()
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700)
    assert build.build_zip(other).read_bytes() == first


def test_entries_are_sorted_plain_files_of_the_release_day(checkout):
    day = tuple(map(int, build.release_notes(checkout)[1].split("-")))
    with zipfile.ZipFile(build.build_zip(checkout)) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.date_time for entry in entries} == {(*day, 0, 0, 0)}


@pytest.mark.parametrize(
    ("epoch", "stamp"), [("1700000000", (2023, 11, 14, 22, 13, 20)), ("0", (1980, 1, 1, 0, 0, 0))]
)
def test_source_date_epoch_sets_the_time(checkout, monkeypatch, epoch, stamp):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with zipfile.ZipFile(build.build_zip(checkout)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {stamp}


def test_the_zip_is_named_after_its_version(checkout):
    path = build.build_zip(checkout)
    assert path.name == f"gridcast_qgis-{build.version(checkout)}.zip"
    assert not list(path.parent.glob("*.part"))


def test_the_parts_stand_inside_the_package(all_files):
    expected = {"__init__.py", "metadata.txt", "LICENSE", "core/__main__.py", "resources/worker/worker.lock"}
    assert expected <= all_files.keys()
    assert not [
        name for name in all_files if name.startswith(("tests", "docs", ".")) or "__pycache__" in name
    ]


def test_metadata_tells_what_the_plugin_manager_shows(files):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(files["metadata.txt"].decode())
    general = parser["general"]
    assert general["name"] == "Gridcast"
    assert general["version"] == build.version()
    assert (general["qgisMinimumVersion"], general["qgisMaximumVersion"]) == ("3.22", "4.99")
    assert general["hasProcessingProvider"] == "yes"
    assert general["changelog"].splitlines()[0] == build.version()
    assert "Processing provider" in general["changelog"]


@pytest.mark.parametrize("name", ["core/notes.docx", "resources/run.sh", "gridcast_qgis/.hidden.py"])
def test_a_stray_file_stops_the_build(checkout, name):
    (checkout / name).write_text("stray")
    with pytest.raises(SystemExit, match="does not belong in the plugin"):
        build.build_zip(checkout)
    assert not (checkout / "build").exists() or not list((checkout / "build").glob("*.zip"))


def test_caches_are_left_out(checkout):
    cache = checkout / "core" / "__pycache__"
    cache.mkdir()
    (cache / "grid.cpython-311.pyc").write_bytes(b"cache")
    assert not [name for name in build.plugin_files(checkout) if "__pycache__" in name]


def test_the_folder_follows_the_sources_and_touches_only_what_changed(checkout):
    folder = build.build_folder(checkout)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    (checkout / "core" / "extra.py").write_text("# SPDX-License-Identifier: GPL-2.0-or-later\n")
    (checkout / "core" / "protocol.py").unlink()
    build.build_folder(checkout)
    assert (folder / "core" / "extra.py").is_file()
    assert not (folder / "core" / "protocol.py").exists()
    kept = {path: stamp for path, stamp in stamps.items() if path.name != "protocol.py"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


IMPORTED = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"


def run_plain(code: str, folder) -> str:
    """Run code in a Python that sees the standard library and one folder only."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_unpacked_zip_has_the_core_inside(checkout, tmp_path):
    target = tmp_path / "pluġins"
    with zipfile.ZipFile(build.build_zip(checkout)) as archive:
        archive.extractall(target)
    code = "import gridcast_qgis.core.protocol as p, gridcast_qgis.core.errors; print(p.__file__)"
    assert run_plain(code, target).strip() == str(target / "gridcast_qgis" / "core" / "protocol.py")


def test_the_checkout_has_the_core_beside(checkout):
    code = "import gridcast_qgis.core.protocol as p; print(p.__file__)"
    assert run_plain(code, checkout).strip() == str(checkout / "core" / "protocol.py")


@pytest.mark.parametrize("layout", ["checkout", "plugin"])
def test_importing_the_package_loads_the_standard_library_only(checkout, layout):
    folder = checkout if layout == "checkout" else build.build_folder(checkout).parent
    loaded = run_plain(IMPORTED.format("import gridcast_qgis, gridcast_qgis.core"), folder).split()
    foreign = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"gridcast_qgis"}


def test_importing_the_package_takes_no_time(checkout):
    code = "import time; t = time.perf_counter(); import gridcast_qgis; print(time.perf_counter() - t)"
    folder = build.build_folder(checkout).parent
    assert min(float(run_plain(code, folder)) for _ in range(5)) < 0.1
