"""`tokbench prune`: measured rows, repeated timings, tables, and wrong usage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkout import ROOT
from click.testing import CliRunner, Result
from image_files import write_labelled_noise
from safetensors.torch import save_file

from tokbench.analysis.ablations import Ablation
from tokbench.cli import main
from tokbench.errors import ResultError
from tokbench.pruning import leaderboards, table
from tokbench.pruning.ablations import pruning_findings
from tokbench.pruning.classifier import table as classifier_table
from tokbench.pruning.classifier.benchmark import ClassifierBenchmark
from tokbench.pruning.classifier.measure import Candidate
from tokbench.pruning.classifier.models import load_classifier
from tokbench.pruning.classifier.result import ClassifierTiming
from tokbench.pruning.result import Speedup, load, load_all, packed, unpacked
from tokbench.report.static_figures import pruning
from tokbench.results.leaderboard import read_all
from tokbench.tokenizers.registry import open_variant

Prune = Callable[..., Result]

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")


def test_everything_is_measured_kept_and_not_measured_again(prune: Prune, tmp_path: Path) -> None:
    out = tmp_path / "results"
    words = ["random", "evit", "lower_resolution", "sit_slim", "diffrate", "small.half", "--keep", "0.5,1"]
    words += ["--tries", "1", "--out"]
    first = prune(*words, str(out))
    assert first.exit_code == 1  # at keep 1 nothing is trained
    assert "failed sit_slim: sit_slim must be trained for each network and keep" in first.output
    found = {one.about["method"]: one for one in load_all(out)}
    assert found.keys() == {"random", "evit", "lower_resolution", "sit_slim", "diffrate", "small.half"}
    assert found["random"].rows.keys() == {"0.5", "1"}
    whole = found["random"].rows["1"]
    assert whole.top1_gap.value == 0 and whole.agreement.value == 1
    assert whole.gflops == whole.whole_gflops == pytest.approx(whole.counted_gflops)
    half = found["random"].rows["0.5"]
    assert half.gflops < whole.gflops and half.tokens[-1][1] < 65
    assert found["sit_slim"].about["training"] == "weights" and found["diffrate"].about["training"] == "rates"
    assert found["sit_slim"].rows["0.5"].training_images == 16
    assert found["small.half"].rows.keys() == {"whole"} and len(found["small.half"].rows["whole"].tokens) == 4
    for one in found.values():
        assert one.about["short"] is True
        for row in one.rows.values():
            (pace,) = row.pace
            assert pace.speedup.repetitions >= 30 and pace.speedup.ms > 0
            assert pace.selector_ms < 10 * pace.speedup.ms
            reduces = row.gflops < row.whole_gflops and one.about["method"] not in (
                "lower_resolution",
                "small.half",
            )
            assert (pace.selector_ms > 0) == reduces, one.about["method"]
        if one.about["method"] in (
            "random",
            "lower_resolution",
            "small.half",
            "sit_slim",
        ):  # selecting tokens needs no multiplications
            for row in one.rows.values():
                assert row.gflops == pytest.approx(row.counted_gflops)
    files = {path: path.read_bytes() for path in out.rglob("*.json")}
    again = prune(*words, str(out))
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == files  # times, too
    assert "**Not judged**" in again.output and "## Without training" in again.output
    boards = CliRunner().invoke(main, ["leaderboard", "--out", str(out)])
    assert boards.exit_code == 0 and boards.output.count("wrote ") == 2  # there are no tables of tokenizers
    csv, md = leaderboards.write(out)
    assert csv.name.startswith("pruning-") and csv.suffix == ".csv"
    header, *lines = csv.read_text().splitlines()
    assert header.startswith("method,keep,training,") and len(lines) == 9
    text = md.read_text()
    assert "## With training" in text and "| SiT" in text
    with pytest.raises(ResultError, match="contains no results"):
        read_all(out)
    # With a tokenizer's result, both kinds of tables are written.
    shutil.copytree(ROOT / "results" / "toy.p8", out / "toy.p8")
    assert CliRunner().invoke(main, ["leaderboard", "--out", str(out)]).exit_code == 0
    assert md.read_text() == text and (out / "leaderboard" / "samples-reconstruct.md").is_file()
    assert CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path / "none")]).exit_code == 1


def test_times_whose_control_is_off_are_taken_again(prune: Prune, tmp_path: Path, monkeypatch: Any) -> None:
    """There are at most three runs; the last one is kept. A failure at another keep does not discard them."""
    taken: list[float | None] = []

    def time(bench: ClassifierBenchmark, arm: Candidate, batch: int) -> ClassifierTiming:
        taken.append(arm.keep)
        steady = taken.count(arm.keep) > 1 and arm.keep == 0.5
        speedup = Speedup(1.5, 1.4, 1.6, 1.0 if steady else 1.04, steady, 1.5, 1.0, 30)
        return ClassifierTiming(
            batch=batch, best_kernel="sdpa", speedup=speedup, speedup_same_kernel=speedup, selector_ms=0.0
        )

    monkeypatch.setattr(ClassifierBenchmark, "time", time)
    words = ["random", "sit_slim", "--out", str(tmp_path), "--keep"]
    assert prune(*words, "0.5,0.25").exit_code == 1  # SiT has nothing for 0.25
    found = {one.about["method"]: one.rows for one in load_all(tmp_path)}
    assert taken == [0.5, 0.5, 0.25, 0.25, 0.25, 0.5]
    assert found["random"]["0.5"].pace[0].speedup.control == 1.0
    assert found["random"]["0.25"].pace[0].speedup.control == 1.04
    assert len(found["sit_slim"]["0.5"].pace) == 1
    assert prune(*words, "0.25", "--tries", "1").exit_code == 1 and len(taken) == 6
    assert prune(*words, "0.25", "--tries", "4").exit_code == 1 and taken[6:] == [0.25]
    assert {one.about["method"]: one.rows for one in load_all(tmp_path)}["random"]["0.25"].pace[0].tries == 4


def test_a_network_trained_on_begins_as_what_it_was_trained_on_from(
    pruning_root: Path, prune: Prune, tmp_path: Path
) -> None:
    """The dense control of networks that continue the training of another: all tokens, and its own weights."""
    variant, code = open_variant("small.longer", pruning_root / "adapters" / "small" / "longer.toml")
    begun, whole = code.model(variant), load_classifier("small.whole", "cpu", pruning_root).vit
    pairs = zip(begun.vit.parameters(), whole.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) and mine.requires_grad for mine, theirs in pairs)
    assert prune("small.longer", "--batches", "0", "--out", str(tmp_path)).exit_code == 0
    (found,) = load_all(tmp_path)
    row = found.rows["whole"]
    assert row.gflops == row.whole_gflops and row.training_images == 16
    assert row.weights.keys() == {"longer.safetensors"}


def test_times_that_are_asked_for_later_are_measured_then(prune: Prune, tmp_path: Path) -> None:
    found, rows, times = [], [], []
    for batches in ("0", "2", "1", "0"):
        assert prune("random", "--keep", "0.5", "--out", str(tmp_path), "--batches", batches).exit_code == 0
        (one,) = load_all(tmp_path)
        found.append([pace.batch for pace in one.rows["0.5"].pace])
        rows.append(replace(one.rows["0.5"], pace=[]))
        times.append({pace.batch: pace for pace in one.rows["0.5"].pace})
    assert found == [[], [2], [1, 2], [1, 2]]
    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert times[1][2] == times[2][2] == times[3][2]  # existing timings are not measured again


def test_the_picture_is_of_one_device(prune: Prune, tmp_path: Path) -> None:
    """The timings of other devices in the folder are ignored; without timings, no picture is written."""
    target = tmp_path / "picture.svg"
    pruning(tmp_path, target)
    out = tmp_path / "results"
    words = ["random", "evit", "--keep", "0.5", "--out", str(out)]
    assert prune(*words, "--batches", "0").exit_code == 0
    pruning(tmp_path, target)
    assert not target.exists()
    assert prune(*words, "--batches", "1,2").exit_code == 0
    for one in load_all(out)[:1]:
        one.about["provenance"]["device"] = "another"
        for row in one.rows.values():
            row.pace = [replace(pace, batch=128) for pace in row.pace[:1]]
        one.save(out)
    pruning(tmp_path, target)
    drawn = target.read_text()
    assert all(text in drawn for text in ("speed-up at batch size 2 ", "speed-up at batch size 1 ", "EViT"))


def test_a_row_of_another_network_is_measured_anew(prune: Prune, tmp_path: Path) -> None:
    words = ["random", "--keep", "0.5", "--batches", "0", "--out", str(tmp_path / "results")]
    assert prune(*words).exit_code == 0
    (path,) = (tmp_path / "results").rglob("*.json")
    facts = json.loads(path.read_text())
    facts["about"]["provenance"]["weights"] = {"other": "weights"}
    facts["rows"]["0.7"] = facts["rows"]["0.5"]
    path.write_text(json.dumps(facts))
    assert prune(*words).exit_code == 0
    assert load(path).rows.keys() == {"0.5"}


def test_each_network_has_its_own_file_and_a_new_training_replaces_its_row(prune: Prune, tmp_path: Path) -> None:
    words = ["sit_slim", "small.sit", "--keep", "0.5", "--batches", "0", "--out", str(tmp_path)]
    assert prune(*words).exit_code == 0
    found = {one.about["method"]: one for one in load_all(tmp_path)}
    assert found.keys() == {"sit_slim", "small.sit"}
    assert found["small.sit"].rows["0.5"].title == "SiT, small.sit"
    text = classifier_table.markdown(list(found.values()))
    assert "| SiT (small.sit)" in text and "| SiT (sit_slim)" in text
    assert "(sit_slim)" not in classifier_table.markdown([found["sit_slim"]])
    path = tmp_path / found["sit_slim"].path
    facts = json.loads(path.read_text())
    facts["rows"]["0.5"] |= {"weights": {"sit.safetensors": "of another training"}, "gflops": -1}
    path.write_text(json.dumps(facts))
    assert prune(*words).exit_code == 0
    assert load(path).rows["0.5"].gflops > 0


def test_an_ablated_network_is_compared_image_by_image(prune: Prune, tmp_path: Path) -> None:
    """Networks that were trained too briefly get no verdict; others get one if the interval excludes 0."""
    words = ["sit_slim", "small.half", "--keep", "0.5", "--batches", "0", "--out", str(tmp_path)]
    assert prune(*words).exit_code == 0
    ablation = Ablation("small.half", "small.sit", "a part", "It helps.", ("top1",), ("prune",))
    other = Ablation("small.half", "small.sit", "a part", "It helps.", ("top5",), ("prune",))
    (found,) = pruning_findings([ablation, other], load_all(tmp_path))
    assert found.verdict == "cannot tell" and found.difference.n == 24
    members = load_all(tmp_path)
    for one in members:
        one.about["short"] = False
        for row in one.rows.values():
            row.training_profile = "gpu"
            right = np.arange(24) % (4 if row.network == "small.sit" else 2) == 0
            row.right = packed(right if row.network == "small.half" else ~right)
    (found,) = pruning_findings([ablation], members)
    gap = found.difference
    assert (gap.first, gap.second, gap.gap) == pytest.approx((0.75, 0.5, -0.25))
    assert gap.low < -0.25 < gap.high
    assert found.verdict == ("supported" if gap.high < 0 else "cannot tell")
    assert np.array_equal(unpacked(packed(np.arange(13) % 3 == 0), 13), np.arange(13) % 3 == 0)


def test_tables_hold_what_was_measured_alike(prune: Prune, tmp_path: Path) -> None:
    for more in ([], ["--kernel", "eager"], ["--round-to", "8"], ["--limit", "20"]):
        words = ["random", "--keep", "0.5", "--batches", "0", "--out", str(tmp_path)]
        assert prune(*words, *more).exit_code == 0
    found = load_all(tmp_path)
    assert len(found) == len({one.path for one in found}) == 4
    names = table.groups(found)
    assert len(names) == 4 and all(len(members) == 1 for members in names.values())
    assert sum(".eager" in name for name in names) == sum(".r8" in name for name in names) == 1
    (only,) = table.groups(found[:1])
    assert only.startswith("pruning-") and "small" not in only


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nothing"], 1, "unknown method 'nothing'; available: random, strided"),
        ([], 2, "missing METHOD; see --list"),
        (["random", "--keep", "0"], 2, "every keep must lie in"),
        (["random", "--keep", "half"], 2, "expected numbers in"),
        (["random", "--keep", "0.001"], 0, "random 0.001"),  # rounded up: one token stays
        (["tome", "--batches", "x"], 2, "expected integers"),
        (["diffrate", "--keep", "0.3"], 1, "or give --rates"),
        (["diffrate", "--rates", "deit_s"], 1, "rates for 12 blocks and 197 tokens do not fit 8 blocks and 65 tokens"),
        (["diffrate", "--rates", "missing.json"], 1, "expected deit_s, a JSON file"),
        (["diffrate", "--rates", "missing.json:ViT-S-DeiT/2.9"], 1, "expected deit_s, a JSON file"),
        (["random", "--repetitions", "5"], 2, "30"),
    ],
)
def test_wrong_usage_is_refused_with_a_reason(
    prune: Prune, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    done = prune(*words, "--out", str(tmp_path))
    assert done.exit_code == status, done.output
    assert message in done.output


@pytest.mark.parametrize("lists", [list, str])
def test_published_rates_come_from_the_authors_file(prune: Prune, tmp_path: Path, lists: type) -> None:
    prune_, merge = [65, 60, 60, 50, 40, 30, 20, 10], [65, 60, 50, 52, 40, 30, 20, 10]
    counts = {"prune_kept_num": lists(prune_), "merge_kept_num": lists(merge)}
    (tmp_path / "rates.json").write_text(json.dumps({"ViT": {"2.9": counts}}))
    words = ["--rates", f"{tmp_path}/rates.json:ViT/2.9", "--out", str(tmp_path)]
    done = prune("diffrate", *words)
    assert done.exit_code == 0, done.output
    (one,) = load_all(tmp_path)
    (row,) = one.rows.values()
    assert [leaving for _, leaving in row.tokens] == [65, 60, 50, 50, 40, 30, 20, 10]
    assert row.training_seconds is None and " - |" in done.output
    assert prune("diffrate", "--rates", f"{tmp_path}/rates.json:ViT/3", "--out", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("small.none", "unknown network 'small.none'; available: small.half"),
        ("small.sit", "is a Slimmed, not a classifier whose tokens can be reduced"),
        ("timm:no_such", "has no model 'no_such'"),
        ("timm:resnet18@{folder}/resnet18.safetensors", "has no list of blocks"),
        ("timm:vit_tiny_patch16_224@/missing.safetensors", "weights file"),
        ("timm:vit_tiny_patch16_224@{folder}/bad.safetensors", "is not a readable state dict"),
        ("timm:vit_tiny_patch16_224", "use --allow-download or timm:NAME@FILE"),
    ],
)
def test_networks_that_cannot_be_had(prune: Prune, tmp_path: Path, model: str, message: str) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    if "resnet18@" in model:
        save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    done = prune("random", "--out", str(tmp_path), model=model.format(folder=tmp_path))
    assert done.exit_code in (1, 2) and message in done.output, done.output


@pytest.mark.parametrize("file", ["own.safetensors", "own.pth"])
def test_a_file_of_timms_weights_is_run(pruning_root: Path, tmp_path: Path, file: str) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    if file.endswith(".pth"):
        torch.save({"model": vit.state_dict()}, tmp_path / file)  # as DeiT's authors publish theirs
    else:
        save_file(vit.state_dict(), tmp_path / file)
    write_labelled_noise(tmp_path / "thousand.parquet", 1000, 1000)
    done = CliRunner().invoke(
        main,
        ["prune", "tome", "--model", f"timm:vit_tiny_patch16_224@{tmp_path / file}", "--keep", "0.5",
         "--data", str(tmp_path / "thousand.parquet"), "--limit", "4", "--batches", "0", "--out", str(tmp_path / "out"),
         "--root", str(pruning_root)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (one,) = load_all(tmp_path / "out")
    assert one.about["short"] is False and one.about["provenance"]["data"]["side"] == 224
    assert one.rows["0.5"].pace == [] and one.rows["0.5"].whole_gflops == pytest.approx(2 * 1.26, rel=0.03)


def test_the_list_names_methods_and_networks() -> None:
    listed = CliRunner().invoke(main, ["prune", "--list"]).output.split()
    assert {"random", "evit", "diffrate", "sit_slim", "lower_resolution", "vit_tiny_imagenet.d6", "aclip.full"} <= set(
        listed
    )
    assert "vit_tiny_imagenet.sit50" not in listed
