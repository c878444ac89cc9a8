"""toy: the quantized mean colour of each patch, a tokenizer without weights, for tests and as a template."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Toy(Tokenizer):
    """A tokenizer with one index per patch, its mean colour with `levels` values per channel; decoding is bicubic."""

    def __init__(self, name: str, patch: int, levels: int) -> None:
        self.patch, self.levels = patch, levels
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(0.0, 1.0),
            multiple=patch,
            downsample=patch,
            codebook={"codes": levels**3},
            bits_per_token=3 * torch.tensor(levels).log2().item(),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [0, 1] to indices (B, H / patch, W / patch)."""
        digits = (avg_pool2d(images, self.patch) * (self.levels - 1)).round().long()  # (B, 3, h, w), 0 to levels - 1
        codes = (digits[:, 0] * self.levels + digits[:, 1]) * self.levels + digits[:, 2]
        return Tokens.from_indices(codes, self.levels**3)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        codes = tokens.tensor
        digits = torch.stack([codes // self.levels**2, codes // self.levels % self.levels, codes % self.levels], dim=1)
        return interpolate(digits.float() / (self.levels - 1), scale_factor=self.patch, mode="bicubic")


def load(variant: AdapterConfig, device: str) -> Toy:
    """Return the tokenizer that a TOML file of this folder describes; tokbench calls this function."""
    return Toy(variant.name, **variant.config["model"])
