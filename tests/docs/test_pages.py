"""docs/ is true: its commands run, and the pages form a complete site."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT

import tokbench
from tokbench.protocol.protocol import protocols

PAGES = sorted((ROOT / "docs").rglob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
TOOLS = ("mkdocs", "material", "mkdocstrings", "mkdocs_click")


@pytest.mark.slow
def test_the_small_example_of_the_check_runs(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    printed = ""
    for line in block.splitlines():
        done = cli(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.stderr)
        printed = done.stdout
    assert re.search(r"prints `(.*?)`", text)[1] in printed


def test_every_protocol_has_its_line() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    for name in protocols():
        assert f"`{name}`" in text, name


def test_no_page_contains_both_sides_of_a_merge() -> None:
    pages = [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("adapters/*/*.md"), *ROOT.glob("datasets/*/*.md")]
    marked = [page for page in pages if re.search(r"^(<{7}|>{7}) ", page.read_text(encoding="utf-8"), re.MULTILINE)]
    assert not marked


def entries(nav: list[dict[str, Any]]) -> list[str]:
    """The files of a navigation, in order."""
    found = []
    for entry in nav:
        for target in entry.values():
            found += [target] if isinstance(target, str) else entries(target)
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(entries(SITE["nav"])) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_the_site_asks_no_other_server() -> None:
    assert SITE["theme"]["font"] is False
    assert not [word for word in yaml.safe_dump(SITE).split() if "://" in word]


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.is_dir():  # the site shows a folder by its card
            target = target / "README.md"
        assert target.is_file(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_files_and_names_of_the_code_exist(page: Path) -> None:
    """Paths and names in backticks, and the imports of Python examples."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:tokbench|tests|benchmarks|docs|fuzz)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path
    for module, name in re.findall(r"`(tokbench(?:\.\w+)+)\.([A-Z]\w+)`", text):
        assert hasattr(importlib.import_module(module), name), (module, name)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for line in re.findall(r"^from tokbench\b.*$", block, re.MULTILINE):
            exec(line, {})


def test_every_name_of_the_api_reference_exists() -> None:
    """Every public name of the package is in it."""
    names = re.findall(r"^::: (tokbench\.\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
    documented = {name.rpartition(".")[2] for name in names}
    assert {name for name in getattr(tokbench, "__all__", ()) if not name.startswith("_")} <= documented


@pytest.mark.skipif(
    not (ROOT / "tokbench" / "evaluation").is_dir(), reason="the modules of this version are not in packages"
)
def test_the_architecture_page_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    for package in sorted(path.parent.name for path in (ROOT / "tokbench").glob("*/__init__.py")):
        assert f"`{package}`" in text, package
        assert f">{package}</text>" in picture, package


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(tool) is None for tool in TOOLS),
    reason="needs mkdocs-material, mkdocstrings and mkdocs-click",
)
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Without warnings: no broken link, anchor or name; files outside docs/ that pages link to are part of it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    built = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*")}
    assert {page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in PAGES} <= built
    assert {"repository/adapters/toy/index.html", "repository/results/index.html"} <= built
    assert not [name for name in built if name.endswith(".py")]
    options = (tmp_path / "site" / "cli.html").read_text(encoding="utf-8")
    assert "--batch-size INTEGER RANGE" in options
    assert "UNSET" not in options
    assert "tokens_at" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    card = (tmp_path / "site" / "repository" / "results" / "index.html").read_text(encoding="utf-8")
    assert 'href="../../generators.html"' in card


def test_the_page_on_checkpoints_names_every_setting_and_class() -> None:
    from tokbench.tokenizers.builtin.diffusers_classes import SUPPORTED
    from tokbench.tokenizers.builtin.diffusers_files import OPTIONS
    from tokbench.tokenizers.builtin.torchscript import Settings

    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    assert tomllib.loads(example[1]).keys() == Settings.__dataclass_fields__.keys()
    assert [name for name in SUPPORTED if f"`{name}`" not in text] == []
    assert [name for name in OPTIONS if f",{name}=" not in text] == []
