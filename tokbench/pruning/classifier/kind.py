"""The kind `classifier`: vision transformers that name the class of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from tokbench.pruning.benchmark import BenchmarkConfig
from tokbench.pruning.claims import Comparison, compare_right
from tokbench.pruning.classifier import table as tables
from tokbench.pruning.classifier.benchmark import ClassifierBenchmark
from tokbench.pruning.classifier.candidates import CONTROLS, NUMBERS, known
from tokbench.pruning.classifier.models import load_classifier, open_labelled
from tokbench.pruning.classifier.result import ClassifierRow
from tokbench.pruning.kinds import ModelKind, Tables
from tokbench.pruning.methods import METHODS
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import PruningResult, labels_text
from tokbench.pruning.table import with_speeds


class Classifiers(ModelKind):
    """Accuracy is top-1, against labels of the images."""

    plural = "classifiers"
    row = ClassifierRow
    table: ClassVar[Tables] = tables
    numbers = NUMBERS
    keeps = "0.9,0.7,0.5,0.3"
    unused = ()

    def known(self, root: Path | None) -> list[str]:
        return known(root)

    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        return (*METHODS, *CONTROLS)

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> ClassifierBenchmark:
        config = BenchmarkConfig.of_request(request, (1, 32) if request.device == "cpu" else (1, 32, 128))
        classifier = load_classifier(request.model, request.device, request.root, request.allow_download)
        images = open_labelled(request.data, classifier, request.limit, request.root, request.reading)
        say(f"labels: {labels_text(images.labels.facts(images.dataset.names))}")
        return ClassifierBenchmark(classifier, images, request.device, config, request.root, say)

    def summary(self, row: ClassifierRow) -> str:
        return with_speeds(f"top-1 {100 * row.top1.value:.1f} %", row)

    def compare(
        self, number: str, first: tuple[PruningResult, ClassifierRow], second: tuple[PruningResult, ClassifierRow]
    ) -> Comparison:
        return compare_right(first, second, "num_images")


KIND = Classifiers()
