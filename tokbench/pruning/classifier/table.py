"""Tables of results on classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.classifier.result import ClassifierRow, ClassifierTiming
from tokbench.pruning.result import PruningResult, labels_text
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
    shared,
    time_cells,
    time_head,
    time_note,
    titled,
)
from tokbench.pruning.verdicts import claims_table
from tokbench.results.markdown import table

FREE = "Without training"
LEARNED = "With training"


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    return network_frame(
        found,
        ("top1", "top1_gap", "top5", "top5_gap", "agreement"),
        lambda one, row: {"gflops_counted": row.counted_gflops, "tokens_last": row.tokens[-1][1]},
        _time_fields,
    )


def _time_fields(pace: ClassifierTiming) -> dict[str, Any]:
    speedup, same, batch = pace.speedup, pace.speedup_same_kernel, pace.batch
    both = estimate_fields(f"speedup_b{batch}", speedup) | estimate_fields(f"speedup_same_kernel_b{batch}", same)
    return both | {
        f"control_b{batch}": speedup.control, f"measured_b{batch}": speedup.measured,
        f"control_same_kernel_b{batch}": same.control, f"measured_same_kernel_b{batch}": same.measured,
        f"ms_b{batch}": speedup.ms, f"whole_ms_b{batch}": speedup.whole_ms,
        f"images_per_second_b{batch}": batch / speedup.ms * 1000, f"selector_ms_b{batch}": pace.selector_ms,
        f"peak_mib_b{batch}": pace.peak_mib, f"whole_peak_mib_b{batch}": pace.whole_peak_mib,
    }  # fmt: skip


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of the methods that need no training, and one of the trained methods."""
    batches = batches_of(found)
    head = ["method", "keep", "top-1 %", "difference to full", "top-5 %", "agreement %", "GFLOPs", "x fewer"]
    head += time_head(batches, "selection")
    head += [f"peak MiB, batch {batch}" for batch in batches[-1:]]
    text, named = "", shared(found)
    for title, trained in ((FREE, False), (LEARNED, True)):
        chosen = [entry for entry in rows(found) if (entry[0].about["training"] != "none") == trained]
        if not chosen:
            continue
        cost = ["training s", "training images"] if trained else []
        body = [
            _line(one, named.get(one.about["method"], row.title), keep, row, batches, trained)
            for one, keep, row in chosen
        ]
        text += f"\n## {title}\n\n{table([*head, *cost], body)}"
    return text + claims_table(found)


def _line(
    one: PruningResult, title: str, keep: float | None, row: ClassifierRow, batches: Sequence[int], trained: bool
) -> list[str]:
    cells = [
        titled(one, row, title), keep_text(keep), f"{100 * row.top1.value:.1f}", gap_text(row.top1_gap),
        f"{100 * row.top5.value:.1f}",
        f"{100 * row.agreement.value:.1f}", f"{row.gflops:.2f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip
    cells += time_cells(row, batches, selecting=True)
    for batch in batches[-1:]:
        timing = row.timing(batch)
        cells.append("-" if timing is None or timing.peak_mib is None else f"{timing.peak_mib:,.0f}")
    if trained:
        cells += ["-" if cost is None else f"{cost:,.0f}" for cost in (row.training_seconds, row.training_images)]
    return cells


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, first = about["provenance"], next(rows_of(found))
    text = (
        f"{conditions(about, count_of(about['num_images'], 'image'))}, float32, attention by {provenance['kernel']}. "
        "Intervals are 95 %, those of accuracy paired by image. `keep`: the share of tokens that each of three stages "
        "keeps. Methods that reduce tokens elsewhere have equal FLOPs, except SiT (the token counts of its paper) and "
        "lower resolution (whole patches).\n\n"
        f"GFLOPs: {first.whole_gflops:.3f} for the full network; {provenance['formula']}.\n"
    )
    text += _labels_note(provenance.get("labels", {}))
    text += time_note(found, "Times of a batch")
    if kernels := sorted({f"{one.best_kernel} at batch {one.batch}" for row in rows_of(found) for one in row.timings}):
        text += (
            f"\nThe full network was timed with its faster kernel ({', '.join(kernels)}). The CSV also contains the "
            "speed-ups relative to the full network with the kernel of the row.\n"
        )
    weak = f"the full network was trained on a CPU for minutes and classifies less than {100 * JUDGED:.0f} % correctly"
    return text + quality_note(found, weak)


def _labels_note(labels: dict[str, Any]) -> str:
    """Return the origin of the labels and the warnings about them; empty for older results without labels."""
    if not labels:
        return ""
    return f"\nLabels: {labels_text(labels)}.\n" + "".join(f"\n**Warning:** {text}\n" for text in labels["warnings"])
