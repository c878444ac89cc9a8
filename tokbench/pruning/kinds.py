"""The kinds of models whose tokens `tokbench prune` reduces. A further kind is one module and one entry here."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokbench.errors import UsageError
from tokbench.tokenizers.registry import network_files, read_variant

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.data.reading import ReadOptions
    from tokbench.pruning.benchmark import Benchmark
    from tokbench.pruning.claims import Claim, Comparison
    from tokbench.pruning.result import PruningResult

CLASSIFIER = "classifier"

KINDS = {
    CLASSIFIER: "tokbench.pruning.classifier.kind",
    "detector": "tokbench.pruning.detector.kind",
    "vlm": "tokbench.pruning.vlm.kind",
    "clip": "tokbench.pruning.clips.kind",
    "pose": "tokbench.pruning.pose.kind",
}
"""The module of each kind, which defines `KIND`, an instance of ModelKind."""

PREFIXES = {"timm:": CLASSIFIER, "hf:": "vlm"}
"""Prefixes of models that are not networks of adapters/*/network.py. The TOML file of a network names its kind as
`prune_kind`, unless it is a classifier."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PruneRequest:
    """The options of `tokbench prune`.

    batches: batch sizes for timing, None for those of the kind and device, () for no timing. The other fields are the
    options of the command, see there.
    """

    model: str
    data: str
    device: str
    root: Path | None
    limit: int | None
    reading: ReadOptions
    batches: tuple[int, ...] | None
    repetitions: int
    tries: int
    kernel: str
    round_to: int
    rates: str | None
    allow_download: bool


class Tables(Protocol):
    """How the results of one table are shown; each kind has a module with these functions."""

    def legend(self, found: Sequence[PruningResult]) -> str:
        """Return the conditions of the measurements, as Markdown."""
        ...

    def markdown(self, found: Sequence[PruningResult]) -> str:
        """Return a table of the rows and the verdicts on the claims, as Markdown."""
        ...

    def frame(self, found: Sequence[PruningResult]) -> pd.DataFrame:
        """Return all measurements, one row per method and keep."""
        ...


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers that a kind compares are shown. factor: of a number in a table. unit: there."""

    unit: str
    factor: float
    higher_is_better: bool

    def gap(self, value: float, low: float | None, high: float | None) -> str:
        """Return a difference and its interval as text; an interval that cannot be computed is left out."""
        text = f"{self.factor * value:+.1f}"
        if low is None or high is None or math.isnan(low):
            return text
        return f"{text} [{self.factor * low:+.1f}, {self.factor * high:+.1f}]"

    def with_interval(self, value: float, low: float | None, high: float | None) -> str:
        """Return a number and its interval as text; an interval that cannot be computed is left out."""
        text = f"{self.factor * value:.1f}"
        if low is None or high is None or math.isnan(low):
            return text
        return f"{text} [{self.factor * low:.1f}, {self.factor * high:.1f}]"


SHARE = NumberStyle("%", 100, True)
CLASSIFIER_OPTIONS = ("rates", "round_to", "kernel")
"""Arguments of `tokbench prune` that apply to classifiers only."""


class ModelKind(ABC):
    """What depends on the kind of a model.

    plural: what the models are called in messages. row: dataclass of a row in the result files. table: shows results.
    numbers: the fields of a row that `compare` compares. style: how they are shown. claims: the papers' claims about
    methods. keeps: the default of --keep, "" if methods have no keep ratio. unused: arguments of `tokbench prune` that
    do not apply.
    """

    plural: ClassVar[str]

    row: ClassVar[type]
    table: ClassVar[Tables]
    numbers: ClassVar[tuple[str, ...]]
    style: ClassVar[NumberStyle] = SHARE
    claims: ClassVar[tuple[Claim, ...]] = ()
    keeps: ClassVar[str]
    unused: ClassVar[tuple[str, ...]] = CLASSIFIER_OPTIONS

    @abstractmethod
    def known(self, root: Path | None) -> list[str]:
        """Return all METHOD names."""

    @abstractmethod
    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        """Return the METHOD names that `all` stands for."""

    @abstractmethod
    def open(self, request: PruneRequest, say: Callable[[str], None]) -> Benchmark[Any, Any, Any, Any]:
        """Load the model and open the data set. say: prints a message."""

    @abstractmethod
    def summary(self, row: Any) -> str:
        """Return one line about a measured row."""

    @abstractmethod
    def compare(self, number: str, first: tuple[PruningResult, Any], second: tuple[PruningResult, Any]) -> Comparison:
        """Compare a number of two rows of one table, each given with its result."""


def kind_named(name: str) -> ModelKind:
    """Return a kind by its key in KINDS."""
    found: ModelKind = importlib.import_module(KINDS[name]).KIND
    return found


def kind_of_model(model: str, root: Path | None) -> str:
    """Return the key of the kind of a model; that of an unknown network is a classifier, which then reports it.

    Raises UsageError if the TOML file of the network names an unknown kind.
    """
    for prefix, name in PREFIXES.items():
        if model.startswith(prefix):
            return name
    files = network_files(root)
    return kind_of_network(model, files[model]) if model in files else CLASSIFIER


def kind_of_network(name: str, toml: Path) -> str:
    """Return the key of the kind of a network. Raises UsageError if its TOML file names an unknown kind."""
    kind = read_variant(toml).get("prune_kind", CLASSIFIER)
    if kind not in KINDS:
        raise UsageError(f"{name}: prune_kind = {kind!r} in its TOML file; it must be one of {', '.join(KINDS)}")
    return str(kind)


def refuse_unused(kind: ModelKind, given: Iterable[str]) -> None:
    """Raise UsageError if an option was given that does not apply to a kind. given: names of arguments of `prune`."""
    if unused := sorted(set(given) & set(kind.unused)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise UsageError(f"{options} does not apply to {kind.plural}; leave it out")
