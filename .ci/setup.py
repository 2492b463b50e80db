# SPDX-License-Identifier: GPL-2.0-or-later
"""Set up what building and testing needs: ``setup.py qgis | worker | dev | qgis-tests | screen``.

Every step ends at once when there is nothing to do. Started by setup.sh;
standard library only, any Python from 3.9.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import qgis_env

from build import ROOT

WORKER_VENV = ROOT / ".venv"
WORKER_LOCK = ROOT / "resources" / "worker" / "worker.lock"
DEV_LOCK = ROOT / ".ci" / "dev.lock"
QGIS_VENV = ROOT / ".venv-qgis"

#: Pythons that the packages in worker.lock have wheels for.
WORKER_PYTHONS = ((3, 10), (3, 13))

#: qgis brings qgis_process; maps need a font, which nothing in it depends on.
QGIS_PACKAGES = ("qgis", "python3-qgis", "python3-venv", "fonts-dejavu-core")
SCREEN_PACKAGES = ("xvfb", "xauth", "fonts-dejavu-core")

BACKPORTS_FILE = Path("/etc/apt/sources.list.d/gridcast-backports.sources")


def say(text: str) -> None:
    """Print a line at once, so that it stands before what a child prints."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """End with a message on the error output."""
    sys.exit("\n" + text)


# --- Debian packages ---------------------------------------------------------------------------------


@functools.cache
def root_prefix() -> tuple[str, ...] | None:
    """Return what to put before a command that needs root; None when root cannot be had."""
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo"):
        command = ["sudo", "-n", "true"]
        if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
            return ("sudo", "-n")
    return None


def as_root(*command: str) -> bool:
    """Run a command as root and tell whether it succeeded."""
    prefix = root_prefix()
    if prefix is None:
        return False
    line = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *command]
    return subprocess.run(line, stdin=subprocess.DEVNULL).returncode == 0


def apt_install(*packages: str, suite: str = "") -> bool:
    """Install Debian packages and tell whether it worked."""
    options = ["-y", "-q", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3"]
    if suite:
        options += ["-t", suite]
    return as_root("apt-get", "install", *options, *packages)


def apt_update() -> bool:
    """Refresh apt's package lists."""
    return as_root("apt-get", "update", "-q", "-o", "Acquire::Retries=3")


def os_release() -> dict[str, str]:
    """Return /etc/os-release as a dictionary."""
    path = Path("/etc/os-release")
    if not path.is_file():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}


def apt_sources() -> str:
    """Return all of the machine's apt sources, one-line entries rewritten as stanzas."""
    folder = Path("/etc/apt/sources.list.d")
    stanzas = [path.read_text() for path in sorted(folder.glob("*.sources"))]
    classic = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))]
    for path in classic:
        if path.is_file():
            stanzas += [stanza_of(line) for line in path.read_text().splitlines()]
    return "\n\n".join(stanzas)


def stanza_of(line: str) -> str:
    """Return a one-line apt entry as a stanza; nothing for a comment or a source entry."""
    match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line.strip())
    if not match:
        return ""
    options, uri, suite, components = match.groups()
    stanza = ["Types: deb", f"URIs: {uri}", f"Suites: {suite}", f"Components: {components.strip()}"]
    for option in (options or "").split():
        key, _, value = option.partition("=")
        if key == "signed-by":
            stanza.append(f"Signed-By: {value.replace(',', ' ')}")
    return "\n".join(stanza)


def parse_stanzas(text: str) -> list[dict[str, str]]:
    """Return the stanzas of deb822 text; keys in lower case, continued lines kept."""
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        stanza: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                stanza[key] += "\n" + line
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                stanza[key] = value.strip()
        if stanza:
            stanzas.append(stanza)
    return stanzas


def backports_entry(sources: str, codename: str) -> str | None:
    """Derive the entry for the backports suite from the machine's own sources.

    Parameters
    ----------
    sources : str
        All apt sources as deb822 stanzas.
    codename : str
        The release, such as ``bookworm``.

    Returns
    -------
    str or None
        The new stanza, from the place and with the key of the release itself;
        empty when the suite is there already, None when nothing can be derived.
    """
    ours = None
    for stanza in parse_stanzas(sources):
        enabled = stanza.get("enabled", "yes").lower() not in ("no", "false", "0")
        if not enabled or "deb" not in stanza.get("types", "").split():
            continue
        suites = stanza.get("suites", "").split()
        if f"{codename}-backports" in suites:
            return ""
        if codename in suites and "main" in stanza.get("components", "").split():
            ours = ours or stanza
    if ours is None:
        return None
    lines = [f"Types: deb\nURIs: {ours['uris']}\nSuites: {codename}-backports\nComponents: main"]
    if "signed-by" in ours:
        separator = "" if ours["signed-by"].startswith("\n") else " "
        lines.append(f"Signed-By:{separator}{ours['signed-by']}")
    return "\n".join(lines) + "\n"


