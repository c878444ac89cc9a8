"""Means over words or faces, binned by size: TokBench's bins and curves over pixels, with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tokbench.stats.bootstrap import (
    MIN_BOOTSTRAP_IMAGES,
    RESAMPLES,
    jackknife_deviation,
    percentile_interval,
    share_bound,
    students_t,
)


@dataclass(frozen=True)
class Bin:
    """A bin of sizes x with low <= x < high."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class BinnedMean:
    """The mean of the values in one bin, with its 95 % interval.

    n: number of values. groups: number of images that they come from. mean, low and high are NaN in an empty bin.
    """

    bin: Bin
    n: int
    groups: int
    mean: float
    low: float
    high: float


def _three(*edges: float) -> tuple[Bin, ...]:
    return tuple(Bin(name, *ends) for name, ends in zip(("small", "medium", "large"), pairwise(edges), strict=True))


def _curve(*edges: float) -> tuple[Bin, ...]:
    names = [f"below {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges)), f"from {edges[-1]:g}"]
    return tuple(Bin(name, *ends) for name, ends in zip(names, pairwise((0, *edges, math.inf)), strict=True))


TEXT_BINS = {
    256: _three(0.02, 0.03, 0.04, 1),
    512: _three(0.01, 0.02, 0.03, 1),
    1024: _three(0.005, 0.01, 0.02, 1),
}
"""TokBench's bins for words, by the side in pixels that images are scaled to.

The binned quantity is the ratio (word length / number of characters / longer side of the image). The edges are those of
compute_all_metrics.py in both TokBench releases (May and June 2025). As in that script, no bin contains a ratio of 1,
and ratios below the first edge are not counted. The first edge is 5.12 pixels per character at every side; `small` ends
at 7.7 pixels per character at 256 and at 10.2 at 512 and 1024.
"""

FACE_BINS = {
    "2025-05": {256: _three(0, 0.1, 0.2, 1), 512: _three(0, 0.05, 0.2, 1), 1024: _three(0, 0.05, 0.1, 1)},
    "2025-06": {256: _three(0.1, 0.2, 0.3, 1), 512: _three(0.05, 0.1, 0.2, 1), 1024: _three(0.02, 0.05, 0.1, 1)},
}
"""TokBench's bins for faces, by release and by the side in pixels that images are scaled to.

The binned quantity is face size / image size. The releases have different edges, so their results are not comparable.
"""

CHARACTER_BINS = _curve(4, 5, 6, 8, 10, 12, 16, 24, 40)
"""Bins over pixels per character after scaling. The axis is the same at every side, and every word falls into a bin.

Consecutive edges differ by a fifth to two thirds. The bins are finest from 4 to 12 pixels, which contains most of the
words that TokBench counts at its three sides; its edges 5.12, 7.68 and 10.24 are close to edges of these bins.
"""

FACE_PIXEL_BINS = _curve(16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Bins over pixels per face after scaling, in half octaves around 112 pixels, the input size of ArcFace networks."""


def binned(
    values: np.ndarray,
    axis: np.ndarray,
    bins: Sequence[Bin],
    seed: int,
    groups: np.ndarray | None = None,
    per: np.ndarray | None = None,
    share: bool = False,
) -> list[BinnedMean]:
    """Return the mean of `values` (n,) in each bin over `axis` (n,), with 95 % intervals.

    NaN values and values outside all bins are ignored.

    groups (n,): the image of each value; by default each value has an image of its own. Words of one image are
    correlated, so whole images are resampled (cluster bootstrap, 1,000 resamples drawn with `seed`, shared by all
    bins); with one value per image the resamples equal those of tokbench.stats.bootstrap. Bins with fewer than 50
    images use Student's t with a jackknife over images, and bins with a single image have no interval (NaN).
    per (n,): if given, sum(values) / sum(per) is computed instead of the mean: edit distances and lengths give a
    character error rate, and the scores of the same words in images that were only scaled give a ratio to the upper
    bound. The result is NaN where sum(per) is 0.
    share: `values` lie in [0, 1]. The interval then extends at least to `share_bound` of the number of images (two or
    more), so it has a width even where all values are equal.

    Raises ValueError if the arrays have different lengths.
    """
    sums = _BinSums.compute(values, axis, bins, groups, per)
    enough = max(sums.groups, default=0) >= MIN_BOOTSTRAP_IMAGES
    resampled = _resampled_ratios(sums.numerators, sums.denominators, seed) if enough else None
    return [sums.binned_mean(i, None if resampled is None else resampled[:, i], share) for i in range(len(bins))]


def mean_of_bins(
    values: np.ndarray,
    axis: np.ndarray,
    bins: Sequence[Bin],
    seed: int,
    groups: np.ndarray | None = None,
    share: bool = False,
) -> BinnedMean:
    """Return the unweighted mean of the bins' means, with an interval computed as in `binned`; NaN if a bin is empty.

    This is TokBench's `mean`: bins have equal weights, whatever their number of words.
    """
    sums = _BinSums.compute(values, axis, bins, groups, None)
    mean = math.fsum(sums.means) / len(bins)
    whole = Bin("mean", min(one.low for one in bins), max(one.high for one in bins))
    if min(sums.groups) >= MIN_BOOTSTRAP_IMAGES:
        low, high = percentile_interval(_resampled_ratios(sums.numerators, sums.denominators, seed).mean(1), mean)
    else:
        low, high = (
            _students_interval(sums.leave_one_out().mean(1), mean) if min(sums.groups) > 1 else (math.nan, math.nan)
        )
    if share and not math.isnan(low):  # a bin with a share of 0 or 1 has no spread, although its share is uncertain
        bounds = [share_bound(count) for count, value in zip(sums.groups, sums.means, strict=True) if value in (0, 1)]
        low, high = max(0.0, low - sum(bounds) / len(bins)), min(1.0, high + sum(bounds) / len(bins))
    return BinnedMean(whole, sum(sums.n), len(sums.numerators), mean, low, high)


@dataclass(frozen=True)
class _BinSums:
    """Per bin: number of values, number of images and mean. numerators, denominators (images, bins): the sums of
    `values` and of `per` of each image, so that a resample is a product with the number of draws of each image."""

    bins: Sequence[Bin]
    n: list[int]
    groups: list[int]
    means: list[float]
    numerators: np.ndarray
    denominators: np.ndarray

    @staticmethod
    def compute(
        values: np.ndarray, axis: np.ndarray, bins: Sequence[Bin], groups: np.ndarray | None, per: np.ndarray | None
    ) -> _BinSums:
        """Sum the values of each image in each bin. Raises ValueError if the arrays have different lengths."""
        values = np.asarray(values, np.float64)
        groups = np.arange(len(values)) if groups is None else np.asarray(groups)
        per = np.ones(len(values)) if per is None else np.asarray(per, np.float64)
        if not values.shape == np.shape(axis) == groups.shape == per.shape:
            shapes = ", ".join(str(array.shape) for array in (values, np.asarray(axis), groups, per))
            raise ValueError(f"values, axis, groups and per must each have shape (n,), but they have shapes {shapes}")
        valid = ~(np.isnan(values) | np.isnan(per))
        masks = [valid & (axis >= one.low) & (axis < one.high) for one in bins]
        # Images without a value in any bin are not part of the sample, so they must not change the intervals.
        used = np.logical_or.reduce(masks)
        image = np.zeros(len(values), np.int64)
        unique, image[used] = np.unique(groups[used], return_inverse=True)
        count = len(unique)
        numerators, denominators = np.empty((count, len(bins))), np.empty((count, len(bins)))
        means = []
        for i, mask in enumerate(masks):
            numerators[:, i] = np.bincount(image[mask], values[mask], minlength=count)
            denominators[:, i] = np.bincount(image[mask], per[mask], minlength=count)
            total = math.fsum(per[mask])
            means.append(math.fsum(values[mask]) / total if total else math.nan)
        images = [len(np.unique(image[mask])) for mask in masks]
        return _BinSums(bins, [int(mask.sum()) for mask in masks], images, means, numerators, denominators)

    def binned_mean(self, i: int, resampled: np.ndarray | None, share: bool) -> BinnedMean:
        """Return the mean of bin `i`. resampled: its resampled means (RESAMPLES,); None if no bin has enough images."""
        mean, groups = self.means[i], self.groups[i]
        if resampled is not None and groups >= MIN_BOOTSTRAP_IMAGES:
            low, high = percentile_interval(resampled, mean)
        else:
            used = self.denominators[:, i] != 0
            low, high = _students_interval(self.leave_one_out()[used, i], mean)
        if share and not math.isnan(low):
            divisor = float(self.denominators[:, i].sum()) / self.n[i]  # 1, or the mean of `per`
            reach, upper = share_bound(groups) / divisor, 1.0 if divisor == 1 else math.inf
            low, high = np.clip(min(low, mean - reach), 0, upper), np.clip(max(high, mean + reach), 0, upper)
        return BinnedMean(self.bins[i], self.n[i], groups, mean, float(low), float(high))

    def leave_one_out(self) -> np.ndarray:
        """Return the bins' means with each image left out in turn, (images, bins); NaN where no value remains."""
        denominators = self.denominators.sum(0) - self.denominators
        numerators = self.numerators.sum(0) - self.numerators
        empty = np.full(numerators.shape, math.nan)
        return np.divide(numerators, denominators, out=empty, where=denominators != 0)


def _students_interval(leave_one_out: np.ndarray, mean: float) -> tuple[float, float]:
    """Return the Student's t interval of a mean from its leave-one-image-out values (g,); NaN for a single image."""
    if len(leave_one_out) < 2 or np.isnan(leave_one_out).any() or math.isnan(mean):
        return math.nan, math.nan
    reach = students_t(len(leave_one_out) - 1) * jackknife_deviation(leave_one_out)
    return mean - reach, mean + reach


def _resampled_ratios(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> np.ndarray:
    """Return the ratios of sums over resampled rows, (RESAMPLES, bins), from two arrays (count, bins).

    A ratio is NaN where the resampled denominators sum to 0.
    """
    count, rng = len(numerators), np.random.default_rng(seed)
    ratios = np.full((RESAMPLES, numerators.shape[1]), math.nan)
    for row in ratios if count else ():
        # The same draws as in tokbench.stats.bootstrap, as multinomial weights.
        weights = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        total = weights @ denominators
        np.divide(weights @ numerators, total, out=row, where=total != 0)
    return ratios
