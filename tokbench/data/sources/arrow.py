"""Images in Arrow files (.arrow), as `save_to_disk` of Hugging Face's `datasets` and its cache write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.data.sources.columns import has_bytes
from tokbench.data.sources.table import MAX_BLOCK, Table, TableFile
from tokbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class _ArrowFile(TableFile):
    """An Arrow file in the stream or the file format; its blocks are the record batches. It is mapped, not loaded."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        before = pa.total_allocated_bytes()
        self._batches: list[pa.RecordBatch] = []
        for batch in _batches(path):
            self._batches.append(batch)
            if pa.total_allocated_bytes() - before > MAX_BLOCK:  # uncompressed batches are mapped and take no memory
                raise ValueError(f"it is compressed and takes more than {MAX_BLOCK:,} bytes of memory")
        self.schema = _schema(path)

    @property
    def blocks(self) -> int:
        return len(self._batches)

    def rows(self, block: int) -> int:
        return int(self._batches[block].num_rows)

    def pieces(self, block: int, column: str, part: str = "") -> Iterator[pa.Array]:
        values = self._batches[block].column(column)
        values.validate(full=True)  # damaged offsets would end the process
        yield values

    def read(self, column: str) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array([batch.column(column) for batch in self._batches], self.schema.field(column).type)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_stream(mapped)
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(mapped)
        for number in range(file.num_record_batches):
            yield file.get_batch(number)
    else:
        yield from reader


def _schema(path: Path) -> pa.Schema:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        try:
            return pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_file(file).schema


class Arrow(Table):
    """The images in a column of Arrow files, in the order of the files."""

    what = "Arrow"
    too_large = "write smaller batches"

    def _open(self, path: Path) -> TableFile:
        _refuse_indices(path.parent / "state.json", path)
        return _ArrowFile(path)


def _refuse_indices(state: Path, path: Path) -> None:
    """Raise DataError if `state.json`, which `save_to_disk` writes, states that rows are selected by another file.

    Only old versions of `datasets` write such files.
    """
    try:
        indices = json.loads(state.read_text(encoding="utf-8")).get("_indices_data_files")
    except (OSError, ValueError, AttributeError):  # there is no such file, or it is another one
        return
    if indices:
        raise DataError(
            f"{path}: state.json beside it selects rows by indices, which are not read; load it with the library "
            "datasets, and write flatten_indices() with save_to_disk or to_parquet"
        )


def holds_images(path: Path) -> bool:
    """Return whether an Arrow file has a column that can contain images; True if its schema cannot be read."""
    try:
        return has_bytes(_schema(path))
    except Exception:
        return True
