"""The page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from checkout import ROOT

from tokbench.report.site import build

pytestmark = pytest.mark.slow


def column(page: Any, place: int) -> list[str]:
    return page.locator(f"#rows tbody tr > :nth-child({place})").all_inner_texts()


def first_paint(page: Any) -> float:
    """Return the ms to the first paint: the least of three loads, since other work on the machine only adds to it."""
    times = []
    for _ in range(3):
        page.reload()
        times.append(page.evaluate("performance.getEntriesByType('paint')[0].startTime"))
    return min(times)


def test_it_shows_rows_with_intervals_and_ties(opened: Any, shown: tuple[str, ...]) -> None:
    page = opened()
    names = column(page, 1)
    assert set(names) == set(shown)
    assert page.locator("#rows td.tied").count() > 0
    assert any("±" in text for text in page.locator("#rows td").all_inner_texts())
    assert first_paint(page) < 1000


def test_a_hundred_rows_are_painted_within_a_second(browser: Any, tmp_path: Path) -> None:
    facts = json.loads((ROOT / "results" / "toy.p8" / "samples-reconstruct.json").read_text())
    for number in range(100):
        folder = tmp_path / "results" / f"toy.x{number:03d}"
        folder.mkdir(parents=True)
        (folder / "samples-reconstruct.json").write_text(json.dumps(facts | {"adapter": folder.name}))
    page = browser.new_page()
    page.goto(build(tmp_path / "results", tmp_path / "site", with_pictures=False).as_uri())
    assert page.locator("#rows tbody tr").count() == 100
    assert first_paint(page) < 1000
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
    assert "3 of 8 rows" in page.inner_text("#count")
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
    assert "tokbench prune tome --model vit.d12 --data tiny --keep 0.5 --limit 100" in page.inner_text("#details")
    page.keyboard.press("Escape")
    page.select_option("#kind", "trained")
    assert column(page, 1) == ["sit_slim 0.5"]


def test_a_row_has_an_address(opened: Any) -> None:
    page = opened("#table=samples-reconstruct&row=taef2")
    assert page.locator("tr.marked th").inner_text() == "taef2"
    page.evaluate("scrollTo(0, 400)")
    page.select_option("#plot", "1")  # whatever changes elsewhere, the page stays where it is
    assert page.evaluate("scrollY") == 400


def test_links_keep_what_is_shown(opened: Any) -> None:
    page = opened("#table=samples-reconstruct&cols=psnr,ssim&sort=psnr:down")
    page.locator("nav a", has_text="Plots").click()
    assert "cols=psnr" in page.url
    assert page.locator("#rows thead th").all_inner_texts()[:3] == ["adapter", "rank", "coverage"]
    assert page.locator("#rows thead th").count() == 5


@pytest.mark.parametrize(
    "address",
    ["#plot=-1&sheet=-1", "#plot=1.5&zoom=-2", "#plot=99&zoom=9&worst=nobody&by=nothing", "#table=nowhere&row=nobody",
     "#cols=nothing,at,all&sort=missing:down", "#left=nobody&right=nobody&image=none", "#fits=1&shown=2&columns=3&=="],
)  # fmt: skip
def test_odd_addresses_show_something(opened: Any, address: str) -> None:
    page = opened(address)
    assert page.locator("#rows tbody tr").count() > 0
    assert page.locator("#rows thead th").count() > 1
    assert int(page.get_attribute("#under", "width")) in (256, 512, 1024)
    page.wait_for_selector("#figure svg")


def test_choices_that_no_table_fits_say_so(opened: Any) -> None:
    page = opened("#dataset=samples&task=prune")
    assert "No table matches" in page.inner_text("#legend")
    assert page.locator("#rows tbody tr").count() == 0
    page.select_option("#task", "")
    assert page.locator("#rows tbody tr").count() > 0
    page.select_option("#kind", "1D")
    assert column(page, 1) == ["titok.n16"]
    page = opened("#kind=unheard")  # an active filter is always to be seen
    assert page.input_value("#kind") == "unheard"


def test_what_is_missing_is_not_exact(opened: Any) -> None:
    page = opened("#table=samples-reconstruct&cols=f_sim,psnr,bits_per_image")
    row = page.locator("tr[data-adapter='titok.n16'] td")
    assert row.nth(2).inner_text() == "–"
    assert page.locator("tr[data-adapter='identity'] td").nth(3).inner_text() == "exact"
    bits = page.locator("tr[data-adapter='titok.n16'] td", has_text="2,097,152")
    bits.locator("button").click()
    assert "7 (in 108 images)" in page.inner_text("#details")


def test_every_number_says_how_it_was_made(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    page.locator("tr[data-adapter='jpeg.q50'] td button").first.click()
    text = page.inner_text("#details")
    for part in ("tokbench eval jpeg.q50 --data samples", "protocol", "tokbench (", "95 % interval", "torch"):
        assert part in text
    page.keyboard.press("Escape")
    assert not page.locator("#details").is_visible()


def test_published_numbers_stand_apart(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    assert page.locator(".other").count() == 0
    page.check("#published")
    cell = page.locator("tr[data-adapter='titok.n16'] td.other")
    assert "rFID 2.21, TiTok-L, 32 tokens, ImageNet 256" in cell.inner_text()
    assert cell.locator("a").first.get_attribute("href") == "https://arxiv.org/abs/2406.07550"
    assert page.locator("tr[data-adapter='toy.p8'] td.other").inner_text() == ""
    look = "e => getComputedStyle(e).backgroundColor"
    apart, plain = (page.locator(at).first.evaluate(look) for at in ("td.other", "tr[data-adapter='toy.p8'] th"))
    assert apart != plain


def test_plots_answer_the_pointer(opened: Any) -> None:
    page = opened("#plot=0&cols=psnr&family=jpeg")
    page.wait_for_selector("#figure svg path")
    point = page.locator("#figure .mark-symbol.role-mark path").first
    point.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    text = page.inner_text("#vg-tooltip-element")
    assert "row" in text
    assert "interval" in text
    point.click(force=True)
    page.wait_for_function("location.hash.includes('row=')")
    assert page.locator("tr.marked").count() == 1
    assert "cols=psnr" in page.url  # what the reader had chosen stays, but for filters that might hide the row
    assert page.input_value("#family") == ""


def test_every_plot_is_drawn(opened: Any, page_data: dict[str, Any]) -> None:
    """Every plot is drawn without a message on the console."""
    assert len(page_data["plots"]) >= 3
    page = opened()
    for number, plot in enumerate(page_data["plots"]):
        page.select_option("#plot", str(number))
        page.wait_for_function(f"document.querySelectorAll('#points tbody tr').length === {len(plot['points'])}")
        page.wait_for_selector("#figure .mark-symbol path")


def test_points_are_a_table_too(opened: Any) -> None:
    page = opened("#plot=0")
    page.click("summary:has-text('The points as a table')")
    button = page.locator("#points tbody button").first
    name = button.inner_text()
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.marked th").inner_text() == name.split(",")[0]


def test_it_prints_whole_tables(opened: Any) -> None:
    page = opened("#table=samples-reconstruct", width=1000)
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible()
    assert page.evaluate("document.getElementById('rows').scrollWidth <= document.body.clientWidth")


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
    page = opened("#table=samples-reconstruct")
    page.focus("#rows thead button")
    page.keyboard.press("Enter")
    assert "sort=adapter" in page.url
    page.locator("tr[data-adapter='jpeg.q50'] td button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    page.focus("#slider")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#slider") == "51"
    for control in page.locator("select, input").all():
        assert control.evaluate("e => e.labels?.length || e.getAttribute('aria-label')")
    for button in page.locator("button").all():
        assert button.evaluate("e => e.textContent.trim() || e.getAttribute('aria-label')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 400, 1400])
@pytest.mark.parametrize("name", ["index.html", "adapters/titok.html", "adapters/toy.html"])
def test_it_is_readable_narrow_and_dark(opened: Any, width: int, dark: bool, name: str) -> None:
    page = opened(width=width, dark=dark, page=name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in (back, text)]
    assert (light[0] < light[1]) == dark
    assert abs(light[0] - light[1]) > 0.6


def test_a_hostile_name_is_a_name(opened: Any, shown: tuple[str, ...]) -> None:
    page = opened()
    row = page.locator("#rows tbody tr", has_text="evil")
    assert row.locator("th").inner_text() == shown[-1]
    row.locator("td button").first.click()
    assert "</script>" in page.inner_text("#details")
    card = opened(page="adapters/evil.html")
    assert "window.harmed=1" in card.inner_text("main")


def test_the_caption_names_the_order(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    assert page.inner_text("#order") == "Sorted by bits per pixel, lowest first."
    page.locator("#rows thead th", has_text="SSIM").first.click()
    assert page.inner_text("#order") == "Sorted by SSIM, highest first."
    page.locator("#rows thead th", has_text="adapter").click()
    assert page.inner_text("#order") == "Sorted by adapter, A to Z."
    assert "order" in page.get_attribute("#rows", "aria-describedby").split()
    assert "Sorted" not in page.inner_text("#legend")
    assert opened("#task=prune").inner_text("#order") == "Sorted by method and keep ratio."


def test_the_mark_of_the_order_is_no_arrow_of_direction(opened: Any) -> None:
    page = opened("#table=samples-reconstruct&sort=lpips:up")
    head = page.locator("#rows thead th[aria-sort]")
    assert head.get_attribute("aria-sort") == "ascending"
    assert head.locator(".better").inner_text().strip() == "↓"  # lower is better
    assert head.locator(".sorted").inner_text() == "1→9"
    head.click()
    assert page.locator("#rows thead .sorted").all_inner_texts() == ["9→1"]
    assert page.locator("#rows thead th[aria-sort] .better").inner_text().strip() == "↓"


def test_the_whole_header_cell_sorts(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    head = page.locator("#rows thead th[data-name='psnr']")
    box = head.bounding_box()
    for x, y in ((3, 3), (box["width"] - 3, box["height"] - 3), (3, box["height"] - 3)):
        before = page.url
        head.click(position={"x": x, "y": y})
        assert page.url != before
        assert "sort=psnr" in page.url
    page.locator("#rows thead th[data-name='ssim'] button").focus()
    page.keyboard.press("Space")
    assert page.inner_text("#order") == "Sorted by SSIM, highest first."
    assert page.evaluate("document.activeElement.closest('th').dataset.name") == "ssim"


def test_ranks_are_over_the_columns_that_all_shown_rows_have(opened: Any, page_data: dict[str, Any]) -> None:
    (table,) = [one for one in page_data["tables"] if one["name"] == "samples-reconstruct"]
    chosen = ["bits_per_image", "bpp", "psnr", "ssim", "codebook_usage"]
    places = [next(i for i, one in enumerate(table["columns"]) if one["field"] == field) for field in chosen]
    rows = [row for row in table["rows"] if row["adapter"] != "identity"]
    assert any(row["values"][places[-1]] is None for row in rows)  # codecs have no codebook
    page = opened(f"#table=samples-reconstruct&cols={','.join(chosen)}")
    text = page.inner_text("#ranking")
    assert "bits/image, bpp, PSNR, SSIM (" in text
    ranks = []
    for place in places[:-1]:
        sign = -1 if table["columns"][place]["more"] else 1
        ranks.append(pd.Series([sign * row["values"][place][0] for row in rows]).rank())
    mean = sum(ranks) / len(ranks)
    expected = {row["adapter"]: str(1 + int((mean < one - 1e-9).sum())) for row, one in zip(rows, mean, strict=True)}
    shown = dict(zip(column(page, 1), column(page, 2), strict=True))
    assert shown == expected | {"identity": "–"}
    covered = dict(zip(column(page, 1), column(page, 3), strict=True))
    assert (covered["jpeg.q50"], covered["toy.p8"]) == ("4/5", "5/5")
    page.fill("#family", "jpeg")  # whose bits per image and per pixel are multiples of each other
    assert "bits/image, PSNR, SSIM (" in page.inner_text("#ranking")
    page.fill("#family", "toy")
    assert "no rank" in page.inner_text("#ranking")


def test_another_table_changes_the_plot(opened: Any, page_data: dict[str, Any]) -> None:
    page = opened("#table=samples-reconstruct")
    page.wait_for_selector("#figure svg")
    assert "samples-reconstruct" in page.locator("#plot option:checked").inner_text()
    (pruned,) = [one["name"] for one in page_data["tables"] if one["task"] == "prune"]
    page.select_option("#table", pruned)
    page.wait_for_function(f"document.querySelector('#plot option:checked').textContent.includes({json.dumps(pruned)})")
    page.wait_for_selector("#points tbody tr:has-text('tome')", state="attached")


def test_plots_of_fewer_than_three_rows_say_so(open_site: Any, site: Path, tmp_path: Path) -> None:
    for name in ("jpeg.q10", "jpeg.q50", "identity"):
        shutil.copytree(site.parent / "results" / name, tmp_path / "results" / name)
    build(tmp_path / "results", tmp_path / "site", with_pictures=False)
    page = open_site(tmp_path / "site")
    page.wait_for_selector("#figure svg")
    assert page.inner_text("#plot-note").startswith("Only 2 rows have both values; a plot needs 3 rows")
    shutil.rmtree(tmp_path / "results" / "jpeg.q10")
    shutil.rmtree(tmp_path / "results" / "jpeg.q50")
    build(tmp_path / "results", tmp_path / "site", with_pictures=False)
    assert open_site(tmp_path / "site").inner_text("#plot-note") == "There are no results to plot."


def test_points_are_labelled_and_coloured_by_family(opened: Any) -> None:
    page = opened("#table=samples-reconstruct")
    page.wait_for_selector("#figure svg path")
    legend = page.locator("#figure .role-legend-label text").all_text_contents()
    assert {"jpeg", "taef2", "toy"} <= set(legend)
    points = page.locator("#figure .mark-symbol.role-mark path")
    assert len({point.get_attribute("fill") for point in points.all()}) == len(set(legend))
    visible = "[...document.querySelectorAll('#figure .mark-text.role-mark text[opacity=\"1\"]')]"
    assert page.evaluate(f"{visible}.length") == 0
    points.first.hover(force=True)
    page.wait_for_function(f"{visible}.length > 0")
    label = page.evaluate(f"{visible}[0].textContent")
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert label.rstrip("…") in page.inner_text("#vg-tooltip-element")


def test_no_pictures_shows_those_that_are_there(
    open_site: Any, site: Path, page_data: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(site, tmp_path / "site")
    shutil.rmtree(tmp_path / "site" / "pictures" / "toy.p8")
    build(site.parent / "results", tmp_path / "site", site.parent / "root", with_pictures=False)
    page = open_site(tmp_path / "site", "#right=jpeg.q10&worst=jpeg.q50")
    page.locator("#pictures").scroll_into_view_if_needed()
    page.wait_for_function("document.getElementById('under').naturalWidth > 0")
    assert "earlier tokbench report" in page.inner_text("#pictures")
    kept = [name for name in page_data["pictures"]["adapters"] if name != "toy.p8"]
    assert page.locator("#right option").all_text_contents() == ["original", *kept]
    assert page.locator("#worst img").count() > 0
    assert page.locator("#image option").count() == 8


VIEWS = ["#tables", "#comparison", "#plots", "#pictures", "#adapters"]


@pytest.mark.parametrize("width", [400, 1400])
def test_every_view_fits_the_window(opened: Any, width: int) -> None:
    """No control is cut off or covers another one, and no text of a heading or button is clipped."""
    page = opened("#table=samples-reconstruct&sort=psnr:down&published=1&a=jpeg.q10&b=jpeg.q50", width=width)
    page.wait_for_selector("#figure svg")
    page.wait_for_selector("#differences tbody tr")
    for view in VIEWS:
        page.locator(view).scroll_into_view_if_needed()
        boxes = page.locator(f"{view} .controls > *:visible").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"
        )
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0
            assert right <= width
            for other in boxes[:i]:
                assert right <= other[0] + 1 or other[2] <= left + 1 or bottom <= other[1] + 1 or other[3] <= top + 1
        clipped = page.locator(f"{view} button:visible, {view} h2, {view} h3:visible, {view} p:visible").evaluate_all(
            "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent)"
        )
        assert clipped == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
