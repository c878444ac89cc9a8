"""Confidence intervals of means over images, and of functions of such a mean.

From 50 images on, intervals come from the percentile bootstrap (Efron 1979). With few images it underestimates the
spread: with 20 images its 95 % intervals contain the true value in about 90 % of cases. Below 50 images, intervals are
Student's t with the standard deviation of a delete-one jackknife, which for a mean is the textbook t interval.
Logarithms of means have their own kind of interval (`_log_mean_reach`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

MIN_BOOTSTRAP_IMAGES = 50
"""With fewer images, Student's t replaces the bootstrap."""

MIN_POSITIVE_VALUES = 5
"""With fewer values above 0, the logarithm of a mean has no interval: it is infinite in resamples without them."""

_CHUNK_VALUES = 1 << 18
"""Number of resampled values that are drawn at a time, which bounds the memory."""

_KEPT_IMAGES = 2048
"""Up to this number of images, the draws are kept for later calls (16 MiB for each number of images)."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval from `n` images. low and high are NaN where no interval can be computed."""

    low: float
    high: float
    n: int

    def within(self, bounds: tuple[float, float]) -> Interval:
        """Return the interval with its ends clipped to `bounds`, the range of possible values."""
        return Interval(max(self.low, bounds[0]), min(self.high, bounds[1]), self.n)


UNBOUNDED = (-math.inf, math.inf)
"""Bounds of a statistic that can have any value."""


def round_significant(value: float) -> float | None:
    """Round to ten significant digits, which exceeds the precision of float32 networks. Return None for NaN."""
    return None if math.isnan(value) else float(f"{value:.10g}")


def metric_entry(value: float, interval: Interval | None = None) -> dict[str, Any]:
    """Return the JSON entry of a metric value in a result: {value, low, high} and, with an interval, {n}."""
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
    """A statistic computed as a function of the mean of per-image values.

    values: name of the per-image array stored with the result. of: the function of the mean. log: the factor a where
    the function is a * ln(mean) + constant (the values must then be 0 or more), else 0.
    """

    values: str
    of: Callable[[float], float] = float
    log: float = 0.0


MEAN = MeanStatistic("")
"""The mean itself, for per-image values whose name is not needed."""

DERIVED = {
    "compression_ratio": MeanStatistic("bpp", lambda bpp: 24 / bpp if bpp else math.nan),
    "psnr": MeanStatistic("mse", lambda mse: 10 * math.log10(255.0**2 / mse) if mse else math.nan, -10 / math.log(10)),
}
"""Statistics that are not plain means: the compression ratio (24 bits per pixel of raw RGB / mean bits per pixel) and
the PSNR of the squared error pooled over all images."""


