"""The vision transformers of DINOv2 (arXiv:2304.07193) and CLIP (arXiv:2103.00020), for weights that users provide.

Tensors are read under the names of the authors' DINOv2 files, or of the files for the library transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OFFSET = 0.1
"""DINOv2 adds it to the number of patches before it computes the factor by which positions are interpolated."""


@dataclass(frozen=True)
class ViTShape:
    """The sizes of a vision transformer.

    grid: patches per side for which it has positions. projection: length of the vector after the last layer; None for
    the class token itself. clip: whether it is CLIP's variant: a norm before the first block, an approximate GELU, no
    layer scale, no bias of patches.
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: int
    projection: int | None = None
    clip: bool = False


SHAPES = {
    "dinov2-vitl14": ViTShape(1024, 24, 16, 14, 37),
    "clip-vitl14-336": ViTShape(1024, 24, 16, 14, 24, projection=768, clip=True),
}
"""The sizes of the published networks."""


class ViT(nn.Module):
    """Maps normalised images (B, 3, H, W), with H and W multiples of the patch, to the normalised class token (B,
    width), or to its projection."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        width, self.shape = shape.width, shape
        eps = 1e-5 if shape.clip else 1e-6
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, width))
        self.patch_embed = nn.Conv2d(3, width, shape.patch, shape.patch, bias=not shape.clip)
        self.norm_pre = nn.LayerNorm(width, eps) if shape.clip else nn.Identity()
        self.blocks = nn.ModuleList(_Block(shape, eps) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width, eps)
        self.head = nn.Linear(width, shape.projection, bias=False) if shape.projection else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.norm_pre(tokens + self._positions(*patches.shape[2:]))
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.head(self.norm(tokens[:, 0]))
        return found

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the positions of the class token and of `height` x `width` patches, (1, 1 + n, width)."""
        grid = self.shape.grid
        if (height, width) == (grid, grid):
            return self.pos_embed
        maps = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        scale = ((height + _OFFSET) / grid, (width + _OFFSET) / grid)
        maps = F.interpolate(maps, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)


class _Block(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to them."""

    def __init__(self, shape: ViTShape, eps: float) -> None:
        super().__init__()
        width = shape.width
        self._heads, self._quick = shape.heads, shape.clip
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        if not shape.clip:
            self.gamma1, self.gamma2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(tokens)).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        tokens = tokens + self._scaled(self.proj(mixed), "gamma1")
        inner = self.fc1(self.norm2(tokens))
        inner = inner * torch.sigmoid(1.702 * inner) if self._quick else F.gelu(inner)
        return tokens + self._scaled(self.fc2(inner), "gamma2")

    def _scaled(self, tokens: Tensor, gamma: str) -> Tensor:
        return tokens if self._quick else tokens * getattr(self, gamma)


_NAMES = {
    # The authors' DINOv2.
    r"patch_embed\.proj": "patch_embed",
    r"blocks\.(\d+)\.attn\.(qkv|proj)": r"blocks.\1.\2",
    r"blocks\.(\d+)\.mlp\.(fc\d)": r"blocks.\1.\2",
    r"blocks\.(\d+)\.ls(\d)\.gamma": r"blocks.\1.gamma\2",
    # DINOv2 in transformers, and the names of attention in files that version 5 writes.
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed",
    r"encoder\.layer\.(\d+)\.(norm\d)": r"blocks.\1.\2",
    r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)": r"blocks.\1.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense": r"blocks.\1.proj",
    r"encoder\.layer\.(\d+)\.attention\.([qkv])_proj": r"blocks.\1.\2",
    r"encoder\.layer\.(\d+)\.attention\.o_proj": r"blocks.\1.proj",
    r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"blocks.\1.gamma\2",
    r"encoder\.layer\.(\d+)\.mlp\.(fc\d)": r"blocks.\1.\2",
    r"layernorm": "norm",
    # CLIP in transformers.
    r"vision_model\.embeddings\.class_embedding": "cls_token",
    r"vision_model\.embeddings\.position_embedding\.weight": "pos_embed",
    r"vision_model\.embeddings\.patch_embedding": "patch_embed",
    r"vision_model\.pre_layrnorm": "norm_pre",
    r"vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)": r"blocks.\1.norm\2",
    r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj": r"blocks.\1.\2",
    r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj": r"blocks.\1.proj",
    r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(fc\d)": r"blocks.\1.\2",
    r"vision_model\.post_layernorm": "norm",
    r"visual_projection": "head",
}
"""Published names, as regular expressions of their beginning, and the names of `ViT`."""

_UNUSED = re.compile(r"(embeddings\.)?mask_token|text_model\..*|text_projection\..*|logit_scale|.*\.position_ids")
"""Tensors of the published files that features do not need: the mask of DINOv2's training, and CLIP's text tower."""

_QKV = (("query", "key", "value"), ("q", "k", "v"))


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of `ViT`. Unknown names stay as they are, so that a strict load names them."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if _UNUSED.fullmatch(name):
            continue
        for pattern, ours in _NAMES.items():
            if match := re.fullmatch(rf"(?:{pattern})((?:\.weight|\.bias)?)", name):
                name = match.expand(ours) + match[match.lastindex or 0]
                break
        if name == "cls_token":
            value = value.reshape(1, 1, -1)
        elif name == "pos_embed":
            value = value.reshape(1, -1, value.shape[-1])
        found[name] = value
    for block in sorted({name.split(".")[1] for name in found if name.startswith("blocks.")}):
        for end in ("weight", "bias"):
            for names in _QKV:
                keys = [f"blocks.{block}.{one}.{end}" for one in names]
                if all(key in found for key in keys):
                    found[f"blocks.{block}.qkv.{end}"] = torch.cat([found.pop(key) for key in keys])
    return found
