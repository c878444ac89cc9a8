"""The tables of the page: rows, columns, intervals, ties, and how every number was computed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokbench.analysis.compare import difference, same_settings
from tokbench.errors import ResultError
from tokbench.metric_names import MetricName, TaskName
from tokbench.protocol.protocol import protocols
from tokbench.report.page_table import Cell, PageColumn, PageRow, PageTable
from tokbench.results import leaderboard, markdown
from tokbench.results.cells import cells, sort_key
from tokbench.results.columns import Column
from tokbench.results.result import Result

FIRST = (
    "bpp", "bits_per_image", "psnr", "ssim", "lpips", "rfid", "rfid_768", "fd_efficientnet", "gfid", "gfid_768",
    "precision_efficientnet", "recall_efficientnet", "pfid_768", "pfid_efficientnet", "t_acc", "f_sim",
    "codebook_usage", "decode_images_per_second",
)  # fmt: skip
"""Numbers whose columns are shown before a reader chooses others."""


def tables(
    results: Sequence[Result], files: Mapping[str, Path], progress: Callable[[int, int], None]
) -> list[PageTable]:
    """Return a table for each group of comparable results. files: variant files by adapter."""
    found, layouts = leaderboard.groups(results), _layouts(files)
    made = []
    for done, (name, rows) in enumerate(found.items()):
        made.append(_table(name, rows, layouts))
        progress(done + 1, len(found))
    return sorted(made, key=lambda table: -len(table.rows))  # the page shows the first one


def _table(name: str, results: Sequence[Result], layouts: Mapping[str, str]) -> PageTable:
    results = sorted(results, key=sort_key)
    columns, rows = cells(results)
    shown = [(label, column) for label, column in columns if not MetricName.parse(column.field).is_detail]
    curves = [column.field for label, column in columns if MetricName.parse(column.field).span == "curve" and not label]
    told = results[0].provenance
    ways: list[dict[str, str]] = []
    ties = {place: _tied(column, label, results, rows) for place, (label, column) in enumerate(shown)}
    return PageTable(
        name=name,
        dataset=results[0].dataset,
        task=results[0].task,
        size=f"{told['data']['width']}x{told['data']['height']}",
        n=max(result.num_images for result in results),
        protocol=told["protocol"]["name"],
        legend=markdown.legend(results) + _readers(results),
        columns=[
            PageColumn(
                column.field, column.title + (f" [{label}]" if label else ""), column.digits, column.more, label,
                column.field in FIRST,
            )
            for label, column in shown
        ],
        rows=[
            PageRow(
                adapter=result.adapter,
                family=result.adapter.partition(".")[0],
                kinds=kinds(result, layouts),
                values=[
                    _cell(column.field, row.get((label, column.field)), result.adapter in ties[place], result)
                    for place, (label, column) in enumerate(shown)
                ],
                made=made(result, ways),
            )
            for result, row in zip(results, rows, strict=True)
        ],
        ways=ways,
        curves={
            result.adapter: {field: _cell(field, row.get(("", field)), False, result) for field in curves}
            for result, row in zip(results, rows, strict=True)
        },
    )  # fmt: skip


def _readers(results: Sequence[Result]) -> str:
    """Who has read the words and faces of a table, and which networks looked at its images."""
    ways = [way for result in results for way in result.provenance["metrics"].values()]
    read = list(dict.fromkeys(way["reader"] for way in ways if "reader" in way))
    seen = list(dict.fromkeys(way["network"] for way in ways if "network" in way))
    said = f" Read by {', '.join(read)}." if read else ""
    return said + (f" Networks: {', '.join(seen)}." if seen else "")


def _cell(field: str, entry: dict[str, Any] | None, tied: bool, result: Result) -> Cell | None:
    """Return the cell of a metric, or None where it has no value. A PSNR without a value is that of exact images."""
    if entry is None or (entry["value"] is None and field != "psnr"):
        return None
    value, low, high = (_short(entry.get(key)) for key in ("value", "low", "high"))
    n = entry.get("n", result.num_images)
    if value is None:
        return Cell(value, low, high, tied, n, "exact")
    return Cell(value, low, high, tied, None if n == result.num_images else n)


def _short(value: float | None) -> float | None:
    """Ten digits: more than any interval leaves sure, and as many as a count can have."""
    return None if value is None else float(f"{value:.10g}")


def _tied(column: Column, label: str, results: Sequence[Result], rows: Sequence[dict[Any, Any]]) -> set[str]:
    """The best row's adapter and those whose paired difference from it may be noise; none where a number has no better
    or worse, or stands in one row. The images themselves do not take part."""
    number, key = column.field, (label, column.field)
    having = [
        (row[key]["value"], result)
        for result, row in zip(results, rows, strict=True)
        if key in row and row[key]["value"] is not None and result.adapter != "identity"
    ]
    if column.more is None or len(having) < 2:
        return set()
    best = (max if column.more else min)(having, key=lambda one: one[0])[1]
    tied = {best.adapter}
    for _, other in having:
        if other is best or not same_settings(number, best, other):
            continue
        try:
            verdict = difference(number, best, other).verdict
        except (KeyError, ResultError):
            continue
        if verdict in ("same", "cannot tell"):
            tied.add(other.adapter)
    return tied


_LAYOUT = re.compile(r"^\| tokens \| ([12]D)\b", re.MULTILINE)
"""The line of a card that says whether tokens are a row or a grid."""


def _layouts(files: Mapping[str, Path]) -> dict[str, str]:
    """1D or 2D by family, as the cards say."""
    folders = {name.partition(".")[0]: path.parent for name, path in files.items()}
    cards = {family: folder / "README.md" for family, folder in folders.items()}
    found = {family: _LAYOUT.search(card.read_text("utf-8")) for family, card in cards.items() if card.is_file()}
    return {family: match[1] for family, match in found.items() if match}


def kinds(result: Result, layouts: Mapping[str, str]) -> list[str]:
    """What a reader can filter by: discrete, continuous, codec or images; 1D or 2D; variable length; generator."""
    told = result.provenance["adapter"]
    found = [str(told["kind"])]
    below = str(told.get("tokenizer", result.adapter))  # a generator's tokens are its tokenizer's
    if layout := layouts.get(below.partition(".")[0]):
        found.append(layout)
    if told.get("variable") or told.get("prefixes"):
        found.append("variable length")
    if told.get("tokenizer"):
        found.append("generator")
    return found


def made(result: Result, ways: list[dict[str, str]]) -> dict[str, Any]:
    """How a row was made: what all its numbers share, and what each has of its own, a place in `ways`, which grows."""
    told, numbers = result.provenance, {}
    for number, way in told["metrics"].items():
        if not MetricName.parse(number).is_detail:
            if way not in ways:
                ways.append(way)
            numbers[number] = ways.index(way)
    adapter = {key: value for key, value in told["adapter"].items() if key not in ("source",)}
    return {
        "command": command(result),
        "protocol": f"{told['protocol']['name']} ({told['protocol']['sha256'][:12]})",
        "data": f"{result.dataset}, pixels {told['data']['sha256'][:12]}",
        "n": result.num_images,
        "seed": told["seed"],
        "precision": told["precision"],
        "device": told["device"],
        "reference": told.get("reference", {}).get("file", "the images themselves"),
        "adapter": adapter,
        "versions": told.get("versions", {}),
        "numbers": numbers,
        "skipped": result.skipped,
        "warnings": [warning.text for warning in result.warnings],
    }


def command(result: Result) -> str:
    """What measures the row again."""
    told = result.provenance
    data = told["data"]
    numbers = (name for name in map(MetricName.parse, result.metrics) if not name.is_cell)
    metrics = list(dict.fromkeys(name.metric for name in numbers if name.metric))
    task = TaskName.parse(result.task)
    words = ["tokbench", "eval", told["adapter"].get("source", result.adapter)]
    named = data["own_size"] is not None  # else it is a folder, which was called by its name and a hash of its files
    if task.kind != "generate" or not told.get("reference"):  # samples are compared with the one or with the other
        words += ["--data", result.dataset if named else f"THE FOLDER OF {result.dataset}"]
    if data["limit"]:
        words += ["--limit", str(data["limit"])]
        words += [] if named or task.kind == "generate" or data.get("sampling") == "even" else ["--first"]
    square = data["width"] == data["height"]
    if square and data["own_size"] != data["width"] and (named or task.kind != "generate"):
        words += ["--size", str(data["width"])]
    if (protocol := told["protocol"]["name"]) != "tokbench":
        words += ["--protocol", protocol if protocol in protocols() else f"{protocol}.toml"]
    if task.kind != "reconstruct":
        words += ["--task", task.kind]
    if task.tokens is not None:
        words += ["--tokens", str(task.tokens)]
    if task.anchor != "latent":
        words += ["--anchor", task.anchor]
    if task.guidance is not None:
        words += ["--cfg", f"{task.guidance:g}"]
    if reference := told.get("reference"):
        words += ["--reference", reference["file"]]
    words += ["--metrics", ",".join(metrics)]
    if told["seed"]:
        words += ["--seed", str(told["seed"])]
    if told["precision"] != "float32":
        words += ["--precision", told["precision"]]
    sizes = {way["batch_size"] for way in told["metrics"].values() if "batch_size" in way}
    if len(sizes) == 1 and (size := sizes.pop()) != "16":  # speeds depend on it
        words += ["--batch-size", size]
    return shlex.join([*words, "--device", told["device"]])
