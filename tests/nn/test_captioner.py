"""The caption decoder: words depend on earlier words and on the visual tokens, and greedy decoding follows them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tokbench.data.vocabulary import LENGTH, PADDING, decode_captions, encode_captions
from tokbench.nn.captioner import CaptionDecoder

CAPTIONS = encode_captions(["a red circle", "two blue squares on a white background"])


@pytest.fixture
def model() -> CaptionDecoder:
    torch.manual_seed(0)
    made = CaptionDecoder(4, 3, width=16, depth=2, heads=2).eval()
    torch.nn.init.normal_(made.head.weight)
    return made


def test_a_word_does_not_depend_on_itself_and_later_ones(model: CaptionDecoder) -> None:
    visual, other = torch.randn(2, 4, 3), CAPTIONS.clone()
    other[:, 2] = 7
    with torch.no_grad():
        before, after = model(visual, CAPTIONS), model(visual, other)
        assert before.shape == (2, LENGTH, model.words.shape[0])
        torch.testing.assert_close(before[:, :3], after[:, :3])
        assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)
        assert not torch.allclose(before[:, 0], model(visual.flip(0), CAPTIONS)[:, 0], atol=1e-3)


def test_the_loss_counts_words_and_the_end(model: CaptionDecoder) -> None:
    visual = torch.randn(2, 4, 3)
    with torch.no_grad():
        logits = model(visual, CAPTIONS).log_softmax(-1)
        parts = [
            -logits[row, place, CAPTIONS[row, place]] for row, words in ((0, 3), (1, 7)) for place in range(words + 1)
        ]
        torch.testing.assert_close(model.loss(visual, CAPTIONS), torch.stack(parts).mean())


def test_greedy_decoding_agrees_with_all_words_at_once(model: CaptionDecoder) -> None:
    visual = torch.randn(8, 4, 3)
    found = model.describe(visual)
    with torch.no_grad():
        again = model(visual, found).argmax(-1)
    ended = F.pad((found == PADDING).cumsum(1)[:, :-1], (1, 0)) > 0
    assert torch.equal(torch.where(ended, PADDING, again), found)


def test_captions_are_decoded_up_to_their_end() -> None:
    assert decode_captions(CAPTIONS) == ["a red circle", "two blue squares on a white background"]
    assert decode_captions(torch.tensor([[1, 0, 5]])) == ["?"]
    assert decode_captions(encode_captions(["a " * LENGTH])) == [" ".join(["a"] * LENGTH)]
