"""torch-fidelity: its own protocol, and its port of the network for ADM's and TiTok's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from spans import on_their_span
from torch import Tensor
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from tokbench.metrics.fid_statistics import load_statistics
from tokbench.protocol.protocol import load_protocol

LAYERS = ("64", "192", "768", "2048", "logits_unbiased")
LIBRARY = "torch-fidelity"


class Pixels(torch.utils.data.Dataset):
    """uint8 images, as torch-fidelity wants a dataset."""

    def __init__(self, arrays: np.ndarray) -> None:
        self.images = torch.from_numpy(arrays).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


@pytest.fixture(scope="module")
def port(inception_file: Path):
    """Features (B, D) by layer, and `sfid` in ADM's order, of uint8 images."""
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", list(LAYERS), feature_extractor_weights_path=str(inception_file)
    )
    caught: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, output: caught.append(output[:, :7].clone()))

    @torch.inference_mode()
    def features(arrays: np.ndarray) -> dict[str, Tensor]:
        caught.clear()
        outputs = [network(batch) for batch in Pixels(arrays).images.split(8)]
        made = {layer: torch.cat(parts) for layer, parts in zip(LAYERS, zip(*outputs, strict=True), strict=True)}
        return made | {"sfid": torch.cat(caught).permute(0, 2, 3, 1).flatten(1)}

    return features


@pytest.fixture(scope="module")
def reference_features(port, references, pixels) -> dict[str, Tensor]:
    return port(pixels(references))


@pytest.fixture(scope="module")
def found(ours, inception, references, images) -> dict[tuple[str, str], float]:
    """tokbench's numbers; TiTok feeds the network as torch-fidelity does."""
    own, titok = load_protocol("torch-fidelity"), load_protocol("titok")
    names = ("rfid", "rfid_64", "rfid_192", "rfid_768", "kid", "kid_768", "inception_score")
    asked = [*((own, name) for name in names), (titok, "rfid"), (titok, "inception_score")]
    return ours(asked, references, images, inception)


def fid(first: Tensor, second: Tensor) -> float:
    statistics = [fid_features_to_statistics(features) for features in (first, second)]
    moments = iter(on_their_span([(side["mu"], side["sigma"]) for side in statistics], len(first)))
    sides = [{"mu": mean, "sigma": covariance} for mean, covariance in zip(moments, moments, strict=True)]
    return fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]


@pytest.fixture(scope="module")
def metrics(inception_file: Path, references, images, pixels) -> dict[str, float]:
    return calculate_metrics(
        input1=Pixels(pixels(images)), input2=Pixels(pixels(references)), isc=True, isc_splits=1, fid=True,
        kid=True, kid_subsets=1, kid_subset_size=len(images), feature_extractor_weights_path=str(inception_file),
        cuda=False, batch_size=8, cache=False, save_cpu_ram=True, verbose=False,
    )  # fmt: skip


def test_metrics(record, found, metrics) -> None:
    assert metrics["inception_score_mean"] > 1.002, "a network with constant outputs would pass"
    numbers = {
        "FID 2048": ("rfid", metrics["frechet_inception_distance"]),
        "KID 2048": ("kid", metrics["kernel_inception_distance_mean"]),
        "ISC, 1 split": ("inception_score", metrics["inception_score_mean"]),
    }
    for number, (name, value) in numbers.items():
        near_zero = abs(value) < 0.1
        record(
            "torch-fidelity", number, LIBRARY, found["torch-fidelity", name], value,
            1e-6 if near_zero else 1e-5, relative=not near_zero,
        )  # fmt: skip


def test_layers(record, found, metrics, port, reference_features, images, pixels) -> None:
    """The other layers, and TiTok's score over one split."""
    theirs = port(pixels(images))
    for layer in ("64", "192", "768"):
        value = fid(reference_features[layer], theirs[layer])
        record(
            "torch-fidelity", f"FID {layer}", LIBRARY, found["torch-fidelity", f"rfid_{layer}"], value, 1e-5,
            relative=True,
        )  # fmt: skip
    kid = kid_features_to_metric(
        reference_features["768"], theirs["768"], kid_subsets=1, kid_subset_size=len(images), rng_seed=2020,
        verbose=False,
    )["kernel_inception_distance_mean"]  # fmt: skip
    record("torch-fidelity", "KID 768", LIBRARY, found["torch-fidelity", "kid_768"], kid, 1e-6)
    value = metrics["frechet_inception_distance"]
    record("titok", "FID 2048", LIBRARY, found["titok", "rfid"], value, 1e-5, relative=True)
    score = isc_features_to_metric(theirs["logits_unbiased"], splits=1, shuffle=False)["inception_score_mean"]
    record("titok", "ISC, 1 split", LIBRARY, found["titok", "inception_score"], score, 1e-5, relative=True)


def test_adm(record, ours, inception, port, reference_features, references, images, pixels, tmp_path: Path) -> None:
    """Truncated samples against a statistics file; scores of parts in order, without a bias."""
    named = {"mu": "2048", "mu_s": "sfid"}
    moments = {key: fid_features_to_statistics(reference_features[layer]) for key, layer in named.items()}
    arrays = {key: value["mu"] for key, value in moments.items()}
    arrays |= {key.replace("mu", "sigma"): value["sigma"] for key, value in moments.items()}
    np.savez(tmp_path / "adm.npz", **arrays)
    statistics = load_statistics(tmp_path / "adm.npz").assume("inception-2015-12-05:tf1:float32")

    protocol = load_protocol("adm").with_changes("adm", inception_score__split_size=8)  # 5,000 is more than there are
    asked = [(protocol, name) for name in ("rfid", "sfid", "inception_score")]
    found = ours(asked, references, images, inception, statistics=statistics)
    theirs = port(pixels(images, "adm"))
    for number, name, layer in (("FID 2048", "rfid", "2048"), ("sFID 2023", "sfid", "sfid")):
        value = fid(reference_features[layer], theirs[layer])
        record("adm", f"{number}, statistics file", LIBRARY, found["adm", name], value, 1e-5, relative=True)

    scores = []
    for part in theirs["logits_unbiased"].double().split(8):
        shares = part.softmax(1).numpy()
        divergence = shares * (np.log(shares) - np.log(shares.mean(0, keepdims=True)))
        scores.append(np.exp(divergence.sum(1).mean()))
    value = float(np.mean(scores))
    record("adm", "ISC, parts of 8", f"ADM's formula, {LIBRARY}", found["adm", "inception_score"], value, 1e-5, True)
