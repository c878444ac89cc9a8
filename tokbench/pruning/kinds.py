"""What depends on the kind of a model whose tokens `tokbench prune` reduces."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokbench.errors import UsageError
from tokbench.pruning.kind_names import KINDS
from tokbench.pruning.number_style import SHARE, NumberStyle

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.pruning.benchmark import Benchmark
    from tokbench.pruning.claims import Claim, Comparison
    from tokbench.pruning.request import PruneRequest
    from tokbench.pruning.result import PruningResult


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


def refuse_unused(kind: ModelKind, given: Iterable[str]) -> None:
    """Raise UsageError if an option was given that does not apply to a kind. given: names of arguments of `prune`."""
    if unused := sorted(set(given) & set(kind.unused)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise UsageError(f"{options} does not apply to {kind.plural}; leave it out")
