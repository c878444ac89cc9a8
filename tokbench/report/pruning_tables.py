"""Token reduction as tables of the page: a row for each method and keep, one table for each device and network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import NONE, groups, legend, rows

TASK = "prune"


def tables(found: Sequence[PruningResult]) -> list[dict[str, Any]]:
    """As `tokbench.report.tables` gives them; `short`: whether the network was trained too briefly for its accuracy to
    mean anything; `batches`: for which there are times."""
    return [_table(name, members) for name, members in groups(found).items()]


def _table(name: str, members: Sequence[PruningResult]) -> dict[str, Any]:
    about = members[0].about
    listed = rows(members)
    batches = sorted({pace["batch"] for _, _, row in listed for pace in row["pace"]})
    columns = [
        _column("top1", "top-1 %", 1, True), _column("top1_gap", "less the whole's", 1, True),
        _column("agreement", "agreement %", 1, True), _column("gflops", "GFLOPs", 2, False),
        _column("fewer", "x fewer", 2, True),
    ]  # fmt: skip
    for batch in batches:
        columns += [
            _column(f"speedup_b{batch}", f"x faster, batch {batch}", 2, True),
            _column(f"ms_b{batch}", f"ms, batch {batch}", 1, False),
        ]
    return {
        "name": name,
        "dataset": about["dataset"],
        "task": TASK,
        "size": f"{about['provenance']['data']['side']}x{about['provenance']['data']['side']}",
        "n": about["num_images"],
        "protocol": about["provenance"].get("protocol", {}).get("name", "tokbench"),
        "legend": " ".join(legend(members).split()),
        "columns": columns,
        "rows": [
            {
                "adapter": one.about["method"] if keep is None else f"{one.about['method']} {keep:g}",
                "family": one.about["method"],
                "kinds": ["needs no training" if one.about["training"] == "none" else "trained"],
                "values": _values(row, batches),
                "made": _made(one, keep, row),
            }
            for one, keep, row in listed
        ],
        "ways": [],
        "curves": {},
        "short": about["short"],
        "batches": batches,
    }


def _column(field: str, title: str, digits: int, more: bool) -> dict[str, Any]:
    return {"field": field, "label": "", "title": title, "digits": digits, "more": more, "first": True}


def _values(row: dict[str, Any], batches: Sequence[int]) -> list[list[Any] | None]:
    """A speed-up that is none says so in words, in place of a number."""
    cells: list[list[Any] | None] = [
        [*(100 * row[number][end] for end in ("value", "low", "high")), 0]
        for number in ("top1", "top1_gap", "agreement")
    ]
    cells += [[row["gflops"], None, None, 0], [row["whole_gflops"] / row["gflops"], None, None, 0]]
    paces = {pace["batch"]: pace["speedup"] for pace in row["pace"]}
    for batch in batches:
        if (told := paces.get(batch)) is None:
            cells += [None, None]
            continue
        speedup = [told["value"], told["low"], told["high"], 0]
        cells += [speedup if told["measured"] else [None, None, None, 0, None, NONE], [told["ms"], None, None, 0]]
    return cells


def _made(one: PruningResult, keep: float | None, row: dict[str, Any]) -> dict[str, Any]:
    about, told = one.about, one.about["provenance"]
    words = ["tokbench", "prune", about["method"], "--model", about["model"], "--data", about["dataset"]]
    words += ["--keep", f"{keep:g}"] if keep is not None else []
    words += ["--limit", str(told["data"]["limit"])] if told["data"]["limit"] else []
    words += ["--kernel", told["kernel"]] if told["kernel"] != "sdpa" else []
    words += ["--round-to", str(told["round_to"])] if told["round_to"] != 1 else []
    words += ["--batches", ",".join(str(pace["batch"]) for pace in row["pace"]) or "0"]
    words += ["--repetitions", str(told["repetitions"])] if told.get("repetitions", 30) != 30 else []
    words += ["--rates", "FILE"] if row["training_seconds"] is None else []
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
            "weights": row["weights"],
        },
        "versions": told.get("versions", {}),
        "numbers": {},
        "skipped": {},
    }
