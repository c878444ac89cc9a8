"""The tables of the page: rows, columns, intervals, ties, and the settings of every metric."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokbench.analysis.compare import difference, differs_clearly, same_settings
from tokbench.errors import ResultError
from tokbench.metric_names import MetricName, TaskName, table_of_task
from tokbench.protocol.protocol import protocols
from tokbench.report.page_table import Cell, PageColumn, PageRow, PageTable
from tokbench.results import leaderboard, markdown
from tokbench.results.cells import cells, sort_key
from tokbench.results.columns import Column
from tokbench.results.floors import FLOOR_NOTE, FloorDistance, Floors
from tokbench.results.items import describe_size
from tokbench.results.result import Result, side_of

FIRST = (
    "bpp", "bits_per_image", "psnr", "ssim", "lpips", "rfid", "rfid_768", "fd_efficientnet", "gfid", "gfid_768",
    "precision_efficientnet", "recall_efficientnet", "pfid_768", "pfid_efficientnet", "t_acc", "f_sim",
    "codebook_usage", "decode_images_per_second",
)  # fmt: skip
"""Metrics whose columns are shown by default."""


def tables(
    results: Sequence[Result], files: Mapping[str, Path], progress: Callable[[int, int], None]
) -> list[PageTable]:
    """Return a table for each group of comparable results, the longest first.

    files: variant files by adapter. progress: called after each table with the numbers of finished and of all tables.
    """
    groups, layouts, floors = leaderboard.groups(results), _layouts(files), Floors(results)
    found = []
    for done, (name, rows) in enumerate(groups.items()):
        found.append(_with_floors(_table(name, rows, layouts), rows, floors))
        progress(done + 1, len(groups))
    return sorted(found, key=lambda table: -len(table.rows))  # the page shows the first one


def _table(name: str, results: Sequence[Result], layouts: Mapping[str, str]) -> PageTable:
    results = sorted(results, key=sort_key)
    columns, rows = cells(results)
    shown = [(label, column) for label, column in columns if not MetricName.parse(column.field).is_detail]
    curves = [column.field for label, column in columns if MetricName.parse(column.field).span == "curve" and not label]
    data = results[0].provenance["data"]
    settings: list[dict[str, str]] = []
    ties = {place: _tied(column, label, results, rows) for place, (label, column) in enumerate(shown)}
    return PageTable(
        name=name,
        dataset=results[0].dataset,
        task=table_of_task(results[0].task)[0],
        size=describe_size(data),
        n=max(result.num_images for result in results),
        protocol=_protocol_of(results[0]),
        legend=markdown.legend(results, order=False).replace("`", "") + _readers(results),
        columns=[
            PageColumn(
                column.field, column.title + (f" [{label}]" if label else ""), column.digits, column.more, label,
                column.field in FIRST,
            )
            for label, column in shown
        ],
        rows=[
            PageRow(
                adapter=result.row,
                family=result.adapter.partition(".")[0],
                kinds=kinds(result, layouts),
                values=[
                    _cell(column.field, row.get((label, column.field)), result.row in ties[place], result)
                    for place, (label, column) in enumerate(shown)
                ],
                details=row_details(result, settings),
            )
            for result, row in zip(results, rows, strict=True)
        ],
        settings=settings,
        sha256=[results[0].provenance[part]["sha256"] for part in ("data", "protocol")],
        curves={
            result.row: {field: _cell(field, row.get(("", field)), False, result) for field in curves}
            for result, row in zip(results, rows, strict=True)
        },
    )  # fmt: skip


def _with_floors(table: PageTable, results: Sequence[Result], floors: Floors) -> PageTable:
    """Return the table with columns for the floors of its rows, or the same table if no row has one."""
    distances = [floors.distance(result) for result in sorted(results, key=sort_key)]
    if not any(distances):
        return table
    name, psnr, lpips = markdown.FLOOR_TITLES
    place = markdown.floor_place([column.field for column in table.columns])
    columns = list(table.columns)
    columns[place:place] = [
        PageColumn("floor", name, 0, None),
        PageColumn("psnr_minus_floor", psnr.removesuffix(" ↑"), 2, True),
        PageColumn("lpips_minus_floor", lpips.removesuffix(" ↓"), 4, False),
    ]
    rows = [
        replace(row, values=[*row.values[:place], *_floor_cells(distance), *row.values[place:]])
        for row, distance in zip(table.rows, distances, strict=True)
    ]
    return replace(table, columns=columns, rows=rows, legend=f"{table.legend} {FLOOR_NOTE}")


def _floor_cells(distance: FloorDistance | None) -> tuple[Cell | None, Cell | None, Cell | None]:
    """Return the cells of the columns floor, PSNR - floor and LPIPS - floor."""
    if distance is None:
        return None, None, None
    lpips = None if distance.lpips is None else Cell(_short(distance.lpips))
    return Cell(None, replacement=distance.floor), Cell(_short(distance.psnr)), lpips


def _readers(results: Sequence[Result]) -> str:
    """Return sentences that list the readers of words and faces and the feature networks of the results' metrics."""
    settings = [own for result in results for own in result.provenance["metrics"].values()]
    readers = list(dict.fromkeys(own["reader"] for own in settings if "reader" in own))
    networks = list(dict.fromkeys(own["network"] for own in settings if "network" in own))
    text = f" Read by {', '.join(readers)}." if readers else ""
    return text + (f" Networks: {', '.join(networks)}." if networks else "")


