"""Small networks of committed families, trained for one or two steps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkout import ROOT
from click.testing import CliRunner

from tokbench.cli import main


def write_networks(root: Path, source: str, texts: Mapping[str, str], family: str = "small") -> Path:
    """Write the TOML files `texts`, by variant, beside a copy of adapters/SOURCE/network.py; return their folder."""
    folder = root / "adapters" / family
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "adapters" / source / "network.py", folder)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def train_networks(
    root: Path, source: str, texts: Mapping[str, str], *options: object, datasets: Sequence[str] = ()
) -> Path:
    """Write networks as `write_networks` does and train all of them; return the root. options: of `tokbench train`.
    datasets: names of committed datasets that the root gets."""
    write_networks(root, source, texts)
    for name in datasets:
        shutil.copytree(ROOT / "datasets" / name, root / "datasets" / name)
    (root / "datasets").mkdir(exist_ok=True)
    names = [f"small.{name}" for name in texts]
    trained = CliRunner().invoke(main, ["train", *names, "--root", str(root), *map(str, options)])
    assert trained.exit_code == 0, trained.output
    return root
