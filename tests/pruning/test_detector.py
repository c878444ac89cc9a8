"""Average precision of detections, and the benchmark of detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from small_networks import train_networks

from tokbench.analysis.ablations import ablations
from tokbench.cli import main
from tokbench.data.synthetic.scenes import boxes_of, draw, make_scene
from tokbench.errors import DataError
from tokbench.nn.detr import FocusDETR
from tokbench.pruning.ablations import pruning_findings
from tokbench.pruning.detector.average_precision import Detections, Precision, average_precision
from tokbench.pruning.detector.candidates import applied, detect
from tokbench.pruning.detector.result import DetectorRow
from tokbench.pruning.kind_names import kind_of_model
from tokbench.pruning.result import Estimate, PruningResult, load_all
from tokbench.pruning.verdicts import findings
from tokbench.report import pruning_tables
from tokbench.tokenizers.registry import network_files

SMALL = """summary = "small"
prune_kind = "detector"
[model]
size = 64
classes = 7
width = 16
depth = 2
decoder_depth = 1
queries = 4
keep = {keep}
[training]
data = "scenes-128-train"
images = 16
batch = 8
"""
ABLATION = """
[ablation]
of = "{of}"
without = "nothing"
claim = "Half is enough."
numbers = ["ap50"]
tasks = ["prune"]
"""
TRUTHS = [np.array([[0, 0.1, 0.1, 0.4, 0.4], [1, 0.5, 0.5, 0.9, 0.9]]), np.array([[0, 0.2, 0.3, 0.6, 0.8]])] * 3


def found(shift: float = 0.0, score: float = 0.9) -> list[Detections]:
    return [Detections(np.full(len(own), score), own[:, 0], own[:, 1:] + shift) for own in TRUTHS]


def precision(detections: list[Detections]) -> Precision:
    return average_precision(detections, TRUTHS, range(6), 128)


def test_exact_boxes_have_a_precision_of_one_and_shifted_ones_less() -> None:
    exact = precision(found())
    assert exact.values == {"ap50": pytest.approx(1), "ap": pytest.approx(1)}
    shifted = precision(found(0.03))
    assert shifted.values["ap50"] == pytest.approx(1) and 0.3 < shifted.values["ap"] < 0.9
    assert precision([Detections(*np.zeros((2, 0)), np.zeros((0, 4)))] * 6).values["ap"] == 0
    with pytest.raises(DataError, match="only one of two passes"):
        shifted.gap("ap", replace(exact, index=(0,)))
    gap = shifted.gap("ap", exact)
    assert gap.value < 0 and gap.low <= gap.value <= gap.high and exact.estimate("ap50").high == 1


def test_a_missed_class_counts_by_class_and_the_interval_by_images() -> None:
    missed = [Detections(one.scores[:1], one.classes[:1], one.boxes[:1]) for one in found()]  # never class 1
    assert precision(missed).values["ap50"] == pytest.approx(0.5)
    partly = [own if place else Detections(*np.zeros((2, 0)), np.zeros((0, 4))) for place, own in enumerate(found())]
    estimate = precision(partly).estimate("ap50")
    assert estimate.low < estimate.value < estimate.high <= 1


def test_boxes_of_scenes_enclose_what_is_drawn() -> None:
    for position in range(40):
        scene = make_scene("test", position)
        pixels = draw(scene, 128).astype(int)
        assert pixels.shape == (128, 128, 3)
        for (kind, left, top, right, bottom), one in zip(boxes_of(scene, 128), scene.objects, strict=True):
            assert kind == 6 if one.text else kind < 6
            alone = np.abs(draw(scene.__class__((one,), scene.background, scene.slope), 128).astype(int)
                           - draw(scene.__class__((), scene.background, scene.slope), 128)).sum(2) > 0  # fmt: skip
            rows, columns = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
            edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 128
            assert np.abs(edges - (left, top, right, bottom)).max() < 1.3 / 128


def test_detections_are_the_best_pairs_and_settings_are_restored() -> None:
    torch.manual_seed(0)
    network = FocusDETR(64, 3, 16, 2, 1, 4, keep=0.5).eval()
    images = torch.rand(2, 3, 64, 64)
    with applied(network, 0.25, "norm"):
        (first, _), counts = detect(network, images, [0, 1]), network.encoder.counts
    assert counts == [21, 17] and (network.encoder.keep, network.encoder.selection) == (0.5, "learned")
    assert len(first.scores) == 4 and (np.diff(first.scores) <= 0).all() and first.boxes.shape == (4, 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two small detectors, trained for two steps."""
    texts = {
        "full": SMALL.format(keep=1.0),
        "half": SMALL.format(keep=0.5) + ABLATION.format(of="small.other"),
        "other": SMALL.format(keep=0.5),
    }
    root = tmp_path_factory.mktemp("detector")
    return train_networks(root, "focus_detr", texts, "--limit", 16, datasets=("scenes-128", "scenes-128-train"))


@pytest.fixture
def prune(root: Path) -> Callable[..., Result]:
    def run(*words: object) -> Result:
        given = ("--model", "small.full", "--data", "scenes-128", "--limit", 8, "--root", root, "--batches", 0, *words)
        return CliRunner().invoke(main, ["prune", *map(str, given)])

    return run


