"""`tokbench prune`: methods and keeps in, facts out; what is measured is kept row by row."""

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
from tokbench.pruning.candidates import apart, arms
from tokbench.pruning.flops import FORMULA
from tokbench.pruning.measure import (
    Candidate,
    Predictions,
    accuracy,
    best_kernel,
    check_same,
    counted_flops,
    disturbed,
    gflops,
    pace,
    predict,
)
from tokbench.pruning.models import ImageClassifier, Labelled
from tokbench.pruning.pruner import Training
from tokbench.pruning.result import BatchTiming, PruningResult, PruningRow, packed
from tokbench.pruning.vit import Kernel, images_like, recognise
from tokbench.timing import device_name

WHOLE = "whole"
"""The name of the network as it is, in facts and tables."""

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchmarkConfig:
    """How to measure: attention's kernel, batch sizes for time (none: no time), timings of each, multiples for counts
    of tokens, DiffRate's given rates, how often times are taken whose control is off."""

    kernel: Kernel = "sdpa"
    batches: tuple[int, ...] = (1, 32, 128)
    repetitions: int = 30
    round_to: int = 1
    rates: str | None = None
    tries: int = 3


class PruningBenchmark:
    """One network on one data set and device."""

    def __init__(
        self,
        subject: ImageClassifier,
        images: Labelled,
        device: str,
        plan: BenchmarkConfig,
        root: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.subject, self.images, self.device, self.plan, self.root = subject, images, device, plan, root
        self.warn = warn
        self.whole = Candidate(WHOLE, WHOLE, None, subject.vit, subject.vit)
        self.kernels: dict[int, Kernel] = {}
        """The whole network's faster one by batch size, found once."""

    def run(self, name: str, keeps: Sequence[float], out: Path, told: Told) -> Iterator[tuple[PruningResult, str]]:
        """Measures what of a method is not in `out` yet; yields after each row what is known of it, and the row's keep.

        Raises UsageError and MissingWeights for a method or keep that cannot be; rows before it are kept.
        """
        made = arms(name, self.subject, keeps, self.device, self.plan.rates, self.root)
        first = next(made)  # before the images are read: it may be that there is no such method
        whole = self.predictions(told)  # the data set's hash is known after a pass
        for arm in itertools.chain([first], made):
            if arm.pruner is not None:
                check_same(arm.vit, arm.pruner)
            kept = PruningResult(self.about(arm, whole)).resumed(out)
            key = WHOLE if arm.keep is None else f"{arm.keep:g}"
            row = kept.rows.get(key)
            if row is None or row.weights != arm.weights:  # not measured yet, or trained anew
                row = kept.rows[key] = self.row(arm, whole, told)
                kept.save(out)
            for batch in self.plan.batches:
                known = {pace.batch: pace for pace in row.pace}
                while batch not in known or (disturbed(known[batch]) and known[batch].tries < self.plan.tries):
                    told(f"{_label(arm)} batch sizes", len(row.pace), len(self.plan.batches))
                    tries = known[batch].tries if batch in known else 0
                    known[batch] = replace(self.time(arm, batch), tries=tries + 1)
                    row.pace = [known[size] for size in sorted(known)]
                    kept.save(out)
            yield kept, key

    def predictions(self, told: Told) -> Predictions:
        """The whole network's, made once."""
        if self._predictions is None:
            self._predictions, _ = predict(
                self.whole, self.images, self.device, "sdpa", 1, lambda done, total: told("whole images", done, total)
            )
            for text in self.warnings(self._predictions):
                self.warn(text)
        return self._predictions

    def warnings(self, whole: Predictions) -> list[str]:
        """What makes it doubtful that the labels are those of the network; nothing of one trained too briefly."""
        labels, right = self.images.labels, int(whole.first.sum())
        found = None if self.subject.short else at_chance(right, len(whole.labels), labels.classes)
        return [*labels.warnings, *([found] if found else [])]

    _predictions: Predictions | None = None

    def row(self, arm: Candidate, whole: Predictions, told: Told) -> PruningRow:
        """Everything about one arm but its times."""
        plan = self.plan
        own, counts = predict(
            arm, self.images, self.device, plan.kernel, plan.round_to,
            lambda done, total: told(f"{_label(arm)} images", done, total),
        )  # fmt: skip
        found = accuracy(own, whole)
        formula, formula_whole = gflops(counts, arm, self.whole)
        images = images_like(recognise(self.subject.vit), 1)
        given = training_of(arm) != "none" and not arm.trained  # rates, of which nothing else is known
        unknown = None if given else 0
        return PruningRow(
            title=arm.title,
            network=arm.network or self.subject.name,
            top1=found["top1"],
            top5=found["top5"],
            agreement=found["agreement"],
            top1_gap=found["top1_gap"],
            top5_gap=found["top5_gap"],
            right=packed(own.first),
            tokens=list(counts),
            gflops=formula,
            whole_gflops=formula_whole,
            counted_gflops=counted_flops(arm, images, plan.round_to) / 1e9,
            training_seconds=arm.trained.get("seconds", unknown),
            training_images=arm.trained.get("images", unknown),
            training_profile=arm.trained.get("recipe", {}).get("profile"),
            weights=arm.weights,
            pace=[],
        )

    def time(self, arm: Candidate, batch: int) -> BatchTiming:
        """Its times at one batch size."""
        plan = self.plan
        if batch not in self.kernels:
            self.kernels[batch] = best_kernel(self.whole, batch, self.device, plan.repetitions)
        return pace(
            apart(arm), self.whole, batch, self.device, self.kernels[batch], plan.kernel, plan.repetitions,
            plan.round_to,
        )  # fmt: skip

    def about(self, arm: Candidate, whole: Predictions) -> dict[str, Any]:
        """What of a method is the same for all its rows. `whole`: the whole network's predictions."""
        dataset, subject = self.images.dataset, self.subject
        measured = [dataset.source.names[position] for position in whole.index.tolist()]
        title = arm.pruner.title if arm.pruner else arm.title.split(",")[0]
        packages = ("torch", "timm", "numpy")
        return {
            "model": subject.name,
            "method": arm.method,
            "title": title,
            "training": training_of(arm),
            "dataset": dataset.name,
            "num_images": len(measured),
            "short": subject.short,
            "provenance": {
                "device": device_name(self.device),
                "processor": _processor(self.device),
                "kernel": self.plan.kernel,
                "repetitions": self.plan.repetitions,
                "round_to": self.plan.round_to,
                "formula": FORMULA,
                "weights": subject.weights,
                "data": {"sha256": dataset.sha256, "limit": dataset.limit, "side": subject.side},
                "labels": self.images.labels.facts(measured) | {"warnings": self.warnings(whole)},
                "protocol": describe_protocol(dataset.protocol),
                "code_sha256": code_of(PACKAGE / "pruning", *map(Path, _TIMING)),
                "versions": {"tokbench": __version__, "python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in packages},
            },
        }


def _label(arm: Candidate) -> str:
    return f"{arm.method} {arm.keep:g}" if arm.keep else arm.method


_TIMING = (paired_timing.__file__, timing.__file__)


def training_of(arm: Candidate) -> Training:
    return arm.training if arm.pruner is None else arm.pruner.training


def _processor(device: str) -> str:
    """The CPU's name, where the system tells it, and instructions, which decide its kernels; nothing more of a GPU."""
    if device != "cpu":
        return ""
    try:
        told = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        told = None
    name = told[1].strip() if told else platform.processor()
    return f"{name} {torch.backends.cpu.get_cpu_capability()}".strip()


def read_keeps(text: str) -> list[float]:
    """`.9,.7,.5` as numbers. Raises UsageError outside (0, 1]."""
    try:
        keeps = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep {text}: give numbers in (0, 1], as in .9,.7,.5") from error
    if not keeps or not all(0 < keep <= 1 for keep in keeps):
        raise UsageError(f"--keep {text}: every keep must lie in (0, 1]")
    return keeps
