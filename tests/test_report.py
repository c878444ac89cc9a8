"""The report: what is in it, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokbench.leaderboard import read_all
from tokbench.pruning.facts import Reduced
from tokbench.report.charts import front
from tokbench.report.pictures import pictures
from tokbench.report.site import build, published
from tokbench.report.tables import command, tables

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ("file:", "data:")
SHOWN = ("identity", "jpeg.q10", "jpeg.q50", "jpeg.q90", "taef2", "toy.p8")
HOSTILE = "evil.<img src=x onerror=window.harmed=1>"
CARD = """# Evil

<script>window.harmed=1</script>

[here](javascript:window.harmed=1) [there](../toy/README.md)

<!-- a comment -->
"""


def reduced(method: str, paces: dict[float, tuple[float, bool]], training: str = "none") -> Reduced:
    """Facts of a method: by keep, how much faster it is, and whether that is a measured speed-up."""
    data = {"sha256": "d" * 64, "limit": 100, "side": 64}
    made = {"device": "CPU", "processor": "x", "kernel": "sdpa", "round_to": 1, "formula": "f", "weights": "w"}
    about = {"model": "vit.d12", "method": method, "title": method, "training": training, "dataset": "tiny"}
    rows = {}
    for keep, (faster, measured) in paces.items():
        share = {"value": keep, "low": keep - 0.1, "high": keep + 0.1}
        speedup = share | {"value": faster, "measured": measured, "ms": 10.0, "repetitions": 30}
        pace = {"batch": 32, "speedup": speedup, "best_kernel": "sdpa", "selector_ms": 1.0}
        rows[f"{keep:g}"] = {
            "title": method, "top1": share, "top5": share, "top1_gap": share, "agreement": share, "gflops": keep,
            "whole_gflops": 1.0, "weights": "w", "pace": [pace],
        }  # fmt: skip
    return Reduced(about | {"num_images": 100, "short": False, "provenance": made | {"data": data}}, rows)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few committed results, and of one whose adapter has a name and a card that mean harm."""
    made = tmp_path_factory.mktemp("report")
    for name in SHOWN:
        (made / "results" / name).mkdir(parents=True)
        for path in (ROOT / "results" / name).glob("samples-reconstruct.*"):
            shutil.copy(path, made / "results" / name)
    facts = json.loads((ROOT / "results" / "toy.p8" / "samples-reconstruct.json").read_text())
    facts["adapter"] = HOSTILE
    facts["provenance"]["adapter"]["source"] = "</script><script>window.harmed=1</script>"
    (made / "results" / "evil").mkdir()
    (made / "results" / "evil" / "samples-reconstruct.json").write_text(json.dumps(facts))
    reduced("tome", {0.7: (1.4, True), 0.5: (1.01, False)}).save(made / "results")
    reduced("sit_slim", {0.5: (1.9, True)}, "distilled").save(made / "results")
    for family in ("toy", "taef2", "titok"):
        shutil.copytree(ROOT / "adapters" / family, made / "root" / "adapters" / family)
    (made / "root" / "adapters" / "evil").mkdir()
    (made / "root" / "adapters" / "evil" / "adapter.py").write_text("")
    (made / "root" / "adapters" / "evil" / "x.toml").write_text('summary = "x"\n')
    (made / "root" / "adapters" / "evil" / "README.md").write_text(CARD)
    shutil.copytree(ROOT / "datasets" / "samples", made / "root" / "datasets" / "samples")
    build(made / "results", made / "site", made / "root")
    return made / "site"


def data_of(page: Path) -> str:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_a_front_is_what_nothing_beats() -> None:
    points = [{"x": x, "y": y} for x, y in ((1, 5), (2, 4), (3, 7), (3, 6), (4, 7), (5, 9))]
    assert [(one["x"], one["y"]) for one in front(points, more=True)] == [(1, 5), (3, 7), (5, 9)]
    assert [(one["x"], one["y"]) for one in front(points, more=False)] == [(1, 5), (2, 4)]


