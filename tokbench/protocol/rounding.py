"""Between floating-point images and 8-bit pixels: every rounding that there is."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.protocol.protocol import Rounding


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] to uint8 0..255, clamped and rounded to nearest."""
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)  # in place: fresh memory costs more than arithmetic


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return pixels.to(torch.float32, copy=True).div_(255)


def quantize(images: Tensor, rounding: Rounding) -> Tensor:
    """Images in [0, 1] to the 8-bit grid k / 255 as a protocol says, float32; clamped only for `none`."""
    if rounding == "nearest":
        return from_uint8(to_uint8(images))
    if rounding == "none":
        return images.clamp(0, 1)
    if rounding == "truncate-signed":  # both steps in float32, where they lose what such pipelines lose
        images = ((levels(images) / 127.5 - 1).float() + 1) / 2
    return from_uint8((images.clamp(0, 1) * 255).to(torch.uint8))


def levels(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images in [0, 1] to levels 0..255. Whole levels come out exact: float32 held them up to 2e-5."""
    scaled = images.to(dtype) * 255
    whole = scaled.round()
    return torch.where((scaled - whole).abs() < 1e-4, whole, scaled)
