"""The table of tokenizers whose tokens carry meaning, from result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from factories import make_result

from tokbench.cli import main

FACTS: dict[str, Any] = {
    "data": {"width": 64, "height": 64, "own_size": 64, "available": 20, "enlarged": 0}, "dataset": "photos",
    "num_images": 20,
}  # fmt: skip


def entry(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 20}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, bits, probe in (("few.n80", 640.0, 0.25), ("many.p8", 320.0, 0.5)):
        metrics = {"bits_per_image": entry(bits), "bpp": entry(bits / 4096), "psnr": entry(20.0, 19.5, 20.5)}
        metrics["probe_linear"] = entry(probe, probe - 0.02, probe + 0.02)
        make_result(name, metrics, **FACTS).save(tmp_path)
    make_result("plain.p8", {"psnr": entry(30.0)}, **FACTS).save(tmp_path)
    for name, tokenizer, gfid in (
        ("gpt.few_n80", "few.n80", 2.5), ("gpt.few_n80_wide", "few.n80", 9.0), ("flow.many_p8", "other.p8", 9.0),
    ):  # fmt: skip
        facts = {"kind": "discrete", "tokenizer": tokenizer}
        make_result(name, {"gfid_768": entry(gfid)}, task="generate", adapter_facts=facts, **FACTS).save(tmp_path)
    done = CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    return tmp_path / "leaderboard"


def test_rows_are_tokenizers_with_a_probe_by_their_bits(results: Path) -> None:
    table = pd.read_csv(results / "photos-semantics.csv")
    assert list(table["adapter"]) == ["many.p8", "few.n80"]
    assert list(table["probe_linear"]) == [0.5, 0.25]
    assert list(table["probe_linear_high"]) == [0.52, 0.27]


def test_the_prior_is_that_of_the_tokenizers_name_and_no_variant_of_it(results: Path) -> None:
    table = pd.read_csv(results / "photos-semantics.csv").set_index("adapter")
    assert table["gfid_768[gpt]"]["few.n80"] == 2.5
    assert pd.isna(table["gfid_768[gpt]"]["many.p8"])
    assert "gfid_768[flow]" not in table.columns, "a prior of another tokenizer"


def test_the_markdown_table_has_the_same_cells(results: Path) -> None:
    text = (results / "photos-semantics.md").read_text()
    assert "linear probe ↑" in text
    assert "gFID-768 (gpt) ↓" in text
    row = next(line for line in text.splitlines() if line.startswith("| few.n80"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["640", "20.00 ± 0.50", "0.2500 ± 0.0200", "2.5000"]


def test_without_a_probe_there_is_no_table(tmp_path: Path) -> None:
    make_result("plain.p8", {"psnr": entry(30.0)}, **FACTS).save(tmp_path)
    assert CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)]).exit_code == 0
    assert not list((tmp_path / "leaderboard").glob("*-semantics.*"))
