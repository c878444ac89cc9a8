"""Improved precision and recall of samples (Kynkäänniemi et al. 2019, arXiv:1904.06991), by torch-fidelity."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from tokbench.bootstrap import least_reach
from tokbench.halves import Halves, Replicates
from tokbench.metrics.distribution import Distribution
from tokbench.spread import Spread

NEIGHBOURS = 3
"""k, as in the paper."""

BLOCK = 2048
"""Vectors that are compared with all others at once."""


class PrecisionRecall(Distribution):
    """`precision`: the share of samples that lie nearer to some reference than that one's k-th nearest other reference.
    `recall`: the share of references that lie as near to some sample. Both in 0..1, more is better.

    The paper takes VGG-16's features and as many samples as references; ADM, and most who publish these numbers since,
    Inception's. Both numbers depend on the two counts, which stand in the result: fewer samples have wider
    neighbourhoods.
    """

    least: ClassVar[int] = NEIGHBOURS + 1

    @property
    def _numbers(self) -> tuple[str, str]:
        """`precision_recall_768` gives `precision_768` and `recall_768`."""
        suffix = self._name.removeprefix("precision_recall")
        return f"precision{suffix}", f"recall{suffix}"

    def both(self, reference: np.ndarray, image: np.ndarray) -> tuple[float, float]:
        """Precision and recall of features (n, D) and (m, D)."""
        # torch-fidelity calls the samples features_1 and the references features_2.
        found = prc_features_to_metric(
            torch.from_numpy(image),
            torch.from_numpy(reference),
            prc_neighborhood=NEIGHBOURS,
            prc_batch_size=BLOCK,
            save_cpu_ram=True,
            verbose=False,
        )
        return float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL])

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return self.both(reference, image)[0]

    def compute(self) -> dict[str, float]:
        self._enough()
        return dict(zip(self._numbers, self.both(*self._whole()), strict=True))

    def replicates(self, halves: Halves) -> dict[str, Spread]:
        own = self._halved(halves, self.least)
        if own is None:
            return {}
        reference, image = self._whole()
        pairs = zip(own, halves, strict=True)
        found = np.array([self.both(reference[one], image[other]) for one, other in pairs])
        counts = len(image), len(reference)
        return {
            name: Replicates(found[:, at], None, (0.0, 1.0), least_reach(counts[at]))
            for at, name in enumerate(self._numbers)
        }

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {"neighbours": str(NEIGHBOURS)}
