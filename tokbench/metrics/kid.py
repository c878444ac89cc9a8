"""KID: kernel distance of two sets of features (Binkowski et al. 2018), by torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from tokbench.metrics.distribution import Distribution

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
"""torch-fidelity's defaults."""
SUBSETS_OF_HALVES = 20
"""Each takes a tenth of a second on a CPU; that they are fewer makes an interval wider than it need be."""


class KID(Distribution):
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3: of all N <= 1,000 images and as many references, else the
    mean over 100 subsets of 1,000 of each, or of as many as there are.

    Unbiased for independent sets, so it may be slightly negative; for reconstructions of the same images it usually
    is where they are near exact.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray, subsets: int = SUBSETS) -> float:
        whole = len(image) == len(reference) <= SUBSET_SIZE
        result = kid_features_to_metric(
            torch.from_numpy(reference),
            torch.from_numpy(image),
            kid_subsets=1 if whole else subsets,
            kid_subset_size=min(len(image), len(reference), SUBSET_SIZE),
            rng_seed=SEED,
            verbose=False,
        )
        return float(result[KEY_METRIC_KID_MEAN])

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> Callable[..., float]:
        return lambda first, second: self.statistic(reference[first], image[second], SUBSETS_OF_HALVES)
