"""Grounds and accidents: colour ramps, grain, a page laid down a little askew."""

from __future__ import annotations

import numpy as np
from PIL import Image

from layouts.canvas import SIZE, Colour


def gradient(
    start: tuple[int, int, int], end: tuple[int, int, int], angle: float = 90, size: int = SIZE
) -> Image.Image:
    """A straight colour ramp; `angle` 0 runs to the right, 90 downwards."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    turn = np.deg2rad(angle)
    ramp = x * np.cos(turn) + y * np.sin(turn)
    ramp = ((ramp - ramp.min()) / (ramp.max() - ramp.min()))[..., None]
    mixed = np.asarray(start) * (1 - ramp) + np.asarray(end) * ramp
    return Image.fromarray(mixed.round().astype(np.uint8))


def grain(image: Image.Image, strength: float, seed: int, step: int = 4) -> Image.Image:
    """Grey Gaussian noise (standard deviation in grey levels), in steps that keep the PNG small."""
    noise = np.random.RandomState(seed).normal(0, strength, (image.height, image.width))  # its stream is frozen
    noise = (noise / step).round() * step
    return Image.fromarray((np.asarray(image) + noise[..., None]).clip(0, 255).astype(np.uint8))


def tilt(image: Image.Image, angle: float, ground: Colour = "white") -> Image.Image:
    """The page turned by a few degrees, as a scan or a photo would have it, on a ground of that colour."""
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=ground)
