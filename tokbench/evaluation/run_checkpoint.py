"""RunCheckpoint: saves the values of one adapter's run chunk by chunk, and restores them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from tokbench.data.stream import CHUNK, ImageBatch
from tokbench.evaluation.checkpoint import Checkpoint, Chunk
from tokbench.evaluation.metric_set import MetricSet
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.sample_store import SampleStore
from tokbench.protocol.rounding import to_uint8

_PIXELS = "(pixels)"
"""The name under which a checkpoint stores the digests of output images."""


@dataclass
class RunCheckpoint:
    """The checkpoint of one run, and the chunks of images that are in it or were computed.

    requires_output: whether the outputs can only be identified by their own pixels, since another program or an object
    of this process computed them; their digests are then saved in `produced`. storage: the files; None where nothing is
    saved. chunks: the numbers of the finished chunks.
    """

    metrics: MetricSet
    requires_output: bool
    storage: Checkpoint | None = None
    produced: SampleStore = field(default_factory=SampleStore)
    chunks: set[int] = field(default_factory=set)

    def save(self, images: ImageBatch, output: Tensor) -> None:
        """Move the values of these images from the metrics to the files, chunk by chunk. Without files they stay in
        memory.

        output: the output images (B, 3, H, W).
        """
        index = images.index.numpy()
        if self.requires_output:
            self.produced.add(index, {"sha256": _digests(output)})
        if self.storage is None or self.storage.folder is None:
            return
        tables = self._tables()
        in_memory = {name: rows.pop_in_memory() for name, rows in tables.items()}
        reasons = {name: error.public_reason for name, error in self.metrics.skipped.items()}
        for chunk in np.unique(index // CHUNK).tolist():
            in_chunk = index // CHUNK == chunk
            columns = {
                name: {column: values[positions // CHUNK == chunk] for column, values in table.items()}
                for name, (positions, table) in in_memory.items()
                if (positions // CHUNK == chunk).any()
            }
            digests = [digest for digest, inside in zip(images.digests, in_chunk, strict=True) if inside]
            file = self.storage.write(chunk, index[in_chunk], digests, columns, reasons)
            for name, table in columns.items():
                if file:
                    tables[name].add_file(index[in_chunk], list(table), file, f"{name}/")
                else:
                    tables[name].add(index[in_chunk], table)
            self.chunks.add(chunk)

    def resume(self, images: ImageBatch, references: ReferenceFeatures, output: Tensor | None = None) -> bool:
        """Restore the values of these images if the files contain all of them, with exactly these pixels. Returns
        whether they do.

        output: the output images (B, 3, H, W), where they must be the same, too (`requires_output`).
        """
        index, restorable = images.index.numpy(), []
        produced = None if output is None else _digests(output)
        for number in np.unique(index // CHUNK).tolist():
            in_chunk = index // CHUNK == number
            chunk = self.read(number)
            digests = [digest for digest, inside in zip(images.digests, in_chunk, strict=True) if inside]
            if chunk is None or chunk.digests != digests or not np.array_equal(chunk.index, index[in_chunk]):
                return False
            if produced is not None and not np.array_equal(chunk.load(_PIXELS, "sha256"), produced[in_chunk]):
                return False
            restorable.append(chunk)
        # This loads features, so it must follow the comparison of the pixels.
        if not all(self.has_references(chunk, references) for chunk in restorable):
            return False
        for chunk in restorable:
            self.restore(chunk)
        return True

    def read(self, number: int) -> Chunk | None:
        """Read a chunk from the files. Returns None unless it has the values of all metrics."""
        chunk = self.storage.read(number) if self.storage else None
        if chunk is None or not len(chunk.index) or (self.requires_output and _PIXELS not in chunk.columns):
            return None
        required = self.metrics.stores_of(number)
        if any(store not in chunk.columns and metric not in chunk.skipped for store, metric in required.items()):
            return None
        return chunk

    def has_references(self, chunk: Chunk, references: ReferenceFeatures) -> bool:
        """Load the references' features of a chunk. Returns whether all that are needed exist."""
        return not self.metrics.missing_references(references, chunk.columns, chunk.index, chunk.digests)

    def restore(self, chunk: Chunk) -> None:
        """Add the values of a chunk to the metrics."""
        for name, reason in chunk.skipped.items():
            self.metrics.skip(name, reason)
        tables = self._tables()
        for name, columns in chunk.columns.items():
            if name in tables:
                tables[name].add_file(chunk.index, columns, chunk.file, f"{name}/")
        self.chunks.add(int(chunk.index[0]) // CHUNK)

    def fingerprint(self) -> str | None:
        """Return a hash of all output images in their order, or None where their pixels are not needed to identify
        them."""
        if not self.requires_output or not len(self.produced):
            return None
        return hashlib.sha256("".join(self.produced.column("sha256").tolist()).encode()).hexdigest()

    def close(self) -> None:
        """Release the files without deleting them, so that the same call can resume."""
        if self.storage:
            self.storage.close()

    def _tables(self) -> dict[str, SampleStore]:
        return self.metrics.stores | ({_PIXELS: self.produced} if self.requires_output else {})


def _digests(output: Tensor) -> np.ndarray:
    """Return the sha256 of each output image (B, 3, H, W), or item of another shape, as 8-bit levels."""
    pixels = to_uint8(output).movedim(1, -1).numpy()
    return np.array([hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels])
