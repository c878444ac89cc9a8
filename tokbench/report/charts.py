"""The page's plots as Vega-Lite: quality against bits, gFID against what a tokenizer is, speed, words and faces.

Every point is a row of a table: `row` is what a click leads to, and all points stand in a list beside the plot, for
those who cannot see or point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt

from tokbench.report.page_table import Cell, PageRow, PageTable
from tokbench.report.pruning_tables import TASK
from tokbench.results.columns import column_of

CODECS = ("jpeg", "webp", "avif", "resize")

Point = dict[str, Any]
"""`row` and `said` (what it is called), `line` and `kind` (what it is joined with, and coloured by), `x`, `y`, `low`,
`high`, and `interval` in words."""


def charts(tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    """`{title, table, note, axes, points, spec}` of every plot that the tables have points for."""
    made: list[dict[str, Any]] = []
    for table in tables:
        if table.task == "reconstruct":
            made += _rates(table, tables)
            made += _speeds(table)
            made += _curves(table)
        if table.task.startswith("generate"):
            made += _generators(table, tables)
        if table.task == TASK:
            made += _pruning(table)
    return made


def _point(row: PageRow, x: float | None, cell: Cell, digits: int, also: str = "") -> Point:
    family = row.family
    y, low, high = cell.value, cell.low, cell.high
    return {
        "row": row.adapter,
        "said": row.adapter + also,
        "line": family if family in CODECS else row.adapter,
        "kind": family if family in CODECS else row.kinds[0],
        "x": x, "y": y, "low": low, "high": high,
        "interval": "none" if low is None or high is None else f"{low:,.{digits}f} to {high:,.{digits}f}",
    }  # fmt: skip


def _points(table: PageTable, x: str, y: str) -> list[Point]:
    """Of rows that have both numbers. The images themselves are a corner of every plot, and left out."""
    places = {column.field: place for place, column in enumerate(table.columns) if not column.label}
    if x not in places or y not in places:
        return []
    task, _, count = table.task.partition("-")
    also = f", the first {count} of its tokens" if task == "truncate" else ""
    found = []
    for row in table.rows:
        left, right = row.values[places[x]], row.values[places[y]]
        if row.family != "identity" and left and right and None not in (left.value, right.value):
            found.append(_point(row, left.value, right, column_of(y)[1].digits, also))
    return found


def front(points: Sequence[Point], more: bool, fewer: bool = True) -> list[Point]:
    """Those that no other point beats in both: fewer `x` (or more of it), better `y`. The best in x come first."""
    best, found = None, []
    for point in sorted(points, key=lambda one: (one["x"] if fewer else -one["x"], -one["y"] if more else one["y"])):
        if best is None or (point["y"] > best if more else point["y"] < best):
            best = point["y"]
            found.append(point)
    return found


def _plot(points: Sequence[Point], x: str, y: str, *, log: bool = False, fewer: bool | None = None) -> dict[str, Any]:
    """Points with intervals, joined by `line`. fewer: whether less of x is better, for the front; None for no front."""
    across, up = column_of(x)[1], column_of(y)[1]
    scale = alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(zero=False)
    place = alt.X("x:Q", title=f"{across.title}{across.arrow}", scale=scale)
    height = alt.Y("y:Q", title=f"{up.title}{up.arrow}", scale=alt.Scale(zero=False))
    said = [
        alt.Tooltip("said:N", title="row"), alt.Tooltip("x:Q", title=across.title, format=f",.{across.digits}f"),
        alt.Tooltip("y:Q", title=up.title, format=f",.{up.digits}f"), alt.Tooltip("interval:N"),
    ]  # fmt: skip
    colour = alt.Color("kind:N", title=None)
    base = alt.Chart(alt.Data(values=list(points))).encode(x=place, y=height, color=colour)
    layers: list[Any] = [
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_line(strokeWidth=1, opacity=0.6).encode(detail="line:N"),
        base.mark_point(filled=True, size=70, opacity=1).encode(tooltip=said),
    ]
    if fewer is not None and up.more is not None:
        edge = alt.Chart(alt.Data(values=front(points, up.more, fewer)))
        line = edge.mark_line(interpolate="step-after" if fewer else "step-before", strokeDash=[4, 3], color="gray")
        layers.insert(0, line.encode(x=place, y=height))
    return _whole(layers)


def _whole(layers: Sequence[Any]) -> dict[str, Any]:
    spec: dict[str, Any] = alt.layer(*layers).properties(width="container", height=320).to_dict()
    return spec


def _rates(table: PageTable, tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    group = table.name.removesuffix(table.task)
    shorter = [one for one in tables if one.task.startswith("truncate-") and one.name == group + one.task]
    made = []
    for number in ("psnr", "lpips", "rfid", "rfid_768", "fd_efficientnet"):
        points = [point for one in (table, *shorter) for point in _points(one, "bits_per_image", number)]
        points = [point for point in points if point["x"] > 0]
        if len({point["row"] for point in points}) >= 3:
            spec = _plot(points, "bits_per_image", number, log=True, fewer=True)
            title = f"{column_of(number)[1].title} against bits"
            note = "With codecs, resizing and shorter rows of tokens. Dashed: what nothing beats at fewer bits."
            made.append(_entry(table, title, note, points, ("bits_per_image", number), spec))
    return made


def _speeds(table: PageTable) -> list[dict[str, Any]]:
    made = []
    for speed in ("encode_images_per_second", "decode_images_per_second"):
        if len(points := _points(table, speed, "psnr")) >= 3:
            note = "Speeds of one machine; between machines they do not compare. Dashed: what nothing faster beats."
            spec = _plot(points, speed, "psnr", log=True, fewer=False)
            made.append(_entry(table, f"PSNR against {column_of(speed)[1].title}", note, points, (speed, "psnr"), spec))
    return made


KINDS = {"t_acc": "Words read right against pixels per character", "f_sim": "Faces against their width"}


def _curves(table: PageTable) -> list[dict[str, Any]]:
    """Accuracy over pixels per character, or over a face's width: a line for each row, and the ceiling of scaling."""
    made = []
    for kind, title in KINDS.items():
        column, points = column_of(kind)[1], []
        for row in table.rows:
            for field, cell in table.curves[row.adapter].items():
                name, _, span = field.partition("_curve.")
                if cell is None or name not in (kind, f"{kind}_ceiling") or (at := _middle(span)) is None:
                    continue
                line = row.adapter if name == kind else "only scaled: the ceiling"
                if name == kind or row is table.rows[0]:  # which all rows share
                    points.append(_point(row, at, cell, column.digits) | {"line": line, "said": f"{line}, {span} px"})
        if not points:
            continue
        said = [alt.Tooltip("said:N", title="row"), alt.Tooltip("y:Q", title=column.title, format=".3f")]
        base = alt.Chart(alt.Data(values=points)).encode(
            x=alt.X("x:Q", title="pixels", scale=alt.Scale(type="log", nice=False, padding=12)),
            y=alt.Y("y:Q", title=f"{column.title}{column.arrow}", scale=alt.Scale(zero=False)),
            color=alt.Color("line:N", title=None, scale=alt.Scale(scheme="tableau20")),
            tooltip=[*said, alt.Tooltip("interval:N")],
        )
        intervals = base.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
        spec = _whole([intervals, base.mark_line(strokeWidth=1), base.mark_point(filled=True, size=40, opacity=1)])
        made.append(_entry(table, title, "A bin stands at its middle.", points, ("pixels", kind), spec))
    return made


