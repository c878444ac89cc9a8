"""The cells of a table of results: the order of its rows, its columns, and the entry of each result in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokbench.metric_names import MetricName
from tokbench.results.columns import Column, column_of
from tokbench.results.result import Result, settings


def sort_key(result: Result) -> tuple[float, str]:
    """The order of rows; those without a rate come last."""
    bpp = result.metrics.get("bpp", {}).get("value")
    return (float("inf") if bpp is None else bpp, result.adapter)


def _labels(results: Sequence[Result]) -> dict[tuple[int, str], str]:
    """For (row, number): a label that tells apart numbers made in different ways, empty where all rows agree."""
    labels = {}
    for number in {number for result in results for number in result.metrics}:
        made = {row: settings(result, number) for row, result in enumerate(results) if number in result.metrics}
        keys = sorted({key for told in made.values() for key in told})
        differ = [key for key in keys if len({told.get(key) for told in made.values()}) > 1]
        for row, told in made.items():
            shown = [str(told.get(key, "unknown")) for key in differ]
            labels[row, number] = ", ".join(text[:8] if len(text) == 64 else text for text in shown)
    return labels


def cells(results: Sequence[Result]) -> tuple[list[tuple[str, Column]], list[dict[tuple[str, str], dict[str, Any]]]]:
    """The columns of a table, as (label, column) in order, and for each result its entries by (label, field).

    Numbers that were made by different networks, weights or devices get columns of their own.
    """
    labels = _labels(results)
    found = {(labels[row, number], number) for row, result in enumerate(results) for number in result.metrics}
    columns = sorted(found, key=lambda item: (column_of(item[1])[0], _span(item[1]), item[1], item[0]))
    rows = [
        {(labels[row, number], number): entry for number, entry in result.metrics.items()}
        for row, result in enumerate(results)
    ]
    return [(label, column_of(number)[1]) for label, number in columns], rows


def _span(number: str) -> float:
    """Return the position of `t_acc.small` or `t_acc_curve.8 to 10` among the bins: by size, not by name."""
    part = MetricName.parse(number).part
    sizes = ("", "small", "medium", "large")
    if part in sizes:
        return sizes.index(part)
    edge = re.search(r"[\d.]+", part)
    return float(edge[0]) - part.startswith("below") if edge else 0
