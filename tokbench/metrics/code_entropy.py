"""The conditional entropy of codes by position, and where it vanishes: the entropy cliff (arXiv:2605.06207)."""

from __future__ import annotations

import math

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.token_metric import TokenMetric
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Jackknife, Spread, groups

POSITIONS = 4
"""Number of first positions whose conditional entropy is a number."""

SHARE = 0.99
"""Share of the largest entropy, log2 N, of the first tokens at which the measured cliff lies."""


class CodeEntropy(TokenMetric):
    """`conditional_entropy.t`: entropy, in bits, of the t-th token of an image given the tokens before it, over the
    images of the run, for t = 1 to 4. `entropy_cliff`: t* = ceil(log2 N / log2 K), the number of tokens after which N
    images with evenly used codes all differ, so that the later tokens have no conditional entropy in this set.
    `entropy_cliff_measured`: the number of first tokens whose entropy reaches 99 % of log2 N, interpolated linearly
    between tokens.

    Tokens are read in the order in which they are stored, stream after stream. A token with several indices is one
    symbol, with the product of their codebooks as K. All numbers depend on the number of images. Intervals come from
    leaving out one of 25 groups of images at a time; the cliff itself depends on N and K only. Where the entropy never
    reaches 99 %, because images have equal codes, the measured cliff is not defined.
    """

    def compute(self) -> dict[str, float]:
        """Raises NotApplicable for fewer than two images or a codebook of one code."""
        count = len(self.rows)
        if count < 2:
            raise NotApplicable("the entropy of the codes of one image is 0; give more images")
        return {"entropy_cliff": self._cliff(count), **self._numbers(None)}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        count = len(self.rows)
        if count < 4:
            return {}
        group = groups(halves.sha256, count)
        without = [self._numbers(group == one) for one in np.unique(group)]
        spreads: dict[str, Spread] = {}
        for name in without[0]:
            values = np.array([one[name] for one in without])
            if np.isfinite(values).all():
                spreads[name] = Jackknife(values, (0.0, math.inf))
        return spreads

    def _bits(self) -> list[float]:
        """Return the bits of each token of an image."""
        bits: list[float] = []
        for name in self.streams():
            groups_of_token = self.groups(name)
            positions = self.rows.column(name).shape[1] // groups_of_token
            bits += [groups_of_token * math.log2(self.size(name))] * positions
        return bits

    def _cliff(self, count: int) -> float:
        """Return t*; NaN if all tokens together have fewer bits than log2 N."""
        enough = np.flatnonzero(np.cumsum(self._bits()) >= math.log2(count) - 1e-9)
        return float(enough[0] + 1) if len(enough) else math.nan

    def _numbers(self, left_out: np.ndarray | None) -> dict[str, float]:
        """Return the measured numbers. left_out: bool (n,), True for images that do not count."""
        count = len(self.rows) if left_out is None else int((~left_out).sum())
        goal = SHARE * math.log2(count)
        entropies, shown = self._entropies(left_out, goal), min(POSITIONS, len(self._bits()))
        steps = np.append(np.diff(entropies), np.zeros(POSITIONS)).clip(0)
        numbers = {f"conditional_entropy.{position + 1}": float(steps[position]) for position in range(shown)}
        at = int(np.argmax(entropies >= goal))  # 0 if none is
        before = entropies[at - 1]
        numbers["entropy_cliff_measured"] = at - 1 + (goal - before) / (entropies[at] - before) if at else math.nan
        return numbers

    def _entropies(self, left_out: np.ndarray | None, goal: float) -> np.ndarray:
        """Return the entropy in bits of the first t tokens, for t = 0, 1 ..., up to the first t that tells all images
        apart or that is at least POSITIONS and reaches `goal`."""
        kept = slice(None) if left_out is None else ~left_out
        lengths = self.lengths()[kept]
        same, entropies = np.zeros(len(lengths), dtype=np.int64), [0.0]
        single = len(self.streams()) == 1
        for name in self.streams():
            width = self.groups(name)
            codes = self.rows.column(name)[kept].reshape(len(lengths), -1, width)
            for position in range(codes.shape[1]):
                token = codes[:, position].astype(np.int64)
                if single:  # an image that has ended differs from one with any further token
                    token = np.where((position < lengths)[:, None], token, -1)
                pairs = np.concatenate([same[:, None], token], axis=1)
                _, same, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
                same = same.reshape(-1)
                shares = counts / len(lengths)
                entropies.append(max(0.0, -float((shares * np.log2(shares)).sum())))
                if len(counts) == len(lengths) or (len(entropies) > POSITIONS and entropies[-1] >= goal):
                    return np.array(entropies)
        return np.array(entropies)
