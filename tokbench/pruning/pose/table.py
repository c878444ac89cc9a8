"""Tables of results on pose lifters."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.number_style import NumberStyle
from tokbench.pruning.pose.result import PoseRow
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import (
    batches_of,
    conditions,
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

MILLIMETRES = NumberStyle("mm", 1, False)


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the claims."""
    sizes = batches_of(found)
    head = ["network", "frames", "MPJPE mm", "difference to full", "GFLOPs", "x fewer", *time_head(sizes)]
    body = [
        [titled(one, row, row.title), *_cells(row), *time_cells(row, sizes)] for one, _, row in rows(found)
    ]  # fmt: skip
    return f"\n{table(head, body)}{claims_table(found)}"


def mean_frames(row: PoseRow) -> float:
    """Return the number of frames that enter a pair of blocks, the mean over the pairs."""
    return sum(row.frames) / len(row.frames)


def _cells(row: PoseRow) -> list[str]:
    error, gap = row.mpjpe, row.mpjpe_gap
    return [
        ", ".join(map(str, row.frames)), MILLIMETRES.with_interval(error.value, error.low, error.high),
        MILLIMETRES.gap(gap.value, gap.low, gap.high), f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about, first = found[0].about, next(rows_of(found))
    whole = about["whole"]
    counted = count_of(about["num_images"], "sequence")
    text = (
        f"{conditions(about, counted, 'frames')}, float32. Intervals are 95 %, those of differences paired by "
        "sequence.\n\n"
        "MPJPE: mean per-joint position error in millimetres, relative to the pelvis. The full network has "
        f"{MILLIMETRES.with_interval(whole['value'], whole['low'], whole['high'])} mm with "
        f"{', '.join(map(str, whole['frames']))} frames, and the best constant pose {whole['floor']:.1f} mm. GFLOPs of "
        f"a sequence: {first.whole_gflops:.3f}; {about['provenance']['formula']}.\n\n"
        "`frames`: that enter each pair of blocks. Rows named by a network have its own weights.\n"
    )
    text += time_note(found, "Times of a batch of sequences")
    return text + quality_note(
        found, f"the full network has more than {100 * (1 - JUDGED):.0f} % of the error of the best constant pose"
    )


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per network."""

    def more(one: PruningResult, row: PoseRow) -> dict[str, float]:
        whole = one.about["whole"]
        return {"frames_mean": mean_frames(row), "mpjpe_whole": whole["value"], "mpjpe_floor": whole["floor"]}

    return network_frame(found, ("mpjpe", "mpjpe_gap"), more)
