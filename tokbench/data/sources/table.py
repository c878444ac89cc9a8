"""Images in the rows of tables, Parquet or Arrow files. `tokbench.data.sources.open` lists what is refused."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tokbench.data.decode import MAX_BYTES, open_rgb, refuse_large, size_of
from tokbench.data.sources.base import MAX_IMAGES, Source, printable_name
from tokbench.data.sources.columns import ImageColumn, choose_column, head_of, image_of, name_column, needs_heads
from tokbench.data.sources.lfs import refuse_pointer
from tokbench.errors import DataError, TokbenchError, UnreadableImage
from tokbench.io.json import loads_strict

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

MAX_BLOCK = 4 * MAX_BYTES
"""Limit on the bytes of the images of one block of rows, which are loaded together."""


class LabelColumn(NamedTuple):
    """The label column of one file.

    file: name of the file. kind: Arrow type of its column `label`, "" if it has none. names: class names, if the file
    states them.
    """

    file: str
    kind: str
    names: Sequence[str] = ()


class TableFile(ABC):
    """One file, whose rows are read in blocks. schema: its Arrow schema."""

    schema: pa.Schema

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of blocks of rows."""

    @abstractmethod
    def rows(self, block: int) -> int:
        """Return the number of rows of a block."""

    @abstractmethod
    def pieces(self, block: int, column: str, part: str = "") -> Iterator[pa.Array]:
        """Yield the values of a column in a block, in pieces of bounded memory.

        part: the only field that is needed, if the values are structs or lists of structs.
        """

    @abstractmethod
    def read(self, column: str) -> pa.ChunkedArray:
        """Return a whole column, such as the labels."""


