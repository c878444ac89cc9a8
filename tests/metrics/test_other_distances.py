"""MIND, CMMD, the Fréchet ratio and exported networks: by algebra, and on a tiny network in the user's place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model
from torch import nn

from tokbench.data.dataset import open_dataset
from tokbench.errors import MissingWeights
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS
from tokbench.metrics import cmmd
from tokbench.metrics.batch import Batch
from tokbench.metrics.cmmd import CMMD
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.frechet_ratio import FrechetRatio
from tokbench.metrics.mind import MIND, project, scaled_distance
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.columns import column_of
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.registry import load_adapter


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def mind(first: np.ndarray, second: np.ndarray) -> float:
    return scaled_distance(project(first, 1000), project(second, 1000), first.shape[1])


def test_mind_of_a_shift_is_three_times_its_squared_length(rng: np.random.Generator) -> None:
    rows, shift = rng.normal(size=(50, 16)), rng.normal(size=16)
    # The mean of (direction . shift)^2 over directions is |shift|^2 / d, here of 1,000 of them.
    assert mind(rows, rows + shift) == pytest.approx(3 * (shift**2).sum(), rel=0.1)
    assert mind(rows, rows + 2 * shift) == pytest.approx(4 * mind(rows, rows + shift))


def test_mind_does_not_depend_on_the_order_and_is_symmetric(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(40, 8)), rng.normal(size=(40, 8)) * 2
    assert mind(first, first[::-1]) == 0
    assert mind(first, second) == mind(second, first)


def test_mind_in_one_dimension_is_the_transport_of_sorted_values() -> None:
    first, second = np.array([[3.0], [1.0], [2.0]]), np.array([[5.0], [1.0], [2.0]])
    assert mind(first, second) == pytest.approx(3 * (0 + 0 + 4) / 3)


def test_mind_of_sets_of_different_size_compares_quantiles(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(30, 4))
    assert mind(np.repeat(rows, 3, axis=0), rows) == pytest.approx(0, abs=1e-12)
    assert mind(rng.normal(size=(4000, 4)), rng.normal(size=(1500, 4)) + 1) == pytest.approx(12, rel=0.15)


def of_sets(metric, reference: np.ndarray, image: np.ndarray):
    """The metric with these features of references and images."""
    metric.references.add(np.arange(len(reference)), {"features": reference})
    metric.rows.add(np.arange(len(image)), {"image": image})
    return metric


class Named:
    """A network of which nothing is computed."""

    name, sha256 = "clip-vitl14-336", "0" * 64

    def request_layer(self, layer: str) -> None:
        return

    def describe(self) -> dict[str, str]:
        return {"network": self.name}


def test_cmmd_has_a_closed_form_for_single_directions() -> None:
    one, other = np.tile([2.0, 0.0], (5, 1)), np.tile([0.0, 3.0], (5, 1))
    found = of_sets(CMMD("cmmd", Named(), "features"), one, other).compute()["cmmd"]
    assert found == pytest.approx(1000 * (2 - 2 * math.exp(-2 / 200)))  # |x - y|^2 is 2 after normalisation
    assert of_sets(CMMD("cmmd", Named(), "features"), one, 7 * one).compute()["cmmd"] == 0


def test_cmmd_never_holds_the_kernel_of_all_pairs(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rng.normal(size=(23, 4)), rng.normal(size=(17, 4)) + 1
    whole = of_sets(CMMD("cmmd", Named(), "features"), first, second).compute()["cmmd"]
    sizes, exp = [], np.exp
    monkeypatch.setattr(cmmd, "_BLOCK", 60)
    monkeypatch.setattr(np, "exp", lambda values: sizes.append(values.size) or exp(values))
    assert of_sets(CMMD("cmmd", Named(), "features"), first, second).compute()["cmmd"] == pytest.approx(whole)
    assert max(sizes) <= 60
    assert sum(sizes) == 23 * 23 + 17 * 17 + 23 * 17


def test_the_ratio_is_the_distance_over_that_of_two_halves(rng: np.random.Generator) -> None:
    reference = rng.normal(size=(60, 3))
    image = reference + 1
    plain = of_sets(Frechet("fd", Named(), "features"), reference, image)
    ratio = of_sets(FrechetRatio("fd_ratio", Named(), "features"), reference, image)
    divisor = plain.split_half()
    assert plain.compute()["fd"] == pytest.approx(3, rel=1e-6)
    assert ratio.compute()["fd_ratio"] == pytest.approx(plain.compute()["fd"] / divisor)
    halves = SplitHalves("x", 60)
    ours, theirs = ratio.replicates(halves)["fd_ratio"], plain.replicates(halves)["fd"]
    assert ours.deviation == pytest.approx(theirs.deviation / divisor)
    assert ours.extrapolate(1.0) is None


def test_no_distance_of_another_network_is_called_fid() -> None:
    for name, spec in METRICS.items():
        for number in spec.numbers:
            if spec.network not in (None, "inception-2015-12-05"):
                assert "fid" not in number.name.lower()
                assert "fid" not in column_of(number.name)[1].title.lower(), name


class Tiny(nn.Module):
    """A stand-in for an exported network: the mean colours of four quarters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, [2, 2]).flatten(1)


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    for name in ("dinov2-vitl14.ts", "clip-vitl14-336.ts"):
        torch.jit.script(Tiny()).save(tmp_path / name)
    return tmp_path


def test_an_exported_network_gets_normalised_images_of_its_size(exported: Path) -> None:
    network = ExtractorPool().get("dinov2-vitl14")
    network.request_layer("features")
    grey = torch.full((3, 3, 64, 64), 0.5)
    features = network(grey)["features"]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((0.5 - mean) / std).repeat_interleave(4).expand(3, -1)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)  # each is a float32 mean of 12,544 pixels
    assert network.describe()["size"] == "224"
    assert len(network.sha256) == 64


def test_exported_networks_are_evaluated_in_one_pass(exported: Path, photo_folder: Path) -> None:
    names = ["fd_dinov2", "fd_ratio_dinov2", "mind_dinov2", "fd_clip", "cmmd"]
    data = open_dataset(str(photo_folder), TOKBENCH, 48)
    result = evaluate_model(load_adapter("jpeg.q5").model, data, names, networks=ExtractorPool())
    assert not result.skipped
    assert all(result.metrics[name]["value"] > 0 for name in names)
    assert result.provenance["metrics"]["cmmd"]["network"] == "clip-vitl14-336"
    assert result.provenance["metrics"]["fd_dinov2"]["backend"].startswith("torch")


def test_a_file_that_is_no_network_is_refused(exported: Path) -> None:
    (exported / "dinov2-vitl14.ts").write_bytes(b"nothing")
    with pytest.raises(MissingWeights, match="not a TorchScript file"):
        ExtractorPool().get("dinov2-vitl14")


def test_a_network_that_returns_maps_is_refused(exported: Path) -> None:
    class Maps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, ::8, ::8]

    torch.jit.script(Maps()).save(exported / "clip-vitl14-336.ts")
    network = ExtractorPool().get("clip-vitl14-336")
    network.request_layer("features")
    with pytest.raises(MissingWeights, match="not one vector for each"):
        network(torch.zeros(1, 3, 32, 32))


def test_mind_stores_replicates(exported: Path) -> None:
    network = ExtractorPool().get("dinov2-vitl14")
    metric = MIND("mind_dinov2", network, "features")
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    metric.update(Batch(torch.arange(12), images, (images * 0.8)))
    assert metric.compute()["mind_dinov2"] > 0
    assert metric.replicates(SplitHalves("x", 12))["mind_dinov2"].deviation > 0
