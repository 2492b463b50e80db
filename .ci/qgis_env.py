# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine's QGIS is, and the environment in which make runs it.

``qgis_env.py run [--screen] COMMAND...`` runs a command in that environment;
``qgis_env.py show`` prints it. Standard library only, any Python from 3.9.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from build import BUILD, ROOT, zip_path

FOUND = ROOT / ".setup" / "qgis.json"
OLDEST = (3, 22)

_MAC = "/Applications/QGIS{}.app/Contents/MacOS/bin/{}"
_MAC_NAMES = ("", "-LTR", "-final-4_0")


def process_candidates() -> list[str]:
    """Return the ``qgis_process`` executables that may exist, best first.

    The wrapper that Debian ships with 3.22 passes an option that the program
    behind it refuses, so that program stands in the list as well.
    """
    named = [os.environ.get("QGIS_PROCESS"), shutil.which("qgis_process"), shutil.which("qgis_process.bin")]
    mac = [_MAC.format(name, "qgis_process") for name in _MAC_NAMES]
    return [path for path in named if path] + [path for path in mac if Path(path).is_file()]


def python_candidates() -> list[str]:
    """Return the Python interpreters that may be able to import ``qgis``, best first."""
    mac = [_MAC.format(name, "python3") for name in _MAC_NAMES]
    paths = [os.environ.get("QGIS_PYTHON"), "/usr/bin/python3", *mac, shutil.which("python3")]
    return [path for path in paths if path and Path(path).is_file()]


def _answer(command: list[str]) -> str:
    """Return what a command prints, or nothing when it fails or hangs."""
    env = {**os.environ, **screenless()}
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout


def find() -> dict[str, str] | None:
    """Look for a QGIS that can be used; None when there is none.

    Returns
    -------
    dict or None
        ``process`` (the qgis_process executable), ``python`` (the interpreter
        that imports qgis) and ``version``.
    """
    ask = "from qgis.core import Qgis; print(Qgis.QGIS_VERSION)"
    for python in python_candidates():
        version = _answer([python, "-c", ask]).strip()
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST:
            break
    else:
        return None
    for process in process_candidates():
        if _answer([process, "--version"]).startswith("QGIS"):
            return {"process": process, "python": python, "version": version}
    return None


def remember(qgis: dict[str, str]) -> None:
    """Keep what was found, for :func:`remembered`."""
    FOUND.parent.mkdir(exist_ok=True)
    FOUND.write_text(json.dumps({**qgis, "changed": os.path.getmtime(qgis["process"])}, indent=1))


def remembered() -> dict[str, str] | None:
    """Return what an earlier set-up found; None after QGIS was removed or upgraded."""
    if not FOUND.is_file():
        return None
    qgis = json.loads(FOUND.read_text())
    process = Path(qgis["process"])
    same = process.is_file() and process.stat().st_mtime == qgis.pop("changed")
    return qgis if same and Path(qgis["python"]).is_file() else None


def found() -> dict[str, str]:
    """Return this machine's QGIS, looking for it only when no set-up has."""
    qgis = remembered() or find()
    if qgis is None:
        sys.exit("QGIS was not found: run `make setup-qgis`.")
    return qgis


def screenless() -> dict[str, str]:
    """Return the variables that let QGIS run without screen, session and the user's own profile."""
    runtime = BUILD / "run"
    runtime.mkdir(parents=True, exist_ok=True)
    runtime.chmod(0o700)  # Qt complains about anything wider
    profile = BUILD / "profile"
    profile.mkdir(exist_ok=True)
    variables = {
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(runtime),
        "QGIS_CUSTOM_CONFIG_PATH": str(profile),
    }
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    if sys.platform == "linux" and "utf" not in locale.lower():
        variables["LC_ALL"] = "C.UTF-8"  # paths with non-ASCII letters need it
    return variables


def environment(screen: bool = False) -> dict[str, str]:
    """Return the whole environment of a command that uses QGIS and this checkout.

    Parameters
    ----------
    screen : bool
        The command opens windows (on a real or a virtual display).
    """
    qgis = found()
    env = {**os.environ, **screenless()}
    if screen:
        env["QT_QPA_PLATFORM"] = "xcb"
    # The Python inside QGIS takes its home from the first python3 on the path: it must be QGIS's own,
    # not the one of a virtual environment or of a version manager that runs this script.
    env["PATH"] = os.pathsep.join([str(Path(qgis["python"]).parent), env.get("PATH", os.defpath)])
    env["QGIS_PROCESS"] = qgis["process"]
    env["QGIS_PYTHON"] = qgis["python"]
    env.setdefault("GRIDCAST_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    env["PLUGIN_DIR"] = str(BUILD / "plugin")
    env["PLUGIN_ZIP"] = str(zip_path())
    return env


def main(arguments: list[str]) -> int:
    """Run the command line; see the module's text."""
    if arguments[:1] == ["show"]:
        for name, value in sorted(environment().items()):
            if os.environ.get(name) != value:
                print(f"{name}={value}")
        return 0
    if arguments[:1] != ["run"] or len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    command = arguments[1:]
    screen = command[0] == "--screen"
    if screen:
        command = command[1:]
    env = environment(screen)
    if screen and "DISPLAY" not in env:
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    sys.stdout.flush()
    os.execvpe(command[0], command, env)  # nosec B606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
