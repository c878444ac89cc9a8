"""How much of its codebook a discrete tokenizer uses on these images."""

from __future__ import annotations

from typing import Self

import numpy as np

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.halves import Halves, Replicates
from tokbench.metrics.metric import Metric
from tokbench.metrics.rows import Rows
from tokbench.tokens import Tokens


class Codebook(Metric):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits a token). With several streams their names follow a dot. All three grow with N.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._rows: dict[str, Rows] = {}

    def update(self, batch: Batch) -> None:
        tokens: Tokens = batch.need("tokens")
        streams = {name: stream for name, stream in tokens.streams.items() if stream.kind == "index"}
        if not streams:
            raise NotApplicable("this tokenizer has no codebook")
        for name, stream in streams.items():
            assert not isinstance(stream.data, tuple)
            assert stream.codebook_size is not None
            self._sizes[name] = stream.codebook_size
            self._rows.setdefault(name, Rows()).add(batch.index, stream.data.cpu().flatten(1))

    def merge(self, other: Self) -> None:
        self._sizes |= other._sizes
        for name, rows in other._rows.items():
            self._rows.setdefault(name, Rows()).merge(rows)

    def compute(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in self._rows:
            _, counts = np.unique(self._rows[name].in_order(), return_counts=True)
            numbers |= self._numbers(name, counts)
        return numbers

    def replicates(self, halves: Halves) -> dict[str, Replicates]:
        found: dict[str, list[float]] = {}
        for name, rows in self._rows.items():
            indices = rows.in_order()
            # Entries seen, renumbered from 0: they can be counted in a table, and a codebook of 2^64 entries has room.
            seen, renumbered = np.unique(indices, return_inverse=True)
            renumbered = renumbered.reshape(indices.shape)
            for half in halves if halves.half else ():
                counts = np.bincount(renumbered[half].ravel(), minlength=len(seen))
                for number, value in self._numbers(name, counts).items():
                    found.setdefault(number, []).append(value)
        return {number: Replicates(np.array(values)) for number, values in found.items()}

    def _numbers(self, name: str, counts: np.ndarray) -> dict[str, float]:
        """From how often each entry was used; entries that were not may be missing or 0."""
        used = counts[counts > 0]
        share = used / used.sum()
        entropy = float(-(share * np.log2(share)).sum()) + 0.0  # no minus zero
        suffix = "" if len(self._rows) == 1 else f".{name}"
        return {
            f"codebook_usage{suffix}": len(used) / self._sizes[name],
            f"perplexity{suffix}": 2.0**entropy,
            f"codebook_entropy{suffix}": entropy,
        }
