"""Vectors that are kept one by one, for metrics that are no sums."""

from __future__ import annotations

import numpy as np
from torch import Tensor


class Rows:
    """Features or token indices (N, D) in the order of the dataset, in whatever order their batches and shards came."""

    def __init__(self) -> None:
        self._index: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._index)

    def add(self, index: Tensor, features: Tensor) -> None:
        """Take in the features (B, D) of the images at positions `index` (B,)."""
        self._index.append(index.numpy())
        self._features.append(features.numpy())

    def merge(self, other: Rows) -> None:
        """Take in all that `other` has seen. `other` is left as it was."""
        self._index += other._index
        self._features += other._features

    def in_order(self) -> np.ndarray:
        """(N, D), sorted by position."""
        return np.concatenate(self._features)[np.concatenate(self._index).argsort(kind="stable")]
