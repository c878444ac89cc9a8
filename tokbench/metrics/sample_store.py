"""Rows: what a metric keeps of each image, in memory or in files, given back in the order of the dataset.

They are all the state that a metric has. Shards, processes and interrupted runs are joined by joining their rows, and
what lies in files takes no memory however many images there are.
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

HELD = 2**22
"""Values of a column (16 MiB of float32: 2,048 images of 2,048) up to which it is held in memory while it is worked on.
"""

BLOCK = 2**20
"""Values of a block of a larger column."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged .npz raises."""


@dataclass(frozen=True)
class _Piece:
    """Some images' rows: columns in memory, or their names and the .npz file that holds them, each after `prefix`."""

    index: np.ndarray
    columns: Mapping[str, np.ndarray | None]
    file: Path | None = None
    prefix: str = ""

    def load(self, name: str) -> np.ndarray:
        held = self.columns[name]
        if held is not None:
            return held
        assert self.file is not None
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                values: np.ndarray = arrays[self.prefix + name]
        except UNREADABLE as error:
            raise CacheError(
                f"{self.file} was damaged or deleted during the run ({str(error)[:120]}); run the same command again"
            ) from error
        return values


class SampleStore:
    """Columns (N, ...) by name, one row an image, in whatever order their batches and shards came."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._held: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return sum(len(piece.index) for piece in self._pieces)

    @property
    def names(self) -> list[str]:
        """The columns, in the order in which they were first seen."""
        return list(dict.fromkeys(name for piece in self._pieces for name in piece.columns))

    def add(self, index: Any, columns: Mapping[str, np.ndarray]) -> None:
        """Take in columns (B, ...) of the images at positions `index` (B,)."""
        self._take(_Piece(np.asarray(index, dtype=np.int64), dict(columns)))

    def add_file(self, index: np.ndarray, names: list[str], file: Path, prefix: str = "") -> None:
        """The same, of columns that lie in an .npz file under `prefix` and their name."""
        self._take(_Piece(index, dict.fromkeys(names), file, prefix))

    def merge(self, other: SampleStore) -> None:
        """Take in all that `other` has. `other` is left as it was."""
        for piece in list(other._pieces):
            self._take(piece)

    def _take(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self._held.clear()

    def take_held(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Give away the rows that are in memory, (n,) positions and columns (n, ...), so that they can go to a file."""
        held = [piece for piece in self._pieces if piece.file is None]
        self._pieces = [piece for piece in self._pieces if piece.file is not None]
        self._held.clear()
        if not held:
            return np.zeros(0, dtype=np.int64), {}
        columns = {name: np.concatenate([piece.load(name) for piece in held]) for name in held[0].columns}
        return np.concatenate([piece.index for piece in held]), columns

    def index(self, name: str | None = None) -> np.ndarray:
        """The positions (N,) of the images that have a column, sorted; of all images where none is named."""
        found = [piece.index for piece in self._pieces if name is None or name in piece.columns]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def column(self, name: str) -> np.ndarray:
        """A whole column (N, ...), sorted by position."""
        if name not in self._held:
            pieces = [piece for piece in self._pieces if name in piece.columns]
            values = np.concatenate([piece.load(name) for piece in pieces])
            order = np.concatenate([piece.index for piece in pieces]).argsort(kind="stable")
            values = values[order]
            if values.size > HELD:
                return values
            self._held[name] = values
        return self._held[name]

    def texts(self, name: str) -> list[str]:
        """A column of texts, sorted by position. As an array, each would take the room of the longest."""
        pieces = [piece for piece in self._pieces if name in piece.columns]
        found = [pair for piece in pieces for pair in zip(piece.index.tolist(), piece.load(name).tolist(), strict=True)]
        return [text for _, text in sorted(found, key=itemgetter(0))]

    def fits(self, name: str) -> bool:
        """Whether a column is small enough to be held."""
        first = next(piece for piece in self._pieces if name in piece.columns)
        return len(self) * first.load(name)[:1].size <= HELD

    def blocks(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A column in blocks: ranks (n,) among all sorted positions, and rows (n, ...). One block where it fits, else
        as many rows as make BLOCK values, whatever pieces they come in."""
        if self.fits(name):
            values = self.column(name)
            yield np.arange(len(values)), values
            return
        everyone = self.index(name)
        ranks, rows = np.zeros(0, dtype=np.int64), np.zeros(0)
        for piece in sorted(self._pieces, key=lambda piece: int(piece.index[0]) if len(piece.index) else -1):
            if name not in piece.columns or not len(piece.index):
                continue
            values = piece.load(name)
            ranks = np.concatenate([ranks, np.searchsorted(everyone, piece.index)])
            rows = np.concatenate([rows, values]) if len(rows) else values
            most = max(1, BLOCK // rows[0].size)
            while len(rows) >= most:
                yield ranks[:most], rows[:most]
                ranks, rows = ranks[most:], rows[most:]
        if len(rows):
            yield ranks, rows
