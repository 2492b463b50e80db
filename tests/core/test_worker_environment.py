# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker's environment variables for every system, and the making of the managed environment."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from gridcast_qgis.core.errors import EnvironmentFault, JobCancelled
from gridcast_qgis.worker import environment
from gridcast_qgis.worker.environment import (
    base_candidates,
    clean_environment,
    create_managed,
    find_base_python,
    is_current,
    lock_digest,
)
from gridcast_qgis.worker.interpreter import python_of

OURS = {
    "PYTHONPATH": "/plugins",
    "PYTHONUTF8": "1",
    "PYTHONNOUSERSITE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}

# What the user needs, on every system: it must come through untouched.
COMMON = {
    "HTTPS_PROXY": "http://proxy:3128",
    "http_proxy": "http://proxy:3128",
    "NO_PROXY": "localhost",
    "SSL_CERT_FILE": "/etc/certs/company.pem",
    "REQUESTS_CA_BUNDLE": "/etc/certs/company.pem",
    "PIP_CERT": "/etc/certs/company.pem",
    "PIP_INDEX_URL": "https://mirror.example/simple",
    "KERAS_BACKEND": "jax",
    "LANG": "de_DE.UTF-8",
    "TZ": "America/Toronto",
}

DEBIAN = {
    **COMMON,
    "HOME": "/home/zoë",
    "USER": "zoë",
    "TMPDIR": "/tmp",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "DISPLAY": ":0",
    "PATH": "/home/zoë/.local/bin:/usr/local/bin:/usr/bin:/bin",
}

WINDOWS = {
    **COMMON,
    "ALLUSERSPROFILE": r"C:\ProgramData",
    "APPDATA": r"C:\Users\Zoë\AppData\Roaming",
    "LOCALAPPDATA": r"C:\Users\Zoë\AppData\Local",
    "COMSPEC": r"C:\WINDOWS\system32\cmd.exe",
    "NUMBER_OF_PROCESSORS": "4",
    "PATHEXT": ".COM;.EXE;.BAT;.CMD",
    "SYSTEMROOT": r"C:\WINDOWS",
    "TEMP": r"C:\Users\Zoë\AppData\Local\Temp",
    "TMP": r"C:\Users\Zoë\AppData\Local\Temp",
    "USERPROFILE": r"C:\Users\Zoë",
    "WINDIR": r"C:\WINDOWS",
}

WINDOWS_QGIS = {
    "GDAL_DATA": r"C:\OSGeo4W\apps\gdal\share\gdal",
    "GDAL_DRIVER_PATH": r"C:\OSGeo4W\apps\gdal\lib\gdalplugins",
    "GDAL_FILENAME_IS_UTF8": "YES",
    "GEOTIFF_CSV": r"C:\OSGeo4W\share\epsg_csv",
    "O4W_QT_BINARIES": "C:/OSGeo4W/apps/Qt5/bin",
    "O4W_QT_PREFIX": "C:/OSGeo4W/apps/Qt5",
    "PDAL_DRIVER_PATH": r"C:\OSGeo4W\apps\pdal\plugins",
    "PROJ_DATA": r"C:\OSGeo4W\share\proj",
    "PROJ_LIB": r"C:\OSGeo4W\share\proj",
    "PYTHONHOME": r"C:\OSGeo4W\apps\Python312",
    "PYTHONPATH": r"C:\OSGeo4W\apps\qgis\python;",
    "QGIS_PREFIX_PATH": "C:/OSGeo4W/apps/qgis",
    "QT_PLUGIN_PATH": r"C:\OSGeo4W\apps\qgis\qtplugins;C:\OSGeo4W\apps\qt5\plugins",
}


def test_debian_loses_nothing_but_gets_ours():
    assert clean_environment(DEBIAN, "linux", "/plugins") == {**DEBIAN, **OURS}


def test_the_input_is_not_changed():
    before = dict(WINDOWS_QGIS)
    clean_environment(before, "win32", "/plugins")
    assert before == WINDOWS_QGIS


def test_debian_in_a_virtual_environment_and_with_a_tuned_loader():
    disturbed = {
        **DEBIAN,
        "PYTHONPATH": "/usr/share/qgis/python",
        "PYTHONSTARTUP": "/home/zoë/.pythonrc",
        "PYTHONPYCACHEPREFIX": "/caches/pycache",
        "VIRTUAL_ENV": "/home/zoë/env",
        "LD_LIBRARY_PATH": "/opt/gdal/lib",
        "LD_PRELOAD": "/usr/lib/libjemalloc.so",
        "PROJ_NETWORK": "ON",
        "GDAL_CACHEMAX": "2048",
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": "/profiles/other",
    }
    expected = {**DEBIAN, **OURS, "PYTHONPYCACHEPREFIX": "/caches/pycache"}
    assert clean_environment(disturbed, "linux", "/plugins") == expected


@pytest.mark.parametrize(
    ("leftovers", "path"),
    [
        (
            {"APPDIR": "/tmp/.mount_QGIS-3AbCdEf", "LD_LIBRARY_PATH": "/tmp/.mount_QGIS-3AbCdEf/usr/lib"},
            "/tmp/.mount_QGIS-3AbCdEf/usr/bin:/tmp/.mount_QGIS-3AbCdEf",
        ),
        ({"FLATPAK_ID": "org.qgis.qgis", "LD_LIBRARY_PATH": "/app/lib"}, "/app/bin"),
        ({"SNAP": "/snap/qgis/12"}, "/snap/qgis/12/bin"),
        ({}, "/opt/QGIS-3.40/bin:/opt/qgis_3.22/bin:"),
    ],
)
def test_linux_bundles_leave_the_path(leftovers, path):
    found = clean_environment(
        {**DEBIAN, **leftovers, "PATH": f"{path}:{DEBIAN['PATH']}"}, "linux", "/plugins"
    )
    assert found["PATH"] == DEBIAN["PATH"]
    assert "LD_LIBRARY_PATH" not in found


def test_a_folder_app_outside_of_a_flatpak_stays():
    found = clean_environment({"PATH": "/app/bin:/usr/bin"}, "linux", "/plugins")
    assert found["PATH"] == "/app/bin:/usr/bin"


def test_windows_osgeo4w_goes_and_the_user_stays():
    path = [
        r"C:\OSGeo4W\apps\qgis\bin",
        r"C:\OSGeo4W\apps\Python312",
        r"C:\OSGeo4W\apps\Python312\Scripts",
        r"c:\osgeo4w\apps\qt5\BIN",
        r"C:\OSGeo4W\bin",
        "",
        r"C:\WINDOWS\system32",
        r"C:\WINDOWS",
        '"C:\\Program Files\\Git\\cmd"',
    ]
    environ = {**WINDOWS, **WINDOWS_QGIS, "OSGEO4W_ROOT": r"C:\OSGeo4W", "Path": ";".join(path)}
    found = clean_environment(environ, "win32", "/plugins")
    assert found == {
        **WINDOWS,
        **OURS,
        # Harmless, and the Python that QGIS brings finds its libraries by it.
        "OSGEO4W_ROOT": r"C:\OSGeo4W",
        "Path": r'C:\WINDOWS\system32;C:\WINDOWS;"C:\Program Files\Git\cmd"',
    }


@pytest.mark.parametrize(
    ("root", "entry"),
    [
        (r"C:\PROGRA~1\QGIS34~1.6", r"C:\PROGRA~1\QGIS34~1.6\apps\qgis-ltr\bin"),
        (r"C:\PROGRA~1\QGIS34~1.6", r"C:\Program Files\QGIS 3.22.16\bin"),
        (r"D:\GIS", "D:/gis/apps/Python39/Scripts"),
        ("D:\\GIS\\", r"D:\GIS"),
        (r"D:\GIS", r"C:\OSGEO4~1\bin"),
        (r"D:\GIS", r"C:\OSGeo4W64\bin"),
    ],
)
def test_windows_installations_in_other_places_leave_the_path(root, entry):
    environ = {"OSGEO4W_ROOT": root, "PATH": rf"{entry};C:\WINDOWS;D:\GISdata"}
    assert clean_environment(environ, "win32", "/plugins")["PATH"] == r"C:\WINDOWS;D:\GISdata"


def test_windows_names_are_compared_without_case():
    environ = {"PythonHome": "x", "Proj_Lib": "x", "qt_plugin_path": "x", "pythonhashseed": "0", "Tmp": "x"}
    assert clean_environment(environ, "win32", "/plugins") == {**OURS, "pythonhashseed": "0", "Tmp": "x"}


def test_linux_names_are_compared_with_case():
    assert clean_environment({"gdal_data": "mine"}, "linux", "/plugins") == {**OURS, "gdal_data": "mine"}


@pytest.mark.parametrize(
    "app", ["/Applications/QGIS.app", "/Applications/QGIS-LTR.app", "/Users/zoë/My Maps.app"]
)
def test_macos_bundle_goes_and_the_user_stays(app):
    user = {**COMMON, "HOME": "/Users/zoë", "TMPDIR": "/var/folders/x/T/", "USER": "zoë"}
    bundle = {
        "PYTHONHOME": f"{app}/Contents/MacOS",
        "PYTHONPATH": f"{app}/Contents/Resources/python",
        "__PYVENV_LAUNCHER__": f"{app}/Contents/MacOS/bin/python3",
        "DYLD_LIBRARY_PATH": f"{app}/Contents/MacOS/lib",
        "DYLD_FRAMEWORK_PATH": f"{app}/Contents/Frameworks",
        "GDAL_DATA": f"{app}/Contents/Resources/gdal",
        "PROJ_DATA": f"{app}/Contents/Resources/proj",
        "QT_AUTO_SCREEN_SCALE_FACTOR": "1",
        "QGIS_PREFIX_PATH": f"{app}/Contents/MacOS",
    }
    path = f"{app}/Contents/MacOS/bin:{app}/Contents/MacOS:/opt/homebrew/bin:/usr/bin:/bin"
    found = clean_environment({**user, **bundle, "PATH": path}, "darwin", "/plugins")
    assert found == {**user, **OURS, "PATH": "/opt/homebrew/bin:/usr/bin:/bin"}


def test_a_wish_about_tensorflows_log_is_respected():
    assert clean_environment({"TF_CPP_MIN_LOG_LEVEL": "0"}, "linux", "/p")["TF_CPP_MIN_LOG_LEVEL"] == "0"


# -- finding a Python to make the environment with ----------------------------------------------


def test_candidates_begin_with_the_python_beside_qgis():
    assert base_candidates("linux", Path("/usr"))[0] == ["/usr/bin/python3"]
    assert base_candidates("win32", Path("C:/OSGeo4W/apps/Python312"))[0] == [
        str(Path("C:/OSGeo4W/apps/Python312/python.exe"))
    ]
    assert ["py", "-3.12"] in base_candidates("win32", Path("x"))
    macos = base_candidates("darwin", Path("/Applications/QGIS.app/Contents/MacOS"))
    assert macos[0] == ["/Applications/QGIS.app/Contents/MacOS/bin/python3"]
    assert ["/opt/homebrew/bin/python3.12"] in macos
    assert ["/usr/bin/python3"] not in macos


def never() -> bool:
    return False


#: First lines of a script that this Python is to run, also where its path has a space in it, which no #! line
#: may have: a command for the shell, a text that is not used for Python.
STARTER = f"""#!/bin/sh
''''exec "{sys.executable}" "$0" "$@" # '''
"""


def script(path: Path, text: str) -> Path:
    """Make an executable out of the text of a Python script."""
    path.write_text(STARTER + textwrap.dedent(text), encoding="utf-8")
    path.chmod(0o755)
    return path


posix = pytest.mark.skipif(
    sys.platform == "win32", reason="stand-ins for programs are started by their #! line"
)


@posix
def test_the_first_python_that_will_do_is_taken(tmp_path):
    candidates = [
        ["no such program"],
        [str(script(tmp_path / "mute", ""))],
        [str(script(tmp_path / "old", "print('[\"/old\", [3, 9], true, []]')"))],
        [str(script(tmp_path / "good", "print('[\"/good/python\", [3, 11], true, []]')"))],
    ]
    assert find_base_python(candidates, os.environ, never) == Path("/good/python")


@posix
def test_the_error_says_what_each_python_lacks(tmp_path):
    answers = {
        "mute": "",
        "babble": "print('welcome')",
        "old": "print('[\"/p\", [3, 9], true, []]')",
        "new": "print('[\"/p\", [3, 14], true, []]')",
        "narrow": "print('[\"/p\", [3, 12], false, []]')",
        "bare": 'print(\'["/p", [3, 11], true, ["ensurepip", "ssl"]]\')',
    }
    candidates = [[str(script(tmp_path / name, text))] for name, text in answers.items()]
    with pytest.raises(EnvironmentFault) as caught:
        find_base_python(candidates, os.environ, never)
    text = caught.value.text().replace(f"{tmp_path}/", "")
    assert text == (
        "No Python 3.10 to 3.13 was found that can make the worker's environment (mute is not a working "
        "Python; babble is not a working Python; old is version 3.9; new is version 3.14; narrow is a 32-bit "
        "Python 3.12; bare (version 3.11) lacks ensurepip and ssl). On Debian and Ubuntu install the package "
        "python3-venv, on Fedora python3, on Windows and macOS Python 3.12 from python.org; then run this "
        "algorithm again."
    )


@posix
def test_a_python_that_hangs_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_PROBE_SECONDS", 0.2)
    hanging = [str(script(tmp_path / "hangs", "import time; time.sleep(600)"))]
    with pytest.raises(EnvironmentFault, match="hangs is not a working Python"):
        find_base_python([hanging], os.environ, never)


def test_this_python_is_judged_for_real():
    python = find_base_python([[sys.executable]], os.environ, never)
    assert python == Path(sys.executable)


# -- making the environment ---------------------------------------------------------------------


def wheel(folder: Path) -> Path:
    """Make a package with one module, as pip would download it."""
    files = {
        "tiny.py": b"VALUE = 42\n",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tiny-1.0.dist-info/RECORD"
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in files.items()
    ]
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
    return path


class Attempt:
    """The managed environment of a test, in a folder with a space and letters beyond ASCII."""

    def __init__(self, root: Path):
        self.folder = root / "profil zoë" / "gridcast"
        self.managed = self.folder / "env"
        self.lock = root / "worker.lock"
        self.lock.write_text("nothing==1.0\n")
        self.lines: list[str] = []
        self.verified: list[Path] = []

    def create(self, base: Path | str = sys.executable, **options) -> Path:
        options.setdefault("verify", self.verified.append)
        options.setdefault("is_cancelled", never)
        options.setdefault("on_line", self.lines.append)
        return create_managed(self.managed, self.lock, Path(base), environment=dict(os.environ), **options)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED_BYTES", 1)
    return Attempt(tmp_path)


def fake_base(folder: Path, pip: str, venv_status: int = 0) -> Path:
    """Make a Python whose `venv` makes a Python whose `pip` is the given script."""
    (folder / "pip.txt").write_text(STARTER + textwrap.dedent(pip), encoding="utf-8")
    return script(
        folder / "base python",
        f"""
        import shutil, sys
        from pathlib import Path
        if {venv_status}:
            print("Error: ensurepip is not available")
            sys.exit({venv_status})
        assert sys.argv[1:6] == ["-I", "-X", "utf8", "-m", "venv"], sys.argv
        python = Path(sys.argv[6]) / "bin" / "python"
        python.parent.mkdir()
        shutil.copy({str(folder / "pip.txt")!r}, python)
        python.chmod(0o755)
        """,
    )


def test_a_real_environment_is_made_checked_and_moved_into_place(attempt, tmp_path):
    package = wheel(tmp_path)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    attempt.lock.write_text(f"tiny @ {package.as_uri()} --hash=sha256:{digest}\n")
    values = []

    def verify(python: Path) -> None:
        values.append(
            subprocess.run([python, "-c", "import tiny; print(tiny.VALUE)"], capture_output=True).stdout
        )

    assert attempt.create(verify=verify) == python_of(attempt.managed)
    assert values == [b"42" + os.linesep.encode()]
    assert any("Successfully installed tiny" in line for line in attempt.lines)
    assert is_current(attempt.managed, attempt.lock)
    marker = json.loads((attempt.managed / "gridcast.json").read_text(encoding="utf-8"))
    assert marker == {"lock_sha256": lock_digest(attempt.lock), "base": sys.executable}
    assert attempt.left() == ["env"]
    verify(python_of(attempt.managed))
    assert values[1:] == values[:1]


@posix
def test_a_new_environment_replaces_the_old_one(attempt, tmp_path):
    attempt.managed.mkdir(parents=True)
    (attempt.managed / "old").touch()
    attempt.create(fake_base(tmp_path, "print('Successfully installed')"))
    assert attempt.left() == ["env"]
    assert not (attempt.managed / "old").exists()
    assert [path.name for path in attempt.verified] == ["python"]


@posix
def test_another_lock_file_makes_the_environment_outdated(attempt, tmp_path):
    attempt.create(fake_base(tmp_path, "print('Successfully installed')"))
    assert is_current(attempt.managed, attempt.lock)
    attempt.lock.write_text("nothing==2.0\n")
    assert not is_current(attempt.managed, attempt.lock)


@pytest.mark.parametrize("marker", [None, "", "[]", '{"lock_sha256": "0"}'])
def test_an_environment_without_a_sound_marker_is_not_current(attempt, marker):
    attempt.managed.mkdir(parents=True)
    if marker is not None:
        (attempt.managed / "gridcast.json").write_text(marker)
    assert not is_current(attempt.managed, attempt.lock)


@posix
@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            "NewConnectionError('Failed to establish a new connection: [Errno -3] Temporary failure')",
            "The package server cannot be reached.",
            "HTTPS_PROXY",
        ),
        (
            "SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED')) Max retries exceeded",
            "The package server's certificate was not accepted.",
            "PIP_CERT",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "The disk is full.",
            "Free some space",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "A downloaded package is not the one Gridcast was tested with; it was not installed.",
            "again",
        ),
        (
            "ERROR: No matching distribution found for tensorflow==2.21.0",
            "A package is not available for this computer's system or Python.",
            "64-bit",
        ),
        (
            "ERROR: [Errno 2] No such file or directory: 'C:/Users/long...",
            "A path is longer than Windows allows.",
            "long paths",
        ),
        (
            'SSLError("Can\'t connect to HTTPS URL because the SSL module is not available.")',
            "This Python cannot make encrypted connections.",
            "python.org",
        ),
        (
            "/env/bin/python: No module named pip",
            "This Python cannot make virtual environments.",
            "python3-venv",
        ),
        ("something else", "ended with status 1.", "It said last:\nsomething else"),
    ],
)
def test_failures_of_pip_are_explained_and_leave_the_old_environment(attempt, tmp_path, said, message, hint):
    attempt.managed.mkdir(parents=True)
    (attempt.managed / "old").touch()
    base = fake_base(tmp_path, f"import sys; print({said!r}); sys.exit(1)")
    with pytest.raises(EnvironmentFault) as caught:
        attempt.create(base)
    assert message in caught.value.text()
    assert hint in caught.value.text()
    assert attempt.left() == ["env"]
    assert (attempt.managed / "old").exists()


