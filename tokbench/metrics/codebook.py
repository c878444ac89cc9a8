"""How much of its codebook a discrete tokenizer uses on these images."""

from __future__ import annotations

import math

import numpy as np

from tokbench.halves import FREE, Halves, Replicates
from tokbench.metrics.codes import Codes


class Codebook(Codes):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits an index). With several streams their names follow a dot. All three grow with N.

    Where several indices make a token, each has a codebook of its own: usage and entropy are means over these.
    """

    def compute(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self.streams():
            _, (counts,) = self._counts(name, np.zeros(len(self.rows), dtype=np.int64), 1)
            numbers |= self._numbers(name, counts)
        return numbers

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        found: dict[str, list[float]] = {}
        for name in self.streams() if halves.half else ():
            seen = None
            drawn = iter(halves)
            for pair in zip(drawn, drawn, strict=True):
                part_of = np.full(len(self.rows), -1)
                for part, ranks in enumerate(pair):
                    part_of[ranks] = part
                seen, counted = self._counts(name, part_of, 2, seen)
                for counts in counted:
                    for number, value in self._numbers(name, counts).items():
                        found.setdefault(number, []).append(value)
        shares = (0.0, 1.0)
        return {
            number: Replicates(np.array(values), bounds=shares if number.startswith("codebook_usage") else FREE)
            for number, values in found.items()
        }

    def _counts(
        self, name: str, part_of: np.ndarray, parts: int, seen: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The entries that occur, sorted, and how often each does in each part. With a table of those that occur, and
        not of all, a codebook of 2^64 entries has room."""
        if seen is None:
            seen = np.zeros(0, dtype=np.uint8)
            for ranks, codes in self.rows.blocks(name):
                seen = np.union1d(seen, np.unique(self._apart(name, ranks, codes)[0]))
        counts = [np.zeros(len(seen), dtype=np.int64) for _ in range(parts)]
        for ranks, codes in self.rows.blocks(name):
            found, of = self._apart(name, ranks, codes)
            for part, own in enumerate(counts):
                chosen = found[part_of[of] == part]
                own += np.bincount(np.searchsorted(seen, chosen), minlength=len(seen))
        return seen, counts

    def _apart(self, name: str, ranks: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of codes (n, N), images at `ranks` (n,): those that count, in a row, with the entries of each group's
        codebook numbered after those of the group before; and the rank of each one's image."""
        groups, place = self.groups(name), np.arange(codes.shape[1])
        counts = np.ones(codes.shape, dtype=bool)
        if len(self.streams()) == 1:
            counts = place // groups < self.lengths()[ranks][:, None]
        if groups > 1:
            codes = codes + place % groups * int(self.size(name))
        return codes[counts], np.broadcast_to(ranks[:, None], codes.shape)[counts]

    def _numbers(self, name: str, counts: np.ndarray) -> dict[str, float]:
        """From how often each entry was used; entries that were not may be missing or 0."""
        used, groups = counts[counts > 0], self.groups(name)
        share = used / used.sum()
        # Each group has the same share of all indices, so which one it is has log2(groups) bits of the entropy.
        entropy = float(-(share * np.log2(share)).sum()) - math.log2(groups) + 0.0  # no minus zero
        suffix = "" if len(self.streams()) == 1 else f".{name}"
        return {
            f"codebook_usage{suffix}": len(used) / self.size(name) / groups,
            f"perplexity{suffix}": 2.0**entropy,
            f"codebook_entropy{suffix}": entropy,
        }
