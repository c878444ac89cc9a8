"""CSV files: the columns that identify a row, and the long table of all numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tokbench.results.leaderboard import delete_stale, read_all, write
from tokbench.results.tidy import tidy


@pytest.fixture
def out(root: Path, tmp_path: Path) -> Path:
    """A results folder with committed results of two datasets."""
    for name, pattern in (
        ("jpeg.q50", "samples-rec*"),
        ("toy.p8", "samples-rec*"),
        ("vqgan.f8", "tiny-imagenet*-rec*"),
    ):
        (tmp_path / name).mkdir()
        for path in (root / "results" / name).glob(pattern):
            shutil.copy(path, tmp_path / name)
    return tmp_path


def test_one_row_per_number_with_unit_direction_and_identity(out: Path) -> None:
    delete_stale(out, write(out))
    found = {(result.adapter, result.group): result for result in read_all(out)}
    table = pd.read_csv(out / "leaderboard" / "all.csv", keep_default_na=False, na_values={"value": "", "low": ""})
    assert len(table) == sum(len(result.metrics) for result in found.values())
    psnr = table.query("adapter == 'jpeg.q50' and metric == 'psnr'").iloc[0]
    result = found["jpeg.q50", "samples-reconstruct"]
    assert psnr["value"] == pytest.approx(result.metrics["psnr"]["value"])
    assert psnr["low"] < psnr["value"] < float(psnr["high"])
    expected = {"data": "samples", "task": "reconstruct", "unit": "dB", "direction": "higher", "n": 108, "width": 256,
                "protocol": "tokbench", "device": "cpu", "weights_sha256": ""}  # fmt: skip
    assert {key: psnr[key] for key in expected} == expected
    assert result.provenance["data"]["sha256"].startswith(psnr["pixels_sha256"]) and len(psnr["pixels_sha256"]) == 8
    assert "lpips-alex" in table.query("metric == 'lpips'").iloc[0]["settings"]


def test_pandas_pivots_the_long_table(out: Path) -> None:
    table = tidy(read_all(out)).query("data == 'samples'")
    wide = table.pivot_table(values="value", index="adapter", columns="metric")
    assert set(wide.index) == {"jpeg.q50", "toy.p8"} and {"psnr", "ssim", "bpp"} <= set(wide.columns)


def test_every_row_of_a_csv_file_says_what_it_was_measured_on(out: Path) -> None:
    write(out)
    (path,) = (out / "leaderboard").glob("tiny-imagenet*-reconstruct.csv")
    row = pd.read_csv(path).iloc[0]
    (result,) = [result for result in read_all(out) if result.adapter == "vqgan.f8"]
    assert (row["data"], row["task"], row["num_images"]) == ("tiny-imagenet", "reconstruct", result.num_images)
    assert (row["width"], row["height"], row["protocol"]) == (64, 64, "tokbench")
    assert result.provenance["adapter"]["parameters_sha256"].startswith(row["weights_sha256"])


def test_all_csv_survives_the_deletion_of_stale_tables(out: Path) -> None:
    stale = out / "leaderboard" / "old-reconstruct.csv"
    stale.parent.mkdir()
    stale.touch()
    delete_stale(out, write(out))
    assert not stale.exists() and (out / "leaderboard" / "all.csv").is_file()
