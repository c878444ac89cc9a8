"""Base class of distances between sets of features: stored features, halves, provenance."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

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


OnSubsets: TypeAlias = "Callable[[np.ndarray, np.ndarray], np.ndarray]"
"""Numbers (B,) from positions (B, n) of references and (B, m) of images."""

_AT_ONCE = 2**16
"""The number of matrix elements, over all halves that are computed at once: halves of a few images together, halves of
hundreds one by one in several threads."""


class Distribution(Metric):
    """A number computed from the features of all references and all images, in one layer of one network."""

    compares: bool = True
    """Whether the number depends on the references."""
    min_images: ClassVar[int] = 2
    """The smallest number of images for which the number is defined."""
    quarters: ClassVar[bool] = False
    """Whether the number is also computed on halves of halves, in order to extrapolate it."""
    needs_rows: ClassVar[bool] = True
    """Whether the number needs the references' features rather than only their mean and covariance."""

    def __init__(
        self,
        name: str,
        network: FeatureExtractor,
        layer: str,
        protocol: Protocol = TOKBENCH,
        statistics: FidStatistics | None = None,
        paired: bool = True,
    ) -> None:
        """statistics: the statistics of another set, which replace those of the references. paired: whether the image
        at a position was made from the reference at that position, so that both are resampled together; a generator's
        samples were not (gFID).

        Raises MissingWeights where the network lacks the layer, and NotApplicable where the statistics do not fit or
        are required but not given.
        """
        if self.compares and protocol.reference == "statistics" and statistics is None:
            raise NotApplicable(
                f"protocol {protocol.name} compares with the statistics of another set "
                f"({protocol.published.reference or 'a file'}); give them with --reference FILE.npz"
            )
        if self.compares and self.needs_rows and statistics is not None:
            raise NotApplicable(
                "needs the references' features, but a statistics file contains only their mean and covariance"
            )
        super().__init__()
        network.request_layer(layer)
        self._name, self._network, self._layer, self._protocol = name, network, layer, protocol
        self._paired, self._statistics = paired, statistics if self.compares else None
        if self._statistics is not None:
            self._moments = self._statistics.moments(
                network.name, network.describe().get("input"), network.precision, network.sha256, layer
            )
            self._statistics.check(protocol)
            self.compares = False
        self._rounding = protocol.rounding_of(protocol.features)
        self._side: Side = "original" if protocol.reference == "original" else "reference"
        self._shared = False
        self.references = SampleStore()
        """The references' features, by layer: this metric's own, or those that all metrics of a run share."""

    @abstractmethod
    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        """Return the number from features (n, D) and (m, D). `reference` is empty where references are not compared."""

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
        return not references.load_chunk(self._network, self._side, self._rounding, index, digests)

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

    def _require_images(self) -> None:
        """Raise NotApplicable where there are too few images, or references."""
        counts = {"image": len(self.rows)} | ({"reference": len(self.references)} if self.compares else {})
        for side, count in counts.items():
            if count < self.min_images:
                is_or_are = "is" if count == 1 else "are"
                raise NotApplicable(f"needs at least {self.min_images} {side}s; there {is_or_are} {count}")

    def _usable_halves(self, halves: SplitHalves, least: int) -> SplitHalves | None:
        """Return the references' halves, or None where these, or the images' halves, have fewer than `least`
        members."""
        reference_halves = self._reference_halves(halves)
        return reference_halves if min(reference_halves.half, halves.half) >= least else None

    def _all_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all features of the references, if they are compared, and of the images, in memory."""
        image = self.rows.column("image")
        return (self.references.column(self._layer) if self.compares else image[:0]), image

    def compute(self) -> dict[str, float]:
        self._require_images()
        return {self._name: self.statistic(*self._all_features())}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        reference_halves = self._usable_halves(halves, 2 * self.min_images if self.quarters else self.min_images)
        if reference_halves is None:
            return {}
        features = self._all_features()
        on_subsets = self._on_subsets(*features, halves.half)
        firsts, seconds = np.stack(list(reference_halves)), np.stack(list(halves))

        def on_halves(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            whole = on_subsets(first, second)
            if not self.quarters:
                return whole[:, None]
            (a, b), (x, y) = halved(first), halved(second)
            return np.stack([whole, (on_subsets(a, x) + on_subsets(b, y)) / 2], axis=1)

        at_once = max(1, _AT_ONCE // (halves.half * min(halves.half, features[1].shape[1])))
        starts = range(0, len(firsts), at_once)
        blocks = [(firsts[start : start + at_once], seconds[start : start + at_once]) for start in starts]
        values = np.concatenate(map_single_threaded_blas(lambda block: on_halves(*block), blocks))
        return {self._name: Replicates(values[:, 0], values[:, 1] if self.quarters else None)}

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> OnSubsets:
        """Return the number as a function of positions (B, n) in `reference` and in `image`, for n up to `most`."""

        def on_subsets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            pairs = zip(first, second, strict=True)
            return np.array([self._on_subset(reference[one], image[other]) for one, other in pairs])

        return on_subsets

    def _on_subset(self, reference: np.ndarray, image: np.ndarray) -> float:
        """Return the number from the features (n, D) and (m, D) of halves."""
        return self.statistic(reference, image)

    def _reference_halves(self, halves: SplitHalves) -> SplitHalves:
        """Return the references' halves: the images' own where these were made from the references, else independent
        ones."""
        if self._paired or not self.compares:
            return halves
        return SplitHalves(f"{halves.sha256}/reference", len(self.references), len(halves) // 2)

    def provenance(self) -> dict[str, str]:
        facts = self._network.describe() | {"layer": self._layer}
        return facts | ({"reference": self._statistics.sha256} if self._statistics else {})


def halved(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two halves of halves (..., n). Where its number of positions is odd, one position is left out."""
    middle = positions.shape[-1] // 2
    return positions[..., :middle], positions[..., middle : 2 * middle]
