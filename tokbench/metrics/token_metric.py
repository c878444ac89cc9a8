"""Base class of the metrics of discrete tokenizers: the codes of each image, stored in a narrow type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.tokens import Tokens

_SIZE = "size of "
"""The prefix of a stream's name in the column that holds its codebook's size."""

_GROUPS = "groups of "
"""The prefix of a stream's name in the column that holds the number of codes per token. It exists only where that is
not 1."""

LENGTH = "length of an image"
"""The column that holds the number of tokens of an image that count."""

_KINDS = (np.uint8, np.uint16, np.uint32, np.int64)


class TokenMetric(Metric):
    """Stores, per stream of indices, the codes (B, N) in the narrowest type that fits them, with groups innermost, and
    the number of tokens of each image. With a single stream, only that number of first tokens counts."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the codes and the codebook's size of each stream. Raises NotApplicable where there is no stream of
        indices."""
        tokens: Tokens = batch.require("tokens")
        streams = {name: stream for name, stream in tokens.streams.items() if stream.kind == "index"}
        if not streams:
            raise NotApplicable("this tokenizer has no codebook")
        columns: dict[str, np.ndarray] = {}
        for name, stream in streams.items():
            assert not isinstance(stream.data, tuple)
            assert stream.codebook_size is not None
            narrow = next(dtype for dtype in _KINDS if stream.codebook_size - 1 <= np.iinfo(dtype).max)
            columns[name] = stream.data.cpu().flatten(1).numpy().astype(narrow)
            columns[_SIZE + name] = np.full(len(batch), float(stream.codebook_size))
            if stream.groups > 1:
                columns[_GROUPS + name] = np.full(len(batch), stream.groups)
        columns[LENGTH] = tokens.length.cpu().numpy().astype(np.int64)
        return columns

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each image, int64 (n,)."""
        return self.rows.column(LENGTH)

    def streams(self) -> list[str]:
        """Return the names of the streams of indices."""
        names = self.rows.names
        return [name for name in names if _SIZE + name in names]

    def size(self, name: str) -> float:
        """Return the size of a stream's codebook."""
        return float(self.rows.column(_SIZE + name)[0])

    def groups(self, name: str) -> int:
        """Return the number of codes per token of a stream, each of which has its own codebook."""
        return int(self.rows.column(_GROUPS + name)[0]) if _GROUPS + name in self.rows.names else 1

    def codes(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the codes of a stream that count, (m,), and the rank of each one's image, in blocks of images.

        The entries of each group's codebook are numbered after those of the previous group.
        """
        lengths, groups, one = self.lengths(), self.groups(name), len(self.streams()) == 1
        for ranks, codes in self.rows.blocks(name):
            place = np.arange(codes.shape[1])
            counts = np.ones(codes.shape, dtype=bool)
            if one:
                counts = place // groups < lengths[ranks][:, None]
            if groups > 1:
                codes = codes + place % groups * int(self.size(name))
            yield codes[counts], np.broadcast_to(ranks[:, None], codes.shape)[counts]

    def counts(self, name: str, left_out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries of a stream that occur, sorted, and their counts.

        left_out: bool (n,), True for images that do not count. Only occurring entries are stored, so a codebook may
        have 2^64 entries.
        """
        seen, counts = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)
        for codes, images in self.codes(name):
            if left_out is not None:
                codes = codes[~left_out[images]]
            entries, occurrences = np.unique(codes, return_counts=True)
            both = np.union1d(seen, entries)
            merged = np.zeros(len(both), dtype=np.int64)
            merged[np.searchsorted(both, seen)] = counts
            merged[np.searchsorted(both, entries)] += occurrences
            seen, counts = both, merged
        return seen, counts
