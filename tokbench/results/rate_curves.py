"""Rate curves: metrics of images that are decoded from the first 1, 2, 4 ... tokens only.

A curve is summarised by its area: the area under the metric over log2 of the bits per image, divided by the width of
the curve. This is the mean of the metric with equal weight for every doubling of the bits. Only areas over one range of
bits are comparable, so tables also show the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tokbench.metric_names import TaskName, kind_of_task
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import groups, read_all
from tokbench.results.markdown import context, table
from tokbench.results.result import Result
from tokbench.stats.bootstrap import Interval, bootstrap

METRICS = ("psnr", "ssim", "lpips", "rfid_768", "rfid", "fd_efficientnet")

_SEED = 0


@dataclass(frozen=True)
class Curve:
    """One metric of one tokenizer as a function of the number of tokens.

    points: (tokens, mean bits per image, value), with increasing numbers of tokens. interval: of the area, if known.
    """

    adapter: str
    metric: str
    points: list[tuple[int, float, float]]
    interval: Interval | None = None

    @property
    def area(self) -> float | None:
        """The mean of the metric over log2 of the bits, by the trapezoidal rule; None for a single point."""
        if len(self.points) < 2:
            return None
        return float(weights(self.points) @ [value for *_, value in self.points])


def weights(points: Sequence[tuple[int, float, float]]) -> np.ndarray:
    """Return the weight of each point of a curve in its area, (n,). The sum is 1."""
    widths = np.diff(np.log2([bits for _, bits, _ in points]))
    halves = np.concatenate([[0], widths / 2]) + np.concatenate([widths / 2, [0]])
    return halves / widths.sum()


def curves(results: Sequence[tuple[int, Result]]) -> list[Curve]:
    """Return all curves of results of one dataset, size, N and protocol.

    results: pairs of the number of tokens that images were decoded from, and the result.
    """
    found: list[Curve] = []
    for adapter in sorted({result.adapter for _, result in results}):
        own = sorted(
            ((count, result) for count, result in results if result.adapter == adapter), key=lambda pair: pair[0]
        )
        for metric in METRICS:
            known = [(count, result) for count, result in own if _value(result, metric) is not None]
            points = [(count, _value(result, "bits_per_image"), _value(result, metric)) for count, result in known]
            complete = [(count, bits, value) for count, bits, value in points if bits is not None and value is not None]
            if complete and len(complete) == len(points):
                curve = Curve(adapter, metric, complete)
                found.append(replace(curve, interval=_interval(curve, [result for _, result in known])))
    return found


def _value(result: Result, metric: str) -> float | None:
    value = result.metrics.get(metric, {}).get("value")
    return None if value is None else float(value)


def _interval(curve: Curve, results: Sequence[Result]) -> Interval | None:
    """Return the interval of the area, from the area of each image, if the metric is a mean over images."""
    if len(results) < 2 or not all(curve.metric in result.per_image for result in results):
        return None
    index = results[0].per_image["index"]
    if not all(np.array_equal(result.per_image["index"], index) for result in results):
        return None
    each = np.stack([result.per_image[curve.metric] for result in results])
    return bootstrap(weights(curve.points) @ each, _SEED)


def _first_tokens(task: str) -> int | None:
    """Return the number of tokens that images were decoded from, or None if the task is not `truncate`."""
    return TaskName.parse(task).tokens if kind_of_task(task) == "truncate" else None


def write(out: Path) -> list[Path]:
    """Write `leaderboard/<data>-rates.csv` and `.md` from all `truncate` results of a results folder."""
    sets: dict[str, list[tuple[int, Result]]] = {}
    for name, results in groups(read_all(out)).items():
        count = _first_tokens(results[0].task)
        if count is not None and name.endswith(f"-{results[0].task}"):
            data = name.removesuffix(f"-{results[0].task}")
            sets.setdefault(data, []).extend((count, result) for result in results)
    written = []
    for name, members in sorted(sets.items()):
        found = curves(members)
        csv, md = (out / "leaderboard" / f"{name}-rates.{form}" for form in ("csv", "md"))
        csv.write_text(_frame(found).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
        setup = context([result for _, result in members])
        head = (
            f"# {name}: rate curves\n\n{setup} Decoded from the first tokens alone. The area is the mean over "
            "log2 of bits; it compares only over one span.\n"
        )
        md.write_text(head + _tables(found), encoding="utf-8", newline="\n")
        written += [csv, md]
    return written


def _frame(found: Sequence[Curve]) -> pd.DataFrame:
    rows = [
        {"adapter": curve.adapter, "number": curve.metric, "tokens": tokens, "bits_per_image": bits, "value": value}
        for curve in found
        for tokens, bits, value in curve.points
    ]
    return pd.DataFrame.from_records(rows)


def _tables(found: Sequence[Curve]) -> str:
    text = ""
    for metric in METRICS:
        own = [curve for curve in found if curve.metric == metric]
        if not own:
            continue
        column = column_of(metric)[1]
        counts = sorted({tokens for curve in own for tokens, *_ in curve.points})
        head = ["adapter", *(f"{count} token{'s' * (count > 1)}" for count in counts), "bits", "area" + column.arrow]
        body = []
        for curve in own:
            values = {tokens: value for tokens, _, value in curve.points}
            cells = [f"{values[count]:,.{column.digits}f}" if count in values else "-" for count in counts]
            area = "-" if curve.area is None else f"{curve.area:,.{column.digits}f}"
            if curve.interval:
                area += f" ± {(curve.interval.high - curve.interval.low) / 2:,.{column.digits}f}"
            body.append([curve.adapter, *cells, f"{curve.points[0][1]:,.0f} to {curve.points[-1][1]:,.0f}", area])
        text += f"\n{column.title}\n\n{table(head, body)}"
    return text
