"""Gather: brings the checkpoints of several processes together on rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokbench.data.stream import ImageStream
from tokbench.errors import DataError
from tokbench.evaluation.adapter_run import AdapterRun
from tokbench.evaluation.distributed import ProcessGroup
from tokbench.metrics.feature_cache import ReferenceFeatures


def gather(
    runs: Sequence[AdapterRun],
    stream: ImageStream,
    references: ReferenceFeatures,
    ranks: ProcessGroup,
    cache: Path | None,
) -> None:
    """On rank 0, take in what every other rank has found; on the others, send it.

    Raises DataError where ranks read images of unequal sizes or their files cannot be read, TokbenchError where another
    rank ended.
    """
    if ranks.world == 1 or cache is None:
        return
    if not ranks.first:
        paths = [run.checkpoint.journal.path(unit) for run in runs if run.checkpoint.journal for unit in _units(run)]
        facts = {
            "rank": ranks.rank,
            "seen": stream.seen,
            "shape": stream.shape,
            "runs": [(run.error, _units(run)) for run in runs],
        }
        ranks.send_to_main(facts, [path for path in paths if path] + sorted(references.files), cache)
        return
    for facts in ranks.collect(cache):
        stream.seen.merge(facts["seen"])
        ours, theirs = stream.shape, facts["shape"]
        if ours and theirs and tuple(theirs) != ours:
            sizes = f"{theirs[1]}x{theirs[0]}, and rank 0 of {ours[1]}x{ours[0]}"
            raise DataError(f"rank {facts['rank']} met images of {sizes}; make all of them alike")
        stream.shape = stream.shape or theirs
        for run, (error, units) in zip(runs, facts["runs"], strict=True):
            run.error = run.error or (f"rank {facts['rank']}: {error}" if error else None)
            for unit in units if run.error is None else ():
                kept = run.checkpoint.read(unit)
                if kept is None or not run.checkpoint.comparable(kept, references):
                    raise DataError(
                        f"unit {unit} of rank {facts['rank']} cannot be read in {cache}; run the same command again"
                    )
                run.checkpoint.restore(kept)


def _units(run: AdapterRun) -> list[int]:
    return sorted(run.checkpoint.units)
