"""Results as Markdown tables, and the text around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokbench.io.left_out import describe_left_out
from tokbench.metric_names import CAVEAT, MetricName, base_metric, kind_of_task
from tokbench.results.cells import cells, sort_key
from tokbench.results.columns import Column
from tokbench.results.floors import FLOOR_NOTE, Floors
from tokbench.results.reference_note import against
from tokbench.results.result import Result


def markdown(results: Sequence[Result], skip: Sequence[str] = (), floors: Floors | None = None) -> str:
    """A Markdown table, aligned also as plain text: one row a result, sorted by bits, without the fields in `skip`.
    Warnings of the results stand in a line below it.

    floors: the floors of the rows; None for those among the results. Rows show their distance from them where at least
    one row has a floor.
    """
    floors = Floors(results) if floors is None else floors
    results = sorted(results, key=sort_key)
    columns, rows = cells(results)
    columns = [
        (label, column)
        for label, column in columns
        if column.field not in skip
        and not MetricName.parse(column.field).is_detail
        and any(_shown(row.get((label, column.field)), column) for row in rows)
    ]
    head = ["adapter"] + [column.title + (f" [{label}]" if label else "") + column.arrow for label, column in columns]
    body = [
        [result.adapter] + [_shown(row.get((label, column.field)), column) or "-" for label, column in columns]
        for result, row in zip(results, rows, strict=True)
    ]
    distances = [floors.distance(result) for result in results]
    if not any(distances):
        return table(head, body) + _footnote(results)
    place = 1 + floor_place([column.field for _, column in columns])
    head[place:place] = FLOOR_TITLES
    for line, distance in zip(body, distances, strict=True):
        line[place:place] = distance.cells() if distance else ("-",) * len(FLOOR_TITLES)
    return f"{table(head, body)}\n{FLOOR_NOTE}\n{_footnote(results)}"


def floor_place(fields: Sequence[str]) -> int:
    """Return the position among columns with these fields at which the columns of floors are inserted."""
    return max((place for place, field in enumerate(fields) if field in _BEFORE_FLOOR), default=-1) + 1


FLOOR_TITLES = ("floor", "PSNR - floor ↑", "LPIPS - floor ↓")
"""The titles of the columns of floors."""
_BEFORE_FLOOR = ("bits_per_image", "bpp", "psnr", "exact", "ssim", "ms_ssim", "lpips")
"""The columns of floors follow the last of these."""


def _footnote(results: Sequence[Result]) -> str:
    """A line that lists all warnings; empty where there are none."""
    said = [f"`{result.adapter}`: {warning.text}" for result in results for warning in result.warnings]
    return f"\nWarnings: {'; '.join(said)}\n" if said else ""


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int] = (0,), *, markup: bool = False
) -> str:
    """A Markdown table, aligned also as plain text; the columns at the positions `left` are set to the left. Cells are
    plain text, such as names of images, which may hold any character; with `markup` they are Markdown already."""
    if not markup:
        head, body = _escaped(head), [_escaped(line) for line in body]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(texts: Sequence[str]) -> str:
        cells = zip(texts, widths, strict=True)
        return "| " + " | ".join(t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(cells)) + " |"

    rule = "|".join(":" + "-" * (w + 1) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, body)]) + "\n"


def _escaped(texts: Sequence[str]) -> list[str]:
    """Texts that end no cell, row or code of a Markdown table: on one line, with `|`, backticks and backslashes behind
    a backslash."""
    return [re.sub(r"([\\|`])", r"\\\1", " ".join(text.splitlines())) for text in texts]


def _shown(entry: dict[str, Any] | None, column: Column) -> str:
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


def legend(results: Sequence[Result]) -> str:
    """What a reader of a leaderboard must know."""
    told = results[0].provenance
    numbers = {number for result in results for number in result.metrics}
    said = [context(results), "Sorted by bits."] if "bpp" in numbers else [context(results)]
    if any(map(base_metric, numbers)):
        said.append(CAVEAT)
    said.append("± is half of the 95 % interval over images.")
    return f"{' '.join(said)}{_fitted(results)}{_published(told)}{_left_out(results)}"


def context(results: Sequence[Result]) -> str:
    """N, size, protocol and hashes of results that belong together, and the reference where it is not their crops."""
    told = results[0].provenance
    counts = " or ".join(f"{count:,}" for count in sorted({result.num_images for result in results}))
    size = f"{told['data']['width']}x{told['data']['height']} px"
    what = f"{counts} images of {size}"
    if kind_of_task(results[0].task) == "generate":
        reference = f"{told['data']['available']:,} images of {results[0].dataset}"
        if "reference" in told:
            reference = f"the statistics file {told['reference']['file']}"
        what = f"{counts} samples of {size} against {reference}, unpaired"
    return (
        f"{what}, "
        f"protocol `{told['protocol']['name']}` ({told['protocol']['sha256'][:8]}), "
        f"pixels {told['data']['sha256'][:8]}.{against(results)}"
    )


def _fitted(results: Sequence[Result]) -> str:
    """Which images were padded or cut into tiles, since their tokenizer takes no others."""
    made: dict[str, list[str]] = {}
    for result in results:
        if note := result.provenance["adapter"].get("fitted"):
            made.setdefault(note, []).append(result.adapter)
    return "".join(f" For {', '.join(names)} images were {note}." for note, names in made.items())


def _left_out(results: Sequence[Result]) -> str:
    """Which files beside the images look like images and were not read."""
    counted = (result.provenance["data"].get("left_out") for result in results)
    return next((f" Left out: {describe_left_out(counts)}." for counts in counted if counts), "")


def _published(told: dict[str, Any]) -> str:
    """Where the protocol's authors use another size or N, that."""
    published = told["protocol"].get("published", {})
    size, count = published.get("size"), published.get("num_images")
    stated = []
    if size and size != told["data"]["width"]:
        stated.append(f"{size} px")
    if count and count != (told["data"]["limit"] or told["data"]["available"]):
        stated.append(f"N = {count:,}")
    return f" The protocol's authors use {' and '.join(stated)}." if stated else ""
