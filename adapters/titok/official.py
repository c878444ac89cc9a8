"""The authors' TiTok checkpoints (bytedance/1d-tokenizer, commit 942a96f, Apache-2.0; README_TiTok.md).

Sources: modeling/titok.py and modules/blocks.py. Images are in [0, 1], 256 px. `encode` returns (z, details), where
details is a dict with `min_encoding_indices` (B, 1, N), or the posterior of a VAE. The first checkpoints reshape
(B, N, W) to (B, W, N, 1) without transposing; the authors' class does so if the config has no `is_legacy`.
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


class OfficialTiTok(Tokenizer):
    """The authors' tokenizer: N indices per image, or N vectors if the bottleneck is a VAE."""

    def __init__(self, name: str, net: Any, given: dict[str, Any]) -> None:
        self.module, self._net = net, net
        self._count, self._codes = given["num_latent_tokens"], given.get("codebook_size")
        discrete = self._codes is not None
        self.spec = TokenizerSpec(
            name,
            kind="discrete" if discrete else "continuous",
            range=(0.0, 1.0),
            size=SIZE,
            num_tokens=self._count,
            codebook={"codes": self._codes} if discrete else {},
            bits_per_token=math.log2(self._codes) if discrete else 16.0 * given["token_size"],
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [0, 1] to indices (B, N), or to the posterior's means (B, C, 1, N)."""
        _, details = self._net.encode(images)
        if self._codes is None:
            return Tokens.from_latents(details.mode(), tokens=self._count)
        return Tokens.from_indices(details["min_encoding_indices"].flatten(1), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        data = tokens.tensor
        return self._net.decode_tokens(data.float() if self._codes is None else data[:, None])


def load(variant: AdapterConfig, device: str) -> OfficialTiTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "modeling.titok"), variant.config["official"]["model"]
    state, found = tensors(variant, "tokenizer")
    net: nn.Module = code.TiTok({"model": {"vq_model": given}, "dataset": {"preprocessing": {"crop_size": SIZE}}})
    return OfficialTiTok(variant.name, load_checkpoint(variant, net, state, found).to(device), given)
