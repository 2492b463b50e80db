# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools of .ci as modules, and a copy of the sources that a test may spoil."""

import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

import build  # noqa: E402

LEFTOVERS = shutil.ignore_patterns("__pycache__", ".DS_Store")


@pytest.fixture(autouse=True)
def no_outside_date(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what the plugin and its checks are made of."""
    root = tmp_path / "check out"
    root.mkdir()
    for folder in ("gridcast_qgis", "core", "resources", ".ci"):
        shutil.copytree(ROOT / folder, root / folder, ignore=LEFTOVERS)
    for name in ("metadata.txt", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture(scope="session")
def all_files() -> dict[str, bytes]:
    """The contents of the plugin folder."""
    return build.plugin_files(ROOT)


@pytest.fixture(scope="session")
def files(all_files) -> dict[str, bytes]:
    """The least that makes a plugin: quick to pack and to check."""
    names = {
        "__init__.py",
        "metadata.txt",
        "LICENSE",
        "resources/worker/worker.lock",
        "resources/icons/gridcast.svg",
    }
    names |= {f"core/{name}.py" for name in ("__init__", "__main__", "errors", "protocol")}
    return {name: content for name, content in all_files.items() if name in names}


@pytest.fixture
def make_zip(tmp_path) -> Callable[[dict], Path]:
    """Packs contents as they are given, under the plugin's folder or a full name of their own."""

    def pack(contents: dict) -> Path:
        path = tmp_path / "plugin.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                entry = (
                    name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(f"gridcast_qgis/{name}")
                )
                archive.writestr(entry, content)
        return path

    return pack
