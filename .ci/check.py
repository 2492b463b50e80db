# SPDX-License-Identifier: GPL-2.0-or-later
"""Run all static checks, each to its end, and sum up: ``check.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from build import BUILD, PACKAGE, ROOT


def mypy_folder() -> Path:
    """Return a folder where core stands inside the package, as mypy has to see it.

    It consists of links, so that mypy's cache and the sources stay in step.
    """
    folder = BUILD / "mypy"
    package = folder / PACKAGE
    shutil.rmtree(folder, ignore_errors=True)
    package.mkdir(parents=True)
    for source in [*(ROOT / PACKAGE).iterdir(), ROOT / "core"]:
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    return folder


def run(command: list[str], folder: Path = ROOT, shown_as: str = "") -> tuple[bool, str]:
    """Run a command; return whether it passed, and its output with paths as in the repository."""
    env = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = done.stdout
    if shown_as:
        output = output.replace(f"{shown_as}/core/", "core/")
    return done.returncode == 0, output.strip()


def main() -> int:
    """Run the checks."""
    python = sys.executable
    config = str(ROOT / "pyproject.toml")
    mypy = [python, "-m", "mypy", "--config-file", config, "--cache-dir", str(ROOT / ".mypy_cache")]
    checks = {
        "format": lambda: run([python, "-m", "ruff", "format", "--check", "--output-format=concise", "."]),
        "lint": lambda: run([python, "-m", "ruff", "check", "--output-format=concise", "."]),
        "types": lambda: run([*mypy, "-p", PACKAGE], mypy_folder(), shown_as=PACKAGE),
        "types of the tools": lambda: run([*mypy, "."], ROOT / ".ci"),
        "security": lambda: run([python, "-m", "bandit", "-q", "-c", config, "-r", PACKAGE, "core", ".ci"]),
        "guards": lambda: run([python, ".ci/guards.py"]),
        "dependencies": lambda: run([python, "-m", "pip", "check"]),
        "plugin": lambda: run([python, ".ci/build.py", "zip"]),
    }
    failed = []
    for name, check in checks.items():
        start = time.monotonic()
        passed, output = check()
        print(f"{name:20} {'passed' if passed else 'FAILED'}  {time.monotonic() - start:5.1f} s", flush=True)
        if not passed:
            failed.append(name)
            print("    " + output.replace("\n", "\n    "), flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
