"""Lower resolution: the same network on smaller images, as a control."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import UsageError
from tokbench.pruning.flops import dense, flops
from tokbench.pruning.pruner import budget
from tokbench.pruning.vit import Sizes, recognise


class LowerResolution(nn.Module):
    """A copy of a transformer for smaller images, with interpolated position embeddings (timm's `set_input_size`).

    It takes images of the original size and downscales them (antialiased bicubic). The side is the one whose FLOPs are
    closest to the budget of `keep`.
    """

    title, source = "lower resolution", "control"

    def __init__(self, model: nn.Module, keep: float) -> None:
        super().__init__()
        if not 0 < keep <= 1:
            raise UsageError(f"keep must lie in (0, 1], but is {keep:g}")
        vit = recognise(model)
        embed: Any = model.patch_embed
        patch, whole = embed.patch_size[0], embed.img_size[0]
        target = budget(vit.sizes, keep) if keep < 1 else flops(vit.sizes, dense(vit.sizes))
        sides = range(patch, whole + 1, patch)
        self.side = min(sides, key=lambda side: (abs(_cost(vit.sizes, side, patch) - target), -side))
        self.vit = copy.deepcopy(model)
        if self.side != whole:
            resized: Any = self.vit
            resized.set_input_size(img_size=(self.side, self.side))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.side:
            images = F.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True)
        return self.vit(images)


def _cost(sizes: Sizes, side: int, patch: int) -> int:
    """Return the FLOPs of the transformer on images of a side."""
    smaller = replace(sizes, patches=(side // patch) ** 2)
    return flops(smaller, dense(smaller))
