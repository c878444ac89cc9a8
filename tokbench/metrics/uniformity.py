"""How evenly a discrete tokenizer uses the entries of its codebooks on these images."""

from __future__ import annotations

import math

import numpy as np

from tokbench.metrics.token_metric import TokenMetric
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Jackknife, Spread, groups

BOUNDS = {"code_density_cv": (0.0, math.inf), "normalized_entropy": (0.0, 1.0), "code_gini": (0.0, 1.0)}


class Uniformity(TokenMetric):
    """The three statistics of GloTok (AAAI 2026), per stream of indices, from how often each entry occurs.

    `code_density_cv`: standard deviation of the entries' frequencies divided by their mean. `normalized_entropy`:
    entropy of the frequencies divided by its largest value, log2 of the number of entries. `code_gini`: Gini
    coefficient of the frequencies. Entries that never occur count. A codebook that is used evenly has 0, 1 and 0.

    With several streams, the stream's name follows a dot; where several indices form a token, the numbers are means
    over their codebooks. All depend on the number of images: with few, even a perfectly even use has a spread by
    chance. Intervals come from leaving out one of 25 groups of images at a time.
    """

    def compute(self) -> dict[str, float]:
        return self._numbers(None)

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        count = len(self.rows)
        if count < 2:
            return {}
        group = groups(halves.sha256, count)
        without = [self._numbers(group == one) for one in np.unique(group)]
        return {
            name: Jackknife(np.array([one[name] for one in without]), BOUNDS[name.partition(".")[0]])
            for name in without[0]
        }

    def _numbers(self, left_out: np.ndarray | None) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self.streams():
            entries, counts = self.counts(name, left_out)
            size, books = self.size(name), self.groups(name)
            each = [statistics(counts[entries // int(size) == book], size) for book in range(books)]
            suffix = "" if len(self.streams()) == 1 else f".{name}"
            numbers |= {f"{key}{suffix}": float(np.mean([one[key] for one in each])) for key in BOUNDS}
        return numbers


def statistics(counts: np.ndarray, size: float) -> dict[str, float]:
    """Return the three numbers for the counts (m,) of the entries that occur in a codebook of `size` entries."""
    counts = np.sort(counts).astype(np.float64)
    total, used = counts.sum(), len(counts)
    shares = counts / total
    second = float((shares**2).sum()) * size  # mean square of the frequencies over their squared mean
    entropy = -float((shares * np.log2(shares)).sum())
    # The entries that never occur have the lowest ranks; they add nothing to the sum.
    ranks = size - used + np.arange(1, used + 1)
    gini = 2 * float((ranks * shares).sum()) / size - (size + 1) / size
    return {
        "code_density_cv": math.sqrt(max(second - 1, 0.0)),
        "normalized_entropy": min(entropy / math.log2(size), 1.0) if size > 1 else 1.0,
        "code_gini": max(gini, 0.0),
    }