def test_ties_are_within_the_paired_noise() -> None:
    from tokbench.compare import difference

    results = [one for one in read_all(ROOT / "results") if one.group == "samples-reconstruct"]
    (table,) = tables(results, {}, lambda *_: None)
    place = next(at for at, column in enumerate(table["columns"]) if column["field"] == "ssim")
    tied = {row["adapter"] for row in table["rows"] if row["values"][place] and row["values"][place][3]}
    by_name = {one.adapter: one for one in results if one.metrics.get("ssim", {}).get("value") is not None}
    best = max(by_name.values(), key=lambda one: one.metrics["ssim"]["value"])
    assert best.adapter in tied
    for name, one in by_name.items():
        worse = one is not best and difference("ssim", best, one).verdict == "worse"
        assert (name in tied) == (not worse), name


def test_the_command_measures_the_row_again(cli: Any, tmp_path: Path) -> None:
    (result,) = [one for one in read_all(ROOT / "results") if one.adapter == "toy.p8" and one.dataset == "samples"]
    words = command(result).split()
    assert words[:3] == ["tokbench", "eval", "toy.p8"]
    shown = " ".join(words)
    assert "--data samples" in shown
    metrics = words[words.index("--metrics") + 1].split(",")
    assert {"psnr", "ssim", "codebook"} <= set(metrics)
    again = cli(*words[1:-2], "--metrics", "psnr,codebook", "--out", tmp_path)
    assert again.exit_code == 0, again.output
    (made,) = read_all(tmp_path)
    assert made.metrics["psnr"]["value"] == pytest.approx(result.metrics["psnr"]["value"], abs=1e-6)


def test_published_numbers_have_sources() -> None:
    from tokbench.plugins import adapter_files

    found = published(adapter_files())
    assert {one["value"] for one in found["titok"]} >= {2.21, 1.70, 1.71}
    assert all(one["source"].startswith("https://") for own in found.values() for one in own)


def test_the_page_is_small_and_asks_for_nothing(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert len(text.encode()) < 3_000_000
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//', text)
    for path in (site / "adapters").glob("*.html"):
        assert "<script" not in path.read_text()


def test_a_card_is_text(site: Path) -> None:
    text = (site / "adapters" / "evil.html").read_text()
    assert "&lt;script&gt;" in text
    assert "javascript:" not in re.sub(r"\[here\]\(javascript:[^)]*\)", "", text)
    assert 'href="toy.html"' in text
    assert "a comment" not in text


def test_pictures_are_made_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(data_of(site / "index.html"))["pictures"]
    assert len(told["images"]) == 8
    for name in ("identity", "jpeg.q50", "toy.p8"):
        for files in told["made"][name].values():
            assert (site / files["file"]).is_file()
            assert (site / files["error"]).is_file()
    assert told["made"]["identity"][told["images"][0]["name"]]["told"] == "exact"
    assert {"PSNR", "SSIM"} <= set(told["worst"]["jpeg.q50"])
    monkeypatch.setattr(f"{pictures.__module__}._through", lambda *_: pytest.fail("made again"))
    results = [one for one in read_all(site.parent / "results") if one.adapter == "jpeg.q50"]
    again = pictures(results, site, None, lambda *_: None)
    assert again.made["jpeg.q50"] == told["made"]["jpeg.q50"]
    assert again.worst["jpeg.q50"] == told["worst"]["jpeg.q50"]
    (site / "pictures" / "jpeg.q50" / "worst.json").write_text("{")
    with pytest.raises(pytest.fail.Exception, match="made again"):
        pictures(results, site, None, lambda *_: None)


def test_the_worst_are_the_worst(site: Path) -> None:
    told = json.loads(data_of(site / "index.html"))["pictures"]["worst"]["jpeg.q50"]
    (result,) = [one for one in read_all(site.parent / "results") if one.adapter == "jpeg.q50"]
    assert [float(one["told"]) for one in told["PSNR"]] == pytest.approx(
        sorted(result.per_image["psnr"])[:3], abs=0.006
    )
    assert [float(one["told"]) for one in told["LPIPS"]] == pytest.approx(
        sorted(result.per_image["lpips"])[:-4:-1], abs=1e-4
    )


def test_the_static_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    from tokbench.report.readme import rates

    for name in ("a.svg", "b.svg"):
        rates(ROOT, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_server_tells_of_changes(site: Path, tmp_path: Path) -> None:
    from tokbench.report import serve

    results, said, until = tmp_path / "results", [], threading.Event()
    shutil.copytree(site.parent / "results" / "toy.p8", results / "toy.p8")
    serve.EVERY, before = 0.2, serve.EVERY
    server = threading.Thread(
        target=serve.serve, args=(results, tmp_path / "site", None, False, 0, said.append, until), daemon=True
    )
    try:
        server.start()
        deadline = time.monotonic() + 60
        while not said:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = said[0].split()[0]
        assert address.startswith("http://127.0.0.1:")
        first = urllib.request.urlopen(f"{address}stamp").read()
        assert b"tokbench" in urllib.request.urlopen(address).read()
        shutil.copytree(site.parent / "results" / "jpeg.q50", results / "jpeg.q50")
        while urllib.request.urlopen(f"{address}stamp").read() == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert b"jpeg.q50" in urllib.request.urlopen(address).read()
    finally:
        until.set()
        server.join(20)
        serve.EVERY = before


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as started:
        own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            chromium = started.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except sync.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}; .venv/bin/playwright install chromium")
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, site: Path) -> Iterator[Any]:
    """Opens the page at an address; what it says or asks for that it should not fails the test."""
    faults: list[str] = []
    contexts = []

    def open_at(address: str = "", width: int = 1200, dark: bool = False, page: str = "index.html") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda told: faults.append(told.text) if told.type in ("error", "warning") else None)
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on(
            "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url)
        )
        shown.goto(f"{(site / page).as_uri()}{address}")
        return shown

    yield open_at
    for context in contexts:
        for shown in context.pages:
            assert shown.evaluate("window.harmed") is None
        context.close()
    assert not faults


