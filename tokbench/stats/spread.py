"""How much a number varies with the images, for numbers that are no means over images.

Four kinds of replicates show it, each kept beside a result so that two results can be compared without their images:
values on random halves (`tokbench.stats.split_half`), values without one group of images (`Jackknife`), values of
splits (`Splits`), and for a share of distinct things (`Distinct`) values without one image, with what these do not
show.
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
"""Groups of a delete-a-group jackknife: Student's t with 24 degrees of freedom is 5 % wider than the normal law."""


class Spread(ABC):
    """Replicates of one number. bounds: what the number can be, which the ends of its interval then are, too."""

    kind: ClassVar[str]
    """Under which these replicates are kept."""
    bounds: tuple[float, float]

    @property
    @abstractmethod
    def deviation(self) -> float:
        """Standard deviation of the number at its full number of images."""

    @property
    @abstractmethod
    def degrees(self) -> int:
        """Degrees of freedom of that deviation, for Student's t."""

    @abstractmethod
    def __sub__(self, other: Any) -> Self:
        """The replicates of the difference of two numbers on the same images. They must be `like` each other."""

    @abstractmethod
    def like(self, other: Spread) -> bool:
        """Whether both are of one kind, and of as many replicates."""

    @abstractmethod
    def as_array(self) -> np.ndarray:
        """As it is kept beside a result."""

    def interval(self, value: float, count: int, floor: float = -math.inf) -> Interval:
        """95 % interval of the number's expected value at this N, around its `value`. `floor`: the least it can be."""
        if math.isnan(value) or self.degrees < 1:
            return Interval(math.nan, math.nan, count)
        below, above = self.reach(students_t(self.degrees) * self.deviation)
        return Interval(value - below, value + above, count).within((max(floor, self.bounds[0]), self.bounds[1]))

    def reach(self, spread: float) -> tuple[float, float]:
        """How far the interval reaches below and above the number, of which the replicates' spread is `spread`."""
        return spread, spread

    def entries(self, number: str, value: float, count: int) -> Iterator[tuple[str, float, Interval]]:
        """Name, value and interval of the number, and of what else its replicates give."""
        yield number, value, self.interval(value, count)

    def at_infinity(self, value: float) -> tuple[float, Spread] | None:
        """The number extrapolated to infinitely many images, and its own replicates; None where that cannot be done."""
        return None


@dataclass(frozen=True)
class _Values(Spread):
    """Replicates that are one row of values (g,)."""

    values: np.ndarray
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def degrees(self) -> int:
        return len(self.values) - 1

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.values - other.values)

    def like(self, other: Spread) -> bool:
        return type(self) is type(other) and len(self.values) == len(other.values)

    def as_array(self) -> np.ndarray:
        return self.values

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        """The inverse of `as_array`. Raises ValueError with the shape that it must have."""
        if array.ndim != 1 or len(array) < 2:
            raise ValueError("(replicates,), two or more")
        return cls(array)


@dataclass(frozen=True)
class Jackknife(_Values):
    """The number without the first, the second ... group of images (Tukey 1958; Efron and Stein 1981).

    It needs no resampling with replacement, which repeats images and so moves every number that counts distinct things;
    and it sees the whole N, where a half sees a part of what grows with N.
    """

    kind: ClassVar[str] = "jackknife"

    @property
    def deviation(self) -> float:
        return jackknife_deviation(self.values)


@dataclass(frozen=True)
class Splits(_Values):
    """The number in disjoint splits of the images, of which it is the mean."""

    kind: ClassVar[str] = "splits"

    @property
    def deviation(self) -> float:
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))


@dataclass(frozen=True)
class Distinct(_Values):
    """A share of things that occur, without the first, the second ... image, and what these values do not show.

    Where no thing is in one image alone, the share without any image is the same, and yet other images of the same
    number would miss some things and show new ones. lost, gained (n,): their sums are how far the expected share may
    lie below and above the share for that reason. Each image has the part of `lost` that comes from its own things, so
    that codecs whose codes differ are told apart by it.
    """

    kind: ClassVar[str] = "distinct"

    lost: np.ndarray = field(kw_only=True)
    gained: np.ndarray = field(kw_only=True)

    @property
    def deviation(self) -> float:
        return jackknife_deviation(self.values)

    def reach(self, spread: float) -> tuple[float, float]:
        return math.hypot(spread, float(self.lost.sum())), math.hypot(spread, float(self.gained.sum()))

    def __sub__(self, other: Self) -> Self:
        """A difference is lower where the first share is, or where the second one is higher. Of codecs that agree image
        by image nothing is left."""
        gaps, count = self.values - other.values, len(self.values)
        if np.array_equal(self.as_array(), other.as_array()):
            return type(self)(gaps, lost=np.zeros(count), gained=np.zeros(count))
        lost, gained = (
            np.full(count, math.hypot(float(own.sum()), float(others.sum())) / count)
            for own, others in ((self.lost, other.gained), (self.gained, other.lost))
        )
        return type(self)(gaps, lost=lost, gained=gained)

    def as_array(self) -> np.ndarray:
        """(n, 3)."""
        return np.stack([self.values, self.lost, self.gained], axis=1)

    @classmethod
    def from_array(cls, array: np.ndarray) -> Self:
        if array.ndim != 2 or len(array) < 2 or array.shape[1] != 3:
            raise ValueError("(images, 3), two or more")
        return cls(array[:, 0], lost=array[:, 1], gained=array[:, 2])


KINDS: dict[str, type[_Values]] = {one.kind: one for one in (Jackknife, Splits, Distinct)}


def groups(sha256: str, count: int, number: int = GROUPS) -> np.ndarray:
    """The group, 0 to `number` - 1, of each of `count` images, (count,): random and as equal as can be.

    It follows from the data's hash and N alone, so two results on the same images have the same groups.
    """
    seed = hashlib.sha256(f"{sha256}/{count}/groups".encode()).digest()
    order = np.random.default_rng(int.from_bytes(seed, "big")).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.arange(count) * min(number, count) // max(count, 1)
    return found
