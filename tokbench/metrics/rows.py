"""Feature vectors that are kept one by one, for metrics that are no sums."""

from __future__ import annotations

import torch
from torch import Tensor


class Rows:
    """Features (N, D) in the order of the dataset, in whatever order their batches and shards came."""

    def __init__(self) -> None:
        self._index: list[Tensor] = []
        self._features: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._index)

    def add(self, index: Tensor, features: Tensor) -> None:
        """Take in the features (B, D) of the images at positions `index` (B,)."""
        self._index.append(index)
        self._features.append(features)

    def merge(self, other: Rows) -> None:
        """Take in all that `other` has seen. `other` is left as it was."""
        self._index += other._index
        self._features += other._features

    def in_order(self) -> Tensor:
        """(N, D), sorted by position."""
        return torch.cat(self._features)[torch.cat(self._index).argsort(stable=True)]
