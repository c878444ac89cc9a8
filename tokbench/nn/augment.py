"""Data augmentation of whole batches on their device: random crops and colours per image, then Mixup or CutMix."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


def random_resized_crop(images: Tensor, least: float = 0.3, most: float = 1.0, side: int | None = None) -> Tensor:
    """Return a random resized crop of each image (B, 3, H, W) with bilinear interpolation.

    A crop has a share between `least` and `most` of the area and an aspect ratio between 3:4 and 4:3, and is scaled to
    `side` x `side` px, or else to H x W. The random numbers come from the global generator of the images' device.
    """
    count, device = len(images), images.device
    area = torch.empty(count, device=device).uniform_(least, most)
    ratio = torch.empty(count, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = ((torch.rand(count, device=device) * 2 - 1) * (1 - side) for side in (width, height))
    zero = torch.zeros_like(width)
    transforms = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    shape = images.shape[:2] + (images.shape[2:] if side is None else (side, side))
    grid = F.affine_grid(transforms, list(shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def color_jitter(images: Tensor, strength: float = 0.4) -> Tensor:
    """Return images (B, 3, H, W) in [-1, 1] with random brightness, contrast and saturation (color jitter).

    Each of the three is multiplied by its own factor per image, drawn uniformly from [1 - strength, 1 + strength].
    """

    def factor() -> Tensor:
        return 1 + (torch.rand(len(images), 1, 1, 1, device=images.device) * 2 - 1) * strength

    image = (images + 1) * factor() - 1
    mean = image.mean((1, 2, 3), keepdim=True)
    image = (image - mean) * factor() + mean
    grey = image.mean(1, keepdim=True)
    return ((image - grey) * factor() + grey).clamp(-1, 1)


def mixup_or_cutmix(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Apply Mixup (alpha 0.8) or CutMix (alpha 1), each with probability 1/2, to a batch.

    images: (B, 3, H, W). labels: int64 (B,). Returns the mixup_or_cutmix images and soft labels (B, classes).
    """
    if torch.rand(()) < 0.5:
        return v2.MixUp(alpha=0.8, num_classes=classes)(images, labels)
    return v2.CutMix(alpha=1.0, num_classes=classes)(images, labels)
