"""The contents of the report: rows, ties, commands, plots, pictures, cards."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT

from tokbench.analysis.compare import difference
from tokbench.cli.evaluate import eval_
from tokbench.data.dataset_folder import describe
from tokbench.errors import UsageError
from tokbench.metric_names import is_single_cell, metric_of
from tokbench.paths import dataset_folders
from tokbench.report import serve
from tokbench.report.charts import _middle, charts, front
from tokbench.report.pictures import pictures
from tokbench.report.site import build, published
from tokbench.report.static_figures import rates
from tokbench.report.tables import command, tables
from tokbench.results.leaderboard import read_all
from tokbench.results.result import Result
from tokbench.tokenizers.decoder_variant import DecoderVariant
from tokbench.tokenizers.registry import adapter_files

COMMITTED = read_all(ROOT / "results")


def test_a_front_is_what_nothing_beats() -> None:
    points = [{"x": x, "y": y} for x, y in ((1, 5), (2, 4), (3, 7), (3, 6), (4, 7), (5, 9))]
    assert [(one["x"], one["y"]) for one in front(points, more=True)] == [(1, 5), (3, 7), (5, 9)]
    assert [(one["x"], one["y"]) for one in front(points, more=False)] == [(1, 5), (2, 4)]
    assert [(one["x"], one["y"]) for one in front(points, more=True, fewer=False)] == [(5, 9)]
    assert [(one["x"], one["y"]) for one in front(points, more=False, fewer=False)] == [(5, 9), (4, 7), (3, 6), (2, 4)]


@pytest.mark.slow
def test_ties_are_within_the_paired_noise() -> None:
    """The best tokenizer or codec, and those whose difference from it `tokbench compare` would not call worse."""
    results = [one for one in COMMITTED if one.group == "samples-reconstruct"]
    (table,) = tables(results, {}, lambda *_: None)
    place = next(at for at, column in enumerate(table.columns) if column.field == "ssim")
    tied = {row.adapter for row in table.rows if (cell := row.values[place]) and cell.tied}
    others = {one.adapter: one for one in results if one.adapter != "identity" and "ssim" in one.metrics}
    best = max(others.values(), key=lambda one: one.metrics["ssim"]["value"])
    assert tied == {
        name
        for name, one in others.items()
        if one is best or difference("ssim", best, one).verdict in ("same", "cannot tell")
    }
    assert "identity" not in tied  # the images themselves
    assert len(tied) < len(others)


def test_equal_rows_tie_and_clearly_worse_ones_do_not() -> None:
    (result,) = [one for one in COMMITTED if one.adapter == "jpeg.q50" and one.dataset == "samples"]

    def moved(name: str, by: np.ndarray | float) -> Result:
        values = result.per_image["ssim"] + by
        metrics = {"ssim": {"value": float(values.mean()), "low": None, "high": None, "n": len(values)}}
        return replace(result, adapter=name, metrics=metrics, per_image=result.per_image | {"ssim": values})

    noise = np.random.default_rng(0).normal(0, 0.05, len(result.per_image["ssim"]))
    rows = [moved("a.best", 0.0), moved("a.near", noise - noise.mean() - 1e-5), moved("a.far", -0.1)]
    (table,) = tables(rows, {}, lambda *_: None)
    assert {row.adapter: row.values[0] and row.values[0].tied for row in table.rows} == {
        "a.best": True, "a.near": True, "a.far": False,
    }  # fmt: skip


def untied(results: list[Result]) -> list[Result]:
    """Without what differences are made of, which takes long."""
    return [replace(one, per_image={}, replicates={}) for one in results]


@pytest.mark.slow
def test_cells_hold_what_results_hold() -> None:
    results = COMMITTED
    by_row = {(one.table, one.row): one for one in results}
    seen = 0
    for table in tables(untied(results), {}, lambda *_: None):
        for row in table.rows:
            for column, cell in zip(table.columns, row.values, strict=True):
                entry = by_row[table.name, row.adapter].metrics.get(column.field)
                if cell is None or entry is None:
                    continue
                seen += 1
                shown = [cell.value, cell.low, cell.high]
                assert shown == [
                    value if value is None else pytest.approx(value, rel=1e-9)
                    for value in (entry["value"], entry.get("low"), entry.get("high"))
                ]
    assert seen > 2000


@pytest.mark.parametrize("result", COMMITTED, ids=lambda one: f"{one.adapter}-{one.group}")
def test_the_command_asks_for_just_that_row(result: Result) -> None:
    """`tokbench eval` parses the command, and would write a result of this file name."""
    words = shlex.split(command(result))
    assert words[:2] == ["tokbench", "eval"]
    asked = eval_.make_context("eval", words[2:]).params
    assert asked["adapters"] == (result.adapter,)
    assert asked["device"] == "cpu"
    metrics = asked["metric_names"].split(",")
    assert all(metric_of(number) in metrics for number in result.metrics if not is_single_cell(number))
    dataset = describe(dataset_folders()[asked["data"]])
    size = f".s{asked['size']}" if asked["size"] not in (None, dataset["size"]) else ""
    if extent := result.provenance["data"].get("extent"):  # of clips, recordings and shapes
        assert asked["size"] in (None, dataset["size"])
        size = f".{extent}"
    limit = f".n{asked['limit']}" if asked["limit"] else ""
    protocol = "" if asked["protocol"] == "tokbench" else f"@{asked['protocol']}"
    task = asked["task"]
    task += f"-{asked['tokens']}" if asked["tokens"] else ""
    task += f"-cfg{asked['cfg']:g}" if asked["cfg"] is not None else ""
    task += f"-{asked['anchor']}" if asked["anchor"] else ""
    task += "".join(f"-{DecoderVariant.parse(text)}" for text in asked["decoders"])
    assert f"{asked['data']}{size}{limit}{protocol}-{task}" == result.group


@pytest.mark.slow
def test_the_command_measures_the_row_again(cli: Any, tmp_path: Path) -> None:
    (result,) = [one for one in COMMITTED if one.adapter == "toy.p8" and one.dataset == "samples"]
    words = shlex.split(command(result))
    words[words.index("--metrics") + 1] = "psnr,codebook"
    again = cli(*words[1:], "--out", tmp_path)
    assert again.exit_code == 0, again.output
    (made,) = read_all(tmp_path)
    assert made.metrics["psnr"]["value"] == pytest.approx(result.metrics["psnr"]["value"], abs=1e-6)


def test_the_command_states_a_folder_and_its_size(cli: Any, tiles: Path, tmp_path: Path) -> None:
    for size in ((), ("--size", 16)):
        out = tmp_path / f"out{len(size)}"
        done = cli("eval", "jpeg.q50", "--data", tiles, "--metrics", "psnr", "--out", out, *size)
        assert done.exit_code == 0, done.output
        (made,) = read_all(out)
        words = shlex.split(command(made))
        assert words[words.index("--data") + 1].startswith("THE FOLDER OF tiles-")
        words[words.index("--data") + 1] = str(tiles)
        again = cli(*words[1:], "--out", tmp_path / f"again{len(size)}")
        assert again.exit_code == 0, again.output
        (other,) = read_all(tmp_path / f"again{len(size)}")
        assert other.metrics == made.metrics


def test_published_numbers_have_sources() -> None:
    found = published(adapter_files())
    assert {one["value"] for one in found["titok"]} >= {2.21, 1.70, 1.71}
    assert all(one["source"].startswith("https://") for own in found.values() for one in own)


@pytest.mark.slow
def test_the_page_is_small_and_asks_for_nothing(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert len(text.encode()) < 3_000_000
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//', text)
    for path in (site / "adapters").glob("*.html"):
        assert "<script" not in path.read_text()


@pytest.mark.slow
def test_a_card_is_text(site: Path) -> None:
    text = (site / "adapters" / "evil.html").read_text()
    assert "&lt;script&gt;" in text
    assert "javascript:" not in re.sub(r"\[here\]\(javascript:[^)]*\)", "", text)
    assert 'href="toy.html"' in text
    assert "a comment" not in text


@pytest.mark.slow
def test_links_of_cards_lead_to_pages_that_are_there(site: Path) -> None:
    for path in (site / "adapters").glob("*.html"):
        for address in re.findall(r'href="([^"]+)"', path.read_text()):
            if not address.startswith(("https://", "http://", "../index.html")):
                assert (path.parent / address).is_file(), (path.name, address)
    assert "± " in (site / "adapters" / "toy.html").read_text().partition("<h2>Results</h2>")[2]


@pytest.mark.slow
def test_pictures_are_made_once(site: Path, page_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = page_data["pictures"]
    assert len(shown["images"]) == 8
    for name in ("identity", "jpeg.q50", "toy.p8"):
        for files in shown["reconstructions"][name].values():
            assert (site / files["file"]).is_file()
            assert (site / files["error"]).is_file()
    assert shown["reconstructions"]["identity"][shown["images"][0]["name"]]["caption"] == "exact"
    monkeypatch.setattr(f"{pictures.__module__}._reconstructed", lambda *_: pytest.fail("made again"))
    results = [one for one in read_all(site.parent / "results") if one.adapter == "jpeg.q50"]
    root = site.parent / "root"
    again = pictures(results, site, root, lambda *_: None)
    assert again.reconstructions["jpeg.q50"] == shown["reconstructions"]["jpeg.q50"]
    assert again.worst["jpeg.q50"] == shown["worst"]["jpeg.q50"]
    (site / "pictures" / "jpeg.q50" / "worst.json").write_text("{")
    with pytest.raises(pytest.fail.Exception, match="made again"):
        pictures(results, site, root, lambda *_: None)


@pytest.mark.slow
def test_the_worst_are_the_worst(site: Path, page_data: dict[str, Any]) -> None:
    found = page_data["pictures"]["worst"]["jpeg.q50"]
    (result,) = [one for one in read_all(site.parent / "results") if one.adapter == "jpeg.q50"]
    assert set(found) == {"PSNR", "SSIM", "LPIPS"}
    for title, values in (("PSNR", sorted(result.per_image["psnr"])), ("LPIPS", sorted(-result.per_image["lpips"]))):
        assert [float(one["caption"]) for one in found[title]] == pytest.approx(np.abs(values[:3]), abs=0.006)


@pytest.mark.slow
def test_the_worst_words_and_faces_with_what_was_read(tmp_path: Path) -> None:
    """The worst of the data sets `text` and `faces`, whose images are embedded."""
    results = [one for one in COMMITTED if one.adapter == "jpeg.q50" and one.dataset in ("text", "faces")]
    assert len(results) == 2
    found = pictures(results, tmp_path, None, lambda *_: None).sheets
    words, faces = sorted(found, key=lambda one: "faces" in one["title"])
    assert all((tmp_path / one["file"]).is_file() for one in found)
    assert all("wrote" in line and "read" in line for line in words["captions"])
    assert all("F-Sim" in line for line in faces["captions"])


@pytest.mark.slow
def test_the_static_pictures_are_those_of_the_results(tmp_path: Path) -> None:
    """Byte for byte, and as they are committed where matplotlib is the one that drew those."""
    for name in ("a.svg", "b.svg"):
        rates(ROOT, tmp_path / name)
    made, committed = (tmp_path / "a.svg").read_bytes(), (ROOT / "docs" / "zoo-rates.svg").read_bytes()
    assert made == (tmp_path / "b.svg").read_bytes()
    version = re.search(rb"Matplotlib v[\d.]+", committed)
    assert version
    if version[0] not in made:
        pytest.skip(f"the committed picture is by {version[0].decode()}")
    assert made == committed, "run tokbench report --readme"


@pytest.mark.slow
def test_what_has_no_measured_speed_is_no_point_of_speed(page_data: dict[str, Any]) -> None:
    (plot,) = [one for one in page_data["plots"] if "token reduction" in one["title"]]
    measured, counted = plot["spec"]["hconcat"]
    assert measured["transform"] == [{"filter": "datum.x !== null"}]
    assert "transform" not in counted
    assert [point["x"] for point in plot["spec"]["datasets"]["points"]] == [1.4, None, 1.9]


@pytest.mark.slow
def test_the_plots_that_committed_results_have_points_for() -> None:
    made = tables(untied(COMMITTED), {}, lambda *_: None)
    found = {(one["title"], one["table"]) for one in charts(made)}
    group = "tiny-imagenet.n2000"
    assert {("PSNR over bits", f"{group}-reconstruct"), ("LPIPS over bits", f"{group}-reconstruct")} <= found
    assert ("gFID-768 of samples over rFID-768 of the tokenizer", f"{group}-generate-cfg1") in found
    assert ("PSNR over decode images/s", "samples-reconstruct") in found
    assert any(title.startswith("Word accuracy") for title, _ in found)
    assert any(title.startswith("Face similarity") for title, _ in found)
    (plot,) = [
        one for one in charts(made) if (one["title"], one["table"]) == ("PSNR over bits", f"{group}-reconstruct")
    ]
    names = {point[0] for point in plot["points"]}
    assert {"vqgan.f8", "jpeg.q50", "resize.2", "one_d_piece.n32, the first 4 of its tokens"} <= names


@pytest.mark.parametrize(("span", "middle"), [("8 to 10", 9), ("below 4", 2), ("from 40", 40), ("all", None)])
def test_a_bin_stands_at_its_middle(span: str, middle: float | None) -> None:
    assert _middle(span) == middle


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _served(results: Path, out: Path, make: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a site that is looked at often."""
    monkeypatch.setattr(serve, "EVERY", 0.2)
    messages: list[str] = []
    until = threading.Event()
    server = threading.Thread(target=serve.serve, args=(results, out, make, 0, messages.append, until), daemon=True)
    try:
        server.start()
        _until(lambda: bool(messages))
        yield messages[0].split()[0]
    finally:
        until.set()
        server.join(20)