def add_backports(codename: str) -> bool:
    """Make the backports suite known to apt and tell whether it is."""
    entry = backports_entry(apt_sources(), codename)
    if entry is None:
        return False
    if not entry:
        return True
    say(f"Adding {codename}-backports, from where this machine gets {codename}: {BACKPORTS_FILE}")
    with tempfile.NamedTemporaryFile("w", suffix=".sources") as file:
        file.write(entry)
        file.flush()
        if not as_root("install", "-m", "644", file.name, str(BACKPORTS_FILE)):
            return False
    apt_update()  # may report an error of another source: what counts is whether the suite is known
    if apt_has("qgis", f"{codename}-backports"):
        return True
    say(f"{codename}-backports has no QGIS or cannot be reached: taking the release's own QGIS.")
    as_root("rm", "-f", str(BACKPORTS_FILE))
    apt_update()
    return False


def apt_has(package: str, suite: str) -> bool:
    """Tell whether apt knows a package in a suite."""
    command = ["apt-cache", "policy", package]
    shown = subprocess.run(command, capture_output=True, text=True)
    return f"{suite}/" in shown.stdout


# --- The steps ---------------------------------------------------------------------------------------


def key_of(*parts: object) -> str:
    """Return the hash of what a step depends on; paths stand for their contents."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def done_before(venv: Path, step: str, key: str) -> bool:
    """Tell whether a step was finished with this key in an environment that is still there."""
    path = venv / f"{step}.key"
    return path.is_file() and path.read_text() == key and environment_python(venv).exists()


def mark_done(venv: Path, step: str, key: str) -> None:
    """Remember in the environment itself that a step was finished with this key."""
    (venv / f"{step}.key").write_text(key)


def setup_qgis() -> None:
    """Find QGIS, or install it where apt exists."""
    if qgis_env.remembered():
        return
    found = qgis_env.find()
    if found is None:
        install_qgis()
        found = qgis_env.find()
    if found is None:
        fail("QGIS was installed, but neither qgis_process nor `import qgis.core` works with it.")
    qgis_env.remember(found)
    say(f"QGIS {found['version']}: {found['process']}, {found['python']}")


def install_qgis() -> None:
    """Install QGIS from the distribution, on Debian 12 from its backports."""
    release = os_release()
    codename = release.get("VERSION_CODENAME", "")
    backports = release.get("ID") == "debian" and codename == "bookworm"
    suite = f"{codename}-backports" if backports else ""
    if not shutil.which("apt-get"):
        fail(
            "Gridcast needs QGIS 3.22 or newer with its Python modules. Install it from qgis.org or with\n"
            "the package manager of this system (package `qgis`). If it is in an unusual place, set\n"
            "QGIS_PROCESS to its qgis_process and QGIS_PYTHON to the Python that can import qgis."
        )
    if root_prefix() is None:
        commands = ["apt-get update"]
        entry = backports_entry(apt_sources(), codename) if backports else ""
        if entry:
            commands.insert(0, f"printf %s {shlex.quote(entry)} > {BACKPORTS_FILE}")
        target = f"-t {suite} " if suite and entry is not None else ""
        commands.append(f"apt-get install -y --no-install-recommends {target}{' '.join(QGIS_PACKAGES)}")
        fail(
            "Gridcast needs QGIS 3.22 or newer. It is not installed, and that needs an administrator.\n"
            "Run this as root, then `make setup` again:\n\n    " + "\n    ".join(commands)
        )
    say("QGIS is not installed: installing it with apt, a download of some 450 MB.")
    if not apt_update():
        say("apt-get update reported an error; going on with the package lists there are.")
    if suite and add_backports(codename):
        if apt_install(*QGIS_PACKAGES, suite=suite):
            return
        say(f"QGIS from {suite} could not be installed: taking the release's own QGIS.")
    if not apt_install(*QGIS_PACKAGES):
        fail("apt could not install QGIS; its messages stand above.")


def python_facts(python: str) -> tuple[tuple[int, int], bool] | None:
    """Return the version of an interpreter and whether it can make environments; None if it does not run."""
    ask = (
        "import sys, importlib.util as u; "
        "print(*sys.version_info[:2], int(all(map(u.find_spec, ('venv', 'ensurepip')))))"
    )
    try:
        command = [python, "-c", ask]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, complete = map(int, shown.split())
    return (major, minor), bool(complete)


def worker_python() -> str:
    """Return a Python that can carry the worker environment; install what it lacks where possible."""
    low, high = WORKER_PYTHONS
    names = [f"python3.{minor}" for minor in range(high[1], low[1] - 1, -1)]
    wanted = [os.environ.get("WORKER_PYTHON"), "/usr/bin/python3", *names, "python3"]
    bare = []
    for python in filter(None, map(shutil.which, filter(None, wanted))):
        facts = python_facts(python)
        if facts and low <= facts[0] <= high:
            if facts[1]:
                return python
            bare.append((python, facts[0]))
    for python, (major, minor) in bare:
        package = "python3-venv" if python == "/usr/bin/python3" else f"python{major}.{minor}-venv"
        if shutil.which("apt-get") and root_prefix() is not None:
            apt_update()
            if apt_install(package):
                return python
        fail(
            f"{python} cannot make virtual environments. Run this as root, then `make setup` again:\n\n"
            f"    apt-get update && apt-get install -y {package}"
        )
    fail(
        f"The worker needs Python {low[0]}.{low[1]} to {high[0]}.{high[1]}, and there is none on PATH.\n"
        "Install one, or set WORKER_PYTHON to one, and run `make setup` again."
    )


def environment_python(venv: Path) -> Path:
    """Return the interpreter of an environment."""
    return venv / "bin" / "python"


def works(venv: Path) -> bool:
    """Tell whether an environment's interpreter and pip run."""
    command = [str(environment_python(venv)), "-m", "pip", "-V"]
    return Path(command[0]).exists() and subprocess.run(command, capture_output=True).returncode == 0


