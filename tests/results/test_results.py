"""Result files, leaderboards and bootstrap intervals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import make_result

from tokbench.analysis.compare import same_settings
from tokbench.cli import main
from tokbench.errors import ResultError
from tokbench.results import leaderboard, markdown
from tokbench.results.result import load
from tokbench.stats.bootstrap import bootstrap, mean


def test_round_trip(tmp_path: Path) -> None:
    made = make_result(per_image={"index": np.arange(2), "psnr": np.array([1.0, np.nan])})
    path, replaced = made.save(tmp_path)
    assert (path, replaced) == (tmp_path / "a" / "set-reconstruct.json", "")
    again = load(path)
    assert again.to_dict() == made.to_dict()
    np.testing.assert_array_equal(again.per_image["psnr"], made.per_image["psnr"])
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("data", "protocol", "expected"),
    [
        ({}, {}, "set-reconstruct"),
        ({"width": 512, "height": 512}, {}, "set.s512-reconstruct"),
        ({"limit": 2000}, {}, "set.n2000-reconstruct"),
        ({"width": 512, "height": 512, "limit": 5}, {"name": "adm"}, "set.s512.n5@adm-reconstruct"),
        ({"own_size": None, "width": 96, "height": 64}, {}, "set.s96x64-reconstruct"),
    ],
)
def test_key(data: dict, protocol: dict, expected: str) -> None:
    assert make_result(data=data, protocol=protocol).group == expected


def test_later_metrics_join_and_settle_what_was_skipped(tmp_path: Path) -> None:
    make_result(metrics={"psnr": {"value": 1.0}}, skipped={"lpips": "no weights", "rfid": "no weights"}).save(tmp_path)
    path, replaced = make_result(metrics={"lpips": {"value": 0.1}}).save(tmp_path)
    assert not replaced
    joined = load(path)
    assert set(joined.metrics) == {"psnr", "lpips"}
    assert joined.skipped == {"rfid": "no weights"}


@pytest.mark.parametrize(
    "change", [{"data": {"sha256": "e" * 64}}, {"adapter_facts": {"parameters_sha256": "1"}}, {"seed": 1}]
)
def test_what_does_not_belong_together_replaces(tmp_path: Path, change: dict) -> None:
    make_result(metrics={"psnr": {"value": 1.0}}).save(tmp_path)
    path, replaced = make_result(metrics={"ssim": {"value": 1.0}}, **change).save(tmp_path)
    assert replaced
    assert set(load(path).metrics) == {"ssim"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not a readable result"),
        ("[]", "a JSON object"),
        ('{"adapter": 1}', "adapter must be a plain file name, but it is 1"),
    ],
)
def test_broken_results_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ResultError, match=f"x.json.*{complaint}"):
        load(tmp_path / "x.json")


def test_fields_of_the_wrong_type_are_refused(tmp_path: Path) -> None:
    path, _ = make_result().save(tmp_path)
    facts = json.loads(path.read_text())
    for change in (
        {"metrics": {"psnr": {"value": "30"}}},
        {"metrics": {"psnr": 30}},
        {"provenance": {}},
        {"num_images": "5"},
    ):
        path.write_text(json.dumps(facts | change))
        with pytest.raises(ResultError, match=str(path)):
            load(path)


def test_a_pickled_npz_is_refused(tmp_path: Path) -> None:
    path, _ = make_result().save(tmp_path)
    np.savez(path.with_suffix(".npz"), evil=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ResultError, match="npz is not readable"):
        load(path)
    path.with_suffix(".npz").write_bytes(b"half of a zip file")
    with pytest.raises(ResultError, match="npz is not readable"):
        load(path)


def test_unlike_rows_never_share_a_table() -> None:
    tables = leaderboard.groups(
        [make_result("a"), make_result("b", data={"sha256": "e" * 64}), make_result("c", data={"limit": 5})]
    )
    assert sorted(len(rows) for rows in tables.values()) == [1, 1, 1]
    assert len(tables) == 3


def test_sizes_stand_in_their_order() -> None:
    made = make_result("a")
    for span in ("large", "small", "medium"):
        made.metrics[f"t_acc.{span}"] = {"value": 0.5, "n": 3}
    for span in ("10 to 12", "below 4", "4 to 5", "from 40"):
        made.metrics[f"t_acc_curve.{span}"] = {"value": 0.5, "n": 3}
    found = [name for name in leaderboard.frame([made]) if name.startswith("t_acc")]
    spans = ("below 4", "4 to 5", "10 to 12", "from 40")
    assert found == ["t_acc.small", "t_acc.medium", "t_acc.large", *(f"t_acc_curve.{span}" for span in spans)]
    assert "T-ACC (small)" in markdown.markdown([made])
    assert "curve" not in markdown.markdown([made])


def test_unlike_numbers_never_share_a_column() -> None:
    a, b = make_result("a"), make_result("b")
    for row, device in ((a, "slow CPU"), (b, "fast GPU")):
        row.metrics["encode_images_per_second"] = {"value": 1.0}
        row.provenance["metrics"] = {"encode_images_per_second": {"device": device}}
    columns = leaderboard.frame([a, b]).columns
    assert "encode_images_per_second[slow CPU]" in columns
    assert "encode_images_per_second[fast GPU]" in columns
    assert "encode_images_per_second" not in columns
    text = markdown.markdown([a, b])
    assert "encode images/s [slow CPU]" in text


def test_what_a_measurement_found_out_splits_no_column() -> None:
    rows = [make_result("a"), make_result("b")]
    for row, size in zip(rows, ("256", "512"), strict=True):
        row.metrics["saturated_samples_per_second"] = {"value": 1.0}
        made = {"device": "CPU", "batch size for samples": size}
        row.provenance["metrics"] = {"saturated_samples_per_second": made}
    assert "saturated_samples_per_second" in leaderboard.frame(rows).columns
    assert same_settings("saturated_samples_per_second", *rows)
    rows[1].provenance["metrics"]["saturated_samples_per_second"]["device"] = "GPU"
    assert not same_settings("saturated_samples_per_second", *rows)


def test_rows_are_sorted_by_bits_then_name() -> None:
    rows = [
        make_result("b"),
        make_result("a"),
        make_result("c", metrics={"bpp": {"value": 0.5}}),
        make_result("d", metrics={}),
    ]
    assert list(leaderboard.frame(rows)["adapter"]) == ["c", "a", "b", "d"]


def test_markdown_shows_intervals_and_exact_images() -> None:
    text = markdown.markdown(
        [make_result(), make_result("i", metrics={"psnr": {"value": None}, "exact": {"value": 10}})]
    )
    assert "30.00 ± 1.00" in text
    assert [cell.strip() for cell in text.splitlines()[3].split("|")[1:-1]] == ["i", "-", "exact", "10"]
    assert "PSNR ↑" in text


def test_stale_tables_are_deleted_after_the_others_are_written(tmp_path: Path, monkeypatch) -> None:
    make_result().save(tmp_path)
    stale = tmp_path / "leaderboard" / "old-reconstruct.csv"
    stale.parent.mkdir()
    stale.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr("tokbench.pruning.leaderboards.write", interrupt)
        assert CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)]).exit_code != 0
    assert stale.read_text() == "old"
    assert CliRunner().invoke(main, ["leaderboard", "--out", str(tmp_path)]).exit_code == 0
    assert {path.name for path in stale.parent.iterdir()} == {"all.csv", "set-reconstruct.csv", "set-reconstruct.md"}


def interrupt(out: Path) -> list[Path]:
    raise KeyboardInterrupt


def test_mean_ignores_nan_and_order() -> None:
    values = np.array([1e16, 1.0, -1e16, np.nan])
    assert mean(values) == mean(values[::-1]) == pytest.approx(1 / 3)
    assert math.isnan(mean(np.array([np.nan])))


@pytest.mark.slow
def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    """For 300 sets of 50 draws from N(0, 1), about 95 % of the intervals must contain 0 (binomial sd 1.3 %)."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = bootstrap(rng.normal(size=50), seed=1)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_bootstrap_of_equal_and_of_no_values() -> None:
    same = bootstrap(np.full(7, 0.1), 0)
    assert same.low == pytest.approx(0.1)
    assert same.high == pytest.approx(0.1)
    assert same.low <= 0.1 <= same.high
    assert bootstrap(np.array([np.nan]), 0).n == 0
