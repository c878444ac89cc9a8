"""The columns of tables, derived from the specs of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tokbench.metric_names import EXTENSIONS, METRICS, MetricName, MetricSpec, PerturbationNaming, Section
from tokbench.metric_names.builtin import FACE_SCORES, TEXT_SCORES
from tokbench.metric_names.spec import SPANS, VERSIONS, form_name


@dataclass(frozen=True)
class Column:
    """A column of a table.

    field: name of the metric in JSON. title, digits: its title and number of decimal digits in tables. more: whether
    higher values are better; None if neither direction is better. unit: of its values, or "".
    """

    field: str
    title: str
    digits: int
    more: bool | None = None
    unit: str = ""

    @property
    def arrow(self) -> str:
        return "" if self.more is None else " ↑" if self.more else " ↓"


SCORES = tuple(
    Column(number.name, number.title, number.digits, number.higher_is_better) for number in (*TEXT_SCORES, *FACE_SCORES)
)
"""The columns of the scores of words and faces, without recognizers, versions and spans."""


def _own_columns(spec: MetricSpec) -> Iterator[tuple[Section, Column]]:
    """Yield the columns of a metric's numbers, each with its section."""
    for number in spec.numbers:
        for version, span in number.forms():
            title = f"{number.title}{spec.reader_title}{VERSIONS[version]}{SPANS[span]}"
            field = form_name(number.name, version, span, spec.suffix)
            yield (
                number.section or spec.section,
                Column(field, title, number.digits, number.higher_is_better, number.unit),
            )


def _perturbed_columns(spec: MetricSpec, naming: PerturbationNaming) -> Iterator[tuple[Section, Column]]:
    """Yield the columns of a metric for perturbed tokens, such as pFID-768 for `pfid_768`.

    `nfid` (noise on continuous latents) has the title nFID.
    """
    section = Section.ADDED if spec.section == Section.ADDED else Section.PERTURBED
    for number in spec.numbers:
        if number.perturbed:
            base = number.title.removeprefix("r").replace("FD-", "FID-")
            title = f"{naming.letter}{base}{naming.title}"
            yield (
                section,
                Column(naming.apply(number.perturbed), title, number.digits, number.higher_is_better, number.unit),
            )


@cache
def _placed() -> tuple[tuple[Section, Column], ...]:
    """Return all columns in order, each with its section. Those of metrics of other packages come last."""
    pairs = [pair for spec in METRICS.values() for pair in _own_columns(spec)]
    pairs += [
        pair for naming in EXTENSIONS.values() for spec in METRICS.values() for pair in _perturbed_columns(spec, naming)
    ]
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def columns() -> tuple[Column, ...]:
    """Return all columns in order."""
    return tuple(column for _, column in _placed())


@cache
def _ranks() -> dict[str, tuple[int, Column]]:
    return {column.field: (rank, column) for rank, column in enumerate(columns())}


def section_of(metric: str) -> Section:
    """Return the section of a metric's column. Unknown metrics are in the last section."""
    rank = column_of(metric)[0]
    return _placed()[rank][0] if rank < len(_placed()) else Section.ADDED


def _forget() -> None:
    _placed.cache_clear()
    _ranks.cache_clear()


METRICS.listeners.append(_forget)


def column_of(metric: str) -> tuple[int, Column]:
    """Return the rank and the column of a metric.

    `codebook_usage.sem` follows `codebook_usage`, and `rfid_infinity` (extrapolated to infinitely many images) follows
    `rfid`. Unknown metrics come last.
    """
    name = MetricName.parse(metric)
    if name.base not in _ranks():
        return len(columns()), Column(metric, metric, 4)
    rank, column = _ranks()[name.base]
    title = f"{column.title}{' ∞' if name.infinite else ''}{f' ({name.part})' if name.part else ''}"
    return rank, Column(metric, title, column.digits, column.more, column.unit)
