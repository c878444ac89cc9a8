"""Quality, time and memory against size: which results are rows, and their units."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_result

from tokbench.cli import main
from tokbench.results.result import Result


def result(adapter: str, side: int, protocol: str = "tokbench", num_images: int = 4, **rules: str) -> Result:
    numbers = {"psnr": 30 + side / 256, "decode_images_per_second": 8.0, "peak_memory_mib": side / 2}
    return make_result(
        adapter, {name: {"value": value, "low": None, "high": None} for name, value in numbers.items()},
        dataset="photos", num_images=num_images, protocol={"name": protocol, "sha256": "b" * 64, **rules},
        data={"width": side, "height": side, "own_size": 512, "limit": num_images},
    )  # fmt: skip


def test_adapters_at_several_sizes_are_rows(tmp_path: Path) -> None:
    for adapter, side in (("a", 512), ("a", 256), ("b", 256)):
        result(adapter, side).save(tmp_path)
    result("b", 512, "flux-vae").save(tmp_path)  # another protocol is another measurement
    result("a", 256, num_images=2).save(tmp_path)  # fewer images of the same size
    result("c", 256).save(tmp_path)
    result("c", 512, num_images=2).save(tmp_path)  # other sizes have other images
    result("d", 256).save(tmp_path)
    result("d", 512, degrade="noise:10.0").save(tmp_path)  # another measurement
    run = CliRunner().invoke(main, ["sizes", "photos", "--out", str(tmp_path), "--json"])
    assert run.exit_code == 0, run.output
    rows = json.loads(run.stdout)
    assert [(row["row"], row["width"], row["num_images"]) for row in rows] == [("a", 256, 4), ("a", 512, 4)]
    assert [row["numbers"]["psnr"] for row in rows] == [31.0, 32.0]
    assert rows[1]["decode_ms"] == pytest.approx(125 / (0.512 * 0.512)) and rows[1]["encode_ms"] is None
    table = CliRunner().invoke(main, ["sizes", "photos", "--out", str(tmp_path)]).stdout
    assert "512x512" in table and "lpips" not in table.lower()


def test_a_dataset_of_one_size_is_refused(tmp_path: Path) -> None:
    result("a", 512).save(tmp_path)
    run = CliRunner().invoke(main, ["sizes", "photos", "--out", str(tmp_path)])
    assert run.exit_code == 2 and "no adapter with reconstructions of photos at two sizes" in run.output
