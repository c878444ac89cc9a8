"""Tables of results on classifiers of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.clips.methods import CONTROLS
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.number_style import SHARE
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import (
    batches_of,
    conditions,
    estimate_fields,
    gap_text,
    keep_text,
    network_frame,
    quality_note,
    rows,
    rows_of,
    time_cells,
    time_head,
    time_note,
    titled,
)
from tokbench.pruning.verdicts import claims_table
from tokbench.results.markdown import table


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the claims."""
    sizes, cameras = batches_of(found), cameras_of(found)
    head = ["method", "keep", "tokens", "at most", "correct %", "difference to full", "agreement %"]
    head += [*(f"correct %, {camera} camera" for camera in cameras), "GFLOPs", "x fewer"]
    head += time_head(sizes, "making tokens")
    body = []
    for one, keep, row in rows(found):
        title = f"{row.title}, control" if one.about["method"] in CONTROLS else titled(one, row, row.title)
        times = time_cells(row, sizes, selecting=True)
        body.append([title, keep_text(keep), *_cells(row, cameras), *times])
    return f"\n{table(head, body)}{claims_table(found)}"


def cameras_of(found: Sequence[PruningResult]) -> list[str]:
    """Return the motions of the camera in a table, sorted."""
    return sorted({camera for one in found for row in one.rows.values() for camera in row.cameras})


def _cells(row: ClipRow, cameras: Sequence[str]) -> list[str]:
    return [
        f"{row.tokens:,.1f}", f"{row.most_tokens:,}", f"{100 * row.top1.value:.1f}",
        gap_text(row.top1_gap), f"{100 * row.agreement.value:.1f}",
        *(_camera(row, camera) for camera in cameras), f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip


def _camera(row: ClipRow, camera: str) -> str:
    """Return the accuracy with this camera and its interval."""
    one = row.cameras.get(camera)
    return "-" if one is None else SHARE.with_interval(one.value, one.low, one.high)


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    whole, first = about["whole"], next(rows_of(found))
    text = (
        f"{conditions(about, count_of(about['num_images'], 'clip'))}, float32. Intervals are 95 %, those of "
        "differences paired by clip.\n\n"
        f"The full network classifies {100 * whole['top1']:.1f} % correctly; {100 * whole['floor']:.1f} % have the "
        f"most frequent label. GFLOPs of a clip: {first.whole_gflops:.3f}; {about['provenance']['formula']}.\n\n"
        "`keep`: the share of a clip's patch tokens that are left, `-` for a network as it was trained. `tokens`: of a "
        "clip in the last block, the mean over clips. Rows named by a network have its own weights.\n"
    )
    text += time_note(
        found, "Times, which contain clustering and the making of cheap trajectories (exact masks are given), of noise"
    )
    return text + quality_note(found, f"the full network classifies less than {100 * JUDGED:.0f} % correctly")


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""

    def more(one: PruningResult, row: ClipRow) -> dict[str, Any]:
        record = {"top1_whole": one.about["whole"]["top1"], "tokens": row.tokens, "most_tokens": row.most_tokens}
        for camera, estimate in row.cameras.items():
            record |= estimate_fields(f"top1_{camera}", estimate)
        return record

    return network_frame(found, ("top1", "top1_gap", "agreement"), more)
