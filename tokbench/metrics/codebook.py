"""How much of its codebook a discrete tokenizer uses on these images."""

from __future__ import annotations

from collections import Counter
from typing import Self

import numpy as np

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import Metric
from tokbench.tokens import Tokens


class Codebook(Metric):
    """Per stream of indices: `codebook_usage` (share of entries used at least once), `perplexity` (2^entropy) and
    `codebook_entropy` (bits a token). With several streams their names follow a dot. All three grow with N.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._counts: dict[str, Counter[int]] = {}  # by index seen: a codebook of 2^64 entries has room too

    def update(self, batch: Batch) -> None:
        tokens: Tokens = batch.need("tokens")
        streams = {name: stream for name, stream in tokens.streams.items() if stream.kind == "index"}
        if not streams:
            raise NotApplicable("this tokenizer has no codebook")
        for name, stream in streams.items():
            assert not isinstance(stream.data, tuple)
            assert stream.codebook_size is not None
            seen, counts = np.unique(stream.data.cpu().numpy(), return_counts=True)
            self._sizes[name] = stream.codebook_size
            self._counts.setdefault(name, Counter()).update(dict(zip(seen.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: Self) -> None:
        self._sizes |= other._sizes
        for name, counts in other._counts.items():
            self._counts.setdefault(name, Counter()).update(counts)

    def compute(self) -> dict[str, float]:
        numbers = {}
        for name, counts in self._counts.items():
            share = np.array([count for _, count in sorted(counts.items())]) / counts.total()
            entropy = float(-(share * np.log2(share)).sum()) + 0.0  # no minus zero
            suffix = "" if len(self._counts) == 1 else f".{name}"
            numbers[f"codebook_usage{suffix}"] = len(share) / self._sizes[name]
            numbers[f"perplexity{suffix}"] = 2.0**entropy
            numbers[f"codebook_entropy{suffix}"] = entropy
        return numbers
