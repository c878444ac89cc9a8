"""Between floating-point images and 8-bit pixels: the one rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8 0..255, clamped and rounded to nearest: the one rounding to 8 bits."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255
