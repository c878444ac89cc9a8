"""The kind `vlm`: vision-language models that answer questions about images with words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from tokbench.data.dataset import open_dataset
from tokbench.errors import UsageError
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.claims import Comparison, compare_right
from tokbench.pruning.kinds import ModelKind, Tables
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import faster
from tokbench.pruning.vlm import table as tables
from tokbench.pruning.vlm.benchmark import VlmBenchmark
from tokbench.pruning.vlm.claims import CLAIMS
from tokbench.pruning.vlm.hf import PREFIX, load_hf
from tokbench.pruning.vlm.methods import METHODS
from tokbench.pruning.vlm.mini import load_mini
from tokbench.pruning.vlm.model import VisionLanguageModel
from tokbench.pruning.vlm.result import VlmRow


class VisionLanguageModels(ModelKind):
    """Accuracy is the share of questions that are answered correctly."""

    plural = "vision-language models"
    row = VlmRow
    table: ClassVar[Tables] = tables
    numbers = ("accuracy",)
    claims = CLAIMS
    keeps = "0.5,0.25,0.1,0.05"

    def known(self, root: Path | None) -> list[str]:
        return list(METHODS)

    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        return tuple(METHODS)

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> VlmBenchmark:
        if request.batches not in (None, (), (1,)):
            raise UsageError("vision-language models are timed at batch 1; use --batches 1, or 0 to disable timing")
        if request.model.startswith(PREFIX):
            model: VisionLanguageModel = load_hf(request.model, request.device)
        else:
            model = load_mini(request.model, request.device, request.root)
        dataset = open_dataset(request.data, TOKBENCH, model.side, request.limit, request.root, request.reading)
        return VlmBenchmark(model, dataset, request, say)

    def summary(self, row: VlmRow) -> str:
        parts = [f"{100 * row.accuracy.value:.1f} % correct, {100 * row.applied:.0f} % of the visual tokens"]
        return ", ".join(parts + ([f"end to end: {faster(row.pace.total)}"] if row.pace else []))

    def compare(
        self, number: str, first: tuple[PruningResult, VlmRow], second: tuple[PruningResult, VlmRow]
    ) -> Comparison:
        return compare_right(first, second, "num_questions")


KIND = VisionLanguageModels()
