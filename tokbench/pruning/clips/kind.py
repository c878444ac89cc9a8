"""The kind `clip`: networks that name the class of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from tokbench.errors import UsageError
from tokbench.modalities.open import open_dataset
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.benchmark import BenchmarkConfig
from tokbench.pruning.claims import Comparison, compare_right
from tokbench.pruning.clips import table as tables
from tokbench.pruning.clips.benchmark import ClipBenchmark
from tokbench.pruning.clips.candidates import NUMBERS, known, load_network
from tokbench.pruning.clips.claims import CLAIMS
from tokbench.pruning.clips.methods import METHODS
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.kinds import ModelKind, Tables
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import with_speeds


class ClipClassifiers(ModelKind):
    """Accuracy is top-1, against labels of the clips."""

    plural = "classifiers of clips"
    row = ClipRow
    table: ClassVar[Tables] = tables
    numbers = NUMBERS
    claims = CLAIMS
    keeps = "0.25,0.125,0.0625"

    def known(self, root: Path | None) -> list[str]:
        return known(root)

    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        return tuple(METHODS)

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> ClipBenchmark:
        config = BenchmarkConfig.of_request(request, (1,))
        loaded = load_network(request.model, request.device, request.root)
        dataset = open_dataset(
            request.data, TOKBENCH, loaded.network.size, request.limit, request.root, request.reading
        )
        if dataset.modality != "video":
            raise UsageError(f"{request.model} classifies clips, and {request.data} has none; use --data sprites")
        return ClipBenchmark(loaded, dataset, request.device, config, request.root, say)

    def summary(self, row: ClipRow) -> str:
        return with_speeds(f"{100 * row.top1.value:.1f} % correct, {row.tokens:,.0f} tokens", row)

    def compare(
        self, number: str, first: tuple[PruningResult, ClipRow], second: tuple[PruningResult, ClipRow]
    ) -> Comparison:
        return compare_right(first, second, "num_images")


KIND = ClipClassifiers()
