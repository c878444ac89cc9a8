"""Means of words or faces by their size: TokBench's bins, and curves over pixels, with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tokbench.stats.bootstrap import FEW, RESAMPLES, jackknife_deviation, least_reach, students_t
from tokbench.stats.bootstrap import percentile_interval as edges


@dataclass(frozen=True)
class Bin:
    """Sizes low <= x < high."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class BinnedMean:
    """A mean in one bin with its 95 % interval, the `n` values and the `groups` (images) behind it.

    NaN where there are no values: an empty bin has no mean, which is not 0.
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
"""Words, by the side that an image is scaled to, over ratio = word's length / its characters / image's longer side.

TokBench's compute_all_metrics.py, where both releases (of May and June 2025) have them. As there, no bin holds a ratio
of 1, and what is below the first is not counted. The floor is 5.12 pixels per character at every side, but `small` ends
at 7.7 pixels at 256 and at 10.2 at 512 and 1024.
"""

FACE_BINS = {
    "2025-05": {256: _three(0, 0.1, 0.2, 1), 512: _three(0, 0.05, 0.2, 1), 1024: _three(0, 0.05, 0.1, 1)},
    "2025-06": {256: _three(0.1, 0.2, 0.3, 1), 512: _three(0.05, 0.1, 0.2, 1), 1024: _three(0.02, 0.05, 0.1, 1)},
}
"""Faces, by release and side, over a face's size / the image's: numbers of the two releases cannot be compared."""

CHARACTER_BINS = _curve(4, 5, 6, 8, 10, 12, 16, 24, 40)
"""Pixels per character after scaling, the same axis at every side; all words are in a bin.

Steps of a fifth to two thirds, the finest at 4 to 12, where most words that TokBench counts are at each of its three
sides; its floor of 5.12 and its edges of 7.68 and 10.24 lie next to edges here.
"""

FACE_PIXEL_BINS = _curve(16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Pixels per face after scaling, in half octaves around the 112 pixels that ArcFace's networks look at."""


def binned(
    values: np.ndarray,
    axis: np.ndarray,
    bins: Sequence[Bin],
    seed: int,
    groups: np.ndarray | None = None,
    per: np.ndarray | None = None,
    share: bool = False,
) -> list[BinnedMean]:
    """The mean of `values` (n,) in each bin over `axis` (n,). NaN values are left out, as is what is in no bin.

    groups (n,): which image a value comes from, by default one each. Words of one image are alike, so whole images are
    resampled (cluster bootstrap), 1,000 times with `seed`, in all bins together; one value an image gives the same
    resamples as tokbench.stats.bootstrap. Bins of fewer than 50 images have Student's t with a jackknife over images
    instead, and those of a single image no interval. per (n,): instead of the mean, sum of `values` / sum of `per`:
    with distances and lengths a CER, with the same words of images that were only scaled a ratio to the ceiling. NaN
    where the latter is 0. share: `values` lie in 0..1. Then an interval reaches at least as far as the share may be
    from 0 (or 1) that so many images, two or more, do not contradict, and so has a width where all agree.
    """
    found = _Sums.of(values, axis, bins, groups, per)
    drawn = _draw(found.above, found.below, seed) if max(found.groups, default=0) >= FEW else None
    return [found.binned(at, None if drawn is None else drawn[:, at], share) for at in range(len(bins))]


def mean_of_bins(
    values: np.ndarray,
    axis: np.ndarray,
    bins: Sequence[Bin],
    seed: int,
    groups: np.ndarray | None = None,
    share: bool = False,
) -> BinnedMean:
    """The unweighted mean of the bins' means, with an interval as in `binned`; NaN if one bin is empty.

    TokBench's `mean`: a bin with few words weighs as much as one with many.
    """
    found = _Sums.of(values, axis, bins, groups, None)
    mean = math.fsum(found.means) / len(bins)
    whole = Bin("mean", min(one.low for one in bins), max(one.high for one in bins))
    if min(found.groups) >= FEW:
        low, high = edges(_draw(found.above, found.below, seed).mean(1), mean)
    else:
        low, high = _students(found.without_each().mean(1), mean) if min(found.groups) > 1 else (math.nan, math.nan)
    if share and not math.isnan(low):  # bins in which all words agree have no spread, and yet are not known for sure
        sure = [least_reach(count) for count, at in zip(found.groups, found.means, strict=True) if at in (0, 1)]
        low, high = max(0.0, low - sum(sure) / len(bins)), min(1.0, high + sum(sure) / len(bins))
    return BinnedMean(whole, sum(found.n), len(found.above), mean, low, high)


