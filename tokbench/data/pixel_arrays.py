"""Images as arrays of uint8: which axis contains the channels, and the conversion to RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_CHANNELS = (1, 3, 4)
"""Numbers of channels: grey, RGB, RGB with alpha."""


def channel_axis(shape: Sequence[int]) -> int | None:
    """Return the axis of the channels of one image: 2 for (H, W, C), 0 for (C, H, W), None for grey (H, W).

    Raises ValueError if the shape is not that of an image.
    """
    if min(shape, default=0) < 1 or len(shape) not in (2, 3):
        raise ValueError(f"an array of shape {tuple(shape)} is no image; (H, W, C), (C, H, W) or (H, W) is expected")
    if len(shape) == 2:
        return None
    for axis in (2, 0):
        if shape[axis] in _CHANNELS:
            return axis
    raise ValueError(f"an array of shape {tuple(shape)} has no axis of 1, 3 or 4 channels")


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return one image, uint8 of any accepted shape, as (H, W, 3). Transparency is composited over white.

    Raises ValueError if the shape is not that of an image.
    """
    axis = channel_axis(pixels.shape)
    if axis is None:
        pixels = pixels[:, :, None]
    elif axis == 0:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        layer = Image.fromarray(np.ascontiguousarray(pixels))
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    return np.ascontiguousarray(pixels)


def size_of(shape: Sequence[int]) -> tuple[int, int]:
    """Return width and height of one image of this shape. Raises ValueError if it is no image."""
    axis = channel_axis(shape)
    height, width = (shape[1], shape[2]) if axis == 0 else (shape[0], shape[1])
    return width, height
