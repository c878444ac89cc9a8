"""Error bars of distances: which halves are drawn, what they say, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.evaluation.metric_set import MetricValues
from tokbench.extractors.network import FeatureExtractor
from tokbench.metrics.frechet import Frechet, distance_of_sets, frechet_distance
from tokbench.stats.split_half import Replicates, SplitHalves, pairs


def replicates(statistic, count: int, key: str = "data") -> Replicates:
    """A statistic of positions on all halves, and on the halves of each."""
    whole, parts = [], []
    for half in SplitHalves(key, count):
        middle = len(half) // 2
        whole.append(statistic(half))
        parts.append((statistic(half[:middle]) + statistic(half[middle : 2 * middle])) / 2)
    return Replicates(np.array(whole), np.array(parts))


@pytest.mark.parametrize("count", [10, 11])
def test_halves_are_complements_without_repetition(count: int) -> None:
    halves = list(SplitHalves("a", count))
    assert len(halves) == 2 * pairs(count)
    for one, other in zip(halves[::2], halves[1::2], strict=True):
        assert len(one) == len(other) == count // 2
        assert len({*one.tolist(), *other.tolist()}) == 2 * (count // 2)


def test_halves_depend_on_data_and_count_alone() -> None:
    def first(halves: SplitHalves) -> list[int]:
        return next(iter(halves)).tolist()

    assert first(SplitHalves("a", 20)) == first(SplitHalves("a", 20))
    assert first(SplitHalves("a", 20)) != first(SplitHalves("b", 20))
    assert [p for p in first(SplitHalves("a", 21)) if p < 20] != first(SplitHalves("a", 20))


def test_the_deviation_of_a_mean_is_the_textbook_one() -> None:
    """A mean is linear in the images: its standard error is sd / sqrt(N)."""
    values = np.random.default_rng(0).normal(size=400)
    found = replicates(lambda half: values[half].mean(), 400)
    assert found.deviation == pytest.approx(values.std(ddof=1) / 20, rel=0.2)
    limit, _ = found.extrapolate_unchecked(values.mean())
    assert limit == pytest.approx(values.mean(), abs=1e-12)  # complements leave no noise in it


def test_extrapolation_is_exact_for_a_law_of_one_over_n() -> None:
    found = replicates(lambda half: 3 + 40 / len(half), 160)
    limit, own = found.extrapolate(3 + 40 / 160)
    assert limit == pytest.approx(3)
    assert own.halves == pytest.approx(3)
    assert found.deviation == pytest.approx(0, abs=1e-12)


def test_no_limit_where_the_law_does_not_hold() -> None:
    """Far too few images for the dimension: the distance still grows by less and less as images are taken away."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 400)), rng.normal(size=(40, 400))
    found = replicates(lambda half: distance_of_sets(first[half], second[half]), 40)
    assert found.extrapolate(distance_of_sets(first, second)) is None


def test_a_difference_is_taken_half_by_half() -> None:
    values = np.random.default_rng(1).normal(size=(2, 100))
    one, two = (replicates(lambda half, row=row: row[half].mean(), 100) for row in values)
    both = replicates(lambda half: values[0][half].mean() - values[1][half].mean(), 100)
    np.testing.assert_allclose((one - two).halves, both.halves)
    again = Replicates.from_array((one - two).as_array())
    np.testing.assert_allclose(again.quarters, both.quarters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimension", "count", "decay", "paired"),
    [(8, 400, 3, True), (24, 100, 8, True), (8, 400, 3, False)],
    ids=["many images", "few images for the dimension", "two independent sets"],
)
def test_coverage_on_gaussians(dimension: int, count: int, decay: float, paired: bool) -> None:
    """For 100 sets of images, about 95 % of the intervals must contain their target: the expected value at this N, and
    the distance of the two Gaussians themselves; a coverage of 95 % has a standard error of 2 % there. Intervals that
    are too wide must not be by much."""
    rng = np.random.default_rng(3)
    scale = np.exp(-np.arange(dimension) / decay)
    truth = frechet_distance(
        np.zeros(dimension), np.diag(scale**2), 0.02 * scale, np.diag(scale**2 * (0.9**2 + 0.3**2))
    )
    found = []
    for trial in range(100):
        reference = rng.normal(size=(count, dimension)) * scale
        source = reference if paired else rng.normal(size=(count, dimension)) * scale
        image = 0.9 * source + 0.3 * rng.normal(size=(count, dimension)) * scale + 0.02 * scale
        metric = Frechet("fd", Blind(), "x", paired=paired)
        metric.references.add(torch.arange(count), {"x": reference})
        metric.rows.add(torch.arange(count), {"image": image})
        numbers = MetricValues()
        numbers.add_metric(metric, 0, SplitHalves(str(trial), count))
        found.append(numbers.values)
    values = np.array([one["fd"]["value"] for one in found])
    assert covered([one["fd"] for one in found], values.mean()) >= 0.89
    assert width([one["fd"] for one in found]) < 1.5 * 2 * 1.96 * values.std()
    limits = [one["fd_infinity"] for one in found if "fd_infinity" in one]
    assert len(limits) > 80
    extrapolated = np.array([one["value"] for one in limits])
    assert covered(limits, truth) >= 0.89
    assert width(limits) < (1.6 if paired else 2.3) * 2 * 1.96 * extrapolated.std()
    # The plain value is biased by far more than what is left after extrapolation.
    assert abs(extrapolated.mean() - truth) < 0.25 * abs(values.mean() - truth)


class Blind(FeatureExtractor):
    """A network that is never asked."""

    name, sha256 = "blind", "0" * 64

    def forward(self, images: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
        raise AssertionError


def covered(entries: list[dict], target: float) -> float:
    return float(np.mean([entry["low"] <= target <= entry["high"] for entry in entries]))


def width(entries: list[dict]) -> float:
    return float(np.mean([entry["high"] - entry["low"] for entry in entries]))


def test_a_number_without_a_value_has_no_interval() -> None:
    interval = Replicates(np.array([np.nan, 1.0])).interval(np.nan, 10, floor=0.0)
    assert np.isnan([interval.low, interval.high]).all()
