"""MetricSet: the metrics and output checks of one adapter, and the reasons why metrics were skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tokbench.data.labels import labels_by_position
from tokbench.data.stream import ImageStream
from tokbench.errors import MetricFailure, MetricUnavailable, NotApplicable, TokbenchError
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.steps import TokenTransform
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS, MetricName
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.precision_probe import FirstImages, PrecisionProbe
from tokbench.metrics.registry import MetricContext, broken_plugin, create_metric, no_other_images
from tokbench.metrics.sample_store import SampleStore
from tokbench.modalities.registry import MODALITIES
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import metric_entry
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.tokens import Tokens

_OUTPUTS = "(outputs)"
"""The name of the output checks in errors and in a checkpoint."""


@dataclass
class MetricSet:
    """Metrics by name, `checks` that give warnings instead of numbers, and the reasons why metrics were skipped.

    A metric that cannot be computed moves to `skipped`. Any other error of a metric is raised as MetricFailure.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    checks: dict[str, Metric] = field(default_factory=dict)
    skipped: dict[str, MetricUnavailable] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        model: ImageModel,
        step: TokenTransform,
        config: EvalConfig,
        networks: ExtractorPool,
        images: ImageStream,
        neighbours: Callable[[], Tokens] = no_other_images,
    ) -> MetricSet:
        """Create the metrics that a configuration requests for a stream of images.

        neighbours: the tokens of images outside the run.
        """
        has_references = images.unpaired is not None
        protocol = images.protocol
        created, paired, first = cls(), config.task.paired, FirstImages()

        def build(name: str, networks: ExtractorPool, for_run: bool = True) -> Metric:
            labels = partial(labels_by_position, images.unpaired or images)
            context = MetricContext(
                networks, model, protocol, config.batch_size, paired=paired, labels=labels, neighbours=neighbours
            )
            if for_run:
                guidance = step.recorded.get("guidance")
                context = replace(
                    context, statistics=config.statistics, guidance=guidance, has_references=has_references
                )
            return create_metric(name, context)

        probed = networks.precision != "float32" and (paired or config.statistics is None or has_references)
        for name in config.metrics:
            try:
                metric = build(name, networks)
            except MetricUnavailable as error:
                created.skipped[name] = error
                continue
            if probed and METRICS[name].network:
                try:
                    probes: dict[str, Metric] = {
                        pool.precision: build(name, pool, for_run=False) for pool in (networks.whole, networks)
                    }
                    metric = PrecisionProbe(metric, probes, first)
                except MetricUnavailable:  # the protocol compares with statistics, which exist in one precision only
                    pass
            created.metrics[name] = metric
        if step.checked:
            degraded = bool(protocol.degrade)
            created.checks[_OUTPUTS] = MODALITIES[images.modality].output_checks(model.spec, paired, degraded)
        return created

    @property
    def stores(self) -> dict[str, SampleStore]:
        """All sample stores that a checkpoint saves, by a unique name."""
        metrics = self.metrics | self.checks
        return {
            _joined(store, name): rows for name, metric in metrics.items() for store, rows in metric.stores().items()
        }

    def stores_of(self, chunk: int) -> dict[str, str]:
        """Return the names of the stores that a checkpoint of a chunk must contain, each with the name of its
        metric."""
        metrics = self.metrics | self.checks
        return {_joined(store, name): name for name, metric in metrics.items() for store in metric.stores_of(chunk)}

    def share_references(self, references: ReferenceFeatures) -> None:
        """Make the metrics use the references' features that all adapters share. Raises MetricFailure."""
        self._each(self.metrics, self.metrics, lambda name, metric: metric.share_references(references))

    def provenance(self) -> dict[str, dict[str, str]]:
        """Return the provenance of each metric that measures no speed. Raises MetricFailure."""
        facts: dict[str, dict[str, str]] = {}

        def add(name: str, metric: Metric) -> None:
            facts[name] = metric.provenance()

        self._each(self.metrics, [name for name in self.metrics if not METRICS[name].timed], add)
        return facts

    def update_reference(self, batch: Batch) -> None:
        """Update the metrics with references from which no image was made. Raises MetricFailure."""
        self._each(
            self.metrics,
            self.metrics,
            lambda name, metric: metric.update_reference(batch),
            f"on {len(batch)} references",
        )

    def update(self, batch: Batch, executor: Executor) -> None:
        """Update the metrics with one batch. Metrics without a network run in `executor`, in parallel to those with
        one.

        Raises MetricFailure.
        """
        what = f"on {len(batch)} images"

        def update(name: str, metric: Metric) -> None:
            metric.update(batch)

        # Both threads remove metrics that cannot be computed, so neither may iterate over the metrics.
        networked = [name for name in self.metrics if METRICS[name].network]
        plain = [name for name in self.metrics if name not in networked]

        def update_plain() -> None:
            self._each(self.metrics, plain, update, what)
            self._each(self.checks, self.checks, update, what)

        pending = executor.submit(update_plain)
        try:
            self._each(self.metrics, networked, update, what)
        finally:  # the thread must have finished with this batch, even after an error
            pending.exception()
        pending.result()

    def missing_references(
        self, references: ReferenceFeatures, names: Iterable[str], index: np.ndarray, digests: Sequence[str]
    ) -> bool:
        """Return whether the named metrics need references' features of some images that are missing."""
        return any(
            self.metrics[name].missing_references(references, index, digests) for name in names if name in self.metrics
        )

    def skip(self, name: str, reason: str) -> None:
        """Skip a metric, for the reason that a checkpoint contains."""
        if name in self.metrics:
            del self.metrics[name]
            self.skipped[name] = NotApplicable(reason)

    def compute(self, seed: int, halves: SplitHalves, done: Callable[[str], None]) -> MetricValues:
        """Return all values. `done` is called with the name of each metric. Raises MetricFailure."""
        values = MetricValues()

        def add(name: str, metric: Metric) -> None:
            try:
                values.add_metric(metric, seed, halves, name)
            finally:
                done(name)

        self._each(dict(self.metrics), self.metrics, add)
        for check in self.checks.values():
            values.warnings += check.warnings()
        return values

    def _each(
        self, among: dict[str, Metric], names: Iterable[str], action: Callable[[str, Metric], None], what: str = ""
    ) -> None:
        for name in list(names):
            try:
                action(name, among[name])
            except MetricUnavailable as error:
                if name not in self.checks:
                    self.skipped[name] = error
                del among[name]
            except Exception as error:
                if name in METRICS and not METRICS.is_builtin(name):
                    self.skipped[name] = broken_plugin(name, error)
                    del among[name]
                    continue
                where = f" {what}" if what else ""
                raise MetricFailure(f"metric {name} failed{where}: {format_error(error)}") from error


