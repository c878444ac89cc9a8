"""PrecisionProbe: the effect of a reduced precision of its network on a metric, measured on the first images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tokbench.data.stream import CHUNK
from tokbench.errors import MetricUnavailable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.sample_store import SampleStore
from tokbench.results.result import EFFECT
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import Interval
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread

PROBED = 1
"""The number of chunks of images, at the start, on which both precisions are computed."""


class PrecisionProbe(Metric):
    """A metric in a reduced precision, and two more instances for the first images (and references) only: one in
    float32 and one in that precision. The provenance of its numbers records both values.

    probes: the two instances by precision. shared: whether they may use the references' features that the whole run
    shares; unpaired samples are compared with the first references only.
    """

    def __init__(self, metric: Metric, probes: dict[str, Metric], shared: bool) -> None:
        super().__init__()
        self.metric, self._probes, self._shared = metric, probes, shared
        self.rows = metric.rows

    def stores(self) -> dict[str, SampleStore]:
        return self.metric.stores() | {precision: probe.rows for precision, probe in self._probes.items()}

    def stores_of(self, chunk: int) -> list[str]:
        return [*self.metric.stores_of(chunk), *(self._probes if chunk < PROBED else ())]

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return self.metric.per_sample(batch)

    def update(self, batch: Batch) -> None:
        self.metric.update(batch)
        self._each(batch, lambda probe: probe.update(batch))

    def update_reference(self, batch: Batch) -> None:
        self.metric.update_reference(batch)
        self._each(batch, lambda probe: probe.update_reference(batch))

    def share_references(self, references: ReferenceFeatures) -> None:
        self.metric.share_references(references)
        for probe in self._probes.values() if self._shared else ():
            probe.share_references(references)

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        probed = self._probes.values() if int(index[0]) < PROBED * CHUNK else ()
        return any(metric.missing_references(references, index, digests) for metric in (self.metric, *probed))

    def compute(self) -> dict[str, float]:
        return self.metric.compute()

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        return self.metric.per_image()

    def intervals(self, seed: int) -> dict[str, Interval]:
        return self.metric.intervals(seed)

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        return self.metric.replicates(halves)

    def warnings(self) -> list[ResultWarning]:
        return self.metric.warnings()

    def provenance(self) -> dict[str, str]:
        return self.metric.provenance() | self._effect()

    def _each(self, batch: Batch, action: Callable[[Metric], None]) -> None:
        if int(batch.index[-1]) >= PROBED * CHUNK:
            return
        for precision in list(self._probes):
            try:
                action(self._probes[precision])
            except MetricUnavailable:
                del self._probes[precision]

    def _effect(self) -> dict[str, str]:
        pair = list(self._probes.items())
        if len(pair) < 2 or not all(len(probe.rows) for _, probe in pair):
            return {}
        values = {precision: next(iter(probe.compute().values())) for precision, probe in pair}
        text = ", ".join(f"{value:.6g} in {precision}" for precision, value in values.items())
        return {EFFECT: f"{text}, on the first {len(pair[0][1].rows)} images"}
