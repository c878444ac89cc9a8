"""MetricSpec and NumberSpec: everything that tables, checks and docs say about a metric and about its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

from tokbench.errors import UsageError
from tokbench.stats.naming import INFINITY

Version = Literal["", "ceiling", "ratio"]
VERSIONS: dict[Version, str] = {"": "", "ceiling": " ceiling", "ratio": " / ceiling"}
"""Versions of a score of words or faces and their titles: the score, the score of images that were only scaled
(`t_acc_ceiling`), and the quotient of both (`t_acc_ratio`)."""

Span = Literal["", "all", "curve"]
SPANS: dict[Span, str] = {"": "", "all": " (all)", "curve": ""}
"""Spans of a score of words or faces and their titles: the mean of three bins, the mean of all, a curve over sizes."""

Field = Literal["reference", "image", "tokens", "timing", "marked"]
"""A field of `tokbench.metrics.batch.Batch`."""

TaskKind = Literal["reconstruct", "truncate", "perturb", "generate"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = (INFINITY, *(f"_{end}" for end in (*get_args(Version)[1:], *get_args(Span)[1:])))


class Section(IntEnum):
    """Parts of a table, in the order of its columns."""

    RATE = 0
    PAIRED = 1
    SAMPLES = 2
    PERTURBED = 3
    ANNOTATED = 4
    CODES = 5
    SIZE = 6
    COST = 7
    SPEED = 8
    ADDED = 9
    """The columns of metrics that other packages add."""


@dataclass(frozen=True)
class Tolerance:
    """Differences up to `absolute` or up to `relative` times the committed value do not count as a change."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, gap: float, value: float) -> bool:
        """Whether a gap is within the tolerance; a gap of NaN is not."""
        return abs(gap) <= max(self.absolute, self.relative * abs(value))


@dataclass(frozen=True)
class NumberSpec:
    """One number that a metric computes.

    name: its key in result files, without the suffix of a reader. title, digits: its column in tables.
    higher_is_better: None where neither direction is. tolerance: what `tokbench check` takes for no change; None for
    numbers that are not compared. perturbed: what follows the letter in the number's name where tokens were perturbed
    (`fid_768` makes `pfid_768`); None where the number is not computed for perturbed tokens. scored: whether it is a
    score of words or faces, which has the versions and spans above. section: None for that of its metric.
    """

    name: str
    title: str
    digits: int
    higher_is_better: bool | None = None
    tolerance: Tolerance | None = None
    perturbed: str | None = None
    scored: bool = False
    section: Section | None = None

    def forms(self) -> Iterator[tuple[Version, Span]]:
        """The versions and spans that the number has."""
        if not self.scored:
            yield "", ""
            return
        for version in VERSIONS:
            for span in SPANS:
                yield version, span


@dataclass(frozen=True)
class MetricSpec:
    """One metric: its class, what it needs, what it computes.

    name: what `--metrics` takes. summary: the line of `tokbench list metrics`. numbers: what it computes.
    path: `module:Class`, imported when the metric is computed; `register_metric` fills it in.
    network, layer: the frozen network (`tokbench.extractors`) that the class is given as `network`, and the `layer`.
    wants: further arguments of the class, by the names of MetricContext's fields and `name`.
    requires: the fields of a batch that it reads.
    paired: True where each image needs its own reference, False where it is for samples of generators only, None where
    it serves both. default_for: the tasks that compute it when `--metrics` is not given.
    reads: the fields of a protocol that change it, beside those that change the pixels of every metric.
    reader, suffix, reader_title: what reads words or faces, and what that adds to names and titles of numbers.
    timed: whether it measures the machine, so that `tokbench check` does not compare it.
    needs_codebook: whether only tokenizers with a codebook have it.
    extrapolated: whether its numbers are extrapolated to infinitely many images (`rfid_infinity`).
    """

    name: str
    summary: str
    numbers: tuple[NumberSpec, ...]
    path: str = ""
    network: str | None = None
    layer: str | None = None
    wants: tuple[str, ...] = ()
    requires: tuple[Field, ...] = ("reference", "image")
    paired: bool | None = True
    default_for: tuple[TaskKind, ...] = ()
    reads: tuple[str, ...] = ()
    reader: str | None = None
    suffix: str = ""
    reader_title: str = ""
    timed: bool = False
    needs_codebook: bool = False
    extrapolated: bool = False
    section: Section = Section.ADDED

    @property
    def perturbable(self) -> bool:
        """Whether it is computed for perturbed tokens."""
        return any(number.perturbed for number in self.numbers)

    def names(self) -> list[str]:
        """The names of all its numbers in result files, without bins, streams and extrapolations."""
        return [
            form_name(number.name, version, span, self.suffix)
            for number in self.numbers
            for version, span in number.forms()
        ]

    def refuse_invalid(self) -> None:
        """Raises UsageError where the spec cannot be registered by another package."""
        if not _NAME.fullmatch(self.name) or self.name == "all":
            raise UsageError(f"'{self.name}' cannot name a metric: use lower-case letters, digits and underscores")
        if not self.numbers:
            raise UsageError(f"metric '{self.name}' computes no number: its spec needs `numbers`")
        if ":" not in self.path:
            raise UsageError(f"metric '{self.name}': path is '{self.path}'; give 'module:Class'")
        for number in self.numbers:
            if not _NAME.fullmatch(number.name) or number.name.endswith(_RESERVED):
                raise UsageError(
                    f"'{number.name}' of metric '{self.name}' cannot name a number: use lower-case letters, digits and "
                    f"underscores, without an ending such as {', '.join(_RESERVED)}"
                )
            if number.perturbed is not None and not _NAME.fullmatch(number.perturbed):
                raise UsageError(f"'{number.perturbed}' cannot be part of the name of a number")


def form_name(number: str, version: Version, span: Span, suffix: str) -> str:
    """`t_acc_ratio_all_easyocr`."""
    return f"{number}{f'_{version}' if version else ''}{f'_{span}' if span else ''}{suffix}"