def _cell(field: str, entry: dict[str, Any] | None, tied: bool, result: Result) -> Cell | None:
    """Return the cell of a metric, or None if it has no value. A PSNR without a value belongs to exact images."""
    if entry is None or (entry["value"] is None and field != "psnr"):
        return None
    value, low, high = (_short(entry.get(key)) for key in ("value", "low", "high"))
    n = entry.get("n", result.num_images)
    if value is None:
        return Cell(value, low, high, tied, n, "exact")
    return Cell(value, low, high, tied, None if n == result.num_images else n)


def _short(value: float | None) -> float | None:
    """Round to ten digits, which exceeds the precision of every metric and keeps counts exact."""
    return None if value is None else float(f"{value:.10g}")


def _tied(column: Column, label: str, results: Sequence[Result], rows: Sequence[dict[Any, Any]]) -> set[str]:
    """Return the best adapter of a column, and those that do not differ from it significantly in a paired comparison.

    The set is empty if neither direction of the metric is better, or if fewer than two rows have a value. `identity` is
    excluded, because it returns the images themselves.
    """
    metric, key = column.field, (label, column.field)
    candidates = [
        (row[key]["value"], result)
        for result, row in zip(results, rows, strict=True)
        if key in row and row[key]["value"] is not None and result.adapter != "identity"
    ]
    if column.more is None or len(candidates) < 2:
        return set()
    best = (max if column.more else min)(candidates, key=lambda pair: pair[0])[1]
    tied = {best.row}
    for _, other in candidates:
        unlike = other is best or not same_settings(metric, best, other)
        if unlike or differs_clearly(metric, best, other):
            continue
        try:
            verdict = difference(metric, best, other).verdict
        except (KeyError, ResultError):
            continue
        if verdict in ("same", "cannot tell"):
            tied.add(other.row)
    return tied


_LAYOUT = re.compile(r"^\| tokens \| ([12]D)\b", re.MULTILINE)
"""The line of a model card that states whether the tokens form a sequence (1D) or a grid (2D)."""


def _layouts(files: Mapping[str, Path]) -> dict[str, str]:
    """Return "1D" or "2D" by family, from the model cards."""
    folders = {name.partition(".")[0]: path.parent for name, path in files.items()}
    cards = {family: folder / "README.md" for family, folder in folders.items()}
    found = {family: _LAYOUT.search(card.read_text("utf-8")) for family, card in cards.items() if card.is_file()}
    return {family: match[1] for family, match in found.items() if match}


def kinds(result: Result, layouts: Mapping[str, str]) -> list[str]:
    """Return the categories of a row, which readers can filter by.

    These are discrete, continuous, codec or images; 1D or 2D if `layouts` has the family; variable length; generator.
    """
    adapter = result.provenance["adapter"]
    found = [str(adapter["kind"])]
    tokenizer = str(adapter.get("tokenizer", result.adapter))  # a generator has the tokens of its tokenizer
    if layout := layouts.get(tokenizer.partition(".")[0]):
        found.append(layout)
    if adapter.get("variable") or adapter.get("prefixes"):
        found.append("variable length")
    if adapter.get("tokenizer"):
        found.append("generator")
    return found