def column(page: Any, place: int) -> list[str]:
    return page.locator(f"#rows tbody tr > :nth-child({place})").all_inner_texts()


def test_it_shows_rows_with_intervals_and_ties(opened: Any) -> None:
    page = opened()
    names = column(page, 1)
    assert set(names) == {*SHOWN, HOSTILE}
    assert page.locator("#rows td.tied").count() > 0
    assert any("±" in text for text in page.locator("#rows td").all_inner_texts())
    assert page.evaluate("performance.getEntriesByType('paint')[0].startTime") < 1000


def test_a_hundred_rows_are_painted_within_a_second(browser: Any, tmp_path: Path) -> None:
    facts = json.loads((ROOT / "results" / "toy.p8" / "samples-reconstruct.json").read_text())
    for number in range(100):
        folder = tmp_path / "results" / f"toy.x{number:03d}"
        folder.mkdir(parents=True)
        (folder / "samples-reconstruct.json").write_text(json.dumps(facts | {"adapter": folder.name}))
    page = browser.new_page()
    page.goto(build(tmp_path / "results", tmp_path / "site", with_pictures=False).as_uri())
    assert page.locator("#rows tbody tr").count() == 100
    assert page.evaluate("performance.getEntriesByType('paint')[0].startTime") < 1000
    page.close()


def test_sorting_is_in_the_address(opened: Any) -> None:
    page = opened()
    button = page.locator("#rows thead button", has_text="PSNR").first
    button.click()
    place = 1 + page.locator("#rows thead th").all_inner_texts().index(
        next(text for text in page.locator("#rows thead th").all_inner_texts() if text.startswith("PSNR"))
    )
    values = [
        float(re.sub(r"[≈,]", "", text).split("±")[0])
        for text in column(page, place)
        if text[:1].isdigit() or "≈" in text
    ]
    assert values == sorted(values, reverse=True)
    assert "sort=psnr%3Adown" in page.url
    assert page.locator('th[aria-sort="descending"]').count() == 1
    again = opened("#" + page.url.partition("#")[2])
    assert column(again, 1) == column(page, 1)
    page.locator("#rows thead button", has_text="PSNR").first.click()
    assert column(page, place)[0] != column(again, place)[0]


def test_filters(opened: Any) -> None:
    page = opened()
    page.fill("#family", "jpeg")
    assert set(column(page, 1)) == {"jpeg.q10", "jpeg.q50", "jpeg.q90"}
    assert "3 of 7 rows" in page.inner_text("#count")
    page.fill("#family", "")
    page.select_option("#kind", "continuous")
    assert "taef2" in column(page, 1)
    assert "jpeg.q50" not in column(page, 1)
    page.select_option("#task", "reconstruct")
    assert "task=reconstruct" in page.url


