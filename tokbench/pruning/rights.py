"""Which images a network named right, as a row of facts keeps it."""

from __future__ import annotations

import numpy as np


def packed(right: np.ndarray) -> str:
    """Which images were named right, (N,) of 1 and 0, as a bit each, in hexadecimal digits."""
    return np.packbits(right.astype(bool)).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    """The inverse, for `count` images."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count).astype(float)
