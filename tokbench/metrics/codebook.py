"""How much of its codebook a discrete tokenizer uses on these images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import betaincinv

from tokbench.metric_names import MetricName
from tokbench.metrics.token_metric import TokenMetric
from tokbench.stats.bootstrap import LEVEL, least_reach
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Distinct, Jackknife, Spread

NONE_SEEN = -math.log((1 - LEVEL) / 2)
"""The largest mean of a Poisson law of which a value of 0 is no surprise: 3.69."""


class Codebook(TokenMetric):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits an index). With several streams their names follow a dot. All three grow with N.

    Where several indices make a token, each has a codebook of its own: usage and entropy are means over these.
    Intervals come from leaving out one image at a time: codes of one image are alike, and each number grows with N, so
    that neither single codes nor halves of the images show how much it varies at the whole N. Usage changes only by
    entries that one image alone has. Where there are none, as many as `NONE_SEEN` are to be expected of other images,
    so its interval reaches further by as many entries, and by no more than could be missed or are not used yet.
    """

    def compute(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self.streams():
            _, counts = self._counts(name)
            used, total = np.count_nonzero(counts), int(counts.sum())
            found = self._numbers(name, np.array([used]), np.array([_information(counts).sum()]), np.array([total]))
            numbers |= {number: float(value[0]) for number, value in found.items()}
        return numbers

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        """The numbers without each image in turn. Of one image alone there is nothing to leave out."""
        found: dict[str, Spread] = {}
        for name in self.streams() if len(self.rows) > 1 else ():
            values, lost, gained = self._without_each(name)
            for number, own in values.items():
                kind = MetricName.parse(number).base
                bounds = self._bounds(name)[kind]
                if kind == "codebook_usage":
                    found[number] = Distinct(own, bounds, lost=lost, gained=gained)
                else:
                    found[number] = Jackknife(own, bounds)
        return found

    def _bounds(self, name: str) -> dict[str, tuple[float, float]]:
        size = self.size(name)
        return {"codebook_usage": (0.0, 1.0), "perplexity": (1.0, size), "codebook_entropy": (0.0, math.log2(size))}

    def _counts(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The entries that occur, sorted, and how often. With a table of those that occur, and not of all, a codebook
        of 2^64 entries has room."""
        seen, counts = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)
        for codes, _ in self._blocks(name):
            own, often = np.unique(codes, return_counts=True)
            both = np.union1d(seen, own)
            merged = np.zeros(len(both), dtype=np.int64)
            merged[np.searchsorted(both, seen)] = counts
            merged[np.searchsorted(both, own)] += often
            seen, counts = both, merged
        return seen, counts

    def _without_each(self, name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The numbers without the first image, without the second ...; and, as shares of the codebook, how many of each
        image's entries other images of the same number may miss, and how many more they may have. (n,) each."""
        seen, counts = self._counts(name)
        alone, information, tokens = (np.zeros(len(self.rows)) for _ in range(3))
        holding = np.zeros(len(seen))  # images that hold an entry
        held: list[tuple[np.ndarray, np.ndarray]] = []
        for codes, images in self._blocks(name):
            # Each pair of image and entry once, and how often the entry occurs in that image.
            pairs, often = np.unique(images * len(seen) + np.searchsorted(seen, codes), return_counts=True)
            image, code = np.divmod(pairs, len(seen))
            rest = counts[code] - often
            np.add.at(alone, image, rest == 0)
            np.add.at(information, image, _information(counts[code]) - _information(rest))
            np.add.at(tokens, image, often)
            np.add.at(holding, code, 1)
            held.append((image, code))
        used, whole = np.count_nonzero(counts), _information(counts).sum()
        values = self._numbers(name, used - alone, whole - information, counts.sum() - tokens)
        entries, count = self.size(name) * self.groups(name), len(self.rows)
        # How likely N other images miss an entry, at most: it may stand in fewer images than these N show.
        least = betaincinv(holding, count - holding + 1, (1 - LEVEL) / 2)  # Clopper and Pearson's lower end
        missed, lost = (1 - least) ** count / holding, np.zeros(count)
        for image, code in held:
            np.add.at(lost, image, missed[code])
        lost *= min(1.0, NONE_SEEN / total) if (total := lost.sum()) else 1.0
        # m entries that are not used would be so with a probability of 2.5 % where m * least_reach(m) were expected.
        unused = round(entries - used)
        gained = np.full(count, unused * least_reach(unused) / count)
        return values, lost / entries, gained / entries

    def _blocks(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The codes that count, in rows (m,), with the entries of each group's codebook numbered after those of the
        group before; and the rank of each one's image."""
        lengths, groups, one = self.lengths(), self.groups(name), len(self.streams()) == 1
        for ranks, codes in self.rows.blocks(name):
            place = np.arange(codes.shape[1])
            counts = np.ones(codes.shape, dtype=bool)
            if one:
                counts = place // groups < lengths[ranks][:, None]
            if groups > 1:
                codes = codes + place % groups * int(self.size(name))
            yield codes[counts], np.broadcast_to(ranks[:, None], codes.shape)[counts]

    def _numbers(
        self, name: str, used: np.ndarray, information: np.ndarray, total: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The three numbers from how many entries are used, the sum of c log2 c over how often each one is, and the sum
        of these c, (n,) each."""
        groups, total = self.groups(name), np.maximum(total, 1)
        # Each group has the same share of all indices, so which one it is has log2(groups) bits of the entropy.
        entropy = np.maximum(np.log2(total) - information / total - math.log2(groups), 0.0) + 0.0  # no minus zero
        suffix = "" if len(self.streams()) == 1 else f".{name}"
        return {
            f"codebook_usage{suffix}": used / self.size(name) / groups,
            f"perplexity{suffix}": 2.0**entropy,
            f"codebook_entropy{suffix}": entropy,
        }


def _information(counts: np.ndarray) -> np.ndarray:
    """c log2 c of each count, 0 of none."""
    return counts * np.log2(np.maximum(counts, 1))
