"""`identity`: the image itself, as raw 8-bit RGB. It gives the ceiling of every metric and checks the pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokbench.protocol.rounding import from_uint8, to_uint8
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Identity(Tokenizer):
    """Raw pixels, 24 bits each."""

    spec = TokenizerSpec("identity", "codec")

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_samples(to_uint8(images))

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return from_uint8(tokens.tensor)


def load(name: str) -> Identity:
    """Return the identity adapter."""
    return Identity()
