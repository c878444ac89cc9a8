"""The page's plots as Vega-Lite: quality against bits, gFID against what a tokenizer is, speed, words and faces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import altair as alt

from tokbench.leaderboard import column_of
from tokbench.report.reduced import TASK

CODECS = ("jpeg", "webp", "avif", "resize")
_CURVE = re.compile(r"(t_acc|t_ned|f_sim)_curve\.(.+)")


def charts(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{title, note, spec}` of every plot that the results have points for."""
    made: list[dict[str, Any]] = []
    for table in tables:
        if table["task"] == "reconstruct":
            made += _rates(table, tables)
            made += _speeds(table)
            made += _words(table)
        if table["task"].startswith("generate"):
            made += _generators(table, tables)
        if table["task"] == TASK:
            made += _pruning(table)
    return made


def _points(table: dict[str, Any], x: str, y: str) -> list[dict[str, Any]]:
    """Rows that have both numbers: `x`, `y`, the row's address and what hovering tells."""
    places = {column["field"]: place for place, column in enumerate(table["columns"]) if not column["label"]}
    if x not in places or y not in places:
        return []
    found = []
    for row in table["rows"]:
        left, right = row["values"][places[x]], row["values"][places[y]]
        if left is None or right is None or left[0] is None or right[0] is None:
            continue
        if (family := row["family"]) == "identity":
            continue  # the images themselves: a corner of every plot
        found.append(
            {
                "adapter": row["adapter"],
                "line": family if family in CODECS else row["adapter"],
                "kind": "codec" if family in CODECS else row["kinds"][0],
                "x": left[0], "y": right[0], "low": right[1], "high": right[2],
                "href": address(table, row),
            }
        )  # fmt: skip
    return found


def address(table: dict[str, Any], row: dict[str, Any]) -> str:
    """Where a click leads: the row in its table."""
    return "#" + urlencode({"table": table["name"], "row": row["adapter"]})


def front(points: Sequence[dict[str, Any]], more: bool) -> list[dict[str, Any]]:
    """Those that no other point beats in both: fewer `x`, better `y`. In order of x."""
    best, found = None, []
    for point in sorted(points, key=lambda one: (one["x"], -one["y"] if more else one["y"])):
        if best is None or (point["y"] > best if more else point["y"] < best):
            best = point["y"]
            found.append(point)
    return found


def _plot(points: Sequence[dict[str, Any]], x: str, y: str, *, log: bool, pareto: bool) -> dict[str, Any]:
    across, up = column_of(x)[1], column_of(y)[1]
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    place = alt.X("x:Q", title=across.title, scale=scale)
    height = alt.Y("y:Q", title=f"{up.title}{up.arrow}", scale=alt.Scale(zero=False))
    said = [alt.Tooltip("adapter:N"), alt.Tooltip("x:Q", title=across.title, format=f",.{across.digits}f")]
    said.append(alt.Tooltip("y:Q", title=up.title, format=f",.{up.digits}f"))
    base = alt.Chart(alt.Data(values=list(points))).encode(x=place, y=height)
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        color=alt.Color("kind:N", title=None), tooltip=said, href="href:N"
    )
    layers: list[Any] = [base.mark_rule().encode(y="low:Q", y2="high:Q", color=alt.Color("kind:N", title=None))]
    lines = base.mark_line(strokeWidth=1, opacity=0.6)  # of a codec's qualities, of a tokenizer's first tokens
    layers += [lines.encode(detail="line:N", color=alt.Color("kind:N", title=None)), marks]
    if pareto and up.more is not None:
        edge = alt.Chart(alt.Data(values=front(points, up.more)))
        stepped = edge.mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1, color="gray")
        layers.insert(0, stepped.encode(x=place, y=height))
    layered = alt.layer(*layers).properties(width="container", height=320)
    spec: dict[str, Any] = layered.to_dict()
    return spec


