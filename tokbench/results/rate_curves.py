"""Rate curves: how good the first 1, 2, 4 ... tokens of a tokenizer are, as a table and as one number.

The number is the area under the curve over log2 of the bits an image, divided by the curve's width: the mean of PSNR,
LPIPS or a distance when bits double evenly. Areas of curves over unlike spans of bits do not compare, so the span
stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tokbench.metric_names import TaskName, kind_of_task
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import groups, read_all
from tokbench.results.markdown import context, table
from tokbench.results.result import Result
from tokbench.stats.bootstrap import Interval, bootstrap

NUMBERS = ("psnr", "ssim", "lpips", "rfid_768", "rfid", "fd_efficientnet")

_SEED = 0


@dataclass(frozen=True)
class Curve:
    """One number of one tokenizer along its first tokens. points: (tokens, mean bits an image, value), rising."""

    adapter: str
    number: str
    points: list[tuple[int, float, float]]
    interval: Interval | None = None

    @property
    def area(self) -> float | None:
        """The mean of the number over log2 of bits, by trapezoids; None for a single point."""
        if len(self.points) < 2:
            return None
        return float(weights(self.points) @ [value for *_, value in self.points])


def weights(points: Sequence[tuple[int, float, float]]) -> np.ndarray:
    """What each point of a curve counts for in its area, (n,), in sum 1."""
    widths = np.diff(np.log2([bits for _, bits, _ in points]))
    halves = np.concatenate([[0], widths / 2]) + np.concatenate([widths / 2, [0]])
    return halves / widths.sum()


def curves(results: Sequence[tuple[int, Result]]) -> list[Curve]:
    """All curves of results of one data set, size, N and protocol, each with how many tokens it was decoded from."""
    found = []
    for adapter in sorted({result.adapter for _, result in results}):
        own = sorted(
            ((count, result) for count, result in results if result.adapter == adapter), key=lambda one: one[0]
        )
        for number in NUMBERS:
            known = [(count, result) for count, result in own if _value(result, number) is not None]
            points = [(count, _value(result, "bits_per_image"), _value(result, number)) for count, result in known]
            whole = [(count, bits, value) for count, bits, value in points if bits is not None and value is not None]
            if whole and len(whole) == len(points):
                made = Curve(adapter, number, whole)
                found.append(Curve(adapter, number, whole, _interval(made, [result for _, result in known])))
    return found


def _value(result: Result, number: str) -> float | None:
    value = result.metrics.get(number, {}).get("value")
    return None if value is None else float(value)


def _interval(curve: Curve, results: Sequence[Result]) -> Interval | None:
    """Of the area of a mean over images, from each image's own area."""
    if len(results) < 2 or not all(curve.number in result.per_image for result in results):
        return None
    index = results[0].per_image["index"]
    if not all(np.array_equal(result.per_image["index"], index) for result in results):
        return None
    each = np.stack([result.per_image[curve.number] for result in results])
    return bootstrap(weights(curve.points) @ each, _SEED)


def _first_tokens(task: str) -> int | None:
    """Return the number of leading tokens of a truncated result, or None for other tasks."""
    return TaskName.parse(task).tokens if kind_of_task(task) == "truncate" else None


def write(out: Path) -> list[Path]:
    """Make `leaderboard/<data>-rates.csv` and `.md` of all truncated results below a results folder."""
    sets: dict[str, list[tuple[int, Result]]] = {}
    for name, results in groups(read_all(out)).items():
        count = _first_tokens(results[0].task)
        if count is not None and name.endswith(f"-{results[0].task}"):
            data = name.removesuffix(f"-{results[0].task}")
            sets.setdefault(data, []).extend((count, result) for result in results)
    written = []
    for name, members in sorted(sets.items()):
        made = curves(members)
        csv, md = (out / "leaderboard" / f"{name}-rates.{form}" for form in ("csv", "md"))
        csv.write_text(_frame(made).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
        about = context([result for _, result in members])
        told = (
            f"# {name}: rate curves\n\n{about} Decoded from the first tokens alone. The area is the mean over "
            "log2 of bits; it compares only over one span.\n"
        )
        md.write_text(told + _tables(made), encoding="utf-8", newline="\n")
        written += [csv, md]
    return written


def _frame(found: Sequence[Curve]) -> pd.DataFrame:
    rows = [
        {"adapter": one.adapter, "number": one.number, "tokens": tokens, "bits_per_image": bits, "value": value}
        for one in found
        for tokens, bits, value in one.points
    ]
    return pd.DataFrame.from_records(rows)


def _tables(found: Sequence[Curve]) -> str:
    text = ""
    for number in NUMBERS:
        own = [one for one in found if one.number == number]
        if not own:
            continue
        column = column_of(number)[1]
        counts = sorted({tokens for one in own for tokens, *_ in one.points})
        head = ["adapter", *(f"{count} token{'s' * (count > 1)}" for count in counts), "bits", "area" + column.arrow]
        body = []
        for one in own:
            values = {tokens: value for tokens, _, value in one.points}
            cells = [f"{values[count]:,.{column.digits}f}" if count in values else "-" for count in counts]
            area = "-" if one.area is None else f"{one.area:,.{column.digits}f}"
            if one.interval:
                area += f" ± {(one.interval.high - one.interval.low) / 2:,.{column.digits}f}"
            body.append([one.adapter, *cells, f"{one.points[0][1]:,.0f} to {one.points[-1][1]:,.0f}", area])
        text += f"\n{column.title}\n\n{table(head, body)}"
    return text
