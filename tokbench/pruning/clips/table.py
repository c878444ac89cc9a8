"""Tables of results on classifiers of clips."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED, claims_table
from tokbench.pruning.clips.methods import CONTROLS
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import (
    NONE,
    batches_of,
    estimate_fields,
    faster,
    gap_text,
    rows,
    speedup_fields,
    undertrained,
)
from tokbench.results.markdown import table


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the claims."""
    sizes, cameras = batches_of(found), cameras_of(found)
    head = ["method", "keep", "tokens", "at most", "correct %", "less the full one's", "agreement %"]
    head += [*(f"correct %, {camera} camera" for camera in cameras), "GFLOPs", "x fewer"]
    for size in sizes:
        head += [f"x faster, batch {size}", f"ms, batch {size}", f"of it making tokens, batch {size}"]
    body = []
    for one, keep, row in rows(found):
        note = ", control" if one.about["method"] in CONTROLS else " (short)" if undertrained(one, row) else ""
        body.append(
            [f"{row.title}{note}", "-" if keep is None else f"{keep:g}", *_cells(row, cameras), *_times(row, sizes)]
        )
    return f"\n{table(head, body)}{claims_table(found)}"


def cameras_of(found: Sequence[PruningResult]) -> list[str]:
    """Return the motions of the camera in a table, sorted."""
    return sorted({camera for one in found for row in one.rows.values() for camera in row.cameras})


def _cells(row: ClipRow, cameras: Sequence[str]) -> list[str]:
    return [
        f"{row.tokens:,.1f}", f"{row.most_tokens:,}", f"{100 * row.top1.value:.1f}",
        gap_text(row.top1_gap.value, row.top1_gap.low, row.top1_gap.high), f"{100 * row.agreement.value:.1f}",
        *(_camera(row, camera) for camera in cameras), f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip


def _camera(row: ClipRow, camera: str) -> str:
    """Return the accuracy with this camera and its interval."""
    one = row.cameras.get(camera)
    if one is None or one.low is None or one.high is None:
        return "-"
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _times(row: ClipRow, sizes: Sequence[int]) -> list[str]:
    cells = []
    for size in sizes:
        timing = row.timing(size)
        cells += ["-"] * 3 if timing is None else [
            faster(timing.speedup), f"{timing.speedup.ms:.1f}",
            f"{100 * timing.selector_ms / timing.speedup.ms:.0f} %",
        ]  # fmt: skip
    return cells


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, whole = about["provenance"], about["whole"]
    first: ClipRow = next(iter(found[0].rows.values()))
    processor = f" {provenance['processor']}" if provenance["processor"] else ""
    text = (
        f"`{about['model']}` on {count_of(about['num_images'], 'clip')} of {about['dataset']}, "
        f"{provenance['data']['side']} px; {provenance['device']}{processor}, float32. Intervals are 95 %, those of "
        "differences paired by clip.\n\n"
        f"The full network classifies {100 * whole['top1']:.1f} % correctly; {100 * whole['floor']:.1f} % have the "
        f"most frequent label. GFLOPs of a clip: {first.whole_gflops:.3f}; {provenance['formula']}.\n\n"
        "`keep`: the share of a clip's patch tokens that are left, `-` for a network as it was trained. `tokens`: of a "
        "clip in the last block, the mean over clips. Rows named by a network have its own weights.\n"
    )
    if batches_of(found):
        text += (
            "\nTimes contain clustering and the making of cheap trajectories (exact masks are given); they are "
            f'measured on noise, in turns with the full network. "{NONE}" where the interval contains 1 or the full '
            "one against itself is off by 3 %.\n"
        )
    if about["short"]:
        text += (
            f"\n**Not judged**: the full network classifies less than {100 * JUDGED:.0f} % correctly, so that the "
            "accuracy of a row says nothing about its method.\n"
        )
    elif any(undertrained(one, row) for one in found for row in one.rows.values()):
        text += "\n(short): trained on a CPU for minutes, so that its accuracy says nothing about the method.\n"
    return text


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    records = []
    for one, keep, row in rows(found):
        about = one.about
        record = {
            "method": about["method"], "keep": keep, "training": about["training"],
            "training_seconds": row.training_seconds, "training_images": row.training_images,
            "model": about["model"], "dataset": about["dataset"], "num_images": about["num_images"],
            "top1_whole": about["whole"]["top1"], "gflops": row.gflops, "gflops_whole": row.whole_gflops,
            "tokens": row.tokens, "most_tokens": row.most_tokens,
        }  # fmt: skip
        for number in ("top1", "top1_gap", "agreement"):
            record |= estimate_fields(number, getattr(row, number))
        for camera, estimate in row.cameras.items():
            record |= estimate_fields(f"top1_{camera}", estimate)
        for timing in row.pace:
            size = f"b{timing.batch}"
            record |= speedup_fields(size, timing.speedup) | {f"selector_ms_{size}": timing.selector_ms}
        records.append(record)
    return pd.DataFrame.from_records(records)
