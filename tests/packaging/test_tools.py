# SPDX-License-Identifier: GPL-2.0-or-later
"""Set-up, search for QGIS and deployment."""

import json
import os
from pathlib import Path

import deploy
import pytest
import qgis_env
import setup

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
"""
EMBEDDED_KEY = """\
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_backports_come_from_where_the_release_comes_from():
    assert setup.backports_entry(DEB822, "bookworm") == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/archive.gpg\n"
    )


def test_backports_keep_a_key_that_stands_in_the_entry():
    entry = setup.backports_entry(EMBEDDED_KEY, "bookworm")
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
    assert entry.endswith(key)


def test_backports_are_not_added_twice():
    there = DEB822 + "\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n"
    assert setup.backports_entry(there, "bookworm") == ""


@pytest.mark.parametrize(
    "sources",
    [
        "",
        DEB822.replace("bookworm", "trixie"),
        DEB822.replace("Types: deb\n", "Types: deb-src\n"),
        DEB822.replace("Types: deb\n", "Enabled: no\nTypes: deb\n"),
    ],
)
def test_backports_cannot_be_derived_from_other_sources(sources):
    assert setup.backports_entry(sources, "bookworm") is None


@pytest.mark.parametrize(
    ("line", "stanza"),
    [
        (
            "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main contrib # x",
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main contrib\n"
            "Signed-By: /k.gpg",
        ),
        (
            "deb http://m.example/debian bookworm main",
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main",
        ),
        ("deb-src http://m.example/debian bookworm main", ""),
        ("# deb http://m.example/debian bookworm main", ""),
        ("", ""),
    ],
)
def test_classic_apt_entries(line, stanza):
    assert setup.stanza_of(line) == stanza


def test_without_root_the_commands_are_named(monkeypatch):
    monkeypatch.setattr(setup, "root_prefix", lambda: None)
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    monkeypatch.setattr(setup, "apt_sources", lambda: DEB822)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(SystemExit) as ended:
        setup.install_qgis()
    text = str(ended.value)
    assert "needs an administrator" in text
    assert "Suites: bookworm-backports" in text
    assert "apt-get install -y --no-install-recommends -t bookworm-backports qgis python3-qgis" in text


def test_without_apt_the_need_is_named(monkeypatch):
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "fedora"})
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs QGIS 3\.22 or newer"):
        setup.install_qgis()


@pytest.mark.parametrize("backports", [True, False])
def test_debian_12_gets_backports_or_else_its_own(monkeypatch, backports):
    installed = []
    monkeypatch.setattr(setup, "root_prefix", lambda: ())
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup, "apt_update", lambda: True)
    monkeypatch.setattr(setup, "add_backports", lambda codename: backports)
    monkeypatch.setattr(
        setup, "apt_install", lambda *names, suite="": installed.append((names, suite)) or True
    )
    setup.install_qgis()
    assert installed == [(setup.QGIS_PACKAGES, "bookworm-backports" if backports else "")]


def test_backports_that_hold_no_qgis_are_taken_back(monkeypatch):
    commands = []
    monkeypatch.setattr(setup, "apt_sources", lambda: DEB822)
    monkeypatch.setattr(setup, "as_root", lambda *command: commands.append(command) or True)
    monkeypatch.setattr(setup, "apt_has", lambda package, suite: False)
    assert not setup.add_backports("bookworm")
    written, removed = (c for c in commands if str(setup.BACKPORTS_FILE) in c)
    assert written[0] == "install"
    assert removed == ("rm", "-f", str(setup.BACKPORTS_FILE))


def fake_python(folder: Path, name: str, version: str, complete: bool) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version} {int(complete)}\n")
    path.chmod(0o755)


@pytest.fixture
def only_pythons(tmp_path, monkeypatch):
    """A machine whose Pythons are the ones given, each as (name, version, can make environments)."""

    def make(*pythons) -> Path:
        for python in pythons:
            fake_python(tmp_path, *python)
        monkeypatch.delenv("WORKER_PYTHON", raising=False)
        which = setup.shutil.which
        there = {str(tmp_path / name) for name, *_ in pythons}

        def find(name):
            path = which(str(tmp_path / Path(name).name))
            return path if path in there else None

        monkeypatch.setattr(setup.shutil, "which", find)
        return tmp_path

    return make


def test_the_worker_takes_the_newest_python_that_fits(only_pythons):
    folder = only_pythons(
        ("python3", "3 14", True), ("python3.12", "3 12", True), ("python3.10", "3 10", True)
    )
    assert setup.worker_python() == str(folder / "python3.12")


def test_a_python_without_venv_is_the_second_choice(only_pythons):
    folder = only_pythons(("python3", "3 11", False), ("python3.10", "3 10", True))
    assert setup.worker_python() == str(folder / "python3.10")


def test_the_missing_venv_package_is_named(only_pythons):
    only_pythons(("python3", "3 11", False))
    with pytest.raises(SystemExit, match=r"apt-get install -y python3\.11-venv"):
        setup.worker_python()


def test_no_python_that_fits(only_pythons):
    only_pythons(("python3", "3 9", True))
    with pytest.raises(SystemExit, match=r"The worker needs Python 3\.10 to 3\.13"):
        setup.worker_python()


