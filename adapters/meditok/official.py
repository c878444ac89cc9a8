"""The authors' MedITok checkpoint (Masaaki-75/meditok, commit 0500fd7).

Source: models/meditok.py. Images are in [-1, 1] and 256 px. `img_to_idx` returns indices (B, 8, 256) into 8 codebooks
of 4,096 codes for a grid of 16x16 positions in row-major order; `idx_to_img` takes them. The checkpoint is a plain
state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, STEP, GROUPS, CODES = 256, 16, 8, 4096


class OfficialMedITok(Tokenizer):
    """The authors' tokenizer: 8 indices for each 16x16 px."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net = net, net
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            downsample=STEP,
            codebook={"codes": CODES},
            groups=GROUPS,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, 16, 16, 8)."""
        indices = self._net.img_to_idx(images).transpose(1, 2)
        side = SIZE // STEP
        return Tokens.from_indices(indices.unflatten(1, (side, side)), CODES, groups=GROUPS)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self._net.idx_to_img(tokens.tensor.flatten(1, 2).transpose(1, 2).contiguous())


def load(variant: AdapterConfig, device: str) -> OfficialMedITok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code = import_upstream(variant, "models.meditok")
    state, found = tensors(variant, "model")
    with silent():
        net: nn.Module = code.build_meditok(img_size=SIZE)
    return OfficialMedITok(variant.name, load_checkpoint(variant, net, state, found).to(device))