def mean_statistic(number: str, present: Container[str]) -> MeanStatistic | None:
    """Return how the statistic `number` is computed from the per-image arrays named in `present`; None if it is not."""
    if number in present:
        return MeanStatistic(number)
    derived = DERIVED.get(number)
    return derived if derived and derived.values in present else None


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none. The sum is exact, whatever the order."""
    valid = values[~np.isnan(values)]
    return math.fsum(valid) / len(valid) if len(valid) else math.nan


def bootstrap(values: np.ndarray, seed: int, how: MeanStatistic = MEAN) -> Interval:
    """Return the interval of the statistic `how` of per-image `values` (n,), ignoring NaN.

    It comes from 1,000 resamples drawn with `seed`, or from Student's t below 50 images. Its ends are NaN for a single
    image.
    """
    valid, function = values[~np.isnan(values)], how.of
    if how.log:
        return _scaled_interval(_log_mean_reach([valid], seed), function(mean(valid)), how.log, len(valid))
    if len(valid) < MIN_BOOTSTRAP_IMAGES:
        return _students_interval(_leave_one_out(valid, function), function(mean(valid)), len(valid))
    means = [function(value) for value in _resampled_means(valid, seed)]
    return Interval(*percentile_interval(means, function(mean(valid))), len(valid))


def bootstrap_pairs(first: np.ndarray, second: np.ndarray, seed: int, how: MeanStatistic = MEAN) -> Interval:
    """Return the interval of a paired difference: the statistic of `second` minus that of `first`.

    first, second (n,): per-image values of the same images, without NaN. Both are resampled with the same draws.
    """
    function = how.of
    gap = function(mean(second)) - function(mean(first))
    if how.log:
        equal = np.array_equal(first, second) and len(first) > 1
        reach = (0.0, 0.0) if equal else _log_mean_reach([first, second], seed)
        return _scaled_interval(reach, gap, how.log, len(first))
    if len(first) < MIN_BOOTSTRAP_IMAGES:
        left = _leave_one_out(second, function) - _leave_one_out(first, function)
        return _students_interval(left, gap, len(first))
    resampled = zip(_resampled_means(first, seed), _resampled_means(second, seed), strict=True)
    gaps = [function(theirs) - function(ours) for ours, theirs in resampled]
    return Interval(*percentile_interval(gaps, gap), len(first))


def pair_deviation(first: np.ndarray, second: np.ndarray, how: MeanStatistic = MEAN) -> float:
    """Return the delete-one jackknife deviation of a paired difference; NaN for a single image.

    first, second (n,): per-image values of the same images, without NaN. For a plain mean this is the standard
    deviation of the per-image differences divided by the square root of n.
    """
    if len(first) < 2:
        return math.nan
    if how.of is float:
        return float((second - first).std(ddof=1)) / math.sqrt(len(first))
    left = [[how.of(value) for value in (column.sum() - column) / (len(column) - 1)] for column in (first, second)]
    return jackknife_deviation(np.subtract(left[1], left[0]))


def _log_mean_reach(columns: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    """Return how far the 95 % interval of a log mean extends below and above the estimate.

    columns: one array (n,), for the logarithm of its mean, or two, for the logarithm of the second mean minus that of
    the first. The result is NaN if a column has fewer than `MIN_POSITIVE_VALUES` values above 0.

    Squared errors of images are skewed: a few images have many times the mean. A resample without them has too low a
    mean and too low a spread, so percentile intervals are too short. The studentized bootstrap (Efron's bootstrap-t)
    accounts for the skewness; where only a few values are above 0, so that resamples repeat the same values, Student's
    t gives wider intervals. Each end is the farther one of the two methods.
    """
    count = len(columns[0])
    if count < 2 or min(int((column > 0).sum()) for column in columns) < MIN_POSITIVE_VALUES:
        return math.nan, math.nan

    def estimates(chosen: np.ndarray) -> np.ndarray:
        """Return the estimates and their delta-method deviations, (2, k), of k resamples given as indices (k, n).

        Both are NaN where a mean is 0.
        """
        estimate, influence = np.zeros(len(chosen)), np.zeros(chosen.shape)
        for column in columns:
            values = column[chosen]
            means = values.mean(1, keepdims=True)
            means[means == 0] = math.nan
            estimate, influence = np.log(means[:, 0]) - estimate, values / means - influence
        return np.stack([estimate, influence.std(1, ddof=1) / math.sqrt(count)])

    (value,), (deviation,) = estimates(np.arange(count)[None]).tolist()
    resampled = np.concatenate([estimates(chosen) for chosen in _draws(count, seed)], axis=1).T
    usable = resampled[:, 1] > 0
    studentized = (resampled[usable, 0] - value) / resampled[usable, 1]
    low, high = np.quantile(studentized, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if usable.any() else (0.0, 0.0)
    t = students_t(count - 1)
    return max(float(high), t) * deviation, max(-float(low), t) * deviation


def _scaled_interval(reach: tuple[float, float], centre: float, factor: float, count: int) -> Interval:
    """Return the interval around `centre` = factor * x + constant, where x has an interval that extends by `reach`."""
    below, above = reach if factor > 0 else reach[::-1]
    return Interval(centre - abs(factor) * below, centre + abs(factor) * above, count)


def _leave_one_out(values: np.ndarray, function: Callable[[float], float]) -> np.ndarray:
    """Return the function of the mean with each value left out in turn, (n,)."""
    return np.array([function(mean(np.delete(values, i))) for i in range(len(values))])


def _students_interval(leave_one_out: np.ndarray, centre: float, count: int) -> Interval:
    """Return the Student's t interval around `centre` from its leave-one-out values (count,)."""
    if count < 2 or math.isnan(centre) or np.isnan(leave_one_out).any():
        return Interval(math.nan, math.nan, count)
    reach = students_t(count - 1) * jackknife_deviation(leave_one_out)
    return Interval(centre - reach, centre + reach, count)


def jackknife_deviation(leave_one_out: np.ndarray) -> float:
    """Return the jackknife standard deviation from the values (g,) with each image or group left out in turn."""
    count = len(leave_one_out)
    return math.sqrt((count - 1) / count * float(((leave_one_out - leave_one_out.mean()) ** 2).sum()))


def students_t(degrees: int) -> float:
    """Return the half width of a 95 % interval in standard deviations, for Student's t with `degrees` of freedom."""
    from scipy.special import stdtrit  # SciPy takes longer to import than commands that compute no interval run

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def share_interval(values: np.ndarray) -> Interval:
    """Return the Clopper-Pearson interval (1934) of the share of ones in `values` (n,), one 0 or 1 per image.

    The interval has a width even where all values are equal. Its ends are NaN for a single image.
    """
    from scipy.special import betaincinv

    count, ones = len(values), int(values.sum())
    if count < 2:
        return Interval(math.nan, math.nan, count)
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(ones, count - ones + 1, tail)) if ones else 0.0
    high = float(betaincinv(ones + 1, count - ones, 1 - tail)) if ones < count else 1.0
    return Interval(low, high, count)