def _rates(table: dict[str, Any], tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    group = table["name"].removesuffix(table["task"])
    curves = [one for one in tables if one["task"].startswith("truncate-") and one["name"] == group + one["task"]]
    made = []
    for number in ("psnr", "lpips", "rfid_768", "fd_efficientnet"):
        points = _points(table, "bits_per_image", number)
        for one in curves:
            points += _points(one, "bits_per_image", number)
        if len({point["adapter"] for point in points}) >= 3:
            spec = _plot([point for point in points if point["x"] > 0], "bits_per_image", number, log=True, pareto=True)
            note = (
                "Codecs and plain resizing are drawn in; the dashed line joins what nothing else beats at fewer bits."
            )
            made.append(_entry(table, f"{column_of(number)[1].title} against bits", note, spec))
    return made


def _speeds(table: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for speed in ("encode_images_per_second", "decode_images_per_second"):
        places = [column["field"] for column in table["columns"]]
        labelled = [column for column in table["columns"] if column["field"] == speed]
        if speed in places and not labelled[0]["label"] and len(points := _points(table, speed, "psnr")) >= 3:
            note = "Speeds of one machine; between machines they do not compare."
            spec = _plot(points, speed, "psnr", log=True, pareto=False)
            made.append(_entry(table, f"PSNR against {column_of(speed)[1].title}", note, spec))
    return made


def _words(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy over pixels per character, or over a face's width: a line for each row."""
    made = []
    for kind, title in (
        ("t_acc", "words read right (T-ACC) against pixels per character"),
        ("f_sim", "face similarity"),
    ):
        points = []
        for row in table["rows"]:
            for field, value in table["curves"][row["adapter"]].items():
                found = _CURVE.fullmatch(field)
                edge = re.search(r"[\d.]+", found[2]) if found and found[1] == kind else None
                if found and edge and value is not None:
                    told = {"adapter": row["adapter"], "span": found[2], "at": float(edge[0]), "y": value}
                    points.append(told | {"href": address(table, row)})
        if points:
            base = alt.Chart(alt.Data(values=points)).encode(
                x=alt.X("at:Q", title="pixels (lower edge of the bin)"),
                y=alt.Y("y:Q", title=kind),
                color=alt.Color("adapter:N", title=None),
                tooltip=["adapter:N", "span:N", alt.Tooltip("y:Q", format=".3f")],
                href="href:N",
            )
            spec = alt.layer(base.mark_line(strokeWidth=1), base.mark_point(filled=True, size=40))
            made.append(_entry(table, title, "", spec.properties(width="container", height=320).to_dict()))
    return made


def _generators(table: dict[str, Any], tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """gFID of generators against what their tokenizers' own rows say; where there is none, FD-EfficientNet."""
    below: dict[str, dict[str, float]] = {}
    for one in tables:
        if one["dataset"] == table["dataset"] and one["task"] in ("reconstruct", "perturb"):
            for row in one["rows"]:
                values = zip(one["columns"], row["values"], strict=True)
                known = {column["field"]: cell[0] for column, cell in values if cell and cell[0] is not None}
                below[row["adapter"]] = below.get(row["adapter"], {}) | known
    fields = [column["field"] for column in table["columns"]]
    goal = next((number for number in ("gfid", "gfid_768", "fd_efficientnet") if number in fields), None)
    if goal is None:
        return []
    place, made = fields.index(goal), []
    for number in ("rfid", "rfid_768", "pfid", "pfid_768", "pfid_efficientnet", "fd_efficientnet"):
        points = []
        for row in table["rows"]:
            tokenizer, cell = row["made"]["adapter"].get("tokenizer"), row["values"][place]
            if cell and cell[0] is not None and number in below.get(tokenizer, {}):
                points.append(
                    {
                        "adapter": row["adapter"], "line": row["adapter"], "kind": row["family"],
                        "x": below[tokenizer][number], "y": cell[0], "low": cell[1], "high": cell[2],
                        "href": address(table, row),
                    }
                )  # fmt: skip
        if len(points) >= 3:
            spec = _plot(points, number, goal, log=False, pareto=False)
            titles = [column_of(name)[1].title for name in (goal, number)]
            made.append(_entry(table, f"{titles[0]} of samples against {titles[1]} of the tokenizer", "", spec))
    return made


def _pruning(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy against what a clock saw and against what counting operations promises, side by side."""
    places = {column["field"]: place for place, column in enumerate(table["columns"])}
    accuracy, points = places["agreement" if table["short"] else "top1"], []
    for row in table["rows"]:
        for batch in table["batches"]:
            faster = row["values"][places[f"speedup_b{batch}"]]
            if faster is not None:
                points.append(
                    {
                        "row": row["adapter"], "method": row["family"], "batch": str(batch),
                        "y": row["values"][accuracy][0], "x": faster[0], "fewer": row["values"][places["fewer"]][0],
                        "told": "" if faster[0] is not None else faster[4], "href": address(table, row),
                    }
                )  # fmt: skip
    if not points:
        return []
    height = "% named as by the whole network" if table["short"] else "top-1, %"
    said = [alt.Tooltip(f"{name}:N") for name in ("row", "batch", "told")]
    said += [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("x", "fewer", "y")]
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("y:Q", title=height, scale=alt.Scale(zero=False)),
        color=alt.Color("method:N", title=None),
        tooltip=said,
        href="href:N",
    )
    dots = base.mark_point(filled=True, opacity=1)
    measured = dots.transform_filter("datum.x !== null").encode(x=alt.X("x:Q", title="times faster, measured"))
    counted = dots.encode(x=alt.X("fewer:Q", title="times fewer FLOPs"))
    both = alt.hconcat(measured.properties(width=320, height=320), counted.properties(width=320, height=320))
    note = (
        "Left: what a clock saw; what has no measured speed-up is not there. Right: what counting operations promises."
    )
    return [_entry(table, "Accuracy against speed-up of reduced tokens", note, both.to_dict())]


def _entry(table: dict[str, Any], title: str, note: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "table": table["name"], "note": note, "spec": spec}
