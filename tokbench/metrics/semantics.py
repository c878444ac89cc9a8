"""Semantic retention: what an ImageNet classifier sees in the reconstruction and in the original."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch.nn.functional as F

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.protocol.protocol import TOKBENCH, Protocol
from tokbench.stats.bootstrap import Interval, share_interval

if TYPE_CHECKING:
    from tokbench.data.labels import Labels
    from tokbench.extractors.network import FeatureExtractor

CLASSES = 1000
"""The number of classes of the classifier, in ILSVRC-2012 order."""

LabelsOf = Callable[[int], "tuple[np.ndarray, Labels]"]
"""A function of the number of classes that returns the label at each position (n,) and what they are. It raises
NotApplicable if the images have no labels of so many classes."""


class _Shares(PerImageMetric):
    """A metric whose numbers with 0 or 1 per image have the exact interval of a share."""

    shares: ClassVar[tuple[str, ...]]

    def __init__(self, network: FeatureExtractor, protocol: Protocol) -> None:
        super().__init__()
        self._network, self._rounding = network, protocol.rounding_of(protocol.features)
        network.request_layer("logits")

    def intervals(self, seed: int) -> dict[str, Interval]:
        exact = {name: share_interval(self.rows.column(name)) for name in self.shares if name in self.rows.names}
        return super().intervals(seed) | exact

    def predictions(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted classes of images and references, (B,) each."""
        image, reference = (
            batch.features(self._network, "image", self._rounding)["logits"],
            batch.features(self._network, "reference", self._rounding)["logits"],
        )
        return image.argmax(1).numpy(), reference.argmax(1).numpy()

    def provenance(self) -> dict[str, str]:
        return self._network.describe()


class Semantics(_Shares):
    """`agreement`: the share of images for which the classifier predicts the same class as for the original.
    `feature_cosine`: the mean cosine of the pooled features of image and original."""

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    shares: ClassVar[tuple[str, ...]] = ("agreement",)

    def __init__(self, network: FeatureExtractor, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(network, protocol)
        network.request_layer("pooled")

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        ours, theirs = self.predictions(batch)
        image, reference = (
            batch.features(self._network, "image", self._rounding)["pooled"].double(),
            batch.features(self._network, "reference", self._rounding)["pooled"].double(),
        )
        return {
            "agreement": (ours == theirs).astype(np.float64),
            "feature_cosine": F.cosine_similarity(image, reference).numpy(),
        }


class Top1(_Shares):
    """`top1`: the share of images that the classifier assigns to the class of their label. `top1_original`: the same
    for the originals, which is the accuracy of the classifier."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    shares: ClassVar[tuple[str, ...]] = ("top1", "top1_original")

    def __init__(self, network: FeatureExtractor, labels: LabelsOf, protocol: Protocol = TOKBENCH) -> None:
        """Raises NotApplicable if the images have no labels of the classifier's classes, or possibly others."""
        super().__init__(network, protocol)
        self._labels, described = labels(CLASSES)
        if described.warnings:
            raise NotApplicable(f"the labels may not be those of ILSVRC-2012: {described.warnings[0]}")
        self._rule = described.rule

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        ours, theirs = self.predictions(batch)
        labels = self._labels[batch.index.numpy()]
        return {"top1": (ours == labels).astype(np.float64), "top1_original": (theirs == labels).astype(np.float64)}

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {"labels": self._rule}
