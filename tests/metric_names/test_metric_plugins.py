"""Metrics and frozen networks that another installed package adds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import run_eval

from tokbench import MetricSpec, NumberSpec, Tolerance, register_metric
from tokbench.data.dataset import open_dataset
from tokbench.errors import UsageError
from tokbench.extractors.pool import ExtractorPool
from tokbench.extractors.specs import EXTRACTORS, ExtractorSpec, register_extractor
from tokbench.metric_names import METRICS, MetricName
from tokbench.metrics.base import PerImageMetric
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.columns import column_of, columns
from tokbench.results.result import load
from tokbench.tokenizers.registry import load_adapter

SPECS = """
from tokbench import ExtractorSpec, MetricSpec, NumberSpec, Tolerance

SHARPNESS = MetricSpec(
    "sharpness", "mean difference of edges from the original",
    (NumberSpec("edge_gap", "edge gap", 5, False, Tolerance(absolute=1e-4), perturbed="edge_gap"),),
    "tokbench_edges.metrics:Sharpness", network="edges",
)
NETWORK = ExtractorSpec("edges", "tokbench_edges.network:Edges")
"""

CODE = """
import numpy as np
import torch
from tokbench.extractors.network import FeatureExtractor
from tokbench.metrics.base import PerImageMetric
from tokbench.protocol.protocol import TOKBENCH


class Edges(FeatureExtractor):
    def __init__(self, weights, backend):
        super().__init__(backend)
        assert weights is None
        self.name, self.sha256 = "edges", "none"

    def forward(self, images, chunk):
        return {"all": (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))[:, None]}
"""

METRIC = """
from tokbench.metrics.base import PerImageMetric
from tokbench.protocol.protocol import TOKBENCH


class Sharpness(PerImageMetric):
    def __init__(self, network):
        super().__init__()
        self._network = network
        network.request_layer("all")

    def per_sample(self, batch):
        seen = [batch.features(self._network, side, TOKBENCH.rounding)["all"] for side in ("image", "reference")]
        return {"edge_gap": (seen[0] - seen[1]).abs()[:, 0].double().numpy()}

    def provenance(self):
        return self._network.describe()
