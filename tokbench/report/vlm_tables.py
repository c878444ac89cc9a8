"""The page's tables of token reduction in vision-language models, with a row for each method and keep ratio."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tokbench.pruning.result import Estimate, PruningResult, Speedup
from tokbench.pruning.table import NONE, groups, rows
from tokbench.pruning.vlm.result import VlmRow
from tokbench.pruning.vlm.table import legend, types_of
from tokbench.report.page_table import Cell, PageColumn, PageRow, PageTable
from tokbench.report.pruning_tables import TASK


def tables(results: Sequence[PruningResult]) -> list[PageTable]:
    """Return a table for each group of comparable results."""
    return [_table(name, members) for name, members in groups(results).items()]


def _table(name: str, members: Sequence[PruningResult]) -> PageTable:
    about, types = members[0].about, types_of(members)
    columns = [
        PageColumn("accuracy", "correct %", 1, True), PageColumn("gap", "difference %", 1, True),
        PageColumn("applied", "applied share %", 1, None),
        *(PageColumn(f"accuracy_{kind}", f"{kind} %", 1, True) for kind in types),
        PageColumn("gflops", "GFLOPs", 3, False), PageColumn("fewer", "FLOPs reduction", 2, True),
        PageColumn("kv", "KV cache KiB", 0, False),
        PageColumn("speedup_total", "speed-up, end to end", 2, True),
        PageColumn("ms_total", "ms, end to end", 2, False),
        PageColumn("speedup_prefill", "speed-up, prefill", 2, True), PageColumn("ms_prefill", "ms, prefill", 2, False),
    ]  # fmt: skip
    side = about["provenance"]["data"]["side"]
    return PageTable(
        name=name,
        dataset=about["dataset"],
        task=TASK,
        size=f"{side}x{side}",
        n=about["num_images"],
        protocol=about["provenance"]["protocol"]["name"],
        legend=" ".join(legend(members).split()),
        columns=columns,
        rows=[
            PageRow(
                adapter=f"{result.about['method']} {keep:g}",
                family=result.about["method"],
                kinds=["needs no training"],
                values=_values(row, types),
                details=_details(result, keep, row),
            )
            for result, keep, row in rows(members)
            if keep is not None
        ],
        short=about["short"],
        batches=[],
    )


def _values(row: VlmRow, types: Sequence[str]) -> list[Cell | None]:
    cells: list[Cell | None] = [_estimate(row.accuracy), _estimate(row.gap), Cell(100 * row.applied)]
    cells += [_estimate(row.types[kind].accuracy) if kind in row.types else None for kind in types]
    cells += [Cell(row.gflops), Cell(row.whole_gflops / row.gflops), Cell(row.kv_bytes / 1024)]
    if row.pace is None:
        return [*cells, None, None, None, None]
    return [*cells, *_speedup(row.pace.total), *_speedup(row.pace.prefill)]


def _estimate(found: Estimate) -> Cell:
    low, high = (None if end is None else 100 * end for end in (found.low, found.high))
    return Cell(100 * found.value, low, high)


def _speedup(found: Speedup) -> tuple[Cell, Cell]:
    """Return the cells of a speed-up and of its milliseconds; a speed-up that is not significant is text."""
    shown = Cell(found.value, found.low, found.high) if found.measured else Cell(None, replacement=NONE)
    return shown, Cell(found.ms)


def _details(result: PruningResult, keep: float, row: VlmRow) -> dict[str, Any]:
    """Return the settings and provenance of a row, and the command that measures it again."""
    about, provenance = result.about, result.about["provenance"]
    words = ["tokbench", "prune", about["method"], "--model", about["model"], "--data", about["dataset"]]
    words += ["--keep", f"{keep:g}"]
    words += ["--limit", str(provenance["data"]["limit"])] if provenance["data"]["limit"] else []
    words += [] if row.pace else ["--batches", "0"]
    words += ["--repetitions", str(provenance["repetitions"])] if provenance["repetitions"] != 30 else []
    return {
        "command": shlex.join(words),
        "data": f"{about['dataset']}, pixels {provenance['data']['sha256'][:12]}",
        "n": about["num_images"],
        "precision": "float32",
        "device": f"{provenance['device']} {provenance['processor']}".strip(),
        "reference": "the model with all visual tokens on the same questions",
        "adapter": {"training": about["training"], "weights of the network": provenance["weights"], "weights": {}},
        "versions": provenance["versions"],
        "settings": row.parameters,
        "skipped": {},
    }
