"""Combine the checkpoints of several processes on rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokbench.data.stream import ImageStream
from tokbench.errors import DataError
from tokbench.evaluation.adapter_run import AdapterRun
from tokbench.evaluation.distributed import ProcessGroup
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.tokenizers.builtin.images import ImageFolder


def gather(
    runs: Sequence[AdapterRun],
    stream: ImageStream,
    references: ReferenceFeatures,
    ranks: ProcessGroup,
    cache: Path | None,
) -> None:
    """Add the values of every other rank to the runs on rank 0; on the other ranks, send them.

    Raises DataError where ranks read images of different sizes or their files cannot be read, TokbenchError where
    another rank ended.
    """
    if ranks.world == 1 or cache is None:
        return
    if not ranks.first:
        storages = [(run.checkpoint.storage, _chunks(run)) for run in runs]
        paths = [storage.path(chunk) for storage, chunks in storages if storage for chunk in chunks]
        facts = {
            "rank": ranks.rank,
            "seen": stream.seen,
            "shape": stream.shape,
            "runs": [(run.error, _chunks(run), _rotated(run)) for run in runs],
        }
        ranks.send_to_main(facts, [path for path in paths if path] + sorted(references.files), cache)
        return
    for facts in ranks.collect(cache):
        stream.seen.merge(facts["seen"])
        ours, theirs = stream.shape, facts["shape"]
        if ours and theirs and tuple(theirs) != ours:
            sizes = ", and rank 0 of ".join("x".join(map(str, reversed(shape))) for shape in (theirs, ours))
            raise DataError(f"rank {facts['rank']} read images of {sizes}; make all images one size")
        stream.shape = stream.shape or theirs
        for run, (error, chunks, rotated) in zip(runs, facts["runs"], strict=True):
            _rotated(run).update(rotated)
            run.error = run.error or (f"rank {facts['rank']}: {error}" if error else None)
            for number in chunks if run.error is None else ():
                chunk = run.checkpoint.read(number)
                if chunk is None or not run.checkpoint.has_references(chunk, references):
                    raise DataError(
                        f"chunk {number} of rank {facts['rank']} cannot be read in {cache}; run the same command again"
                    )
                run.checkpoint.restore(chunk)


def _chunks(run: AdapterRun) -> list[int]:
    return sorted(run.checkpoint.chunks)


def _rotated(run: AdapterRun) -> dict[str, int]:
    """Return the EXIF orientations of the reconstructions that this rank read; adapters of other kinds have none."""
    return run.adapter.model.rotated if isinstance(run.adapter.model, ImageFolder) else {}
