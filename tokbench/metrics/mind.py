"""MIND: a sliced Wasserstein distance of two sets of features, by sorted projections (arXiv:2605.06797)."""

from __future__ import annotations

import numpy as np

from tokbench.metrics.distribution import Distribution, OnSubsets

DIRECTIONS, SEED = 1000, 0
DIRECTIONS_OF_HALVES = 200
"""The number of directions for halves, the first ones of all, which take a fifth of the time. The interval is therefore
that of the number with 200 directions."""


class MIND(Distribution):
    """3 d times the mean over 1,000 random directions of the mean squared difference of sorted projections, for
    features of dimension d.

    The mean over directions is the squared sliced 2-Wasserstein distance. It assumes no Gaussian and needs no
    covariance. A shift of all features by a vector t gives 3 |t|^2. Where the sets differ in size, both are compared at
    the quantiles of the smaller one.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        theirs, ours = (project(rows, DIRECTIONS) for rows in (reference, image))
        return scaled_distance(theirs, ours, image.shape[1])

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> OnSubsets:
        theirs, ours = (project(rows, DIRECTIONS_OF_HALVES) for rows in (reference, image))

        def on_subsets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            pairs = zip(first, second, strict=True)
            return np.array([scaled_distance(theirs[one], ours[other], image.shape[1]) for one, other in pairs])

        return on_subsets


def project(features: np.ndarray, directions: int) -> np.ndarray:
    """Return the projections (n, directions) of features (n, d) on unit vectors with a uniform distribution, which are
    the same for every set of this dimension."""
    drawn = np.random.default_rng(SEED).standard_normal((directions, features.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(features.astype(np.float64) @ drawn.T)


def scaled_distance(first: np.ndarray, second: np.ndarray, dimension: int) -> float:
    """Return 3 d times the mean squared difference of sorted projections (n, k) and (m, k)."""
    ours, theirs = np.sort(first, axis=0), np.sort(second, axis=0)
    if len(ours) != len(theirs):
        count = min(len(ours), len(theirs))
        ours, theirs = _at_quantiles(ours, count), _at_quantiles(theirs, count)
    return float(3 * dimension * np.square(ours - theirs).mean())


def _at_quantiles(ordered: np.ndarray, count: int) -> np.ndarray:
    """Return sorted columns (n, k) at the middles of `count` equal shares, (count, k), interpolated linearly."""
    if len(ordered) == count:
        return ordered
    places = (np.arange(count) + 0.5) / count * len(ordered) - 0.5
    below = np.floor(places).astype(int).clip(0, len(ordered) - 2)
    share = (places - below)[:, None]
    return np.asarray(ordered[below] * (1 - share) + ordered[below + 1] * share)
