"""The rows, columns and cells of a table of results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokbench.metric_names import MetricName
from tokbench.results.columns import Column, column_of
from tokbench.results.result import Result, settings


def sort_key(result: Result) -> tuple[float, str]:
    """Return the sort key of a row: its bits per pixel, then its name. Results without a rate come last."""
    bpp = result.metrics.get("bpp", {}).get("value")
    return (float("inf") if bpp is None else bpp, result.row)


def _labels(results: Sequence[Result]) -> dict[tuple[int, str], str]:
    """Return the label of each (row, metric), which lists the settings that differ between the rows."""
    labels = {}
    for name in {name for result in results for name in result.metrics}:
        by_row = {row: settings(result, name) for row, result in enumerate(results) if name in result.metrics}
        keys = sorted({key for own in by_row.values() for key in own})
        different = [key for key in keys if len({own.get(key) for own in by_row.values()}) > 1]
        for row, own in by_row.items():
            values = [str(own.get(key, "unknown")) for key in different]
            labels[row, name] = ", ".join(text[:8] if len(text) == 64 else text for text in values)
    return labels


def cells(results: Sequence[Result]) -> tuple[list[tuple[str, Column]], list[dict[tuple[str, str], dict[str, Any]]]]:
    """Return the columns of a table, as (label, column) in order, and the entries of each result by (label, field).

    Values that were computed with different networks, weights or devices are in separate columns.
    """
    labels = _labels(results)
    rows = [
        {(labels[row, name], name): entry for name, entry in result.metrics.items()}
        for row, result in enumerate(results)
    ]
    columns = sorted(
        {key for row in rows for key in row}, key=lambda key: (column_of(key[1])[0], _span(key[1]), key[1], key[0])
    )
    return [(label, column_of(name)[1]) for label, name in columns], rows


def _span(name: str) -> float:
    """Return the position of `t_acc.small` or `t_acc_curve.8 to 10` among the bins: by size, not by name."""
    part = MetricName.parse(name).part
    sizes = ("", "small", "medium", "large")
    if part in sizes:
        return sizes.index(part)
    edge = re.search(r"[\d.]+", part)
    return float(edge[0]) - part.startswith("below") if edge else 0
