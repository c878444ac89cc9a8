"""One signature for every metric: update, merge, compute; per-image values where there are any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tokbench.metrics.batch import Batch
from tokbench.metrics.sample_store import SampleStore
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import DERIVED, UNBOUNDED, Interval, MeanStatistic, bootstrap, mean, mean_statistic
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread

if TYPE_CHECKING:
    from tokbench.metrics.feature_cache import ReferenceFeatures


class Metric(ABC):
    """Eats batches, merges with its like, computes named numbers. All that it remembers are rows, one an image.

    Whatever a metric cannot do in this run it raises as CannotMeasure; the run reports it as skipped, with the reason.
    """

    def __init__(self) -> None:
        self.rows = SampleStore()

    def stores(self) -> dict[str, SampleStore]:
        """All rows that a checkpoint keeps, by a name; those of the metric itself have none."""
        return {"": self.rows}

    def stores_of(self, unit: int) -> list[str]:
        """The names of those that have rows of a unit of images."""
        return [""]

    @abstractmethod
    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """What is to be kept of each image: columns (B, ...) by name. Raises MissingField or NotApplicable."""

    def update(self, batch: Batch) -> None:
        """Take in one batch. Raises MissingField or NotApplicable."""
        self.rows.add(batch.index, self.per_sample(batch))

    def share_references(self, references: ReferenceFeatures) -> None:
        """Take the references' features, where any are needed, from what all metrics of a run share."""
        return

    def update_reference(self, batch: Batch) -> None:
        """Take what it needs of references that no image was made from; they come before the images."""
        return

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        """Whether the references' features of some images are needed that `references` does not have yet."""
        return False

    def merge(self, other: Self) -> None:
        """Take in everything that `other` has seen, in whatever order the images came."""
        self.rows.merge(other.rows)

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The numbers so far, by name; NaN where the metric has no value on these images. Raises NotApplicable."""

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """For each number that is a mean over images: dataset positions (n,) int64 and values (n,) float64."""
        return {}

    def intervals(self, seed: int) -> dict[str, Interval]:
        """A 95 % interval for each number that comes from a mean over images."""
        return {}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        """For each number that is no mean over images but varies with them: its values on random halves of them, in
        splits, or without some of them."""
        return {}

    def readings(self) -> dict[str, list[tuple[int, list[dict[str, Any]]]]]:
        """By kind (`words`, `faces`), what was read in each image, by its position: dicts that JSON can hold."""
        return {}

    def warnings(self) -> list[ResultWarning]:
        """What a reader must know before trusting the numbers; empty where nothing is wrong."""
        return []

    def provenance(self) -> dict[str, str]:
        """What a reader must know to make the number again: network and its sha256, settings."""
        return {}


class PerImageMetric(Metric):
    """A metric whose numbers are means of one value an image: `measure` gives them (B,), NaN to leave an image out."""

    bounds: ClassVar[tuple[float, float]] = UNBOUNDED
    """What its numbers can be, which the ends of intervals then are, too."""

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {name: (self.rows.index(name), self.rows.column(name)) for name in self.rows.names}

    def numbers(self) -> list[str]:
        """The names of the numbers: per-image values by their own name, and those that are made of a mean of them."""
        present = self.per_image()
        return [*present, *(name for name, made in DERIVED.items() if made.values in present and name not in present)]

    def compute(self) -> dict[str, float]:
        return {name: how.of(mean(values)) for name, how, values in self._statistics()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {name: bootstrap(values, seed, how).within(self.bounds) for name, how, values in self._statistics()}

    def _statistics(self) -> Iterator[tuple[str, MeanStatistic, np.ndarray]]:
        values = {name: column for name, (_, column) in self.per_image().items()}
        for name in self.numbers():
            if how := mean_statistic(name, values):
                yield name, how, values[how.values]