def test_rows_are_measured_once_with_the_control(prune: Callable[..., Result], root: Path, tmp_path: Path) -> None:
    words = ("learned", "small.half", "small.other", "--keep", "0.5,1", "--out", tmp_path)
    first = prune(*words)
    assert first.exit_code == 0, first.output
    assert "warning: the full detector has an AP50 of" in first.output
    found = {one.about["method"]: one for one in load_all(tmp_path, "detector")}
    assert found.keys() == {"random", "learned", "small.half", "small.other"}
    assert found["learned"].rows.keys() == {"0.5", "1"} and found["small.half"].rows.keys() == {"0.5"}
    same, half = found["learned"].rows["1"], found["small.half"].rows["0.5"]
    assert (same.ap50_gap.value, same.ap_gap.value, same.gflops) == (0, 0, same.whole_gflops)
    assert same.tokens == [84] * 2 and half.tokens == [42, 34] and half.gflops < half.whole_gflops
    assert half.network == "small.half" and half.training_images == 16 and half.weights.keys() == {"half.safetensors"}
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    again = prune(*words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == files
    for text in ("**Not judged**", "## Claims", "Half is enough.", "small.other - small.half", "not judged"):
        assert text in again.output, text
    board = CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)])
    assert board.exit_code == 0, board.output
    (table,) = (tmp_path / "leaderboard").glob("pruning-detector-*.md")
    assert again.output.endswith(table.read_text().split("\n", 2)[2])
    header, *lines = table.with_suffix(".csv").read_text().splitlines()
    assert header.startswith("method,keep,training,") and len(lines) == 6
    (page,) = pruning_tables.tables(load_all(tmp_path, "detector"))
    assert len(page.rows) == 6 and all(len(one.values) == len(page.columns) for one in page.rows)
    ablation = ablations({"small.half": root / "adapters" / "small" / "half.toml"})
    (judged,) = pruning_findings(ablation, load_all(tmp_path, "detector"))
    assert (judged.verdict, judged.difference.number) == ("cannot tell", "ap50")


def test_times_that_are_asked_for_later_are_measured_then(
    prune: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokbench.pruning.paired_timing.WARM_UP", 1)
    words = ("random", "--keep", "0.5", "--out", tmp_path, "--tries", 1)
    assert prune(*words).exit_code == 0
    (before,) = load_all(tmp_path, "detector")
    done = prune(*words, "--batches", 1)
    assert done.exit_code == 0, done.output
    (after,) = load_all(tmp_path, "detector")
    (timing,) = after.rows["0.5"].pace
    assert timing.batch == 1 and timing.tries == 1 and timing.speedup.ms > 0 and timing.speedup.repetitions == 30
    assert replace(after.rows["0.5"], pace=[]) == before.rows["0.5"]
    (page,) = pruning_tables.tables([after])
    assert page.batches == [1] and page.rows[0].details["command"].endswith("--limit 8 --batches 1")


def test_what_cannot_be_measured_is_refused(prune: Callable[..., Result], root: Path, tmp_path: Path) -> None:
    unknown = prune("best", "--keep", "0.5", "--out", tmp_path)
    assert unknown.exit_code == 1 and "failed best: unknown method 'best'; available: learned, random" in unknown.output
    for words, message in (
        (("--round-to", 8), "--round-to does not apply to detectors"),
        (("--model", "small.none"), "unknown network 'small.none'"),
        (("--data", "scenes-64"), "scenes-64"),
    ):
        refused = prune("random", *words, "--out", tmp_path)
        assert refused.exit_code != 0 and message in refused.output, refused.output
    assert prune("--list").output.split() == ["learned", "random", "norm", "small.full", "small.half", "small.other"]


def test_verdicts_follow_from_the_rows() -> None:
    def result(method: str, value: float, noise: float, short: bool = False) -> PruningResult:
        one = Estimate(value, value, value, 100)
        without = (value + noise * np.random.default_rng(0).normal(size=20)).tolist()
        row = DetectorRow(
            title=method, network="d", ap50=one, ap=one, ap50_gap=one, ap_gap=one,
            without={"ap50": without, "ap": without}, tokens=[1], gflops=1.0, whole_gflops=2.0, training_seconds=0,
            training_images=0, training_profile=None, weights={}, pace=[],
        )  # fmt: skip
        about = {"kind": "detector", "method": method, "num_images": 100, "short": short}
        return PruningResult(about, {"0.5": row, "1": row})

    found = list(findings([result("learned", 0.9, 1e-3), result("random", 0.7, 1e-3), result("norm", 0.9, 1e-2)]))
    assert {(one.claim.other, one.keep): one.verdict for one in found} == {
        ("random", 0.5): "holds", ("norm", 0.5): "cannot tell",
    }  # fmt: skip
    assert found[0].comparison.difference == pytest.approx(0.2)
    (worse,) = findings([result("learned", 0.6, 1e-3), result("random", 0.7, 1e-3)])
    assert worse.verdict == "does not hold"
    (short,) = findings([result("learned", 0.9, 1e-3, True), result("random", 0.7, 1e-3, True)])
    assert short.verdict == "not judged"


def test_networks_of_the_checkout_are_detectors() -> None:
    assert kind_of_model("focus_detr.d4_dense", None) == "detector"
    found = ablations({name: toml for name, toml in network_files(None).items() if name.startswith("focus_detr.")})
    assert {one.ablated for one in found} == {f"focus_detr.d4_{part}" for part in ("random", "norm", "drop", "nodual")}
    assert all(one.numbers == ("ap50",) and one.tasks == ("prune",) for one in found)
