"""Results that are dropped onto the page, in a real browser: they join the tables as `tokbench report` would."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT

from tokbench.report.site import build
from tokbench.report.tables import tables
from tokbench.results.result import load

pytestmark = pytest.mark.slow

GROUP = "samples-reconstruct"
BUILT = ("identity", "jpeg.q10", "jpeg.q50", "toy.p8")
DROPPED = ("jpeg.q90", "webp.q10")


def copied(names: Sequence[str], folder: Path) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for path in (ROOT / "results" / name).glob(f"{GROUP}.*"):
            shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`part`: the site of some results. `whole`: the site with the others, which are in the folder `others`, too."""
    made = tmp_path_factory.mktemp("dropped")
    copied(BUILT, made / "few")
    copied([*BUILT, *DROPPED], made / "all")
    copied(DROPPED, made / "others")
    build(made / "few", made / "part", with_pictures=False)
    build(made / "all", made / "whole", with_pictures=False)
    return made


def files_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob(f"{GROUP}.*"))]


def joined(page: Any) -> str:
    """The message about the dropped files, once they are read and ties are marked."""
    page.wait_for_function("document.querySelectorAll('#drop-note li').length > 0")
    page.wait_for_timeout(300)
    return page.inner_text("#drop-note")


def table_of(page: Any) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#rows tr").all()]


def test_a_dropped_folder_joins_as_in_a_new_report(open_site: Any, sites: Path) -> None:
    """Every cell with its interval, the ties, ranks and order; one of the rows is the best in several columns."""
    page = open_site(sites / "part", f"#table={GROUP}")
    before = table_of(page)
    page.set_input_files("#choose-folder", sites / "others")
    assert f"2 results joined 1 table: {GROUP}" in joined(page)
    whole = open_site(sites / "whole", f"#table={GROUP}")
    page.wait_for_function(
        f"document.querySelectorAll('#rows td.tied').length === {whole.locator('#rows td.tied').count()}"
    )
    assert table_of(page) == table_of(whole) != before
    assert page.locator("tr.dropped").count() == 2
    assert "row=jpeg.q90" in page.url


def test_dropped_rows_are_compared_with_those_of_the_page(open_site: Any, sites: Path) -> None:
    page = open_site(sites / "part", f"#table={GROUP}")
    page.set_input_files("#choose-files", files_of(sites / "others" / "jpeg.q90"))
    joined(page)
    address = f"#table={GROUP}&a=toy.p8&b=jpeg.q90"
    whole = open_site(sites / "whole", address)
    page.evaluate(f"location.hash = {json.dumps(address)}")
    found = []
    for one in (page, whole):
        one.wait_for_function("document.getElementById('compare-note').textContent.includes('jpeg.q90 minus toy.p8')")
        found.append([row.locator("th, td").all_inner_texts() for row in one.locator("#differences tbody tr").all()])
    assert found[0] == found[1]
    assert len(found[0]) > 5


def test_dropped_rows_are_points_of_plots(open_site: Any, sites: Path) -> None:
    page = open_site(sites / "part", f"#table={GROUP}&plot=0")
    page.wait_for_selector("#figure svg path")
    count = page.locator("#points tbody tr").count()
    page.set_input_files("#choose-files", files_of(sites / "others" / "jpeg.q90"))
    joined(page)
    page.wait_for_function("document.querySelector('#figure .role-legend-label')?.parentNode.textContent.length > 0")
    assert page.locator("#points tbody tr").count() == count + 1
    page.wait_for_function("document.getElementById('figure').textContent.includes('dropped results')")


