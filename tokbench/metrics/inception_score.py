"""Inception Score (Salimans et al. 2016), by torch-fidelity."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from tokbench.metrics.distribution import Distribution

LEAST = 10


class InceptionScore(Distribution):
    """Mean over splits of exp(KL(p(y|x) || p(y))) on the produced images; 10 splits, shuffled with torch-fidelity's
    seed, unless the protocol says otherwise. It grows with the number of images in a split.

    Classes come from the 2015-12-05 network's last layer without its bias, as in every code of the TF-graph family.
    """

    compares: bool = False
    least: ClassVar[int] = LEAST

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        logits, rule = torch.from_numpy(image), self._protocol.inception_score
        if (size := rule.split_size) is None:
            return _score(logits, rule.splits, rule.shuffle)
        return float(np.mean([_score(part, 1, False) for part in logits.split(size)]))


def _score(logits: Tensor, splits: int, shuffle: bool) -> float:
    return float(isc_features_to_metric(logits, splits=splits, shuffle=shuffle)[KEY_METRIC_ISC_MEAN])
