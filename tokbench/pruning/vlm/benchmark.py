"""The benchmark of vision-language models: answers, token counts, and time at batch 1."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.errors import UsageError
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.benchmark import Benchmark, BenchmarkConfig, FullModel, label_of
from tokbench.pruning.claims import JUDGED
from tokbench.pruning.paired_timing import rounded
from tokbench.pruning.request import Progress, PruneRequest
from tokbench.pruning.result import packed
from tokbench.pruning.vlm.measure import Answers, ask, compare, time_method
from tokbench.pruning.vlm.methods import CONTROLS, METHODS
from tokbench.pruning.vlm.mini import MiniModel, without_demonstrations
from tokbench.pruning.vlm.model import FORMULA, Asked, Prompt, VisionLanguageModel, flops, kv_bytes
from tokbench.pruning.vlm.pruner import VlmPruner
from tokbench.pruning.vlm.result import VlmRow, VlmTiming

CALIBRATION = 64
"""Images of the calibration set from which prompts are made, at most one batch of each type."""

SAMPLES = 30
"""Largest number of prompts for calibration; the authors of VFlowOpt use 30."""

COSTS = (flops, kv_bytes)


@dataclass(frozen=True)
class VlmCandidate:
    """A method at one keep."""

    method: str
    pruner: VlmPruner
    keep: float
    training: str = "none"
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def method_title(self) -> str:
        return self.pruner.title


class VlmBenchmark(Benchmark[VlmCandidate, VlmRow, Answers, Dataset]):
    """Benchmark of methods that remove visual tokens, in one model, on one data set and device."""

    kind, formula, packages = "vlm", FORMULA, ("torch", "numpy", "scikit-learn")
    sources = ("nn/vlm.py", "nn/vit.py", "nn/masks.py", "data/questions.py")

    def __init__(
        self, model: VisionLanguageModel, dataset: Dataset, request: PruneRequest, say: Callable[[str], None]
    ) -> None:
        full = FullModel(model.name, model.device, model.side, model.weights)
        super().__init__(full, dataset, BenchmarkConfig.of_request(request, (1,)), say)
        self.vlm, self.root = model, request.root
        self._calibration: list[Prompt] | None = None
        self._seconds: dict[tuple[str, float], float] = {}
        self._alone: float | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls of every table; a model that resizes all images to one size has none at lower resolution."""
        counts = {count for _, count in self.vlm.sides()}
        return CONTROLS if len(counts) > 1 else tuple(name for name in CONTROLS if name != "lower_resolution")

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[VlmCandidate]:
        if name not in METHODS:
            raise UsageError(f"unknown method '{name}'; available: {', '.join(METHODS)}")
        pruner = METHODS[name]()
        for keep in keeps:
            yield VlmCandidate(name, pruner, keep)

    def measure_whole(self, progress: Progress) -> Answers:
        model, dataset = self.vlm, self.dataset
        if isinstance(model, MiniModel) and model.several:
            alone = ask(model, dataset, None, 1.0, partial(progress, "queries alone"), without_demonstrations)
            self._alone = float(alone.right.mean())
        return ask(model, dataset, None, 1.0, partial(progress, "whole questions"))

    @property
    def quality(self) -> str:
        right = 100 * self.full.right.mean()
        return f"with all tokens, {right:.1f} % of the answers are correct; below {100 * JUDGED:.0f} %"

    @property
    def num_images(self) -> int:
        return len(self.dataset.names)

    @property
    def short(self) -> bool:
        return bool(self.full.right.mean() < JUDGED)

    def first_prompt(self) -> Asked:
        return next(iter(self.vlm.questions(self.dataset, 1))).first(1)

    def calibrate(self, candidate: VlmCandidate) -> float:
        """Choose the parameters of a method that has some, once; return the seconds that this took."""
        pruner, keep = candidate.pruner, candidate.keep
        if not pruner.calibrates or keep == 1:
            return 0.0
        if self._calibration is None:
            model = self.vlm
            images = open_dataset(model.calibration, TOKBENCH, None, CALIBRATION, self.root)
            asked = list(model.questions(images, CALIBRATION))
            share = max(1, SAMPLES // len(asked))
            self._calibration = [model.embed(one.first(share), model.side) for one in asked]
        key = candidate.method, keep
        if key not in self._seconds:
            start = time.monotonic()
            pruner.calibrate(self.vlm, self._calibration, keep)
            self._seconds[key] = time.monotonic() - start
        return self._seconds[key]

    def row(self, candidate: VlmCandidate, progress: Progress) -> VlmRow:
        pruner, keep, whole, seconds = candidate.pruner, candidate.keep, self.full, self.calibrate(candidate)
        sizes = self.vlm.sizes
        own = ask(self.vlm, self.dataset, pruner, keep, partial(progress, f"{label_of(candidate)} questions"))
        accuracy, gap, types = compare(own, whole)
        total = float(whole.visual.mean())
        applied = float(own.visual.mean()) / total
        if keep < 1 and applied >= 1:
            raise UsageError(
                f"no visual token was removed from any of {len(own.ids)} prompts at keep {keep:g}, so there is nothing "
                "to measure: the method does not reduce the tokens of this model"
            )
        costs = {
            key: [float(sum(of(sizes, lengths) for lengths in found.lengths.tolist())) / len(found.ids) for of in COSTS]
            for key, found in (("own", own), ("whole", whole))
        }
        parameters = getattr(pruner, "parameters", {}).get(keep)
        return VlmRow(
            title=pruner.title,
            accuracy=accuracy,
            gap=gap,
            types=types,
            right=packed(own.right),
            applied=rounded(applied),
            visual=[rounded(value) for value in own.visual.mean(0).tolist()],
            tokens=[rounded(value) for value in own.lengths.mean(0).tolist()],
            side=pruner.side(self.vlm, keep),
            gflops=costs["own"][0] / 1e9,
            whole_gflops=costs["whole"][0] / 1e9,
            kv_bytes=costs["own"][1],
            whole_kv_bytes=costs["whole"][1],
            parameters_seconds=round(seconds, 1),
            parameters={} if parameters is None else asdict(parameters),
        )

    def time(self, candidate: VlmCandidate, batch: int) -> VlmTiming:
        self.calibrate(candidate)
        repetitions = self.config.repetitions
        return time_method(self.vlm, self.first_prompt(), candidate.pruner, candidate.keep, repetitions)

    def about(self, candidate: VlmCandidate) -> dict[str, Any]:
        full = self.full
        whole = {
            "accuracy": rounded(float(full.right.mean())),
            "types": {kind: int(sum(one == kind for one in full.kinds)) for kind in sorted(set(full.kinds))},
        }
        if self._alone is not None:
            whole["without_demonstrations"] = rounded(self._alone)
        return super().about(candidate) | {
            "source": candidate.pruner.source,
            "num_questions": len(full.ids),
            "whole": whole,
        }
