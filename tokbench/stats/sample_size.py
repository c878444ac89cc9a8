"""The number of images at which a paired difference between two results can be told from 0."""

from __future__ import annotations

import math
from statistics import NormalDist

from tokbench.stats.bootstrap import LEVEL, students_t

POWER = 0.8
"""The probability with which a difference of the given size should be detected: the usual choice of sample-size
calculations (Cohen 1988)."""

_MIN_IMAGES = 2
"""A single image has no interval."""

NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half width of a 95 % interval of the normal distribution in standard deviations, to which Student's t decreases."""


def power_factor(power: float = POWER) -> float:
    """Return the factor by which a gap must exceed the half width of its interval to be shown with a probability.

    power: from 0.5, where one in two samples of images shows the difference and the factor is 1, to below 1. For 0.8
    the factor is (1.960 + 0.842) / 1.960. Raises ValueError for another power.
    """
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be at least 0.5 and below 1, but is {power:g}")
    return 1 + NormalDist().inv_cdf(power) / NORMAL


def images_needed(gap: float, deviation: float, count: int, power: float = POWER) -> int | None:
    """Return the smallest N whose paired 95 % interval excludes 0 with the probability `power`.

    gap: the difference measured on `count` images, which is taken as the true one. deviation: its standard deviation,
    which decreases with the square root of N; the half width of the interval is that of Student's t. Returns None where
    no number of images is enough or the number is unknown: the gap is 0, or a number is NaN. Raises ValueError for a
    power outside 0.5 to 1.
    """
    factor = power_factor(power)
    if gap == 0 or math.isnan(gap) or math.isnan(deviation):
        return None
    ratio = (factor * deviation / gap) ** 2 * count
    needed = max(_MIN_IMAGES, math.ceil(NORMAL**2 * ratio))
    while students_t(needed - 1) ** 2 * ratio >= needed:  # a few steps: t is only slightly larger than NORMAL
        needed += 1
    return needed


def range_of_images_needed(
    low: float, high: float, deviation: float, count: int, power: float = POWER
) -> tuple[int | None, int | None]:
    """Return the fewest and the most images that are needed if the true difference is any value in its interval.

    low, high: the paired 95 % interval. The other arguments are those of `images_needed`. None in the second place: the
    interval contains 0, so no number of images may be enough. None in the first place: there is no interval.
    """
    far, near = (high, low) if abs(high) > abs(low) else (low, high)
    fewest = images_needed(far, deviation, count, power)
    return fewest, images_needed(near, deviation, count, power) if near * far > 0 else None
