"""Split-half intervals for metrics that are not means over images, such as Fréchet and kernel distances.

Resampling with replacement repeats images, which biases Fréchet distances upward. Halves drawn without replacement
avoid this bias, and each half is used together with its complement: the difference between the two measures how much
the metric depends on the choice of images. The halves are determined by the hash of the data and N alone, so all
results on the same images use the same halves, and two tokenizers can be compared from their result files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokbench.stats.bootstrap import UNBOUNDED, Interval
from tokbench.stats.naming import INFINITY
from tokbench.stats.spread import Spread

_PAIRS = ((1000, 100), (5000, 25))
_MIN_PAIRS = 10
"""Number of pairs of complementary halves: 100 up to 1,000 images, 25 up to 5,000, else 10. With more images each
distance in 2,048 dimensions takes about a second. A standard deviation from 10 pairs has a relative error of about a
quarter, which Student's t accounts for.
"""

_BIAS_RATIO = (1.8, 2.5)
"""Range of the ratio of the bias increase from N/2 to N/4 images to that from N to N/2 images, within which the bias is
assumed to follow c / n. That law gives a ratio of 2."""

_NEGLIGIBLE_BIAS = 0.2
"""A bias below this fraction of the standard deviation is negligible, so its ratio is not checked."""


def pairs(count: int) -> int:
    """Return the number of pairs of complementary halves that are drawn from `count` images."""
    return next((number for limit, number in _PAIRS if count <= limit), _MIN_PAIRS)


@dataclass(frozen=True)
class SplitHalves:
    """Pairs of complementary halves of `count` images; if `count` is odd, each pair omits one image.

    sha256: hash of the data, which seeds the draws. num_pairs: number of pairs, by default `pairs(count)`.
    """

    sha256: str
    count: int
    num_pairs: int | None = None

    def __len__(self) -> int:
        """Return the number of halves, two per pair."""
        return 2 * (self.num_pairs or pairs(self.count))

    @property
    def half(self) -> int:
        """Number of images in a half."""
        return self.count // 2

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the positions (count // 2,) of each half; complements follow each other.

        The quarters are the first and the second part of each half.
        """
        seed = hashlib.sha256(f"{self.sha256}/{self.count}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "big"))
        for _ in range(len(self) // 2):
            order = rng.permutation(self.count)
            yield order[: self.half]
            yield order[self.half : 2 * self.half]


@dataclass(frozen=True)
class Replicates(Spread):
    """The values of a metric on all halves.

    halves (n,): the value on each half; complementary halves are adjacent. quarters (n,): for each half, the mean of
    the metric over the two parts of that half, or None. bounds: range of possible values of the metric.
    min_reach: minimum distance of the interval's ends from the value, which gives the interval a width if all halves
    have the same share, 0 or 1.
    """

    kind: ClassVar[str] = "replicates"

    halves: np.ndarray
    quarters: np.ndarray | None = None
    bounds: tuple[float, float] = UNBOUNDED
    min_reach: float = 0.0

    def as_array(self) -> np.ndarray:
        """Return the array (halves, 1 or 2) that is stored with a result."""
        columns = [self.halves] if self.quarters is None else [self.halves, self.quarters]
        return np.stack(columns, axis=1)

    @staticmethod
    def from_array(columns: np.ndarray) -> Replicates:
        """Restore replicates from `as_array`. Raises ValueError, whose message is the expected shape."""
        if columns.ndim != 2 or not len(columns) or len(columns) % 2 or columns.shape[1] not in (1, 2):
            raise ValueError("(halves, 1 or 2)")
        return Replicates(columns[:, 0], columns[:, 1] if columns.shape[1] > 1 else None)

    def __sub__(self, other: Replicates) -> Replicates:
        """Return the replicates of the difference between two metrics on the same halves."""
        both = self.quarters is not None and other.quarters is not None
        return Replicates(self.halves - other.halves, self.quarters - other.quarters if both else None)  # type: ignore[operator]

    def is_compatible(self, other: Spread) -> bool:
        return isinstance(other, Replicates) and len(self.halves) == len(other.halves)

    @property
    def degrees(self) -> int:
        return len(self.halves) // 2

    @property
    def deviation(self) -> float:
        """Standard deviation of the metric at the full N: a delete-half jackknife over complementary halves.

        Half the difference between two complementary halves has about the variance of the full-sample estimate, as far
        as the metric is linear in the images. The quadratic part of the noise is overestimated by a factor of two, so
        where it matters (few images for the dimension, independent sets of images) intervals are too wide rather than
        too narrow (Efron and Stein 1981).
        """
        complements = self.halves.reshape(-1, 2)
        return math.sqrt(float((((complements[:, 0] - complements[:, 1]) / 2) ** 2).mean()))

    def reach(self, spread: float) -> tuple[float, float]:
        return max(spread, self.min_reach), max(spread, self.min_reach)

    def entries(self, name: str, value: float, count: int) -> Iterator[tuple[str, float, Interval]]:
        """Yield name, value and interval of the metric, and of its extrapolation to infinite N where there is one."""
        floor = 0.0 if self.quarters is not None else -math.inf  # an unbiased estimate may be negative
        yield name, value, self.interval(value, count, floor)
        if extrapolation := self.extrapolate(value):
            limit, replicates = extrapolation
            yield name + INFINITY, limit, replicates.interval(limit, count)

    def extrapolate(self, value: float) -> tuple[float, Replicates] | None:
        """Return the metric extrapolated to infinitely many images, and its replicates; None if that is not possible.

        The bias of a Fréchet distance on n images is about c / n (Chong and Forsyth, CVPR 2020), so the extrapolation
        is twice the value at N minus the mean over halves, and likewise on each half with its quarters. With few images
        for the dimension the bias does not follow this law yet: its increase from N/2 to N/4 is then not twice its
        increase from N to N/2, and the method returns None. A bias that is negligible relative to the noise is not
        checked.
        """
        if self.quarters is None:
            return None
        first, second = float(self.halves.mean()) - value, float((self.quarters - self.halves).mean())
        low, high = _BIAS_RATIO
        if first > _NEGLIGIBLE_BIAS * self.deviation and not low <= second / first <= high:
            return None
        return self.extrapolate_unchecked(value)

    def extrapolate_unchecked(self, value: float) -> tuple[float, Replicates]:
        """Return the extrapolation as `extrapolate` does, but without checking that the bias follows c / n.

        It is used for the difference between two metrics that were each checked before.
        """
        assert self.quarters is not None
        return 2 * value - float(self.halves.mean()), Replicates(2 * self.halves - self.quarters)
