"""One signature for every metric: update, merge, compute; per-image values where there are any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np

from tokbench.batch import Batch
from tokbench.bootstrap import DERIVED, Interval, OfMean, bootstrap, mean, of_mean
from tokbench.halves import Halves, Replicates


class Metric(ABC):
    """Eats batches, merges with its like, computes named numbers.

    Whatever a metric cannot do in this run it raises as CannotMeasure; the run reports it as skipped, with the reason.
    """

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in one batch. Raises MissingField or NotApplicable."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in everything that `other` has seen, as if its batches had come after mine."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The numbers so far, by name; NaN where the metric has no value on these images. Raises NotApplicable."""

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """For each number that is a mean over images: dataset positions (n,) int64 and values (n,) float64."""
        return {}

    def intervals(self, seed: int) -> dict[str, Interval]:
        """A 95 % bootstrap interval for each number that comes from a mean over images."""
        return {}

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        """For each number that is no mean over images but varies with them: its values on random halves of them."""
        return {}

    def provenance(self) -> dict[str, str]:
        """What a reader must know to make the number again: network and its sha256, settings."""
        return {}


class PerImageMetric(Metric):
    """A metric whose numbers are means of one value an image. Subclasses give `measure`."""

    def __init__(self) -> None:
        self._index: list[np.ndarray] = []
        self._values: dict[str, list[np.ndarray]] = {}

    @abstractmethod
    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        """Values (B,) by name, one an image; NaN leaves an image out of the mean."""

    def update(self, batch: Batch) -> None:
        values = self.measure(batch)
        self._index.append(np.asarray(batch.index, dtype=np.int64))
        for name, value in values.items():
            self._values.setdefault(name, []).append(np.asarray(value, dtype=np.float64))

    def merge(self, other: Self) -> None:
        self._index += other._index
        for name, values in other._values.items():
            self._values.setdefault(name, []).extend(values)

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if not self._index:
            return {}
        index = np.concatenate(self._index)
        order = np.argsort(index, kind="stable")
        return {name: (index[order], np.concatenate(values)[order]) for name, values in self._values.items()}

    def numbers(self) -> list[str]:
        """The names of the numbers: per-image values by their own name, and those that are made of a mean of them."""
        present = self.per_image()
        return [*present, *(name for name, made in DERIVED.items() if made.values in present and name not in present)]

    def compute(self) -> dict[str, float]:
        return {name: how.of(mean(values)) for name, how, values in self._statistics()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {name: bootstrap(values, seed, how.of) for name, how, values in self._statistics()}

    def _statistics(self) -> Iterator[tuple[str, OfMean, np.ndarray]]:
        values = {name: column for name, (_, column) in self.per_image().items()}
        for name in self.numbers():
            if how := of_mean(name, values):
                yield name, how, values[how.values]
