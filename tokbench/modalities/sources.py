"""Sources of items that are no images: files below a folder, and rows of a Parquet file."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.decode import refuse_large
from tokbench.data.sources.base import MAX_IMAGES, Source, is_hidden, printable_name
from tokbench.errors import DataError, UnreadableImage, UsageError


class FileFolder(Source):
    """The files below a folder that have one of some suffixes, or a single file, sorted by relative path.

    Links below the folder are listed as unreadable. The constructor raises DataError if the folder cannot be read.
    """

    sorted_by_name = True

    def __init__(self, path: Path, suffixes: Sequence[str]) -> None:
        if not path.exists():
            raise DataError(f"no such file or folder: {path}")
        found = [path] if path.is_file() else files_below(path, suffixes)
        self._single = path.is_file()
        root = path.parent if self._single else path
        named = sorted((printable_name(file.relative_to(root).as_posix()), file) for file in found)
        if len(named) > MAX_IMAGES:
            raise DataError(f"{path} has more than {MAX_IMAGES:,} files; split it")
        self.names = [name for name, _ in named]
        self._files = [file for _, file in named]

    def path(self, position: int) -> Path:
        """Return the path of a file. Raises UnreadableImage for a link."""
        file = self._files[self._at(position)]
        if file.is_symlink() and not self._single:
            raise UnreadableImage(f"{self.names[position]}: it is a link; give the folder of its file")
        return file

    def read(self, position: int) -> bytes:
        file, name = self.path(position), self.names[position]
        try:
            refuse_large(file.stat().st_size, name)
            return file.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{name}: cannot be read ({error.strerror}); check its permissions") from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._files[self._at(i)].lstat().st_size) for i, name in enumerate(self.names)]


def files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files and links below a folder that have one of some suffixes, in lower case, without hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not is_hidden(one)]
        for file in files:
            path = Path(where) / file
            if path.suffix.lower() in suffixes and not is_hidden(file):
                found.append(path)
    return found


class Rows(Source):
    """Rows of one Parquet file, of which row groups are read when they are needed.

    columns: the columns of the items, which are read together. where: values that rows must have, by column. label: the
    column from which labels follow: integers, or texts that are numbered in sorted order. name: the column that names
    the rows; None names them by number. The constructor raises DataError if the file is not readable or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        where: Mapping[str, Any] | None = None,
        label: str | None = None,
        name: str | None = None,
    ) -> None:
        import pyarrow.parquet as pq

        self._path, self._columns, self._lock = path, list(columns), threading.Lock()
        where = dict(where or {})
        try:
            self._file = pq.ParquetFile(path)
            present = self._file.schema_arrow.names
            needed = [*columns, *where, *filter(None, (label, name))]
            if missing := [column for column in needed if column not in present]:
                raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(present)}")
            small = list(dict.fromkeys([*where, *filter(None, (label, name))]))
            table = self._file.read(small) if small else None
        except DataError:
            raise
        except Exception as error:  # Arrow's errors, and Python's if the metadata are wrong
            raise DataError(f"{path} is not a readable Parquet file ({str(error)[:200]})") from error
        starts = np.cumsum([0, *(self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups))])
        self._starts = starts
        values = {column: table.column(column).to_pylist() for column in small} if table is not None else {}
        count = int(starts[-1])
        rows = [row for row in range(count) if all(values[key][row] == value for key, value in where.items())]
        if where and not rows:
            stated = ", ".join(f"{key} = {value!r}" for key, value in where.items())
            offered = {key: sorted({str(one) for one in values[key]})[:8] for key in where}
            raise UsageError(f"{path} has no rows with {stated}; there are {offered}")
        self._rows = rows
        self.names = [printable_name(str(values[name][row])) if name else f"{row:08d}" for row in rows]
        self._labels = [values[label][row] for row in rows] if label else None
        self._cached: tuple[int, Any] | None = None

    def row(self, position: int) -> dict[str, Any]:
        """Return the values of one row by column, as Arrow scalars. Raises UnreadableImage."""
        row = self._rows[self._at(position)]
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if self._cached is None or self._cached[0] != group:
                try:
                    self._cached = group, self._file.read_row_group(group, self._columns)
                except Exception as error:  # Arrow's errors have no common class
                    raise UnreadableImage(
                        f"{self.names[position]}: its row group cannot be read from Parquet ({str(error)[:120]})"
                    ) from error
            table = self._cached[1]
        found = {column: table.column(column)[row - int(self._starts[group])] for column in self._columns}
        if empty := [column for column, value in found.items() if not value.is_valid]:
            raise UnreadableImage(f"{self.names[position]}: this row has no {', '.join(empty)}")
        return found

    def read(self, position: int) -> bytes:
        digest = hashlib.sha256()
        for value in self.row(position).values():
            digest.update(repr(value.as_py()).encode())
        return digest.digest()

    def listing(self) -> list[tuple[str, int]]:
        return [(self._path.name, self._path.stat().st_size), ("rows", len(self._rows))]

    def labels(self) -> dict[str, int] | None:
        if self._labels is None:
            return None
        order = {value: place for place, value in enumerate(sorted(set(self._labels)))}
        return {name: order[self._labels[self._at(i)]] for i, name in enumerate(self.names)}
