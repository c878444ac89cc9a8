"""MetricSpec and NumberSpec: the properties of a metric and of its numbers, for tables, checks and documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, get_args

from tokbench.errors import UsageError
from tokbench.stats.naming import INFINITY

Version = Literal["", "ceiling", "ratio"]
VERSIONS: dict[Version, str] = {"": "", "ceiling": " ceiling", "ratio": " / ceiling"}
"""The versions of a score of words or faces, with their titles: the score, the score of images that were only resized
(`t_acc_ceiling`), and the ratio of the two (`t_acc_ratio`)."""

Span = Literal["", "all", "curve"]
SPANS: dict[Span, str] = {"": "", "all": " (all)", "curve": ""}
"""The spans of a score of words or faces, with their titles: the mean of three bins, the mean of all
words or faces, and a curve over sizes."""

Field = Literal[
    "reference", "image", "tokens", "timing", "marked", "labels", "captions", "baseline", "seams", "degraded"
]
"""A field of `tokbench.metrics.batch.Batch`."""

Modality = Literal["image", "video", "sound", "shape"]
"""What a stream consists of: images, clips, waveforms or voxels (`tokbench.modalities`)."""

EVERY_MODALITY: tuple[Modality, ...] = get_args(Modality)


class Items(NamedTuple):
    """The noun of one item of a modality, for messages, and the unit of its size."""

    noun: str
    unit: str


ITEMS: dict[Modality, Items] = {
    "image": Items("image", "px"),
    "video": Items("clip", "px"),
    "sound": Items("recording", "Hz"),
    "shape": Items("shape", "voxels"),
}

TaskKind = Literal["reconstruct", "truncate", "perturb", "generate", "decode"]

TASK_MODALITIES: dict[TaskKind, tuple[Modality, ...]] = {
    "reconstruct": EVERY_MODALITY,
    "truncate": EVERY_MODALITY,
    "perturb": ("image",),
    "generate": ("image",),
    "decode": ("image",),
}
"""The modalities for which each task exists."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = (INFINITY, *(f"_{end}" for end in (*get_args(Version)[1:], *get_args(Span)[1:])))


class Section(IntEnum):
    """The sections of a table, in the order of its columns."""

    RATE = 0
    PAIRED = 1
    DECODER = 2
    SAMPLES = 3
    PERTURBED = 4
    ANNOTATED = 5
    CODES = 6
    LATENTS = 7
    SIZE = 8
    COST = 9
    SPEED = 10
    ADDED = 11
    """The section of metrics that other packages add."""


@dataclass(frozen=True)
class Tolerance:
    """Differences up to `absolute` or up to `relative` times the committed value do not count as a change."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, gap: float, value: float) -> bool:
        """Return whether a difference is within the tolerance. NaN is not."""
        return abs(gap) <= max(self.absolute, self.relative * abs(value))


@dataclass(frozen=True)
class NumberSpec:
    """One number that a metric computes.

    name: the key in result files, without the suffix of a recognizer.
    title, digits: the title and the number of decimal digits of its column in tables.
    higher_is_better: None if neither direction is better.
    tolerance: the largest difference that `tokbench check` does not report; None if the number is not compared.
    perturbed: the form of the name if tokens were perturbed (`fid_768` gives `pfid_768`), or None if the number is not
    computed for perturbed tokens.
    scored: whether the number is a score of words or faces, which has all versions and spans.
    section: the section of its column; None for the section of the metric.
    unit: the unit of its values, or "" for scores, shares and distances without one.
    """

    name: str
    title: str
    digits: int
    higher_is_better: bool | None = None
    tolerance: Tolerance | None = None
    perturbed: str | None = None
    scored: bool = False
    section: Section | None = None
    unit: str = ""

    def forms(self) -> Iterator[tuple[Version, Span]]:
        """Yield the versions and spans that the number has."""
        if not self.scored:
            yield "", ""
            return
        for version in VERSIONS:
            for span in SPANS:
                yield version, span


@dataclass(frozen=True)
class MetricSpec:
    """One metric: its class, its inputs and its numbers.

    name: the name in `--metrics`. summary: the line in `tokbench list metrics`. numbers: the numbers it computes.
    path: `module:Class`, which is imported when the metric is computed; `register_metric` sets it.
    network: the name of a frozen network (`tokbench.extractors`), which is passed to the class as `network`.
    layer: the layer of the network, which is passed to the class as `layer`.
    wants: further arguments of the class: names of fields of MetricContext, `name` or `device`.
    requires: the fields of a batch that the metric reads.
    paired: True if every image needs its own reference, False if the metric is only for samples of generators, None if
    it is for both.
    default_for: the tasks that compute it when `--metrics` is not given.
    reads: the fields of a protocol that affect it, in addition to those that affect the pixels of every metric.
    reader: the name of the recognizer of text or faces, if there is one.
    suffix, reader_title: additions of the recognizer to the names and titles of the numbers.
    timed: whether it measures the speed of the machine; `tokbench check` does not compare such metrics.
    needs_codebook: whether it exists only for tokenizers with a codebook.
    extrapolated: whether its numbers are extrapolated to infinitely many images (`rfid_infinity`).
    section: the section of its columns in tables.
    modalities: the kinds of data on which it is computed.
    group: a name in `--metrics` that selects all metrics of a group, or "".
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
    modalities: tuple[Modality, ...] = ("image",)
    group: str = ""

    @property
    def perturbable(self) -> bool:
        """Whether the metric is computed for perturbed tokens."""
        return any(number.perturbed for number in self.numbers)

    def names(self) -> list[str]:
        """Return the names of its numbers in result files, without bins, streams and extrapolations."""
        return [
            form_name(number.name, version, span, self.suffix)
            for number in self.numbers
            for version, span in number.forms()
        ]

    def refuse_invalid(self) -> None:
        """Raise UsageError if another package cannot register the spec."""
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
    """Return the name of one form of a number, such as `t_acc_ratio_all_easyocr`."""
    return f"{number}{f'_{version}' if version else ''}{f'_{span}' if span else ''}{suffix}"
