# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment variables the worker sees, and the Python environment it runs in. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..core.errors import EnvironmentFault, JobCancelled
from .interpreter import python_of
from .process import Child

# -- environment variables ----------------------------------------------------------------------

# What QGIS sets for itself and its own libraries. The worker brings its own Python, GDAL and PROJ,
# which would load QGIS's data files, plugins or libraries through these and fail or crash.
_DROPPED_PREFIXES = (
    "PYTHON",
    "GDAL_",
    "OGR_",
    "PROJ_",
    "QT_",
    "QML_",
    "QML2_",
    "O4W_QT_",
    "QGIS_",
    "DYLD_",
    "LD_",
    "PDAL_",
    "GRASS_",
)
_DROPPED = {
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "GEOTIFF_CSV",
    "GISBASE",
    "QTDIR",
}
# A user's wish about Python files or reproducible hashes is no business of QGIS.
_KEPT = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED"}

# Folder names by which an installation of QGIS gives itself away in PATH.
_QGIS_FOLDER = re.compile(r"osgeo4w(64)?|osgeo4~\d|qgis[ _.~\d-].*|qgis[^/\\]*\.app", re.IGNORECASE)


def clean_environment(
    environ: Mapping[str, str], platform: str, package_parent: str | Path
) -> dict[str, str]:
    """Return the environment variables for the worker.

    Everything the user needs stays (home, temporary folder, locale, proxies,
    certificates); what leads to the libraries of QGIS goes.

    Parameters
    ----------
    environ : mapping
        The environment of the QGIS process.
    platform : str
        As ``sys.platform``: ``"win32"``, ``"darwin"`` or ``"linux"``.
    package_parent : path
        Folder that holds the package ``gridcast_qgis``.

    Returns
    -------
    dict
        A new dictionary; `environ` is not changed.
    """
    windows = platform == "win32"
    cleaned: dict[str, str] = {}
    for name, value in environ.items():
        known = name.upper() if windows else name
        if known not in _KEPT and (known in _DROPPED or known.startswith(_DROPPED_PREFIXES)):
            continue
        cleaned[name] = (
            _clean_path(value, _qgis_roots(environ, platform), windows) if known == "PATH" else value
        )
    cleaned["PYTHONPATH"] = str(package_parent)
    cleaned["PYTHONUTF8"] = "1"
    cleaned["PYTHONNOUSERSITE"] = "1"
    cleaned.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return cleaned


def _qgis_roots(environ: Mapping[str, str], platform: str) -> list[str]:
    """Return the folders that the running QGIS says it lives in, in comparable form."""
    windows = platform == "win32"
    values = {name.upper() if windows else name: value for name, value in environ.items()}
    if windows:
        names = ["OSGEO4W_ROOT", "QGIS_PREFIX_PATH"]
    elif platform == "darwin":
        names = ["QGIS_PREFIX_PATH"]
    else:
        # Not the prefix, which is /usr and holds everything else, too. These are the mount points
        # of an AppImage and of a Snap.
        names = ["APPDIR", "SNAP"]
    roots = [_comparable(values[name], windows) for name in names if values.get(name)]
    return [*roots, "/app"] if "FLATPAK_ID" in values else roots


def _clean_path(value: str, roots: Iterable[str], windows: bool) -> str:
    separator = ";" if windows else ":"

    def belongs_to_qgis(entry: str) -> bool:
        folder = _comparable(entry, windows)
        if any(folder == root or folder.startswith(root.rstrip("/") + "/") for root in roots):
            return True
        return any(_QGIS_FOLDER.fullmatch(part) for part in folder.split("/"))

    # An empty entry means the current folder, which must not supply programs.
    return separator.join(e for e in value.split(separator) if e.strip() and not belongs_to_qgis(e))


def _comparable(path: str, windows: bool) -> str:
    path = path.strip().strip('"')
    if windows:
        path = path.replace("\\", "/").lower()
    return path.rstrip("/") or "/"


# -- the managed environment --------------------------------------------------------------------

#: Versions of Python for which the locked packages exist, lowest and highest.
PYTHON_RANGE = ((3, 10), (3, 13))
#: What the installed packages and pip's downloads take together.
NEEDED_BYTES = 3 * 1024**3

_MARKER = "gridcast.json"
_PROBE_SECONDS = 30.0
_ABANDONED_SECONDS = 24 * 3600.0

# Prints what the caller needs to judge a Python; imports ssl for real, because a Python
# torn out of its own folder finds the module but not the library behind it.
_PROBE = """
import importlib.util as u, json, sys
lacks = [m for m in ("venv", "ensurepip") if u.find_spec(m) is None]
try:
    import ssl
except ImportError:
    lacks.append("ssl")
print(json.dumps([sys.executable, sys.version_info[:2], sys.maxsize > 2**32, lacks]))
"""

