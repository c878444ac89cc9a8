"""`tokbench prune` of pose lifters: rows, the file, findings, and wrong usage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from click.testing import CliRunner
from safetensors.torch import save_file

from tokbench.cli import main
from tokbench.pruning.pose import PoseRow, markdown, pose_findings
from tokbench.tokenizers.registry import open_variant

TOML = """
kind = "pose"
[model]
frames = 7
counts = {counts}
select = "uniform"
recover = "interpolate"
width = 16
heads = 2
[training]
"""
CLAIM = """
[ablation]
of = "h2ot.pruned"
without = "frames in between"
claim = "Frames that are read and then pruned help."
numbers = ["mpjpe"]
tasks = ["prune"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with three trained pose lifters: with all frames, with pruned frames, and on every third frame."""
    folder = tmp_path / "project" / "adapters" / "h2ot"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "adapters" / "h2ot" / "network.py", folder)
    for name, counts in (("whole", [7, 7]), ("pruned", [7, 3]), ("third", [3, 3])):
        toml = folder / f"{name}.toml"
        toml.write_text(TOML.format(counts=counts) + (CLAIM if name == "third" else ""))
        variant, module = open_variant(f"h2ot.{name}", toml)
        torch.manual_seed(0)
        save_file(module.model(variant).state_dict(), toml.with_suffix(".safetensors"))
    return tmp_path / "project"


def prune(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["prune", *map(str, words)])
    return result.exit_code, result.output


def test_rows_are_measured_on_the_same_sequences_and_saved(project: Path, tmp_path: Path) -> None:
    words = ["all", "--model", "h2ot.whole", "--root", project, "--out", tmp_path / "out", "--limit", "6"]
    code, output = prune(*words, "--batches", "0", "--device", "cpu")
    assert code == 0, output
    (file,) = (tmp_path / "out" / "h2ot.whole" / "pose").iterdir()
    facts = json.loads(file.read_text())
    rows = {row["method"]: row for row in facts["rows"]}
    assert list(rows) == ["h2ot.whole", "h2ot.pruned", "h2ot.third"]
    assert rows["h2ot.whole"]["mpjpe_gap"]["value"] == 0
    gap = rows["h2ot.third"]["mpjpe"]["value"] - rows["h2ot.whole"]["mpjpe"]["value"]
    assert rows["h2ot.third"]["mpjpe_gap"]["value"] == pytest.approx(gap, rel=1e-4)
    assert rows["h2ot.third"]["gflops"] < rows["h2ot.pruned"]["gflops"] < rows["h2ot.whole"]["gflops"]
    assert "| h2ot.pruned" in output and "7, 3" in output


@pytest.mark.parametrize(
    "words, message",
    [
        (["h2ot.other"], "'h2ot.other' is no pose lifter; available: h2ot.pruned"),
        (["all", "--data", "samples"], "--data is not an option of pose lifters"),
        (["all", "--keep", "0.5"], "--keep is not an option of pose lifters"),
    ],
)
def test_wrong_usage_is_refused(words: list[str], message: str, project: Path, tmp_path: Path) -> None:
    code, output = prune(*words, "--model", "h2ot.whole", "--root", project, "--out", tmp_path, "--limit", "3")
    assert code != 0
    assert message in output


def row(name: str, errors: list[float], short: bool = False) -> PoseRow:
    return PoseRow(name, np.array(errors), (7, 7), 1.0, {}, {}, short)


@pytest.mark.parametrize(
    "more, short, verdict",
    [
        (5.0, False, "supported"),
        (-5.0, False, "not supported"),
        (5.0, True, "cannot tell"),
        (0.0, False, "cannot tell"),
    ],
)
def test_findings_follow_the_paired_difference(more: float, short: bool, verdict: str, project: Path) -> None:
    base = np.random.default_rng(0).normal(100, 20, 60)
    noise = np.random.default_rng(1).normal(0, 1, 60)
    rows = [row("h2ot.pruned", list(base)), row("h2ot.third", list(base + noise - noise.mean() + more), short)]
    (finding,) = pose_findings(rows, project)
    assert finding.verdict == verdict
    assert f"**{verdict}**" in markdown(rows, [finding])
    assert not pose_findings(rows[:1], project)
