"""PrecisionProbe: the effect of a reduced precision of its network on a metric, measured on the first images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from tokbench.data.stream import CHUNK
from tokbench.errors import MetricUnavailable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.sample_store import SampleStore
from tokbench.results.result import EFFECT
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import Interval
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread

PROBED = 1
"""The number of chunks of images, at the start, on which both precisions are computed."""


class FirstImages:
    """Selects the first images of a run, which all probes of one adapter share. The features of their references are
    stored apart from those of all references, with which the probes must not be compared.

    references: these features; None before `share`.
    """

    def __init__(self) -> None:
        self.references: ReferenceFeatures | None = None
        self._latest: tuple[Batch, Batch] | None = None

    def share(self, references: ReferenceFeatures) -> ReferenceFeatures:
        """Return the table of the first references' features, which uses the files of `references`."""
        self.references = self.references or references.separate()
        return self.references

    def select(self, batch: Batch) -> Batch | None:
        """Return the part of a batch that lies in the first chunks, or None where there is none. One part serves all
        probes, so that each network processes it once."""
        if int(batch.index[0]) >= PROBED * CHUNK:
            self._latest = None
            return None
        if self._latest is None or self._latest[0] is not batch:
            self._latest = batch, self._part(batch)
        return self._latest[1]

    def _part(self, batch: Batch) -> Batch:
        count = int((batch.index < PROBED * CHUNK).sum())
        return replace(
            batch.first(count),
            references=self.references,
            # A network's features of the references must be added to `references` here, too.
            reference_memo=DerivedCache(),
            image_memo=batch.image_memo if count == len(batch) else DerivedCache(),
        )


class PrecisionProbe(Metric):
    """A metric in a reduced precision, and two more instances for the first images (and references) only: one in
    float32 and one in that precision. The provenance of its numbers records both values.

    probes: the two instances by precision. first: the first images, shared by the probes of one adapter.
    """

    def __init__(self, metric: Metric, probes: dict[str, Metric], first: FirstImages) -> None:
        super().__init__()
        self.metric, self._probes, self._first = metric, probes, first
        self.rows = metric.rows

    def stores(self) -> dict[str, SampleStore]:
        return self.metric.stores() | {precision: probe.rows for precision, probe in self._probes.items()}

    def stores_of(self, chunk: int) -> list[str]:
        return [*self.metric.stores_of(chunk), *(self._probes if chunk < PROBED else ())]

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return self.metric.per_sample(batch)

    def update(self, batch: Batch) -> None:
        self.metric.update(batch)
        self._each(batch, lambda probe, part: probe.update(part))

    def update_reference(self, batch: Batch) -> None:
        self.metric.update_reference(batch)
        self._each(batch, lambda probe, part: probe.update_reference(part))

    def share_references(self, references: ReferenceFeatures) -> None:
        self.metric.share_references(references)
        for probe in self._probes.values():
            probe.share_references(self._first.share(references))

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        if self.metric.missing_references(references, index, digests):
            return True
        first = self._first.share(references)
        probed = self._probes.values() if int(index[0]) < PROBED * CHUNK else ()
        return any(probe.missing_references(first, index, digests) for probe in probed)

    def merge(self, other: Self) -> None:
        self.metric.merge(other.metric)
        for precision in self._probes.keys() & other._probes.keys():
            self._probes[precision].merge(other._probes[precision])

    def compute(self) -> dict[str, float]:
        return self.metric.compute()

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        return self.metric.per_image()

    def intervals(self, seed: int) -> dict[str, Interval]:
        return self.metric.intervals(seed)

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        return self.metric.replicates(halves)

    def readings(self) -> dict[str, list[tuple[int, list[dict[str, Any]]]]]:
        return self.metric.readings()

    def warnings(self) -> list[ResultWarning]:
        return self.metric.warnings()

    def provenance(self) -> dict[str, str]:
        return self.metric.provenance() | self._effect()

    def _each(self, batch: Batch, action: Callable[[Metric, Batch], None]) -> None:
        if (part := self._first.select(batch)) is None:
            return
        for precision in list(self._probes):
            try:
                action(self._probes[precision], part)
            except MetricUnavailable:
                del self._probes[precision]

    def _effect(self) -> dict[str, str]:
        """Return both values; nothing where a probe has no rows yet or its number needs more images."""
        pair = list(self._probes.items())
        if len(pair) < 2 or not all(len(probe.rows) for _, probe in pair):
            return {}
        try:
            values = {precision: next(iter(probe.compute().values())) for precision, probe in pair}
        except MetricUnavailable:
            return {}
        text = ", ".join(f"{value:.6g} in {precision}" for precision, value in values.items())
        return {EFFECT: f"{text}, on the first {len(pair[0][1].rows)} images"}