@pytest.mark.slow
def test_the_server_tells_of_changes(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out = tmp_path / "results", tmp_path / "site"
    shutil.copytree(site.parent / "results" / "toy.p8", results / "toy.p8")
    with _served(results, out, lambda: build(results, out, None, False), monkeypatch) as address:
        assert address.startswith("http://127.0.0.1:")
        first = urllib.request.urlopen(f"{address}stamp").read()
        assert b"tokbench" in urllib.request.urlopen(address).read()
        shutil.copytree(site.parent / "results" / "jpeg.q50", results / "jpeg.q50")
        _until(lambda: urllib.request.urlopen(f"{address}stamp").read() != first)
        assert b"jpeg.q50" in urllib.request.urlopen(address).read()


def test_what_changes_while_the_site_is_made_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out, held = tmp_path / "results", tmp_path / "site", []
    (results / "x").mkdir(parents=True)
    out.mkdir()

    def make() -> Path:
        held.append(len(list(results.glob("x/*.json"))))
        (results / "x" / "samples-reconstruct.json").write_text("{}")
        return out

    with _served(results, out, make, monkeypatch):
        _until(lambda: len(held) == 2)
    assert held == [0, 1]


def test_a_taken_port_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="choose another with --port"):
        serve.serve(tmp_path, tmp_path, lambda: pytest.fail("made"), taken.getsockname()[1], print)
