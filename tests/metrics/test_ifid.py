"""iFID against brute force, and its neighbours: images of the dataset outside the run, encoded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import loaded, run_eval
from torch import Tensor

from tokbench.data.dataset import open_dataset
from tokbench.errors import NotApplicable
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.neighbours import Neighbours
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.restore import Restorer
from tokbench.metrics.batch import Batch
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.frechet import distance_of_sets
from tokbench.metrics.ifid import (
    TOP,
    InterpolatedFID,
    InterpolatedFrechet,
    SampledIFID,
    drawn_rows,
    nearest_rows,
    slerp,
)
from tokbench.protocol.protocol import TOKBENCH
from tokbench.testing.metrics import ExampleLatents, ExampleTokenizer
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.tokens import Tokens

SIDE = 64
NOISY = TOKBENCH.degraded("noise:20")


def photos(count: int, seed: int) -> Tensor:
    drawn = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (drawn * 255).round() / 255


def metric_of(cls: type[InterpolatedFrechet], model: Tokenizer, others: Tensor, networks) -> InterpolatedFrechet:
    network = networks.get("efficientnet-lite0")
    return cls("ifd", network, "pooled", model=model, neighbours=lambda: model.encode(others), batch_size=4)


def update(metric: InterpolatedFrechet, model: Tokenizer, images: Tensor, size: int = 100) -> InterpolatedFrechet:
    for index in torch.arange(len(images)).split(size):
        metric.update(Batch(index, images[index], tokens=model.encode(images[index])))
    return metric


def test_the_nearest_row_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (torch.randn(count, 5, generator=torch.Generator().manual_seed(count)) for count in (7, 31))
    expected = [min(range(31), key=lambda row: float((theirs[row] - mine).square().sum())) for mine in ours]
    assert nearest_rows(ours, theirs).tolist() == expected
    monkeypatch.setattr("tokbench.metrics.ifid._AT_ONCE", 20)  # four rows at a time
    assert nearest_rows(ours, theirs).tolist() == expected


def test_the_drawn_row_is_one_of_the_ten_largest_cosines_with_its_probability() -> None:
    ours, theirs = (torch.randn(count, 6, generator=torch.Generator().manual_seed(count)) for count in (1, 40))
    cosines = torch.nn.functional.cosine_similarity(ours, theirs)
    candidates = cosines.argsort(descending=True)[:TOP]
    drawn = drawn_rows(ours.expand(3000, -1), theirs, list(range(3000)))
    assert set(drawn.tolist()) <= set(candidates.tolist())
    weights = torch.softmax(-(theirs[candidates] - ours).square().mean(1), 0)
    shares = [(drawn == row).double().mean() for row in candidates]
    assert shares == pytest.approx(weights.tolist(), abs=4 * math.sqrt(0.25 / 3000))
    assert drawn_rows(ours.expand(5, -1), theirs, list(range(5))).tolist() == drawn[:5].tolist()


def test_slerp_keeps_the_length_and_halves_the_angle() -> None:
    first, second = torch.tensor([[[3.0, 0.0]], [[1.0, 2.0]]]), torch.tensor([[[0.0, 3.0]], [[1.0, 2.0]]])
    half = slerp(first, second)
    assert half[0] == pytest.approx(torch.full((1, 2), 3 / math.sqrt(2)))
    assert half[1] == pytest.approx(first[1])  # the mean of equal vectors


def test_ifid_is_the_distance_of_the_decoded_means(networks) -> None:
    model, images, others = ExampleLatents(), photos(9, 1), photos(12, 2)
    metric = update(metric_of(InterpolatedFID, model, others, networks), model, images, 4)
    between = []
    for image in images:
        mine, theirs = model.encode(image[None]).tensor.float(), model.encode(others).tensor.float()
        nearest = (theirs - mine).square().sum((1, 2, 3)).argmin()
        between.append(((mine + theirs[nearest]) / 2).half())
    decoded = model.decode(Tokens.from_latents(torch.cat(between), 64), [])
    network = networks.get("efficientnet-lite0")
    expected = distance_of_sets(*(network(side)["pooled"].numpy() for side in (images, (decoded * 255).round() / 255)))
    assert metric.compute()["ifd"] == pytest.approx(expected, rel=1e-4)
    assert metric.provenance()["neighbours"] == "12"


def test_images_that_are_their_own_neighbours_are_reconstructed(networks) -> None:
    """Both protocols then decode the latents themselves, so iFID is rFID."""
    model = ExampleLatents()
    images = (photos(1, 1) * torch.linspace(0.5, 1, 6)[:, None, None, None] * 255).round() / 255
    decoded = (model.decode(model.encode(images), []) * 255).round() / 255
    network = networks.get("efficientnet-lite0")
    network.request_layer("pooled")
    rfid = distance_of_sets(*(network(side)["pooled"].numpy() for side in (images, decoded)))
    metric = update(metric_of(InterpolatedFID, model, images, networks), model, images)
    assert metric.compute()["ifd"] == pytest.approx(rfid, rel=1e-3)
    one = images[:1].expand(6, -1, -1, -1)
    sampled = metric_of(SampledIFID, model, one, networks)
    sampled.update(Batch(torch.arange(6), images, tokens=model.encode(one)))
    features = network((model.decode(model.encode(one), []) * 255).round() / 255)["pooled"]
    assert sampled.rows.column("image") == pytest.approx(features.numpy(), abs=1e-4)


def test_half_of_the_codes_are_the_neighbours(networks) -> None:
    """The upper half of the rows of codes comes from the neighbour."""
    seen: list[Tensor] = []

    class Seen(ExampleTokenizer):
        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            seen.append(tokens.tensor)
            return super().decode(tokens, seeds)

    model, images = Seen(), photos(3, 1)
    other = photos(1, 2)
    update(metric_of(SampledIFID, model, other, networks), model, images)
    expected = model.encode(images).tensor.clone()
    expected[:, :1] = model.encode(other).tensor[0, :1]
    assert torch.equal(seen[0], expected)
    with pytest.raises(NotApplicable, match="continuous values"):
        update(metric_of(InterpolatedFID, model, other, networks), model, images)


@pytest.mark.slow
def test_neighbours_are_the_images_outside_the_run_and_are_encoded_once(
    networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokbench.evaluation.neighbours.COUNT", 40)
    encoded: list[int] = []

    class Counted(ExampleLatents):
        def encode(self, images: Tensor) -> Tokens:
            encoded.append(len(images))
            return super().encode(images)

    def run(limit: int | None) -> object:
        encoded.clear()
        (result,) = run_eval(
            [loaded(Counted(), "counted")], open_dataset("samples", TOKBENCH, limit=limit),
            ["ifd_efficientnet", "ifd_top10_efficientnet"], networks=networks, cache=tmp_path,
        )  # fmt: skip
        return result

    first = run(8)
    assert first.error is None and not first.skipped
    names = {"ifd_efficientnet", "ifd_top10_efficientnet"}
    assert first.metrics.keys() >= names
    assert first.provenance["metrics"]["ifd_efficientnet"]["neighbours"] == "40"
    once = sum(encoded)
    again = run(8)
    assert once - sum(encoded) >= 40 - 2
    assert {name: again.metrics[name] for name in names} == {name: first.metrics[name] for name in names}
    whole = run(None)
    assert "give a smaller --limit" in whole.skipped["ifd_efficientnet"]


def test_neighbours_are_degraded_and_restored_as_the_images_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three runs share a cache, whose names are hashes of the clean pixels."""
    monkeypatch.setattr("tokbench.evaluation.neighbours.COUNT", 3)
    model = ExampleLatents()
    restorer = Restorer(loaded(ExampleLatents(), "restorer"))
    for rules, restored in ((TOKBENCH, None), (NOISY, None), (NOISY, restorer)):
        images = open_dataset("samples", rules, limit=100)
        config = EvalConfig(("ifd_efficientnet",), restorer=restored)
        found = Neighbours(model, images, {"name": "example"}, config, ReferenceFeatures(tmp_path)).tokens()
        (batch,) = images.others(3)
        given = batch if restored is None else restored.restored(batch, RunSettings("cpu", 8))
        assert torch.equal(found.tensor, model.encode(given.inputs).tensor)
        assert rules is TOKBENCH or not torch.equal(given.inputs, batch.reference)


def test_others_are_an_even_sample_of_the_rest() -> None:
    dataset = open_dataset("samples", TOKBENCH, limit=100)
    names = dataset.source.names
    rest = len(names) - 100
    found = [name for images in dataset.others(7) for name in images.names]
    assert found == [names[100 + number * rest // 7] for number in range(7)]
    assert not dataset.seen.digests
    assert len(np.unique(found)) == 7
