"""The number of images at which a difference of two results can be told from 0."""

from __future__ import annotations

import math

from tokbench.stats.bootstrap import students_t

_MIN_IMAGES = 2
"""A single image has no interval."""

_NORMAL = 1.959963984540054
"""Half width of a 95 % interval of the normal distribution in standard deviations, to which Student's t decreases."""


def images_needed(gap: float, deviation: float, count: int) -> int | None:
    """Return the smallest N whose 95 % interval of a difference is expected to exclude 0.

    gap: the difference measured on `count` images. deviation: its standard deviation. The function assumes that the
    difference stays the same and that its deviation decreases with the square root of N; the half width is that of
    Student's t. With N images one in two samples of images shows the difference, with 2.05 N images four in five do
    (80 % power: (1.960 + 0.842)² / 1.960² = 2.05). Return None if the gap is 0 or a number is NaN.
    """
    if gap == 0 or math.isnan(gap) or math.isnan(deviation):
        return None
    ratio = (deviation / gap) ** 2 * count
    needed = max(_MIN_IMAGES, math.ceil(_NORMAL**2 * ratio))
    while students_t(needed - 1) ** 2 * ratio >= needed:  # a few steps: t is only slightly larger than _NORMAL
        needed += 1
    return needed
