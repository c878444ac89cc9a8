"""Rate curves: points, areas and their tables, from result files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import image_columns, make_result

from tokbench.cli import main
from tokbench.results.rate_curves import Curve, curves, weights
from tokbench.results.result import Result


def result(adapter: str, count: int, psnr: float, bits: float) -> Result:
    metrics = {
        "psnr": {"value": psnr, "low": None, "high": None, "n": 20},
        "bits_per_image": {"value": bits, "low": None, "high": None, "n": 20},
    }
    return make_result(
        adapter, metrics, dataset="photos", task=f"truncate-{count}", num_images=20,
        per_image=image_columns(20, psnr=psnr + np.linspace(-1, 1, 20)),
        adapter_facts={"source": adapter, "kind": "discrete", "range": [-1.0, 1.0]},
        data={"width": 64, "height": 64, "own_size": 64, "available": 20, "enlarged": 0},
    )  # fmt: skip


def test_a_straight_line_over_log_bits_has_its_middle_as_area() -> None:
    points = [(1, 8.0, 10.0), (2, 16.0, 12.0), (8, 64.0, 16.0)]
    assert weights(points).sum() == pytest.approx(1)
    assert Curve("x", "psnr", points).area == pytest.approx(13)


def test_a_constant_is_its_own_area_wherever_its_points_lie() -> None:
    assert Curve("x", "psnr", [(1, 3.0, 7.0), (3, 9.0, 7.0), (4, 100.0, 7.0)]).area == pytest.approx(7)
    assert Curve("x", "psnr", [(1, 3.0, 7.0)]).area is None


def test_curves_are_sorted_by_tokens_and_carry_intervals_over_images() -> None:
    results = [(count, result("mini.a", count, 10.0 + count, 9.0 * count)) for count in (4, 1, 2)]
    (found,) = curves(results)
    assert [tokens for tokens, *_ in found.points] == [1, 2, 4]
    assert found.interval is not None
    assert found.interval.low < found.area < found.interval.high


def test_the_command_writes_them(tmp_path: Path) -> None:
    for adapter, gain in (("mini.a", 1.0), ("mini.b", 2.0)):
        for count in (1, 2, 4):
            result(adapter, count, 10 + gain * count, 9.0 * count).save(tmp_path)
    run = CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    text = (tmp_path / "leaderboard" / "photos-rates.md").read_text()
    assert "| mini.b  |   12.00 |    14.00 |    18.00 | 9 to 36 |" in text
    assert len((tmp_path / "leaderboard" / "photos-rates.csv").read_text().splitlines()) == 7
    for path in tmp_path.glob("mini.*/*"):
        path.unlink()
    result("mini.a", 1, 10, 9).save(tmp_path)
    CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)])
    assert len((tmp_path / "leaderboard" / "photos-rates.csv").read_text().splitlines()) == 2
