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
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3: of all N <= 1,000 images and as many references, else the
    mean over 100 subsets of 1,000 of each, or of as many as there are.

    Unbiased for independent sets, so it may be slightly negative; for reconstructions of the same images it usually
    is where they are near exact. It has an interval where all images and references were used at once.
    """

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        whole = len(image) == len(reference) <= SUBSET_SIZE
        result = kid_features_to_metric(
            torch.from_numpy(reference),
            torch.from_numpy(image),
            kid_subsets=1 if whole else SUBSETS,
            kid_subset_size=min(len(image), len(reference), SUBSET_SIZE),
            rng_seed=SEED,
            verbose=False,
        )
        return float(result[KEY_METRIC_KID_MEAN])

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        whole = halves.count == len(self.references) <= SUBSET_SIZE
        return super().replicates(halves) if whole else {}
