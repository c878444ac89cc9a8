"""The names that a Python file imports, read from its text without running it."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Imports(NamedTuple):
    """Names that a module imports when it is imported itself, and `later`: those that its functions import."""

    at_once: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()


def imported_names(module: str, is_package: bool, file: str) -> Imports:
    """The absolute names that a module may import; relative ones are resolved against its name.

    `from a import b` gives both `a` and `a.b`, of which the second need not be a module. What is only imported for type
    checkers is left out. A file that vanished, is no Python source or does not parse imports nothing.
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
            warnings.simplefilter("ignore")  # of the parser, about escapes in other people's strings
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Imports()
    found: tuple[set[str], set[str]] = set(), set()
    for node, inside in _statements(tree):
        if isinstance(node, ast.Import):
            found[inside].update(alias.name for alias in node.names)
        elif base := _absolute(package, node):
            found[inside].update([base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")])
    if b"import_module" in text or b"__import__" in text:
        found[0].update(_literal_names(tree, package))
    return Imports(frozenset(found[0]), frozenset(found[1]))


def _statements(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All import statements, and whether they are inside a function. Blocks of statements are descended into, but not
    expressions, which are most of a file."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inside
        elif isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
            waiting += [(child, inside) for child in node.orelse]
        else:
            below = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            waiting += [(child, below) for block in _BLOCKS for child in getattr(node, block, ())]


def _absolute(package: str, node: ast.ImportFrom) -> str | None:
    """The module that `from ... import` names; None where it leads out of the package."""
    return _relative(package, node.level, node.module or "") if node.level else node.module


def _relative(package: str, level: int, name: str) -> str | None:
    """A name that so many dots precede; None where it leads out of the package."""
    parts = package.split(".")
    if level > len(parts) or not package:
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _literal_names(tree: ast.Module, package: str) -> Iterator[str]:
    """The names in calls such as importlib.import_module("a.b"), where they are written out; relative ones are taken as
    relative to the module's own package."""
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
            if found := _relative(package, level, bare) if level else name:
                yield found


def _called(node: ast.expr) -> str | None:
    """The last part of a name such as `typing.TYPE_CHECKING`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
