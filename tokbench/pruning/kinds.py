"""The kinds of models whose tokens `tokbench prune` reduces. A further kind is one module and one entry here."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokbench.errors import UsageError
from tokbench.tokenizers.registry import network_files, read_variant

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.data.dataset import Dataset
    from tokbench.data.reading import ReadOptions
    from tokbench.pruning.result import PruningResult

CLASSIFIER = "classifier"

KINDS = {
    CLASSIFIER: "tokbench.pruning.classifiers",
    "vlm": "tokbench.pruning.vlm.kind",
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


class Benchmark(Protocol):
    """Measures the methods of one model on one data set.

    controls: methods that every run measures as well.
    """

    @property
    def dataset(self) -> Dataset: ...

    @property
    def controls(self) -> tuple[str, ...]: ...

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row."""
        ...


class ModelKind(ABC):
    """What depends on the kind of a model.

    row: dataclass of a row in the result files. keeps: the default of --keep. methods: those that `all` stands for.
    """

    row: ClassVar[type]
    keeps: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]

    @abstractmethod
    def known(self, root: Path | None) -> list[str]:
        """Return all METHOD names."""

    @abstractmethod
    def open(self, request: PruneRequest, say: Callable[[str], None]) -> Benchmark:
        """Load the model and open the data set. say: prints a message."""

    @abstractmethod
    def summary(self, row: Any) -> str:
        """Return one line about a measured row."""

    @abstractmethod
    def legend(self, found: Sequence[PruningResult]) -> str:
        """Return the conditions of a table's measurements, as Markdown."""

    @abstractmethod
    def markdown(self, found: Sequence[PruningResult]) -> str:
        """Return a table, as Markdown."""

    @abstractmethod
    def frame(self, found: Sequence[PruningResult]) -> pd.DataFrame:
        """Return all measurements of a table, one row per method and keep."""


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
    name = read_variant(files[model]).get("prune_kind", CLASSIFIER) if model in files else CLASSIFIER
    if name not in KINDS:
        raise UsageError(f"{model}: prune_kind = {name!r} in its TOML file; it must be one of {', '.join(KINDS)}")
    return str(name)