def install_locked(venv: Path, *locks: Path, extra: tuple[Path, ...] = ()) -> None:
    """Install locked requirements and remove what no lock names any more."""
    python = str(environment_python(venv))
    command = [python, "-m", "pip", "--disable-pip-version-check"]
    files = [argument for lock in locks for argument in ("-r", str(lock))]
    install = [*command, "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:", *files]
    if subprocess.run(install, stdin=subprocess.DEVNULL).returncode:
        fail("pip could not install the locked packages; its messages stand above.")
    named = {"pip", "setuptools"}
    for lock in (*locks, *extra):
        named.update(re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.M))
    listed = subprocess.run(
        [*command, "list", "--local", "--format=json"], capture_output=True, text=True, check=True
    ).stdout
    plain = {re.sub(r"[-_.]+", "-", name).lower() for name in named}
    old = [p["name"] for p in json.loads(listed) if re.sub(r"[-_.]+", "-", p["name"]).lower() not in plain]
    if old:
        say(f"Removing what the locks no longer name: {', '.join(old)}")
        subprocess.run([*command, "uninstall", "--quiet", "--yes", *old], check=True)


def setup_worker() -> None:
    """Make the worker environment from its locked requirements."""
    key = key_of(WORKER_LOCK)
    if done_before(WORKER_VENV, "worker", key):
        return
    if not works(WORKER_VENV):
        python = worker_python()
        say(f"Making the worker environment .venv with {python}")
        subprocess.run([python, "-m", "venv", "--clear", str(WORKER_VENV)], check=True)
    say("Installing the worker's packages, about 500 MB to download")
    install_locked(WORKER_VENV, WORKER_LOCK, extra=(DEV_LOCK,))
    mark_done(WORKER_VENV, "worker", key)


def setup_dev() -> None:
    """Add the test and check tools to the worker environment."""
    key = key_of(WORKER_LOCK, DEV_LOCK)
    if done_before(WORKER_VENV, "dev", key):
        return
    say("Installing the test and check tools")
    install_locked(WORKER_VENV, DEV_LOCK, extra=(WORKER_LOCK,))
    mark_done(WORKER_VENV, "dev", key)


def setup_qgis_tests() -> None:
    """Make the environment that runs pytest inside QGIS's own Python."""
    qgis = qgis_env.found()
    old = tuple(map(int, qgis["version"].split(".")[:2])) < (3, 34)
    lock = ROOT / ".ci" / ("qgis-tests-322.lock" if old else "qgis-tests.lock")
    key = key_of(lock, qgis["python"])
    if done_before(QGIS_VENV, "qgis-tests", key):
        return
    facts = python_facts(qgis["python"])
    if facts and not facts[1] and not (apt_update() and apt_install("python3-venv")):
        fail("An administrator should run: apt-get update && apt-get install -y python3-venv")
    say(f"Making the QGIS test environment .venv-qgis with {qgis['python']}")
    subprocess.run(
        [qgis["python"], "-m", "venv", "--clear", "--system-site-packages", str(QGIS_VENV)], check=True
    )
    install_locked(QGIS_VENV, lock)
    mark_done(QGIS_VENV, "qgis-tests", key)


def setup_screen() -> None:
    """Install a virtual display, for screenshots on a machine without one."""
    if os.environ.get("DISPLAY") or shutil.which("xvfb-run"):
        return
    if root_prefix() is None or not (apt_update() and apt_install(*SCREEN_PACKAGES)):
        fail(f"Screenshots need a display. As root: apt-get install -y {' '.join(SCREEN_PACKAGES)}")


STEPS = {
    "qgis": setup_qgis,
    "worker": setup_worker,
    "dev": setup_dev,
    "qgis-tests": setup_qgis_tests,
    "screen": setup_screen,
}


def main(arguments: list[str]) -> int:
    """Run the command line; see the module's text."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        print(__doc__, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    STEPS[arguments[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
