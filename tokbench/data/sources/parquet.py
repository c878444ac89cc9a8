"""Images in Parquet files. `tokbench.data.sources.open` lists what is refused."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from tokbench.data.decode import MAX_BYTES, refuse_large
from tokbench.data.sources.base import MAX_IMAGES, Source, printable_name
from tokbench.errors import DataError, UnreadableImage
from tokbench.io.json import loads_strict

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAX_GROUP = 4 * MAX_BYTES
"""Limit on the bytes of the images of one row group, which are loaded together."""


class LabelColumn(NamedTuple):
    """The label column of one file.

    file: name of the file. kind: Arrow type of its column `label`, "" if it has none. names: class names, if the file
    states them.
    """

    file: str
    kind: str
    names: Sequence[str] = ()


class Parquet(Source):
    """The rows of Parquet files with a column `image: {bytes, path}`, in the order of the files.

    The constructor raises DataError if a file is not readable or has no such column.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self._files: list[pq.ParquetFile] = []
        self._groups: list[tuple[int, int]] = []  # file and row group of each block
        self._starts: list[int] = []  # first position of each block
        self.names = []
        self._sizes: list[tuple[str, int]] = []
        for path in paths:
            try:
                file = pq.ParquetFile(path)
                kinds = _columns(path, file.schema_arrow)
                self._files.append(file)
                for group in range(file.num_row_groups):
                    self._starts.append(len(self.names))
                    self._groups.append((len(self._files) - 1, group))
                    self._add_names(path, _paths(file, group) if kinds["path"] else _no_names(file, group))
                self._sizes.append((path.name, path.stat().st_size))
            except DataError:
                raise
            except Exception as error:  # errors of Arrow, and of Python if the metadata are wrong
                raise DataError(f"{path} is not a readable Parquet file ({str(error)[:200]})") from error
        _number_repeated(self.names)
        self._cached_block: tuple[int, pa.ChunkedArray | str] | None = None
        self._lock = threading.Lock()

    def _add_names(self, path: Path, names: Iterable[str | None]) -> None:
        remaining = MAX_BYTES
        for name in names:
            row = len(self.names)
            remaining -= len(name or "")
            if row >= MAX_IMAGES or remaining < 0:
                raise DataError(f"{path} has more than {MAX_IMAGES:,} rows, or names of more than 1 GiB; split it")
            self.names.append(name or f"{row:08d}")

    def read(self, position: int) -> bytes:
        row, name = self._at(position), self.names[position]
        with self._lock:
            block = bisect_right(self._starts, row) - 1
            if self._cached_block is None or self._cached_block[0] != block:
                self._cached_block = (block, self._load(block))
            values = self._cached_block[1]
        if isinstance(values, str):
            raise UnreadableImage(f"{name}: its row group cannot be read from Parquet ({values})")
        entry = values[row - self._starts[block]] if row - self._starts[block] < len(values) else None
        if entry is None or not entry.is_valid:
            raise UnreadableImage(f"{name}: this Parquet row has no bytes")
        data = entry.as_buffer()
        refuse_large(data.size, name)
        return bytes(data.to_pybytes())

    def _load(self, block: int) -> pa.ChunkedArray | str:
        """Return the bytes of the images of a row group, or the reason why they cannot be read.

        The reason is cached as well, so that reading fails only once and not for each row.
        """
        import pyarrow as pa

        file, group = self._groups[block]
        pieces, remaining = [], _MAX_GROUP
        try:
            for piece in _pieces(self._files[file], group, "bytes"):
                pieces.append(piece)
                remaining -= piece.nbytes
                if remaining < 0:
                    return f"it takes more than {_MAX_GROUP:,} bytes; write smaller row groups"
            return pa.chunked_array(pieces) if pieces else pa.chunked_array([[]], pa.binary())
        except Exception as error:
            return str(error)[:120] or type(error).__name__

    def labels(self) -> dict[str, int] | None:
        """Return the integer column `label` by image name; None if a file has none, or if it has empty rows."""
        labels: list[int] = []
        for file in self._files:
            try:
                if "label" not in file.schema_arrow.names:
                    return None
                column = file.read(columns=["label"]).column("label")
                if not str(column.type).startswith(("int", "uint")) or column.null_count:
                    return None
                labels += column.to_pylist()
            except Exception as error:
                raise DataError(f"the labels cannot be read from Parquet ({str(error)[:120]})") from error
        return {name: labels[self._at(position)] for position, name in enumerate(self.names)}

    def label_columns(self) -> list[LabelColumn]:
        """Return the properties of the column `label` of each file."""
        columns = []
        for (name, _), file in zip(self._sizes, self._files, strict=True):
            schema = file.schema_arrow
            kind = str(schema.field("label").type) if "label" in schema.names else ""
            columns.append(LabelColumn(name, kind, _class_names(schema)))
        return columns

    def listing(self) -> list[tuple[str, int]]:
        return self._sizes


