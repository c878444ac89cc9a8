"""Error bars for numbers that are no means over images (Fréchet and kernel distances): random halves of the images.

Resampling with replacement repeats images, which biases a Fréchet distance upward. Halves drawn without replacement do
not, and as often as one is drawn its complement is too: what one half gains by its images the other loses, so their
difference shows how much the number depends on which images there are, and their mean hardly does. Which images a half
holds follows from the data's hash and N alone, so any two results on the same images have the same halves, and the
difference of two tokenizers can be judged from their result files.
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
_FEWEST = 10
"""Pairs of complementary halves: 100 up to 1,000 images, 25 up to 5,000, else 10. With more images each distance in
2,048 dimensions takes about a second. A deviation from 10 pairs is good to a quarter of itself: Student's t covers it.
"""

_LAW = (1.8, 2.5)
"""Between which a law of c / n, which gives 2, is believed."""

_NEGLIGIBLE = 0.2
"""Of the standard deviation: a bias that need not follow any law."""


def pairs(count: int) -> int:
    """Pairs of complementary halves that are drawn of `count` images."""
    return next((number for most, number in _PAIRS if count <= most), _FEWEST)


@dataclass(frozen=True)
class SplitHalves:
    """`pairs(count)` times two complementary halves of `count` images; of an odd number, one is left out each time.

    times: pairs, where they are to be as many as those of another set.
    """

    sha256: str
    count: int
    times: int | None = None

    def __len__(self) -> int:
        """How many halves."""
        return 2 * (self.times or pairs(self.count))

    @property
    def half(self) -> int:
        """Images in a half."""
        return self.count // 2

    def __iter__(self) -> Iterator[np.ndarray]:
        """Positions (count // 2,), one half after the other. Each half's own halves are its first and second part."""
        seed = hashlib.sha256(f"{self.sha256}/{self.count}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "big"))
        for _ in range(len(self) // 2):
            order = rng.permutation(self.count)
            yield order[: self.half]
            yield order[self.half : 2 * self.half]


@dataclass(frozen=True)
class Replicates(Spread):
    """A number on all halves (complements in a row), and the mean of its values on each half's own two halves."""

    kind: ClassVar[str] = "replicates"

    halves: np.ndarray
    quarters: np.ndarray | None = None
    bounds: tuple[float, float] = UNBOUNDED
    least: float = 0.0
    """The least distance of the interval's ends from a share of which all halves may agree that it is none or all."""

    def as_array(self) -> np.ndarray:
        """(halves, 1 or 2), as it is kept beside a result."""
        columns = [self.halves] if self.quarters is None else [self.halves, self.quarters]
        return np.stack(columns, axis=1)

    @staticmethod
    def from_array(columns: np.ndarray) -> Replicates:
        """The inverse of `as_array`. Raises ValueError with the shape that it must have."""
        if columns.ndim != 2 or not len(columns) or len(columns) % 2 or columns.shape[1] not in (1, 2):
            raise ValueError("(halves, 1 or 2)")
        return Replicates(columns[:, 0], columns[:, 1] if columns.shape[1] > 1 else None)

    def __sub__(self, other: Replicates) -> Replicates:
        """Of the difference of two numbers on the same halves."""
        both = self.quarters is not None and other.quarters is not None
        return Replicates(self.halves - other.halves, self.quarters - other.quarters if both else None)  # type: ignore[operator]

    def like(self, other: Spread) -> bool:
        return isinstance(other, Replicates) and len(self.halves) == len(other.halves)

    @property
    def degrees(self) -> int:
        return len(self.halves) // 2

    @property
    def deviation(self) -> float:
        """Standard deviation of the number at the full N: a delete-half jackknife over complementary halves.

        At N/2 images the part of the noise that is linear in the images has twice the variance that it has at N, and
        within one set of images half of that shows: so half the difference of two complements varies just as the number
        itself does. Of the part that is quadratic it shows twice too much, so where that matters (few images for the
        dimension, independent sets) intervals are too wide rather than too narrow (Efron and Stein 1981).
        """
        drawn = self.halves.reshape(-1, 2)
        return math.sqrt(float((((drawn[:, 0] - drawn[:, 1]) / 2) ** 2).mean()))

    def reach(self, spread: float) -> tuple[float, float]:
        return max(spread, self.least), max(spread, self.least)

    def entries(self, number: str, value: float, count: int) -> Iterator[tuple[str, float, Interval]]:
        """Name, value and interval of the number, and of its extrapolation to infinitely many images where that can be
        had."""
        floor = 0.0 if self.quarters is not None else -math.inf  # an unbiased estimate may be negative
        yield number, value, self.interval(value, count, floor)
        if extrapolated := self.at_infinity(value):
            limit, own = extrapolated
            yield number + INFINITY, limit, own.interval(limit, count)

    def at_infinity(self, value: float) -> tuple[float, Replicates] | None:
        """The number extrapolated to infinitely many images, and its own replicates; None where that cannot be done.

        A Fréchet distance at n images lies above its limit by about c / n (Chong and Forsyth, CVPR 2020), so its value
        at N counts twice and the mean over halves is subtracted; likewise on each half, from its own halves. With few
        images for the dimension the law does not hold yet: then what the distance grows by from N/2 to N/4 images is
        not twice what it grows by from N to N/2, and the limit is not to be had. Where it hardly grows at all beside
        its noise, that is no matter.
        """
        if self.quarters is None:
            return None
        first, second = float(self.halves.mean()) - value, float((self.quarters - self.halves).mean())
        if first > _NEGLIGIBLE * self.deviation and not _LAW[0] <= second / first <= _LAW[1]:
            return None
        return self.extrapolated(value)

    def extrapolated(self, value: float) -> tuple[float, Replicates]:
        """The same without asking whether the law holds, as for the difference of two numbers for which it does."""
        assert self.quarters is not None
        return 2 * value - float(self.halves.mean()), Replicates(2 * self.halves - self.quarters)
