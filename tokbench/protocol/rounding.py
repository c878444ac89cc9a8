"""Conversions between floating-point images and 8-bit pixels, with every rounding mode of the protocols."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.protocol.protocol import Rounding


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to uint8 in [0, 255], clamping and rounding to nearest. The shape is unchanged."""
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)  # in place, since allocation would take most time


def from_uint8(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels in [0, 255] to float32 in [0, 1]. The shape is unchanged."""
    return pixels.to(torch.float32, copy=True).div_(255)


def quantize(images: Tensor, rounding: Rounding) -> Tensor:
    """Round images in [0, 1] to multiples of 1 / 255 with the given mode, float32. The mode `none` only clamps."""
    if rounding == "nearest":
        return from_uint8(to_uint8(images))
    if rounding == "none":
        return images.clamp(0, 1)
    if rounding == "truncate-signed":  # both steps use float32 to reproduce the rounding errors of such pipelines
        images = ((levels(images) / 127.5 - 1).float() + 1) / 2
    return from_uint8((images.clamp(0, 1) * 255).to(torch.uint8))


def levels(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Convert images in [0, 1] to levels in [0, 255]. Integer levels are exact, without the float32 error of 2e-5."""
    scaled = images.to(dtype) * 255
    whole = scaled.round()
    return torch.where((scaled - whole).abs() < 1e-4, whole, scaled)
