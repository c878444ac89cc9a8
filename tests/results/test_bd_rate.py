"""Rates at equal quality from result files: curves of codecs, single rows, intervals, and reasons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import image_columns, make_result

from tokbench.cli import main
from tokbench.errors import UsageError
from tokbench.results.bd_rate import rate_changes
from tokbench.results.result import Result

IMAGES = 30


def row(adapter: str, bpp: float, psnr: float, kind: str = "codec", lpips: float | None = None) -> Result:
    """A result whose rate varies between images by the same factors in every row."""
    rates = bpp * (1 + 0.2 * np.sin(np.arange(IMAGES)))
    rates *= bpp / rates.mean()
    values = {"bpp": rates, "psnr": np.full(IMAGES, psnr)}
    numbers = {"bpp": bpp, "psnr": psnr} | ({} if lpips is None else {"lpips": lpips})
    metrics = {name: {"value": value, "low": None, "high": None} for name, value in numbers.items()}
    return make_result(
        adapter, metrics, dataset="photos", num_images=IMAGES, per_image=image_columns(IMAGES, **values),
        adapter_facts={"kind": kind},
    )  # fmt: skip


def codec(family: str, factor: float, shift: float = 0.0) -> list[Result]:
    return [row(f"{family}.q{place}", factor * 2**place, 25 + shift + 4 * place) for place in range(5)]


def test_codecs_are_curves_and_other_rows_stand_alone() -> None:
    rows = [*codec("jpeg", 0.1), *codec("webp", 0.05), row("taef2", 0.4, 29.0, "continuous")]
    single, curve = rate_changes(rows, "jpeg", ["psnr"])
    assert (curve.name, curve.points, curve.low, curve.high) == ("webp", 5, 25.0, 41.0)
    assert curve.percent == pytest.approx(-50)
    assert (single.name, single.points, single.low, single.high) == ("taef2", 1, 29.0, 29.0)
    assert single.percent == pytest.approx(100)  # JPEG needs 0.2 bits per pixel for 29 dB
    assert curve.interval is not None and curve.interval.low == pytest.approx(-50)  # one factor for every image


def test_the_interval_follows_the_images() -> None:
    """A codec that saves nothing on even images and half on odd ones: the interval lies around the mean rates."""
    rows = codec("jpeg", 0.1)
    for one in codec("webp", 0.075):
        per_image = one.per_image["bpp"]
        per_image[:] = np.where(np.arange(IMAGES) % 2, 1, 0.5) * per_image.mean() / 0.75
        rows.append(one)
    (found,) = rate_changes(rows, "jpeg", ["psnr"])
    assert found.interval is not None and found.percent == pytest.approx(-25)
    assert -40 < found.interval.low < -25 < found.interval.high < -10


def test_reasons_are_given_instead_of_numbers() -> None:
    rows = [*codec("jpeg", 0.1), *codec("webp", 0.1, shift=30), *codec("avif", 0.1)[:3], row("taef2", 0.4, 60.0)]
    reasons = {(one.name, one.number): one.reason for one in rate_changes(rows, "jpeg", ["psnr", "lpips"])}
    assert "do not overlap" in reasons["webp", "psnr"]
    assert reasons["avif", "psnr"] == "3 points, 4 are needed"
    assert "outside that of the anchor" in reasons["taef2", "psnr"]
    assert reasons["taef2", "lpips"].startswith("lpips was not measured for taef2, jpeg.q0")


def test_rows_with_exact_images_are_left_out_of_curves_of_psnr() -> None:
    """The PSNR of a row is the mean over the images that are not exact, which are not those of its rate."""
    lossless, partly = row("webp.q100", 3.2, 99.0), row("webp.q95", 1.6, 47.0)
    lossless.metrics["psnr"] |= {"value": None, "n": 0}
    partly.metrics["psnr"] |= {"n": IMAGES - 1}
    rows = [*codec("jpeg", 0.1), *codec("webp", 0.05), lossless, partly, row("jxl.q100", 3.0, 99.0)]
    rows[-1].metrics["psnr"] |= {"value": None, "n": 0}
    single, curve = rate_changes(rows, "jpeg", ["psnr"])
    assert (curve.points, curve.percent) == (5, pytest.approx(-50)) and curve.interval is not None
    assert (single.name, single.percent, single.reason) == ("jxl.q100", None, "psnr exists for 0 of 30 images")
    backward, other = rate_changes(rows, "webp", ["psnr"])
    assert (backward.name, backward.percent) == ("jpeg", pytest.approx(100)) and other.percent is None


def test_a_codec_with_one_row_is_that_row() -> None:
    (found,) = rate_changes([*codec("jpeg", 0.1), row("avif.q50", 0.2, 29.0)], "jpeg", ["psnr"])
    assert (found.name, found.percent) == ("avif.q50", pytest.approx(0))


def test_results_without_a_rate_are_refused() -> None:
    with pytest.raises(UsageError, match=r"these results have no bpp \(metric rate\)"):
        rate_changes([make_result(metrics={"psnr": {"value": 30.0}})], "jpeg")


def test_an_anchor_without_a_curve_and_a_number_without_a_direction_are_refused() -> None:
    rows = [*codec("jpeg", 0.1), row("taef2", 0.4, 29.0)]
    with pytest.raises(UsageError, match="the anchor 'webp' is no codec with at least 4 rows here; there are: jpeg"):
        rate_changes(rows, "webp")
    with pytest.raises(UsageError, match="tokens_per_image is no measure of quality"):
        rate_changes(rows, "jpeg", ["tokens_per_image"])


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    for one in (*codec("jpeg", 0.1), *codec("webp", 0.05), row("taef2", 0.4, 60.0, "continuous")):
        one.save(tmp_path)
    command = ["bd-rate", "photos-reconstruct", "--metric", "psnr", "--out", str(tmp_path)]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    assert "-50.0 % (-50.0 to -50.0)  25.00 to 41.00" in run.stdout
    assert "taef2  1     -                         its quality 60 is outside" in run.stdout
    single, curve = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert (curve["name"], curve["interval"]["n"], single["percent"], single["low"]) == ("webp", IMAGES, None, None)
    wrong = CliRunner().invoke(main, ["bd-rate", "photos", "--out", str(tmp_path)])
    assert wrong.exit_code == 2 and "no table 'photos'" in wrong.output
