"""Tables of results on detectors."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.detector.average_precision import NUMBERS
from tokbench.pruning.detector.result import DetectorRow
from tokbench.pruning.number_style import SHARE
from tokbench.pruning.result import Estimate, PruningResult
from tokbench.pruning.table import (
    batches_of,
    conditions,
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
    """Return a Markdown table of all rows, and one of the verdicts on the papers' claims."""
    sizes = batches_of(found)
    less = "difference to full"
    head = ["method", "keep", "AP50 %", less, "AP %", less, "tokens", "GFLOPs", "x fewer", *time_head(sizes)]
    body = [
        [titled(one, row, row.title), keep_text(keep), *_cells(row), *time_cells(row, sizes)]
        for one, keep, row in rows(found)
    ]
    return f"\n{table(head, body)}{claims_table(found)}"


def mean_tokens(row: DetectorRow) -> float:
    """Return the number of tokens that a layer updates, the mean over the layers."""
    return sum(row.tokens) / len(row.tokens)


def _cells(row: DetectorRow) -> list[str]:
    return [
        _percent(row.ap50), gap_text(row.ap50_gap), _percent(row.ap), gap_text(row.ap_gap),
        f"{mean_tokens(row):,.0f}", f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip


def _percent(estimate: Estimate) -> str:
    return SHARE.with_interval(estimate.value, estimate.low, estimate.high)


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    whole, first = about["whole"], next(rows_of(found))
    text = (
        f"{conditions(about, count_of(about['num_images'], 'image'))}, float32. Intervals are 95 %, from a "
        "jackknife of groups of images; those of differences are paired by image.\n\n"
        f"The full detector updates all tokens in all layers: AP50 {100 * whole['ap50']:.1f} %, AP "
        f"{100 * whole['ap']:.1f} % (mean over overlaps of 0.5 to 0.95), {first.whole_gflops:.3f} GFLOPs "
        f"({about['provenance']['formula']}).\n\n"
        "`keep`: the share of tokens that the first layer of the encoder updates; later layers update 0.8, 0.6 and 0.4 "
        "of it. `tokens`: those that a layer updates, mean over the layers. Rows named by a detector have its own "
        "weights, and the selection and keep of its training.\n"
    )
    text += time_note(found, "Times of the whole detector")
    return text + quality_note(found, f"the full detector has an AP50 of less than {100 * JUDGED:.0f} %")


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    numbers = [f"{number}{suffix}" for number in NUMBERS for suffix in ("", "_gap")]
    return network_frame(
        found,
        numbers,
        lambda one, row: {"tokens": mean_tokens(row)} | {f"{name}_whole": one.about["whole"][name] for name in NUMBERS},
    )
