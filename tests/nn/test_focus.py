"""The encoder that updates a share of the tokens, the foreground scores, and the detector around them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.errors import DataError
from tokbench.nn.detection import foreground_targets, match
from tokbench.nn.detr import FocusDETR
from tokbench.nn.focus import FocusEncoder, gather, scatter
from tokbench.nn.trainable import TrainingBatch, padded_boxes

BOXES = padded_boxes([[(0, 0.1, 0.1, 0.5, 0.5), (2, 0.6, 0.5, 0.9, 0.9)], [(1, 0.3, 0.2, 0.6, 0.7)]])


def detector(**changes: Any) -> FocusDETR:
    torch.manual_seed(0)
    given = {"size": 64, "classes": 3, "width": 16, "depth": 3, "decoder_depth": 1, "queries": 4, "fine": 5} | changes
    return FocusDETR(**given)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def dense(encoder: FocusEncoder, tokens: Tensor, places: Tensor, foreground: Tensor, classes: Any) -> Tensor:
    """The encoder without any selection of tokens."""
    for layer in encoder.layers:
        confidence = classes(tokens).sigmoid().amax(2) * foreground.sigmoid()
        refined = layer.refine(tokens, places, confidence)
        tokens = layer(refined, places, refined + places)
    return tokens


@pytest.mark.parametrize("selection", ["learned", "random", "norm"])
@pytest.mark.parametrize("drop", [False, True])
def test_all_tokens_are_dense_attention_bit_for_bit(selection: str, drop: bool) -> None:
    model = detector(keep=1.0, selection=selection, drop=drop).eval()
    tokens, places = model.pyramid(images())
    foreground = model.scorer(tokens, model.sides)
    with torch.no_grad():
        memory, index = model.encoder(tokens, places, foreground, model.classes)
        expected = dense(model.encoder, tokens, places, foreground, model.classes)
    assert torch.equal(memory, expected)
    assert torch.equal(index, torch.arange(84).expand(2, -1))
    assert model.encoder.counts == [84, 84, 84]


def test_tokens_that_are_not_selected_are_carried_through_or_removed() -> None:
    model = detector(keep=0.25).eval()
    tokens, places = model.pyramid(images())
    foreground = torch.arange(84.0).expand(2, -1)  # the last tokens are selected
    with torch.no_grad():
        memory, _ = model.encoder(tokens, places, foreground, model.classes)
        assert model.encoder.counts == [21, 17, 13]
        changed = (memory != tokens).any(2)
        assert not changed[:, :63].any() and changed[:, 63:].all()
        model.encoder.drop = True
        left, index = model.encoder(tokens, places, foreground, model.classes)
    assert left.shape == (2, 13, 16) and torch.equal(index, torch.arange(71, 84).expand(2, -1))


@pytest.mark.parametrize("drop", [False, True])
def test_images_do_not_influence_each_other(drop: bool) -> None:
    model = detector(keep=0.5, selection="random", drop=drop).eval()
    with torch.no_grad():
        together = model(images(3), [7, 8, 9])
        for place, seed in enumerate((7, 8, 9)):
            alone = model(images(3)[place : place + 1], [seed])
            for one, other in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], other[place], atol=1e-5, rtol=1e-4)
        other_seeds = model(images(3), [1, 2, 3])
    assert not torch.equal(together[0], other_seeds[0])


def test_every_part_learns_and_a_detector_needs_boxes() -> None:
    model = detector(keep=0.5)
    for head in (model.first_box, *model.box_heads):
        torch.nn.init.normal_(head[-1].weight, std=0.1)
    terms = model.loss(TrainingBatch(images(), boxes=BOXES), 0.0)
    assert set(terms) == {"class", "l1", "giou", "foreground"}
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters())
    with pytest.raises(DataError, match="training a detector needs boxes"):
        model.loss(TrainingBatch(images()), 0.0)
    empty = padded_boxes([[], [(1, 0.3, 0.2, 0.6, 0.7)]])
    assert all(torch.isfinite(term) for term in model.loss(TrainingBatch(images(), boxes=empty), 0.0).values())


def test_foreground_is_inside_a_box_of_the_size_of_the_level() -> None:
    truths = [torch.tensor([[0, 0.25, 0.25, 0.5, 0.5], [1, 0.0, 0.0, 1.0, 1.0]])]
    found = foreground_targets(truths, (8, 4, 2), 64)
    fine, middle, coarse = (
        part.reshape(side, side) for part, side in zip(found[0].split([64, 16, 4]), (8, 4, 2), strict=True)
    )
    expected = torch.zeros(8, 8)
    expected[2:4, 2:4] = 1  # 16 px wide: the farthest edge is 12 px away, within 2 x 8
    assert torch.equal(fine, expected)
    assert not middle.any()  # the large box is 64 px wide: the farthest edge is at least 40 px away, over 2 x 16
    assert coarse.all()


def test_matching_finds_the_cheapest_assignment() -> None:
    truths = torch.tensor([[0, 0.0, 0.0, 0.2, 0.2], [1, 0.5, 0.5, 0.9, 0.9]])
    boxes = torch.tensor([[0.7, 0.7, 0.4, 0.4], [0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.2, 0.2]])
    rows, columns = match(torch.zeros(3, 2), boxes, truths)
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 2: 0}


def test_gather_and_scatter_are_inverse() -> None:
    x, index = torch.randn(2, 6, 3), torch.tensor([[1, 4], [0, 5]])
    assert torch.equal(scatter(x, index, gather(x, index)), x)
    assert torch.equal(gather(scatter(x, index, torch.zeros(2, 2, 3)), index), torch.zeros(2, 2, 3))
