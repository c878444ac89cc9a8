"""The order, ranks, plots and pictures of the page in a real browser, and every view at two widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pointer import hover

from tokbench.report.site import build

pytestmark = pytest.mark.slow


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
    texts = [row.locator("th, td").all_inner_texts() for row in page.locator("#rows tbody tr").all()]
    assert {row[0]: row[1] for row in texts} == expected | {"identity": "–"}
    covered = {row[0]: row[2] for row in texts}
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
    assert {"jpeg", "resize", "toy"} <= set(legend)
    points = page.locator("#figure .mark-symbol.role-mark path")
    assert len({point.get_attribute("fill") for point in points.all()}) == len(set(legend))
    visible = "[...document.querySelectorAll('#figure .mark-text.role-mark text[opacity=\"1\"]')]"
    assert page.evaluate(f"{visible}.length") == 0
    hover(page, points.first, f"{visible}.length > 0")
    label = page.evaluate(f"{visible}[0].textContent")
    tooltip = "document.querySelector('#vg-tooltip-element')?.textContent"
    hover(page, points.first, f"name => {tooltip}?.includes(name)", label.rstrip("…"))


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


def test_recordings_with_the_worst_values_can_be_played(open_site: Any, tmp_path: Path, cli: Any) -> None:
    cli("eval", "pcm.b4", "--data", "tones", "--limit", 2, "--metrics", "si_sdr", "--out", tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site")
    page = open_site(tmp_path / "site")
    page.locator("#pictures").scroll_into_view_if_needed()
    loading = "await new Promise(done => { audio.onloadedmetadata = done; audio.load(); });"
    loaded = f"async audio => {{ {loading} return audio.duration; }}"
    assert [player.evaluate(loaded) for player in page.locator("#worst audio").all()] == [1.0] * 4
    assert page.locator("#worst audio").first.get_attribute("aria-label").endswith("original")


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
