"""One-D-Piece as its authors trained it (turingmotors/One-D-Piece, commit 473665d, Apache-2.0).

Facts from modeling/one_d_piece.py and modeling/titok.py: a TiTok that decodes any first k of its N tokens, if the
config says `strict_length_assertion` = false. Images in [0, 1], 256 px. `encode` gives (z, told),
told["min_encoding_indices"] (B, 1, N); `decode_tokens` takes (B, 1, k).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE = 256


class OfficialOneDPiece(Tokenizer):
    """A row of N indices, of which the first k decode, too."""

    def __init__(self, name: str, net: Any, given: dict[str, Any]) -> None:
        self.module, self._net, self._codes = net, net, given["codebook_size"]
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(0.0, 1.0),
            size=SIZE,
            num_tokens=given["num_latent_tokens"],
            codebook={"codes": self._codes},
            bits_per_token=math.log2(self._codes),
            prefixes=True,
        )

    def encode(self, images: Tensor) -> Tokens:
        """(B, 3, 256, 256) in [0, 1] to indices (B, N)."""
        _, told = self._net.encode(images)
        return Tokens.from_indices(told["min_encoding_indices"].flatten(1), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        """Indices (B, k): the decoder gets a shorter row, not a masked one, as in training."""
        return self._net.decode_tokens(tokens.tensor[:, None])


def load(variant: AdapterConfig, device: str) -> OfficialOneDPiece:
    """Raises MissingWeights where the code or the weights are not here."""
    code, given = import_upstream(variant, "modeling.one_d_piece"), variant.config["official"]["model"]
    state, found = tensors(variant, "tokenizer")
    config = {"vq_model": {**given, "strict_length_assertion": False}}
    net: nn.Module = code.OneDPiece({"model": config, "dataset": {"preprocessing": {"crop_size": SIZE}}})
    return OfficialOneDPiece(variant.name, load_checkpoint(variant, net, state, found).to(device), given)
