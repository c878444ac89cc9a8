"""The crop `pad`: a whole image scaled into a square and centred on black, and back to its own size.

As TokBench's scripts do it before and after a tokenizer (wjf5203/TokBench@a77070c: tokenzier_vae_scripts), with
Pillow's Lanczos filter both ways.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def letterbox_box(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Where an image of width x height lies in a square of that side: left, top, and its width and height there."""
    longer = max(width, height)
    across, down = (min(side, max(1, math.ceil(length * side / longer))) for length in (width, height))
    return (side - across) // 2, (side - down) // 2, across, down


def pad(image: Image.Image, side: int) -> np.ndarray:
    """An RGB image to its square, uint8 (side, side, 3)."""
    left, top, across, down = letterbox_box(image.width, image.height, side)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    scaled = image if image.size == (across, down) else image.resize((across, down), Image.Resampling.LANCZOS)
    square[top : top + down, left : left + across] = np.asarray(scaled)
    return square


def undo_letterbox(square: np.ndarray, width: int, height: int) -> np.ndarray:
    """From its square, uint8 (side, side, 3), back to width x height: uint8 (height, width, 3)."""
    left, top, across, down = letterbox_box(width, height, len(square))
    inner = square[top : top + down, left : left + across]
    if (across, down) == (width, height):
        return inner
    return np.asarray(Image.fromarray(np.ascontiguousarray(inner)).resize((width, height), Image.Resampling.LANCZOS))
