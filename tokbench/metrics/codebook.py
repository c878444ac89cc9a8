"""How much of its codebook a discrete tokenizer uses on these images."""

from __future__ import annotations

import numpy as np

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.halves import Halves, Replicates
from tokbench.metrics.metric import Metric
from tokbench.tokens import Tokens

_SIZE = "size of "
"""Before a stream's name: the column that says how many entries its codebook has."""

_KINDS = (np.uint8, np.uint16, np.uint32, np.int64)


class Codebook(Metric):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits a token). With several streams their names follow a dot. All three grow with N.
    """

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        tokens: Tokens = batch.need("tokens")
        streams = {name: stream for name, stream in tokens.streams.items() if stream.kind == "index"}
        if not streams:
            raise NotApplicable("this tokenizer has no codebook")
        columns: dict[str, np.ndarray] = {}
        for name, stream in streams.items():
            assert not isinstance(stream.data, tuple)
            assert stream.codebook_size is not None
            narrow = next(kind for kind in _KINDS if stream.codebook_size - 1 <= np.iinfo(kind).max)
            columns[name] = stream.data.cpu().flatten(1).numpy().astype(narrow)
            columns[_SIZE + name] = np.full(len(batch), float(stream.codebook_size))
        return columns

    def _streams(self) -> list[str]:
        return [name for name in self.rows.names if not name.startswith(_SIZE)]

    def compute(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self._streams():
            _, (counts,) = self._counts(name, np.zeros(len(self.rows), dtype=np.int64), 1)
            numbers |= self._numbers(name, counts)
        return numbers

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        found: dict[str, list[float]] = {}
        for name in self._streams() if halves.half else ():
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
        return {number: Replicates(np.array(values)) for number, values in found.items()}

    def _counts(
        self, name: str, part_of: np.ndarray, parts: int, seen: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The entries that occur, sorted, and how often each does in each part. With a table of those that occur, and
        not of all, a codebook of 2^64 entries has room."""
        if seen is None:
            seen = np.zeros(0, dtype=np.uint8)
            for _, block in self.rows.blocks(name):
                seen = np.union1d(seen, np.unique(block))
        counts = [np.zeros(len(seen), dtype=np.int64) for _ in range(parts)]
        for ranks, block in self.rows.blocks(name):
            for part, own in enumerate(counts):
                chosen = block[part_of[ranks] == part]
                own += np.bincount(np.searchsorted(seen, chosen.ravel()), minlength=len(seen))
        return seen, counts

    def _numbers(self, name: str, counts: np.ndarray) -> dict[str, float]:
        """From how often each entry was used; entries that were not may be missing or 0."""
        used = counts[counts > 0]
        share = used / used.sum()
        entropy = float(-(share * np.log2(share)).sum()) + 0.0  # no minus zero
        suffix = "" if len(self._streams()) == 1 else f".{name}"
        size = float(self.rows.column(_SIZE + name)[0])
        return {
            f"codebook_usage{suffix}": len(used) / size,
            f"perplexity{suffix}": 2.0**entropy,
            f"codebook_entropy{suffix}": entropy,
        }
