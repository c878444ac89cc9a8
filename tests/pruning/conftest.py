"""A folder with small trained networks and labelled images, on which the tests run `tokbench prune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from image_files import write_labelled_noise
from small_networks import train_networks

from tokbench.cli import main

VIT = """
summary = "small"
{base}
[model]
{model}

[training]
images = 16
batch = 8
"""
SHAPE = """kind = "dense"
classes = 4
[model.vit]
img_size = 16
patch_size = 2
embed_dim = 16
depth = {depth}
num_heads = 2"""


@pytest.fixture(scope="session")
def pruning_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with small networks trained for two steps, and images of four classes."""
    root = tmp_path_factory.mktemp("prune")
    base = 'base = "small.whole"'
    texts = {
        "whole": VIT.format(base="", model=SHAPE.format(depth=8)),
        "half": VIT.format(base="", model=SHAPE.format(depth=4)),
        "longer": VIT.format(base=base, model='kind = "dense"'),
        "sit": VIT.format(base=base, model='kind = "slimmed"\nkeep = 0.5'),
        "rates": VIT.format(base=base, model='kind = "rates"\nkeep = 0.5'),
    }
    write_labelled_noise(root / "images.parquet", 24, 4)
    write_labelled_noise(root / "three.parquet", 6, 3)
    pq.write_table(pq.read_table(root / "images.parquet").drop_columns(["label"]), root / "bare.parquet")
    return train_networks(root, "vit_tiny_imagenet", texts, "--data", root / "images.parquet")


@pytest.fixture
def prune(pruning_root: Path) -> Callable[..., Result]:
    """Run `tokbench prune` with one of the small networks and one batch size."""

    def run(*words: str, data: str = "images.parquet", model: str = "small.whole") -> Result:
        given = ["--model", model, "--data", str(pruning_root / data), "--root", str(pruning_root), "--batches", "2"]
        return CliRunner().invoke(main, ["prune", *given, *words])

    return run
