"""The transfer of colours by holistic tokens, for tokenizers where it is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import tokbench
from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.swap import Swap
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

LEVELS = torch.tensor([3, 200, 90, 140])


class Grey(Tokenizer):
    """Two tokens of an image, both its grey level; `weight` of the decoded level comes from the first, the holistic."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.spec = TokenizerSpec("grey", kind="discrete", size=8, num_tokens=2, codebook={"codes": 256})

    def encode(self, images: Tensor) -> Tokens:
        level = (images.mean((1, 2, 3)) * 255).round().long()
        return Tokens.from_indices(torch.stack([level, level], 1), 256)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        first, second = tokens.tensor.float().T / 255
        level = self.weight * first + (1 - self.weight) * second
        return level[:, None, None, None].expand(-1, 3, 8, 8)

    def swap(self, tokens: Tokens, others: Tokens) -> Tokens:
        return tokens.with_data(torch.stack([others.tensor[:, 0], tokens.tensor[:, 1]], 1))


def measured(model: Tokenizer, parts: int = 1) -> Swap:
    images = (LEVELS.float() / 255)[:, None, None, None].expand(-1, 3, 8, 8)
    metric = Swap(model, "cpu")
    for index in torch.arange(len(images)).chunk(parts):
        tokens = model.encode(images[index])
        metric.update(Batch(index, images[index], model.decode(tokens, []), tokens=tokens))
    return metric


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 1.0), (0.0, 0.0)])
def test_the_colours_are_those_of_the_tokens_that_hold_them(weight: float, expected: float) -> None:
    assert measured(Grey(weight)).compute() == {"holistic_transfer": pytest.approx(expected)}


def test_half_of_the_way() -> None:
    values = measured(Grey(0.5)).per_image()["holistic_transfer"][1]
    assert values == pytest.approx([0.5] * 4, abs=0.1)  # levels are counted in 32 bins


def test_batches_do_not_matter() -> None:
    whole, parts = measured(Grey(0.3)), measured(Grey(0.3), parts=3)
    assert whole.compute() == parts.compute()
    more = measured(Grey(0.3))
    before = more.compute()
    more.merge(_shifted(measured(Grey(1.0))))
    assert more.compute() != before  # the cached values are those of fewer images


def _shifted(metric: Swap) -> Swap:
    moved = Swap(metric._model, "cpu")
    columns = {name: metric.rows.column(name) for name in metric.rows.names}
    moved.rows.add(torch.arange(4, 8), {name: column[::-1].copy() for name, column in columns.items()})
    return moved


def test_tokenizers_without_holistic_tokens_and_tiles_are_refused() -> None:
    large, grey = torch.rand(2, 3, 16, 16), Grey(1.0)
    with pytest.raises(NotApplicable, match="cut into tiles of 8 px"):
        Swap(grey, "cpu").update(Batch(torch.arange(2), large, large, tokens=grey.encode(large)))
    toy = load_adapter("resize.2").model
    assert isinstance(toy, Tokenizer)
    images = torch.rand(2, 3, 8, 8)
    tokens = toy.encode(images)
    with pytest.raises(NotApplicable, match="no holistic tokens"):
        Swap(toy, "cpu").update(Batch(torch.arange(2), images, images, tokens=tokens))


def test_tokens_of_python_objects_are_swapped() -> None:
    result = tokbench.evaluate(Grey(1.0), "scenes", limit=8, size=8, metrics="swap", progress=False, cache=False)
    assert result.error is None and result.metrics["holistic_transfer"]["value"] > 0.9
