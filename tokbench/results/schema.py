"""The schema of result files. A damaged or malicious file is refused with the name of the wrong field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from tokbench.errors import ResultError
from tokbench.metric_names import Modality
from tokbench.protocol.degradation import Degradation
from tokbench.results.warning import ResultWarning
from tokbench.validate import LARGEST, Count, Number, PlainName, Positive, convert

SCHEMA_VERSION = 1
"""The schema version of files that are written. Files without one have version 1."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Functions by version, each of which converts a result's JSON object to the next version. Files stay unchanged."""

RUN = ("seed", "precision", "device")
"""The other properties of a run that are the same for all metrics of one result."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_DEEPEST = 20
"""The allowed nesting depth of a result's JSON, several times the actual depth."""


@dataclass(frozen=True)
class MetricEntry:
    """One metric: value is null where it is undefined on these images; low and high are null without an interval."""

    value: Number | None
    low: Number | None = None
    high: Number | None = None
    n: Count = 0

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high must both be numbers or null, but they are {self.low} and {self.high}")


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class PartialWeights:
    """Tensors that were not loaded: their numbers, and the first names."""

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
    floor: bool = False
    unused_tensors: dict[str, Count] = field(default_factory=dict)
    weights_in_part: PartialWeights | UnsetType = UNSET
    taxonomy: dict[str, str] = field(default_factory=dict)
    pair: Literal["name", "order"] = "name"


@dataclass(frozen=True)
class DataFacts:
    """The images, or items of another modality. Hash and extent are part of file names.

    side: the resolution of items that are not square images: the sampling rate of waveforms in Hz.
    """

    sha256: PlainName
    width: Positive
    height: Positive
    own_size: Count | None
    limit: Count | None
    available: Count | UnsetType = UNSET
    sampling: Literal["first", "even"] = "first"
    left_out: dict[str, Count] = field(default_factory=dict)
    captions: str = ""
    modality: Modality = "image"
    extent: PlainName | UnsetType = UNSET
    side: Positive | UnsetType = UNSET


@dataclass(frozen=True)
class ProtocolFacts:
    """The protocol. Name and hash are part of file names."""

    name: PlainName
    sha256: PlainName
    reference: str = ""
    published: dict[str, Count] = field(default_factory=dict)
    degrade: str = ""

    def __post_init__(self) -> None:
        if self.degrade:
            Degradation.parse(self.degrade)


@dataclass(frozen=True)
class ReferenceFacts:
    """The statistics file that distributions were compared with. Null or missing fields are unknown."""

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
class RestorerFacts:
    """The adapter that restored degraded images first. Its name is part of file names."""

    name: PlainName
    kind: str


@dataclass(frozen=True)
class Provenance:
    """How the metrics were computed. metrics: the settings of each metric. restore, reference and versions are
    optional."""

    adapter: AdapterFacts
    data: DataFacts
    protocol: ProtocolFacts
    metrics: dict[str, dict[str, str]]
    seed: Annotated[int, Meta(ge=-(1 << 63) + 1, le=(1 << 63) - 1)]
    precision: str
    device: str
    reference: ReferenceFacts | UnsetType = UNSET
    restore: RestorerFacts | UnsetType = UNSET
    versions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol.published.get("num_images") and self.data.available is UNSET:
            raise ValueError("data.available is missing: it is required if the protocol publishes a number of images")


@dataclass(frozen=True)
class ResultFile:
    """A result's JSON object. Other fields are allowed everywhere and kept."""

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
"""The required fields of a result."""


def check(facts: Any, path: Path) -> tuple[dict[str, Any], list[ResultWarning]]:
    """Return a result's JSON object in the current schema version, and its warnings.

    Raises ResultError if it is not a result, if a field is missing, has the wrong type or is out of range, or if the
    file has a newer schema version.
    """
    if not isinstance(facts, dict):
        raise ResultError(f"{path} does not contain a JSON object")
    _check_leaves(facts, path)
    facts = _migrate(facts, path)
    return facts, convert(facts, ResultFile, str(path), ResultError).warnings


def _migrate(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    version = facts.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ResultError(f"{path}: schema_version must be an integer >= 1, but it is {version!r:.80}")
    if version > SCHEMA_VERSION:
        raise ResultError(
            f"{path}: schema_version is {version}, but this tokbench reads only versions up to {SCHEMA_VERSION}; "
            "upgrade tokbench"
        )
    for step in range(version, SCHEMA_VERSION):
        facts = MIGRATIONS[step](facts)
    return facts


def _check_leaves(facts: dict[str, Any], path: Path) -> None:
    """Check the nesting depth, numbers and texts of all fields, also unknown ones, because all are written again."""
    waiting: list[tuple[Any, int]] = [(facts, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > _DEEPEST:
                raise ResultError(f"{path} is nested deeper than {_DEEPEST} levels")
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, float) and not abs(value) <= LARGEST:
            raise ResultError(f"{path} contains a number that is not finite")
        elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise ResultError(f"{path} contains text that is not Unicode: {value!a:.80}")
