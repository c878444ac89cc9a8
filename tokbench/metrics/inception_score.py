"""Inception Score (Salimans et al. 2016), by torch-fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from tokbench.metrics.distribution import Distribution
from tokbench.results.warning import ResultWarning
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Jackknife, Splits, Spread, groups

LEAST = 10
"""Images below which there is no score at all."""

FEWEST = 2 * LEAST
"""Images a split below which it says next to nothing: of as many images as splits, each split has a score of 1."""

SEED = 2020
"""torch-fidelity's, of the shuffle."""

LOWEST = 1.0
"""The score of images that are all of one class, or of all classes alike."""

BELOW = 8.0
"""How far the scores must lie, in all, below those of images that each show another class, which are as many as the
images: nearer to them all parts of the images agree, and other images need not."""


class InceptionScore(Distribution):
    """Mean over splits of exp(KL(p(y|x) || p(y))) on the produced images; 10 splits, shuffled with torch-fidelity's
    seed, unless the protocol says otherwise. It grows with the number of images in a split.

    With fewer than 20 images a split, all images are one split, and the provenance says so. Of parts of a protocol's
    size, a last one of less than half that size is left out, and the provenance says so: it would count as much as a
    whole one, and a part of one image has a score of 1. A larger one counts, as in ADM's code. Classes come from the
    2015-12-05 network's last layer without its bias, as in every code of the TF-graph family.

    Intervals: which images share a split is itself noise, so several splits have the standard deviation over splits
    over the root of their number, with Student's t; one split has a jackknife over 25 groups of images. There is none
    of fewer than 20 images, nor where nearly each image shows a class of its own (`BELOW`); a warning says so.
    """

    compares: bool = False
    least: ClassVar[int] = LEAST

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return float(np.mean(self.scores(image)))

    def scores(self, image: np.ndarray) -> list[float]:
        """The score of each split of logits (n, classes)."""
        return [_score(part) for part in self._splits(torch.from_numpy(image))]

    def _splits(self, logits: Tensor) -> list[Tensor]:
        rule, count = self._protocol.inception_score, len(logits)
        if rule.split_size is not None:
            return list(logits[: count - self._left_out(count)].split(rule.split_size))
        number = self._number(count)
        if rule.shuffle and number > 1:
            logits = logits[torch.from_numpy(np.random.RandomState(SEED).permutation(count))]
        return [logits[part * count // number : (part + 1) * count // number] for part in range(number)]

    def _number(self, count: int) -> int:
        """Of equal splits."""
        splits = self._protocol.inception_score.splits
        return splits if count >= FEWEST * splits else 1

    def _left_out(self, count: int) -> int:
        """How many last images are too few for a part of the protocol's size, and yet more than whole parts hold."""
        size = self._protocol.inception_score.split_size
        rest = count % size if size and count > size else 0
        return rest if size and rest < size / 2 else 0

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        image = self.rows.column("image")
        splits = self.scores(image)
        if self._no_interval(splits):
            return {}
        if len(splits) > 1:
            return {self._name: Splits(np.array(splits), (LOWEST, np.inf))}
        image = image[: len(image) - self._left_out(len(image))]
        group = groups(halves.sha256, len(image))
        left = [_score(torch.from_numpy(image[group != one])) for one in np.unique(group)]
        return {self._name: Jackknife(np.array(left), (LOWEST, np.inf))}

    def _no_interval(self, splits: Sequence[float]) -> str:
        """Why the score has no interval, empty where it has one."""
        count = len(self.rows) - self._left_out(len(self.rows))
        if count < FEWEST:
            return f"{count} images are fewer than {FEWEST}"
        if count - sum(splits) < BELOW:
            return f"nearly each of the {count / len(splits):,.0f} images of a split shows a class of its own"
        return ""

    def warnings(self) -> list[ResultWarning]:
        """Where the score has no interval."""
        if why := self._no_interval(self.scores(self.rows.column("image"))):
            return [ResultWarning(f"{self._name}_interval", f"{self._name} has no interval: {why}")]
        return []

    def provenance(self) -> dict[str, str]:
        rule, count = self._protocol.inception_score, len(self.rows)
        told = super().provenance()
        if size := rule.split_size:
            rest, left = count % size, self._left_out(count)
            if left:
                return told | {"splits": f"{count // size} of {size}; {left} last images are fewer than half a split"}
            return told | ({"splits": f"{count // size} of {size} and one of {rest}"} if rest and count > size else {})
        if self._number(count) == rule.splits:
            return told
        return told | {"splits": f"1, since {rule.splits} need {FEWEST * rule.splits} images or more"}


def _score(logits: Tensor) -> float:
    return float(isc_features_to_metric(logits, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])
