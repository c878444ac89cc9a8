"""Numbers that are means over images, or functions of one, and their intervals.

From 50 images on the percentile bootstrap (Efron 1979). It takes the spread of the images at hand for the whole, which
with few images is too little: at 20 its 95 % intervals hold the truth nine times in ten. Below 50 images intervals are
Student's t with the deviation of a delete-one jackknife, which for a mean is the textbook's t interval. Logarithms of
means have intervals of their own (`_of_log`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

FEW = 50
"""Images below which Student's t takes the place of resampling."""

FEWEST = 5
"""Values above 0 below which the logarithm of a mean has no interval: in a resample without them it is infinite."""


_AT_ONCE = 1 << 18
"""Values of resamples that are drawn at once."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the number of images behind it. NaN edges where there were none."""

    low: float
    high: float
    n: int

    def within(self, bounds: tuple[float, float]) -> Interval:
        """The same, its ends moved to what the number can be."""
        return Interval(max(self.low, bounds[0]), min(self.high, bounds[1]), self.n)


UNBOUNDED = (-math.inf, math.inf)
"""Bounds of a number that has none."""


def round_significant(value: float) -> float | None:
    """Ten significant digits, the most that a float32 network could give a meaning to; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.10g}")


def metric_entry(value: float, interval: Interval | None = None) -> dict[str, Any]:
    """A number as a result holds it: {value, low, high} and, with an interval, {n}."""
    if interval is None:
        return {"value": round_significant(value), "low": None, "high": None}
    return {
        "value": round_significant(value),
        "low": round_significant(interval.low),
        "high": round_significant(interval.high),
        "n": interval.n,
    }


@dataclass(frozen=True)
class MeanStatistic:
    """A number made of per-image values: `of` their mean. `values` is their name beside the result. log: where `of` is
    a multiple of the mean's natural logarithm and a constant, which multiple; the values are then 0 or more."""

    values: str
    of: Callable[[float], float] = float
    log: float = 0.0


MEAN = MeanStatistic("")
"""The mean itself, of values whose name does not matter."""

DERIVED = {
    "compression_ratio": MeanStatistic("bpp", lambda bpp: 24 / bpp if bpp else math.nan),
    "psnr": MeanStatistic("mse", lambda mse: 10 * math.log10(255.0**2 / mse) if mse else math.nan, -10 / math.log(10)),
}
"""Numbers that are no plain means: raw RGB's 24 bits a pixel to the mean bpp; the PSNR of all images' pooled errors."""


def mean_statistic(number: str, present: Container[str]) -> MeanStatistic | None:
    """How a number comes from the per-image values that are `present`; None where it does not."""
    if number in present:
        return MeanStatistic(number)
    derived = DERIVED.get(number)
    return derived if derived and derived.values in present else None


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN where there are none. Summed exactly, so order cannot change it."""
    kept = values[~np.isnan(values)]
    return math.fsum(kept) / len(kept) if len(kept) else math.nan


def bootstrap(values: np.ndarray, seed: int, how: MeanStatistic = MEAN) -> Interval:
    """Interval of a number made of the mean of `values` (n,), NaN left out: from 1,000 resamples of images drawn with
    `seed`, below 50 images by Student's t. A single image has none."""
    kept, of = values[~np.isnan(values)], how.of
    if how.log:
        return _scaled(_of_log([kept], seed), of(mean(kept)), how.log, len(kept))
    if len(kept) < FEW:
        return _students(_without_each(kept, of), of(mean(kept)), len(kept))
    means = [of(kept[chosen].mean()) for chosen in _resamples(len(kept), seed)]
    return _interval(means, of(mean(kept)), len(kept))


def bootstrap_pairs(first: np.ndarray, second: np.ndarray, seed: int, how: MeanStatistic = MEAN) -> Interval:
    """Interval of the number made of the mean of `second` less that of `first`, (n,) each, no NaN, images drawn
    together."""
    of = how.of
    gap = of(mean(second)) - of(mean(first))
    if how.log:
        ends = (0.0, 0.0) if np.array_equal(first, second) and len(first) > 1 else _of_log([first, second], seed)
        return _scaled(ends, gap, how.log, len(first))
    if len(first) < FEW:
        return _students(_without_each(second, of) - _without_each(first, of), gap, len(first))
    gaps = [of(second[chosen].mean()) - of(first[chosen].mean()) for chosen in _resamples(len(first), seed)]
    return _interval(gaps, gap, len(first))


