"""The interface of all metrics: update, merge, compute, and per-image values where they exist."""

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
    """Metrics are updated batch by batch, merged across shards, and compute named numbers. Their whole state is rows,
    one per image.

    Where a metric cannot be computed in this run, it raises MetricUnavailable; the result then lists it as skipped,
    with the reason.
    """

    def __init__(self) -> None:
        self.rows = SampleStore()

    def stores(self) -> dict[str, SampleStore]:
        """Return all sample stores that a checkpoint saves, by name. The name of the metric's own store is empty."""
        return {"": self.rows}

    def stores_of(self, chunk: int) -> list[str]:
        """Return the names of the stores that have rows for a chunk of images."""
        return [""]

    @abstractmethod
    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return what is stored per image: columns (B, ...) by name. Raises MissingField or NotApplicable."""

    def update(self, batch: Batch) -> None:
        """Update the metric with one batch. Raises MissingField or NotApplicable."""
        self.rows.add(batch.index, self.per_sample(batch))

    def share_references(self, references: ReferenceFeatures) -> None:
        """Use the references' features that all metrics of a run share, where the metric needs any."""
        return

    def update_reference(self, batch: Batch) -> None:
        """Update the metric with references from which no image was made. They come before the images."""
        return

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        """Return whether the metric needs references' features of some images that `references` does not contain.

        index: positions (n,). digests: hashes of the prepared pixels, one per image.
        """
        return False

    def merge(self, other: Self) -> None:
        """Add the rows of `other`. The order of the images does not matter."""
        self.rows.merge(other.rows)

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the numbers by name, NaN where a number is not defined on these images. Raises NotApplicable."""

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Return, for each number that is a mean over images, dataset positions (n,) int64 and values (n,) float64."""
        return {}

    def intervals(self, seed: int) -> dict[str, Interval]:
        """Return a 95 % interval for each number that is computed from a mean over images."""
        return {}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        """Return, for each number that is not a mean over images but varies with them, its values on random halves, in
        splits, or without some of the images."""
        return {}

    def readings(self) -> dict[str, list[tuple[int, list[dict[str, Any]]]]]:
        """Return, by kind (`words`, `faces`), what was recognized in each image, by position: dicts that JSON can
        represent."""
        return {}

    def warnings(self) -> list[ResultWarning]:
        """Return warnings that a reader needs in order to judge the numbers; empty where there are none."""
        return []

    def provenance(self) -> dict[str, str]:
        """Return what is needed to reproduce the numbers: the network and its sha256, settings."""
        return {}


class PerImageMetric(Metric):
    """A metric whose numbers are means of per-image values. `per_sample` returns the values (B,), with NaN for images
    to leave out."""

    bounds: ClassVar[tuple[float, float]] = UNBOUNDED
    """The smallest and largest possible value of the numbers, to which intervals are limited."""

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {name: (self.rows.index(name), self.rows.column(name)) for name in self.rows.names}

    def numbers(self) -> list[str]:
        """Return the names of the numbers: those of per-image values, and those derived from their means."""
        present = self.per_image()
        derived = (name for name, rule in DERIVED.items() if rule.values in present and name not in present)
        return [*present, *derived]

    def compute(self) -> dict[str, float]:
        return {name: statistic.of(mean(values)) for name, statistic, values in self._statistics()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {
            name: bootstrap(values, seed, statistic).within(self.bounds)
            for name, statistic, values in self._statistics()
        }

    def _statistics(self) -> Iterator[tuple[str, MeanStatistic, np.ndarray]]:
        values = {name: column for name, (_, column) in self.per_image().items()}
        for name in self.numbers():
            if statistic := mean_statistic(name, values):
                yield name, statistic, values[statistic.values]


class WholeSetMetric(Metric):
    """A metric whose results per image, in 0..1, depend on all images, such as whether a classifier that was fitted to
    the others is right. Intervals come from resampling the results."""

    def __init__(self) -> None:
        super().__init__()
        self._cached: tuple[int, dict[str, np.ndarray]] | None = None

    @abstractmethod
    def measure(self) -> dict[str, np.ndarray]:
        """Return the result of each image, float64 (n,), by number. Raises NotApplicable where there are too few."""

    def _results(self) -> dict[str, np.ndarray]:
        count = len(self.rows)
        if self._cached is None or self._cached[0] != count:
            self._cached = count, self.measure()
        return self._cached[1]

    def compute(self) -> dict[str, float]:
        return {name: mean(values) for name, values in self._results().items()}

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        index = self.rows.index()
        return {name: (index, values) for name, values in self._results().items()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {name: bootstrap(values, seed).within((0.0, 1.0)) for name, values in self._results().items()}
