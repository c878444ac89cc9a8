"""Augmentation of whole batches where they lie: another crop and other colours for each image, then mixtures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


def cropped(images: Tensor, least: float = 0.3) -> Tensor:
    """From each of (B, 3, H, W) another rectangle, `least` to all of its area and 3:4 to 4:3, scaled to the whole
    (random resized crop), bilinear."""
    count, device = len(images), images.device
    area = torch.empty(count, device=device).uniform_(least, 1)
    ratio = torch.empty(count, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = ((torch.rand(count, device=device) * 2 - 1) * (1 - side) for side in (wide, high))
    zero = torch.zeros_like(wide)
    maps = torch.stack([torch.stack([wide, zero, x], 1), torch.stack([zero, high, y], 1)], 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def coloured(images: Tensor, strength: float = 0.4) -> Tensor:
    """Brightness, contrast and saturation of each of (B, 3, H, W) in [-1, 1] times 1 - strength to 1 + strength."""

    def factor() -> Tensor:
        return 1 + (torch.rand(len(images), 1, 1, 1, device=images.device) * 2 - 1) * strength

    made = (images + 1) * factor() - 1
    middle = made.mean((1, 2, 3), keepdim=True)
    made = (made - middle) * factor() + middle
    grey = made.mean(1, keepdim=True)
    return ((made - grey) * factor() + grey).clamp(-1, 1)


def mixed(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mixup (alpha 0.8) or CutMix (alpha 1) of the batch, as often one as the other, and soft labels (B, classes)."""
    if torch.rand(()) < 0.5:
        return v2.MixUp(alpha=0.8, num_classes=classes)(images, labels)
    return v2.CutMix(alpha=1.0, num_classes=classes)(images, labels)
