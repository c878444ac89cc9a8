"""The authors' TokenFlow checkpoints (ByteFlow-AI/TokenFlow, commit 9812da0, Apache-2.0).

Sources: tokenflow/tokenizer/vq_model.py, reconstruction_vq_ddp.py and scripts/reconstruction_vq*.sh. Images are in
[-1, 1]. `encode` returns (vectors, losses, indices) with the indices (B, M) of all scales, coarsest first; `decode`
takes the sum of the upsampled vectors (B, 40, h, w) and returns teacher features and pixels. The authors' `decode_code`
uses a name that the module does not import, so the sum is computed here. A checkpoint is a dict that contains the
weights under `ema`, `model` or `state_dict`, those of the semantic encoder included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

CODES = 32_768
CLIP = {"input_resolution": 224, "patch_size": 16, "width": 768, "layers": 12, "heads": 12, "output_dim": 512}
SIGLIP = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


class OfficialTokenFlow(Tokenizer):
    """The authors' tokenizer: residual indices over increasing grids, each for a semantic and a pixel code."""

    def __init__(self, name: str, net: Any, size: int) -> None:
        self.module, self._net, self._sides = net, net, list(net.scale_rq_layers)
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=size,
            num_tokens=sum(side**2 for side in self._sides),
            codebook={"codes": CODES},
            bits_per_token=math.log2(CODES),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, size, size) in [-1, 1] to indices (B, M) of all scales."""
        return Tokens.from_indices(self._net.encode(images)[2], CODES)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        last, total = self._sides[-1], torch.zeros(())
        for side, indices in zip(self._sides, tokens.tensor.split([side**2 for side in self._sides], 1), strict=True):
            grid = self._net.quantize.get_codebook_entry(indices).transpose(1, 2).unflatten(2, (side, side))
            total = total.to(grid) + F.interpolate(grid, size=(last, last), mode="bicubic")
        return self._net.decode(total)[1]


def load(variant: AdapterConfig, device: str) -> OfficialTokenFlow:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "tokenflow.tokenizer.vq_model"), variant.config["official"]
    state, found = tensors(variant, "model", ("ema", "model", "state_dict"))
    with silent(), _untrained(code):
        net: nn.Module = code.VQ_models["TokenFlow"](
            codebook_size=CODES,
            codebook_embed_dim=8,
            semantic_code_dim=32,
            teacher=given["teacher"],
            enhanced_decoder=given["enhanced_decoder"],
            infer_interpolate=given["infer_interpolate"],
        )
    return OfficialTokenFlow(variant.name, load_checkpoint(variant, net, state, found).to(device), given["size"])


@contextmanager
def _untrained(code: ModuleType) -> Iterator[None]:
    """Make the authors' constructor create CLIP and SigLIP without downloading weights, which the checkpoint holds."""
    clip, siglip = code.clip.load_clip_vision, code.SiglipVisionModel

    def vision(name: str, download_root: str | None = None) -> nn.Module:
        visual: nn.Module = code.clip.VisionTransformer(**CLIP)
        del visual.proj
        return visual

    code.clip.load_clip_vision = vision
    code.SiglipVisionModel = SimpleNamespace(from_pretrained=lambda name: siglip(code.SiglipVisionConfig(**SIGLIP)))
    try:
        yield
    finally:
        code.clip.load_clip_vision, code.SiglipVisionModel = clip, siglip
