"""KID: kernel distance of two sets of features (Binkowski et al. 2018), by torch-fidelity."""

from __future__ import annotations

import numpy as np
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from tokbench.halves import Halves, Replicates
from tokbench.metrics.distribution import Distribution

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
"""torch-fidelity's defaults."""


class KID(Distribution):
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3: mean over 100 subsets of 1,000, or all of N <= 1,000.

    Unbiased for independent sets, so it may be slightly negative; for reconstructions of the same images it usually
    is where they are near exact. It has an interval where all images were used at once.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        whole = len(image) <= SUBSET_SIZE
        result = kid_features_to_metric(
            torch.from_numpy(reference),
            torch.from_numpy(image),
            kid_subsets=1 if whole else SUBSETS,
            kid_subset_size=len(image) if whole else SUBSET_SIZE,
            rng_seed=SEED,
            verbose=False,
        )
        return float(result[KEY_METRIC_KID_MEAN])

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        return super().replicates(halves) if halves.count <= SUBSET_SIZE else {}
