"""The authors' RecTok checkpoints (Shi-qingyu/RecTok, commit ee87aaf).

Sources: models/rectok.py, models/ema.py and main_diffusion.py. Images are in [-1, 1], 256 px. `tokenize` returns the
means of the posterior (B, 128, 16, 16), since `sampling` is False by default and noise is only added in training, and
`detokenize` returns images in [0, 1]. A checkpoint is a dict that contains the averaged weights under `model_ema` or
else the weights under `model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, PATCH = 256, 16

UNUSED = ("sem_foundation_models.", "sem_decoders.")
"""Prefixes of the foundation models and of the semantic decoders, which only training uses."""


class OfficialRecTok(Tokenizer):
    """The authors' tokenizer: 128 values for each 16x16 px, the means of the posterior."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net = net, net
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(-1.0, 1.0),
            size=SIZE,
            downsample=PATCH,
            bits_per_token=16.0 * net.token_channels,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to latents (B, 16, 16, 128)."""
        return Tokens.from_latents(self._net.tokenize(images).permute(0, 2, 3, 1), tokens=(SIZE // PATCH) ** 2)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self._net.detokenize(tokens.tensor.float().permute(0, 3, 1, 2)) * 2 - 1


def load(variant: AdapterConfig, device: str) -> OfficialRecTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "models.rectok"), variant.config["official"]["model"]
    state, found = tensors(variant, "tokenizer", within=("model_ema", "model"))
    with silent():
        net = code.rectok_BB(img_size=SIZE, patch_size=PATCH, foundation_model_type="", **given)
    return OfficialRecTok(variant.name, load_checkpoint(variant, net, state, found, UNUSED).to(device))
