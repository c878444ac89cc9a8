"""The page's tables of token reduction: one per device and model, with a row for each method and keep ratio."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tokbench.pruning.kinds import kind_named
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import batches_of, groups, rows
from tokbench.report.page_table import PageColumn, PageRow, PageTable
from tokbench.report.pruning_views import COSTS, VIEWS, cost_cells, timing_cells

TASK = "prune"


def tables(results: Sequence[PruningResult]) -> list[PageTable]:
    """Return a table for each group of comparable results. results: of models of one kind."""
    return [_table(name, members) for name, members in groups(results).items()]


def _table(name: str, members: Sequence[PruningResult]) -> PageTable:
    about, view = members[0].about, VIEWS[members[0].kind]
    batches = batches_of(members) if view.by_batch else []
    columns = [*view.columns(members), *COSTS]
    for batch in batches:
        columns += [
            PageColumn(f"speedup_b{batch}", f"speed-up, batch {batch}", 2, True),
            PageColumn(f"ms_b{batch}", f"ms, batch {batch}", 1, False),
        ]
    columns += view.more_columns
    side = about["provenance"]["data"]["side"]
    legend = kind_named(members[0].kind).table.legend(members)
    return PageTable(
        name=name,
        dataset=about["dataset"],
        task=TASK,
        size=view.size(side),
        n=about["num_images"],
        protocol=about["provenance"].get("protocol", {}).get("name", "tokbench"),
        legend=" ".join(legend.split()),
        columns=columns,
        rows=[
            PageRow(
                adapter=result.about["method"] if keep is None else f"{result.about['method']} {keep:g}",
                family=result.about["method"],
                kinds=["needs no training" if result.about["training"] == "none" else "trained"],
                values=[
                    *view.cells(row, members), *cost_cells(row),
                    *(cell for batch in batches for cell in timing_cells(row, batch)), *view.more_cells(row),
                ],
                details=_row_details(result, keep, row),
            )
            for result, keep, row in rows(members)
        ],
        short=about["short"],
        batches=batches,
    )  # fmt: skip


def _row_details(result: PruningResult, keep: float | None, row: Any) -> dict[str, Any]:
    """Return the settings and provenance of a row, and the command that measures it again.

    keep: the keep ratio; None for a model without one.
    """
    about, provenance, view = result.about, result.about["provenance"], VIEWS[result.kind]
    unused = kind_named(result.kind).unused
    words = ["tokbench", "prune", about["method"], "--model", about["model"]]
    words += ["--data", about["dataset"]] if "data" not in unused else []
    words += ["--keep", f"{keep:g}"] if keep is not None else []
    words += ["--limit", str(provenance["data"]["limit"])] if provenance["data"]["limit"] else []
    words += ["--kernel", provenance["kernel"]] if provenance["kernel"] != "sdpa" else []
    words += ["--round-to", str(provenance["round_to"])] if provenance["round_to"] != 1 else []
    words += ["--batches", view.batches_option(row)]
    words += ["--repetitions", str(provenance["repetitions"])] if provenance.get("repetitions", 30) != 30 else []
    words += view.more_options(row)
    return {
        "command": shlex.join(words),
        "data": f"{about['dataset']}, SHA-256 {provenance['data']['sha256'][:12]}",
        "n": about["num_images"],
        "precision": "float32",
        "device": f"{provenance['device']} {provenance['processor']}".strip(),
        "reference": view.reference,
        "adapter": {
            "training": about["training"],
            "weights of the network": provenance["weights"],
            "weights": row.weights,
        },
        "versions": provenance.get("versions", {}),
        "settings": view.settings(row),
        "skipped": {},
    }
