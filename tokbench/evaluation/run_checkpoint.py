"""RunCheckpoint: what the run of one adapter has found so far, saved unit by unit, and restored by the same run."""

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
"""The name under which a checkpoint keeps the digests of images that were made elsewhere."""


@dataclass
class RunCheckpoint:
    """The journal of one run, and the units of images that are in it or were computed.

    requires_output: whether the images were made elsewhere, so that nothing but their own pixels tells whether a
    checkpoint is of the same ones; then `produced` keeps their digests. journal: None where nothing is to be kept.
    """

    metrics: MetricSet
    requires_output: bool
    journal: Checkpoint | None = None
    produced: SampleStore = field(default_factory=SampleStore)
    units: set[int] = field(default_factory=set)

    def save(self, images: ImageBatch, made: Tensor) -> None:
        """Move what the metrics found in these images to the journal, unit by unit; without one, leave it in memory.

        made: what became of the images (B, 3, H, W).
        """
        index = images.index.numpy()
        if self.requires_output:
            self.produced.add(index, {"sha256": _digests(made)})
        if self.journal is None or self.journal.folder is None:
            return
        tables = self._tables()
        held = {name: rows.take_held() for name, rows in tables.items()}
        reasons = {name: error.public_reason for name, error in self.metrics.skipped.items()}
        for unit in np.unique(index // CHUNK).tolist():
            here = index // CHUNK == unit
            columns = {
                name: {column: values[positions // CHUNK == unit] for column, values in own.items()}
                for name, (positions, own) in held.items()
                if (positions // CHUNK == unit).any()
            }
            digests = [digest for digest, own in zip(images.digests, here, strict=True) if own]
            file = self.journal.write(unit, index[here], digests, columns, reasons)
            for name, own in columns.items():
                if file:
                    tables[name].add_file(index[here], list(own), file, f"{name}/")
                else:
                    tables[name].add(index[here], own)
            self.units.add(unit)

    def resume(self, images: ImageBatch, references: ReferenceFeatures, made: Tensor | None = None) -> bool:
        """Take in what the journal holds of these images, if it holds all of them, with these very pixels.

        made: what became of the images, where that is what tells whether they are the same (`requires_output`).
        """
        index, found = images.index.numpy(), []
        produced = None if made is None else _digests(made)
        for unit in np.unique(index // CHUNK).tolist():
            here = index // CHUNK == unit
            kept = self.read(unit)
            digests = [digest for digest, own in zip(images.digests, here, strict=True) if own]
            if kept is None or kept.digests != digests or not np.array_equal(kept.index, index[here]):
                return False
            if produced is not None and not np.array_equal(kept.load(_PIXELS, "sha256"), produced[here]):
                return False
            found.append(kept)
        # Only now, since this takes in the features of what are surely the same pixels.
        if not all(self.comparable(kept, references) for kept in found):
            return False
        for kept in found:
            self.restore(kept)
        return True

    def read(self, unit: int) -> Chunk | None:
        """What the journal holds of a unit; None unless that is all that is wanted."""
        kept = self.journal.read(unit) if self.journal else None
        if kept is None or not len(kept.index) or (self.requires_output and _PIXELS not in kept.columns):
            return None
        wanted = self.metrics.stores_of(unit)
        if any(store not in kept.columns and metric not in kept.skipped for store, metric in wanted.items()):
            return None
        return kept

    def comparable(self, kept: Chunk, references: ReferenceFeatures) -> bool:
        """Whether the references' features of a unit are there; they are taken in."""
        return not self.metrics.missing_references(references, kept.columns, kept.index, kept.digests)

    def restore(self, kept: Chunk) -> None:
        """Take in a unit of the journal."""
        for name, reason in kept.skipped.items():
            self.metrics.skip(name, reason)
        tables = self._tables()
        for name, columns in kept.columns.items():
            if name in tables:
                tables[name].add_file(kept.index, columns, kept.file, f"{name}/")
        self.units.add(int(kept.index[0]) // CHUNK)

    def fingerprint(self) -> str | None:
        """A hash of all images that were made elsewhere, in their order; None where a model made them."""
        if not self.requires_output or not len(self.produced):
            return None
        return hashlib.sha256("".join(self.produced.column("sha256").tolist()).encode()).hexdigest()

    def close(self) -> None:
        """Let go of the journal, and leave it for the same call."""
        if self.journal:
            self.journal.close()

    def _tables(self) -> dict[str, SampleStore]:
        return self.metrics.stores | ({_PIXELS: self.produced} if self.requires_output else {})


def _digests(made: Tensor) -> np.ndarray:
    """The sha256 of each image (B, 3, H, W) that was made, as 8-bit pixels."""
    pixels = to_uint8(made).permute(0, 2, 3, 1).numpy()
    return np.array([hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels])
