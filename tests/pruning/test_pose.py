"""`tokbench prune` of pose lifters: rows, times, verdicts, the page, and wrong usage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from small_networks import write_networks

from tokbench.analysis.ablations import ablations
from tokbench.cli import main
from tokbench.data.reading import DEFAULTS
from tokbench.nn.skeleton import draw_sequences
from tokbench.pruning.ablations import pruning_findings
from tokbench.pruning.claims import claims_about, claims_of_network
from tokbench.pruning.leaderboards import write
from tokbench.pruning.pose.benchmark import PoseErrors
from tokbench.pruning.pose.kind import KIND
from tokbench.pruning.pose.result import PoseRow
from tokbench.pruning.pose.sequences import FIRST_SEED
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import Estimate, PruningResult, load_all
from tokbench.pruning.verdicts import claims_table, findings
from tokbench.report.pruning_tables import tables
from tokbench.tokenizers.registry import network_files, open_variant

TOML = """
prune_kind = "pose"
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
    frames = {"whole": [7, 7], "pruned": [7, 3], "third": [3, 3]}
    texts = {name: TOML.format(counts=counts) + CLAIM * (name == "third") for name, counts in frames.items()}
    folder = write_networks(tmp_path / "project", "h2ot", texts, "h2ot")
    for name in texts:
        toml = folder / f"{name}.toml"
        variant, module = open_variant(f"h2ot.{name}", toml)
        torch.manual_seed(0)
        save_file(module.model(variant).state_dict(), toml.with_suffix(".safetensors"))
    return tmp_path / "project"


def prune(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["prune", *map(str, words)])
    return result.exit_code, result.output


def test_rows_are_saved_compared_and_resumed(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    words = ["--model", "h2ot.whole", "--root", project, "--out", out, "--limit", "6", "--device", "cpu"]
    code, output = prune("h2ot.pruned", *words, "--batches", "0")
    assert code == 0, output
    (first,) = out.glob("h2ot.whole/prune-*.json")
    before = first.read_bytes()
    code, output = prune("all", *words, "--batches", "0")
    assert code == 0, output
    assert first.read_bytes() == before  # its row is not measured again
    found = {one.about["method"]: one for one in load_all(out, "pose")}
    assert found.keys() == {"h2ot.pruned", "h2ot.third"}
    pruned, third = (found[name].rows["whole"] for name in ("h2ot.pruned", "h2ot.third"))
    assert third.gflops < pruned.gflops < pruned.whole_gflops and pruned.frames == [7, 3]
    assert len(pruned.errors) == pruned.mpjpe.n == 6
    assert pruned.mpjpe.value == pytest.approx(np.mean(pruned.errors))
    whole = found["h2ot.pruned"].about["whole"]
    assert pruned.mpjpe_gap.value == pytest.approx(pruned.mpjpe.value - whole["value"])
    assert "| h2ot.pruned" in output and "7, 3" in output and "Frames that are read and then pruned help." in output
    assert "not judged" in output and "warning: the full network has an error of" in output
    (page,) = tables(load_all(out, "pose"))
    assert all(len(row.values) == len(page.columns) for row in page.rows) and page.size == "7 frames"
    assert page.rows[0].details["command"].split(" --limit")[0] == "tokbench prune h2ot.pruned --model h2ot.whole"
    assert [path.name.startswith("pruning-pose-") for path in write(out)] == [True, True]


def test_times_of_a_saved_row_are_added(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.pruning.paired_timing.WARM_UP", 1)
    words = ["h2ot.pruned", "--model", "h2ot.whole", "--root", project, "--out", tmp_path, "--limit", "2"]
    words += ["--device", "cpu", "--tries", "1", "--batches"]
    assert prune(*words, "0")[0] == 0
    (before,) = load_all(tmp_path, "pose")
    code, output = prune(*words, "2")
    assert code == 0, output
    (after,) = load_all(tmp_path, "pose")
    (timing,) = after.rows["whole"].pace
    assert timing.batch == 2 and timing.speedup.repetitions == 30 and "x faster, batch 2" in output
    assert replace(after.rows["whole"], pace=[]) == before.rows["whole"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["h2ot.other"], "unknown method 'h2ot.other'; available: h2ot.pruned"),
        (["h2ot.whole"], "h2ot.whole is the model itself"),
        (["all", "--data", "samples"], "--data does not apply to pose lifters"),
        (["all", "--keep", "0.5"], "--keep does not apply to pose lifters"),
        (["all", "--round-to", "8", "--first"], "--first, --round-to does not apply to pose lifters"),
    ],
)
def test_wrong_usage_is_refused(words: list[str], message: str, project: Path, tmp_path: Path) -> None:
    code, output = prune(*words, "--model", "h2ot.whole", "--root", project, "--out", tmp_path, "--limit", "3")
    assert code != 0
    assert message in output


