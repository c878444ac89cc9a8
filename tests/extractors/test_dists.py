"""DISTS against the authors' package on the same weights, its properties, and missing parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from tokbench.errors import MissingWeights
from tokbench.extractors.dists import LAYERS, DISTSNetwork
from tokbench.weights.registry import KNOWN_WEIGHTS, LocalWeights


@pytest.fixture(scope="module")
def trunk() -> nn.Sequential:
    """VGG-16's convolutions with fixed random weights that keep the size of activations."""
    features = make_layers(cfgs["D"])
    generator = torch.Generator().manual_seed(0)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    return features


@pytest.fixture(scope="module")
def found(trunk: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> LocalWeights:
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file({f"features.{name}": value for name, value in trunk.state_dict().items()}, path)
    return LocalWeights(path, KNOWN_WEIGHTS["dists"][0], "0" * 64)


@pytest.fixture(scope="module")
def network(found: LocalWeights) -> DISTSNetwork:
    return DISTSNetwork(found)


def test_equal_to_the_authors_package(
    network: DISTSNetwork, trunk: nn.Sequential, photos: torch.Tensor, damaged: torch.Tensor, monkeypatch
) -> None:
    from DISTS_pytorch import DISTS_pt

    monkeypatch.setattr(DISTS_pt.models, "vgg16", lambda pretrained: SimpleNamespace(features=trunk))
    theirs = DISTS_pt.DISTS(load_weights=False)
    weights = torch.load(Path(DISTS_pt.__file__).parent / "weights.pt", weights_only=True)
    theirs.alpha.data, theirs.beta.data = weights["alpha"], weights["beta"]
    x, y = photos[:2, :, :64, :96], damaged[:2, :, :64, :96]
    ours = network.distance(network(x), network(y))
    assert ours.tolist() == pytest.approx(theirs(x, y).tolist(), abs=2e-6)
    assert (ours > 1e-3).all()


def test_equal_images_have_the_distance_0_and_order_does_not_matter(
    network: DISTSNetwork, photos: torch.Tensor, damaged: torch.Tensor
) -> None:
    x, y = (network(images[:1, :, :32, :32]) for images in (photos, damaged))
    assert float(network.distance(x, x)) == pytest.approx(0, abs=1e-9)
    assert float(network.distance(x, y)) == pytest.approx(float(network.distance(y, x)), abs=1e-9)
    assert list(x) == list(LAYERS) and x["1"].shape == (1, 64, 32, 32) and x["5"].shape == (1, 512, 2, 2)


def test_the_hash_of_both_files_is_recorded(network: DISTSNetwork) -> None:
    facts = network.describe()
    assert facts["network"] == "dists"
    assert facts["channels_sha256"] == KNOWN_WEIGHTS["dists-channels"][0].sha256


def test_a_trunk_without_a_convolution_is_refused(trunk: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    save_file({f"features.{name}": value for name, value in trunk.state_dict().items() if name != "28.bias"}, path)
    with pytest.raises(MissingWeights, match=r"dists.*lacks features\.28\.bias"):
        DISTSNetwork(LocalWeights(path, KNOWN_WEIGHTS["dists"][0], "0" * 64))


def test_missing_channel_weights_name_the_package(found: LocalWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(MissingWeights, match="pip install DISTS-pytorch"):
        DISTSNetwork(found)
