"""The authors' MedITok checkpoint (Masaaki-75/meditok, commit d5479ca, MIT).

Sources: models/meditok.py and models/quant.py. Images are in [-1, 1] and 256 px. `img_to_idx` returns indices (B, 8,
256), one per sub-codebook, each position in row-major order; `idx_to_img` takes them. The file is a plain state dict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, SIDE = 256, 16
UNUSED = ("fc_norm.", "projection.", "logit_scale")
"""Prefixes of the tensors that align tokens with captions; only training and features need them."""


class OfficialMedITok(Tokenizer):
    """The authors' tokenizer: each position has one index per sub-codebook."""

    def __init__(self, name: str, net: Any, books: int, codes: int) -> None:
        self.module, self._net, self._books, self._codes = net, net, books, codes
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            num_tokens=SIDE**2,
            codebook={"codes": codes},
            bits_per_token=books * math.log2(codes),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, 16, 16, 8)."""
        indices = self._net.img_to_idx(images).transpose(1, 2).unflatten(1, (SIDE, SIDE))
        return Tokens.from_indices(indices, self._codes, groups=self._books)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self._net.idx_to_img(tokens.tensor.flatten(1, 2).transpose(1, 2))


def load(variant: AdapterConfig, device: str) -> OfficialMedITok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "models.meditok"), variant.config["official"]
    state, found = tensors(variant, "tokenizer")
    with silent():
        options = code.get_meditok_args(img_size=SIZE)
        options.drop_alignment = True
        net: nn.Module = code.build_meditok(options)
    load_checkpoint(variant, net, state, found, UNUSED)
    return OfficialMedITok(variant.name, net.to(device), given["books"], given["codes"])
