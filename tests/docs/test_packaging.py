"""The locks, the project's metadata and the wheel: what `make` and `pip` hand to a user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tokbench
from tokbench.weights.committed import excess, tracked_weights

LOCKS = {"3.11": "lock-py311.txt", "3.12": "lock-py312.txt"}
HELD = {".py", ".toml", ".typed", ".j2", ".css", ".js"}
"""Endings of what the package is made of."""
PIN = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(extra: str) -> list[Requirement]:
    """The requirements of one extra, with the project's own extras in it resolved; `""` is the core."""
    lines = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == "tokbench":
            found += [inner for name in sorted(requirement.extras) for inner in declared(name)]
        else:
            found.append(requirement)
    return found


def pins(file: str, python: str) -> dict[str, str]:
    """Canonical name -> version of every line that applies to this platform under the given Python."""
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.9"}
    found = {}
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        if "==" in line:
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
                name = canonicalize_name(requirement.name)
                assert name not in found, f"{file} pins {name} twice"
                found[name] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("file", [*LOCKS.values(), "bootstrap.txt"])
def test_lock_holds_only_versions_and_hashes(file: str) -> None:
    text = (ROOT / "requirements" / file).read_text()
    assert "://" not in text
    assert "file:" not in text
    lines = text.splitlines()
    assert lines
    for number, line in enumerate(lines):
        assert PIN.fullmatch(line) or HASH.fullmatch(line), f"{file}:{number + 1}: {line}"
        follows = lines[number + 1] if number + 1 < len(lines) else ""
        # A line goes on exactly where a hash comes next, so no pin is without one.
        assert line.endswith("\\") == bool(HASH.fullmatch(follows)), f"{file}:{number + 1}: {line}"


@pytest.mark.parametrize(("python", "file"), LOCKS.items())
@pytest.mark.parametrize("extra", ["", "all"])
def test_lock_pins_what_the_project_declares(python: str, file: str, extra: str) -> None:
    locked = pins(file, python)
    for requirement in declared(extra):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{file} lacks {name}; run `make lock`"
        assert requirement.specifier.contains(locked[name], prereleases=True), f"{file}: {name} {locked[name]}"


@pytest.mark.parametrize(("python", "file"), LOCKS.items())
def test_one_cv2(python: str, file: str) -> None:
    """opencv-python would write over the headless wheel's `cv2` and needs system libraries."""
    assert [name for name in pins(file, python) if name.startswith("opencv")] == ["opencv-python-headless"]
    assert "opencv-python==" not in (ROOT / "requirements" / file).read_text()


@pytest.mark.parametrize(("python", "file"), LOCKS.items())
def test_installers_agree_with_the_lock(python: str, file: str) -> None:
    installers = pins("bootstrap.txt", python)
    assert set(installers) == {"pip", "uv"}
    assert pins(file, python)["uv"] == installers["uv"]


def test_project_declares_lower_bounds_and_no_caps() -> None:
    for requirement in declared("") + declared("all"):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, str(requirement)
        assert requirement.url is None, str(requirement)


def test_all_is_every_extra_but_that_of_one_optional_metric() -> None:
    """`speech` brings a compiler (numba), which takes more time and space than all of tokbench."""
    extras = set(project()["optional-dependencies"]) - {"speech"}
    assert {str(r) for r in declared("all")} == {str(r) for name in extras for r in declared(name)}


@pytest.mark.parametrize("file", ["pyproject.toml", "Makefile", ".ci/run"])
def test_no_host_is_named(file: str) -> None:
    assert "://" not in (ROOT / file).read_text()


def test_committed_weights_are_within_their_limit() -> None:
    sizes = tracked_weights(ROOT)
    if sizes is None:
        pytest.skip("this copy is no git checkout, so it does not say which files are committed")
    assert sizes
    assert excess(sizes) == ""


def test_lint_checks_the_size_of_the_weights() -> None:
    rule = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "-m tokbench.weights.committed" in rule


def test_ignored_files_hold_no_results() -> None:
    lines = (ROOT / ".gitignore").read_text().split()
    assert "/out/" in lines
    assert not [line for line in lines if "results" in line]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built offline from a copy of the package with files beside it that must stay out."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tokbench", folder / "tokbench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("adapters/x/adapter.py", "datasets/x/make.py", "results/x/y.toml", "tests/test_x.py", "out/z.toml"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    (folder / "dist").mkdir()
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(folder / "dist" / done.stdout.split()[-1])


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"tokbench-{tokbench.__version__}.dist-info/METADATA").decode())


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "tokbench").rglob("*") if path.suffix in HELD)
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
    assert "tokbench/py.typed" in held
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"tokbench", f"tokbench-{tokbench.__version__}.dist-info"}


@pytest.mark.slow
def test_wheel_evaluates_on_its_own(wheel: zipfile.ZipFile, photo_folder: Path, tmp_path: Path) -> None:
    """Unpacked apart from the checkout: builtin adapters on a folder of images, no adapters/ or datasets/ in sight."""
    wheel.extractall(tmp_path / "site")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKBENCH_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tokbench",
            "eval",
            "identity",
            "jpeg.q50",
            "--data",
            str(photo_folder),
            "--metrics",
            "psnr",
        ],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "| jpeg.q50 |" in done.stdout
    assert len(list((tmp_path / "results").glob("*/*.json"))) == 2


def test_package_has_no_data_that_the_wheel_would_leave_out() -> None:
    known = HELD | {".pyc"}
    files = (path for path in (ROOT / "tokbench").rglob("*") if path.is_file())
    assert [str(path) for path in files if path.suffix not in known] == []


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    about = metadata(wheel)
    assert about["Name"] == "tokbench"
    assert about["Version"] == tokbench.__version__
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11"
    core = {r.name for r in map(Requirement, about.get_all("Requires-Dist", [])) if r.marker is None}
    assert core == {requirement.name for requirement in declared("")}


def test_wheel_registers_the_command_and_no_adapter(wheel: zipfile.ZipFile) -> None:
    """The group `tokbench.adapters` is for other people's packages."""
    entries = wheel.read(f"tokbench-{tokbench.__version__}.dist-info/entry_points.txt").decode().split("\n")
    assert [line for line in entries if line] == ["[console_scripts]", "tokbench = tokbench.cli:main"]


def test_version_has_one_source() -> None:
    assert "version" not in project()
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M).group(1) == tokbench.__version__  # type: ignore[union-attr]
    assert f"## [{tokbench.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text()
    for part in ("Version 2.0, January 2004", "9. Accepting Warranty", "END OF TERMS", "APPENDIX: How to apply"):
        assert part in text
