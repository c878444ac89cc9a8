"""The authors' One-D-Piece checkpoints (turingmotors/One-D-Piece, commit 473665d, Apache-2.0).

Sources: modeling/one_d_piece.py and modeling/titok.py. The model is a TiTok that decodes the first k of its N tokens
for any k, if the config has `strict_length_assertion` = false. Images are in [0, 1], 256 px. `encode` returns
(z, details) with details["min_encoding_indices"] (B, 1, N); `decode_tokens` takes (B, 1, k).
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
    """The authors' tokenizer: N indices per image, of which the first k can be decoded for any k."""

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
        """Encode (B, 3, 256, 256) in [0, 1] to indices (B, N)."""
        _, details = self._net.encode(images)
        return Tokens.from_indices(details["min_encoding_indices"].flatten(1), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        """Decode indices (B, k); as in training the decoder gets a shorter sequence, without masking."""
        return self._net.decode_tokens(tokens.tensor[:, None])


def load(variant: AdapterConfig, device: str) -> OfficialOneDPiece:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "modeling.one_d_piece"), variant.config["official"]["model"]
    state, found = tensors(variant, "tokenizer")
    config = {"vq_model": {**given, "strict_length_assertion": False}}
    net: nn.Module = code.OneDPiece({"model": config, "dataset": {"preprocessing": {"crop_size": SIZE}}})
    return OfficialOneDPiece(variant.name, load_checkpoint(variant, net, state, found).to(device), given)
