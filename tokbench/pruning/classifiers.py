"""The kind `classifier`: vision transformers that name the class of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from tokbench.pruning import table
from tokbench.pruning.benchmark import BenchmarkConfig, PruningBenchmark
from tokbench.pruning.candidates import CONTROLS, known
from tokbench.pruning.kinds import ModelKind, PruneRequest
from tokbench.pruning.methods import METHODS
from tokbench.pruning.models import load_classifier, open_labelled
from tokbench.pruning.result import PruningResult, PruningRow, labels_text


class Classifiers(ModelKind):
    """Accuracy is top-1, against labels of the images."""

    row = PruningRow
    keeps = "0.9,0.7,0.5,0.3"
    methods = (*METHODS, *CONTROLS)

    def known(self, root: Path | None) -> list[str]:
        return known(root)

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> PruningBenchmark:
        batches = request.batches
        if batches is None:
            batches = (1, 32) if request.device == "cpu" else (1, 32, 128)
        classifier = load_classifier(request.model, request.device, request.root, request.allow_download)
        images = open_labelled(request.data, classifier, request.limit, request.root, request.reading)
        say(f"labels: {labels_text(images.labels.facts(images.dataset.names))}")
        config = BenchmarkConfig(
            "eager" if request.kernel == "eager" else "sdpa", batches, request.repetitions, request.round_to,
            request.rates, request.tries,
        )  # fmt: skip
        return PruningBenchmark(
            classifier, images, request.device, config, request.root, lambda text: say(f"warning: {text}")
        )

    def summary(self, row: PruningRow) -> str:
        times = [f"batch {timing.batch}: {table.faster(timing.speedup)}" for timing in row.pace]
        return ", ".join([f"top-1 {100 * row.top1.value:.1f} %", *times])

    def legend(self, found: Sequence[PruningResult]) -> str:
        return table.legend(found)

    def markdown(self, found: Sequence[PruningResult]) -> str:
        return table.markdown(found)

    def frame(self, found: Sequence[PruningResult]) -> pd.DataFrame:
        return table.frame(found)


KIND = Classifiers()
