"""The limit for the weights in the repository, checked before each push."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from tokbench.weights.committed import LIMIT, excess, main, tracked_weights


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with 3,000 bytes of tracked weights in two folders, and files that do not count."""
    for name, size in (("a/x", 2000), ("b/y with space", 1000), ("b/new", 9000)):
        path = tmp_path / "adapters" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (tmp_path / "adapters" / "a" / "card.md").write_bytes(bytes(9000))
    git(tmp_path, "init")
    git(tmp_path, "add", "adapters/a", "adapters/b/y with space.safetensors")
    return tmp_path


def test_only_tracked_weights_count(checkout: Path) -> None:
    sizes = tracked_weights(checkout)
    assert sizes is not None
    assert {path.name: size for path, size in sizes.items()} == {
        "x.safetensors": 2000,
        "y with space.safetensors": 1000,
    }
    (checkout / "adapters" / "a" / "x.safetensors").unlink()
    assert list((tracked_weights(checkout) or {}).values()) == [1000]
    git(checkout, "add", "adapters/b")
    assert sum((tracked_weights(checkout) or {}).values()) == 10_000


def test_weights_beyond_the_limit_fail_and_the_largest_are_named(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(checkout, limit=3000) == 0
    assert "2 weight files" in capsys.readouterr().out
    assert main(checkout, limit=2999) == 1
    assert "largest folders: a 0.0 MiB, b 0.0 MiB" in capsys.readouterr().err
    sizes = {Path("adapters/a/x"): 40 * 2**20, Path("adapters/b/y"): 25 * 2**20}
    message = excess(sizes)
    assert "take 65.0 MiB, but may take 64.0 MiB in all (largest folders: a 40.0 MiB, b 25.0 MiB)" in message
    assert excess({Path("adapters/a/x"): LIMIT}) == ""


def test_a_folder_that_is_no_checkout_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == 0
    assert "was not checked" in capsys.readouterr().out


def test_the_check_does_not_import_torch() -> None:
    code = "import sys, tokbench.weights.committed; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
