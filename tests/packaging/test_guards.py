# SPDX-License-Identifier: GPL-2.0-or-later
"""The guards find what crosses a border, and nothing else."""

import guards
import pytest

HEADER = "# SPDX-License-Identifier: GPL-2.0-or-later\n"
HEAVY = "core/heavy.py"


def plant(checkout, **files) -> list[str]:
    """Write files and return what the guards find in them."""
    for name, text in files.items():
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [problem for problem in guards.problems(checkout) if problem.startswith(tuple(files))]


def test_this_repository_keeps_its_rules():
    assert guards.problems(guards.build.ROOT) == []


@pytest.mark.parametrize(
    ("name", "code", "complaint"),
    [
        ("core/planted.py", "import qgis.core", "must work without Qt and QGIS"),
        ("core/models/planted.py", "def f():\n    from PyQt5 import QtCore", "must work without Qt and QGIS"),
        ("core/planted.py", "from gridcast_qgis.core import grid", "inside core imports are relative"),
        ("core/planted.py", "from ..paths import ROOT", "belongs to the QGIS side"),
        ("core/protocol.py", "import numpy", "uses the standard library only"),
        ("gridcast_qgis/planted.py", "import pandas", "uses qgis, numpy and the standard library"),
        ("gridcast_qgis/layers/planted.py", "def f():\n    import rasterio", "uses qgis, numpy and"),
        ("gridcast_qgis/planted.py", "from .core import heavy", "imports shapely, and QGIS gets here from"),
        (
            "gridcast_qgis/planted.py",
            "from gridcast_qgis.core.heavy import a",
            "imports shapely, and QGIS gets",
        ),
    ],
)
def test_imports_that_cross_a_border(checkout, name, code, complaint):
    found = plant(checkout, **{HEAVY: HEADER + "import shapely\na = 1\n", name: HEADER + code + "\n"})
    assert found and all(complaint in problem for problem in found)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("core/planted.py", "import numpy, pandas\nfrom . import grid\nfrom .. import __version__"),
        (
            "gridcast_qgis/planted.py",
            "import json, numpy\nfrom qgis.PyQt import QtCore\nfrom .core import errors",
        ),
        (
            "gridcast_qgis/planted.py",
            "import typing\nif typing.TYPE_CHECKING:\n    import pandas\n    from .core import heavy",
        ),
    ],
)
def test_imports_that_are_allowed(checkout, name, code):
    assert plant(checkout, **{HEAVY: HEADER + "import shapely\n", name: HEADER + code + "\n"}) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("core/planted.py", "x = 1\n", "has no SPDX line"),
        ("README.md", "See https://py" + "pi.org/x", "names a package registry"),
        ("docs/a.md", "open /wo" + "rk/main/a", "names a path of one machine"),
        ("docs/a.md", "open '/home/" + "anna/a'", "names a path of one machine"),
        ("requirements.txt", "numpy\n", "for the requirements of QGIS's own Python"),
        ("tests/test_a.py", HEADER + "import time\ntime.sleep(1)\n", "sleeps"),
        ("resources/worker/worker.lock", "numpy==1.0\n", "lacks an exact version or a hash"),
        ("resources/worker/worker.lock", "numpy>=1 --hash=sha256:00\n", "lacks an exact version or a hash"),
        ("resources/worker/worker.lock", "--index-url https://a.b/c\n", "contains an address"),
    ],
)
def test_texts_that_must_not_be_there(checkout, name, text, complaint):
    found = plant(checkout, **{name: text})
    assert found and any(complaint in problem for problem in found)


def test_a_test_may_invent_users(checkout):
    assert plant(checkout, **{"tests/test_a.py": HEADER + "home = '/home/" + "zoe/a'\n"}) == []


def test_a_test_may_poll(checkout):
    text = HEADER + "import time\nwhile not done():\n    time.sleep(0.01)\n"
    assert plant(checkout, **{"tests/test_a.py": text}) == []


@pytest.mark.parametrize(
    ("name", "old", "complaint"),
    [
        ("metadata.txt", "version=", "metadata.txt: version is"),
        ("CHANGELOG.md", "## [0", "CHANGELOG.md: newest release is"),
    ],
)
def test_versions_that_differ(checkout, name, old, complaint):
    text = (checkout / name).read_text().replace(f"\n{old}", f"\n{old}9", 1)
    found = plant(checkout, **{name: text})
    assert len(found) == 1 and complaint in found[0]
