"""Drawing with additions, multiplications and comparisons only, so that every machine draws the same pixels."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps coordinates u (to the right) and v (downwards), in units of the radius, to whether a point is inside a shape."""

Box = tuple[int, float, float, float, float]
"""The class of an object, and the left, top, right and bottom edge of its box in shares of the side of the image."""

T = TypeVar("T")

_SAMPLES = 3
"""Number of sample points per pixel and axis; the share of them that is inside a shape is its coverage of the pixel."""


class Draws:
    """Random numbers that depend on a text only.

    They come from `random.Random.random`, whose sequence Python guarantees for a seed; its other methods may change.
    """

    def __init__(self, seed: str) -> None:
        self._next = random.Random(seed).random

    def between(self, low: float, high: float) -> float:
        """Return a uniform number in [low, high)."""
        return low + (high - low) * self._next()

    def below(self, count: int) -> int:
        """Return a uniform integer in [0, count)."""
        return int(self._next() * count)

    def one_of(self, items: Sequence[T]) -> T:
        """Return one item; all are equally likely."""
        return items[self.below(len(items))]

    def some_of(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(count)]


def add_shape(
    canvas: np.ndarray, inside: Inside, centre: tuple[float, float], radius: tuple[float, float], value: np.ndarray
) -> None:
    """Draw a shape into a square canvas, float64 (H, H, C), in place, with smooth edges.

    centre: x and y of its centre. radius: half its width and height; both in shares of the side. value: (C,).
    """
    side = len(canvas)
    spans = []
    for middle, reach in zip(centre, radius, strict=True):
        low, high = int((middle - reach) * side) - 1, int((middle + reach) * side) + 2
        spans.append(range(max(low, 0), min(high, side)))
    columns, rows = spans
    if not columns or not rows:
        return
    u, v = (
        ((np.arange(span.start * _SAMPLES, span.stop * _SAMPLES) + 0.5) / (_SAMPLES * side) - middle) / reach
        for span, middle, reach in zip(spans, centre, radius, strict=True)
    )
    hits = inside(u[None, :], v[:, None]).view(np.uint8)
    counts = np.add.reduce([hits[row::_SAMPLES, at::_SAMPLES] for row in range(_SAMPLES) for at in range(_SAMPLES)])
    coverage = (counts / _SAMPLES**2)[:, :, None]
    part = canvas[rows.start : rows.stop, columns.start : columns.stop]
    part += coverage * (value - part)


def to_pixels(canvas: np.ndarray) -> np.ndarray:
    """Return levels float (H, W, C) as uint8, rounded half up and clipped."""
    return np.floor(canvas.clip(0, 255) + 0.5).astype(np.uint8)


def noise(seed: int, count: int) -> np.ndarray:
    """Return nearly normal numbers (count,) with mean 0 and variance 1: scaled sums of four uniform 16-bit integers.

    NumPy guarantees the sequence of the bit generator PCG64 for a seed, but not that of its normal distribution.
    """
    parts = np.random.PCG64(seed).random_raw(count).view(np.uint16).reshape(count, 4)
    return (parts.sum(axis=1, dtype=np.int64) - 2.0 * 65535) / (65535 / 3**0.5)