@posix
def test_a_python_without_venv_is_explained(attempt, tmp_path):
    with pytest.raises(
        EnvironmentFault, match="cannot make virtual environments.*install the package python3-venv"
    ):
        attempt.create(fake_base(tmp_path, "", venv_status=1))
    assert attempt.left() == []


@posix
def test_packages_that_do_not_work_leave_the_old_environment(attempt, tmp_path):
    def verify(python):
        raise EnvironmentFault("TensorFlow cannot be loaded.")

    with pytest.raises(EnvironmentFault, match="TensorFlow cannot be loaded"):
        attempt.create(fake_base(tmp_path, ""), verify=verify)
    assert attempt.left() == []


@posix
def test_cancel_leaves_neither_file_nor_process(attempt, tmp_path):
    note = tmp_path / "pid"
    base = fake_base(
        tmp_path,
        f"""
        import os, time
        from pathlib import Path
        Path({str(note)!r}).write_text(str(os.getpid()))
        print("Collecting tensorflow", flush=True)
        time.sleep(600)
        """,
    )
    with pytest.raises(JobCancelled):
        attempt.create(base, is_cancelled=lambda: "Collecting tensorflow" in attempt.lines)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert attempt.left() == []


def test_a_full_disk_is_noticed_before_the_work(attempt, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED_BYTES", 10**18)
    with pytest.raises(EnvironmentFault, match="has less than .* GB free. Free some space"):
        attempt.create()
    assert attempt.left() == []


def test_a_folder_that_cannot_be_made_is_named(attempt, tmp_path):
    attempt.folder.parent.write_text("a file in the folder's place")
    with pytest.raises(EnvironmentFault, match="gridcast' cannot be written"):
        attempt.create()


@posix
def test_what_a_killed_attempt_left_is_removed(attempt, tmp_path):
    for name, age in (("env.abandoned", 2 * 86400), ("env.recent", 60)):
        (attempt.folder / name / "lib").mkdir(parents=True)
        then = os.stat(attempt.folder / name).st_mtime - age
        os.utime(attempt.folder / name, (then, then))
    attempt.create(fake_base(tmp_path, ""))
    assert attempt.left() == ["env", "env.recent"]
