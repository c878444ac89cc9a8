"""Every test that README and docs/ cite exists, and an abbreviated name stands for exactly one test.

Pages cite a test as `data/test_splits.py::test_name`, as `test_name` if no other file has a test of that name, or as
`S: name` after a line such as "`S` is `tests/data/test_splits.py`". `…` stands for any characters; at the beginning of
a citation it stands for the file, and in front of `[` for the test, that the citation before it names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from checkout import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = sorted((ROOT / "tests").glob("*/test_*.py"))
LETTER = re.compile(r"`([A-Z])` is\s+`(tests/[\w/]+\.py)`")
CITATION = re.compile(r"`(?:([A-Z]): |((?:\w+/)?test_\w+\.py)(?:::)?|(?:…::)|(?=test_|…|\[))([\w…]*)((?:\[[^`]*\])?)`")


@cache
def names_in(file: Path) -> tuple[str, ...]:
    """The test functions of a file, also those in classes. To parse all files as Python would take a second."""
    return tuple(re.findall(r"^ *def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE))


@cache
def functions_in(file: Path) -> tuple[ast.FunctionDef, ...]:
    """All functions of a file, also those in classes and in functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def found(files: list[Path], cited: str) -> list[tuple[Path, str]]:
    """The tests that a cited name, with or without `test_` and with `…`, stands for."""
    pattern = re.compile(r"(?:test_)?" + ".*".join(re.escape(part) for part in cited.split("…")))
    return [(file, name) for file in files for name in names_in(file) if pattern.fullmatch(name)]


def unresolved(text: str) -> Iterator[str]:
    """Describe each citation of a page that does not stand for exactly one test."""
    letters: dict[str, Path] = {}
    file, test = ROOT, ""
    for line in text.replace("\nis `", " is `").split("\n\n"):
        letters |= {letter: ROOT / path for letter, path in LETTER.findall(line)}
        for row in line.splitlines():
            cited = False
            for letter, path, name, parameters in CITATION.findall(row):
                if not cited and not (letter or path or name):
                    continue  # brackets in code
                cited = True
                if letter and letter not in letters:
                    yield f"{letter}: names no file ({row})"
                    continue
                if path and not (ROOT / "tests" / path).is_file():
                    yield f"{path} is no file below tests/"
                    continue
                if letter or path:
                    file = letters[letter] if letter else ROOT / "tests" / path
                if name.strip("…"):
                    alone = not letter and not path and name.startswith("test_") and "…::" not in row
                    tests = found(FILES if alone else [file], name)
                    if len(tests) != 1:
                        yield f"`{name}` stands for {len(tests)} tests of {'all files' if alone else file.name}"
                        continue
                    file, test = tests[0]
                if parameters and not has_case(file, test, parameters[1:-1]):
                    yield f"{file.name}::{test} has no case {parameters}"


def has_case(file: Path, test: str, cited: str) -> bool:
    """Whether the (possibly abbreviated) id of a case stands in quotes in a test file or in a decorator of the test."""
    source, begin = file.read_text(encoding="utf-8"), cited.rstrip("…")
    marks = [mark for function in functions_in(file) if function.name == test for mark in function.decorator_list]
    names = {node.id for mark in marks for node in ast.walk(mark) if isinstance(node, ast.Name)}
    return begin in names or any(f"{quote}{begin}" in source for quote in ('"', "'"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_cited_tests_exist(page: Path) -> None:
    assert list(unresolved(page.read_text(encoding="utf-8"))) == []


def test_citations_that_stand_for_no_test_or_several_are_found() -> None:
    text = (
        "`S` is `tests/docs/test_citations.py`.\n\n"
        "`S: cited_tests_exist`, `docs/test_citations.py::test_cited_…`, `…cases…`, `S: c…`, `X: any`,\n"
        "`test_no_such_test`, `docs/test_none.py`, `S: cited_tests_exist[no case]`\n"
    )
    assert [citation.split(" (")[0] for citation in unresolved(text)] == [
        "`…cases…` stands for 0 tests of test_citations.py",
        "`c…` stands for 2 tests of test_citations.py",
        "X: names no file",
        "`test_no_such_test` stands for 0 tests of all files",
        "docs/test_none.py is no file below tests/",
        "test_citations.py::test_cited_tests_exist has no case [no case]",
    ]
