"""Training losses: perceptual distance in a frozen network's features, and cosine distance to a teacher's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.frozen_network import efficientnet


class Perceptual(nn.Module):
    """Perceptual distance between images (B, 3, H, W) in [-1, 1] in the features of a frozen EfficientNet-Lite0.

    It is LPIPS (arXiv:1801.03924) without the learned weights: features at five depths are normalised to unit length at
    every position; their squared differences are averaged over positions, depths and images. The network's weights are
    part of a Python package, so training needs no download, and the only metric that uses this network is
    FD-EfficientNet.
    """

    def __init__(self, device: str = "cpu") -> None:
        """Raises MissingWeights if the package with the weights is not installed."""
        super().__init__()
        self.net = efficientnet(device)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.distance(*self.features(image, reference))

    def features(self, image: Tensor, reference: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features (B, D, h, w) at five depths of images and of references, which get no gradient."""
        with torch.no_grad():
            expected = self.net.stages((reference * 127.5 + 127.5 - 127) / 128)
        return self.net.stages((image * 127.5 + 127.5 - 127) / 128), expected

    @staticmethod
    def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
        """Return the distance of two results of `features`, a scalar."""
        distances = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(found, expected, strict=True)]
        return torch.stack(distances).mean()


def gram_distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Return the Gram loss between features (B, D, h, w) at several depths (arXiv:1508.06576), a scalar.

    The Gram matrix of an image is the mean over positions of the outer products of its features, here of unit length.
    The loss is the squared difference of these matrices, summed over entries and averaged over depths and images.
    """
    return torch.stack(
        [(_gram(a) - _gram(b)).square().sum((1, 2)).mean() for a, b in zip(found, expected, strict=True)]
    ).mean()


def _gram(features: Tensor) -> Tensor:
    vectors = _unit(features).flatten(2)
    return vectors @ vectors.transpose(1, 2) / vectors.shape[2]


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=1, eps=1e-6)


def cosine(features: Tensor, target: Tensor) -> Tensor:
    """Return the mean of 1 - cosine similarity of features (..., D) and a target (..., D), which gets no gradient."""
    return (1 - F.cosine_similarity(features.float(), target.detach().float(), dim=-1)).mean()


TEMPERATURE = 0.07
"""Temperature of the contrastive loss, the initial one of CLIP (arXiv:2103.00020)."""


def contrast(
    images: Tensor,
    others: Tensor,
    same: Tensor | None = None,
    scale: Tensor | float = 1 / TEMPERATURE,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the contrastive loss of CLIP between images and captions or other views, both ways, in nats.

    images: (..., B, D). others: (B, D). same: bool (B, B), symmetric, the pairs that match, such as images with equal
    captions; the target is spread evenly over them. None for the diagonal alone. scale: the inverse temperature, a
    scalar. smoothing: of the targets. Vectors are normalised here.
    """
    matches = torch.eye(len(others), dtype=torch.bool, device=others.device) if same is None else same
    similarity = scale * F.normalize(images.float(), dim=-1) @ F.normalize(others.float(), dim=-1).T
    target = (1 - smoothing) * matches / matches.sum(1, keepdim=True) + smoothing / len(matches)
    both = (similarity, similarity.transpose(-1, -2))
    return torch.stack([-(target * F.log_softmax(each, -1)).sum(-1).mean() for each in both]).mean()


def supervised_contrast(vectors: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al., arXiv:2004.11362) of a batch, a scalar in nats.

    vectors: (B, D), normalised here. labels: (B,). Each vector must find the others of its label among all others of
    the batch; vectors without another one of their label do not count. The loss is 0 if there are no pairs.
    """
    unit = F.normalize(vectors.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    found = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(1).masked_fill(itself, 0.0)
    same = (labels[:, None] == labels) & ~itself
    counts = same.sum(1)
    each = -(found * same).sum(1)[counts > 0] / counts[counts > 0]
    return each.mean() if len(each) else found.sum() * 0
