"""Images in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.data.decode import MAX_BYTES
from tokbench.data.sources.columns import has_bytes
from tokbench.data.sources.table import Table, TableFile

if TYPE_CHECKING:
    import pyarrow as pa


class _ParquetFile(TableFile):
    """A Parquet file; its blocks are the row groups."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self.schema = self._file.schema_arrow
        self._leaves = [self._file.schema.column(i).path for i in range(len(self._file.schema.names))]

    @property
    def blocks(self) -> int:
        return int(self._file.num_row_groups)

    def rows(self, block: int) -> int:
        return int(self._file.metadata.row_group(block).num_rows)

    def pieces(self, block: int, column: str, part: str = "") -> Iterator[pa.Array]:
        leaves = [leaf for leaf in self._leaves if leaf == column or leaf.startswith(f"{column}.")]
        wanted = [leaf for leaf in leaves if not part or leaf.rpartition(".")[2] == part]
        # Batches are so small that repeated values cannot exhaust memory. The size of the column itself is not used:
        # Arrow aborts the process if the metadata of a column are damaged.
        longest = self._file.metadata.row_group(block).total_byte_size
        rows = min(1024, max(1, MAX_BYTES // max(1, longest)))
        for batch in self._file.iter_batches(batch_size=rows, row_groups=[block], columns=wanted):
            yield batch.column(0)

    def read(self, column: str) -> pa.ChunkedArray:
        return self._file.read(columns=[column]).column(column)


class Parquet(Table):
    """The images in a column of Parquet files, in the order of the files."""

    what = "Parquet"
    too_large = "write smaller row groups"

    def _open(self, path: Path) -> TableFile:
        return _ParquetFile(path)


def holds_images(path: Path) -> bool:
    """Return whether a Parquet file has a column that can contain images; True if its schema cannot be read."""
    import pyarrow.parquet as pq

    try:
        return has_bytes(pq.read_schema(path))
    except Exception:
        return True
