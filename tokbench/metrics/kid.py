"""KID: kernel distance of two sets of features (Binkowski et al. 2018), by torch-fidelity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import Metric
from tokbench.metrics.rows import Rows

if TYPE_CHECKING:
    from tokbench.readers.network import Network

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
"""torch-fidelity's defaults."""


class KID(Metric):
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3: mean over 100 subsets of 1,000, or all of N <= 1,000.

    Unbiased for independent sets, so it may be slightly negative; for reconstructions of the same images it usually
    is where they are near exact.
    """

    def __init__(self, name: str, network: Network, layer: str) -> None:
        network.want(layer)
        self._name, self._network, self._layer = name, network, layer
        self._reference, self._image = Rows(), Rows()

    def update(self, batch: Batch) -> None:
        self._reference.add(batch.index, batch.features(self._network, "reference")[self._layer])
        self._image.add(batch.index, batch.features(self._network, "image")[self._layer])

    def merge(self, other: Self) -> None:
        self._reference.merge(other._reference)
        self._image.merge(other._image)

    def compute(self) -> dict[str, float]:
        count = len(self._image)
        if count < 2:
            raise NotApplicable(f"needs at least 2 images; there is {count}")
        whole = count <= SUBSET_SIZE
        result = kid_features_to_metric(
            self._reference.in_order(),
            self._image.in_order(),
            kid_subsets=1 if whole else SUBSETS,
            kid_subset_size=count if whole else SUBSET_SIZE,
            rng_seed=SEED,
            verbose=False,
        )
        return {self._name: result[KEY_METRIC_KID_MEAN]}

    def provenance(self) -> dict[str, str]:
        return {"network": self._network.name, "layer": self._layer, "sha256": self._network.sha256}
