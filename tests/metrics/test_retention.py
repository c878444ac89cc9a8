"""Semantic retention: agreement, cosine and top-1 from known logits and features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model
from PIL import Image

from tokbench.data.dataset import open_dataset
from tokbench.data.labels import Labels, labels_by_position
from tokbench.errors import NotApplicable
from tokbench.extractors.network import FeatureExtractor
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.batch import Batch
from tokbench.metrics.semantics import CLASSES, Semantics, Top1
from tokbench.protocol.protocol import TOKBENCH
from tokbench.stats.bootstrap import share_interval
from tokbench.tokenizers.registry import load_adapter


class Means(FeatureExtractor):
    """Predicts the class of the red level of the first pixel; its features are the mean colours."""

    name, sha256 = "efficientnet-lite0", "0" * 64

    def forward(self, images: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
        red = (images[:, 0, 0, 0] * 255).round().long()
        return {"logits": torch.nn.functional.one_hot(red, CLASSES).float(), "pooled": images.mean((2, 3))}


def batch(image: list[list[int]], reference: list[list[int]]) -> Batch:
    sides = [torch.tensor(side).float().div(255)[:, :, None, None].expand(-1, 3, 4, 4) for side in (reference, image)]
    return Batch(torch.arange(len(image)), *sides)


def labels(*values: int, warnings: tuple[str, ...] = ()):
    return lambda classes: (np.array(values), Labels({}, classes, "column 'label'", warnings))


def test_agreement_and_cosine() -> None:
    metric = Semantics(Means())
    metric.update(batch([[9, 0, 0], [30, 0, 40], [0, 5, 0], [7, 7, 7]], [[9, 0, 0], [31, 0, 0], [5, 0, 0], [7, 7, 7]]))
    numbers = metric.compute()
    assert numbers["agreement"] == 0.5
    assert numbers["feature_cosine"] == pytest.approx((1 + 0.6 + 0 + 1) / 4)
    assert metric.intervals(0)["agreement"] == share_interval(np.array([1, 0, 0, 1]))


def test_equal_images_agree_and_the_interval_has_a_width() -> None:
    metric = Semantics(Means())
    metric.update(batch([[9, 1, 0]] * 60, [[9, 1, 0]] * 60))
    assert metric.compute() == pytest.approx({"agreement": 1, "feature_cosine": 1})
    interval = metric.intervals(0)["agreement"]
    assert (interval.low, interval.high) == (pytest.approx(0.025 ** (1 / 60)), 1)


def test_top1_of_images_and_originals() -> None:
    metric = Top1(Means(), labels(3, 4, 5))
    metric.update(batch([[3, 0, 0], [9, 0, 0], [5, 0, 0]], [[3, 0, 0], [4, 0, 0], [6, 0, 0]]))
    assert metric.compute() == pytest.approx({"top1": 2 / 3, "top1_original": 2 / 3})
    assert metric.per_image()["top1"][1].tolist() == [1, 0, 1]
    assert metric.provenance()["labels"] == "column 'label'"


def test_labels_that_may_be_of_other_classes_are_refused() -> None:
    with pytest.raises(NotApplicable, match="may not be those of ILSVRC-2012: exactly 0 to 199"):
        Top1(Means(), labels(3, warnings=("exactly 0 to 199",)))


def test_images_of_a_batch_have_the_labels_of_their_positions() -> None:
    metric = Top1(Means(), labels(3, 4, 5))
    one = batch([[5, 0, 0]], [[5, 0, 0]])
    one.index = torch.tensor([2])
    metric.update(one)
    assert metric.compute()["top1"] == 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in three class folders, listed at 10, 20 and 30 in a classes.txt of 1,000 classes."""
    folder = tmp_path_factory.mktemp("classes")
    names = [f"c{number:03d}" for number in range(CLASSES)]
    for index, red in ((10, 10), (20, 20), (30, 99)):
        (folder / names[index]).mkdir()
        for number in range(4):
            pixels = np.full((16, 16, 3), (red, number, 0), np.uint8)
            Image.fromarray(pixels).save(folder / names[index] / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


def test_class_folders_are_labels(photos: Path) -> None:
    found, described = labels_by_position(open_dataset(str(photos), TOKBENCH), CLASSES)
    assert found.tolist() == [10] * 4 + [20] * 4 + [30] * 4
    assert "classes.txt" in described.rule
    with pytest.raises(NotApplicable, match="lists 1,000 classes, but the network has 10"):
        labels_by_position(open_dataset(str(photos), TOKBENCH), 10)


def test_an_evaluation_of_images_with_and_without_labels(photos: Path, tmp_path: Path) -> None:
    networks = ExtractorPool()
    networks._networks["efficientnet-lite0"] = Means()
    model, both = load_adapter("identity").model, ["semantics", "semantics_top1"]
    result = evaluate_model(model, open_dataset(str(photos), TOKBENCH), both, networks=networks)
    values = {name: entry["value"] for name, entry in result.metrics.items()}
    assert values == pytest.approx({"agreement": 1, "feature_cosine": 1, "top1": 2 / 3, "top1_original": 2 / 3})
    for number in range(2):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    plain = evaluate_model(model, open_dataset(str(tmp_path), TOKBENCH), both, networks=networks)
    assert plain.metrics["agreement"]["value"] == 1
    assert "has no labels" in plain.skipped["semantics_top1"]
    assert not math.isnan(plain.metrics["feature_cosine"]["value"])
