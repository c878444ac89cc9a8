"""Letterboxing for the crop `pad`: scales a whole image into a square, centred on black, and back to its own size.

TokBench's scripts do the same before and after a tokenizer (wjf5203/TokBench@a77070c: tokenzier_vae_scripts), with
Pillow's Lanczos filter in both directions.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def letterbox_box(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) in pixels of an image of width x height inside its square of `side` pixels."""
    longer = max(width, height)
    scaled_width, scaled_height = (min(side, max(1, math.ceil(length * side / longer))) for length in (width, height))
    return (side - scaled_width) // 2, (side - scaled_height) // 2, scaled_width, scaled_height


def pad(image: Image.Image, side: int) -> np.ndarray:
    """Return an RGB image scaled into a black square, uint8 (side, side, 3)."""
    left, top, width, height = letterbox_box(image.width, image.height, side)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    scaled = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    square[top : top + height, left : left + width] = np.asarray(scaled)
    return square


def undo_letterbox(square: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the image, uint8 (height, width, 3), that `pad` scaled into `square`, uint8 (side, side, 3)."""
    left, top, scaled_width, scaled_height = letterbox_box(width, height, len(square))
    inner = square[top : top + scaled_height, left : left + scaled_width]
    if (scaled_width, scaled_height) == (width, height):
        return inner
    return np.asarray(Image.fromarray(np.ascontiguousarray(inner)).resize((width, height), Image.Resampling.LANCZOS))