def _of_log(columns: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the logarithm of the mean of a column (n,), or that of the last
    column less that of the first. NaN where a column has fewer than `FEWEST` values above 0.

    Errors of images are skewed: some have many times the mean's. The mean of a resample without these is too low, and
    so is its spread, so that percentiles end too early. Resamples divided by their own deviation (Efron's bootstrap-t)
    show that skewness; where only a few values are above 0, so that resamples hold the same ones again and again,
    Student's t reaches further. Each end is the farther one of the two.
    """
    count = len(columns[0])
    if count < 2 or min(int((column > 0).sum()) for column in columns) < FEWEST:
        return math.nan, math.nan

    def measured(chosen: np.ndarray) -> np.ndarray:
        """Of sets of images (k, n) the number and, by the delta method, its deviation, (2, k); NaN for a mean of 0."""
        number, each = np.zeros(len(chosen)), np.zeros(chosen.shape)
        for column in columns:
            some = column[chosen]
            means = some.mean(1, keepdims=True)
            means[means == 0] = math.nan
            number, each = np.log(means[:, 0]) - number, some / means - each
        return np.stack([number, each.std(1, ddof=1) / math.sqrt(count)])

    (value,), (deviation,) = measured(np.arange(count)[None]).tolist()
    rng, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // count)
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    drawn = np.concatenate([measured(rng.integers(0, count, (size, count))) for size in sizes], axis=1).T
    usable = drawn[:, 1] > 0
    studentized = (drawn[usable, 0] - value) / drawn[usable, 1]
    low, high = np.quantile(studentized, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if usable.any() else (0.0, 0.0)
    t = students_t(count - 1)
    return max(float(high), t) * deviation, max(-float(low), t) * deviation


def _scaled(reach: tuple[float, float], centre: float, by: float, count: int) -> Interval:
    """The interval of a multiple of a number, around it, from how far the number's own reaches below and above."""
    below, above = reach if by > 0 else reach[::-1]
    return Interval(centre - abs(by) * below, centre + abs(by) * above, count)


def _without_each(values: np.ndarray, of: Callable[[float], float]) -> np.ndarray:
    """`of` the mean without each value in turn, (n,)."""
    return np.array([of(mean(np.delete(values, at))) for at in range(len(values))])


def _students(left: np.ndarray, centre: float, count: int) -> Interval:
    """Student's t around a number, from its values without each image."""
    if count < 2 or math.isnan(centre) or np.isnan(left).any():
        return Interval(math.nan, math.nan, count)
    reach = students_t(count - 1) * jackknife_deviation(left)
    return Interval(centre - reach, centre + reach, count)


def jackknife_deviation(left: np.ndarray) -> float:
    """Standard deviation of a number from its values without the first, the second ... image or group, (g,)."""
    return math.sqrt((len(left) - 1) / len(left) * float(((left - left.mean()) ** 2).sum()))


def students_t(degrees: int) -> float:
    """How many standard deviations the 95 % interval reaches to either side."""
    from scipy.special import stdtrit  # SciPy takes longer to import than commands that compute no interval run

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def share_interval(values: np.ndarray) -> Interval:
    """Clopper and Pearson's interval (1934) of the share of ones in `values` (n,), each 0 or 1 and of an image of its
    own: also where there are none, or nothing else. A single image has none."""
    from scipy.special import betaincinv

    count, ones = len(values), int(values.sum())
    if count < 2:
        return Interval(math.nan, math.nan, count)
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(ones, count - ones + 1, tail)) if ones else 0.0
    high = float(betaincinv(ones + 1, count - ones, 1 - tail)) if ones < count else 1.0
    return Interval(low, high, count)


def least_reach(count: int) -> float:
    """How far from 0 (or 1) a share may lie that is none (or all) in each of `count` independent images: the end of
    Clopper and Pearson's interval there. For images with several words each it is on the safe side."""
    return 1.0 if count < 1 else -math.expm1(math.log((1 - LEVEL) / 2) / count)


def _resamples(count: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, count, count) for _ in range(RESAMPLES))


def _interval(found: Sequence[float], centre: float, count: int) -> Interval:
    return Interval(*percentile_interval(found, centre), count)


def percentile_interval(found: Sequence[float] | np.ndarray, centre: float) -> tuple[float, float]:
    """The 95 % interval of resampled values, NaN left out, around the value itself; NaN where there are none."""
    if math.isnan(centre) or np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # A mean of equal values can round past them; the interval must hold its own centre.
    return min(float(low), centre), max(float(high), centre)
