"""MetricSet: the metrics and output checks of one adapter, and why some of them cannot be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tokbench.errors import MetricFailure, MetricUnavailable, NotApplicable, TokbenchError
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.steps import TokenTransform
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS, MetricName
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.output_checks import OutputChecks
from tokbench.metrics.precision_probe import PrecisionProbe
from tokbench.metrics.registry import MetricContext, broken_plugin, create_metric
from tokbench.metrics.sample_store import SampleStore
from tokbench.protocol.protocol import Protocol
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import metric_entry
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread
from tokbench.tokenizers.base import ImageModel

_OUTPUTS = "(outputs)"
"""The name of the output checks in errors and in a checkpoint."""


@dataclass
class MetricSet:
    """Metrics by name, `checks` that give warnings in place of numbers, and the reasons why metrics were skipped.

    A metric that cannot be measured moves to `skipped`. Any other error of a metric is raised as MetricFailure.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    checks: dict[str, Metric] = field(default_factory=dict)
    skipped: dict[str, MetricUnavailable] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        model: ImageModel,
        protocol: Protocol,
        step: TokenTransform,
        config: EvalConfig,
        networks: ExtractorPool,
        rows: bool,
    ) -> MetricSet:
        """The metrics that a configuration asks for. rows: whether reference images lie beside the statistics."""
        made, paired = cls(), config.task.paired

        def build(name: str, networks: ExtractorPool, given: bool = True) -> Metric:
            context = MetricContext(networks, model, protocol, config.batch_size, paired=paired)
            if given:
                guidance = step.told.get("guidance")
                context = replace(context, statistics=config.statistics, guidance=guidance, beside=rows)
            return create_metric(name, context)

        probed = networks.precision != "float32" and (paired or config.statistics is None or rows)
        for name in config.metrics:
            try:
                metric = build(name, networks)
            except MetricUnavailable as error:
                made.skipped[name] = error
                continue
            if probed and METRICS[name].network:
                try:
                    probes: dict[str, Metric] = {
                        each.precision: build(name, each, given=False) for each in (networks.whole, networks)
                    }
                    metric = PrecisionProbe(metric, probes, shared=paired)
                except MetricUnavailable:  # a protocol that compares with statistics, which are of one precision only
                    pass
            made.metrics[name] = metric
        if step.checked:
            made.checks[_OUTPUTS] = OutputChecks(model.spec, paired)
        return made

    @property
    def stores(self) -> dict[str, SampleStore]:
        """All rows that a checkpoint keeps, by a name that tells them apart."""
        everyone = self.metrics | self.checks
        return {
            _joined(store, name): rows for name, metric in everyone.items() for store, rows in metric.stores().items()
        }

    def stores_of(self, unit: int) -> dict[str, str]:
        """The names of the rows that a checkpoint of a unit of images must hold, each with the name of its metric."""
        everyone = self.metrics | self.checks
        return {_joined(store, name): name for name, metric in everyone.items() for store in metric.stores_of(unit)}

    def share_references(self, references: ReferenceFeatures) -> None:
        """Share the references' features with the other adapters. Raises MetricFailure."""
        self._each(self.metrics, self.metrics, lambda name, metric: metric.share_references(references))

    def update_reference(self, batch: Batch) -> None:
        """Take in references that no image was made from. Raises MetricFailure."""
        self._each(
            self.metrics,
            self.metrics,
            lambda name, metric: metric.update_reference(batch),
            f"on {len(batch)} references",
        )

    def update(self, batch: Batch, executor: Executor) -> None:
        """Take in one batch; metrics without a network are computed in `executor` beside those with one.

        Raises MetricFailure.
        """
        what = f"on {len(batch)} images"

        def update(name: str, metric: Metric) -> None:
            metric.update(batch)

        def plain() -> None:
            self._each(self.metrics, [name for name in self.metrics if name not in networked], update, what)
            self._each(self.checks, self.checks, update, what)

        networked = {name for name in self.metrics if METRICS[name].network}
        waiting = executor.submit(plain)
        try:
            self._each(self.metrics, [name for name in self.metrics if name in networked], update, what)
        finally:  # whatever happens, no thread goes on with this batch
            waiting.exception()
        waiting.result()

    def missing_references(
        self, references: ReferenceFeatures, names: Iterable[str], index: np.ndarray, digests: Sequence[str]
    ) -> bool:
        """Whether references' features of some images are missing that the named metrics need."""
        return any(
            self.metrics[name].missing_references(references, index, digests) for name in names if name in self.metrics
        )

    def skip(self, name: str, reason: str) -> None:
        """Skip a metric for a reason that a checkpoint holds."""
        if name in self.metrics:
            del self.metrics[name]
            self.skipped[name] = NotApplicable(reason)

    def compute(self, seed: int, halves: SplitHalves, done: Callable[[str], None]) -> MetricValues:
        """All numbers; `done` is called with the name of each metric. Raises MetricFailure."""
        found = MetricValues()

        def add(name: str, metric: Metric) -> None:
            try:
                found.add(metric, seed, halves, name)
            finally:
                done(name)

        self._each(dict(self.metrics), self.metrics, add)
        for check in self.checks.values():
            found.warnings += check.warnings()
        return found

    def _each(
        self, among: dict[str, Metric], names: Iterable[str], do: Callable[[str, Metric], None], what: str = ""
    ) -> None:
        for name in list(names):
            try:
                do(name, among[name])
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
    """Values with intervals, their provenance, per-image values and replicates, each by the number's name; readings by
    kind; warnings."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    per_image: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    replicates: dict[str, Spread] = field(default_factory=dict)
    readings: dict[str, list[tuple[int, list[dict[str, Any]]]]] = field(default_factory=dict)
    warnings: list[ResultWarning] = field(default_factory=list)

    def add(self, metric: Metric, seed: int, halves: SplitHalves, name: str = "") -> None:
        """Take in one metric's numbers, all of them or, where it raises an error, none. name: the metric's, where its
        package is to be named and its numbers are to be those of its spec. Raises MetricUnavailable."""
        computed, intervals, replicates = metric.compute(), metric.intervals(seed), metric.replicates(halves)
        per_image, readings, warnings = metric.per_image(), metric.readings(), metric.warnings()
        told = metric.provenance()
        if name and not METRICS.is_builtin(name):
            _check_numbers(name, [*computed, *per_image, *replicates])
            told = told | {"package": str(METRICS.package(name))}
        for number, made in replicates.items():
            for other, value, interval in made.entries(number, computed[number], halves.count):
                computed[other], intervals[other] = value, interval
        entries = {number: metric_entry(value, intervals.get(number)) for number, value in computed.items()}
        self.values |= entries
        if told:
            self.provenance |= dict.fromkeys(entries, told)
        self.per_image |= per_image
        self.replicates |= replicates
        self.readings |= readings
        self.warnings += warnings


def _check_numbers(name: str, numbers: Iterable[str]) -> None:
    """Raises NotApplicable where a metric of another package gives numbers that its spec does not name."""
    if strange := [number for number in numbers if MetricName.parse(number).metric != name]:
        raise NotApplicable(
            f"package {METRICS.package(name)}: the spec of '{name}' does not name the number '{strange[0]}'"
        )


def format_error(error: Exception) -> str:
    """An exception in one line; of tokbench's own, the message alone."""
    text = str(error).strip()
    return text if isinstance(error, TokbenchError) else f"{type(error).__name__}: {text[:300]}"
