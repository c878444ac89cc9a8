"""Markdown tables of results, and the text above and below them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokbench.io.counts import count_of
from tokbench.io.left_out import describe_left_out
from tokbench.metric_names import CAVEAT, MetricName, Section, base_metric, kind_of_task
from tokbench.results.cells import cells, sort_key
from tokbench.results.columns import Column, section_of
from tokbench.results.floors import FLOOR_NOTE, Floors
from tokbench.results.items import describe_size, noun_of
from tokbench.results.reference_note import reference_note
from tokbench.results.result import Result
from tokbench.results.taxonomy import taxonomy_columns


@dataclass
class Grid:
    """The texts of a table of results.

    head: titles of the columns; the first column has the names of the adapters. sections: the section of each column
    after the first. body: one list of cells per result, "-" for a missing value. distances: whether there are columns
    of floors, which FLOOR_NOTE explains. warnings: name of the adapter and text of each warning.
    """

    head: list[str]
    sections: list[Section]
    body: list[list[str]]
    distances: bool
    warnings: list[tuple[str, str]]


def grid(results: Sequence[Result], skip: Sequence[str] = (), floors: Floors | None = None) -> Grid:
    """Return the texts of the table of `markdown`, which has the same arguments."""
    floors = Floors(results) if floors is None else floors
    results = sorted(results, key=sort_key)
    columns, rows = cells(results)
    columns = [
        (label, column)
        for label, column in columns
        if column.field not in skip
        and not MetricName.parse(column.field).is_detail
        and any(cell_text(row.get((label, column.field)), column) for row in rows)
    ]
    head = ["adapter"] + [column.title + (f" [{label}]" if label else "") + column.arrow for label, column in columns]
    sections = [section_of(column.field) for _, column in columns]
    body = [
        [result.row] + [cell_text(row.get((label, column.field)), column) or "-" for label, column in columns]
        for result, row in zip(results, rows, strict=True)
    ]
    distances = [floors.distance(result) for result in results]
    if any(distances):
        place = 1 + floor_place([column.field for _, column in columns])
        head[place:place] = FLOOR_TITLES
        sections[place - 1 : place - 1] = [Section.PAIRED] * len(FLOOR_TITLES)
        for line, distance in zip(body, distances, strict=True):
            line[place:place] = distance.cells() if distance else ("-",) * len(FLOOR_TITLES)
    for name, entries in taxonomy_columns(results).items():
        head.append(name)
        sections.append(Section.ADDED)
        for line, entry in zip(body, entries, strict=True):
            line.append(entry or "-")
    warnings = [(result.row, warning.text) for result in results for warning in result.warnings]
    return Grid(head, sections, body, any(distances), warnings)


def markdown(results: Sequence[Result], skip: Sequence[str] = (), floors: Floors | None = None) -> str:
    """Return a table with one row per result, sorted by bits per pixel, and a line below it that lists their warnings.

    skip: metrics that the table leaves out. floors: the floors of the rows; None for those among the results. Rows show
    their distance from them if at least one row has a floor.
    """
    found = grid(results, skip, floors)
    note = f"\n{FLOOR_NOTE}\n" if found.distances else ""
    return f"{table(found.head, found.body)}{note}{_footnote(found.warnings)}"


def floor_place(fields: Sequence[str]) -> int:
    """Return the position among columns with these fields at which the columns of floors are inserted."""
    return max((place for place, field in enumerate(fields) if field in _BEFORE_FLOOR), default=-1) + 1


FLOOR_TITLES = ("floor", "PSNR - floor ↑", "LPIPS - floor ↓")
"""The titles of the columns of floors."""
_BEFORE_FLOOR = ("bits_per_image", "bpp", "psnr", "exact", "ssim", "ms_ssim", "lpips")
"""The columns of floors follow the last of these."""


def _footnote(warnings: Sequence[tuple[str, str]]) -> str:
    """Return the line that lists all warnings; empty if there are none."""
    return f"\nWarnings: {'; '.join(f'`{adapter}`: {text}' for adapter, text in warnings)}\n" if warnings else ""


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int] = (0,), *, markup: bool = False
) -> str:
    """Return a Markdown table whose columns are also aligned in plain text.

    left: positions of the columns that are aligned to the left. markup: whether the cells are Markdown; otherwise they
    are plain text, such as names of images, and are escaped.
    """
    if not markup:
        head, body = _escaped(head), [_escaped(line) for line in body]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(texts: Sequence[str]) -> str:
        cells = zip(texts, widths, strict=True)
        return "| " + " | ".join(t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(cells)) + " |"

    rule = "|".join(":" + "-" * (w + 1) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, body)]) + "\n"


def _escaped(texts: Sequence[str]) -> list[str]:
    """Escape texts for a cell of a Markdown table: line breaks become spaces, and `|`, backticks and backslashes get a
    backslash."""
    return [re.sub(r"([\\|`])", r"\\\1", " ".join(text.splitlines())) for text in texts]


def cell_text(entry: dict[str, Any] | None, column: Column) -> str:
    """Return the text of a cell from its entry in a result; empty if it has no value that a table shows."""
    if entry is None:
        return ""
    if entry["value"] is None:
        return "exact" if column.field == "psnr" else ""
    if column.field == "exact" and not entry["value"]:
        return ""
    text = f"{entry['value']:,.{column.digits}f}"
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or high == low:
        return text
    return f"{text} ± {(high - low) / 2:,.{column.digits}f}"


def legend(results: Sequence[Result], *, order: bool = True) -> str:
    """Return the text above the table of a leaderboard. order: whether it names the order of the rows."""
    metrics = {metric for result in results for metric in result.metrics}
    sentences = [context(results), "Sorted by bits."] if order and "bpp" in metrics else [context(results)]
    if any(map(base_metric, metrics)):
        sentences.append(CAVEAT)
    sentences.append(f"± is half of the 95 % interval over {noun_of(results[0])}s.")
    return f"{' '.join(sentences)}{_fitted(results)}{_published(results)}{_left_out(results)}"


def context(results: Sequence[Result]) -> str:
    """Return N, size, protocol and hashes of the results of one table, and the reference if it is not their crops."""
    provenance = results[0].provenance
    data, protocol = provenance["data"], provenance["protocol"]
    counts = " or ".join(f"{count:,}" for count in sorted({result.num_images for result in results}))
    size, noun = describe_size(data), noun_of(results[0])
    single = all(result.num_images == 1 for result in results)
    what = f"{counts} {noun}{'' if single else 's'} of {size}"
    if kind_of_task(results[0].task) == "generate":
        reference = f"{count_of(data['available'], 'image')} of {results[0].dataset}"
        if "reference" in provenance:
            reference = f"the statistics file {provenance['reference']['file']}"
        what = f"{counts} {'sample' if single else 'samples'} of {size} against {reference}, unpaired"
    return (
        f"{what}, "
        f"protocol `{protocol['name']}` ({protocol['sha256'][:8]}), {_degraded(provenance)}"
        f"pixels {data['sha256'][:8]}.{reference_note(results)}"
    )


def _degraded(provenance: Mapping[str, Any]) -> str:
    damage, restorer = provenance["protocol"].get("degrade"), provenance.get("restore")
    restored = f", restored by `{restorer['name']}`" if restorer else ""
    return f"input degraded by {damage}{restored} and compared with the clean images, " if damage else ""


def _fitted(results: Sequence[Result]) -> str:
    """Return which tokenizers received padded images or tiles, because they accept only certain sizes."""
    adapters: dict[str, list[str]] = {}
    for result in results:
        if note := result.provenance["adapter"].get("fitted"):
            adapters.setdefault(note, []).append(result.row)
    return "".join(f" For {', '.join(names)} {noun_of(results[0])}s were {note}." for note, names in adapters.items())


def _left_out(results: Sequence[Result]) -> str:
    """Return how many files beside the images look like images but were not read."""
    left_out = (result.provenance["data"].get("left_out") for result in results)
    return next((f" Left out: {describe_left_out(counts)}." for counts in left_out if counts), "")


def _published(results: Sequence[Result]) -> str:
    """Return the size and N of the protocol's authors if they differ from those of the results."""
    data = results[0].provenance["data"]
    published = results[0].provenance["protocol"].get("published", {})
    size, count = published.get("size"), published.get("num_images")
    stated = []
    if size and size != data["width"]:
        stated.append(f"{size} px")
    if count and count != (data["limit"] or data["available"]):
        stated.append(f"N = {count:,}")
    return f" The protocol's authors use {' and '.join(stated)}." if stated else ""
