"""What the metrics of discrete tokenizers share: the codes of each image, kept as narrow rows."""

from __future__ import annotations

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.tokens import Tokens

_SIZE = "size of "
"""Before a stream's name: the column that says how many entries its codebook has."""

_GROUPS = "groups of "
"""The same of how many codes make a token; there is none where one does."""

LENGTH = "length of an image"
"""The column that says how many of its tokens count."""

_KINDS = (np.uint8, np.uint16, np.uint32, np.int64)


class TokenMetric(Metric):
    """Keeps, per stream of indices, the codes (B, N) in the narrowest type that holds them, groups innermost, and how
    many tokens each image has: of a single stream only so many first ones count."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """The codes and the size of the codebook of each stream. Raises NotApplicable where there is no such stream."""
        tokens: Tokens = batch.require("tokens")
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
            if stream.groups > 1:
                columns[_GROUPS + name] = np.full(len(batch), stream.groups)
        columns[LENGTH] = tokens.length.cpu().numpy().astype(np.int64)
        return columns

    def lengths(self) -> np.ndarray:
        """How many tokens each image has, int64 (n,)."""
        return self.rows.column(LENGTH)

    def streams(self) -> list[str]:
        """The names of the streams of indices."""
        names = self.rows.names
        return [name for name in names if _SIZE + name in names]

    def size(self, name: str) -> float:
        """The size of a stream's codebook."""
        return float(self.rows.column(_SIZE + name)[0])

    def groups(self, name: str) -> int:
        """How many codes make one token of a stream, each with a codebook of its own."""
        return int(self.rows.column(_GROUPS + name)[0]) if _GROUPS + name in self.rows.names else 1
