"""Numbers from few images say so, in JSON, in tables and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokbench.results.result import load
from tokbench.results.warning import FEW, few_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty noisy photos of 32 x 32 px."""
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    for at in range(30):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(tmp_path / "set" / f"{at:02d}.png")
    return tmp_path / "set"


def evaluated(cli, folder: Path, count: int, *arguments: object) -> tuple[str, str, Path]:
    out = folder.parent / f"out{count}"
    done = cli("eval", "jpeg.q50", "--data", folder, "--limit", count, "--out", out, *arguments)
    assert done.exit_code == 0, done.output
    (path,) = out.glob("*/*.json")
    return done.stdout, done.stderr, path


@pytest.mark.slow
def test_two_images_are_noted_in_table_json_and_terminal(cli, folder: Path) -> None:
    table, stderr, path = evaluated(cli, folder, 2, "--metrics", "psnr,fd_efficientnet")
    (warning,) = json.loads(path.read_text())["warnings"]
    assert warning["kind"] == "few_images"
    assert (warning["count"], warning["text"].partition(":")[0]) == (2, "from 2 images")
    assert "from 2 images" in table
    assert "from 2 images" in stderr


def test_one_image_has_numbers_without_intervals(cli, folder: Path) -> None:
    table, _, path = evaluated(cli, folder, 1, "--metrics", "psnr,ssim")
    facts = json.loads(path.read_text())
    assert all(facts["metrics"][number]["low"] is None for number in ("psnr", "ssim"))
    assert "from 1 image: a single image has no interval" in table
    assert "±" not in table.partition("Warnings")[0].partition("| adapter")[2]


def test_enough_images_say_nothing(cli, folder: Path) -> None:
    table, _, path = evaluated(cli, folder, FEW, "--metrics", "psnr")
    assert "warnings" not in json.loads(path.read_text())
    assert "from " not in table


def test_metrics_that_join_a_result_keep_one_warning(cli, folder: Path) -> None:
    evaluated(cli, folder, 3, "--metrics", "psnr")
    _, _, path = evaluated(cli, folder, 3, "--metrics", "ssim")
    joined = load(path)
    assert {"psnr", "ssim"} <= set(joined.metrics)
    assert [one.text.partition(":")[0] for one in joined.warnings] == ["from 3 images"]


def test_a_number_of_which_few_images_have_a_value_is_named() -> None:
    """An example is PSNR where nearly all images are exact. Bins of words are listed with their numbers of words."""
    metrics = {"psnr": {"value": 40.0, "n": 3}, "ssim": {"value": 0.9, "n": 100}, "t_acc.small": {"value": 0.5, "n": 2}}
    made = few_images(100, metrics)
    assert made is not None
    assert made.text == "psnr is from 3 images of 100"
    assert few_images(100, {"psnr": {"value": None, "n": 0}}) is None


def test_few_references_of_many_samples_are_named() -> None:
    made = few_images(5000, {"gfid": {"value": 1.0, "n": 5000}}, references=2)
    assert made is not None
    assert made.text == "compared with 2 reference images"
    assert few_images(5000, {}, references=500) is None
