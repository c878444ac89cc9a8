"""The frozen network of all training losses and teachers, EfficientNet-Lite0."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from tokbench.extractors.efficientnet import EfficientNetLite0
from tokbench.extractors.pool import ExtractorPool


@lru_cache(maxsize=2)
def efficientnet(device: str) -> Any:
    """Return EfficientNet-Lite0 with ImageNet weights on `device`; all models of this process share it.

    Its method `stages` maps images (B, 3, H, W), normalised as (levels - 127) / 128, to features at five depths. Raises
    MissingWeights if the package with the weights is not installed.
    """
    network = ExtractorPool(device).get("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0)
    return network.net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
