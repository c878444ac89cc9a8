"""The compare view in a real browser, against `tokbench.analysis.compare`."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT
from factories import image_columns, make_result

from tokbench.analysis.compare import Difference, differences
from tokbench.analysis.render import gap_text, number_text
from tokbench.report.differing import SHOWN, differing_images
from tokbench.report.site import build
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import read_all
from tokbench.results.result import Result, load
from tokbench.stats.bootstrap import mean
from tokbench.stats.split_half import Replicates
from tokbench.stats.spread import Distinct, Jackknife, Splits, Spread

pytestmark = pytest.mark.slow

COMMITTED = ("jpeg.q50", "kmeans.f8", "fsq.f8")
GROUP = "tiny-imagenet.n2000-reconstruct"


def drawn(adapter: str, dataset: str, count: int, seed: int, **columns: np.ndarray) -> Result:
    """A result with values of all kinds: means, derived numbers, and every kind of replicates."""
    rng = np.random.default_rng(seed)
    values = {
        "psnr": rng.normal(30 + seed / 50, 2, count), "ssim": rng.uniform(0.7, 0.9, count),
        "lpips": rng.gamma(2, 0.05, count), "bpp": rng.uniform(0.5, 1.5, count) * (1 + seed / 100),
    } | columns  # fmt: skip
    halves = rng.normal(5, 0.3, (40, 2)) + np.array([0, 0.4])
    spreads: dict[str, Spread] = {
        "rfid": Replicates(halves[:, 0], halves[:, 1]), "kid": Replicates(rng.normal(1, 0.1, 40)),
        "perplexity": Jackknife(rng.normal(500, 0.5, count)), "inception_score": Splits(rng.normal(9, 0.2, 10)),
        "codebook_usage": Distinct(
            rng.normal(0.9, 1e-4, count), lost=rng.uniform(0, 1e-4, count), gained=rng.uniform(0, 1e-4, count)
        ),
    }  # fmt: skip
    plain = {"rfid": 5.0, "kid": 1.0, "perplexity": 500.0, "inception_score": 9.0, "codebook_usage": 0.9}
    numbers = {number: value + seed / 200 for number, value in plain.items()}
    numbers["rfid_infinity"] = 2 * numbers["rfid"] - float(halves[:, 0].mean())
    numbers |= {"parameters": 7.0, "compression_ratio": 24 / mean(values["bpp"])}
    numbers |= {number: mean(column) for number, column in values.items() if number != "mse"}
    if "mse" in values:
        del values["psnr"]
        numbers["psnr"] = 10 * np.log10(255**2 / mean(values["mse"]))
    entries = {
        number: {"value": None if np.isnan(value) else float(value), "low": None, "high": None, "n": count}
        for number, value in numbers.items()
    }
    result = make_result(
        adapter, entries, dataset=dataset, num_images=count, per_image=image_columns(count, **values),
        adapter_facts={"source": adapter},
    )  # fmt: skip
    return replace(result, replicates=spreads)


def pairs() -> list[Result]:
    rng, exact = np.random.default_rng(7), np.full(80, 31.0)
    errors = rng.gamma(1, 20, (2, 70))
    exact[::9] = np.nan
    equal = [drawn(adapter, "equal", 60, 3) for adapter in ("one.a", "one.b")]
    return [
        *(drawn(f"one.{name}", "many", 200, seed) for seed, name in enumerate("ab")),
        *(drawn(f"one.{name}", "few", 12, seed) for seed, name in enumerate("ab", 4)),
        drawn("one.a", "exact", 80, 1),
        drawn("one.b", "exact", 80, 2, psnr=exact),
        *(drawn(f"one.{name}", "pooled", 70, seed, mse=errors[seed]) for seed, name in enumerate("ab")),
        *(drawn(f"one.{name}", "three", 3, seed, mse=errors[seed, :3]) for seed, name in enumerate("ab")),
        *equal,
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results and their site."""
    made = tmp_path_factory.mktemp("compared")
    for result in pairs():
        result.save(made / "results")
    for name in COMMITTED:
        (made / "results" / name).mkdir()
        for path in (ROOT / "results" / name).glob(f"{GROUP}.*"):
            shutil.copy(path, made / "results" / name)
    build(made / "results", made / "site", with_pictures=False)
    return made