def test_columns_are_the_readers_choice(opened: Any) -> None:
    page = opened()
    page.click("#chooser summary")
    before = page.locator("#rows thead th").count()
    page.locator("#columns label", has_text="SSIM").first.click()
    assert page.locator("#rows thead th").count() == before - 1
    assert "cols=" in page.url


def test_reduced_tokens_are_rows_with_measured_speed(opened: Any) -> None:
    page = opened("#task=prune")
    assert column(page, 1) == ["tome 0.7", "tome 0.5", "sit_slim 0.5"]
    row = page.locator("tr[data-adapter='tome 0.5']")
    assert "none measured" in row.inner_text()
    assert "1.40" in page.locator("tr[data-adapter='tome 0.7']").inner_text()
    row.locator("td button").first.click()
    assert "tokbench prune tome --model vit.d12 --data tiny --keep 0.5 --limit 100" in page.inner_text("#made")
    page.keyboard.press("Escape")
    page.select_option("#kind", "trained")
    assert column(page, 1) == ["sit_slim 0.5"]


def test_what_has_no_measured_speed_is_no_point_of_speed(site: Path) -> None:
    plots = json.loads(data_of(site / "index.html"))["plots"]
    (plot,) = [one for one in plots if "reduced tokens" in one["title"]]
    measured, counted = plot["spec"]["hconcat"]
    assert measured["transform"] == [{"filter": "datum.x !== null"}]
    assert "transform" not in counted
    assert [point["x"] for point in plot["spec"]["data"]["values"]] == [1.4, None, 1.9]


def test_a_row_has_an_address(opened: Any) -> None:
    page = opened("#table=samples-reconstruct&row=taef2")
    assert page.locator("tr.marked th").inner_text() == "taef2"


def test_every_number_says_how_it_was_made(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    page.locator("tr[data-adapter='jpeg.q50'] td button").first.click()
    told = page.inner_text("#made")
    for part in ("tokbench eval jpeg.q50 --data samples", "protocol", "tokbench (", "95 % interval", "torch"):
        assert part in told
    page.keyboard.press("Escape")
    assert not page.locator("#made").is_visible()


def test_published_numbers_stand_apart(opened: Any) -> None:
    page = opened()
    assert page.locator("td.other").count() == 0
    page.check("#published")
    assert "published=1" in page.url  # none of these rows has any; the column is for those that have


def test_plots_answer_the_pointer(opened: Any) -> None:
    page = opened("#plot=0")
    page.wait_for_selector("#figure svg path")
    point = page.locator("#figure .mark-symbol.role-mark path").first
    point.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "adapter" in page.inner_text("#vg-tooltip-element")
    point.click(force=True)
    page.wait_for_function("location.hash.includes('row=')")
    assert page.locator("tr.marked").count() == 1


def test_the_slider_divides_two_pictures(opened: Any) -> None:
    page = opened("#left=original&right=jpeg.q50")
    widths = []
    for value in ("20", "80"):
        page.locator("#slider").fill(value)
        widths.append(page.evaluate("document.getElementById('over').getBoundingClientRect().width"))
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.1)
    page.wait_for_function("document.getElementById('under').naturalWidth > 0")
    page.check("#error")
    assert page.get_attribute("#under", "src").endswith(".error.webp")
    page.select_option("#zoom", "4")
    assert page.get_attribute("#under", "width") == str(4 * 256)
    assert page.locator("#worst figure").count() >= 1


def test_keys_are_enough(opened: Any) -> None:
    page = opened()
    page.focus("#rows thead button")
    page.keyboard.press("Enter")
    assert "sort=adapter" in page.url
    for control in page.locator("select, input, button").all():
        named = control.evaluate("e => e.labels?.length || e.getAttribute('aria-label') || e.textContent || e.title")
        assert named


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_readable_narrow_and_dark(opened: Any, width: int, dark: bool) -> None:
    page = opened(width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (back, text)]
    assert (light[0] < light[1]) == dark
    assert abs(light[0] - light[1]) > 0.6


def test_a_hostile_name_is_a_name(opened: Any) -> None:
    page = opened()
    row = page.locator("#rows tbody tr", has_text="evil")
    assert row.locator("th").inner_text() == HOSTILE
    row.locator("td button").first.click()
    assert "</script>" in page.inner_text("#made")
    card = opened(page="adapters/evil.html")
    assert "window.harmed=1" in card.inner_text("main")
