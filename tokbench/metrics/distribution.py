"""What distances between sets of features share: rows of features, halves, provenance."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, Side
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.metrics.sample_store import SampleStore
from tokbench.protocol.protocol import TOKBENCH, Protocol
from tokbench.stats.parallel import map_single_threaded_blas
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.stats.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokbench.extractors.network import FeatureExtractor
    from tokbench.metrics.feature_cache import ReferenceFeatures


class Distribution(Metric):
    """A number of the features of all references and all images, in one layer of one network."""

    compares: bool = True
    """Whether it looks at the references at all."""
    least: ClassVar[int] = 2
    """Images that it needs."""
    quarters: ClassVar[bool] = False
    """Whether halves of halves are measured too, from which the number is extrapolated."""
    needs_rows: ClassVar[bool] = True
    """Whether it needs the references' features themselves, and not their mean and covariance alone."""

    def __init__(
        self,
        name: str,
        network: FeatureExtractor,
        layer: str,
        protocol: Protocol = TOKBENCH,
        statistics: FidStatistics | None = None,
        paired: bool = True,
    ) -> None:
        """`statistics`: of another set, to compare with in place of the references. `paired`: whether the image at a
        position was made from the reference there, so that both are drawn together; a generator's were not (gFID).

        Raises MissingWeights, and NotApplicable where the statistics do not fit or are wanted and not there.
        """
        if self.compares and protocol.reference == "statistics" and statistics is None:
            raise NotApplicable(
                f"protocol {protocol.name} compares with the statistics of another set "
                f"({protocol.published.reference or 'a file'}); give it with --reference FILE.npz"
            )
        if self.compares and self.needs_rows and statistics is not None:
            raise NotApplicable("needs the reference's features, and a statistics file holds their mean and covariance")
        super().__init__()
        network.request_layer(layer)
        self._name, self._network, self._layer, self._protocol = name, network, layer, protocol
        self._paired, self._statistics = paired, statistics if self.compares else None
        if self._statistics is not None:
            told = network.told()
            self._moments = self._statistics.moments(
                network.name, told.get("input"), network.precision, network.sha256, layer
            )
            self._statistics.check(protocol)
            self.compares = False
        self._rounding = protocol.rounding_of(protocol.features)
        self._side: Side = "original" if protocol.reference == "original" else "reference"
        self._shared = False
        self.references = SampleStore()
        """The references' features, by layer: its own, or those that all metrics of a run share."""

    @abstractmethod
    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        """The number of features (n, D) each; `reference` is empty where they are not compared."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"image": batch.features(self._network, "image", self._rounding)[self._layer].numpy()}

    def share_references(self, references: ReferenceFeatures) -> None:
        self._shared = True
        self.references = references.rows(self._network, self._side, self._rounding)

    def update_reference(self, batch: Batch) -> None:
        if self.compares:
            features = batch.features(self._network, self._side, self._rounding)
            if not self._shared:
                self.references.add(batch.index, {self._layer: features[self._layer].numpy()})

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        if not self.compares or not self._paired:
            return False
        return not references.known(self._network, self._side, self._rounding, index, digests)

    def update(self, batch: Batch) -> None:
        if self._statistics is not None:
            height, width = batch.require("image").shape[2:]
            self._statistics.check(self._protocol, (height, width))
        if self._paired:
            self.update_reference(batch)
        super().update(batch)

    def merge(self, other: Self) -> None:
        super().merge(other)
        if other.references is not self.references:
            self.references.merge(other.references)

    def _enough(self) -> None:
        """Raises NotApplicable where there are too few images, or references."""
        counts = {"image": len(self.rows)} | ({"reference": len(self.references)} if self.compares else {})
        for what, count in counts.items():
            if count < self.least:
                is_or_are = "is" if count == 1 else "are"
                raise NotApplicable(f"needs at least {self.least} {what}s; there {is_or_are} {count}")

    def _halved(self, halves: SplitHalves, least: int) -> SplitHalves | None:
        """The references' halves; None where they, or the images', hold fewer than `least`."""
        own = self._own(halves)
        return own if min(own.half, halves.half) >= least else None

    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        """All features of the references, if they are compared, and of the images, in memory."""
        image = self.rows.column("image")
        return (self.references.column(self._layer) if self.compares else image[:0]), image

    def compute(self) -> dict[str, float]:
        self._enough()
        return {self._name: self.statistic(*self._whole())}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        own = self._halved(halves, 2 * self.least if self.quarters else self.least)
        if own is None:
            return {}
        on = self._on_subsets(*self._whole(), halves.half)

        def both(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
            if not self.quarters:
                return on(*pair), math.nan
            (a, b), (x, y) = map(halved, pair)
            return on(*pair), (on(a, x) + on(b, y)) / 2

        found = np.array(map_single_threaded_blas(both, zip(own, halves, strict=True)))
        return {self._name: Replicates(found[:, 0], found[:, 1] if self.quarters else None)}

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> Callable[..., float]:
        """The number as a function of positions (n,) in `reference` and in `image`, for n up to `most`."""

        def on(first: np.ndarray, second: np.ndarray) -> float:
            return self.statistic(reference[first] if len(reference) else reference, image[second])

        return on

    def _own(self, halves: SplitHalves) -> SplitHalves:
        """The references' halves: those of the images that were made from them, else drawn apart."""
        if self._paired or not self.compares:
            return halves
        return SplitHalves(f"{halves.sha256}/reference", len(self.references), len(halves) // 2)

    def provenance(self) -> dict[str, str]:
        told = self._network.told() | {"layer": self._layer}
        return told | ({"reference": self._statistics.sha256} if self._statistics else {})


def halved(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A half's own two halves; of an odd number, one position is left out."""
    middle = len(positions) // 2
    return positions[:middle], positions[middle : 2 * middle]
