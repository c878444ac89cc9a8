"""Inception Score (Salimans et al. 2016), by torch-fidelity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import Metric
from tokbench.metrics.rows import Rows

if TYPE_CHECKING:
    from tokbench.readers.network import Network

SPLITS = 10


class InceptionScore(Metric):
    """Mean over 10 splits of exp(KL(p(y|x) || p(y))) on the produced images, shuffled with torch-fidelity's seed.

    Classes come from the 2015-12-05 network's last layer without its bias, as in every code of the TF-graph family.
    """

    def __init__(self, network: Network) -> None:
        network.want("logits_unbiased")
        self._network = network
        self._logits = Rows()

    def update(self, batch: Batch) -> None:
        self._logits.add(batch.index, batch.features(self._network, "image")["logits_unbiased"])

    def merge(self, other: Self) -> None:
        self._logits.merge(other._logits)

    def compute(self) -> dict[str, float]:
        count = len(self._logits)
        if count < SPLITS:
            raise NotApplicable(f"needs at least {SPLITS} images for its {SPLITS} splits; there are {count}")
        score = isc_features_to_metric(self._logits.in_order(), splits=SPLITS)[KEY_METRIC_ISC_MEAN]
        return {"inception_score": score}

    def provenance(self) -> dict[str, str]:
        return {"network": self._network.name, "layer": "logits_unbiased", "sha256": self._network.sha256}
