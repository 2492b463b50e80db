# SPDX-License-Identifier: GPL-2.0-or-later
"""Check a plugin zip against the rules of the QGIS plugin repository: ``validate.py ZIP``.

The rules are those of the repository's upload form, of its security scan, and
a few of Gridcast's own. Standard library only, any Python from 3.9.
"""

from __future__ import annotations

import ast
import configparser
import re
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PACKAGE = "gridcast_qgis"
MAX_BYTES = 20_000_000
MAX_UNPACKED_BYTES = 100_000_000

REQUIRED_METADATA = (
    *("name", "description", "about", "version", "author", "email", "homepage", "tracker", "repository"),
    *("icon", "tags", "qgisMinimumVersion", "qgisMaximumVersion", "hasProcessingProvider", "changelog"),
)
FIXED_METADATA = {
    "name": "Gridcast",
    "qgisMinimumVersion": "3.22",
    "qgisMaximumVersion": "4.99",
    "hasProcessingProvider": "yes",
}

FORBIDDEN_SUFFIXES = frozenset(
    f".{suffix}"
    for group in (
        "sh bash bat cmd ps1 com exe msi",
        "so dll dylib pyd o a pyc pyo class jar",
        "whl egg deb rpm dmg",
        "pkl pickle joblib",
    )
    for suffix in group.split()
)
#: First bytes of programs and compiled files, whatever their names say.
PROGRAM_STARTS = {
    b"\x7fELF": "an ELF program or library",
    b"MZ": "a Windows program or library",
    b"\xca\xfe\xba\xbe": "a Mach-O or Java binary",
    b"\xcf\xfa\xed\xfe": "a Mach-O binary",
    b"\xce\xfa\xed\xfe": "a Mach-O binary",
    b"\x00asm": "a WebAssembly binary",
    b"#!": "a script with an interpreter line",
}

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "__import__", "compile", "builtins.eval", "builtins.exec", "builtins.compile"),
    *("os.system", "os.popen", "commands.getoutput", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "tempfile.mktemp"),
    *("pandas.read_pickle", "pd.read_pickle", "torch.load", "numpy.loads", "np.loads"),
    *("keras.config.enable_unsafe_deserialization", "ssl._create_unverified_context"),
}
#: Keywords that a call must not carry with these values.
FORBIDDEN_KEYWORDS = {"allow_pickle": True, "safe_mode": False, "verify": False}

SECRET_NAME = re.compile(r"(^|_)(password|passwd|secret|(api|access)_?key|(auth|access)_?token)$", re.I)
SECRET_TEXTS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "an access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an access token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|glpat-[\w-]{20}|xox[abpr]-[\w-]{10,})\b"),
    "a web address with a password": re.compile(r"\b[a-z]\w*://[^\s/:@'\"{}<>]+:[^\s/@'\"{}<>]+@", re.I),
}

#: Read by QGIS's own Python, which is 3.9 on the oldest systems; the rest of core runs in the worker.
OLD_PYTHON = (3, 9)
WORKER_PYTHON = (3, 10)
SHARED_CORE = {"core/__init__.py", "core/protocol.py", "core/errors.py"}


def problems_of_source(name: str, source: str) -> Iterator[str]:
    """Yield what a Python file of the plugin must not contain.

    Parameters
    ----------
    name : str
        Path of the file inside the plugin folder.
    source : str
        Its text.
    """
    worker_only = name.startswith("core/") and name not in SHARED_CORE
    version = WORKER_PYTHON if worker_only else OLD_PYTHON
    try:
        tree = ast.parse(source, name, feature_version=version)
    except SyntaxError as error:
        yield f"{name}:{error.lineno}: is not Python {version[0]}.{version[1]}: {error.msg}"
        return
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            aliases.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    for node in ast.walk(tree):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        for module in _modules(node):
            if module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"{where}: imports {module}"
        if isinstance(node, ast.Call):
            yield from (f"{where}: {text}" for text in _problems_of_call(node, aliases))
        yield from (f"{where}: {text}" for text in _secrets_in(node))