class Table(Source):
    """The images in one column of several files, in the order of the files.

    column: name of the column; None if there is only one column of images. The constructor raises DataError if a file
    is not readable or has no such column, UsageError if the choice of the column is ambiguous.
    """

    has_columns = True

    what: ClassVar[str]
    """Name of the format, for messages."""

    too_large: ClassVar[str]
    """What to do about blocks that are too large."""

    def __init__(self, paths: Sequence[Path], column: str | None = None) -> None:
        self._files: list[TableFile] = []
        self._columns: list[ImageColumn] = []
        self._blocks: list[tuple[int, int]] = []  # file and number of each block
        self._starts: list[int] = []  # first position of each block
        self.names = []
        self._sizes: list[tuple[str, int]] = []
        for path in paths:
            try:
                self._add(path, self._open(path), column)
            except TokbenchError:
                raise
            except Exception as error:  # errors of Arrow, and of Python if the metadata are wrong
                refuse_pointer(path)
                raise DataError(f"{path} is not a readable {self.what} file ({str(error)[:200]})") from error
        _number_repeated(self.names)
        self._cached_block: tuple[int, pa.ChunkedArray | str] | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def _open(self, path: Path) -> TableFile:
        """Open a file. Any exception means that it is not readable."""

    def _add(self, path: Path, file: TableFile, requested: str | None) -> None:
        name = requested if requested is not None or not self._columns else self._columns[0].name
        heads = {one.name: head_of(one, _first_pieces(file, one)) for one in needs_heads(file.schema, name)}
        column = choose_column(str(path), file.schema, name, heads)
        self._files.append(file)
        self._columns.append(column)
        named_by = name_column(file.schema, column)
        for block in range(file.blocks):
            self._starts.append(len(self.names))
            self._blocks.append((len(self._files) - 1, block))
            self._add_names(path, _names(file, block, column, named_by))
        self._sizes.append((path.name, path.stat().st_size))

    def _add_names(self, path: Path, names: Iterable[str | None]) -> None:
        remaining = MAX_BYTES
        for name in names:
            row = len(self.names)
            remaining -= len(name or "")
            if row >= MAX_IMAGES or remaining < 0:
                raise DataError(f"{path} has more than {MAX_IMAGES:,} rows, or names of more than 1 GiB; split it")
            self.names.append(name or f"{row:08d}")

    def read(self, position: int) -> bytes:
        value = self._value(position)
        if self._column(position).form == "pixels":
            return bytes(image_of(value, self.names[position]).tobytes())
        data = value.as_buffer()
        refuse_large(data.size, self.names[position])
        return bytes(data.to_pybytes())

    def open(self, position: int) -> Image.Image:
        if self._column(position).form == "pixels":
            return image_of(self._value(position), self.names[position])
        return open_rgb(self.read(position), self.names[position])

    def size(self, position: int) -> tuple[int, int]:
        if self._column(position).form == "pixels":
            return self.open(position).size
        return size_of(self.read(position), self.names[position])

    def _column(self, position: int) -> ImageColumn:
        return self._columns[self._blocks[bisect_right(self._starts, self._at(position)) - 1][0]]

    def _value(self, position: int) -> pa.Scalar:
        row, name = self._at(position), self.names[position]
        with self._lock:
            block = bisect_right(self._starts, row) - 1
            if self._cached_block is None or self._cached_block[0] != block:
                self._cached_block = (block, self._load(block))
            values = self._cached_block[1]
        if isinstance(values, str):
            raise UnreadableImage(f"{name}: its row group cannot be read from {self.what} ({values})")
        entry = values[row - self._starts[block]] if row - self._starts[block] < len(values) else None
        if entry is None or not entry.is_valid:
            raise UnreadableImage(f"{name}: this {self.what} row has no bytes")
        return entry

    def _load(self, block: int) -> pa.ChunkedArray | str:
        """Return the images of a block, or the reason why they cannot be read.

        The reason is cached as well, so that reading fails only once and not for each row.
        """
        import pyarrow as pa

        number, block = self._blocks[block]
        file, column = self._files[number], self._columns[number]
        pieces, remaining = [], MAX_BLOCK
        try:
            for piece in file.pieces(block, column.name, "bytes" if column.struct else ""):
                images = column.images(piece)
                pieces.append(images)
                remaining -= images.nbytes
                if remaining < 0:
                    return f"it takes more than {MAX_BLOCK:,} bytes; {self.too_large}"
            return pa.chunked_array(pieces) if pieces else pa.chunked_array([[]], pa.binary())
        except Exception as error:
            return str(error)[:120] or type(error).__name__

    def labels(self) -> dict[str, int] | None:
        """Return the integer column `label` by image name; None if a file has none, or if it has empty rows."""
        labels: list[int] = []
        for file, column in zip(self._files, self._columns, strict=True):
            try:
                if "label" not in file.schema.names or column.several:
                    return None
                values = file.read("label")
                if not str(values.type).startswith(("int", "uint")) or values.null_count:
                    return None
                labels += values.to_pylist()
            except Exception as error:
                raise DataError(f"the labels cannot be read from {self.what} ({str(error)[:120]})") from error
        return {name: labels[self._at(position)] for position, name in enumerate(self.names)}

    def label_columns(self) -> list[LabelColumn]:
        """Return the properties of the column `label` of each file."""
        columns = []
        for (name, _), file in zip(self._sizes, self._files, strict=True):
            kind = str(file.schema.field("label").type) if "label" in file.schema.names else ""
            columns.append(LabelColumn(name, kind, _class_names(file.schema)))
        return columns

    def listing(self) -> list[tuple[str, int]]:
        return self._sizes


def _first_pieces(file: TableFile, column: ImageColumn) -> Iterator[pa.Array]:
    for block in range(min(file.blocks, 1)):
        yield from file.pieces(block, column.name, "bytes" if column.struct else "")


def _names(file: TableFile, block: int, column: ImageColumn, named_by: str | None) -> Iterator[str | None]:
    """Yield the name of each image of a block, or None for an image without a name."""
    import pyarrow as pa

    if column.has_path or named_by:
        for piece in file.pieces(block, named_by or column.name, "" if named_by else "path"):
            paths = piece if named_by else column.paths(piece)
            for name in paths.cast(pa.large_binary()).to_pylist():
                yield name and printable_name(os.fsdecode(name))
        return
    # Only lists of unnamed images have to be read to be counted.
    count = sum(map(column.count, file.pieces(block, column.name, ""))) if column.several else file.rows(block)
    for _ in range(count):
        yield None


def _class_names(schema: pa.Schema) -> list[str]:
    """Return the class names of the `ClassLabel` that Hugging Face's `datasets` writes into the metadata, or []."""
    try:
        metadata = loads_strict((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _number_repeated(names: list[str]) -> None:
    """Add the row number to repeated names, which are common: Parquet files often store paths without folders."""
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name in seen:
            path = PurePosixPath(name)
            names[row] = f"{name.removesuffix(path.suffix)} (row {row}){path.suffix}"
        seen.add(name)
