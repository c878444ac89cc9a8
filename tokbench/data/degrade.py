"""Draws rain or noise into an image, blurs it, or compresses it as JPEG. The result depends on the image's pixels and
on the degradation only.

The random numbers of an image come from a seed that is a hash of its pixels. They therefore do not depend on its
position, on the number of images, or on the process that reads it, and an image is always degraded in the same way.
"""

from __future__ import annotations

import hashlib
import io
import math

import numpy as np
from PIL import Image

from tokbench.data.synthetic.raster import noise, to_pixels
from tokbench.protocol.degradation import Degradation

_STREAKS = 1.6
"""The number of streaks of rain with a level of 1 on a square image, divided by its side: 102 at 64 px. Their length
grows with the side, so that rain covers the same share of images of all sizes."""

_BRIGHTEST = 200.0
"""The levels that the brightest streak adds at its middle."""


def degrade(pixels: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Return the degraded pixels, uint8 (H, W, 3), as an image file would hold them.

    pixels: levels (H, W, 3), uint8, or float32 in [0, 255].
    """
    level = degradation.level
    if degradation.kind == "jpeg":
        return _jpeg(to_pixels(pixels), int(level))
    if degradation.kind == "blur":
        return _blurred(pixels, level)
    seed = _seed(pixels, degradation)
    if degradation.kind == "noise":
        return to_pixels(pixels + level * noise(seed, pixels.size).reshape(pixels.shape))
    return to_pixels(pixels + _rain(pixels.shape[0], pixels.shape[1], level, seed)[:, :, None])


def _seed(pixels: np.ndarray, degradation: Degradation) -> int:
    digest = hashlib.sha256(f"{degradation.kind} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)  # Pillow's default chroma subsampling is 4:2:0
    return np.array(Image.open(buffer))


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.filters import gaussian  # imported here, since it is slow to import and rarely needed

    return to_pixels(gaussian(pixels.astype(np.float64), sigma, mode="mirror", preserve_range=True, channel_axis=-1))


def _rain(height: int, width: int, level: float, seed: int) -> np.ndarray:
    """Return the levels (H, W) that streaks of rain add.

    The streaks of an image fall in nearly one direction, up to 30 degrees from the vertical. Each is one pixel wide and
    darker towards both ends; its length is 6 to 18 % of the longer side, and its brightness varies from a fifth to the
    full value. Streaks that overlap add up.
    """
    longest = max(height, width)
    count = max(1, round(level * _STREAKS * height * width / longest))
    draws = np.random.PCG64(seed).random_raw(1 + 5 * count) / 2.0**64  # NumPy guarantees this sequence for a seed
    tilt, drawn = math.radians(60 * draws[0] - 30), draws[1:].reshape(5, count)
    length = np.maximum(2.0, (0.06 + 0.12 * drawn[0]) * longest)
    angle = tilt + math.radians(6) * (drawn[1] - 0.5)
    x, y = drawn[2] * width, drawn[3] * height
    brightness = _BRIGHTEST * (0.2 + 0.8 * drawn[4])
    samples = 2 * math.ceil(0.18 * longest) + 2  # at most half a pixel apart
    along = (np.arange(samples) + 0.5) / samples - 0.5
    profile = np.cos(math.pi * along) * length[:, None] / samples
    columns = x[:, None] + np.sin(angle)[:, None] * along * length[:, None] - 0.5
    rows = y[:, None] + np.cos(angle)[:, None] * along * length[:, None] - 0.5
    return _splat(rows, columns, profile * brightness[:, None], (height, width))


def _splat(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W) to which each value was added at its place, shared between the four nearest pixels."""
    height, width = shape
    total = np.zeros(height * width)
    top, left = np.floor(rows), np.floor(columns)
    for down in (0, 1):
        for right in (0, 1):
            row, column = (top + down).astype(np.int64), (left + right).astype(np.int64)
            share = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column))
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            places = (row * width + column)[inside]
            total += np.bincount(places, (values * share)[inside], height * width)
    return total.reshape(height, width)
