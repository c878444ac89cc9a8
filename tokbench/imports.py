"""The names that a Python file imports, read from its text without running it."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def imported_names(module: str, is_package: bool, file: str) -> frozenset[str]:
    """The absolute names that a module may import, in functions too; relative ones are resolved against its name.

    `from a import b` gives both `a` and `a.b`, of which the second need not be a module. What is only imported for type
    checkers is left out. A file that vanished, is no Python source or does not parse imports nothing.
    """
    try:
        state = os.stat(file)
    except OSError:
        return frozenset()
    if not file.endswith(".py"):
        return frozenset()
    return _names(module if is_package else module.rpartition(".")[0], file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _names(package: str, file: str, changed: int, size: int) -> frozenset[str]:
    try:
        with open(file, "rb") as opened:
            text = opened.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about escapes in other people's strings
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    found: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            base = _absolute(package, node)
            if base:
                found.update([base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")])
    if b"import_module" in text or b"__import__" in text:
        found.update(_literal_names(tree))
    return frozenset(found)


def _statements(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements. Blocks of statements are descended into, but not expressions, which are most of a file."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            for block in _BLOCKS:
                waiting += getattr(node, block, ())


def _absolute(package: str, node: ast.ImportFrom) -> str | None:
    """The module that `from ... import` names; None where it leads out of the package."""
    if not node.level:
        return node.module
    parts = package.split(".")
    if node.level > len(parts) or not package:
        return None
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _literal_names(tree: ast.Module) -> Iterator[str]:
    """The names in calls such as importlib.import_module("a.b"), where they are written out."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first = node.args[0]
        name = first.value if isinstance(first, ast.Constant) else None
        if _called(node.func) in ("import_module", "__import__") and isinstance(name, str) and name[:1] != ".":
            yield name


def _called(node: ast.expr) -> str | None:
    """The last part of a name such as `typing.TYPE_CHECKING`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
