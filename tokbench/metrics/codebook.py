"""Codebook usage and entropy of a discrete tokenizer on these images."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincinv

from tokbench.metric_names import MetricName
from tokbench.metrics.token_metric import TokenMetric
from tokbench.stats.bootstrap import LEVEL, share_bound
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Distinct, Jackknife, Spread

NONE_SEEN = -math.log((1 - LEVEL) / 2)
"""The largest mean of a Poisson distribution for which a value of 0 has a probability of at least 2.5 %: 3.69."""


class Codebook(TokenMetric):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits per index). With several streams, the stream's name follows a dot. All three grow with N.

    Where several indices form a token, each has its own codebook, and usage and entropy are means over these. Intervals
    come from leaving out one image at a time: the codes of one image are similar and each number grows with N, so
    neither single codes nor halves of the images show the variance at N images. Leaving out an image changes the usage
    only by entries that no other image has. Where there are none, up to `NONE_SEEN` are expected in other images, so
    the interval is extended by that number of entries, limited by the number that could be missed or that are still
    unused.
    """

    def compute(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self.streams():
            _, counts = self.counts(name)
            used, total = np.count_nonzero(counts), int(counts.sum())
            values = self._numbers(name, np.array([used]), np.array([_information(counts).sum()]), np.array([total]))
            numbers |= {number: float(value[0]) for number, value in values.items()}
        return numbers

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        """Return the numbers without each image in turn. With a single image there are none."""
        spreads: dict[str, Spread] = {}
        for name in self.streams() if len(self.rows) > 1 else ():
            values, lost, gained = self._without_each(name)
            for number, without in values.items():
                kind = MetricName.parse(number).base
                bounds = self._bounds(name)[kind]
                if kind == "codebook_usage":
                    spreads[number] = Distinct(without, bounds, lost=lost, gained=gained)
                else:
                    spreads[number] = Jackknife(without, bounds)
        return spreads

    def _bounds(self, name: str) -> dict[str, tuple[float, float]]:
        size = self.size(name)
        return {"codebook_usage": (0.0, 1.0), "perplexity": (1.0, size), "codebook_entropy": (0.0, math.log2(size))}

    def _without_each(self, name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the numbers without the first image, without the second, and so on, (n,) each, and two arrays (n,) of
        shares of the codebook: how many of each image's entries a new set of the same number of images may miss, and
        how many further entries it may have."""
        seen, counts = self.counts(name)
        alone, information, tokens = (np.zeros(len(self.rows)) for _ in range(3))
        holding = np.zeros(len(seen))  # number of images that contain an entry
        contained: list[tuple[np.ndarray, np.ndarray]] = []
        for codes, images in self.codes(name):
            # Every pair of image and entry, and how often the entry occurs in that image.
            pairs, occurrences = np.unique(images * len(seen) + np.searchsorted(seen, codes), return_counts=True)
            image, code = np.divmod(pairs, len(seen))
            rest = counts[code] - occurrences
            np.add.at(alone, image, rest == 0)
            np.add.at(information, image, _information(counts[code]) - _information(rest))
            np.add.at(tokens, image, occurrences)
            np.add.at(holding, code, 1)
            contained.append((image, code))
        used, whole = np.count_nonzero(counts), _information(counts).sum()
        values = self._numbers(name, used - alone, whole - information, counts.sum() - tokens)
        entries, count = self.size(name) * self.groups(name), len(self.rows)
        # The largest plausible probability that N other images miss an entry, from the lower bound of its frequency.
        least = betaincinv(holding, count - holding + 1, (1 - LEVEL) / 2)  # Clopper and Pearson's lower bound
        missed, lost = (1 - least) ** count / holding, np.zeros(count)
        for image, code in contained:
            np.add.at(lost, image, missed[code])
        lost *= min(1.0, NONE_SEEN / total) if (total := lost.sum()) else 1.0
        # If m * share_bound(m) of m entries were expected to be used, none would be with a probability of 2.5 %.
        unused = round(entries - used)
        gained = np.full(count, unused * share_bound(unused) / count)
        return values, lost / entries, gained / entries

    def _numbers(
        self, name: str, used: np.ndarray, information: np.ndarray, total: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the three numbers, (n,) each, from the number of used entries, the sum of c log2 c over their counts
        c, and the sum of c, (n,) each."""
        groups, total = self.groups(name), np.maximum(total, 1)
        # All groups have the same number of indices, so the choice of the group contributes log2(groups) bits.
        entropy = np.maximum(np.log2(total) - information / total - math.log2(groups), 0.0) + 0.0  # no minus zero
        suffix = "" if len(self.streams()) == 1 else f".{name}"
        return {
            f"codebook_usage{suffix}": used / self.size(name) / groups,
            f"perplexity{suffix}": 2.0**entropy,
            f"codebook_entropy{suffix}": entropy,
        }


def _information(counts: np.ndarray) -> np.ndarray:
    """Return c log2 c for each count c, which is 0 for c = 0."""
    return counts * np.log2(np.maximum(counts, 1))
