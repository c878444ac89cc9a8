"""The author's ViTok v2 checkpoints (Na-VAE/vitok-release, commit a90f23b, MIT), a reimplementation of Meta's ViTok.

Sources: vitok/models/ae.py, pp/ops.py and pretrained.py. Images are in [-1, 1], as patches (B, N, 3 p p) with their row
and column. `encode` returns a dict with `z` (B, N, C), normalised over channels, so nothing is sampled. The weights are
in two safetensors files. The attention is FlashAttention in bfloat16, or PyTorch's with `attn_backend` = "sdpa".
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, tensors
from tokbench.tokenizers.tokens import Tokens


class OfficialViTok(Tokenizer):
    """The author's tokenizer: C values per patch, computed in float32; the author uses bfloat16 and 8-bit floats."""

    def __init__(self, name: str, net: Any, ops: ModuleType) -> None:
        self.module, self._net, self._ops, self._patch = net, net, ops, net.spatial_stride
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(-1.0, 1.0),
            multiple=self._patch,
            downsample=self._patch,
            bits_per_token=16.0 * net.channels_per_token,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to latents (B, H / p, W / p, C)."""
        rows, columns = images.shape[2] // self._patch, images.shape[3] // self._patch
        cut = self._ops.patchify(self._patch, rows * columns)
        each = [cut(image.cpu()) for image in images]  # `patchify` creates its indices on the CPU
        keys = ("patches", "patch_mask", "row_idx", "col_idx")
        patches = {key: torch.stack([one[key] for one in each]).to(images.device) for key in keys}
        latents = self._net.encode(patches)["z"]
        return Tokens.from_latents(latents.unflatten(1, (rows, columns)), tokens=rows * columns)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = tokens.tensor.float()
        batch, rows, columns, _ = latents.shape
        place = torch.arange(rows * columns, device=latents.device).expand(batch, -1)
        inputs = {
            "z": latents.flatten(1, 2),
            "patch_mask": torch.ones_like(place, dtype=torch.bool),
            "row_idx": place // columns,
            "col_idx": place % columns,
        }
        return self._ops.unpatchify(self._net.decode(inputs), patch=self._patch)


def load(variant: AdapterConfig, device: str) -> OfficialViTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, ops = import_upstream(variant, "vitok.models.ae"), import_upstream(variant, "vitok.pp.ops")
    encoder, _ = tensors(variant, "encoder")
    decoder, found = tensors(variant, "decoder")
    net: nn.Module = code.AE(**code.decode_variant(variant.config["official"]["variant"]), attn_backend="sdpa")
    return OfficialViTok(variant.name, load_checkpoint(variant, net, encoder | decoder, found).to(device), ops)
