"""`tokbench prune` of vision-language models: rows, controls, claims, tables, and wrong usage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from image_files import write_labelled_noise
from small_networks import train_networks
from vlm_models import prompts, small_model

from tokbench.cli import main
from tokbench.errors import ResultError
from tokbench.pruning.kind_names import kind_of_model
from tokbench.pruning.result import Estimate, PruningResult, load, load_all, packed
from tokbench.pruning.verdicts import findings
from tokbench.pruning.vlm.measure import Answers, compare, time_method
from tokbench.pruning.vlm.methods import METHODS
from tokbench.pruning.vlm.result import TypeAccuracy, VlmRow
from tokbench.pruning.vlm.table import most_fragile
from tokbench.report import pruning_tables

TRAINING = """
[training]
data = "scenes-train"
flip = false
images = 32
batch = 32
"""
BASE = """summary = "small"
prune_kind = "vlm"
[model.shape]
width = 24
depth = 6
heads = 2
vision_width = 16
vision_depth = 1
vision_heads = 2
"""
CONTEXT = """summary = "small"
base = "small.base"
prune_kind = "vlm"
[model]
share = 0.1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with both models, trained for one step."""
    texts = {"base": BASE + TRAINING, "icl": CONTEXT + TRAINING}
    root = tmp_path_factory.mktemp("vlm")
    return train_networks(root, "mini_vlm", texts, "--limit", 32, datasets=("scenes", "scenes-train"))


@pytest.fixture
def prune(root: Path) -> Callable[..., Result]:
    def run(*words: str, data: str = "scenes", model: str = "small.base", limit: int = 6) -> Result:
        given = ["--model", model, "--data", data, "--root", str(root), "--limit", str(limit), "--batches", "0"]
        return CliRunner().invoke(main, ["prune", *given, *words])

    return run


@pytest.mark.slow
def test_rows_are_measured_once_with_their_controls(prune: Callable[..., Result], tmp_path: Path) -> None:
    words = ["divprune", "topk_cls", "--keep", "0.5,0.1", "--out", str(tmp_path)]
    first = prune(*words)
    assert first.exit_code == 0, first.output
    found = {one.about["method"]: one for one in load_all(tmp_path, "vlm")}
    assert found.keys() == {"random", "lower_resolution", "divprune", "topk_cls"}
    assert load_all(tmp_path) == []  # classifiers
    row = found["divprune"].rows["0.5"]
    assert row.applied == 0.5 and row.visual == [128] * 6 and row.tokens[0] > 128 + 1 + 5
    assert row.gflops < row.whole_gflops and 0.5 < row.kv_bytes / row.whole_kv_bytes < 0.53
    assert set(row.types) <= {"count", "colour", "relation", "reading", "existence"} and len(row.types) >= 3
    assert found["lower_resolution"].rows["0.1"].side == 20
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    again = prune(*words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == files
    for text in ("**Not judged**", "## Claims", "Diversity beats attention when few", "not judged", "lower resolution"):
        assert text in again.output, text
    assert "warning: with all tokens" in again.output
    board = CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)])
    assert board.exit_code == 0, board.output
    (table,) = (tmp_path / "leaderboard").glob("pruning-vlm-*.md")
    assert again.output.endswith(table.read_text().split("\n", 2)[2])
    header, *lines = table.with_suffix(".csv").read_text().splitlines()
    assert header.startswith("method,keep,applied,") and len(lines) == 8
    (page,) = pruning_tables.tables(list(load_all(tmp_path, "vlm")))
    assert len(page.rows) == 8 and all(len(one.values) == len(page.columns) for one in page.rows)
    path = next(path for path in files if "divprune" in path.name)
    broken = json.loads(path.read_text())
    broken["rows"]["0.5"]["applied"] = "half"
    path.write_text(json.dumps(broken))
    with pytest.raises(ResultError, match="applied"):
        load(path)
    path.write_text(json.dumps(broken | {"about": broken["about"] | {"kind": "robot"}}))
    with pytest.raises(ResultError, match="unknown kind 'robot'"):
        load(path)


@pytest.mark.slow
def test_prompts_with_several_images(prune: Callable[..., Result], tmp_path: Path) -> None:
    done = prune("catp", "--keep", "0.25", "--out", str(tmp_path), model="small.icl", limit=40)
    assert done.exit_code == 0, done.output
    found = {one.about["method"]: one for one in load_all(tmp_path, "vlm")}["catp"]
    assert found.about["whole"]["without_demonstrations"] <= 1 and "Without the demonstrations" in done.output
    assert found.rows["0.25"].visual[-1] == 5 * 16 and found.rows["0.25"].types.keys() == {"binding"}


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused(prune: Callable[..., Result], root: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path))
    idle = prune("todre_stage2", "--keep", "0.5", *out, limit=2)
    assert idle.exit_code == 1
    assert "failed todre_stage2: no visual token was removed from any of" in idle.output
    unknown = prune("evit", "--keep", "0.5", *out, limit=2)
    assert "failed evit: unknown method 'evit'" in unknown.output
    for words, message in (
        (("--round-to", "8"), "--round-to does not apply to vision-language models"),
        (("--batches", "32"), "timed at batch 1"),
    ):
        refused = prune("random", *words, *out)
        assert refused.exit_code == 2 and message in refused.output
    write_labelled_noise(root / "noise.parquet", 4, 2)
    bare = prune("random", *out, data=str(root / "noise.parquet"))
    assert bare.exit_code != 0 and "has no captions, from which questions are derived" in bare.output
    listed = prune("--list")
    assert listed.output.split() == list(METHODS)
    assert kind_of_model("hf:x", root) == "vlm" and kind_of_model("timm:x", root) == "classifier"


def test_times_are_measured_in_three_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.pruning.paired_timing.WARM_UP", 1)
    model, pruner = small_model(), METHODS["fastv"]()
    timing = time_method(model, prompts(count=1), pruner, 0.1, 2)
    assert min(timing.prefill.ms, timing.decode.ms, timing.total.ms, timing.selector_ms) > 0
    assert timing.selector_ms < 10 * timing.prefill.ms and timing.prefill.repetitions == 4


def answers(right: list[int], kinds: list[str]) -> Answers:
    ids = tuple(map(str, range(len(right))))
    given = tuple("ab"[place % 2] for place in range(len(right)))
    counts = np.ones((len(right), 2))
    return Answers(ids, tuple(kinds), np.array(right, dtype=float), given, counts, counts)


def test_accuracy_is_paired_by_question_and_type() -> None:
    kinds = ["reading"] * 40 + ["colour"] * 40
    whole, own = answers([1] * 80, kinds), answers([0] * 30 + [1] * 50, kinds)
    accuracy, gap, types = compare(own, whole)
    assert accuracy.value == 50 / 80 and gap.value == pytest.approx(-30 / 80)
    assert types["reading"].gap.value == -0.75 and types["colour"].gap.value == 0
    assert types["reading"].floor == 0.5 and types["reading"].whole == 1
    assert most_fragile(row(own.right, types)) == "reading"
    assert most_fragile(row(own.right, {"colour": types["colour"]})) == ""


def row(right: Any, types: dict[str, TypeAccuracy] | None = None) -> VlmRow:
    estimate = Estimate(0.5, 0.4, 0.6, len(right))
    return VlmRow(
        "x", estimate, estimate, types or {}, packed(np.array(right)), 0.1, [1], [2], 64, 1.0, 2.0, 1.0, 2.0, 0.0, {}
    )


def test_verdicts_follow_from_the_rows() -> None:
    rng = np.random.default_rng(0)
    strong, weak = rng.random(400) < 0.9, rng.random(400) < 0.6

    def result(method: str, right: Any, short: bool = False) -> PruningResult:
        about = {"kind": "vlm", "method": method, "num_questions": 400, "short": short}
        return PruningResult(about, {key: row(right) for key in ("0.5", "0.1")})

    found = list(findings([result("divprune", strong), result("topk_cls", weak), result("random", strong)]))
    named = {(one.claim.other, one.keep): one.verdict for one in found}
    assert named == {("topk_cls", 0.1): "holds", ("random", 0.5): "cannot tell", ("random", 0.1): "cannot tell"}
    (other,) = findings([result("divprune", weak), result("topk_cls", strong)])
    assert other.verdict == "does not hold" and other.comparison.difference < -0.2
    (short,) = findings([result("divprune", strong, short=True), result("topk_cls", weak, short=True)])
    assert short.verdict == "not judged"
