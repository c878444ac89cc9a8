"""The part of the benchmark that all kinds of models share: rows are saved when they are measured, and runs resume."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from tokbench import timing
from tokbench._version import __version__
from tokbench.errors import UsageError
from tokbench.io.hashing import code_of
from tokbench.paths import PACKAGE
from tokbench.protocol.protocol import Protocol as DataProtocol
from tokbench.protocol.protocol import describe_protocol
from tokbench.pruning.paired_timing import disturbed
from tokbench.pruning.request import Progress, PruneRequest
from tokbench.pruning.result import PruningResult, TimedRow, row_key
from tokbench.pruning.vit import Kernel
from tokbench.timing import device_name


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the measurements.

    kernel: attention kernel of the reduced network. batches: batch sizes for timing; empty for no timing. repetitions:
    timings per batch size. round_to: token counts are rounded up to a multiple of it. rates: rates for DiffRate.
    tries: maximum number of timing runs when the control timing deviates.
    """

    kernel: Kernel = "sdpa"
    batches: tuple[int, ...] = (1, 32, 128)
    repetitions: int = 30
    round_to: int = 1
    rates: str | None = None
    tries: int = 3

    @staticmethod
    def of_request(request: PruneRequest, batches: tuple[int, ...]) -> BenchmarkConfig:
        """Return the settings of a command. batches: the batch sizes if the command names none."""
        return BenchmarkConfig(
            "eager" if request.kernel == "eager" else "sdpa",
            batches if request.batches is None else request.batches,
            request.repetitions,
            request.round_to,
            request.rates,
            request.tries,
        )


@dataclass(frozen=True)
class FullModel:
    """The model whose tokens are reduced.

    name: in results. weights: SHA-256 by file. side: of its images in pixels, or the length of its sequences.
    training_profile: of its training, None if it is unknown.
    """

    name: str
    device: str
    side: int
    weights: dict[str, str]
    training_profile: str | None = None


class Reduction(Protocol):
    """One way to run a model.

    keep: None if it has no keep ratio. method_title: the title of the method, equal for all keeps. training: what was
    trained for it. weights: hashes by file of a network that was trained for it.
    """

    @property
    def method(self) -> str: ...

    @property
    def method_title(self) -> str: ...

    @property
    def keep(self) -> float | None: ...

    @property
    def training(self) -> str: ...

    @property
    def weights(self) -> dict[str, str]: ...


