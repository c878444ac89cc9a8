"""Floors: which row is the floor of which, and where the distances are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import make_result

from tokbench.report.tables import tables
from tokbench.results import leaderboard
from tokbench.results.floors import FLOOR_NOTE, FloorDistance, Floors
from tokbench.results.markdown import markdown
from tokbench.results.result import Result


def row(
    adapter: str, bits: float, psnr: float | None, lpips: float | None = 0.3, *, floor: bool = False, **more: Any
) -> Result:
    values = {"bits_per_image": bits, "bpp": bits / 4096, "psnr": psnr}
    values |= {} if lpips is None else {"lpips": lpips}
    metrics = {name: {"value": value, "low": None, "high": None, "n": 10} for name, value in values.items()}
    facts = {"kind": "discrete"} | ({"floor": True} if floor else {}) | more.pop("facts", {})
    return make_result(adapter, metrics, adapter_facts=facts, **more)


FLOORS = [
    row("kmeans.f16", 160, 17.0, 0.5, floor=True),
    row("kmeans.f8", 640, 19.0, 0.33, floor=True),
    row("pca.f8c4", 4096, 18.8, 0.44, floor=True, facts={"kind": "continuous"}),
]


def distance(one: Result, *others: Result) -> FloorDistance | None:
    return Floors([*FLOORS, *others, one]).distance(one)


@pytest.mark.parametrize(
    ("bits", "floor"),
    [
        (159.0, None), (160.0, "kmeans.f16"), (639.9, "kmeans.f16"), (640.0, "kmeans.f8"),
        (639.9999999, "kmeans.f8"),  # a result stores ten digits
        (4096.0, "kmeans.f8"),
    ],
)  # fmt: skip
def test_the_floor_is_the_best_one_of_at_most_the_bits(bits: float, floor: str | None) -> None:
    found = distance(row("net.a", bits, 18.0))
    assert (found.floor if found else None) == floor


@pytest.mark.parametrize(("bits", "floor"), [(4095.0, None), (4096.0, "pca.f8c4"), (32768.0, "pca.f8c4")])
def test_continuous_rows_have_continuous_floors(bits: float, floor: str | None) -> None:
    found = distance(row("net.a", bits, 18.0, facts={"kind": "continuous"}))
    assert (found.floor if found else None) == floor


def test_the_distance_is_that_of_the_point_estimates() -> None:
    found = distance(row("net.a", 640, 18.5, 0.4))
    assert found == FloorDistance("kmeans.f8", pytest.approx(-0.5), pytest.approx(0.07))
    assert found.below


@pytest.mark.parametrize(
    ("psnr", "lpips", "below"),
    [
        (18.9, 0.34, True), (18.9, 0.32, False), (19.1, 0.34, False), (19.1, 0.32, False),
        (19.0, 0.34, False), (18.9, 0.33, False), (18.9, None, False),
    ],
)  # fmt: skip
def test_below_means_worse_in_both(psnr: float, lpips: float | None, below: bool) -> None:
    found = distance(row("net.a", 640, psnr, lpips))
    assert found is not None
    assert found.below is below
    assert (found.lpips is None) == (lpips is None)


def test_of_equal_floors_the_one_with_fewer_bits_is_named() -> None:
    equal = [row("kmeans.z", 600, 19.0, floor=True), row("kmeans.b", 620, 19.0, floor=True)]
    found = distance(row("net.a", 640, 19.5), *equal)
    assert found is not None
    assert found.floor == "kmeans.z"
    same = [row(name, 600, 19.0, floor=True) for name in ("kmeans.z", "kmeans.b")]
    found = distance(row("net.a", 640, 19.5), *same)
    assert found is not None
    assert found.floor == "kmeans.b"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "other"}, {"data": {"sha256": "e" * 64}}, {"protocol": {"name": "adm", "sha256": "c" * 64}},
        {"task": "perturb"}, {"task": "generate"}, {"facts": {"kind": "codec"}},
    ],
)  # fmt: skip
def test_rows_of_other_images_tasks_and_kinds_have_none(other: dict[str, Any]) -> None:
    assert distance(row("net.a", 640, 18.0, **other)) is None


def test_floors_and_incomplete_rows_have_none() -> None:
    assert all(distance(one) is None for one in FLOORS)
    assert distance(row("net.exact", 640, None)) is None  # the PSNR of exact images has no value
    assert distance(make_result("net.a", {"psnr": {"value": 18.0}}, adapter_facts={"kind": "discrete"})) is None


def test_first_tokens_are_compared_at_their_own_bits() -> None:
    found = distance(row("net.a", 200, 16.5, task="truncate-4"))
    assert found is not None
    assert found.floor == "kmeans.f16"


def test_lpips_of_other_networks_is_not_compared() -> None:
    other = row("net.a", 640, 18.0, 0.4)
    other.provenance["metrics"]["lpips"] = {"network": "vgg"}
    found = distance(other)
    assert found is not None
    assert found.lpips is None
    assert not found.below


def test_rows_without_reconstructions_stand_as_their_tokenizers_do() -> None:
    low, high = row("net.low", 640, 18.0, 0.4), row("net.high", 640, 20.0, 0.2)
    fewer = row("net.low", 640, 25.0, 0.1, data={"sha256": "e" * 64}, num_images=5)
    floors = Floors([*FLOORS, fewer, low, high])
    perturbed = row("net.low", 640, None, None, task="perturb", data={"sha256": "f" * 64}, num_images=5)
    generated = row("gpt.low", 640, None, None, task="generate", facts={"tokenizer": "net.low"})
    better = row("gpt.high", 640, None, None, task="generate", facts={"tokenizer": "net.high"})
    unknown = row("gpt.none", 640, None, None, task="generate", facts={"tokenizer": "net.none"})
    standings = [floors.standing(one) for one in (perturbed, generated, better, unknown)]
    assert [one.below if one else None for one in standings] == [True, True, False, None]
    assert floors.distance(generated) is None
    elsewhere = row("net.low", 640, None, None, task="perturb", dataset="other")
    assert floors.standing(elsewhere) is None


def test_tables_show_the_distances(tmp_path: Path) -> None:
    rows = [*FLOORS, row("net.a", 640, 18.5, 0.4), row("net.b", 80, 15.0), row("net.c", 640, 19.5, None)]
    text = markdown(rows)
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]] for line in text.splitlines()[2:8]
    }
    assert lines["net.a"][-4:-1] == ["kmeans.f8", "-0.50", "+0.0700"]
    assert lines["net.b"][-4:-1] == lines["kmeans.f8"][-4:-1] == ["-", "-", "-"]
    assert lines["net.c"][-4:-1] == ["kmeans.f8", "+0.50", "-"]
    assert FLOOR_NOTE in text
    for one in rows:
        one.save(tmp_path)
    leaderboard.write(tmp_path)
    table = pd.read_csv(next((tmp_path / "leaderboard").glob("*-*.csv"))).set_index("adapter")
    assert table.loc["net.a", "floor"] == "kmeans.f8"
    assert table.loc["net.a", "psnr_minus_floor"] == pytest.approx(-0.5)
    assert table.loc["net.a", "lpips_minus_floor"] == pytest.approx(0.07)
    assert table.loc[["net.b", "pca.f8c4"], "floor"].isna().all()


def test_tables_without_distances_have_no_such_columns() -> None:
    assert "floor" not in markdown(FLOORS)
    assert "floor" not in leaderboard.frame(FLOORS).columns
    alone = [row("net.a", 640, 18.5)]
    assert "floor" not in markdown(alone)
    assert "kmeans.f8" in markdown(alone, floors=Floors([*FLOORS, *alone]))


def test_the_page_shows_the_distances() -> None:
    rows = [*FLOORS, row("net.a", 640, 18.5, 0.4), row("net.b", 80, 15.0)]
    (table,) = tables(rows, {}, lambda *_: None)
    fields = [column.field for column in table.columns]
    place = fields.index("floor")
    assert fields[place - 1 : place + 3] == ["lpips", "floor", "psnr_minus_floor", "lpips_minus_floor"]
    cells = {one.adapter: one.values[place : place + 3] for one in table.rows}
    name, psnr, lpips = cells["net.a"]
    assert name is not None and psnr is not None and lpips is not None
    assert (name.value, name.replacement) == (None, "kmeans.f8")
    assert (psnr.value, lpips.value) == (pytest.approx(-0.5), pytest.approx(0.07))
    assert cells["net.b"] == cells["kmeans.f8"] == [None, None, None]
    assert all(len(one.values) == len(table.columns) for one in table.rows)
    assert table.legend.endswith(FLOOR_NOTE)
    (plain,) = tables(FLOORS, {}, lambda *_: None)
    assert "floor" not in [column.field for column in plain.columns]