def _middle(span: str) -> float | None:
    """Of `8 to 10`, in the middle; of `below 4` half of it, and of `from 40` that edge, which has no other."""
    edges = [float(edge) for edge in re.findall(r"\d+(?:\.\d+)?", span)]
    if not edges:
        return None
    return edges[0] / 2 if span.startswith("below") else sum(edges) / len(edges)


def _generators(table: PageTable, tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    """gFID of generators against what their tokenizers' own rows say; where there is none, FD-EfficientNet."""
    below: dict[str, dict[str, float]] = {}
    for one in tables:
        if one.dataset == table.dataset and one.task in ("reconstruct", "perturb"):
            for row in one.rows:
                values = zip(one.columns, row.values, strict=True)
                known = {column.field: cell.value for column, cell in values if cell and cell.value is not None}
                below[row.adapter] = below.get(row.adapter, {}) | known
    fields = [column.field for column in table.columns]
    goal = next((number for number in ("gfid", "gfid_768", "fd_efficientnet") if number in fields), None)
    if goal is None:
        return []
    made, up = [], column_of(goal)[1]
    for number in ("rfid", "rfid_768", "pfid", "pfid_768", "pfid_efficientnet", "fd_efficientnet"):
        points = []
        for row in table.rows:
            tokenizer, cell = row.made["adapter"].get("tokenizer"), row.values[fields.index(goal)]
            if cell and cell.value is not None and number in below.get(tokenizer, {}):
                point = _point(row, below[tokenizer][number], cell, up.digits, f" over {tokenizer}")
                points.append(point | {"kind": row.family})
        if len(points) >= 3:
            title = f"{up.title} of samples against {column_of(number)[1].title} of the tokenizer"
            made.append(_entry(table, title, "", points, (number, goal), _plot(points, number, goal)))
    return made


def _pruning(table: PageTable) -> list[dict[str, Any]]:
    """Accuracy against what a clock saw and against what counting operations promises, side by side."""
    places = {column.field: place for place, column in enumerate(table.columns)}
    field, points = "agreement" if table.short else "top1", []
    for row in table.rows:
        for batch in table.batches or ():
            if (faster := row.values[places[f"speedup_b{batch}"]]) is not None:
                named, fewer = row.values[places[field]], row.values[places["fewer"]]
                assert named and fewer  # every row has them
                point = _point(row, faster.value, named, 1, f", batch {batch}")
                points.append(point | {"kind": row.family, "fewer": fewer.value, "told": faster.said or ""})
    if not points:
        return []
    height = "% named as by the whole network" if table.short else "top-1, %"
    said = [alt.Tooltip("said:N", title="row"), alt.Tooltip("told:N", title="speed-up"), alt.Tooltip("interval:N")]
    titles = {"x": "x faster", "fewer": "x fewer", "y": "accuracy"}
    said += [alt.Tooltip(f"{name}:Q", title=title, format=".2f") for name, title in titles.items()]
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("y:Q", title=height, scale=alt.Scale(zero=False)), color=alt.Color("kind:N", title=None), tooltip=said
    )
    dots = base.mark_point(filled=True, opacity=1)
    measured = dots.transform_filter("datum.x !== null").encode(x=alt.X("x:Q", title="times faster, measured"))
    counted = dots.encode(x=alt.X("fewer:Q", title="times fewer FLOPs"))
    both = alt.hconcat(measured.properties(width=320, height=320), counted.properties(width=320, height=320))
    note = "Left: what a clock saw; what has no measured speed-up is not there. Right: what counting promises."
    title = "Accuracy against speed-up of reduced tokens"
    return [_entry(table, title, note, points, ("x faster", height), both.to_dict())]


def _entry(
    table: PageTable, title: str, note: str, points: Sequence[Point], axes: tuple[str, str], spec: dict[str, Any]
) -> dict[str, Any]:
    return {
        "title": title,
        "table": table.name,
        "note": note,
        "axes": [column_of(axis)[1].title for axis in axes],
        "points": [[point["said"], point["x"], point["y"], point["row"]] for point in points],
        "spec": spec,
    }