def expected(found: Difference, second: str) -> list[str]:
    verdict = f"{second} is {found.verdict}" if found.verdict in ("better", "worse") else found.verdict
    needed = "–" if found.images_needed is None else f"{found.images_needed:,}"
    alone = f" (+{found.alone} in one only)" if found.alone else ""
    texts = [
        column_of(found.number)[1].title, gap_text(found), verdict, needed, number_text(found.number, found.first),
        number_text(found.number, found.second), f"{found.n:,}{alone}",
    ]  # fmt: skip
    return ["–" if text == "-" else text for text in texts]


def shown_differences(page: Any) -> list[list[str]]:
    page.wait_for_function(
        "/^Differences|fewer|no number|cannot/.test(document.getElementById('compare-note').textContent)"
    )
    rows = page.locator("#differences tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


@pytest.mark.parametrize("dataset", ["many", "few", "exact", "pooled", "three", "equal"])
def test_differences_are_those_of_python(open_site: Any, compared: Path, dataset: str) -> None:
    """Every digit that is shown: values, paired intervals, verdicts and numbers of images."""
    first, second = (load(compared / "results" / f"one.{name}" / f"{dataset}-reconstruct.json") for name in "ab")
    page = open_site(compared / "site", f"#table={dataset}-reconstruct&a=one.a&b=one.b")
    shown, found = shown_differences(page), differences(first, second)
    assert shown == [expected(one, "one.b") for one in found]
    assert {"rfid", "rfid_infinity", "codebook_usage", "perplexity", "inception_score"} <= {one.number for one in found}


def test_differences_of_committed_results_are_those_of_python(open_site: Any, compared: Path) -> None:
    for first, second in (("jpeg.q50", "kmeans.f8"), ("kmeans.f8", "fsq.f8")):
        page = open_site(compared / "site", f"#table={GROUP}&a={first}&b={second}")
        both = [load(compared / "results" / name / f"{GROUP}.json") for name in (first, second)]
        assert shown_differences(page) == [expected(one, second) for one in differences(*both)]
        page.click("#swap")
        page.wait_for_function(
            f"document.querySelector('#differences thead th:nth-child(5)')?.textContent === '{second}'"
        )
        assert shown_differences(page) == [expected(one, first) for one in differences(*both[::-1])]


def test_variants_of_a_decoder_are_compared_with_the_decoder_itself(open_site: Any, tmp_path: Path) -> None:
    """They are rows of one adapter and table, each with its own values."""
    tasks = ("decode", "decode-bf16", "decode-tiles256")
    results = [replace(drawn("one.a", "many", 60, seed), task=task) for seed, task in enumerate(tasks)]
    for result in results:
        result.save(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site", with_pictures=False)
    for first, second in ((0, 1), (1, 2)):
        names = [results[one].row for one in (first, second)]
        page = open_site(tmp_path / "site", f"#table=many-decode&a={names[0]}&b={names[1]}")
        found = differences(results[first], results[second])
        assert shown_differences(page) == [expected(one, names[1]) for one in found]
        assert page.input_value("#second") == names[1]


def test_images_that_differ_most_come_first(open_site: Any, compared: Path) -> None:
    page = open_site(compared / "site", f"#table={GROUP}&a=jpeg.q50&b=kmeans.f8&differ=psnr")
    shown_differences(page)
    first, second = (load(compared / "results" / name / f"{GROUP}.json") for name in ("jpeg.q50", "kmeans.f8"))
    (found,) = [one for one in differences(first, second) if one.number == "psnr"]
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("#differing tbody tr").all()]
    assert [(row[0], row[3]) for row in rows] == [(name, f"{gap:+.4f}") for name, gap in found.moved[:10]]
    assert page.input_value("#differ") == "psnr"
    page.select_option("#differ", "ssim")
    assert "differ=ssim" in page.url
    assert page.locator("#differing tbody tr th").first.inner_text() != ""


def test_pictures_of_the_images_that_differ_most(opened: Any, site: Path) -> None:
    page = opened("#table=samples-reconstruct&a=jpeg.q10&b=jpeg.q90&differ=lpips")
    shown_differences(page)
    figures = page.locator("#differing-pictures figure")
    assert figures.count() == SHOWN
    figures.last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#differing-pictures img')].every(e => e.naturalWidth > 0)")
    assert figures.first.locator("small").all_inner_texts() == ["original", "jpeg.q10", "jpeg.q90"]
    gaps = [abs(float(text.rsplit(" ", 1)[1])) for text in figures.locator("figcaption").all_inner_texts()]
    assert gaps == sorted(gaps, reverse=True)
    results = [one for one in read_all(site.parent / "results") if one.adapter in ("jpeg.q10", "jpeg.q90")]
    most = differing_images(results)["samples-reconstruct"]
    assert 1 <= len(most) <= 3  # one image of each metric, of a single pair


def test_every_pair_votes_for_the_image_in_which_it_differs_most() -> None:
    values = np.tile(np.linspace(20, 30, 9), (4, 1))
    values[1, 4] += 5  # three pairs differ most in image 4, the others in image 7
    values[2, 7] += 3
    values[3, 7] += 2
    results = [
        make_result(f"x.{i}", num_images=9, per_image=image_columns(9, psnr=column)) for i, column in enumerate(values)
    ]
    (chosen,) = differing_images(results).values()
    assert chosen == [4, 7]
    assert differing_images(results[:1]) == {}


def test_values_are_loaded_when_they_are_looked_at(open_site: Any, compared: Path) -> None:
    page = open_site(compared / "site", page="adapters/jpeg.html")
    page.set_viewport_size({"width": 1200, "height": 200})  # the view is below the window
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{(compared / 'site' / 'index.html').as_uri()}#table={GROUP}")
    page.wait_for_selector("#figure svg")
    assert not [url for url in asked if "/values/" in url]
    page.locator("#differ-none").evaluate("e => e.scrollIntoView()")
    page.locator("#comparison").scroll_into_view_if_needed()
    assert len(shown_differences(page)) > 5
    assert len([url for url in asked if "/values/" in url]) == 2


def test_missing_values_are_named(open_site: Any, compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared / "site", tmp_path / "site")
    (path,) = (tmp_path / "site" / "values" / GROUP).glob("*-fsq.f8.js")
    path.write_text("tokbenchValues('another table', 'x', {}, '');")
    page = open_site(tmp_path / "site", f"#table={GROUP}&a=jpeg.q50&b=fsq.f8")
    shown_differences(page)
    assert "belongs to another page; run tokbench report again" in page.inner_text("#compare-note")


def test_values_have_a_file_per_row_and_stale_ones_go(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared / "results", tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site", with_pictures=False)
    files = sorted((tmp_path / "site" / "values").glob("*/*.js"))
    assert len(files) == len(pairs()) + len(COMMITTED)
    stored = sum(path.stat().st_size for path in (tmp_path / "results").glob("*/*.npz"))
    assert sum(path.stat().st_size for path in files) < 1.4 * stored + 20_000 * len(files)
    shutil.rmtree(tmp_path / "results" / "fsq.f8")
    build(tmp_path / "results", tmp_path / "site", with_pictures=False)
    assert len(list((tmp_path / "site" / "values").glob("*/*.js"))) == len(files) - 1
    text = (tmp_path / "site" / "index.html").read_text()
    assert set(re.findall(r'"file":"(values/[^"]+)"', text)) == {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site" / "values").glob("*/*.js")
    }