@dataclass(frozen=True)
class _Sums:
    """By bin: values, images and mean. above, below (images, bins): sums of `values` and of `per`, so that a resample
    is one product with how often each image was drawn."""

    bins: Sequence[Bin]
    n: list[int]
    groups: list[int]
    means: list[float]
    above: np.ndarray
    below: np.ndarray

    @staticmethod
    def of(
        values: np.ndarray, axis: np.ndarray, bins: Sequence[Bin], groups: np.ndarray | None, per: np.ndarray | None
    ) -> _Sums:
        """Raises ValueError where the arrays are not of one length."""
        values = np.asarray(values, np.float64)
        groups = np.arange(len(values)) if groups is None else np.asarray(groups)
        per = np.ones(len(values)) if per is None else np.asarray(per, np.float64)
        if not values.shape == np.shape(axis) == groups.shape == per.shape:
            shapes = ", ".join(str(array.shape) for array in (values, np.asarray(axis), groups, per))
            raise ValueError(f"values, axis, groups and per must be (n,) each, they are {shapes}")
        known = ~(np.isnan(values) | np.isnan(per))
        inside = [known & (axis >= one.low) & (axis < one.high) for one in bins]
        # Images without a value in any bin are no part of the sample: what is never counted must not move an interval.
        used = np.logical_or.reduce(inside)
        number = np.zeros(len(values), np.int64)
        unique, number[used] = np.unique(groups[used], return_inverse=True)
        count = len(unique)
        above, below = np.empty((count, len(bins))), np.empty((count, len(bins)))
        means = []
        for i, mask in enumerate(inside):
            above[:, i] = np.bincount(number[mask], values[mask], minlength=count)
            below[:, i] = np.bincount(number[mask], per[mask], minlength=count)
            total = math.fsum(per[mask])
            means.append(math.fsum(values[mask]) / total if total else math.nan)
        found = [len(np.unique(number[mask])) for mask in inside]
        return _Sums(bins, [int(mask.sum()) for mask in inside], found, means, above, below)

    def binned(self, at: int, drawn: np.ndarray | None, share: bool) -> BinnedMean:
        """One bin's mean; `drawn` are its resampled means (RESAMPLES,), None where no bin has enough images."""
        mean, groups = self.means[at], self.groups[at]
        if drawn is not None and groups >= FEW:
            low, high = edges(drawn, mean)
        else:
            inside = self.below[:, at] != 0
            low, high = _students(self.without_each()[inside, at], mean)
        if share and not math.isnan(low):
            divisor = float(self.below[:, at].sum()) / self.n[at]  # 1, or the mean of what the share is divided by
            reach, most = least_reach(groups) / divisor, 1.0 if divisor == 1 else math.inf
            low, high = np.clip(min(low, mean - reach), 0, most), np.clip(max(high, mean + reach), 0, most)
        return BinnedMean(self.bins[at], self.n[at], groups, mean, float(low), float(high))

    def without_each(self) -> np.ndarray:
        """The bins' means without each image in turn, (images, bins); NaN where nothing is left."""
        below = self.below.sum(0) - self.below
        above = self.above.sum(0) - self.above
        return np.divide(above, below, out=np.full(above.shape, math.nan), where=below != 0)


def _students(left: np.ndarray, mean: float) -> tuple[float, float]:
    """Student's t around a mean, from its values without each image (g,); NaN for a single image."""
    if len(left) < 2 or np.isnan(left).any() or math.isnan(mean):
        return math.nan, math.nan
    reach = students_t(len(left) - 1) * jackknife_deviation(left)
    return mean - reach, mean + reach


def _draw(above: np.ndarray, below: np.ndarray, seed: int) -> np.ndarray:
    """Ratios of sums over resampled rows: (count, bins) each to (RESAMPLES, bins). NaN where a resample has nothing."""
    count, rng = len(above), np.random.default_rng(seed)
    made = np.full((RESAMPLES, above.shape[1]), math.nan)
    for row in made if count else ():
        # Multinomial weights, by the draws that tokbench.stats.bootstrap makes.
        weights = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        total = weights @ below
        np.divide(weights @ above, total, out=row, where=total != 0)
    return made
