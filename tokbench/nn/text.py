"""Text encoders of captions (numbers of words, `tokbench.data.vocabulary`): fixed random ones and trained ones.

No weights of a language model are available here; both know the closed vocabulary of tokbench's captions only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokbench.data.vocabulary import LENGTH, PADDING, SIZE
from tokbench.nn.vit import Transformer, random_parameter


class RandomTextEncoder(nn.Module):
    """A fixed random text encoder: each word has a random vector with a length of about 1, which is not trained.

    The vector of the place in the caption, random as well and half as long, is added. The vectors are stored with the
    model's weights. seed: determines the vectors.
    """

    words: Tensor
    places: Tensor

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.width = width
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("words", torch.randn(SIZE, width, generator=generator) * width**-0.5)
        self.register_buffer("places", torch.randn(LENGTH, width, generator=generator) * 0.5 * width**-0.5)

    def forward(self, captions: Tensor) -> Tensor:
        """Map the words of captions (B, L) to vectors (B, L, width); those of empty places are 0."""
        return (self.words[captions] + self.places[: captions.shape[1]]) * (captions != PADDING)[..., None]


class TextEncoder(nn.Module):
    """A small text encoder that is trained with the model: word and place embeddings and a transformer.

    Words attend to all words of the caption, and not to empty places.
    """

    def __init__(self, width: int, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.words, self.places = random_parameter(SIZE, width), random_parameter(LENGTH, width)
        self.body = Transformer(width, depth, heads)

    def forward(self, captions: Tensor) -> Tensor:
        """Map the words of captions (B, L) to vectors (B, L, width); those of empty places are 0."""
        present = captions != PADDING
        return (
            self.body(self.words[captions] + self.places[: captions.shape[1]], present[:, None, None])
            * present[..., None]
        )


def pool_words(vectors: Tensor) -> Tensor:
    """Return the mean (B, width) of the vectors (B, L, width) of each caption's words, without empty places."""
    present = (vectors != 0).any(2, keepdim=True)
    return vectors.sum(1) / present.sum(1).clamp(min=1)
