"""The frozen network of all training losses and teachers, EfficientNet-Lite0."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.extractors.efficientnet import STAGES, EfficientNetLite0
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


class FirstStages(nn.Module):
    """The first `count` stages of EfficientNet-Lite0 with ImageNet weights, as a frozen part of a model.

    Maps images (B, 3, H, W) in [-1, 1] to features (B, D, h, w): D = 16, 24, 40, 80 or 112 values for a square of 2, 4,
    8, 16 or 16 px after 1 to 5 stages. Raises MissingWeights if the package with the weights is not installed.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.net = copy.deepcopy(efficientnet("cpu"))
        self.net._blocks = self.net._blocks[: sum(repeats for repeats, *_ in STAGES[:count])]
        del self.net._conv_head, self.net._fc
        self.width: int = STAGES[count - 1][-1]

    def forward(self, images: Tensor) -> Tensor:
        x = ((images + 1) * 127.5 - 127) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.net.blocks():
            x = block(x)
        return x
