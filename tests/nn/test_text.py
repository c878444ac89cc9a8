"""Text encoders: empty places change nothing, word order matters, mirrored captions state the mirrored relation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokbench.data.vocabulary import encode_captions, mirror_captions
from tokbench.nn.text import RandomTextEncoder, TextEncoder, pool_words
from tokbench.nn.trainable import TrainingData
from tokbench.training.loop import TrainConfig, batches

CAPTIONS = encode_captions(["a red circle left of a blue square", "a blue square left of a red circle", "a cat"])


@pytest.fixture(params=[RandomTextEncoder, TextEncoder])
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param(32).eval()


def test_empty_places_change_nothing(encoder: nn.Module) -> None:
    whole, short = encoder(CAPTIONS), encoder(CAPTIONS[:, :8])
    torch.testing.assert_close(whole[:, :8], short)
    assert whole[:, 8:].eq(0).all() and whole[2, 2:].eq(0).all()
    torch.testing.assert_close(pool_words(whole)[2], whole[2, :2].mean(0))


def test_the_order_of_words_matters(encoder: nn.Module) -> None:
    vectors = encoder(CAPTIONS)
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)


def test_the_random_encoder_is_fixed_and_stored() -> None:
    first, second = RandomTextEncoder(16), RandomTextEncoder(16)
    assert torch.equal(first.words, second.words) and not list(first.parameters())
    assert set(first.state_dict()) == {"words", "places"}
    assert not torch.equal(first.words, RandomTextEncoder(16, seed=1).words)


def test_training_batches_have_the_captions_of_their_images() -> None:
    count = 48
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)
    pixels[:, 0, :, 0] += 100  # the left half is brighter in red, so that mirrored images are recognised
    texts = [f"a {'red' if at % 2 else 'blue'} circle left of a cat" for at in range(count)]
    data = TrainingData(pixels, captions=encode_captions(texts))
    mirrored = encode_captions([text.replace("left", "right") for text in texts])
    assert torch.equal(mirror_captions(data.captions), mirrored)
    seen = set()
    for _, batch in zip(range(6), batches(data, TrainConfig(images=1, batch=16), "cpu"), strict=False):
        levels = ((batch.images + 1) * 127.5).round().long()
        for image, caption in zip(levels, batch.captions, strict=True):
            flipped = bool(image[0, 0, 0] < image[0, 0, 1])
            number = int(image[1, 0, 0])
            assert torch.equal(caption, (mirrored if flipped else data.captions)[number])
            seen.add(flipped)
    assert seen == {True, False}