def share_bound(count: int) -> float:
    """Return the upper end of the Clopper-Pearson interval of a share that is 0 in `count` independent images.

    By symmetry, a share that is 1 may be lower by as much. The bound is conservative for images with several words.
    """
    return 1.0 if count < 1 else -math.expm1(math.log((1 - LEVEL) / 2) / count)


def _draws(count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the images of all resamples as indices (k, count), some resamples at a time."""
    chunk = max(1, _CHUNK_VALUES // count)
    starts = range(0, RESAMPLES, chunk)
    if count <= _KEPT_IMAGES:
        kept = _kept_draws(count, seed)
        yield from (kept[start : start + chunk] for start in starts)
    else:
        rng = np.random.default_rng(seed)
        yield from (rng.integers(0, count, (min(chunk, RESAMPLES - start), count)) for start in starts)


@lru_cache(maxsize=4)
def _kept_draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _resampled_means(values: np.ndarray, seed: int) -> list[float]:
    """Return the mean of each resample of values (n,) without NaN."""
    return _kept_means(values.tobytes(), values.dtype.str, seed)


@lru_cache(maxsize=64)
def _kept_means(content: bytes, dtype: str, seed: int) -> list[float]:
    """Return the means of the resamples of an array. They are kept, because a table compares one row with many."""
    values = np.frombuffer(content, dtype)
    return [value for chosen in _draws(len(values), seed) for value in values[chosen].mean(1)]


def percentile_interval(resampled: Sequence[float] | np.ndarray, centre: float) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values, ignoring NaN; NaN if there are none.

    centre: the estimate from the full sample, which the interval always contains.
    """
    if math.isnan(centre) or np.isnan(resampled).all():
        return math.nan, math.nan
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The mean of equal values can differ from them by rounding; the interval must still contain its centre.
    return min(float(low), centre), max(float(high), centre)
