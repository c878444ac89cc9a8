"""What a result file must hold: a damaged one, or one made to harm, is refused with the field that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from tokbench.errors import ResultError
from tokbench.results.warning import ResultWarning
from tokbench.validate import LARGEST, Count, Number, PlainName, Positive, convert

SCHEMA_VERSION = 1
"""The version that is written. Results without one are of version 1."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version, the function that makes of a result's JSON object one of the next version. Files are not rewritten."""

RUN = ("seed", "precision", "device")
"""What else of a run is the same for all numbers of one result."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_DEEPEST = 20
"""Levels of a result's JSON, several times what there are."""


@dataclass(frozen=True)
class MetricEntry:
    """One number: null where it has none on these images; an interval where it varies with the images."""

    value: Number | None
    low: Number | None = None
    high: Number | None = None
    n: Count = 0

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high must be two numbers or null, they are {self.low} and {self.high}")


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class PartialWeights:
    """Tensors that loading left out: how many, and the first names."""

    missing: Count
    unexpected: Count
    first: list[str]


@dataclass(frozen=True)
class AdapterFacts:
    """The adapter, its code and its weights."""

    kind: str
    source: str = ""
    modules: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    config_sha256: str = ""
    other_parameters_sha256: str = ""
    unused_tensors: dict[str, Count] = field(default_factory=dict)
    weights_in_part: PartialWeights | UnsetType = UNSET


@dataclass(frozen=True)
class DataFacts:
    """The images. The hash is a part of file names."""

    sha256: PlainName
    width: Positive
    height: Positive
    own_size: Count | None
    limit: Count | None
    available: Count | UnsetType = UNSET
    left_out: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class ProtocolFacts:
    """The protocol. Name and hash are parts of file names."""

    name: PlainName
    sha256: PlainName
    reference: str = ""
    published: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceFacts:
    """A statistics file that distributions were compared with; what is null or not there is not known."""

    file: str
    sha256: PlainName
    count: Count | None = None
    width: Positive | None = None
    height: Positive | None = None
    dataset: str | None = None
    protocol: str | None = None
    original: bool | None = None
    stated: list[str] | None = None
    mismatch: list[str] | None = None


@dataclass(frozen=True)
class Provenance:
    """How the numbers were made; `metrics`: settings of each number. Not every result has the last two."""

    adapter: AdapterFacts
    data: DataFacts
    protocol: ProtocolFacts
    metrics: dict[str, dict[str, str]]
    seed: Annotated[int, Meta(ge=-(1 << 63) + 1, le=(1 << 63) - 1)]
    precision: str
    device: str
    reference: ReferenceFacts | UnsetType = UNSET
    versions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol.published.get("num_images") and self.data.available is UNSET:
            raise ValueError("data.available is missing: how many images there are, where the protocol names a number")


@dataclass(frozen=True)
class ResultFile:
    """A result's JSON object. Further fields anywhere are kept as they are."""

    adapter: PlainName
    dataset: PlainName
    task: PlainName
    num_images: Count
    metrics: dict[str, MetricEntry]
    skipped: dict[str, str]
    bad_images: list[BadImage]
    provenance: Provenance
    error: str | None = None
    warnings: list[ResultWarning] = field(default_factory=list)


FIELDS = ("adapter", "dataset", "task", "num_images", "metrics", "skipped", "bad_images", "provenance")
"""What every result has."""


def check(facts: Any, path: Path) -> tuple[dict[str, Any], list[ResultWarning]]:
    """A result's JSON object in this version's form, and its warnings.

    Raises ResultError where it is no result, a field is missing, of the wrong type or out of range, or where the file
    is of a newer version.
    """
    if not isinstance(facts, dict):
        raise ResultError(f"{path} does not hold one JSON object")
    _check_leaves(facts, path)
    facts = _migrate(facts, path)
    return facts, convert(facts, ResultFile, str(path), ResultError).warnings


def _migrate(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    version = facts.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ResultError(f"{path}: schema_version must be an integer >= 1, it is {version!r:.80}")
    if version > SCHEMA_VERSION:
        raise ResultError(
            f"{path}: schema_version is {version}, and this tokbench reads results up to version {SCHEMA_VERSION}; "
            "upgrade tokbench"
        )
    for step in range(version, SCHEMA_VERSION):
        facts = MIGRATIONS[step](facts)
    return facts


def _check_leaves(facts: dict[str, Any], path: Path) -> None:
    """What holds of every part, known or not, since all is written again: shallow, finite, Unicode."""
    waiting: list[tuple[Any, int]] = [(facts, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > _DEEPEST:
                raise ResultError(f"{path} is nested deeper than {_DEEPEST} levels")
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, float) and not abs(value) <= LARGEST:
            raise ResultError(f"{path} holds a number that is not finite")
        elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise ResultError(f"{path} holds text that is not Unicode: {value!a:.80}")
