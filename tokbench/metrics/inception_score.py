"""Inception Score (Salimans et al. 2016), computed by torch-fidelity."""

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
"""The smallest number of images for which there is a score."""

FEWEST = 2 * LEAST
"""The smallest number of images per split. With as many splits as images, every split has a score of 1."""

SEED = 2020
"""torch-fidelity's seed for shuffling."""

LOWEST = 1.0
"""The smallest possible score: all images have the same class probabilities."""

BELOW = 8.0
"""How far, in total, the scores must lie below the largest possible score, which is the number of images. Nearer to it,
every image shows another class, so all parts of the images agree although other images may not."""


class InceptionScore(Distribution):
    """Mean over splits of exp(KL(p(y|x) || p(y))) on the generated images, in 10 splits that are shuffled with
    torch-fidelity's seed, unless the protocol differs. It grows with the number of images per split.

    With fewer than 20 images per split, all images form one split. With a protocol's fixed split size, a last split of
    less than half that size is left out, since it would count as much as a whole one and a split of one image has a
    score of 1; a larger one counts, as in ADM's code. The provenance records both cases. Class probabilities come from
    the 2015-12-05 network's last layer without its bias, as in all code based on the TensorFlow graph.

    Intervals: several splits give the standard deviation over splits divided by the root of their number, with
    Student's t, since the assignment of images to splits is itself noise; one split gives a jackknife over 25 groups of
    images. With fewer than 20 images, or where nearly every image shows its own class (`BELOW`), there is no interval,
    and a warning is given.
    """

    compares: bool = False
    min_images: ClassVar[int] = LEAST

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return float(np.mean(self.scores(image)))

    def scores(self, image: np.ndarray) -> list[float]:
        """Return the score of each split of logits (n, classes)."""
        return [_score(part) for part in self._splits(torch.from_numpy(image))]

    def _splits(self, logits: Tensor) -> list[Tensor]:
        rule, count = self._protocol.inception_score, len(logits)
        if rule.split_size is not None:
            return list(logits[: count - self._left_out(count)].split(rule.split_size))
        number = self._number_of_splits(count)
        if rule.shuffle and number > 1:
            logits = logits[torch.from_numpy(np.random.RandomState(SEED).permutation(count))]
        return [logits[part * count // number : (part + 1) * count // number] for part in range(number)]

    def _number_of_splits(self, count: int) -> int:
        """Return the number of equal splits."""
        splits = self._protocol.inception_score.splits
        return splits if count >= FEWEST * splits else 1

    def _left_out(self, count: int) -> int:
        """Return the number of images in a last split that is too small to count."""
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
        scores = [_score(torch.from_numpy(image[group != one])) for one in np.unique(group)]
        return {self._name: Jackknife(np.array(scores), (LOWEST, np.inf))}

    def _no_interval(self, splits: Sequence[float]) -> str:
        """Return why the score has no interval, or "" where it has one."""
        count = len(self.rows) - self._left_out(len(self.rows))
        if count < FEWEST:
            return f"there are {count} images, fewer than {FEWEST}"
        if count - sum(splits) < BELOW:
            return f"nearly every one of the {count / len(splits):,.0f} images of a split shows a class of its own"
        return ""

    def warnings(self) -> list[ResultWarning]:
        """Return a warning where the score has no interval."""
        if reason := self._no_interval(self.scores(self.rows.column("image"))):
            return [ResultWarning(f"{self._name}_interval", f"{self._name} has no interval: {reason}")]
        return []

    def provenance(self) -> dict[str, str]:
        rule, count = self._protocol.inception_score, len(self.rows)
        facts = super().provenance()
        if size := rule.split_size:
            rest, left = count % size, self._left_out(count)
            if left:
                return facts | {"splits": f"{count // size} of {size}; {left} last images are fewer than half a split"}
            return facts | ({"splits": f"{count // size} of {size} and one of {rest}"} if rest and count > size else {})
        if self._number_of_splits(count) == rule.splits:
            return facts
        return facts | {"splits": f"1, since {rule.splits} need {FEWEST * rule.splits} images or more"}


def _score(logits: Tensor) -> float:
    return float(isc_features_to_metric(logits, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])
