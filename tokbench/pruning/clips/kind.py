"""The kind `clip`: classifiers of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from tokbench.errors import UsageError
from tokbench.modalities.open import open_dataset
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.clips import table
from tokbench.pruning.clips.benchmark import ClipBenchmark, load_clip_classifier
from tokbench.pruning.clips.methods import METHODS
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.kinds import ModelKind, PruneRequest, kind_of_model
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import faster
from tokbench.tokenizers.registry import network_files


class ClipClassifiers(ModelKind):
    """Accuracy is the share of clips whose most likely class is correct."""

    row = ClipRow
    keeps = "0.25,0.125,0.0625"
    methods = tuple(METHODS)

    def known(self, root: Path | None) -> list[str]:
        return [*METHODS, *(name for name in network_files(root) if kind_of_model(name, root) == "clip")]

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> ClipBenchmark:
        if request.rates is not None or request.round_to != 1 or request.kernel != "sdpa":
            raise UsageError("--rates, --round-to and --kernel are options of classifiers of images; leave them out")
        model = load_clip_classifier(request.model, request.device, request.root)
        dataset = open_dataset(request.data, TOKBENCH, model.network.size, request.limit, request.root, request.reading)
        if dataset.modality != "video":
            raise UsageError(f"{request.model} classifies clips, and {request.data} has none; use --data sprites")
        return ClipBenchmark(model, dataset, request)

    def summary(self, row: ClipRow) -> str:
        times = [f"batch {timing.batch}: {faster(timing.speedup)}" for timing in row.pace]
        return ", ".join([f"{100 * row.top1.value:.1f} % correct, {row.tokens:,.0f} tokens", *times])

    def legend(self, found: Sequence[PruningResult]) -> str:
        return table.legend(found)

    def markdown(self, found: Sequence[PruningResult]) -> str:
        return table.markdown(found)

    def frame(self, found: Sequence[PruningResult]) -> pd.DataFrame:
        return table.frame(found)


KIND = ClipClassifiers()
