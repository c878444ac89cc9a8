"""The public names, what importing them costs, their docstrings' examples, and the page about them."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import tokbench
from tokbench.api.evaluate import Options


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, tokbench; dir(tokbench); print([n for n in ('torch', 'numpy', 'pandas') if n in sys.modules])"
    assert python(code).strip() == "[]"


def test_images_are_opened_without_the_packages_of_other_data() -> None:
    """They made every command slower by a third."""
    names = "('scipy', 'av', 'soundfile', 'trimesh')"
    code = f"import sys, tokbench.modalities.open; print([name for name in {names} if name in sys.modules])"
    assert python(code).strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert set(tokbench.__all__) <= set(dir(tokbench))
    for name in tokbench.__all__:
        assert getattr(tokbench, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'evaluated'"):
        _ = tokbench.evaluated
    checked = re.findall(r"import ([A-Za-z]\w*) as \1$", (ROOT / "tokbench" / "__init__.py").read_text(), re.MULTILINE)
    assert sorted(checked) == sorted(tokbench.__all__)  # what type checkers see


def test_type_checkers_see_the_arguments_that_there_are() -> None:
    arguments = inspect.signature(tokbench.evaluate).parameters
    assert [name for name, one in arguments.items() if one.kind is one.KEYWORD_ONLY] == list(Options.__annotations__)
    explained = inspect.getdoc(tokbench.evaluate) or ""
    for name in arguments:
        assert f"{name}: " in explained, name


@pytest.mark.parametrize("name", ["evaluate", "data", "models", "comparison"])
def test_examples_of_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"tokbench.api.{name}"))
    assert found.attempted >= 3 and not found.failed


@pytest.mark.slow
def test_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """All in order, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) == 5
    printed = capsys.readouterr().out
    assert "PSNR" in printed and "192.0" in printed and "better" in printed
    (_, first, _), (_, last, _) = names["history"]
    assert last > first
    assert {path.parent.name for path in tmp_path.rglob("*.json")} == {"jpeg.q50", "Autoencoder"}
