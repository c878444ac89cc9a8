"""The authors' GigaTok checkpoints (SilentView/GigaTok, commit 182920c, MIT).

Sources: tokenizer/tokenizer_image/vq/vq_vit_model.py, reconstruction_ddp.py, utils/model_init.py and configs/vq. Images
are in [-1, 1], 256 px. `encode` returns (z, losses, (_, _, indices)) with flat indices (B N,); `decode_code` takes them
and z's shape (B, D, 1, N). A checkpoint is a dict that contains the weights under `ema` or else `model`.
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

UNUSED = ("s1to2decoder.distill_mlp.",)
"""Prefix of the head that predicts DINOv2's features; only training uses it."""


class OfficialGigaTok(Tokenizer):
    """The authors' tokenizer: N indices per image, whose order follows the queries, coarse to fine."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net, self._codes = net, net, net.config.codebook_size
        self._count, self._dim = net.config.num_latent_tokens, net.config.codebook_embed_dim
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=256,
            num_tokens=self._count,
            codebook={"codes": self._codes},
            bits_per_token=math.log2(self._codes),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, N)."""
        _, _, (_, _, indices) = self._net.encode(images)
        return Tokens.from_indices(indices.reshape(len(images), -1), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        indices = tokens.tensor
        return self._net.decode_code(indices.flatten(), (len(indices), self._dim, 1, indices.shape[1]))


def load(variant: AdapterConfig, device: str) -> OfficialGigaTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code = import_upstream(variant, "tokenizer.tokenizer_image.vq.vq_vit_model")
    state, found = tensors(variant, "model", ("ema", "model", "state_dict"))
    # Sizes are given for encoder and decoder; model_size must then be None, which TOML cannot express.
    arguments = code.VQVitModelPlusArgs(model_size=None, **variant.config["official"]["model"])
    net: nn.Module = code.VQVitModelPlus(arguments)
    return OfficialGigaTok(variant.name, load_checkpoint(variant, net, state, found, UNUSED).to(device))