def test_files_are_dropped_with_the_pointer(open_site: Any, sites: Path) -> None:
    page = open_site(sites / "part")
    text = (sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text()
    page.evaluate(
        """text => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([text], "result.json"));
          dispatchEvent(new DragEvent("dragenter", { dataTransfer }));
          if (!document.body.classList.contains("dropping")) throw new Error("unmarked");
          dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }""",
        text,
    )
    assert "No .npz file lies beside the result of jpeg.q90" in joined(page)
    assert page.locator("tr[data-adapter='jpeg.q90']").count() == 1
    assert page.evaluate("document.body.className") == ""


def test_a_result_of_the_same_name_stays_apart(open_site: Any, sites: Path) -> None:
    page = open_site(sites / "part", f"#table={GROUP}")
    for _ in range(2):  # the second time replaces the first
        page.set_input_files("#choose-files", files_of(sites / "few" / "jpeg.q50"))
        joined(page)
    names = page.locator("#rows tbody th").all_inner_texts()
    assert [name for name in names if name.startswith("jpeg.q50")] == ["jpeg.q50", "jpeg.q50 (dropped)"]
    cells = [page.locator(f"tr[data-adapter='{name}'] td").all_inner_texts()[2:] for name in names if "q50" in name]
    assert cells[0] == cells[1]
    page.locator("tr.dropped td button").first.click()
    assert "From the dropped file samples-reconstruct.json" in page.inner_text("#details")


def test_results_of_other_images_have_a_table_of_their_own(open_site: Any, sites: Path, tmp_path: Path) -> None:
    facts = json.loads((sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text())
    facts["provenance"]["data"]["sha256"] = "f" * 64
    facts["metrics"]["my_own"] = {"value": 3.25, "low": None, "high": None, "n": 108}
    facts["metrics"]["lpips"]["value"] = 0.125
    facts["provenance"]["metrics"]["my_own"] = {}
    (tmp_path / "x.json").write_text(json.dumps(facts))
    page = open_site(sites / "part")
    page.set_input_files("#choose-files", str(tmp_path / "x.json"))
    joined(page)
    name = f"{GROUP}.ffffffff.{facts['provenance']['protocol']['sha256'][:8]}"
    assert page.input_value("#table") == name
    assert len(table_of(page)) == 2
    assert "fewer than two rows" in page.inner_text("#compare-note")
    assert page.inner_text("#plot-note").startswith("This table has no plot")
    page.click("#chooser summary")
    page.locator("#columns label", has_text="my_own").click()
    assert "3.2500" in table_of(page)[1]
    assert any(text.startswith("0.1250") for text in table_of(page)[1])


def test_variants_of_a_decoder_are_rows_of_one_table(open_site: Any, sites: Path, tmp_path: Path) -> None:
    facts = json.loads((sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text())
    for task in ("decode", "decode-bf16", "decode-tiles256"):
        (tmp_path / f"{task}.json").write_text(json.dumps(facts | {"task": task}))
    page = open_site(sites / "part")
    page.set_input_files("#choose-files", [str(path) for path in sorted(tmp_path.iterdir())])
    assert "3 results joined 1 table: samples-decode." in joined(page)
    assert [row[0] for row in table_of(page)[1:]] == ["jpeg.q90", "jpeg.q90 (bf16)", "jpeg.q90 (tiles256)"]
    assert page.locator("#task option").all_inner_texts().count("decode") == 1


def test_other_settings_have_a_column_of_their_own(open_site: Any, sites: Path, tmp_path: Path) -> None:
    facts = json.loads((sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text())
    facts["provenance"]["metrics"]["lpips"]["sha256"] = "0" * 64
    (tmp_path / "x.json").write_text(json.dumps(facts))
    page = open_site(sites / "part", f"#table={GROUP}")
    page.set_input_files("#choose-files", str(tmp_path / "x.json"))
    joined(page)
    titles = table_of(page)[0]
    (own,) = [i for i, title in enumerate(titles) if title.startswith("LPIPS [00000000]")]
    (usual,) = [i for i, title in enumerate(titles) if title.startswith("LPIPS ↓")]
    rows = {row[0]: row for row in table_of(page)[1:]}
    assert rows["jpeg.q90"][usual] == "–" != rows["jpeg.q90"][own]
    assert rows["jpeg.q50"][own] == "–" != rows["jpeg.q50"][usual]


def test_columns_of_several_settings_can_be_chosen(open_site: Any, sites: Path, tmp_path: Path) -> None:
    """The name of such a column contains a comma, which also separates columns in the address."""
    facts = json.loads((sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text())
    facts["provenance"]["metrics"]["lpips"] |= {"sha256": "0" * 64, "layer": "3"}
    (tmp_path / "x.json").write_text(json.dumps(facts))
    page = open_site(sites / "part", f"#table={GROUP}")
    page.set_input_files("#choose-files", str(tmp_path / "x.json"))
    joined(page)
    before = table_of(page)[0]
    assert any(title.startswith("LPIPS [3, 00000000]") for title in before)
    page.click("#chooser summary")
    page.locator("#columns label", has_text="PSNR").first.click()
    assert table_of(page)[0] == [title for title in before if not title.startswith("PSNR")] != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "it was written by a newer version of tokbench"),
        ({"error": "boom"}, "the adapter failed: boom"),
        ({"metrics": {"psnr": {"value": "30"}}}, "the metric 'psnr' is damaged"),
        ({"provenance": {"data": {}}}, "'provenance.data' is incomplete"),
        ({"adapter": 3}, "it is no result of tokbench eval"),
        ({"warnings": "none"}, "'warnings' is damaged"),
        ({"warnings": [None]}, "'warnings' is damaged"),
        (None, "it is no JSON"),
    ],
)
def test_damaged_files_are_named(
    open_site: Any, sites: Path, tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    facts = json.loads((sites / "others" / "jpeg.q90" / f"{GROUP}.json").read_text())
    text = '{"adapter": NaN' if change is None else json.dumps(facts | change)
    (tmp_path / "odd.json").write_text(text)
    page = open_site(sites / "part")
    before = table_of(page)
    page.set_input_files("#choose-files", str(tmp_path / "odd.json"))
    assert f"odd.json was not read: {message}" in joined(page)
    assert table_of(page) == before


def unusable(name: str, path: Path) -> bytes:
    """The bytes of an `.npz` file with one fault."""
    with np.load(path) as stored:
        arrays = dict(stored)
    stream = io.BytesIO()
    if name == "text":
        np.savez(stream, **arrays | {"psnr": np.array(["30"] * len(arrays["index"]))})
    if name == "replicates":
        np.savez(stream, **arrays | {"replicates.fd_efficientnet": np.array(["1", "2"])})
    if name == "empty texts":  # two billion of them in a header of 118 bytes
        header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (2000000000,), }".ljust(117) + b"\n"
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("name.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return stream.getvalue() or b"PK\x05\x06" + b"\xff" * 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "'psnr' must contain numbers"),
        ("replicates", "'replicates.fd_efficientnet' must contain numbers"),
        ("empty texts", "'name' has an unknown format"),
        ("end", "its .npz file is damaged"),
    ],
)
def test_unusable_arrays_are_named(open_site: Any, sites: Path, tmp_path: Path, name: str, message: str) -> None:
    path = sites / "others" / "jpeg.q90" / f"{GROUP}.json"
    shutil.copy(path, tmp_path / "x.json")
    (tmp_path / "x.npz").write_bytes(unusable(name, path.with_suffix(".npz")))
    page = open_site(sites / "part")
    page.set_default_timeout(10_000)
    page.set_input_files("#choose-files", [str(tmp_path / "x.json"), str(tmp_path / "x.npz")])
    assert f"x.json was not read: {message}" in joined(page)
    assert page.locator("tr.dropped").count() == 0


def test_a_damaged_npz_and_a_hostile_name(open_site: Any, sites: Path, tmp_path: Path) -> None:
    path = sites / "others" / "jpeg.q90" / f"{GROUP}.json"
    hostile = "evil.<img src=x onerror=window.harmed=1>"
    (tmp_path / "a.json").write_text(json.dumps(json.loads(path.read_text()) | {"adapter": hostile}))
    (tmp_path / "b.json").write_bytes(path.read_bytes())
    (tmp_path / "b.npz").write_bytes(path.with_suffix(".npz").read_bytes()[:-300])
    (tmp_path / "notes.txt").write_text("x")
    page = open_site(sites / "part")
    page.set_input_files("#choose-files", [str(one) for one in sorted(tmp_path.iterdir())])
    note = joined(page)
    assert "b.json was not read" in note
    assert "1 result joined 1 table" in note
    assert page.locator("tr.dropped th").inner_text() == hostile
    page.set_input_files("#choose-files", str(tmp_path / "notes.txt"))
    page.wait_for_function("document.getElementById('drop-note').textContent.includes('No result was among')")


def test_sound_gets_a_table_of_its_own(open_site: Any, sites: Path, tmp_path: Path, cli: Any) -> None:
    """The name of the table, the nouns and the size are those of a new report."""
    cli("eval", "pcm.b8", "--data", "tones", "--limit", 2, "--metrics", "sound_rate", "--out", tmp_path / "results")
    (path,) = (tmp_path / "results").rglob("*.json")
    (table,) = tables([load(path)], {}, lambda done, total: None)
    page = open_site(sites / "part")
    page.set_input_files("#choose-files", str(path))
    assert f"1 result joined 1 table: {table.name}" in joined(page)
    page.select_option("#table", table.name)
    legend = page.inner_text("#legend")
    assert "Dropped results: 2 recordings of 8,000 samples at 8,000 Hz" in legend
    page.select_option("#size", table.size, timeout=10_000)
    assert "interval over recordings" in legend
    assert "2 recordings of 8,000 samples at 8,000 Hz" in table.legend
