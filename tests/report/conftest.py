"""A site of a few results, one of which means harm, and a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

from tokbench.pruning.classifier.result import ClassifierRow, ClassifierTiming
from tokbench.pruning.result import Estimate, PruningResult, Speedup
from tokbench.report.site import build

LOCAL = ("file:", "data:")
SHOWN = ("identity", "jpeg.q10", "jpeg.q50", "jpeg.q90", "resize.2", "toy.p8")
HOSTILE = "evil.<img src=x onerror=window.harmed=1>"
CARD = """# Evil

<script>window.harmed=1</script>

[here](javascript:window.harmed=1) [there](../toy/README.md)

<!-- a comment -->
"""


def reduced(method: str, paces: dict[float, tuple[float, bool]], training: str = "none") -> PruningResult:
    """Facts of a method: by keep, how much faster it is, and whether that is a measured speed-up."""
    data = {"sha256": "d" * 64, "limit": 100, "side": 64}
    made = {
        "device": "CPU",
        "processor": "x",
        "kernel": "sdpa",
        "round_to": 1,
        "formula": "f",
        "weights": {"w": "e" * 64},
    }
    about = {"model": "vit.d12", "method": method, "title": method, "training": training, "dataset": "tiny"}
    rows = {}
    for keep, (faster, measured) in paces.items():
        share = Estimate(keep, keep - 0.1, keep + 0.1, 100)
        speedup = Speedup(faster, keep - 0.1, keep + 0.1, 1.0, measured, 10.0 * faster, 10.0, 30)
        rows[f"{keep:g}"] = ClassifierRow(
            title=method, network="vit.d12", top1=share, top5=share, agreement=share, top1_gap=share, top5_gap=share,
            right="00", tokens=[(257, 257)], gflops=keep, whole_gflops=1.0, counted_gflops=keep, training_seconds=0,
            training_images=0, training_profile=None, weights={"w": "e" * 64},
            pace=[ClassifierTiming(
                batch=32, best_kernel="sdpa", speedup=speedup, speedup_same_kernel=speedup, selector_ms=1.0
            )],
        )  # fmt: skip
    return PruningResult(about | {"num_images": 100, "short": False, "provenance": made | {"data": data}}, rows)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few committed results, and of one adapter whose name and card contain an attack."""
    made = tmp_path_factory.mktemp("report")
    for name in SHOWN:
        (made / "results" / name).mkdir(parents=True)
        for path in (ROOT / "results" / name).glob("samples-reconstruct.*"):
            shutil.copy(path, made / "results" / name)
    facts = json.loads((ROOT / "results" / "toy.p8" / "samples-reconstruct.json").read_text())
    facts["adapter"] = HOSTILE
    facts["provenance"]["adapter"]["source"] = "</script><script>window.harmed=1</script>"
    (made / "results" / "titok").mkdir()
    own = json.loads((ROOT / "results" / "toy.p8" / "samples-reconstruct.json").read_text()) | {"adapter": "titok.n16"}
    own["metrics"]["f_sim"] = {"value": None, "low": None, "high": None, "n": 0}  # no face was there
    own["metrics"]["bits_per_image"] |= {"value": 2097152.0, "low": None, "high": None, "n": 7}
    (made / "results" / "titok" / "samples-reconstruct.json").write_text(json.dumps(own))
    (made / "results" / "evil").mkdir()
    (made / "results" / "evil" / "samples-reconstruct.json").write_text(json.dumps(facts))
    reduced("tome", {0.7: (1.4, True), 0.5: (1.01, False)}).save(made / "results")
    reduced("sit_slim", {0.5: (1.9, True)}, "distilled").save(made / "results")
    for family in ("toy", "titok"):
        shutil.copytree(ROOT / "adapters" / family, made / "root" / "adapters" / family)
    (made / "root" / "adapters" / "evil").mkdir()
    (made / "root" / "adapters" / "evil" / "adapter.py").write_text("")
    (made / "root" / "adapters" / "evil" / "x.toml").write_text('summary = "x"\n')
    (made / "root" / "adapters" / "evil" / "README.md").write_text(CARD)
    shutil.copytree(ROOT / "datasets" / "samples", made / "root" / "datasets" / "samples")
    build(made / "results", made / "site", made / "root")
    return made / "site"


@pytest.fixture(scope="session")
def page_data(site: Path) -> dict[str, Any]:
    """The data that are embedded in the page."""
    found = re.search(r'id="data">(.*?)</script>', (site / "index.html").read_text(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="session")
def shown() -> tuple[str, ...]:
    """The adapters of the table of samples."""
    return (*SHOWN, "titok.n16", HOSTILE)


@pytest.fixture(scope="session")
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
def open_site(browser: Any) -> Iterator[Any]:
    """Opens a page of a site at an address; the test fails if a page logs an error or requests anything else."""
    faults: list[str] = []
    contexts = []

    def open_at(
        folder: Path, address: str = "", width: int = 1200, dark: bool = False, page: str = "index.html"
    ) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        shown = context.new_page()
        shown.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on("request", lambda asked: None if asked.url.startswith(LOCAL) else faults.append(asked.url))
        shown.goto(f"{(folder / page).as_uri()}{address}")
        return shown

    yield open_at
    for context in contexts:
        for shown in context.pages:
            assert shown.evaluate("window.harmed") is None
        context.close()
    assert not faults


@pytest.fixture
def opened(open_site: Any, site: Path) -> Any:
    """Opens the site of a few committed results."""
    return partial(open_site, site)
