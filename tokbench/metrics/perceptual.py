"""Distances of networks: LPIPS (Zhang et al. 2018), version 0.1, and DISTS (Ding et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.protocol.protocol import TOKBENCH, Protocol

if TYPE_CHECKING:
    from tokbench.extractors.dists import DISTSNetwork
    from tokbench.extractors.lpips import LPIPSNetwork
    from tokbench.protocol.protocol import Rounding


SHARED_UP_TO = 512 * 512
"""The largest image, in pixels, whose activations are kept for other adapters. Those of larger images would fill the
memory."""


class _NetworkDistance(PerImageMetric):
    """The mean distance of image and reference at their own size, by a network with a method `distance`."""

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __init__(self, name: str, network: LPIPSNetwork | DISTSNetwork, rounding: Rounding) -> None:
        super().__init__()
        self._name, self._network, self._rounding = name, network, rounding

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (batch.rounded(side, self._rounding) for side in ("image", "reference"))
        height, width = image.shape[2:]
        if min(height, width) < self._network.smallest:
            raise NotApplicable(
                f"needs images of at least {self._network.smallest} px per side; these have {min(height, width)}"
            )
        if height * width <= SHARED_UP_TO:
            ours, theirs = (batch.features(self._network, side, self._rounding) for side in ("image", "reference"))
            return {self._name: self._network.distance(ours, theirs).double().numpy()}
        pairs = zip(image.split(1), reference.split(1), strict=True)
        distance = torch.cat([self._network.distance(self._network(x), self._network(y)) for x, y in pairs])
        return {self._name: distance.double().numpy()}

    def provenance(self) -> dict[str, str]:
        return self._network.describe()


class LPIPS(_NetworkDistance):
    """Mean LPIPS distance, with images scaled to [-1, 1] as the `lpips` package expects."""

    def __init__(self, name: str, network: LPIPSNetwork, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(name, network, protocol.rounding_of(protocol.lpips))


class DISTS(_NetworkDistance):
    """Mean DISTS distance: 0 for equal images. It was fitted to tolerate resampled texture."""

    def __init__(self, name: str, network: DISTSNetwork, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(name, network, protocol.rounding)
