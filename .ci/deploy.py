# SPDX-License-Identifier: GPL-2.0-or-later
"""Install the assembled plugin for the user and switch it on: ``deploy.py [--profile NAME]``.

Every QGIS that has been started on this machine gets it (3 and 4), in the
profile named. Standard library only, any Python from 3.9.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from build import BUILD, PACKAGE


def settings_folders(platform: str, environ: Mapping[str, str], home: Path) -> list[Path]:
    """Return where QGIS 3 and QGIS 4 keep their profiles.

    Parameters
    ----------
    platform : str
        As in ``sys.platform``.
    environ : mapping
        Environment variables.
    home : Path
        The user's home folder.
    """
    custom = environ.get("QGIS_CUSTOM_CONFIG_PATH")
    if custom:
        return [Path(custom)]
    if platform == "win32":
        base = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return [base / "QGIS" / name for name in ("QGIS3", "QGIS4")]


def switched_on(text: str, plugin: str) -> str:
    """Return the text of QGIS's settings file with a plugin switched on; the rest stays as it is."""
    lines = text.splitlines()
    section = "[PythonPlugins]"
    if section not in lines:
        lines += [*([""] if lines else []), section]
    start = lines.index(section) + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("[")), len(lines))
    body = [line for line in lines[start:end] if not line.startswith(f"{plugin}=")]
    while body and not body[-1].strip():
        body.pop()
    after = ["", *lines[end:]] if end < len(lines) else []
    return "\n".join([*lines[:start], *body, f"{plugin}=true", *after]) + "\n"


def deploy(source: Path, folder: Path, profile: str) -> Path:
    """Copy the plugin into a profile and switch it on there; return where it went.

    Parameters
    ----------
    source : Path
        The assembled plugin folder.
    folder : Path
        One of :func:`settings_folders`.
    profile : str
        Name of the user profile.
    """
    home = folder / "profiles" / profile
    target = home / "python" / "plugins" / PACKAGE
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    # Folder and file are named after the major version: QGIS/QGIS3.ini, QGIS/QGIS4.ini.
    name = folder.name if folder.name in ("QGIS3", "QGIS4") else "QGIS3"
    (home / "QGIS").mkdir(exist_ok=True)
    for settings in sorted((home / "QGIS").glob("QGIS[34].ini")) or [home / "QGIS" / f"{name}.ini"]:
        text = settings.read_text(encoding="utf-8") if settings.is_file() else ""
        part = settings.with_name(settings.name + ".part")
        part.write_text(switched_on(text, PACKAGE), encoding="utf-8")
        part.replace(settings)
    return target


def main() -> int:
    """Run the command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="default", help="name of the QGIS user profile")
    profile = parser.parse_args().profile
    folders = settings_folders(sys.platform, os.environ, Path.home())
    for folder in [folder for folder in folders if folder.is_dir()] or folders[:1]:
        print(f"Installed in {deploy(BUILD / 'plugin' / PACKAGE, folder, profile)}")
    print("Restart QGIS if it is running: it reads plugins when it starts.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
