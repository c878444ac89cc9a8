"""SampleStore: the values that a metric stores per image, in memory or in files, returned in the order of the dataset.

They are the whole state of a metric. Shards, processes and interrupted runs are merged by merging their rows. Rows in
files take no memory, however many images there are.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.errors import CacheError

MAX_IN_MEMORY = 2**22
"""The largest number of values of a column (16 MiB of float32: 2,048 images of 2,048) that is kept in memory."""

BLOCK = 2**20
"""The number of values in a block of a larger column."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""The exceptions that reading a damaged .npz raises."""


@dataclass(frozen=True)
class _Piece:
    """The rows of some images: columns in memory, or their names and the .npz file that holds each under `prefix` +
    name."""

    index: np.ndarray
    columns: Mapping[str, np.ndarray | None]
    file: Path | None = None
    prefix: str = ""

    def load(self, name: str) -> np.ndarray:
        values = self.columns[name]
        if values is not None:
            return values
        assert self.file is not None
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                loaded: np.ndarray = arrays[self.prefix + name]
        except UNREADABLE as error:
            raise CacheError(
                f"{self.file} was damaged or deleted during the run ({str(error)[:120]}); run the same command again"
            ) from error
        return loaded


class SampleStore:
    """Columns (N, ...) by name, one row per image, added in any order."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._cache: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return sum(len(piece.index) for piece in self._pieces)

    @property
    def names(self) -> list[str]:
        """The names of the columns, in the order in which they were first added."""
        return list(dict.fromkeys(name for piece in self._pieces for name in piece.columns))

    def add(self, index: Any, columns: Mapping[str, np.ndarray]) -> None:
        """Add columns (B, ...) of the images at positions `index` (B,)."""
        self._append(_Piece(np.asarray(index, dtype=np.int64), dict(columns)))

    def add_file(self, index: np.ndarray, names: list[str], file: Path, prefix: str = "") -> None:
        """Add columns from an .npz file that holds each under `prefix` + name."""
        self._append(_Piece(index, dict.fromkeys(names), file, prefix))

    def merge(self, other: SampleStore) -> None:
        """Add all rows of `other`, which is not changed."""
        for piece in list(other._pieces):
            self._append(piece)

    def _append(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self._cache.clear()

    def pop_in_memory(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Remove and return the rows that are in memory, positions (n,) and columns (n, ...), so that they can be
        written to a file."""
        pieces = [piece for piece in self._pieces if piece.file is None]
        self._pieces = [piece for piece in self._pieces if piece.file is not None]
        self._cache.clear()
        if not pieces:
            return np.zeros(0, dtype=np.int64), {}
        columns = {name: np.concatenate([piece.load(name) for piece in pieces]) for name in pieces[0].columns}
        return np.concatenate([piece.index for piece in pieces]), columns

    def index(self, name: str | None = None) -> np.ndarray:
        """Return the sorted positions (N,) of the images that have a column, or of all images without a name."""
        positions = [piece.index for piece in self._pieces if name is None or name in piece.columns]
        return np.sort(np.concatenate(positions)) if positions else np.zeros(0, dtype=np.int64)

    def column(self, name: str) -> np.ndarray:
        """Return a whole column (N, ...), sorted by position. Raises CacheError where its file was damaged or
        deleted."""
        if name not in self._cache:
            pieces = [piece for piece in self._pieces if name in piece.columns]
            values = np.concatenate([piece.load(name) for piece in pieces])
            order = np.concatenate([piece.index for piece in pieces]).argsort(kind="stable")
            values = values[order]
            if values.size > MAX_IN_MEMORY:
                return values
            self._cache[name] = values
        return self._cache[name]

    def texts(self, name: str) -> list[str]:
        """Return a column of texts, sorted by position. In an array, each text would take the memory of the longest."""
        pieces = [piece for piece in self._pieces if name in piece.columns]
        pairs = [pair for piece in pieces for pair in zip(piece.index.tolist(), piece.load(name).tolist(), strict=True)]
        return [text for _, text in sorted(pairs, key=itemgetter(0))]

    def fits(self, name: str) -> bool:
        """Return whether a column is small enough to be kept in memory."""
        first = next(piece for piece in self._pieces if name in piece.columns)
        return len(self) * first.load(name)[:1].size <= MAX_IN_MEMORY

    def blocks(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield a column in blocks: ranks (n,) among all sorted positions, and rows (n, ...).

        A column that fits into memory is one block; else each block has BLOCK values, independently of the pieces.
        """
        if self.fits(name):
            values = self.column(name)
            yield np.arange(len(values)), values
            return
        positions = self.index(name)
        ranks, rows = np.zeros(0, dtype=np.int64), np.zeros(0)
        for piece in sorted(self._pieces, key=lambda piece: int(piece.index[0]) if len(piece.index) else -1):
            if name not in piece.columns or not len(piece.index):
                continue
            values = piece.load(name)
            ranks = np.concatenate([ranks, np.searchsorted(positions, piece.index)])
            rows = np.concatenate([rows, values]) if len(rows) else values
            most = max(1, BLOCK // rows[0].size)
            while len(rows) >= most:
                yield ranks[:most], rows[:most]
                ranks, rows = ranks[most:], rows[most:]
        if len(rows):
            yield ranks, rows
