"""`tokbench plan`: the images that tell two results apart, and their time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factories import image_columns, make_result

from tokbench.analysis.compare import difference
from tokbench.analysis.image_plan import plan_images
from tokbench.errors import ResultError
from tokbench.results.result import Result, load
from tokbench.stats.split_half import Replicates
from tokbench.stats.spread import Distinct

COUNT = 400


def entry(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1, "high": value + 1, "n": COUNT}


def pair(gap: float, noise: float = 1.0) -> tuple[Result, Result]:
    """Two results whose PSNR differ by `gap`, with paired differences of standard deviation `noise`."""
    rng = np.random.default_rng(0)
    base, each = rng.normal(30, 3, COUNT), rng.normal(0, 1, COUNT)
    each = (each - each.mean()) / each.std() * noise + gap
    columns = [image_columns(COUNT, psnr=values) for values in (base, base + each)]
    first, second = (
        make_result(name, {"psnr": entry(own["psnr"].mean())}, num_images=COUNT, per_image=own)
        for name, own in zip("ab", columns, strict=True)
    )
    return first, second


def test_the_number_follows_from_the_paired_noise() -> None:
    (found,) = plan_images(*pair(0.1), power=0.5)
    # 1.96 / sqrt(n) = 0.1: 384 images, but for the noise of the bootstrap
    assert found.needed == pytest.approx(1.96**2 / 0.01, rel=0.1)
    assert found.fewest < found.needed
    assert plan_images(*pair(0.2), power=0.5)[0].needed == pytest.approx(found.needed / 4, rel=0.1)
    assert plan_images(*pair(0.1))[0].needed == pytest.approx(2.043 * found.needed, rel=0.01)


def test_a_difference_that_is_not_significant_has_no_upper_end() -> None:
    (found,) = plan_images(*pair(0.05))
    assert found.difference.verdict == "cannot tell"
    assert found.most is None
    (clear,) = plan_images(*pair(2.0))
    assert clear.most is not None
    assert clear.fewest <= clear.needed <= clear.most < COUNT


def test_distances_are_planned_from_their_replicates() -> None:
    # Halves that differ by 0.4 in all pairs: a standard deviation of 0.2 with 50 degrees of freedom
    first, second = (make_result(name, {"rfid_768": entry(value)}, num_images=COUNT)
                     for name, value in (("a", 2.0), ("b", 2.3)))  # fmt: skip
    halves = np.tile([2.0, 2.4], 50)
    first.replicates["rfid_768"] = Replicates(np.full(100, 2.0))
    second.replicates["rfid_768"] = Replicates(halves)
    (found,) = plan_images(first, second, ["rfid_768"], power=0.5)
    reach = difference("rfid_768", first, second).gap - difference("rfid_768", first, second).low
    assert found.needed == pytest.approx(COUNT * (0.2 * 1.96 / 0.3) ** 2, rel=0.02)
    assert reach == pytest.approx(0.2 * 2.009, rel=1e-3)


def test_equal_results_and_numbers_without_an_interval() -> None:
    first, _ = pair(0.1)
    (same,) = plan_images(first, first)
    assert (same.needed, same.fewest, same.most) == (None, None, None)
    bare = [make_result(name, {"rfid_64": entry(value)}) for name, value in (("a", 1.0), ("b", 2.0))]
    assert plan_images(*bare) == []
    (unknown,) = plan_images(*bare, ["rfid_64"])
    assert unknown.needed is None


def test_a_mean_without_an_interval_has_no_number(cli, tmp_path: Path) -> None:
    """Three errors are too few for the interval of their log mean."""
    files = []
    for name, mse in (("a", np.array([1.0, 2.0, 3.0])), ("b", np.array([2.0, 3.0, 7.0]))):
        result = make_result(
            name, {"psnr": entry(10 * np.log10(255**2 / mse.mean()))}, num_images=3, per_image=image_columns(3, mse=mse)
        )
        result.save(tmp_path)
        files.append(tmp_path / result.path)
    done = cli("plan", *files, "--metric", "psnr", "--time", "0")
    assert done.exit_code == 0, done.output
    assert "no interval" in done.stdout
    found = difference("psnr", *map(load, files))
    assert found.images_needed is None and found.gap == pytest.approx(-10 * np.log10(2))


def test_an_interval_that_does_not_narrow_with_more_images_is_named(cli, tmp_path: Path) -> None:
    files = []
    for name, value in (("a", 0.5), ("b", 0.9)):
        result = make_result(name, {"codebook_usage": entry(value)}, num_images=COUNT)
        values = np.linspace(value - 1e-4, value + 1e-4, COUNT)
        result.replicates["codebook_usage"] = Distinct(values, lost=np.full(COUNT, 1e-5), gained=np.full(COUNT, 1e-5))
        result.save(tmp_path)
        files.append(tmp_path / result.path)
    done = cli("plan", *files, "--time", "0")
    assert "does not scale" in done.stdout and "no interval" not in done.stdout


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ResultError, match=r"no common number 'psrn' .*did you mean 'psnr'"):
        plan_images(*pair(0.1), ["psrn"])


def test_the_command_prints_numbers_and_time(cli, photo_folder: Path, tmp_path: Path) -> None:
    common = ("--data", photo_folder, "--metrics", "psnr,ssim", "--out", tmp_path, "--size", "48", "--no-cache")
    assert cli("eval", "jpeg.q50", "jpeg.q80", *common).exit_code == 0
    files = [next((tmp_path / name).glob("*.json")) for name in ("jpeg.q50", "jpeg.q80")]
    done = cli("plan", *files, "--metric", "psnr", "--data", photo_folder, "--time", "2")
    assert done.exit_code == 0, done.output
    assert "images needed" in done.stdout
    assert "seconds" in done.stdout
    found = json.loads(cli("plan", *files, "--data", photo_folder, "--time", "2", "--json").stdout)
    assert found["seconds_per_image"] > 0
    assert [one["number"] for one in found["numbers"]] == ["psnr", "ssim"]
    assert found["numbers"][0]["fewest"] <= found["numbers"][0]["needed"]
    missing = cli("plan", *files, "--time", "2")
    assert missing.exit_code == 0
    assert "no time: " in missing.stderr
    twice = cli("plan", *files, "--metric", "ssim", "--metric", "psnr", "--time", "0")
    assert [line.split()[0] for line in twice.stdout.splitlines() if line.startswith(("ssim", "psnr"))] == [
        "ssim",
        "psnr",
    ]
    assert cli("plan", *files, "--metric", "rfid", "--time", "0").exit_code == 1