def row_details(result: Result, settings: list[dict[str, str]]) -> dict[str, Any]:
    """Return the settings and provenance of a row.

    The value of the key "settings" is, by metric, the position of its settings in `settings`, to which new ones are
    appended. The other values apply to all metrics of the row.
    """
    provenance, positions = result.provenance, {}
    for metric, own in provenance["metrics"].items():
        if not MetricName.parse(metric).is_detail:
            if own not in settings:
                settings.append(own)
            positions[metric] = settings.index(own)
    adapter = {key: value for key, value in provenance["adapter"].items() if key != "source"}
    return {
        "command": command(result),
        "protocol": f"{provenance['protocol']['name']} ({provenance['protocol']['sha256'][:12]})",
        "data": f"{result.dataset}, pixels {provenance['data']['sha256'][:12]}",
        "n": result.num_images,
        "seed": provenance["seed"],
        "precision": provenance["precision"],
        "device": provenance["device"],
        "reference": provenance.get("reference", {}).get("file", "the images themselves"),
        "adapter": adapter,
        "versions": provenance.get("versions", {}),
        "settings": positions,
        "skipped": result.skipped,
        "warnings": [warning.text for warning in result.warnings],
    }


def _protocol_of(result: Result) -> str:
    """Return the name of the protocol, with the degradation of the input if there is one."""
    rules, restorer = result.provenance["protocol"], result.provenance.get("restore")
    degraded = [rules["degrade"]] if rules.get("degrade") else []
    return ", ".join([rules["name"], *degraded, *([f"restored by {restorer['name']}"] if restorer else [])])


def command(result: Result) -> str:
    """Return the command that computes the metrics of a row again.

    It contains a placeholder if the images are a folder of the user, whose path results do not contain.
    """
    provenance = result.provenance
    data = provenance["data"]
    names = (name for name in map(MetricName.parse, result.metrics) if not name.is_cell)
    metrics = list(dict.fromkeys(name.metric for name in names if name.metric))
    task = TaskName.parse(result.task)
    words = ["tokbench", "eval", provenance["adapter"].get("source", result.adapter)]
    named = data["own_size"] is not None  # otherwise it is a folder, and its name in the result has a hash
    if task.kind != "generate" or not provenance.get("reference"):  # samples have one reference: images or statistics
        words += ["--data", result.dataset if named else f"THE FOLDER OF {result.dataset}"]
    if data["limit"]:
        words += ["--limit", str(data["limit"])]
        words += [] if named or task.kind == "generate" or data.get("sampling") == "even" else ["--first"]
    side = side_of(data)
    if side and data["own_size"] != side and (named or task.kind != "generate"):
        words += ["--size", str(side)]
    if (protocol := provenance["protocol"]["name"]) != "tokbench":
        words += ["--protocol", protocol if protocol in protocols() else f"{protocol}.toml"]
    if degrade := provenance["protocol"].get("degrade"):
        words += ["--degrade", degrade]
    if restorer := provenance.get("restore"):
        words += ["--restore", restorer.get("source", restorer["name"])]
    if task.kind != "reconstruct":
        words += ["--task", task.kind]
    if task.tokens is not None:
        words += ["--tokens", str(task.tokens)]
    if task.anchor != "latent":
        words += ["--anchor", task.anchor]
    if task.guidance is not None:
        words += ["--cfg", f"{task.guidance:g}"]
    if task.decoder:
        words += ["--decoder", task.decoder]
    if reference := provenance.get("reference"):
        words += ["--reference", reference["file"]]
    words += ["--metrics", ",".join(metrics)]
    if provenance["seed"]:
        words += ["--seed", str(provenance["seed"])]
    if provenance["precision"] != "float32":
        words += ["--precision", provenance["precision"]]
    sizes = {own["batch_size"] for own in provenance["metrics"].values() if "batch_size" in own}
    if len(sizes) == 1 and (size := sizes.pop()) != "16":  # speeds depend on it
        words += ["--batch-size", size]
    return shlex.join([*words, "--device", provenance["device"]])
