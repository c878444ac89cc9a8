"""Accuracy of written captions, on captions whose numbers are known."""

from __future__ import annotations

import pytest
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.caption_accuracy import CaptionAccuracy, word_accuracy
from tokbench.testing.metrics import ExampleTokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.tokens import Tokens


@pytest.mark.parametrize(
    ("written", "own", "share"),
    [
        ("a red circle", "A red circle.", 1.0),
        ("a blue circle", "a red circle", 2 / 3),
        ("a red", "a red circle", 2 / 3),
        ("a red circle on top", "a red circle", 3 / 5),
        ("red circle", "a red circle", 0.0),
        ("", "a cat", 0.0),
        ("", "", 1.0),
    ],
)
def test_words_count_at_their_places(written: str, own: str, share: float) -> None:
    assert word_accuracy(written, own) == pytest.approx(share)


def test_both_numbers_are_means_over_images() -> None:
    tokens = Tokens.from_indices(torch.tensor([[[1]], [[2]], [[3]], [[4]]]), 16)
    captions = [f"a photo of the number {number}, mostly grey" for number in (1, 2, 3, 5)]
    metric = CaptionAccuracy(ExampleTokenizer())
    metric.update(Batch(torch.arange(4), None, None, tokens, captions=captions))
    assert metric.compute() == pytest.approx({"caption_words": (3 + 7 / 8) / 4, "caption_exact": 0.75})


def test_tokenizers_that_write_no_captions_are_named() -> None:
    with pytest.raises(NotApplicable, match="identity: it does not write captions"):
        CaptionAccuracy(load_adapter("identity").model)
