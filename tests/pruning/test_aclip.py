"""Contrastive training with masked patches: which patches are kept, the loss, and the zero-shot classifier."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from tokbench.data.dataset import open_dataset
from tokbench.data.synthetic import textured
from tokbench.data.synthetic.scenes import CLASSES
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import DataError, UsageError
from tokbench.nn.classifier import Classifier
from tokbench.nn.trainable import TrainingBatch
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.aclip import AClip, cell_means, cls_attention, overlaps
from tokbench.pruning.classifier.models import as_classifier
from tokbench.pruning.vit import recognise
from tokbench.training.data import load_training_data

COUNT = 6


def made(masking: str = "full", **changes: Any) -> AClip:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=64, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=12)
    model = AClip(vit, (16, 1), masking, **changes)  # type: ignore[arg-type]
    model.ready("cpu")
    return model


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    data = load_training_data(open_dataset("textured-train", TOKBENCH, limit=COUNT))
    return TrainingBatch(data.pixels.float() / 127.5 - 1, data.labels, captions=data.captions, boxes=data.boxes)


def test_images_are_encoded_as_timm_does(batch: TrainingBatch) -> None:
    model = made().eval()
    with torch.no_grad():
        expected = F.normalize(model.vit(batch.images), dim=1)
        torch.testing.assert_close(model.embed_images(batch.images), expected)
        everything = torch.arange(64).expand(COUNT, -1)
        torch.testing.assert_close(model.embed_images(batch.images, everything), expected)
        part = everything[:, ::2]
        assert not torch.allclose(model.embed_images(batch.images, part), expected)


def test_the_scores_are_the_attention_of_the_cls_token(batch: TrainingBatch) -> None:
    model = made("attentive").eval()
    with torch.no_grad():
        found = cls_attention(model.teacher, batch.images)
        vit = recognise(model.vit)
        x, expected = vit.model._pos_embed(vit.model.patch_embed(batch.images)), []
        for block in vit.blocks:
            qkv = block.attn.qkv(block.norm1(x)).unflatten(2, (3, 2, 8))
            query, key = qkv[:, 0, 0], qkv[:, :, 1]
            scores = torch.einsum("bhd,bnhd->bhn", query, key) / 8**0.5
            expected.append(scores.softmax(2)[:, :, 1:].mean(1))
            x = block(x)
    torch.testing.assert_close(found, torch.stack(expected).mean(0))


def test_masks_keep_half_of_the_patches(batch: TrainingBatch) -> None:
    assert made().kept(batch) is None
    for masking in ("random", "attentive", "oracle"):
        kept = made(masking).kept(batch)
        assert kept.shape == (COUNT, 32) and all(len(set(row.tolist())) == 32 for row in kept)
    attentive = made("attentive")
    cells = {place // 16 * 4 + place % 8 // 2 for place in attentive.kept(batch)[0].tolist()}
    assert len(cells) == 8  # whole cells of 2x2 patches
    inside = overlaps(batch.boxes, 8)
    oracle = made("oracle").kept(batch)
    assert torch.equal(inside.gather(1, oracle).sum(1), inside.sum(1))  # no patch of the object is left out
    assert inside.sum(1).min() >= 4 and inside.sum(1).max() <= 9
    with pytest.raises(DataError, match="the oracle mask needs boxes"):
        made("oracle").kept(TrainingBatch(batch.images, captions=batch.captions))
    with pytest.raises(UsageError, match="masking must be full, random, attentive or oracle"):
        made("best")


def test_cells_are_means_of_four_patches() -> None:
    scores = torch.arange(16.0)[None]
    assert cell_means(scores, 4)[0].unflatten(0, (4, 4))[:2, :2].unique().tolist() == [2.5]


def test_the_loss_matches_equal_captions_and_trains_every_part(batch: TrainingBatch) -> None:
    model = made("attentive")
    model.loss(batch, 0.0)["contrast"].backward()
    trained = {name: p for name, p in model.named_parameters() if not name.startswith("teacher.")}
    assert all(p.grad is not None and p.grad.any() for name, p in trained.items() if "text.words" not in name)
    assert all(p.grad is None for p in model.teacher.parameters())
    alike = batch.images[:1].expand(COUNT, -1, -1, -1)
    model = made()
    same = TrainingBatch(alike, captions=encode_captions(["a small red circle on a white background"] * COUNT))
    assert float(model.loss(same, 0.0)["contrast"].detach()) == pytest.approx(math.log(COUNT), abs=1e-4)
    with pytest.raises(DataError, match="needs captions"):
        model.loss(TrainingBatch(batch.images), 0.0)


def test_the_teacher_is_a_moving_average_in_training_only(batch: TrainingBatch) -> None:
    model = made("attentive", momentum=0.75)
    before = model.teacher.head.weight.clone()
    torch.nn.init.zeros_(model.vit.head.weight)
    model.eval()
    model.loss(batch, 0.0)
    assert torch.equal(model.teacher.head.weight, before)
    model.train()
    model.loss(batch, 0.0)
    torch.testing.assert_close(model.teacher.head.weight, 0.75 * before)


def test_the_zero_shot_classifier_finds_the_nearest_caption(batch: TrainingBatch) -> None:
    model = made().eval()
    classifier = model.zero_shot().eval()
    assert isinstance(as_classifier(model), Classifier) and recognise(classifier.vit).sizes.classes == 48
    with torch.no_grad():
        found = classifier(batch.images).argmax(1)
        captions = [
            F.normalize(model.embed_captions(encode_captions(own)).mean(0), dim=0) for own in textured.prompts()
        ]
        expected = (model.embed_images(batch.images) @ torch.stack(captions).T).argmax(1)
    assert torch.equal(found, expected)
    assert recognise(model.vit).sizes.classes == 12  # the network itself is unchanged


def test_textured_images_say_what_is_drawn() -> None:
    for position in range(20):
        image = textured.make_textured("test", position)
        assert CLASSES[textured.label_of(image)] == f"{image.colour} {image.shape}"
        assert textured.caption_of(image) in textured.prompts()[textured.label_of(image)]
        ((_, left, top, right, bottom),) = textured.boxes_of(image)
        assert 0 < left < right < 1 and 0 < top < bottom < 1
        plain = textured.draw(textured.TexturedImage(**vars(image) | {"radius": 1e-4})).astype(int)
        changed = (textured.draw(image) != plain).any(2)
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        assert left * 64 - 1 <= columns[0] and columns[-1] < right * 64 + 1
        assert top * 64 - 1 <= rows[0] and rows[-1] < bottom * 64 + 1
