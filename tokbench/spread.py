"""How much a number varies with the images, for numbers that are no means over images.

Three kinds of replicates show it, each kept beside a result so that two results can be compared without their images:
values on random halves (`tokbench.halves`), values without one group of images (`Jackknife`), values of splits
(`Splits`).
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tokbench.bootstrap import FREE, Interval, jackknife_deviation, students_t

GROUPS = 25
"""Groups of a delete-a-group jackknife: Student's t with 24 degrees of freedom is 5 % wider than the normal law."""


class Spread(ABC):
    """Replicates of one number. bounds: what the number can be, which the ends of its interval then are, too. least:
    the least distance of these ends from it, for a share of which all replicates may agree that it is none or all."""

    kind: ClassVar[str]
    """Under which these replicates are kept."""
    bounds: tuple[float, float]
    least: float

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
        reach = max(students_t(self.degrees) * self.deviation, self.least)
        return Interval(value - reach, value + reach, count).within((max(floor, self.bounds[0]), self.bounds[1]))

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
    bounds: tuple[float, float] = FREE
    least: float = 0.0

    @property
    def degrees(self) -> int:
        return len(self.values) - 1

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.values - other.values)

    def like(self, other: Spread) -> bool:
        return type(self) is type(other) and len(self.values) == len(other.values)

    def as_array(self) -> np.ndarray:
        return self.values


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


KINDS: dict[str, type[_Values]] = {one.kind: one for one in (Jackknife, Splits)}


def groups(sha256: str, count: int, number: int = GROUPS) -> np.ndarray:
    """The group, 0 to `number` - 1, of each of `count` images, (count,): random and as equal as can be.

    It follows from the data's hash and N alone, so two results on the same images have the same groups.
    """
    seed = hashlib.sha256(f"{sha256}/{count}/groups".encode()).digest()
    order = np.random.default_rng(int.from_bytes(seed, "big")).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.arange(count) * min(number, count) // max(count, 1)
    return found