class MeasuredData(Protocol):
    """The data on which a model is measured, such as a `Dataset`.

    limit: None if all data are read. sampling: `even` or `first`. sha256: of the data that were read. protocol: how
    they are preprocessed, None if they are not. left_out: files that are not read, by suffix. unreadable: name and
    reason of what could not be read.
    """

    @property
    def name(self) -> str: ...

    @property
    def limit(self) -> int | None: ...

    @property
    def sampling(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def protocol(self) -> DataProtocol | None: ...

    @property
    def left_out(self) -> dict[str, int]: ...

    @property
    def unreadable(self) -> list[tuple[str, str]]: ...


C = TypeVar("C", bound=Reduction)
R = TypeVar("R", bound=TimedRow)
F = TypeVar("F")
D = TypeVar("D", bound=MeasuredData)


class Benchmark(ABC, Generic[C, R, F, D]):
    """Measures methods that reduce the tokens of one model, on data D and one device. F: what is measured of the full
    model.

    kind: key of `tokbench.pruning.kind_names.KINDS`. formula: how FLOPs are counted, as text. packages: those whose
    versions are recorded. sources: further files of the package, besides those of tokbench.pruning, whose code
    determines the numbers; results of other code are measured again.
    """

    kind: ClassVar[str]
    formula: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    sources: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: FullModel, dataset: D, config: BenchmarkConfig, say: Callable[[str], None]) -> None:
        """say: prints a message."""
        self.model, self.dataset, self.config, self.say = model, dataset, config, say
        self._full: F | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """Methods that every run measures as well."""
        return ()

    @abstractmethod
    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[C]:
        """Yield the ways to run the model that belong to a METHOD name.

        Raises UsageError or MissingWeights if the method or a keep is not available.
        """

    @abstractmethod
    def measure_whole(self, progress: Progress) -> F:
        """Measure the full model."""

    def measure_full(self, progress: Progress) -> None:
        """Measure the full model, once, and print the warnings; `row` and `about` are called afterwards."""
        if self._full is None:
            self._full = self.measure_whole(progress)
            for text in self.warnings:
                self.say(f"warning: {text}")

    @property
    def full(self) -> F:
        """What was measured of the full model."""
        assert self._full is not None  # `run` calls `measure_full` first
        return self._full

    @property
    @abstractmethod
    def quality(self) -> str:
        """The quality of the full model and the smallest one that is judged, as the beginning of a sentence."""

    @property
    def warnings(self) -> list[str]:
        """Warnings about the full model."""
        return [f"{self.quality}, no verdict on a method is drawn"] if self.short else []

    @abstractmethod
    def row(self, candidate: C, progress: Progress) -> R:
        """Measure one row, without its timings."""

    @abstractmethod
    def time(self, candidate: C, batch: int) -> Any:
        """Return the timing of one row at one batch size, which has `speedups` and `tries`."""

    @property
    @abstractmethod
    def num_images(self) -> int:
        """The number of measured images."""

    @property
    @abstractmethod
    def short(self) -> bool:
        """Whether the full model is too weak for a verdict on a method."""

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row.

        Raises UsageError or MissingWeights if a method or keep is not available; earlier rows stay saved.
        """
        candidates = self.candidates(name, keeps)
        first = next(candidates)  # raises for an unknown method before the images are read
        self.measure_full(progress)  # this pass also computes the dataset's hash
        for candidate in itertools.chain([first], candidates):
            result, key = PruningResult(self.about(candidate)).resumed(out), row_key(candidate.keep)
            row = result.rows.get(key)
            if row is None or row.weights != candidate.weights:  # not measured yet, or trained again
                row = result.rows[key] = self.row(candidate, progress)
                result.save(out)
            for place, batch in enumerate(self.config.batches):
                known = row.timing(batch)
                while known is None or (disturbed(known) and known.tries < self.config.tries):
                    progress(f"{label_of(candidate)} batch sizes", place, len(self.config.batches))
                    tries = known.tries if known else 0
                    known = replace(self.time(candidate, batch), tries=tries + 1)
                    row.add_timing(known)
                    result.save(out)
            yield result, key

    def about(self, candidate: C) -> dict[str, Any]:
        """Return the metadata shared by all rows of a method."""
        dataset, config = self.dataset, self.config
        return {
            "kind": self.kind,
            "model": self.model.name,
            "method": candidate.method,
            "title": candidate.method_title,
            "training": candidate.training,
            "training_profile": self.model.training_profile,
            "dataset": dataset.name,
            "num_images": self.num_images,
            "short": self.short,
            "provenance": {
                "device": device_name(self.model.device),
                "processor": processor_of(self.model.device),
                "kernel": config.kernel,
                "repetitions": config.repetitions,
                "round_to": config.round_to,
                "formula": self.formula,
                "weights": self.model.weights,
                "data": {"sha256": dataset.sha256, "limit": dataset.limit, "side": self.model.side}
                | ({"sampling": dataset.sampling} if dataset.sampling == "even" else {}),
                "code_sha256": code_of(
                    PACKAGE / "pruning", Path(timing.__file__), *(PACKAGE / source for source in self.sources)
                ),
                "versions": {"tokbench": __version__, "python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in self.packages},
            }
            | ({"protocol": describe_protocol(dataset.protocol)} if dataset.protocol else {}),
        }


def label_of(candidate: Reduction) -> str:
    """Return a candidate's method and keep, for progress messages."""
    return candidate.method if candidate.keep is None else f"{candidate.method} {candidate.keep:g}"


def processor_of(device: str) -> str:
    """Return the CPU's name, if known, and its instruction set, which selects its kernels; empty for other devices."""
    if device != "cpu":
        return ""
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        match = None
    name = match[1].strip() if match else platform.processor()
    return f"{name} {torch.backends.cpu.get_cpu_capability()}".strip()


def read_keeps(text: str) -> list[float]:
    """Parse `.9,.7,.5`. Raises UsageError for values outside (0, 1]."""
    try:
        keeps = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep {text}: expected numbers in (0, 1], for example .9,.7,.5") from error
    if not keeps or not all(0 < keep <= 1 for keep in keeps):
        raise UsageError(f"--keep {text}: every keep must lie in (0, 1]")
    return keeps
