"""The number of images at which a difference can be told from 0."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokbench.stats.bootstrap import DERIVED, bootstrap_pairs, mean, pair_deviation, students_t
from tokbench.stats.sample_size import images_needed, power_factor, range_of_images_needed


@pytest.mark.parametrize("ratio", [1e-6, 0.05, 0.4, 3.0, 77.7, 5000.0])
def test_it_is_the_smallest_number_whose_interval_excludes_zero(ratio: float) -> None:
    """ratio: the squared deviation of one image in units of the squared gap."""
    gap, count = -0.25, 100
    deviation = abs(gap) * math.sqrt(ratio / count)
    needed = images_needed(gap, deviation, count, power=0.5)
    assert needed is not None

    def half_width(images: int) -> float:
        return students_t(images - 1) * deviation * math.sqrt(count / images)

    assert half_width(needed) < abs(gap)
    assert needed == 2 or half_width(needed - 1) >= abs(gap)


def test_power_of_80_percent_needs_twice_as_many_images() -> None:
    # (1.95996 + 0.84162)^2 / 1.95996^2 = 2.0432, as in tables of sample sizes
    assert power_factor() ** 2 == pytest.approx(((1.9599640 + 0.8416212) / 1.9599640) ** 2)
    even, usual = images_needed(1.0, 1.0, 100_000, 0.5), images_needed(1.0, 1.0, 100_000)
    assert even is not None and usual is not None and usual == pytest.approx(2.0432 * even, rel=1e-4)
    assert power_factor(0.5) == 1


def test_power_is_a_share() -> None:
    for power in (0.3, 1.0):
        with pytest.raises(ValueError, match="power"):
            images_needed(1.0, 0.5, 100, power)


def test_without_a_difference_or_a_deviation_there_is_no_number() -> None:
    assert images_needed(0.0, 1.0, 10) is None
    assert images_needed(1.0, math.nan, 10) is None
    assert images_needed(math.nan, 1.0, 10) is None
    assert images_needed(1.0, 0.0, 10) == 2


def test_so_many_samples_of_that_size_show_the_difference() -> None:
    rng = np.random.default_rng(0)
    found = []
    for power in (0.5, 0.8):
        count = images_needed(0.3, 1.0 / math.sqrt(50), 50, power)
        assert count is not None
        samples = rng.normal(0.3, 1.0, (4000, count))
        reach = students_t(count - 1) * samples.std(1, ddof=1) / math.sqrt(count)
        found.append(float((samples.mean(1) > reach).mean()))
    assert found == pytest.approx([0.5, 0.8], abs=0.03)


def test_range_follows_the_interval_of_the_gap() -> None:
    """The gap may be 0.5 to 1.5 with a half width of about 0.5 at 1,000 images."""
    deviation = 0.5 / 1.96
    fewest, most = range_of_images_needed(0.5, 1.5, deviation, 1000, power=0.5)
    assert (fewest, most) == (pytest.approx(1000 / 9, rel=0.03), pytest.approx(1000, rel=0.01))
    assert range_of_images_needed(-1.5, -0.5, deviation, 1000, power=0.5) == (fewest, most)
    assert range_of_images_needed(-0.5, 1.5, deviation, 1000, power=0.5) == (fewest, None)
    assert range_of_images_needed(math.nan, math.nan, deviation, 1000) == (None, None)


def test_the_deviation_is_that_of_the_interval() -> None:
    """Below 50 images, intervals are Student's t times the deviation, also of numbers that are functions of a mean."""
    rng = np.random.default_rng(1)
    for how in (None, DERIVED["compression_ratio"]):
        first, second = rng.uniform(1, 2, (2, 20))
        arguments = (first, second) if how is None else (first, second, how)
        interval = bootstrap_pairs(first, second, 0, *arguments[2:])
        assert interval.high - interval.low == pytest.approx(2 * students_t(19) * pair_deviation(*arguments))
    assert math.isnan(pair_deviation(first[:1], second[:1]))
    assert mean(first) != mean(second)
