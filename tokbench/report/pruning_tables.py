"""Token reduction as tables of the page: a row for each method and keep, one table for each device and network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tokbench.pruning.result import PruningResult, PruningRow
from tokbench.pruning.table import NONE, groups, legend, rows
from tokbench.report.page_table import Cell, PageColumn, PageRow, PageTable

TASK = "prune"


def tables(found: Sequence[PruningResult]) -> list[PageTable]:
    """Return a table for each group of comparable results."""
    return [_table(name, members) for name, members in groups(found).items()]


def _table(name: str, members: Sequence[PruningResult]) -> PageTable:
    about = members[0].about
    listed = rows(members)
    batches = sorted({pace.batch for _, _, row in listed for pace in row.pace})
    columns = [
        PageColumn("top1", "top-1 %", 1, True), PageColumn("top1_gap", "less the whole's", 1, True),
        PageColumn("agreement", "agreement %", 1, True), PageColumn("gflops", "GFLOPs", 2, False),
        PageColumn("fewer", "x fewer", 2, True),
    ]  # fmt: skip
    for batch in batches:
        columns += [
            PageColumn(f"speedup_b{batch}", f"x faster, batch {batch}", 2, True),
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
                adapter=one.about["method"] if keep is None else f"{one.about['method']} {keep:g}",
                family=one.about["method"],
                kinds=["needs no training" if one.about["training"] == "none" else "trained"],
                values=_values(row, batches),
                made=_made(one, keep, row),
            )
            for one, keep, row in listed
        ],
        short=about["short"],
        batches=batches,
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _values(row: PruningRow, batches: Sequence[int]) -> list[Cell | None]:
    """Return the cells of a row. A speed-up that is not significant is shown as text instead of a number."""
    cells: list[Cell | None] = [
        Cell(100 * share.value, _percent(share.low), _percent(share.high))
        for share in (row.top1, row.top1_gap, row.agreement)
    ]
    cells += [Cell(row.gflops), Cell(row.whole_gflops / row.gflops)]
    paces = {pace.batch: pace.speedup for pace in row.pace}
    for batch in batches:
        if (told := paces.get(batch)) is None:
            cells += [None, None]
            continue
        speedup = Cell(told.value, told.low, told.high) if told.measured else Cell(None, replacement=NONE)
        cells += [speedup, Cell(told.ms)]
    return cells


def _made(one: PruningResult, keep: float | None, row: PruningRow) -> dict[str, Any]:
    about, told = one.about, one.about["provenance"]
    words = ["tokbench", "prune", about["method"], "--model", about["model"], "--data", about["dataset"]]
    words += ["--keep", f"{keep:g}"] if keep is not None else []
    words += ["--limit", str(told["data"]["limit"])] if told["data"]["limit"] else []
    words += ["--kernel", told["kernel"]] if told["kernel"] != "sdpa" else []
    words += ["--round-to", str(told["round_to"])] if told["round_to"] != 1 else []
    words += ["--batches", ",".join(str(pace.batch) for pace in row.pace) or "0"]
    words += ["--repetitions", str(told["repetitions"])] if told.get("repetitions", 30) != 30 else []
    words += ["--rates", "FILE"] if row.training_seconds is None else []
    return {
        "command": shlex.join(words),
        "data": f"{about['dataset']}, pixels {told['data']['sha256'][:12]}",
        "n": about["num_images"],
        "precision": "float32",
        "device": f"{told['device']} {told['processor']}".strip(),
        "reference": "the whole network on the same images",
        "adapter": {
            "training": about["training"],
            "weights of the network": told["weights"],
            "weights": row.weights,
        },
        "versions": told.get("versions", {}),
        "numbers": {},
        "skipped": {},
    }
