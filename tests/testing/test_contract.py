"""The public contract tests: adapters and metrics that violate the contract, and the command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tokbench.metrics.base import PerImageMetric
from tokbench.testing import check_adapter, check_metric, require
from tokbench.tokenizers.registry import load_adapter


class Gap(PerImageMetric):
    """The mean difference of each image from its reference."""

    def per_sample(self, batch):
        gap = (batch.require("image") - batch.require("reference")).abs().mean((1, 2, 3))
        return {"gap": gap.double().numpy()}


class OfBatch(Gap):
    def per_sample(self, batch):
        return {"gap": np.full(len(batch), super().per_sample(batch)["gap"].mean())}


class Elsewhere(Gap):
    """A metric with a sum beside its rows, which is neither merged nor resumed."""

    def __init__(self):
        super().__init__()
        self.total = 0.0

    def update(self, batch):
        super().update(batch)
        self.total += float(self.per_sample(batch)["gap"].sum())

    def compute(self):
        return {"gap": self.total}


class Unfinished(Gap):
    def compute(self):
        return {"gap": float("nan")}


def failures(checks) -> set[str]:
    return {check.name for check in checks if check.outcome == "fail"}


def test_a_metric_that_keeps_the_contract() -> None:
    checks = check_metric(Gap)
    assert not failures(checks)
    require(checks)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (OfBatch, {"numbers do not depend on the batch size"}),
        (
            Elsewhere,
            {
                "merged shards equal one pass",
                "the order of shards does not matter",
                "an interrupted run resumes from stored columns",
                "values per image have one row per image",
                "intervals contain the values and are repeatable",
            },
        ),
        (Unfinished, {"numbers are finite and declared in the spec"}),
    ],
)
def test_what_is_found_in_metrics(metric: type, expected: set[str]) -> None:
    checks = check_metric(metric)
    assert expected <= failures(checks)
    with pytest.raises(AssertionError, match=min(expected)):
        require(checks)


@pytest.fixture
def toy(tmp_path: Path, root: Path) -> Path:
    """A copy of the toy adapter outside the repository, with one variant."""
    folder = tmp_path / "outside"
    shutil.copytree(root / "adapters" / "toy", folder, ignore=shutil.ignore_patterns("p16.toml", "__pycache__"))
    return folder


BREAKS = {
    "the same seeds give the same images": "images = images + 0.1 * torch.rand(images.shape)",
    "decode uses only the tokens": "self.calls = getattr(self, 'calls', 0) + 1; images = images + 0.01 * self.calls",
    "photos keep their brightness": "images = images + 0.1",
    "constant images are reproduced": "images = images * 0.5",
    "results do not depend on the batch size": "images = images + 0.05 * (len(images) > 1)",
    "images keep their size and range": "images = images[..., :-1]",
}


@pytest.mark.parametrize(("expected", "line"), BREAKS.items())
def test_what_is_found_in_adapters(toy: Path, expected: str, line: str) -> None:
    model = load_adapter(str(toy)).model
    decode = model.decode

    def broken(tokens, seeds):
        names = {"torch": torch, "self": model, "images": decode(tokens, seeds)}
        exec(line, names)
        return names["images"]

    assert not failures(check_adapter(model))
    model.decode = broken
    assert expected in failures(check_adapter(model))


def test_the_command_tests_every_variant_of_a_folder(cli, toy: Path) -> None:
    done = cli("contract", toy, "--side", 128)
    assert done.exit_code == 0, done.output
    assert re.search(r"images of odd sizes keep their size +\| pass", done.stdout)
    code = toy / "adapter.py"
    code.write_text(code.read_text().replace("range=(0.0, 1.0)", "range=(-1.0, 1.0)"))
    done = cli("contract", toy, "--side", 128)
    assert done.exit_code == 1
    assert "Remedy: set \\`range\\` in the spec to the value range" in done.stdout
    code.write_text("raise ValueError('by hand')")
    done = cli("contract", toy)
    assert done.exit_code == 1 and "by hand" in done.stdout
    assert cli("contract", "no-such-adapter").exit_code == 2
