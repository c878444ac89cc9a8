"""Comparison of two results on the same images: paired differences with intervals and verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tokbench.errors import ResultError
from tokbench.metric_names import MetricName, is_single_cell, table_of_task
from tokbench.results.columns import column_of
from tokbench.results.result import Result, settings
from tokbench.stats.bootstrap import (
    MIN_BOOTSTRAP_IMAGES,
    MeanStatistic,
    bootstrap_pairs,
    mean,
    mean_statistic,
    pair_deviation,
)
from tokbench.stats.sample_size import images_needed
from tokbench.stats.split_half import Replicates
from tokbench.stats.spread import Spread

Verdict = Literal["same", "better", "worse", "cannot tell", "no error bar", "no direction"]

SEED = 0
"""Seed of the paired bootstrap."""

_CLEAR = 15
"""A mean difference of more than this many standard errors needs no bootstrap."""


@dataclass(frozen=True)
class Difference:
    """The difference of one number between two results on the same images.

    first, second: the values on the images for which both results have one (a mean over images, even if the protocol
    averages by batches); None if there is no such image. gap: second minus first. low, high: paired 95 % interval of
    the gap; NaN if it has none. n: number of images. first_only, second_only: images for which only one of the results
    has a value (an exact image has no PSNR). deviation: standard deviation of the gap; NaN if the gap has no interval
    or its width does not decrease with the square root of n, as for codebook usage. moved: (image name, difference) by
    decreasing absolute difference, in the per-image value named by `moved_in`.
    """

    number: str
    first: float | None
    second: float | None
    gap: float
    low: float
    high: float
    n: int
    verdict: Verdict
    first_only: int = 0
    second_only: int = 0
    deviation: float = math.nan
    moved_in: str = ""
    moved: list[tuple[str, float]] = field(default_factory=list, repr=False)

    @property
    def alone(self) -> int:
        """Images for which only one of the two has a value."""
        return self.first_only + self.second_only

    @property
    def images_needed(self) -> int | None:
        """The number of images at which the gap can be told from 0 (`tokbench.stats.sample_size`), or None."""
        return images_needed(self.gap, self.deviation, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object without `moved` and `deviation`; NaN becomes None."""
        names = (
            "number", "first", "second", "gap", "low", "high", "n", "first_only", "second_only", "verdict",
            "images_needed",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def refuse_unlike(first: Result, second: Result) -> None:
    """Raise ResultError if two results differ in task, protocol or pixels; the message names the difference.

    The variants of a decoder (`decode-bf16` and `decode-tiles256`) can be compared: the tokens are the same.
    """
    if table_of_task(first.task)[0] != table_of_task(second.task)[0]:
        raise ResultError(f"task {first.task} and task {second.task} cannot be compared")
    for part, what in (("protocol", "protocols"), ("data", "images")):
        first_hash, second_hash = (result.provenance[part]["sha256"] for result in (first, second))
        if first_hash != second_hash:
            raise ResultError(
                f"{first.adapter} and {second.adapter} were measured on different {what} ({first_hash[:12]} and "
                f"{second_hash[:12]}); only results on the same {what} can be compared"
            )


def differences(first: Result, second: Result) -> list[Difference]:
    """Return the difference of every number that both results computed with the same settings, in table order.

    Single cells of a perturbation grid are left out, because the data for an interval of their difference is not
    stored; their means are included. Raises ResultError if the results are not on the same images under the same
    protocol, or have no such number in common.
    """
    refuse_unlike(first, second)
    shared = {number for number in set(first.metrics) & set(second.metrics) if not is_single_cell(number)}
    both = sorted(shared, key=lambda number: (column_of(number)[0], number))
    found = [difference(number, first, second) for number in both if same_settings(number, first, second)]
    if not found:
        raise ResultError(f"{first.adapter} and {second.adapter} have no number computed with the same settings")
    return found


def made_otherwise(first: Result, second: Result) -> list[str]:
    """Return the numbers that both results have but computed with a different network, weights, device or settings."""
    both = sorted(set(first.metrics) & set(second.metrics))
    return [number for number in both if not is_single_cell(number) and not same_settings(number, first, second)]


def same_settings(number: str, first: Result, second: Result) -> bool:
    """Return whether two results computed a number with the same network, layer, weights and settings."""
    return settings(first, number) == settings(second, number)


def difference(number: str, first: Result, second: Result) -> Difference:
    """Return the difference of one number, second minus first, over the images for which both have a value."""
    if pairs := per_image_pairs(number, first, second):
        return _difference_of_means(number, pairs)
    ours, theirs = (result.metrics[number]["value"] for result in (first, second))
    n = int(second.metrics[number].get("n", second.num_images))
    if ours is None or theirs is None:
        same: Verdict = "same" if ours == theirs else "cannot tell"
        return Difference(number, ours, theirs, math.nan, math.nan, math.nan, n, same)
    gap, replicates = theirs - ours, _replicates_of_gap(number, first, second)
    if replicates is None:
        verdict: Verdict = "same" if gap == 0 else "no error bar"
        return Difference(number, ours, theirs, gap, math.nan, math.nan, n, verdict)
    interval = replicates[1].interval(replicates[0], second.num_images)
    verdict = verdict_of(number, gap, interval.low, interval.high)
    deviation = replicates[1].deviation if replicates[1].scales else math.nan
    return Difference(number, ours, theirs, gap, interval.low, interval.high, n, verdict, deviation=deviation)


@dataclass(frozen=True)
class PairedValues:
    """Per-image values of two results on their common images: names (n,), first and second (n,), NaN for no value.

    how: how the number is computed from the mean of the values.
    """

    names: np.ndarray
    first: np.ndarray
    second: np.ndarray
    how: MeanStatistic


def per_image_pairs(number: str, first: Result, second: Result) -> PairedValues | None:
    """Return the per-image values of a number; None if it is not computed from per-image values."""
    how = mean_statistic(number, first.per_image)
    if how is None or mean_statistic(number, second.per_image) != how:
        return None
    _, left, right = np.intersect1d(
        first.per_image["index"], second.per_image["index"], assume_unique=True, return_indices=True
    )
    names = second.per_image["name"][right]
    return PairedValues(names, first.per_image[how.values][left], second.per_image[how.values][right], how)


def differs_clearly(number: str, first: Result, second: Result) -> bool:
    """Return whether the paired interval of a number cannot contain 0, without computing the interval.

    False where that is not certain. By Cantelli's inequality a resampled mean lies beyond 0 with a probability of at
    most 1 / (1 + _CLEAR**2) = 0.4 %, and the interval contains 0 only if at least 2.5 % of the 1,000 resamples do.
    """
    pairs = per_image_pairs(number, first, second)
    if pairs is None or pairs.how != MeanStatistic(number) or len(pairs.first) < MIN_BOOTSTRAP_IMAGES:
        return False
    each = pairs.second - pairs.first  # NaN, and then False, if an image has no value
    return bool(abs(each.mean()) > _CLEAR * each.std() / math.sqrt(len(each)))


def _difference_of_means(number: str, pairs: PairedValues) -> Difference:
    """Return the difference of a mean over images, with a paired bootstrap interval."""
    absent = np.isnan(pairs.first), np.isnan(pairs.second)
    first_only, second_only = int((absent[1] & ~absent[0]).sum()), int((absent[0] & ~absent[1]).sum())
    both, of = ~(absent[0] | absent[1]), pairs.how.of
    names, ours, theirs = pairs.names[both], pairs.first[both], pairs.second[both]
    first, second = (None if math.isnan(value := of(mean(column))) else value for column in (ours, theirs))
    if first is None or second is None:
        verdict: Verdict = "same" if first is second and not first_only + second_only else "cannot tell"
        nan = math.nan
        return Difference(number, first, second, nan, nan, nan, len(names), verdict, first_only, second_only)
    interval = bootstrap_pairs(ours, theirs, SEED, pairs.how)
    verdict = verdict_of(number, second - first, interval.low, interval.high)
    if first_only + second_only:
        verdict = "cannot tell"  # the excluded images could change the verdict
    each = theirs - ours
    moved = [(str(names[i]), float(each[i])) for i in np.argsort(-np.abs(each), kind="stable") if each[i]]
    return Difference(
        number,
        first,
        second,
        second - first,
        interval.low,
        interval.high,
        len(names),
        verdict,
        first_only,
        second_only,
        math.nan if math.isnan(interval.low) else pair_deviation(ours, theirs, pairs.how),
        pairs.how.values,
        moved,
    )


def _replicates_of_gap(number: str, first: Result, second: Result) -> tuple[float, Spread] | None:
    """Return a difference and its replicates, from the replicates of both results on the same images.

    Returns None if they were not stored, or were computed differently by another version of tokbench.
    """
    base = MetricName.parse(number).finite
    ours, theirs = first.replicates.get(base), second.replicates.get(base)
    if ours is None or theirs is None or not ours.is_compatible(theirs):
        return None
    gap = second.metrics[base]["value"] - first.metrics[base]["value"]
    spread: Spread = theirs - ours
    if base == number:
        return gap, spread
    if not isinstance(spread, Replicates) or spread.quarters is None:
        return None
    return spread.extrapolate_unchecked(gap)


def verdict_of(number: str, gap: float, low: float, high: float) -> Verdict:
    """Return the verdict on the second result, from the paired 95 % interval [low, high] of the gap."""
    if gap == 0 and low == high == 0:
        return "same"
    if math.isnan(low) or math.isnan(high):
        return "no error bar"
    if low <= 0 <= high:
        return "cannot tell"
    more = column_of(number)[1].more
    if more is None:
        return "no direction"
    return "better" if (gap > 0) == more else "worse"
