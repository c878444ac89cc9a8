"""The number of images that a paired difference needs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokbench.stats.bootstrap import bootstrap_pairs
from tokbench.stats.sample_size import images_needed, range_of_images_needed


def test_at_even_power_the_interval_ends_at_zero() -> None:
    # A half width of 2 at 100 images is 1 at 400, which is the gap.
    assert images_needed(1.0, -1.0, 3.0, 100, power=0.5) == 400
    assert images_needed(-1.0, -3.0, 1.0, 100, power=0.5) == 400


def test_power_of_80_percent_needs_twice_as_many_images() -> None:
    # (1.95996 + 0.84162)^2 / 1.95996^2 = 2.0432, as in every table of sample sizes
    assert images_needed(1.0, 0.0, 2.0, 1000) == math.ceil(1000 * ((1.9599640 + 0.8416212) / 1.9599640) ** 2)


def test_only_the_side_of_zero_counts() -> None:
    assert images_needed(1.0, 0.5, 9.0, 100, power=0.5) == images_needed(1.0, 0.5, 1.1, 100, power=0.5) == 25
    assert images_needed(-1.0, -9.0, -0.5, 100, power=0.5) == 25


@pytest.mark.parametrize("gap, low, high", [(0.0, -1.0, 1.0), (math.nan, -1.0, 1.0), (1.0, math.nan, math.nan)])
def test_there_may_be_no_such_number(gap: float, low: float, high: float) -> None:
    assert images_needed(gap, low, high, 100) is None


def test_range_follows_the_interval_of_the_gap() -> None:
    # The gap may be 0.5 to 1.5 with a half width of 0.5 at 100 images.
    assert range_of_images_needed(1.0, 0.5, 1.5, 100, power=0.5) == (12, 100)
    assert range_of_images_needed(-1.0, -1.5, -0.5, 100, power=0.5) == (12, 100)
    assert range_of_images_needed(1.0, -0.5, 2.5, 100, power=0.5) == (36, None)


def test_power_is_a_share() -> None:
    for power in (0.3, 1.0):
        with pytest.raises(ValueError, match="power"):
            images_needed(1.0, 0.5, 1.5, 100, power)


def test_intervals_of_that_many_images_exclude_zero_as_often_as_planned() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(0, 1, 200), draw.normal(0.3, 1, 200)
    interval = bootstrap_pairs(first, second, 0)
    reach = interval.high - interval.low
    needed = images_needed(0.3, 0.3 - reach / 2, 0.3 + reach / 2, 200)
    assert needed is not None
    found = 0
    for _ in range(400):
        gaps = draw.normal(0.3, math.sqrt(2), needed)
        found += bool(gaps.mean() > 1.96 * gaps.std() / math.sqrt(needed))
    assert 0.7 < found / 400 < 0.9
