"""The number of images with which a paired difference between two results can be told from 0."""

from __future__ import annotations

import math
from statistics import NormalDist

from tokbench.stats.bootstrap import LEVEL

POWER = 0.8
"""The probability with which a difference of the given size should be detected: the usual choice of sample-size
calculations (Cohen 1988)."""


def images_needed(gap: float, low: float, high: float, count: int, power: float = POWER) -> int | None:
    """Return the number of images whose paired 95 % interval excludes 0 with the probability `power`.

    gap: the measured difference, which is taken as the true one. low, high: its paired 95 % interval. count: the number
    of images from which both were computed. power: from 0.5, where the interval excludes 0 on average only, to below 1.

    The half width of the interval on the side of 0 is 1.96 standard deviations, and a standard deviation decreases with
    the square root of the number of images, so the gap must be 1.96 + z(power) standard deviations. Returns None where
    no number of images is enough: the gap is 0, or there is no interval. Raises ValueError for another power.
    """
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be at least 0.5 and below 1, but is {power:g}")
    reach = gap - low if gap > 0 else high - gap
    if gap == 0 or math.isnan(gap) or math.isnan(reach):
        return None
    normal = NormalDist()
    factor = 1 + normal.inv_cdf(power) / normal.inv_cdf((1 + LEVEL) / 2)
    return max(2, math.ceil(count * (factor * reach / abs(gap)) ** 2))


def range_of_images_needed(
    gap: float, low: float, high: float, count: int, power: float = POWER
) -> tuple[int | None, int | None]:
    """Return the fewest and the most images that are needed if the true difference is any value in its interval.

    The arguments are those of `images_needed`. None in the second place: the interval contains 0, so no number of
    images may be enough. None in the first place: there is no interval.
    """
    reach = gap - low if gap > 0 else high - gap

    def at(true_gap: float) -> int | None:
        return images_needed(true_gap, true_gap - reach, true_gap + reach, count, power)

    far, near = (high, low) if gap > 0 else (low, high)
    return at(far), at(near) if near * gap > 0 else None