# Isolated from the variables that are meant for the worker, PYTHONPATH above all.
_ISOLATED = ("-I", "-X", "utf8", "-m")
# Wheels only: building a package runs foreign code and needs a compiler.
_INSTALL = (
    *("pip", "install", "--no-input", "--no-user", "--disable-pip-version-check", "--progress-bar", "off"),
    *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement"),
)

Line = Callable[[str], None]
Cancelled = Callable[[], bool]


def lock_digest(lock: Path) -> str:
    """Return the SHA-256 of the lock file, which identifies the set of packages."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def is_current(managed: Path, lock: Path) -> bool:
    """Tell whether the environment `managed` is complete and was made from this `lock` file."""
    try:
        marker = json.loads((managed / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(marker, dict)
        and marker.get("lock_sha256") == lock_digest(lock)
        and python_of(managed).is_file()
    )


def base_candidates(platform: str, prefix: Path) -> list[list[str]]:
    """Return commands that may start a Python fit to make the environment with, best first.

    Parameters
    ----------
    platform : str
        As ``sys.platform``.
    prefix : Path
        ``sys.prefix`` of the Python inside QGIS. On Windows and macOS QGIS
        brings a Python of its own, whose executable lies there.
    """
    versions = [f"3.{minor}" for minor in range(PYTHON_RANGE[1][1], PYTHON_RANGE[0][1] - 1, -1)]
    if platform == "win32":
        launcher = [["py", f"-{version}"] for version in versions]
        return [[str(prefix / "python.exe")], *launcher, ["python.exe"]]
    if platform == "darwin":
        # Not /usr/bin/python3: without Apple's developer tools it only opens a dialog that offers them.
        framework = "/Library/Frameworks/Python.framework/Versions/{0}/bin/python{0}"
        places = (framework, "/opt/homebrew/bin/python{0}", "/usr/local/bin/python{0}")
        return [
            [str(prefix / "bin" / "python3")],
            *([place.format(version)] for version in versions for place in places),
        ]
    return [["/usr/bin/python3"], ["python3"], *([f"python{version}"] for version in versions)]


def find_base_python(
    candidates: Iterable[Sequence[str]],
    environment: Mapping[str, str],
    is_cancelled: Cancelled,
) -> Path:
    """Return the first of the `candidates` that can make the worker's environment.

    Raises
    ------
    EnvironmentFault
        None can; the text says for each one found what it lacks.
    JobCancelled
        `is_cancelled` answered yes.
    """
    found: list[str] = []
    for command in candidates:
        program = shutil.which(command[0], path=environment.get("PATH"))
        if program is None:
            continue
        answer = _probe([program, *command[1:]], environment, is_cancelled)
        if isinstance(answer, Path):
            return answer
        found.append(f"{' '.join(command)} {answer}")
    lowest, highest = (".".join(map(str, version)) for version in PYTHON_RANGE)
    raise EnvironmentFault(
        f"No Python {lowest} to {highest} was found that can make the worker's environment"
        + (f" ({'; '.join(found)})." if found else "."),
        hint="On Debian and Ubuntu install the package python3-venv, on Fedora python3, on Windows and macOS "
        "Python 3.12 from python.org; then run this algorithm again.",
    )


def _probe(command: Sequence[str], environment: Mapping[str, str], is_cancelled: Cancelled) -> Path | str:
    """Return the path of a suitable Python, else what is wrong with it."""
    output: deque[str] = deque(maxlen=1)
    try:
        status = _run(
            [*command, "-I", "-c", _PROBE], environment, output.append, is_cancelled, limit=_PROBE_SECONDS
        )
        executable, version, wide, lacks = json.loads(output[0])
    except (OSError, ValueError, IndexError, TypeError):
        return "is not a working Python"
    if status != 0:
        return "is not a working Python"
    text = ".".join(map(str, version))
    if not PYTHON_RANGE[0] <= tuple(version) <= PYTHON_RANGE[1]:
        return f"is version {text}"
    if not wide:
        return f"is a 32-bit Python {text}"
    if lacks:
        return f"(version {text}) lacks {' and '.join(lacks)}"
    return Path(executable)


def create_managed(
    managed: Path,
    lock: Path,
    base: Path,
    *,
    environment: Mapping[str, str],
    verify: Callable[[Path], object],
    on_line: Line,
    is_cancelled: Cancelled,
) -> Path:
    """Make the managed environment, or make it anew; the old one stays until the new one works.

    Parameters
    ----------
    managed : Path
        Folder of the environment.
    lock : Path
        Requirements with exact versions and hashes.
    base : Path
        Python to make it with (see :func:`find_base_python`).
    environment : mapping
        Environment variables for the programs run (see :func:`clean_environment`).
    verify : callable
        Called with the new interpreter; raises if the packages do not work.
    on_line : callable
        Receives what the programs print, line by line.
    is_cancelled : callable
        Asked at least ten times a second.

    Returns
    -------
    Path
        The interpreter of the environment.

    Raises
    ------
    EnvironmentFault
        A step failed; the text says why and what to do.
    JobCancelled
        `is_cancelled` answered yes. Nothing is left of the new environment.
    """
    folder = managed.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(managed)
        if shutil.disk_usage(folder).free < NEEDED_BYTES:
            raise EnvironmentFault(
                f"The disk of '{folder}' has less than {NEEDED_BYTES // 1024**3} GB free.",
                hint="Free some space and run this algorithm again.",
            )
        new = Path(tempfile.mkdtemp(prefix=f"{managed.name}.", dir=folder))
    except OSError as error:
        raise EnvironmentFault(
            f"The folder '{folder}' cannot be written: {error.strerror}.",
            hint="Allow writing to your QGIS profile folder.",
        ) from error
    try:
        python = python_of(new)
        _step([str(base), *_ISOLATED, "venv", str(new)], environment, on_line, is_cancelled)
        _step([str(python), *_ISOLATED, *_INSTALL, str(lock)], environment, on_line, is_cancelled)
        verify(python)
        marker = {"lock_sha256": lock_digest(lock), "base": str(base)}
        (new / _MARKER).write_text(json.dumps(marker), encoding="utf-8")
        _swap(new, managed)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return python_of(managed)


def _swap(new: Path, managed: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f"{managed.name}.", dir=managed.parent))
    try:
        if managed.exists():
            os.replace(managed, old / "old")
        try:
            os.replace(new, managed)
        except OSError:
            if (old / "old").exists():
                os.replace(old / "old", managed)
            raise
    except OSError as error:
        raise EnvironmentFault(
            f"The environment '{managed}' cannot be replaced: {error.strerror}.",
            hint="Wait until no Gridcast algorithm is running, close other QGIS windows and try again.",
        ) from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(managed: Path) -> None:
    """Delete what earlier attempts left when QGIS was killed in their middle."""
    for left in managed.parent.glob(f"{managed.name}.*"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def _step(
    command: Sequence[str], environment: Mapping[str, str], on_line: Line, is_cancelled: Cancelled
) -> None:
    tail: deque[str] = deque(maxlen=60)

    def note(line: str) -> None:
        tail.append(line)
        on_line(line)

    try:
        status = _run(command, environment, note, is_cancelled)
    except OSError as error:
        raise EnvironmentFault(
            f"'{command[0]}' cannot be started: {error.strerror}.", hint="Repair or reinstall this Python."
        ) from error
    if status != 0:
        raise _explain(Path(command[0]), status, tail)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    on_line: Line,
    is_cancelled: Cancelled,
    limit: float = float("inf"),
) -> int | None:
    """Run a program to its end and return its exit status; None if it had to be stopped after `limit`."""
    started = time.monotonic()
    with Child(command, environment, cwd=Path(tempfile.gettempdir())) as child:
        for line in child.lines():
            if is_cancelled():
                raise JobCancelled()
            if time.monotonic() - started > limit:
                return None
            if line is not None:
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    on_line(text)
        return child.status


# What pip says when it fails, in the order in which to look for it, and what to tell the user.
_FAILURES = (
    (
        r"No space left on device|not enough space on the disk",
        "The disk is full.",
        "Free some space and run this algorithm again.",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "A downloaded package is not the one Gridcast was tested with; it was not installed.",
        "Run this algorithm again; if it happens again, ask whoever runs your package mirror.",
    ),
    (
        r"(?i)ssl module (in python )?is not available",
        "This Python cannot make encrypted connections.",
        "Install Python 3.12 from python.org, then run this algorithm again.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
        "The package server's certificate was not accepted.",
        "If your organisation inspects network traffic, set the environment variable PIP_CERT to the file "
        "with its certificate.",
    ),
    (
        r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|getaddrinfo failed|"
        r"ConnectTimeout|ReadTimeout|timed out|ProxyError|Connection refused|Max retries exceeded|"
        r"Network is unreachable",
        "The package server cannot be reached.",
        "Check the network connection; behind a proxy, set the environment variable HTTPS_PROXY; with a "
        "mirror, set PIP_INDEX_URL.",
    ),
    (
        r"No matching distribution found|not a supported wheel",
        "A package is not available for this computer's system or Python.",
        "Gridcast needs a 64-bit Linux, Windows or macOS (on Apple processors).",
    ),
    (
        r"ensurepip is not available|No module named (venv|ensurepip|pip)",
        "This Python cannot make virtual environments.",
        "On Debian and Ubuntu install the package python3-venv.",
    ),
    (
        r"enable long paths|Errno 2\] No such file or directory: '[A-Z]:",
        "A path is longer than Windows allows.",
        "Enable long paths in Windows, then run this algorithm again.",
    ),
)


def _explain(program: Path, status: int | None, tail: Iterable[str]) -> EnvironmentFault:
    text = "\n".join(tail)
    for pattern, message, hint in _FAILURES:
        if re.search(pattern, text):
            return EnvironmentFault(message, hint=hint)
    last = "\n".join(text.splitlines()[-5:])
    return EnvironmentFault(
        f"Making the worker's environment failed: '{program}' ended with status {status}.",
        hint=f"It said last:\n{last}",
    )
