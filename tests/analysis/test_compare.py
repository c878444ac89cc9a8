"""`tokbench compare` and `tokbench check`: two results compared, and committed results measured again."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from checkout import ROOT
from factories import image_columns, make_result

from tokbench.analysis import render
from tokbench.analysis.compare import difference, differences, verdict_of
from tokbench.analysis.tolerances import read_tolerances
from tokbench.errors import ResultError, UsageError
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.results.result import Result, load
from tokbench.stats.sample_size import images_needed

METRICS = "psnr,ssim,rate,fd_efficientnet,codebook"


@pytest.fixture(scope="module")
def facts(mirrored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three adapters on twelve photos, computed once for this file."""
    from click.testing import CliRunner

    from tokbench.cli import main

    out = tmp_path_factory.mktemp("facts") / "results"
    command = ["eval", "jpeg.q50", "jpeg.q90", "toy.p8", "--data", mirrored, "--metrics", METRICS, "--out", out]
    done = CliRunner().invoke(main, [str(word) for word in command])
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture
def results(facts: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may change."""
    shutil.copytree(facts, tmp_path / "results")
    return tmp_path / "results"


def one(results: Path, adapter: str) -> Path:
    return next((results / adapter).glob("*.json"))


@pytest.mark.slow
def test_paired_differences(results: Path) -> None:
    low, high = load(one(results, "jpeg.q50")), load(one(results, "jpeg.q90"))
    found = {gap.number: gap for gap in differences(low, high)}
    for number in ("psnr", "ssim", "bpp"):
        expected = (high.per_image[number] - low.per_image[number]).mean()
        assert found[number].gap == pytest.approx(expected)
        assert found[number].low <= expected <= found[number].high
        assert abs(found[number].moved[0][1]) == pytest.approx(
            np.abs(high.per_image[number] - low.per_image[number]).max()
        )
    assert (found["psnr"].verdict, found["bpp"].verdict) == ("better", "worse")
    ratio = found["compression_ratio"]
    values = [result.metrics["compression_ratio"]["value"] for result in (low, high)]
    assert ratio.gap == pytest.approx(values[1] - values[0])
    assert ratio.verdict == "worse"
    distance = found["fd_efficientnet"]
    halves = high.replicates["fd_efficientnet"] - low.replicates["fd_efficientnet"]
    assert distance.high - distance.low == pytest.approx(2 * 1.983971519 * halves.deviation)
    backwards = {gap.number: gap for gap in differences(high, low)}
    assert backwards["psnr"].gap == pytest.approx(-found["psnr"].gap)
    assert backwards["psnr"].verdict == "worse"


@pytest.mark.slow
def test_a_result_is_the_same_as_itself(results: Path) -> None:
    result = load(one(results, "toy.p8"))
    assert {gap.verdict for gap in differences(result, result)} == {"same"}


@pytest.mark.slow
def test_unlike_results_are_refused(results: Path) -> None:
    first, second = load(one(results, "jpeg.q50")), load(one(results, "jpeg.q90"))
    for part, what in (("data", "images"), ("protocol", "protocols")):
        kept = second.provenance[part]
        second.provenance[part] = kept | {"sha256": "0" * 64}
        with pytest.raises(ResultError, match=f"different {what}"):
            differences(first, second)
        second.provenance[part] = kept


@pytest.mark.slow
def test_numbers_of_unlike_networks_are_left_out(results: Path) -> None:
    first, second = load(one(results, "jpeg.q50")), load(one(results, "jpeg.q90"))
    second.provenance["metrics"]["fd_efficientnet"]["sha256"] = "0" * 64
    assert "fd_efficientnet" not in {gap.number for gap in differences(first, second)}


def exact_in(values: list[float]) -> Result:
    column = np.array(values)
    entry = {"value": float(np.nanmean(column)) if np.isfinite(column).any() else None}
    return make_result(
        metrics={"psnr": entry}, num_images=len(column), per_image=image_columns(len(column), psnr=column)
    )


def test_images_that_are_exact_in_one_result_only_are_counted() -> None:
    found = difference("psnr", exact_in([30.0, np.nan, 40.0]), exact_in([30.0, 50.0, 40.0]))
    assert (found.gap, found.n, found.first_only, found.second_only) == (0, 2, 0, 1)
    assert found.verdict == "cannot tell"  # the images that both have agree, and one is exact in the first alone
    assert difference("psnr", exact_in([np.nan]), exact_in([np.nan])).verdict == "same"
    mostly_exact = difference("psnr", exact_in([30.0, 30.0, 30.0, 40.0]), exact_in([np.nan, np.nan, np.nan, 39.0]))
    assert (mostly_exact.verdict, mostly_exact.alone) == ("cannot tell", 3)
    assert "(+3 in one only)" in render.comparison([mostly_exact], "a", "b")


def test_the_number_of_images_needed_is_stated() -> None:
    found = difference("psnr", exact_in([30.0, 31.0, 35.0]), exact_in([30.5, 31.0, 36.0]))
    gaps = np.array([0.5, 0.0, 1.0])
    expected = images_needed(float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(3), 3)
    assert found.images_needed == found.to_dict()["images_needed"] == expected
    assert render.comparison([found], "a", "b").splitlines()[-1].split("|")[-2].strip() == str(expected)
    same = difference("psnr", exact_in([30.0]), exact_in([30.0]))
    assert same.images_needed is None


def test_pooled_psnr_is_compared_from_its_errors() -> None:
    def pooled(values: list[float]) -> Result:
        result = exact_in(values)
        result.per_image["mse"] = result.per_image.pop("psnr")
        return result

    errors = [10.0, 20.0, 30.0, 5.0, 8.0]
    found = difference("psnr", pooled(errors), pooled([error / 10 for error in errors]))
    assert found.gap == pytest.approx(10)
    assert found.low == pytest.approx(10)
    assert "in mse" in render.moved_text(found)
    assert difference("psnr", pooled([0.0, 0.0]), pooled([0.0, 0.0])).verdict == "same"
    assert difference("psnr", pooled([5.0, 5.0]), pooled([0.0, 0.0])).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("number", "interval", "expected"),
    [
        ("psnr", (0.5, 0.1, 0.9), "better"),
        ("psnr", (-0.5, -0.9, -0.1), "worse"),
        ("lpips", (0.5, 0.1, 0.9), "worse"),
        ("rfid_infinity", (-0.5, -0.9, -0.1), "better"),
        ("psnr", (0.5, -0.1, 0.9), "cannot tell"),
        ("codebook_entropy", (0.5, 0.1, 0.9), "no direction"),
        ("psnr", (0.0, 0.0, 0.0), "same"),
        ("psnr", (0.5, np.nan, np.nan), "no error bar"),
    ],
)
def test_verdicts(number: str, interval: tuple[float, float, float], expected: str) -> None:
    assert verdict_of(number, *interval) == expected


@pytest.mark.slow
def test_compare_prints_a_table_and_json(cli, results: Path) -> None:
    files = one(results, "jpeg.q50"), one(results, "jpeg.q90")
    shown = cli("compare", *files)
    assert shown.exit_code == 0
    assert "| PSNR " in shown.stdout
    assert "better" in shown.stdout
    listed = json.loads(cli("compare", *files, "--json").stdout)
    assert {"number", "gap", "low", "high", "n", "first_only", "second_only", "verdict"} < set(listed[0])


def check(cli, results: Path, mirrored: Path, *more: object):
    return cli("check", "--against", results, "--data", mirrored, *more)


@pytest.mark.slow
def test_check_of_untouched_facts(cli, results: Path, mirrored: Path) -> None:
    done = check(cli, results, mirrored, "--json")
    assert done.exit_code == 0, done.stdout + done.stderr
    output = json.loads(done.stdout)
    assert {entry["outcome"] for entry in output["checks"]} == {"same"}
    assert {entry["adapter"] for entry in output["checks"]} == {"jpeg.q50", "jpeg.q90", "toy.p8"}
    assert {"psnr", "ssim", "bpp", "fd_efficientnet", "codebook_usage"} <= {
        entry["number"] for entry in output["checks"]
    }


def spoil(path: Path, number: str, by: float, images: slice = slice(None)) -> None:
    """Change the committed result: its JSON and the values of these images."""
    result = load(path)
    result.per_image[number][images] += by
    result.metrics[number]["value"] = float(np.nanmean(result.per_image[number]))
    result.save(path.parent.parent)


@pytest.mark.slow
def test_a_number_that_got_worse_is_a_regression_with_its_images(
    cli, results: Path, mirrored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(one(results, "jpeg.q50"), "psnr", 0.5)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    done = check(cli, results, mirrored, "jpeg.q50", "--junit", tmp_path / "junit.xml", "--github")
    assert done.exit_code == 1
    assert "regression" in done.stdout
    assert "photo" in done.stdout
    assert "::error title=tokbench jpeg.q50::" in done.stdout
    assert "PSNR" in (tmp_path / "summary.md").read_text()
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["psnr"]
    assert len(cases) > 4


@pytest.mark.slow
def test_a_number_that_got_better_is_not(cli, results: Path, mirrored: Path) -> None:
    spoil(one(results, "jpeg.q50"), "psnr", -0.5)
    done = check(cli, results, mirrored, "jpeg.q50")
    assert done.exit_code == 0
    assert "1 better" in done.stdout


@pytest.mark.slow
def test_tolerances_come_from_a_file(cli, results: Path, mirrored: Path, tmp_path: Path) -> None:
    spoil(one(results, "jpeg.q50"), "psnr", 0.5)
    config = tmp_path / "tokbench.toml"
    config.write_text("[check.tolerance]\npsnr = 0.6\nfd_efficientnet = '1%'\n")
    assert check(cli, results, mirrored, "jpeg.q50", "--config", config).exit_code == 0
    config.write_text("check = 3")
    assert check(cli, results, mirrored, "--config", config).exit_code == 2
    for wrong in ("psnrr = 1", "psnr = 'x%'", "psnr = -1", "psnr = true and"):
        config.write_text(f"[check.tolerance]\n{wrong}\n")
        done = check(cli, results, mirrored, "--config", config)
        assert done.exit_code == 2, wrong


@pytest.mark.slow
@pytest.mark.parametrize("part", ["data", "protocol", "weights", "network"])
def test_other_hashes_are_refused(cli, results: Path, mirrored: Path, part: str) -> None:
    path = one(results, "jpeg.q50")
    document = json.loads(path.read_text())
    where = document["provenance"]
    if part == "weights":
        where["adapter"]["parameters_sha256"] = "0" * 64
    elif part == "network":
        where["metrics"]["fd_efficientnet"]["sha256"] = "0" * 64
    else:
        where[part]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    done = check(cli, results, mirrored, "jpeg.q50")
    assert done.exit_code == 3
    assert "REFUSED" in done.stdout


@pytest.mark.slow
def test_a_limit_compares_means_of_the_first_images(
    cli, results: Path, mirrored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit, only means over the first images are compared."""
    asked: list[str] = []

    def noted(adapters: Any, images: Any, config: EvalConfig, context: Any) -> list[Result]:
        asked.extend(config.metrics)
        return evaluate(adapters, images, config, context)

    monkeypatch.setattr("tokbench.analysis.regression.evaluate", noted)
    done = check(cli, results, mirrored, "jpeg.q50", "--limit", 3, "--json")
    assert done.exit_code == 0
    output = json.loads(done.stdout)
    assert {entry["number"] for entry in output["checks"]} >= {"psnr", "ssim", "bpp"}
    assert {entry["n"] for entry in output["checks"]} == {3}
    assert set(asked) == {"psnr", "ssim", "rate"}
    left = {entry["what"]: entry["reason"] for entry in output["not_compared"]}
    assert "depends on all 12 images, and 3 were measured" in left["fd_efficientnet"]


@pytest.mark.slow
def test_what_is_not_here_is_listed_and_nothing_compared_is_3(cli, results: Path, mirrored: Path) -> None:
    path = one(results, "jpeg.q50")
    document = json.loads(path.read_text())
    document["provenance"]["protocol"]["name"] = "gone"
    path.write_text(json.dumps(document))
    done = check(cli, results, mirrored, "jpeg.q50", "--allow-missing")
    assert done.exit_code == 3
    assert "no protocol 'gone'" in done.stdout
    assert "nothing could be compared" in done.stdout
    assert check(cli, results, mirrored, "--allow-missing").exit_code == 0  # the others were
    assert check(cli, results, mirrored).exit_code == 1
    assert check(cli, results, mirrored, "avif.q1").exit_code == 2


@pytest.mark.slow
def test_an_adapter_that_fails_is_a_failure(cli, results: Path, mirrored: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(ROOT / "adapters" / "toy", root / "adapters" / "toy")
    code = root / "adapters" / "toy" / "adapter.py"
    working = code.read_text()
    for line in ("codes = tokens.tensor", "return Toy(variant.name"):  # in decode, and while it is loaded
        code.write_text(working.replace(line, f"raise ValueError('boom'); {line}"))
        done = check(cli, results, mirrored, "toy.p8", "--root", root)
        assert done.exit_code == 1
        assert "boom" in done.stdout


@pytest.mark.slow
def test_an_image_that_became_unreadable_is_refused(cli, facts: Path, mirrored: Path, tmp_path: Path) -> None:
    """The remaining images are another set, and comparing only them would hide the failure."""
    shutil.copytree(mirrored, tmp_path / "photos")
    shutil.copytree(facts, tmp_path / "results")
    broken = tmp_path / "photos" / "photo1.png"
    broken.write_bytes(b"x" * broken.stat().st_size)  # the mirrored's name follows from names and sizes
    done = check(cli, tmp_path / "results", tmp_path / "photos", "jpeg.q50")
    assert done.exit_code == 3
    assert "1 images cannot be read, such as photo1.png" in done.stdout
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"x" * path.stat().st_size)
    done = check(cli, tmp_path / "results", tmp_path / "photos", "jpeg.q50", "--junit", tmp_path / "junit.xml")
    assert done.exit_code == 1
    assert "no image could be read" in (tmp_path / "junit.xml").read_text()


def test_no_results_are_status_3(cli, tmp_path: Path) -> None:
    done = cli("check", "--against", tmp_path)
    assert done.exit_code == 3
    assert "contains no results" in done.stderr


def test_unknown_results_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_tolerances(tmp_path / "none.toml")
