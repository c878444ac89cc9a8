"""`resize.<factor>`: area averaging down, bicubic interpolation up. It is the baseline for a tokenizer with a latent of
that size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tokbench.errors import UsageError
from tokbench.protocol.rounding import to_uint8
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.codecs import from_pillow, to_pillow
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Resize(Tokenizer):
    """Stores the mean of each factor x factor block as 8-bit RGB (24 bits). Pillow's bicubic filter enlarges it
    again."""

    def __init__(self, name: str, factor: int) -> None:
        self.factor = factor
        self.spec = TokenizerSpec(name, "codec", multiple=factor)

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_samples(to_uint8(avg_pool2d(images, self.factor)))

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        height, width = tokens.tensor.shape[2:]
        large = (width * self.factor, height * self.factor)
        return from_pillow([small.resize(large, Image.Resampling.BICUBIC) for small in to_pillow(tokens.tensor)])


def load(name: str) -> Resize:
    """Return the adapter for a name such as `resize.2`. Raises UsageError where the factor is not an integer of at
    least 2."""
    _, _, factor = name.partition(".")
    if not re.fullmatch(r"[2-9]|[1-9][0-9]+", factor):
        raise UsageError(f"'{name}': the factor must be an integer of at least 2, as in resize.2")
    return Resize(name, int(factor))
