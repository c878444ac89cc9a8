"""The columns of tables, which follow from the specs of metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokbench.metric_names import EXTENSIONS, METRICS, MetricName, MetricSpec, PerturbationNaming, Section
from tokbench.metric_names.builtin import FACE_SCORES, TEXT_SCORES
from tokbench.metric_names.spec import SPANS, VERSIONS, form_name
from tokbench.results.result import Result, settings


@dataclass(frozen=True)
class Column:
    """A number's name in JSON, its title in tables, its digits there, and whether more is better (None: neither)."""

    field: str
    title: str
    digits: int
    more: bool | None = None

    @property
    def arrow(self) -> str:
        return "" if self.more is None else " ↑" if self.more else " ↓"


SCORES = tuple(
    Column(number.name, number.title, number.digits, number.higher_is_better) for number in (*TEXT_SCORES, *FACE_SCORES)
)
"""The columns of the scores of words and faces, without readers, versions and spans."""


def _own_columns(spec: MetricSpec) -> Iterator[tuple[Section, Column]]:
    """The columns of a metric's numbers, with the section that each belongs to."""
    for number in spec.numbers:
        for version, span in number.forms():
            title = f"{number.title}{spec.reader_title}{VERSIONS[version]}{SPANS[span]}"
            field = form_name(number.name, version, span, spec.suffix)
            yield number.section or spec.section, Column(field, title, number.digits, number.higher_is_better)


def _perturbed_columns(spec: MetricSpec, naming: PerturbationNaming) -> Iterator[tuple[Section, Column]]:
    """The columns of a metric for perturbed tokens: `pfid_768` is pFID-768, `nfid` (noise on continuous latents)
    nFID."""
    section = Section.ADDED if spec.section == Section.ADDED else Section.PERTURBED
    for number in spec.numbers:
        if number.perturbed:
            said = number.title.removeprefix("r").replace("FD-", "FID-")
            title = f"{naming.letter}{said}{naming.title}"
            yield section, Column(naming.apply(number.perturbed), title, number.digits, number.higher_is_better)


@cache
def columns() -> tuple[Column, ...]:
    """Every column of tables, in order: those of metrics of other packages come last."""
    found = [one for spec in METRICS.values() for one in _own_columns(spec)]
    found += [
        one for naming in EXTENSIONS.values() for spec in METRICS.values() for one in _perturbed_columns(spec, naming)
    ]
    return tuple(column for _, column in sorted(found, key=lambda one: one[0]))


@cache
def _ranks() -> dict[str, tuple[int, Column]]:
    return {column.field: (rank, column) for rank, column in enumerate(columns())}


def _forget() -> None:
    columns.cache_clear()
    _ranks.cache_clear()


METRICS.listeners.append(_forget)


def column_of(number: str) -> tuple[int, Column]:
    """Rank and column of a number; `codebook_usage.sem` follows `codebook_usage`, `rfid_infinity` (extrapolated to
    infinitely many images) `rfid`; unknown numbers come last."""
    name = MetricName.parse(number)
    if name.base not in _ranks():
        return len(columns()), Column(number, number, 4)
    rank, column = _ranks()[name.base]
    title = f"{column.title}{' ∞' if name.infinite else ''}{f' ({name.part})' if name.part else ''}"
    return rank, Column(number, title, column.digits, column.more)


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
    ordered = sorted(found, key=lambda item: (column_of(item[1])[0], _span(item[1]), item[1], item[0]))
    rows = [
        {(labels[row, number], number): entry for number, entry in result.metrics.items()}
        for row, result in enumerate(results)
    ]
    return [(label, column_of(number)[1]) for label, number in ordered], rows


def _span(number: str) -> float:
    """The place of `t_acc.small` or `t_acc_curve.8 to 10` among the other bins: by size, not by name."""
    part = MetricName.parse(number).part
    sizes = ("", "small", "medium", "large")
    if part in sizes:
        return sizes.index(part)
    edge = re.search(r"[\d.]+", part)
    return float(edge[0]) - part.startswith("below") if edge else 0
