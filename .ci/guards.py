# SPDX-License-Identifier: GPL-2.0-or-later
"""Check the rules that keep the parts of Gridcast apart and the repository clean: ``guards.py``.

Imports: core knows no Qt and no QGIS; the rest of the plugin imports QGIS,
numpy and the standard library only, also through the parts of core it uses.
Repository: licence headers, complete locks, one version, no address of a
package registry, no path of one machine. Standard library only, Python 3.10+.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import build

STANDARD = sys.stdlib_module_names
#: What QGIS's own Python may be asked for.
LIGHT = STANDARD | {"qgis", "processing", "numpy"}
QT = {"qgis", "processing", "sip", "PyQt5", "PyQt6", "PySide2", "PySide6"}
#: Modules of core that start-up and QGIS itself use.
STANDARD_ONLY = {
    "gridcast_qgis",
    "gridcast_qgis.core",
    *(f"gridcast_qgis.core.{name}" for name in ("protocol", "errors", "localcrs", "presets", "schemas")),
}
#: All that core may take from above: the version.
VERSION = {"gridcast_qgis", "gridcast_qgis.__version__"}

SHOWN = {".ci", ".gitignore", ".gitattributes"}
SKIPPED = {".git", ".setup", "build", "__pycache__", "LICENSE"}
TEXTS = {
    *("", ".py", ".sh", ".md", ".txt", ".toml", ".in", ".lock", ".json", ".yml", ".yaml", ".cfg"),
    *(".qml", ".model3", ".svg", ".html", ".css", ".csv", ".ts"),
}

REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|debian|ubuntu|npmjs|anaconda|conda|launchpad)\.(?:org|com|net|io)\b", re.I
)
MACHINE_PATH = re.compile(r"(?<![\w.$)}/-])/(?:work|root|(?:home|Users)/(?!user\b|me\b)[a-z]\w*)/")
FORBIDDEN_TEXTS = {"a package registry": REGISTRY, "a path of one machine": MACHINE_PATH}


def module_name(path: Path) -> str:
    """Return the name under which a source file of the plugin is imported."""
    parts = path.with_suffix("").parts
    if parts[0] == "core":
        parts = ("gridcast_qgis", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Imports(ast.NodeVisitor):
    """Collects the imports of a module: ``(absolute name, line, at module level)``.

    Imports for type checkers are left out: they do not happen.
    """

    def __init__(self, module: str, is_package: bool) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: list[tuple[str, int, bool]] = []
        self._depth = 0

    def visit_Import(self, node: ast.Import) -> None:
        """Collect ``import a.b``."""
        self.found += [(alias.name, node.lineno, self._depth == 0) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Collect ``from a import b`` as ``a`` and ``a.b``: b may be a module."""
        base = node.module or ""
        if node.level:
            parents = self.package.split(".")
            parents = parents[: len(parents) - node.level + 1]
            base = ".".join([*parents, *([base] if base else [])])
        self.found.append((base, node.lineno, self._depth == 0))
        if base.startswith("gridcast_qgis"):
            self.found += [(f"{base}.{alias.name}", node.lineno, self._depth == 0) for alias in node.names]

    def visit_If(self, node: ast.If) -> None:
        """Skip the body of ``if TYPE_CHECKING``."""
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
        else:
            for child in node.orelse:
                self.visit(child)

    def _visit_function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = _visit_function  # noqa: N815
    visit_AsyncFunctionDef = _visit_function  # noqa: N815


def read_modules(root: Path) -> dict[str, tuple[Path, list[tuple[str, int, bool]], ast.Module]]:
    """Return path, imports and syntax tree of every module of the plugin, by name."""
    modules = {}
    for folder in ("gridcast_qgis", "core"):
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            name = module_name(relative)
            tree = ast.parse(path.read_text(encoding="utf-8"), str(relative))
            visitor = Imports(name, path.name == "__init__.py")
            visitor.visit(tree)
            modules[name] = (relative, visitor.found, tree)
    return modules


def is_core(module: str) -> bool:
    """Tell whether a module belongs to core."""
    return module == "gridcast_qgis.core" or module.startswith("gridcast_qgis.core.")


def import_problems(root: Path) -> Iterator[str]:
    """Yield imports that cross a border."""
    modules = read_modules(root)
    for name, (path, imports, tree) in modules.items():
        statements = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        absolute = {node.lineno for node in statements if not getattr(node, "level", 0)}
        for imported, line, _ in imports:
            top = imported.split(".")[0]
            where = f"{path}:{line}"
            if is_core(name):
                if imported in VERSION:
                    continue
                if top in QT or top.startswith(("PyQt", "PySide")):
                    yield f"{where}: core imports {imported}; it must work without Qt and QGIS"
                elif top in ("core", "gridcast_qgis") and line in absolute:
                    yield f"{where}: core imports {imported}; inside core imports are relative"
                elif top == "gridcast_qgis" and not is_core(imported):
                    yield f"{where}: core imports {imported}, which belongs to the QGIS side"
            elif top not in LIGHT and top != "gridcast_qgis":
                yield f"{where}: imports {imported}; the QGIS side uses qgis, numpy and the standard library"
            if name in STANDARD_ONLY and top not in STANDARD and top != "gridcast_qgis":
                yield f"{where}: imports {imported}; this module uses the standard library only"
    yield from _heavy_problems(modules)


