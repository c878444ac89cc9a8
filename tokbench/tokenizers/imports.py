"""The names that a Python file imports. The file is parsed and not executed."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Imports(NamedTuple):
    """at_once: names that a module imports when it is imported itself. later: names that its functions import."""

    at_once: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()


def imported_names(module: str, is_package: bool, file: str) -> Imports:
    """Return the absolute names that a module may import. Relative names are resolved against the module's name.

    `from a import b` gives both `a` and `a.b`; the second need not be a module. Imports for type checkers only are left
    out. The result is empty if the file does not exist, is not Python source or cannot be parsed.
    """
    try:
        state = os.stat(file)
    except OSError:
        return Imports()
    if not file.endswith(".py"):
        return Imports()
    return _names(module if is_package else module.rpartition(".")[0], file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _names(package: str, file: str, changed: int, size: int) -> Imports:
    try:
        with open(file, "rb") as opened:
            text = opened.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns about escapes in strings of third-party code
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Imports()
    names: tuple[set[str], set[str]] = set(), set()
    for node, inside in _statements(tree):
        if isinstance(node, ast.Import):
            names[inside].update(alias.name for alias in node.names)
        elif base := _absolute(package, node):
            names[inside].update([base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")])
    if b"import_module" in text or b"__import__" in text:
        names[0].update(_literal_names(tree, package))
    return Imports(frozenset(names[0]), frozenset(names[1]))


def _statements(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield all import statements and whether they are inside a function. The search enters blocks of statements but
    not expressions, which make up most of a file."""
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, inside = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inside
        elif isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
            pending += [(child, inside) for child in node.orelse]
        else:
            below = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            pending += [(child, below) for block in _BLOCKS for child in getattr(node, block, ())]


def _absolute(package: str, node: ast.ImportFrom) -> str | None:
    """Return the module that `from ... import` names, or None if it lies outside the package."""
    return _relative(package, node.level, node.module or "") if node.level else node.module


def _relative(package: str, level: int, name: str) -> str | None:
    """Resolve a name with `level` leading dots. Returns None if it lies outside the package."""
    parts = package.split(".")
    if level > len(parts) or not package:
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _literal_names(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the literal names in calls such as importlib.import_module("a.b"). Relative names are resolved against the
    module's own package."""
    renamed = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "importlib"
        for alias in node.names
        if alias.name == "import_module"
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _called(node.func) not in {"import_module", "__import__", *renamed}:
            continue
        given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "name")]
        name = given[0].value if given and isinstance(given[0], ast.Constant) else None
        if isinstance(name, str) and (bare := name.lstrip(".")):
            level = len(name) - len(bare)
            if resolved := _relative(package, level, bare) if level else name:
                yield resolved


def _called(node: ast.expr) -> str | None:
    """Return the last part of a name such as `typing.TYPE_CHECKING`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
