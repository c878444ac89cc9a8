"""CMMD: the kernel distance of CLIP features (Jayasumana et al. 2024, arXiv:2401.09603)."""

from __future__ import annotations

import numpy as np

from tokbench.metrics.distribution import Distribution

SIGMA, SCALE = 10.0, 1000.0

_BLOCK = 2**25
"""The number of kernel values that are computed at once, 256 MiB in float64. All of 50,000 images would take 20 GB."""


class CMMD(Distribution):
    """1,000 times the squared MMD with the kernel exp(-|x - y|^2 / (2 * 10^2)) of features that are normalised to
    length 1.

    As in the authors' code, the means within a set include each vector with itself, so the number is not negative.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        first, second = (_normalised(rows) for rows in (reference, image))
        within = _kernel_mean(first, first) + _kernel_mean(second, second)
        return SCALE * (within - 2 * _kernel_mean(first, second))


def _normalised(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _kernel_mean(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean of the kernel over all pairs of unit vectors (n, D) and (m, D)."""
    rows = max(1, _BLOCK // len(second))
    total = 0.0
    for start in range(0, len(first), rows):
        squares = np.maximum(2 - 2 * first[start : start + rows] @ second.T, 0)
        total += float(np.exp(squares / (-2 * SIGMA**2)).sum())
    return total / (len(first) * len(second))