"""


def write_project(folder: Path, name: str, version: str, files: dict[str, str], points: dict[str, str]) -> Path:
    """The source of a package with these modules and with entry points by group."""
    modules = [file.removesuffix(".py") for file in files if "/" not in file]
    packages = sorted({file.partition("/")[0] for file in files if "/" in file})
    project = (
        f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        f"[tool.setuptools]\npy-modules = {modules}\npackages = {packages}\n"
    )
    for group, point in points.items():
        project += f'[project.entry-points."{group}"]\n{point}\n'
    for file, text in (files | {"pyproject.toml": project}).items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / name


def install(projects: list[Path], target: Path) -> None:
    """Builds the packages and installs them into a folder, offline, with uv or, if there is no uv, with pip."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools, the build backend of the packages, is not installed")
    if find_spec("uv"):
        tool = [sys.executable, "-m", "uv", "--no-config", "pip", "install", "--offline", "--python", sys.executable]
    elif find_spec("pip"):
        tool = [sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check"]
    else:
        pytest.skip("neither uv nor pip is installed in this Python, so no package can be installed")
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", target]
    done = subprocess.run([*tool, *options, *projects], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that adds a metric and its network, one that fails, and one that takes a name."""
    source = tmp_path_factory.mktemp("source")
    files = {
        "tokbench_edges/__init__.py": "",
        "tokbench_edges/specs.py": SPECS,
        "tokbench_edges/network.py": CODE,
        "tokbench_edges/metrics.py": METRIC,
    }
    points = {
        "tokbench.metrics": 'sharpness = "tokbench_edges.specs:SHARPNESS"',
        "tokbench.extractors": 'edges = "tokbench_edges.specs:NETWORK"',
    }
    broken = {"tokbench_broken.py": "raise RuntimeError('it has no luck')\n"}
    taker = {"tokbench_taker.py": SPECS.replace('"sharpness"', '"psnr"')}
    luck = {"tokbench.metrics": 'luck = "tokbench_broken:LUCK"'}
    psnr = {"tokbench.metrics": 'psnr = "tokbench_taker:SHARPNESS"'}
    projects = [
        write_project(source, "tokbench-edges", "1.2", files, points),
        write_project(source, "tokbench-broken", "0.1", broken, luck),
        write_project(source, "tokbench-taker", "0.2", taker, psnr),
    ]
    folder = tmp_path_factory.mktemp("site")
    install(projects, folder)
    return folder


@pytest.fixture
def installed(site: Path, cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs tokbench commands while these packages are installed."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TOKBENCH_CACHE", str(tmp_path / "cache"))
    for registry in (METRICS, EXTRACTORS):
        registry.reload()
    yield cli
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tokbench_edges", "tokbench_taker")]:
        del sys.modules[name]
    for registry in (METRICS, EXTRACTORS):
        registry.reload()


@pytest.mark.slow
def test_an_installed_metric_is_listed_computed_tabled_and_checked(installed, mirrored: Path, tmp_path: Path) -> None:
    listed = installed("list", "metrics").stdout
    assert "mean difference of edges from the original (package tokbench-edges 1.2)" in listed
    assert (
        "not available: package tokbench-broken 0.1: tokbench_broken:LUCK cannot be loaded (RuntimeError: it has"
        in listed
    )
    assert "package tokbench-taker 0.2 cannot register the metric 'psnr': the name belongs to tokbench itself" in listed

    out = tmp_path / "results"
    done = installed("eval", "jpeg.q50", "--data", mirrored, "--metrics", "psnr,sharpness,speed", "--out", out)
    assert done.exit_code == 0, done.stderr
    (path,) = (out / "jpeg.q50").glob("*.json")
    document = json.loads(path.read_text())
    assert document["metrics"]["edge_gap"]["low"] < document["metrics"]["edge_gap"]["value"]
    assert document["provenance"]["metrics"]["edge_gap"]["package"] == "tokbench-edges 1.2"
    assert document["provenance"]["metrics"]["edge_gap"]["network"] == "edges"
    assert "package" not in document["provenance"]["metrics"].get("psnr", {})

    assert installed("leaderboard", "--out", out).exit_code == 0
    (csv,) = (out / "leaderboard").glob("*-*.csv")
    names = [name for name in pd.read_csv(csv).columns if not name.endswith(("_low", "_high"))]
    assert names.index("psnr") < names.index("peak_memory_mib") < names.index("edge_gap")
    assert "edge gap ↓" in csv.with_suffix(".md").read_text()

    checked = installed("check", "--against", out, "--data", mirrored, "--json")
    assert checked.exit_code == 0, checked.stderr
    (found,) = [one for one in json.loads(checked.stdout)["checks"] if one["number"] == "edge_gap"]
    assert found["outcome"] == "same"
    committed = load(path)
    committed.per_image["edge_gap"] -= 2e-4  # more than the tolerance of its spec
    committed.metrics["edge_gap"]["value"] -= 2e-4
    path.unlink()
    committed.save(out)
    checked = installed("check", "--against", out, "--data", mirrored, "--json")
    assert checked.exit_code == 1
    assert [one["number"] for one in json.loads(checked.stdout)["checks"] if one["outcome"] == "regression"] == [
        "edge_gap"
    ]


@pytest.mark.slow
def test_a_broken_package_is_named_where_its_metric_is_asked_for(installed, mirrored: Path, tmp_path: Path) -> None:
    done = installed("eval", "jpeg.q50", "--data", mirrored, "--metrics", "luck", "--out", tmp_path / "results")
    assert done.exit_code == 2
    assert "package tokbench-broken 0.1: tokbench_broken:LUCK cannot be loaded" in done.stderr.replace("\n", " ")


EDGES = MetricSpec(
    "means", "difference of the means",
    (NumberSpec("mean_gap", "mean gap", 6, False, Tolerance(absolute=1e-5), perturbed="mean_gap"),),
)  # fmt: skip


class Means(PerImageMetric):
    """The difference of an image's mean from its reference's."""

    seen = 0
    fails = ""

    def per_sample(self, batch):
        Means.seen += len(batch)
        if self.fails == "update":
            raise ZeroDivisionError("by hand")
        gap = batch.require("image").mean((1, 2, 3)) - batch.require("reference").mean((1, 2, 3))
        return {"mean_gap" if self.fails != "number" else "psnr": gap.abs().double().numpy()}

    def provenance(self):
        if self.fails == "provenance":
            raise ZeroDivisionError("by hand")
        return super().provenance()


@pytest.fixture
def means() -> Iterator[type[Means]]:
    """A metric that this process registers."""
    register_metric(EDGES, Means)
    Means.seen, Means.fails = 0, ""
    yield Means
    METRICS.unregister("means")


def test_a_registered_metric_resumes_from_its_stored_columns(means, mirrored: Path, tmp_path: Path) -> None:
    data = open_dataset(str(mirrored), TOKBENCH)
    adapter = load_adapter("jpeg.q50")
    (first,) = run_eval([adapter], data, ["means"], cache=tmp_path)
    assert first.error is None and means.seen == 12
    (again,) = run_eval([adapter], data, ["means"], cache=tmp_path)
    assert again.metrics == first.metrics
    assert means.seen == 12  # nothing was computed a second time
    assert again["mean_gap"].title == "mean gap"


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("update", "ZeroDivisionError: by hand"),
        ("number", "'psnr'"),
        ("provenance", "ZeroDivisionError: by hand"),  # it is read before the first image, for the checkpoint's key
    ],
)
def test_a_metric_that_fails_costs_only_its_own_numbers(
    means, mirrored: Path, fails: str, reason: str, tmp_path: Path
) -> None:
    means.fails = fails
    data = open_dataset(str(mirrored), TOKBENCH)
    (made,) = run_eval([load_adapter("jpeg.q50")], data, ["psnr", "means"], cache=tmp_path)
    assert made.error is None
    assert set(made.metrics) == {"psnr", "exact"}
    assert made.metrics["psnr"]["value"] > 20
    assert reason in made.skipped["means"] and str(METRICS.package("means")) in made.skipped["means"]


def test_its_columns_come_after_the_others_and_go_with_it(means) -> None:
    assert columns()[-2].field in ("pmean_gap_binary", "nmean_gap")
    last = max(column_of("peak_memory_mib")[0], column_of("pfid")[0])
    assert column_of("mean_gap")[0] > last
    assert MetricName.parse("pmean_gap_fsq.a0.9-d2").metric == "means"


@pytest.mark.slow
def test_names_belong_to_the_first(means) -> None:
    with pytest.raises(UsageError, match=r"cannot register the metric 'psnr': the name belongs to tokbench itself"):
        register_metric(MetricSpec("psnr", "mine", EDGES.numbers), Means)
    with pytest.raises(UsageError, match=r"'mine': its number 'psnr' belongs to the metric 'psnr' of tokbench"):
        register_metric(MetricSpec("mine", "mine", (NumberSpec("psnr", "x", 2),)), Means)
    with pytest.raises(UsageError, match="cannot name a number"):
        register_metric(MetricSpec("mine", "mine", (NumberSpec("gap_infinity", "x", 2),)), Means)
    with pytest.raises(UsageError, match="belongs to tokbench and cannot be removed"):
        METRICS.unregister("psnr")

    with pytest.raises(UsageError, match="the name belongs to package"):
        register_metric(EDGES)(type("Other", (Means,), {}))
    with pytest.raises(UsageError, match="the extractor 'lpips-alex': the name belongs to tokbench itself"):
        register_extractor(ExtractorSpec("lpips-alex"), type("Other", (), {}))


def test_a_network_that_no_package_has(mirrored: Path) -> None:
    """The metric is skipped, and the reason names the network."""
    register_metric(MetricSpec("deep", "x", (NumberSpec("deep", "x", 2),), network="deep-net"), Means)
    try:
        (made,) = run_eval(
            [load_adapter("jpeg.q50")],
            open_dataset(str(mirrored), TOKBENCH),
            ["psnr", "deep"],
            networks=ExtractorPool(),
        )
    finally:
        METRICS.unregister("deep")
    assert made.skipped == {"deep": "no installed package has the network 'deep-net'"}
    assert "psnr" in made