def result(name: str, errors: np.ndarray, short: bool = False) -> PruningResult:
    estimate = Estimate(float(errors.mean()), None, None, len(errors))
    row = PoseRow(
        title=name, network=name, mpjpe=estimate, mpjpe_gap=estimate, errors=errors.tolist(), frames=[7, 7], gflops=1.0,
        whole_gflops=1.0, training_seconds=0, training_images=0, training_profile=None, weights={}, pace=[],
    )  # fmt: skip
    data = {"limit": len(errors), "side": 7, "sha256": "d"}
    provenance = {"device": "cpu", "processor": "", "kernel": "sdpa", "round_to": 1, "weights": {}, "data": data}
    about = {
        "kind": "pose",
        "model": "h2ot.whole",
        "method": name,
        "training": "weights",
        "title": name,
        "short": short,
    }
    about |= {"dataset": "skeleton", "num_images": len(errors), "provenance": provenance}
    return PruningResult(about, {"whole": row})


@pytest.mark.parametrize(
    "more, short, claim, ablation",
    [
        (5.0, False, "holds", "supported"),
        (-5.0, False, "does not hold", "not supported"),
        (5.0, True, "not judged", "cannot tell"),
        (0.0, False, "cannot tell", "cannot tell"),
    ],
)
def test_a_smaller_error_is_better(more: float, short: bool, claim: str, ablation: str, project: Path) -> None:
    base = np.random.default_rng(0).normal(100, 20, 60)
    noise = np.random.default_rng(1).normal(0, 1, 60)
    members = [result("h2ot.pruned", base, short), result("h2ot.third", base + noise - noise.mean() + more, short)]
    files = network_files(project)
    (finding,) = pruning_findings(ablations(files), members)
    assert finding.verdict == ablation and finding.difference.gap == pytest.approx(more, abs=1e-9)
    members[1].about |= claims_about(claims_of_network("h2ot.third", files["h2ot.third"], KIND.numbers))
    (stated,) = findings(members)
    assert stated.verdict == claim and stated.comparison.difference == pytest.approx(-more, abs=1e-9)
    assert f"{stated.comparison.difference:+.1f} [" in claims_table(members)
    assert "difference mm" in claims_table(members)


def test_the_floor_is_the_error_of_the_mean_pose(project: Path) -> None:
    request = PruneRequest("h2ot.whole", "", "cpu", project, 5, DEFAULTS, (), 30, 1, "sdpa", 1, None, False)
    benchmark = KIND.open(request, lambda text: None)
    benchmark.measure_full(lambda what, done, total: None)
    poses = draw_sequences(range(FIRST_SEED, FIRST_SEED + 5), 7)[1].double().numpy()
    floor = np.linalg.norm(poses - poses.mean((0, 1)), axis=-1).mean() * 1000
    assert benchmark.full.floor == pytest.approx(floor, rel=1e-5)
    for share, short in ((0.19, False), (0.21, True)):
        benchmark._full = PoseErrors(np.full(5, share * floor), floor)
        assert benchmark.short == short