def _modules(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def _dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _problems_of_call(call: ast.Call, aliases: dict[str, str]) -> Iterator[str]:
    """Yield what is forbidden about one call."""
    called = _dotted(call.func)
    head, _, rest = called.partition(".")
    full = ".".join(filter(None, (aliases.get(head, head), rest)))
    if full in FORBIDDEN_CALLS or called in FORBIDDEN_CALLS:
        yield f"calls {full}"
    elif full == "importlib.import_module":
        for argument in call.args[:1]:
            module = argument.value if isinstance(argument, ast.Constant) else ""
            if isinstance(module, str) and module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"imports {module}"
    for keyword in call.keywords:
        constant: object = keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
        # Anything but a literal False may turn out true.
        if keyword.arg == "shell" and constant is not False:
            yield "passes shell="
        elif keyword.arg in FORBIDDEN_KEYWORDS and constant is FORBIDDEN_KEYWORDS[keyword.arg]:
            yield f"passes {keyword.arg}={constant}"


def _secrets_in(node: ast.AST) -> Iterator[str]:
    """Yield the secrets that a node assigns as plain text."""
    pairs: list[tuple[ast.AST | None, ast.AST | None]] = []
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign):
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.keyword) and node.arg:
        pairs = [(ast.Name(node.arg), node.value)]
    elif isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values))
    for target, value in pairs:
        if isinstance(target, ast.Constant):
            name = str(target.value)
        elif isinstance(target, ast.Attribute):
            name = target.attr
        else:
            name = getattr(target, "id", "")
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
            continue
        if SECRET_NAME.search(name) and len(value.value) >= 6 and " " not in value.value:
            yield f"assigns a secret to {name}"


