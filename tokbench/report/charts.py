"""Vega-Lite plots of the site: quality over bits, gFID over tokenizer metrics, speed, words and faces, pruning.

Every point belongs to a row of a table (`row`), which a click selects. Colours and shapes are those of families, the
same in all plots, and a point is labelled when the pointer is on it. The points are also listed in a table beside the
plot, for screen readers and keyboards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt

from tokbench.metric_names import MetricName, kind_of_task
from tokbench.report.page_table import Cell, PageRow, PageTable
from tokbench.report.pruning_tables import TASK
from tokbench.results.columns import column_of

CODECS = ("jpeg", "webp", "avif", "jpeg2000", "jxl", "resize")

CEILING = "only resized (ceiling)"
"""The name of the curve of images that were only resized, which has its own colour."""

COLOURS = (
    "#3f7fd0", "#d9730d", "#2f9e44", "#d6336c", "#7c5cdb", "#0f93a8", "#a5682a", "#8b9a0a", "#7a828e",
)  # fmt: skip
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
"""Colours that are readable on light and dark pages, and shapes."""

FEW = 3
"""With fewer rows a plot shows no trend, and its note says so."""

_POINTS, _FRONT = "points", "front"
"""The names of the data of a plot; layers that name them share one copy."""

Point = dict[str, Any]
"""Fields: `row`; `label` (shown name); `line` (points of a line share it); `family` (colour and shape); `x`, `y`,
`low`, `high`; `interval` (as text)."""


def charts(tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    """Return `{title, table, note, axes, fields, points, spec}` for every plot that the tables have points for.

    fields: the names of the plotted metrics if each row has one point, else None.
    """
    plots: list[dict[str, Any]] = []
    for table in tables:
        if table.task == "reconstruct":
            plots += _rates(table, tables)
            plots += _speeds(table)
            plots += _curves(table)
        if kind_of_task(table.task) == "generate":
            plots += _generators(table, tables)
        if table.task == TASK:
            plots += _pruning(table)
    looks = _looks(tables)
    for plot in plots:
        shown = {point["family"] for point in plot["spec"]["datasets"][_POINTS]}
        _paint(plot["spec"], {family: look for family, look in looks.items() if family in shown})
    return plots


def _looks(tables: Sequence[PageTable]) -> dict[str, tuple[str, str]]:
    """Return the colour and the shape of each family. The first 54 families have different combinations."""
    families = [*sorted({row.family for table in tables for row in table.rows}), CEILING]
    found = {}
    for place, family in enumerate(families):
        turn = place // len(COLOURS)  # families of one colour have different shapes, and so have neighbours
        found[family] = COLOURS[place % len(COLOURS)], SHAPES[(place + 2 * turn) % len(SHAPES)]
    return found


def _paint(spec: dict[str, Any], looks: dict[str, tuple[str, str]]) -> None:
    """Set the colours and shapes of the families in a plot, in all of its parts."""
    for part in spec.get("layer", []) + spec.get("hconcat", []):
        _paint(part, looks)
    for place, channel in enumerate(("color", "shape")):
        if (encoded := spec.get("encoding", {}).get(channel)) and encoded.get("field") == "family":
            encoded["scale"] = {"domain": list(looks), "range": [look[place] for look in looks.values()]}


def _point(row: PageRow, x: float | None, cell: Cell, digits: int, suffix: str = "") -> Point:
    family = row.family
    y, low, high = cell.value, cell.low, cell.high
    return {
        "row": row.adapter,
        "label": row.adapter + suffix,
        "line": family if family in CODECS else row.adapter,
        "family": family,
        "x": x, "y": y, "low": low, "high": high,
        "interval": "none" if low is None or high is None else f"{low:,.{digits}f} to {high:,.{digits}f}",
    }  # fmt: skip


def _points(table: PageTable, x: str, y: str) -> list[Point]:
    """Return the points of rows that have both numbers, except `identity`, which would stretch the axes."""
    places = {column.field: place for place, column in enumerate(table.columns) if not column.label}
    if x not in places or y not in places:
        return []
    task, _, count = table.task.partition("-")
    suffix = f", the first {count} of its tokens" if task == "truncate" else ""
    found = []
    for row in table.rows:
        left, right = row.values[places[x]], row.values[places[y]]
        if row.family != "identity" and left and right and None not in (left.value, right.value):
            found.append(_point(row, left.value, right, column_of(y)[1].digits, suffix))
    return found


def front(points: Sequence[Point], more: bool, fewer: bool = True) -> list[Point]:
    """Return the Pareto-optimal points, sorted by x.

    more: whether a higher y is better. fewer: whether a lower x is better.
    """
    best, found = None, []
    for point in sorted(points, key=lambda one: (one["x"] if fewer else -one["x"], -one["y"] if more else one["y"])):
        if best is None or (point["y"] > best if more else point["y"] < best):
            best = point["y"]
            found.append(point)
    return found


_COLOUR, _SHAPE = alt.Color("family:N", title=None), alt.Shape("family:N", title=None)


def _labelled(base: alt.Chart, tooltip: Sequence[alt.Tooltip], size: int) -> list[Any]:
    """Return the layers of points and of their labels, each of which is shown while the pointer is on its point.

    base: a chart with the positions of the points, without colours, which are not those of labels.
    """
    hover = alt.selection_point(name="hover", fields=["label"], on="pointerover", clear="pointerout", empty=False)
    dots = base.mark_point(filled=True, size=size, opacity=1).encode(tooltip=list(tooltip), color=_COLOUR, shape=_SHAPE)
    left, at = "scale('x', datum.x) < width / 2", "scale('x', datum.x)"  # labels extend towards the middle of the plot
    place: dict[str, Any] = {
        "align": alt.expr(f"{left} ? 'left' : 'right'"),
        "dx": alt.expr(f"{left} ? 8 : -8"),
        "dy": -11,
        "limit": alt.expr(f"({left} ? width - {at} : {at}) - 8"),
    }
    seen = alt.when(hover).then(alt.value(1)).otherwise(alt.value(0))
    words = [  # the halo separates a label from points beneath it
        base.mark_text(style=style, **place).encode(text="label:N", opacity=seen) for style in ("halo", "label")
    ]
    return [dots.add_params(hover), *words]


def _plot(points: Sequence[Point], x: str, y: str, *, log: bool = False, fewer: bool | None = None) -> dict[str, Any]:
    """Plot points with intervals, joined by `line`. fewer: whether a lower x is better; None draws no Pareto front."""
    across, up = column_of(x)[1], column_of(y)[1]
    scale = alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(zero=False)
    place = alt.X("x:Q", title=f"{across.title}{across.arrow}", scale=scale)
    height = alt.Y("y:Q", title=f"{up.title}{up.arrow}", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("label:N", title="row"), alt.Tooltip("x:Q", title=across.title, format=f",.{across.digits}f"),
        alt.Tooltip("y:Q", title=up.title, format=f",.{up.digits}f"), alt.Tooltip("interval:N"),
    ]  # fmt: skip
    base = alt.Chart(alt.NamedData(_POINTS)).encode(x=place, y=height)
    coloured = base.encode(color=_COLOUR)
    layers: list[Any] = [
        coloured.mark_rule().encode(y="low:Q", y2="high:Q"),
        coloured.mark_line(strokeWidth=1, opacity=0.6).encode(detail="line:N"),
        *_labelled(base, tooltip, size=70),
    ]
    if fewer is not None and up.more is not None and len({point["row"] for point in points}) >= FEW:
        edge = alt.Chart(alt.NamedData(_FRONT))
        line = edge.mark_line(interpolate="step-after" if fewer else "step-before", strokeDash=[4, 3], color="gray")
        layers.insert(0, line.encode(x=place, y=height))
        return _whole(layers, points, front(points, up.more, fewer))
    return _whole(layers, points)


def _whole(layers: Sequence[Any], points: Sequence[Point], edge: Sequence[Point] = ()) -> dict[str, Any]:
    spec: dict[str, Any] = alt.layer(*layers).properties(width="container", height=320).to_dict()
    spec["datasets"] = {_POINTS: list(points)} | ({_FRONT: list(edge)} if edge else {})
    return spec


def _rates(table: PageTable, tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    group = table.name.removesuffix(table.task)
    shorter = [one for one in tables if kind_of_task(one.task) == "truncate" and one.name == group + one.task]
    plots = []
    for number in ("psnr", "lpips", "rfid", "rfid_768", "fd_efficientnet"):
        points = [point for one in (table, *shorter) for point in _points(one, "bits_per_image", number)]
        points = [point for point in points if point["x"] > 0]
        if points:
            spec = _plot(points, "bits_per_image", number, log=True, fewer=True)
            title = f"{column_of(number)[1].title} over bits"
            note = "Includes codecs, resizing and truncated tokens. Dashed: Pareto front of bits and quality."
            plots.append(_entry(table, title, note, points, ("bits_per_image", number), spec, plain=True))
    return plots


def _speeds(table: PageTable) -> list[dict[str, Any]]:
    plots = []
    for speed in ("encode_images_per_second", "decode_images_per_second"):
        if points := _points(table, speed, "psnr"):
            note = "Speeds of one machine, not comparable across machines. Dashed: Pareto front of speed and quality."
            spec = _plot(points, speed, "psnr", log=True, fewer=False)
            title = f"PSNR over {column_of(speed)[1].title}"
            plots.append(_entry(table, title, note, points, (speed, "psnr"), spec, plain=True))
    return plots


KINDS = {"t_acc": "Word accuracy over pixels per character", "f_sim": "Face similarity over face width"}


def _curves(table: PageTable) -> list[dict[str, Any]]:
    """Plot scores over pixels per character or face width: a line per row, and the ceiling set by resizing."""
    plots = []
    for kind, title in KINDS.items():
        column, points = column_of(kind)[1], []
        for row in table.rows:
            for field, cell in table.curves[row.adapter].items():
                name = MetricName.parse(field)
                if name.number != kind or name.reader or name.version == "ratio":
                    continue
                if cell is None or (at := _middle(name.part)) is None:
                    continue
                line, family = (CEILING, CEILING) if name.version else (row.adapter, row.family)
                if not name.version or row is table.rows[0]:  # the ceiling is the same for all rows
                    label = {"line": line, "family": family, "label": f"{line}, {name.part} px"}
                    points.append(_point(row, at, cell, column.digits) | label)
        if not points:
            continue
        tooltip = [alt.Tooltip("label:N", title="row"), alt.Tooltip("y:Q", title=column.title, format=".3f")]
        base = alt.Chart(alt.NamedData(_POINTS)).encode(
            x=alt.X("x:Q", title="pixels", scale=alt.Scale(type="log", nice=False, padding=12)),
            y=alt.Y("y:Q", title=f"{column.title}{column.arrow}", scale=alt.Scale(zero=False)),
        )
        coloured = base.encode(color=_COLOUR)
        intervals = coloured.mark_rule(opacity=0.5).encode(y="low:Q", y2="high:Q")
        lines = coloured.mark_line(strokeWidth=1).encode(detail="line:N")
        spec = _whole([intervals, lines, *_labelled(base, [*tooltip, alt.Tooltip("interval:N")], size=40)], points)
        plots.append(_entry(table, title, "Each bin is drawn at its centre.", points, ("pixels", kind), spec))
    return plots


def _middle(span: str) -> float | None:
    """Return the x position of a bin: the centre of `8 to 10`, half of `below 4`, the edge of `from 40`."""
    edges = [float(edge) for edge in re.findall(r"\d+(?:\.\d+)?", span)]
    if not edges:
        return None
    return edges[0] / 2 if span.startswith("below") else sum(edges) / len(edges)


def _generators(table: PageTable, tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    """Plot gFID of generators (or FD-EfficientNet, if there is no gFID) over metrics of their tokenizers."""
    of_tokenizers: dict[str, dict[str, float]] = {}
    for one in tables:
        same = (one.dataset, one.protocol) == (table.dataset, table.protocol)
        if same and one.task in ("reconstruct", "perturb"):
            for row in one.rows:
                values = zip(one.columns, row.values, strict=True)
                known = {column.field: cell.value for column, cell in values if cell and cell.value is not None}
                of_tokenizers[row.adapter] = of_tokenizers.get(row.adapter, {}) | known
    fields = [column.field for column in table.columns]
    target = next((number for number in ("gfid", "gfid_768", "fd_efficientnet") if number in fields), None)
    if target is None:
        return []
    plots, up = [], column_of(target)[1]
    for number in ("rfid", "rfid_768", "pfid", "pfid_768", "pfid_efficientnet", "fd_efficientnet"):
        points = []
        for row in table.rows:
            tokenizer, cell = row.details["adapter"].get("tokenizer"), row.values[fields.index(target)]
            if cell and cell.value is not None and number in of_tokenizers.get(tokenizer, {}):
                points.append(_point(row, of_tokenizers[tokenizer][number], cell, up.digits, f" over {tokenizer}"))
        if points:
            title = f"{up.title} of samples over {column_of(number)[1].title} of the tokenizer"
            plots.append(_entry(table, title, "", points, (number, target), _plot(points, number, target)))
    return plots


_PRUNING_AXES = {"agreement": "agreement with the full network, %", "top1": "top-1, %", "ap50": "AP50, %"}
"""Titles of the accuracy axis, by column."""


def _pruning(table: PageTable) -> list[dict[str, Any]]:
    """Plot accuracy over measured speed-up and over the reduction of FLOPs, side by side."""
    places = {column.field: place for place, column in enumerate(table.columns)}
    field = "agreement" if table.short and "agreement" in places else table.columns[0].field
    points: list[Point] = []
    for row in table.rows:
        for batch in table.batches or ():
            if (faster := row.values[places[f"speedup_b{batch}"]]) is not None:
                accuracy, fewer = row.values[places[field]], row.values[places["fewer"]]
                assert accuracy and fewer  # every row has both
                point = _point(row, faster.value, accuracy, 1, f", batch {batch}")
                points.append(point | {"fewer": fewer.value, "speedup": faster.replacement or ""})
    if not points:
        return []
    height = _PRUNING_AXES[field]
    hover = [
        alt.Tooltip("label:N", title="row"),
        alt.Tooltip("speedup:N", title="speed-up"),
        alt.Tooltip("interval:N"),
    ]
    titles = {"x": "speed-up", "fewer": "FLOPs reduction", "y": "accuracy"}
    hover += [alt.Tooltip(f"{name}:Q", title=title, format=".2f") for name, title in titles.items()]
    base = alt.Chart(alt.NamedData(_POINTS)).encode(
        y=alt.Y("y:Q", title=height, scale=alt.Scale(zero=False)),
        color=_COLOUR,
        shape=_SHAPE,
        tooltip=hover,
    )
    dots = base.mark_point(filled=True, size=70, opacity=1)
    measured = dots.transform_filter("datum.x !== null").encode(x=alt.X("x:Q", title="measured speed-up"))
    counted = dots.encode(x=alt.X("fewer:Q", title="reduction of FLOPs (factor)"))
    both = alt.hconcat(measured.properties(width=320, height=320), counted.properties(width=320, height=320)).to_dict()
    both["datasets"] = {_POINTS: points}
    note = "Left: measured speed-up; rows without a measured speed-up are omitted. Right: reduction of FLOPs."
    title = "Accuracy over speed-up of token reduction"
    return [_entry(table, title, note, points, ("speed-up", height), both)]


def _entry(
    table: PageTable,
    title: str,
    note: str,
    points: Sequence[Point],
    axes: tuple[str, str],
    spec: dict[str, Any],
    plain: bool = False,
) -> dict[str, Any]:
    if (count := len({point["row"] for point in points})) < FEW:
        have = "1 row has" if count == 1 else f"{count} rows have"
        note = f"Only {have} both values; a plot needs {FEW} rows to show a trend. {note}"
    return {
        "title": title,
        "table": table.name,
        "note": note,
        "axes": [column_of(axis)[1].title for axis in axes],
        "fields": list(axes) if plain else None,
        "points": [[point["label"], point["x"], point["y"], point["row"]] for point in points],
        "spec": spec,
    }
