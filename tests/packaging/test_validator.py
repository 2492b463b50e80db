# SPDX-License-Identifier: GPL-2.0-or-later
"""The validator refuses everything that the plugin repository refuses, each by name."""

import zipfile

import pytest
import validate


def problems(make_zip, files, changes: dict) -> list[str]:
    contents = {**files, **changes}
    return validate.validate(make_zip({name: c for name, c in contents.items() if c is not None}))


def test_an_unchanged_plugin_passes(make_zip, files):
    assert problems(make_zip, files, {}) == []


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import pickle", "imports pickle"),
        ("from cloudpickle import dumps", "imports cloudpickle"),
        ("import os, marshal as m", "imports marshal"),
        ("import importlib\nimportlib.import_module('pickle')", "imports pickle"),
        ("exec('x = 1')", "calls exec"),
        ("y = eval('1')", "calls eval"),
        ("import builtins\nbuiltins.exec('1')", "calls builtins.exec"),
        ("__import__('json')", "calls __import__"),
        ("import os\nos.system('ls')", "calls os.system"),
        ("from os import popen as p\np('ls')", "calls os.popen"),
        ("import subprocess as s\ns.run('ls', shell=True)", "passes shell="),
        ("import subprocess as s\ns.run('ls', shell=bool(1))", "passes shell="),
        ("import yaml\nyaml.load('a')", "calls yaml.load"),
        ("from yaml import load\nload('a')", "calls yaml.load"),
        ("import numpy as np\nnp.load('a.npz', allow_pickle=True)", "passes allow_pickle=True"),
        ("import pandas as pd\npd.read_pickle('a')", "calls pandas.read_pickle"),
        ("import keras\nkeras.models.load_model('a', safe_mode=False)", "passes safe_mode=False"),
        ("api_key = 'a1b2c3d4e5'", "assigns a secret to api_key"),
        ("connect(password='hunter22')", "assigns a secret to password"),
        ("options = {'auth_token': 'a1b2c3d4'}", "assigns a secret to auth_token"),
        ("key = 'AKIA" + "ABCDEFGHIJKLMNOP'", "contains an access key"),
        ("url = 'https://me:" + "word@example.org/'", "contains a web address with a password"),
        ("# -----BEGIN RSA PRIVATE" + " KEY-----", "contains a private key"),
        ("match 1:\n    case 1: pass", "is not Python 3.9"),
        ("x = (", "is not Python 3.9"),
    ],
)
def test_code_that_is_refused(make_zip, files, code, complaint):
    found = problems(make_zip, files, {"layers/planted.py": code})
    assert len(found) == 1
    assert found[0].startswith("layers/planted.py")
    assert complaint in found[0]


@pytest.mark.parametrize(
    "code",
    [
        "dialog.exec()",
        "model.eval(); model.compile()",
        "import re\nre.compile('a')",
        "import ast\nast.literal_eval('1')",
        "import yaml\nyaml.safe_load('a')",
        "import subprocess as s\ns.run(['ls'], shell=False)",
        "import numpy as np\nnp.load('a.npz', allow_pickle=False)",
        "token_index = 'abcdefgh'",
        "password = ''",
        "text = 'we never exec( or eval( or import pickle'",
    ],
)
def test_code_that_only_looks_like_it(make_zip, files, code):
    assert problems(make_zip, files, {"layers/harmless.py": code}) == []


