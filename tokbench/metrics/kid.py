"""KID: kernel distance of two sets of features (Binkowski et al. 2018), on torch-fidelity's subsets, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tokbench.metrics.distribution import Distribution

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
"""torch-fidelity's defaults."""
SUBSETS_OF_HALVES = 20
"""Each takes a fifth of a second on a CPU; that they are fewer makes an interval wider than it need be."""


class KID(Distribution):
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3: of all N <= 1,000 images and as many references, else the
    mean over 100 subsets of 1,000 of each, or of as many as there are.

    Unbiased for independent sets, so it may be slightly negative; for reconstructions of the same images it usually
    is where they are near exact. torch-fidelity draws the same subsets and computes the kernel in the features' own
    float32, whose rounding moves the number by up to about 1e-6.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray, subsets: int = SUBSETS) -> float:
        size = min(len(image), len(reference), SUBSET_SIZE)
        whole = len(image) == len(reference) == size
        draw = np.random.RandomState(SEED)  # whose `choice` torch-fidelity's subsets come from
        found = []
        for _ in range(1 if whole else subsets):
            first = reference[draw.choice(len(reference), size, replace=False)]
            second = image[draw.choice(len(image), size, replace=False)]
            found.append(squared_mmd(first, second))
        return float(np.mean(found))

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> Callable[..., float]:
        return lambda first, second: self.statistic(reference[first], image[second], SUBSETS_OF_HALVES)


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimate from features (n, D) and (n, D) (Gretton et al. 2012, lemma 6), in float64 throughout: the
    three sums of n^2 kernels are nearly equal, and their difference would lose what float32 keeps of them."""
    count = len(first)
    wide = [rows.astype(np.float64) for rows in (first, second)]
    within = [kernel.sum() - np.trace(kernel) for kernel in (_kernel(rows, rows) for rows in wide)]
    return float(sum(within) / (count * (count - 1)) - 2 * _kernel(*wide).mean())


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of every pair, (n, m)."""
    products = first @ second.T
    products /= first.shape[1]
    products += 1
    return np.asarray(products * products * products)  # a third of the time that a power takes
