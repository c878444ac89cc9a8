"""The data classes of a table on the page, and their compact JSON form, which the page's script reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One value with the bounds of its interval.

    tied: whether it is the best of its column or not significantly different from the best. n: the number of its
    images, None if these are all images of the row. replacement: the text that is shown if value is None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    tied: bool = False
    n: int | None = None
    replacement: str | None = None

    def to_json(self) -> list[Any]:
        """Return `[value, low, high, tied, n, replacement]`, without the last two if they are None."""
        numbers = [self.value, self.low, self.high, int(self.tied)]
        if self.replacement is not None:
            return [*numbers, self.n, self.replacement]
        return numbers if self.n is None else [*numbers, self.n]


@dataclass(frozen=True)
class PageColumn:
    """A column of a table.

    field: the metric's name. label: the stream, or "". digits: shown decimals. more: whether a higher value is better,
    None if neither is. first: whether the column is shown by default.
    """

    field: str
    title: str
    digits: int
    more: bool | None
    label: str = ""
    first: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the page's script reads."""
        return {
            "field": self.field, "label": self.label, "title": self.title, "digits": self.digits, "more": self.more,
            "first": self.first,
        }  # fmt: skip


@dataclass(frozen=True)
class PageRow:
    """A row of a table.

    values: a cell for each column, None if the row has no value. kinds: the categories that readers can filter by.
    details: the settings and provenance of the values, as `tables.row_details` returns them. file: path of the file
    with the per-image values (`tokbench.report.values`), "" if there is none.
    """

    adapter: str
    family: str
    kinds: list[str]
    values: list[Cell | None]
    details: dict[str, Any]
    file: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the page's script reads."""
        return {
            "adapter": self.adapter,
            "family": self.family,
            "kinds": self.kinds,
            "values": [cell and cell.to_json() for cell in self.values],
            "details": self.details,
            "file": self.file,
        }


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    settings: the settings of metrics, which rows refer to by position. curves: cells by adapter and field, which only
    plots use. sha256: the hashes of data and protocol, empty in tables of token reduction. short and batches are None
    except in tables of token reduction. short: whether the network is undertrained, so that its accuracy is not
    meaningful. batches: the batch sizes with timings.
    """

    name: str
    dataset: str
    task: str
    size: str
    n: int
    protocol: str
    legend: str
    columns: list[PageColumn]
    rows: list[PageRow]
    settings: list[dict[str, str]] = field(default_factory=list)
    curves: dict[str, dict[str, Cell | None]] = field(default_factory=dict)
    sha256: list[str] = field(default_factory=list)
    short: bool | None = None
    batches: list[int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the page's script reads."""
        content: dict[str, Any] = {
            "name": self.name, "dataset": self.dataset, "task": self.task, "size": self.size, "n": self.n,
            "protocol": self.protocol, "legend": self.legend,
            "columns": [column.to_json() for column in self.columns],
            "rows": [row.to_json() for row in self.rows],
            "settings": self.settings, "sha256": self.sha256,
        }  # fmt: skip
        pruned = {"short": self.short, "batches": self.batches}
        return content | {key: value for key, value in pruned.items() if value is not None}
