"""What trainings read from frozen networks: latents of a base autoencoder, and class probabilities of the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.extractors.efficientnet import EfficientNetLite0
from tokbench.extractors.pool import ExtractorPool
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.base_latents import with_base_latents
from tokbench.nn.classifier import Classifier
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.teacher import CLASS_SIDE, CLASSES, with_teacher_logits
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.training.loop import TrainConfig, train


@pytest.fixture
def data(private_cache: Path) -> TrainingData:
    """Random images (8, 3, 32, 32) with two classes."""
    pixels = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return TrainingData(pixels, torch.arange(8) % 2)


def nothing(done: int, total: int) -> None:
    pass


def test_base_latents_are_those_before_the_bottleneck(data: TrainingData) -> None:
    torch.manual_seed(0)
    base = ConvAutoencoder(KL(4), widths=(8, 16), stem=4)
    tokens = with_base_latents("base", base, data, "cpu", True, nothing).tokens
    assert tokens is not None and tokens.shape == (2, 8, 16, 8) and tokens.dtype == torch.float16
    with torch.inference_mode():
        images = data.pixels.float().div(127.5).sub(1)
        expected = torch.stack([base.latents(images), base.latents(images.flip(3))]).flatten(2, 3)
    assert torch.allclose(tokens.float(), expected, atol=2e-3)
    assert not torch.allclose(tokens[0].float(), tokens[1].float(), atol=2e-2)
    other = ConvAutoencoder(KL(4), widths=(8, 16), stem=4)  # another network has latents of its own in the cache
    again = with_base_latents("base", other, data, "cpu", True, nothing).tokens
    assert again is not None and not torch.equal(tokens, again)


def test_teacher_logits_are_those_of_the_enlarged_images(data: TrainingData) -> None:
    features = with_teacher_logits(data, "cpu", nothing).features
    assert features is not None and features.shape == (8, 1, CLASSES) and features.dtype == torch.float16
    network = ExtractorPool("cpu").get("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0)
    images = nn.functional.interpolate(
        data.pixels.float() / 255, CLASS_SIDE, mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    with torch.inference_mode():
        expected = network.net._fc(network.net((images * 255 - 127) / 128))
    assert torch.allclose(features[:, 0].float(), expected, atol=0.05)


def vit(side: int) -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=side, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=2
    )


def test_a_distilled_classifier_learns_from_labels_and_teacher(data: TrainingData) -> None:
    """The teacher's probabilities, not only the labels, give gradients; the layer that imitates them is not stored."""
    torch.manual_seed(0)
    model = Classifier(vit(32), 2, augment=False, distil=1.0)
    features = torch.zeros(8, 1, CLASSES)
    features[:, 0, 7] = 20.0
    record = train(
        model, TrainingData(data.pixels, data.labels, features=features.half()),
        TrainConfig(images=640, batch=8, warm_up=0, flip=False, rate=1e-2),
    )  # fmt: skip
    curve = record.curve["teacher"]
    assert curve[-1] < 0.2 * curve[0] and record.curve["classes"][-1] < record.curve["classes"][0]
    assert all(name.startswith(("vit.", "imitation.")) for name in model.state_dict())
    assert "imitation." in model.kept_out


def test_a_classifier_enlarges_images_to_its_network(data: TrainingData) -> None:
    model = Classifier(vit(64), 2, augment=False)
    images = data.pixels.float().div(127.5).sub(1)
    assert model.enlarged(images).shape == (8, 3, 64, 64) and model.enlarged(images).abs().max() <= 1
    assert Classifier(vit(32), 2).enlarged(images) is images
    with pytest.raises(DataError, match="needs labels"):
        model.loss(TrainingBatch(images), 0.0)


def test_a_model_measures_with_its_final_weights(data: TrainingData) -> None:
    class Measured(Trainable):
        threshold: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.register_buffer("threshold", torch.zeros(()))

        def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
            return {"distance": (self.weight - 1).square()}

        def finish(self, batch: TrainingBatch) -> None:
            assert len(batch.images) == 8 and not self.training
            self.threshold.copy_(self.weight)

    model = Measured()
    train(model, data, TrainConfig(images=80, batch=8, rate=0.1))
    assert 0 < float(model.threshold) == float(model.weight.detach())
