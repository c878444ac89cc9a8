"""A table of the page: what Python works with, and the compact JSON that the page's script reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One number with the ends of its interval.

    tied: whether it is the best of its column, or not significantly different from it. n: its images, None where these
    are all images of the row. said: what stands there in place of a value, where value is None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    tied: bool = False
    n: int | None = None
    said: str | None = None

    def to_json(self) -> list[Any]:
        """`[value, low, high, tied, n, said]`, without the last two where they are None."""
        numbers = [self.value, self.low, self.high, int(self.tied)]
        if self.said is not None:
            return [*numbers, self.n, self.said]
        return numbers if self.n is None else [*numbers, self.n]


@dataclass(frozen=True)
class PageColumn:
    """A column: the number's name, of which stream (label), its title and digits, whether more is better, and whether
    it is shown before a reader chooses others."""

    field: str
    title: str
    digits: int
    more: bool | None
    label: str = ""
    first: bool = True

    def to_json(self) -> dict[str, Any]:
        """The page's object."""
        return {
            "field": self.field, "label": self.label, "title": self.title, "digits": self.digits, "more": self.more,
            "first": self.first,
        }  # fmt: skip


@dataclass(frozen=True)
class PageRow:
    """A row: its cells by column, None where there is no number. kinds: what readers filter by. made: how the numbers
    were computed, in words by name."""

    adapter: str
    family: str
    kinds: list[str]
    values: list[Cell | None]
    made: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The page's object."""
        return {
            "adapter": self.adapter,
            "family": self.family,
            "kinds": self.kinds,
            "values": [cell and cell.to_json() for cell in self.values],
            "made": self.made,
        }


@dataclass(frozen=True)
class PageTable:
    """A table. ways: settings of numbers, which rows refer to by position. curves: cells by adapter and field, for
    plots alone.

    Only of token reduction: short, whether the network was trained too briefly for its accuracy to mean anything;
    batches, for which there are times. None in other tables.
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
    ways: list[dict[str, str]] = field(default_factory=list)
    curves: dict[str, dict[str, Cell | None]] = field(default_factory=dict)
    short: bool | None = None
    batches: list[int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The page's object."""
        told: dict[str, Any] = {
            "name": self.name, "dataset": self.dataset, "task": self.task, "size": self.size, "n": self.n,
            "protocol": self.protocol, "legend": self.legend,
            "columns": [column.to_json() for column in self.columns],
            "rows": [row.to_json() for row in self.rows],
            "ways": self.ways,
        }  # fmt: skip
        pruned = {"short": self.short, "batches": self.batches}
        return told | {key: value for key, value in pruned.items() if value is not None}
