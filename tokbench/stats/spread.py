"""Replicates, which estimate the sampling variation of metrics that are not means over images.

There are four kinds. Each is stored with a result, so that two results can be compared without their images: values on
random halves (`tokbench.stats.split_half`), values with one group of images left out (`Jackknife`), values on splits
(`Splits`), and, for shares of distinct items, values with one image left out plus a correction (`Distinct`).
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from tokbench.stats.bootstrap import UNBOUNDED, Interval, jackknife_deviation, students_t

GROUPS = 25
"""Number of groups of a delete-a-group jackknife. Student's t with 24 degrees of freedom gives intervals that are 5 %
wider than those of the normal distribution."""


class Spread(ABC):
    """Replicates of one metric. bounds: range of possible values of the metric, to which its interval is clipped."""

    kind: ClassVar[str]
    """Key under which replicates of this kind are stored with a result."""
    scales: ClassVar[bool] = True
    """Whether the width of the interval decreases with the square root of the number of images."""
    bounds: tuple[float, float]

    @property
    @abstractmethod
    def deviation(self) -> float:
        """Standard deviation of the metric on all images."""

    @property
    @abstractmethod
    def degrees(self) -> int:
        """Degrees of freedom of `deviation`, for Student's t."""

    @abstractmethod
    def __sub__(self, other: Any) -> Self:
        """Return the replicates of the difference between two metrics on the same images.

        The operands must be compatible (`is_compatible`).
        """

    @abstractmethod
    def is_compatible(self, other: Spread) -> bool:
        """Return whether both have the same kind and the same number of replicates."""

    @abstractmethod
    def as_array(self) -> np.ndarray:
        """Return the array that is stored with a result."""

    def interval(self, value: float, count: int, floor: float = -math.inf) -> Interval:
        """Return the 95 % interval of the expected value at N = `count`, around `value`.

        floor: lower bound of the metric.
        """
        if math.isnan(value) or self.degrees < 1:
            return Interval(math.nan, math.nan, count)
        below, above = self.reach(students_t(self.degrees) * self.deviation)
        return Interval(value - below, value + above, count).within((max(floor, self.bounds[0]), self.bounds[1]))

    def reach(self, spread: float) -> tuple[float, float]:
        """Return how far the interval extends below and above the value, from its symmetric half width `spread`."""
        return spread, spread

    def entries(self, name: str, value: float, count: int) -> Iterator[tuple[str, float, Interval]]:
        """Yield name, value and interval of the metric, and of the metrics derived from its replicates."""
        yield name, value, self.interval(value, count)

    def extrapolate(self, value: float) -> tuple[float, Spread] | None:
        """Return the metric extrapolated to infinitely many images, and its replicates, or None."""
        return None


@dataclass(frozen=True)
class _Values(Spread):
    """Replicates that are an array of values (g,)."""

    values: np.ndarray
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def degrees(self) -> int:
        return len(self.values) - 1

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.values - other.values)

    def is_compatible(self, other: Spread) -> bool:
        return type(self) is type(other) and len(self.values) == len(other.values)

    def as_array(self) -> np.ndarray:
        return self.values

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        """Restore replicates from `as_array`. Raises ValueError, whose message is the expected shape."""
        if array.ndim != 1 or len(array) < 2:
            raise ValueError("(replicates,), two or more")
        return cls(array)


@dataclass(frozen=True)
class Jackknife(_Values):
    """The values of a metric with each group of images left out in turn (Tukey 1958; Efron and Stein 1981).

    The jackknife does not repeat images, which would bias every metric that counts distinct items, and it uses nearly
    all N images, unlike halves, which underestimate the spread of metrics that grow with N.
    """

    kind: ClassVar[str] = "jackknife"

    @property
    def deviation(self) -> float:
        return jackknife_deviation(self.values)


@dataclass(frozen=True)
class Splits(_Values):
    """The values of a metric on disjoint splits of the images. The metric is their mean."""

    kind: ClassVar[str] = "splits"

    @property
    def deviation(self) -> float:
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))


@dataclass(frozen=True)
class Distinct(_Values):
    """The share of items that occur (such as codebook entries) with each image left out in turn, plus a correction.

    If every item occurs in several images, leaving one image out does not change the share, although another sample of
    images would lose some items and gain others. The sums of lost and gained (n,) are how far the expected share may
    lie below and above the share for that reason. Each image contributes to `lost` the part that comes from its own
    items, so codecs with different codes have different arrays.
    """

    kind: ClassVar[str] = "distinct"
    scales: ClassVar[bool] = False  # the number of items that other images lose or gain does not

    lost: np.ndarray = field(kw_only=True)
    gained: np.ndarray = field(kw_only=True)

    @property
    def deviation(self) -> float:
        return jackknife_deviation(self.values)

    def reach(self, spread: float) -> tuple[float, float]:
        return math.hypot(spread, float(self.lost.sum())), math.hypot(spread, float(self.gained.sum()))

    def __sub__(self, other: Self) -> Self:
        """Return the replicates of the difference between two shares; all zero if both arrays are equal.

        The difference decreases when the first share decreases or the second one increases, and vice versa.
        """
        gaps, count = self.values - other.values, len(self.values)
        if np.array_equal(self.as_array(), other.as_array()):
            return type(self)(gaps, lost=np.zeros(count), gained=np.zeros(count))
        lost, gained = (
            np.full(count, math.hypot(float(first.sum()), float(second.sum())) / count)
            for first, second in ((self.lost, other.gained), (self.gained, other.lost))
        )
        return type(self)(gaps, lost=lost, gained=gained)

    def as_array(self) -> np.ndarray:
        """Return the array (n, 3) of values, lost and gained."""
        return np.stack([self.values, self.lost, self.gained], axis=1)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        """Restore replicates from `as_array`. Raises ValueError, whose message is the expected shape."""
        if array.ndim != 2 or len(array) < 2 or array.shape[1] != 3:
            raise ValueError("(images, 3), two or more")
        return cls(array[:, 0], lost=array[:, 1], gained=array[:, 2])


KINDS: dict[str, type[_Values]] = {one.kind: one for one in (Jackknife, Splits, Distinct)}


def groups(sha256: str, count: int, number: int = GROUPS) -> np.ndarray:
    """Return the group, 0 to `number` - 1, of each of `count` images, (count,).

    The groups are random and of nearly equal size. They are determined by the hash of the data and N alone, so two
    results on the same images have the same groups.
    """
    seed = hashlib.sha256(f"{sha256}/{count}/groups".encode()).digest()
    order = np.random.default_rng(int.from_bytes(seed, "big")).permutation(count)
    group = np.empty(count, dtype=np.int64)
    group[order] = np.arange(count) * min(number, count) // max(count, 1)
    return group