def test_the_core_may_use_the_python_of_the_worker(make_zip, files):
    code = "match 1:\n    case 1: pass"
    assert problems(make_zip, files, {"core/planted.py": code}) == []
    assert problems(make_zip, files, {"core/errors.py": code})


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("core/fast.so", b"x", "files .so are not allowed"),
        ("lib/a.DLL", b"x", "files .DLL are not allowed"),
        ("start.sh", b"x", "files .sh are not allowed"),
        ("start.bat", b"x", "files .bat are not allowed"),
        ("core/a.pyc", b"x", "files .pyc are not allowed"),
        ("model.pkl", b"x", "files .pkl are not allowed"),
        ("core/__pycache__/a.txt", b"x", "is a cache or a system folder"),
        (".gitignore", b"x", "is hidden"),
        ("core/.cache/a.txt", b"x", "is hidden"),
        ("requirements.txt", b"numpy", "would be installed into QGIS's own Python"),
        ("resources/worker/Requirements-dev.txt", b"numpy", "would be installed into QGIS's own Python"),
        ("resources/tool", b"\x7fELF\x02", "is an ELF program or library"),
        ("resources/tool.txt", b"MZ\x90\x00\x03", "is a Windows program or library"),
        ("resources/tool.txt", b"#!/bin/sh\n", "is a script with an interpreter line"),
        ("resources/icons/bad.svg", b"<svg><script>1</script></svg>", "contains a script"),
        ("core/latin.py", b"x = '\xe9'", "is not UTF-8 text"),
        ("../outside.txt", b"x", "leads out of the plugin folder"),
        ("core/ERRORS.PY", b"x = 1", "differs from another name in case only"),
        ("core/\u00e9.txt", b"x", "has a name that is not ASCII"),
    ],
)
def test_files_that_are_refused(make_zip, files, name, content, complaint):
    assert any(complaint in problem for problem in problems(make_zip, files, {name: content}))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("LICENSE", "LICENSE: the text of the GNU General Public License"),
        ("metadata.txt", "metadata.txt is missing"),
        ("__init__.py", "has no function classFactory"),
        ("core/__init__.py", "core/__init__.py: is missing"),
        ("resources/worker/worker.lock", "worker.lock: is missing"),
    ],
)
def test_parts_that_must_be_there(make_zip, files, name, complaint):
    assert any(complaint in problem for problem in problems(make_zip, files, {name: None}))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("version=", "version=9", "__init__.py says"),
        ("version=", "version=x", "is not of the form 1.2.3"),
        ("changelog=", "changelog=9.9.9", "the newest entry of the changelog is 9.9.9"),
        ("name=", "name=Other", "name is Other, not Gridcast"),
        ("qgisMinimumVersion=", "qgisMinimumVersion=3.40", "qgisMinimumVersion is 3.40, not 3.22"),
        ("qgisMaximumVersion=", "qgisMaximumVersion=3.99", "qgisMaximumVersion is 3.99, not 4.99"),
        ("hasProcessingProvider=", "hasProcessingProvider=no", "hasProcessingProvider is no, not yes"),
        ("icon=", "icon=none.svg", "icon none.svg is not in the zip"),
        ("tracker=", "tracker=example", "tracker is not a complete https address"),
        ("email=", "email=nobody", "email is not an address"),
        ("about=", "about=<b>bold</b>", "about contains HTML"),
        ("experimental=", "experimental=maybe", "experimental is neither True nor False"),
    ],
)
def test_metadata_that_is_refused(make_zip, files, old, new, complaint):
    lines = files["metadata.txt"].decode().splitlines()
    changed = "\n".join(new if line.startswith(old) else line for line in lines).encode()
    assert changed.strip() != files["metadata.txt"].strip()
    found = problems(make_zip, files, {"metadata.txt": changed})
    assert any(complaint in problem for problem in found)


@pytest.mark.parametrize("field", validate.REQUIRED_METADATA)
def test_every_required_field(make_zip, files, field):
    text = files["metadata.txt"].decode()
    renamed = text.replace(f"\n{field}=", f"\nx{field}=")
    found = problems(make_zip, files, {"metadata.txt": renamed.encode()})
    assert f"metadata.txt: {field} is missing or empty" in found


def test_a_second_top_folder(make_zip, files):
    found = problems(make_zip, files, {zipfile.ZipInfo("docs/a.txt"): b"x"})
    assert found == ["docs/a.txt: stands outside the one top folder gridcast_qgis"]


@pytest.mark.parametrize(
    ("mode", "complaint"), [(0o120777, "is neither file nor folder"), (0o100755, "executable")]
)
def test_links_and_programs(make_zip, files, mode, complaint):
    entry = zipfile.ZipInfo("gridcast_qgis/core/link.txt")
    entry.external_attr = mode << 16
    found = problems(make_zip, files, {entry: b"/etc/passwd"})
    assert len(found) == 1 and complaint in found[0]


def test_size_limits(make_zip, files, monkeypatch):
    monkeypatch.setattr(validate, "MAX_BYTES", 1000)
    monkeypatch.setattr(validate, "MAX_UNPACKED_BYTES", 1_000_000)
    found = problems(make_zip, files, {"resources/big.txt": b"0" * 1_000_001})
    assert any("more than 1,000" in problem for problem in found)
    assert any("unpacks to more than 1 MB" in problem for problem in found)


def test_something_that_is_no_zip(tmp_path):
    path = tmp_path / "plugin.zip"
    path.write_bytes(b"no zip")
    assert validate.validate(path)[0].startswith("cannot be read as a zip")
    assert validate.validate(tmp_path / "absent.zip")[0].startswith("cannot be read as a zip")


def test_a_damaged_zip(make_zip, files):
    path = make_zip(files)
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)
    assert any("is damaged" in problem or "cannot be read" in problem for problem in validate.validate(path))
