"""Tables of results on vision-language models."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import (
    conditions,
    estimate_fields,
    faster,
    gap_text,
    quality_note,
    rows,
    rows_of,
    shared,
    speedup_fields,
    time_note,
)
from tokbench.pruning.verdicts import claims_table
from tokbench.pruning.vlm.methods import CONTROLS
from tokbench.pruning.vlm.result import VlmRow
from tokbench.results.markdown import table


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the papers' claims."""
    kinds, named = types_of(found), shared(found)
    head = ["method", "keep", "applied %", "correct %", "difference to full", *(f"{kind} %" for kind in kinds)]
    head += ["most fragile", "GFLOPs", "x fewer", "KV KiB", "x faster, end to end", "ms", "x faster, prefill", "ms"]
    head += ["selection", "x faster, decoding a word", "ms"]
    body = []
    for one, keep, row in rows(found):
        method = one.about["method"]
        title = named.get(method, row.title) + (
            ", control" if method in CONTROLS and "control" not in row.title else ""
        )
        body.append([title, f"{keep:g}", *_cells(row, kinds), *_times(row)])
    return f"\n{table(head, body)}{claims_table(found)}"


def types_of(found: Sequence[PruningResult]) -> list[str]:
    """Return the types of questions in a table, sorted."""
    return sorted({kind for one in found for row in one.rows.values() for kind in row.types})


def _cells(row: VlmRow, kinds: Sequence[str]) -> list[str]:
    accuracies = [f"{100 * row.types[kind].accuracy.value:.1f}" if kind in row.types else "-" for kind in kinds]
    return [
        f"{100 * row.applied:.1f}", f"{100 * row.accuracy.value:.1f}",
        gap_text(row.gap), *accuracies,
        most_fragile(row) or "-", f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
        f"{row.kv_bytes / 1024:.0f}",
    ]  # fmt: skip


def _times(row: VlmRow) -> list[str]:
    if row.pace is None:
        return ["-"] * 7
    total, prefill, word = row.pace.total, row.pace.prefill, row.pace.decode
    choosing = f"{100 * row.pace.selector_ms / prefill.ms:.0f} %"
    return [
        faster(total), f"{total.ms:.2f}", faster(prefill), f"{prefill.ms:.2f}", choosing,
        faster(word), f"{word.ms:.2f}",
    ]  # fmt: skip


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, whole = about["provenance"], about["whole"]
    first: VlmRow = next(rows_of(found))
    counted = f"{count_of(about['num_questions'], 'question')} about {count_of(about['num_images'], 'image')}"
    floors = ", ".join(
        f"{kind} {100 * one.whole:.1f} (floor {100 * one.floor:.1f}, {whole['types'][kind]:,} questions)"
        for kind, one in sorted(first.types.items())
    )
    text = (
        f"{conditions(about, counted)}. Intervals are 95 %, those of accuracy paired by question.\n\n"
        f"With all tokens, {100 * whole['accuracy']:.1f} % of the answers are correct; by type in %: {floors}. The "
        "floor is the share of the most frequent answer.\n\n"
    )
    if "without_demonstrations" in whole:
        text += f"Without the demonstrations, {100 * whole['without_demonstrations']:.1f} % are correct.\n\n"
    text += (
        "`keep`: the share of visual tokens that a method's last selection leaves; VFlowOpt's is the mean over layers. "
        "`applied`: the share of visual tokens that entered a layer, counted and averaged over layers and questions; "
        "rows with equal `keep` compare only as far as it is equal. `most fragile`: the type of questions that lost "
        "the largest share of its advantage over the floor, among those that lost significantly.\n\n"
        f"GFLOPs of a prefill: {first.whole_gflops:.3f} with all tokens; {provenance['formula']}. KV cache with all "
        f"tokens: {first.whole_kv_bytes / 1024:.0f} KiB.\n"
    )
    text += time_note(
        found, "Times at batch 1 (end to end from pixels to the answer, prefill of the decoder, and each further word)"
    )
    return text + quality_note(found, f"with all tokens, less than {100 * JUDGED:.0f} % of the answers are correct")


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    records = []
    for one, keep, row in rows(found):
        about = one.about
        record = {
            "method": about["method"], "keep": keep, "applied": row.applied, "model": about["model"],
            "dataset": about["dataset"], "num_images": about["num_images"], "num_questions": about["num_questions"],
            "accuracy_whole": about["whole"]["accuracy"], "side": row.side, "gflops": row.gflops,
            "gflops_whole": row.whole_gflops, "kv_bytes": row.kv_bytes, "kv_bytes_whole": row.whole_kv_bytes,
            "visual_tokens_last": row.visual[-1], "parameters_seconds": row.parameters_seconds,
        }  # fmt: skip
        for name, estimate in (("accuracy", row.accuracy), ("gap", row.gap)):
            record |= estimate_fields(name, estimate)
        for kind, own in row.types.items():
            for name, estimate in (("accuracy", own.accuracy), ("gap", own.gap)):
                record |= estimate_fields(f"{name}_{kind}", estimate)
            record |= {f"accuracy_whole_{kind}": own.whole, f"floor_{kind}": own.floor}
        if row.pace is not None:
            record["selector_ms"] = row.pace.selector_ms
            for name in ("total", "prefill", "decode"):
                record |= speedup_fields(name, getattr(row.pace, name))
        records.append(record)
    return pd.DataFrame.from_records(records)


def most_fragile(row: VlmRow) -> str:
    """Return the type of questions that loses the largest share of its advantage over the most frequent answer.

    Empty if no type loses significantly.
    """
    lost = {
        kind: -one.gap.value / (one.whole - one.floor)
        for kind, one in row.types.items()
        if one.gap.high is not None and one.gap.high < 0 and one.whole > one.floor
    }
    return max(lost, key=lambda kind: lost[kind]) if lost else ""
