"""Autoencoders with a pixel and a semantic part: what each part is decoded from, and how both start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.semantic import DualAutoencoder, FrozenTeacher
from tokbench.nn.teacher import DIM
from tokbench.nn.trainable import TrainingBatch, TrainingData

SIDE, STEP = 4, 8


class Tiny(DualAutoencoder):
    """Semantic latents are the mean colour of a patch; the networks add nothing to the linear maps of the pixels."""

    def __init__(self, pixel: int, dim: int, semantic: float = 1.0) -> None:
        super().__init__(VectorQuantizer(32, dim, normalised=False), SIDE, STEP, pixel, semantic, depth=1)
        self.perceptual = 0.0

    def encoded(self, images: Tensor) -> Tensor:
        colours = nn.functional.avg_pool2d(images, STEP).flatten(2).transpose(1, 2)
        if not self.split:
            return colours.new_zeros(len(images), SIDE**2, self.bottleneck.dim)
        return torch.cat([colours.new_zeros(len(images), SIDE**2, self.pixel), colours], 2)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return torch.zeros(len(vectors), 3, SIDE * STEP, SIDE * STEP)


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    made = torch.Generator().manual_seed(0)
    images = nn.functional.interpolate(torch.randn(40, 3, 6, 6, generator=made), 32, mode="bicubic").mul(0.4)
    return TrainingBatch(images.clamp(-1, 1), features=torch.randn(40, SIDE**2, DIM, generator=made))


def test_pixels_come_from_the_pixel_part_alone(batch: TrainingBatch) -> None:
    model = Tiny(pixel=6, dim=9)
    model.start(batch)
    vectors = model.squeeze(model.latents(batch.images))[0]
    changed = vectors.clone()
    changed[..., 6:] += 1
    assert torch.equal(model.pixels(changed), model.pixels(vectors))
    changed[..., :6] += 1
    assert not torch.allclose(model.pixels(changed), model.pixels(vectors))
    assert torch.equal(model.semantic_part(changed), changed[..., 6:])


def test_both_parts_enter_the_first_codebook_and_the_image_is_near(batch: TrainingBatch) -> None:
    model = Tiny(pixel=6, dim=9).train()
    model.start(batch)
    assert model.bottleneck.training
    codebook = model.bottleneck.table()[0].detach()
    colours = nn.functional.avg_pool2d(batch.images, STEP).flatten(2).transpose(1, 2)
    assert float(codebook[:, 6:].std()) > 0.3 * float(colours.std())
    error = (model.eval().pixels(model.squeeze(model.latents(batch.images))[0]) - batch.images).square().mean()
    patches = nn.functional.pixel_unshuffle(batch.images, STEP)
    assert float(error) < 0.6 * float((patches - patches.mean((0, 2, 3), keepdim=True)).square().mean())


def test_one_part_serves_both(batch: TrainingBatch) -> None:
    model = Tiny(pixel=4, dim=4)
    model.ready("cpu")
    model.start(batch)
    terms = model.loss(batch, 1.0)
    assert terms.keys() == {"pixels", "bottleneck", "semantic"}
    vectors = model.squeeze(model.latents(batch.images))[0]
    assert torch.equal(model.semantic_part(vectors), vectors) and torch.equal(model.pixel_part(vectors), vectors)
    terms["semantic"].backward()
    assert model.bottleneck.codebook.grad is None  # straight-through: the latents get the gradient
    assert Tiny(pixel=4, dim=4, semantic=0.0).loss(batch, 1.0).keys() == {"pixels", "bottleneck"}


def test_a_frozen_teacher_gives_the_features_of_the_training_set(private_cache: Path) -> None:
    made = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=made)
    teacher = FrozenTeacher(SIDE)
    features = teacher.features_of(TrainingData(pixels), "cpu", lambda done, total: None).features
    assert features is not None
    found = teacher(pixels.float() / 127.5 - 1, teacher.network())
    assert torch.allclose(found, features.float(), atol=1e-2 * float(features.float().std()) + 1e-3, rtol=1e-2)
    assert teacher.state_dict().keys() == {"mean", "directions"}
