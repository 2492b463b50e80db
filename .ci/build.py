# SPDX-License-Identifier: GPL-2.0-or-later
"""Assemble the plugin: ``build.py folder`` or ``build.py zip``.

The zip is reproducible: sorted entries, fixed permissions, and one time stamp
for all (SOURCE_DATE_EPOCH, or else the day of the release in CHANGELOG.md).
Standard library only, any Python from 3.9.
"""

from __future__ import annotations

import ast
import datetime
import os
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PACKAGE = "gridcast_qgis"

#: What the plugin may consist of. Anything else in its folders stops the build, so that nothing slips in.
SUFFIXES = {
    *(".py", ".txt", ".in", ".lock", ".json", ".md", ".html", ".css", ".csv"),
    *(".svg", ".png", ".qml", ".model3", ".gpkg", ".geojson", ".gz", ".ts", ".qm"),
}
#: What working with the sources leaves behind.
LEFTOVERS = {"__pycache__", ".DS_Store"}


def version(root: Path = ROOT) -> str:
    """Return ``__version__`` of the plugin, without importing it."""
    tree = ast.parse((root / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return ast.literal_eval(node.value)
    raise SystemExit(f"{PACKAGE}/__init__.py has no __version__.")


def release_notes(root: Path = ROOT) -> tuple[str, str, str]:
    """Return version, date and text of the topmost release in CHANGELOG.md."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(r"^## \[(\d[^\]]*)\] - (\d{4}-\d{2}-\d{2})\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not match:
        raise SystemExit("CHANGELOG.md has no heading like '## [1.2.3] - 2030-01-31'.")
    return match[1], match[2], match[3].strip()


def zip_path(root: Path = ROOT) -> Path:
    """Return where ``build.py zip`` puts the plugin zip."""
    return root / "build" / f"{PACKAGE}-{version(root)}.zip"


def _metadata(root: Path) -> bytes:
    """Return metadata.txt with the release notes added, as the plugin manager shows them."""
    number, _, notes = release_notes(root)
    # One paragraph a line: the plugin manager keeps line breaks, and an
    # indented line continues the value.
    lines = re.sub(r"\n +(?=\S)", " ", notes.replace("### ", "")).splitlines()
    value = "\n".join([number] + [f"    {line}" for line in lines if line.strip()])
    return (root / "metadata.txt").read_bytes().rstrip() + f"\nchangelog={value}\n".encode()


def plugin_files(root: Path = ROOT) -> dict[str, bytes]:
    """Return the contents of the plugin folder by path, sorted."""
    files = {"metadata.txt": _metadata(root), "LICENSE": (root / "LICENSE").read_bytes()}
    for source, prefix in ((PACKAGE, ""), ("core", "core/"), ("resources", "resources/")):
        base = root / source
        for path in sorted(base.rglob("*")):
            relative = path.relative_to(base)
            if path.is_dir() or LEFTOVERS.intersection(relative.parts):
                continue
            if path.suffix not in SUFFIXES or any(part.startswith(".") for part in relative.parts):
                raise SystemExit(f"{path.relative_to(root)} does not belong in the plugin.")
            files[prefix + relative.as_posix()] = path.read_bytes()
    return dict(sorted(files.items()))


def build_folder(root: Path = ROOT) -> Path:
    """Bring ``build/plugin/gridcast_qgis`` up to date; unchanged files stay untouched."""
    folder = root / "build" / "plugin" / PACKAGE
    files = plugin_files(root)
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in sorted(folder.rglob("*"), reverse=True):
        relative = path.relative_to(folder)
        if "__pycache__" in relative.parts and (folder / relative.parts[0]).exists():
            continue
        if path.is_file() and relative.as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return folder


def _timestamp(root: Path) -> tuple[int, int, int, int, int, int]:
    """Return the one time stamp of all entries; a zip knows none before 1980."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    else:
        moment = datetime.datetime.fromisoformat(release_notes(root)[1])
    return (max(moment.year, 1980), *moment.timetuple()[1:6])


def build_zip(root: Path = ROOT) -> Path:
    """Write the plugin zip, atomically."""
    target = zip_path(root)
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(target.name + ".part")
    stamp = _timestamp(root)
    with zipfile.ZipFile(part, "w") as archive:
        for name, content in plugin_files(root).items():
            entry = zipfile.ZipInfo(f"{PACKAGE}/{name}", stamp)
            entry.create_system = 3  # Unix, also when built elsewhere
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    part.replace(target)
    return target


def main(arguments: list[str]) -> int:
    """Run the command line; see the module's text."""
    if arguments == ["folder"]:
        print(build_folder().relative_to(ROOT))
        return 0
    if arguments == ["zip"]:
        import validate  # checks what it is given, so only the finished zip needs it

        path = build_zip()
        return validate.report(path)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