def holds_images(path: Path) -> bool:
    """Return whether a Parquet file has a column of images (or of any bytes); True if its schema cannot be read."""
    import pyarrow.parquet as pq

    try:
        return _has_bytes(pq.read_schema(path))
    except Exception:
        return True


def arrow_holds_images(path: Path) -> bool:
    """Return whether an Arrow file, as written by `save_to_disk` of Hugging Face's datasets, has a column of bytes.

    The result is True if its schema cannot be read.
    """
    import pyarrow as pa

    for open_arrow in (pa.ipc.open_stream, pa.ipc.open_file):
        try:
            with pa.OSFile(str(path)) as file:
                return _has_bytes(open_arrow(file).schema)
        except Exception:
            continue
    return True


def _has_bytes(schema: pa.Schema) -> bool:
    from pyarrow import types

    kinds = [field.type for field in schema]
    kinds += [kind.field(i).type for kind in kinds if types.is_struct(kind) for i in range(kind.num_fields)]
    return any(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) for kind in kinds)


def _columns(path: Path, columns: pa.Schema) -> dict[str, bool]:
    """Return whether the fields `bytes` and `path` of the column `image` have values.

    Raises DataError if there is no such column, or if a field has another type.
    """
    from pyarrow import types

    kind = columns.field("image").type if "image" in columns.names else None
    if kind is None or not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{path} has no column image: {{bytes, path}}; its columns are {', '.join(columns.names)}")
    present = {}
    for name, type_checks, expected in (
        ("bytes", (types.is_binary, types.is_large_binary, types.is_binary_view), "bytes"),
        ("path", (types.is_string, types.is_large_string, types.is_string_view), "text"),
    ):
        inner = kind.field(name).type if kind.get_field_index(name) >= 0 else None
        present[name] = inner is not None and not types.is_null(inner)
        if present[name] and not any(check(inner) for check in type_checks):
            raise DataError(f"{path}: its column image.{name} has type {inner}, not {expected}; write it again")
    return present


def _class_names(schema: pa.Schema) -> list[str]:
    """Return the class names of the `ClassLabel` that Hugging Face's `datasets` writes into the metadata, or []."""
    try:
        metadata = loads_strict((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _pieces(file: pq.ParquetFile, group: int, field: str) -> Iterator[pa.Array]:
    """Yield image.<field> of a row group in batches that are so small that repeated values cannot exhaust memory."""
    import pyarrow.compute as pc

    # The size of the column itself is not used: Arrow aborts the process if the metadata of a column are damaged.
    longest = file.metadata.row_group(group).total_byte_size
    rows = min(1024, max(1, MAX_BYTES // max(1, longest)))
    for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[f"image.{field}"]):
        yield pc.struct_field(batch.column(0), field)


def _paths(file: pq.ParquetFile, group: int) -> Iterator[str | None]:
    import pyarrow as pa

    for piece in _pieces(file, group, "path"):
        for name in piece.cast(pa.large_binary()).to_pylist():
            yield name and printable_name(os.fsdecode(name))


def _no_names(file: pq.ParquetFile, group: int) -> Iterator[None]:
    return (None for _ in range(file.metadata.row_group(group).num_rows))


def _number_repeated(names: list[str]) -> None:
    """Add the row number to repeated names, which are common: Parquet files often store paths without folders."""
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name in seen:
            path = PurePosixPath(name)
            names[row] = f"{name.removesuffix(path.suffix)} (row {row}){path.suffix}"
        seen.add(name)
