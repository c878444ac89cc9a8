"""The page's tables of token reduction: one per device and network, with a row for each method and keep ratio."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tokbench.pruning.result import PruningResult, PruningRow
from tokbench.pruning.table import NONE, groups, legend, rows
from tokbench.report.page_table import Cell, PageColumn, PageRow, PageTable

TASK = "prune"


def tables(results: Sequence[PruningResult]) -> list[PageTable]:
    """Return a table for each group of comparable results."""
    return [_table(name, members) for name, members in groups(results).items()]


def _table(name: str, members: Sequence[PruningResult]) -> PageTable:
    about = members[0].about
    listed = rows(members)
    batches = sorted({timing.batch for _, _, row in listed for timing in row.pace})
    columns = [
        PageColumn("top1", "top-1 %", 1, True), PageColumn("top1_gap", "top-1 difference %", 1, True),
        PageColumn("agreement", "agreement %", 1, True), PageColumn("gflops", "GFLOPs", 2, False),
        PageColumn("fewer", "FLOPs reduction", 2, True),
    ]  # fmt: skip
    for batch in batches:
        columns += [
            PageColumn(f"speedup_b{batch}", f"speed-up, batch {batch}", 2, True),
            PageColumn(f"ms_b{batch}", f"ms, batch {batch}", 1, False),
        ]
    side = about["provenance"]["data"]["side"]
    return PageTable(
        name=name,
        dataset=about["dataset"],
        task=TASK,
        size=f"{side}x{side}",
        n=about["num_images"],
        protocol=about["provenance"].get("protocol", {}).get("name", "tokbench"),
        legend=" ".join(legend(members).split()),
        columns=columns,
        rows=[
            PageRow(
                adapter=result.about["method"] if keep is None else f"{result.about['method']} {keep:g}",
                family=result.about["method"],
                kinds=["needs no training" if result.about["training"] == "none" else "trained"],
                values=_values(row, batches),
                details=_row_details(result, keep, row),
            )
            for result, keep, row in listed
        ],
        short=about["short"],
        batches=batches,
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _values(row: PruningRow, batches: Sequence[int]) -> list[Cell | None]:
    """Return the cells of a row. A speed-up that is not significant is shown as text instead of a number."""
    cells: list[Cell | None] = [
        Cell(100 * estimate.value, _percent(estimate.low), _percent(estimate.high))
        for estimate in (row.top1, row.top1_gap, row.agreement)
    ]
    cells += [Cell(row.gflops), Cell(row.whole_gflops / row.gflops)]
    speedups = {timing.batch: timing.speedup for timing in row.pace}
    for batch in batches:
        if (speedup := speedups.get(batch)) is None:
            cells += [None, None]
        elif speedup.measured:
            cells += [Cell(speedup.value, speedup.low, speedup.high), Cell(speedup.ms)]
        else:
            cells += [Cell(None, replacement=NONE), Cell(speedup.ms)]
    return cells


def _row_details(result: PruningResult, keep: float | None, row: PruningRow) -> dict[str, Any]:
    """Return the settings and provenance of a row, and the command that measures it again.

    keep: the keep ratio; None for the full network. A file of learned rates is a placeholder in the command.
    """
    about, provenance = result.about, result.about["provenance"]
    words = ["tokbench", "prune", about["method"], "--model", about["model"], "--data", about["dataset"]]
    words += ["--keep", f"{keep:g}"] if keep is not None else []
    words += ["--limit", str(provenance["data"]["limit"])] if provenance["data"]["limit"] else []
    words += ["--kernel", provenance["kernel"]] if provenance["kernel"] != "sdpa" else []
    words += ["--round-to", str(provenance["round_to"])] if provenance["round_to"] != 1 else []
    words += ["--batches", ",".join(str(timing.batch) for timing in row.pace) or "0"]
    words += ["--repetitions", str(provenance["repetitions"])] if provenance.get("repetitions", 30) != 30 else []
    words += ["--rates", "FILE"] if row.training_seconds is None else []
    return {
        "command": shlex.join(words),
        "data": f"{about['dataset']}, pixels {provenance['data']['sha256'][:12]}",
        "n": about["num_images"],
        "precision": "float32",
        "device": f"{provenance['device']} {provenance['processor']}".strip(),
        "reference": "the full network on the same images",
        "adapter": {
            "training": about["training"],
            "weights of the network": provenance["weights"],
            "weights": row.weights,
        },
        "versions": provenance.get("versions", {}),
        "settings": {},
        "skipped": {},
    }