# --- The search for QGIS -----------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a working QGIS 3.22 Python, and programs in a folder of its own."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("QGIS_PYTHON", program(tmp_path, "qgis-python", "echo 3.22.16-Name"))
    monkeypatch.delenv("QGIS_PROCESS", raising=False)
    monkeypatch.setattr(qgis_env, "BUILD", tmp_path / "build")
    monkeypatch.setattr(qgis_env, "FOUND", tmp_path / "qgis.json")
    return tmp_path


def test_a_broken_wrapper_is_passed_over(machine):
    program(machine, "qgis_process", "echo 'Command --noversioncheck not known!' >&2; exit 1")
    real = program(machine, "qgis_process.bin", "echo QGIS 3.22.16")
    assert qgis_env.find() == {
        "process": real,
        "python": str(machine / "qgis-python"),
        "version": "3.22.16-Name",
    }


def test_an_old_qgis_is_no_qgis(machine, monkeypatch):
    monkeypatch.setattr(qgis_env, "python_candidates", lambda: [program(machine, "old", "echo 3.16.3-Name")])
    assert qgis_env.find() is None


def test_what_was_found_is_forgotten_after_an_upgrade(machine):
    process = program(machine, "qgis_process", "echo QGIS 3.22.16")
    found = qgis_env.find()
    qgis_env.remember(found)
    assert qgis_env.remembered() == found
    os.utime(process, (1_000_000_000, 1_000_000_000))
    assert qgis_env.remembered() is None


def test_the_environment_is_private_and_has_no_screen(machine, monkeypatch):
    program(machine, "qgis_process", "echo QGIS 3.22.16")
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "GRIDCAST_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    env = qgis_env.environment()
    assert env["QT_QPA_PLATFORM"] == "offscreen"
    assert Path(env["QGIS_CUSTOM_CONFIG_PATH"]).is_relative_to(machine)
    assert Path(env["XDG_RUNTIME_DIR"]).stat().st_mode & 0o777 == 0o700
    assert env["QGIS_PROCESS"] == str(machine / "qgis_process")
    assert env["GRIDCAST_PYTHON"].endswith("/.venv/bin/python")
    assert env["LC_ALL"] == "C.UTF-8"
    assert qgis_env.environment(screen=True)["QT_QPA_PLATFORM"] == "xcb"


# --- Deployment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {}, "/h/.local/share/QGIS/QGIS3"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/QGIS/QGIS3"),
        ("darwin", {}, "/h/Library/Application Support/QGIS/QGIS3"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/QGIS/QGIS3"),
        ("win32", {}, "/h/AppData/Roaming/QGIS/QGIS3"),
    ],
)
def test_profile_folders(platform, environ, expected):
    third, fourth = deploy.settings_folders(platform, environ, Path("/h"))
    assert third == Path(expected)
    assert fourth == third.with_name("QGIS4")


def test_a_custom_profile_folder():
    assert deploy.settings_folders("linux", {"QGIS_CUSTOM_CONFIG_PATH": "/c"}, Path("/h")) == [Path("/c")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[PythonPlugins]\ngridcast_qgis=true\n"),
        ("[A]\nb=1\n", "[A]\nb=1\n\n[PythonPlugins]\ngridcast_qgis=true\n"),
        (
            "[PythonPlugins]\ngridcast_qgis=false\nother=true\n\n[UI]\nState=@ByteArray(\\0%x)\n",
            "[PythonPlugins]\nother=true\ngridcast_qgis=true\n\n[UI]\nState=@ByteArray(\\0%x)\n",
        ),
    ],
)
def test_switching_on_leaves_other_settings_alone(before, after):
    assert deploy.switched_on(before, "gridcast_qgis") == after
    assert deploy.switched_on(after, "gridcast_qgis") == after


def test_deploying_replaces_an_older_plugin(tmp_path):
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__init__.py").write_text("new")
    folder = tmp_path / "QGIS4"
    old = folder / "profiles" / "analyst" / "python" / "plugins" / "gridcast_qgis"
    old.mkdir(parents=True)
    (old / "stale.py").write_text("old")
    assert deploy.deploy(source, folder, "analyst") == old
    assert [path.name for path in old.iterdir()] == ["__init__.py"]
    settings = folder / "profiles" / "analyst" / "QGIS" / "QGIS4.ini"
    assert settings.read_text() == "[PythonPlugins]\ngridcast_qgis=true\n"


def test_the_stamps_follow_the_requirements(tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    lock = tmp_path / "a.lock"
    lock.write_text("numpy==1")
    key = setup.key_of(lock)
    setup.mark_done(venv, "worker", key)
    assert setup.done_before(venv, "worker", key)
    lock.write_text("numpy==2")
    assert not setup.done_before(venv, "worker", setup.key_of(lock))
    (venv / "bin" / "python").unlink()
    assert not setup.done_before(venv, "worker", key)


def test_what_was_found_is_kept_as_text(machine):
    program(machine, "qgis_process", "echo QGIS 3.22.16")
    qgis_env.remember(qgis_env.find())
    assert json.loads(qgis_env.FOUND.read_text())["version"] == "3.22.16-Name"