def _heavy_problems(modules: dict) -> Iterator[str]:
    """Yield heavy libraries that the QGIS side would load through core."""
    entry = [
        (imported, f"{path}:{line}")
        for name, (path, imports, _) in modules.items()
        if not is_core(name)
        for imported, line, _ in imports
        if is_core(imported) and imported in modules
    ]
    seen: set[str] = set()
    while entry:
        name, origin = entry.pop()
        if name in seen:
            continue
        seen.add(name)
        path, imports, _ = modules[name]
        for imported, line, at_module_level in imports:
            top = imported.split(".")[0]
            if not at_module_level:
                continue
            if imported in modules:
                entry.append((imported, origin))
            elif top not in LIGHT and top != "gridcast_qgis":
                yield f"{path}:{line}: imports {imported}, and QGIS gets here from {origin}"


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield path and text of the repository's text files."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        hidden = parts[0].startswith(".") and parts[0] not in SHOWN
        if hidden or SKIPPED.intersection(parts) or not path.is_file() or path.suffix not in TEXTS:
            continue
        try:
            yield path.relative_to(root), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # no text after all


def text_problems(root: Path) -> Iterator[str]:
    """Yield headers that are missing and addresses and paths that must not be there."""
    for path, text in texts(root):
        for number, line in enumerate(text.splitlines(), 1):
            for what, pattern in FORBIDDEN_TEXTS.items():
                match = pattern.search(line)
                # Tests invent users with odd names.
                if match and not (path.parts[0] == "tests" and match[0].startswith(("/home/", "/Users/"))):
                    yield f"{path}:{number}: names {what}: {match[0]}"
        is_source = path.suffix in (".py", ".sh") or str(path) in (".ci/run", "Makefile")
        if is_source and "SPDX-License-Identifier: GPL-2.0-or-later" not in text[:300]:
            yield f"{path}: has no SPDX line"
        if re.fullmatch(r"requirements.*\.txt", path.name, re.I):
            yield f"{path}: tools would take this for the requirements of QGIS's own Python"
        if path.parts[0] == "tests" and path.match("test_*.py"):
            yield from _test_problems(path, text)


def _test_problems(path: Path, text: str) -> Iterator[str]:
    """Yield tests that wait for time to pass; a loop that waits for something may nap."""
    tree = ast.parse(text, str(path))
    polling = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep"):
            if id(node) not in polling:
                yield f"{path}:{node.lineno}: sleeps; wait for something to happen, with a time limit"


def lock_problems(root: Path) -> Iterator[str]:
    """Yield requirements that are not fixed by version and hash."""
    for path in sorted([*root.glob("resources/worker/*.lock"), *root.glob(".ci/*.lock")]):
        relative = path.relative_to(root)
        text = path.read_text(encoding="utf-8")
        if re.search(r"://|--(?:index|extra-index|find-links|trusted-host)", text):
            yield f"{relative}: contains an address"
        joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
        for line in filter(None, map(str.strip, joined.splitlines())):
            if not re.match(r"[A-Za-z0-9._-]+==\S+", line) or "--hash=sha256:" not in line:
                yield f"{relative}: {line.split()[0]} lacks an exact version or a hash"


def version_problems(root: Path) -> Iterator[str]:
    """Yield where the version differs."""
    version = build.version(root)
    match = re.search(r"^version=(.*)$", (root / "metadata.txt").read_text(encoding="utf-8"), re.M)
    stated = match[1].strip() if match else "missing"
    if stated != version:
        yield f"metadata.txt: version is {stated}, gridcast_qgis/__init__.py says {version}"
    noted = build.release_notes(root)[0]
    if noted != version:
        yield f"CHANGELOG.md: newest release is {noted}, gridcast_qgis/__init__.py says {version}"


def problems(root: Path) -> list[str]:
    """Return everything that breaks a rule."""
    checks = (import_problems, text_problems, lock_problems, version_problems)
    return list(dict.fromkeys(problem for check in checks for problem in check(root)))


if __name__ == "__main__":
    found = problems(build.ROOT)
    print("\n".join(found) if found else "Imports and repository keep their rules.")
    sys.exit(bool(found))
