"""Random masking of patches, as in masked autoencoders (He et al., arXiv:2111.06377)."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_patches(batch: int, count: int, ratio: float, device: torch.device) -> Tensor:
    """Draw the patches of each image that stay visible, int64 (B, K) in increasing order.

    ratio: the masked share of the `count` patches, 0 to less than 1; K is the same for all images, and at least 1. The
    random numbers come from torch's global generator on the CPU.
    """
    kept = max(1, count - round(ratio * count))
    return torch.rand(batch, count).argsort(1)[:, :kept].sort(1).values.to(device)


def select_patches(features: Tensor, indices: Tensor) -> Tensor:
    """Return the features (B, K, D) of the patches `indices`, int64 (B, K), from those of all patches (B, N, D)."""
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1]))


def scatter_patches(features: Tensor, indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Put features (B, K, D) of the patches `indices`, int64 (B, K), at their places among `count` patches.

    Returns features (B, count, D), zero at the other patches, and the mask (B, count), True at the patches `indices`.
    """
    batch, _, dim = features.shape
    placed = features.new_zeros(batch, count, dim)
    placed = placed.scatter(1, indices[..., None].expand(-1, -1, dim), features)
    visible = torch.zeros(batch, count, dtype=torch.bool, device=features.device).scatter(1, indices, True)
    return placed, visible