def _problems_of_entries(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield what is wrong with names, kinds and sizes of the entries."""
    entries = archive.infolist()
    seen: set[str] = set()
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        yield f"unpacks to more than {MAX_UNPACKED_BYTES // 1_000_000} MB"
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        mode = entry.external_attr >> 16
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            yield f"{name}: leads out of the plugin folder"
        elif path.parts[0] != PACKAGE:
            yield f"{name}: stands outside the one top folder {PACKAGE}"
        if not name.isascii():
            yield f"{name}: has a name that is not ASCII"
        if name.lower() in seen:
            yield f"{name}: occurs twice, or differs from another name in case only"
        seen.add(name.lower())
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield f"{name}: is neither file nor folder"
        elif not entry.is_dir() and mode & 0o111:
            yield f"{name}: is marked as executable"
        if any(part.startswith(".") for part in path.parts):
            yield f"{name}: is hidden"
        if {"__pycache__", "__MACOSX"}.intersection(path.parts):
            yield f"{name}: is a cache or a system folder"
        if path.suffix.lower() in FORBIDDEN_SUFFIXES:
            yield f"{name}: files {path.suffix} are not allowed"
        # An installer of dependencies would install whatever such a file lists into QGIS's own Python.
        if re.fullmatch(r"requirements.*\.txt", path.name, re.I):
            yield f"{name}: would be installed into QGIS's own Python"


def _problems_of_metadata(files: dict[str, bytes]) -> Iterator[str]:
    """Yield what is wrong with metadata.txt and what it refers to."""
    if "metadata.txt" not in files:
        yield "metadata.txt is missing"
        return
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the fields' case matters
    try:
        parser.read_string(files["metadata.txt"].decode("utf-8"))
        general = dict(parser["general"])
    except (configparser.Error, UnicodeDecodeError, KeyError) as error:
        yield f"metadata.txt cannot be read: {error}"
        return
    for field in REQUIRED_METADATA:
        if not general.get(field, "").strip():
            yield f"metadata.txt: {field} is missing or empty"
    for field, value in FIXED_METADATA.items():
        if general.get(field) not in (None, value):
            yield f"metadata.txt: {field} is {general[field]}, not {value}"
    for field in ("homepage", "tracker", "repository"):
        if field in general and not re.fullmatch(r"https://[\w.-]+/\S+", general[field]):
            yield f"metadata.txt: {field} is not a complete https address"
    for field in ("experimental", "deprecated"):
        if general.get(field, "False") not in ("True", "False"):
            yield f"metadata.txt: {field} is neither True nor False"
    if "email" in general and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", general["email"]):
        yield "metadata.txt: email is not an address"
    for field in ("description", "about"):
        if re.search(r"<\w+", general.get(field, "")):
            yield f"metadata.txt: {field} contains HTML"
    if general.get("icon") and general["icon"] not in files:
        yield f"metadata.txt: icon {general['icon']} is not in the zip"
    yield from _problems_of_version(general, files)


def _problems_of_version(general: dict[str, str], files: dict[str, bytes]) -> Iterator[str]:
    """Yield where the version of metadata.txt, the package and the changelog differ."""
    version = general.get("version", "")
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", version):
        yield f"metadata.txt: version {version} is not of the form 1.2.3"
    source = files.get("__init__.py", b"").decode("utf-8", "replace")
    code = re.search(r'^__version__ = "([^"]*)"', source, re.M)
    if not code:
        yield "__init__.py: has no __version__"
    elif code[1] != version:
        yield f"metadata.txt: version is {version}, __init__.py says {code[1]}"
    noted = general.get("changelog", "").strip().split("\n")[0].strip()
    if noted != version:
        yield f"metadata.txt: version is {version}, the newest entry of the changelog is {noted or 'missing'}"


def _problems_of_contents(files: dict[str, bytes]) -> Iterator[str]:
    """Yield what is wrong inside the files."""
    for name, content in files.items():
        for start, kind in PROGRAM_STARTS.items():
            if content.startswith(start) and (start != b"MZ" or b"\0" in content[:64]):
                yield f"{name}: is {kind}"
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            if PurePosixPath(name).suffix in {".py", ".txt", ".svg", ".qml", ".model3", ".json"}:
                yield f"{name}: is not UTF-8 text"
            continue
        for what, pattern in SECRET_TEXTS.items():
            if pattern.search(text):
                yield f"{name}: contains {what}"
        if name.endswith(".py"):
            yield from problems_of_source(name, text)
        if name.endswith(".svg") and re.search(r"<script|\son\w+\s*=|<foreignObject", text, re.I):
            yield f"{name}: contains a script"


def _problems_of_package(files: dict[str, bytes]) -> Iterator[str]:
    """Yield which parts of a plugin are missing."""
    licence = files.get("LICENSE", b"").decode("utf-8", "replace")
    if "GNU GENERAL PUBLIC LICENSE" not in licence[:200] or "Version 2" not in licence[:200]:
        yield "LICENSE: the text of the GNU General Public License, version 2, is missing"
    try:
        tree = ast.parse(files.get("__init__.py", b"").decode("utf-8", "replace"))
    except SyntaxError:
        return  # reported with the contents
    if not any(isinstance(node, ast.FunctionDef) and node.name == "classFactory" for node in tree.body):
        yield "__init__.py: has no function classFactory"
    for name in ("core/__init__.py", "core/__main__.py", "resources/worker/worker.lock"):
        if name not in files:
            yield f"{name}: is missing"


def validate(path: Path) -> list[str]:
    """Return the problems of a plugin zip; an empty list means that it may be published."""
    try:
        size = path.stat().st_size
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        return [f"cannot be read as a zip: {error}"]
    problems = [f"has {size:,} bytes, more than {MAX_BYTES:,}"] if size > MAX_BYTES else []
    with archive:
        problems += _problems_of_entries(archive)
        damaged = archive.testzip()
        if damaged:
            return [*problems, f"{damaged}: is damaged"]
        prefix = PACKAGE + "/"
        files = {
            entry.filename[len(prefix) :]: archive.read(entry)
            for entry in archive.infolist()
            if entry.filename.startswith(prefix) and not entry.is_dir()
        }
    problems += _problems_of_package(files)
    problems += _problems_of_metadata(files)
    problems += _problems_of_contents(files)
    return problems


def report(path: Path) -> int:
    """Print what :func:`validate` finds; return an exit status."""
    problems = validate(path)
    if problems:
        print(f"{path.name} breaks the rules of the plugin repository:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        return 1
    print(f"{path} ({path.stat().st_size:,} bytes) keeps the rules of the plugin repository.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(report(Path(sys.argv[1])))