def _joined(store: str, name: str) -> str:
    return f"{store}/{name}" if store else name


@dataclass
class MetricValues:
    """Values with intervals, their provenance, per-image values and replicates, each by the name of the number;
    readings by kind; warnings."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    per_image: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    replicates: dict[str, Spread] = field(default_factory=dict)
    readings: dict[str, list[tuple[int, list[dict[str, Any]]]]] = field(default_factory=dict)
    warnings: list[ResultWarning] = field(default_factory=list)

    def add_metric(self, metric: Metric, seed: int, halves: SplitHalves, name: str = "") -> None:
        """Add the numbers of one metric: all of them or, if it raises an error, none.

        name: the name of the metric. If it is given and the metric belongs to another package, the package is recorded
        and every number must be one that the metric's spec declares.
        Raises MetricUnavailable.
        """
        computed, intervals, replicates = metric.compute(), metric.intervals(seed), metric.replicates(halves)
        per_image, readings, warnings = metric.per_image(), metric.readings(), metric.warnings()
        origin = metric.provenance()
        if name and not METRICS.is_builtin(name):
            _check_numbers(name, [*computed, *per_image, *replicates])
            origin = origin | {"package": str(METRICS.package(name))}
        for number, spread in replicates.items():
            for other, value, interval in spread.entries(number, computed[number], halves.count):
                computed[other], intervals[other] = value, interval
        entries = {number: metric_entry(value, intervals.get(number)) for number, value in computed.items()}
        self.values |= entries
        if origin:
            self.provenance |= dict.fromkeys(entries, origin)
        self.per_image |= per_image
        self.replicates |= replicates
        self.readings |= readings
        self.warnings += warnings


def _check_numbers(name: str, numbers: Iterable[str]) -> None:
    """Raise NotApplicable if a metric of another package computes numbers that its spec does not declare."""
    if strange := [number for number in numbers if MetricName.parse(number).metric != name]:
        raise NotApplicable(
            f"package {METRICS.package(name)}: the spec of '{name}' does not declare the number '{strange[0]}'"
        )


def format_error(error: Exception) -> str:
    """Return an exception in one line: the message alone for tokbench's own exceptions, else type and message."""
    text = str(error).strip()
    return text if isinstance(error, TokbenchError) else f"{type(error).__name__}: {text[:300]}"
