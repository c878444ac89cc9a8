"""The pruning benchmark: measures methods at several keep ratios and saves every row as soon as it is measured."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokbench import timing
from tokbench._version import __version__
from tokbench.data.labels import at_chance
from tokbench.errors import UsageError
from tokbench.io.hashing import code_of
from tokbench.paths import PACKAGE
from tokbench.protocol.protocol import describe_protocol
from tokbench.pruning import paired_timing
from tokbench.pruning.candidates import candidates_of, with_own_network
from tokbench.pruning.flops import FORMULA
from tokbench.pruning.kinds import Progress
from tokbench.pruning.measure import (
    Candidate,
    Predictions,
    accuracy,
    best_kernel,
    check_same,
    counted_flops,
    disturbed,
    gflops,
    predict,
    time_candidate,
)
from tokbench.pruning.models import ImageClassifier, LabelledImages
from tokbench.pruning.pruner import Training
from tokbench.pruning.result import BatchTiming, PruningResult, PruningRow, packed
from tokbench.pruning.vit import Kernel, images_like, recognise
from tokbench.timing import device_name

WHOLE = "whole"
"""Name of the full network in results and tables."""


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


class PruningBenchmark:
    """Benchmark of token-reduction methods in one network, on one dataset and device."""

    def __init__(
        self,
        classifier: ImageClassifier,
        images: LabelledImages,
        device: str,
        config: BenchmarkConfig,
        root: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.classifier, self.images, self.device, self.config, self.root = classifier, images, device, config, root
        self.warn, self.dataset = warn, images.dataset
        self.controls: tuple[str, ...] = ()
        self.whole = Candidate(WHOLE, WHOLE, None, classifier.vit, classifier.vit)
        self.kernels: dict[int, Kernel] = {}
        """The faster attention kernel of the full network, by batch size."""

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row.

        Raises UsageError or MissingWeights if a method or keep is not available; earlier rows stay saved.
        """
        candidates = candidates_of(name, self.classifier, keeps, self.device, self.config.rates, self.root)
        first = next(candidates)  # raises for an unknown method before the images are read
        whole = self.predictions(progress)  # this pass also computes the dataset's hash
        for candidate in itertools.chain([first], candidates):
            if candidate.pruner is not None:
                check_same(candidate.vit, candidate.pruner)
            result = PruningResult(self.about(candidate, whole)).resumed(out)
            key = WHOLE if candidate.keep is None else f"{candidate.keep:g}"
            row = result.rows.get(key)
            if row is None or row.weights != candidate.weights:  # not measured yet, or trained again
                row = result.rows[key] = self.row(candidate, whole, progress)
                result.save(out)
            for batch in self.config.batches:
                known = {pace.batch: pace for pace in row.pace}
                while batch not in known or (disturbed(known[batch]) and known[batch].tries < self.config.tries):
                    progress(f"{_label(candidate)} batch sizes", len(row.pace), len(self.config.batches))
                    tries = known[batch].tries if batch in known else 0
                    known[batch] = replace(self.time(candidate, batch), tries=tries + 1)
                    row.pace = [known[size] for size in sorted(known)]
                    result.save(out)
            yield result, key

    def predictions(self, progress: Progress) -> Predictions:
        """Return the predictions of the full network, computed once."""
        if self._predictions is None:
            self._predictions, _ = predict(
                self.whole,
                self.images,
                self.device,
                "sdpa",
                1,
                lambda done, total: progress("whole images", done, total),
            )
            for text in self.warnings(self._predictions):
                self.warn(text)
        return self._predictions

    def warnings(self, whole: Predictions) -> list[str]:
        """Return reasons to doubt that the labels match the network.

        An undertrained network is not checked for accuracy at chance level.
        """
        labels, right = self.images.labels, int(whole.first.sum())
        chance = None if self.classifier.short else at_chance(right, len(whole.labels), labels.classes)
        return [*labels.warnings, *([chance] if chance else [])]

    _predictions: Predictions | None = None

    def row(self, candidate: Candidate, whole: Predictions, progress: Progress) -> PruningRow:
        """Measure one candidate, without its timings."""
        config = self.config
        own, counts = predict(
            candidate, self.images, self.device, config.kernel, config.round_to,
            lambda done, total: progress(f"{_label(candidate)} images", done, total),
        )  # fmt: skip
        found = accuracy(own, whole)
        formula, formula_whole = gflops(counts, candidate, self.whole)
        images = images_like(recognise(self.classifier.vit), 1)
        # Nothing is known about the training of rates that the user gives.
        given_rates = training_of(candidate) != "none" and not candidate.trained
        unknown = None if given_rates else 0
        return PruningRow(
            title=candidate.title,
            network=candidate.network or self.classifier.name,
            top1=found["top1"],
            top5=found["top5"],
            agreement=found["agreement"],
            top1_gap=found["top1_gap"],
            top5_gap=found["top5_gap"],
            right=packed(own.first),
            tokens=list(counts),
            gflops=formula,
            whole_gflops=formula_whole,
            counted_gflops=counted_flops(candidate, images, config.round_to) / 1e9,
            training_seconds=candidate.trained.get("seconds", unknown),
            training_images=candidate.trained.get("images", unknown),
            training_profile=candidate.trained.get("recipe", {}).get("profile"),
            weights=candidate.weights,
            pace=[],
        )

    def time(self, candidate: Candidate, batch: int) -> BatchTiming:
        """Time one candidate at one batch size."""
        config = self.config
        if batch not in self.kernels:
            self.kernels[batch] = best_kernel(self.whole, batch, self.device, config.repetitions)
        return time_candidate(
            with_own_network(candidate), self.whole, batch, self.device, self.kernels[batch], config.kernel,
            config.repetitions, config.round_to,
        )  # fmt: skip

    def about(self, candidate: Candidate, whole: Predictions) -> dict[str, Any]:
        """Return the metadata shared by all rows of a method. whole: the predictions of the full network."""
        dataset, classifier = self.images.dataset, self.classifier
        measured = [dataset.source.names[position] for position in whole.index.tolist()]
        title = candidate.pruner.title if candidate.pruner else candidate.title.split(",")[0]
        packages = ("torch", "timm", "numpy")
        return {
            "model": classifier.name,
            "method": candidate.method,
            "title": title,
            "training": training_of(candidate),
            "dataset": dataset.name,
            "num_images": len(measured),
            "short": classifier.short,
            "provenance": {
                "device": device_name(self.device),
                "processor": processor_of(self.device),
                "kernel": self.config.kernel,
                "repetitions": self.config.repetitions,
                "round_to": self.config.round_to,
                "formula": FORMULA,
                "weights": classifier.weights,
                "data": {"sha256": dataset.sha256, "limit": dataset.limit, "side": classifier.side}
                | ({"sampling": dataset.sampling} if dataset.sampling == "even" else {}),
                "labels": self.images.labels.facts(measured) | {"warnings": self.warnings(whole)},
                "protocol": describe_protocol(dataset.protocol),
                "code_sha256": code_of(PACKAGE / "pruning", *map(Path, _TIMING)),
                "versions": {"tokbench": __version__, "python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in packages},
            },
        }


def _label(candidate: Candidate) -> str:
    return f"{candidate.method} {candidate.keep:g}" if candidate.keep else candidate.method


_TIMING = (paired_timing.__file__, timing.__file__)


def training_of(candidate: Candidate) -> Training:
    return candidate.training if candidate.pruner is None else candidate.pruner.training


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
